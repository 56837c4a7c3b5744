"""``reviewgen.explain``: its numbers against losses by hand, formulas, brute force and planted units; and bad input."""

import json
import math
import os
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from reviewgen_ngram.model import Ngram
from reviewgen_nnlm.model import Nnlm
from reviewgen_recurrent.gru import Gru
from reviewgen_recurrent.lstm import Lstm
from torch import nn

import reviewgen
from reviewgen.blending.model import Blend
from reviewgen.conditions import Condition, Conditions, Value
from reviewgen.errors import BrokenPlugin, ConfigError, DataError, GenerationError, OutputExists, StorageError, UnknownPlugin
from reviewgen.explanation.batch import MAX_TOKENS, Labels, check_texts, make_batch
from reviewgen.explanation.units import LINE, QUOTES, ReadText, correlations, find_units, properties_of
from reviewgen.explanation.walk import name_axes
from reviewgen.protocols import Operation
from reviewgen.registry import Plugin
from tests.support.browser import SCHEMES, WIDTHS, problems
from tests.support.fakes import LETTERS, FakeConfig, LetterTokenizer, TableModel, review_model, run_command, table

V = LETTERS.vocab_size
TEXTS = ("bad cab", "head a beach")


def recurrent(cls=Lstm, **settings):
    torch.manual_seed(0)
    return cls(cls.Config(**({"vocab_size": V} | {"hidden_size": 6, "embedding_size": 4} | settings))).eval()


def ngram(**settings):
    model = Ngram(Ngram.Config(vocab_size=V, order=3, **settings))
    for text in (*TEXTS, "a bad beach", "cabbage", "a head", "aaa", "bab", "dada"):
        model.observe(np.array([0, *LETTERS.encode(text), 1]))
    model.finish()
    return model


def make(kind):
    return {
        "lstm": recurrent,
        "gru": lambda: recurrent(Gru, layers=2),
        "nnlm": lambda: Nnlm(Nnlm.Config(vocab_size=V, order=4, hidden_size=5, embedding_size=3)).eval(),
        "ngram": ngram,
        "table": lambda: TableModel(table(V)),
        "modules": lambda: Nested(FakeConfig(vocab_size=V)).eval(),
    }[kind]()


@pytest.mark.parametrize("kind", ["lstm", "gru", "nnlm", "ngram", "table", "modules"])
def test_the_loss_is_the_sum_by_hand_and_both_of_torchs(kind):
    model = review_model(make(kind), LETTERS)
    loss = reviewgen.explain(model, TEXTS).loss
    total, count = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([[0, *LETTERS.encode(text), 1]])
        logits, _ = model.model(ids[:, :-1], model.model.initial_state(1))
        for scores, target in zip(logits[0].tolist(), ids[0, 1:].tolist(), strict=True):
            total += math.log(math.fsum(map(math.exp, scores))) - scores[target]
            count += 1
    assert len(loss.tokens) == count == sum(map(len, TEXTS)) + 2
    assert loss.nats == pytest.approx(total, rel=1e-6)
    assert loss.mean == pytest.approx(total / count, rel=1e-6)
    shown = {f"{value:.10f}" for value in (loss.mean, loss.mean_of_nll_loss, loss.mean_of_cross_entropy)}
    assert len(shown) == 1
    scores = [model.score(text) for text in TEXTS]
    assert loss.bits_per_character == pytest.approx(sum(s.bits for s in scores) / sum(map(len, TEXTS)), rel=1e-5)
    assert [token.bits for token in loss.tokens] == pytest.approx([t.bits for s in scores for t in s.tokens], rel=1e-4, abs=1e-5)
    assert [token.token for token in loss.tokens[:8]] == ["b", "a", "d", "␣", "c", "a", "b", "(end)"]


def test_the_lines_are_the_operations_of_the_model():
    language_model = recurrent()
    explanation = reviewgen.explain(review_model(language_model, LETTERS), "bad")
    (model,) = explanation.models
    assert (
        repr(explanation)
        == f"Explanation('fake-fake', fake, texts=1, bits_per_character={explanation.loss.bits_per_character:.4f})"
    )
    ids = torch.tensor([[0, *LETTERS.encode("bad")]])
    operations = list(language_model.operations(ids, language_model.initial_state(1)))
    assert explanation.batch == (1, 4)
    for line, operation in zip(model.lines, operations, strict=True):
        values = operation.values.detach().double().numpy()
        assert (line.name, line.sizes, line.axes) == (operation.name, values.shape, tuple(operation.axes.split()))
        assert (line.mean, line.spread) == pytest.approx((values.mean(), values.std()))
    assert model.parameters == sum(map(torch.Tensor.numel, language_model.parameters()))
    assert [gate.name for gate in model.gates] == ["input gate", "forget gate", "output gate"]
    gate = operations[1].values[0].detach().numpy()
    assert model.gates[0].openings == (pytest.approx(gate.mean(axis=1)),)


def test_padding_is_left_out():
    model = review_model(recurrent(), LETTERS)
    alone, both = reviewgen.explain(model, TEXTS[1]), reviewgen.explain(model, ["b", TEXTS[1]])
    assert both.models[0].gates[0].openings[1] == pytest.approx(alone.models[0].gates[0].openings[0], abs=1e-6)
    assert len(both.models[0].gates[0].openings[0]) == 2
    one = reviewgen.explain(model, ["b"])
    numbers = [(one.models[0].lines[1], 2), (alone.models[0].lines[1], len(TEXTS[1]) + 1)]
    mean = sum(line.mean * tokens for line, tokens in numbers) / sum(tokens for _, tokens in numbers)
    assert both.models[0].lines[1].mean == pytest.approx(mean)


class Scale(nn.Module):
    """A module that multiplies by a parameter of its own, and returns what is not a tensor beside it."""

    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return {"note": "odd", "values": [(x.long(), x * self.by)]}


class Silent(nn.Module):
    def forward(self, x):
        return None


class Nested(nn.Module):
    """A recurrent model of a third party: modules in modules, one called at each token, and a parameter of its own."""

    Config = FakeConfig

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, 6)
        self.step = nn.Sequential(nn.Linear(12, 6), nn.Tanh())
        self.scale, self.silent = Scale(), Silent()
        self.out = nn.Parameter(torch.randn(6, config.vocab_size, generator=torch.Generator().manual_seed(0)))

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 6)

    def forward(self, ids, state):
        rows = []
        for x in self.embedding(ids).unbind(1):
            state = self.step(torch.cat([x, state], dim=-1))
            rows.append(state)
        self.silent(state)
        x = self.scale(torch.stack(rows, dim=1))["values"][0][1]
        return x @ self.out, state


def test_modules_are_followed_by_hooks():
    language_model = Nested(FakeConfig(vocab_size=V)).eval()
    explanation = reviewgen.explain(review_model(language_model, LETTERS), TEXTS)
    b, t = explanation.batch
    (model,) = explanation.models
    lines = {line.name: line for line in model.lines}
    assert list(lines) == [
        "embedding (Embedding)",
        "step.0 (Linear)",
        "step.1 (Tanh)",
        "silent (Silent)",
        "scale (Scale)",
        "the rest of Nested",
    ]
    assert lines["step.0 (Linear)"].multiplications == b * t * 12 * 6 and lines["step.0 (Linear)"].calls == t
    assert lines["scale (Scale)"].multiplications == b * t * 6 and lines["scale (Scale)"].mean is not None
    assert lines["the rest of Nested"].multiplications == b * t * 6 * V
    assert lines["the rest of Nested"].axes == ("B", "T", "V")
    assert lines["silent (Silent)"].sizes == () and lines["silent (Silent)"].mean is None
    assert {name: line.parameters for name, line in lines.items() if line.parameters} == {
        "embedding (Embedding)": V * 6,
        "step.0 (Linear)": 12 * 6 + 6,
        "scale (Scale)": 6,
        "the rest of Nested": 6 * V,
    }
    assert model.parameters == sum(line.parameters for line in model.lines)
    assert not [hook for module in language_model.modules() for hook in module._forward_hooks]  # they are removed


class Wrapped(Nested):
    """The same with torch's own LSTM as a module."""

    def __init__(self, config):
        super().__init__(config)
        self.layer = nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(5, config.vocab_size)

    def forward(self, ids, state):
        return self.head(self.layer(self.embedding(ids))[0]), state


def test_the_multiplications_of_torchs_lstm_are_counted():
    explanation = reviewgen.explain(review_model(Wrapped(FakeConfig(vocab_size=V)).eval(), LETTERS), "bad cab")
    lines = {line.name: line for line in explanation.models[0].lines}
    t = explanation.batch[1]
    assert lines["layer (LSTM)"].multiplications == t * (4 * (6 * 5 + 5 * 5) + 3 * 5)
    assert lines["layer (LSTM)"].parameters == 4 * (6 * 5 + 5 * 5 + 5 + 5)


class Attending(Nested):
    """The same with torch's scaled dot product."""

    def forward(self, ids, state):
        x = self.embedding(ids).unflatten(-1, (2, 3)).transpose(1, 2)  # (B, heads, T, 3)
        x = nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
        return x.transpose(1, 2).flatten(2) @ self.out, state


def test_the_multiplications_of_attention_are_counted():
    explanation = reviewgen.explain(review_model(Attending(FakeConfig(vocab_size=V)).eval(), LETTERS), "bad cab")
    t = explanation.batch[1]
    assert explanation.models[0].multiplications == 2 * (t * t * 6) + t * 6 * V


def test_axes_are_named_by_their_sizes():
    @dataclass(frozen=True)
    class Settings:
        vocab_size: int = 50
        hidden_size: int = 8
        heads: int = 3

    assert name_axes((2, 7, 50), 2, 7, Settings()) == ("B", "T", "V")
    assert name_axes((7, 2, 8), 2, 7, Settings()) == ("T", "B", "H")
    assert name_axes((2, 3, 7, 7), 2, 7, Settings()) == ("B", "heads", "T", "T")
    assert name_axes((14, 24), 2, 7, Settings()) == ("BT", "24")
    assert name_axes((), 2, 7, Settings()) == ()


@pytest.mark.parametrize("gate", [None, {"coefficients": [[0.1, 0.5, -0.3, 0.2, 0.0, 0.1], [0.0] * 6]}], ids=["fixed", "gated"])
def test_each_probability_of_a_blend_is_the_weighted_sum(gate):
    parts = [recurrent(), ngram()]
    plugins = [Plugin("model", "lstm", "reviewgen", "0"), Plugin("model", "ngram", "reviewgen", "0")]
    model = review_model(Blend.from_models(parts, plugins, [0.3, 0.7], gate), LETTERS)
    explanation = reviewgen.explain(model, TEXTS)
    assert [each.name for each in explanation.models] == ["lstm", "ngram"]
    alone = [reviewgen.explain(review_model(part, LETTERS), TEXTS).loss.tokens for part in parts]
    bits = [token.bits for text in TEXTS for token in model.score(text).tokens]  # through the blend's own score
    for mixed, token, first, second, by_score in zip(explanation.mixture, explanation.loss.tokens, *alone, bits, strict=True):
        assert sum(mixed.weights) == pytest.approx(1)
        assert gate or mixed.weights == pytest.approx((0.3, 0.7))
        assert mixed.probabilities == pytest.approx((first.probability, second.probability), rel=1e-5)
        expected = mixed.weights[0] * first.probability + mixed.weights[1] * second.probability
        assert mixed.probability == pytest.approx(expected, rel=1e-5)
        assert token.probability == pytest.approx(expected, rel=1e-5)
        assert token.bits == pytest.approx(by_score, rel=1e-4)
    assert (len({mixed.weights for mixed in explanation.mixture}) > 10) == bool(gate)
    assert explanation.models[0].gates and explanation.models[1].counts


def test_the_window_of_a_neural_ngram():
    tokens = reviewgen.explain(review_model(make("nnlm"), LETTERS), "bad").loss.tokens
    assert [token.window for token in tokens] == [
        ("(before)", "(before)", "(start)"),
        ("(before)", "(start)", "b"),
        ("(start)", "b", "a"),
        ("b", "a", "d"),
    ]


# Hidden units


def test_correlations_are_numpys():
    random = np.random.default_rng(0)
    units, values = random.normal(size=(200, 7)), random.normal(size=200)
    units[:, 3] = 1.0
    result = correlations(units, values)
    expected = [np.corrcoef(units[:, unit], values)[0, 1] for unit in range(7) if unit != 3]
    assert np.delete(result, 3) == pytest.approx(expected) and np.isnan(result[3])


def test_properties_of_a_text():
    properties = properties_of(["a", " “b", "\n", "c", "”"], given=2)
    assert properties[QUOTES] == [0, 0, 0, 1, 1, 1, 0]
    assert properties[LINE] == [0, 0, 1, 4, 0, 1, 2]


class Planted(nn.Module):
    """Hidden unit 4 is whether a quote (id 3) is open, unit 2 what was read minus 5; the others are noise."""

    Config = FakeConfig

    def __init__(self, config):
        super().__init__()
        self.config = config

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 1)

    def forward(self, ids, state):
        return torch.zeros(*ids.shape, self.config.vocab_size), state

    def operations(self, ids, state):
        units = torch.randn(*ids.shape, 6, generator=torch.Generator().manual_seed(int(ids.sum())))
        units[..., 4] = ((ids == 3).cumsum(1) % 2) * 2.0 - 1
        units[..., 2] = -0.1 * torch.arange(ids.size(1))
        yield Operation(name="units", formula="", values=units, axes="B T H", kind="state")
        yield Operation(name="logits", formula="", values=self(ids, state)[0], axes="B T V")


def test_planted_units_are_found_on_held_out_texts():
    tokenizer = LetterTokenizer('a"b ')
    texts = [f'{"a" * (n % 5)} "{"b" * (n % 3 + 1)}" a{"b" * (n % 4)}"a' for n in range(12)]
    model = review_model(Planted(FakeConfig(vocab_size=tokenizer.vocab_size)).eval(), tokenizer)
    units = reviewgen.explain(model, 'a "b"', data=texts).models[0].units
    best = {unit.property: unit for unit in reversed(units)}
    assert (best[QUOTES].unit, best[QUOTES].correlation) == (4, pytest.approx(1.0))
    assert (best[LINE].unit, best[LINE].correlation) == (2, pytest.approx(-1.0))
    assert best[QUOTES].values == ((-1, -1, -1, 1, 1, -1),)
    noise = [unit for unit in units if unit.unit not in (2, 4)]
    assert noise and all(abs(unit.correlation) < 0.6 for unit in noise)


def test_a_unit_is_measured_on_other_texts_than_it_is_chosen_by():
    language_model = Planted(FakeConfig(vocab_size=6))
    chosen_by = [ReadText([0, 3, 4, 3, 2], {QUOTES: [0, 1, 1, 0, 0]}) for _ in range(3)]
    measured = [ReadText([0, 3, 4, 3, 2], {QUOTES: [1, 0, 0, 1, 1]}) for _ in range(3)]
    texts = [text for pair in zip(chosen_by, measured, strict=True) for text in pair]
    tokenizer = LetterTokenizer('a"bc')
    batch = make_batch(["a"], tokenizer, [], Labels(tokenizer, Conditions()))
    operations = list(language_model.operations(batch.ids, language_model.initial_state(1)))
    (first, *_) = find_units(language_model, texts, operations, batch, 1)
    assert (first.unit, first.correlation_chosen, first.correlation) == (4, pytest.approx(1.0), pytest.approx(-1.0))


def test_a_condition_is_a_property_and_is_not_given_to_the_model(monkeypatch):
    mood = Condition(name="mood", kind="category", values=(Value(label="good", share=0.5), Value(label="bad", share=0.5)))
    conditions = Conditions((mood,), first_id=V)
    language_model, read = Planted(FakeConfig(vocab_size=conditions.vocab_size)).eval(), []
    model = review_model(language_model, LETTERS)
    model.bundle.conditions = conditions
    operations = language_model.operations
    monkeypatch.setattr(
        language_model, "operations", lambda ids, state: read.append(ids) or operations(ids, state), raising=False
    )
    data = [{"review": "a" * (n + 1), "mood": "good" if n % 4 < 2 else "bad"} for n in range(8)]
    explanation = reviewgen.explain(model, "ab", conditions={"mood": "bad"}, data=data)
    assert explanation.tokens == (("(start)", "(mood bad)", "a", "b"),)
    assert {unit.property for unit in explanation.models[0].units} == {LINE, "mood good"}  # no text has quotes
    assert all((ids[:, 1] == V).all() for ids in read[1:])  # unspecified
    with pytest.raises(ConfigError, match="weather"):
        reviewgen.explain(model, "ab", conditions={"weather": "bad"})


# What has no trained weights


def test_a_model_without_weights_is_initialised_and_says_so():
    reviewgen.register_model("explainable", Nested)
    explanation = reviewgen.explain("explainable-char", "some text")
    assert not explanation.is_trained and "random" in explanation.notes[0]
    assert explanation.models[0].name == "explainable"
    again = reviewgen.explain("explainable-char", "some text")
    assert again.loss.mean == explanation.loss.mean
    reviewgen.register_model("uniformly", Uniform)
    (model,) = reviewgen.explain("uniformly-char").models
    assert model.parameters == 0 and [line.name for line in model.lines] == ["Uniform"]


class Uniform(Nested):
    """A model without parameters."""

    def __init__(self, config):
        nn.Module.__init__(self)
        self.config = config

    def forward(self, ids, state):
        return torch.zeros(*ids.shape, self.config.vocab_size), state


# Bad input


@pytest.mark.parametrize(
    ("text", "error"),
    [("", "empty"), ([], "empty"), (["a", ""], "empty"), (5, "int"), ([None], "NoneType"), (["a"] * 5, "At most 4")],
)
def test_a_text_that_cannot_be_explained(text, error):
    with pytest.raises(DataError, match=error):
        check_texts(text)


@pytest.mark.parametrize("kind", ["lstm", "ngram", "modules"])
def test_of_a_long_text_the_beginning_is_explained(kind):
    explanation = reviewgen.explain(review_model(make(kind), LETTERS), "a bad beach " * 8400)
    assert explanation.batch == (1, MAX_TOKENS) and len(explanation.texts[0]) == MAX_TOKENS
    assert "100,800 characters" in explanation.notes[0] and str(MAX_TOKENS) in explanation.notes[0]
    assert len(explanation.loss.tokens) == MAX_TOKENS
    assert len(json.dumps(explanation.facts())) < 200_000


def test_a_hook_or_a_module_that_raises_is_one_sentence():
    language_model = Nested(FakeConfig(vocab_size=V))
    language_model.step.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(BrokenPlugin, match=r"Nested cannot be explained.*ZeroDivisionError: division by zero") as caught:
        reviewgen.explain(review_model(language_model, LETTERS))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert not language_model.embedding._forward_hooks


def test_a_model_that_returns_no_pair_is_refused(monkeypatch):
    monkeypatch.setattr(Uniform, "forward", lambda self, ids, state: {"logits": ids})
    with pytest.raises(BrokenPlugin, match="Uniform must return a pair of logits"):
        reviewgen.explain(review_model(Uniform(FakeConfig(vocab_size=V)), LETTERS))


def test_damaged_weights_are_named():
    with pytest.raises(GenerationError, match="damaged"):
        reviewgen.explain(review_model(TableModel(table(V) * math.nan), LETTERS))


def test_a_token_of_probability_zero_is_infinite_bits_and_none_in_json():
    logits = table(V)
    logits[:, LETTERS.encode("b")] = -math.inf
    explanation = reviewgen.explain(review_model(TableModel(logits), LETTERS), "ab")
    assert explanation.loss.mean == explanation.loss.mean_of_cross_entropy == math.inf
    assert json.loads(json.dumps(explanation.facts(), allow_nan=False))["loss"]["mean"] is None


def test_scores_that_are_not_a_distribution_have_a_note():
    explanation = reviewgen.explain(review_model(ngram(smoothing="stupid-backoff"), LETTERS), TEXTS)
    assert "do not sum to one" in explanation.notes[0]
    assert not reviewgen.explain(review_model(ngram(smoothing="none"), LETTERS), TEXTS).notes


def test_other_wrong_arguments():
    model = review_model(make("lstm"), LETTERS)
    with pytest.raises(ConfigError, match="int"):
        reviewgen.explain(5)
    with pytest.raises(UnknownPlugin, match="no preset"):
        reviewgen.explain("lstm-chars-tiny")
    with pytest.raises(ConfigError, match="splitt"):
        reviewgen.explain(model, splitt="test")
    with pytest.raises(DataError, match="at least 4"):
        reviewgen.explain(model, data=["a", "b"])


# The page and the command

HOSTILE = "<script>alert(1)</script>"


def hostile_model():
    return review_model(recurrent(vocab_size=2 + len(set(HOSTILE))), LetterTokenizer("".join(sorted(set(HOSTILE)))))


def test_a_text_with_markup_is_escaped(tmp_path):
    explanation = reviewgen.explain(hostile_model(), HOSTILE)
    explanation.save_html(tmp_path / "page.html")
    for html in ((tmp_path / "page.html").read_text(encoding="utf-8"), explanation._repr_html_()):
        assert HOSTILE not in html and "&lt;script&gt;" in html and "http" not in html.replace("http-equiv", "")
    with pytest.raises(OutputExists):
        explanation.save_html(tmp_path / "page.html")
    with pytest.raises(StorageError, match="cannot be written"):
        explanation.save_html(tmp_path / "missing" / "page.html")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    os.environ["REVIEWGEN_CACHE"] = str(folder / "cache")
    model = reviewgen.train("gru-char", list(TEXTS) * 4, steps=2, model={"hidden_size": 6}, out=folder / "model")
    return folder / "model", model


def test_the_command(saved, tmp_path, monkeypatch, capsys):
    folder, model = saved
    status, output, _ = run_command(monkeypatch, capsys, "explain", folder, "--text", "bad cab", "--json")
    facts = json.loads(output)
    assert status == 0 and facts == json.loads(json.dumps(reviewgen.explain(model, "bad cab").facts())) | {"source": str(folder)}
    monkeypatch.setenv("COLUMNS", "80")
    page = tmp_path / "page.html"
    status, output, notes = run_command(
        monkeypatch, capsys, "explain", folder, "--text", "bad cab", "--html", page, "--tokens", 3
    )
    assert status == 0 and page.stat().st_size > 5000 and str(page) in notes
    assert max(map(len, output.splitlines())) <= 80
    for words in ("B=1 T=8 H=6", "reset gate", "by nn.CrossEntropyLoss", "... and 5 more tokens"):
        assert words in output
    assert f"{facts['loss']['bits_per_character']:.6f} bits" in output


def test_control_characters_of_a_text_do_not_reach_the_terminal(monkeypatch, capsys, saved):
    folder, _ = saved
    status, output, _ = run_command(monkeypatch, capsys, "explain", folder, "--text", "a\x1b[31mb\x9b2J", "--tokens", 99)
    assert status == 0 and "\x1b" not in output and "\x9b" not in output and "a [31mb 2J" in output


def test_what_is_left_out_is_counted(monkeypatch, capsys, saved):
    folder, _ = saved
    _, output, _ = run_command(monkeypatch, capsys, "explain", folder, "--text", "bad", "--tokens", 3)
    assert "1 text of 4 tokens" in output and "... and 1 more token;" in output


def test_a_character_that_the_tokenizer_does_not_know_is_shown_as_bytes(saved):
    (tokens,) = reviewgen.explain(saved[1], "bzé").tokens
    assert tokens[:2] == ("(start)", "b") and len(tokens) > 4 and set(tokens[2:]) == {"(byte)"}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("lstm-chars-x",), 1, "no preset"),
        (("gru-char", "--text", ""), 1, "empty"),
        (("gru-char", "--tokens", "0"), 2, "at least 1"),
        (("gru-char", "--html", "/missing/page.html"), 1, "cannot be written"),
        (("gru-char", "--html", "page.txt"), 2, ".html"),
        (("gru-char", "--condition", "mood"), 2, "name=value"),
    ],
)
def test_bad_input_of_the_command_is_one_sentence(words, status, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    given, output, message = run_command(monkeypatch, capsys, "explain", *words)
    assert (given, output) == (status, "")
    assert said in message and "Traceback" not in message and len(message.strip().splitlines()) == 1


VIEWS = [("units", width, scheme) for width in WIDTHS for scheme in SCHEMES]


@pytest.mark.parametrize(("kind", "width", "scheme"), [*VIEWS, ("blend", WIDTHS[0], SCHEMES[0])])
def test_a_browser_finds_no_fault_in_the_page(browser, tmp_path, kind, width, scheme):
    if kind == "units":
        data = ['"ab" ' + "c" * n for n in range(8)]
        explanation = reviewgen.explain(hostile_model(), [HOSTILE, "a" * 300], data=data)
    else:
        plugins = [Plugin("model", name, "reviewgen", "0") for name in ("lstm", "ngram")]
        blend = Blend.from_models([recurrent(Gru, layers=3, tied=True), ngram()], plugins, [0.3, 0.7])
        explanation = reviewgen.explain(review_model(blend, LETTERS), TEXTS)
    explanation.save_html(tmp_path / "page.html")
    assert problems(browser, tmp_path / "page.html", width, scheme) == []
