"""A layered layout of a small graph: boxes in ranks (rows) from top to bottom, with few crossings
and without overlaps of boxes and labels.

The method is that of Sugiyama, Tagawa and Toda 1981, "Methods for Visual Understanding of
Hierarchical System Structures", as far as graphs of some dozens of boxes need it. The longest path
to a box gives its rank. Sweeps by barycentre order the boxes of a rank. Least squares give the
positions, with the boxes in this order (isotonic regression, Barlow et al. 1972).

It is written here because no maintained library does this. Grandalf, a pure-Python library, has had
no release since 2023, and lays out neither frames in frames nor labels of edges. Graphviz is a
system program, and its result depends on its version. Must not know the content of boxes and
labels.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations, pairwise, repeat
from statistics import fmean
from typing import NamedTuple

_GAP = 13.0  # distance between ranks, in which lines bend
_BESIDE = 14.0  # distance between boxes of a rank
_LANE = 16.0  # width of a line without a label where it crosses a rank
_MAX_BETWEEN_ENDS = 20.0  # maximum distance between lines that enter a box side by side
_SMALL_BEND = 7.0  # bends of fewer pixels are straightened
_SWEEPS = 12  # sweeps through all ranks that order them; positioning takes twelve times as many
# How strongly a piece of a line is kept straight if two, one or none of its ends are boxes.
# Graphviz's dot uses 1, 2 and 8.
_STRAIGHT = (1.0, 2.0, 20.0)


class LayoutEdge(NamedTuple):
    """A line to draw, from the box ``source`` to the box ``target``. The distances of its ends from
    the centres of these boxes are ``leaves_at`` and ``enters_at``, negative on the left; None lets
    the layout choose. ``width`` and ``height`` are those of its label.
    """

    source: str
    target: str
    leaves_at: float | None = None
    enters_at: float | None = None
    width: float = 0.0
    height: float = 0.0


class Route(NamedTuple):
    """A line in the layout: its vertical pieces, as (x, from y, to y), and the upper left corner of
    its label.
    """

    pieces: list[tuple[float, float, float]]
    label: tuple[float, float] | None


class Layout(NamedTuple):
    """The size of a layout, the upper left corner of each box, and the route of each line, in the
    order in which the lines were given.
    """

    width: float
    height: float
    corners: dict[str, tuple[float, float]]
    routes: list[Route]


@dataclass(eq=False)
class _Slot:
    """A box in a rank, or the point where a line crosses a rank. A point has room for the label of
    the line on its right. ``x`` is the centre of the box, or of the point with its label.

    ``top`` and ``bottom`` are those of the rank; the slot is in the middle between them.
    """

    width: float
    height: float
    is_box: bool = False
    before: "list[_Span]" = field(default_factory=list)
    after: "list[_Span]" = field(default_factory=list)
    x: float = 0.0
    top: float = 0.0
    bottom: float = 0.0
    index: int = 0  # the place in the rank, counted from the left

    @property
    def middle(self) -> float:
        """The vertical centre."""
        return (self.top + self.bottom) / 2

    def barycentre(self, is_above: bool) -> float:
        """Return the mean position of the other ends of lines: of lines from above, or of lines to
        the rank below. Without such lines, return the position of this slot.
        """
        if is_above:
            ends = [span.ends[0] for span in self.before]
        else:
            ends = [span.ends[1] for span in self.after]
        return fmean(ends or [float(self.index)])


@dataclass(eq=False)
class _Span:
    """A piece of a line, from one rank to the next: its two slots, and the distances of its ends
    from the centres of these slots, negative on the left.
    """

    upper: _Slot
    lower: _Slot
    leaves_at: float
    enters_at: float

    @property
    def ends(self) -> tuple[float, float]:
        """The positions of both ends in their ranks: the index of the slot, plus the distance from
        its centre as a share of its width.
        """
        start = self.upper.index + self.leaves_at / (self.upper.width + 1)
        return start, self.lower.index + self.enters_at / (self.lower.width + 1)


def compute_layout(
    sizes: Mapping[str, tuple[float, float]],
    links: Sequence[LayoutEdge],
    last: Collection[str] = (),
) -> Layout:
    """Lay out boxes and the lines between them.

    Args:
        sizes: The width and height of each box by name. Boxes stand in this order from left to
            right if nothing else decides.
        links: The lines; they must not form a cycle.
        last: The boxes that are put into the last rank.
    """
    rank_of = dict.fromkeys(sizes, 0)
    # Boxes are in even ranks, labels in odd ones. A box is moved down until it is below all boxes
    # that lines to it come from.
    while late := [link for link in links if rank_of[link.target] < rank_of[link.source] + 2]:
        rank_of |= {link.target: rank_of[link.source] + 2 for link in late}
    lowest = max(rank_of.values(), default=0)
    rank_of |= dict.fromkeys(last, lowest)
    ranks: list[list[_Slot]] = [[] for _ in range(lowest + 1)]
    slots = {name: _Slot(*size, is_box=True) for name, size in sizes.items()}
    for name, slot in slots.items():
        ranks[rank_of[name]].append(slot)
    # The slots of lines are added in the order of the lines' targets. The keys of ``lines`` are
    # identities, since two links may be equal.
    in_order = sorted(links, key=lambda link: list(sizes).index(link.target))
    lines = {id(link): _connect(link, slots, rank_of, ranks) for link in in_order}
    _order(ranks)
    # the last pieces of the lines that may enter their box anywhere
    free = [lines[id(link)][-1] for link in links if link.enters_at is None]
    for slot in slots.values():
        _spread_ends([piece for piece in free if piece.lower is slot])
    _position(ranks)
    return _make_layout(ranks, slots, [lines[id(link)] for link in links])


def _connect(
    link: LayoutEdge,
    slots: Mapping[str, _Slot],
    rank_of: Mapping[str, int],
    ranks: list[list[_Slot]],
) -> list[_Span]:
    """Add a slot to each rank that a line crosses between its boxes; return the line's pieces."""
    first_rank = rank_of[link.source]
    last_rank = rank_of[link.target]
    passing = [_Slot(_LANE, 0.0) for _ in range(first_rank + 1, last_rank)]
    passing[0] = _Slot(_LANE + link.width, link.height)  # with the label
    for rank, slot in zip(ranks[first_rank + 1 : last_rank], passing, strict=True):
        rank.append(slot)
    pieces = []
    for upper, lower in pairwise([slots[link.source], *passing, slots[link.target]]):
        # a line passes the left end of a slot, and its label is on the right
        leaves_at = (link.leaves_at or 0.0) if upper.is_box else (_LANE - upper.width) / 2
        enters_at = (link.enters_at or 0.0) if lower.is_box else (_LANE - lower.width) / 2
        piece = _Span(upper, lower, leaves_at, enters_at)
        pieces.append(piece)
        upper.after.append(piece)
        lower.before.append(piece)
    return pieces


def _order(ranks: list[list[_Slot]]) -> None:
    """Order each rank so that few lines cross; the first rank keeps its order."""
    best = list(map(list, ranks))
    fewest = _index_and_count(ranks)
    for sweep in range(_SWEEPS):
        is_down = sweep % 2 == 0  # the sweeps down and up alternate
        # each rank is ordered by the one before it in the sweep; the first rank is never reordered
        swept = ranks[1:] if is_down else ranks[-2:0:-1]
        for rank in swept:
            rank.sort(key=lambda slot: slot.barycentre(is_down))
            _index_and_count([rank])
        crossings = _index_and_count(ranks)
        if crossings < fewest:
            best = list(map(list, ranks))
            fewest = crossings
    ranks[:] = best
    _index_and_count(ranks)


def _index_and_count(ranks: Sequence[Sequence[_Slot]]) -> int:
    """Set the index of each slot; return the number of crossings of lines."""
    crossings = 0
    for rank in ranks:
        for index, slot in enumerate(rank):
            slot.index = index
    for rank in ranks:
        pieces = chain.from_iterable(slot.after for slot in rank)
        for (start, end), (other_start, other_end) in combinations(
            [piece.ends for piece in pieces], 2
        ):
            # the line that starts on the left ends on the right
            if (start - other_start) * (end - other_end) < 0:
                crossings += 1
    return crossings


def _spread_ends(pieces: list[_Span]) -> None:
    """Set where lines enter a box: side by side around its centre, from left to right as their
    upper ends. ``pieces`` are the last pieces of these lines.
    """
    middle = (len(pieces) - 1) / 2
    for n, piece in enumerate(sorted(pieces, key=lambda piece: piece.upper.index)):
        distance = min(_MAX_BETWEEN_ENDS, 0.7 * piece.lower.width / len(pieces))
        piece.enters_at = (n - middle) * distance


def _position(ranks: Sequence[Sequence[_Slot]]) -> None:
    """Set the x of every slot: near its neighbours, in the order of its rank, without overlaps."""
    for rank in ranks:  # begin with the slots of each rank close together, around 0
        _settle(rank, [0.0] * len(rank), [1.0] * len(rank))
    for sweep in range(12 * _SWEEPS):
        swept = ranks if sweep % 2 == 0 else reversed(ranks)
        for rank in swept:
            wanted = []
            weights = []
            for slot in rank:
                # for each line at the slot: the x at which the line would be straight
                xs = [span.upper.x + span.leaves_at - span.enters_at for span in slot.before]
                xs += [span.lower.x + span.enters_at - span.leaves_at for span in slot.after]
                others = [span.upper for span in slot.before] + [span.lower for span in slot.after]
                # for each of these lines: its strength, by the number of its ends that are boxes
                strengths = [_STRAIGHT[2 - slot.is_box - other.is_box] for other in others]
                wanted.append(fmean(xs, strengths) if xs else slot.x)
                weights.append(sum(strengths) or 0.1)  # a slot without lines gives way
            _settle(rank, wanted, weights)


def _settle(rank: Sequence[_Slot], wanted: Sequence[float], weights: Sequence[float]) -> None:
    """Set the x of the slots of a rank as near as possible to ``wanted`` (weighted least squares),
    but so far apart that they do not overlap.
    """
    # the positions if all slots touch one another
    starts = [0.0]
    for left, right in pairwise(rank):
        starts.append(starts[-1] + left.width / 2 + right.width / 2 + _BESIDE)
    # groups of slots that touch one another: mean shift from ``starts``, weight, number of slots
    groups = list[tuple[float, float, int]]()
    # not strict: ``starts`` has one item even if the rank has no slot
    for x, weight, start in zip(wanted, weights, starts, strict=False):
        shift = x - start
        count = 1
        # the slot would overlap the group on its left, so it becomes a part of this group
        while groups and groups[-1][0] > shift:
            left_shift, left_weight, left_count = groups.pop()
            shift = (left_shift * left_weight + shift * weight) / (left_weight + weight)
            weight += left_weight
            count += left_count
        groups.append((shift, weight, count))
    shifts = chain.from_iterable(repeat(shift, count) for shift, _, count in groups)
    for slot, shift, start in zip(rank, shifts, starts, strict=False):
        slot.x = start + shift


def _make_layout(
    ranks: Sequence[Sequence[_Slot]], slots: Mapping[str, _Slot], lines: Sequence[Sequence[_Span]]
) -> Layout:
    """Return the layout with its upper left corner at (0, 0)."""
    all_slots = list(chain.from_iterable(ranks))
    left = min((slot.x - slot.width / 2 for slot in all_slots), default=0.0)
    right = max((slot.x + slot.width / 2 for slot in all_slots), default=0.0)
    y = 0.0
    for rank in ranks:
        height = max((slot.height for slot in rank), default=0.0)
        for slot in rank:
            slot.top = y
            slot.bottom = y + height
        y += height + _GAP
    corners = {
        name: (slot.x - left - slot.width / 2, slot.middle - slot.height / 2)
        for name, slot in slots.items()
    }
    routes = [_route(line, left) for line in lines]
    return Layout(right - left, max(0.0, y - _GAP), corners, routes)


def _route(line: Sequence[_Span], left: float) -> Route:
    """Return the route of a line from one box down to another: a vertical piece in each rank. The
    first piece starts at the lower edge of a box, the last ends at the upper edge of the other.
    ``left`` is the x of the left edge of the layout.
    """
    source = line[0].upper
    target = line[-1].lower
    first_passed = line[0].lower  # has the label
    xs = [source.x + line[0].leaves_at - left]
    xs += [span.lower.x + span.enters_at - left for span in line]
    xs = _straighten(xs)
    start = source.middle + source.height / 2
    end = target.middle - target.height / 2
    tops = [start, *(span.lower.top for span in line)]
    bottoms = [*(span.upper.bottom for span in line), end]
    label = None
    if first_passed.width > _LANE:
        label = (xs[1] + _LANE / 2, first_passed.middle - first_passed.height / 2)
    return Route(list(zip(xs, tops, bottoms, strict=True)), label)


def _straighten(xs: Sequence[float]) -> list[float]:
    """Return the x of each piece of a line, after bends of a few pixels are straightened."""
    runs = list[list[float]]()  # pieces that get the same x
    for x in xs:
        if runs and max(*runs[-1], x) - min(*runs[-1], x) < _SMALL_BEND:
            runs[-1].append(x)
        else:
            runs.append([x])
    return list(chain.from_iterable(repeat(fmean((min(run), max(run))), len(run)) for run in runs))
