"""A layered layout of a small graph: ranks from top to bottom, few crossings, no box or label over another, by plain arithmetic.

Sugiyama, Tagawa and Toda 1981, "Methods for Visual Understanding of Hierarchical System Structures", with the median-free steps
that graphs of some dozens of boxes need: longest-path ranks, sweeps by barycentre, and positions by least squares with the boxes
in their order (isotonic regression, Barlow et al. 1972).

Ours, since what we need is not in a library that is kept: grandalf, the pure-Python one, has had no release since 2023 and lays
out neither frames in frames nor labels of edges; graphviz is a system program, and its result depends on its version. Must not
know what a box or a label shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from statistics import fmean

GAP = 13.0  # between ranks, where lines bend
BESIDE = 14.0  # between boxes of a rank
LANE = 16.0  # what a line without a label takes of a rank
MOST_BETWEEN_ENDS = 20.0  # of lines that enter a box
SMALL_BEND = 7.0
SWEEPS = 12
STRAIGHT = (1.0, 2.0, 20.0)  # weights of a piece of line by how many of its ends are boxes less: dot's are 1, 2 and 8


@dataclass(frozen=True)
class Item:
    """A box to place.

    Attributes:
        width, height: Its size.
        is_last: Whether it stands in the last rank.
    """

    width: float
    height: float
    is_last: bool = False


@dataclass(frozen=True)
class Link:
    """A line to draw.

    Attributes:
        source, target: The boxes that it connects.
        leaves, enters: Where it leaves and enters them, from their centres; None where there is room.
        label: Width and height of its label; (0, 0) for none.
    """

    source: str
    target: str
    leaves: float | None = None
    enters: float | None = None
    label: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Route:
    """Where a line runs.

    Attributes:
        pieces: The vertical pieces that it is made of, from top to bottom, as (x, from y, to y); it bends between them.
        label: The left and the upper edge of its label.
    """

    pieces: tuple[tuple[float, float, float], ...]
    label: tuple[float, float] | None


@dataclass(frozen=True)
class Places:
    """A finished layout.

    Attributes:
        width, height: Its size.
        corners: The left and the upper edge of each box.
        routes: The route of each line, in the order in which they were given.
    """

    width: float
    height: float
    corners: Mapping[str, tuple[float, float]]
    routes: Sequence[Route]


@dataclass(eq=False)
class _Spot:
    """A box, or the place where a line passes a rank, with room for its label to the right."""

    width: float
    height: float
    name: str | None = None
    has_label: bool = False
    before: "list[_Piece]" = field(default_factory=list)
    after: "list[_Piece]" = field(default_factory=list)
    x: float = 0.0


@dataclass(eq=False)
class _Piece:
    """A piece of a line, from a rank to the next: its spots, and where it leaves and enters them, from their centres."""

    upper: _Spot
    lower: _Spot
    leaves: float
    enters: float


def place(items: Mapping[str, Item], links: Sequence[Link]) -> Places:
    """Lay out boxes and the lines between them, which form no circle.

    Args:
        items: The boxes by name, from left to right where nothing else decides.
        links: The lines.
    """
    ranks_of = _find_ranks(items, links)
    ranks: list[list[_Spot]] = [[] for _ in range(max(ranks_of.values(), default=0) + 1)]
    spots = {name: _Spot(item.width, item.height, name) for name, item in items.items()}
    for name, spot in spots.items():
        ranks[ranks_of[name]].append(spot)
    order = {name: number for number, name in enumerate(items)}
    connected = {id(link): _connect(link, spots, ranks_of, ranks) for link in sorted(links, key=lambda each: order[each.target])}
    lines = [connected[id(link)] for link in links]
    _order(ranks)
    _spread_ends(links, lines, ranks)
    _position(ranks)
    return _measure(ranks, spots, lines)


def _find_ranks(items: Mapping[str, Item], links: Sequence[Link]) -> dict[str, int]:
    """Return the rank of each box, an even number as small as its predecessors allow; labels are in the odd ones."""
    ranks = dict.fromkeys(items, 0)
    while late := [link for link in links if ranks[link.target] < ranks[link.source] + 2]:
        ranks |= {link.target: ranks[link.source] + 2 for link in late}
    last = max(ranks.values(), default=0)
    return {name: last if items[name].is_last else rank for name, rank in ranks.items()}


def _connect(link: Link, spots: Mapping[str, _Spot], ranks_of: Mapping[str, int], ranks: list[list[_Spot]]) -> list[_Piece]:
    """Add the spots where a line passes the ranks between its boxes; return its pieces."""
    first, last = ranks_of[link.source], ranks_of[link.target]
    chain = [spots[link.source]]
    for rank in range(first + 1, last):
        width, height = link.label if rank == first + 1 else (0.0, 0.0)
        passing = _Spot(LANE + width, height, has_label=width > 0)
        ranks[rank].append(passing)
        chain.append(passing)
    chain.append(spots[link.target])
    pieces = []
    for upper, lower in pairwise(chain):
        leaves = (link.leaves or 0.0) if upper.name else (LANE - upper.width) / 2
        enters = (link.enters or 0.0) if lower.name else (LANE - lower.width) / 2
        piece = _Piece(upper, lower, leaves, enters)
        upper.after.append(piece)
        lower.before.append(piece)
        pieces.append(piece)
    return pieces


def _order(ranks: list[list[_Spot]]) -> None:
    """Order each rank so that few lines cross; the first rank keeps its order."""
    best, fewest = [list(rank) for rank in ranks], _count_crossings(ranks)
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        for number in range(1, len(ranks)) if downwards else range(len(ranks) - 2, 0, -1):
            beside = {id(spot): float(at) for at, spot in enumerate(ranks[number - 1 if downwards else number + 1])}
            keys = [_barycentre(spot, float(at), beside, downwards) for at, spot in enumerate(ranks[number])]
            ranks[number] = [spot for _, spot in sorted(zip(keys, ranks[number], strict=True), key=itemgetter(0))]
        _swap_neighbours(ranks)
        crossings = _count_crossings(ranks)
        if crossings < fewest:
            best, fewest = [list(rank) for rank in ranks], crossings
    for rank, kept in zip(ranks, best, strict=True):
        rank[:] = kept


def _barycentre(spot: _Spot, own: float, beside: Mapping[int, float], downwards: bool) -> float:
    """Return the mean place of the neighbours, in which a box counts its ports from left to right."""
    ends = _ends_above(spot, beside) if downwards else _ends_below(spot, beside)
    return fmean(ends) if ends else own


def _ends_above(spot: _Spot, above: Mapping[int, float]) -> list[float]:
    """Return where the lines into a spot come from, as places in the rank above."""
    return [above[id(piece.upper)] + piece.leaves / (piece.upper.width + 1) for piece in spot.before]


def _ends_below(spot: _Spot, below: Mapping[int, float]) -> list[float]:
    return [below[id(piece.lower)] + piece.enters / (piece.lower.width + 1) for piece in spot.after]


def _swap_neighbours(ranks: list[list[_Spot]]) -> None:
    """Swap spots beside each other as long as fewer lines cross then: what barycentres do not see (Gansner et al. 1993)."""
    for _ in range(SWEEPS):
        swapped = False
        for number in range(1, len(ranks)):
            above = {id(spot): float(at) for at, spot in enumerate(ranks[number - 1])}
            below = {id(spot): float(at) for at, spot in enumerate(ranks[number + 1])} if number + 1 < len(ranks) else {}
            ends = [[_ends_above(spot, above), _ends_below(spot, below)] for spot in ranks[number]]
            for at in range(len(ranks[number]) - 1):
                gain = sum((a > b) - (a < b) for side in (0, 1) for a in ends[at][side] for b in ends[at + 1][side])
                if gain > 0:
                    ranks[number][at : at + 2] = reversed(ranks[number][at : at + 2])
                    ends[at : at + 2] = reversed(ends[at : at + 2])
                    swapped = True
        if not swapped:
            return


def _count_crossings(ranks: Sequence[Sequence[_Spot]]) -> int:
    total = 0
    for upper, lower in pairwise(ranks):
        below = {id(spot): float(at) for at, spot in enumerate(lower)}
        ends = [
            (at + piece.leaves / (spot.width + 1), end)
            for at, spot in enumerate(upper)
            for piece, end in zip(spot.after, _ends_below(spot, below), strict=True)
        ]
        total += sum((a - c) * (b - d) < 0 for n, (a, b) in enumerate(ends) for c, d in ends[:n])
    return total


def _spread_ends(links: Sequence[Link], lines: Sequence[Sequence[_Piece]], ranks: Sequence[Sequence[_Spot]]) -> None:
    """Let lines that enter a box without a port do so side by side, in the order in which they come."""
    order = {id(spot): at for rank in ranks for at, spot in enumerate(rank)}
    free = [line[-1] for link, line in zip(links, lines, strict=True) if link.enters is None]
    for rank in ranks:
        for spot in rank:
            ends = sorted((piece for piece in free if piece.lower is spot), key=lambda piece: order[id(piece.upper)])
            step = min(MOST_BETWEEN_ENDS, 0.7 * spot.width / max(1, len(ends)))
            for number, piece in enumerate(ends):
                piece.enters = (number - (len(ends) - 1) / 2) * step


def _position(ranks: Sequence[Sequence[_Spot]]) -> None:
    """Set the x of every spot: near its neighbours, in the order of its rank, without overlaps."""
    for rank in ranks:
        _settle(rank, [0.0] * len(rank), [1.0] * len(rank))
    for sweep in range(12 * SWEEPS):
        for rank in ranks if sweep % 2 == 0 else reversed(ranks):
            wanted, weights = [], []
            for spot in rank:
                ends = [(piece.upper.x + piece.leaves - piece.enters, piece.upper) for piece in spot.before]
                ends += [(piece.lower.x + piece.enters - piece.leaves, piece.lower) for piece in spot.after]
                pulls = [STRAIGHT[(spot.name is None) + (other.name is None)] for _, other in ends]
                mean = sum(x * pull for (x, _), pull in zip(ends, pulls, strict=True)) / (sum(pulls) or 1.0)
                wanted.append(mean if ends else spot.x)
                weights.append(sum(pulls) or 0.1)
            _settle(rank, wanted, weights)


def _settle(rank: Sequence[_Spot], wanted: Sequence[float], weights: Sequence[float]) -> None:
    """Set the x of a rank's spots to the least squares from what is wanted, with the distances that their widths need."""
    starts = [0.0]
    for left, right in pairwise(rank):
        starts.append(starts[-1] + left.width / 2 + right.width / 2 + BESIDE)
    blocks: list[tuple[float, float, int]] = []  # mean, weight and number of spots that touch one another
    for want, weight, start in zip(wanted, weights, starts, strict=False):
        mean, heavy, many = want - start, weight, 1
        while blocks and blocks[-1][0] > mean:
            other, others_weight, more = blocks.pop()
            mean = (other * others_weight + mean * heavy) / (others_weight + heavy)
            heavy, many = heavy + others_weight, many + more
        blocks.append((mean, heavy, many))
    means = [mean for mean, _, many in blocks for _ in range(many)]
    for spot, mean, start in zip(rank, means, starts, strict=False):
        spot.x = mean + start


def _measure(ranks: Sequence[Sequence[_Spot]], spots: Mapping[str, _Spot], lines: Sequence[Sequence[_Piece]]) -> Places:
    """Return the layout with its upper left corner at (0, 0)."""
    left = min((spot.x - spot.width / 2 for rank in ranks for spot in rank), default=0.0)
    right = max((spot.x + spot.width / 2 for rank in ranks for spot in rank), default=0.0)
    bands: dict[int, tuple[float, float]] = {}  # the upper and the lower edge of each spot's rank
    y = 0.0
    for rank in ranks:
        height = max((spot.height for spot in rank), default=0.0)
        bands |= {id(spot): (y, y + height) for spot in rank}
        y += height + GAP
    corners = {name: (spot.x - left - spot.width / 2, sum(bands[id(spot)]) / 2 - spot.height / 2) for name, spot in spots.items()}
    routes = [_route(line, left, bands, corners) for line in lines]
    return Places(right - left, max(0.0, y - GAP), corners, routes)


def _route(
    line: Sequence[_Piece], left: float, bands: Mapping[int, tuple[float, float]], corners: Mapping[str, tuple[float, float]]
) -> Route:
    """Return the route of a line: a vertical piece through each rank, from one box down to the next."""
    source, target = line[0].upper, line[-1].lower
    label = None
    pieces = [(source.x + line[0].leaves - left, corners[source.name or ""][1] + source.height, bands[id(source)][1])]
    for piece in line[:-1]:
        spot = piece.lower
        top, bottom = bands[id(spot)]
        x = spot.x + piece.enters - left
        pieces.append((x, top, bottom))
        if spot.has_label:
            label = x + LANE / 2, (top + bottom) / 2 - spot.height / 2
    pieces.append((target.x + line[-1].enters - left, bands[id(target)][0], corners[target.name or ""][1]))
    straight = _straighten([x for x, _, _ in pieces])
    if label is not None:
        label = label[0] + straight[1] - pieces[1][0], label[1]
    return Route(tuple((x, top, bottom) for x, (_, top, bottom) in zip(straight, pieces, strict=True)), label)


def _straighten(xs: Sequence[float]) -> list[float]:
    """Return the places of a line's pieces without bends that are too small to be seen as bends."""
    runs: list[list[float]] = []
    for x in xs:
        if runs and max(*runs[-1], x) - min(*runs[-1], x) < SMALL_BEND:
            runs[-1].append(x)
        else:
            runs.append([x])
    return [fmean((min(run), max(run))) for run in runs for _ in run]
