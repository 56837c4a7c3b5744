"""What a model expects after a text: the most probable tokens, how sure it is, and the counts behind them where it has any.

The distribution is that of the draw (``reviewgen.compiled.draw``) without filters and penalties: bos is left out, and what
remains sums to one. Entropy: Shannon 1948. No torch. T tokens read, V ids of the tokenizer.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from reviewgen.errors import ConfigError, GenerationError
from reviewgen.protocols import CountedContext, Stepper, SupportsExplain, Tokenizer
from reviewgen.sampling import Pieces

__all__ = ["Alternative", "Context", "NextTokens", "Support", "check_choice", "distribution", "next_tokens", "show"]

_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})


@dataclass(frozen=True)
class Context:
    """A stretch of text before the next token after which the model has counted.

    Attributes:
        tokens: How many tokens it is, those before the text (its beginning, conditions) included; 0 is the empty context.
        text: What they spell.
        is_start: Whether some of them stand before the text, so that it holds all of the text.
        total: The sum of the counts after it; None where the model does not know them exactly.
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
        order: The length of the longest n-gram of it that was seen, itself included; 0 where not even the token was.
        count: How often that n-gram was counted, in its context's unit; None where the model does not know exactly.
        shares: The share of the token's probability from each of ``NextTokens.contexts``; what they lack to one comes from no
            count. None where the model does not know.
    """

    order: int
    count: int | None
    shares: tuple[float, ...] | None


@dataclass(frozen=True)
class Alternative:
    """One token that may come next.

    Attributes:
        token: Its id.
        text: What it spells; empty for the end of the text and for a part of a character.
        shown: The same for people, spaces and newlines made visible.
        is_end: Whether it ends the text.
        probability: Above 0.
        bits: Its negative binary logarithm.
        support: The counts behind it; None where the model does not count.
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
    """What a model expects after a text.

    Attributes:
        text: The text.
        tokens: How many tokens of it were read.
        temperature: At which the probabilities are.
        alternatives: The most probable tokens, of equals those of smaller id.
        entropy_bits: Of the whole distribution: 0 where the model is certain.
        possible: How many tokens have a probability above zero.
        contexts: For a model that counts, from the longest context that was seen to the empty one.
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


def check_choice(k: Any, temperature: Any) -> None:
    """Check how many alternatives are asked for, and at what temperature.

    Raises:
        ConfigError: One of them is no number in its range.
    """
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ConfigError(f"k, the number of alternatives, must be a whole number of at least 1; got {k!r}.")
    is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not is_number or not 0 < temperature < math.inf:
        raise ConfigError(f"temperature must be a number above 0; got {temperature!r}.")


def distribution(logits: Float[np.ndarray, " W"], tokenizer: Tokenizer, temperature: float) -> Float64[np.ndarray, " V"]:
    """Return the probability with which each token is drawn.

    Args:
        logits: Of at least V ids; those beyond are never drawn.
        tokenizer: Knows V, and bos, which is never drawn.
        temperature: Above 0.

    Raises:
        GenerationError: The logits are no numbers, or leave no token.
    """
    scores = logits[: tokenizer.vocab_size].astype(np.float64)
    scores[tokenizer.bos_id] = -np.inf
    largest = scores.max()
    if not largest < np.inf:  # NaN compares false
        raise GenerationError.of_damaged_logits()
    if largest == -np.inf:
        raise GenerationError("The model gives every token probability zero here, so nothing can follow.")
    weights = np.exp((scores - largest) / temperature)
    probabilities: np.ndarray = weights / weights.sum()
    return probabilities


def next_tokens(
    stepper: Stepper,
    tokenizer: Tokenizer,
    pieces: Pieces,
    ids: Sequence[int],
    logits: Float[np.ndarray, " W"],
    *,
    start: int,
    k: int,
    temperature: float,
) -> NextTokens:
    """Put together what is known of the next token.

    Args:
        stepper: Asked for the counts.
        tokenizer, pieces: The tokenizer, and the texts of its tokens.
        ids: What was read, bos first, then conditions, then the text.
        logits: What the stepper returned for it; see ``distribution``.
        start: How many ids stand before the text.
        k: How many alternatives.
        temperature: That of the probabilities.

    Raises:
        GenerationError: The logits are no numbers, or leave no token.
    """
    probabilities = distribution(logits, tokenizer, temperature)
    own = np.exp(logits - logits.max(), dtype=np.float64)  # the model's, over all its ids
    own /= own.sum()
    read = np.array(ids, np.int64)
    found = stepper.explain(read) if isinstance(stepper, SupportsExplain) else []
    best = np.argsort(-probabilities, kind="stable")[:k]
    some = probabilities[probabilities > 0]
    alternatives = [
        _alternative(token, float(probabilities[token]), _support(token, float(own[token]), found), tokenizer, pieces)
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
        contexts=tuple(_context(each, ids, start, tokenizer) for each in found),
    )


def show(text: str) -> str:
    """Return a text with its spaces and line breaks visible, and what cannot be printed escaped.

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


def _support(token: int, probability: float, found: Sequence[CountedContext]) -> Support | None:
    """Return the counts behind a token with the model's own probability, at temperature 1."""
    if not found:
        return None
    longest = next((each for each in found if each.seen[token]), None)
    parts = [float(each.parts[token]) for each in found if each.parts is not None]
    return Support(
        order=0 if longest is None else longest.tokens + 1,
        count=None if longest is None or longest.counts is None else int(longest.counts[token]),
        shares=tuple(min(1.0, part / probability) for part in parts) if len(parts) == len(found) and probability > 0 else None,
    )


def _context(found: CountedContext, ids: Sequence[int], start: int, tokenizer: Tokenizer) -> Context:
    first = len(ids) - found.tokens
    return Context(
        tokens=found.tokens,
        text=tokenizer.decode(ids[max(first, start) :]),
        is_start=first < start,
        total=None if found.counts is None else int(found.counts.sum()),
        unit=found.unit,
    )
