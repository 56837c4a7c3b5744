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


def linear_decay(progress: float, warmup: float) -> float:
    """Return the learning rate as a share of its peak: linear warm-up, then linear decay to zero."""
    if progress < warmup:
        return _WARMUP_START + (1 - _WARMUP_START) * progress / warmup
    return max(0.0, (1 - progress) / (1 - warmup))


@dataclass
class Annealing:
    """The end of a run whose held-out text got no better: the rate falls from where it was to zero.

    Attributes:
        start: The step after which it starts.
        steps: Its number of steps.
        share: The learning rate that it starts from, as a share of the peak.
    """

    start: int
    steps: int
    share: float


class Schedule:
    """The learning rate of a run, and when to evaluate.

    Attributes:
        progress: Share of the budget used so far.
        best_step: The step of the best evaluation.
        annealing: The annealing; None until it starts.
    """

    def __init__(self, peak: float, warmup: float) -> None:
        self._peak, self._warmup = peak, warmup
        self.progress = 0.0
        self.best_step = 0
        self._best_share = 1.0  # of the peak learning rate, at the best step
        self.annealing: Annealing | None = None

    @property
    def is_annealing(self) -> bool:
        """Whether the rate falls from the best weights to zero."""
        return self.annealing is not None

    def learning_rate(self, steps: int) -> float:
        """Return the learning rate of the step after some steps."""
        if self.annealing is None:
            return self._peak * linear_decay(self.progress, self._warmup)
        return self._peak * self.annealing.share * self._annealing_left(steps)

    def mark_best(self, step: int) -> None:
        """Record that the weights after a step are the best so far."""
        self.best_step, self._best_share = step, linear_decay(self.progress, self._warmup)

    def anneal(self, step: int) -> int:
        """Lower the rate from that of the best weights to zero, from this step on; return within how many steps."""
        steps = max(1, min(math.ceil(_ANNEALING * self.best_step), self._steps_left(step)))
        self.annealing = Annealing(step, steps, self._best_share)
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

    def is_evaluation_due(self, done: int, evaluations: int, steps: int) -> bool:
        """Return whether another evaluation is due."""
        return self.evaluations_due(evaluations, steps) > done

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint, besides ``progress``."""
        annealing = None if self.annealing is None else asdict(self.annealing)
        return {"best_step": self.best_step, "best_share": self._best_share, "annealing": annealing}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state; a checkpoint of an earlier version has none."""
        self.best_step, self._best_share = state.get("best_step", 0), state.get("best_share", 1.0)
        annealing = state.get("annealing")
        self.annealing = None if annealing is None else Annealing(**annealing)

    def _annealing_left(self, steps: int) -> float:
        """Return the share of the annealing that is left after some steps."""
        assert self.annealing is not None
        return max(0.0, 1 - (steps - self.annealing.start) / self.annealing.steps)

    def _steps_left(self, step: int) -> int:
        """Return about how many steps of the run are left, at the speed so far."""
        return round(step * (1 - self.progress) / self.progress) if self.progress > 0 else 0
