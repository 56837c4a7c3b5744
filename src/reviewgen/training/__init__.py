"""Training: ``fit`` is a generator of reports; the gradient loop and the counting loop live behind it.

    config       what a run is told and what it reports
    evaluator        held-out evaluation, copy rate and samples
    verdict      what the curves of a run say, in words
    counting     the loop of models that count
    gradient     the loop of models that descend a gradient; ``loop`` takes its steps
    loss         cross entropy
    optimizing   Muon, AdamW, the learning rate over a run, averaged weights
    probe        the fastest form of a step: threads, precision, implementation
    sizing       how large a model a time is enough for
    divergence   a loss that is no number, and the last good weights
    checkpoints  a run's state on disk; ``packing`` makes it plain data, ``lock`` keeps it to one process
    interrupts   what Ctrl-C must not cut in two
    processes    what the processes of a launcher tell one another
    device       accelerate, threads, random numbers

Logging, printing and plotting are ordinary code around the loop. When the loop ends, for whatever reason, the model holds
its best weights, is in evaluation mode and on the CPU. Recurrent models see B lanes of one long stream and carry their state
from step to step (truncated back-propagation through time, Williams & Peng 1990), its length fixed: ``bptt``.
"""

from collections.abc import Iterator, Sequence

from torch import nn

from reviewgen.data import TokenStore
from reviewgen.errors import TrainingError
from reviewgen.evaluation import sample_documents
from reviewgen.novelty import Index
from reviewgen.protocols import CountTrained, LanguageModel, Tokenizer
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.config import Budget, Report, StopReason, TrainingConfig
from reviewgen.training.counting import count
from reviewgen.training.device import OwnRandom, native_precision, process_state
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.gradient import descend
from reviewgen.training.interrupts import uninterrupted
from reviewgen.training.probe import keep_threads
from reviewgen.training.processes import Processes, all_processes, processes_here
from reviewgen.training.sizing import Sizing, choose_size
from reviewgen.training.verdict import RunVerdict, find_verdict

__all__ = [
    "Budget",
    "Checkpoints",
    "OwnRandom",
    "Processes",
    "Report",
    "RunVerdict",
    "Sizing",
    "StopReason",
    "TrainingConfig",
    "all_processes",
    "choose_size",
    "find_verdict",
    "fit",
    "keep_threads",
    "native_precision",
    "process_state",
    "processes_here",
    "uninterrupted",
]


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
) -> Iterator[Report]:
    """Train a model; yield a report a step. With an index of the training texts, each evaluation says how much it copies.

    ``prefix`` holds the ids that stand for no condition in particular, one for each that the texts carry after bos. With
    ``checkpoints``, a descent of the gradient is kept on disk as it goes, and goes on from what they have loaded.

    Raises:
        TrainingError: The model can be trained neither by counting nor by gradient, or its loss is no number.
    """
    evaluator = Evaluator(tokenizer, sample_documents(validation, config.evaluation_tokens), config, index, prefix)
    if isinstance(model, CountTrained):
        yield from count(model, train, budget.deadline, evaluator)
    elif isinstance(model, nn.Module) and not any(True for _ in model.parameters()):
        verdict = evaluator.evaluate(model.eval())
        yield Report(
            0,
            1.0,
            0.0,
            0,
            evaluation=verdict.evaluation,
            copy_rate=verdict.copy_rate,
            sample=verdict.sample,
            is_best=verdict.is_best,
            notes=("The model has nothing to train.",),
            stopped=StopReason.NOTHING_TO_TRAIN,
        )
    elif isinstance(model, nn.Module):
        with all_processes() as evaluator.processes:
            yield from descend(model, tokenizer, train, config, budget, seed, evaluator, checkpoints)
    else:
        raise TrainingError(f"{type(model).__name__} is neither a torch module nor CountTrained, so it cannot be trained.")
