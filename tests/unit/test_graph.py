"""reviewgen graph: what is drawn equals what a forward pass computes, and pictures are sound, readable and self-contained."""

import itertools
import json
import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reviewgen
from reviewgen.errors import BrokenPlugin, ConfigError, OutputExists, StorageError, UnknownPlugin
from reviewgen.graphs import draw, graph
from reviewgen.graphs.draw import describe_graph
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph, axis_size
from reviewgen.protocols.graph_rules import all_nodes
from reviewgen.registry import find_model
from reviewgen.testing import make_model
from reviewgen.testing.graph_law import described_graph
from tests.support.fakes import LETTERS, TableModel, run_command

ROOT = Path(__file__).parents[2]
PRESETS = [f"{model}-{kind}" for model in ("ngram", "nnlm", "rnn", "gru", "lstm", "blend") for kind in ("char", "word")]
EXAMPLES = {"mingru": "reviewgen_mingru.model:MinGru", "attention": "reviewgen_attention.model:Attention"}
SVG = "{http://www.w3.org/2000/svg}"
READABLE = 860  # pixels: shown at 700, the smallest letters, of 11.5 pixels, are then 9.4 high
PIXEL = 0.2  # of rounding


@dataclass(frozen=True, kw_only=True)
class Config:
    vocab_size: int = 7
    hidden_size: int = 11


class Plain(nn.Module):
    """A model of two modules and a residual sum, without a state."""

    Config = Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.mix = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.vocab_size)

    def initial_state(self, batch_size: int) -> tuple[()]:
        return ()

    def forward(self, ids: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        x = self.embedding(ids)
        return self.output(x + torch.relu(self.mix(x))), state


class Raises(Plain):
    def forward(self, ids: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        raise RuntimeError("no <forward>")


class Deep(Plain):
    """A model with a state, and a module list whose items are called token by token."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.cells = nn.ModuleList(nn.GRUCell(config.hidden_size, config.hidden_size) for _ in range(2))

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 2, self.config.hidden_size)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for x in self.embedding(ids).unbind(1):
            after = []
            for cell, h in zip(self.cells, state.unbind(1), strict=True):
                x = cell(x, h)
                after.append(x)
            state = torch.stack(after, 1)
            outputs.append(x)
        return self.output(self.mix(torch.stack(outputs, 1))), state


class Wrong(Plain):
    """Describes a graph that breaks a rule, which the test sets."""

    graph: ModelGraph

    def describe_graph(self) -> ModelGraph:
        return self.graph


class Nested(Plain):
    """A model whose modules call modules that call modules."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        size = config.hidden_size
        layer = nn.TransformerEncoderLayer(size, 1, 16, batch_first=True)
        self.mix = nn.Sequential(nn.Sequential(layer, nn.Sequential(nn.Linear(size, size), nn.Tanh())), nn.ReLU())


class Named(Plain):
    """A model whose modules have the names of values, or names with the signs of ids."""

    NAMES = ("ids", "logits", "state", "model", "a/b", "</text><script>", "#", "a#2", "_{x}", "x" * 300)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.mix = nn.Sequential()
        for name in self.NAMES:
            self.mix.add_module(name, nn.Linear(config.hidden_size, config.hidden_size))
        self.logits, self.ids = (nn.Sequential(nn.Linear(config.hidden_size, config.hidden_size)) for _ in range(2))

    def forward(self, ids: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        x = self.mix(self.logits(self.ids(self.embedding(ids))))
        return self.output(self.mix(x)), state


@pytest.fixture(scope="module")
def pictures():
    """The SVG of each preset and of two plugin models, folded and unrolled."""
    sources = dict.fromkeys(PRESETS)
    for name, path in EXAMPLES.items():
        sys.path.insert(0, str(ROOT / "examples" / f"reviewgen-{name}"))
        module, kind = path.split(":")
        model = getattr(__import__(module, fromlist=[kind]), kind)
        sources[name] = model(model.Config(vocab_size=101))
        del sys.path[0]
    loaded = {name: reviewgen.load(name) if model is None else model for name, model in sources.items()}
    return {(name, steps): draw(model, unroll=steps) for name, model in loaded.items() for steps in (1, 3)}


PICTURES = [(name, steps) for name in (*PRESETS, *EXAMPLES) for steps in (1, 3)]


def edges_of(described: ModelGraph) -> list[GraphEdge]:
    inner = [edge for node in described.nodes if node.inside is not None for edge in edges_of(node.inside)]
    return [*described.edges, *inner]


# ---- what is drawn is what is computed


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_cell_has_the_operations_that_one_step_of_it_runs(name, activation, monkeypatch):
    """The reference layer runs the equations one by one; each elementwise operation is a box or a sum in front of one."""
    model = make_model(name, 7, layer="reference", activation=activation, embedding_size=3, hidden_size=5)
    ran = dict.fromkeys(("sigmoid", "mul", "tanh", "relu"), 0)

    class Count(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if getattr(function, "__name__", "") in ran:
                ran[function.__name__] += 1
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Count():
        model(torch.tensor([[1]]), model.initial_state(1))
    cell = next(node.inside for node in model.describe_graph().nodes if node.id == "layer1")
    labels = [node.label for node in cell.nodes if node.kind == "operation"]
    drawn = {
        "sigmoid": sum("σ" in label for label in labels),
        "mul": labels.count("×"),
        activation: sum(activation in label for label in labels),
    }
    assert drawn == {operation: ran[operation] for operation in drawn}
    assert drawn[activation] > 0


@pytest.mark.parametrize("settings", [{}, {"layers": 2}, {"layers": 5}, {"ngrams": 3}, {"tied": True, "hidden_size": 6}])
@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_states_and_layers_have_the_shapes_of_a_forward_pass(name, settings):
    model = make_model(name, 7, **{"embedding_size": 6, "hidden_size": 5, **settings})
    described = describe_graph(model)
    sizes = {"B": 3, "T": 4, **described.sizes}
    logits, state = model(torch.zeros(3, 4, dtype=torch.long), model.initial_state(3))
    last = next(edge for edge in described.edges if edge.target == "logits")
    assert [axis_size(axis, sizes) for axis in last.axes] == list(logits.shape)
    numbers = sum(torch.Size(axis_size(axis, sizes) for axis in edge.axes).numel() for edge in described.edges if edge.delay)
    assert numbers == sum(part.numel() for part in (state if isinstance(state, tuple) else (state,)))


@pytest.mark.parametrize("name", ["nnlm", "rnn", "gru", "lstm"])
def test_every_parameter_belongs_to_one_box(name):
    model = make_model(name, 9)
    used = [each for node in all_nodes(describe_graph(model)) for each in node.parameters]
    assert sorted(used) == sorted(each for each, _ in model.named_parameters())
    assert graph(model).parameters == sum(each.numel() for each in model.parameters())


def test_a_window_has_an_edge_for_each_token_that_the_model_sees():
    model = make_model("nnlm", 9, order=4)
    window = [edge for edge in describe_graph(model).edges if edge.target == "window"]
    assert sorted(edge.delay for edge in window) == [0, 1, 2]
    wide = next(edge for edge in describe_graph(model).edges if edge.source == "window")
    assert axis_size(wide.axes[-1], describe_graph(model).sizes) == model.hidden.in_features


def test_the_modules_of_any_model_have_the_shapes_that_hooks_see():
    model = Plain(Config())
    inside = next(node.inside for node in describe_graph(model).nodes if node.id == "model")
    into = {edge.target: edge.axes for edge in inside.edges}
    assert into["output"] == into["mix"] == ("B", "T", "H")
    assert into["logits"] == ("B", "T", "V")
    assert {(edge.source, edge.target) for edge in inside.edges} == {
        *(("ids", "embedding"), ("embedding", "mix"), ("output", "logits")),
        *((source, target) for target in inside_sums(inside) for source in ("embedding", "mix")),
        *((source, "output") for source in inside_sums(inside)),
    }


def inside_sums(inside: ModelGraph) -> list[str]:
    sums = [node.id for node in inside.nodes if node.label == "+"]
    assert len(sums) == 1
    return sums


def test_modules_that_are_called_token_by_token_are_drawn_once_and_the_state_is_a_loop():
    described = describe_graph(Deep(Config()))
    inside = next(node.inside for node in described.nodes if node.id == "model")
    assert sorted(node.label for node in inside.nodes if node.kind == "layer") == [
        *("cells.0", "cells.1", "embedding", "mix", "output")
    ]
    assert [edge.axes for edge in described.edges if edge.delay] == [("B", 2, "H")]
    assert {edge.target for edge in inside.edges if edge.source == "state"} == {"cells.0", "cells.1"}


def test_parameters_without_a_module_are_boxes_and_tables_take_ids():
    class Bare(Plain):
        def __init__(self, config: Config) -> None:
            nn.Module.__init__(self)
            self.config = config
            self.table = nn.Parameter(torch.randn(config.vocab_size, config.hidden_size))
            self.out = nn.Parameter(torch.randn(config.hidden_size, config.vocab_size))

        def forward(self, ids: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
            return self.table[ids] @ self.out, state

    inside = next(node.inside for node in describe_graph(Bare(Config())).nodes if node.id == "model")
    assert [node.parameters for node in inside.nodes if node.kind == "layer"] == [("table",), ("out",)]
    assert [edge.target for edge in inside.edges if edge.source == "ids"] == ["table#weights"]
    assert draw(Bare(Config()))


def test_the_law_of_described_graphs_compares_widths():
    class Described(Plain):
        width = "H"

        def describe_graph(self) -> ModelGraph:
            names = ("embedding", "mix", "output")
            layers = [GraphNode(id=name, label=name, parameters=tuple(f"{name}.{p}" for p in self.own(name))) for name in names]
            chain = ["ids", *names, "logits"]
            axes = [("B", "T"), ("B", "T", "H"), ("B", "T", self.width), ("B", "T", "V")]
            edges = [GraphEdge(source=a, target=b, axes=c) for (a, b), c in zip(itertools.pairwise(chain), axes, strict=True)]
            return ModelGraph(nodes=(IDS, *layers, LOGITS), edges=tuple(edges), sizes={"V": 7, "H": 11})

        def own(self, name: str) -> list[str]:
            return [each for each, _ in getattr(self, name).named_parameters()]

    described_graph(lambda: Described(Config()).eval())
    Described.width = "2H"
    with pytest.raises(
        AssertionError, match=r"from 'mix' to 'output' has the sizes \[3, 5, 22\]; its module returns \[3, 5, 11\]"
    ):
        described_graph(lambda: Described(Config()).eval())


def test_a_drawn_model_stays_as_it_was():
    model = Plain(Config()).train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    draw(model)
    assert model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.mix._forward_hooks and not model.mix._forward_pre_hooks


@pytest.mark.parametrize("smoothing", ["witten-bell", "absolute", "kneser-ney"])
def test_the_contexts_of_a_trie_have_the_probabilities_and_counts_of_the_texts(smoothing):
    kind, _ = find_model("ngram")
    model = kind(kind.Config(vocab_size=LETTERS.vocab_size, order=3, smoothing=smoothing))
    texts = [np.array([0, *LETTERS.encode(text), 1]) for text in ("abab cab", "abac dab", "abad", "baba habe", "a bad bed") * 2]
    for text in texts:
        model.observe(text)
    model.finish()
    counted = Counter(tuple(text[at : at + 3].tolist()) for text in texts for at in range(len(text) - 2))
    trie = next(node.inside for node in describe_graph(model).nodes if node.id == "trie")
    drawn = {node.tokens: node.detail for node in trie.nodes if len(node.tokens) == 3}
    assert 2 <= len(drawn) <= 3
    for (*context, last), detail in drawn.items():
        logits, _ = model(torch.tensor([context]), model.initial_state(1))
        assert float(re.search(r"p = ([\d.e-]+)", detail)[1]) == pytest.approx(float(logits[0, -1, last].exp()), rel=0.06)
        assert detail.endswith(f", {counted[(*context, last)]} times")
    seen = [count for (*start, _), count in counted.items() if tuple(start) == tuple(context)]
    assert sorted((counted[tokens] for tokens in drawn), reverse=True) == sorted(seen, reverse=True)[: len(drawn)]


def test_tokens_of_a_trie_are_shown_as_text():
    svg = draw("ngram-char")
    assert "“␣th”" in svg.replace("<tspan", "") and "not trained" not in svg


# ---- pictures


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """Return left, upper, right and lower edge of each box."""
    found = [each for each in ET.fromstring(svg).iter(f"{SVG}rect") if "box" in each.get("class", "")]
    return [rectangle(each) for each in found]


def rectangle(each: ET.Element) -> tuple[float, float, float, float]:
    x, y, width, height = (float(each.get(name)) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def overlap(one, other) -> bool:
    return one[0] + PIXEL < other[2] and other[0] + PIXEL < one[2] and one[1] + PIXEL < other[3] and other[1] + PIXEL < one[3]


@pytest.mark.parametrize(("name", "steps"), PICTURES)
def test_no_box_lies_on_another_and_all_lie_in_the_picture(name, steps, pictures):
    svg = pictures[name, steps]
    found = boxes(svg)
    assert len(found) >= 4
    assert not [pair for pair in itertools.combinations(found, 2) if overlap(*pair)]
    width, height = (float(ET.fromstring(svg).get(name)) for name in ("width", "height"))
    assert all(left >= 0 and top >= 0 and right <= width and bottom <= height for left, top, right, bottom in found)
    assert width <= READABLE


@pytest.mark.parametrize(("name", "steps"), PICTURES)
def test_no_line_runs_through_a_box(name, steps, pictures):
    """The corners of a path, and the middles between them, lie in no box that the line does not start or end at."""
    svg = pictures[name, steps]
    found = [(left + 2, top + 2, right - 2, bottom - 2) for left, top, right, bottom in boxes(svg)]
    for path in ET.fromstring(svg).iter(f"{SVG}path"):
        if "line" not in path.get("class", ""):
            continue
        numbers = [float(each) for each in re.findall(r"-?[\d.]+", path.get("d"))]
        corners = list(zip(numbers[::2], numbers[1::2], strict=True))
        ends = corners[:1] + corners[-1:]
        middles = [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in itertools.pairwise(corners)]
        for x, y in corners[1:-1] + middles:
            hit = [box for box in found if box[0] < x < box[2] and box[1] < y < box[3]]
            assert not hit, (path.get("d"), hit, ends)


@pytest.mark.parametrize(("name", "steps"), PICTURES)
def test_arrows_of_lines_point_down_and_touch_a_box(name, steps, pictures):
    root = ET.fromstring(pictures[name, steps])
    frames = [rectangle(each) for each in root.iter(f"{SVG}rect") if each.get("class") == "frame"]
    tops = [(left, right, top) for left, top, right, _ in (*boxes(pictures[name, steps]), *frames)]
    heads = [each for each in root.iter(f"{SVG}path") if each.get("class") == "head"]
    assert len(heads) >= 3 * steps
    for head in heads:
        x, tip, _, back = (float(each) for each in re.findall(r"-?[\d.]+", head.get("d"))[:4])
        assert back < tip
        assert any(left <= x <= right and abs(top - tip) <= 2 * PIXEL for left, right, top in tops)


@pytest.mark.parametrize(("name", "steps"), PICTURES)
def test_a_picture_is_valid_self_contained_and_described(name, steps, pictures):
    svg = pictures[name, steps]
    root = ET.fromstring(svg)
    assert root.get("role") == "img" and root.get("aria-label") == root.find(f"{SVG}title").text
    assert "logits" in root.find(f"{SVG}desc").text
    assert root.findall(f".//{SVG}text") and "prefers-color-scheme: dark" in svg
    assert not re.search(r"\bid=|href|url\(|<script|@import", svg)
    rules = re.findall(r"([^{}]+)\{", re.sub(r"@media[^{]+\{", "", root.find(f"{SVG}style").text))
    selectors = [selector for rule in rules if rule.strip() for selector in rule.split(",")]
    assert len(selectors) > 20 and all(".reviewgen-graph" in selector for selector in selectors)


def test_the_same_model_gives_the_same_picture():
    one, other = (draw(make_model("lstm", 9, seed=seed, ngrams=3), unroll=3) for seed in (0, 1))
    assert one == other


@pytest.mark.parametrize("steps", [2, 5, 12])
def test_each_token_has_its_column(steps):
    root = ET.fromstring(draw(make_model("gru", 9), unroll=steps))
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert [text for text in texts if text.startswith("ids")] == [f"ids{step}" for step in range(1, steps + 1)]


def test_the_shape_of_a_state_with_many_axes_is_wrapped_between_columns():
    class Wide(Plain):
        def initial_state(self, batch_size):
            return torch.zeros(batch_size, 3, 2, 4, 64, 32)

        def forward(self, ids, state):
            return super().forward(ids, ())[0], state

    root = ET.fromstring(draw(Wide(Config()), unroll=3))
    assert float(root.get("width")) <= READABLE
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    first = texts.index("(B, 3, 2,")
    assert texts[first : first + 2] == ["(B, 3, 2,", "4, 64, 32)"]


def test_strings_of_a_model_are_escaped():
    model = Plain(Config())
    model.add_module("<script>alert(1)</script>", nn.Linear(11, 11))
    model.mix = nn.Sequential()
    model.mix.add_module('"><script>&\x00', nn.Linear(11, 11))
    svg = draw(model)
    ET.fromstring(svg)
    assert "<script" not in svg and "&lt;script&gt;" in svg


def edges_inside(graph):
    """Return the nodes of each graph, and of those inside, that edges lead from and to."""
    inner = [node.inside for node in graph.nodes if node.inside is not None]
    return [({node.id for node in graph.nodes}, graph.edges), *(each for one in inner for each in edges_inside(one))]


@pytest.mark.parametrize("kind", [Nested, Named])
@pytest.mark.parametrize("steps", [1, 3])
def test_nested_modules_and_any_names_of_modules_are_drawn(kind, steps):
    model = kind(Config())
    picture = graph(model, unroll=steps)
    for names, edges in edges_inside(picture.graph):
        ends = [(edge.source, edge.target) for edge in edges if not edge.delay]
        assert len(names) > 1 and len(set(ends)) == len(ends)
        assert {end.partition("/")[0] for pair in ends for end in pair} == names  # each node has an edge
    drawn = [name for node in all_nodes(picture.graph) for name in node.parameters]
    assert sorted(drawn) == sorted(name for name, _ in model.named_parameters())
    root = ET.fromstring(picture.svg)
    assert not [pair for pair in itertools.combinations(boxes(picture.svg), 2) if overlap(*pair)]
    assert float(root.get("width")) <= 700
    assert "<script" not in picture.svg


def test_values_of_nested_modules_flow_into_and_out_of_each_frame():
    found = {frozenset(names): edges for names, edges in edges_inside(describe_graph(Nested(Config())))}
    layer = next(edges for names, edges in found.items() if "mix.0.0.norm1" in names)
    ends = {(edge.source, edge.target) for edge in layer}
    assert ("to embedding", "mix.0.0.self_attn") in ends and ("mix.0.0.norm2", "from mix.0.0.norm2") in ends


def test_a_very_long_name_is_shortened():
    model = Plain(Config())
    model.mix = nn.Sequential()
    model.mix.add_module("x" * 5000, nn.Linear(11, 11))
    assert len(draw(model)) < 60_000


# ---- bad input


def test_models_without_parameters_are_drawn():
    assert "TableModel" in draw(TableModel(torch.zeros(3, 3)))
    assert graph(TableModel(torch.zeros(3, 3))).parameters == 0


@pytest.mark.parametrize("unroll", [0, -1, 13, 1000, True])
def test_numbers_of_tokens_that_cannot_be_drawn_are_refused(unroll):
    with pytest.raises(ConfigError, match=r"unroll must be a number of tokens from 1 to 12"):
        graph("lstm-char", unroll=unroll)


def test_sources_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(UnknownPlugin, match="lstm-char"):
        graph("lstm-chr")
    with pytest.raises(ConfigError, match="got a int"):
        graph(3)
    with pytest.raises(reviewgen.ReviewgenError, match="nothing"):
        graph(tmp_path / "nothing")


def test_files_that_cannot_be_written_are_refused_before_any_work(tmp_path):
    model = Raises(Config())
    with pytest.raises(ConfigError, match=r"must be \.svg"):
        graph(model, tmp_path / "a.png")
    with pytest.raises(StorageError, match="not a writable folder"):
        graph(model, tmp_path / "missing" / "a.svg")
    (tmp_path / "b.svg").mkdir()
    with pytest.raises(StorageError, match="it is a folder"):
        graph(model, tmp_path / "b.svg", overwrite=True)
    (tmp_path / "c.svg").write_text("mine")
    with pytest.raises(OutputExists, match="--overwrite"):
        graph(model, tmp_path / "c.svg")
    assert (tmp_path / "c.svg").read_text() == "mine"
    graph(Plain(Config()), tmp_path / "c.svg", overwrite=True)
    ET.parse(tmp_path / "c.svg")


def test_a_model_whose_forward_pass_raises_is_reported():
    with pytest.raises(BrokenPlugin, match=r"forward pass of Raises .* RuntimeError: no <forward>"):
        draw(Raises(Config()))


IDS, LOGITS = GraphNode(id="ids", label="ids", kind="value"), GraphNode(id="logits", label="logits", kind="value")
BODY = GraphNode(id="body", label="body", parameters=tuple(name for name, _ in Plain(Config()).named_parameters()))
LINE = (GraphEdge(source="ids", target="body"), GraphEdge(source="body", target="logits"))
V = {"V": 7}
WRONG = {
    "no node 'logits'": ModelGraph(nodes=(IDS, BODY), edges=LINE[:1], sizes=V),
    "size of V must be 7": ModelGraph(nodes=(IDS, BODY, LOGITS), edges=LINE),
    "must name one node": ModelGraph(nodes=(IDS, BODY, BODY, LOGITS), edges=LINE, sizes=V),
    "'x' is none": ModelGraph(nodes=(IDS, BODY, LOGITS), edges=(*LINE, GraphEdge(source="x", target="body")), sizes=V),
    "form a circle": ModelGraph(nodes=(IDS, BODY, LOGITS), edges=(*LINE, GraphEdge(source="logits", target="body")), sizes=V),
    "the axis 'Q'": ModelGraph(nodes=(IDS, BODY, LOGITS), edges=(GraphEdge(source="ids", target="body", axes=("Q",)),), sizes=V),
    "the delay -1": ModelGraph(nodes=(IDS, BODY, LOGITS), edges=(GraphEdge(source="ids", target="body", delay=-1),), sizes=V),
    "belongs to no node": ModelGraph(nodes=(IDS, GraphNode(id="body", label=""), LOGITS), edges=LINE, sizes=V),
    "belongs to two nodes": ModelGraph(
        nodes=(IDS, BODY, LOGITS, GraphNode(id="b", label="", parameters=("mix.bias",))), edges=LINE, sizes=V
    ),
    "has no parameter 'x'": ModelGraph(
        nodes=(IDS, GraphNode(id="body", label="", parameters=("x",)), LOGITS), edges=LINE, sizes=V
    ),
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_description_is_reported_with_what_is_wrong(words):
    model = Wrong(Config())
    model.graph = WRONG[words]
    with pytest.raises(BrokenPlugin, match=re.escape(words)) as caught:
        draw(model)
    assert len(str(caught.value)) < 500


# ---- the command


def test_the_command_writes_a_picture_and_prints_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, output, _ = run_command(monkeypatch, capsys, "graph", "nnlm-char", "--unroll", "2", "--json")
    facts = json.loads(output)
    assert status == 0 and facts["file"] == "nnlm-char.svg" and facts["unrolled"] == 2
    assert facts["parameters"] == sum(each.numel() for each in reviewgen.load("nnlm-char").bundle.model.parameters())
    assert {node["id"] for node in facts["graph"]["nodes"]} >= {"ids", "window", "logits"}
    ET.parse(tmp_path / "nnlm-char.svg")
    status, _, problem = run_command(monkeypatch, capsys, "graph", "nnlm-char")
    assert status == 1 and "already exists" in problem
    status, _, problem = run_command(monkeypatch, capsys, "graph", "nnlm-chr", "--out", "x.svg")
    assert status == 1 and "nnlm-char" in problem
    status, _, problem = run_command(monkeypatch, capsys, "graph", "nnlm-char", "--unroll", "0", "--out", "x.svg")
    assert status == 2 and "from 1 to 12" in problem


def test_a_preset_without_weights_is_drawn_from_its_settings():
    @dataclass(frozen=True, kw_only=True)
    class TokenizerConfig:
        pass

    class Letters(type(LETTERS)):
        Config = TokenizerConfig

    reviewgen.register_tokenizer("graphletters", Letters)
    picture = graph("gru-graphletters")
    assert "not trained" in picture.svg and picture.sizes["V"] == 2 + 95 and picture.sizes["H"] == 320


# ---- autograd


def test_autograd_needs_torchviz_and_dot(monkeypatch):
    model = make_model("rnn", 7)
    monkeypatch.setitem(sys.modules, "torchviz", None)
    with pytest.raises(ConfigError, match=r"reviewgen\[graph\]"):
        graph(model, autograd=True)
    monkeypatch.undo()
    pytest.importorskip("torchviz")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match="dot"):
        graph(model, autograd=True)
    with pytest.raises(ConfigError, match="no parameters"):
        graph(make_model("ngram", 7), autograd=True)


def test_autograd_draws_each_parameter(monkeypatch):
    pytest.importorskip("torchviz")
    if not __import__("shutil").which("dot"):
        pytest.skip("dot is not installed")
    model = make_model("rnn", 7)
    svg = graph(model, autograd=True).svg
    ET.fromstring(svg)
    assert all(name in svg for name, _ in model.named_parameters())
