"""Conditions: columns of a corpus, such as stars, genre or artist, that a model is conditioned on.

The values of a text's conditions are encoded as ids between bos and the text. They are control
codes (Ficler & Goldberg 2017; Keskar et al. 2019). The ids of conditions follow the tokenizer's
ids. Each category or number has one id for "unspecified" and one id for each value; numbers are
binned.

A *field* is a condition of free text, such as an artist or a title. It has one id, its marker. A
field with a value is encoded as the marker and the tokens of the value; a field without one is left
out. The markers come after the ids of categories and numbers. The last id ends the fields. In a
model with fields it stands before every text, even if no field has a value.

This module must not know models.
"""

import itertools
import math
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Annotated, Any, Literal

import numpy as np

from reviewgen.config.settings import Bound, NonNegativeInt, check, check_value, from_dict, to_dict
from reviewgen.errors import ConfigError, DataError, counted, did_you_mean, quoted

MAX_CATEGORIES = 50  # max number of categories of a condition; rarer ones are dropped
MAX_DISTINCT_NUMBERS = 10  # up to this many distinct numbers have a bin each
# if there are more distinct numbers, the bins end at these quantiles
QUANTILES = (0.2, 0.4, 0.6, 0.8, 1.0)
MAX_FIELD = 200  # max characters of the value of a field; longer values are cut
# min tokens of the value of a field, if its tokens are the same everywhere in a text, as those of a
# character tokenizer are; shorter values are left out
MIN_FIELD = 3
ANY = "any"  # the user gives this value to leave a condition unspecified
DRAW = "draw"  # the user gives this value to draw the condition's value for each text
# The conditions of a text are drawn with the seed (seed, number of the text, _DRAW_STREAM), and its
# tokens with the seed (seed, number of the text).
_DRAW_STREAM = 0x5C4E


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of a condition: a category, or a bin of numbers.

    Attributes:
        label: The category, or the bin as text, as in "5" or "1950..1969".
        share: The share of the training texts that have this value, from 0 to 1.
        low: The smallest number in the bin; None for a category.
        high: The largest number in the bin; None for a category.
    """

    label: Annotated[str, Bound(at_least=1)]
    share: Annotated[float, Bound(at_least=0, at_most=1)]
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A column that a model is conditioned on.

    Attributes:
        name: The name of the column.
        kind: "category", "number", or "text" for a field.
        values: The categories, sorted by label, or the bins of numbers, the lowest first. A field
            has none.
        left_out: For categories, the number of rare ones that were dropped; these count as not
            given. For a field, the number of values that were cut.
        lowercase: Whether the values of a field are lowercased, as the texts are.

    Raises:
        ConfigError: The values are not distinct, or the bins are not ascending.
    """

    name: Annotated[str, Bound(at_least=1)]
    kind: Literal["category", "number", "text"]
    values: tuple[Value, ...] = ()
    left_out: NonNegativeInt = 0
    lowercase: bool = False

    def __post_init__(self) -> None:
        check(self)
        labels = [value.label for value in self.values]
        # a field must have no values, and any other condition at least one
        if bool(labels) == self.is_field or len(set(labels)) < len(labels):
            raise ConfigError(
                f"The values of the condition {quoted(self.name)} are not distinct:"
                f" {', '.join(labels) or 'none'}."
            )
        edges = list(itertools.chain(*((value.low, value.high) for value in self.values)))
        numbers = [edge for edge in edges if edge is not None]
        # each bin has two edges, and a category none
        expected = len(edges) if self.kind == "number" else 0
        if numbers != sorted(numbers) or len(numbers) != expected:
            raise ConfigError(
                f"The bins of the condition {quoted(self.name)} are not ascending numbers: {edges}."
            )

    @property
    def is_field(self) -> bool:
        """Whether the condition is a field, that is, its values are free text."""
        return self.kind == "text"

    def find(self, value: object) -> int | None:
        """Return the index of a value in ``values``; None if the value is unknown or missing. A
        number belongs to the first bin that contains it.

        >>> high = Value(label="4..5", share=1.0, low=4, high=5)
        >>> stars = Condition(name="stars", kind="number", values=(high,))
        >>> stars.find(4.5), stars.find("5"), stars.find("4..5"), stars.find(6)
        (0, 0, 0, None)
        """
        if is_missing(value):
            return None
        number = finite_number(value)
        # the labels that match: for the string "05", these are "05" and "5"
        labels = {label_of(value), label_of(value if number is None else number)}
        for index, known in enumerate(self.values):
            is_match = known.label in labels
            if number is not None and known.low is not None and known.high is not None:
                is_match = known.low <= number <= known.high
            if is_match:
                return index
        return None

    def plain(self, value: object) -> str | int | float | None:
        """Return a value in the form that is written to files: a number if the condition is
        numeric, else text. A missing value is None.
        """
        if is_missing(value, self.kind):
            return None
        number = finite_number(value) if self.kind == "number" else None
        if number is None:
            return label_of(value)
        return int(number) if number.is_integer() else number

    def refuse(self, value: object) -> None:
        """Raise an error if a text cannot have this value; otherwise, do nothing.

        Raises:
            ConfigError: A category or a number is unknown, the text of a field is empty or too
                long, or several values are given.
        """
        if isinstance(value, Collection) and not isinstance(value, str):
            raise ConfigError(
                f"The condition {self.name!r} takes one text or number; got {quoted(value)}."
            )
        if self.is_field:
            if not self.text_of(value):
                raise ConfigError(
                    f"The field {self.name!r} is empty: give it a text, or leave it out."
                )
            length = len(label_of(value))
            if length > MAX_FIELD:
                raise ConfigError(
                    f"The field {self.name!r} has {length:,} characters; a field has at most"
                    f" {MAX_FIELD}."
                )
        elif self.find(value) is None and label_of(value) not in (ANY, DRAW):
            problem = f"{value!r} is not a value of the condition {self.name!r}"
            labels = [known.label for known in self.values]
            if self.kind == "category":
                raise ConfigError(f"{problem}. {did_you_mean(label_of(value), labels)}")
            raise ConfigError(
                f"{problem}, which goes from {self.values[0].low:g} to {self.values[-1].high:g}:"
                f" {', '.join(labels)}."
            )

    def by_share(self) -> "DrawGroup":
        """Return a group that draws the values of this condition, each as often as it occurs in the
        training texts. It draws None ("unspecified") as often as the value is missing there.
        """
        # rows of one value; the last row is "unspecified", and gets the rest of the texts
        rows = [*((self.plain(value.label),) for value in self.values), (None,)]
        shares = np.cumsum([value.share for value in self.values])
        return DrawGroup((self.name,), rows, np.append(shares, 1.0))

    def text_of(self, value: object) -> str:
        """Return the text of a field's value as it is encoded: cut, and lowercased if the texts
        are. A missing value is the empty string.
        """
        text = "" if is_missing(value, self.kind) else label_of(value)[:MAX_FIELD]
        return text.lower() if self.lowercase else text

    def describe(self) -> str:
        """Return one line with the values and their shares: "stars: 4 (30 %), 5 (70 %)"."""
        if self.is_field:
            return f"{self.name}: free text"
        shares = {value.label: value.share for value in self.values}
        rest = 1 - sum(shares.values())
        if rest > 1e-4:
            shares["not given"] = rest
        listed = ", ".join(f"{label} ({100 * share:.3g} %)" for label, share in shares.items())
        return f"{self.name}: {listed}"

    def describe_loss(self) -> str:
        """Return a sentence for the user about the dropped categories, or the cut values."""
        if self.is_field:
            values = counted(self.left_out, "value")
            return f"Cut to {MAX_FIELD} characters: {values} of the field {self.name!r}."
        return (
            f"The condition {self.name!r} keeps its {len(self.values)} most frequent values; the"
            f" other {self.left_out:,} count as not given."
        )


@dataclass(frozen=True)
class DrawGroup:
    """Conditions whose values are drawn together.

    Attributes:
        names: The names of the conditions.
        rows: The rows that can be drawn. A row has one value for each condition; None means
            unspecified.
        weights: The cumulative weights of the rows. A row is drawn in proportion to its weight.
    """

    names: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    weights: np.ndarray

    def values(self, name: str) -> set[Any]:
        """Return the values that can be drawn for one of the conditions."""
        return {row[self.names.index(name)] for row in self.rows}


def draw_values(groups: Sequence[DrawGroup], seed: int, number: int) -> dict[str, Any]:
    """Draw the values of a text's conditions; return them by name. None means unspecified.

    Args:
        groups: The groups to draw from; each gives the values of its conditions.
        seed: The seed of the call.
        number: The number of the text in the call.
    """
    fractions = np.random.default_rng((seed, number, _DRAW_STREAM)).random(len(groups))
    values: dict[str, Any] = {}
    for group, fraction in zip(groups, fractions.tolist(), strict=True):
        # ``drawn`` is a number from 0 to the sum of the weights. The row is the first one whose
        # cumulative weight is above it; the last one if rounding has led beyond all of them.
        drawn = fraction * group.weights[-1]
        row = bisect_right(group.weights, drawn, hi=len(group.rows) - 1)
        values |= zip(group.names, group.rows[row], strict=True)
    return values


@dataclass(frozen=True)
class Conditions:
    """The conditions of a model, in order, and the ids of their values. A model without conditions
    has an empty ``Conditions``.

    The ids start at ``first_id``. First come the categories and numbers: each has one id for
    "unspecified", then one id for each value. Then each field has one id, its marker. The last id
    ends the fields.

    Attributes:
        conditions: The conditions; fields come last.
        first_id: The first id of the conditions, which is the tokenizer's vocabulary size.
        encode_text: The tokenizer's ``encode``, which encodes the values of fields; None if there
            are no fields.

    Raises:
        ConfigError: Two conditions have the same name, or a field is not last.
    """

    conditions: tuple[Condition, ...] = ()
    first_id: int = 0
    encode_text: Callable[[str], Sequence[int]] | None = field(
        default=None, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        check_value("conditions", self.conditions, tuple[Condition, ...])
        are_fields = [condition.is_field for condition in self.conditions]
        if are_fields != sorted(are_fields):
            raise ConfigError("Of the conditions of a model, the fields come last.")
        if len(set(self.names)) < len(self.names):
            raise ConfigError(f"A condition is named twice: {', '.join(self.names)}.")

    def __len__(self) -> int:
        return len(self.conditions)

    def __iter__(self) -> Iterator[Condition]:
        return iter(self.conditions)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the conditions."""
        return tuple(condition.name for condition in self.conditions)

    @property
    def fields(self) -> tuple[Condition, ...]:
        """The conditions of free text."""
        return tuple(condition for condition in self.conditions if condition.is_field)

    @property
    def fixed(self) -> tuple[Condition, ...]:
        """The conditions that are categories or numbers. A text has exactly one id for each."""
        return tuple(condition for condition in self.conditions if not condition.is_field)

    @property
    def _first_ids(self) -> list[int]:
        """The first id of each condition: "unspecified" of a category or number, or the marker of a
        field. Then comes the id after all of these, which ends the fields if there are any.
        """
        sizes = (1 + len(condition.values) for condition in self.conditions)
        return list(itertools.accumulate(sizes, initial=self.first_id))

    @property
    def open_ids(self) -> list[int]:
        """The "unspecified" id of each category or number."""
        return self._first_ids[: len(self.fixed)]

    @property
    def unspecified(self) -> dict[str, str]:
        """The value ANY for each category or number, by name."""
        return {condition.name: ANY for condition in self.fixed}

    @property
    def unspecified_ids(self) -> list[int]:
        """The ids that stand between bos and a text if all conditions are unspecified."""
        return self.open_ids + self._end

    @property
    def condition_ids(self) -> int:
        """The number of ids that categories and numbers have; the first one is ``first_id``."""
        return self._first_ids[len(self.fixed)] - self.first_id

    @property
    def field_ids(self) -> int:
        """The number of ids that fields have: one marker each, and the id that ends the fields.

        They follow the ids of categories and numbers.
        """
        return len(self.fields) + len(self._end)

    @property
    def _end(self) -> list[int]:
        """The id that ends the fields; an empty list if there are no fields."""
        return self._first_ids[-1:] if self.fields else []

    @property
    def vocab_size(self) -> int:
        """The number of all ids: the tokenizer's and those of conditions."""
        return self._first_ids[-1] + len(self._end)

    def with_ids_from(
        self, vocab_size: int, encode_text: Callable[[str], Sequence[int]] | None = None
    ) -> "Conditions":
        """Return the same conditions with ids for a tokenizer.

        Args:
            vocab_size: The tokenizer's vocabulary size, which becomes the first id.
            encode_text: The tokenizer's ``encode``, for the values of fields.
        """
        return replace(self, first_id=vocab_size, encode_text=encode_text)

    def encode(self, values: Mapping[str, Any]) -> list[int]:
        """Return the ids between bos and the text for values that a user gave.

        A condition whose value is missing, None, ANY or DRAW is unspecified.

        Args:
            values: The values by name of the condition.

        Raises:
            ConfigError: A name or a value is unknown (the message lists the known ones), or a field
                is empty or too long.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                "Conditions must be a mapping of name to value, as in {'stars': 5}; got"
                f" {quoted(values)}."
            )
        for name in values:
            if name not in self.names:
                known = (
                    did_you_mean(str(name), self.names)
                    if self.conditions
                    else "It has none: train it with --condition NAME."
                )
                raise ConfigError(f"{quoted(name)} is not a condition of this model. {known}")
        for condition in self.conditions:
            value = values.get(condition.name)
            if value is not None:
                condition.refuse(value)
        return self.encode_values([values.get(name) for name in self.names])

    def plan_draws(
        self, asked: Mapping[str, Any], default: str
    ) -> tuple[dict[str, Any], list[DrawGroup]]:
        """Return the values that all texts of a call have in common, and the groups whose values
        are drawn for each text.

        Args:
            asked: The values that the user gave, by name of the condition.
            default: ANY or DRAW; the value of a category or number that is missing or None.
        """
        given = dict(asked)
        groups: list[DrawGroup] = []
        for condition in self.fixed:
            value = asked.get(condition.name)
            label = default if value is None else label_of(value)
            # "any" and "draw" have a meaning here unless they are categories of the condition
            if label in (ANY, DRAW) and condition.find(label) is None:
                given[condition.name] = None
                if label == DRAW:
                    groups.append(condition.by_share())
        return given, groups

    def encode_values(self, values: Sequence[Any]) -> list[int]:
        """Return the ids between bos and the text for an example of a corpus.

        A missing or unknown category or number is encoded as unspecified. The value of a field is
        cut to ``MAX_FIELD`` characters.

        Args:
            values: The values of the example, in the order of the conditions.
        """
        return [*self.encode_fixed(values), *self.encode_fields(values)]

    def encode_fixed(self, values: Sequence[Any]) -> list[int]:
        """Return one id for each category or number of an example.

        Args:
            values: All values of the example, in the order of the conditions.
        """
        ids = []
        for condition, open_id, value in zip(self.fixed, self._first_ids, values, strict=False):
            index = condition.find(value)
            # the ids of the values follow the "unspecified" id
            ids.append(open_id if index is None else open_id + 1 + index)
        return ids

    def encode_fields(
        self, values: Sequence[Any], is_kept: Iterable[bool] | None = None
    ) -> list[int]:
        """Return the marker and the tokens of each field that has a value, and the id that ends the
        fields; an empty list for a model without fields.

        Many tokenizers give a word other tokens after a space than at the beginning of a text. Then
        the value is encoded twice, in both ways, and each time with the marker. So an n-gram model
        can copy either form, and a network sees the tokens that it is to write.

        If a value has the same tokens in both places, as in a character tokenizer, it is encoded
        once. If it then has fewer than ``MIN_FIELD`` tokens, it is left out, since a value that is
        so short occurs inside many words.

        Args:
            values: All values of an example, in the order of the conditions.
            is_kept: Whether each field is encoded; None encodes all.
        """
        ids: list[int] = []
        fields = slice(len(self.fixed), None)
        flags = is_kept or itertools.repeat(True)
        entries = zip(self._first_ids[fields], self.fields, values[fields], flags, strict=False)
        for marker, condition, value, is_encoded in entries:
            text = condition.text_of(value)
            if is_encoded and text and self.encode_text is not None:
                at_start = list(self.encode_text(text))
                after_space = list(self.encode_text(f" {text}"))
                # if the space is a token of its own, the tokens after it may be the same
                if at_start not in (after_space, after_space[1:]):
                    ids += [marker, *after_space, marker, *at_start]
                elif len(at_start) >= MIN_FIELD:
                    ids += [marker, *at_start]
        return ids + self._end

    def split(self, ids: Sequence[int]) -> list[list[int]]:
        """Split the ids between bos and a text into one list for each condition, and a last list
        with the id that ends the fields.

        The list of a field without a value is empty, and so is the last list if there are no
        fields. Concatenated, the lists give ``ids`` again.
        """
        first_ids = self._first_ids
        by_condition: list[list[int]] = [[] for _ in first_ids]
        index = 0
        for token in ids:
            # a smaller token is a part of the value of the field before it
            if token >= self.first_id:
                index = bisect_right(first_ids, token) - 1
            by_condition[index].append(token)
        return by_condition

    def unknown(self, values: Sequence[Any]) -> list[str]:
        """Return the names of the categories and numbers whose value in an example is unknown to
        the model.
        """
        return [
            condition.name
            for condition, value in zip(self.fixed, values, strict=False)
            if condition.find(value) is None and not is_missing(value)
        ]

    def describe(self) -> list[str]:
        """Return one line for each condition: its values and their shares of the training texts."""
        return [condition.describe() for condition in self.conditions]

    def notes(self) -> list[str]:
        """Return a sentence for each condition whose rarer categories were dropped, and for each
        field with values that were cut.
        """
        return [condition.describe_loss() for condition in self.conditions if condition.left_out]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the conditions as JSON values, without their ids."""
        entries = [to_dict(condition) for condition in self.conditions]
        for entry in entries:
            if not entry["lowercase"]:
                del entry["lowercase"]
        return entries

    @classmethod
    def from_json(cls, stored: Any, first_id: int = 0) -> "Conditions":
        """Return the conditions from the JSON values that ``to_json`` returned.

        Raises:
            ConfigError: The values do not describe conditions.
        """
        return from_dict(cls, {"conditions": stored, "first_id": first_id})


def fit_condition(name: str, values: Iterable[str | float | None]) -> Condition:
    """Find the categories or bins of a column of a training corpus.

    A column is numeric if each of its values is a number, or a string that is a number. Up to 10
    distinct numbers get a bin each; more are put into at most 5 bins of about the same number of
    texts. Any other column becomes a category with its 50 most frequent values. In memory, all
    numbers are kept (8 bytes each), but of the categories only the distinct ones.

    Args:
        name: The name of the column.
        values: The value of each text.

    Raises:
        DataError: The column has no values.
    """
    texts = 0
    numbers = array("d")
    categories = Counter[str]()
    for value in values:
        texts += 1
        number = finite_number(value)
        if number is not None:
            numbers.append(number)
        elif not is_missing(value):
            categories[label_of(value)] += 1
    if not categories:
        if not numbers:
            raise _empty(name)
        return Condition(name=name, kind="number", values=_bin_numbers(np.array(numbers), texts))
    # some values are not numbers, so all values are categories
    categories.update(map(label_of, numbers))
    ranked = sorted(categories, key=lambda label: (-categories[label], label))
    # sorted by label, so that the ids do not depend on frequencies
    kept = sorted(ranked[:MAX_CATEGORIES])
    known = tuple(Value(label=label, share=categories[label] / texts) for label in kept)
    return Condition(name=name, kind="category", values=known, left_out=len(ranked) - len(kept))


def fit_field(
    name: str, values: Iterable[str | float | None], *, lowercase: bool = False
) -> Condition:
    """Make a field of a column of a training corpus.

    Args:
        name: The name of the column.
        values: The value of each text.
        lowercase: Whether the field's values are lowercased, as the texts are.

    Raises:
        DataError: The column has no values.
    """
    # the number of values that are cut (key True) and that are not (key False)
    counts = Counter(
        len(label_of(value)) > MAX_FIELD for value in values if not is_missing(value, "text")
    )
    if not counts:
        raise _empty(name)
    return Condition(name=name, kind="text", left_out=counts[True], lowercase=lowercase)


def _empty(name: str) -> DataError:
    """Return the error for a column without values."""
    return DataError(
        f"The column {quoted(name)} is empty in all training texts, so it cannot be a condition."
    )


def _bin_numbers(numbers: np.ndarray, texts: int) -> tuple[Value, ...]:
    """Put numbers (N,) into bins. Each bin ends at one of the numbers, so none is empty.

    If all numbers are integers, a bin starts one above the end of the previous bin. Otherwise it
    starts at the end of the previous bin; a number equal to that end belongs to the previous bin.

    Args:
        numbers: The numbers.
        texts: The number of texts, of which the shares of the bins are computed.
    """
    # at first, each distinct number is a bin of its own
    highs = np.unique(numbers)
    lows = highs
    # 1 if all numbers are integers, else 0
    step = float((highs == np.floor(highs)).all())
    if len(highs) > MAX_DISTINCT_NUMBERS:
        highs = np.unique(np.quantile(numbers, QUANTILES, method="inverted_cdf"))
        lows = np.concatenate(([numbers.min()], highs[:-1] + step))
    shares = np.bincount(np.searchsorted(highs, numbers)) / texts
    values = []
    for low, high, share in np.transpose([lows, highs, shares]).tolist():
        label = label_of(low) if low == high else f"{label_of(low)}..{label_of(high)}"
        values.append(Value(label=label, share=share, low=low, high=high))
    return tuple(values)


def is_missing(value: object, kind: str = "category") -> bool:
    """Return whether a value is missing: None, NaN, or a blank string.

    In a category or a number, the string "NaN" (in upper or lower case) is missing, too.
    """
    if isinstance(value, str):
        return not value.strip() or (kind != "text" and value.strip().lower() == "nan")
    # only NaN is not equal to itself
    return value is None or (isinstance(value, Real) and bool(value != value))


def finite_number(value: object) -> float | None:
    """Return a finite number, or a string of one, as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | Real):
        return None
    try:
        # ``float`` reads "1_0" as 10, and refuses "1?0"
        number = float(value.replace("_", "?") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    # adding 0.0 turns -0.0 into 0.0, so that both have the same label
    return number + 0.0 if math.isfinite(number) else None


def label_of(value: object) -> str:
    """Return the label of a value, that is, the value as text.

    5 and 5.0 have the same label. An integer keeps all of its digits. Runs of white space in a
    string become one space.
    """
    number = None if isinstance(value, str | Integral) else finite_number(value)
    return " ".join(str(value).split()) if number is None else repr(number).removesuffix(".0")
