"""Automata for four kinds of rules: a word that a text must contain, words that it must not
contain, choices of which it must be one, and a pattern that it must match.

An automaton is built over bytes and then stored over tokens: ``next[s, v]`` is the state after
token v in state s. State 0 is dead, and state 1 means that the rule holds whatever follows.

A choice or a pattern describes what follows the prompt. If the last word of the prompt is still to
be spelled, the state is this rest of the prompt.

A word is found only as a whole word: next to its first and last letter, there must not be a letter,
digit or underscore. The first letter may be of either case. A byte above 127 beside the word counts
as a letter for an included word, and as no letter for an excluded one. So a text that must contain
a word matches ``\\bword\\b``, and a text that must not contain it does not match.

Dimensions: S states, V vocabulary, N symbols (bytes and half bytes).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Int32, Int64

from reviewgen.compiled.spelling import HALF
from reviewgen.errors import BrokenPlugin, ConfigError, quoted
from reviewgen.formats.patterns import END, Pattern, Unsupported
from reviewgen.lexicon.token_bytes import Symbols
from reviewgen.protocols.extensions import TokenAutomaton

DEAD = 0
HOLDS = 1
FIRST = 2  # the state before the first byte
_SYMBOLS = HALF + 16  # number of symbols: the bytes, and the sixteen half bytes
FAR = 1 << 20  # the distance of a state from which no text can end: more tokens than any text has
_MAX_CELLS = 1 << 24  # max number of states times number of tokens

State: TypeAlias = int | tuple[int, ...]
"""A state of an automaton, or the bytes of the prompt that are still to be spelled."""


@dataclass(frozen=True)
class Automaton:
    """An automaton over tokens.

    Attributes:
        name: The rule, as in "include='guitar'", for messages.
        next: The state after each token in each state.
        distance: For each state, the minimum number of tokens until the text may end; FAR if it
            never may.
        by_symbol: The state after each symbol in each state. It is needed only if the text may
            begin with a rest of the prompt, after which a token may go on.
        tokens: The symbols of each token, which are needed in the same case.
    """

    name: str
    next: Int32[np.ndarray, "S V"]
    distance: Int64[np.ndarray, " S"]
    by_symbol: Int32[np.ndarray, "S N"] | None = None
    tokens: Sequence[tuple[int, ...]] = ()

    @property
    def margin(self) -> int:
        """A number of tokens in which a text can be completed from every state that is not dead:
        the largest distance, and two more to be safe.
        """
        return int(self.distance[self.distance < FAR].max()) + 2

    def after(self, state: State, token: int) -> State:
        """Return the state after a token.

        If ``state`` is a rest of the prompt, the token must spell its beginning, or all of it and
        the first symbols of what follows the prompt.
        """
        if isinstance(state, int):
            return int(self.next[state, token])
        symbols = self.tokens[token]
        size = min(len(symbols), len(state))
        if not size or symbols[:size] != state[:size]:
            return DEAD
        assert self.by_symbol is not None
        after = FIRST
        for symbol in symbols[size:]:
            after = int(self.by_symbol[after, symbol])
        # what is left of the prompt; if nothing is left, the state of the automaton
        return state[size:] or (after if self.distance[after] < FAR else DEAD)

    def all_after(self, state: State) -> Int32[np.ndarray, " V"]:
        """Return the state after each token. Where a rest of the prompt would be left after a
        token, FIRST stands for this rest.
        """
        if isinstance(state, int):
            row: np.ndarray = self.next[state]
            return row
        after = [self.after(state, token) for token in range(self.next.shape[1])]
        return np.array([FIRST if isinstance(each, tuple) else each for each in after], np.int32)


@dataclass(frozen=True)
class _WordState:
    """A state of the automaton of a set of words.

    Attributes:
        matches: The words that may have begun, as pairs: the number of the spelling of a word, and
            how many of its bytes are matched.
        is_complete: Whether the text now ends with one of the words. It is found unless a letter
            follows.
        is_inside: Whether the last byte is a letter, after which a word cannot begin.
        half: The first half of a byte, if the last symbol was one; else -1.
    """

    matches: frozenset[tuple[int, int]] = frozenset()
    is_complete: bool = False
    is_inside: bool = False
    half: int = -1


def include(word: str, symbols: Symbols, eos: int) -> Automaton:
    """Return the automaton of the texts that contain a word or phrase.

    Args:
        word: The word.
        symbols: The bytes of the tokens.
        eos: The id of the end token.

    Raises:
        ConfigError: The tokens cannot spell the word.
    """
    automaton = _compile(
        f"include={word!r}",
        _WordState(),
        _word_step([word], HOLDS),
        lambda state: state.is_complete and state.half < 0,
        symbols,
        eos,
    )
    if automaton.distance[FIRST] >= FAR:
        raise _unspelled_error("include", word)
    return automaton


def exclude(words: Sequence[str], symbols: Symbols, eos: int) -> Automaton:
    """Return the automaton of the texts that contain none of some words."""
    return _compile(
        f"exclude={', '.join(map(repr, words))}",
        _WordState(),
        _word_step(words, DEAD),
        lambda state: not state.is_complete,
        symbols,
        eos,
    )


def choices(texts: Sequence[str], symbols: Symbols, eos: int) -> Automaton:
    """Return the automaton of the texts that are equal to one of ``texts``.

    Raises:
        ConfigError: The tokens cannot spell one of the texts, or the texts are too long together.
    """
    encoded = {text.encode(errors="surrogatepass") for text in texts}
    beginnings = {b""}
    for text in encoded:
        beginnings.update(text[:end] for end in range(1, len(text) + 1))
    if len(beginnings) * len(symbols.offsets) > _MAX_CELLS:
        raise ConfigError(
            f"choices may have about {_MAX_CELLS // len(symbols.offsets):,} characters together;"
            f" these have {len(beginnings):,}. Use regex instead."
        )
    # the tokens of whole bytes: without bos, eos and halves of bytes
    tokens = {bytes(token) for token in symbols.tokens() if token and max(token) < HALF}
    for choice in texts:
        if not _is_spelled(choice.encode(errors="surrogatepass"), tokens):
            raise _unspelled_error("choices", choice)

    def step(state: Any, symbol: int) -> Any:
        """Return the state after another symbol: the bytes so far, or DEAD if no choice begins
        with them.
        """
        after = state + bytes([symbol]) if symbol < HALF else b""
        return after if after in beginnings and after else DEAD

    return _compile("choices", b"", step, encoded.__contains__, symbols, eos)


def regex(pattern: str, symbols: Symbols, eos: int) -> Automaton | None:
    """Return the automaton of the texts that match a pattern; None if it has too many states, or
    syntax that ``patterns`` does not know.
    """
    try:
        parsed = Pattern(pattern, _alphabet(symbols))
        row = cache(parsed.row)

        def step(state: Any, symbol: int) -> Any:
            """Return the state after another symbol: the set of positions as an integer."""
            return row(state).get(symbol, DEAD)

        # a text may end in a state that contains the position END, that is, whose bit END is set
        return _compile("regex", parsed.first, step, lambda s: s >> END & 1 == 1, symbols, eos)
    except Unsupported:
        return None


def _alphabet(symbols: Symbols) -> str:
    """Return the characters that tokens spell, or an empty string if a token is only a part of a
    character. Tokens that are half of a byte are ignored.
    """
    # bos and eos have no bytes
    tokens = [bytes(token) for token in symbols.tokens() if token and max(token) < HALF]
    try:
        return "".join(token.decode() for token in tokens)
    except UnicodeDecodeError:
        return ""


def of_plugin(name: str, given: TokenAutomaton, vocab_size: int, eos: int) -> Automaton:
    """Return the automaton of a plugin.

    Args:
        name: The name of the plugin, for messages.
        given: The automaton as the plugin describes it.
        vocab_size: V.
        eos: The id of the end token.

    Raises:
        BrokenPlugin: The arrays of the automaton do not fit each other or the tokenizer.
        ConfigError: No text fits the automaton.
    """
    after = np.array(given.next, np.int32)
    is_end = np.array(given.is_end, np.bool_)
    states = len(is_end)
    has_shape = after.shape == (states, vocab_size) and states > FIRST
    if not has_shape or after.min() < 0 or after.max() >= states:
        raise BrokenPlugin(
            f"{name} is broken: its automaton needs states below {states} in an array next of shape"
            f" ({states}, {vocab_size}), with at least 3 states; it has the shape {after.shape}."
        )
    # the states DEAD and HOLDS are never left, whatever the plugin says about them
    after[[DEAD, HOLDS]] = [[DEAD], [HOLDS]]
    is_end[[DEAD, HOLDS]] = [False, True]
    after[:, eos] = np.where(is_end, HOLDS, DEAD)
    automaton = Automaton(name, after, distances(after, is_end))
    if automaton.distance[FIRST] >= FAR:
        raise ConfigError(f"No text of this model's tokens fits {name}: leave it out.")
    return automaton


def _is_spelled(text: bytes, tokens: Collection[bytes]) -> bool:
    """Return whether ``text`` can be divided into tokens."""
    longest = max(map(len, tokens))
    ends = {0}  # the lengths of the beginnings of the text that can be divided into tokens
    for end in range(1, len(text) + 1):
        starts = range(max(0, end - longest), end)
        if any(start in ends and text[start:end] in tokens for start in starts):
            ends.add(end)
    return len(text) in ends


def _unspelled_error(rule: str, text: str) -> ConfigError:
    """Return the error that no sequence of tokens spells a text."""
    return ConfigError(
        f"{rule} has {quoted(text)}, which has characters that this model does not know: leave them"
        " out."
    )


def _word_step(words: Sequence[str], end: int) -> Callable[[Any, int], Any]:
    """Return the function that gives the state after a symbol, for an automaton that searches a
    text for some words.

    Args:
        words: The words.
        end: The state once a whole word is found: HOLDS for included words, DEAD for excluded ones.
    """
    spellings = list[bytes]()  # each word as it is written, with a small and with a capital letter
    for word in words:
        spellings += [
            (first + word[1:]).encode(errors="surrogatepass")
            for first in sorted({word[0].lower(), word[0].upper()})
        ]
    # a word that begins with a sign, such as "#1", may follow a letter; one that ends with a sign,
    # such as "C++", may precede a letter
    begins_with_sign = [not _is_letter(spelling[0]) for spelling in spellings]
    ends_with_sign = [not _is_letter(spelling[-1]) for spelling in spellings]
    is_high_letter = end == HOLDS  # whether a byte above 127 beside a word counts as a letter

    def step(state: Any, symbol: int) -> Any:
        """Return the state after another symbol: a ``_WordState``, DEAD or ``end``."""
        if state.half >= 0:
            # the symbol must be the second half of a byte, which is not a part of a word
            if symbol < HALF:
                return DEAD
            byte = 16 * state.half + symbol - HALF
            is_letter = is_high_letter if byte >= 128 else _is_letter(byte)
            return end if state.is_complete and not is_letter else _WordState(is_inside=is_letter)
        if symbol >= HALF:
            # an excluded word counts as found already now, whatever the byte will be
            if state.is_complete and not is_high_letter:
                return end
            return _WordState(is_complete=state.is_complete, half=symbol - HALF)
        is_letter = is_high_letter if symbol >= 128 else _is_letter(symbol)
        if state.is_complete and not is_letter:
            return end
        matches = set()
        for number, spelling in enumerate(spellings):
            # how many bytes of this word may be matched so far; 0 if it may begin with this byte
            lengths = [length for word, length in state.matches if word == number]
            if begins_with_sign[number] or not state.is_inside:
                lengths.append(0)
            for length in lengths:
                if spelling[length] == symbol:
                    matches.add((number, length + 1))
        whole = {(number, size) for number, size in matches if size == len(spellings[number])}
        if any(ends_with_sign[number] for number, _ in whole):
            return end
        return _WordState(frozenset(matches - whole), bool(whole), is_letter)

    return step


def _is_letter(byte: int) -> bool:
    """Return whether a byte is an ASCII letter, digit or underscore, or belongs to another
    character.
    """
    return byte >= 128 or chr(byte).isalnum() or byte == ord("_")


def _compile(
    name: str,
    first: Any,
    step: Callable[[Any, int], Any],
    may_end: Callable[[Any], bool],
    symbols: Symbols,
    eos: int,
) -> Automaton:
    """Return the automaton of a rule over tokens.

    Args:
        name: The rule, for messages.
        first: The state before the first byte.
        step: Takes a state and a symbol, and returns the state after it: any hashable value, or
            DEAD or HOLDS.
        may_end: Takes a state, and returns whether the text may end in it.
        symbols: The bytes of the tokens.
        eos: The id of the end token.

    Raises:
        Unsupported: There are too many states.
    """
    numbers: dict[Any, int] = {DEAD: DEAD, HOLDS: HOLDS, first: FIRST}
    found = [first]
    rows = [[DEAD] * _SYMBOLS, [HOLDS] * _SYMBOLS]
    for state in found:  # the loop adds new states to the list, and comes to them later
        if len(found) * len(symbols.offsets) > _MAX_CELLS:
            raise Unsupported
        row = [step(state, symbol) for symbol in range(_SYMBOLS)]
        for after in row:
            if after not in numbers:
                numbers[after] = len(numbers)
                found.append(after)
        rows.append([numbers[after] for after in row])
    by_symbol = np.array(rows, np.int32)  # (S, _SYMBOLS)
    lengths = np.diff(symbols.offsets)
    # (V, S): the state in which each token ends that begins in each state; at first, none of its
    # symbols is read
    by_token = np.repeat(np.arange(len(rows), dtype=np.int32)[None], len(lengths), axis=0)
    for position in range(int(lengths.max())):
        longer = np.flatnonzero(lengths > position)  # the tokens that have a symbol here
        symbol = symbols.values[symbols.offsets[longer] + position].astype(np.int64)
        # by_symbol[by_token[longer], symbol[:, None]], but faster
        by_token[longer] = by_symbol.take(by_token[longer] * _SYMBOLS + symbol[:, None])
    by_token[lengths == 0] = DEAD  # bos, and also eos, which is set below
    after = np.ascontiguousarray(by_token.T)  # (S, V)
    is_end = np.array([False, True, *map(may_end, found)])
    after[:, eos] = np.where(is_end, HOLDS, DEAD)
    distance = distances(after, is_end)
    after[distance[after] >= FAR] = DEAD  # no text can end from these states
    return Automaton(name, after, distance, by_symbol, symbols.tokens())


def distances(
    after: Int32[np.ndarray, "S V"], is_end: Bool[np.ndarray, " S"]
) -> Int64[np.ndarray, " S"]:
    """Return the minimum number of tokens from each state to one in which a text may end;
    FAR if there is none.
    """
    distance = np.where(is_end, 0, FAR)
    while True:
        before = distance.copy()
        # backwards, since most tokens lead to later states: so fewer rounds are needed
        for state in reversed(range(len(after))):
            distance[state] = min(distance[state], 1 + distance[after[state]].min())
        if (before == distance).all():
            return distance
