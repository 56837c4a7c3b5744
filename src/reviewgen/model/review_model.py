"""ReviewModel: a trained model and its tokenizer as one thing that generates, scores, evaluates and saves itself.

Joins the rooms below and adds no logic of its own. What only measuring and saving need is imported there: a model that only
writes loads no torch, where its plugin has a stepper that needs none.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from reviewgen.bundle import Bundle
from reviewgen.conditions import Conditions
from reviewgen.config import GenerationConfig
from reviewgen.errors import ConfigError
from reviewgen.model.next_tokens import NextTokens
from reviewgen.model.request import GenerateOptions, make_request
from reviewgen.model.texts import Generation
from reviewgen.model.walk import Walk
from reviewgen.model.writing import Writing
from reviewgen.novelty import Novelty
from reviewgen.protocols import Tokenizer

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from reviewgen.evaluation import Evaluation, Score
    from reviewgen.protocols import LanguageModel

__all__ = ["ReviewModel"]


class ReviewModel:
    """A trained model and its tokenizer.

    >>> model = reviewgen.load("lstm-word")                                     # doctest: +SKIP
    >>> model.generate("the ", num_return_sequences=3, seed=1)                  # doctest: +SKIP
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._writing = Writing(bundle)

    @property
    def model(self) -> "LanguageModel":
        """The language model; who asks for it may change its weights, so ``digest`` is None from then on."""
        return self._bundle.weights.expose()

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self._bundle.tokenizer

    @property
    def bundle(self) -> Bundle:
        """All that is saved: the model, the tokenizer, where both come from, and what is known of the training."""
        return self._bundle

    @property
    def preset(self) -> str:
        """The name of the preset that it was trained from."""
        return self._bundle.preset

    @property
    def tokenizer_name(self) -> str:
        """The name of the tokenizer's plugin, as in "word"."""
        return self._bundle.tokenizer_plugin.name

    @property
    def conditions(self) -> Conditions:
        """What it was trained to obey, and the ids that stand for it; empty for a model without conditions."""
        return self._bundle.conditions or Conditions(first_id=self.tokenizer.vocab_size)

    @property
    def generation_config(self) -> GenerationConfig:
        """The generation defaults that were saved with the model."""
        return self._bundle.generation

    @property
    def digest(self) -> str | None:
        """SHA-256 of the files of its folder that texts depend on; None where it has none, or its model was asked for."""
        return None if self._bundle.weights.is_exposed else self._digest

    @cached_property
    def _digest(self) -> str | None:
        return self._bundle.digest()

    @property
    def bits(self) -> int:
        """Bits of a weight while it writes; see ``reviewgen.load``."""
        return self._bundle.weights.bits

    @property
    def training(self) -> dict[str, Any]:
        """What is known of the training: data, split, steps, hardware, seconds, metrics; JSON values."""
        return self._bundle.training

    def __repr__(self) -> str:
        return f"ReviewModel({self.preset!r}, vocab_size={self.tokenizer.vocab_size})"

    @overload
    def generate(self, prompt: str | Sequence[str] = "", **options: Unpack[GenerateOptions]) -> list[str]: ...

    @overload
    def generate(
        self, prompt: str | Sequence[str] = "", *, return_dict_in_generate: Literal[True], **options: Unpack[GenerateOptions]
    ) -> list[Generation]: ...

    def generate(
        self,
        prompt: str | Sequence[str] = "",
        *,
        return_dict_in_generate: bool = False,
        **options: Unpack[GenerateOptions],
    ) -> list[str] | list[Generation]:
        """Write reviews.

        Args:
            prompt: What each text begins with, or a list of such beginnings; any text works, the empty one too.
            return_dict_in_generate: Return each text with all that is known of it.
            generation_config: A GenerationConfig, or a mapping of some of its settings, in place of the model's defaults. Each
                setting may also be given by name, for this call: max_new_tokens, min_new_tokens, num_return_sequences,
                do_sample, num_beams, length_penalty, temperature, top_k, top_p, min_p, repetition_penalty,
                no_repeat_ngram_size, stop_strings, max_time, finish; ``GenerationConfig`` says what they mean.
            logits_processor, stopping_criteria, streamer: transformers' objects, or functions like them; they get the ids
                (1, T) that the model has read, bos first, and scores (1, V).
            seed: Same seed, same texts, whatever is written beside them (of a model without a stepper of its own, as far as its
                call gives a row the same logits in any batch). None draws a fresh one.
            novelty: "report" says of each text what of it was copied; "filter" also lets no token complete a copied span of
                more than ``max_copy`` tokens, as far as the index knows.
            max_copy: For "filter"; about 50 characters if not given.
            conditions: Values of the conditions that the model was trained with, as in {"stars": 5}; those left out are any.
            must_include: A string, or several, that each text must hold, upper or lower case; texts are drawn until some hold
                them all, 128 at most, and the most probable of these is taken.

        Returns:
            One text for each prompt and repetition, prompt by prompt, the prompt included. With ``novelty`` each is a
            ``GeneratedText``, a string that also has ``novelty`` and ``exceeds_max_copy``; with ``return_dict_in_generate`` a
            ``Generation``.

        Raises:
            ConfigError: A setting is unknown or out of range, or does not go with another.
            DataError: ``novelty`` is asked for, and the model has no index of its training text.
            GenerationError: No token can be drawn, or nothing written holds what it must include.
        """
        request = make_request(prompt, self.generation_config, options)
        rows = self._writing.rows(request)
        if return_dict_in_generate:
            return [self._writing.generation(row, request, number) for number, row in enumerate(rows)]
        return [row.text if request.novelty is None else self._writing.with_novelty(row) for row in rows]

    def generate_one(self, prompt: str = "", **options: Unpack[GenerateOptions]) -> str:
        """Write one review; takes what ``generate`` takes."""
        if not isinstance(prompt, str):
            raise ConfigError(f"generate_one takes one prompt, a string; got {type(prompt).__name__}. generate takes a list.")
        if options.get("num_return_sequences") not in (None, 1):
            raise ConfigError(
                f"generate_one writes one text; num_return_sequences={options['num_return_sequences']} asks for more."
            )
        return self.generate(prompt, **options)[0]

    def generate_each(
        self, prompt: str | Sequence[str] = "", *, first: int = 0, **options: Unpack[GenerateOptions]
    ) -> Iterator[Generation]:
        """Yield the texts of ``generate`` one after another as they are written, from number ``first`` on; raises as it does.

        No text is begun once ``max_time`` is over, so there may be fewer.
        """
        request = make_request(prompt, self.generation_config, options)
        if not isinstance(first, int) or isinstance(first, bool) or first < 0:
            raise ConfigError(f"first must be a whole number of at least 0; got {first!r}.")
        rows = self._writing.rows(request, first, begins_late=False)
        return (self._writing.generation(row, request, number) for number, row in enumerate(rows, first))

    def stream(self, prompt: str = "", **options: Unpack[GenerateOptions]) -> Iterator[str]:
        """Yield one review piece by piece as it is written, the prompt first; joined, the text of ``generate_one``.

        The pieces are characters where the tokenizer's are, and never a part of a character. Takes what ``generate`` takes but
        num_beams, must_include, finish and novelty="filter", which need the whole text.
        """
        request = make_request(prompt, self.generation_config, options)
        if len(request.prompts) != 1:
            raise ConfigError(f"stream writes one text; this call asks for {len(request.prompts)}.")
        if request.config.num_beams > 1 or request.may_take_back:
            raise ConfigError(
                "num_beams, must_include, finish and novelty='filter' need the whole text, so they do not go with stream."
            )
        return self._writing.stream(request)

    def next_tokens(
        self, text: str = "", *, k: int = 10, temperature: float = 1.0, conditions: Mapping[str, Any] | None = None
    ) -> NextTokens:
        """Return the k most probable tokens after a text, the entropy, and for a model that counts the counts behind them.

        The probabilities are those of an unfiltered draw. The empty text is the start of a review; any text is read as the
        tokenizer spells it, so after word pieces leave out a last space, which is part of the next piece.

        Args:
            text: What stands before.
            k: How many tokens.
            temperature: 1 gives the model's own probabilities.
            conditions: As ``generate`` takes them.

        Raises:
            ConfigError: The text is no string, k no whole number of at least 1, the temperature no number above 0, or a
                condition unknown.
            GenerationError: The logits are no numbers, or leave no token.
        """
        return self.walk(text, temperature=temperature, conditions=conditions).next_tokens(k)

    def walk(
        self,
        text: str = "",
        *,
        temperature: float = 1.0,
        conditions: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> Walk:
        """Return a text to take forward and back, token by token; ``Walk`` says how. Raises as ``next_tokens`` does."""
        stepper, given = self._bundle.weights.stepper(), self.conditions.encode({} if conditions is None else conditions)
        return Walk(stepper, self.tokenizer, self._writing.pieces, text, given, temperature=temperature, seed=seed)

    def evaluate(
        self,
        source: Any,
        *,
        split: str = "all",
        text_column: str | None = None,
        documents: str = "line",
        lowercase: bool | None = None,
        strip_markdown: bool | None = None,
        clean: bool | None = None,
    ) -> "Evaluation":
        """Measure the model on a source of texts, in bits per character.

        Its conditions are read from the source's columns of the same names; a text without one may be any.

        Args:
            source: See ``reviewgen.data.sources.open_texts``.
            split: "all", or a part of the hash split of the source: "train", "validation" or "test".
            text_column: The column that holds the text; guessed if not given.
            documents: How a txt file is cut: "line", "paragraph" or "file".
            lowercase, strip_markdown, clean: How to clean; None does what the training did.

        Raises:
            DataError: The source cannot be read or holds nothing to evaluate.
            ConfigError: The split is unknown, or would not be that of the training.
        """
        from reviewgen.data import read_documents, trained_on
        from reviewgen.evaluation import evaluate_documents

        texts = read_documents(
            source,
            self.tokenizer,
            trained_on(self.training),
            split=split,
            text_column=text_column,
            documents=documents,
            conditions=self.conditions,
            lowercase=lowercase,
            strip_markdown=strip_markdown,
            clean=clean,
        )
        return evaluate_documents(self._bundle.model, texts, self.tokenizer.vocab_size, given=len(self.conditions))

    def novelty(self, text: str) -> Novelty:
        """Return what of a text stands in the training text: copied spans, and shares of its windows of 8, 12 and 20 tokens.

        Raises:
            ConfigError: The text is no string.
            DataError: The model has no index of its training text.
        """
        if not isinstance(text, str):
            raise ConfigError(f"The text must be a string; got {type(text).__name__}.")
        return self._writing.index.examine(self.tokenizer.encode(text), self.tokenizer.decode)

    def score(self, text: str, *, conditions: Mapping[str, Any] | None = None) -> "Score":
        """Return the bits that a text takes, in all, per character and per token, under conditions as in ``{"stars": 5}``.

        Raises:
            DataError: The text is empty.
            ConfigError: A condition or its value is unknown.
        """
        from reviewgen.evaluation import score_text

        return score_text(self._bundle.model, self.tokenizer, text, self.conditions.encode(conditions or {}))

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
        return ModelCard(make_card(self, source=source, **wishes))

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
            self,
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
