"""Steps of generation on the accelerator: what the CPU computes, for a row and for thousands of
rows at once.
"""

import copy
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen.compiled import SamplingParams
from reviewgen.config import GenerationConfig
from reviewgen.generation.generator import Generator
from reviewgen.generation.model_stepper import DeviceStepper, ModelStepper, make_stepper
from reviewgen.generation.request import Request
from reviewgen.registry.plugins import find_model
from tests.support.fakes import LETTERS, TableModel
from tests.support.ngrams import LOOP, indexed, looping
from tests.support.places import EACH_PLACE

pytestmark = pytest.mark.device

DEVICE_OF = {"cpu": "cpu:0"} | {place: place for place in ("cuda", "mps", "xpu")}
"""The device at a place. The CPU by its number is a device like any other: no stepper of a plugin
is used.
"""


@pytest.mark.parametrize("rows", [1, 4096])
@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "nnlm"])
@pytest.mark.parametrize("place", EACH_PLACE)
def test_a_step_of_many_rows_is_that_of_the_cpu(place, name, rows):
    torch.manual_seed(0)
    kind, _ = find_model(name)
    model = kind(kind.Config(vocab_size=50)).eval()
    ids = np.random.default_rng(0).integers(0, 50, (rows, 3))
    stepper = ModelStepper(model, "cpu")
    expected, _ = stepper.forward(ids[:64], stepper.initial_state(len(ids[:64])))  # (64, V)
    on_device = ModelStepper(model.to(place), place)
    logits, state = on_device.forward(ids[:, :2], on_device.initial_state(rows))
    logits, _ = on_device.forward(ids[:, 2:], state)  # the state goes to the host and back
    assert logits.shape == (rows, 50) and logits.dtype == np.float32
    # TF32
    np.testing.assert_allclose(logits[:64], expected, rtol=0, atol=1e-5 if place == "cpu" else 5e-3)


def untrained(name: str = "lstm", **settings: int) -> Any:
    """Return a model whose tokens are far from equally probable."""
    torch.manual_seed(0)
    kind, _ = find_model(name)
    model = kind(kind.Config(vocab_size=50, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3
    return model


def params(**changes: Any) -> SamplingParams:
    off: dict[str, Any] = {
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
    }
    sizes = {"min_new_tokens": 0, "max_new_tokens": 40, "eos_id": 1, "bos_id": 0, "vocab_size": 48}
    return SamplingParams(
        **({"temperatures": np.array([1.0, 0.5]), "is_greedy": False} | off | sizes | changes)
    )


def sample_blocks(
    stepper: Any, settings: SamplingParams, rows: int, sizes: list[int]
) -> np.ndarray:
    """Sample blocks of tokens after one token of each row; return them as (B, N)."""
    uniform = np.random.default_rng(1).random((rows, sum(sizes)))
    ids = 2 + np.arange(rows)[:, None] % 40
    _, state = stepper.forward(ids, stepper.initial_state(rows))
    blocks: list[np.ndarray] = []
    for size in sizes:
        begun = sum(block.shape[1] for block in blocks)
        texts = np.concatenate([ids, *blocks], axis=1)
        block, used, state = stepper.sample(
            state, uniform[:, begun : begun + size], settings, texts, np.full(rows, begun)
        )
        assert (used == (block != -1).sum(1)).all()
        # a row that has ended is removed by the caller; here it goes on, and is looked at no more
        if blocks:
            block[
                (blocks[-1][:, -1:] == -1).ravel() | (np.concatenate(blocks, axis=1) == 1).any(1)
            ] = -1
        blocks.append(block)
    return np.concatenate(blocks, axis=1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"top_p": 0.8, "repetition_penalty": 1.2},
        {"no_repeat_ngram_size": 2, "min_new_tokens": 30},
        {"is_greedy": True},
    ],
    ids=["plain", "top-p", "n-grams", "greedy"],
)
@pytest.mark.parametrize("place", EACH_PLACE)
def test_blocks_of_tokens_are_those_of_the_compiled_loop(place, changes):
    model = untrained()
    settings = params(**changes)
    # the plugin's own loop, in numba
    expected = sample_blocks(make_stepper(model), settings, 100, [40])
    blocks = sample_blocks(
        DeviceStepper(copy.deepcopy(model).to(place), place), settings, 100, [40]
    )
    agreeing = (blocks == expected).all(1).mean()
    # a token in a thousand may fall on the other side of a boundary
    assert agreeing == 1 if place == "cpu" else agreeing > 0.8
    assert (expected == 1).any(1).mean() > (0.1 if not changes else -1)  # some rows end


@pytest.mark.parametrize("place", EACH_PLACE)
def test_blocks_complete_no_copied_span(place):
    model = looping()
    index = indexed(model, LOOP).bundle.index
    request = Request(
        [""] * 100, GenerationConfig(max_new_tokens=40), 0, novelty="filter", max_copy=3
    )
    expected = list(Generator(ModelStepper(model), LETTERS, index=index).generate(request))
    rows = list(
        Generator(
            DeviceStepper(TableModel(model.table.to(place)), place), LETTERS, index=index
        ).generate(request)
    )
    # a table is exact on any device
    assert [row.ids for row in rows] == [row.ids for row in expected]
    assert [row.finish_reason for row in rows] == [row.finish_reason for row in expected]
    for row in (row for row in rows if not row.exceeds_limit):
        spans = {tuple(row.ids[start : start + 4]) for start in range(len(row.ids) - 3)}
        assert not any(LETTERS.decode(span) in "\n".join(LOOP) for span in spans)


@pytest.mark.parametrize("place", EACH_PLACE)
@pytest.mark.parametrize(
    "options",
    [{}, {"words": "any", "finish": "anywhere"}, {"stop_strings": ["th"]}, {"prompt": "My b"}],
    ids=["defaults", "any words", "stop strings", "prompt"],
)
def test_a_model_on_a_device_generates_what_it_does_on_the_cpu(place, options):
    model = reviewgen.load("gru-char")
    arguments: Any = {"seed": 3, "num_return_sequences": 70, "max_new_tokens": 40, **options}
    expected = model.generate(**arguments)
    model.bundle.weights.to(DEVICE_OF[place])
    equal = np.mean(
        [one == two for one, two in zip(model.generate(**arguments), expected, strict=True)]
    )
    assert equal > (0.95 if place == "cpu" else 0.8)


@pytest.mark.parametrize("place", EACH_PLACE)
def test_a_model_on_a_device_scores_as_on_the_cpu(place):
    model = reviewgen.load("gru-word")
    texts = ["a record of two halves", "My favourite track is the last one.", "x"]
    evaluation = model.evaluate(texts)
    score = model.score("two halves", "of ")
    walked = model.next_tokens("the first", k=3)
    model.bundle.weights.to(DEVICE_OF[place])
    assert model.device == DEVICE_OF[place]
    near = pytest.approx(1, abs=1e-5 if place == "cpu" else 1e-2)
    assert model.evaluate(texts).bits_per_character / evaluation.bits_per_character == near
    assert model.score("two halves", "of ").bits / score.bits == near
    assert [each.text for each in model.next_tokens("the first", k=3).alternatives] == [
        each.text for each in walked.alternatives
    ]


@pytest.mark.parametrize("place", EACH_PLACE)
def test_weights_that_change_on_a_device_are_read_anew(place):
    model = reviewgen.load("gru-word")
    texts = ["a record of two halves", "My favourite track is the last one.", "x"]
    model.bundle.weights.to(DEVICE_OF[place])
    model.evaluate(texts)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.zero_()  # the copy on the device is made anew
    assert model.evaluate(texts).perplexity_per_token == pytest.approx(
        model.tokenizer.vocab_size, rel=0.05
    )
    assert model.to("cpu").device == "cpu"
