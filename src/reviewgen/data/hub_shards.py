"""Streams a dataset of the Hub, whole or one of its own shards, so that several processes may share it. Knows no columns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reviewgen.data.lines import MAX_TEXT_CHARACTERS
from reviewgen.data.shards import raise_data_errors
from reviewgen.hub_client import guard_client

__all__ = ["HubShard", "open_dataset"]


@dataclass(frozen=True)
class HubShard:
    """One of the shards of a split of a dataset, of a commit.

    Attributes:
        name: The name of the source, for messages.
        repo_id: The repository.
        commit: The commit, so that all processes read the same.
        split: The split.
        index: The number of the shard, from 0.
        count: The number of shards.
        max_characters: The maximum number of characters of a text.
    """

    name: str
    repo_id: str
    commit: str
    split: str
    index: int
    count: int
    max_characters: int = MAX_TEXT_CHARACTERS

    def parts(self) -> "list[HubShard]":
        """Return all shards of the dataset."""
        return [replace(self, index=index) for index in range(self.count)]

    def facts(self) -> list[Any]:
        """Return what identifies the dataset, as JSON values."""
        return [self.repo_id, self.commit, self.split, self.count]

    def records(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield the records of the shard; ``columns`` are those that are needed, None all.

        Raises:
            DataError: The shard cannot be read.
        """
        return raise_data_errors(self._read(columns), f"{self.name}, shard {self.index + 1} of {self.count},")

    def _read(self, columns: Sequence[str] | None) -> Iterator[Any]:
        shard = open_dataset(self.repo_id, self.commit)[self.split].shard(self.count, self.index)
        for record in shard:
            yield record if columns is None else {name: record.get(name) for name in columns}


def open_dataset(repo_id: str, revision: str | None) -> Any:
    """Return the splits of a dataset as streams; the client raises what it likes."""
    from datasets import load_dataset  # half a second

    guard_client()
    return load_dataset(repo_id, revision=revision, streaming=True)
