"""Train the weights of a preset that reviewgen ships, one model a run:

    pip install 'reviewgen[reviews]'
    python examples/train_pretrained.py lstm-word

A run that was cut short goes on when it is started again. The lengths are in epochs, so what else the machine does changes how
long it takes and not what comes of it: about half an hour for an lstm and ten minutes for another network, on two idle cores. The
sizes are the largest that leave room for all ten, with their tokenizers and novelty indexes, in 35 MB; all else is the preset's.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import reviewgen

OUT = Path("pretrained")  # the models as they were trained, in 32 bits


@dataclass(frozen=True)
class Recipe:
    """What differs from the preset."""

    epochs: float = 1.0  # over 30 million characters of film reviews; counting takes one
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


TABLES = {"ngrams": 3, "ngram_buckets": 2048}
COUNTS = {"smoothing": "witten-bell", "quantized": True, "min_count": 2}

RECIPES = {
    "ngram-char": Recipe(model={"prune_entropy": 3e-7} | COUNTS),
    "ngram-word": Recipe(model={"prune_entropy": 3e-7} | COUNTS),
    "nnlm-char": Recipe(2.0),
    "nnlm-word": Recipe(3.0, model={"dropout": 0.1}),
    "rnn-char": Recipe(1.2, model={"hidden_size": 768} | TABLES, training={"bptt": 128}),
    "rnn-word": Recipe(2.6, model={"hidden_size": 384, "output_dropout": 0.1}, training={"bptt": 64}),
    "gru-char": Recipe(1.1, model={"hidden_size": 512} | TABLES, training={"bptt": 128}),
    "gru-word": Recipe(2.3, model={"hidden_size": 320, "output_dropout": 0.1}, training={"bptt": 64}),
    "lstm-char": Recipe(1.3, model={"hidden_size": 704} | TABLES, training={"batch_size": 64, "bptt": 128}),
    "lstm-word": Recipe(4.0, model={"hidden_size": 512, "output_dropout": 0.25}, training={"batch_size": 32, "bptt": 64}),
}


def main(name: str) -> None:
    """Train the model of a preset."""
    if name not in RECIPES:
        sys.exit(f"There is no recipe for {name!r}. Known: {', '.join(RECIPES)}.")
    recipe, out = RECIPES[name], OUT / name
    if not out.exists():
        reviewgen.train(
            name,
            "reviews",
            out=out,
            epochs=recipe.epochs,
            model=recipe.model,
            training={"novelty_mb": 0.4} | recipe.training,
            resume=out.with_name(f"{name}.run").exists(),
        )


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
