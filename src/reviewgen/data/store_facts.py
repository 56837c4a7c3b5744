"""The facts of a prepared token store, as strict settings: what ``store.json`` says is checked before anything relies on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from reviewgen.conditions import Conditions
from reviewgen.config import Bound, check, from_dict
from reviewgen.data.cleaning import CleaningReport
from reviewgen.data.corpus import SPLITS, DataConfig
from reviewgen.data.store_folder import STORE_FILE, StoreFolder
from reviewgen.errors import ConfigError, DataError

__all__ = ["check_facts"]

_BYTES_OF_A_TEXT = 16  # in the index of a shard; so the counts cannot be larger than the files allow


class _Checked:
    """A dataclass whose values have the types and bounds of its fields."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class _Facts(_Checked):
    """All facts; each object is checked on its own."""

    preset: str
    tokenizer: dict[str, Any]
    reading: dict[str, Any]
    conditions: tuple[dict[str, Any], ...]
    corpus: dict[str, Any]
    novelty: dict[str, Any]
    near_duplicates: float | None
    decontaminate: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Tokenizer(_Checked):
    name: str
    package: str
    version: str
    settings: dict[str, Any]
    digest: str


@dataclass(frozen=True, kw_only=True)
class _Corpus(_Checked):
    fingerprint: str
    texts: dict[str, Any]
    source: dict[str, Any]
    validation: dict[str, Any] | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Texts(_Checked):
    train: Annotated[int, Bound(at_least=0)]
    validation: Annotated[int, Bound(at_least=0)]
    test: Annotated[int, Bound(at_least=0)]


@dataclass(frozen=True, kw_only=True)
class _Source(_Checked):
    stream: dict[str, Any]
    cleaning: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Stream(_Checked):
    name: str
    text_column: str | None
    columns: tuple[str, ...]
    guessed: bool
    preview: tuple[str, ...]
    decode_errors: int
    notes: tuple[str, ...]
    is_one_text: bool


@dataclass(frozen=True, kw_only=True)
class _Novelty(_Checked):
    form: str
    megabytes: float


def check_facts(store: StoreFolder) -> None:
    """Raise unless the facts of a prepared store are complete and of the right types, and fit the sizes of its files.

    Raises:
        DataError: They are not.
    """
    try:
        facts = from_dict(_Facts, store.facts)
        from_dict(_Tokenizer, facts.tokenizer)
        from_dict(DataConfig, facts.reading)
        from_dict(_Novelty, facts.novelty)
        if facts.conditions:
            Conditions.from_json(list(facts.conditions))
        _check_corpus(from_dict(_Corpus, facts.corpus), sum(file["size"] for file in store.content["files"].values()))
    except ConfigError as error:
        raise DataError(f"The token store {store.name} is damaged: of its {STORE_FILE}, {error} Prepare it again.") from None


def _check_corpus(corpus: _Corpus, size: int) -> None:
    texts = from_dict(_Texts, corpus.texts)
    if _BYTES_OF_A_TEXT * sum(getattr(texts, split) for split in SPLITS) > size:
        raise ConfigError("texts are more than the files have room for.")
    for each in (corpus.source, corpus.validation):
        if each is not None:
            _check_source(from_dict(_Source, each))


def _check_source(source: _Source) -> None:
    from_dict(_Stream, source.stream)
    check(from_dict(CleaningReport, _counts(source.cleaning)))


def _counts(cleaning: Mapping[str, Any]) -> Mapping[str, Any]:
    if any(isinstance(count, int) and count < 0 for count in cleaning.values()):
        raise ConfigError("a count of the cleaning is negative.")
    return cleaning
