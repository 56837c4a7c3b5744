"""The next token of a text: the most probable tokens with the counts that support them, and a text
that a user extends token by token.

The distribution is the one that ``reviewgen.compiled.sampling`` samples from, but without filters
and penalties: bos has probability zero, and the other tokens sum to one. Entropy: Shannon 1948.
This module does not import torch.

Dimensions: V ids of the tokenizer, W ids of the model, which include those of conditions.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from reviewgen.compiled.sampling import sample_from
from reviewgen.config.settings import check_count, check_text, seed_or_random
from reviewgen.errors import ConfigError, GenerationError, printable, quoted
from reviewgen.generation.hooks import Hooks
from reviewgen.generation.pieces import TokenTexts
from reviewgen.protocols.stepper import CountedContext, Stepper, StepState, SupportsExplain
from reviewgen.protocols.tokenizer import Tokenizer

_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})
_MAX_TEXT = 200  # max characters of the end of the text that a notebook shows
_MAX_TOKEN = 60  # max characters of a token that a notebook shows


@dataclass(frozen=True)
class Context:
    """A context of a count model: the last n tokens before the next one.

    Attributes:
        tokens: n, the number of its tokens; bos and conditions, which precede the text, count, too.
            0 is the empty context.
        text: The decoded tokens.
        is_start: Whether the context reaches back to the tokens before the text, so that it covers
            the whole text.
        total: The sum of the counts of all tokens after this context; None if the exact counts are
            not known.
        unit: What is counted for each next token: "occurrences" after the context, or
            "predecessors", the number of different tokens seen before the context and this token.
    """

    tokens: int
    text: str
    is_start: bool
    total: int | None
    unit: str


@dataclass(frozen=True)
class Support:
    """The counts that support the probability of one token.

    Attributes:
        order: The length of the longest n-gram that ends in this token and was seen in training; 0
            if the token itself was not seen.
        count: The count of that n-gram, in the unit of its context; None if the exact count is not
            known.
        shares: For each of ``NextTokens.contexts``, the share of the token's probability that its
            counts contribute. If the shares sum to less than one, the rest comes from no count.
            None if the shares are not known.
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
        shown: The text for display, with visible spaces and line breaks.
        is_end: Whether the token is eos.
        probability: Its probability, above 0.
        bits: The negative binary logarithm of the probability.
        support: The counts that support the probability; None for a model without counts.
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
        tokens: The number of tokens of the text.
        temperature: The temperature of the probabilities.
        alternatives: The k most probable tokens, the most probable first. Among equally probable
            tokens, smaller ids come first.
        entropy_bits: Entropy of the whole distribution, in bits.
        possible: The number of tokens with a probability above zero.
        contexts: The contexts of a count model, from the longest that was seen in training to the
            empty one; empty for other models.
    """

    text: str
    tokens: int
    temperature: float
    alternatives: tuple[Alternative, ...]
    entropy_bits: float
    possible: int
    contexts: tuple[Context, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """Return a table of the alternatives, for notebooks."""
        from reviewgen.web.rendering import render  # imports Jinja2

        shown = self.text if len(self.text) <= _MAX_TEXT else f"…{self.text[-_MAX_TEXT:]}"
        return render("generation/next_tokens.html", next_tokens=self, shown=shown, most=_MAX_TOKEN)


def log_softmax(logits: Float[np.ndarray, " W"]) -> Float64[np.ndarray, " W"]:
    """Return the log probabilities (nats) of logits; some may be -inf.

    Raises:
        GenerationError: The logits are NaN or infinite, or all -inf.
    """
    largest = float(logits.max())
    scores = logits.astype(np.float64)
    if not math.isfinite(largest):
        raise GenerationError.of_damaged_logits()
    scores -= largest + np.log(np.exp(scores - largest).sum())
    return scores


def most_probable(scores: Float64[np.ndarray, " N"], count: int) -> list[int]:
    """Return the indices of the ``count`` largest scores, the largest first.

    Equal scores are ordered by index, the smallest first.
    """
    count = min(count, len(scores))
    best = np.argpartition(-scores, count - 1)[:count]  # in any order
    # lexsort sorts by its last key first
    ordered: list[int] = best[np.lexsort((best, -scores[best]))].tolist()
    return ordered


def distribution(
    logits: Float[np.ndarray, " W"], tokenizer: Tokenizer, temperature: float
) -> Float64[np.ndarray, " V"]:
    """Return the probability with which each token is sampled.

    Args:
        logits: The logits of V or more ids; ids from V on are never sampled.
        tokenizer: The tokenizer. Its vocab_size is V; its bos is never sampled.
        temperature: The temperature, above 0.

    Raises:
        GenerationError: The logits are NaN or infinite, or no token has a probability above zero.
    """
    scores = logits[: tokenizer.vocab_size].astype(np.float64)
    scores[tokenizer.bos_id] = -np.inf
    largest = scores.max()
    if not largest < np.inf:  # NaN compares false
        raise GenerationError.of_damaged_logits()
    if largest == -np.inf:
        raise GenerationError(
            "The model gives every token probability zero here, so no token can follow."
        )
    weights = np.exp((scores - largest) / temperature)
    probabilities: np.ndarray = weights / weights.sum()
    return probabilities


def show(text: str) -> str:
    """Return a text with visible spaces and line breaks, and unprintable characters escaped.

    >>> show("a b\\n")
    'a␣b⏎'
    """
    return printable(text.translate(_VISIBLE))


def _support(token: int, probability: float, contexts: Sequence[CountedContext]) -> Support | None:
    """Return the counts that support a token's probability; None for a model without counts.

    Args:
        token: The id of the token.
        probability: Its probability under the model, at temperature 1.
        contexts: The contexts of the model, the longest first.
    """
    if not contexts:
        return None
    order = 0
    count = None
    longest = next((context for context in contexts if context.seen[token]), None)
    if longest is not None:
        order = longest.tokens + 1
        count = None if longest.counts is None else int(longest.counts[token])
    shares = None
    parts = [float(context.parts[token]) for context in contexts if context.parts is not None]
    if len(parts) == len(contexts) and probability > 0:
        shares = tuple(min(1.0, part / probability) for part in parts)
    return Support(order, count, shares)


class _Step(NamedTuple):
    """The walk after one step.

    Attributes:
        ids: The ids fed so far, bos first.
        logits: The model's logits of the next token.
        scores: The logits after the logits processors.
        state: The stepper's state after the ids.
    """

    ids: tuple[int, ...]
    logits: Float[np.ndarray, " W"]
    scores: Float[np.ndarray, " W"]
    state: StepState


class Walk:
    """A text that a user extends token by token, and can undo. A step that raises an error leaves
    the text unchanged.

    Args:
        stepper: Predicts the next token.
        tokenizer, pieces: The tokenizer, and the text of each of its tokens.
        text: The text to begin with. The empty text is the start of a review.
        conditions: The ids of conditions, which follow bos.
        temperature: The temperature of the probabilities that are shown and sampled from.
        hooks: The logits processors; they change the probabilities that are shown and sampled from.
        seed: The seed of the sampling; None takes a random one.

    Raises:
        ConfigError: The text is not a string, the temperature is not a number above 0, or the seed
            is out of range.
    """

    def __init__(
        self,
        stepper: Stepper,
        tokenizer: Tokenizer,
        pieces: TokenTexts,
        text: str = "",
        conditions: Sequence[int] = (),
        *,
        temperature: float = 1.0,
        hooks: Hooks | None = None,
        seed: int | None = None,
    ) -> None:
        check_text("The text", text)
        is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        if not is_number or not 0 < temperature <= sys.float_info.max:
            raise ConfigError(f"temperature must be a number above 0; got {quoted(temperature)}.")
        self._hooks = hooks
        self._stepper = stepper
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._temperature = temperature
        self._rng = np.random.default_rng(seed_or_random(seed))
        self._prefix = (tokenizer.bos_id, *conditions)
        self._steps = [self._feed((*self._prefix, *tokenizer.encode(text)))]

    @property
    def text(self) -> str:
        """The text so far, decoded from its tokens."""
        return self._tokenizer.decode(self._ids)

    @property
    def has_ended(self) -> bool:
        """Whether the last token is eos. If so, only ``undo`` can change the text."""
        return self._steps[-1].ids[-1] == self._tokenizer.eos_id

    @property
    def _ids(self) -> list[int]:
        """The token ids of the text."""
        return list(self._steps[-1].ids[len(self._prefix) :])

    def next_tokens(self, k: int = 10) -> NextTokens:
        """Return the k most probable next tokens.

        Raises:
            ConfigError: k is not a whole number of at least 1.
            GenerationError: No token can follow, or the text has ended.
        """
        check_count("k, the number of alternatives,", k)
        self._refuse_end()
        ids, logits, scores, _ = self._steps[-1]
        probabilities = distribution(scores, self._tokenizer, self._temperature)
        model_probs = np.exp(log_softmax(logits))  # over all ids of the model, also conditions
        contexts: Sequence[CountedContext] = ()
        if isinstance(self._stepper, SupportsExplain):
            contexts = self._stepper.explain(np.array(ids, np.int64))
        best = np.argsort(-probabilities, kind="stable")[:k].tolist()
        possible = probabilities[probabilities > 0]
        return NextTokens(
            text=self.text,
            tokens=len(self._ids),
            temperature=float(self._temperature),
            alternatives=tuple(
                self._alternative(
                    token,
                    float(probabilities[token]),
                    _support(token, float(model_probs[token]), contexts),
                )
                for token in best
                if probabilities[token] > 0
            ),
            entropy_bits=max(0.0, float(-(possible * np.log2(possible)).sum())),
            possible=len(possible),
            contexts=tuple(map(self._context, contexts)),
        )

    def take(self, token: int) -> None:
        """Append a token.

        Raises:
            ConfigError: The token is not an id of the tokenizer, or it is bos.
            GenerationError: The text has ended.
        """
        self._refuse_end()
        is_number = isinstance(token, int) and not isinstance(token, bool)
        is_id = is_number and 0 <= token < self._tokenizer.vocab_size
        if not is_id or token == self._tokenizer.bos_id:
            raise ConfigError(
                f"Token {quoted(token)} cannot be taken: ids are 0 to"
                f" {self._tokenizer.vocab_size - 1}, without bos."
            )
        self._append((*self._steps[-1].ids, token))

    def write(self, text: str) -> None:
        """Append a string. It is tokenized together with the text before it.

        If the text so far has other tokens than the tokenizer would give it, these tokens stay as
        they are, and the string is tokenized alone.

        Raises:
            ConfigError: ``text`` is not a string, or the tokenizer has no token for any of it.
            GenerationError: The text has ended.
        """
        self._refuse_end()
        check_text("The text", text)
        before = self._ids
        if self._tokenizer.encode(self.text) == before:
            after = self._tokenizer.encode(self.text + text)
        else:
            after = before + self._tokenizer.encode(text)
        if after == before:
            raise ConfigError(
                f"The tokenizer has no token for {quoted(text)}, so nothing was added."
            )
        self._append((*self._prefix, *after))

    def draw(self, number: int = 1) -> None:
        """Sample tokens from the probabilities shown and append them, as one step for ``undo``.

        Args:
            number: The number of tokens to sample; fewer if the text ends before.

        Raises:
            ConfigError: The number is not a whole number of at least 1.
            GenerationError: No token can follow, or the text has ended.
        """
        check_count("The number of tokens to sample", number)
        self._refuse_end()
        start = len(self._steps)
        try:
            while len(self._steps) < start + number and not self.has_ended:
                probabilities = distribution(
                    self._steps[-1].scores, self._tokenizer, self._temperature
                )
                # top_k=0, top_p=1.0 and min_p=0.0 switch the filters off
                self.take(int(sample_from(probabilities, 0, 1.0, 0.0, self._rng.random())))
        finally:  # keep only the last of the new steps, also if a further one raised an error
            del self._steps[start:-1]

    def undo(self) -> bool:
        """Undo the last step; return whether there was a step to undo."""
        if len(self._steps) == 1:
            return False
        self._steps.pop()
        return True

    def _alternative(self, token: int, probability: float, support: Support | None) -> Alternative:
        """Return a possible next token with its text, also for display."""
        is_end = token == self._tokenizer.eos_id
        text = "" if is_end else self._pieces.texts[token]
        shown = "(end)" if is_end else show(text) or "(part of a character)"
        bits = abs(math.log2(probability))  # unlike a minus sign, abs never gives -0.0
        return Alternative(token, text, shown, is_end, probability, bits, support)

    def _context(self, counted: CountedContext) -> Context:
        """Return a context of the stepper with its text, and without the arrays of counts."""
        ids = self._steps[-1].ids
        start = len(self._prefix)
        first = len(ids) - counted.tokens
        text = self._tokenizer.decode(ids[max(first, start) :])
        total = None if counted.counts is None else int(counted.counts.sum())
        return Context(counted.tokens, text, is_start=first < start, total=total, unit=counted.unit)

    def _append(self, ids: tuple[int, ...]) -> None:
        """Feed all these ids, and add the step to the walk."""
        self._steps.append(self._feed(ids, self._steps[-1]))

    def _feed(self, ids: tuple[int, ...], before: _Step | None = None) -> _Step:
        """Feed ids to the stepper, and return the step.

        If the ids begin with those of the previous step, ``before``, only the ids after them are
        fed.
        """
        if before is None or ids[: len(before.ids)] != before.ids:
            before = _Step((), np.empty(0), np.empty(0), self._stepper.initial_state(1))
        logits, state = self._stepper.forward(
            np.array([ids[len(before.ids) :]], np.int64), before.state
        )
        return _Step(ids, logits[0], self._process(ids, logits[0]), state)

    def _process(
        self, ids: tuple[int, ...], logits: Float[np.ndarray, " W"]
    ) -> Float[np.ndarray, " W"]:
        """Return the logits after the logits processors. After eos they are returned unchanged,
        since no token can follow.
        """
        if self._hooks is None or ids[-1] == self._tokenizer.eos_id:
            return logits
        scores = logits.astype(np.float64)
        scores[self._tokenizer.bos_id] = -np.inf
        scores[self._tokenizer.vocab_size :] = -np.inf
        return self._hooks.process(ids, scores)

    def _refuse_end(self) -> None:
        """Raise an error if the text has ended."""
        if self.has_ended:
            raise GenerationError(
                "The review has ended, so no token can follow; undo the end first."
            )
