"""The gradient loop: steps over lanes that carry their state (truncated BPTT), evaluations, checkpoints, and when to stop."""

from collections.abc import Iterator

from torch import nn

from reviewgen.data import Lanes, TokenStore
from reviewgen.errors import ProcessLost
from reviewgen.protocols import Tokenizer
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.config import Budget, Report, TrainingConfig
from reviewgen.training.judge import Judge
from reviewgen.training.loop import Loop

__all__ = ["descend"]


def descend(
    model: nn.Module,
    tokenizer: Tokenizer,
    train: TokenStore,
    config: TrainingConfig,
    budget: Budget,
    seed: int,
    judge: Judge,
    checkpoints: Checkpoints | None = None,
) -> Iterator[Report]:
    """Descend the gradient over lanes of the stream, evaluate now and then, and leave the best weights in the model."""
    lanes = Lanes(
        train,
        bos_id=tokenizer.bos_id,
        vocab_size=tokenizer.vocab_size,
        lanes=config.batch_size,
        bptt=config.bptt,
        seed=seed,
        rank=judge.processes.rank,
        world_size=judge.processes.count,
    )
    begun = checkpoints.take_state() if checkpoints is not None else None
    loop = Loop(model, config, lanes, budget, seed, judge, begun)
    report: Report | None = None
    try:
        batches = iter(lanes.start_at(*loop.place))
        for several in zip(*[batches] * config.gradient_accumulation_steps, strict=False):
            report = loop.report(several[-1], loop.step(several), checkpoints.take_notes() if checkpoints is not None else ())
            is_judged = report.progress >= 1 or report.progress * config.evaluations >= loop.evaluated + 1
            is_kept = checkpoints is not None and checkpoints.is_due()
            if loop.has_diverged(look=is_judged or is_kept):
                yield loop.stop(report)
                break
            report = loop.evaluate(report) if is_judged else report
            yield report
            if report.stopped:
                break
            if checkpoints is not None and is_kept:
                checkpoints.save(loop.steps, loop.state())
    except ProcessLost as error:
        if report is None:
            raise
        yield loop.cut_short(report, str(error).removesuffix("."), "another process ended")
    finally:
        loop.release()
