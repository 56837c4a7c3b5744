"""Training by gradient: steps over lanes that carry their state (truncated BPTT), evaluations, checkpoints and early stopping."""

from collections.abc import Iterator

from torch import nn

from reviewgen.config import TrainingConfig
from reviewgen.data import Lanes, TokenStore
from reviewgen.errors import ProcessLost
from reviewgen.protocols import Tokenizer
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.config import Budget, Report, StopReason
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.loop import Loop
from reviewgen.training.processes import Processes
from reviewgen.training.restarts import can_restart, how_to_resume


def train_by_gradient(
    model: nn.Module,
    tokenizer: Tokenizer,
    train: TokenStore,
    config: TrainingConfig,
    budget: Budget,
    seed: int,
    evaluator: Evaluator,
    checkpoints: Checkpoints | None = None,
) -> Iterator[Report]:
    """Train a model by gradient descent and yield a report per step; at the end the model has its best weights.

    With several processes, only the main process has ``checkpoints``. A checkpoint holds the state of all processes. If another
    process is lost before there is one, the main process keeps the best weights so far.

    Raises:
        ProcessLost: Another process has ended, and the run can be resumed, or this is not the main process.
    """
    lanes = Lanes(
        train,
        bos_id=tokenizer.bos_id,
        vocab_size=tokenizer.vocab_size,
        lanes=config.batch_size,
        bptt=config.bptt,
        seed=seed,
        is_random=config.bptt_random,
        rank=evaluator.processes.rank,
        world_size=evaluator.processes.world_size,
    )
    own = (None, False) if checkpoints is None else (checkpoints.pop_state(), True)
    resume_state, has_checkpoints = evaluator.processes.broadcast(own)
    loop = Loop(model, config, lanes, budget, seed, evaluator, resume_state)
    report: Report | None = None
    try:
        batches = iter(lanes.start_at(*loop.position))
        for step_batches in zip(*[batches] * config.gradient_accumulation_steps, strict=False):
            loss = loop.train_step(step_batches)
            report = loop.make_report(step_batches[-1], loss, checkpoints.pop_notes() if checkpoints is not None else ())
            do_evaluate = loop.is_evaluation_due()
            do_save = has_checkpoints and _is_checkpoint_due(evaluator.processes, checkpoints)
            if loop.has_diverged(wait=do_evaluate or do_save):
                yield loop.end_diverged(report)
                break
            report = loop.evaluate(report) if do_evaluate else report
            yield report
            if report.stopped:
                break
            state = loop.state() if do_save else None
            if checkpoints is not None and state is not None:
                checkpoints.save(loop.steps, state)
    except ProcessLost as error:
        if report is None or evaluator.processes.rank:
            raise
        has_checkpoint = checkpoints is not None and bool(checkpoints.steps())
        if can_restart() or has_checkpoint:
            raise ProcessLost(f"{error} {how_to_resume(has_checkpoint=has_checkpoint)}") from None
        yield loop.end_early(report, str(error).removesuffix("."), StopReason.PROCESS_ENDED)
    finally:
        loop.release()


def _is_checkpoint_due(processes: Processes, checkpoints: Checkpoints | None) -> bool:
    """Return whether to save a checkpoint now, by the main process's clock."""
    is_due = checkpoints is not None and checkpoints.is_due()
    return bool(processes.all_gather([is_due])[0, 0]) if processes.world_size > 1 else is_due
