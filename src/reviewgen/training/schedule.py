"""The learning rate of each step, and when to evaluate.

The rate rises to its peak and falls in a straight line to zero over the run (Bergsma et al. 2025, "Straight to Zero: Why Linearly
Decaying the Learning Rate to Zero Works Best for LLMs"). Where held-out text gets no better long before the run is over, as on
a small corpus, the weights at its best were made at a high rate and were never annealed: so the run goes back to them, and the
rate falls to zero from there within a part of the steps that led to them, as in the decay of a warmup-stable-decay schedule
(Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations"). What a longer run would have
gained is decided by the held-out text and not by the length of the run.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_WARMUP_START = 0.04  # share of the peak learning rate at which the warm-up starts
_ANNEALING = 0.5  # steps of the annealing, as a share of those that led to the best weights
_EVALUATIONS = 4  # while annealing


@dataclass
class Schedule:
    """The learning rate of a run, and when to evaluate.

    Attributes:
        peak: The largest learning rate.
        warmup: The share of the run in which the rate rises.
        progress: Share of the budget used so far.
        best_step: The step of the best evaluation.
        best_share: The learning rate at that step, as a share of the peak.
        annealing: The end of a run whose held-out text got no better, in which the rate falls from where it was to zero: the step
            after which it starts, its number of steps, and the learning rate it starts from, as a share of the peak.
    """

    peak: float
    warmup: float
    progress: float = 0.0
    best_step: int = 0
    best_share: float = 1.0
    annealing: tuple[int, int, float] | None = None

    def learning_rate(self, steps: int) -> float:
        """Return the learning rate of the step after some steps."""
        share = self._linear_decay() if self.annealing is None else self.annealing[2] * self._annealing_left(steps)
        return self.peak * share

    def mark_best(self, step: int) -> None:
        """Record that the weights after a step are the best so far."""
        self.best_step, self.best_share = step, self._linear_decay()

    def anneal(self, step: int) -> int:
        """Lower the rate from that of the best weights to zero, from this step on; return within how many steps."""
        left = round(step * (1 - self.progress) / self.progress) if self.progress > 0 else 0  # at the speed so far
        steps = max(1, min(math.ceil(_ANNEALING * self.best_step), left))
        self.annealing = step, steps, self.best_share
        return steps

    def is_over(self, steps: int) -> bool:
        """Return whether the run is over after some steps."""
        return self.progress >= 1 or (self.annealing is not None and self._annealing_left(steps) <= 0)

    def evaluations_due(self, evaluations: int, steps: int) -> int:
        """Return how many of a run's evaluations are due by now: k of n after (k / n)^2 of it.

        They lie close together at first, since what they show depends on the ratio of two times and not on their difference.
        """
        if self.annealing is None:
            return int(math.sqrt(self.progress) * evaluations)
        return evaluations + int((1 - self._annealing_left(steps)) * _EVALUATIONS)

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.__init__(**state)  # type: ignore[misc]

    def _linear_decay(self) -> float:
        """Return the learning rate as a share of its peak: linear warm-up, then linear decay to zero."""
        if self.progress < self.warmup:
            return _WARMUP_START + (1 - _WARMUP_START) * self.progress / self.warmup
        return max(0.0, (1 - self.progress) / (1 - self.warmup))

    def _annealing_left(self, steps: int) -> float:
        """Return the share of the annealing that is left after some steps."""
        assert self.annealing is not None
        start, length, _ = self.annealing
        return max(0.0, 1 - (steps - start) / length)
