"""PINNED: the web steppers of the shipped weights, in Node and in Chromium, on one core.

    python -m tests.benchmarks web_steppers                    all presets
    python -m tests.benchmarks.web_steppers lstm-word ...      some

For each preset, on 200 held-out reviews of at most 100 tokens each, fed whole: the largest difference of a logit from Python's
(target: below 1e-4), whether 100 greedy tokens are the same, the milliseconds until the tensors are prepared (target: below
1000), and tokens a second with a draw at temperature 1 (targets: lstm-word at least 150, ngram-char at least 5,000).
"""

import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import reviewgen
from reviewgen.data import DataConfig, read_examples
from reviewgen.registry import list_plugins
from tests.support.browser import launched
from tests.support.web_steppers import ask_browser, ask_node, greedy_in_python, logits_in_python, write_model

REVIEWS, TOKENS, GREEDY = 200, 100, 100


def held_out() -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        read = read_examples("reviews", Path(scratch), DataConfig(), split="test")
        return [text for text, _ in itertools.islice(read, REVIEWS)]


def largest_difference(folder: Path, expected: np.ndarray) -> float:
    found, is_possible = np.fromfile(folder / "logits.bin").reshape(expected.shape), np.isfinite(expected)
    assert np.array_equal(np.isfinite(found), is_possible)
    return float(np.abs(found[is_possible] - expected[is_possible]).max())


def measure(name: str, texts: list[str], browser: Any) -> None:
    model = reviewgen.load(name)
    stepper, tokenizer = model.bundle.weights.stepper(), model.tokenizer
    ids = [[tokenizer.bos_id, *tokenizer.encode(text)][:TOKENS] for text in texts]
    pieces, prompt = [[text] for text in ids], ids[0][:20]
    expected, greedy = logits_in_python(stepper, pieces), greedy_in_python(stepper, prompt, GREEDY)
    tokens = 200 if name.startswith("ngram") else 10  # short bursts: other work on the machine leaves some alone
    request = {
        "texts": pieces,
        "greedy": {"prompt": prompt, "count": GREEDY},
        "speed": {"prompt": prompt, "bursts": 100, "tokens": tokens},
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_model(Path(scratch) / "model", name.split("-")[0], model.model)
        for place, answer in ("Node", ask_node(folder, **request)), ("Chromium", ask_browser(browser, folder, **request)):
            print(
                f"{name:10}  {place:8}  difference {largest_difference(folder, expected):.1e}  greedy "
                f"{'equal' if answer['greedy'] == greedy else 'DIFFERS'}  prepared in {answer['milliseconds']:4.0f} ms  "
                f"{answer['tokensPerSecond']:7,.0f} tokens/s",
                flush=True,
            )


def main() -> None:
    texts = held_out()
    with launched() as browser:
        for name in sys.argv[1:] or sorted(plugin.name for plugin in list_plugins("weights")):
            measure(name, texts, browser)


if __name__ == "__main__":
    main()
