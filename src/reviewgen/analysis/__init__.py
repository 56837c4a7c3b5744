"""Explains and compares models: the computation on a text, the graph, the figures of several
models.

    explanation_run     ``reviewgen.explain``: operations, loss, counts and gates of a text
    explanation         its result, ``Explanation``, as plain data and as a page
    graph_picture       ``reviewgen.graph`` and ``draw``: the picture of a model's graph, with title
                        and legend
    graph_modules       the graph of a model that does not describe itself
    graph_drawing       draws a graph as SVG: boxes, frames, lines and loops, for one token or for
                        several side by side
    graph_layout        the positions of boxes and lines
    comparison          ``reviewgen.compare``, which imports the rest when it is called
    comparison_run      trains or loads each model, measures it, and resumes
                        a folder
    comparison_texts    the held-out texts
    comparison_figures  measures the figures of one model, ``ComparisonRow``
    comparison_report   the result, ``Comparison``: the rows as tables and as a page
    probing             ``reviewgen.probe``: minimal pairs, and whether generated texts close their
                        brackets and quotation marks
    subject             the model to explain or draw: a trained one, a new one, or a model object
    trace               records a forward pass: calls of modules, operations, multiplications

Templates lie beside the code; ``reviewgen.web`` has the charts and what all pages share.
"""

from typing import TYPE_CHECKING

from reviewgen.lazy import import_on_first_use

if TYPE_CHECKING:
    from reviewgen.analysis.graph_picture import draw

__all__ = ["draw"]

__getattr__ = import_on_first_use(__name__, {"graph_picture": "draw"})
