"""What a picture consists of, as plain data: boxes, lines and texts with their places, and the sizes that they are drawn in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from reviewgen.graphs.text import LINE, text_width

LABEL, DETAIL, NOTE = 14.0, 12.0, 11.5  # sizes of texts, in pixels


@dataclass(frozen=True)
class Text:
    """A line of text.

    Attributes:
        x, y: Its left end, or middle if it is centred; and the middle of its height.
        text: What it says; ``_{...}`` is a subscript.
        size: The size of its letters.
        role: Its colour and weight: "label", "detail", "shape" or "note".
        is_centred: Whether x is its middle.
    """

    x: float
    y: float
    text: str
    size: float
    role: str
    is_centred: bool = True


@dataclass(frozen=True)
class Box:
    """The box of a node: its place, size and kind, of ``GraphNode`` or "gap"."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    name: str


@dataclass(frozen=True)
class Frame:
    """The frame around the inside of a node."""

    x: float
    y: float
    width: float
    height: float
    name: str


@dataclass(frozen=True)
class Line:
    """A line with an arrow at its end.

    Attributes:
        points: Its corners, which are rounded; or, if it is a curve, its vertical pieces, end to end.
        is_delayed: Whether it leads to a later token.
        is_curve: Whether it bends smoothly between vertical pieces.
        has_arrow: Whether it ends in an arrow.
    """

    points: tuple[tuple[float, float], ...]
    is_delayed: bool = False
    is_curve: bool = True
    has_arrow: bool = True


@dataclass
class Scene:
    """A picture or a part of one, from (0, 0) to (width, height)."""

    width: float = 0.0
    height: float = 0.0
    boxes: list[Box] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)

    def add(self, other: "Scene", x: float, y: float) -> None:
        """Add all of another scene, moved to the right by x and down by y."""
        self.boxes += [replace(each, x=each.x + x, y=each.y + y) for each in other.boxes]
        self.frames += [replace(each, x=each.x + x, y=each.y + y) for each in other.frames]
        self.texts += [replace(each, x=each.x + x, y=each.y + y) for each in other.texts]
        self.lines += [replace(each, points=tuple((a + x, b + y) for a, b in each.points)) for each in other.lines]


def block_size(texts: Iterable[tuple[str, float, str]]) -> tuple[float, float]:
    """Return the width and height of lines of text, each with its size and role."""
    lines = list(texts)
    return max((text_width(text, size) for text, size, _ in lines), default=0.0), sum(size * LINE for _, size, _ in lines)


def stack(texts: Sequence[tuple[str, float, str]], x: float, y: float, is_centred: bool) -> list[Text]:
    """Return lines of text below one another, from y on."""
    placed = []
    for text, size, role in texts:
        placed.append(Text(x, y + size * LINE / 2, text, size, role, is_centred))
        y += size * LINE
    return placed
