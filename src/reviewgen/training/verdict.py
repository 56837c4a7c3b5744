"""What the curves of a run say, in words: still improving, converged, overfitting, copying, diverged, or too short to tell.

A pure function of the evaluations as ``training.json`` records them; knows neither a model nor a loop.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reviewgen.training.config import StopReason

__all__ = ["RunVerdict", "find_verdict"]

NOTABLE = 0.01  # a share of the bits per character; less than that another seed can change
NOTHING_LEFT = 0.01  # bits per character; where so few are needed, shares of them say nothing
RECENT = 0.25  # the last share of the steps: in one cycle the learning rate falls there from a fifth of its peak to nothing
LAST = 2  # evaluations at the end that must all be worse: one alone may be an outlier
COPY_MARGIN = 0.15  # over held-out reviews: more than two texts copied outright among the sixteen that an evaluation writes
COPY_FACTOR = 1.5  # times held-out reviews: where these repeat the training text anyway, the margin is within their noise


@dataclass(frozen=True)
class RunVerdict:
    """The verdict on a run; ``words`` says what to do about it, ``since_step`` from where on held-out text got worse."""

    name: Literal["still improving", "converged", "overfitting", "copying", "diverged", "unknown"]
    words: str
    since_step: int | None = None


def find_verdict(
    evaluations: Sequence[Mapping[str, Any]], stopped: str | None = None, held_out_copy_rate: float | None = None
) -> RunVerdict:
    """Return what a run's evaluations say of it.

    Args:
        evaluations: Those of ``training.json``, in order: ``step``, ``is_best``, ``copy_rate``, ``bits_per_character`` (None is
            infinite, absent is not scored) and ``train_nats_per_token`` (a mean since the evaluation before; None of a count).
        stopped: Why the run ended, as its last report says.
        held_out_copy_rate: Of real reviews; what a model copies beyond it, it has learnt by heart.
    """
    trend = _find_trend(evaluations, stopped)
    kept = _kept(evaluations)
    rate = None if kept is None else kept.get("copy_rate")
    if rate is None or held_out_copy_rate is None:
        return trend
    if rate <= max(held_out_copy_rate + COPY_MARGIN, held_out_copy_rate * COPY_FACTOR):
        return trend
    words = (
        f"Copying: {rate:.1%} of the 20-token windows of its texts stand in the training text, of held-out reviews "
        f"{held_out_copy_rate:.1%}. A smaller model, more reviews or training.keep=best-under-copy would copy less, and the "
        "novelty filter leaves copies out."
    )
    return RunVerdict("copying", f"{words} {trend.words}", trend.since_step)


def _find_trend(evaluations: Sequence[Mapping[str, Any]], stopped: str | None) -> RunVerdict:
    """Return the verdict without regard to copies."""
    if stopped == StopReason.DIVERGED:
        return _of_a_divergence(evaluations)
    if not evaluations:
        return RunVerdict("unknown", "No verdict: the run ended before its first evaluation. Give it more time.")
    if all(each.get("train_nats_per_token") is None for each in evaluations):
        return _of_a_count(stopped)
    bits = [_bits(each) for each in evaluations]
    if min(bits) == math.inf:
        return RunVerdict("unknown", "No verdict: held-out text has no finite score.")
    if len(bits) == 1:
        return RunVerdict("unknown", "No verdict: one evaluation does not show whether it still improves. Give it more time.")
    best = bits.index(min(bits))
    if best + 1 < len(bits) and _share(min(bits[best + 1 :][-LAST:]) - bits[best], bits[best]) > NOTABLE:
        return _of_a_rise(evaluations, bits, best)
    return _of_a_fall(evaluations, bits)


def _of_a_divergence(evaluations: Sequence[Mapping[str, Any]]) -> RunVerdict:
    """Return the verdict on a run whose loss became no number."""
    if not evaluations:
        return RunVerdict("diverged", f"Diverged before the first evaluation: the loss is no number any more. {_CALMER}")
    step = evaluations[-1]["step"]
    words = f"Diverged after step {step:,}: the loss is no number any more; {_keeping(evaluations)}. {_CALMER}"
    return RunVerdict("diverged", words, step)


def _of_a_count(stopped: str | None) -> RunVerdict:
    """Return the verdict on a model without a training loss: it counts, or has nothing to train."""
    if stopped in (StopReason.BUDGET_SPENT, StopReason.INTERRUPTED):
        return RunVerdict("still improving", "Still improving: the count ended before the last text. Give it more time.")
    return RunVerdict("converged", "Converged: it has seen every text. More time would change nothing; more reviews may.")


def _of_a_rise(evaluations: Sequence[Mapping[str, Any]], bits: Sequence[float], best: int) -> RunVerdict:
    """Return the verdict on a run that was at its best some time before its end."""
    step, before, after = evaluations[best]["step"], *(evaluations[i]["train_nats_per_token"] for i in (best, -1))
    change = f"({bits[best]:.3f} to {bits[-1]:.3f} bits per character)"
    if None not in (before, after) and after < before:
        words = (
            f"Overfitting since step {step:,}: from there on held-out text got worse {change} while the training loss went on "
            f"falling; {_keeping(evaluations)}. More reviews, more dropout or a smaller model would help, more time would not."
        )
        return RunVerdict("overfitting", words, step)
    worse = f"held-out {change} and training text both got worse"
    return RunVerdict("diverged", f"Diverged since step {step:,}: {worse}; {_keeping(evaluations)}. {_CALMER}", step)


def _of_a_fall(evaluations: Sequence[Mapping[str, Any]], bits: Sequence[float]) -> RunVerdict:
    """Return the verdict on a run that ended at, or close to, its best."""
    recent = evaluations[-1]["step"] * (1 - RECENT)
    before = min([found for each, found in zip(evaluations, bits, strict=True) if each["step"] <= recent] or bits[:1])
    gain = _share(before - min(bits), before) if math.isfinite(before) else 1.0
    gained = f"the last quarter of the steps took {gain:.1%} off the bits of held-out text"
    if gain > NOTABLE:
        return RunVerdict("still improving", f"Still improving: {gained}. Give it more time.")
    return RunVerdict("converged", f"Converged: {gained}. More time would gain little; a larger model or more reviews may.")


def _kept(evaluations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((each for each in reversed(evaluations) if each["is_best"]), None)


def _keeping(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Say which weights are kept; with training.keep=best-under-copy they need not be those of the fewest bits."""
    kept = _kept(evaluations)
    return "no weights were kept" if kept is None else f"the weights of step {kept['step']:,} are kept"


_CALMER = "Lower training.learning_rate."


def _bits(evaluation: Mapping[str, Any]) -> float:
    bits = evaluation.get("bits_per_character")
    return math.inf if bits is None else float(bits)


def _share(difference: float, bits: float) -> float:
    return difference / max(bits, NOTHING_LEFT)
