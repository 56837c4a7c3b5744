"""The computational graph of the neural n-gram, for pictures: its window, hidden layer and output layer. Must not import torch.

Shapes: B batch, T time (tokens), V vocabulary, E embedding, H hidden, n order.
"""

from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph
from reviewgen_nnlm.config import NnlmConfig


def describe_nnlm(config: NnlmConfig) -> ModelGraph:
    """Return the graph: an edge leads into the window for each of the last n-1 tokens."""
    context = config.order - 1
    nodes = (
        GraphNode(id="ids", label="ids", kind="value"),
        GraphNode(id="embedding", label="embedding", detail="e[ids]", parameters=("embedding.weight",)),
        GraphNode(id="window", label="concatenate", detail=f"x: the last {context} tokens", kind="operation"),
        GraphNode(id="hidden", label="hidden layer", detail="W x + b", parameters=("hidden.weight", "hidden.bias")),
        GraphNode(id="activation", label=config.activation, kind="operation"),
        GraphNode(id="output", label="output", detail="W h + b", parameters=("output.weight", "output.bias")),
        GraphNode(id="logits", label="logits", kind="value"),
    )
    held: tuple[GraphNode, ...] = ()
    extra: tuple[GraphEdge, ...] = ()
    if config.holds:
        held = (
            GraphNode(id="given", label="given", detail="g: Σ e[id] / √n of the given ids", kind="operation"),
            GraphNode(id="held", label="+ A g", parameters=("held",)),
        )
        extra = (
            GraphEdge(source="ids", target="given", axes=("B", "T")),
            GraphEdge(source="given", target="given", axes=("B", "E"), label="g", delay=1),
            GraphEdge(source="given", target="held", axes=("B", "T", "E")),
            GraphEdge(source="held", target="activation", axes=("B", "T", "H")),
        )
    window = [
        GraphEdge(source="embedding", target="window", axes=("B", "T", "E"), delay=delay) for delay in range(context - 1, -1, -1)
    ]
    edges = (
        GraphEdge(source="ids", target="embedding", axes=("B", "T")),
        *window,
        GraphEdge(source="window", target="hidden", axes=("B", "T", "E" if context == 1 else f"{context}E")),
        GraphEdge(source="hidden", target="held" if held else "activation", axes=("B", "T", "H")),
        GraphEdge(source="activation", target="output", axes=("B", "T", "H"), label="h"),
        GraphEdge(source="output", target="logits", axes=("B", "T", "V")),
        *extra,
    )
    return ModelGraph(
        nodes=(*nodes, *held), edges=edges, sizes={"E": config.embedding_size, "H": config.hidden_size, "V": config.vocab_size}
    )
