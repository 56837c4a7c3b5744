"""Train the weights of a shipped preset, one model for each run:

    pip install 'reviewgen[reviews]'
    python examples/train_pretrained.py lstm-word

An interrupted run resumes when it is started again. Lengths are in epochs, so that the result does not depend on the speed of the
machine: about half an hour for an lstm and ten minutes for another network, on two idle cores. Sizes are the largest with which
all ten models, with their tokenizers and novelty indexes, fit in 35 MB; all other settings are the preset's.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import reviewgen

TRAINED = Path("pretrained")  # the trained models, in 32 bits
SHIPPED = Path(__file__).parents[1] / "plugins" / "reviewgen_weights"


@dataclass(frozen=True)
class Recipe:
    """The settings of a training that differ from the preset's."""

    epochs: float = 1.0  # of 30 million characters of film reviews; count models need one
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


NGRAMS = {"ngrams": 3, "ngram_buckets": 2048}
COUNTS = {"smoothing": "witten-bell", "quantized": True, "min_count": 2}

RECIPES = {
    "ngram-char": Recipe(model={"prune_entropy": 4e-7} | COUNTS),
    "ngram-word": Recipe(model={"prune_entropy": 1.7e-6} | COUNTS),
    "nnlm-char": Recipe(2.0),
    "nnlm-word": Recipe(3.0, model={"hidden_size": 96, "dropout": 0.1}),
    "rnn-char": Recipe(1.2, model={"hidden_size": 704} | NGRAMS, training={"bptt": 128, "learning_rate": 0.003}),
    "rnn-word": Recipe(2.6, model={"hidden_size": 384, "output_dropout": 0.1}, training={"bptt": 64}),
    "gru-char": Recipe(1.1, model={"hidden_size": 512} | NGRAMS, training={"bptt": 128}),
    "gru-word": Recipe(2.3, model={"hidden_size": 320, "output_dropout": 0.1}, training={"bptt": 64}),
    "lstm-char": Recipe(1.3, model={"hidden_size": 640} | NGRAMS, training={"batch_size": 64, "bptt": 128}),
    "lstm-word": Recipe(4.0, model={"hidden_size": 512, "output_dropout": 0.25}, training={"batch_size": 32, "bptt": 64}),
}


def main(name: str) -> None:
    """Train the model of a preset, and save it in the package of trained weights."""
    if name not in RECIPES:
        sys.exit(f"There is no recipe for {name!r}. Known: {', '.join(RECIPES)}.")
    recipe, out = RECIPES[name], TRAINED / name
    if not out.exists():
        model = reviewgen.train(
            name,
            "reviews",
            out=out,
            epochs=recipe.epochs,
            model=recipe.model,
            training={"novelty_mb": 0.4} | recipe.training,
            resume=out.with_name(f"{name}.run").exists(),
        )
        if model.training["stopped"] == "interrupted":
            sys.exit(f"{out} was interrupted by Ctrl-C, so it is not shipped. Remove it and start again.")
    ship(name, out)


def ship(name: str, trained: Path) -> None:
    """Save a trained model and its card in the package of trained weights, a neural network in 16 bits."""
    folder = SHIPPED / name.replace("-", "_")
    counts = name.startswith("ngram")
    reviewgen.load(trained).save_pretrained(folder, overwrite=True, dtype="float32" if counts else "float16")
    model = reviewgen.load(folder)
    model.generate_model_card(source=name, license="apache-2.0", language="en").save(folder / "README.md")
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{name}: {model.training['held_out']['bits_per_character']:.4f} bits per character, {size:.2f} MB")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
