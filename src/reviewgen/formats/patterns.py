"""Regular expressions as automata over bytes.

A pattern may have literal characters, ``.``, classes as in ``[^a-z_]``, the classes ``\\d``,
``\\w`` and ``\\s``, groups, ``|``, and repetitions. Other syntax is ``Unsupported``; llguidance
reads such patterns. Which characters a class has is found out with Python's ``re``.

This module exists because the libraries that make automata of patterns (interegular, greenery,
outlines-core) have no limit on the number of states: ``.*a.{0,100}b`` has more than 2**100.

The pattern is parsed into a nondeterministic automaton (Thompson 1968). Each of its positions waits
for a byte of a range. A set of positions is an integer, in which position n is bit n; a state of
the deterministic automaton is such a set.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache, reduce
from operator import or_
from typing import TypeAlias

# the position after the whole pattern; positions 0 and 1 are not used, so that a state is never
# equal to DEAD or HOLDS of ``automata``
END = 2
_MAX_POSITIONS = 8_000
# max units of work for a pattern: one for each position of each state, and five each time that a
# part is built
_MAX_WORK = 100_000
# this many characters of the alphabet are searched for a class in the time of one unit of work
_SEARCHED_CHARACTERS = 2_000
# the edge of a position that waits for no byte: its range of bytes, 1 to 0, is empty
_WAITS_FOR_NOTHING = (1, 0, 0)
# the first and last of the characters whose UTF-8 has one, two, three (twice) and four bytes
_BLOCKS = ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF))
_ESCAPE = r"\\[dwsDWSnrt\W]"
# what matches one character, in the syntax that Rust and Python share: an escape, a class in
# brackets, or the character itself
_ONE_CHARACTER = re.compile(
    rf"{_ESCAPE}|\[\^?\]?({_ESCAPE}|[^][\\])*\]|[^][\\(){{}}|*+?^$]", re.DOTALL
)
_SET_OPERATOR = re.compile(r"[&~|-]{2}")  # in a class, Rust reads "&&" as an operator
_COUNTS = re.compile(r"\{(\d{1,4})(,(\d{0,4}))?\}|[*+?]")  # a repetition

_Bytes: TypeAlias = list[tuple[int, int]]
"""The UTF-8 of a range of characters: the lowest and the highest value of its first byte, of its
second byte, and so on.
"""
_Part: TypeAlias = Callable[[int], int]
"""A parsed part of a pattern. The function takes the set of positions that follow the part, adds
the part's own positions in front of them, and returns the set of positions that the part begins
with.
"""


class Unsupported(Exception):
    """A pattern has other syntax, or is too large."""


class Pattern:
    """The automaton of a pattern.

    Args:
        text: The pattern.
        alphabet: The characters that the text may have; empty if it may have any.

    Attributes:
        first: The state before the first byte.

    Raises:
        Unsupported: The pattern has other syntax, or is too large.
    """

    def __init__(self, text: str, alphabet: str = "") -> None:
        if len(text) > _MAX_POSITIONS:
            raise Unsupported
        self._text = text
        self._alphabet = "".join(sorted({*alphabet})) or _all_characters()
        self._spellings = dict[str, list[_Bytes]]()  # UTF-8 of each set of characters
        self._at = 0  # the index in the pattern up to which it is parsed
        # the edge of each position: the lowest and the highest byte that it waits for, and the set
        # of positions after such a byte
        self._edges: list[tuple[int, int, int]] = [_WAITS_FOR_NOTHING] * (END + 1)
        # for each edge, the set that has only the position with this edge
        self._positions: dict[tuple[int, int, int], int] = {}
        # a jump is a position that waits for no byte; it stands for a set of positions
        self._jumps = dict[int, int]()
        self._jump_set = 0  # the set of all jumps
        self._work = 0
        try:
            whole = self._alternatives()
        except RecursionError:
            raise Unsupported from None
        if self._at < len(text):
            raise Unsupported
        self.first = self._close(whole(1 << END))

    def row(self, state: int) -> dict[int, int]:
        """Return the state after each byte that may follow in a state."""
        row = dict[int, int]()
        for position in _bits(state):
            self._add_work(1)
            low, high, after = self._edges[position]
            for byte in range(low, high + 1):
                row[byte] = row.get(byte, 0) | after
        closed = {after: self._close(after) for after in set(row.values())}
        return {byte: closed[after] for byte, after in row.items()}

    def _close(self, positions: int) -> int:
        """Replace the jumps in a set of positions by the positions that they stand for."""
        known = 0  # the positions that were looked at
        while positions & ~known:
            new = positions & ~known
            known |= positions
            for position in _bits(new):
                positions |= self._jumps.get(position, 0)
        return positions & ~self._jump_set

    def _position(self, low: int, high: int, after: int) -> int:
        """Return the set of one position, which waits for a byte from ``low`` to ``high`` and is
        followed by the positions ``after``. A new position is made only if there is none yet.
        """
        edge = (low, high, after)
        if edge not in self._positions:
            if len(self._edges) > _MAX_POSITIONS:
                raise Unsupported
            self._positions[edge] = 1 << len(self._edges)
            self._edges.append(edge)
        return self._positions[edge]

    def _add_work(self, work: int = 5) -> None:
        """Count work, and raise if it is too much in all; by default, the work for a part."""
        self._work += work
        if self._work > _MAX_WORK:
            raise Unsupported

    def _take(self, text: str) -> bool:
        """Skip a string if it comes next; return whether it does."""
        has_text = self._text.startswith(text, self._at)
        self._at += len(text) * has_text
        return has_text

    def _alternatives(self) -> _Part:
        """Parse one or more sequences with ``|`` between them, up to ``)`` or the end."""
        parts = [self._sequence()]
        while self._take("|"):
            parts.append(self._sequence())
        return lambda after: reduce(or_, [part(after) for part in parts])

    def _sequence(self) -> _Part:
        """Parse parts, each with its repetitions, up to ``|``, ``)`` or the end."""
        parts = list[_Part]()
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            part = self._atom()
            while counts := _COUNTS.match(self._text, self._at):
                self._at = counts.end()
                self._take("?")  # a lazy repetition matches the same texts as a greedy one
                part = self._repeat(part, counts)
            parts.append(part)

        def sequence(after: int) -> int:
            """Add the positions of all parts, the last part first."""
            self._add_work()
            return reduce(lambda after, part: part(after), reversed(parts), after)

        return sequence

    def _repeat(self, part: _Part, counts: re.Match[str]) -> _Part:
        """Return the repetition of a part.

        Args:
            part: The part.
            counts: The match of ``_COUNTS``: ``*``, ``+``, ``?``, or braces such as ``{2,4}``.
        """
        # how often the part occurs, at least and at most; None: without a limit
        low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(counts[0], (0, None))
        if counts[1]:  # {2}, {2,} or {2,4}: group 1 is the "2", group 2 the comma and what follows
            low = int(counts[1])
            most = counts[3] if counts[2] else counts[1]
            high = int(most) if most else None
        if high is not None and low > high:
            raise Unsupported

        def repeat(after: int) -> int:
            """Add the positions of all repetitions, the last one first."""
            self._add_work()
            begin = after
            if high is None:
                # the part leads back to a jump, which stands for what follows or for the part again
                jump = len(self._edges)
                self._edges.append(_WAITS_FOR_NOTHING)
                begin = 1 << jump
                self._jump_set |= begin
                self._jumps[jump] = after | part(begin)
            for _ in range(0 if high is None else high - low):  # optional repetitions
                begin = part(begin) | after
            for _ in range(low):  # required repetitions
                begin = part(begin)
            return begin

        return repeat

    def _atom(self) -> _Part:
        """Parse a group, or what matches one character."""
        if self._take("("):
            if not self._take("?:") and self._take("?"):
                raise Unsupported
            inner = self._alternatives()
            if not self._take(")"):
                raise Unsupported
            return inner
        characters = _ONE_CHARACTER.match(self._text, self._at)
        if characters is None or _SET_OPERATOR.search(characters[0]):
            raise Unsupported
        self._at = characters.end()
        spellings = self._spellings_of(characters[0])

        def one_of(after: int) -> int:
            """Add positions for the bytes of all spellings, the last byte first."""
            self._add_work()
            begin = 0
            for spelling in spellings:
                following = after
                for low, high in reversed(spelling):
                    following = self._position(low, high, following)
                begin |= following
            return begin

        return one_of

    def _spellings_of(self, characters: str) -> list[_Bytes]:
        """Return the UTF-8 of the characters that match a part of the pattern, such as ``[a-z]``,
        as spellings of ranges of characters.
        """
        if characters not in self._spellings:
            self._add_work(len(self._alphabet) // _SEARCHED_CHARACTERS)
            spellings = list[_Bytes]()
            try:
                # A run of neighbours in the sorted alphabet is taken for a range. The range may
                # also have characters that are not in the alphabet; they cannot be in the text.
                for run in re.finditer(f"{characters}+", self._alphabet):
                    spellings += _range_spellings(ord(run[0][0]), ord(run[0][-1]))
            except re.error:
                raise Unsupported from None
            self._spellings[characters] = spellings
        return self._spellings[characters]


def _bits(number: int) -> Iterator[int]:
    """Yield the indexes of the bits that are set in a number, the lowest first."""
    while number:
        yield (number & -number).bit_length() - 1
        number &= number - 1  # clears the lowest bit that is set


@cache
def _all_characters() -> str:
    """Return all characters of Unicode, except surrogates."""
    return "".join("".join(map(chr, range(first, last + 1))) for first, last in _BLOCKS)


def _range_spellings(low: int, high: int) -> Iterator[_Bytes]:
    """Yield the UTF-8 of the characters from ``low`` to ``high``, as spellings of smaller ranges.
    The characters of each smaller range are all combinations of the bytes of its spelling.
    """
    for first, last in _BLOCKS:
        if low <= last and high >= first:
            yield from _spellings_of_one_length(max(low, first), min(high, last))


def _spellings_of_one_length(low: int, high: int) -> Iterator[_Bytes]:
    """Yield the UTF-8 of a range of characters that all have the same number of bytes. The range is
    split where its first bytes change while its last bytes do not take all their values.
    """
    for bits in (6, 12, 18):
        rest = (1 << bits) - 1  # the bits of the last one, two or three bytes
        if low >> bits == high >> bits:
            continue  # the bytes before the last ones do not change
        middle = high  # the last character of the first of two parts; ``high``: no split
        if low & rest:  # ``low`` does not have the first value of the last bytes
            middle = low | rest
        elif ~high & rest:  # ``high`` does not have their last value
            middle = (high & ~rest) - 1
        if middle < high:
            yield from _spellings_of_one_length(low, middle)
            yield from _spellings_of_one_length(middle + 1, high)
            return
    yield list(zip(chr(low).encode(), chr(high).encode(), strict=True))
