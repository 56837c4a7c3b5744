"""The computational graphs of the recurrent models, to be drawn: embedding, cell with its gates,
output layer.

The equations are in the docstrings of ``Rnn``, ``Gru`` and ``Lstm``. Must not import torch. Shapes:
B batch, T time (tokens), V vocabulary, E embedding, H hidden, N longest n-gram.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Literal, NamedTuple

from reviewgen.protocols.graph import Axis, GraphEdge, GraphNode, ModelGraph
from reviewgen_recurrent.config import KEY_SIZE, RecurrentConfig
from reviewgen_recurrent.kernels import GRU, LSTM, RNN

NAMES = {RNN: "rnn", GRU: "gru", LSTM: "lstm"}
PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
MAX_LAYERS_DRAWN = 3  # if there are more layers, one box stands for all above the first
PRODUCTS = "W_{ih} x_{t} + b_{ih} + W_{hh} h_{t-1} + b_{hh}"


class Box(NamedTuple):
    """A box inside a cell.

    Attributes:
        id: The name of the box.
        label: What the box computes.
        inputs: The names of the boxes whose results are its inputs.
        detail: A remark below the label.
        parameters: The names of its tensors, without the prefix ``recurrent.`` and the layer's
            suffix.
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
"""The boxes of each cell, in the order in which they are drawn. ``h_previous`` and ``c_previous``
are the state before the step.
"""


def describe_recurrent(config: RecurrentConfig, kernel: int) -> ModelGraph:
    """Return the graph of a recurrent model.

    Args:
        config: The settings of the model.
        kernel: The number of its cell in ``kernels``.
    """
    layers = _layers(config, kernel)
    outputs = _outputs(config)
    nodes = [_value("ids"), _embedding(config), *layers, *outputs, _value("logits")]
    # the axes of the result of each node but the last, which has no edge to a next node
    axes = ["BT", "BTE", *["BTH"] * len(layers), *["BTE"] * (len(outputs) - 1), "BTV"]
    if config.holds:
        index = len(nodes) - 2  # before the output layer
        nodes.insert(index, GraphNode(id="held", label="+ A g_{t}", parameters=("held",)))
        axes.insert(index, axes[index - 1])
    if config.pointer:
        index = len(nodes) - 1  # after the output layer
        names = ("norm.weight", "query.weight", "key.weight", "gate.weight", "gate.bias")
        nodes.insert(
            index,
            GraphNode(
                id="pointer",
                label="pointer",
                detail=f"mixes in copies of {config.pointer} tokens",
                parameters=tuple(f"pointer.{name}" for name in names),
            ),
        )
        axes.append("BTV")
    edges = []
    for (source, target), result_axes in zip(pairwise(nodes), axes, strict=True):
        # if the source contains a graph, the name of the node inside it that yields its result
        result = "x" if source.id == "embedding" else "h"
        edges.append(_edge(_port(source, result), _port(target), result_axes))
    loops: list[GraphEdge] = []
    for layer in layers:
        loops += _loops(layer, kernel)
    if config.ngrams > 1:
        past = config.ngrams - 1
        label = "last id" if past == 1 else f"last {past} ids"
        loops.append(_edge("embedding", "embedding/past", ("B", past), label, delay=1))
    if config.holds:
        # the vector g of conditions and fields is computed from the ids, and kept for later steps
        detail = "g_{t}: Σ e[id] / √n of the given ids"
        nodes.append(GraphNode(id="given", label="given", detail=detail, kind="operation"))
        edges += [_edge("given", "held", "BTE"), _edge("ids", "given", "BT")]
        loops.append(_edge("given", "given", "BE", "g", delay=1))
    if config.pointer:
        # the pointer also reads the input of the output layer, and the ids
        before_output = nodes[nodes.index(outputs[-1]) - 1]
        features = _edge(_port(before_output, "h"), "pointer", "BTE" if config.tied else "BTH")
        edges += [features, _edge("ids", "pointer", "BT")]
        slots = config.pointer + 1
        loops.append(_edge("pointer", "pointer", ("B", slots, KEY_SIZE), "keys", delay=1))
        loops.append(_edge("pointer", "pointer", ("B", slots), "ids", delay=1))
    sizes = {"E": config.embedding_size, "H": config.hidden_size, "V": config.vocab_size}
    return ModelGraph(nodes=tuple(nodes), edges=(*edges, *loops), sizes=sizes)


def _edge(
    source: str, target: str, axes: Sequence[Axis] = (), label: str = "", delay: int = 0
) -> GraphEdge:
    """Return an edge for a value with these axes. A delay of 1 means the value of the last step."""
    return GraphEdge(source=source, target=target, axes=tuple(axes), label=label, delay=delay)


def _port(node: GraphNode, name: str | None = None) -> str:
    """Return the name by which an edge refers to a node. If the node contains a graph, the edge
    refers to a node of this graph: the one called ``name``, or the first one if no name is given.
    """
    return f"{node.id}/{name or node.inside.nodes[0].id}" if node.inside else node.id


def _value(name: str, label: str | None = None) -> GraphNode:
    """Return the node of a value, labelled with its name by default."""
    return GraphNode(id=name, label=label or name, kind="value")


def _embedding(config: RecurrentConfig) -> GraphNode:
    """Return the node of the embedding. With n-grams, it contains a sum: the embedding of the token
    plus the embeddings of the n-grams that end with this token.
    """
    table = ("embedding.weight",)
    if config.ngrams == 1:
        return GraphNode(id="embedding", label="embedding", detail="e[ids]", parameters=table)
    past = config.ngrams - 1
    past_label = f"ids_{{t-{past}}} to ids_{{t-1}}"
    detail = f"2 to {config.ngrams}, hashed"
    if past == 1:
        past_label = "ids_{t-1}"
        detail = "pairs, hashed"
    ngram_table = ("ngrams.table.weight",)
    nodes = (
        _value("ids", "ids_{t}"),
        _value("past", past_label),
        GraphNode(id="token", label="token", detail="e[ids_{t}]", parameters=table),
        GraphNode(id="ngrams", label="n-grams", detail=detail, parameters=ngram_table),
        GraphNode(id="sum", label="+", kind="operation"),
        _value("x", "x_{t}"),
    )
    edges = (
        _edge("ids", "token", "BT"),
        _edge("ids", "ngrams"),
        _edge("past", "ngrams", ("B", past)),
        _edge("token", "sum", "BTE"),
        _edge("ngrams", "sum", "BTE"),
        _edge("sum", "x"),
    )
    return GraphNode(id="embedding", label="embedding", inside=ModelGraph(nodes=nodes, edges=edges))


def _layers(config: RecurrentConfig, kernel: int) -> list[GraphNode]:
    """Return the nodes of the layers. The first one shows its cell. Each of the others is a plain
    box, or one box stands for all of them if there are many.
    """
    name = NAMES[kernel]
    count = config.layers
    label = f"{name} cell" if count == 1 else f"{name} layer 1"
    layers = [GraphNode(id="layer1", label=label, inside=_cell(CELLS[kernel], config.activation))]
    # For each box after the first: the layers that it stands for, counted from 0. This is one layer
    # or, if there are many, all of them.
    boxes = [range(layer, layer + 1) for layer in range(1, count)]
    if count > MAX_LAYERS_DRAWN:
        boxes = [range(1, count)]
    for box in boxes:
        label = f"{name} layer {box.stop}" if len(box) == 1 else f"{name} layers 2 to {count}"
        parameters = tuple(chain.from_iterable(_parameters(PARAMETERS, layer) for layer in box))
        layers.append(
            GraphNode(
                id=f"layer{box.start + 1}",
                label=label,
                detail="as layer 1",
                parameters=parameters,
            )
        )
    return layers


def _parameters(names: tuple[str, ...], layer: int) -> tuple[str, ...]:
    """Return the full names of parameters of a layer, which is counted from 0."""
    return tuple(f"recurrent.{name}_l{layer}" for name in names)


def _cell(boxes: tuple[Box, ...], activation: str) -> ModelGraph:
    """Return the graph inside a cell."""
    nodes = tuple(
        GraphNode(
            id=box.id,
            label=box.label.replace("tanh", activation),
            detail=box.detail,
            kind=_kind(box),
            parameters=_parameters(box.parameters, 0),
        )
        for box in boxes
    )
    edges: list[GraphEdge] = []
    for box in boxes:
        edges += [_edge(source, box.id, "" if source == "x" else "BH") for source in box.inputs]
    return ModelGraph(nodes=nodes, edges=tuple(edges))


def _kind(box: Box) -> Literal["layer", "operation", "value"]:
    """Return the kind of a box. The inputs of a cell (boxes without inputs) and its outputs, h and
    c, are values.
    """
    if box.parameters:
        return "layer"
    return "operation" if box.inputs and box.id not in ("h", "c") else "value"


def _loops(layer: GraphNode, kernel: int) -> Iterator[GraphEdge]:
    """Yield the edges that carry h (and c of an lstm) from a node to itself at the next step. The
    node is one layer, or one box for several layers.
    """
    # the number of layers; the node of the first layer has no parameters, as the nodes inside it
    # have them
    count = len(layer.parameters) // len(PARAMETERS) or 1
    axes: Sequence[Axis] = "BH" if count == 1 else ("B", count, "H")
    for name in "hc" if kernel == LSTM else "h":
        target = _port(layer, f"{name}_previous")
        yield _edge(_port(layer, name), target, axes, name, delay=1)


def _outputs(config: RecurrentConfig) -> list[GraphNode]:
    """Return the nodes of the output layer. The last one is the layer itself. A tied layer uses the
    embedding table as its matrix; if H differs from E, the node of a projection comes first.
    """
    detail = "e h_{t} + b, e the embedding's" if config.tied else "W h_{t} + b"
    parameters = ("output.bias",) if config.tied else ("output.weight", "output.bias")
    output = GraphNode(id="output", label="output", detail=detail, parameters=parameters)
    if not config.tied or config.hidden_size == config.embedding_size:
        return [output]
    matrix = ("output.projection.weight",)
    return [
        GraphNode(id="projection", label="projection", detail="W h_{t}", parameters=matrix),
        output,
    ]
