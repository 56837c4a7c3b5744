"""Pictures and numbers of models: what one computes on a text, its graph, and how several compare.

    explaining  ``reviewgen.explain``: operations, loss, counts and gates of a text
    results     what both return: ``Explanation``, the rows of a comparison, and their parts, as plain data and as a page
    picture     ``reviewgen.graph`` and ``draw``: the picture of a model's graph, with title and legend
    modules     the graph of a model that does not describe itself
    drawing     from a graph to SVG: boxes, frames, lines and loops; one token, or several side by side
    layout      where they stand
    compare     ``reviewgen.compare``
    comparing   trains or loads each model of a comparison, and measures it
    measure     the held-out texts, and from a trained model to its row: bits with intervals, samples, words
    comparison  ``Comparison``: the rows, and their columns as tables and as a page
    subject     what is explained or drawn
    trace       a forward pass: calls of modules, operations, products

Each name is imported on first use. Templates lie beside the code; ``reviewgen.web`` has the charts and what all pages share.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
