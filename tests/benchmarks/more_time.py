"""PINNED: more time, never a worse model: held-out bits per character after 20, 40, 80, 160 and 320 seconds of one thread.

``python -m tests.benchmarks.more_time [SEEDS] [CORPUS ...]``: for each corpus and preset the median over the seeds. Targets: each
budget at most 0.004 bits above the one before, and at most 0.90 for lstm-word after 320 s on 2,000 captions. The corpora are
2,000 music captions (0.6 MB), the training texts of the 2018 split (1.1 MB) and film reviews (8 MB); every tenth text is held
out, for every run the same.
"""

import gzip
import json
import statistics
import sys

import reviewgen
from tests.benchmarks.corpora import SHARED, reviews, split_2018

BUDGETS = 20, 40, 80, 160, 320
PRESETS = "lstm-word", "lstm-char", "gru-word"
TOLERANCE = 0.004


def captions(count: int = 2000) -> list[str]:
    """Return the first music captions."""
    with gzip.open(SHARED / "data" / "musiccaps.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line, _ in zip(file, range(count), strict=False)]


CORPORA = {"captions": captions, "2018": lambda: split_2018()[0], "film reviews": lambda: reviews(8_000_000)}


def main(seeds="1", *corpora) -> None:
    """Print a line for each corpus, preset and budget."""
    for corpus in corpora or CORPORA:
        texts = CORPORA[corpus]()
        for preset in PRESETS:
            reviewgen.train(preset, texts, steps=2, training={"threads": 1})  # tokenized, compiled
            before, held_out = None, texts[::10]
            rest = [text for number, text in enumerate(texts) if number % 10]
            for budget in BUDGETS:
                trained = [train(preset, rest, budget, seed) for seed in range(int(seeds))]
                bits = statistics.median(model.evaluate(held_out).bits_per_character for model in trained)
                change = "" if before is None else f"{bits - before:+.4f} {'MISSED' * (bits - before > TOLERANCE)}"
                facts = trained[-1].training
                print(
                    f"{corpus:14} {preset:10} {budget:4} s  {bits:.4f} bits per character  {change:16} "
                    f"{facts['tokens_seen']:,} tokens in {facts['seconds']:.0f} s, {trained[-1].model.config.hidden_size} units, "
                    f"{facts['stopped']}",
                    flush=True,
                )
                before = bits


def train(preset, texts, budget, seed):
    """Return a model after a budget of seconds."""
    return reviewgen.train(preset, texts, budget=budget, seed=seed, training={"threads": 1})


if __name__ == "__main__":
    main(*sys.argv[1:])
