"""The web steppers beside the steppers in Python, with random weights in all settings; shipped
ones: ``tests/web``.
"""

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.node import run_node, why_no_node
from tests.support.plugin_models import (
    BOS,
    EOS,
    GIVEN,
    PLAIN,
    count_ngram,
    make_blend,
    make_network,
    train_mixing,
)
from tests.support.web_steppers import (
    Pieces,
    ask_node,
    logits_in_node,
    logits_in_python,
    write_model,
)

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(why_no_node() is not None, reason=why_no_node() or ""),
]

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4
GATE = {"coefficients": [[0.3, -1.2, 0.5, 0.1, -0.2, 0.3], [0, 0.4, 0, -0.1, 0, 0]]}


def count(
    vocab_size: int = 20, order: int = 4, smoothing: str = "kneser-ney", **settings: Any
) -> Any:
    """Return an n-gram of random texts, in which a few ids are frequent and the last ones never
    occur.
    """
    random = np.random.default_rng(0)
    texts = [
        2 + random.geometric(4 / vocab_size, random.integers(1, 40)) % (vocab_size - 4)
        for _ in range(200)
    ]
    return count_ngram(
        [[BOS, *ids, EOS] for ids in texts], vocab_size, order, smoothing, **settings
    )[0]


def blend(
    weights: tuple[float, float] = (0.4, 0.6),
    gate: dict[str, Any] | None = None,
    scale: float = 1.0,
) -> Any:
    """Return a blend of a recurrent model, whose logits are scaled, and an n-gram."""
    first = make_network("gru", vocab_size=20, hidden_size=24)
    with torch.no_grad():
        first.output.weight.mul_(scale)
    return make_blend([first, count(20, 3, "none")], ("gru", "ngram"), weights, gate)


LETTERS = "\0\0\n .,'abcdeABCDEèÈßδΣσ日本語木人" + "\U0001d54f"
"""The alphabet of the texts of ``mixing``; bos and eos have no character."""
NO_ADAPTATION = {"local_slots": 0, "adapt_weights": False}
MIXINGS: dict[str, dict[str, Any]] = {
    "all contexts": {},
    "few own slots": {"local_slots": 64},
    "fixed weights": {"adapt_weights": False},
    "no adaptation": NO_ADAPTATION,
    "one set of weights": {"gated": False, "maps": False},
    "no words": {"words": False, "sparse": False},
    "no alphabet": {"alphabet": ""},
    "rare counts dropped": {"min_count": 3},
    "conditions and fields": {"condition_ids": 3, "field_ids": 3},
    "the training text": {"keep_text": True},
    "the training text, no adaptation": {"keep_text": True, **NO_ADAPTATION},
    "many symbols": {"vocab_size": 400},
    "an expert": {"expert": True, "condition_ids": 3},
    "an expert, fixed weights": {"expert": True, "adapt_weights": False},
    "an expert, no adaptation": {"expert": True, **NO_ADAPTATION},
}


def write_texts(
    vocab_size: int, condition_ids: int = 0, field_ids: int = 0, seed: int = 0
) -> list[list[int]]:
    """Return texts of few words, so that they repeat themselves and one another."""
    random = np.random.default_rng(seed)
    words = np.random.default_rng(5).integers(7, vocab_size - condition_ids - field_ids, (40, 9))
    texts = []
    for _ in range(30):
        text = [BOS, *(vocab_size - 1 - random.permutation(condition_ids + field_ids)[:2])]
        for number in random.geometric(0.1, random.integers(1, 60)):
            word = words[number % 40]
            text += [*word[: 1 + word[0] % 8], *random.choice([2, 3, 3, 4, 5, 6], 1 + number % 2)]
        texts.append([*map(int, text), EOS])
    return texts


def mixing(expert: bool = False, **settings: Any) -> Any:
    """Return a mixing model; with an expert, a blend in which it mixes a gru in."""
    given = {name: settings.get(name, 0) for name in ("condition_ids", "field_ids")}
    vocab_size = settings.pop("vocab_size", len(LETTERS)) + sum(given.values())
    settings = {"alphabet": LETTERS, "local_slots": 256} | settings
    model = train_mixing(write_texts(vocab_size, **given), vocab_size, **settings)
    if not expert:
        return model
    gru = make_network("gru", vocab_size=vocab_size, hidden_size=24, bos_id=BOS, **given)
    pairs = []
    for text in write_texts(vocab_size, **given, seed=1)[:3]:
        ids = np.array([text])
        with torch.no_grad():
            logits, _ = gru(torch.from_numpy(ids), gru.initial_state(1))
        pairs.append((ids[0], logits[0].log_softmax(-1).numpy()))
    return make_blend([gru, model.fit_expert(pairs)], ("gru", "mixing"), (1.0, 0.0))


MODELS: dict[str, tuple[str, Any]] = {
    "rnn, relu, many n-grams": (
        "rnn",
        {"activation": "relu", "ngrams": 16, "ngram_buckets": 1, "layers": 3, "hidden_size": 24},
    ),
    "gru, tied, n-grams": (
        "gru",
        {"hidden_size": 24, "embedding_size": 24, "tied": True, "ngrams": 3, "ngram_buckets": 50},
    ),
    "gru, relu, zoneout": (
        "gru",
        {"activation": "relu", "zoneout": 0.3, "hidden_size": 24, "layers": 2},
    ),
    "lstm, zoneout, n-grams": (
        "lstm",
        {"zoneout": 0.3, "hidden_size": 24, "layers": 2, "ngrams": 3, "ngram_buckets": 50},
    ),
    "lstm, relu, projected": (
        "lstm",
        {"activation": "relu", "tied": True, "vocab_size": 300, "hidden_size": 24},
    ),
    "rnn, held": ("rnn", {"hidden_size": 24, **GIVEN}),
    "lstm, tied, n-grams, held": (
        "lstm",
        {"tied": True, "hidden_size": 24, "ngrams": 3, "ngram_buckets": 50, **GIVEN},
    ),
    "lstm, pointer, tied, n-grams, held": (
        "lstm",
        {
            "pointer": 4,
            "tied": True,
            "hidden_size": 24,
            "ngrams": 3,
            "ngram_buckets": 50,
            **GIVEN,
        },
    ),
    "gru, pointer": ("gru", {"pointer": 30, "hidden_size": 24, "layers": 2}),
    "transformer, short window": ("transformer", {"hidden_size": 24, "heads": 2, "window": 5}),
    "transformer, window of one": (
        "transformer",
        {"hidden_size": 24, "heads": 3, "window": 1, "layers": 2},
    ),
    "transformer, shared keys, n-grams, held": (
        "transformer",
        {
            "hidden_size": 32,
            "heads": 4,
            "key_value_heads": 2,
            "rms_norm_eps": 0.01,
            "rope_theta": 100.0,
            "ngrams": 3,
            "ngram_buckets": 50,
            **GIVEN,
        },
    ),
    "nnlm, held": ("nnlm", GIVEN),
    "nnlm of order 20": ("nnlm", {"activation": "relu", "order": 20, "hidden_size": 37}),
    **{
        f"ngram of order {order}": ("ngram", lambda order=order: count(order=order))
        for order in (1, 2, 9)
    },
    **{
        f"ngram, {s}": ("ngram", lambda s=s: count(smoothing=s))
        for s in ("absolute", "witten-bell", "stupid-backoff", "none")
    },
    "ngram, rounded": ("ngram", lambda: count(smoothing="witten-bell", quantized=True)),
    "ngram, ids of 16 bits": ("ngram", lambda: count(400)),
    "ngram, ids of 32 bits": ("ngram", lambda: count(40_000, quantized=True)),
    "blend": ("blend", blend),
    "blend with a gate": ("blend", lambda: blend(gate=GATE)),
    "blend of tiny probabilities": ("blend", lambda: blend(scale=2000)),
    "blend of a blend": (
        "blend",
        lambda: make_blend([blend(), make_network("nnlm", vocab_size=20)], ("blend", "nnlm")),
    ),
}


def some_texts(vocab_size: int) -> list[Pieces]:
    """Return random texts; the first is fed token by token, the others in two pieces."""
    texts = np.random.default_rng(1).integers(0, vocab_size, (8, 12)).tolist()
    return [
        [[token] for token in texts[0]],
        *([text[:cut], text[cut:]] for cut, text in enumerate(texts[1:], 1)),
    ]


def compare(found: np.ndarray, expected: np.ndarray) -> None:
    is_possible = np.isfinite(expected)
    assert found.shape == expected.shape and is_possible.any()
    assert (
        np.array_equal(np.isfinite(found), is_possible) and (found[~is_possible] == -np.inf).all()
    )
    np.testing.assert_allclose(found[is_possible], expected[is_possible], atol=TOLERANCE, rtol=1e-5)


@pytest.mark.parametrize("which", MODELS)
def test_logits_are_those_of_python(which, tmp_path):
    name, made = MODELS[which]
    model = made() if callable(made) else make_network(name, **made)
    vocab_size = model.config.vocab_size
    texts = some_texts(vocab_size)
    expected = logits_in_python(model.stepper(), texts)
    assert which != "blend of tiny probabilities" or expected[np.isfinite(expected)].min() < -800
    compare(logits_in_node(write_model(tmp_path, name, model), texts, vocab_size), expected)


@pytest.mark.parametrize("which", MIXINGS)
def test_a_mixing_model_predicts_as_in_python(which, tmp_path):
    """float32 rounds a probability near 1, so the logits of improbable symbols are compared as
    probabilities.
    """
    model = mixing(**MIXINGS[which])
    vocab_size = model.config.vocab_size
    given = {name: MIXINGS[which].get(name, 0) for name in ("condition_ids", "field_ids")}
    texts = write_texts(vocab_size, **given, seed=2)
    one_by_one = [[token] for token in chain.from_iterable(texts[:4])]
    pieces = [one_by_one, *([text[:cut], text[cut:]] for cut, text in enumerate(texts[4:9], 1))]
    name = "blend" if "expert" in MIXINGS[which] else "mixing"
    expected = logits_in_python(model.stepper(), pieces)
    found = logits_in_node(write_model(tmp_path, name, model), pieces, vocab_size)
    is_probable = expected > -7
    compare(np.where(is_probable, found, -np.inf), np.where(is_probable, expected, -np.inf))
    assert np.abs(np.exp(found) - np.exp(expected)).max() < TOLERANCE
    assert np.array_equal(np.isfinite(found), np.isfinite(expected)) and len(expected) > 500


@pytest.mark.parametrize(
    "settings", [{}, {"smoothing": "none"}, {"quantized": True}, {"order": 1}], ids=str
)
def test_an_ngram_proposes_the_token_of_a_random_number(settings, tmp_path):
    model = count(**settings)
    random = np.random.default_rng(2)
    stepper = model.stepper()
    texts = random.integers(0, 20, (600, 3))
    numbers = random.random((600, 1))
    numbers[:20] = 0
    numbers[20:40] = 1 - 2**-53
    logits, state = stepper.forward(texts, stepper.initial_state(600))
    uniform = np.pad(numbers, ((0, 0), (0, 31)), constant_values=0.5)
    expected, _, _ = stepper.sample(
        state, uniform, PLAIN._replace(vocab_size=20), texts[:, :0], np.zeros(600, np.int64)
    )
    folder = write_model(tmp_path, "ngram", model)
    answer = ask_node(
        folder, proposals={"texts": texts.tolist(), "numbers": numbers[:, 0].tolist()}
    )
    tokens, probabilities = np.array(answer["proposed"]).T
    proposed = np.flatnonzero(tokens >= 0)  # for the largest number, rounding may leave no token
    assert set(range(600)) - set(proposed) <= set(range(20, 40)) and (expected[:, 0] >= 0).all()
    assert np.array_equal(tokens[proposed], expected[proposed, 0]) and len(set(tokens)) > 5
    assert (
        np.abs(probabilities - np.exp(logits[np.arange(600), tokens.astype(int)]))[proposed].max()
        < 1e-6
    )


@dataclass(frozen=True, kw_only=True)
class BigramConfig:
    """The config of the example in the documentation."""

    vocab_size: int
    scale: float


def test_the_stepper_of_the_documentation(tmp_path):
    source = (
        (ROOT / "docs/plugins/web-stepper.md")
        .read_text(encoding="utf-8")
        .split("```js\n")[1]
        .split("```")[0]
    )
    table: Any = torch.nn.Embedding(11, 11)
    table.config = BigramConfig(vocab_size=11, scale=2.0)
    table.state_dict = lambda: {"table.weight": table.weight}
    table.weight.requires_grad_(False)
    found = logits_in_node(
        write_model(tmp_path, "bigram", table, {"bigram": source}), [[[3, 1, 4], [1]]], 11
    )
    np.testing.assert_allclose(found, 2 * table.weight[[4, 1]])


STATES = """
import { readFileSync } from "node:fs";
STEPPERS
const read = (name) => readFileSync(`${process.argv[2]}/${name}`);
const buffer = new Uint8Array(read("tensors.bin")).buffer;
const [sources, model] = ["sources.json", "model.json"].map((name) => JSON.parse(read(name)));
const stepper = await makeStepper(sources, model, buffer);
const first = stepper.forward([0, 3, 2], stepper.initialState());
const kept = [JSON.stringify(first.state), first.logits.slice()];
const one = stepper.forward([4], first.state).logits;
const other = stepper.forward([5, 6], first.state).logits;
const again = stepper.forward([4], first.state).logits;
const same = (a, b) => a.length === b.length && a.every((value, id) => Object.is(value, b[id]));
const isKept = [JSON.stringify(first.state) === kept[0], same(first.logits, kept[1])];
console.log(same(one, again) && !same(one, other), ...isKept);
"""


@pytest.mark.parametrize(
    "name", ["ngram", "nnlm", "rnn", "gru", "lstm", "pointer", "transformer", "blend", "mixing"]
)
def test_a_state_is_a_value(name, tmp_path):
    made = {
        "ngram": count,
        "blend": blend,
        "mixing": mixing,
        "pointer": lambda: make_network("lstm", vocab_size=20, hidden_size=8, pointer=3),
    }
    model = made.get(name, lambda: make_network(name, vocab_size=20, hidden_size=8))()
    script = tmp_path / "states.mjs"
    write_model(tmp_path / "model", "lstm" if name == "pointer" else name, model)
    script.write_text(
        STATES.replace(
            "STEPPERS", (ROOT / "tests/support/javascript/steppers.js").read_text(encoding="utf-8")
        )
    )
    assert run_node(script, str(tmp_path / "model")).strip() == "true true true"


ATTENTION = """
import { readFileSync } from "node:fs";
STEPPERS
const read = (name) => readFileSync(`${process.argv[2]}/${name}`);
const buffer = new Uint8Array(read("tensors.bin")).buffer;
const [sources, model] = ["sources.json", "model.json"].map((name) => JSON.parse(read(name)));
const stepper = await makeStepper(sources, model, buffer);
const { attention } = stepper.forward([0, 3, 2, 7, 5, 3, 2], stepper.initialState());
console.log(JSON.stringify(attention.map((heads) => heads.map((weights) => [...weights]))));
"""


@pytest.mark.parametrize("window", [4, 9])
def test_the_weights_of_heads_are_those_that_explain_shows(window, tmp_path):
    model = make_network("transformer", hidden_size=24, heads=3, window=window)
    script = tmp_path / "attention.mjs"
    write_model(tmp_path / "model", "transformer", model)
    helpers = (ROOT / "tests/support/javascript/steppers.js").read_text(encoding="utf-8")
    script.write_text(ATTENTION.replace("STEPPERS", helpers))
    found = np.array(json.loads(run_node(script, str(tmp_path / "model"))))
    ids = torch.tensor([[0, 3, 2, 7, 5, 3, 2]])
    with torch.no_grad():
        operations = list(model.operations(ids, model.initial_state(1)))
    layers = [op.values[0, -1] for op in operations if op.kind == "attention"]
    expected = torch.stack(layers)[..., -found.shape[-1] :]
    assert found.shape == (4, 3, min(window, 7))
    np.testing.assert_allclose(found, expected, atol=1e-5)
