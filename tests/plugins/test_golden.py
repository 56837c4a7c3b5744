"""The trained weights that ship give the same files, texts and scores as when they were stored: a golden test.

``golden/presets.json`` is written by ``python -m tests.plugins.test_golden``. Digests are compared exactly, and scores
to five digits: their last bits depend on PyTorch's version and the processor, which are stored beside them. Where these are the
same, texts are compared exactly; on another processor a last bit can change a sampled token, so the texts of one call may differ.
"""

import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from llvmlite.binding import get_host_cpu_name

import reviewgen
from reviewgen.registry import find_weights

STORED = Path(__file__).parent / "golden" / "presets.json"
NAMES = [f"{model}-{tokenizer}" for model in ("ngram", "nnlm", "rnn", "gru", "lstm", "blend") for tokenizer in ("char", "word")]
REVIEWS = [
    "The movie was great, and so was the music.",
    "I did not like it at all: a très bad film.",
    "the worst of 1999\nand of 2000",
]
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
}


def observe(name: str) -> dict[str, Any]:
    """Return everything that is compared of one preset, as JSON values."""
    model = reviewgen.load(name)
    texts = {call: model.generate(**settings) for call, settings in CALLS.items()}
    texts["eight bits"] = reviewgen.load(name, bits=8).generate(seed=7, max_new_tokens=60)
    likeliest = model.next_tokens("The film is ", k=5)
    detailed = model.generate(seed=8, max_new_tokens=30, return_dict_in_generate=True)[0]
    scores = {
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


def arithmetic() -> dict[str, str]:
    """Return what the last bits of a score depend on."""
    processor = {"machine": platform.machine(), "processor": get_host_cpu_name()}
    return processor | {"torch": torch.__version__, "instructions": torch.backends.cpu.get_cpu_capability()}


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


@pytest.mark.parametrize("name", NAMES)
def test_weights_texts_and_scores_are_as_stored(name: str):
    stored = json.loads(STORED.read_text(encoding="utf-8"))
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
    STORED.write_text(
        json.dumps({"arithmetic": arithmetic(), "presets": {name: observe(name) for name in NAMES}}, indent=1, ensure_ascii=False)
        + "\n",
        encoding="utf-8",
    )
