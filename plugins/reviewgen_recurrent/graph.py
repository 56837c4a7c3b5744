"""The computational graphs of the recurrent models, for pictures: embedding, cell with its gates,
output layer.

The equations are those in the docstrings of ``Rnn``, ``Gru`` and ``Lstm``. Must not import torch.
Shapes: B batch, T time (tokens), V vocabulary, E embedding, H hidden, N longest n-gram.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph
from reviewgen_recurrent.config import RecurrentConfig
from reviewgen_recurrent.kernels import GRU, LSTM, RNN

NAMES = {RNN: "rnn", GRU: "gru", LSTM: "lstm"}
PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
LAYERS_DRAWN = 3  # more are one box
STATE = ("B", "H")
PRODUCTS = "W_{ih} x_{t} + b_{ih} + W_{hh} h_{t-1} + b_{hh}"


class Box(NamedTuple):
    """A box inside a cell.

    Attributes:
        id: Its name.
        label: What it computes.
        inputs: The names of the boxes whose results it takes.
        detail: A remark below the label.
        parameters: The names of its tensors, without prefix and layer.
    """

    id: str
    label: str
    inputs: tuple[str, ...] = ()
    detail: str = ""
    parameters: tuple[str, ...] = ()


CELLS = {
    RNN: (
        Box("x", "x_{t}"),
        Box("h_previous", "h_{t-1}"),
        Box("sum", PRODUCTS, ("x", "h_previous"), parameters=PARAMETERS),
        Box("squash", "tanh", ("sum",)),
        Box("h", "h_{t}", ("squash",)),
    ),
    GRU: (
        Box("x", "x_{t}"),
        Box("h_previous", "h_{t-1}"),
        Box("input", "W_{ih} x_{t} + b_{ih}", ("x",), parameters=("weight_ih", "bias_ih")),
        Box(
            "hidden",
            "W_{hh} h_{t-1} + b_{hh}",
            ("h_previous",),
            parameters=("weight_hh", "bias_hh"),
        ),
        Box("n", "n = tanh(+)", ("input", "scale"), "candidate"),
        Box("r", "r = σ(+)", ("input", "hidden"), "reset gate"),
        Box("scale", "×", ("r", "hidden")),
        Box("z", "z = σ(+)", ("input", "hidden"), "update gate"),
        Box("rest", "1 −", ("z",)),
        Box("new", "×", ("rest", "n")),
        Box("kept", "×", ("z", "h_previous")),
        Box("sum", "+", ("new", "kept")),
        Box("h", "h_{t}", ("sum",)),
    ),
    LSTM: (
        Box("x", "x_{t}"),
        Box("h_previous", "h_{t-1}"),
        Box("c_previous", "c_{t-1}"),
        Box("sum", PRODUCTS, ("x", "h_previous"), parameters=PARAMETERS),
        Box("o", "o = σ", ("sum",), "output gate"),
        Box("g", "g = tanh", ("sum",), "candidate"),
        Box("i", "i = σ", ("sum",), "input gate"),
        Box("f", "f = σ", ("sum",), "forget gate"),
        Box("written", "×", ("i", "g")),
        Box("kept", "×", ("f", "c_previous")),
        Box("memory", "+", ("written", "kept")),
        Box("squash", "tanh", ("memory",)),
        Box("emitted", "×", ("o", "squash")),
        Box("h", "h_{t}", ("emitted",)),
        Box("c", "c_{t}", ("memory",)),
    ),
}
"""The boxes of each cell, in the order in which they are drawn; a part of the state, as ``h``,
comes in as ``h_previous``.
"""


def describe_recurrent(config: RecurrentConfig, kernel: int) -> ModelGraph:
    """Return the graph of a recurrent model.

    Args:
        config: Its settings.
        kernel: The number of its cell in ``kernels``.
    """
    layers = _layers(config, kernel)
    outputs = _outputs(config)
    nodes = [_value("ids"), _embedding(config), *layers, *outputs, _value("logits")]
    # the last ones of each result
    axes = [(), ("E",), *[("H",)] * len(layers), *[("E",)] * (len(outputs) - 1), ("V",)]
    given_nodes: list[GraphNode] = []
    if config.holds:
        given_nodes = [
            GraphNode(
                id="given",
                label="given",
                detail="g_{t}: Σ e[id] / √n of the given ids",
                kind="operation",
            )
        ]
        place = len(nodes) - 2  # before the output layer
        nodes.insert(place, GraphNode(id="held", label="+ A g_{t}", parameters=("held",)))
        axes.insert(place, axes[place - 1])
    edges = [
        GraphEdge(
            source=_port(source, "x" if source.id == "embedding" else "h"),
            target=_port(target),
            axes=("B", "T", *last),
        )
        for (source, target), last in zip(pairwise(nodes), axes, strict=True)
    ]
    loops = [edge for layer in layers for edge in _loops(layer, config, kernel)]
    if config.ngrams > 1:
        past = config.ngrams - 1
        label = "last id" if past == 1 else f"last {past} ids"
        loops.append(
            GraphEdge(
                source="embedding", target="embedding/past", axes=("B", past), label=label, delay=1
            )
        )
    if config.holds:
        edges.append(GraphEdge(source="given", target="held", axes=("B", "T", "E")))
        edges.append(GraphEdge(source="ids", target="given", axes=("B", "T")))
        loops.append(GraphEdge(source="given", target="given", axes=("B", "E"), label="g", delay=1))
    sizes = {"E": config.embedding_size, "H": config.hidden_size, "V": config.vocab_size}
    return ModelGraph(nodes=(*nodes, *given_nodes), edges=(*edges, *loops), sizes=sizes)


def _port(node: GraphNode, name: str | None = None) -> str:
    """Return the end of an edge: a node or, of one that has an inside, a node of it, by default the
    first.
    """
    return f"{node.id}/{name or node.inside.nodes[0].id}" if node.inside else node.id


def _value(name: str) -> GraphNode:
    return GraphNode(id=name, label=name, kind="value")


def _embedding(config: RecurrentConfig) -> GraphNode:
    """Return the embedding; with n-grams, the sum of the token's and those of the n-grams that end
    there.
    """
    if config.ngrams == 1:
        return GraphNode(
            id="embedding", label="embedding", detail="e[ids]", parameters=("embedding.weight",)
        )
    past = config.ngrams - 1
    lengths = "pairs" if past == 1 else f"2 to {config.ngrams}"
    inside = ModelGraph(
        nodes=(
            GraphNode(id="ids", label="ids_{t}", kind="value"),
            GraphNode(
                id="past",
                label="ids_{t-1}" if past == 1 else f"ids_{{t-{past}}} to ids_{{t-1}}",
                kind="value",
            ),
            GraphNode(
                id="token", label="token", detail="e[ids_{t}]", parameters=("embedding.weight",)
            ),
            GraphNode(
                id="ngrams",
                label="n-grams",
                detail=f"{lengths}, hashed",
                parameters=("ngrams.table.weight",),
            ),
            GraphNode(id="sum", label="+", kind="operation"),
            GraphNode(id="x", label="x_{t}", kind="value"),
        ),
        edges=(
            GraphEdge(source="ids", target="token", axes=("B", "T")),
            GraphEdge(source="ids", target="ngrams"),
            GraphEdge(source="past", target="ngrams", axes=("B", past)),
            GraphEdge(source="token", target="sum", axes=("B", "T", "E")),
            GraphEdge(source="ngrams", target="sum", axes=("B", "T", "E")),
            GraphEdge(source="sum", target="x"),
        ),
    )
    return GraphNode(id="embedding", label="embedding", inside=inside)


def _layers(config: RecurrentConfig, kernel: int) -> list[GraphNode]:
    """Return the layers: the first with its cell, the others as boxes, or as one box if there are
    many.
    """
    name = NAMES[kernel]
    count = config.layers
    label = f"{name} cell" if count == 1 else f"{name} layer 1"
    layers = [GraphNode(id="layer1", label=label, inside=_cell(CELLS[kernel], config.activation))]
    others = (
        [range(layer, layer + 1) for layer in range(1, count)]
        if count <= LAYERS_DRAWN
        else [range(1, count)]
    )
    for box in others:
        label = f"{name} layer {box.stop}" if len(box) == 1 else f"{name} layers 2 to {count}"
        parameters = tuple(f"recurrent.{part}_l{layer}" for layer in box for part in PARAMETERS)
        layers.append(
            GraphNode(
                id=f"layer{box.start + 1}", label=label, detail="as layer 1", parameters=parameters
            )
        )
    return layers


def _cell(boxes: tuple[Box, ...], activation: str) -> ModelGraph:
    """Return what happens inside a cell."""
    nodes = tuple(
        GraphNode(
            id=box.id,
            label=box.label.replace("tanh", activation),
            detail=box.detail,
            kind=(
                "layer"
                if box.parameters
                else "value"
                if not box.inputs or box.id in ("h", "c")
                else "operation"
            ),
            parameters=tuple(f"recurrent.{part}_l0" for part in box.parameters),
        )
        for box in boxes
    )
    wires = [(source, box.id) for box in boxes for source in box.inputs]
    edges = tuple(GraphEdge(source=a, target=b, axes=() if a == "x" else STATE) for a, b in wires)
    return ModelGraph(nodes=nodes, edges=edges)


def _loops(layer: GraphNode, config: RecurrentConfig, kernel: int) -> Iterator[GraphEdge]:
    """Yield the recurrent states of a layer."""
    count = len(layer.parameters) // len(PARAMETERS) or 1
    axes = STATE if count == 1 else ("B", count, "H")
    for name in ("h", "c") if kernel == LSTM else ("h",):
        yield GraphEdge(
            source=_port(layer, name),
            target=_port(layer, f"{name}_previous"),
            axes=axes,
            label=name,
            delay=1,
        )


def _outputs(config: RecurrentConfig) -> list[GraphNode]:
    """Return the output layer; if it is tied, its matrix is the embedding's table, behind a
    projection if the widths differ.
    """
    if not config.tied:
        return [
            GraphNode(
                id="output",
                label="output",
                detail="W h_{t} + b",
                parameters=("output.weight", "output.bias"),
            )
        ]
    output = GraphNode(
        id="output",
        label="output",
        detail="e h_{t} + b, e the embedding's",
        parameters=("output.bias",),
    )
    if config.hidden_size == config.embedding_size:
        return [output]
    projection = GraphNode(
        id="projection",
        label="projection",
        detail="W h_{t}",
        parameters=("output.projection.weight",),
    )
    return [projection, output]
