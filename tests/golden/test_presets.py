"""The trained weights that ship give the same files, texts and scores as when they were stored: a golden test.

``presets.json`` is written by ``python -m tests.golden.test_presets``. Digests are compared exactly, and scores
to five digits: their last bits depend on PyTorch's version and the processor, which are stored beside them. Where these are the
same, texts are compared exactly; on another processor a last bit can change a sampled token, so the texts of one call may differ.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import reviewgen
from reviewgen.registry import find_weights
from tests.golden.stored import arithmetic, read_stored, write_stored

NAMES = [f"{model}-{tokenizer}" for model in ("ngram", "nnlm", "rnn", "gru", "lstm", "blend") for tokenizer in ("char", "word")]
SLOW = ["nnlm-word", "rnn-char", "rnn-word", "gru-word", "lstm-char", "blend-word"]
REVIEWS = [
    "The movie was great, and so was the music.",
    "I did not like it at all: a très bad film.",
    "the worst of 1999\nand of 2000",
]
POSITIVE = {"sentiment": "positive"}
FOUR: dict[str, Any] = {"num_return_sequences": 4, "seed": 19, "max_new_tokens": 20}


def less_of_the_last(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """A logits processor that makes the last token less probable."""
    scores[0, ids[0, -1]] -= 5
    return scores


CALLS: dict[str, dict[str, Any]] = {
    "defaults": {"num_return_sequences": 3, "seed": 1},
    "prompts": {"prompt": ["The movie ", "I did not li", "Ça va "], "seed": 2, "max_new_tokens": 40},
    "filters": {"seed": 3, "temperature": [1.0, 0.6], "top_k": 40, "top_p": 0.9, "min_p": 0.02, "max_new_tokens": 60},
    "penalties": {
        "seed": 4,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 4,
        "min_new_tokens": 20,
        "max_new_tokens": 60,
        "temperature": 1.0,
    },
    "greedy": {"prompt": "The ", "do_sample": False, "max_new_tokens": 60},
    "beams": {"prompt": "The ", "num_beams": 4, "num_return_sequences": 2, "max_new_tokens": 20},
    "copies": {"prompt": "The best ", "seed": 5, "novelty": "filter", "temperature": 0.5, "max_new_tokens": 80},
    "words": {"seed": 6, "must_include": "film", "finish": "sentence", "max_new_tokens": 80, "stop_strings": ["xyz", "?"]},
    "several words": {"seed": 9, "must_include": ["the", "AND"], "max_new_tokens": 50},
    "any words": {
        "prompt": "The mov",
        "seed": 10,
        "words": "any",
        "finish": "anywhere",
        "temperature": 1.3,
        "max_new_tokens": 30,
    },
    "known words": {"prompt": "The mov", "seed": 10, "words": "known", "finish": "sentence", "max_new_tokens": 30},
    "conditions": {"seed": 11, "conditions": {"style": "snippet", "sentiment": "negative"}, "max_new_tokens": 30},
    "no conditions": {"seed": 11, "conditions": {"style": None}, "max_new_tokens": 30},
    "long beams": {
        "prompt": ["The ", "A"],
        "num_beams": 3,
        "length_penalty": 2.0,
        "repetition_penalty": 1.2,
        "max_new_tokens": 12,
    },
    "short beams": {"prompt": "The ", "num_beams": 3, "length_penalty": -2.0, "max_new_tokens": 12},
    "processor": {"seed": 13, "logits_processor": less_of_the_last, "max_new_tokens": 20},
    "criteria": {"seed": 14, "stopping_criteria": lambda ids, scores: ids.shape[1] > 12, "max_new_tokens": 30},
    "stopped": {"prompt": ["The ", "It is"], "seed": 15, "stop_strings": "e", "max_new_tokens": 30},
    "config": {"seed": 16, "generation_config": {"top_k": 5, "max_new_tokens": 20}, "temperature": 2.0},
    "nothing new": {"prompt": "The best ", "seed": 17, "max_new_tokens": 0},
}


def observe(name: str) -> dict[str, Any]:
    """Return everything that is compared of one preset, as JSON values."""
    model = reviewgen.load(name)
    texts = {call: model.generate(**settings) for call, settings in CALLS.items()}
    texts["eight bits"] = reviewgen.load(name, weight_bits=8).generate(seed=7, max_new_tokens=60)
    texts["sixteen bits"] = reviewgen.load(name, weight_bits=16).generate(seed=7, max_new_tokens=20)
    texts["streamed"] = ["".join(model.stream("The ", seed=18, max_new_tokens=30))]
    texts["from the third"] = [each.text for each in model.generate_each("I ", first=2, **FOUR)]
    walk = model.walk("The ", seed=20, conditions=POSITIVE)
    walk.draw(10)
    texts["walk"] = [walk.text]
    likeliest = model.next_tokens("The film is ", k=5)
    detailed = model.generate(seed=8, max_new_tokens=30, return_dict_in_generate=True)[0]
    scores = {
        "conditions": [model.score(text, given="It is", conditions=POSITIVE).bits for text in REVIEWS],
        "text": [score.bits for score in map(model.score, REVIEWS)],
        "corpus": [model.evaluate(REVIEWS, clean=False).bits_per_character],
        "next": [each.probability for each in likeliest.alternatives],
        "log probabilities": detailed.log_probabilities,
    }
    return {
        "digest": model.digest,
        "texts": texts,
        "tokens": [each.token for each in likeliest.alternatives],
        "windows": [list(model.novelty(text).windows.values()) for text in REVIEWS],
        "scores": {what: [float(value).hex() for value in values] for what, values in scores.items()},
    }


def numbers(scores: dict[str, list[str]]) -> Iterator[tuple[str, list[float]]]:
    for what, values in scores.items():
        yield what, [float.fromhex(value) for value in values]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Let torch compute with as many threads as when the scores were stored; other tests may have changed it."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NAMES])
def test_weights_texts_and_scores_are_as_stored(name: str):
    stored = read_stored("presets")
    expected, found = stored["presets"][name], json.loads(json.dumps(observe(name)))
    for what in ("digest", "tokens", "windows"):
        assert found[what] == expected[what], what
    others = [call for call, texts in expected["texts"].items() if found["texts"][call] != texts]
    assert len(others) <= (arithmetic() != stored["arithmetic"]), others
    for (what, before), (_, now) in zip(numbers(expected["scores"]), numbers(found["scores"]), strict=True):
        assert now == pytest.approx(before, rel=1e-5, abs=5e-6), what


def test_every_preset_with_weights_is_compared():
    assert {plugin.name for plugin in reviewgen.list_presets() if find_weights(plugin.name)} == set(NAMES)


if __name__ == "__main__":
    torch.set_num_threads(2)
    write_stored("presets", {"arithmetic": arithmetic(), "presets": {name: observe(name) for name in NAMES}})
