"""Nats per character of each char preset on the 2018 split, end tokens included, after three minutes on the machine's cores; and
of their blend, whose weights are fitted on the part of the training texts that early stopping looks at.

Target: lstm-char at 1.5526 or less on all held-out texts (the 2018 LSTM after 78 epochs). The texts that early stopping looks
at are held out of the training texts, so the split's own held-out texts are seen once, at the end.
"""

import sys
import time

import reviewgen
from tests.benchmarks.corpora import split_2018

TARGET = 1.5526


def main(presets=("lstm-char", "ngram-char"), budget="3m"):
    """Print a line for each preset."""
    train, held_out, clean = split_2018()
    models = []
    for preset in presets:
        start = time.monotonic()
        model = reviewgen.train(preset, train, budget=budget, lowercase=True, clean=False)
        seconds = time.monotonic() - start
        models.append(model)
        figures = measure(model, held_out, clean)
        threads = f"{model.training['threads']} threads, {model.training['device']}"
        print(
            f"{preset:12} {seconds:6.1f} s  all {figures[0]:.4f}  clean {figures[1]:.4f} nats per character  ({threads})",
            flush=True,
        )
    print(f"target for lstm-char on all: {TARGET}")
    if len(models) > 1:
        blend = reviewgen.blend(models, data=train, split="validation", lowercase=True, clean=False)
        figures, weights = measure(blend, held_out, clean), ", ".join(f"{weight:.2f}" for weight in blend.model.config.weights)
        print(f"blend, weights {weights}: all {figures[0]:.4f}  clean {figures[1]:.4f} nats per character", flush=True)


def measure(model, *sources) -> list[float]:
    """Return the nats per character of each source."""
    return [model.evaluate(texts, lowercase=True, clean=False).nats_per_character for texts in sources]


if __name__ == "__main__":
    main(*([sys.argv[1:]] if sys.argv[1:] else []))
