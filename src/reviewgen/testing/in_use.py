"""Tries trained weights, a logits processor and a metric as users use them: by name, in a training or a generation."""

from pathlib import Path

from reviewgen.api import load, train
from reviewgen.model import ReviewModel
from reviewgen.registry import describe_weights
from reviewgen.testing.fresh_process import PROMPTS, TEXTS, assert_same_elsewhere, generate

__all__ = ["PRESET", "try_metric", "try_processor", "try_weights"]

PRESET = "ngram-char"
"""Trained to try a logits processor or a metric: it is counted in a moment."""


def try_weights(name: str) -> str:
    """Load weights by name, here and in a fresh process: both must be of the preset, and generate the same texts."""
    model = load(name)
    assert model.preset == name, (
        f"load({name!r}) returns a model of the preset {model.preset!r}; the weights must be of the preset that they are named "
        f"after. Train {name!r}, or rename the entry point in reviewgen.weights."
    )
    assert_same_elsewhere(name, generate(model))
    known = describe_weights(name)
    assert known is not None
    bits = "" if known.bits_per_character is None else f", {known.bits_per_character:.3f} bits per character of held-out text"
    return f"{known.megabytes:.1f} MB{bits}; a fresh process loads them by name, and generates the same texts"


def try_processor(name: str, folder: Path) -> str:
    """Generate with a logits processor that is saved as a model's default, here and in a fresh process."""
    _train().save_pretrained(folder)
    load(folder).save_generation_config(folder, logits_processors=[name])
    with_it = generate(load(folder))
    load(folder).save_generation_config(folder, logits_processors=[])
    without = generate(load(folder))
    load(folder).save_generation_config(folder, logits_processors=[name])
    assert_same_elsewhere(folder, with_it)
    changed = sum(one != other for one, other in zip(with_it, without, strict=True))
    return f"changes {changed} of {len(PROMPTS)} texts; saved as a model's default, it does the same in a fresh process"


def try_metric(name: str) -> str:
    """Train with a metric, which must measure the texts of the model and held-out ones."""
    facts = _train(metrics=(name,)).training["metrics"][name]
    generated, held_out = facts["generated"], facts["held_out"]
    assert generated is not None and held_out is not None, f"A training recorded no value of the metric: {facts}."
    unit = f" {facts['unit']}" if facts["unit"] else ""
    return f"a training measures {generated:.4g}{unit} of generated texts, {held_out:.4g}{unit} of held-out ones"


def _train(**settings: object) -> ReviewModel:
    return train(PRESET, list(TEXTS), progress=False, seed=0, training=settings)
