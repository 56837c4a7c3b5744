"""Turn records into examples: choose the columns of the text and of the conditions. This module
does not read files.

A *record* is a string, or a mapping of column to value. An *example* is a text with its condition
values.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, TypeAlias

from reviewgen.conditions import finite_number, is_missing
from reviewgen.config.options import TrainingTextOptions
from reviewgen.config.settings import check, to_dict
from reviewgen.errors import ConfigError, DataError, did_you_mean, quoted

Example: TypeAlias = tuple[str, Sequence[str | float | None]]
"""A text and one value for each condition, in order: a string, a finite number, or None if the
value is missing.
"""

_CLEANING = (
    "clean",
    "lowercase",
    "strip_markdown",
    "fix_encoding",
    "keep_line_breaks",
    "drop_repeated_lines",
    "keep_space",
)
_PREVIEW = 1000  # max characters of a text in the preview
# the usual names of a column of text, the most probable first
_USUAL_NAMES = (
    "text review review_text reviewtext content body review_body comment caption description"
)
USUAL_NAMES = frozenset(_USUAL_NAMES.split())
# matches an id, a date, a URL, a path or an address
_CODE = re.compile(r"[!-~]*[\d_/@\\:=#][!-~]*|[!-~]*\w\.\w[!-~]*")
_WORD = re.compile(r"[^\W\d_]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
# words of dates and times, which do not make a value a text
_DATES = (
    "january february march april may june july august september october november december monday"
    " tuesday wednesday thursday friday saturday sunday sept tues thur am pm t z utc gmt st nd"
    " rd th"
)
_DATE_WORDS = frozenset(_DATES.split()) | {word[:3] for word in _DATES.split()}


@dataclass(frozen=True, kw_only=True)
class DataConfig(TrainingTextOptions):
    """Checked settings for reading and cleaning a source.

    Attributes:
        width: The width that the texts are wrapped at, in characters; None detects it from the
            first texts.
        repeated_lines: The lines that ``drop_repeated_lines`` drops; None detects them in the
            texts.
        keep_space: Keep the white space around a text. It is set for models that were trained this
            way, since the split of a text depends on the hash of its characters.

    Raises:
        ConfigError: A value is of the wrong type or not allowed, or a condition is named twice.
    """

    width: int | None = None
    repeated_lines: tuple[str, ...] | None = None
    keep_space: bool = False

    def __post_init__(self) -> None:
        check(self)
        if len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"A condition is named twice: {', '.join(self.columns)}.")
        if reserved := {"text", "split"}.intersection(self.columns):
            raise ConfigError(
                f"A condition cannot be named {reserved.pop()!r}, the name of a column of the"
                " corpus: rename it."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the conditions, followed by those of the fields."""
        return (*self.conditions, *self.fields)

    @property
    def cleaning(self) -> dict[str, bool]:
        """The options of the ``Cleaner``."""
        return {name: getattr(self, name) for name in _CLEANING}

    def facts(self) -> dict[str, Any]:
        """Return the settings that the texts depend on, as JSON values.

        The length limit and ``num_proc`` are left out. Newer options are included only if they are
        set, so that the facts of older corpora stay equal.
        """
        unset = {name for name in ("weights", "fields") if not getattr(self, name)}
        left_out = {"max_text_characters", "num_proc"} | unset
        return {name: value for name, value in to_dict(self).items() if name not in left_out}


@dataclass
class SourceInfo:
    """How a source was read.

    Attributes:
        name: The name of the source, for messages.
        text_column: The column of the text; None if the source has no columns.
        columns: All columns of the source.
        guessed: Whether the text column was guessed.
        preview: The beginnings of the first three texts.
        decode_errors: Number of runs of bytes that are not valid in the encoding of their file.
        notes: Sentences about the source that the user should see.
        width: The width that the texts are wrapped at, in characters; None if lines are not joined.
        repeated_lines: The lines that are dropped from the texts.
        is_one_text: Whether the source is a single text file that is not cut into lines, paragraphs
            or sentences.
    """

    name: str
    text_column: str | None = None
    columns: list[str] = field(default_factory=list)
    guessed: bool = False
    preview: list[str] = field(default_factory=list)
    decode_errors: int = 0
    notes: list[str] = field(default_factory=list)
    width: int | None = None
    repeated_lines: list[str] = field(default_factory=list)
    is_one_text: bool = False


def flatten(record: Any, prefix: str = "") -> Any:
    """Return a record in which nested fields ``{"a": {"b": 1}}`` have become columns ``a.b``. A
    record that is a string is returned unchanged.

    The function calls itself for each nested field, with the beginning of its columns' names as the
    ``prefix``.
    """
    if not isinstance(record, Mapping):
        return record
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def choose_columns(
    info: SourceInfo, head: list[Any], config: DataConfig, *, allow_missing: bool = False
) -> None:
    """Choose the column of the text, and check that this column and those of the conditions exist.

    The results are written to ``info``.

    Args:
        info: The facts of the source; updated.
        head: The first records; see ``flatten``.
        config: How the source is read.
        allow_missing: Whether a condition without a column counts as not given; otherwise it is an
            error.

    Raises:
        DataError: A column is missing, or no column holds text.
    """
    name = info.name
    first = next((record for record in head if not is_missing(record, "text")), "")
    if not isinstance(first, str | Mapping):
        raise DataError(
            f"{name} yields {type(first).__name__}; it must yield strings or records with named"
            " columns."
        )
    records = [record for record in head if isinstance(record, Mapping)]
    # the names in all records, each once; iterating over a record yields its column names
    info.columns = list(dict.fromkeys(map(str, itertools.chain.from_iterable(records))))
    if isinstance(first, Mapping):
        info.text_column = _choose_text_column(info, records, config)
        texts = [record.get(info.text_column) for record in records[:3]]
    elif config.text_column in (None, "text"):
        texts = head[:3]
    else:
        raise DataError(
            f"{name} has no columns, so there is no {quoted(config.text_column)}; leave the text"
            " column out."
        )
    missing = [condition for condition in config.columns if condition not in info.columns]
    if missing and not allow_missing:
        known = did_you_mean(missing[0], info.columns)
        raise DataError(
            f"{name} has no column {quoted(missing[0])} for the condition of that name."
            f" {known if info.columns else 'It has no columns at all.'}"
        )
    info.preview = ["" if is_missing(text, "text") else str(text)[:_PREVIEW] for text in texts]
    info.notes += [
        f"{name} has no column {condition!r}, so this condition counts as not given."
        for condition in missing
    ]


def _choose_text_column(
    info: SourceInfo, records: Sequence[Mapping[str, Any]], config: DataConfig
) -> str:
    """Return the column of the text, which is guessed if the user has not named it."""
    column = config.text_column
    info.guessed = column is None
    if column is None:
        column = _guess_text_column(info, records)
    if column not in info.columns:
        raise DataError(
            f"{info.name} has no column {quoted(column)}. {did_you_mean(column, info.columns)}"
        )
    if column in config.columns:
        raise DataError(
            f"The column {quoted(column)} of {info.name} holds the text, so it cannot be a"
            " condition."
        )
    return column


def to_examples(
    records: Iterable[Any],
    name: str,
    column: str | None,
    conditions: Sequence[str],
    max_characters: int | None,
) -> Iterator[Example]:
    """Yield an example for each record. If ``column`` is None, each record is a text itself.

    Args:
        records: The records.
        name: The file, for messages.
        column: The column of the text; None if the records have no columns.
        conditions: The columns of the conditions.
        max_characters: The maximum number of characters of a text; None does not limit it.

    Raises:
        DataError: A text is not a string or is too long, a condition value is neither a string nor
            a number, or no record has the column.
    """
    location = name if column is None else f"column {column!r} of {name}"
    top = str(column).partition(".")[0]  # if the column is nested, the outermost column
    number = 0  # stays 0 if there are no records
    has_column = column is None
    for number, record in enumerate(records, 1):
        text = record
        values: list[Any] = [None] * len(conditions)
        if column is None or not isinstance(record, Mapping):
            has_column = True
        else:
            text = _look_up(record, column)
            # a record has a column even if its value, or a part of the path to it, is missing
            has_column = has_column or text is not None or column in record or top in record
            values = [
                _as_condition(_look_up(record, condition), number, condition, name)
                for condition in conditions
            ]
        yield _as_text(text, number, location, max_characters), values
    if number and not has_column:
        raise DataError(f"{name} has no column {quoted(column)}, which earlier records have.")


def _look_up(record: Mapping[Any, Any], column: str) -> Any:
    """Return the value of a column, which may be nested; None if the record lacks the column."""
    return record[column] if column in record else flatten(record).get(column)


def _guess_text_column(info: SourceInfo, records: Sequence[Mapping[str, Any]]) -> str:
    """Guess the column of the text: a column with a usual name, or else the one with the most
    characters. Only columns that seem to hold text count, and not those of numbers, dates or ids.

    If no column seems to hold text, any column of strings with a usual name is accepted.

    Raises:
        DataError: There is no such column.
    """
    lengths = Counter[str]()  # characters of the strings in each column
    text_lengths = Counter[str]()  # characters of those strings that look like text
    for record in records:
        for column, value in record.items():
            if isinstance(value, str):
                lengths[column] += len(value)
                text_lengths[column] += len(value) if _is_text(value.strip()) else 0
    filled = [column for column in info.columns if lengths[column]]
    # columns of which a third or more looks like text
    textual = [column for column in filled if 3 * text_lengths[column] >= lengths[column]]
    # reversed, so that the first column is taken if several names differ only in case
    usual = {column.lower(): column for column in reversed(textual or filled)}
    for name in _USUAL_NAMES.split():
        if name in usual:
            return usual[name]
    if not textual:
        raise DataError(
            f"{info.name} has no column of text; its columns are: {', '.join(info.columns)}. If one"
            " of them is the text, name it with --text-column (text_column in Python)."
        )
    return max(textual, key=lengths.__getitem__)


def _is_text(value: str) -> bool:
    """Return whether a value has words, and is not a date, a URL, an id or another code."""
    words = (match[0].lower() for match in _WORD.finditer(value))
    return any(word not in _DATE_WORDS for word in words) and _CODE.fullmatch(value) is None


def _as_text(value: Any, number: int, location: str, max_characters: int | None) -> str:
    """Return a value as a text of valid Unicode; a missing value is an empty text."""
    if isinstance(value, str):
        if max_characters is not None and len(value) > max_characters:
            raise DataError(
                f"Text {number:,} of {location} has more than {max_characters:,} characters, the"
                " limit for one text. Cut it into texts, or raise the limit with"
                " --max-text-characters (max_text_characters in Python)."
            )
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if is_missing(value, "text"):  # such as NaN, which pandas stores
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(
        f"Text {number:,} of {location} is of type {type(value).__name__}, not a string."
    )


def _as_condition(value: Any, number: int, condition: str, name: str) -> str | float | None:
    """Return a condition's value as a string or a finite number; None if it is missing, NaN or
    infinite.

    An integer that is too large for a float to hold exactly is returned as a string.
    """
    if value is None:
        return None
    if isinstance(value, str | bool):
        return _SURROGATE.sub("\ufffd", str(value))
    if not isinstance(value, Real):
        location = f"Value {number:,} of column {quoted(condition)} of {name}"
        raise DataError(
            f"{location} is of type {type(value).__name__}, neither a string nor a number."
        )
    finite = finite_number(value)
    is_large = isinstance(value, Integral) and abs(int(value)) > 2**53
    return str(value) if is_large and finite is not None else finite
