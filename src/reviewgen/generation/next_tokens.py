"""The most probable next tokens after a text, the entropy of their distribution, and for a count model the counts behind them.

The distribution is the one that is sampled from (``reviewgen.compiled.sampling``) without filters and penalties: bos is left
out, and the rest sums to one. Entropy: Shannon 1948. No torch. V ids of the tokenizer, W of the model (with those of conditions).
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from reviewgen.errors import ConfigError, GenerationError, quoted
from reviewgen.generation.prompts import Pieces
from reviewgen.protocols import CountedContext, Stepper, SupportsExplain, Tokenizer

_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})
_MAX_TEXT, _MAX_TOKEN = 200, 60  # characters that a notebook shows


@dataclass(frozen=True)
class Context:
    """A context that the model has counts after: the last tokens before the next one.

    Attributes:
        tokens: Its length in tokens, those before the text (bos, conditions) included; 0 is the empty context.
        text: What they decode to.
        is_start: Whether some of them are before the text, so that it covers the whole text.
        total: The sum of the counts after it; None where they are not known exactly.
        unit: "occurrences", or "predecessors": of each continuation, the number of different tokens seen before it.
    """

    tokens: int
    text: str
    is_start: bool
    total: int | None
    unit: str


@dataclass(frozen=True)
class Support:
    """The counts behind one token.

    Attributes:
        order: The length of the longest n-gram ending in the token that was seen; 0 if even the token was not.
        count: The count of that n-gram, in its context's unit; None where it is not known exactly.
        shares: The share of the token's probability from each of ``NextTokens.contexts``; the rest to one comes from no count.
            None where it is not known.
    """

    order: int
    count: int | None
    shares: tuple[float, ...] | None


@dataclass(frozen=True)
class Alternative:
    """A possible next token.

    Attributes:
        token: Its id.
        text: Its text; empty for eos and for a part of a character.
        shown: The same for display, with visible spaces and line breaks.
        is_end: Whether it is eos.
        probability: Above 0.
        bits: Its negative binary logarithm.
        support: The counts behind it; None for a model without counts.
    """

    token: int
    text: str
    shown: str
    is_end: bool
    probability: float
    bits: float
    support: Support | None


@dataclass(frozen=True)
class NextTokens:
    """The distribution of the next token after a text.

    Attributes:
        text: The text.
        tokens: Its number of tokens.
        temperature: The temperature of the probabilities.
        alternatives: The k most probable tokens; of equals, those with smaller ids.
        entropy_bits: Entropy of the whole distribution, in bits.
        possible: How many tokens have a probability above zero.
        contexts: Of a count model: the contexts from the longest that was seen to the empty one.
    """

    text: str
    tokens: int
    temperature: float
    alternatives: tuple[Alternative, ...]
    entropy_bits: float
    possible: int
    contexts: tuple[Context, ...]

    def facts(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """Return a table of the alternatives, for notebooks."""
        from reviewgen.web.rendering import render  # Jinja2

        shown = self.text if len(self.text) <= _MAX_TEXT else f"…{self.text[-_MAX_TEXT:]}"
        return render("generation/next_tokens.html", next_tokens=self, shown=shown, most=_MAX_TOKEN)


def check_choice(k: Any, temperature: Any) -> None:
    """Check the number of alternatives and the temperature.

    Raises:
        ConfigError: One of them is out of range.
    """
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ConfigError(f"k, the number of alternatives, must be a whole number of at least 1; got {quoted(k)}.")
    is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not is_number or not 0 < temperature <= sys.float_info.max:
        raise ConfigError(f"temperature must be a number above 0; got {quoted(temperature)}.")


def distribution(logits: Float[np.ndarray, " W"], tokenizer: Tokenizer, temperature: float) -> Float64[np.ndarray, " V"]:
    """Return the probability with which each token is sampled.

    Args:
        logits: Of at least V ids; those from V on are never sampled.
        tokenizer: Its vocab_size is V; its bos is never sampled.
        temperature: Above 0.

    Raises:
        GenerationError: The logits are NaN or infinite, or no token has a probability above zero.
    """
    scores = logits[: tokenizer.vocab_size].astype(np.float64)
    scores[tokenizer.bos_id] = -np.inf
    largest = scores.max()
    if not largest < np.inf:  # NaN compares false
        raise GenerationError.of_damaged_logits()
    if largest == -np.inf:
        raise GenerationError("The model gives every token probability zero here, so no token can follow.")
    weights = np.exp((scores - largest) / temperature)
    probabilities: np.ndarray = weights / weights.sum()
    return probabilities


def next_tokens(
    stepper: Stepper,
    tokenizer: Tokenizer,
    pieces: Pieces,
    ids: Sequence[int],
    logits: Float[np.ndarray, " W"],
    scores: Float[np.ndarray, " W"],
    *,
    start: int,
    k: int,
    temperature: float,
) -> NextTokens:
    """Return the next tokens and what is known about them.

    Args:
        stepper: Explains the counts, if it can.
        tokenizer, pieces: The tokenizer, and the texts of its tokens.
        ids: The ids fed: bos, conditions, text.
        logits: The stepper's for them.
        scores: The logits after logits processors; see ``distribution``.
        start: How many ids are before the text.
        k: The number of alternatives.
        temperature: Of the probabilities.

    Raises:
        GenerationError: The logits are NaN or infinite, or no token has a probability above zero.
    """
    probabilities = distribution(scores, tokenizer, temperature)
    own = np.exp(logits - logits.max(), dtype=np.float64)  # the model's, over all its ids
    own /= own.sum()
    fed = np.array(ids, np.int64)
    contexts = stepper.explain(fed) if isinstance(stepper, SupportsExplain) else []
    best = np.argsort(-probabilities, kind="stable")[:k]
    some = probabilities[probabilities > 0]
    alternatives = [
        _alternative(token, float(probabilities[token]), _support(token, float(own[token]), contexts), tokenizer, pieces)
        for token in best.tolist()
        if probabilities[token] > 0
    ]
    return NextTokens(
        text=tokenizer.decode(ids[start:]),
        tokens=len(ids) - start,
        temperature=float(temperature),
        alternatives=tuple(alternatives),
        entropy_bits=max(0.0, float(-(some * np.log2(some)).sum())),
        possible=len(some),
        contexts=tuple(_context(each, ids, start, tokenizer) for each in contexts),
    )


def show(text: str) -> str:
    """Return a text with visible spaces and line breaks, and unprintable characters escaped.

    >>> show("a b\\n")
    'a␣b⏎'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.translate(_VISIBLE))


def _alternative(token: int, probability: float, support: Support | None, tokenizer: Tokenizer, pieces: Pieces) -> Alternative:
    is_end = token == tokenizer.eos_id
    text = "" if is_end else pieces.texts[token]
    return Alternative(
        token=token,
        text=text,
        shown="(end)" if is_end else show(text) or "(part of a character)",
        is_end=is_end,
        probability=probability,
        bits=abs(math.log2(probability)),  # abs, for there is a minus zero
        support=support,
    )


def _support(token: int, probability: float, contexts: Sequence[CountedContext]) -> Support | None:
    """Return the counts behind a token; ``probability`` is the model's own, at temperature 1."""
    if not contexts:
        return None
    longest = next((each for each in contexts if each.seen[token]), None)
    parts = [float(each.parts[token]) for each in contexts if each.parts is not None]
    return Support(
        order=0 if longest is None else longest.tokens + 1,
        count=None if longest is None or longest.counts is None else int(longest.counts[token]),
        shares=tuple(min(1.0, part / probability) for part in parts) if len(parts) == len(contexts) and probability > 0 else None,
    )


def _context(counted: CountedContext, ids: Sequence[int], start: int, tokenizer: Tokenizer) -> Context:
    first = len(ids) - counted.tokens
    return Context(
        tokens=counted.tokens,
        text=tokenizer.decode(ids[max(first, start) :]),
        is_start=first < start,
        total=None if counted.counts is None else int(counted.counts.sum()),
        unit=counted.unit,
    )
