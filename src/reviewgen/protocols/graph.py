"""The ability of a model to describe its computational graph, as plain data that ``reviewgen
graph`` draws. Needs no torch.

Shapes by letter: B batch, T time (tokens), V vocabulary. A model adds letters of its own, such as E
and H, and their sizes.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

Axis: TypeAlias = int | str
"""An axis of a tensor: a number, a letter, or a product of a number and letters, as in "4H"."""

_AXIS = re.compile(r"([1-9][0-9]*)?([A-Za-z]+)")


@dataclass(frozen=True, kw_only=True)
class GraphNode:
    """A box of the picture.

    ``_{...}`` in a text is drawn as a subscript: ``h_{t-1}``.

    Attributes:
        id: The name by which edges refer to the node; it has no slash.
        label: What the node is, in a word or two.
        detail: An equation or a remark below the label.
        kind: "layer" has parameters, or other numbers that were trained; "operation" has none;
            "value" is an input or an output.
        parameters: The names of the node's tensors in the model's ``state_dict``. The picture shows
            how many values these tensors have.
        tokens: Token ids, whose text is shown in front of the label.
        inside: A graph of what happens inside the node, such as a recurrent cell. The nodes of this
            graph without a predecessor are its inputs, and those without a successor its outputs.
            Edges of the outer graph refer to them as ``node/input`` and ``node/output``.
    """

    id: str
    label: str
    detail: str = ""
    kind: Literal["layer", "operation", "value"] = "layer"
    parameters: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    inside: "ModelGraph | None" = None


@dataclass(frozen=True, kw_only=True)
class GraphEdge:
    """A tensor that flows from one node to another.

    Attributes:
        source: The node that computes the tensor, or ``node/output`` if the node has an inside.
        target: The node that takes the tensor, or ``node/input``.
        axes: The axes of the tensor's shape.
        label: The tensor's name.
        tokens: Token ids, whose text is shown in front of the label.
        delay: How many tokens ago the tensor was computed. A recurrent state is an edge of delay 1
            from a node to the same node; a window of the last three tokens has edges of delay 0, 1
            and 2.
    """

    source: str
    target: str
    axes: tuple[Axis, ...] = ()
    label: str = ""
    tokens: tuple[int, ...] = ()
    delay: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelGraph:
    """The computational graph of a model, or of the inside of a node.

    Attributes:
        nodes: The nodes. Where the edges do not decide, nodes are drawn from left to right in this
            order. The graph of a model has the nodes ``ids`` and ``logits``.
        edges: The edges; apart from the delayed ones, they form no cycle.
        sizes: The size of each letter except B and T; the inside of a node also uses the sizes of
            the graph around it.
        note: A sentence below the picture.
    """

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


@runtime_checkable
class SupportsGraph(Protocol):
    """A model that describes its computational graph itself, in the symbols of its equations.

    The picture of any other model shows its modules, with the shapes of a forward pass.
    """

    def describe_graph(self) -> ModelGraph:
        """Return the graph of one call, from ``ids`` (B, T) to ``logits`` (B, T, V).

        Each parameter of an nn.Module belongs to one node. Axes may be in the order of the
        equations, batch first, even where the code has another order.
        """
        ...


def all_nodes(graph: ModelGraph) -> Iterator[GraphNode]:
    """Yield every node of a graph and of the insides of its nodes."""
    for node in graph.nodes:
        yield node
        if node.inside is not None:
            yield from all_nodes(node.inside)


def parameter_sizes(model: Any) -> dict[str, int]:
    """Return the number of values of each parameter of a module, or of each tensor of another
    model, by name.
    """
    is_module = hasattr(model, "named_parameters")
    named = model.named_parameters() if is_module else model.state_dict().items()
    return {name: tensor.numel() for name, tensor in named}


def axis_size(axis: Axis, sizes: Mapping[str, int]) -> int | None:
    """Return the size of an axis; None if the axis is not valid or has a letter without a size.

    >>> axis_size("4H", {"H": 256})
    1024
    """
    if isinstance(axis, int):
        return axis if axis > 0 and not isinstance(axis, bool) else None
    match = _AXIS.fullmatch(axis)
    if match is None or not set(match[2]) <= sizes.keys():
        return None
    return int(match[1] or 1) * math.prod(sizes[letter] for letter in match[2])
