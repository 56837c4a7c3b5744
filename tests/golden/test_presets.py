"""The trained weights that ship give the same files, texts and scores as when they were stored: a
golden test.

``presets.json`` is written by ``python -m tests.golden.test_presets``; ``calls.json`` has the
settings. Digests are compared exactly, and scores to five digits: their last bits depend on
PyTorch's version, its threads and the processor. On the stored processor and version texts are
compared exactly; elsewhere a last bit can change a token, so those of one call may differ.
"""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

import reviewgen
from reviewgen.config import to_dict
from reviewgen.registry.plugins import find_preset, find_weights
from tests.golden.stored import arithmetic, read_stored, write_stored

NAMES = [
    f"{model}-{tokenizer}"
    for model in ("ngram", "nnlm", "rnn", "gru", "lstm", "blend")
    for tokenizer in ("char", "word")
]
SLOW = ["nnlm-word", "rnn-char", "rnn-word", "gru-word", "lstm-char", "blend-word"]
REVIEWS = [
    "The movie was great, and so was the music.",
    "I did not like it at all: a très bad film.",
    "the worst of 1999\nand of 2000",
]
POSITIVE = {"sentiment": "positive"}


def less_of_the_last(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """A logits processor that makes the last token less probable."""
    scores[0, ids[0, -1]] -= 5
    return scores


CALLS: dict[str, dict[str, Any]] = read_stored("calls") | {
    "processor": {"seed": 13, "logits_processor": less_of_the_last, "max_new_tokens": 20},
    "criteria": {
        "seed": 14,
        "stopping_criteria": lambda ids, scores: ids.shape[1] > 12,
        "max_new_tokens": 30,
    },
}


def load(name: str, **options: Any) -> reviewgen.ReviewModel:
    """Return a preset with the defaults of 28 November 2026, so that its texts stay while the
    profile "reading" changes.

    Then a condition that was not given was unspecified.
    """
    model = reviewgen.load(name, **options)
    conditions = model.generation_config.conditions | {"sentiment": "any"}
    sampling = {"temperature": 0.7, "top_p": 1.0, "repetition_penalty": 1.0}
    model.bundle.generation = replace(model.generation_config, conditions=conditions, **sampling)
    return model


def observe(name: str) -> dict[str, Any]:
    """Return everything that is compared of one preset, as JSON values."""
    model = load(name)
    texts = {call: model.generate(**settings) for call, settings in CALLS.items()}
    texts["eight bits"] = load(name, weight_bits=8).generate(seed=7, max_new_tokens=60)
    texts["sixteen bits"] = load(name, weight_bits=16).generate(seed=7, max_new_tokens=20)
    texts["streamed"] = ["".join(model.stream("The ", seed=18, max_new_tokens=30))]
    last = model.generate_each("I ", first=2, num_return_sequences=4, seed=19, max_new_tokens=20)
    texts["from the third"] = [each.text for each in last]
    walk = model.walk("The ", seed=20, conditions=POSITIVE)
    walk.draw(10)
    texts["walk"] = [walk.text]
    likeliest = model.next_tokens("The film is ", k=5)
    detailed = model.generate(seed=8, max_new_tokens=30, return_dict_in_generate=True)[0]
    scores = {
        "conditions": [
            model.score(text, prompt="It is", conditions=POSITIVE).bits for text in REVIEWS
        ],
        "text": [score.bits for score in map(model.score, REVIEWS)],
        "corpus": [model.evaluate(REVIEWS, clean=False).bits_per_character],
        "next": [each.probability for each in likeliest.alternatives],
        "log probabilities": detailed.log_probabilities,
        "positive": [
            each.probabilities["positive"] for each in model.classify(REVIEWS, "sentiment")
        ],
        "probe": [row.share for row in reviewgen.probe(model, texts=0).rows],
    }
    return {
        "digest": model.digest,
        "texts": texts,
        "tokens": [each.token for each in likeliest.alternatives],
        "windows": [list(model.novelty(text).windows.values()) for text in REVIEWS],
        "scores": {
            what: [float(value).hex() for value in values] for what, values in scores.items()
        },
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NAMES]
)
def test_weights_texts_and_scores_are_as_stored(name: str):
    stored = read_stored("presets")
    expected = stored["presets"][name]
    found = json.loads(json.dumps(observe(name)))
    for what in ("digest", "tokens", "windows"):
        assert found[what] == expected[what], what
    others = [call for call, texts in expected["texts"].items() if found["texts"][call] != texts]
    assert len(others) <= (arithmetic() != stored["arithmetic"]), others
    for what, values in expected["scores"].items():
        now, before = (list(map(float.fromhex, each)) for each in (found["scores"][what], values))
        assert now == pytest.approx(before, rel=1e-5, abs=5e-6), what


def test_every_preset_with_weights_is_compared():
    assert {plugin.name for plugin in reviewgen.list_presets() if find_weights(plugin.name)} == set(
        NAMES
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_have_the_settings_of_their_preset(name: str):
    saved = to_dict(reviewgen.load(name).generation_config)
    assert saved == saved | dict(find_preset(name).generation_settings)


if __name__ == "__main__":
    write_stored(
        "presets", {"arithmetic": arithmetic(), "presets": {name: observe(name) for name in NAMES}}
    )
