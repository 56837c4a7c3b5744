"""Reads the tables of a report: the texts with their labels, or a random sample of them."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reviewgen.data.columns import DataConfig, Example
from reviewgen.data.open import open_source
from reviewgen.data.stage import workspace
from reviewgen.data.texts import data_records, read_trained_examples
from reviewgen.errors import DataError, HubError
from reviewgen.lexicon.words import words_of
from reviewgen.model.review_model import ReviewModel

# maximum number of texts that are measured; of a larger table, a random sample is taken
MAX_SYNTHETIC = 10_000
MAX_REAL = 30_000
MAX_VALUES = 20  # a column with more values is no label
_MIN_PER_VALUE = 2  # minimum number of texts of each value of a label, on average


@dataclass(frozen=True)
class Texts:
    """The texts of a table.

    Attributes:
        name: The name of the source, for messages.
        texts: The texts, without empty ones.
        labels: For each column of labels, the value of each text; None if it is missing.
        total: The number of texts of the table, of which ``texts`` may be a random sample.
    """

    name: str
    texts: Sequence[str]
    labels: Mapping[str, Sequence[str | None]]
    total: int

    def __len__(self) -> int:
        return len(self.texts)

    def count_different(self) -> int:
        """Return the number of different texts."""
        return len(set(self.texts))

    def take(self, indices: Sequence[int]) -> "Texts":
        """Return the texts of some indices, with their labels."""
        return Texts(
            self.name,
            [self.texts[index] for index in indices],
            {name: [values[index] for index in indices] for name, values in self.labels.items()},
            self.total,
        )

    def sample(self, count: int, seed: int = 0) -> "Texts":
        """Return ``count`` random texts; all if there are fewer."""
        if count >= len(self):
            return self
        return self.take(sorted(random.Random(seed).sample(range(len(self)), count)))

    def halves(self) -> "tuple[Texts, Texts]":
        """Return two halves, drawn at random. Equal texts are in the same half, so that a text of
        one half is not a copy of one of the other.
        """
        draw = random.Random(0)
        half_of = {text: draw.random() < 0.5 for text in dict.fromkeys(self.texts)}
        first = [index for index, text in enumerate(self.texts) if half_of[text]]
        second = [index for index, text in enumerate(self.texts) if not half_of[text]]
        return self.take(first), self.take(second)


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case.

    >>> split_words("Don't stop, c'est la vie!")
    ["don't", 'stop', "c'est", 'la', 'vie']
    """
    return [word.casefold() for word in words_of(text)]


def read_table(
    source: Any, limit: int, text_column: str | None = None, labels: Sequence[str] | None = None
) -> Texts:
    """Read a table, take a random sample of at most ``limit`` texts, and clean them as before a
    training.

    Args:
        source: See ``open_source``.
        limit: The maximum number of texts that are kept.
        text_column: The column of the texts; guessed if not given.
        labels: The columns of the labels; by default, all columns that hold few different values. A
            column that the table lacks is left out.

    Raises:
        DataError: The source cannot be read, has no column of text, or no texts.
    """
    config = DataConfig(text_column=text_column)
    draw = random.Random(0)
    kept = list[tuple[str, Mapping[str, Any]]]()
    total = 0  # the number of texts that have been read
    with workspace() as folder:
        opened = open_source(source, config, folder)
        for row in _rows(opened.records(), opened.info.text_column):
            total += 1
            if len(kept) < limit:
                kept.append(row)
            elif (place := draw.randrange(total)) < limit:  # reservoir sampling (Vitter 1985)
                kept[place] = row
        clean = opened.cleaner()
        cleaned = [(clean(text), row) for text, row in kept]
        name = opened.info.name
        columns = [each for each in opened.info.columns if each != opened.info.text_column]
    # the cleaner returns a text and its hash, or None for a text that is empty after cleaning
    found = [(each[0], row) for each, row in cleaned if each is not None]
    if not found:
        raise DataError(f"{name} holds no texts.")
    values = {
        column: [as_label(row.get(column)) for _, row in found]
        for column in columns
        if labels is None or column in labels
    }
    # columns that the user has named are labels whatever their values are
    chosen = {
        column: each for column, each in values.items() if labels is not None or _are_labels(each)
    }
    return Texts(name, [text for text, _ in found], chosen, total)


def read_trained(model: ReviewModel, splits: Sequence[str], limit: int) -> Texts:
    """Read a random sample of some splits of the corpus that a model was trained on, cleaned as in
    that training, with the values of the model's conditions as labels.

    Raises:
        DataError: The corpus is not known, or not there any more.
    """
    source = data_records(model.training)[0].get("source")
    examples = list[Example]()
    try:
        for split in splits:
            examples += read_trained_examples(model.bundle, split)
    except (DataError, HubError) as error:
        raise DataError(
            f"The corpus of this model cannot be read ({error}); give it with --train and"
            " --held-out (train=..., held_out=...)."
        ) from None
    labels = {
        condition.name: [as_label(values[number]) for _, values in examples]
        for number, condition in enumerate(model.conditions)
    }
    found = {name: values for name, values in labels.items() if _are_labels(values)}
    name = f"the {' and '.join(splits)} {'split' if len(splits) == 1 else 'splits'} of {source}"
    return Texts(name, [text for text, _ in examples], found, len(examples)).sample(limit)


def _rows(records: Iterator[Any], column: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the text and the columns of each record that has a text."""
    for record in records:
        text, row = (record, {}) if column is None else (record.get(column), record)
        if isinstance(text, str) and text.strip():
            yield text, row


def as_label(value: Any) -> str | None:
    """Return a value as a label; None if it is missing. 5.0 becomes "5", since a column of whole
    numbers with missing values is stored as floats.
    """
    if value is None or value != value or value == "":  # NaN differs from itself
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _are_labels(values: Sequence[str | None]) -> bool:
    """Return whether a column holds labels: at least two different values, but few."""
    counts = Counter(value for value in values if value is not None)
    return 2 <= len(counts) <= min(MAX_VALUES, len(values) // _MIN_PER_VALUE)
