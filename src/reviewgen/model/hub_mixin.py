"""HubMixin: how a ReviewModel is saved, loaded and published, by the names of huggingface_hub's ModelHubMixin.

Joins ``bundle``, ``loading`` and ``sharing``, each imported where it is needed.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from reviewgen.bundle import Bundle
from reviewgen.errors import ConfigError

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from reviewgen.model.review_model import ReviewModel

__all__ = ["HubMixin"]


class HubMixin:
    """The methods of a ReviewModel that cross the border of a process."""

    _bundle: Bundle

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        bits: int = 32,
    ) -> "ReviewModel":
        """Return a trained model: ``reviewgen.load`` under huggingface_hub's name, which says what the arguments mean."""
        from reviewgen.model.loading import load

        return load(
            pretrained_model_name_or_path,
            bits=bits,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        overwrite: bool = False,
        dtype: Literal["float32", "float16"] = "float32",
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Save everything as one folder, which ``reviewgen.load`` reads.

        Args:
            save_directory: The folder.
            overwrite: Whether a saved model that is there may be replaced.
            dtype: What the weights of a network are saved as; "float16" takes half the room and rounds them to 11 bits.
            repo_id: Where to publish it.
            push_to_hub: Whether to publish it, too, which returns the address of the commit; ``push_to_hub_kwargs`` are then the
                arguments of ``push_to_hub``.

        Raises:
            OutputExists: The folder is there and ``overwrite`` is false, or what is there is no saved model.
            StorageError: There is no room, or the place may not be written.
            ConfigError: The dtype is unknown, or the model is no network.
            NotPublished, HubError, SourceError: As ``push_to_hub``; of these only the last is raised before it is saved.
        """
        from reviewgen.bundle.write import write_bundle

        if not push_to_hub and (repo_id is not None or push_to_hub_kwargs):
            names = [*([] if repo_id is None else ["repo_id"]), *push_to_hub_kwargs]
            raise ConfigError(f"{', '.join(names)} needs push_to_hub=True.")
        if push_to_hub and repo_id is None:
            raise ConfigError("To publish a model give its repository: repo_id='owner/name'.")
        if push_to_hub:
            from reviewgen.model.sharing import find_target

            find_target(str(repo_id), push_to_hub_kwargs.get("revision"))
        write_bundle(self._bundle, Path(save_directory).expanduser(), overwrite=overwrite, dtype=dtype)
        return self.push_to_hub(str(repo_id), dtype=dtype, **push_to_hub_kwargs) if push_to_hub else None

    def generate_model_card(
        self,
        *,
        source: str | None = None,
        license: str | None = None,
        language: str | Sequence[str] | None = None,
        datasets: str | Sequence[str] | None = None,
        tags: Sequence[str] = (),
    ) -> "ModelCard":
        """Return a new card, as ``push_to_hub`` writes where there is none; ``str`` of this ModelCard is Markdown.

        Args:
            source: What its snippet loads.
            license, language, datasets, tags: For the Hub's metadata.

        Raises:
            ConfigError: A part of the metadata is not text.
            BundleError: What is recorded of the training is damaged.
        """
        from huggingface_hub import ModelCard

        from reviewgen.model.sharing import make_card

        wishes = {"license": license, "language": language, "datasets": datasets, "tags": tags}
        return ModelCard(make_card(cast("ReviewModel", self), source=source, **wishes))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        allow_patterns: list[str] | str | None = None,
        ignore_patterns: list[str] | str | None = None,
        delete_patterns: list[str] | str | None = None,
        license: str | None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
        allow: Collection[str] = (),
        copy_limit: float = 0.5,
        dtype: Literal["float32", "float16"] | None = None,
    ) -> str:
        """Publish the model on the Hugging Face Hub, and return the address of the commit.

        Before that 200 texts that it writes and the pieces of its vocabulary are looked over for e-mail addresses, telephone
        numbers, web addresses and handles, and the texts for what they copy: a check, not a guarantee. The card is written anew;
        one that somebody has edited, here or in the repository, is kept. To publish again what has not changed makes no commit.

        >>> model.push_to_hub("ana/music-reviews", license="apache-2.0", private=True)       # doctest: +SKIP

        Args:
            repo_id: ``owner/name``, with or without ``@revision``; made where it is not there.
            commit_message: The first line of the commit.
            private: Whether a new repository is private; by default as the owner has set.
            token: By default that of ``hf auth login`` or HF_TOKEN.
            revision: The branch; main by default, made where it is not there.
            create_pr: Whether to open a pull request instead.
            allow_patterns, ignore_patterns: Which files to upload.
            delete_patterns: Which files of the repository to delete in the same commit.
            license: As the Hub spells it, as in "apache-2.0" or "mit".
            model_card_kwargs: More for the card: language, datasets, tags.
            allow: What may be published all the same: email, url, phone, handle, copies, license, and text, the whole training
                text in the index of a training with ``novelty=exact``.
            copy_limit: The largest share of the texts' 20-token windows that may stand in the training text.
            dtype: What the weights of a network are published as; by default as they were saved, or "float32".

        Raises:
            NotPublished: The model should not be published as it is; says why.
            HubError: The Hub was not reached, or said no.
            SourceError: ``repo_id`` is no repository.
            ConfigError: An argument is unknown or out of range, or contradicts a card that is kept.
            BundleError: The folder from which the model was loaded is gone or damaged.
            StorageError: There is no room for a copy.
        """
        from reviewgen.model.sharing import publish

        return publish(
            cast("ReviewModel", self),
            repo_id,
            commit_message=commit_message,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
            delete_patterns=delete_patterns,
            license=license,
            model_card_kwargs=model_card_kwargs,
            allow=allow,
            copy_limit=copy_limit,
            dtype=dtype,
        )
