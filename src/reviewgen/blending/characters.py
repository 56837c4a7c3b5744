"""Converts a component of a blend that has a different tokenizer: it then reads and predicts the
ids of the blend. No torch.

An id of the blend is a character, or half a byte of a character that has no id. Each token of the
component is spelled with one or more of these ids, so the component is a distribution over
sequences of ids. The probability of the next id is a quotient of two sums over token sequences:
those whose spelling begins with the ids so far and this id, and those whose spelling begins with
the ids so far.

The sums are over hypotheses (see ``reviewgen.compiled.hypotheses``), of which the ``HYPOTHESES``
most probable are kept. Without this limit the sums would be exact; with it, the probabilities still
sum to one. On 4,357 characters of music reviews, `lstm-word` needs 2.060 bits per character, and
2.054 with 24 hypotheses. With only one term of the sum, the tokenization by its own tokenizer, it
needs 2.094.

Source: Vieira et al. 2024, "From Language Models over Tokens to Language Models over Characters".

Shapes: B texts, T ids, K hypotheses, V tokens of the component, W ids of the blend, N ids of all
spellings, R rows of logits.
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

HYPOTHESES = 4  # K, the number of hypotheses that are kept for each text
# the smallest first byte of a character of two, three and four bytes in UTF-8
LONGER_CHARACTERS = (0xC0, 0xE0, 0xF0)


@dataclass(frozen=True, eq=False)
class TokenCharacters:
    """How each token of a component is spelled: as a sequence of ids of the blend.

    The tokens are sorted by their spelling, so tokens whose spelling begins with the same ids are a
    range.

    Attributes:
        bos_id: The component's beginning-of-text id.
        blend_bos_id: The beginning-of-text id of the blend; the component starts again at this id.
        vocab_size: The number of ids of the blend, W.
        order: The component's token ids, sorted by their spelling.
        starts: Where the spelling of each token, in this order, begins in ``characters``, and where
            the last one ends.
        characters: The spellings, one after another, in ids of the blend.
    """

    bos_id: int
    blend_bos_id: int
    vocab_size: int
    order: Int64[np.ndarray, " V"]
    starts: Int64[np.ndarray, " V1"]
    characters: Int64[np.ndarray, " N"]

    @classmethod
    def of_entry(
        cls, entry: Mapping[str, Any], own_size: Any, vocab_size: int
    ) -> "TokenCharacters":
        """Parse the spellings that ``describe_characters`` returned.

        Args:
            entry: The value of ``characters`` in the component's entry.
            own_size: The number of ids of the component, V, according to its config.
            vocab_size: The number of ids of the blend.

        Raises:
            ConfigError: ``entry`` is not of the form that ``describe_characters`` returns.
        """
        try:
            bos_id = entry["bos_id"]
            spellings = [list(map(int, token.split(","))) for token in entry["tokens"].split(" ")]
            ids = list(chain.from_iterable(spellings))
            is_in_range = min(ids) >= 0 and max(ids) < vocab_size
            is_bos = type(bos_id) is int and 0 <= bos_id < len(spellings)
            if len(entry) > 2 or len(spellings) != own_size or not is_in_range or not is_bos:
                raise ValueError
        except (KeyError, AttributeError, ValueError):
            raise ConfigError(
                "characters of a model of a blend should be {'bos_id': an id, 'tokens': for each"
                f" of {own_size} ids, separated by spaces, numbers below {vocab_size} with commas"
                f" between}}; got {quoted(entry)}."
            ) from None
        order = sorted(range(own_size), key=spellings.__getitem__)
        ordered = [spellings[token] for token in order]
        starts = np.cumsum([0, *map(len, ordered)])
        flat = np.fromiter(chain.from_iterable(ordered), np.int64, len(ids))
        # the component's bos is spelled as the bos of the blend
        return cls(bos_id, spellings[bos_id][0], vocab_size, np.array(order), starts, flat)


def shared_alphabet(tokenizers: Sequence[Symbols]) -> str:
    """Return the characters that a blend of some tokenizers has ids for: those for which every
    tokenizer has a token. All other characters are spelled with half bytes.

    If some tokens of a tokenizer begin or end inside a character, only ASCII characters count as
    its tokens. Then the spelling of a token does not depend on the tokens around it.
    """
    alphabets = []
    for symbols in tokenizers:
        # without bos, eos and halves of bytes; None for a token that is not whole characters
        texts = [_decode(token) for token in symbols.tokens() if token and max(token) < HALF]
        characters = {text for text in texts if text and len(text) == 1}
        if None in texts:
            characters = set(filter(str.isascii, characters))
        alphabets.append(characters)
    return "".join(sorted(set.intersection(*alphabets)))


def describe_characters(
    symbols: Symbols,
    blend: Symbols,
    bos_ids: tuple[int, int],
    eos_ids: tuple[int, int],
    given: Sequence[int],
) -> dict[str, Any]:
    """Return, as JSON values, how each token of a component is spelled with ids of the blend.

    Args:
        symbols: The bytes of each token that the component's tokenizer has.
        blend: The bytes of each token that the blend's tokenizer has; these tokens are half bytes
            and characters.
        bos_ids, eos_ids: The beginning-of-text and end-of-text id, each as a pair: that of the
            component, and that of the blend.
        given: For each condition id of the component, the id of the blend. The condition ids of the
            component follow those of its tokenizer.
    """
    ids = {token: number for number, token in enumerate(blend.tokens()) if token}
    bos_id, blend_bos_id = bos_ids
    eos_id, blend_eos_id = eos_ids
    # a token without bytes, such as bos, is spelled as bos
    spellings = [_write(token, ids) or [blend_bos_id] for token in symbols.tokens()]
    spellings[eos_id] = [blend_eos_id]
    spellings += [[number] for number in given]
    tokens = [",".join(map(str, spelling)) for spelling in spellings]
    return {"bos_id": bos_id, "tokens": " ".join(tokens)}


def _decode(token: Sequence[int]) -> str | None:
    """Return the text of some bytes; None if they are not whole characters."""
    try:
        return bytes(token).decode()
    except UnicodeDecodeError:
        return None


def _write(token: tuple[int, ...], ids: Mapping[tuple[int, ...], int]) -> list[int]:
    """Return the ids of the blend that spell a token: one id if the blend has the same token;
    otherwise the id of each character, or the ids of half bytes for a character that has no id.
    """
    if token in ids:
        return [ids[token]]
    written = list[int]()
    position = 0
    while position < len(token):
        first = token[position]
        # the number of bytes of the character that begins here, by its first byte
        width = 1 + sum(smallest <= first < HALF for smallest in LONGER_CHARACTERS)
        character = token[position : position + width]
        if character in ids:
            written.append(ids[character])
            position += width
            continue
        # the higher and the lower four bits, unless the tokens are half bytes already
        halves = (first,) if first >= HALF else (HALF + (first >> 4), HALF + (first & 15))
        written += [ids[half,] for half in halves]
        position += 1
    return written


class CharacterStepper:
    """Steps a component with the ids of the blend. Its logits are log probabilities (nats), some of
    which may be -inf.

    The state is a tuple of four items. For each hypothesis they hold:

    1. (B, K, ...): the component's state after the complete tokens of the hypothesis.
    2. float32 (B, K, V): the unnormalised probability of each token; the tokens are sorted by
       spelling.
    3. float64 (B, K): the weight of the hypothesis, divided by the sum of these unnormalised
       probabilities; 0 for an unused slot.
    4. int64 (B, K, 3): the start and the end of the range of tokens that may come next, and how
       many ids of their spelling are already written.

    Args:
        stepper: The stepper of the component.
        tokens: How the component's tokens are spelled with ids of the blend.
    """

    def __init__(self, stepper: Stepper, tokens: TokenCharacters) -> None:
        self._stepper = stepper
        self._tokens = tokens

    def initial_state(self, batch_size: int) -> StepState:
        """Return the state before the first id of the text, which is the state after bos."""
        return map_state(lambda array: np.repeat(array, batch_size, axis=0), self._start)

    def forward(
        self, ids: Int64[np.ndarray, "B T"], state: StepState
    ) -> tuple[Float[np.ndarray, "B W"], StepState]:
        """Return the log probability of each id of the blend after the last of ``ids``, and the
        state after it.
        """
        table, state = self.log_probabilities(ids, state)
        return table[:, -1].astype(np.float32), state

    def log_probabilities(
        self, ids: Int64[np.ndarray, "B T"], state: StepState
    ) -> tuple[Float64[np.ndarray, "B T W"], StepState]:
        """Return the log probability of each id of the blend after each of ``ids``, and the state
        after the last.
        """
        # _append writes into this copy
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
        states = map_state(lambda array: np.repeat(array[:, None], HYPOTHESES, axis=1), state)
        vocab_size = len(self._tokens.order)
        probs = np.zeros((1, HYPOTHESES, vocab_size), np.float32)
        weights = np.zeros((1, HYPOTHESES))
        spans = np.zeros((1, HYPOTHESES, 3), np.int64)
        # one hypothesis, for which every token is possible; the other slots are unused
        probs[:, 0] = self._weigh(logits)
        weights[0, 0] = 1
        spans[0, 0] = 0, vocab_size, 0  # start and end of the range, number of ids written
        return states, probs, weights, spans

    def _weigh(self, logits: Float[np.ndarray, "R V"]) -> Float32[np.ndarray, "R V"]:
        """Return unnormalised probabilities of the tokens, sorted by spelling; the largest is 1."""
        ordered: np.ndarray = logits[:, self._tokens.order].astype(np.float32, copy=False)
        probs: np.ndarray = np.exp(ordered - ordered.max(axis=1, keepdims=True))
        return probs

    def _append(self, ids: Int64[np.ndarray, " B"], state: StepState) -> None:
        """Append an id to each text. The state is updated in place."""
        states, probs, weights, spans = state
        # for each new hypothesis: its slot, the slot of its parent, and the token to append
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
        # step the component for each new hypothesis, from the state of its parent
        slots, parents, tokens = steps[:count].T
        if count:
            # (B * K, ...), with a row for each slot
            rows = map_state(lambda array: array.reshape(-1, *array.shape[2:]), states)
            logits, stepped = self._stepper.forward(
                np.ascontiguousarray(tokens[:, None]), select_rows(rows, parents)
            )
            new = self._weigh(logits)
            probs.reshape(-1, probs.shape[2])[slots] = new
            weights.reshape(-1)[slots] /= new.sum(axis=1, dtype=np.float64)
            # ``rows`` shares the memory of ``states``, so this updates the state
            map_state(lambda old, changed: old.__setitem__(slots, changed), rows, stepped)
        # reset the state of each text whose id is bos
        started = ids == self._tokens.blend_bos_id
        if started.any():
            map_state(lambda array, first: array.__setitem__(started, first), state, self._start)
