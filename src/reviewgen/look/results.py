"""What ``explain`` and ``compare`` return, as plain data and as JSON values, and what their results have in common: a page."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

from reviewgen.config import check_flags
from reviewgen.storage import to_path
from reviewgen.web.rendering import refuse_file, render, save_text

Interval = tuple[float, float]
"""The low and high end of a 95 % interval."""

MAX_SEEN = 0.02
"""Share of held-out texts that may stand in a training text by chance, as in reviews that quote one another."""


class Report(ABC):
    """Results that are shown as a page, by a template that extends ``base``."""

    _template: ClassVar[str]

    @abstractmethod
    def _values(self) -> dict[str, Any]:
        """Return what the template is filled with."""

    def save_html(self, file: str | Path, *, overwrite: bool = False) -> None:
        """Save everything as a page: one file without scripts, which loads nothing.

        Args:
            file: The file, which ends with .html.
            overwrite: Whether to replace it if it exists.

        Raises:
            ConfigError: The file is not a path, or its suffix is not .html.
            OutputExists: The file exists, and ``overwrite`` is false.
            StorageError: It cannot be written.
        """
        check_flags(overwrite=overwrite)
        path = to_path("file", file)
        refuse_file(path, overwrite=overwrite)
        save_text(render(self._template, base="web/report.html", **self._values()), path)

    def _repr_html_(self) -> str:
        return render(self._template, base="web/fragment.html", **self._values())


def to_json(value: Any) -> Any:
    """Return dataclasses, and what they hold, as JSON values; a number that is NaN or infinite becomes None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Line:
    """One operation of a model on the batch.

    Attributes:
        name: The operation; for a model that does not describe itself, the name and class of a module.
        formula: Its equation; empty for a module.
        axes: A letter for each axis of the result, several letters for a product of sizes; a number where no letter is known.
        sizes: The size of each axis.
        parameters: The parameters that no line above has used.
        multiplications: Those of matrix products and of elementwise products.
        mean: The mean of the finite values, padding left out; None if they are not floating-point numbers.
        spread: Their standard deviation.
        calls: How often a module was called; the values are those of the last call.
        kind: "gate", "state", "window" or "values"; see ``reviewgen.protocols.Operation``.
    """

    name: str
    formula: str
    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    parameters: int
    multiplications: int
    mean: float | None
    spread: float | None
    calls: int = 1
    kind: str = "values"

    @property
    def shape(self) -> str:
        """The axes with their sizes, as in "B=2 T=9 H=256"; an axis without a letter is its size."""
        pairs = zip(self.axes, self.sizes, strict=True)
        return " ".join(letter if letter == str(size) else f"{letter}={size}" for letter, size in pairs)


@dataclass(frozen=True)
class TokenLoss:
    """The loss of one token.

    Attributes:
        text: The number of the text.
        before: The token before it, for display.
        token: The token, for display.
        logit: Its logit.
        log_sum_exp: The logarithm of the sum of the exponentials of all logits.
        log_probability: The difference of the two: the log-softmax, in nats.
        bits: Its negative, in bits.
        probability: Its exponential.
        window: The tokens that the prediction is made from, for display, if the model looks at a window.
    """

    text: int
    before: str
    token: str
    logit: float
    log_sum_exp: float
    log_probability: float
    bits: float
    probability: float
    window: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loss:
    """The loss of the batch, computed in three ways, in float64.

    Attributes:
        tokens: The tokens that are predicted, text by text.
        nats: The sum of their negative log likelihoods.
        mean: Their mean, computed token by token.
        mean_of_nll_loss: The same by nn.LogSoftmax and nn.NLLLoss.
        mean_of_cross_entropy: The same by nn.CrossEntropyLoss.
        characters: The number of characters of the texts.
        bits_per_character: The sum in bits, divided by the characters.
    """

    tokens: tuple[TokenLoss, ...]
    nats: float
    mean: float
    mean_of_nll_loss: float
    mean_of_cross_entropy: float
    characters: int
    bits_per_character: float


@dataclass(frozen=True)
class CountStep:
    """What one context adds to the probability of a token: weight x (count - discount) / divisor.

    Attributes:
        order: The length of the n-gram, the token included.
        context: The text of the context.
        is_start: Whether the context reaches back to the start of the text.
        count: How often the token followed; None where counts are not known exactly.
        unit: "occurrences", or "predecessors": the number of different tokens seen before context and token together.
        discount: What the smoothing subtracts from the count.
        divisor: The sum of the counts, or what the smoothing makes of it.
        weight: The product of the back-off weights of the longer contexts.
        probability: The probability of the token after this context, shorter ones included; None if it was not seen there.
        part: What is added; None where parts are not known exactly.
        backoff: The weight of the next shorter context.
    """

    order: int
    context: str
    is_start: bool
    count: int | None
    unit: str
    discount: float | None
    divisor: float | None
    weight: float | None
    probability: float | None
    part: float | None
    backoff: float | None


@dataclass(frozen=True)
class CountedToken:
    """How an n-gram gets the probability of one token.

    Attributes:
        text: The number of the text.
        token: The token, for display.
        probability: Its probability.
        steps: From the longest context that was seen to the empty one.
        rest: What comes from no count: the uniform distribution at the end. None if parts are not known.
    """

    text: int
    token: str
    probability: float
    steps: tuple[CountStep, ...]
    rest: float | None


@dataclass(frozen=True)
class Gate:
    """What a gate did.

    Attributes:
        name: The gate.
        openings: For each text, its mean over the hidden units at each token read: 0 closed, 1 open.
    """

    name: str
    openings: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class MixedToken:
    """How a blend gets the probability of one token: the sum of weight x probability over its models.

    Attributes:
        text: The number of the text.
        token: The token, for display.
        weights: The weight of each model.
        probabilities: The probability under each model.
        probability: The blend's.
    """

    text: int
    token: str
    weights: tuple[float, ...]
    probabilities: tuple[float, ...]
    probability: float


@dataclass(frozen=True)
class ModelExplanation:
    """The walk through one model.

    Attributes:
        name: The model's plugin or class.
        lines: The operations.
        parameters: All parameters; of a count model, the numbers that it stores.
        multiplications: All multiplications of the batch.
        counts: Of a count model: the counts behind the tokens.
        gates: The gates of a model that describes itself.
    """

    name: str
    lines: tuple[Line, ...]
    parameters: int
    multiplications: int
    counts: tuple[CountedToken, ...] = ()
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True, repr=False)
class Explanation(Report):
    """What a model computes on a batch of texts; made by ``reviewgen.explain``. A notebook shows it as tables.

    Attributes:
        source: What was explained: a preset, a folder, a repository.
        is_trained: Whether its weights are trained ones.
        texts: The texts that are explained.
        tokens: The tokens read of each text, for display; the first is the start token, then those of conditions.
        batch: The shape of the ids, (B, T).
        models: The model, or the models of a blend.
        loss: The loss of the batch.
        mixture: Of a blend: how each token's probability is mixed.
        notes: What to know: texts that were cut, weights that are not trained.
    """

    _template: ClassVar[str] = "look/explanation.html"

    source: str
    is_trained: bool
    texts: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    batch: tuple[int, int]
    models: tuple[ModelExplanation, ...]
    loss: Loss
    mixture: tuple[MixedToken, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        models, bits = ", ".join(model.name for model in self.models), self.loss.bits_per_character
        return f"Explanation({self.source!r}, {models}, texts={len(self.texts)}, bits_per_character={bits:.4f})"

    def facts(self) -> dict[str, Any]:
        """Return everything as JSON values; an infinite number is None."""
        values: dict[str, Any] = to_json(self)
        return values

    def _values(self) -> dict[str, Any]:
        """Return what the template of its page is filled with."""
        return {"explanation": self, "share": show_percent, "number": show_number}


def show_percent(share: float) -> str:
    """Return a share as a percentage; a small one with one digit that is not zero.

    >>> show_percent(0.1234), show_percent(0.0000321), show_percent(0.0)
    ('12.3 %', '0.003 %', '0.0 %')
    """
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else f"{100 * share:.1g} %"


def show_number(value: float | None) -> str:
    """Return a number of any size with four digits or so; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2g}"


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
        failed: The sentence that says why the model has failed; None if it has not.
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
        characters_measured: The number of characters of the texts that these words begin.
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
        intervals = {"": values["bits_interval"], **values["intervals"]}
        limits = {name: None if each is None else (each[0], each[1]) for name, each in intervals.items()}
        spans = [each["copied"] for each in values["samples"]]
        copied = [None if each is None else tuple(map(tuple, each)) for each in spans]
        samples = [Sample(each["temperature"], each["text"], own) for each, own in zip(values["samples"], copied, strict=True)]
        nested: dict[str, Any] = {
            "notes": tuple(values["notes"]),
            "bits_interval": limits.pop(""),
            "intervals": limits,
            "samples": tuple(samples),
            "curve": tuple(CurvePoint(**each) for each in values["curve"]),
        }
        return cls(**{**values, **infinite, **nested})


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
