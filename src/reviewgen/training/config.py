"""What a run is told, and what it reports: plain data."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from torch import Tensor

from reviewgen.config import Bound, check
from reviewgen.errors import ConfigError
from reviewgen.evaluation import Evaluation

__all__ = ["Budget", "Report", "StopReason", "TrainingConfig"]


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


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is fitted. A counting model uses the settings from ``evaluation_tokens`` to ``novelty_mb`` only."""

    batch_size: Annotated[int, Bound(at_least=1, at_most=1 << 16)] = 32  # lanes of each process, B
    bptt: Annotated[int, Bound(at_least=1, at_most=1 << 16)] = 64  # tokens a step and lane, T
    gradient_accumulation_steps: Annotated[int, Bound(at_least=1, at_most=1 << 16)] = 1  # batches to one step of the optimizer
    optimizer: Literal["muon", "adamw"] = "muon"  # muon: for matrices between hidden vectors; AdamW has the rest
    learning_rate: Annotated[float, Bound(above=0, at_most=10)] = 0.01  # the peak; from there it falls in a line to zero
    warmup: Annotated[float, Bound(at_least=0, below=1)] = 0.05  # share of the run in which the rate rises
    weight_decay: Annotated[float, Bound(at_least=0, at_most=10)] = 0.01
    clip_norm: Annotated[float, Bound(above=0)] = 1.0
    averaging: Annotated[float, Bound(at_least=0, below=1)] = 0.0  # decay a step of the averaged weights that are kept; 0: none
    evaluations: Annotated[int, Bound(at_least=1, at_most=10_000)] = 10  # spread evenly over the run
    patience: Annotated[int, Bound(at_least=1)] = 4  # evaluations without improvement before it stops
    evaluation_tokens: Annotated[int, Bound(at_least=1)] = 50_000  # held-out tokens at each evaluation
    copy_tokens: Annotated[int, Bound(at_least=0)] = 1_600  # written at each evaluation to see how much is copied; 0 for none.
    # Where the index can evaluator few windows, as of a corpus of over 30 MB, up to eight times as many.
    keep: Literal["best", "best-under-copy"] = "best"  # of all evaluations, or of those whose copy rate is within the limit
    copy_limit: Annotated[float, Bound(at_least=0, at_most=1)] = 0.5  # for best-under-copy: share of 20-token windows
    novelty: Literal["compact", "exact", "none"] = "compact"  # the index of the training text that is made
    novelty_mb: Annotated[float, Bound(at_least=0.01, at_most=1 << 16)] = 4.0  # megabytes that a compact one may take
    threads: Annotated[int, Bound(at_least=0)] = 0  # on a CPU; 0 tries one and all at the start and keeps the faster
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: what accelerate finds, unless the model is unsuited for it
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"  # auto: bf16 where the device has it
    checkpoint_seconds: Annotated[float, Bound(at_least=0)] = 60.0  # between checkpoints beside the output; 0 for none
    checkpoints_kept: Annotated[int, Bound(at_least=1, at_most=1000)] = 2  # of the last ones

    def __post_init__(self) -> None:
        check(self)
        if self.keep == "best-under-copy" and (self.novelty == "none" or not self.copy_tokens):
            raise ConfigError("keep=best-under-copy needs a copy rate: do without novelty=none and copy_tokens=0.")


@dataclass(frozen=True)
class Budget:
    """When a run ends: at a moment of ``time.monotonic``, after so many steps, or after so many epochs."""

    deadline: float | None = None
    steps: int | None = None
    epochs: float | None = None


@dataclass(frozen=True)
class Report:
    """One step of a run. ``evaluation``, ``copy_rate`` and ``sample`` are there at evaluations only."""

    step: int  # of the optimizer; a count model's is a text
    progress: float  # 0 to 1
    seconds: float
    tokens: int  # seen so far
    epoch: int = 0
    loss: Tensor | None = None  # cross entropy of this step, nats per token; a count model has none
    learning_rate: float | None = None
    evaluation: Evaluation | None = None
    copy_rate: float | None = None  # the share of 20-token windows of what it writes that stand in the training text
    is_best: bool = False
    sample: str | None = None
    device: str = "cpu"
    threads: int = 1
    notes: tuple[str, ...] = ()
    stopped: StopReason | None = None  # why the run ended; on its last report only

    @property
    def nats_per_token(self) -> float | None:
        """The step's loss as a number; on an accelerator, reading it waits for the device."""
        return None if self.loss is None else float(self.loss)
