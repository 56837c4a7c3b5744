"""Regular expressions as automata over bytes.

A pattern has literal characters, ``.``, classes as in ``[^a-z_]``, the classes ``\\d``, ``\\w`` and
``\\s``, groups, ``|``, and repetitions. Other syntax is ``Unsupported``, and llguidance reads it.
Which characters a class has is found out with Python's ``re``.

The libraries that make automata of patterns (interegular, greenery, outlines-core) have no limit on
the number of states, of which ``.*a.{0,100}b`` has more than 2**100.

The pattern is parsed into a nondeterministic automaton (Thompson 1968). Each of its positions waits
for a byte of a range. A set of positions is an integer, in which position n is bit n; a state of
the deterministic automaton is such a set.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache, reduce
from operator import or_
from typing import TypeAlias

END = 2  # the position after the whole pattern; bits 0 and 1 are not used
_MAX_POSITIONS = 8_000
_MAX_WORK = 100_000  # positions of all states, and five for each part, as often as it is repeated
_SEARCHED = 2_000  # characters that are searched for a class in the time of one unit of work
# the first and last of the characters whose UTF-8 has one, two, three (twice) and four bytes
_BLOCKS = ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF))
_ESCAPE = r"\\[dwsDWSnrt\W]"
# what matches one character, in the syntax that Rust and Python share: an escape, a class in
# brackets, or the character itself
_ONE_CHARACTER = re.compile(
    rf"{_ESCAPE}|\[\^?\]?({_ESCAPE}|[^][\\])*\]|[^][\\(){{}}|*+?^$]", re.DOTALL
)
_SET_OPERATOR = re.compile(r"[&~|-]{2}")
_COUNTS = re.compile(r"\{(\d{1,4})(,(\d{0,4}))?\}|[*+?]")

_Bytes: TypeAlias = list[tuple[int, int]]
"""The UTF-8 of some characters: the first and the last of each byte."""
_Part: TypeAlias = Callable[[int], int]
"""A part of a pattern: adds its positions in front of a set of positions, and returns those that
the part begins with.
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
        self._at = 0
        # the set of one position, by its edge: first byte, last byte, and the positions after it
        self._positions: dict[tuple[int, int, int], int] = {}
        self._edges: list[tuple[int, int, int]] = [(1, 0, 0)] * (END + 1)
        self._jumps = dict[int, int]()  # positions that wait for nothing, and what they stand for
        self._jump_set = 0  # the set of the positions that wait for nothing
        self._work = 0
        try:
            whole = self._alternatives()
        except RecursionError:
            raise Unsupported from None
        if self._at < len(text):
            raise Unsupported
        self.first = self._close(whole(1 << END))

    def row(self, state: int) -> dict[int, int]:
        """Return the state after each byte that may follow a state."""
        row = dict[int, int]()
        for position in _bits(state):
            self._count(1)
            low, high, after = self._edges[position]
            for byte in range(low, high + 1):
                row[byte] = row.get(byte, 0) | after
        closed = {after: self._close(after) for after in set(row.values())}
        return {byte: closed[after] for byte, after in row.items()}

    def _close(self, positions: int) -> int:
        """Replace the positions that wait for nothing by those that they stand for."""
        known = 0
        while positions & ~known:
            new = positions & ~known
            known |= positions
            for position in _bits(new):
                positions |= self._jumps.get(position, 0)
        return positions & ~self._jump_set

    def _position(self, low: int, high: int, after: int) -> int:
        """Return the set of the one position that waits for a byte of a range."""
        edge = (low, high, after)
        if edge not in self._positions:
            if len(self._edges) > _MAX_POSITIONS:
                raise Unsupported
            self._positions[edge] = 1 << len(self._edges)
            self._edges.append(edge)
        return self._positions[edge]

    def _count(self, work: int = 5) -> None:
        self._work += work
        if self._work > _MAX_WORK:
            raise Unsupported

    def _take(self, text: str) -> bool:
        """Skip a string if it comes next; return whether it does."""
        has_text = self._text.startswith(text, self._at)
        self._at += len(text) * has_text
        return has_text

    def _alternatives(self) -> _Part:
        parts = [self._sequence()]
        while self._take("|"):
            parts.append(self._sequence())
        return lambda after: reduce(or_, [part(after) for part in parts])

    def _sequence(self) -> _Part:
        """Parse parts one after the other, each with its repetition, up to ``|`` or ``)``."""
        parts = list[_Part]()
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            part = self._atom()
            while counts := _COUNTS.match(self._text, self._at):
                self._at = counts.end()
                self._take("?")  # a lazy repetition matches the same texts as a greedy one
                part = self._repeat(part, counts)
            parts.append(part)

        def sequence(after: int) -> int:
            self._count()
            return reduce(lambda after, part: part(after), reversed(parts), after)

        return sequence

    def _repeat(self, part: _Part, counts: re.Match[str]) -> _Part:
        """Return the repetition of a part; ``counts`` is the match of ``*``, ``+``, ``?`` or of
        braces such as ``{2,4}``.
        """
        low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(counts[0], (0, None))
        if counts[1]:
            low = int(counts[1])
            most = counts[3] if counts[2] else counts[1]
            high = int(most) if most else None
        if high is not None and low > high:
            raise Unsupported

        def repeat(after: int) -> int:
            self._count()
            begin = after
            if high is None:
                jump = len(self._edges)
                self._edges.append((1, 0, 0))
                begin = 1 << jump
                self._jump_set |= begin
                self._jumps[jump] = after | part(begin)
            for _ in range(0 if high is None else high - low):
                begin = part(begin) | after
            for _ in range(low):
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
        spellings = self._spelled(characters[0])

        def one_of(after: int) -> int:
            self._count()
            begin = 0
            for spelling in spellings:
                bits = after
                for low, high in reversed(spelling):
                    bits = self._position(low, high, bits)
                begin |= bits
            return begin

        return one_of

    def _spelled(self, characters: str) -> list[_Bytes]:
        """Return the UTF-8 of a set of characters."""
        if characters not in self._spellings:
            self._count(len(self._alphabet) // _SEARCHED)
            spellings = list[_Bytes]()
            try:
                # what lies between two characters of the alphabet cannot be in the text
                for run in re.finditer(f"{characters}+", self._alphabet):
                    spellings += _spellings(ord(run[0][0]), ord(run[0][-1]))
            except re.error:
                raise Unsupported from None
            self._spellings[characters] = spellings
        return self._spellings[characters]


def _bits(number: int) -> Iterator[int]:
    """Yield which bits of a number are set."""
    while number:
        yield (number & -number).bit_length() - 1
        number &= number - 1


@cache
def _all_characters() -> str:
    return "".join("".join(map(chr, range(first, last + 1))) for first, last in _BLOCKS)


def _spellings(low: int, high: int) -> Iterator[_Bytes]:
    """Yield the UTF-8 of a range of characters, as sequences of ranges of bytes."""
    for first, last in _BLOCKS:
        if low <= last and high >= first:
            yield from _same_length(max(low, first), min(high, last))


def _same_length(low: int, high: int) -> Iterator[_Bytes]:
    """Yield the UTF-8 of a range of characters that all have the same number of bytes. The range is
    split where the last bytes do not take all their values.
    """
    for bits in (6, 12, 18):
        rest = (1 << bits) - 1  # the bits of the last one, two or three bytes
        if low >> bits == high >> bits:
            continue
        middle = high
        if low & rest:
            middle = low | rest
        elif ~high & rest:
            middle = (high & ~rest) - 1
        if middle < high:
            yield from _same_length(low, middle)
            yield from _same_length(middle + 1, high)
            return
    yield list(zip(chr(low).encode(), chr(high).encode(), strict=True))
