"""Train the weights of a shipped preset, one model for each run:

    pip install '.[reviews]'
    # train, measure on the test split, and ship
    python examples/train_pretrained.py lstm-word
    # train one of the recipe's variants for a tenth of its length
    python examples/train_pretrained.py lstm-word --trial 0
    # train with the best variant, and ship nothing
    python examples/train_pretrained.py lstm-word --train
    # train the shipped weights further for 45 minutes, and ship them if they are better
    python examples/train_pretrained.py gru-word --further 45
    # train nothing: write defaults, copy rate and card anew
    python examples/train_pretrained.py lstm-word --defaults

`make weights` calls --trial and --train for all networks. An interrupted run resumes when it is
started again. With --further, a training can be spread over machines that keep nothing: the shipped
weights are its state. They must be from the same corpus.

Lengths are in epochs, so that the result does not depend on the speed of the machine; ``hours`` are
those of one core with 150 Gflop/s in 32 bits. All models are trained on one corpus, whose digest is
``CORPUS``. Networks are saved in 8 bits. Sizes are the largest with which no model, with its
tokenizer and novelty index, takes more than 8 MB; the blends are made last, of weights that are
shipped by then, and share their files. All other settings are the preset's.

A trial compares what a short training can tell: the size, the number of lanes and the sampled
softmax. Dropout is not tried, since it costs bits in a short training and gains them in a long one;
it follows the number of epochs.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import reviewgen
from reviewgen.data.texts import read_documents
from reviewgen.novelty import COPY_CHARACTERS, count_copied
from reviewgen.rates import find_intervals
from reviewgen.registry.plugins import find_preset
from reviewgen.runs.tune_sampling import shorten_as_generated
from reviewgen.saving.layout import CONFIG, WEIGHTS, digest_of, write_manifest

TRAINED = Path("pretrained")  # the trained models, in 32 bits
SHIPPED = Path(__file__).parents[1] / "plugins" / "reviewgen_weights"


@dataclass(frozen=True)
class Recipe:
    """The settings of a training that differ from the preset's."""

    epochs: float = 1.0  # of 30 million characters of film reviews; count models need one
    hours: float = 0.1
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    # settings by group, each tried for a tenth of the epochs
    variants: tuple[dict[str, dict[str, Any]], ...] = ()


# of inserted names, on average: python -m tests.benchmarks exposure, in docs/how-to/generation.md
EXPOSURES = {
    "lstm-word": 1.6,
    "ngram-word": 10.5,
    "lstm-char": 2.3,
    "ngram-char": 10.7,
    "gru-word": 1.6,
    "rnn-char": 1.8,
    "gru-char": 2.2,
    "nnlm-char": 1.2,
    "blend-char": 10.7,
    "rnn-word": 1.5,
    "nnlm-word": 1.6,
    "blend-word": 10.5,
}
COUNTS = {"smoothing": "witten-bell", "quantized": True, "min_count": 2}
# of ten epochs and more
DROPOUT = {"output_dropout": 0.4, "locked_dropout": True, "embedding_dropout": 0.1}

RECIPES = {
    "lstm-word": Recipe(  # then --further
        epochs=3.1,
        hours=1.5,
        model={
            "hidden_size": 896,
            "embedding_size": 256,
            "output_dropout": 0.3,
            "locked_dropout": True,
            "embedding_dropout": 0.05,
        },
        training={
            "batch_size": 128,
            "bptt": 64,
            "learning_rate": 0.005,
            "weight_decay": 0.1,
        },
    ),
    "lstm-char": Recipe(
        epochs=3.8,
        hours=1.6,
        model={"hidden_size": 896, "ngrams": 4, "ngram_buckets": 8192},
        # a third of the preset's rate, near whose peak the training would stand still
        training={"batch_size": 128, "bptt": 64, "learning_rate": 0.005},
    ),
    "transformer-word": Recipe(
        epochs=3.0,
        hours=3.0,
        model={"hidden_size": 256, "layers": 4, "heads": 4, "dropout": 0.1},
        training={"batch_size": 32, "bptt": 128},
        variants=(
            {},
            {"training": {"learning_rate": 0.004}},
        ),
    ),
    "gru-word": Recipe(
        epochs=12.0,
        hours=2.0,
        model={"hidden_size": 768, "embedding_size": 256} | DROPOUT,
        training={"batch_size": 128, "bptt": 64, "learning_rate": 0.015, "weight_decay": 0.1},
        variants=(
            {},
            {"model": {"hidden_size": 896}},
        ),
    ),
    "gru-char": Recipe(  # then --further 70
        epochs=0.9,
        hours=0.5,
        model={"hidden_size": 704, "ngrams": 4, "ngram_buckets": 8192},
        training={"batch_size": 128, "bptt": 64},
    ),
    "transformer-char": Recipe(
        epochs=2.0,
        hours=3.0,
        model={"hidden_size": 256, "layers": 4, "heads": 4},
        training={"batch_size": 32, "bptt": 128},
        variants=(
            {},
            {"training": {"learning_rate": 0.005}},
        ),
    ),
    "nnlm-word": Recipe(
        epochs=6.0,
        hours=1.0,
        model={"hidden_size": 256, "embedding_size": 128, "dropout": 0.1},
        training={"batch_size": 32, "bptt": 32},
    ),
    "rnn-word": Recipe(
        epochs=1.7,
        hours=0.2,
        model={"hidden_size": 512, "embedding_size": 160, "output_dropout": 0.1},
        training={"batch_size": 32, "bptt": 64},
    ),
    "rnn-char": Recipe(
        epochs=1.0,
        hours=0.3,
        model={"hidden_size": 704, "ngrams": 4, "ngram_buckets": 8192},
        training={"learning_rate": 0.003, "batch_size": 64, "bptt": 128},
    ),
    "nnlm-char": Recipe(epochs=1.0, hours=0.3),
    "ngram-char": Recipe(model={"order": 10, "prune_entropy": 2.3e-7} | COUNTS),
    "ngram-word": Recipe(model={"order": 3, "prune_entropy": 4.3e-7} | COUNTS),
}
BLENDS = {"blend-char": ("lstm-char", "ngram-char"), "blend-word": ("lstm-word", "ngram-word")}
COPY_TEXTS = 500
CONDITIONS = {"style": "review"}  # by default: whole reviews, unless asked for something else
COLUMNS = ("style", "sentiment")  # the conditions of all models
CORPUS = "08de9d63f06cc83d3e5eccd2bbf128e7fe77387360921002eda7a8f08aa23f35"
FINGERPRINT = "d890b1b9e0beff25eb5761cf50f1f43a"  # of its trainings
MIN_TEXTS = 3  # a word that fewer training reviews have is not generated
TRIAL_SHARE = 0.1  # of the epochs of a recipe
# of the learning rate of a training from scratch; more of it loses in minutes what hours gained
FURTHER_SHARE = 0.15
CHECKPOINT_SECONDS = 300.0
REPORT_SECONDS = 60.0


def main(name: str, *options: str) -> None:
    """Train the model of a preset and ship it, or one of the steps before and after."""
    if name not in RECIPES and name not in BLENDS:
        sys.exit(f"There is no recipe for {name!r}. Known: {', '.join([*RECIPES, *BLENDS])}.")
    match options:
        case ():
            ship(name, blend(name) if name in BLENDS else train_recipe(name))
        case ("--defaults",):
            describe(name)
        case ("--train",) if name in RECIPES:
            train_recipe(name)
        case ("--further", minutes) if (
            name in RECIPES and not name.startswith("ngram") and minutes.isdecimal()
        ):
            train_further(name, int(minutes))
        case ("--trial", number) if name in RECIPES and number in map(
            str, range(len(RECIPES[name].variants))
        ):
            train_trial(name, int(number))
        case _:
            sys.exit(
                f"{name} takes one of --defaults, --train, --further MINUTES and --trial NUMBER;"
                f" got {' '.join(options)}."
            )


def train_recipe(name: str) -> reviewgen.ReviewModel:
    """Train the model of a recipe, with its best variant if its variants were tried, and return it
    in 32 bits.
    """
    recipe = RECIPES[name]
    return train(name, TRAINED / name, best_variant(name), recipe.epochs)


def train_further(name: str, minutes: int) -> None:
    """Train the shipped weights of a network further, and ship them if they take fewer bits per
    character of validation texts.
    """
    start = reviewgen.load(folder_of(name))
    # a folder for each start: a call after these weights were shipped trains the new ones
    out = TRAINED / "further" / f"{name}-{str(start.digest)[-8:]}"
    if start.training["data"]["fingerprint"] != FINGERPRINT:
        sys.exit(f"The weights of {name} are from another corpus; train them from scratch.")
    preset = find_preset(name).training_settings
    peak = RECIPES[name].training.get("learning_rate", preset["learning_rate"])
    variant = {"training": {"learning_rate": FURTHER_SHARE * peak}}
    train(name, out, variant, start=start, budget=60 * minutes)
    trained = reviewgen.load(out)
    before = trained.training["parent"]["bits_per_character"]
    after = min(row["bits_per_character"] for row in trained.training["evaluations"])
    print(f"{name}: {before:.4f} bits per character of validation texts before, {after:.4f} after")
    if after < before:
        ship(name, trained)


def train_trial(name: str, number: int) -> reviewgen.ReviewModel:
    """Train one variant of a recipe for a tenth of its length."""
    recipe = RECIPES[name]
    return train(
        name, trial_folder(name, number), recipe.variants[number], TRIAL_SHARE * recipe.epochs
    )


def trial_folder(name: str, number: int) -> Path:
    """Return the folder of a trial's model."""
    return TRAINED / "trials" / f"{name}-{number}"


def best_variant(name: str) -> dict[str, dict[str, Any]]:
    """Return the variant with the fewest bits per character of validation texts; the first one if
    not all were tried.
    """
    variants = RECIPES[name].variants
    folders = [trial_folder(name, number) for number in range(len(variants))]
    if not variants or not all(folder.exists() for folder in folders):
        return variants[0] if variants else {}
    bits = [
        min(row["bits_per_character"] for row in reviewgen.load(folder).training["evaluations"])
        for folder in folders
    ]
    best = bits.index(min(bits))
    print(
        f"{name}: the variants have {', '.join(f'{each:.4f}' for each in bits)} bits per character;"
        f" number {best} is trained."
    )
    return variants[best]


def train(
    name: str,
    out: Path,
    variant: dict[str, dict[str, Any]],
    epochs: float | None = None,
    *,
    start: reviewgen.ReviewModel | None = None,
    budget: float | None = None,
) -> reviewgen.ReviewModel:
    """Train one model, unless it exists, with a line on standard output for each minute; return it
    in 32 bits. The length is in epochs or, as ``budget``, in seconds; ``start`` is a model that is
    trained further, with its own settings.
    """
    if out.exists():
        return reviewgen.load(out)
    check_corpus()
    recipe = RECIPES[name]
    run = reviewgen.TrainingRun(
        name if start is None else start,
        "reviews",
        out=out,
        epochs=epochs,
        budget=budget,
        conditions=list(COLUMNS),
        min_texts=MIN_TEXTS,
        model={} if start is not None else recipe.model | variant.get("model", {}),
        training={"novelty_mb": 0.4, "threads": 1, "checkpoint_seconds": CHECKPOINT_SECONDS}
        | recipe.training
        | variant.get("training", {}),
        resume=out.with_name(f"{out.name}.partial").exists(),
    )
    run.read()
    run.tokenize()
    reported = 0.0
    for report in run:
        if time.monotonic() > reported + REPORT_SECONDS:
            print(f"{out.relative_to(TRAINED)}: {100 * report.progress:.1f} %", flush=True)
            reported = time.monotonic()
    run.finish()
    return reviewgen.load(out)


def check_corpus() -> None:
    """Exit unless the cleaned reviews, their conditions and their splits are those that all models
    are trained on.
    """
    digest = hashlib.sha256()
    for batch in reviewgen.corpus("reviews", conditions=list(COLUMNS)).iter(1000):
        digest.update(json.dumps(batch, sort_keys=True).encode())
    if digest.hexdigest() != CORPUS:
        sys.exit(
            f"The corpus of film reviews has the digest {digest.hexdigest()}, not {CORPUS}: the"
            " weights share one corpus."
        )


def blend(name: str) -> reviewgen.ReviewModel:
    """Blend the shipped weights of two presets, with weights that are fitted on the validation
    reviews.
    """
    model = reviewgen.blend(
        [reviewgen.load(folder_of(part)) for part in BLENDS[name]],
        data="reviews",
        split="validation",
    )
    model.bundle.preset = model.training["preset"] = name
    return model


def ship(name: str, model: reviewgen.ReviewModel) -> None:
    """Save a trained model with its figures on all held-out reviews and its card, a neural network
    in 8 bits.
    """
    measured = TRAINED / "measured" / name  # what ships is replaced only after it was measured
    model.save_pretrained(measured, overwrite=True, dtype=dtype_of(name))
    shipped = reviewgen.load(measured)
    held_out = shipped.evaluate("reviews", split="test")
    if name == "lstm-word":  # else it would have 8.3 MB; the first use estimates them
        shipped.bundle.bigrams = None
    shipped.training["held_out"] = {"split": "test", "reviews_in_split": held_out.reviews} | asdict(
        held_out
    )
    save(name, shipped)
    describe(name)
    size = sum(file.stat().st_size for file in folder_of(name).iterdir()) / 1e6
    print(
        f"{name}: {held_out.bits_per_character:.4f} bits per character of {held_out.reviews:,}"
        f" held-out reviews, {size:.2f} MB"
    )


def describe(name: str) -> None:
    """Save the preset's generation defaults with shipped weights, the copy rate of texts at these
    defaults, and the card.
    """
    folder = folder_of(name)
    defaults = dict(find_preset(name).generation_settings)
    reviewgen.load(folder).save_generation_config(folder, **defaults | {"conditions": CONDITIONS})
    shipped = reviewgen.load(folder)
    # a blend has no figures yet
    novelty = (shipped.training.get("novelty") or {}) | measure_copying(shipped)
    shipped.training["novelty"] = novelty | {"exposure": EXPOSURES.get(name)}
    save(name, shipped)
    reviewgen.load(folder).generate_model_card(
        source=name, license="apache-2.0", language="en"
    ).save(folder / "README.md")


def save(name: str, model: reviewgen.ReviewModel) -> None:
    """Save a model in the package of trained weights: a neural network in 8 bits, a blend without
    the weights of its parts.
    """
    model.save_pretrained(folder_of(name), overwrite=True, dtype=dtype_of(name))
    if name in BLENDS:
        share_weights(folder_of(name), BLENDS[name])


def dtype_of(name: str) -> Literal["float32", "int8"]:
    """Return the type in which the weights of a preset are saved."""
    return "float32" if name.startswith("ngram") or name in BLENDS else "int8"


def share_weights(folder: Path, presets: Sequence[str]) -> None:
    """Remove the weights of a saved blend that are those of shipped presets, and name the presets
    in its config instead.
    """
    before = reviewgen.load(folder).model.state_dict()
    (folder / WEIGHTS).unlink()
    parts = {preset: digest_of(folder_of(preset) / WEIGHTS) for preset in presets}
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8")) | {"weights": parts}
    (folder / CONFIG).write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    write_manifest(folder)
    after = reviewgen.load(folder).model.state_dict()
    if after.keys() != before.keys() or not all(after[key].equal(before[key]) for key in before):
        raise SystemExit(
            f"The parts of {folder} are not the shipped weights of {', '.join(presets)}."
        )


def measure_copying(model: reviewgen.ReviewModel) -> dict[str, Any]:
    """Return the copy rates in characters of texts at the default settings, and of held-out reviews
    of the same length.
    """
    generated = model.generate(num_return_sequences=COPY_TEXTS, seed=0)
    held_out = [
        shorten_as_generated(text, model)
        for text in islice(read_texts(model, "test", **CONDITIONS), COPY_TEXTS)
    ]
    counts = count_copied([*generated, *held_out], read_texts(model, "train"))
    pairs = [
        (copied, len(text)) for copied, text in zip(counts, [*generated, *held_out], strict=True)
    ]
    own = pairs[: len(generated)]
    others = pairs[len(generated) :]
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
    """Yield the reviews of a split, cleaned as the model's training texts were; only those with
    some values of its conditions.
    """
    wanted = set(model.conditions.encode(values)) - set(model.conditions.encode({}))
    start = 1 + len(model.conditions)
    for ids, _ in read_documents("reviews", model.bundle, split=split):
        if wanted <= set(ids[1:start].tolist()):
            yield model.tokenizer.decode(ids[start:-1].tolist())


def folder_of(name: str) -> Path:
    """Return the folder of a preset's shipped weights."""
    return SHIPPED / name.replace("-", "_")


if __name__ == "__main__":
    main(*sys.argv[1:] or [""])
