"""The progress of a run: its learning rate, when it is evaluated and when it ends.

The learning rate rises to its peak and falls in a straight line to zero over the run (Bergsma et
al. 2025, "Straight to Zero: Why Linearly Decaying the Learning Rate to Zero Works Best for LLMs").
On a small corpus, the held-out loss may stop improving long before the run is over. The best
weights were then reached at a high learning rate and were never annealed. So the run goes back to
these weights, and lowers the rate to zero from there, within half the number of steps that led to
them. This is like the decay phase of a warmup-stable-decay schedule (Hägele et al. 2024, "Scaling
Laws and Compute-Optimal Training Beyond Fixed Training Durations"). So the held-out text decides
when a run ends, and not the time that was planned for it.
"""

import math
from dataclasses import dataclass

_WARMUP_START = 0.04  # share of the peak learning rate at which the warm-up starts
_ANNEALING = 0.5  # steps of the annealing, as a share of those that led to the best weights
_ANNEALING_EVALUATIONS = 4  # evaluations during the annealing


@dataclass
class Schedule:
    """The progress of a run; it determines the learning rate of the next step, when to evaluate,
    and when the run is over. Checkpoints save all attributes.

    Attributes:
        peak: The largest learning rate.
        warmup: The share of the run in which the rate rises.
        evaluations: The number of evaluations of the run, without those of an annealing.
        steps: Optimizer steps so far.
        progress: Share of the budget used so far.
        evaluated: The number of evaluations that were due at the time of the last one.
        best_step: The step of the best evaluation.
        best_share: The learning rate at that step, as a share of the peak.
        annealing: Set if held-out text got no better and the learning rate is being lowered to zero
            early: the step after which this starts, the number of its steps, and the learning rate
            at its start, as a share of the peak. None before.
    """

    peak: float
    warmup: float
    evaluations: int
    steps: int = 0
    progress: float = 0.0
    evaluated: int = 0
    best_step: int = 0
    best_share: float = 1.0
    annealing: tuple[int, int, float] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the run is over."""
        return self.progress >= 1 or self._annealing_left() <= 0

    def learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        share = self._linear_decay()
        if self.annealing is not None:
            _, _, share_at_start = self.annealing
            share = share_at_start * self._annealing_left()
        return self.peak * share

    def mark_best(self) -> None:
        """Record that the current weights are the best so far."""
        self.best_step = self.steps
        self.best_share = self._linear_decay()

    def anneal(self) -> int:
        """Start the annealing: lower the learning rate to zero from its value at the best weights.
        Return the number of steps this takes.
        """
        length = max(1, min(math.ceil(_ANNEALING * self.best_step), self.steps_left()))
        self.annealing = self.steps, length, self.best_share
        self.evaluated = self.evaluations  # the evaluations of the annealing are added to these
        return length

    def evaluations_due(self) -> int:
        """Return how many evaluations are due by now: k of n evaluations after the share (k / n)^2
        of the run.

        Early evaluations are close together, since the gain between two evaluations depends on the
        ratio of their times, and not on the difference.
        """
        if self.annealing is None:
            return int(math.sqrt(self.progress) * self.evaluations)
        return self.evaluations + int((1 - self._annealing_left()) * _ANNEALING_EVALUATIONS)

    def steps_left(self) -> int:
        """Return the number of steps to the end of the run, estimated from the speed so far."""
        if self.annealing is not None:
            start, length, _ = self.annealing
            return start + length - self.steps
        if self.progress == 0:
            return 0  # there is nothing yet to estimate from
        return round(self.steps * (1 - self.progress) / self.progress)

    def evaluations_left(self) -> int:
        """Return the number of evaluations to come."""
        annealing = 0 if self.annealing is None else _ANNEALING_EVALUATIONS
        return self.evaluations + annealing - self.evaluated

    def _linear_decay(self) -> float:
        """Return the learning rate as a share of its peak: linear warm-up, then linear decay to
        zero.
        """
        if self.progress < self.warmup:
            return _WARMUP_START + (1 - _WARMUP_START) * self.progress / self.warmup
        return max(0.0, (1 - self.progress) / (1 - self.warmup))

    def _annealing_left(self) -> float:
        """Return the share of the annealing that is left; 1 before the annealing starts."""
        if self.annealing is None:
            return 1.0
        start, length, _ = self.annealing
        return max(0.0, 1 - (self.steps - start) / length)
