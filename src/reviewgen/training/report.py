"""The budget of a training run, the reports of its steps, and the verdict on the run. Training
settings are in ``config.training``.

The verdict (still improving, converged, overfitting, copying, diverged or unknown) is a pure
function of what ``training.json`` records.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from torch import Tensor

from reviewgen.errors import counted
from reviewgen.evaluation.evaluate import Evaluation
from reviewgen.rates import MIN_CHARACTERS

MIN_CHANGE = 0.01  # as a share of the bits per character; smaller changes may come from the seed
# relative changes are computed with at least this many bits per character in the denominator, since
# a change relative to fewer bits means nothing
MIN_BITS = 0.01
# The gain in this last share of the steps shows whether a model still improves. The learning rate
# falls there from about a quarter of its peak to zero.
RECENT_SHARE = 0.25
MIN_EVALUATIONS = 4  # with fewer evaluations, a curve does not show its trend
MIN_STEPS = 200  # with fewer steps, a curve does not show its trend either
# Held-out text got worse only if the last evaluations after the best one, up to this many, are all
# worse: a single one may be an outlier.
LAST_EVALUATIONS = 2
# A model copies if its copy rate exceeds that of held-out reviews by more than COPY_MARGIN (as if
# one text in seven were copied), and is more than COPY_FACTOR times that rate. The factor matters
# if held-out reviews often repeat the training text: their own rate then varies by more than the
# margin.
COPY_MARGIN = 0.15
COPY_FACTOR = 1.5
_ADVICE = "Lower training.learning_rate."


class StopReason(StrEnum):
    """The reason why a run ended; ``training.json`` saves the value."""

    BUDGET_SPENT = "budget spent"
    ALL_STEPS_TAKEN = "all steps taken"
    NO_MORE_GAIN = "early: no more gain on held-out text"
    ALL_TEXTS_COUNTED = "all texts counted"
    NOTHING_TO_TRAIN = "nothing to train"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    PROCESS_ENDED = "another process ended"


@dataclass(frozen=True)
class Budget:
    """When a training run ends. Exactly one attribute is set.

    Attributes:
        seconds: Training time, counted from the end of the first step. Time for compilation is not
            counted.
        steps: Number of optimizer steps.
        epochs: Number of passes over the corpus.
    """

    seconds: float | None = None
    steps: int | None = None
    epochs: float | None = None


@dataclass(frozen=True)
class Report:
    """The report of one training step. ``evaluation`` to ``metrics``, and ``sample``, are set at
    evaluations only.

    Attributes:
        step: Optimizer steps so far; texts so far for a model trained by counting.
        progress: Share of the budget used, 0 to 1.
        seconds: Training time so far.
        tokens: Tokens trained on so far, in all processes.
        epoch: Index of the epoch, from 0.
        loss: Cross entropy of this step in nats per token; with a sampled softmax, an estimate.
            None for a model trained by counting.
        losses: The model's own loss terms of this step, by name; see ``SupportsLoss``.
        learning_rate: Learning rate of this step, before random lengths scale it; None for a model
            trained by counting.
        bptt: With random lengths (``bptt_random``), the number of tokens per lane in the last batch
            of this step; else None.
        evaluation: Result on held-out text; None, too, if the model's scores are not a
            distribution.
        token_copy_rate: Share of 20-token windows of generated texts that occur in the training
            text; None if not measured.
        metrics: The metrics of generated texts by name; the value of a failed metric is None.
        evaluation_seconds: Duration of all evaluations so far.
        is_best: Whether this evaluation is the best so far, so that its weights are kept.
        sample: A generated text.
        device: Device, mixed precision and implementation of the layers, as text.
        threads: CPU threads in use.
        notes: Messages for the user.
        stopped: Why the run ended; set on its last report only.
        part: In a run of a blend, the preset of the component that this step trained; progress and
            seconds are those of its training. On the last report, the blend itself. None in a run
            of a single model.
        epochs: Passes over the corpus so far, such as 3.2; None for a model trained by counting.
        seconds_per_epoch: Mean time of a pass, without evaluations and without the first step,
            which may compile. None at the first step and for a model trained by counting.
        seconds_left: Estimated time to the end of the run, with evaluations. None at the first step
            and for a model trained by counting.
    """

    step: int
    progress: float
    seconds: float
    tokens: int
    epoch: int = 0
    loss: Tensor | None = None
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    learning_rate: float | None = None
    bptt: int | None = None
    evaluation: Evaluation | None = None
    token_copy_rate: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    evaluation_seconds: float = 0.0
    is_best: bool = False
    sample: str | None = None
    device: str = "cpu"
    threads: int = 1
    notes: tuple[str, ...] = ()
    stopped: StopReason | None = None
    part: str | None = None
    epochs: float | None = None
    seconds_per_epoch: float | None = None
    seconds_left: float | None = None

    @property
    def nats_per_token(self) -> float | None:
        """The step's loss as a float. On an accelerator this waits for the device."""
        return None if self.loss is None else float(self.loss)


@dataclass(frozen=True)
class RunVerdict:
    """The verdict on a finished run. Saved in ``training.json``.

    Attributes:
        name: The verdict.
        words: The verdict as sentences for the user, with advice.
        since_step: The step of the best evaluation, if held-out text got worse after it; else None.
    """

    name: Literal["still improving", "converged", "overfitting", "copying", "diverged", "unknown"]
    words: str
    since_step: int | None = None


def find_verdict(
    evaluations: Sequence[Mapping[str, Any]],
    stopped: str | None = None,
    novelty: Mapping[str, Any] | None = None,
) -> RunVerdict:
    """Return the verdict on a run.

    Args:
        evaluations: The evaluations in ``training.json``, in order. Each has ``step``, ``is_best``,
            ``bits_per_character`` (None: infinite; absent: not scored) and ``train_nats_per_token``
            (the mean loss since the previous evaluation; None for a model trained by counting).
        stopped: Why the run ended, as in its last report.
        novelty: The copy rates in ``training.json``. If the copy rate of generated texts is clearly
            above that of held-out reviews, the model has memorised training texts.
    """
    trend = _trend_verdict(evaluations, stopped)
    rates = novelty or {}
    rate = rates.get("copy_rate")
    held_out = rates.get("held_out_copy_rate")
    if rate is None or held_out is None or rates.get("copy_rate_characters", 0) < MIN_CHARACTERS:
        return trend
    if rate <= max(held_out + COPY_MARGIN, held_out * COPY_FACTOR):
        return trend
    words = (
        f"Copying: the copy rate is {rate:.1%}, that of held-out reviews {held_out:.1%}. A smaller"
        " model, more reviews or training.keep=best-under-copy would copy less, and the novelty"
        " filter leaves copies out."
    )
    return RunVerdict("copying", f"{words} {trend.words}", trend.since_step)


def _trend_verdict(evaluations: Sequence[Mapping[str, Any]], stopped: str | None) -> RunVerdict:
    """Return the verdict from the evaluations alone, without the copy rates."""
    if stopped == StopReason.DIVERGED and not evaluations:
        return RunVerdict(
            "diverged",
            f"Diverged before the first evaluation: the loss became NaN or infinite. {_ADVICE}",
        )
    if stopped == StopReason.DIVERGED:
        step = evaluations[-1]["step"]
        kept = _describe_kept(evaluations)
        return RunVerdict(
            "diverged",
            f"Diverged after step {step:,}: the loss became NaN or infinite; {kept}. {_ADVICE}",
            step,
        )
    if not evaluations:
        return RunVerdict(
            "unknown", "No verdict: the run ended before its first evaluation. Give it more time."
        )
    # trained by counting, or nothing to train
    if all(entry.get("train_nats_per_token") is None for entry in evaluations):
        if stopped in (StopReason.BUDGET_SPENT, StopReason.INTERRUPTED):
            return RunVerdict(
                "still improving",
                "Still improving: the count ended before the last text. Give it more time.",
            )
        return RunVerdict(
            "converged",
            "Converged: it has seen every text. More time changes nothing; more reviews may help.",
        )
    bits = [_bits(entry) for entry in evaluations]
    best = min(bits)
    if best == math.inf:
        return RunVerdict("unknown", "No verdict: held-out text has no finite score.")
    if stopped == StopReason.NO_MORE_GAIN:
        return _annealed_verdict(evaluations)
    best_index = bits.index(best)
    last_bits = bits[best_index + 1 :][-LAST_EVALUATIONS:]
    if last_bits and _relative_change(min(last_bits) - best, best) > MIN_CHANGE:
        verdict = _overfitting_or_diverged(evaluations, bits, best_index)
        # The loss may have risen because of a high learning rate, which an interrupted run never
        # lowered.
        if stopped == StopReason.INTERRUPTED and verdict.name == "diverged":
            return RunVerdict(
                "unknown", f"No verdict: the run was interrupted; {_describe_kept(evaluations)}."
            )
        return verdict
    return _too_short_verdict(evaluations) or _improving_or_converged(evaluations, bits)


def _too_short_verdict(evaluations: Sequence[Mapping[str, Any]]) -> RunVerdict | None:
    """Return the verdict "unknown" for a run that is too short for another verdict, with the time
    that would be enough. Return None for a longer run.
    """
    count = len(evaluations)
    last = evaluations[-1]
    if count >= MIN_EVALUATIONS and last["step"] >= MIN_STEPS:
        return None
    factor = max(MIN_EVALUATIONS / count, MIN_STEPS / max(1, last["step"]))
    seconds = factor * last.get("seconds", 0.0)
    advice = "Give it more time"
    if seconds:
        # the seconds are rounded up to two significant digits
        unit = 10 ** max(0, math.floor(math.log10(seconds)) - 1)
        advice = f"About {math.ceil(seconds / unit) * unit:,} s of training would show it"
    if last["step"] >= MIN_STEPS:
        advice += f", or training.evaluations={MIN_EVALUATIONS} or more, if it is set to fewer"
    counts = f"{counted(last['step'], 'step')} and {counted(count, 'evaluation')}"
    return RunVerdict(
        "unknown", f"No verdict: {counts} are too few to show whether it still improves. {advice}."
    )


def _annealed_verdict(evaluations: Sequence[Mapping[str, Any]]) -> RunVerdict:
    """Return the verdict on a run that ended early, after an annealing from its best weights."""
    last = evaluations[-1]
    unused = (
        f" The last {1 - last['progress']:.0%} of the run was not needed."
        if last.get("progress", 1) < 0.995
        else ""
    )
    return RunVerdict(
        "converged",
        "Converged: held-out text got no better, so the learning rate was lowered to zero early;"
        f" {_describe_kept(evaluations)}.{unused} More time would gain little; more reviews, or a"
        " trained model to start from, may help.",
    )


def _overfitting_or_diverged(
    evaluations: Sequence[Mapping[str, Any]], bits: Sequence[float], best_index: int
) -> RunVerdict:
    """Return the verdict on a run whose held-out bits rose after its best evaluation."""
    best = evaluations[best_index]
    step = best["step"]
    loss_at_best = best["train_nats_per_token"]
    last_loss = evaluations[-1]["train_nats_per_token"]
    kept = _describe_kept(evaluations)
    change = f"({bits[best_index]:.3f} to {bits[-1]:.3f} bits per character)"
    if loss_at_best is not None and last_loss is not None and last_loss < loss_at_best:
        words = (
            f"Overfitting since step {step:,}: from there on held-out text got worse {change} while"
            f" the training loss went on falling; {kept}. More reviews, more dropout or a smaller"
            " model would help, more time would not."
        )
        return _too_short_verdict(evaluations) or RunVerdict("overfitting", words, step)
    worse = f"held-out {change} and training text both got worse"
    return RunVerdict("diverged", f"Diverged since step {step:,}: {worse}; {kept}. {_ADVICE}", step)


def _improving_or_converged(
    evaluations: Sequence[Mapping[str, Any]], bits: Sequence[float]
) -> RunVerdict:
    """Return the verdict on a run that ended at, or close to, its best evaluation."""
    recent_start = evaluations[-1]["step"] * (1 - RECENT_SHARE)
    earlier_bits = [
        value
        for entry, value in zip(evaluations, bits, strict=True)
        if entry["step"] <= recent_start
    ]
    best_before = min(earlier_bits, default=bits[0])
    # from infinite bits to finite ones is a gain of 100 %
    gain = (
        _relative_change(best_before - min(bits), best_before)
        if math.isfinite(best_before)
        else 1.0
    )
    gained = f"the last quarter of the steps took {gain:.1%} off the bits of held-out text"
    if gain > MIN_CHANGE:
        return RunVerdict("still improving", f"Still improving: {gained}. Give it more time.")
    return RunVerdict(
        "converged",
        f"Converged: {gained}. More time would gain little; a larger model or more reviews may"
        " help.",
    )


def _describe_kept(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Return a clause that says which weights are kept. With training.keep=best-under-copy, these
    may not be the weights with the fewest bits per character.
    """
    steps = [entry["step"] for entry in evaluations if entry["is_best"]]
    return f"the weights of step {steps[-1]:,} are kept" if steps else "no weights were kept"


def _bits(evaluation: Mapping[str, Any]) -> float:
    """Return the bits per character of an evaluation; infinity if they are None or missing."""
    bits = evaluation.get("bits_per_character")
    return math.inf if bits is None else float(bits)


def _relative_change(difference: float, bits: float) -> float:
    """Return a difference of bits as a share of ``bits``, or of ``MIN_BITS`` if that is more."""
    return difference / max(bits, MIN_BITS)
