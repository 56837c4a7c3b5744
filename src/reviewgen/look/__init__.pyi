from reviewgen.look.comparing import CompareOptions, compare
from reviewgen.look.comparison import Comparison
from reviewgen.look.explaining import explain
from reviewgen.look.held_out import HeldOut
from reviewgen.look.measure import Measured
from reviewgen.look.picture import GraphPicture, draw, graph
from reviewgen.look.results import Explanation
from reviewgen.look.rows import CurvePoint, Pair, Row, Sample

__all__ = [
    "CompareOptions",
    "Comparison",
    "CurvePoint",
    "Explanation",
    "GraphPicture",
    "HeldOut",
    "Measured",
    "Pair",
    "Row",
    "Sample",
    "compare",
    "draw",
    "explain",
    "graph",
]
