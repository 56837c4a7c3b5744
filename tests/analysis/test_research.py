"""The loop of ``examples/research``, with simulated trainings whose noise is that of real ones.

The noise was measured on held-out texts of trainings that differ only in their seed:

- ``gru-char`` with hidden_size=96 after 600 steps on MusicCaps, seeds 0 to 7, 283 texts: 1.0175,
  1.0186, 1.0158, 1.0205, 1.0234, 1.0189, 1.0247 and 1.0163 bits per character, a standard deviation
  of 0.0032;
- ``gru-char`` with hidden_size=128 after 400 steps on 1,584 posts of music blogs, seeds 0 to 6, 78
  texts: 2.0675, 2.0584, 2.0828, 2.0555, 2.0732, 2.0578 and 2.0530, a standard deviation of 0.0109.

A part of it is noise of each text, with a variance in proportion to the length of the text.

Of 100 changes without effect, the loop keeps 0 or 1, in each of 24 loops. Of 100 gains of 0.02
bits, it keeps all with the noise of the captions, and about a third with that of the blogs, where
gains of 0.03 bits are needed.
"""

import json
import math
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from reviewgen.analysis.comparison_figures import ComparisonRow, Measured, average_seeds
from reviewgen.analysis.comparison_report import Comparison
from reviewgen.analysis.comparison_texts import HeldOut

LOOP = Path(__file__).parents[2] / "examples" / "research" / "loop.py"


@dataclass(frozen=True)
class Noise:
    """``level`` is the standard deviation over seeds of what all texts have in common, in bits per
    character; ``text`` is the variance of the bits of a text, for each of its characters.
    """

    texts: int
    characters: float
    level: float
    text: float


CAPTIONS = Noise(texts=283, characters=282, level=0.0027, text=0.23)
BLOGS = Noise(texts=78, characters=884, level=0.0072, text=4.6)


@pytest.fixture(scope="module")
def loop():
    spec = spec_from_file_location("loop", LOOP)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Trainings:
    """Simulated trainings: each "change" saves its value in bits per character."""

    def __init__(self, noise: Noise, seed: int = 0) -> None:
        self.noise = noise
        self.generator = np.random.default_rng(seed)
        sizes = np.ceil(self.generator.lognormal(math.log(noise.characters), 0.3, noise.texts))
        texts = ["x" * int(size) for size in sizes]
        self.held_out = HeldOut(texts, [{}] * noise.texts, noise.texts, "all", "simulated", None)
        self.trained = {}

    def train(self, name, seed, gain):
        if (name, seed) not in self.trained:
            sizes = self.held_out.characters
            level = 2 - gain + self.generator.normal(0, self.noise.level)
            of_texts = self.generator.normal(0, 1, len(sizes)) * np.sqrt(self.noise.text * sizes)
            nats = (level * sizes + of_texts)[None] * math.log(2)
            bits = float(nats.sum() / sizes.sum() / math.log(2))
            row = ComparisonRow(
                name=name, source="x", bits_per_character=bits, perplexity_per_token=2.0
            )
            self.trained[name, seed] = Measured(row, nats)
        return self.trained[name, seed]

    def compare(self, models, seeds):
        comparison = Comparison(self.held_out, "", 0)
        for name, settings in models.items():
            changes = [name for name in settings if name.startswith("change")]
            gain = sum(settings[name] for name in changes)
            trainings = [self.train(name, seed, gain) for seed in range(seeds)]
            comparison.add(average_seeds(trainings, self.held_out))
        return comparison


def count_kept(loop, noise, gain, log, trials=100, seed=0):
    """Run a loop in which each change saves ``gain`` bits; return the number of changes kept."""
    changes = [{f"change-{number}": gain} for number in range(trials)]
    loop.research(changes, Trainings(noise, seed).compare, log)
    return sum(json.loads(line)["kept"] for line in log.read_text().splitlines())


@pytest.mark.parametrize("noise", [CAPTIONS, BLOGS])
def test_at_most_5_of_100_changes_without_effect_are_kept(loop, noise, tmp_path):
    assert count_kept(loop, noise, 0.0, tmp_path / "log.jsonl") <= 5


@pytest.mark.parametrize("noise, gain", [(CAPTIONS, 0.02), (BLOGS, 0.03)])
def test_a_planted_gain_is_kept_in_80_of_100_trials(loop, noise, gain, tmp_path):
    assert count_kept(loop, noise, gain, tmp_path / "log.jsonl") >= 80


def test_a_loop_continues_after_its_log(loop, tmp_path):
    whole = Trainings(CAPTIONS)
    changes = [{"change-1": 0.05}, {"change-2": -0.05}, {"change-3": 0.05}]
    best = loop.research(changes, whole.compare, tmp_path / "whole.jsonl")
    assert best == loop.START | {"change-1": 0.05, "change-3": 0.05}
    lines = [json.loads(line) for line in (tmp_path / "whole.jsonl").read_text().splitlines()]
    assert [line["better"] for line in lines] == [True, False, True]
    again = Trainings(CAPTIONS)
    loop.research(changes[:2], again.compare, tmp_path / "parts.jsonl")
    again.trained |= whole.trained  # the trainings are those of the folder
    assert loop.research(changes, again.compare, tmp_path / "parts.jsonl") == best
    assert len((tmp_path / "parts.jsonl").read_text().splitlines()) == 3
