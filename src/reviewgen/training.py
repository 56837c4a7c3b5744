"""Training: ``fit`` is a generator of reports; the gradient loop and the counting loop live behind it.

Logging, printing and plotting are ordinary code around the loop. When the loop ends, for whatever reason, the model holds
its best weights, is in evaluation mode and on the CPU. Recurrent models see B lanes of one long stream and carry their state
from step to step (truncated back-propagation through time, Williams & Peng 1990), its length fixed: ``bptt``.
"""

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from reviewgen.config import Bound, GenerationConfig, check
from reviewgen.data import IGNORED, Batch, Lanes, TokenStore
from reviewgen.errors import TrainingError
from reviewgen.evaluation import Document, Evaluation, evaluate_documents, sample_documents
from reviewgen.protocols import CountTrained, LanguageModel, State, Tokenizer
from reviewgen.sampling import Pieces, decode, start_rows

__all__ = ["Budget", "OwnRandom", "Report", "TrainingConfig", "fit", "native_precision", "one_cycle"]

SAMPLE_TOKENS = 100


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is fitted. A counting model uses ``evaluation_tokens`` only."""

    batch_size: Annotated[int, Bound(at_least=1, at_most=1 << 16)] = 32  # lanes, B
    bptt: Annotated[int, Bound(at_least=1, at_most=1 << 16)] = 64  # tokens a step and lane, T
    learning_rate: Annotated[float, Bound(above=0, at_most=10)] = 4e-3  # the peak of the one-cycle schedule
    warmup: Annotated[float, Bound(at_least=0, below=1)] = 0.15  # share of the run in which the rate rises
    weight_decay: Annotated[float, Bound(at_least=0, at_most=10)] = 0.01
    clip_norm: Annotated[float, Bound(above=0)] = 1.0
    evaluations: Annotated[int, Bound(at_least=1, at_most=10_000)] = 10  # spread evenly over the run
    patience: Annotated[int, Bound(at_least=1)] = 4  # evaluations without improvement before it stops
    evaluation_tokens: Annotated[int, Bound(at_least=1)] = 50_000  # held-out tokens at each evaluation
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"  # auto: bf16 where the device has it

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Budget:
    """When a run ends: at a moment of ``time.monotonic``, after so many steps, or after so many epochs."""

    deadline: float | None = None
    steps: int | None = None
    epochs: float | None = None


@dataclass(frozen=True)
class Report:
    """One step of a run. ``evaluation`` and ``sample`` are there at evaluations only."""

    step: int
    progress: float  # 0 to 1
    seconds: float
    tokens: int  # seen so far
    epoch: int = 0
    loss: Tensor | None = None  # cross entropy of this step, nats per token; a count model has none
    learning_rate: float | None = None
    evaluation: Evaluation | None = None
    is_best: bool = False
    sample: str | None = None
    device: str = "cpu"
    notes: tuple[str, ...] = ()

    @property
    def nats_per_token(self) -> float | None:
        """The step's loss as a number; on an accelerator, reading it waits for the device."""
        return None if self.loss is None else float(self.loss)


def fit(
    model: LanguageModel,
    tokenizer: Tokenizer,
    train: TokenStore,
    validation: TokenStore,
    config: TrainingConfig,
    budget: Budget,
    seed: int,
) -> Iterator[Report]:
    """Train a model; yield a report a step.

    Raises:
        TrainingError: The model can be trained neither by counting nor by gradient, or its loss is no number.
    """
    judge = _Judge(tokenizer, sample_documents(validation, config.evaluation_tokens), config.patience)
    if isinstance(model, CountTrained):
        yield from _count(model, train, judge)
    elif isinstance(model, nn.Module) and not any(True for _ in model.parameters()):
        evaluation, is_best = judge.evaluate(model.eval())
        yield Report(0, 1.0, 0.0, 0, evaluation=evaluation, is_best=is_best, notes=("The model has nothing to train.",))
    elif isinstance(model, nn.Module):
        yield from _descend(model, tokenizer, train, config, budget, seed, judge)
    else:
        raise TrainingError(f"{type(model).__name__} is neither a torch module nor CountTrained, so it cannot be trained.")


def one_cycle(progress: float, warmup: float) -> float:
    """Return the learning rate as a share of its peak: a linear rise, then a cosine to zero (after Smith 2018)."""
    if progress < warmup:
        return 0.04 + 0.96 * progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


@dataclass
class _Judge:
    """Evaluates on held-out texts and remembers what was best."""

    tokenizer: Tokenizer
    documents: list[Document]
    patience: int
    best: float = math.inf
    without_gain: int = 0
    seconds: float = 0.0  # that the last evaluation took
    pieces: Pieces = field(init=False)

    def __post_init__(self) -> None:
        self.pieces = Pieces(self.tokenizer)

    def evaluate(self, model: Any, device: str = "cpu") -> tuple[Evaluation, bool]:
        """Return the evaluation, and whether it is the best so far."""
        start = time.monotonic()
        evaluation = evaluate_documents(model, self.documents, self.tokenizer.vocab_size, device)
        is_best = evaluation.bits_per_character < self.best or self.best == math.inf
        self.best = min(self.best, evaluation.bits_per_character)
        self.without_gain = 0 if is_best else self.without_gain + 1
        self.seconds = time.monotonic() - start
        return evaluation, is_best

    def sample(self, model: LanguageModel, device: str = "cpu") -> str:
        """Return a text of the model, the same draw each time."""
        rows = start_rows([""], self.pieces, seed=0)
        for _ in decode(model, self.tokenizer, self.pieces, rows, GenerationConfig(max_new_tokens=SAMPLE_TOKENS), device=device):
            pass
        return rows[0].text


def _count(model: Any, train: TokenStore, judge: _Judge) -> Iterator[Report]:
    """Count every text once, then finish and evaluate; an interrupted count finishes with what it has seen."""
    start, seen = time.monotonic(), 0
    every = max(1, len(train) // 100)
    try:
        for number in range(len(train)):
            model.observe(train.document(number))
            seen += len(train.document(number))
            if (number + 1) % every == 0:
                yield Report(number + 1, (number + 1) / len(train), time.monotonic() - start, seen)
    finally:
        facts = model.finish()
        train.forget()
    evaluation, is_best = judge.evaluate(model)
    yield Report(
        step=len(train),
        progress=1.0,
        seconds=time.monotonic() - start,
        tokens=seen,
        evaluation=evaluation,
        is_best=is_best,
        sample=judge.sample(model),
        notes=tuple(facts.get("notes", ())),
    )


def _descend(
    model: nn.Module, tokenizer: Tokenizer, train: TokenStore, config: TrainingConfig, budget: Budget, seed: int, judge: _Judge
) -> Iterator[Report]:
    """Descend the gradient over lanes of the stream, evaluate now and then, and leave the best weights in the model."""
    lanes = Lanes(train, bos_id=tokenizer.bos_id, lanes=config.batch_size, bptt=config.bptt, seed=seed)
    loop = _GradientLoop(model, config, lanes, budget, seed)
    best = _copy_tensors(model)
    start, evaluated = time.monotonic(), 0
    try:
        for step, batch in enumerate(lanes, 1):
            loss = loop.step(batch)
            progress = loop.progress(step, reserve=judge.seconds)
            report = Report(
                step,
                progress,
                time.monotonic() - start,
                step * batch.ids.size,
                batch.epoch,
                loss,
                loop.learning_rate,
                device=loop.place,
            )
            if progress < 1 and progress * config.evaluations < evaluated + 1:
                yield report
                continue
            evaluated = int(progress * config.evaluations)
            _refuse_no_number(loss, step, loop.learning_rate)
            evaluation, sample, is_best = loop.evaluate(judge)
            if is_best:
                best = _copy_tensors(model)
            yield Report(**vars(report) | {"evaluation": evaluation, "sample": sample, "is_best": is_best})
            if progress >= 1 or judge.without_gain >= config.patience:
                break
    finally:
        loop.release()
        if judge.best < math.inf:
            model.load_state_dict(best)


class _GradientLoop:
    """The model, its optimizer and where they run; ``accelerate`` places the device and the precision."""

    def __init__(self, model: nn.Module, config: TrainingConfig, lanes: Lanes, budget: Budget, seed: int) -> None:
        self.accelerator = _accelerator(config.precision)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99), fused=True
        )
        self.raw: Any = model  # the same weights without a wrapper for several processes
        self.device = str(self.accelerator.device)
        self.place = f"{self.device}, {'no' if config.precision == 'no' else self.accelerator.mixed_precision} mixed precision"
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.model.train()
        self.config, self.lanes, self.budget = config, lanes, budget
        self.started = time.monotonic()
        self.total_steps = budget.steps or math.ceil((budget.epochs or 0) * lanes.steps_per_epoch)
        self.state: State = None
        self.learning_rate = 0.0
        self.schedule_at = 0.0
        self.random = OwnRandom(seed)

    def step(self, batch: Batch) -> Tensor:
        """Take one optimizer step and return the loss, nats per token."""
        ids = torch.from_numpy(batch.ids).to(self.device, non_blocking=True)
        targets = torch.from_numpy(batch.targets).to(self.device, non_blocking=True)
        state = self.raw.initial_state(len(ids)) if self.state is None or batch.starts_epoch else self.state
        self.learning_rate = self.config.learning_rate * one_cycle(self.schedule_at, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        with self.random:  # dropout draws from it
            logits, state = self.model(ids, state)
        loss = cross_entropy(logits, targets)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.state = detach(state)
        return loss.detach()

    def progress(self, step: int, reserve: float) -> float:
        """Return how much of the budget is used, keeping so many seconds back for a last evaluation."""
        if self.budget.deadline is not None:
            whole = self.budget.deadline - reserve - self.started
            done = (time.monotonic() - self.started) / whole if whole > 0 else 1.0
        else:
            done = step / max(1, self.total_steps)
        self.schedule_at = min(1.0, done)
        return self.schedule_at

    def evaluate(self, judge: _Judge) -> tuple[Evaluation, str, bool]:
        """Evaluate the model as it stands and write a sample."""
        self.model.eval()
        try:
            evaluation, is_best = judge.evaluate(self.raw, self.device)
            sample = judge.sample(self.raw, self.device)
        finally:
            self.model.train()
        return evaluation, sample, is_best

    def release(self) -> None:
        """Give the model back as it came: unwrapped, on the CPU, in evaluation mode."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.raw.to("cpu").eval()
        self.accelerator.free_memory()


class OwnRandom:
    """Inside the block torch draws from a random stream of its own; outside, the global one is as it was."""

    def __init__(self, seed: int) -> None:
        self._inside = torch.Generator().manual_seed(seed).get_state()

    def __enter__(self) -> None:
        self._outside = torch.get_rng_state()
        torch.set_rng_state(self._inside)

    def __exit__(self, *error: object) -> None:
        self._inside = torch.get_rng_state()
        torch.set_rng_state(self._outside)


def cross_entropy(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Return the mean negative log likelihood of the targets, in nats a token; bos is no target.

    Logits that lie in memory time-first, as torch's recurrent layers make them, are read in that order, without a copy.
    """
    if not logits.is_contiguous():
        logits, targets = logits.transpose(0, 1), targets.transpose(0, 1)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)


def detach(state: State) -> State:
    """Return a state cut off from its past, so that gradients end there."""
    return tuple(detach(part) for part in state) if isinstance(state, tuple) else state.detach()


def _copy_tensors(model: nn.Module) -> Mapping[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _refuse_no_number(loss: Tensor, step: int, learning_rate: float) -> None:
    if not bool(torch.isfinite(loss)):
        raise TrainingError(f"The loss is {float(loss)} at step {step}. Lower training.learning_rate (now {learning_rate:g}).")


def _accelerator(precision: str) -> Any:
    """Return an accelerator; its precision is one for the whole process, so "no" only switches autocast off."""
    from accelerate import Accelerator
    from accelerate.utils import AutocastKwargs

    launched = "ACCELERATE_MIXED_PRECISION" in os.environ  # by `accelerate launch`, whose word counts
    mixed = precision if precision in ("bf16", "fp16") else None if launched else native_precision()
    try:
        return Accelerator(mixed_precision=mixed, kwargs_handlers=[AutocastKwargs(enabled=precision != "no")])
    except ValueError as error:
        raise TrainingError(f"training.precision={precision} is not to be had here: {error}") from None


def native_precision() -> str:
    """Return the mixed precision that the device has instructions for."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if torch.backends.mps.is_available():
        return "no"
    return "bf16" if any("bf16" in name and has for name, has in torch.cpu.get_capabilities().items()) else "no"
