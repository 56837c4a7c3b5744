"""``reviewgen.graph`` and ``draw``: the picture of a model's computational graph, with its title and legend."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from reviewgen.config import check_flags
from reviewgen.errors import BrokenPlugin, ConfigError, OutputExists, StorageError, quoted, storage_errors
from reviewgen.graphs.compose import Style, compose, shape_text
from reviewgen.graphs.modules import describe_modules
from reviewgen.graphs.scene import DETAIL, LABEL, NOTE, Scene, block_size, stack
from reviewgen.graphs.subjects import Subject, find_subject
from reviewgen.graphs.svg import write_svg
from reviewgen.graphs.text import plain, wrap
from reviewgen.graphs.tokens import with_texts
from reviewgen.graphs.unroll import unroll as unroll_graph
from reviewgen.graphs.windows import expand_windows
from reviewgen.protocols.graph import ModelGraph, SupportsGraph, all_nodes
from reviewgen.storage import atomic_file, to_path

if TYPE_CHECKING:
    from reviewgen.model import ReviewModel
    from reviewgen.protocols import LanguageModel

MOST_TOKENS = 12  # of an unrolled graph; more cannot be read
LEGEND = {"B": "texts of a batch", "T": "tokens", "E": "embedding", "H": "hidden", "V": "vocabulary"}
NARROWEST = 360.0  # for title and legend


@dataclass(frozen=True)
class GraphPicture:
    """The computational graph of a model, and its picture.

    Attributes:
        name: The model's name.
        graph: The graph.
        unrolled: The number of tokens that it is drawn for; 1 is drawn with loops.
        parameters: The number of trained parameters.
        sizes: The size of each letter.
        svg: The picture.
    """

    name: str
    graph: ModelGraph
    unrolled: int
    parameters: int
    sizes: Mapping[str, int]
    svg: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the picture, as JSON values."""
        facts = {"name": self.name, "unrolled": self.unrolled, "parameters": self.parameters, "sizes": dict(self.sizes)}
        return facts | {"graph": asdict(replace(self.graph, sizes=dict(self.graph.sizes)))}

    def _repr_html_(self) -> str:
        return self.svg


def draw(source: "str | Path | ReviewModel | LanguageModel", unroll: int = 1) -> str:
    """Return the picture of a model's computational graph as an SVG, which may be a file or a part of an HTML page.

    Takes and raises as ``graph``.
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

    >>> reviewgen.graph("lstm-char", "lstm.svg")                                                 # doctest: +SKIP
    >>> reviewgen.graph("./my-model", "my-model.svg", unroll=3)                                  # doctest: +SKIP

    Args:
        source: A preset, a saved folder, a repository on the Hub, a ReviewModel, or a model of your own. A preset with trained
            weights is drawn with their sizes.
        out: The file to write, .svg; None writes none.
        unroll: The number of tokens to draw, at most 12; 1 draws one, with its state as a loop.
        autograd: Whether to draw PyTorch's graph of the backward pass, for ``unroll`` tokens; needs torchviz and graphviz.
        overwrite: Whether to replace the file if it exists.

    Raises:
        ConfigError: The source, ``unroll`` or the file's suffix cannot be used, or what ``autograd`` needs is not installed.
        SourceError, UnknownPlugin, BundleError, HubError: The source cannot be loaded; see ``load``.
        BrokenPlugin: The model's description is wrong, or its forward pass raises.
        OutputExists: The file exists.
        StorageError: The file cannot be written.
    """
    check_flags(autograd=autograd, overwrite=overwrite)
    if isinstance(unroll, bool) or not isinstance(unroll, int) or not 1 <= unroll <= MOST_TOKENS:
        raise ConfigError(
            f"unroll must be a number of tokens from 1 to {MOST_TOKENS}, where 1 draws the loop; got {quoted(unroll)}."
        )
    file = None if out is None else to_path("out", out)
    if file is not None:
        refuse_picture(file, overwrite)
    subject = find_subject(source)
    picture = _draw_autograd(subject, unroll) if autograd else _draw(subject, unroll)
    if file is not None:
        with storage_errors(file), atomic_file(file) as new:
            new.write_text(picture.svg, encoding="utf-8", newline="\n")
    return picture


def refuse_picture(file: Path, overwrite: bool) -> None:
    """Check that a picture can be saved as a file of that name, before any work.

    Raises:
        ConfigError: The suffix is not .svg.
        StorageError: The folder does not exist, or is not writable.
        OutputExists: The file exists, and ``overwrite`` is false.
    """
    if file.suffix.lower() != ".svg":
        raise ConfigError(f"{file} cannot be drawn: its suffix must be .svg. A browser shows an SVG, and prints it as a PDF.")
    if not os.access(file.absolute().parent, os.W_OK):
        raise StorageError(f"{file} cannot be drawn: {file.absolute().parent} is not a writable folder.")
    if file.is_dir():
        raise StorageError(f"{file} cannot be drawn: it is a folder.")
    if not overwrite and os.path.lexists(file):
        raise OutputExists(f"{file} already exists. Give another file, or --overwrite (overwrite=True).")


def describe_graph(model: Any) -> ModelGraph:
    """Return the graph of a model: as it describes itself, or its modules as a forward pass calls them.

    Raises:
        BrokenPlugin: The description or the forward pass raises. ``reviewgen.testing`` checks a description.
    """
    if not isinstance(model, SupportsGraph):
        return describe_modules(model)
    try:
        return model.describe_graph()
    except Exception as error:  # a plugin may raise anything
        raise BrokenPlugin(f"{type(model).__name__}.describe_graph() raises {type(error).__name__}: {error!s:.200}") from error


def _draw(subject: Subject, steps: int) -> GraphPicture:
    graph, counts = describe_graph(subject.model), _parameter_sizes(subject.model)
    sizes = {**subject.batch, **graph.sizes}
    shown = with_texts(graph, subject.tokenizer)
    style = Style(sizes, counts)
    scene = compose(expand_windows(shown), style)[0] if steps == 1 else unroll_graph(shown, steps, style)
    parameters = _count(subject.model, graph, counts)
    letters = {letter: size for letter, size in sizes.items() if letter in _letters(graph)}
    notes = [", ".join(_unbroken(f"{letter} = {size:,}{_meaning(letter)}") for letter, size in letters.items()), graph.note]
    if steps > 1:
        notes.append("The weights are the same at every token.")
    facts = [f"{parameters:,} parameters" if parameters else "", subject.remark, f"{steps} tokens" if steps > 1 else ""]
    whole = _with_texts_around(scene, subject.name, ", ".join(filter(None, facts)), notes)
    title = f"The computational graph of {subject.name}" + (f" over {steps} tokens" if steps > 1 else "")
    svg = write_svg(whole, title, _describe(shown))
    return GraphPicture(subject.name, graph, steps, parameters, sizes, svg)


def _draw_autograd(subject: Subject, steps: int) -> GraphPicture:
    from reviewgen.graphs.autograd import draw_autograd

    svg = draw_autograd(subject.model, steps)
    graph, counts = describe_graph(subject.model), _parameter_sizes(subject.model)
    return GraphPicture(subject.name, graph, steps, _count(subject.model, graph, counts), dict(graph.sizes), svg)


def _parameter_sizes(model: Any) -> dict[str, int]:
    """Return the number of values of each parameter of a module, or of each tensor of another model, by name."""
    named = model.named_parameters() if isinstance(model, nn.Module) else model.state_dict().items()
    return {name: tensor.numel() for name, tensor in named}


def _count(model: Any, graph: ModelGraph, counts: Mapping[str, int]) -> int:
    """Return the number of parameters: of a module all, of another model those that its nodes have."""
    if isinstance(model, nn.Module):
        return sum(counts.values())
    return sum(counts[name] for node in all_nodes(graph) for name in node.parameters)


def _letters(graph: ModelGraph) -> set[str]:
    """Return the letters of all shapes."""
    own = {letter for edge in graph.edges for axis in edge.axes for letter in str(axis) if letter.isalpha()}
    return own.union(*(_letters(node.inside) for node in graph.nodes if node.inside is not None))


def _meaning(letter: str) -> str:
    return f" ({LEGEND[letter]})" if letter in LEGEND else ""


def _unbroken(text: str) -> str:
    """Return a text whose words stay on one line."""
    return text.replace(" ", "\xa0")


def _with_texts_around(scene: Scene, name: str, facts: str, notes: list[str]) -> Scene:
    """Return the scene with a title above and a legend below."""
    width = max(scene.width, NARROWEST)
    head = [(name, LABEL + 2, "title"), *((line, DETAIL, "note") for line in wrap(facts, DETAIL, width))]
    foot = [(line, NOTE, "note") for note in notes for line in wrap(note, NOTE, width)]
    above, below = block_size(head)[1] + 14.0, block_size(foot)[1] + 12.0
    whole = Scene(max(width, block_size([*head, *foot])[0]), above + scene.height + below)
    whole.texts += stack(head, 0.0, 0.0, is_centred=False)
    whole.add(scene, (whole.width - scene.width) / 2, above)
    whole.texts += stack(foot, 0.0, above + scene.height + 12.0, is_centred=False)
    return whole


def _describe(graph: ModelGraph) -> str:
    """Return the graph in words."""
    labels = {node.id: plain(node.label or node.id) for node in graph.nodes}
    labels |= {
        f"{node.id}/{each.id}": f"{plain(node.label)}: {plain(each.label)}"
        for node in graph.nodes
        if node.inside is not None
        for each in node.inside.nodes
    }
    sentences = [
        f"{labels[edge.source]} to {labels[edge.target]}"
        + (f" {shape_text(edge)}" if edge.axes else "")
        + (f", {edge.delay} token{'s' if edge.delay > 1 else ''} later" if edge.delay else "")
        for edge in graph.edges
    ]
    inner = [f"Inside {plain(node.label)}: {_describe(node.inside)}" for node in graph.nodes if node.inside is not None]
    return " ".join(["; ".join(sentences) + ".", *inner])
