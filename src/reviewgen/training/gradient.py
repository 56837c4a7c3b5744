"""The gradient loop: steps over lanes that carry their state (truncated BPTT), evaluations, checkpoints, and when to stop."""

from collections.abc import Iterator

from torch import nn

from reviewgen.data import Lanes, TokenStore
from reviewgen.errors import ProcessLost
from reviewgen.protocols import Tokenizer
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.config import Budget, Report, StopReason, TrainingConfig
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.loop import Loop
from reviewgen.training.processes import Processes

__all__ = ["descend"]


def descend(
    model: nn.Module,
    tokenizer: Tokenizer,
    train: TokenStore,
    config: TrainingConfig,
    budget: Budget,
    seed: int,
    evaluator: Evaluator,
    checkpoints: Checkpoints | None = None,
) -> Iterator[Report]:
    """Descend the gradient over lanes of the stream, evaluate now and then, and leave the best weights in the model.

    Of several processes the first has the checkpoints, and the states of all are in them.
    """
    lanes = Lanes(
        train,
        bos_id=tokenizer.bos_id,
        vocab_size=tokenizer.vocab_size,
        lanes=config.batch_size,
        bptt=config.bptt,
        seed=seed,
        rank=evaluator.processes.rank,
        world_size=evaluator.processes.count,
    )
    begun, are_kept = evaluator.processes.share((None, False) if checkpoints is None else (checkpoints.take_state(), True))
    loop = Loop(model, config, lanes, budget, seed, evaluator, begun)
    report: Report | None = None
    try:
        batches = iter(lanes.start_at(*loop.place))
        for several in zip(*[batches] * config.gradient_accumulation_steps, strict=False):
            report = loop.report(several[-1], loop.step(several), checkpoints.take_notes() if checkpoints is not None else ())
            is_judged = report.progress >= 1 or report.progress * config.evaluations >= loop.evaluated + 1
            is_kept = are_kept and _is_due(evaluator.processes, checkpoints)
            if loop.has_diverged(look=is_judged or is_kept):
                yield loop.stop(report)
                break
            report = loop.evaluate(report) if is_judged else report
            yield report
            if report.stopped:
                break
            state = loop.state() if is_kept else None
            if checkpoints is not None and state is not None:
                checkpoints.save(loop.steps, state)
    except ProcessLost as error:
        if report is None:
            raise
        yield loop.cut_short(report, str(error).removesuffix("."), StopReason.PROCESS_ENDED)
    finally:
        loop.release()


def _is_due(processes: Processes, checkpoints: Checkpoints | None) -> bool:
    """Return whether it is time for a checkpoint, by the clock of the first process."""
    is_due = checkpoints is not None and checkpoints.is_due()
    return bool(processes.gather([is_due])[0, 0]) if processes.count > 1 else is_due
