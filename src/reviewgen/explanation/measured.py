"""The texts that hidden units are measured on, with their properties at each token: those of the text, and its conditions.

The model reads them with unspecified conditions: it must not be given what its units are compared with.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Unpack

from reviewgen.conditions import Condition
from reviewgen.config import EvaluateOptions
from reviewgen.data import read_documents
from reviewgen.errors import DataError
from reviewgen.evaluation import spread_documents
from reviewgen.explanation.subject import Subject
from reviewgen.explanation.units import ReadText, properties_of

_READ = 20_000  # texts that are read, of which evenly spaced ones are measured on, since many corpora are sorted
_TEXTS, _TOKENS = 64, 256  # that are measured on: texts, and tokens of each
_CATEGORIES = 4  # of a condition


def read_texts(subject: Subject, source: Any, **options: Unpack[EvaluateOptions]) -> list[ReadText]:
    """Return the beginnings of evenly spaced texts of a source, with their properties.

    Args:
        subject: The model.
        source: See ``reviewgen.data.sources.open_texts``.
        options: How to read and clean, as in ``ReviewModel.evaluate``.

    Raises:
        DataError: The source cannot be read, or has fewer than four texts.
        ConfigError: An option is unknown or unusable.
    """
    documents = read_documents(source, subject.tokenizer, subject.trained, conditions=subject.conditions, **options)
    given = 1 + len(subject.conditions)
    beginnings = [(ids[:-1][: given + _TOKENS].copy(), characters) for ids, characters in islice(documents, _READ)]
    framed = [ids.tolist() for ids, _ in spread_documents(beginnings, _TEXTS)]
    if len(framed) < 4:
        raise DataError(f"To find units that follow a property, give at least 4 texts; the source has {len(framed)}.")
    known = dict(_condition_properties(subject, framed))
    texts = []
    for number, ids in enumerate(framed):
        read = [ids[0], *subject.conditions.unspecified_ids, *ids[given:]]
        pieces = [subject.tokenizer.decode([token]) for token in read[given:]]
        of_text = {name: [value] * len(read) for name, values in known.items() if (value := values[number]) is not None}
        texts.append(ReadText(read, properties_of(pieces, given) | of_text))
    return texts


def _condition_properties(subject: Subject, framed: Sequence[Sequence[int]]) -> Iterator[tuple[str, list[float | None]]]:
    """Yield the conditions as a number for each text: its own, or whether it is of a category; None where it is not given."""
    pairs = zip(subject.conditions, subject.conditions.unspecified_ids, strict=True)
    for place, (condition, first) in enumerate(pairs, 1):
        indices = [ids[place] - first - 1 for ids in framed]
        if condition.kind == "number":
            yield condition.name, [_middle(condition, index) if index >= 0 else None for index in indices]
            continue
        shown = 1 if len(condition.values) == 2 else _CATEGORIES
        for category, value in enumerate(condition.values[:shown]):
            yield f"{condition.name} {value.label}", [float(index == category) if index >= 0 else None for index in indices]


def _middle(condition: Condition, index: int) -> float:
    """Return the middle of a bin of numbers."""
    value = condition.values[index]
    return ((value.low or 0.0) + (value.high or 0.0)) / 2
