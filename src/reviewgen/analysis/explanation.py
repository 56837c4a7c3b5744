"""``Explanation``, the result of ``explain``, as plain data and as a page."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from markupsafe import Markup

from reviewgen.config.bounded import to_json
from reviewgen.errors import ConfigError
from reviewgen.web.charts import draw_heads, draw_heat_map
from reviewgen.web.rendering import HtmlReport, refuse_file, save_text
from reviewgen.words import WordMap

_MAX_DRAWN = 24  # maximum number of tokens in the picture of the heads


@dataclass(frozen=True)
class Line:
    """One operation of a model on the batch.

    Attributes:
        name: The operation; for a model that does not describe itself, the name and class of a
            module.
        formula: The equation of the operation; empty for a module.
        axes: A letter for each axis of the result; several letters if its size is a product; a
            number if no letter is known.
        sizes: The size of each axis.
        parameters: The number of parameters that this operation uses and no line above has used.
        multiplications: The number of multiplications, in matrix products and in elementwise
            products.
        mean: The mean of the finite values, without padding; None if there are none, or if the
            values are not floating-point numbers.
        spread: The standard deviation of the same values; None where ``mean`` is None.
        calls: How often a module was called; the values are those of the last call.
        kind: "gate", "state", "window", "attention" or "values"; see
            ``reviewgen.protocols.Operation``.
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
        """The axes with their sizes, as in "B=2 T=9 H=256". An axis without a letter is shown as
        its size only.
        """
        pairs = zip(self.axes, self.sizes, strict=True)
        return " ".join(
            letter if letter == str(size) else f"{letter}={size}" for letter, size in pairs
        )


@dataclass(frozen=True)
class TokenLoss:
    """The loss of one token.

    Attributes:
        text: The index of the text in the batch.
        before: The previous token, for display.
        token: The predicted token, for display.
        logit: The logit of the token.
        log_sum_exp: The logarithm of the sum of the exponentials of all logits.
        log_probability: ``logit`` minus ``log_sum_exp``: the log-softmax, in nats.
        bits: The negative log probability, in bits.
        probability: The probability of the token.
        window: The tokens of the window that the prediction is made from, for display; empty for a
            model without a window.
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
        tokens: The loss of each predicted token, text by text.
        nats: The sum of the negative log likelihoods of the tokens.
        mean: The mean of the negative log likelihoods, computed token by token.
        mean_of_nll_loss: The same mean, computed by nn.LogSoftmax and nn.NLLLoss.
        mean_of_cross_entropy: The same mean, computed by nn.CrossEntropyLoss.
        characters: The number of characters of the texts.
        bits_per_character: The sum, converted to bits and divided by the number of characters.
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
    """What one context contributes to the probability of a token: weight x (count - discount) /
    divisor.

    Attributes:
        order: The length of the n-gram, the token included.
        context: The text of the context.
        is_start: Whether the context reaches back to the start of the text.
        count: How often the token followed the context; None if the model does not store exact
            counts.
        unit: What ``count`` counts: "occurrences", or "predecessors", which are the different
            tokens seen before context and token together.
        discount: The number that the smoothing subtracts from the count.
        divisor: What the count is divided by: the sum of the counts, plus what some smoothings add
            to it.
        weight: The product of the back-off weights of the longer contexts.
        probability: The probability of the token after this context, including what shorter
            contexts contribute; None if the token was not seen after it.
        part: The probability that this context contributes; None if the model cannot tell.
        backoff: The back-off weight of this context: ``weight`` is multiplied by it for the next
            shorter context. None if the model cannot tell.
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
    """How an n-gram computes the probability of one token.

    Attributes:
        text: The index of the text in the batch.
        token: The token, for display.
        probability: The probability of the token.
        steps: A step for each context, from the longest that was seen to the empty one.
        rest: The probability that does not come from counts but from the uniform distribution at
            the end; None if the model cannot tell.
    """

    text: int
    token: str
    probability: float
    steps: tuple[CountStep, ...]
    rest: float | None


class Picture(ABC):
    """A part of an explanation that is drawn."""

    @abstractmethod
    def to_svg(self) -> str:
        """Return the picture as SVG."""

    def save(self, file: str | Path, *, overwrite: bool = False) -> None:
        """Save the picture as a .svg file.

        Raises:
            ConfigError: The file is not a path, or its suffix is not .svg.
            OutputExists: The file exists, and ``overwrite`` is false.
            StorageError: The file cannot be written.
        """
        save_text(self.to_svg(), refuse_file(file, [".svg"], overwrite))


@dataclass(frozen=True)
class Contributions(Picture):
    """What each context contributes to the tokens of a text, in a model that mixes contexts; see
    ``reviewgen.protocols.SupportsContributions``.

    The parts of a token sum to the log odds of the decisions by which it is predicted. They say
    which contexts spoke for the token and which against it, not how many bits each one saves: the
    model may correct the result, and a sum of log odds is not a log probability.

    Attributes:
        tokens: The predicted tokens, for display.
        bits: The negative log probability of each token, in bits.
        contexts: The names of the contexts.
        parts: For each context, what it contributes to each token, in nats; NaN where the context
            was not seen.
    """

    tokens: tuple[str, ...]
    bits: tuple[float, ...]
    contexts: tuple[str, ...]
    parts: tuple[tuple[float, ...], ...]

    def strongest(self, token: int, count: int = 3) -> list[tuple[str, float]]:
        """Return the contexts that contribute most to a token, by its index, with what they
        contribute; the largest absolute value first.
        """
        pairs = zip(self.contexts, (part[token] for part in self.parts), strict=True)
        seen = [(name, part) for name, part in pairs if not math.isnan(part)]
        return sorted(seen, key=lambda pair: -abs(pair[1]))[:count]

    def log_odds(self, token: int) -> float:
        """Return the sum of all contributions to a token, by its index, in nats."""
        return math.fsum(part[token] for part in self.parts if not math.isnan(part[token]))

    def to_svg(self) -> str:
        """Return a heat map of the contributions as SVG: a row for each context, a column for each
        token, with the bits of the token below.
        """
        return draw_heat_map(
            self.tokens,
            self.contexts,
            self.parts,
            [f"{bits:.1f}" for bits in self.bits],
            "Which contexts predict each token",
            "Contributions to the log odds of the token: squares speak for it, discs against it;"
            " a context without a cell was not seen. Below: the bits of the token.",
        )


@dataclass(frozen=True)
class Attention(Picture):
    """What each head of a model with attention reads at the tokens of a text.

    Attributes:
        tokens: The tokens that the model reads, for display.
        heads: The names of the heads.
        weights: For each head and each token, the weights of the tokens that the head reads there.
            These are the last tokens up to the token itself; they may be limited by a window. The
            weights sum to 1.
    """

    tokens: tuple[str, ...]
    heads: tuple[str, ...]
    weights: tuple[tuple[tuple[float, ...], ...], ...]

    def strongest(self, head: int, token: int, count: int = 4) -> list[tuple[str, float]]:
        """Return the tokens that a head reads most at a token, both by index, with their weights;
        those of less than 1 % are left out.
        """
        weights = self.weights[head][token]
        names = self.tokens[token + 1 - len(weights) : token + 1]
        pairs = sorted(zip(names, weights, strict=True), key=lambda pair: -pair[1])
        return [pair for pair in pairs[:count] if pair[1] >= 0.01]

    def to_svg(self) -> str:
        """Return a triangle of weights for each head as SVG: a row for each token, a square for
        each token that it reads. Of a long text, only the beginning is drawn.
        """
        tokens = self.tokens[:_MAX_DRAWN]
        cut = "" if tokens == self.tokens else f" The first {_MAX_DRAWN} tokens."
        return draw_heads(
            tokens,
            self.heads,
            self.weights,
            "What each head reads",
            "A row for each token: the stronger a square, the more the token reads the one that"
            f" ends the column. Weights below 1 % have no square.{cut}",
        )


@dataclass(frozen=True)
class Gate:
    """How far a gate of a recurrent network is open.

    Attributes:
        name: The name of the gate.
        openings: For each text, the mean of the gate over the hidden units after each token: 0 is
            closed, 1 is open.
    """

    name: str
    openings: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class MixedToken:
    """How a blend computes the probability of one token: the sum of weight x probability over its
    models.

    Attributes:
        text: The index of the text in the batch.
        token: The token, for display.
        weights: The weight of each model.
        probabilities: The probability under each model.
        probability: The probability under the blend.
    """

    text: int
    token: str
    weights: tuple[float, ...]
    probabilities: tuple[float, ...]
    probability: float


@dataclass(frozen=True)
class ModelExplanation:
    """What one model computes on the batch.

    Attributes:
        name: The model's plugin or class.
        lines: The operations.
        parameters: The number of all parameters; for a count model, how many numbers it stores.
        multiplications: The number of all multiplications for the batch.
        counts: For an n-gram: the counts that the probabilities of tokens come from.
        contributions: For a model that mixes contexts: what each contributes, text by text.
        gates: The gates of a model that describes itself.
        attention: For a model with attention: what its heads read, text by text.
    """

    name: str
    lines: tuple[Line, ...]
    parameters: int
    multiplications: int
    counts: tuple[CountedToken, ...] = ()
    contributions: tuple[Contributions, ...] = ()
    gates: tuple[Gate, ...] = ()
    attention: tuple[Attention, ...] = ()


@dataclass(frozen=True, repr=False)
class Explanation(HtmlReport):
    """What a model computes on a batch of texts; made by ``reviewgen.explain``. A notebook shows it
    as tables.

    Attributes:
        source: The explained preset, folder or repository.
        is_trained: Whether the weights are trained.
        texts: The texts that are explained.
        tokens: For each text, the tokens that the model reads, for display: the start token, the
            tokens of conditions, then those of the text.
        batch: The shape of the ids, (B, T).
        models: The model, or the models of a blend.
        loss: The loss of the batch.
        mixture: For a blend: how the probability of each token is mixed.
        notes: Notes on texts that were cut and weights that are not trained.
        word_map: A map of the most frequent words by their embeddings, which the page draws; None
            if the model has no embeddings of words.
    """

    _template: ClassVar[str] = "analysis/explanation.html"

    source: str
    is_trained: bool
    texts: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    batch: tuple[int, int]
    models: tuple[ModelExplanation, ...]
    loss: Loss
    mixture: tuple[MixedToken, ...] = ()
    notes: tuple[str, ...] = ()
    word_map: WordMap | None = None

    def __repr__(self) -> str:
        models = ", ".join(model.name for model in self.models)
        bits = self.loss.bits_per_character
        return (
            f"Explanation({self.source!r}, {models}, texts={len(self.texts)},"
            f" bits_per_character={bits:.4f})"
        )

    def heat_map(self) -> Contributions | Attention:
        """Return what the contexts of a mixing model contribute to the first text, or what the
        heads of a model with attention read in it, to be drawn.

        Raises:
            ConfigError: The model does not mix contexts, and has no attention.
        """
        for model in self.models:
            if model.contributions:
                return model.contributions[0]
            if model.attention:
                return model.attention[0]
        raise ConfigError(
            f"{self.source} does not mix contexts and has no attention, so there is no picture of"
            " them. Write a page instead: a file with the suffix .html."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the map of words as JSON values; an infinite number becomes
        None.
        """
        return {name: value for name, value in to_json(self).items() if name != "word_map"}

    def _values(self) -> dict[str, Any]:
        """Return the values that the template of the page uses."""
        word_map = "" if self.word_map is None else Markup(self.word_map.to_svg())
        return {
            "explanation": self,
            "share": show_percent,
            "number": show_number,
            "word_map": word_map,
            "draw": lambda picture: Markup(picture.to_svg()),
        }


def show_percent(share: float) -> str:
    """Format a share as a percentage; a share below 0.1 % has one significant digit.

    >>> show_percent(0.1234), show_percent(0.0000321), show_percent(0.0)
    ('12.3 %', '0.003 %', '0.0 %')
    """
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else f"{100 * share:.1g} %"


def show_number(value: float | None) -> str:
    """Format a number with four decimals, or with two significant digits if it is very small or
    large. None is a dash.
    """
    if value is None:
        return "–"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2g}"
