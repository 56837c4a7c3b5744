"""The graph of a model that does not describe itself: its modules as boxes, with the shapes of a forward pass.

Two passes of different sizes tell which axes are the batch and the tokens. Sums, products and concatenations of values of
different modules are boxes, too. A module that calls others, and an item of an nn.ModuleList, is a frame. Needs torch.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from reviewgen.config import to_dict
from reviewgen.graphs.nesting import Flow, nest
from reviewgen.graphs.trace import Call, Record, Shape, as_id, record
from reviewgen.protocols.graph import Axis, GraphEdge, GraphNode, ModelGraph

SIZES = ((2, 5), (3, 7))  # B and T of the passes
OPERATIONS = {"AddBackward0": "+", "SubBackward0": "−", "MulBackward0": "×", "CatBackward0": "concatenate"}
LOOKUPS = ("Embedding", "Index")  # operations of autograd
WEIGHTS = "#weights"  # ends the name of a box of parameters that are used without their module
LETTERS = {"vocab_size": "V", "hidden_size": "H", "embedding_size": "E", "embedding_dim": "E", "d_model": "D"}
MULTIPLES = range(2, 9)  # of a letter: 2H to 8H


def describe_modules(model: Any) -> ModelGraph:
    """Return the graph of a model: ids, the model with its modules inside, logits, and its state as a loop.

    Raises:
        BrokenPlugin: A forward pass of the model fails.
    """
    sizes = _letters(model.config)
    if not isinstance(model, nn.Module):
        return _one_box(model, sizes, None, ())
    first, second = (record(model, *size) for size in SIZES)
    if len(first.calls) != len(second.calls):  # the model calls modules token by token
        first, second = (record(model, batch, 1) for batch, _ in SIZES)
    name_axes = _axes_of_two(first, second, sizes)
    flow = _Reader(first, name_axes).read()
    inside = nest(flow) if flow.nodes else None
    states = tuple(name_axes(tensor) for tensor in first.states[0])
    unused = tuple(name for name, _ in model.named_parameters() if name not in {p for n in flow.nodes for p in n.parameters})
    return _one_box(model, sizes, inside, states, unused)


def _letters(config: Any) -> dict[str, int]:
    """Return the sizes that have a letter."""
    return {
        LETTERS[name]: value
        for name, value in to_dict(config).items()
        if name in LETTERS and isinstance(value, int) and value > 1
    }


def _one_box(
    model: Any, sizes: dict[str, int], inside: ModelGraph | None, states: Sequence[tuple[Axis, ...]], unused: tuple[str, ...] = ()
) -> ModelGraph:
    """Return the graph of the model as one box, or frame."""
    ports = set() if inside is None else {node.id for node in inside.nodes}
    names = ("ids", "logits", "state", "state_after")
    ids, logits, before, after = (f"model/{name}" if name in ports else "model" for name in names)
    nodes = (
        GraphNode(id="ids", label="ids", kind="value"),
        GraphNode(id="model", label=type(model).__name__, parameters=unused, inside=inside),
        GraphNode(id="logits", label="logits", kind="value"),
    )
    edges = [
        GraphEdge(source="ids", target=ids, axes=("B", "T")),
        GraphEdge(source=logits, target="logits", axes=("B", "T", "V")),
    ]
    for number, axes in enumerate(states):
        label = "state" if not number else ""
        edges.append(GraphEdge(source=after, target=before, axes=axes, label=label, delay=1))
    return ModelGraph(nodes=nodes, edges=tuple(edges), sizes=sizes)


def _axes_of_two(first: Record, second: Record, sizes: dict[str, int]) -> Callable[[Tensor | Shape], tuple[Axis, ...]]:
    """Return a function that names the axes of a tensor of the first pass, by the tensor of the second that has its place."""
    pairs: dict[Shape, Shape] = {}
    tensors = [[t for call in each.calls for t in (*call.inputs, *call.outputs)] for each in (first, second)]
    states = [[*each.states[0], each.logits] for each in (first, second)]
    for one, other in zip(tensors[0] + states[0], tensors[1] + states[1], strict=False):
        if one.dim() == other.dim():
            pairs.setdefault(tuple(one.shape), tuple(other.shape))
    (batch, time), (other_batch, other_time) = ((len(each.logits), each.logits.size(1)) for each in (first, second))

    def name(size: int, other: int) -> Axis:
        if size == other:
            return _name_constant(size, sizes)
        known = {(batch * time, other_batch * other_time): "BT", (time, other_time): "T", (batch, other_batch): "B"}
        return known.get((size, other), size)

    def name_axes(tensor: Tensor | Shape) -> tuple[Axis, ...]:
        shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else tensor
        guess = tuple(other_batch if n == batch else other_time if n == time and n > 1 else n for n in shape)
        return tuple(name(*two) for two in zip(shape, pairs.get(shape, guess), strict=True))

    return name_axes


def _name_constant(size: int, sizes: dict[str, int]) -> Axis:
    """Return an axis as a letter or a multiple of one, where it is one."""
    for letter, value in sizes.items():
        if size == value:
            return letter
    multiples = [f"{factor}{letter}" for letter, value in sizes.items() for factor in MULTIPLES if size == factor * value > 8]
    return multiples[0] if multiples else size


@dataclass
class _Reader:
    """Reads what flows from module to module, from autograd's graph."""

    record: Record
    name_axes: Callable[[Tensor | Shape], tuple[Axis, ...]]
    flow: Flow = field(default_factory=Flow)
    made: dict[Hashable, str] = field(default_factory=dict)  # the node of each operation of autograd that is one
    known: dict[Hashable, tuple[str, ...]] = field(default_factory=dict)  # the nodes that each operation's value comes from

    def read(self) -> Flow:
        """Return the nodes and edges of the pass."""
        kept = [call for call in self.record.calls if self._is_box(call)]
        for call in kept:
            name = self._add_module(call)
            for tensor in call.outputs:
                self.made.setdefault(tensor.grad_fn, name)
        for call in kept:
            self._connect(self.made[call.outputs[0].grad_fn], call.inputs)
        self._connect("logits", [self.record.logits])
        if not self.flow.nodes:
            return self.flow
        self.flow.add(GraphNode(id="logits", label="logits", kind="value"), ())
        self._connect_states()
        return self.flow

    def _is_box(self, call: Call) -> bool:
        """Return whether a call is a box: it calls no other modules, and changes its input."""
        taken = [tensor.grad_fn for tensor in call.inputs]
        floats = [tensor for tensor in call.outputs if tensor.grad_fn is not None]
        return not call.has_calls and bool(floats) and call.outputs[0].grad_fn is not None and floats[0].grad_fn not in taken

    def _add_module(self, call: Call) -> str:
        """Add the box of a call; a module that is called again has its parameters in its first box."""
        again = sum(1 for name in self.flow.paths if name.partition("#")[0] == call.id)
        name = f"{call.id}#{again + 1}" if again else call.id
        own = () if again else tuple(f"{call.name}.{each}" for each, _ in call.module.named_parameters())
        label = _short(call.name) + (f" ({again + 1})" if again else "")
        node = GraphNode(id=name, label=label, detail=_kind(call.module), kind="layer" if own else "operation", parameters=own)
        self.flow.add(node, _path(call) or _list_item(call))
        return name

    def _connect(self, target: str, tensors: Iterable[Tensor]) -> None:
        """Add the edges into a node, from the nodes that its inputs come from."""
        for tensor in tensors:
            sources = self._sources(tensor)
            for source in sources:
                self.flow.connect(source, target, self.name_axes(tensor) if len(sources) == 1 else ())

    def _sources(self, tensor: Tensor) -> tuple[str, ...]:
        """Return the nodes that a tensor comes from; one without gradient comes from the ids."""
        if tensor.grad_fn is None:
            if tensor.requires_grad:
                return self._source_of_leaf(tensor)
            if tensor.is_floating_point():
                return ()
            self.flow.add_once(GraphNode(id="ids", label="ids", kind="value"), ())
            return ("ids",)
        return self._trace(tensor.grad_fn)

    def _source_of_leaf(self, leaf: Tensor) -> tuple[str, ...]:
        """Return the node of the state or of a parameter that is used without its module."""
        if any(leaf is tensor for tensor in self.record.states[0]):
            self.flow.add_once(GraphNode(id="state", label="state", kind="value"), ())
            return ("state",)
        parameter = self.record.parameters.get(id(leaf))
        if parameter is None or any(parameter in node.parameters for node in self.flow.nodes):
            return ()
        module = parameter.rpartition(".")[0] or parameter
        name = f"{as_id(module)}{WEIGHTS}"
        self.flow.add_parameter(name, _short(module), parameter)
        return (name,)

    def _trace(self, start: Any) -> tuple[str, ...]:
        """Return the nodes that the value of an operation comes from, without recursion: graphs may be deep."""
        stack = [start]
        while stack:
            operation = stack[-1]
            if operation in self.known:
                stack.pop()
            elif operation in self.made:
                self.known[stack.pop()] = (self.made[operation],)
            elif hasattr(operation, "variable"):
                self.known[stack.pop()] = self._source_of_leaf(operation.variable)
            elif missing := [before for before, _ in operation.next_functions if before is not None and before not in self.known]:
                stack += reversed(missing)
            else:
                self.known[stack.pop()] = self._join(operation)
        return self.known[start]

    def _join(self, operation: Any) -> tuple[str, ...]:
        """Return the nodes that an operation's value comes from: itself, if it is drawn and its inputs differ in theirs."""
        inputs = [self.known[before] for before, _ in operation.next_functions if before is not None]
        if operation.name().startswith(LOOKUPS):  # of a table, without its module
            for table in dict.fromkeys(name for each in inputs for name in each if name.endswith(WEIGHTS)):
                self.flow.add_once(GraphNode(id="ids", label="ids", kind="value"), ())
                self.flow.connect("ids", table, ("B", "T"))
        distinct = list(dict.fromkeys(each for each in inputs if each))
        sign = OPERATIONS.get(operation.name())
        if sign is None or len(distinct) < 2:
            return tuple(dict.fromkeys(name for each in distinct for name in each))
        name = f"{sign}#{len(self.flow.nodes)}"
        place = self.record.places.get(operation)
        self.flow.add(GraphNode(id=name, label=sign, kind="operation"), () if place is None else _path(place, is_inside=True))
        for sources in distinct:
            for source in sources:
                self.flow.connect(source, name, ())
        return (name,)

    def _connect_states(self) -> None:
        """Add the node of the state after the last token, and edges from what it comes from."""
        floats = [tensor for tensor in self.record.states[1] if tensor.grad_fn is not None]
        sources = dict.fromkeys(name for tensor in floats for name in self._trace(tensor.grad_fn) if name != "state")
        if sources:
            self.flow.add(GraphNode(id="state_after", label="state", kind="value"), ())
            for source in sources:
                self.flow.connect(source, "state_after", ())


def _path(call: Call, is_inside: bool = False) -> tuple[str, ...]:
    """Return the calls around a call, from the outermost; and the call itself, for what happens in it."""
    around, at = [], call if is_inside else call.around
    while at is not None and at.around is not None:
        around.append(at.id)
        at = at.around
    return tuple(reversed(around))


def _short(name: str) -> str:
    """Return the last part of a module's path, and the one before if it is a number."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def _list_item(call: Call) -> tuple[str, ...]:
    """Return the item of an nn.ModuleList that a module belongs to, if that is not called itself."""
    item = re.match(r"(.+?\.\d+)\.", call.id)
    return (item[1],) if item else ()


def _kind(module: nn.Module) -> str:
    """Return the class of a module, with its sizes if it is one of torch's."""
    name = type(module).__name__
    if isinstance(module, nn.Linear):
        return f"{name}, {module.in_features:,} to {module.out_features:,}"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return f"{name}, {module.num_embeddings:,} × {module.embedding_dim:,}"
    return name
