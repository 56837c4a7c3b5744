"""``reviewgen.graph``: draws a model's computational graph with a title and a legend, or PyTorch's
own graph.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from reviewgen.analysis.graph_drawing import Style, draw_graph, draw_tokens, shape_text
from reviewgen.analysis.graph_modules import describe_modules
from reviewgen.analysis.subject import LoadedModel
from reviewgen.analysis.trace import broken_plugins
from reviewgen.config.settings import check_flags
from reviewgen.errors import BrokenPlugin, ConfigError, counted, quoted
from reviewgen.generation.next_tokens import show
from reviewgen.protocols.abilities import SupportsParameterKinds, count_parameters
from reviewgen.protocols.graph import ModelGraph, SupportsGraph, all_nodes, parameter_sizes
from reviewgen.protocols.model import CountTrained
from reviewgen.storage import to_path
from reviewgen.web.rendering import refuse_file, save_text
from reviewgen.web.svg import (
    DETAIL,
    LABEL,
    NOTE,
    Lines,
    block,
    block_size,
    document,
    moved,
    plain,
    wrap,
)

if TYPE_CHECKING:
    from reviewgen.model.review_model import ReviewModel
    from reviewgen.protocols.model import LanguageModel

_SAME_WEIGHTS = "The weights are the same at every token."
_MAX_UNROLLED = 12  # maximum number of unrolled tokens; more could not be read
_LEGEND = {
    "B": "texts of a batch",
    "T": "tokens",
    "E": "embedding",
    "H": "hidden",
    "V": "vocabulary",
}
_MIN_WIDTH = 360.0  # minimum width of title and legend, in pixels


@dataclass(frozen=True)
class GraphPicture:
    """The computational graph of a model, and its picture.

    Attributes:
        name: The model's name.
        graph: The graph.
        unrolled: The number of tokens that the graph is drawn for; with 1, states are drawn as
            loops.
        parameters: The number of trained parameters, as on the model card.
        counted: The number of entries of each kind, as in {"2-grams": 5000}, if the model is a
            trained count model; otherwise empty.
        sizes: The size of each letter.
        svg: The picture.
    """

    name: str
    graph: ModelGraph
    unrolled: int
    parameters: int
    counted: Mapping[str, int]
    sizes: Mapping[str, int]
    svg: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the picture as JSON values."""
        return {
            "name": self.name,
            "unrolled": self.unrolled,
            "parameters": self.parameters,
            "counted": dict(self.counted),
            "sizes": dict(self.sizes),
            "graph": asdict(replace(self.graph, sizes=dict(self.graph.sizes))),
        }

    def _repr_html_(self) -> str:
        return self.svg


def draw(source: "str | Path | ReviewModel | LanguageModel", unroll: int = 1) -> str:
    """Return the picture of a model's computational graph as SVG. It can be saved as a file, or be
    a part of an HTML page.

    The arguments and errors are those of ``graph``.
    """
    return graph(source, unroll=unroll).svg


def graph(
    source: "str | Path | ReviewModel | LanguageModel",
    out: str | Path | None = None,
    *,
    unroll: int = 1,
    autograd: bool = False,
    overwrite: bool = False,
) -> GraphPicture:
    """Draw the computational graph of a model as an SVG.

    >>> reviewgen.graph("lstm-char", "lstm.svg")  # doctest: +SKIP
    >>> reviewgen.graph("./my-model", "my-model.svg", unroll=3)  # doctest: +SKIP

    Args:
        source: A preset, a saved folder, a repository on the Hub, a ReviewModel, or your own
            LanguageModel. If trained weights of a preset are installed, the graph has their sizes.
        out: The .svg file to write; None writes no file.
        unroll: The number of tokens to draw, at most 12; with 1, the state is drawn as a loop.
        autograd: Whether to draw PyTorch's graph of the backward pass, for ``unroll`` tokens; needs
            torchviz and graphviz.
        overwrite: Whether to replace the file if it exists.

    Raises:
        ConfigError: The source, ``unroll`` or the file's suffix cannot be used, or ``autograd``
            needs a library or program that is not installed.
        SourceError, UnknownPlugin, BundleError, HubError: The source cannot be loaded; see
            ``load``.
        BrokenPlugin: The model's description is wrong, or its forward pass raises.
        OutputExists: The file exists.
        StorageError: The file cannot be written.
    """
    check_flags(autograd=autograd, overwrite=overwrite)
    if isinstance(unroll, bool) or not isinstance(unroll, int) or not 1 <= unroll <= _MAX_UNROLLED:
        raise ConfigError(
            f"unroll must be a number of tokens from 1 to {_MAX_UNROLLED}; 1 draws the loop; got"
            f" {quoted(unroll)}."
        )
    file = None if out is None else refuse_file(to_path("out", out), [".svg"], overwrite)
    subject = LoadedModel.of(source)
    model = subject.model
    name = Path(subject.source).name
    described = describe_graph(model)
    counts = parameter_sizes(model)
    parameters = sum(counts.values())
    if not isinstance(model, nn.Module):
        # such a model also has tensors that are not parameters; the nodes name the parameters
        used = chain.from_iterable(node.parameters for node in all_nodes(described))
        parameters = sum(map(counts.__getitem__, used))
    entries: dict[str, int] = {}
    if isinstance(model, CountTrained):
        entries = count_parameters(model) if subject.is_trained is not False else {}
        parameters = sum(entries.values())
    elif isinstance(model, SupportsParameterKinds):
        parameters = sum(count_parameters(model).values())
    batch = {} if autograd else subject.batch  # the picture of autograd has one row
    sizes = {**batch, **described.sizes}
    picture = GraphPicture(name, described, unroll, parameters, entries, sizes, "")
    svg = _draw_autograd(model, unroll) if autograd else _draw(picture, subject, counts)
    if file is not None:
        save_text(svg, file)
    return replace(picture, svg=svg)


def describe_graph(model: Any) -> ModelGraph:
    """Return the graph of a model: its own description if it has one, otherwise the modules that a
    forward pass calls.

    Raises:
        BrokenPlugin: The description is wrong, or the forward pass raises.
    """
    if not isinstance(model, SupportsGraph):
        return describe_modules(model)
    try:
        return model.describe_graph()
    except Exception as error:  # a plugin may raise anything
        raise BrokenPlugin(
            f"{type(model).__name__}.describe_graph() raises {type(error).__name__}: {error!s:.200}"
        ) from error


def _draw(picture: GraphPicture, subject: LoadedModel, counts: Mapping[str, int]) -> str:
    """Return the picture of a graph with a title above and a legend below."""
    graph = _with_texts(picture.graph, subject.tokenizer)
    style = Style(picture.sizes, counts)
    title = f"The computational graph of {picture.name}"
    facts = []
    if picture.parameters:
        facts.append(f"{picture.parameters:,} parameters")
    if subject.is_trained is not None:
        facts.append("trained" if subject.is_trained else "not trained")
    notes = [_legend(graph, picture.sizes), graph.note]
    if picture.unrolled > 1:
        drawn = draw_tokens(graph, picture.unrolled, style)
        title += f" over {picture.unrolled} tokens"
        facts.append(f"{picture.unrolled} tokens")
        notes.append(_SAME_WEIGHTS)
    else:
        drawn = draw_graph(graph, style)
    width = max(drawn.width, _MIN_WIDTH)
    head: Lines = [(picture.name, LABEL + 2, "title")]
    head += [(line, DETAIL, "note") for line in wrap(", ".join(facts), DETAIL, width)]
    foot: Lines = []
    for note in notes:
        foot += [(line, NOTE, "note") for line in wrap(note, NOTE, width)]
    width = max(width, block_size([*head, *foot])[0])
    top = block_size(head)[1] + 14.0
    bottom = top + drawn.height + 12.0
    content = [
        *block(head, 0.0, 0.0),
        moved(drawn.content, (width - drawn.width) / 2, top),
        *block(foot, 0.0, bottom),
    ]
    return document(content, width, bottom + block_size(foot)[1], title, _describe(graph))


def _legend(graph: ModelGraph, sizes: Mapping[str, int]) -> str:
    """Return the size of each letter that a graph uses. No-break spaces keep each entry on one
    line.
    """
    used = _letters(graph)
    entries = []
    for letter, size in sizes.items():
        if letter in used:
            meaning = f" ({_LEGEND[letter]})" if letter in _LEGEND else ""
            entries.append(f"{letter} = {size:,}{meaning}".replace(" ", "\xa0"))
    return ", ".join(entries)


def _draw_autograd(model: Any, tokens: int) -> str:
    """Return an SVG of PyTorch's graph of the backward pass, drawn by torchviz and the program dot
    of graphviz. The input of the forward pass is ``tokens`` zeros.
    """
    ids = torch.zeros(1, tokens, dtype=torch.long)
    with broken_plugins(model, ids), torch.enable_grad():
        logits = model(ids, model.initial_state(1))[0]
    if logits.grad_fn is None:
        raise ConfigError(
            f"{type(model).__name__} has no parameters that PyTorch trains, so it has no graph of"
            " autograd."
        )
    try:
        from torchviz import make_dot
    except ImportError:
        raise ConfigError(
            "The graph of autograd needs torchviz: pip install 'reviewgen[graph]'."
        ) from None
    if shutil.which("dot") is None:
        raise ConfigError(
            "The graph of autograd needs graphviz's program dot on the PATH: apt (or brew) install"
            " graphviz."
        )
    picture = make_dot(logits, params=dict(model.named_parameters()))
    return str(picture.pipe(format="svg", encoding="utf-8"))


def _with_texts(graph: ModelGraph, tokenizer: Any) -> ModelGraph:
    """Return a graph in which the labels of nodes and edges begin with the text of their tokens, or
    with the ids if there is no tokenizer.
    """

    def with_text(element: Any) -> Any:
        """Return a node or an edge whose label begins with the text of its tokens."""
        if not element.tokens:
            return element
        label = f"{_text(element.tokens, tokenizer)} {element.label}".rstrip()
        return replace(element, label=label, tokens=())

    nodes = []
    for node in graph.nodes:
        inside = None if node.inside is None else _with_texts(node.inside, tokenizer)
        nodes.append(with_text(replace(node, inside=inside)))
    return replace(graph, nodes=tuple(nodes), edges=tuple(map(with_text, graph.edges)))


def _text(ids: Sequence[int], tokenizer: Any) -> str:
    """Return token ids as readable text in quotation marks, in which a space is ␣ and special ids
    have names. Without a tokenizer, return the ids.
    """
    if tokenizer is None:
        return " ".join(map(str, ids))
    special = {tokenizer.bos_id: "⟨start⟩", tokenizer.eos_id: "⟨end⟩"}
    text = ""
    for token in ids:
        if token in special:
            text += special[token]
        elif token < tokenizer.vocab_size:
            text += tokenizer.decode([token])
        else:
            text += f"⟨{token}⟩"
    return f"“{show(text)}”"


def _letters(graph: ModelGraph) -> set[str]:
    """Return the letters that the shapes of a graph use."""
    axes = chain.from_iterable(edge.axes for edge in graph.edges)
    letters = set(filter(str.isalpha, "".join(map(str, axes))))
    return letters.union(
        *(_letters(node.inside) for node in graph.nodes if node.inside is not None)
    )


def _describe(graph: ModelGraph) -> str:
    """Describe a graph in words, for screen readers: its edges, then the insides of its nodes."""
    # the label of each end of an edge, ``node`` or ``node/port``
    labels = {node.id: plain(node.label or node.id) for node in graph.nodes}
    insides = []
    for node in graph.nodes:
        if node.inside is not None:
            label = plain(node.label)
            insides.append(f"Inside {label}: {_describe(node.inside)}")
            for child in node.inside.nodes:
                labels[f"{node.id}/{child.id}"] = f"{label}: {plain(child.label)}"
    lines = []
    for edge in graph.edges:
        shape = f" {shape_text(edge)}" if edge.axes else ""
        delay = f", {counted(edge.delay, 'token')} later" if edge.delay else ""
        lines.append(f"{labels[edge.source]} to {labels[edge.target]}{shape}{delay}")
    return " ".join(["; ".join(lines) + ".", *insides])
