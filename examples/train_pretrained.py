"""Train the weights of a shipped preset, one model for each run:

    pip install 'reviewgen[reviews]'
    python examples/train_pretrained.py lstm-word
    python examples/train_pretrained.py lstm-word --defaults  # trains nothing: writes defaults, copy rate and card anew

An interrupted run resumes when it is started again. Lengths are in epochs, so that the result does not depend on the speed of the
machine. On one core with 150 Gflop/s in 32 bits, lstm-word takes about eight hours, lstm-char six, gru-word three, nnlm-word two,
gru-char one and a half, and another network ten to twenty minutes. Networks are saved in 8 bits. Sizes are the largest with which
no model, with its tokenizer and novelty index, takes more than 8 MB; the blends are made last, of weights that are shipped by
then, and share their files. All other settings are the preset's.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import reviewgen
from reviewgen.data import data_records, read_documents
from reviewgen.model.layout import CONFIG, WEIGHTS, digest_of, write_manifest
from reviewgen.novelty import COPY_CHARACTERS, count_copied
from reviewgen.rates import find_intervals
from reviewgen.registry import find_preset
from reviewgen.runs import shorten_as_generated

TRAINED = Path("pretrained")  # the trained models, in 32 bits
SHIPPED = Path(__file__).parents[1] / "plugins" / "reviewgen_weights"


@dataclass(frozen=True)
class Recipe:
    """The settings of a training that differ from the preset's."""

    epochs: float = 1.0  # of 30 million characters of film reviews; count models need one
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


COUNTS = {"smoothing": "witten-bell", "quantized": True, "min_count": 2}
LARGE_STEPS = {"batch_size": 256, "bptt": 64}  # many lanes: a recurrent matrix is then read for more of them at once
DROPOUT = {"output_dropout": 0.4, "locked_dropout": True, "embedding_dropout": 0.1}  # of ten epochs and more

RECIPES = {
    "ngram-char": Recipe(model={"order": 10, "prune_entropy": 2.3e-7} | COUNTS),
    "ngram-word": Recipe(model={"order": 3, "prune_entropy": 4.1e-7} | COUNTS),
    "nnlm-char": Recipe(1.0),
    "nnlm-word": Recipe(
        4.0, model={"hidden_size": 256, "embedding_size": 128, "dropout": 0.1}, training={"batch_size": 32, "bptt": 32}
    ),
    "rnn-char": Recipe(
        1.0,
        model={"hidden_size": 704, "ngrams": 4, "ngram_buckets": 8192},
        training={"learning_rate": 0.003, "batch_size": 64, "bptt": 128},
    ),
    "rnn-word": Recipe(
        2.5,
        model={"hidden_size": 512, "embedding_size": 160, "output_dropout": 0.1},
        training={"batch_size": 32, "bptt": 64},
    ),
    "gru-char": Recipe(1.5, model={"hidden_size": 768, "ngrams": 4, "ngram_buckets": 8192}, training=LARGE_STEPS),
    "gru-word": Recipe(
        6.0,
        model={
            "hidden_size": 768,
            "embedding_size": 256,
            "output_dropout": 0.25,
            "locked_dropout": True,
            "embedding_dropout": 0.05,
        },
        training={"batch_size": 128, "bptt": 64, "learning_rate": 0.015, "weight_decay": 0.1},
    ),
    "lstm-char": Recipe(3.5, model={"hidden_size": 1024, "ngrams": 4, "ngram_buckets": 8192}, training=LARGE_STEPS),
    "lstm-word": Recipe(
        12.0,
        model={"hidden_size": 1024, "embedding_size": 256} | DROPOUT,
        training=LARGE_STEPS | {"learning_rate": 0.02, "weight_decay": 0.1},
    ),
}
BLENDS = {"blend-char": ("lstm-char", "ngram-char"), "blend-word": ("lstm-word", "ngram-word")}
COPY_TEXTS = 500
CONDITIONS = {"style": "review"}  # by default: whole reviews, unless asked for something else


def main(name: str, *options: str) -> None:
    """Train the model of a preset, and save it in the package of trained weights; or only describe the weights that are there."""
    if name not in RECIPES and name not in BLENDS:
        sys.exit(f"There is no recipe for {name!r}. Known: {', '.join([*RECIPES, *BLENDS])}.")
    if options not in ((), ("--defaults",)):
        sys.exit(f"The one option is --defaults; got {' '.join(options)}.")
    if options:
        describe(name)
    elif name in BLENDS:
        ship(name, blend(name))
    else:
        ship(name, train_recipe(name))


def train_recipe(name: str) -> reviewgen.ReviewModel:
    """Return the trained model of a recipe, in 32 bits."""
    recipe, out = RECIPES[name], TRAINED / name
    if not out.exists():
        model = reviewgen.train(
            name,
            "reviews",
            out=out,
            epochs=recipe.epochs,
            conditions=["style", "sentiment"],
            model=recipe.model,
            training={"novelty_mb": 0.4} | recipe.training,
            resume=out.with_name(f"{out.name}.partial").exists(),
        )
        if model.training["stopped"] == "interrupted":
            sys.exit(f"{out} was interrupted by Ctrl-C, so it is not shipped. Remove it and start again.")
    return reviewgen.load(out)


def blend(name: str) -> reviewgen.ReviewModel:
    """Blend the shipped weights of two presets, with weights that are fitted on the validation reviews."""
    model = reviewgen.blend([reviewgen.load(folder_of(part)) for part in BLENDS[name]], data="reviews", split="validation")
    model.bundle.preset = model.training["preset"] = name
    return model


def ship(name: str, model: reviewgen.ReviewModel) -> None:
    """Save a trained model with its figures on all held-out reviews and its card, a neural network in 8 bits."""
    save(name, model)
    shipped = reviewgen.load(folder_of(name))  # what is measured is what is shipped
    held_out = shipped.evaluate("reviews", split="test")
    shipped.training["held_out"] = {"split": "test", "reviews_in_split": held_out.reviews} | asdict(held_out)
    save(name, shipped)
    describe(name)
    size = sum(file.stat().st_size for file in folder_of(name).iterdir()) / 1e6
    print(f"{name}: {held_out.bits_per_character:.4f} bits per character of {held_out.reviews:,} held-out reviews, {size:.2f} MB")


def describe(name: str) -> None:
    """Save the preset's generation defaults with shipped weights, the copy rate of texts at these defaults, and the card."""
    folder = folder_of(name)
    defaults = dict(find_preset(name).generation_settings)
    reviewgen.load(folder).save_generation_config(folder, **defaults | {"conditions": CONDITIONS})
    shipped = reviewgen.load(folder)
    shipped.training["novelty"] = (shipped.training.get("novelty") or {}) | measure_copying(shipped)  # a blend has no figures yet
    save(name, shipped)
    reviewgen.load(folder).generate_model_card(source=name, license="apache-2.0", language="en").save(folder / "README.md")


def save(name: str, model: reviewgen.ReviewModel) -> None:
    """Save a model in the package of trained weights: a neural network in 8 bits, a blend without the weights of its parts."""
    dtype: Any = "float32" if name.startswith("ngram") or name in BLENDS else "int8"
    model.save_pretrained(folder_of(name), overwrite=True, dtype=dtype)
    if name in BLENDS:
        share_weights(folder_of(name), BLENDS[name])


def share_weights(folder: Path, presets: Sequence[str]) -> None:
    """Remove the weights of a saved blend that are those of shipped presets, and name the presets in its config instead."""
    before = reviewgen.load(folder).model.state_dict()
    (folder / WEIGHTS).unlink()
    parts = {preset: digest_of(folder_of(preset) / WEIGHTS) for preset in presets}
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8")) | {"weights": parts}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_manifest(folder)
    after = reviewgen.load(folder).model.state_dict()
    if after.keys() != before.keys() or not all(after[key].equal(before[key]) for key in before):
        raise SystemExit(f"The parts of {folder} are not the shipped weights of {', '.join(presets)}.")


def measure_copying(model: reviewgen.ReviewModel) -> dict[str, Any]:
    """Return the copy rates in characters of texts at the default settings, and of held-out reviews of the same length."""
    generated = model.generate(num_return_sequences=COPY_TEXTS, seed=0)
    held_out = [shorten_as_generated(text, model) for text in islice(read_texts(model, "test", **CONDITIONS), COPY_TEXTS)]
    counts = count_copied([*generated, *held_out], read_texts(model, "train"))
    pairs = [(copied, len(text)) for copied, text in zip(counts, [*generated, *held_out], strict=True)]
    own, others = pairs[: len(generated)], pairs[len(generated) :]
    return {
        "copy_characters": COPY_CHARACTERS,
        "copy_rate": share(own)[0],
        "copy_rate_interval": find_intervals(share, own)[0],
        "copy_rate_texts": len(generated),
        "copy_rate_characters": sum(map(len, generated)),
        "held_out_copy_rate": share(others)[0],
    }


def share(pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Return the share of copied characters, given how many each text has, and of how many."""
    return [sum(copied for copied, _ in pairs) / sum(length for _, length in pairs)]


def read_texts(model: reviewgen.ReviewModel, split: str, **values: str) -> Iterator[str]:
    """Yield the reviews of a split, cleaned as the model's training texts were; only those with some values of its conditions."""
    wanted = set(model.conditions.encode(values)) - set(model.conditions.encode({}))
    start = 1 + len(model.conditions)
    for ids, _ in read_documents(
        "reviews", model.tokenizer, data_records(model.training), conditions=model.conditions, split=split
    ):
        if wanted <= set(ids[1:start].tolist()):
            yield model.tokenizer.decode(ids[start:-1].tolist())


def folder_of(name: str) -> Path:
    """Return the folder of a preset's shipped weights."""
    return SHIPPED / name.replace("-", "_")


if __name__ == "__main__":
    main(*sys.argv[1:] or [""])
