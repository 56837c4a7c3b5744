"""``Explanation``, the result of ``explain``, as plain data and as a page."""

from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from reviewgen.config.bounded import to_json
from reviewgen.web.rendering import HtmlReport
from reviewgen.words import WordMap


@dataclass(frozen=True)
class Line:
    """One operation of a model on the batch.

    Attributes:
        name: The operation; for a model that does not describe itself, the name and class of a
            module.
        formula: Its equation; empty for a module.
        axes: A letter for each axis of the result, several letters for a product of sizes; a number
            where no letter is known.
        sizes: The size of each axis.
        parameters: The parameters that no line above has used.
        multiplications: Those of matrix products and of elementwise products.
        mean: The mean of the finite values, padding left out; None if they are not floating-point
            numbers.
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
        """The axes with their sizes, as in "B=2 T=9 H=256"; an axis without a letter is its
        size.
        """
        pairs = zip(self.axes, self.sizes, strict=True)
        return " ".join(
            letter if letter == str(size) else f"{letter}={size}" for letter, size in pairs
        )


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
        window: The tokens that the prediction is made from, for display, if the model looks at a
            window.
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
    """The share of one context in the probability of a token: weight x (count - discount) /
    divisor.

    Attributes:
        order: The length of the n-gram, the token included.
        context: The text of the context.
        is_start: Whether the context reaches back to the start of the text.
        count: How often the token followed; None where counts are not known exactly.
        unit: "occurrences", or "predecessors": the number of different tokens seen before context
            and token together.
        discount: The number that the smoothing subtracts from the count.
        divisor: The sum of the counts, changed by some smoothings.
        weight: The product of the back-off weights of the longer contexts.
        probability: The probability of the token after this context, including what shorter
            contexts contribute; None if it was not seen there.
        part: The probability that it adds; None where parts are not known exactly.
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
        rest: The probability that comes from no count, but from the uniform distribution at the
            end; None if parts are not known.
    """

    text: int
    token: str
    probability: float
    steps: tuple[CountStep, ...]
    rest: float | None


@dataclass(frozen=True)
class Gate:
    """The openings of a gate.

    Attributes:
        name: The gate.
        openings: For each text, its mean over the hidden units at each token read: 0 closed, 1
            open.
    """

    name: str
    openings: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class MixedToken:
    """How a blend gets the probability of one token: the sum of weight x probability over its
    models.

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
class Explanation(HtmlReport):
    """What a model computes on a batch of texts; made by ``reviewgen.explain``. A notebook shows it
    as tables.

    Attributes:
        source: The explained preset, folder or repository.
        is_trained: Whether its weights are trained ones.
        texts: The texts that are explained.
        tokens: The tokens read of each text, for display; the first is the start token, then those
            of conditions.
        batch: The shape of the ids, (B, T).
        models: The model, or the models of a blend.
        loss: The loss of the batch.
        mixture: Of a blend: how each token's probability is mixed.
        notes: Notes on texts that were cut and weights that are not trained.
        word_map: The most frequent words by their embeddings, which the page draws; None if the
            model has no embeddings of words.
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

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the map of words as JSON values; an infinite number is None."""
        return {name: value for name, value in to_json(self).items() if name != "word_map"}

    def _values(self) -> dict[str, Any]:
        """Return the values of the template of the page."""
        word_map = "" if self.word_map is None else Markup(self.word_map.to_svg())
        return {
            "explanation": self,
            "share": show_percent,
            "number": show_number,
            "word_map": word_map,
        }


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
