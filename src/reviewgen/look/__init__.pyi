from .compare import compare
from .comparison import Comparison
from .explaining import explain
from .measure import HeldOut, Measured
from .picture import GraphPicture, draw, graph
from .results import CurvePoint, Explanation, Pair, Row, Sample

__all__ = [
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
