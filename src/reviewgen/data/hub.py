"""Finds a dataset of the Hub, with its subset and split, and streams its shards, which several processes may share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reviewgen.data.tables import batched
from reviewgen.errors import HubError, ReviewgenError, did_you_mean, first_line, shortened
from reviewgen.hub_client import guard_client
from reviewgen.names import HubSource


@dataclass(frozen=True)
class HubSplit:
    """One split of a subset of a dataset.

    Attributes:
        repo_id: The repository.
        commit: The commit, so that all processes read the same; None if it is not known.
        subset: The subset; None for the only one.
        split: The split.
        shards: The number of shards.
        splits: The splits that the subset has; none for a cleaned corpus, each of whose texts has its own.
        notes: Sentences for the user.
        is_cleaned: Whether it is a cleaned corpus that was pushed.
    """

    repo_id: str
    commit: str | None
    subset: str | None
    split: str
    shards: int
    splits: Sequence[str]
    notes: list[str]
    is_cleaned: bool


def find_dataset(hub: HubSource, subset: str | None, split: str | None) -> HubSplit:
    """Return a split of a dataset: by default train, or the first one if it has no train.

    Raises:
        HubError: The dataset cannot be opened, or has no such subset or split; the message lists those it has.
    """
    from datasets import get_dataset_config_names  # half a second
    from huggingface_hub import HfApi

    guard_client()
    try:
        commit = HfApi().dataset_info(hub.repo_id, revision=hub.revision).sha
        subsets = get_dataset_config_names(hub.repo_id, revision=commit)
        subset = _choose("subset", subset, subsets, "default" if "default" in subsets else None, hub.repo_id)
        splits = _open(hub.repo_id, commit, subset)
        chosen = _choose("split", split, list(splits), "train" if "train" in splits else next(iter(splits)), hub.repo_id)
        shards, features = splits[chosen].num_shards, splits[chosen].features or {}
    except ReviewgenError:
        raise
    except Exception as error:  # the client raises types of its own, of httpx and of the operating system
        hint = "Check the name and the network; without one, give a file, or 'reviews' (pip install 'reviewgen[reviews]')."
        raise HubError(f"The Hub dataset {hub} cannot be opened: {shortened(first_line(error), 250)}. {hint}") from None
    others = [name for name in splits if name != chosen]
    notes = [f"Split {chosen!r} of {hub.repo_id} is read; not read: {', '.join(others)}."] if others and split is None else []
    is_cleaned = getattr(features.get("split"), "names", None) == ["train", "validation", "test"] and "text" in features
    return HubSplit(hub.repo_id, commit, subset, chosen, shards, () if is_cleaned else list(splits), notes, is_cleaned)


def _choose(kind: str, wanted: str | None, names: Sequence[str], default: str | None, repo_id: str) -> str:
    if wanted is None and (default is not None or len(names) == 1):
        return default or names[0]
    if wanted is None:
        raise HubError(
            f"The Hub dataset {repo_id} has several {kind}s: {', '.join(names)}. Name one with --{kind} ({kind} in Python)."
        )
    if wanted not in names:
        raise HubError(f"The Hub dataset {repo_id} has no {kind} {wanted!r}. {did_you_mean(wanted, names)}")
    return wanted


def _open(repo_id: str, commit: str | None, subset: str | None) -> Any:
    from datasets import load_dataset

    guard_client()
    return load_dataset(repo_id, subset, revision=commit, streaming=True)


def read_shard(found: HubSplit, number: int, columns: Sequence[str] | None = None) -> Iterator[list[Any]]:
    """Yield the records of a shard; of a cleaned corpus, the splits as their names."""
    stream = _open(found.repo_id, found.commit, found.subset)[found.split]
    shard = stream if found.shards == 1 else stream.shard(found.shards, number)
    for chunk in batched(shard):
        yield (
            [{**record, "split": ("train", "validation", "test")[record["split"]]} for record in chunk]
            if found.is_cleaned
            else chunk
        )
