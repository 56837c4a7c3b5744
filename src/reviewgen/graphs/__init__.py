"""The computational graph of a model as a picture: from its own description, or from a forward pass.

draw      graph, draw: from a preset or model to an SVG; title, legend, file
subjects  what is drawn: a trained model, a preset, a model object
tokens    token ids as text
modules   the graph of a model that does not describe itself
trace     records a forward pass
nesting   frames around modules
windows   a window of tokens, drawn token by token
unroll    a graph over several tokens
compose   boxes, frames, lines and loops of a graph
layered   where they stand
text      widths of texts, subscripts
scene     a picture as plain data
svg       a picture as SVG
autograd  PyTorch's own graph
"""

from reviewgen.graphs.draw import GraphPicture, draw, graph

__all__ = ["GraphPicture", "draw", "graph"]
