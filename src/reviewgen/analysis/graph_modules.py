"""Makes the graph of a model that does not describe itself. It records a forward pass, and draws
the modules as boxes and the shapes of their tensors.

Sums, products and concatenations of values from different modules are boxes, too. A module that
calls other modules is a frame around them, and so is an item of an nn.ModuleList. A frame with the
same content as an earlier frame beside it is drawn as a box that names the earlier frame.
"""

import copy
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from itertools import chain, permutations, product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from reviewgen.analysis.trace import (
    ModuleCall,
    Step,
    Trace,
    broken_plugins,
    letter_sizes,
    name_axes,
    trace,
)
from reviewgen.config.settings import to_dict
from reviewgen.protocols.graph import (
    Axis,
    GraphEdge,
    GraphNode,
    ModelGraph,
    all_nodes,
    parameter_sizes,
)

_SIZES = (5, 7, 11, 13, 17, 19, 23)  # candidates for the sizes of B and T
_OPERATIONS = {
    "add": "+",
    "add_": "+",
    "sub": "−",
    "rsub": "−",
    "mul": "×",
    "mul_": "×",
    "cat": "concatenate",
}
_LOOKUPS = ("embedding", "index", "index_select")
# suffix of the id of a box of parameters that are used although their module is not called
_WEIGHTS = "#weights"
_SIGNS = str.maketrans({"/": "∕", "#": "＃"})  # these signs have a meaning in ids
_VALUES = ("ids", "logits", "state", "state_after")

Ends = tuple[str, str]


def describe_modules(model: Any) -> ModelGraph:
    """Return the graph of a model: ids, a frame with the modules of the model, logits, and the
    state as a loop.

    Raises:
        BrokenPlugin: A forward pass of the model fails.
    """
    sizes = letter_sizes(model.config)
    if not isinstance(model, nn.Module):
        return _one_box(model, sizes, None, (), ())
    shape = _distinct_sizes(model)
    generator = torch.Generator().manual_seed(0)
    config: Any = model.config
    ids = torch.randint(config.vocab_size, shape, generator=generator)
    with broken_plugins(model, ids):
        # the forward pass runs on a copy, so that the model does not change
        model = copy.deepcopy(model).eval()
    traced = trace(model, ids, follows=True)
    calls = Counter(call.name for call in traced.calls)
    # a module was called T times, so the model reads token by token: one token is enough
    if max(calls.values(), default=0) >= shape[1]:
        traced = trace(model, ids[:, :1], follows=True)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    flow = _Flow(traced, ids, sizes, names)
    flow.read()
    used = set(chain.from_iterable(node.parameters for node in flow.nodes.values()))
    unused = tuple(name for name in parameter_sizes(model) if name not in used)
    states = [flow.axes(tensor) for tensor in traced.states[0]]
    return _one_box(model, sizes, flow.graph() if flow.nodes else None, states, unused)


def _distinct_sizes(model: Any) -> tuple[int, int]:
    """Choose sizes of B and T such that neither they nor their product are a size of the model, so
    that an axis can be named by its size. If there are no such sizes, return the first two.
    """
    known = set(chain.from_iterable(tensor.shape for tensor in model.parameters()))
    known |= {size for size in to_dict(model.config).values() if isinstance(size, int)}
    for batch, time in permutations(_SIZES, 2):
        if not known & {batch, time, batch * time}:
            return batch, time
    return _SIZES[:2]


def _one_box(
    model: Any,
    sizes: dict[str, int],
    inside: ModelGraph | None,
    states: Sequence[tuple[Axis, ...]],
    unused: tuple[str, ...],
) -> ModelGraph:
    """Return the graph of a model: ids, the model, logits, and a loop for each state. The model is
    a frame around ``inside``, or a box if ``inside`` is None.

    Args:
        model: The model.
        sizes: The size of each letter.
        inside: The graph of the model's modules; None if it is not known.
        states: The axes of each tensor of the state.
        unused: The parameters that no node of ``inside`` has.
    """
    ports = set() if inside is None else {node.id for node in inside.nodes}
    # the ends of edges, in the order of ``_VALUES``: ports of the frame, or the box
    ids, logits, before, after = (f"model/{name}" if name in ports else "model" for name in _VALUES)
    nodes = (
        _value("ids"),
        GraphNode(id="model", label=type(model).__name__, parameters=unused, inside=inside),
        _value("logits"),
    )
    ends = (
        GraphEdge(source="ids", target=ids, axes=("B", "T")),
        GraphEdge(source=logits, target="logits", axes=("B", "T", "V")),
    )
    loops = [
        # only the edge of the first tensor has the label "state"
        GraphEdge(source=after, target=before, axes=axes, label="" if n else "state", delay=1)
        for n, axes in enumerate(states)
    ]
    return ModelGraph(nodes=nodes, edges=(*ends, *loops), sizes=sizes)


def _value(name: str, label: str = "") -> GraphNode:
    """Return a node for a value, such as the ids or the logits."""
    return GraphNode(id=name, label=label or name, kind="value")


@dataclass
class _Flow:
    """Follows the values of a forward pass from box to box. It collects the boxes by id
    (``nodes``), the frames around each box, the outermost first (``paths``), and the axes of the
    value on each edge (``edges``).
    """

    traced: Trace
    ids: Tensor
    sizes: dict[str, int]
    parameters: dict[int, str]  # the name of each parameter, by its identity
    nodes: dict[str, GraphNode] = field(default_factory=dict)
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    edges: dict[Ends, tuple[Axis, ...]] = field(default_factory=dict)
    # the boxes that a tensor's value comes from, by the tensor's storage, which its views share
    origins: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def read(self) -> None:
        """Read the steps of the forward pass, and add the boxes and edges."""
        self._set_origins(self.traced.states[0], ("state",))
        self._set_origins([self.ids], ("ids",))
        for step in self.traced.steps:
            call = step.call
            if call is not None and _is_box(call):
                # At the end of a call, ``operation`` is empty: add the box of the call. The call of
                # the model itself, which no call is around, has no box.
                if not step.operation and call.around is not None:
                    self._add_module(call)
            # an operation outside all boxes
            elif step.operation:
                self._set_origins(step.outputs, self._join(step))
        self._connect("logits", [self.traced.logits])
        if not self.nodes:
            return
        self._add(_value("logits"))
        # the tensors of the state that the model has computed, and not only passed on
        before = set(map(_storage_id, self.traced.states[0]))
        computed = [tensor for tensor in self.traced.states[1] if _storage_id(tensor) not in before]
        for source in chain.from_iterable(map(self._sources, computed)):
            if source != "state":
                self._add(_value("state_after", "state"))
                self.edges[source, "state_after"] = ()

    def axes(self, tensor: Tensor) -> tuple[Axis, ...]:
        """Return the axes of a tensor."""
        return name_axes(tensor.shape, self.traced.logits.shape[:2], self.sizes)

    def _add(self, node: GraphNode, path: tuple[str, ...] = ()) -> None:
        """Add a node inside the frames ``path``, unless there is a node with its id."""
        self.nodes.setdefault(node.id, node)
        self.paths.setdefault(node.id, path)

    def _add_module(self, call: ModuleCall) -> None:
        """Add a box for the call of a module. If a module is called several times, only its first
        box has the parameters.
        """
        name = _node_id(call)
        label = _last_name(call.name)
        named = call.module.named_parameters(call.name)
        parameters = tuple(parameter for parameter, _ in named)
        # the ids of the second call and of later ones end with "#2", "#3" and so on
        earlier_calls = sum(node_id.partition("#")[0] == name for node_id in self.paths)
        if earlier_calls:
            name = f"{name}#{earlier_calls + 1}"
            label = f"{label} ({earlier_calls + 1})"
            parameters = ()
        kind: Literal["layer", "operation"] = "layer" if parameters else "operation"
        self._connect(name, call.inputs)
        node = GraphNode(
            id=name, label=label, detail=_class_text(call.module), kind=kind, parameters=parameters
        )
        path = _path(call.around)
        # an item of an nn.ModuleList is a frame even if it is not called itself
        item = re.match(r"(.+?\.\d+)\.", name)
        if item and not path:
            path = (item[1],)
        self._add(node, path)
        self._set_origins(call.outputs, (name,))

    def _set_origins(self, values: Sequence[Tensor], sources: tuple[str, ...]) -> None:
        """Record the nodes that some values come from."""
        self.origins |= dict.fromkeys(map(_storage_id, values), sources)

    def _connect(self, target: str, inputs: Sequence[Tensor]) -> None:
        """Add the edges into a node, from the nodes that its inputs come from."""
        for tensor in inputs:
            sources = self._sources(tensor)
            for source in sources:
                # the axes are those of the source only if there is no other source
                self._add_edge(source, target, self.axes(tensor) if len(sources) == 1 else ())

    def _add_edge(self, source: str, target: str, axes: tuple[Axis, ...] = ()) -> None:
        """Add an edge. If the edge exists, it gets these axes only if it has none."""
        if source in ("ids", "state"):
            self._add(_value(source))
        if source != target:
            self.edges[source, target] = self.edges.get((source, target)) or axes

    def _sources(self, tensor: Tensor) -> tuple[str, ...]:
        """Return the nodes that a tensor comes from. If it is a parameter whose module is not
        called, add and return a box for the parameters of this module.
        """
        parameter = self.parameters.get(id(tensor))
        if parameter is None:
            return self.origins.get(_storage_id(tensor), ())
        module = parameter.rpartition(".")[0] or parameter
        name = f"{module.translate(_SIGNS)}{_WEIGHTS}"
        # a parameter of a module that is called has a box already
        if not any(parameter in node.parameters for node in self.nodes.values()):
            self._add(GraphNode(id=name, label=_last_name(module)))
            box = self.nodes[name]
            self.nodes[name] = replace(box, parameters=(*box.parameters, parameter))
        return (name,) if name in self.nodes else ()

    def _join(self, step: Step) -> tuple[str, ...]:
        """Return the nodes that the result of an operation comes from. A sum, product or
        concatenation of values from different nodes gets a node of its own. Any other result comes
        from the nodes of the inputs.
        """
        # the sources of each input that has any; inputs with the same sources count once
        by_input = dict.fromkeys(filter(None, map(self._sources, step.inputs)))
        sources = tuple(dict.fromkeys(chain.from_iterable(by_input)))
        tables = tuple(name for name in sources if name.endswith(_WEIGHTS))
        # a look-up in the table of a module that is not called
        if step.operation in _LOOKUPS and tables:
            for source, table in product(sources, tables):
                self._add_edge(source, table, ("B", "T") if source == "ids" else ())
            return tables
        sign = _OPERATIONS.get(step.operation)
        if sign is None or len(by_input) < 2:
            return sources
        name = f"{sign}#{len(self.nodes)}"
        for source in sources:
            self._add_edge(source, name)
        self._add(GraphNode(id=name, label=sign, kind="operation"), _path(step.call))
        return (name,)

    def graph(self) -> ModelGraph:
        """Return the graph with its frames. If a frame depends on its own results, which would be a
        cycle, return the graph without frames.
        """
        graph = self._level(())
        if _has_cycle(graph):
            return replace(self, paths=dict.fromkeys(self.paths, ()))._level(())
        return graph

    def _level(self, path: tuple[str, ...]) -> ModelGraph:
        """Return the graph inside the frame ``path``; an empty path is the whole model. Values
        enter and leave a frame through input and output nodes of the frame.
        """
        depth = len(path)
        within = {name for name, around in self.paths.items() if around[:depth] == path}
        nodes = dict[str, GraphNode]()  # boxes by their names; frames by their names with a slash
        first_frames = dict[tuple[str, ...], str]()
        for name, around in self.paths.items():
            if around == path:
                nodes[name] = self.nodes[name]
            elif name in within and f"{around[depth]}/" not in nodes:
                nodes[f"{around[depth]}/"] = self._frame(around[: depth + 1], first_frames)
        edges = dict[Ends, tuple[Axis, ...]]()
        # Edges from outside the frame lead to its input nodes, whose ids are "to SOURCE". Edges to
        # the outside come from its output nodes, whose ids are "from SOURCE".
        inputs = list[str]()
        outputs = list[str]()
        for (source, target), axes in self.edges.items():
            if source not in within and target not in within:
                continue
            if source in within:
                start = self._end(source, f"from {source}", depth, nodes)
            else:
                start = f"to {source}"
                inputs.append(source)
            if target in within:
                end = self._end(target, f"to {source}", depth, nodes)
            else:
                end = f"from {source}"
                outputs.append(source)
            # an edge inside a deeper frame is drawn there
            if start.partition("/")[0] != end.partition("/")[0]:
                edges[start, end] = edges.get((start, end)) or axes
        drawn = tuple(
            GraphEdge(source=start, target=end, axes=axes) for (start, end), axes in edges.items()
        )
        return ModelGraph(
            nodes=(*_ports("to", inputs, "x"), *nodes.values(), *_ports("from", outputs, "y")),
            edges=drawn,
        )

    def _end(self, name: str, port: str, depth: int, nodes: dict[str, GraphNode]) -> str:
        """Return the end of an edge inside a frame that is ``depth`` frames deep: the box ``name``,
        or the input or output node of the frame around this box.
        """
        if len(self.paths[name]) == depth:
            return name
        frame = self.paths[name][depth]
        return frame if nodes[f"{frame}/"].inside is None else f"{frame}/{port}"

    def _frame(self, path: tuple[str, ...], first_frames: dict[tuple[str, ...], str]) -> GraphNode:
        """Return the frame ``path``. If an earlier frame at its level has the same content, return
        a box that names the earlier frame. ``first_frames`` maps each content to the name of the
        first frame that has it; a frame with new content is added.
        """
        inside = self._level(path)
        name = path[-1]
        content = tuple(f"{node.label} {node.detail}" for node in all_nodes(inside))
        if content in first_frames:
            parameters = tuple(chain.from_iterable(node.parameters for node in all_nodes(inside)))
            detail = f"as {first_frames[content]}"
            return GraphNode(id=name, label=name, detail=detail, parameters=parameters)
        first_frames[content] = name
        # ``_node_id`` may have added a dot to the id
        return GraphNode(id=name, label=name.rstrip("."), inside=inside)


def _ports(side: str, sources: list[str], letter: str) -> list[GraphNode]:
    """Return the nodes through which the values of ``sources`` enter or leave a frame. Their ids
    begin with ``side``, and their labels with ``letter``.
    """
    names = list(dict.fromkeys(sources))
    return [
        _value(f"{side} {name}", letter if len(names) == 1 else f"{letter}_{{{n}}}")
        for n, name in enumerate(names, 1)
    ]


def _is_box(call: ModuleCall) -> bool:
    """Return whether a call is drawn as a box: it calls no other module, and its result is not its
    input or a view of it.
    """
    results = [tensor for tensor in call.outputs if tensor.is_floating_point()]
    if call.has_calls or not results:
        return False
    return _storage_id(results[0]) not in map(_storage_id, call.inputs)


def _storage_id(tensor: Tensor) -> int:
    """Return the identity of a tensor's storage; all views of a tensor have the same storage."""
    return int(tensor.untyped_storage()._cdata)


def _node_id(call: ModuleCall) -> str:
    """Return the path of a module as the id of its node. A dot is added to the names that values
    have, such as ``state``.
    """
    name = call.name.translate(_SIGNS)
    return f"{name}." if name in _VALUES else name


def _path(call: ModuleCall | None) -> tuple[str, ...]:
    """Return the ids of a call and of the calls around it, the outermost first. The call of the
    model itself is left out.
    """
    around = []
    while call is not None and call.around is not None:
        around.append(_node_id(call))
        call = call.around
    return tuple(reversed(around))


def _last_name(name: str) -> str:
    """Return the last name of a module's path. If it is a number, the name before it is
    included.
    """
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def _class_text(module: nn.Module) -> str:
    """Return the class of a module, with the sizes of a linear layer or an embedding."""
    name = type(module).__name__
    if isinstance(module, nn.Linear):
        return f"{name}, {module.in_features:,} to {module.out_features:,}"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return f"{name}, {module.num_embeddings:,} × {module.embedding_dim:,}"
    return name


def _has_cycle(graph: ModelGraph) -> bool:
    """Return whether a graph, or a graph inside one of its nodes, has a cycle."""
    sorter = TopologicalSorter[str]()
    for edge in graph.edges:
        sorter.add(edge.target.partition("/")[0], edge.source.partition("/")[0])
    try:
        sorter.prepare()
    except CycleError:
        return True
    return any(_has_cycle(node.inside) for node in graph.nodes if node.inside is not None)
