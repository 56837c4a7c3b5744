"""``reviewgen.explain``: its numbers against losses by hand, formulas, and brute force; and bad
input.
"""

import json
import math
from itertools import chain
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import reviewgen
from reviewgen.errors import (
    BrokenPlugin,
    ConfigError,
    DataError,
    GenerationError,
    OutputExists,
    StorageError,
    UnknownPlugin,
)
from tests.support.fakes import (
    LETTERS,
    FakeConfig,
    LetterTokenizer,
    TableModel,
    review_model,
    table,
)
from tests.support.ngrams import counted
from tests.support.plugin_models import make_blend, make_network

V = LETTERS.vocab_size
TEXTS = ("bad cab", "head a beach")
HOSTILE = "<script>alert(1)</script>"


def recurrent(name="lstm", **settings):
    return make_network(name, **{"vocab_size": V, "hidden_size": 6, "embedding_size": 4} | settings)


def ngram(**settings):
    return counted(
        (*TEXTS, "a bad beach", "cabbage", "a head", "aaa", "bab", "dada"), order=3, **settings
    )


class Scale(nn.Module):
    """A module that multiplies by a parameter of its own, and returns what is not a tensor beside
    it.
    """

    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return {"note": "odd", "values": [(x.long(), x * self.by)]}


class Silent(nn.Module):
    def forward(self, x):
        return None


class Nested(nn.Module):
    """A recurrent model of a third party: modules in modules, one called at each token, and a
    parameter of its own.
    """

    Config = FakeConfig

    def __init__(self, config=FakeConfig(vocab_size=V)):  # noqa: B008
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, 6)
        self.step = nn.Sequential(nn.Linear(12, 6), nn.Tanh())
        self.scale = Scale()
        self.silent = Silent()
        self.out = nn.Parameter(
            torch.randn(6, config.vocab_size, generator=torch.Generator().manual_seed(0))
        )

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 6)

    def forward(self, ids, state):
        rows = []
        for x in self.embedding(ids).unbind(1):
            state = self.step(torch.cat([x, state], dim=-1))
            rows.append(state)
        self.silent(state)
        return self.scale(torch.stack(rows, dim=1))["values"][0][1] @ self.out, state


class Wrapped(Nested):
    """The same with torch's own LSTM as a module, and torch's scaled dot product."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(6, 6, batch_first=True)
        self.head = nn.Linear(6, V)

    def forward(self, ids, state):
        # (B, heads, T, 3)
        x = self.layer(self.embedding(ids))[0].unflatten(-1, (2, 3)).transpose(1, 2)
        x = nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
        return self.head(x.transpose(1, 2).flatten(2)), state


MAKE = {
    "lstm": recurrent,
    "gru": lambda: recurrent("gru", layers=2),
    "nnlm": lambda: recurrent("nnlm", order=4),
    "transformer": lambda: transformer(),
    "ngram": ngram,
    "table": lambda: TableModel(table(V)),
    "modules": lambda: Nested().eval(),
}


@pytest.mark.parametrize("kind", MAKE)
def test_the_loss_is_the_sum_by_hand_and_both_of_torchs(kind):
    model = review_model(MAKE[kind](), LETTERS)
    loss = reviewgen.explain(model, TEXTS).loss
    total = 0.0
    count = 0
    for text in TEXTS:
        ids = torch.tensor([[0, *LETTERS.encode(text), 1]])
        logits, _ = model.model(ids[:, :-1], model.model.initial_state(1))
        for scores, target in zip(logits[0].tolist(), ids[0, 1:].tolist(), strict=True):
            total += math.log(math.fsum(map(math.exp, scores))) - scores[target]
            count += 1
    assert len(loss.tokens) == count == sum(map(len, TEXTS)) + 2
    assert (loss.nats, loss.mean) == pytest.approx((total, total / count), rel=1e-6)
    means = (loss.mean, loss.mean_of_nll_loss, loss.mean_of_cross_entropy)
    assert len({f"{value:.10f}" for value in means}) == 1
    scores = [model.score(text) for text in TEXTS]
    assert loss.bits_per_character == pytest.approx(
        sum(s.bits for s in scores) / sum(map(len, TEXTS)), rel=1e-5
    )
    tokens = chain.from_iterable(score.tokens for score in scores)
    assert [token.bits for token in loss.tokens] == pytest.approx(
        [token.bits for token in tokens], rel=1e-4, abs=1e-5
    )
    assert [token.token for token in loss.tokens[:8]] == [*"bad", "␣", *"cab", "(end)"]


def test_tokens_of_an_nnlm_have_the_window_that_it_sees():
    tokens = reviewgen.explain(review_model(MAKE["nnlm"](), LETTERS), TEXTS).loss.tokens
    assert [token.window for token in tokens[:3]] == [
        ("(before)", "(before)", "(start)"),
        ("(before)", "(start)", "b"),
        ("(start)", "b", "a"),
    ]


def test_the_lines_are_the_operations_of_the_model():
    language_model = recurrent()
    review = review_model(language_model, LETTERS)
    explanation = reviewgen.explain(review, "bad")
    (model,) = explanation.models
    ids = torch.tensor([[0, *LETTERS.encode("bad")]])
    operations = list(language_model.operations(ids, language_model.initial_state(1)))
    assert explanation.batch == (1, 4)
    for line, operation in zip(model.lines, operations, strict=True):
        values = operation.values.detach().double().numpy()
        assert (line.name, line.sizes, line.axes) == (
            operation.name,
            values.shape,
            tuple(operation.axes.split()),
        )
        assert (line.mean, line.spread) == pytest.approx((values.mean(), values.std()))
    assert model.parameters == sum(map(torch.Tensor.numel, language_model.parameters()))


def test_gates_have_the_mean_of_each_token():
    language_model = recurrent()
    ids = torch.tensor([[0, *LETTERS.encode("bad")]])
    [_, gate, *_] = language_model.operations(ids, language_model.initial_state(1))
    [model] = reviewgen.explain(review_model(language_model, LETTERS), "bad").models
    assert [gate.name for gate in model.gates] == ["input gate", "forget gate", "output gate"]
    assert model.gates[0].openings == (pytest.approx(gate.values[0].detach().numpy().mean(axis=1)),)


def transformer(**settings):
    sizes = {"vocab_size": V, "hidden_size": 8, "heads": 2, "layers": 2, "window": 5}
    return make_network("transformer", **(sizes | settings))


def test_heads_have_the_weights_of_each_token_that_they_read():
    model = transformer()
    ids = torch.tensor([[0, *LETTERS.encode("bad cab")]])
    operations = list(model.operations(ids, model.initial_state(1)))
    layers = [op.values for op in operations if op.kind == "attention"]
    explanation = reviewgen.explain(review_model(model, LETTERS), ["bad cab", "a"])
    first, second = explanation.models[0].attention
    assert first.heads == (
        "layer 1, head 1",
        "layer 1, head 2",
        "layer 2, head 1",
        "layer 2, head 2",
    )
    assert first.tokens == ("(start)", *"bad", "␣", *"cab") and second.tokens == ("(start)", "a")
    assert [len(row) for row in first.weights[0]] == [1, 2, 3, 4, 5, 5, 5, 5]
    assert first.weights[3][6] == pytest.approx(layers[1][0, 6, 1].tolist())
    assert first.weights[2][1] == pytest.approx(layers[1][0, 1, 0, -2:].tolist())
    assert [sum(row) for row in chain.from_iterable(second.weights)] == pytest.approx([1.0] * 8)
    [(token, weight), *_] = first.strongest(3, 6, count=5)
    assert weight == max(first.weights[3][6])
    assert token == first.tokens[2 + first.weights[3][6].index(weight)]
    assert explanation.heat_map() is first


def test_the_picture_of_heads_has_a_square_for_each_weight_and_is_escaped(tmp_path):
    tokenizer = LetterTokenizer("".join(sorted(set(HOSTILE))))
    model = transformer(vocab_size=tokenizer.vocab_size)
    explanation = reviewgen.explain(review_model(model, tokenizer), HOSTILE)
    attention = explanation.heat_map()
    attention.save(tmp_path / "heads.svg")
    root = ElementTree.parse(tmp_path / "heads.svg").getroot()
    cells = [each for each in root.iter() if "cell" in each.get("class", "")]
    drawn = chain.from_iterable(rows[:24] for rows in attention.weights)
    assert len(cells) == sum(weight >= 0.01 for weight in chain.from_iterable(drawn))
    assert "The first 24 tokens." in attention.to_svg()
    explanation.save_html(tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert HOSTILE not in html and html.count('class="reader"') == len(attention.tokens)
    assert "N is heads" in html and "layer 2, head 2" in html and "&lt; reads &lt;" in html
    facts = json.loads(json.dumps(explanation.to_dict(), allow_nan=False))
    assert set(facts["models"][0]["attention"][0]) == {"tokens", "heads", "weights"}


def test_a_model_of_one_layer_names_its_heads_alone():
    explanation = reviewgen.explain(review_model(transformer(layers=1), LETTERS), "bad")
    assert explanation.heat_map().heads == ("head 1", "head 2")


def test_padding_is_left_out():
    review = review_model(recurrent(), LETTERS)
    one, alone, both = (
        reviewgen.explain(review, texts).models[0] for texts in ("b", TEXTS[1], ["b", TEXTS[1]])
    )
    assert both.gates[0].openings[1] == pytest.approx(alone.gates[0].openings[0], abs=1e-6)
    tokens = len(TEXTS[1]) + 1
    mean = (2 * one.lines[1].mean + tokens * alone.lines[1].mean) / (2 + tokens)
    assert len(both.gates[0].openings[0]) == 2 and both.lines[1].mean == pytest.approx(mean)


def test_modules_are_followed_by_hooks():
    explanation = reviewgen.explain(review_model(Nested().eval(), LETTERS), TEXTS)
    b, t = explanation.batch
    lines = {line.name.partition(" (")[0]: line for line in explanation.models[0].lines}
    assert list(lines) == ["embedding", "step.0", "step.1", "silent", "scale", "the rest of Nested"]
    assert lines["step.0"].multiplications == b * t * 12 * 6 and lines["step.0"].calls == t
    assert lines["scale"].multiplications == b * t * 6 and lines["scale"].mean is not None
    rest = lines["the rest of Nested"]
    assert rest.multiplications == b * t * 6 * V and rest.axes == ("B", "T", "V")
    assert lines["silent"].sizes == () and lines["silent"].mean is None
    assert [line.parameters for line in lines.values()] == [V * 6, 12 * 6 + 6, 0, 0, 6, 6 * V]
    assert explanation.models[0].parameters == sum(line.parameters for line in lines.values())


def test_multiplications_of_an_lstm_and_of_attention_are_counted():
    (model,) = reviewgen.explain(review_model(Wrapped().eval(), LETTERS), "bad cab").models
    lines = {line.name: line for line in model.lines}
    t = len("bad cab") + 1
    assert lines["layer (LSTM)"].multiplications == t * (4 * (6 * 6 + 6 * 6) + 3 * 6)
    assert lines["layer (LSTM)"].parameters == 4 * (6 * 6 + 6 * 6 + 6 + 6)
    assert (
        model.multiplications - lines["layer (LSTM)"].multiplications == 2 * (t * t * 6) + t * 6 * V
    )


@pytest.mark.parametrize(
    "gate",
    [None, {"coefficients": [[0.1, 0.5, -0.3, 0.2, 0.0, 0.1], [0.0] * 6]}],
    ids=["fixed", "gated"],
)
def test_each_probability_of_a_blend_is_the_weighted_sum(gate):
    parts = [recurrent(), ngram()]
    model = review_model(make_blend(parts, ["lstm", "ngram"], [0.3, 0.7], gate), LETTERS)
    explanation = reviewgen.explain(model, TEXTS)
    assert [each.name for each in explanation.models] == ["lstm", "ngram"]
    alone = [reviewgen.explain(review_model(part, LETTERS), TEXTS).loss.tokens for part in parts]
    for mixed, token, first, second in zip(
        explanation.mixture, explanation.loss.tokens, *alone, strict=True
    ):
        assert sum(mixed.weights) == pytest.approx(1) and (
            gate or mixed.weights == pytest.approx((0.3, 0.7))
        )
        assert mixed.probabilities == pytest.approx(
            (first.probability, second.probability), rel=1e-5
        )
        expected = mixed.weights[0] * first.probability + mixed.weights[1] * second.probability
        assert (mixed.probability, token.probability) == pytest.approx(
            (expected, expected), rel=1e-5
        )
    assert (len({mixed.weights for mixed in explanation.mixture}) > 10) == bool(gate)
    assert explanation.models[0].gates and explanation.models[1].counts


@pytest.mark.slow
def test_conditions_are_tokens_and_a_model_without_weights_is_initialised(micro):
    model = micro("conditional")
    assert reviewgen.explain(model, "ab", conditions={"stars": "3"}).tokens[0][:2] == (
        "(start)",
        "(stars 3)",
    )
    with pytest.raises(ConfigError, match="weather"):
        reviewgen.explain(model, "ab", conditions={"weather": "bad"})
    reviewgen.register_model("explainable", Nested)
    explanation, again = (reviewgen.explain("explainable-char", "some text") for _ in range(2))
    assert (
        not explanation.is_trained
        and "random" in explanation.notes[0]
        and again.loss.mean == explanation.loss.mean
    )


@pytest.mark.wrong_types
def test_texts_and_arguments_that_cannot_be_explained_are_refused():
    model = review_model(recurrent(), LETTERS)
    for text, said in (
        ("", "empty"),
        ([], "empty"),
        (["a", ""], "empty"),
        (5, "int"),
        ([None], "NoneType"),
        (["a"] * 5, "At most 4"),
    ):
        with pytest.raises(DataError, match=said):
            reviewgen.explain(model, text)
    with pytest.raises(ConfigError, match="int"):
        reviewgen.explain(5)
    with pytest.raises(UnknownPlugin, match="no preset"):
        reviewgen.explain("lstm-chars-tiny")


def test_broken_models_are_named_and_improper_probabilities_are_shown(monkeypatch):
    raising = Nested()
    raising.step.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(
        BrokenPlugin, match=r"Nested with ids of shape \(2, \d+\) raises ZeroDivisionError"
    ):
        reviewgen.explain(review_model(raising, LETTERS))
    monkeypatch.setattr(Wrapped, "forward", lambda self, ids, state: {"logits": ids})
    with pytest.raises(BrokenPlugin, match="Wrapped must return a pair of logits"):
        reviewgen.explain(review_model(Wrapped(), LETTERS))
    with pytest.raises(GenerationError, match="damaged"):
        reviewgen.explain(review_model(TableModel(table(V) * math.nan), LETTERS))
    logits = table(V)
    logits[:, LETTERS.encode("b")] = -math.inf
    explanation = reviewgen.explain(review_model(TableModel(logits), LETTERS), "ab")
    assert explanation.loss.mean == explanation.loss.mean_of_cross_entropy == math.inf
    assert json.loads(json.dumps(explanation.to_dict(), allow_nan=False))["loss"]["mean"] is None
    backoff, none = (
        reviewgen.explain(review_model(ngram(smoothing=s), LETTERS), TEXTS)
        for s in ("stupid-backoff", "none")
    )
    assert "do not sum to one" in backoff.notes[0] and not none.notes


def test_a_page_is_escaped_and_not_replaced(tmp_path):
    letters = "".join(sorted(set(HOSTILE)))
    explanation = reviewgen.explain(
        review_model(recurrent(vocab_size=2 + len(letters)), LetterTokenizer(letters)), HOSTILE
    )
    explanation.save_html(tmp_path / "page.html")
    for html in ((tmp_path / "page.html").read_text(encoding="utf-8"), explanation._repr_html_()):
        assert (
            HOSTILE not in html
            and "&lt;script&gt;" in html
            and "http" not in html.replace("http-equiv", "")
        )
    with pytest.raises(OutputExists):
        explanation.save_html(tmp_path / "page.html")
    with pytest.raises(StorageError, match="cannot be written"):
        explanation.save_html(tmp_path / "missing" / "page.html")


def test_the_command_writes_json_a_page_and_a_table(
    micro, model_folder, tmp_path, monkeypatch, run_command
):
    folder = model_folder("gru-char")
    page = tmp_path / "page.html"
    facts = json.loads(json.dumps(reviewgen.explain(micro("gru-char"), "bad cab").to_dict())) | {
        "source": str(folder)
    }
    words = ("explain", folder, "--text", "bad cab")
    status, output, _ = run_command(*words, "--json")
    assert status == 0 and json.loads(output) == facts
    monkeypatch.setenv("COLUMNS", "80")
    status, output, notes = run_command(*words, "--html", page, "--tokens", 3)
    assert status == 0 and page.stat().st_size > 5000 and "page.html" in notes.replace("\n", "")
    assert max(map(len, output.splitlines())) <= 80
    said = (
        "B=1 T=8 H=8",
        "reset gate",
        "by nn.CrossEntropyLoss",
        "... and 5 more tokens",
        "1 text of 8 tokens",
    )
    assert all(each in output for each in said)
    assert f"{facts['loss']['bits_per_character']:.6f} bits" in output


def test_control_characters_of_a_text_are_not_printed(model_folder, run_command):
    folder = model_folder("gru-char")
    status, output, _ = run_command("explain", folder, "--text", "a\x1b[31mb\x9b2J", "--tokens", 99)
    assert status == 0 and "\x1b" not in output and "\x9b" not in output


def test_a_character_of_several_bytes_is_named_byte_by_byte(micro):
    (tokens,) = reviewgen.explain(micro("gru-char"), "b日").tokens
    assert tokens[:2] == ("(start)", "b") and len(tokens) > 4 and set(tokens[2:]) == {"(byte)"}


@pytest.mark.parametrize(
    "words, expected, said",
    [
        (("lstm-chars-x",), 1, "no preset"),
        (("gru-char", "--text", ""), 1, "empty"),
        (("gru-char", "--tokens", "0"), 2, "at least 1"),
        (("gru-char", "--html", "/missing/page.html"), 1, "cannot be written"),
        (("gru-char", "--html", "page.txt"), 2, ".html"),
        (("gru-char", "--condition", "mood"), 2, "name=value"),
    ],
)
def test_a_bad_call_of_the_command_is_one_sentence(
    words, expected, said, tmp_path, monkeypatch, run_command
):
    monkeypatch.chdir(tmp_path)
    status, output, message = run_command("explain", *words)
    assert (status, output) == (expected, "") and said in message and "Traceback" not in message
