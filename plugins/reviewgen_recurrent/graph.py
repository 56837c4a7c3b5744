"""The computational graphs of the recurrent models, for pictures: embedding, cell with its gates, output layer.

The equations are those in the docstrings of ``Rnn``, ``Gru`` and ``Lstm``. Must not import torch. Shapes: B batch, T time
(tokens), V vocabulary, E embedding, H hidden, N longest n-gram.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise

from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph
from reviewgen_recurrent.config import RecurrentConfig
from reviewgen_recurrent.kernels import GRU, LSTM, RNN

STATES = {RNN: ("h",), GRU: ("h",), LSTM: ("h", "c")}
NAMES = {RNN: "rnn", GRU: "gru", LSTM: "lstm"}
PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
LAYERS_DRAWN = 3  # more are one box
STATE = ("B", "H")


def describe_recurrent(config: RecurrentConfig, kernel: int) -> ModelGraph:
    """Return the graph of a recurrent model.

    Args:
        config: Its settings.
        kernel: The number of its cell in ``kernels``.
    """
    layers = _layers(config, kernel)
    nodes = [_value("ids", "ids"), _embedding(config), *layers, *_outputs(config), _value("logits", "logits")]
    chain = [node.id for node in nodes]
    ends = _ends(config, len(layers))
    edges = [
        GraphEdge(source=source, target=target, axes=("B", "T", *axes))
        for (source, target), axes in zip(_pairs(chain, config, kernel), ends, strict=True)
    ]
    loops = [edge for layer in layers for edge in _loops(layer, config, kernel)]
    if config.ngrams > 1:
        past = config.ngrams - 1
        label = "last id" if past == 1 else f"last {past} ids"
        loops.append(GraphEdge(source="embedding", target="embedding/past", axes=("B", past), label=label, delay=1))
    sizes = {"E": config.embedding_size, "H": config.hidden_size, "V": config.vocab_size}
    return ModelGraph(nodes=tuple(nodes), edges=(*edges, *loops), sizes=sizes)


def _pairs(chain: list[str], config: RecurrentConfig, kernel: int) -> list[tuple[str, str]]:
    """Return source and target of each edge of the chain, with the ports of those that have an inside."""
    into = {"embedding": "embedding/ids"} if config.ngrams > 1 else {}
    out = {"embedding": "embedding/x"} if config.ngrams > 1 else {}
    into["layer1"], out["layer1"] = "layer1/x", "layer1/h"
    return [(out.get(a, a), into.get(b, b)) for a, b in pairwise(chain)]


def _ends(config: RecurrentConfig, layers: int) -> list[tuple[str, ...]]:
    """Return the last axes of each edge of the chain."""
    projected = [("E",)] if config.tied and config.hidden_size != config.embedding_size else []
    return [(), ("E",), *[("H",)] * layers, *projected, ("V",)]


def _value(name: str, label: str) -> GraphNode:
    return GraphNode(id=name, label=label, kind="value")


def _operation(name: str, label: str, detail: str = "") -> GraphNode:
    return GraphNode(id=name, label=label, detail=detail, kind="operation")


def _embedding(config: RecurrentConfig) -> GraphNode:
    """Return the embedding; with n-grams, the sum of the token's and those of the n-grams that end there."""
    if config.ngrams == 1:
        return GraphNode(id="embedding", label="embedding", detail="e[ids]", parameters=("embedding.weight",))
    past = config.ngrams - 1
    lengths = "pairs" if past == 1 else f"2 to {config.ngrams}"
    inside = ModelGraph(
        nodes=(
            _value("ids", "ids_{t}"),
            _value("past", "ids_{t-1}" if past == 1 else f"ids_{{t-{past}}} to ids_{{t-1}}"),
            GraphNode(id="token", label="token", detail="e[ids_{t}]", parameters=("embedding.weight",)),
            GraphNode(id="ngrams", label="n-grams", detail=f"{lengths}, hashed", parameters=("ngrams.table.weight",)),
            _operation("sum", "+"),
            _value("x", "x_{t}"),
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
    """Return the layers: the first with its cell, the others as boxes, or as one box if there are many."""
    many = config.layers > LAYERS_DRAWN
    name = NAMES[kernel]
    first = GraphNode(
        id="layer1", label=f"{name} cell" if config.layers == 1 else f"{name} layer 1", inside=_cell(config, kernel)
    )
    if many:
        rest = [(f"{name} layers 2 to {config.layers}", range(1, config.layers))]
    else:
        rest = [(f"{name} layer {number + 1}", range(number, number + 1)) for number in range(1, config.layers)]
    return [
        first,
        *(
            GraphNode(id=f"layer{numbers[0] + 1}", label=label, detail="as layer 1", parameters=_parameters(numbers))
            for label, numbers in rest
        ),
    ]


def _loops(layer: GraphNode, config: RecurrentConfig, kernel: int) -> Iterable[GraphEdge]:
    """Yield the recurrent states of a layer."""
    count = config.layers - 1 if layer.label.startswith(f"{NAMES[kernel]} layers") else 1
    axes = STATE if count == 1 else ("B", count, "H")
    for name in STATES[kernel]:
        source, target = (f"{layer.id}/{name}", f"{layer.id}/{name}_previous") if layer.inside else (layer.id, layer.id)
        yield GraphEdge(source=source, target=target, axes=axes, label=name, delay=1)


def _parameters(
    layers: Iterable[int], parts: tuple[str, ...] = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
) -> tuple[str, ...]:
    return tuple(f"recurrent.{part}_l{layer}" for layer in layers for part in parts)


def _outputs(config: RecurrentConfig) -> list[GraphNode]:
    """Return the output layer; if it is tied, its matrix is the embedding's table, behind a projection if the widths differ."""
    if not config.tied:
        return [GraphNode(id="output", label="output", detail="W h_{t} + b", parameters=("output.weight", "output.bias"))]
    output = GraphNode(id="output", label="output", detail="e h_{t} + b, e the embedding's", parameters=("output.bias",))
    if config.hidden_size == config.embedding_size:
        return [output]
    projection = GraphNode(id="projection", label="projection", detail="W h_{t}", parameters=("output.projection.weight",))
    return [projection, output]


def _cell(config: RecurrentConfig, kernel: int) -> ModelGraph:
    """Return what happens inside a cell."""
    make: Callable[[str], ModelGraph] = {RNN: _rnn_cell, GRU: _gru_cell, LSTM: _lstm_cell}[kernel]
    return make(config.activation)


def _edges(*pairs: tuple[str, str]) -> tuple[GraphEdge, ...]:
    """Return edges inside a cell, each a (B, H)."""
    return tuple(GraphEdge(source=source, target=target, axes=STATE) for source, target in pairs)


def _rnn_cell(activation: str) -> ModelGraph:
    nodes = (
        _value("x", "x_{t}"),
        _value("h_previous", "h_{t-1}"),
        GraphNode(id="sum", label="W_{ih} x_{t} + b_{ih} + W_{hh} h_{t-1} + b_{hh}", parameters=_parameters([0])),
        _operation("squash", activation),
        _value("h", "h_{t}"),
    )
    edges = (
        GraphEdge(source="x", target="sum"),
        *_edges(("h_previous", "sum"), ("sum", "squash"), ("squash", "h")),
    )
    return ModelGraph(nodes=nodes, edges=edges)


def _gru_cell(activation: str) -> ModelGraph:
    nodes = (
        _value("x", "x_{t}"),
        _value("h_previous", "h_{t-1}"),
        GraphNode(id="input", label="W_{ih} x_{t} + b_{ih}", parameters=_parameters([0], ("weight_ih", "bias_ih"))),
        GraphNode(id="hidden", label="W_{hh} h_{t-1} + b_{hh}", parameters=_parameters([0], ("weight_hh", "bias_hh"))),
        _operation("n", f"n = {activation}(+)", "candidate"),
        _operation("r", "r = σ(+)", "reset gate"),
        _operation("scale", "×"),
        _operation("z", "z = σ(+)", "update gate"),
        _operation("rest", "1 −"),
        _operation("new", "×"),
        _operation("kept", "×"),
        _operation("sum", "+"),
        _value("h", "h_{t}"),
    )
    edges = (
        GraphEdge(source="x", target="input"),
        *_edges(("h_previous", "hidden"), ("input", "r"), ("hidden", "r"), ("input", "z"), ("hidden", "z")),
        *_edges(("r", "scale"), ("hidden", "scale"), ("input", "n"), ("scale", "n"), ("z", "rest"), ("rest", "new")),
        *_edges(("n", "new"), ("z", "kept"), ("h_previous", "kept"), ("new", "sum"), ("kept", "sum"), ("sum", "h")),
    )
    return ModelGraph(nodes=nodes, edges=edges)


def _lstm_cell(activation: str) -> ModelGraph:
    nodes = (
        _value("x", "x_{t}"),
        _value("h_previous", "h_{t-1}"),
        _value("c_previous", "c_{t-1}"),
        GraphNode(id="sum", label="W_{ih} x_{t} + b_{ih} + W_{hh} h_{t-1} + b_{hh}", parameters=_parameters([0])),
        _operation("o", "o = σ", "output gate"),
        _operation("g", f"g = {activation}", "candidate"),
        _operation("i", "i = σ", "input gate"),
        _operation("f", "f = σ", "forget gate"),
        _operation("written", "×"),
        _operation("kept", "×"),
        _operation("memory", "+"),
        _operation("squash", activation),
        _operation("emitted", "×"),
        _value("h", "h_{t}"),
        _value("c", "c_{t}"),
    )
    edges = (
        GraphEdge(source="x", target="sum"),
        *_edges(("h_previous", "sum"), ("sum", "i"), ("sum", "f"), ("sum", "g"), ("sum", "o")),
        *_edges(("f", "kept"), ("c_previous", "kept"), ("i", "written"), ("g", "written"), ("written", "memory")),
        *_edges(("kept", "memory"), ("memory", "squash"), ("o", "emitted"), ("squash", "emitted"), ("emitted", "h")),
        *_edges(("memory", "c")),
    )
    return ModelGraph(nodes=nodes, edges=edges)
