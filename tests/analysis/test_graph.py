"""reviewgen graph: what is drawn equals what a forward pass computes, and pictures are sound,
readable and self-contained.
"""

import itertools
import json
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import reviewgen
from reviewgen.analysis.graph_picture import graph
from reviewgen.errors import BrokenPlugin, ConfigError, OutputExists, StorageError, UnknownPlugin
from reviewgen.protocols import GraphEdge, GraphNode, ModelGraph
from reviewgen.testing import make_model
from tests.support.fakes import LETTERS, TableModel
from tests.support.ngrams import counted

EXAMPLES = Path(__file__).parents[2] / "examples"
PRESETS = [
    "ngram-char",
    "ngram-word",
    "nnlm-char",
    "rnn-char",
    "gru-word",
    "lstm-char",
    "blend-char",
]
SVG = "{http://www.w3.org/2000/svg}"
READABLE = 860  # pixels: shown at 700, the smallest letters, of 11.5 pixels, are then 8.5 high
PIXEL = 0.2  # of rounding


@dataclass(frozen=True, kw_only=True)
class Config:
    vocab_size: int = 7
    hidden_size: int = 11


class Plain(nn.Module):
    """A model of two modules and a residual sum, without a state."""

    Config = Config

    def __init__(self, config=Config()):  # noqa: B008
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.mix = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.vocab_size)

    def initial_state(self, batch_size):
        return ()

    def forward(self, ids, state):
        x = self.embedding(ids)
        return self.output(x + torch.relu(self.mix(x))), state


class Raises(Plain):
    def forward(self, ids, state):
        raise RuntimeError("no <forward>")


class Deep(Plain):
    """A model with a state, and a module list whose items are called token by token."""

    def __init__(self, config=Config()):
        super().__init__(config)
        self.cells = nn.ModuleList(
            nn.GRUCell(config.hidden_size, config.hidden_size) for _ in range(2)
        )

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 2, self.config.hidden_size)

    def forward(self, ids, state):
        outputs = []
        for x in self.embedding(ids).unbind(1):
            after = []
            for cell, h in zip(self.cells, state.unbind(1), strict=True):
                x = cell(x, h)
                after.append(x)
            state = torch.stack(after, 1)
            outputs.append(x)
        return self.output(self.mix(torch.stack(outputs, 1))), state


class Nested(Plain):
    """A model whose modules call modules that call modules."""

    def __init__(self, config=Config()):
        super().__init__(config)
        size = config.hidden_size
        layer = nn.TransformerEncoderLayer(size, 1, 16, batch_first=True)
        self.mix = nn.Sequential(
            nn.Sequential(layer, nn.Sequential(nn.Linear(size, size), nn.Tanh())), nn.ReLU()
        )


class Named(Plain):
    """A model whose modules have the names of values, or names with the signs of ids and of
    markup.
    """

    NAMES = (
        "ids",
        "logits",
        "state",
        "model",
        "a/b",
        '"></text><script>&\x00',
        "#",
        "a#2",
        "_{x}",
        "x" * 5000,
    )

    def __init__(self, config=Config()):
        super().__init__(config)
        self.mix = nn.Sequential()
        for name in self.NAMES:
            self.mix.add_module(name, nn.Linear(config.hidden_size, config.hidden_size))
        self.logits, self.ids = (
            nn.Sequential(nn.Linear(config.hidden_size, config.hidden_size)) for _ in range(2)
        )

    def forward(self, ids, state):
        x = self.mix(self.logits(self.ids(self.embedding(ids))))
        return self.output(self.mix(x)), state


@pytest.fixture(scope="module")
def pictures():
    """The picture of presets, of two plugin models and of the models above, folded and unrolled."""
    sources = {
        **{name: reviewgen.load(name) for name in PRESETS},
        **{kind.__name__: kind() for kind in (Deep, Nested, Named)},
        "mixing": make_model("mixing", 40),
    }
    sys.path.insert(0, str(EXAMPLES / "reviewgen-mingru"))
    model = __import__("reviewgen_mingru.model", fromlist=["MinGru"]).MinGru
    sources["mingru"] = model(model.Config(vocab_size=101))
    del sys.path[0]
    return {
        (name, steps): graph(model, unroll=steps)
        for (name, model), steps in itertools.product(sources.items(), (1, 3))
    }


def nodes_of(described):
    for node in described.nodes:
        yield node
        if node.inside:
            yield from nodes_of(node.inside)


def node(described, name):
    return next(node for node in described.nodes if node.id == name)


def size(axis, sizes):
    """Return the size of an axis as "4H", "BT" or 3."""
    number, letters = re.fullmatch(r"(\d*)([A-Z]*)", str(axis)).groups()
    return int(number or 1) * int(np.prod([sizes[letter] for letter in letters]))


def torchs_size(axes, sizes):
    return [size(axis, sizes) for axis in axes]


@pytest.mark.parametrize(
    "name, activation", [("rnn", "relu"), ("gru", "tanh"), ("lstm", "tanh"), ("lstm", "relu")]
)
def test_a_cell_has_the_operations_that_one_step_of_it_runs(name, activation):
    """The reference layer runs the equations one by one; each elementwise operation is a box or a
    sum in front of one.
    """
    model = make_model(
        name, 7, layer="reference", activation=activation, embedding_size=3, hidden_size=5
    )
    ran = dict.fromkeys(("sigmoid", "mul", "tanh", "relu"), 0)

    class Count(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if getattr(function, "__name__", "") in ran:
                ran[function.__name__] += 1
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Count():
        model(torch.tensor([[1]]), model.initial_state(1))
    labels = [
        each.label
        for each in node(graph(model).graph, "layer1").inside.nodes
        if each.kind == "operation"
    ]
    drawn = {"mul": labels.count("×")}
    drawn |= {
        name: sum(sign in label for label in labels)
        for name, sign in (("sigmoid", "σ"), (activation, activation))
    }
    assert drawn == {operation: ran[operation] for operation in drawn} and drawn[activation] > 0


@pytest.mark.parametrize(
    "settings",
    [{}, {"layers": 5}, {"ngrams": 3}, {"tied": True, "hidden_size": 6}, {"pointer": 8}],
    ids=str,
)
@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "nnlm"])
def test_states_layers_and_parameters_are_those_of_a_forward_pass(name, settings):
    if name == "nnlm" and settings:
        pytest.skip("not its settings")
    model = make_model(name, 7, **{"embedding_size": 6, "hidden_size": 5, **settings})
    picture = graph(model)
    described = picture.graph
    sizes = {"B": 3, "T": 4, **picture.sizes}
    logits, state = model(torch.zeros(3, 4, dtype=torch.long), model.initial_state(3))
    last = next(edge for edge in described.edges if edge.target == "logits")
    assert torchs_size(last.axes, sizes) == list(logits.shape)
    used = itertools.chain.from_iterable(node.parameters for node in nodes_of(described))
    assert sorted(used) == sorted(each for each, _ in model.named_parameters())
    assert picture.parameters == sum(each.numel() for each in model.parameters())
    if name == "nnlm":  # an edge for each token that the model sees
        assert sorted(edge.delay for edge in described.edges if edge.target == "window") == list(
            range(model.config.order - 1)
        )
        wide = next(edge for edge in described.edges if edge.source == "window")
        assert size(wide.axes[-1], sizes) == model.hidden.in_features
    else:
        numbers = sum(
            np.prod(torchs_size(edge.axes, sizes)) for edge in described.edges if edge.delay
        )
        assert numbers == sum(
            part.numel() for part in (state if isinstance(state, tuple) else (state,))
        )


def test_the_modules_of_any_model_have_the_shapes_that_hooks_see():
    model = Plain().train().requires_grad_(False)
    inside = node(graph(model).graph, "model").inside
    axes = {edge.target: edge.axes for edge in inside.edges}
    assert axes["output"] == axes["mix"] == ("B", "T", "H") and axes["logits"] == ("B", "T", "V")
    (plus,) = [each.id for each in inside.nodes if each.label == "+"]
    assert {(edge.source, edge.target) for edge in inside.edges} == {
        *(("ids", "embedding"), ("embedding", "mix"), ("output", "logits")),
        *(("embedding", plus), ("mix", plus), (plus, "output")),
    }
    # it stays as it was
    assert model.training and not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.slow
def test_modules_that_are_called_token_by_token_are_drawn_once_and_the_state_is_a_loop(pictures):
    described = pictures["Deep", 1].graph
    inside = node(described, "model").inside
    layers = sorted(each.label for each in inside.nodes if each.kind == "layer")
    assert layers == ["cells.0", "cells.1", "embedding", "mix", "output"]
    assert [edge.axes for edge in described.edges if edge.delay] == [("B", 2, "H")]
    assert {edge.target for edge in inside.edges if edge.source == "state"} == {
        "cells.0",
        "cells.1",
    }


@pytest.mark.parametrize("smoothing", ["witten-bell", "absolute", "kneser-ney"])
def test_the_contexts_of_a_trie_have_the_probabilities_and_counts_of_the_texts(smoothing):
    lines = ("abab cab", "abac dab", "abad", "baba habe", "a bad bed") * 2
    model = counted(lines, order=3, smoothing=smoothing)
    texts = [[0, *LETTERS.encode(line), 1] for line in lines]
    counts = Counter(
        itertools.chain.from_iterable(zip(text, text[1:], text[2:], strict=False) for text in texts)
    )
    drawn = {
        each.tokens: each.detail
        for each in node(graph(model).graph, "trie").inside.nodes
        if len(each.tokens) == 3
    }
    assert 2 <= len(drawn) <= 3
    for (*context, last), detail in drawn.items():
        logits, _ = model(torch.tensor([context]), model.initial_state(1))
        assert float(re.search(r"p = ([\d.e-]+)", detail)[1]) == pytest.approx(
            float(logits[0, -1, last].exp()), rel=0.06
        )
        assert detail.endswith(f", {counts[(*context, last)]} times")
    seen = [count for (*start, _), count in counts.items() if tuple(start) == tuple(context)]
    assert (
        sorted((counts[tokens] for tokens in drawn), reverse=True)
        == sorted(seen, reverse=True)[: len(drawn)]
    )


def placed(svg):
    """Yield each element with how far it is moved by the groups around it."""

    def walk(element, x, y):
        yield element, x, y
        by = re.findall(r"-?[\d.]+", element.get("transform") or "0 0")
        for each in element:
            yield from walk(each, x + float(by[0]), y + float(by[1]))

    return walk(ET.fromstring(svg), 0.0, 0.0)


def rectangle(each, x, y):
    """Return left, upper, right and lower edge."""
    width = float(each.get("width"))
    height = float(each.get("height"))
    return x, y, x + width, y + height


def overlap(one, other):
    return (
        one[0] + PIXEL < other[2]
        and other[0] + PIXEL < one[2]
        and one[1] + PIXEL < other[3]
        and other[1] + PIXEL < one[3]
    )


def corners_of(path, x, y):
    """Return the points of a path of M, L, C and V."""
    points = []
    for command, written in re.findall(r"([MLCV])([^MLCVZ]*)", path.get("d")):
        numbers = [float(each) for each in re.findall(r"-?[\d.]+", written)]
        numbers = [points[-1][0] - x, *numbers] if command == "V" else numbers
        points += [(a + x, b + y) for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    return points


def faults_of_drawing(svg, steps):
    """Yield what is wrong with the places of boxes, lines and arrows."""
    root = ET.fromstring(svg)
    every = list(placed(svg))
    boxes = [
        rectangle(*each)
        for each in every
        if each[0].tag == f"{SVG}rect" and "box" in each[0].get("class", "")
    ]
    frames = [
        rectangle(*each)
        for each in every
        if each[0].tag == f"{SVG}rect" and each[0].get("class") == "frame"
    ]
    width = float(root.get("width"))
    height = float(root.get("height"))
    yield from (
        f"boxes overlap: {pair}" for pair in itertools.combinations(boxes, 2) if overlap(*pair)
    )
    yield from (
        f"outside: {box}" for box in boxes if min(box) < 0 or box[2] > width or box[3] > height
    )
    if len(boxes) < 3 or width > READABLE:
        yield f"{len(boxes)} boxes, {width} wide"
    for path, *by in (each for each in every if "edge" in each[0].get("class", "")):
        corners = corners_of(path, *by)  # these, and the middles between them, lie in no box
        middles = [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in itertools.pairwise(corners)]
        for x, y in corners[1:-1] + middles:
            if any(box[0] + 2 < x < box[2] - 2 and box[1] + 2 < y < box[3] - 2 for box in boxes):
                yield f"a line runs through a box: {path.get('d')}"
    heads = [corners_of(*each)[:2] for each in every if each[0].get("class") == "head"]
    if len(heads) < 3 * steps:
        yield f"{len(heads)} arrows"
    for (x, tip), (_, back) in heads:
        touches = any(
            left <= x <= right and abs(top - tip) <= 2 * PIXEL
            for left, top, right, _ in boxes + frames
        )
        if back >= tip or not touches:
            yield f"an arrow points up, or to no box: {x}, {tip}"


def test_boxes_lie_apart_and_in_the_picture_lines_run_between_them_and_arrows_point_down_to_a_box(
    pictures,
):
    faults = {
        name: list(faults_of_drawing(picture.svg, name[1])) for name, picture in pictures.items()
    }
    assert {name: each[:2] for name, each in faults.items() if each} == {}


def test_pictures_are_self_contained_and_described(pictures):
    for name, picture in pictures.items():
        root = ET.fromstring(picture.svg)
        assert (
            root.get("role") == "img" and root.get("aria-label") == root.find(f"{SVG}title").text
        ), name
        assert (
            "logits" in root.find(f"{SVG}desc").text and "prefers-color-scheme: dark" in picture.svg
        ), name
        assert not re.search(r"\bid=|href|url\(|<script|@import", picture.svg), name
        rules = re.findall(
            r"([^{}]+)\{", re.sub(r"@media[^{]+\{", "", root.find(f"{SVG}style").text)
        )
        selectors = ",".join(rule for rule in rules if rule.strip()).split(",")
        assert len(selectors) > 20 and all(
            ".reviewgen-picture" in selector for selector in selectors
        ), name
        texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
        columns = {text for text in texts if re.fullmatch(r"ids\d", text)}
        # a column for each token
        assert name[1] == 1 or name[0] == "Named" or columns == {"ids1", "ids2", "ids3"}, name


def test_an_ngram_shows_its_most_frequent_context(pictures):
    assert (
        "“␣th”" in pictures["ngram-char", 1].svg.replace("<tspan", "")
        and "not trained" not in pictures["ngram-char", 1].svg
    )


def test_pictures_of_one_architecture_are_the_same_for_other_weights():
    one, other = (
        graph(make_model("lstm", 9, seed=seed, ngrams=3), unroll=12).svg for seed in (0, 1)
    )
    assert one == other


def test_a_table_in_a_buffer_has_no_parameters():
    assert graph(TableModel(torch.zeros(3, 3))).parameters == 0


def test_what_cannot_be_drawn_or_written_is_refused_before_any_work(tmp_path):
    for unroll in (0, 13, True):
        with pytest.raises(ConfigError, match="1 to 12"):
            graph("lstm-char", unroll=unroll)
    with pytest.raises(UnknownPlugin, match="lstm-char"):
        graph("lstm-chr")
    with pytest.raises(ConfigError, match="int"):
        graph(3)
    with pytest.raises(reviewgen.ReviewgenError, match="nothing"):
        graph(tmp_path / "nothing")
    (tmp_path / "b.svg").mkdir()
    (tmp_path / "c.svg").write_text("mine")
    refusals = {
        "a.png": ConfigError,
        "missing/a.svg": StorageError,
        "b.svg": StorageError,
        "c.svg": OutputExists,
    }
    for name, error in refusals.items():
        with pytest.raises(error):
            graph(Raises(), tmp_path / name)
    assert (tmp_path / "c.svg").read_text() == "mine"
    graph(Plain(), tmp_path / "c.svg", overwrite=True)
    ET.parse(tmp_path / "c.svg")
    with pytest.raises(BrokenPlugin, match=r"Raises .* RuntimeError: no <forward>"):
        graph(Raises())


IDS = GraphNode(id="ids", label="ids", kind="value")
LOGITS = GraphNode(id="logits", label="logits", kind="value")
BODY = GraphNode(
    id="body", label="body", parameters=tuple(name for name, _ in Plain().named_parameters())
)
LINE = (GraphEdge(source="ids", target="body"), GraphEdge(source="body", target="logits"))


def test_nodes_with_states_may_be_listed_in_any_order():
    below = GraphNode(id="below", label="below")
    loops = [GraphEdge(source=name, target=name, delay=1) for name in ("below", "body")]
    edges = (
        LINE[0],
        GraphEdge(source="body", target="below"),
        GraphEdge(source="below", target="logits"),
        *loops,
    )
    described = ModelGraph(nodes=(IDS, below, BODY, LOGITS), edges=edges, sizes={"V": 7})
    model = type("Ordered", (Plain,), {"describe_graph": lambda self: described})()
    assert graph(model, unroll=3).svg.count(">below<") == 3


def test_the_command_writes_a_picture_and_prints_json(tmp_path, monkeypatch, run_command):
    monkeypatch.chdir(tmp_path)
    status, output, _ = run_command("graph", "nnlm-char", "--unroll", "2", "--json")
    facts = json.loads(output)
    assert status == 0 and facts["file"] == "nnlm-char.svg" and facts["unrolled"] == 2
    assert facts["parameters"] == sum(
        each.numel() for each in reviewgen.load("nnlm-char").model.parameters()
    )
    assert {node["id"] for node in facts["graph"]["nodes"]} >= {"ids", "window", "logits"}
    ET.parse(tmp_path / "nnlm-char.svg")
    for words, expected, said in (
        (("nnlm-chr", "--out", "x.svg"), 1, "nnlm-char"),
        (("nnlm-char", "--unroll", "0", "--out", "x.svg"), 2, "1 to 12"),
    ):
        status, _, problem = run_command("graph", *words)
        assert status == expected and said in problem


def test_the_command_prints_the_n_grams_of_a_trained_n_gram(tmp_path, monkeypatch, run_command):
    monkeypatch.chdir(tmp_path)
    counted = reviewgen.load("ngram-char").model.parameter_kinds()
    status, output, _ = run_command("graph", "ngram-char")
    line = " ".join(output.split())
    assert status == 0 and line.startswith("ngram-char: ") and " 0 parameters" not in line
    assert all(f"{size:,} {kind}" in line for kind, size in counted.items())


def test_a_preset_without_weights_is_drawn_from_its_settings():
    @dataclass(frozen=True, kw_only=True)
    class TokenizerConfig:
        pass

    reviewgen.register_tokenizer(
        "graphletters", type("Letters", (type(LETTERS),), {"Config": TokenizerConfig})
    )
    picture = graph("gru-graphletters")
    assert picture.sizes["V"] == 2 + 95 and picture.sizes["H"] == 320
    counts = graph("ngram-graphletters")
    assert all("not trained" in each.svg for each in (picture, counts))
    assert counts.parameters == 0 and counts.counted == {}


def test_autograd_draws_each_parameter_and_needs_torchviz_and_dot(monkeypatch):
    model = make_model("rnn", 7)
    monkeypatch.setitem(sys.modules, "torchviz", None)
    with pytest.raises(ConfigError, match=r"reviewgen\[graph\]"):
        graph(model, autograd=True)
    monkeypatch.undo()
    pytest.importorskip("torchviz")
    with pytest.raises(ConfigError, match="no parameters"):
        graph(make_model("ngram", 7), autograd=True)
    if shutil.which("dot"):
        svg = graph(model, autograd=True).svg
        assert ET.fromstring(svg) is not None and all(
            name in svg for name, _ in model.named_parameters()
        )
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match="dot"):
        graph(model, autograd=True)
