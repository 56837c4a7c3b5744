"""The results of evaluating and scoring: plain data, and how bits per character are computed from sums."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reviewgen.errors import DataError

_DARKEST_BITS = 10.0  # of a token of the darkest shade, or more; the same for all texts, so that they compare
_MAX_SHOWN = 2000  # tokens of a text in a notebook


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts texts.

    Attributes:
        bits_per_character: Total bits divided by the characters; infinite if a token has probability zero.
        nats_per_character: The same in nats.
        perplexity_per_token: exp of the nats per token; comparable only between models with the same tokenizer.
        characters: The number of characters.
        tokens: The number of predicted tokens, including end tokens.
        reviews: The number of texts.
        zero_probability_tokens: The number of tokens with probability zero.
    """

    bits_per_character: float
    nats_per_character: float
    perplexity_per_token: float
    characters: int
    tokens: int
    reviews: int
    zero_probability_tokens: int

    def _repr_html_(self) -> str:
        """Return a table of the figures, for notebooks."""
        from reviewgen.web.rendering import render  # Jinja2

        return render("evaluation/evaluation.html", evaluation=self)


@dataclass(frozen=True)
class TokenScore:
    """One token of a scored text.

    Attributes:
        text: The token's text; empty for the end token.
        bits: Its negative log2 probability.
    """

    text: str
    bits: float


@dataclass(frozen=True)
class Score:
    """The negative log2 probability of one text.

    Attributes:
        bits: The total, including the end token.
        bits_per_character: The total divided by the number of characters.
        tokens: The bits of each token, the end token last.
    """

    bits: float
    bits_per_character: float
    tokens: list[TokenScore]

    def _repr_html_(self) -> str:
        """Return the text with each token shaded by its bits, for notebooks."""
        from reviewgen.web.rendering import render  # Jinja2

        end = len(self.tokens) - 1
        shown = [
            {
                "text": token.text.replace("\n", "⏎\n") or ("(end)" if place == end else "(part of a character)"),
                "bits": token.bits,
                "shade": round(10 * min(1.0, token.bits / _DARKEST_BITS)) if math.isfinite(token.bits) else None,
            }
            for place, token in enumerate(self.tokens[:_MAX_SHOWN])
        ]
        return render("evaluation/score.html", score=self, tokens=shown, most=_DARKEST_BITS, hidden=len(self.tokens) - len(shown))


@dataclass(frozen=True)
class Totals:
    """The sums over texts that an evaluation is computed from; the sums of several processes can be added.

    Attributes:
        nats: The negative log likelihood.
        tokens: The number of predicted tokens, including end tokens.
        characters: The number of characters.
        reviews: The number of texts.
        zero_probability_tokens: The number of tokens with probability zero.
    """

    nats: float = 0.0
    tokens: int = 0
    characters: int = 0
    reviews: int = 0
    zero_probability_tokens: int = 0

    def evaluation(self) -> Evaluation:
        """Return the evaluation: the sums per character and per token.

        Raises:
            DataError: There are no texts, or none of them has a character.
        """
        if not self.characters:
            raise DataError("There is no text to evaluate." if not self.reviews else "The texts to evaluate have no characters.")
        return Evaluation(
            bits_per_character=self.nats / self.characters / math.log(2),
            nats_per_character=self.nats / self.characters,
            perplexity_per_token=_exp(self.nats / self.tokens),
            characters=self.characters,
            tokens=self.tokens,
            reviews=self.reviews,
            zero_probability_tokens=self.zero_probability_tokens,
        )


def finite(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping with None for infinite and NaN values, which JSON does not have."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in numbers.items()}


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
