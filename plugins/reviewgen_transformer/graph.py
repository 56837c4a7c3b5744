"""The computational graph of the transformer, to be drawn: embedding, layers of attention and
feed-forward, output layer.

The equations are in the docstring of ``Transformer``. Must not import torch. Shapes: B batch, T
time (tokens), V vocabulary, H hidden, K width of the keys, W window.
"""

from itertools import pairwise
from typing import Any

from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph
from reviewgen_transformer.config import TransformerConfig

PARTS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "x": ("x_{t}", "", (), ()),
    "norm": ("n = x / rms(x) w", "", ("x",), ("input_layernorm",)),
    "query": ("R_{t} W_{q} n", "query", ("norm",), ("self_attn.q_proj",)),
    "key": ("R_{t} W_{k} n", "key", ("norm",), ("self_attn.k_proj",)),
    "value": ("W_{v} n", "value", ("norm",), ("self_attn.v_proj",)),
    "mix": ("W_{o} Σ softmax(q k / √D) v", "", ("query", "key", "value"), ("self_attn.o_proj",)),
    "sum": ("+", "", ("x", "mix"), ()),
    "feed": (
        "W_{down} (silu(W_{gate} m) × W_{up} m)",
        "m = x / rms(x) w",
        ("sum",),
        ("post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    ),
    "output": ("+", "", ("sum", "feed"), ()),
}
"""The label, the detail, the inputs and the tensors of each part of a layer."""

AXES = {"key": "BTK", "value": "BTK"}
"""The axes of the keys and values, whose width may differ from H. All other parts are "BTH"."""


def describe_transformer(config: TransformerConfig) -> ModelGraph:
    """Return the graph of a transformer. The first layer shows its parts; one box stands for all
    layers above it.
    """
    nodes = [
        GraphNode(id="ids", label="ids", kind="value"),
        GraphNode(
            id="embedding", label="embedding", detail="e[ids]", parameters=("embedding.weight",)
        ),
    ]
    edges = []
    if config.ngrams > 1:
        table = ("ngrams.table.weight",)
        nodes.append(GraphNode(id="ngrams", label="+ n-grams", parameters=table))
        past = ("B", config.ngrams - 1)
        edges.append(_edge("ids", "ngrams", past, f"last {config.ngrams - 1} ids", delay=1))
    if config.holds:
        detail = "g_{t}: Σ e[id] / √n of the given ids"
        nodes.append(GraphNode(id="held", label="+ A g_{t}", detail=detail, parameters=("held",)))
        edges += [_edge("ids", "held", "BT"), _edge("held", "held", "BH", "g", delay=1)]
    nodes.append(GraphNode(id="layer1", label="layer 1", inside=_layer(config)))
    if config.layers > 1:
        label = f"layers 2 to {config.layers}" if config.layers > 2 else "layer 2"
        parameters = sum((_parameters(layer) for layer in range(1, config.layers)), ())
        nodes.append(
            GraphNode(id="layer2", label=label, detail="as layer 1", parameters=parameters)
        )
    nodes += [
        GraphNode(id="norm", label="x / rms(x) w", parameters=("norm.weight",)),
        GraphNode(id="output", label="output", detail="e x_{t}", kind="operation"),
        GraphNode(id="logits", label="logits", kind="value"),
    ]
    # the axes of the result of each node but the last, which has no edge to a next node
    axes = ["BT", *["BTH"] * (len(nodes) - 3), "BTV"]
    for (source, target), result_axes in zip(pairwise(nodes), axes, strict=True):
        # an edge from or to a node with a graph inside names a node of this graph
        outlet = f"{source.id}/output" if source.inside else source.id
        inlet = f"{target.id}/x" if target.inside else target.id
        edges.append(_edge(outlet, inlet, result_axes))
    edges.sort(key=lambda edge: edge.delay)  # those from the step before come last
    sizes = {"V": config.vocab_size, "H": config.hidden_size, "K": config.key_size}
    return ModelGraph(nodes=tuple(nodes), edges=tuple(edges), sizes=sizes | {"W": config.window})


def _edge(source: str, target: str, axes: Any = (), label: str = "", delay: int = 0) -> GraphEdge:
    """Return an edge for a value with these axes. A delay of 1 means the value of the last step."""
    return GraphEdge(source=source, target=target, axes=tuple(axes), label=label, delay=delay)


def _parameters(layer: int, names: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Return the full names of tensors of a layer (counted from 0): of ``names``, such as
    "mlp.up_proj", or of all its tensors if no names are given.
    """
    if names is None:
        names = sum((tensors for *_, tensors in PARTS.values()), ())
    return tuple(f"layers.{layer}.{name}.weight" for name in names)


def _layer(config: TransformerConfig) -> ModelGraph:
    """Return the graph inside the first layer."""
    nodes = []
    edges = []
    for name, (label, detail, inputs, tensors) in PARTS.items():
        kind: Any = "layer" if tensors else "operation"
        if not inputs:
            kind = "value"
        parameters = _parameters(0, tensors)
        nodes.append(
            GraphNode(id=name, label=label, detail=detail, kind=kind, parameters=parameters)
        )
        edges += [_edge(source, name, AXES.get(source, "BTH")) for source in inputs]
    cached = f"last {config.window}"
    # the keys and values, which AXES names, are also read at later steps
    edges += [_edge(name, "mix", "BWK", cached, delay=1) for name in AXES]
    return ModelGraph(nodes=tuple(nodes), edges=tuple(edges))
