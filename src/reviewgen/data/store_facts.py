"""The facts of a prepared token store, as strict settings: what ``store.json`` says is checked before anything relies on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from reviewgen.conditions import Conditions
from reviewgen.config import Bound, from_dict
from reviewgen.config.settings import check_value, fields_of
from reviewgen.data.cleaning import CleaningReport
from reviewgen.data.corpus import SPLITS, DataConfig
from reviewgen.data.store_folder import STORE_FILE, StoreFolder
from reviewgen.errors import ConfigError, DataError

__all__ = ["check_facts"]

T = TypeVar("T")

_BYTES_OF_A_TEXT = 16  # in the index of a shard; so the counts cannot be larger than the files allow


@dataclass(frozen=True, kw_only=True)
class _Facts:
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
    job: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Tokenizer:
    name: str
    package: str
    version: str
    settings: dict[str, Any]
    digest: str


@dataclass(frozen=True, kw_only=True)
class _Corpus:
    fingerprint: str
    texts: dict[str, Any]
    source: dict[str, Any]
    validation: dict[str, Any] | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Texts:
    train: Annotated[int, Bound(at_least=0)]
    validation: Annotated[int, Bound(at_least=0)]
    test: Annotated[int, Bound(at_least=0)]


@dataclass(frozen=True, kw_only=True)
class _Source:
    stream: dict[str, Any]
    cleaning: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Stream:
    name: str
    text_column: str | None
    columns: tuple[str, ...]
    guessed: bool
    preview: tuple[str, ...]
    decode_errors: int
    notes: tuple[str, ...]
    is_one_text: bool


@dataclass(frozen=True, kw_only=True)
class _Novelty:
    form: str
    megabytes: float


def check_facts(store: StoreFolder) -> None:
    """Raise unless the facts of a prepared store are complete and of the right types, and fit the sizes of its files.

    Raises:
        DataError: They are not.
    """
    try:
        facts = _read(_Facts, store.facts)
        _read(_Tokenizer, facts.tokenizer)
        _read(DataConfig, facts.reading)
        _read(_Novelty, facts.novelty)
        if facts.conditions:
            Conditions.from_json(list(facts.conditions))
        _check_corpus(_read(_Corpus, facts.corpus), sum(file["size"] for file in store.content["files"].values()))
    except ConfigError as error:
        raise DataError(f"The token store {store.name} is damaged: of its {STORE_FILE}, {error} Prepare it again.") from None


def _read(cls: type[T], values: Mapping[str, Any]) -> T:
    """Create a dataclass from JSON values, each checked before.

    Raises:
        ConfigError: A key is unknown or missing, or a value has the wrong type or is out of range.
    """
    for name, hint in fields_of(cls).items():
        if name in values:
            value = values[name]
            check_value(name, tuple(value) if isinstance(value, list) else value, hint)
    return from_dict(cls, values)


def _check_corpus(corpus: _Corpus, size: int) -> None:
    texts = _read(_Texts, corpus.texts)
    if _BYTES_OF_A_TEXT * sum(getattr(texts, split) for split in SPLITS) > size:
        raise ConfigError("texts are more than the files have room for.")
    for each in (corpus.source, corpus.validation):
        if each is not None:
            _check_source(_read(_Source, each))


def _check_source(source: _Source) -> None:
    _read(_Stream, source.stream)
    _read(CleaningReport, _counts(source.cleaning))


def _counts(cleaning: Mapping[str, Any]) -> Mapping[str, Any]:
    if any(isinstance(count, int) and count < 0 for count in cleaning.values()):
        raise ConfigError("a count of the cleaning is negative.")
    return cleaning
