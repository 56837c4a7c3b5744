"""The results of a comparison: frozen dataclasses of plain data, to and from JSON. Standard library only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Interval = tuple[float, float]
"""The low and high end of a 95 % interval."""


@dataclass(frozen=True)
class Sample:
    """A generated text.

    Attributes:
        temperature: The temperature that it was sampled at.
        text: The text, the prompt included.
        copied: Start and end of each span of 50 characters or more that stands in the training text; None if that is not known.
    """

    temperature: float
    text: str
    copied: tuple[tuple[int, int], ...] | None


@dataclass(frozen=True)
class CurvePoint:
    """An evaluation during the training, on validation texts.

    Attributes:
        seconds: Seconds of training.
        tokens: Tokens trained on.
        bits_per_character: Bits per character; None if they are infinite.
    """

    seconds: float
    tokens: int
    bits_per_character: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model. A value is None if it is not known, or if the model has failed.

    Attributes:
        name: The name of the row, different from all others.
        source: What was trained or loaded: a preset, a folder, a repository.
        is_trained_here: Whether it was trained for this comparison.
        failed: Why there is no result, a sentence; None if there is one.
        notes: Sentences for the user.
        tokenizer: The name of the tokenizer, which says what a token of ``perplexity_per_token`` is.
        parameters: The number of parameters; of a model that is not a network, of the numbers in its tables.
        bytes_on_disk: The size of the saved folder, without the index of the training text.
        training_seconds: Duration of the training, with reading and evaluations.
        seconds_per_epoch: Duration of a pass over the training text.
        bits_per_character: Total bits of the held-out texts divided by their characters; infinite if a probability is zero.
        bits_interval: Its 95 % interval, from a bootstrap over the texts.
        zero_probability_tokens: The number of held-out tokens with probability zero.
        perplexity_per_token: exp of the nats per token; comparable only between models with the same tokenizer.
        copy_rate: Share of generated characters in spans of 50 or more that stand in its training text, as measured in training.
        copy_rate_characters: The number of generated characters that it rests on; None for a model that was saved without.
        held_out_copy_rate: The same share of held-out texts.
        characters_per_second: Generated characters a second.
        new_words: Share of generated words that are not in its training text, or only once.
        distinct: By n, the share of different n-grams of words among all.
        words_measured: The number of words that ``new_words`` and ``distinct`` are measured on.
        characters_measured: The number of characters of the texts with these words.
        intervals: The 95 % intervals of ``copy_rate``, ``new_words``, ``distinct_1`` and so on, by name.
        samples: Texts from one prompt.
        curve: The evaluations during the training.
        seen: Share of the held-out texts that stand in its training text as a whole; None if it has no index of that.
        is_same_split: Whether it was trained on the same corpus, so that the held-out texts were held out there, too.
        picture: An SVG of its computational graph; empty for none.
    """

    name: str
    source: str
    is_trained_here: bool = False
    failed: str | None = None
    notes: tuple[str, ...] = ()
    tokenizer: str | None = None
    parameters: int | None = None
    bytes_on_disk: int | None = None
    training_seconds: float | None = None
    seconds_per_epoch: float | None = None
    bits_per_character: float | None = None
    bits_interval: Interval | None = None
    zero_probability_tokens: int = 0
    perplexity_per_token: float | None = None
    copy_rate: float | None = None
    copy_rate_characters: int | None = None
    held_out_copy_rate: float | None = None
    characters_per_second: float | None = None
    new_words: float | None = None
    distinct: Mapping[str, float | None] = field(default_factory=dict)
    words_measured: int = 0
    characters_measured: int = 0
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    seen: float | None = None
    is_same_split: bool = False
    picture: str = ""

    @property
    def has_seen_held_out(self) -> bool:
        """Whether the model was trained on held-out texts, so that its bits per character are too low."""
        return self.seen is not None and self.seen > MAX_SEEN

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Row":
        """Return the row that ``to_json`` has made JSON values of.

        Raises:
            TypeError, KeyError, ValueError: The values are not those of a row.
        """
        is_infinite = values["bits_per_character"] is None and values["zero_probability_tokens"]
        infinite = dict.fromkeys(("bits_per_character", "perplexity_per_token"), math.inf) if is_infinite else {}
        samples = [Sample(each["temperature"], each["text"], _pairs(each["copied"])) for each in values["samples"]]
        nested: dict[str, Any] = {
            "notes": tuple(values["notes"]),
            "bits_interval": _interval(values["bits_interval"]),
            "intervals": {name: _interval(interval) for name, interval in values["intervals"].items()},
            "samples": tuple(samples),
            "curve": tuple(CurvePoint(**each) for each in values["curve"]),
        }
        return cls(**{**values, **infinite, **nested})


MAX_SEEN = 0.02
"""Share of held-out texts that may stand in a training text by chance, as in reviews that quote one another."""


@dataclass(frozen=True)
class Pair:
    """Two models on the same texts.

    Attributes:
        first, second: The names of their rows.
        difference: Bits per character of the first minus those of the second; below zero, the first is better.
        interval: Its 95 % interval, from a bootstrap over the same texts; None if one of them is infinite, or there is one text.
    """

    first: str
    second: str
    difference: float
    interval: Interval | None

    @property
    def is_told_apart(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    def describe(self) -> str:
        """Return a sentence."""
        if self.interval is None:
            return f"{self.first} and {self.second}: no interval, because one is infinite or there is a single text."
        low, high = self.interval
        if not self.is_told_apart:
            return f"{self.first} and {self.second} are not told apart: {self.difference:+.3f} ({low:+.3f} to {high:+.3f})."
        better, other = (self.first, self.second) if self.difference < 0 else (self.second, self.first)
        low, high = sorted(map(abs, self.interval))
        return f"{better} is better than {other} by {abs(self.difference):.3f} bits per character ({low:.3f} to {high:.3f})."


def _interval(limits: Any) -> Interval | None:
    return None if limits is None else (limits[0], limits[1])


def _pairs(values: Any) -> tuple[tuple[int, int], ...] | None:
    return None if values is None else tuple((start, end) for start, end in values)
