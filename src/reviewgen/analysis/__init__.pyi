from .comparison import compare
from .comparison_figures import ComparisonRow, CurvePoint, Measured, Sample
from .comparison_report import Comparison, draw_tables
from .comparison_run import ComparisonRun
from .comparison_texts import HeldOut, Pair
from .explanation import Explanation
from .explanation_run import explain
from .graph_picture import GraphPicture, draw, graph
from .probing import Probe, ProbeRow, probe

__all__ = [
    "Comparison",
    "ComparisonRow",
    "ComparisonRun",
    "CurvePoint",
    "Explanation",
    "GraphPicture",
    "HeldOut",
    "Measured",
    "Pair",
    "Probe",
    "ProbeRow",
    "Sample",
    "compare",
    "draw",
    "draw_tables",
    "explain",
    "graph",
    "probe",
]
