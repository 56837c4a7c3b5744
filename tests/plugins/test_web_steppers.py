"""The web steppers beside the steppers in Python, with random weights in all settings; shipped
ones: ``tests/web``.
"""

from dataclasses import dataclass
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


@pytest.mark.parametrize("name", ["ngram", "nnlm", "rnn", "gru", "lstm", "blend"])
def test_a_state_is_a_value(name, tmp_path):
    model = {"ngram": count, "blend": blend}.get(name, lambda: make_network(name, vocab_size=20))()
    script = tmp_path / "states.mjs"
    write_model(tmp_path / "model", name, model)
    script.write_text(
        STATES.replace(
            "STEPPERS", (ROOT / "tests/support/javascript/steppers.js").read_text(encoding="utf-8")
        )
    )
    assert run_node(script, str(tmp_path / "model")).strip() == "true true true"
