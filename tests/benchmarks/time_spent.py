"""PINNED: where the time of a training on film reviews goes: ``python -m tests.benchmarks.time_spent [BUDGET] [PRESET ...]``.

For each preset: the tokens seen with default settings and with two evaluations (target: at least 0.92 of them), the share of the
run that evaluations take (target: at most 8 %), the share of the time after reading that goes into training (target: at least
85 %), and the tokens per second of evaluating beside those of training (target: at least three times as many).
"""

import os
import sys
import tempfile
import time

import reviewgen
from reviewgen.evaluation import evaluate_documents, sample_documents
from tests.benchmarks.corpora import reviews

PRESETS = "lstm-word", "lstm-char", "gru-word"
CHARACTERS = 8_000_000
EVALUATED = 50_000  # tokens


def main(budget="60s", *presets) -> None:
    """Print the figures of each preset."""
    os.environ["REVIEWGEN_CACHE"] = tempfile.mkdtemp()
    texts = reviews(CHARACTERS)
    for preset in presets or PRESETS:
        reviewgen.train(preset, texts, steps=2, training={"threads": 1})  # tokenized, compiled
        seen = {}
        for name, training in (("default", {}), ("2 evaluations", {"evaluations": 2})):
            run = reviewgen.TrainingRun(preset, texts, budget=budget, training={"threads": 1} | training)
            run.read()
            run.tokenize()
            start = time.monotonic()
            last = list(run)[-1]
            model = run.finish()
            facts = model.training
            after_reading = time.monotonic() - start
            seen[name] = last.tokens
            print(
                f"{preset}, {name}: {last.tokens:,} tokens, {len(facts['evaluations'])} evaluations of "
                f"{facts['evaluations'][0]['tokens']:,} tokens, {facts['evaluation_seconds'] / facts['seconds']:.1%} of the run "
                f"(target <= 8 %), {1 - facts['evaluation_seconds'] / after_reading:.1%} of the time after reading trains "
                "(target >= 85 %)",
                flush=True,
            )
        print(f"{preset}: {seen['default'] / seen['2 evaluations']:.2f} of the tokens with two evaluations (target >= 0.92)")
        compare_rates(run, last)


def compare_rates(run, last) -> None:
    """Print how many tokens per second an evaluation scores, in 32 bits, beside those of training."""
    documents = sample_documents(run.stores["validation"], EVALUATED)
    model, tokens = run.finish().model, sum(len(ids) - 1 for ids, _ in documents)
    start = time.monotonic()
    evaluate_documents(model, documents, run.tokenizer.vocab_size)
    rate = tokens / (time.monotonic() - start)
    training = last.tokens / (last.seconds - last.evaluation_seconds)
    print(f"    evaluating {rate:,.0f} tokens/s, training {training:,.0f}: {rate / training:.1f} times (target >= 3)", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
