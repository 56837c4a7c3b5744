"""Nats per character of each char preset on the 2018 split, end tokens included, after three
minutes on the machine's cores, or after what is asked for (``python -m tests.benchmarks
quality_2018 30m``), with the size that the budget chooses; and of ``blend-char``, which trains both
in the same time.

Targets for lstm-char: 1.5526 or less on all held-out texts (the 2018 LSTM after 78 epochs); 1.30 on
the clean ones after 30 minutes on two cores, and 1.25 for blend-char. Forty training texts are kept
back for early stopping and the weights of the blend, so the split's own held-out texts are seen
once, at the end.
"""

import time

import reviewgen
from tests.benchmarks.corpora import split_2018

TARGETS = 1.5526, 1.30, 1.25
KEPT_BACK = 40


def main(budget="3m", *presets):
    """Print a line for each preset."""
    train, held_out, clean = split_2018()
    for preset in presets or ("ngram-char", "mixing-char", "lstm-char", "blend-char"):
        start = time.monotonic()
        model = reviewgen.train(
            preset,
            train[KEPT_BACK:],
            validation=train[:KEPT_BACK],
            budget=budget,
            lowercase=True,
            clean=False,
        )
        seconds = time.monotonic() - start
        every, new = (
            model.evaluate(texts, lowercase=True, clean=False).nats_per_character
            for texts in (held_out, clean)
        )
        print(
            f"{preset:12} {seconds:6.1f} s  all {every:.4f}  clean {new:.4f} nats per character "
            f" ({model.training['device']})",
            *model.training["notes"],
            model.training["verdict"]["words"],
            sep="\n    ",
            flush=True,
        )
    print(
        f"targets: lstm-char all {TARGETS[0]}; after 30 minutes lstm-char clean {TARGETS[1]},"
        f" blend-char clean {TARGETS[2]}"
    )
