"""``fit``: a model is trained by counting or by gradient, and yields a report per step."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import nn

from reviewgen.config import TrainingConfig
from reviewgen.data import TokenStore
from reviewgen.errors import TrainingError
from reviewgen.evaluation import TextMetrics, sample_documents
from reviewgen.generation import using_threads
from reviewgen.novelty import Index
from reviewgen.processes import all_processes
from reviewgen.protocols import CountTrained, LanguageModel, Tokenizer
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.counting import train_by_counting
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.execution import reused_memory
from reviewgen.training.loop import Loop
from reviewgen.training.report import Budget, Report, StopReason


def fit(
    model: LanguageModel,
    tokenizer: Tokenizer,
    train: TokenStore,
    validation: TokenStore,
    config: TrainingConfig,
    budget: Budget,
    seed: int,
    index: Index | None = None,
    prefix: Sequence[int] = (),
    checkpoints: Checkpoints | None = None,
    metrics: TextMetrics | None = None,
) -> Iterator[Report]:
    """Train a model and yield a report per step.

    Args:
        model: The model, trained in place by counting or by gradient.
        tokenizer: Its tokenizer.
        train: The training texts.
        validation: The held-out texts, of which evaluations score a sample.
        config: Training settings.
        budget: When to stop.
        seed: Seed of the order of the texts and of dropout.
        index: Index of the training texts; with it, each evaluation measures the token copy rate.
        prefix: Ids that stand for conditions and fields not given.
        checkpoints: Where to save the state of a training by gradient; if they have loaded one, training resumes from it.
        metrics: Measured of the texts that each evaluation generates.

    Raises:
        TrainingError: The model can be trained neither by counting nor by gradient, or its loss is NaN or infinite from the
            first step on.
    """
    documents = sample_documents(validation, config.evaluation_tokens)
    evaluator = Evaluator(tokenizer, documents, config, index, prefix, metrics=metrics or TextMetrics())
    if not isinstance(model, CountTrained | nn.Module):
        raise TrainingError(f"{type(model).__name__} is neither a torch module nor CountTrained, so it cannot be trained.")
    with all_processes() as evaluator.processes:
        if isinstance(model, CountTrained):
            yield from train_by_counting(model, train, budget.seconds, evaluator)
        elif not any(True for _ in model.parameters()):
            report = evaluator.evaluate(model.eval(), Report(0, 1.0, 0.0, 0, notes=("The model has nothing to train.",)))
            yield replace(report, stopped=StopReason.NOTHING_TO_TRAIN)
        else:
            with reused_memory():
                loop = Loop(model, train, budget, seed, evaluator, checkpoints or Checkpoints())
                with using_threads(loop.threads.count):
                    yield from loop.train()
