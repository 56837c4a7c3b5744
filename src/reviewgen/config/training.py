"""Training settings. This file is not in ``reviewgen.training``, so that ``reviewgen settings`` can
show training settings without importing torch.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from reviewgen.config.names import check_plugin_names
from reviewgen.config.settings import (
    Bound,
    NonNegativeInt,
    PositiveInt,
    Probability,
    Technique,
    check,
)
from reviewgen.errors import ConfigError

TECHNIQUES = (
    Technique(
        "Muon",
        "an optimizer for the matrices between hidden vectors (Jordan et al. 2024), in place of"
        " AdamW",
        {"optimizer": "adamw"},
    ),
    Technique(
        "16 bits",
        "16-bit matrix products where they are faster (Micikevicius et al. 2018)",
        {"precision": "no"},
    ),
    Technique(
        "weight decay",
        "weights shrink at each step (Loshchilov & Hutter 2019)",
        {"weight_decay": 0.0},
    ),
    Technique(
        "warm-up",
        "the learning rate rises over the first steps (Goyal et al. 2017), instead of starting at"
        " its peak",
        {"warmup": 0.0},
    ),
    Technique(
        "weight averaging",
        "a moving average of the weights is evaluated and kept (Polyak & Juditsky 1992)",
        {"averaging": 0.0},
    ),
    Technique(
        "sampled softmax",
        "a step computes the logits of its targets and of some other tokens (Jean et al. 2015),"
        " instead of all",
        {"sampled_softmax": 0},
    ),
    Technique(
        "calibration",
        "a temperature is fitted on held-out text at the end (Guo et al. 2017)",
        {"calibration": False},
    ),
    Technique(
        "random lengths",
        "the length of truncated back-propagation is drawn for each batch (Merity et al. 2018)",
        {"bptt_random": False},
    ),
)


COUNTING_SETTINGS = (
    "evaluation_tokens",
    "copy_tokens",
    "metrics",
    "keep",
    "copy_limit",
    "novelty",
    "novelty_mb",
)
"""The training settings that have an effect on a model trained by counting."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Training settings. A model trained by counting uses those of ``COUNTING_SETTINGS`` only.

    Attributes:
        batch_size: Number of lanes (parallel token streams) in a batch of each process, B.
        bptt: Tokens of each lane in a batch, T: the length of truncated back-propagation through
            time.
        bptt_random: Draw the length of truncated back-propagation at random for each batch, around
            bptt, and scale the learning rate by it (AWD-LSTM).
        gradient_accumulation_steps: Batches per optimizer step.
        optimizer: "muon" uses Muon for the matrices between hidden vectors and AdamW for the rest;
            "adamw" uses AdamW for all.
        learning_rate: Peak learning rate, reached after the warm-up; from there it decays linearly
            to zero.
        warmup: Share of the run over which the learning rate rises to its peak.
        weight_decay: Weight decay, the same for both optimizers.
        clip_norm: Gradients are scaled down so that their global norm is at most this.
        sampled_softmax: On a CPU, a step computes the logits of its targets and of up to about this
            many other tokens, drawn at random, if the vocabulary has at least four times that
            number; 0 computes those of all tokens.
        averaging: Decay per step of an exponential moving average of the weights, which is then
            evaluated and kept; 0 is off.
        evaluations: Maximum number of evaluations, closer together at first; in all they take at
            most 8 % of the run.
        patience: After this many evaluations in a row without improvement, not counting the first
            epoch, training returns to its best weights and the learning rate falls from there to
            zero, which ends the run early.
        evaluation_tokens: Maximum number of held-out tokens scored at each evaluation.
        copy_tokens: Maximum number of tokens generated at each evaluation to measure copied windows
            (up to 8 times more for a sparse index) and the metrics; 0 generates one text only, and
            measures no copy rate, not even at the end.
        metrics: Names of installed metrics of generated texts, measured at each evaluation on the
            texts generated there.
        keep: Weights to keep: those of the best evaluation ("best"), or those of the best
            evaluation whose share of copied windows is within copy_limit ("best-under-copy").
        copy_limit: Highest share of the 20-token windows of generated texts that occur in the
            training text, for keep=best-under-copy.
        calibration: At the end, scale the logits by a number that is fitted on held-out text, so
            that predicted probabilities match observed frequencies.
        novelty: Index of the training text, for finding copied spans: "compact", "exact" (holds the
            whole text) or "none".
        novelty_mb: Maximum size of a compact index, in megabytes.
        threads: CPU threads; 0 benchmarks one thread and all threads at the start and uses the
            faster.
        device: Device to train on; "auto" is the device that accelerate selects, or the CPU if the
            model is unsuited for that device.
        precision: Mixed precision; "auto" uses the launcher's setting, else the device's native
            precision. "no" is 32 bits.
        checkpoint_seconds: Minimum seconds between two checkpoints, saved beside the output folder;
            0 is off.
        checkpoints_kept: Number of most recent checkpoints to keep.
    """

    batch_size: Annotated[int, Bound(at_least=1, at_most=1 << 16)] = 32
    bptt: Annotated[int, Bound(at_least=1, at_most=1 << 16)] = 64
    bptt_random: bool = False
    gradient_accumulation_steps: Annotated[int, Bound(at_least=1, at_most=1 << 16)] = 1
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: Annotated[float, Bound(above=0, at_most=10)] = 0.01
    warmup: Probability = 0.05
    weight_decay: Annotated[float, Bound(at_least=0, at_most=10)] = 0.01
    clip_norm: Annotated[float, Bound(above=0)] = 1.0
    sampled_softmax: NonNegativeInt = 0
    averaging: Probability = 0.0
    evaluations: Annotated[int, Bound(at_least=1, at_most=10_000)] = 20
    patience: PositiveInt = 3
    evaluation_tokens: PositiveInt = 50_000
    copy_tokens: NonNegativeInt = 1_600
    metrics: tuple[str, ...] = ("distinct-2", "self-repetition", "new-words", "repeated-sentences")
    keep: Literal["best", "best-under-copy"] = "best"
    copy_limit: Annotated[float, Bound(at_least=0, at_most=1)] = 0.5
    calibration: bool = True
    novelty: Literal["compact", "exact", "none"] = "compact"
    novelty_mb: Annotated[float, Bound(at_least=0.01, at_most=1 << 16)] = 4.0
    threads: NonNegativeInt = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    checkpoint_seconds: Annotated[float, Bound(at_least=0)] = 60.0
    checkpoints_kept: Annotated[int, Bound(at_least=1, at_most=1000)] = 2

    techniques: ClassVar[tuple[Technique, ...]] = TECHNIQUES

    def __post_init__(self) -> None:
        check(self)
        check_plugin_names("metrics", self.metrics)
        if self.keep == "best-under-copy" and (self.novelty == "none" or not self.copy_tokens):
            raise ConfigError(
                "keep=best-under-copy needs to find copies: set novelty to compact or exact, and"
                " copy_tokens above 0."
            )
