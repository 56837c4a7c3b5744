"""``fit``, and training by gradient: steps, evaluations, early stopping and checkpoints."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

from torch import Tensor, nn

from reviewgen.compiled.jit import clock
from reviewgen.config.training import TrainingConfig
from reviewgen.data.lanes import Batch, Lanes
from reviewgen.data.tokens import Tokens
from reviewgen.devices import using_threads
from reviewgen.errors import (
    CheckpointError,
    Detail,
    ProcessLost,
    TrainingError,
    first_line,
)
from reviewgen.evaluation.evaluate import sample_documents
from reviewgen.evaluation.metrics import TextMetrics
from reviewgen.novelty import Index
from reviewgen.processes import all_processes, can_restart, how_to_resume
from reviewgen.protocols.model import CountTrained, LanguageModel, SupportsImplementations
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.training.autotuning import Execution, Threads, choose_execution
from reviewgen.training.calibration import calibrate
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.counting import train_by_counting
from reviewgen.training.device import choose_device, choose_precision
from reviewgen.training.evaluator import Evaluator, affordable_evaluations
from reviewgen.training.memory import reused_memory
from reviewgen.training.report import Budget, Report, StopReason
from reviewgen.training.schedule import Schedule
from reviewgen.training.softmax import sampled_softmax
from reviewgen.training.step import TrainingStep


def fit(
    model: LanguageModel,
    tokenizer: Tokenizer,
    train: Tokens,
    validation: Tokens,
    config: TrainingConfig,
    budget: Budget,
    seed: int,
    index: Index | None = None,
    prefix: Sequence[int] = (),
    checkpoints: Checkpoints | None = None,
    metrics: TextMetrics | None = None,
    *,
    all_evaluations: bool = True,
) -> Iterator[Report]:
    """Train a model and yield a report per step.

    Args:
        model: The model, trained in place by counting or by gradient.
        tokenizer: Its tokenizer.
        train: The training texts.
        validation: The held-out texts; evaluations score a sample of them.
        config: Training settings.
        budget: When to stop.
        seed: Seed of the order of the texts and of dropout.
        index: Index of the training texts; with it, each evaluation measures the token copy rate.
        prefix: Ids that stand for conditions and fields not given.
        checkpoints: Saves the state of a training by gradient. If a checkpoint has been loaded,
            training resumes from it.
        metrics: The metrics to measure on the texts that each evaluation generates.
        all_evaluations: Whether a short run has as many evaluations as the settings say, even if
            they take more than ``MAX_SHARE`` of it.

    Raises:
        TrainingError: The model can be trained neither by counting nor by gradient, or its loss is
            NaN or infinite from the first step on.
    """
    documents = sample_documents(validation, config.evaluation_tokens)
    evaluator = Evaluator(
        tokenizer, documents, config, index, prefix, metrics=metrics or TextMetrics()
    )
    if not isinstance(model, CountTrained | nn.Module):
        raise TrainingError(
            f"{type(model).__name__} is neither a torch module nor CountTrained, so it cannot be"
            " trained."
        )
    with all_processes() as evaluator.processes:
        if isinstance(model, CountTrained):
            yield from train_by_counting(model, train, budget.seconds, evaluator)
        elif not list(model.parameters()):
            report = evaluator.evaluate(
                model.eval(), Report(0, 1.0, 0.0, 0, notes=("The model has nothing to train.",))
            )
            yield replace(report, stopped=StopReason.NOTHING_TO_TRAIN)
        else:
            with reused_memory():
                loop = Loop(
                    model,
                    train,
                    budget,
                    seed,
                    evaluator,
                    checkpoints or Checkpoints(),
                    all_evaluations,
                )
                with using_threads(loop.threads.count):
                    yield from loop.train()


class Loop:
    """Trains a model by gradient: takes steps, evaluates, makes reports, and saves and restores the
    state of the run.

    Args:
        model: The model; it is trained in place.
        train: The training texts.
        budget: When the run ends.
        seed: Seed of the order of the texts and of dropout.
        evaluator: Evaluates the model and tracks the best result; has the tokenizer and the
            training settings.
        checkpoints: Saves the state of the run. If a checkpoint has been loaded, the run resumes
            from it. With several processes, only the main process saves checkpoints; they hold the
            state of all processes.
        all_evaluations: Whether a short run has as many evaluations as the settings say; see
            ``fit``.

    Raises:
        CheckpointError: The loaded state does not fit the model.
        BrokenPlugin: The model's own parameter groups are wrong.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Tokens,
        budget: Budget,
        seed: int,
        evaluator: Evaluator,
        checkpoints: Checkpoints,
        all_evaluations: bool,
    ) -> None:
        config = evaluator.config
        self.model: Any = model
        self.budget = budget
        self.evaluator = evaluator
        self.checkpoints = checkpoints
        self.config = config
        self.processes = evaluator.processes
        self.lanes = Lanes(
            train,
            lanes=config.batch_size,
            bptt=config.bptt,
            seed=seed,
            is_random=config.bptt_random,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
        )
        resume_state = self.processes.broadcast(checkpoints.pop_state())
        batches = self.lanes.batches_in(budget.epochs) if budget.epochs else 0
        # 0 with a time budget
        self.total_steps = budget.steps or math.ceil(batches / config.gradient_accumulation_steps)
        self.device, self.notes = choose_device(config.device, model)
        sampled = sampled_softmax(model, config.sampled_softmax, self.device.type, train)
        self._set_up_execution(resume_state)
        # all processes begin with the weights of the main process
        model.load_state_dict(self.processes.broadcast(dict(model.state_dict())))
        self.best_weights = _copy_tensors(model)
        self.step = TrainingStep(
            model, config, self.processes, self.device, self.execution.precision, sampled, seed
        )
        self.started: float | None = None  # the clock starts at the end of the first step
        self.seconds_before = 0.0  # training time before the run was interrupted
        self.tokens = 0  # tokens trained on so far, in all processes
        self.position = (0, 0)  # epoch of the next batch, and its number in the epoch
        evaluations = config.evaluations
        if not all_evaluations:
            evaluations = affordable_evaluations(evaluations, self._run_tokens())
        self.schedule = Schedule(config.learning_rate, config.warmup, evaluations)
        self.learning_rate = 0.0
        self.is_closed = False  # whether the model has its final weights
        evaluator.limit_to_share(budget.seconds, self._run_tokens())
        if resume_state is not None:
            self._restore(resume_state)

    def train(self) -> Iterator[Report]:
        """Train and yield a report per step; at the end the model has its best weights.

        If another process is lost before there is a checkpoint, the main process keeps the best
        weights so far.

        Raises:
            ProcessLost: Another process has ended, and the run can be resumed, or this is not the
                main process.
        """
        report: Report | None = None
        try:
            batches = self.lanes.start_at(*self.position)
            while True:
                step_batches = list(islice(batches, self.config.gradient_accumulation_steps))
                start = clock()
                self.learning_rate = self.schedule.learning_rate()
                scaled = self.learning_rate * self._length_scale(step_batches)
                loss = self.step.take(step_batches, self.schedule.steps + 1, scaled)
                self.threads.record(clock() - start)
                do_save = self.finish_step(step_batches)
                report = self.make_report(step_batches[-1], loss)
                do_evaluate = self.is_evaluation_due()
                # a check waits for an accelerator: check only before weights are evaluated or saved
                if do_evaluate or do_save:
                    self.step.guard.check(report.step)
                if self.step.guard.bad_step:
                    yield self.end_diverged(report)
                    break
                if do_evaluate:
                    report = self.evaluate(report)
                if report.stopped:
                    yield replace(report, notes=(*report.notes, *self.close()))
                    break
                yield report
                if do_save:
                    self.checkpoints.save(report.step, self.state())
        except ProcessLost as error:
            if report is None or self.processes.rank:
                raise
            has_checkpoint = bool(self.checkpoints.steps())
            if can_restart() or has_checkpoint:
                raise ProcessLost(
                    f"{error} {how_to_resume(has_checkpoint=has_checkpoint)}"
                ) from None
            yield self.end_early(report, str(error).removesuffix("."), StopReason.PROCESS_ENDED)
        finally:
            self.close()

    def close(self) -> tuple[str, ...]:
        """Load the best weights into the model, move it to the CPU and calibrate it, unless this is
        done already; return notes for the user.
        """
        if self.is_closed:
            return ()
        self.is_closed = True
        self.model.to("cpu").eval()
        if self.evaluator.best == math.inf:
            return ()
        self.model.load_state_dict(self.best_weights)
        if not self.config.calibration:
            return ()
        vocab_size = self.evaluator.tokenizer.vocab_size
        note = calibrate(self.model, self.evaluator.documents, vocab_size)
        return () if note is None else (Detail(note),)

    def state(self) -> dict[str, Any]:
        """Return everything that determines how the run continues, as tensors and JSON values, to
        save in a checkpoint.

        All processes call this together. The values that differ between processes are in ``own``,
        by rank.
        """
        return {
            "parts": {
                name: dict(stateful.state_dict()) for name, stateful in self._stateful().items()
            },
            "own": self.processes.all_gather_object(self.step.local_state()),
            "tokens": self.tokens,
            "position": self.position,
            "best_weights": self.best_weights,
            "schedule": asdict(self.schedule),
            "budget": asdict(self.budget),
            "execution": asdict(replace(self.execution, threads=self.threads.count)),
            "one_thread_seconds": self.threads.one_thread_seconds,
            "seconds": self.seconds(),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint. The time used before counts towards the budget.

        Raises:
            CheckpointError: The state does not fit the model.
        """
        try:
            for name, stateful in self._stateful().items():
                stateful.load_state_dict(state["parts"][name])
            self.tokens = state["tokens"]
            self.position = state["position"]
            self.best_weights = state["best_weights"]
            self.schedule = Schedule(**state["schedule"])
            self.budget = Budget(**state["budget"])
            self.seconds_before = state["seconds"]
            self.step.restore_local(state["own"][self.processes.rank])
            self.step.restart_guard(self.schedule.steps)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint does not fit this model: {first_line(error)}."
            ) from None

    def _stateful(self) -> dict[str, Any]:
        """Return the objects that have a ``state_dict``, by name."""
        return {**self.step.stateful(), "evaluator": self.evaluator}

    def _set_up_execution(self, resume_state: Mapping[str, Any] | None) -> None:
        """Set how steps are computed: as in the resumed state, or else as autotuning chooses on a
        CPU.

        Raises:
            CheckpointError: The model does not have the implementation of the resumed state.
        """
        if resume_state is None:
            execution, one_thread_seconds = self._choose_execution()
        else:
            execution = Execution(**resume_state["execution"])
            one_thread_seconds = resume_state["one_thread_seconds"]
            # raises if this device does not have the precision
            choose_precision(execution.precision, self.device.type)
        if isinstance(self.model, SupportsImplementations) and execution.implementation is not None:
            try:
                self.model.use_implementation(execution.implementation)
            except ValueError as error:
                raise CheckpointError(f"The checkpoint does not fit this model: {error}") from None
        self.execution = execution
        self.threads = Threads(execution.threads, one_thread_seconds)
        self.device_description = f"{self.device}, {execution.precision} mixed precision"
        if execution.implementation:
            self.device_description += f", {execution.implementation}"

    def _choose_execution(self) -> tuple[Execution, float | None]:
        """Choose how steps are computed, and note for the user what was timed.

        Returns:
            The choice, and the seconds of a step with one thread; None if they were not measured.
        """
        execution, *others = choose_execution(
            self.model,
            self.config,
            self.device.type,
            self.budget.seconds,
            self._run_tokens(),
            self.processes,
        )
        if not execution.tokens_per_second:  # nothing was timed
            return execution, None
        timed = [execution, *others]
        if others:
            best, *slower = (each.describe() for each in timed)
            unit = "in tokens per second forward and backward"
            self.notes += (
                Detail(
                    f"Fastest of {len(timed)} configurations, {unit}: {best} ({'; '.join(slower)})."
                ),
            )
        rates = [each.tokens_per_second for each in timed if each.threads == 1]
        config = self.config
        step_tokens = config.batch_size * config.bptt * config.gradient_accumulation_steps
        one_thread_seconds = step_tokens / max(rates) if rates else None
        return execution, one_thread_seconds

    def seconds(self) -> float:
        """Return the training time so far, from the end of the first step."""
        return self.seconds_before + (0.0 if self.started is None else clock() - self.started)

    def finish_step(self, batches: Sequence[Batch]) -> bool:
        """Start the clock after the first step, and update the progress, given the batches of the
        step; return whether to save a checkpoint now.

        The progress is computed so that time is left for a last evaluation. The clock of the main
        process decides for all, so that all processes take the same steps.
        """
        self.schedule.steps += 1
        self.tokens += self.processes.world_size * sum(batch.ids.size for batch in batches)
        self.position = batches[-1].epoch, batches[-1].number + 1
        if self.started is None:
            self.started = clock()
        is_checkpoint_due = self.checkpoints.is_due()
        progress = self.schedule.steps / max(1, self.total_steps)
        if self.budget.seconds is not None:
            # the last evaluation is expected to take as long as the one before
            training_seconds = self.budget.seconds - self.evaluator.seconds
            progress = self.seconds() / training_seconds if training_seconds > 0 else 1.0
        if self.processes.world_size > 1:
            gathered = self.processes.all_gather([progress, is_checkpoint_due])
            progress, is_checkpoint_due = gathered[0].tolist()
        self.schedule.progress = min(1.0, progress)
        return bool(is_checkpoint_due)

    def make_report(self, batch: Batch, loss: Tensor) -> Report:
        """Return the report of a step, from its last batch and its loss."""
        notes = (*self.notes, *self.checkpoints.pop_notes())
        self.notes = ()
        step = self.schedule.steps
        epochs = batch.epoch + (batch.number + 1) / batch.of
        seconds_per_epoch = None
        seconds_left = None
        if step > 1:  # the clock starts after the first step
            seconds_per_step = (self.seconds() - self.evaluator.total_seconds) / (step - 1)
            seconds_per_epoch = seconds_per_step * step / epochs
            seconds_left = self.seconds_left(seconds_per_step)
        return Report(
            step=step,
            progress=self.schedule.progress,
            seconds=self.seconds(),
            tokens=self.tokens,
            epoch=batch.epoch,
            loss=loss,
            losses=self.step.losses,
            learning_rate=self.learning_rate,
            bptt=batch.ids.shape[1] if self.config.bptt_random else None,
            evaluation_seconds=self.evaluator.total_seconds,
            device=self.device_description,
            threads=self.threads.count,
            notes=notes,
            epochs=epochs,
            seconds_per_epoch=seconds_per_epoch,
            seconds_left=seconds_left,
        )

    def seconds_left(self, seconds_per_step: float) -> float:
        """Return the estimated seconds to the end of the run: the rest of a time budget, or else
        the time of the remaining steps and evaluations.
        """
        if self.budget.seconds is not None and self.schedule.annealing is None:
            return max(0.0, self.budget.seconds - self.seconds())
        return (
            self.schedule.steps_left() * seconds_per_step
            + self.schedule.evaluations_left() * self.evaluator.seconds
        )

    def is_evaluation_due(self) -> bool:
        """Return whether to evaluate after this step: always at the end of the run; before the end,
        if the schedule says so and evaluations have not taken more than their share of the time.
        """
        if self.schedule.is_over:
            return True
        if self.schedule.evaluations_due() <= self.schedule.evaluated:
            return False
        if self.budget.seconds is None:
            return True
        return self.evaluator.has_time(self.schedule.progress * self.budget.seconds)

    def evaluate(self, report: Report) -> Report:
        """Evaluate the model, keep its weights if they are the best, and return the step's report
        with the result. If the held-out bits have not improved for ``patience`` evaluations, start
        the annealing.
        """
        schedule = self.schedule
        evaluator = self.evaluator
        evaluated_model = self.step.evaluated_model
        schedule.evaluated = schedule.evaluations_due()
        report = replace(report, stopped=self._stop_reason())
        evaluated_model.eval()
        try:
            with self.step.autocast():
                report = evaluator.evaluate(evaluated_model, report, str(self.device))
        finally:
            evaluated_model.train()
        if report.is_best:
            self.best_weights = _copy_tensors(evaluated_model)
            schedule.mark_best()
        # evaluations count only after the warmup and the first epoch, in which no model overfits
        if schedule.progress < self.config.warmup or self.position[0] == 0:
            evaluator.restart_patience()
        if report.stopped or schedule.annealing or evaluator.best == math.inf:
            return report
        if evaluator.without_gain < self.config.patience:
            return report
        # a set, since the evaluated model is the model itself if its weights are not averaged
        for each in {self.model, evaluated_model}:
            each.load_state_dict(self.best_weights)
        annealing_steps = schedule.anneal()
        note = Detail(
            f"Held-out bits have not improved since step {schedule.best_step:,}: its weights are"
            f" restored, and the learning rate falls to zero within {annealing_steps:,} steps."
        )
        return replace(report, notes=(*report.notes, note))

    def _stop_reason(self) -> StopReason | None:
        """Return why the run ends after this step; None if it goes on."""
        if not self.schedule.is_over:
            return None
        if self.schedule.annealing is not None:
            return StopReason.NO_MORE_GAIN
        if self.budget.seconds is None:
            return StopReason.ALL_STEPS_TAKEN
        return StopReason.BUDGET_SPENT

    def end_diverged(self, report: Report) -> Report:
        """End a run whose loss or gradient became NaN or infinite; return its last report. For the
        weights that are kept, see ``end_early``.

        Raises:
            TrainingError: The first step was bad, so there are no good weights.
        """
        step = self.step.guard.bad_step
        epoch, batch = self.lanes.locate((step - 1) * self.config.gradient_accumulation_steps)
        losses = {
            "The loss": report.loss,
            **{f"The loss term {name!r}": term for name, term in report.losses.items()},
        }
        what = "The gradient is NaN or infinite"
        for name, loss in losses.items():
            if loss is not None and not loss.isfinite():
                what = f"{name} is {float(loss)}"
                break
        where = (
            f"step {step:,} (epoch {epoch + 1}, batch {batch + 1:,} of"
            f" {self.lanes.batches_of(epoch):,})"
        )
        reason = f"{what} at {where}: lower training.learning_rate (now {report.learning_rate:g})"
        return self.end_early(report, reason, StopReason.DIVERGED)

    def end_early(self, report: Report, reason: str, stopped: StopReason) -> Report:
        """End a run that cannot continue; return its last report.

        The best weights are kept or, if there was no evaluation yet, the last good ones.

        Raises:
            TrainingError: There are no good weights.
        """
        good_steps = self.step.guard.good_steps if self.step.guard.bad_step else self.schedule.steps
        if self.evaluator.best < math.inf:
            weights = "the best weights so far"
        elif good_steps and not self.evaluator.has_nan:
            weights = f"there was no evaluation yet, so the weights after step {good_steps:,}"
        else:
            raise TrainingError(f"{reason}.")
        if self.step.guard.bad_step:
            self.step.guard.restore()
        notes = (*report.notes, f"{reason}. Kept: {weights}.")
        return replace(
            report,
            evaluation=None,
            token_copy_rate=None,
            metrics={},
            is_best=False,
            sample=None,
            notes=notes,
            stopped=stopped,
        )

    def _length_scale(self, batches: Sequence[Batch]) -> float:
        """Return the factor of the learning rate of a step: the mean length of its batches as a
        share of ``bptt`` if lengths are random, else 1.

        Without it, the tokens of short batches would weigh more than those of long ones (Merity et
        al. 2018, section 5).
        """
        if not self.config.bptt_random:
            return 1.0
        length: int = sum(batch.ids.shape[1] for batch in batches)
        return length / (len(batches) * self.lanes.bptt)

    def _run_tokens(self) -> float:
        """Return the number of tokens of the whole run, in all processes; infinite if the run has a
        time budget.
        """
        if self.budget.seconds is not None:
            return math.inf
        batches = self.total_steps * self.config.gradient_accumulation_steps
        return batches * self.lanes.lanes * self.lanes.bptt * self.processes.world_size


def _copy_tensors(model: nn.Module) -> Mapping[str, Tensor]:
    """Return copies of a model's tensors on the CPU. Tied tensors still share memory, so that a
    checkpoint saves them once.
    """
    return copy.deepcopy(
        {name: tensor.detach().to("cpu") for name, tensor in model.state_dict().items()}
    )
