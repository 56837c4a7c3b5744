"""Three small trainings have the losses and weights that are stored, bit by bit.

``steps.json`` is written by ``python -m tests.golden.test_steps``. Another processor or version of
torch rounds differently, so there the test is skipped.
"""

import hashlib
import os
import random
import tempfile
from typing import Any

import pytest

from reviewgen import TrainingRun
from tests.golden.corpora import TOKENIZERS, review
from tests.golden.stored import arithmetic, read_stored, write_stored
from tests.golden.test_trainings import TRAINING

TRAININGS: dict[str, dict[str, Any]] = {
    "lstm-char": {"model": {"hidden_size": 48, "layers": 2, "dropout": 0.2}},
    "gru-char": {"precision": "bf16", "gradient_accumulation_steps": 3, "model": {}},
    "rnn-word": {"sampled_softmax": 50, "averaging": 0.9, "model": {"hidden_size": 48}},
}
STEPS = 40


def observe(preset: str) -> dict[str, str]:
    """Train a preset, and return digests of its losses and of its weights."""
    settings = dict(TRAININGS[preset])
    model = {"hidden_size": 48, "layer": "fused"} | settings.pop("model")
    rng = random.Random(7)
    run = TrainingRun(
        preset,
        [review(rng, 3) for _ in range(500)],
        steps=STEPS,
        model=model,
        tokenizer=TOKENIZERS[preset.split("-")[1]],
        training=TRAINING | settings,
    )
    run.read()
    run.tokenize()
    losses = hashlib.sha256()
    for report in run:
        losses.update(float(report.loss or 0).hex().encode())
    weights = hashlib.sha256()
    for name, tensor in sorted(run.model.state_dict().items()):
        weights.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return {"losses": losses.hexdigest()[:16], "weights": weights.hexdigest()[:16]}


@pytest.mark.parametrize("preset", TRAININGS)
def test_a_training_has_the_stored_losses_and_weights_bit_by_bit(preset: str):
    stored = read_stored("steps")
    if stored["arithmetic"] != arithmetic():
        pytest.skip(f"stored with {stored['arithmetic']}")
    assert observe(preset) == stored[preset]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["REVIEWGEN_CACHE"] = scratch
        write_stored(
            "steps",
            {"arithmetic": arithmetic()} | {preset: observe(preset) for preset in TRAININGS},
        )
