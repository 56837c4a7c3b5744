"""The budget of a training run and its step reports: plain data. Training settings are in ``config.training``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from torch import Tensor

from reviewgen.evaluation import Evaluation


class StopReason(StrEnum):
    """Why a run ended; ``training.json`` holds the value."""

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
    """When a training run ends. One of the three is set.

    Attributes:
        seconds: Time from the end of the first step, which may compile: neither it nor what comes before it is counted.
        steps: Number of optimizer steps.
        epochs: Number of passes over the corpus.
    """

    seconds: float | None = None
    steps: int | None = None
    epochs: float | None = None


@dataclass(frozen=True)
class Report:
    """The report of one training step. From ``evaluation`` to ``metrics``, and ``sample``, are set at evaluations only.

    Attributes:
        step: Optimizer steps so far; texts so far for a model trained by counting.
        progress: Share of the budget used, 0 to 1.
        seconds: Training time so far.
        tokens: Tokens trained on so far, of all processes.
        epoch: Index of the epoch, from 0.
        loss: Cross entropy of this step, nats per token; None for a model trained by counting.
        losses: The model's own loss terms of this step, by name; see ``SupportsLoss``.
        learning_rate: Learning rate of this step, before random lengths scale it; None for a model trained by counting.
        bptt: Tokens of each lane in the last batch of this step where lengths are random (``bptt_random``); None otherwise.
        evaluation: Held-out evaluation; None also for a model whose scores are not a distribution.
        token_copy_rate: Share of 20-token windows of generated texts that occur in the training text; None if not measured.
        metrics: The metrics of generated texts by name; None for one that failed.
        evaluation_seconds: Duration of all evaluations so far.
        is_best: Whether this evaluation is the best so far, so that its weights are kept.
        sample: A generated text.
        device: Device, mixed precision and implementation of the layers, as text.
        threads: CPU threads in use.
        notes: Messages for the user.
        stopped: Why the run ended; set on its last report only.
        part: In a run of a blend, the preset of the model whose training this reports, with its own progress and seconds; on the
            last report the blend itself. None in a run of a single model.
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

    @property
    def nats_per_token(self) -> float | None:
        """The step's loss as a float. On an accelerator this waits for the device."""
        return None if self.loss is None else float(self.loss)
