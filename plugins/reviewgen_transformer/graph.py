"""The computational graph of the transformer, to be drawn: embedding, layers of attention and
feed-forward, output layer.

The equations are in the docstring of ``Transformer``. Must not import torch. Shapes: B batch, T
time (tokens), V vocabulary, H hidden, F feed-forward, K width of the keys, W window.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from reviewgen.protocols.graph import Axis, GraphEdge, GraphNode, ModelGraph
from reviewgen_transformer.config import TransformerConfig

PARAMETERS = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""The tensors of a layer, without the prefix ``layers.N.`` and the suffix ``.weight``."""


def describe_transformer(config: TransformerConfig) -> ModelGraph:
    """Return the graph of a transformer. The first layer shows its parts; one box stands for all
    layers above it.
    """
    table = ("embedding.weight",)
    nodes = [
        GraphNode(id="ids", label="ids", kind="value"),
        GraphNode(id="embedding", label="embedding", detail="e[ids]", parameters=table),
    ]
    edges = []
    if config.ngrams > 1:
        detail = f"2 to {config.ngrams} ids, hashed"
        ngrams = ("ngrams.table.weight",)
        nodes.append(GraphNode(id="ngrams", label="+ n-grams", detail=detail, parameters=ngrams))
        edges.append(_edge("ids", "ngrams", "BT", f"last {config.ngrams - 1} ids", delay=1))
    if config.holds:
        detail = "g_{t}: Σ e[id] / √n of the given ids"
        nodes.append(GraphNode(id="held", label="+ A g_{t}", detail=detail, parameters=("held",)))
        edges += [_edge("ids", "held", "BT"), _edge("held", "held", "BH", "g", delay=1)]
    nodes.append(GraphNode(id="layer1", label="layer 1", inside=_layer(config)))
    if config.layers > 1:
        above = range(1, config.layers)
        label = "layer 2" if config.layers == 2 else f"layers 2 to {config.layers}"
        parameters = tuple(name for layer in above for name in _parameters(layer, PARAMETERS))
        nodes.append(
            GraphNode(id="layer2", label=label, detail="as layer 1", parameters=parameters)
        )
    nodes += [
        GraphNode(id="norm", label="x_{t} / rms(x_{t}) w", parameters=("norm.weight",)),
        GraphNode(id="output", label="output", detail="e x_{t}", kind="operation"),
        GraphNode(id="logits", label="logits", kind="value"),
    ]
    axes = ["BT", *["BTH"] * (len(nodes) - 3), "BTV"]
    steps = [
        _edge(_port(source, "sum2"), _port(target, "x"), shape)
        for (source, target), shape in zip(pairwise(nodes), axes, strict=True)
    ]
    sizes = {
        "V": config.vocab_size,
        "H": config.hidden_size,
        "F": config.inner_size,
        "K": config.key_size,
        "W": config.window,
    }
    return ModelGraph(nodes=tuple(nodes), edges=(*steps, *edges), sizes=sizes)


def _edge(
    source: str, target: str, axes: Sequence[Axis] = (), label: str = "", delay: int = 0
) -> GraphEdge:
    return GraphEdge(source=source, target=target, axes=tuple(axes), label=label, delay=delay)


def _port(node: GraphNode, name: str) -> str:
    """Return the name by which an edge refers to a node, or to the node ``name`` inside it."""
    return f"{node.id}/{name}" if node.inside else node.id


def _parameters(layer: int, names: Sequence[str]) -> Iterator[str]:
    """Yield the full names of tensors of a layer, which is counted from 0."""
    for name in names:
        yield f"layers.{layer}.{name}.weight"


def _layer(config: TransformerConfig) -> ModelGraph:
    """Return the graph inside a layer."""
    past = config.window - 1

    def part(
        name: str, label: str, detail: str = "", tensors: Sequence[str] = (), kind: str = "layer"
    ) -> GraphNode:
        """Return a node with tensors of the first layer."""
        parameters = tuple(_parameters(0, tensors))
        return GraphNode(id=name, label=label, detail=detail, kind=kind, parameters=parameters)

    nodes = (
        part("x", "x_{t}", kind="value"),
        part("norm1", "n = x / rms(x) w", tensors=PARAMETERS[:1]),
        part("query", "q = R_{t} W_{q} n", "query", PARAMETERS[1:2]),
        part("key", "k = R_{t} W_{k} n", "key", PARAMETERS[2:3]),
        part("value", "v = W_{v} n", "value", PARAMETERS[3:4]),
        part("scores", "a = softmax(q k / √D)", f"{config.heads} heads", kind="operation"),
        part("mix", "W_{o} Σ a v", "attention", PARAMETERS[4:5]),
        part("sum1", "+", kind="operation"),
        part("norm2", "m = x / rms(x) w", tensors=PARAMETERS[5:6]),
        part("gate", "silu(W_{gate} m) × W_{up} m", tensors=PARAMETERS[6:8]),
        part("down", "W_{down}", "feed-forward", PARAMETERS[8:]),
        part("sum2", "+", kind="operation"),
    )
    edges = [
        _edge("x", "norm1", "BTH"),
        _edge("norm1", "query", "BTH"),
        _edge("norm1", "key", "BTH"),
        _edge("norm1", "value", "BTH"),
        _edge("query", "scores", "BTH"),
        _edge("key", "scores", "BTK"),
        _edge("value", "mix", "BTK"),
        _edge("scores", "mix"),
        _edge("mix", "sum1", "BTH"),
        _edge("x", "sum1", "BTH"),
        _edge("sum1", "norm2", "BTH"),
        _edge("norm2", "gate", "BTH"),
        _edge("gate", "down", "BTF"),
        _edge("down", "sum2", "BTH"),
        _edge("sum1", "sum2", "BTH"),
    ]
    if past > 0:
        shape = ("B", "W", "K")
        label = f"last {past}"
        edges.append(_edge("key", "scores", shape, label, delay=1))
        edges.append(_edge("value", "mix", shape, label, delay=1))
    return ModelGraph(nodes=nodes, edges=tuple(edges))
