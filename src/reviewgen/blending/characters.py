"""A part of a blend whose tokens are not those of the blend: its tokens are written in the ids of
the blend. No torch.

The ids of the blend are characters and, of other characters, half bytes. Each token of the part is
written as one or more of them, so the part is a distribution over strings of ids: the probability
of the next id is the sum over all token strings that begin with what was written and this id,
divided by the sum over those that begin with what was written. The sums are over hypotheses, see
``reviewgen.compiled.hypotheses``, of which the most probable ``HYPOTHESES`` are kept. Without that
limit they are exact, and with it the probabilities still sum to one: of 4,357 characters of music
reviews `lstm-word` then needs 2.060 bits each, and 2.054 with 24 hypotheses. Using only the
tokenization of its own tokenizer, one term of the sum, costs 2.094.

Source: Vieira et al. 2024, "From Language Models over Tokens to Language Models over Characters".

B texts, T ids, K hypotheses, V tokens of the part, W ids of the blend, R texts that are stepped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from reviewgen.compiled.hypotheses import choose_hypotheses, read_distributions
from reviewgen.compiled.spelling import HALF
from reviewgen.errors import ConfigError, quoted
from reviewgen.generation.states import map_state, select_rows
from reviewgen.lexicon.token_bytes import Symbols
from reviewgen.protocols.stepper import Stepper, StepState

HYPOTHESES = 4  # of a text, K


@dataclass(frozen=True, eq=False)
class TokenCharacters:
    """The spelling of a part's tokens in ids of the blend.

    The tokens are sorted by their ids of the blend, so that those that begin with the same ids are
    a range.

    Attributes:
        bos_id: The part's beginning-of-text id.
        blend_bos_id: That of the blend, at which the part starts again.
        vocab_size: The number of ids of the blend, W.
        order: The part's ids, sorted.
        starts: Where the ids of the blend of each of these begin in ``characters``, and where those
            of the last end.
        characters: The ids of the blend.
    """

    bos_id: int
    blend_bos_id: int
    vocab_size: int
    order: Int64[np.ndarray, " V"]
    starts: Int64[np.ndarray, " V1"]
    characters: Int64[np.ndarray, " N"]

    @classmethod
    def of_entry(cls, entry: Mapping[str, Any], tokens: Any, vocab_size: int) -> "TokenCharacters":
        """Return the spelling that ``describe_characters`` wrote.

        Args:
            entry: The value of ``characters``.
            tokens: The number of ids of the part, V, as its config has it.
            vocab_size: The number of ids of the blend.

        Raises:
            ConfigError: It is something else.
        """
        try:
            bos_id = entry["bos_id"]
            rows = [
                [int(number) for number in token.split(",")] for token in entry["tokens"].split(" ")
            ]
            known = all(0 <= number < vocab_size for row in rows for number in row)
            if (
                len(entry) > 2
                or type(bos_id) is not int
                or len(rows) != tokens
                or not known
                or not 0 <= bos_id < tokens
            ):
                raise ValueError
        except (KeyError, AttributeError, ValueError):
            raise ConfigError(
                "characters of a model of a blend should be {'bos_id': an id, 'tokens': for each"
                f" of {tokens} ids, separated by spaces, numbers below {vocab_size} with commas"
                f" between}}; got {quoted(entry)}."
            ) from None
        order = sorted(range(tokens), key=rows.__getitem__)
        starts = np.cumsum([0, *(len(rows[token]) for token in order)])
        flat = np.fromiter(
            chain.from_iterable(rows[token] for token in order), np.int64, int(starts[-1])
        )
        return cls(bos_id, rows[bos_id][0], vocab_size, np.array(order), starts, flat)


def shared_alphabet(parts: Sequence[Symbols]) -> str:
    """Return the characters that the blend of some tokenizers has ids for: those that each has a
    token for.

    If the tokens of one may begin or end inside a character, they are those of one byte: so what a
    token writes does not depend on the tokens around it. All others are written in half bytes.
    """
    alphabets = []
    for part in parts:
        texts = [_decode(token) for token in part.tokens() if token and max(token) < HALF]
        is_whole = None not in texts
        alphabets.append(
            {text for text in texts if text and len(text) == 1 and (is_whole or text.isascii())}
        )
    return "".join(sorted(set.intersection(*alphabets)))


def describe_characters(
    part: Symbols,
    blend: Symbols,
    bos_ids: tuple[int, int],
    eos_ids: tuple[int, int],
    given: Sequence[int],
) -> dict[str, Any]:
    """Return what the tokens of a part are in ids of the blend, as JSON values.

    Args:
        part: The bytes of the tokens of its tokenizer.
        blend: Those of the blend's tokenizer, which has an id for each half byte and else for
            characters.
        bos_ids, eos_ids: The id of the part and that of the blend.
        given: The ids of the blend for the part's condition ids, which follow those of its
            tokenizer.
    """
    ids = {token: number for number, token in enumerate(blend.tokens()) if token}
    rows = [_write(token, ids) or [bos_ids[1]] for token in part.tokens()]
    rows[eos_ids[0]] = [eos_ids[1]]
    rows += [[number] for number in given]
    return {"bos_id": bos_ids[0], "tokens": " ".join(",".join(map(str, row)) for row in rows)}


def _decode(token: Sequence[int]) -> str | None:
    """Return the text of some bytes; None if they are not whole characters."""
    try:
        return bytes(token).decode()
    except UnicodeDecodeError:
        return None


def _write(token: tuple[int, ...], ids: Mapping[tuple[int, ...], int]) -> list[int]:
    """Return the ids of the blend that a token is written in: its own, or whole characters if they
    have one, else half bytes.
    """
    if token in ids:
        return [ids[token]]
    written = list[int]()
    place = 0
    while place < len(token):
        first = token[place]
        character = token[
            place : place
            + 1
            + (0xC0 <= first < HALF)
            + (0xE0 <= first < HALF)
            + (0xF0 <= first < HALF)
        ]
        halves = (first,) if first >= HALF else (HALF + (first >> 4), HALF + (first & 15))
        written += [ids[character]] if character in ids else [ids[half,] for half in halves]
        place += len(character) if character in ids else 1
    return written


class CharacterStepper:
    """Steps a part with the ids of the blend; its logits are log probabilities (nats), of which
    some may be -inf.

    The state is that of the part after the complete tokens of each hypothesis, (B, K, ...); float32
    (B, K, V), the probability of each token, in order and up to a factor; float64 (B, K), the
    weight of each hypothesis by that factor, 0 for none; int64 (B, K, 3), the range of the tokens
    that may be next, and how many ids of them are written.

    Args:
        stepper: The stepper of the part.
        tokens: What its tokens are in ids of the blend.
    """

    def __init__(self, stepper: Stepper, tokens: TokenCharacters) -> None:
        self._stepper = stepper
        self._tokens = tokens

    def initial_state(self, batch_size: int) -> StepState:
        """Return the state before the first id, which is that after bos."""
        return map_state(lambda array: np.repeat(array, batch_size, axis=0), self._start)

    def forward(
        self, ids: Int64[np.ndarray, "B T"], state: StepState
    ) -> tuple[Float[np.ndarray, "B W"], StepState]:
        """Return the log probability of each id after the last of ``ids``, and the state after
        it.
        """
        table, state = self.log_probabilities(ids, state)
        return table[:, -1].astype(np.float32), state

    def log_probabilities(
        self, ids: Int64[np.ndarray, "B T"], state: StepState
    ) -> tuple[Float64[np.ndarray, "B T W"], StepState]:
        """Return the log probability of each id after each of ``ids``, and the state after the
        last.
        """
        # a copy, which is written into
        state = map_state(lambda array: np.array(array, order="C"), state)
        _, probs, weights, spans = state
        table = np.empty((*ids.T.shape, self._tokens.vocab_size))  # (T, B, W)
        for time, written in enumerate(np.ascontiguousarray(ids.T, np.int64)):
            self._append(written, state)
            read_distributions(
                self._tokens.characters, self._tokens.starts, probs, weights, spans, table[time]
            )
        return table.swapaxes(0, 1), state

    @cached_property
    def _start(self) -> StepState:
        """The state of one text after bos."""
        bos = np.array([[self._tokens.bos_id]])
        logits, state = self._stepper.forward(bos, self._stepper.initial_state(1))
        tokens = len(self._tokens.order)
        probs = np.zeros((1, HYPOTHESES, tokens), np.float32)
        weights = np.zeros((1, HYPOTHESES))
        spans = np.zeros((1, HYPOTHESES, 3), np.int64)
        probs[:, 0] = self._weigh(logits)
        weights[:, 0] = 1
        spans[:, 0, 1] = tokens
        return (
            map_state(lambda array: np.repeat(array[:, None], HYPOTHESES, axis=1), state),
            probs,
            weights,
            spans,
        )

    def _weigh(self, logits: Float[np.ndarray, "R V"]) -> Float32[np.ndarray, "R V"]:
        """Return the probabilities of tokens in order, divided by the largest."""
        ordered: np.ndarray = logits[:, self._tokens.order].astype(np.float32, copy=False)
        probs: np.ndarray = np.exp(ordered - ordered.max(axis=1, keepdims=True))
        return probs

    def _append(self, ids: Int64[np.ndarray, " B"], state: StepState) -> None:
        """Write an id after each text, into a state."""
        part, probs, weights, spans = state
        steps = np.empty((weights.size, 3), np.int64)
        count = choose_hypotheses(
            ids,
            self._tokens.characters,
            self._tokens.starts,
            self._tokens.order,
            probs,
            weights,
            spans,
            steps,
        )
        slots, parents, tokens = steps[:count].T
        if count:
            rows = map_state(lambda array: array.reshape(-1, *array.shape[2:]), part)
            logits, stepped = self._stepper.forward(
                np.ascontiguousarray(tokens[:, None]), select_rows(rows, parents)
            )
            new = self._weigh(logits)
            probs.reshape(-1, probs.shape[2])[slots] = new
            weights.reshape(-1)[slots] /= new.sum(axis=1, dtype=np.float64)
            map_state(lambda old, changed: old.__setitem__(slots, changed), rows, stepped)
        started = ids == self._tokens.blend_bos_id
        if started.any():
            map_state(lambda array, first: array.__setitem__(started, first), state, self._start)
