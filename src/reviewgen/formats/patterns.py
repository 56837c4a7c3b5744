"""Regular expressions as automata over bytes.

A pattern has literal characters, ``.``, classes as in ``[^a-z_]``, the classes ``\\d``, ``\\w`` and
``\\s``, groups, ``|``, and repetitions, as in Rust. Other syntax is ``Unsupported``, and llguidance
reads it.

The libraries that make automata of patterns (interegular, greenery, outlines-core) have no limit on
the number of states, of which ``.*a.{0,100}b`` has more than 2**100.

The pattern is parsed into a nondeterministic automaton (Thompson 1968). Each of its positions waits
for a byte of a range. A set of positions is an integer, in which position n is bit n; a state of
the deterministic automaton is such a set.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache, reduce
from operator import or_
from typing import TypeAlias

END = 2  # the position after the whole pattern; bits 0 and 1 are not used
_MAX_POSITIONS = 8_000
_MAX_WORK = 100_000  # positions of all states, and five for each part, as often as it is repeated
_LAST = 0x10FFFF
# the characters whose UTF-8 has the same length; those between the third and the fourth have none
_BLOCKS = ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, _LAST))
# by the Unicode categories of their characters
_CLASSES = {"d": {"Nd"}, "w": {"L", "M", "Nd", "Nl", "Pc"}, "s": {"Z"}}
_SPACES = "\t\n\v\f\r\x85"  # other characters of the class "s"
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t"}
_COUNTS = re.compile(r"\{(\d{1,4})(,(\d{0,4}))?\}|[*+?]")

_Ranges: TypeAlias = list[tuple[int, int]]
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
        alphabet: The characters that the text may have; None allows any.

    Attributes:
        first: The state before the first byte.

    Raises:
        Unsupported: The pattern has other syntax, or is too large.
    """

    def __init__(self, text: str, alphabet: Collection[str] | None = None) -> None:
        if len(text) > _MAX_POSITIONS:
            raise Unsupported
        self._text = text
        self._alphabet = None if alphabet is None else _ranges_of(map(ord, alphabet))
        self._at = 0
        self._positions: dict[tuple[int, int, int], int] = {}  # the first and last byte, the next
        self._edges: list[tuple[int, int, int]] = [(1, 0, 0)] * (END + 1)
        self._jumps = dict[int, int]()  # positions that wait for nothing, and what they stand for
        self._jump_set = 0  # the set of these
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

    def _character(self) -> str:
        if self._at >= len(self._text):
            raise Unsupported
        self._at += 1
        return self._text[self._at - 1]

    def _alternatives(self) -> _Part:
        parts = [self._sequence()]
        while self._take("|"):
            parts.append(self._sequence())
        return lambda after: reduce(or_, [part(after) for part in parts])

    def _sequence(self) -> _Part:
        parts = list[_Part]()
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            part = self._atom()
            while counts := _COUNTS.match(self._text, self._at):
                self._at = counts.end()
                self._take("?")  # as few as possible: the same texts
                part = self._repeat(part, counts)
            parts.append(part)

        def sequence(after: int) -> int:
            self._count()
            return reduce(lambda after, part: part(after), reversed(parts), after)

        return sequence

    def _repeat(self, part: _Part, counts: re.Match[str]) -> _Part:
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
        """Parse a group, a class or a character."""
        if self._take("("):
            if not self._take("?:") and self._take("?"):
                raise Unsupported
            inner = self._alternatives()
            if not self._take(")"):
                raise Unsupported
            return inner
        if self._take("["):
            return self._one_of(self._class())
        if self._take("."):
            return self._one_of(_others([(10, 10)]))
        character = self._character()
        if character in "*+?{}]^$":
            raise Unsupported
        return self._one_of(self._ranges(character))

    def _ranges(self, character: str) -> _Ranges:
        """Return the characters that a character of a pattern stands for, after a backslash with
        the next one.
        """
        if character == "\\":
            character = self._character()
            if character.lower() in _CLASSES:
                ranges = _members(character.lower())
                return ranges if character.islower() else _others(ranges)
            if character.isalnum() and character not in _CONTROLS:
                raise Unsupported
            character = _CONTROLS.get(character, character)
        return [(ord(character), ord(character))]

    def _class(self) -> _Ranges:
        is_negated = self._take("^")
        ranges: _Ranges = []
        while not self._take("]") or not ranges:
            character = self._character()
            doubled = character in "&~-" and self._text.startswith(character, self._at)
            if character in "[]" or doubled:
                raise Unsupported
            first = self._ranges(character)
            if not self._text.startswith("-]", self._at) and self._take("-"):
                last = self._ranges(self._character())
                if first[0][0] < first[-1][1] or last[0][0] < last[-1][1] or first > last:
                    raise Unsupported
                first = [(first[0][0], last[0][1])]
            ranges += first
        return _others(ranges) if is_negated else ranges

    def _one_of(self, ranges: _Ranges) -> _Part:
        """Return the part that matches one character of some ranges."""
        if self._alphabet is not None:
            ranges = _common(ranges, self._alphabet)
        spelled = list[list[tuple[int, int]]]()
        for low, high in ranges:
            spelled += _spellings(low, high)

        def one_of(after: int) -> int:
            self._count()
            begin = 0
            for spelling in spelled:
                bits = after
                for low, high in reversed(spelling):
                    bits = self._position(low, high, bits)
                begin |= bits
            return begin

        return one_of


def _bits(number: int) -> Iterator[int]:
    """Yield which bits of a number are set."""
    while number:
        yield (number & -number).bit_length() - 1
        number &= number - 1


@cache
def _members(name: str) -> _Ranges:
    """Return the characters of a class."""
    categories = _CLASSES[name]
    numbers = set(map(ord, _SPACES)) if name == "s" else set[int]()
    for number in range(_LAST + 1):
        category = unicodedata.category(chr(number))
        if category in categories or category[0] in categories:
            numbers.add(number)
    return _ranges_of(numbers)


def _ranges_of(numbers: Iterable[int]) -> _Ranges:
    ranges: _Ranges = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _common(ranges: _Ranges, others: _Ranges) -> _Ranges:
    """Return the characters that are in both."""
    common: _Ranges = []
    for low, high in ranges:
        common += [
            (max(low, first), min(high, last))
            for first, last in others
            if first <= high and last >= low
        ]
    return common


def _others(ranges: Sequence[tuple[int, int]]) -> _Ranges:
    """Return the characters outside of some ranges."""
    others = list[tuple[int, int]]()
    first = 0
    for low, high in sorted(ranges):
        if low > first:
            others.append((first, low - 1))
        first = max(first, high + 1)
    return [*others, (first, _LAST)]


def _spellings(low: int, high: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the UTF-8 of a range of characters, as sequences of ranges of bytes."""
    for first, last in _BLOCKS:
        if low <= last and high >= first:
            yield from _same_length(max(low, first), min(high, last))


def _same_length(low: int, high: int) -> Iterator[list[tuple[int, int]]]:
    for bits in (6, 12, 18):
        rest = (1 << bits) - 1  # of the last bytes
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
