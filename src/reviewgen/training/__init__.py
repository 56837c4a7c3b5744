"""Training: ``fit`` yields a report per step; training by gradient and training by counting live behind it.

    config       training settings, budget, step reports
    evaluator    held-out evaluation, token copy rate and samples during training
    verdict      the verdict on a finished run, from its curves
    counting     training by counting; ``count_group`` exchanges what its processes have counted
    gradient     training by gradient; ``loop`` has its training step and state
    loss         cross entropy
    optimizing   Muon, AdamW, weight averaging
    schedule     the learning rate of each step, and when to evaluate
    autotune     selects threads, precision and implementation by timing
    sizing       chooses a model size for a time budget
    divergence   detects NaN or infinite losses, keeps the last good weights
    checkpoints  a run's state on disk; ``packing`` serialises it, ``lock`` keeps other processes out
    memory       freed memory is kept for the next step
    interrupts   Ctrl-C and SIGTERM during work that must not be cut in two
    processes    the process group: broadcast, all-gather, gradient averaging
    connections  connections notice that a machine has vanished
    restarts     restarts by the launcher
    rounds       numbered tasks that the processes share
    device       devices, precision, threads, random number streams

Logging, printing and plotting are ordinary code around the loop. When the loop ends, for any reason, the model has its best
weights, is in evaluation mode and on the CPU. Recurrent models are trained on B lanes of one long stream and carry their state
from step to step (truncated back-propagation through time, Williams & Peng 1990) of a fixed length, ``bptt``, or of random ones
around it.
"""

from collections.abc import Iterator, Sequence

from torch import nn

from reviewgen.config import TrainingConfig
from reviewgen.data import TokenStore
from reviewgen.errors import TrainingError
from reviewgen.evaluation import Metrics, sample_documents
from reviewgen.novelty import Index
from reviewgen.protocols import CountTrained, LanguageModel, Tokenizer
from reviewgen.training.autotune import keep_threads
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.config import Budget, Report, StopReason
from reviewgen.training.connections import process_state
from reviewgen.training.counting import train_by_counting
from reviewgen.training.device import IsolatedRng, choose_device, native_precision
from reviewgen.training.divergence import DivergenceGuard
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.gradient import train_by_gradient
from reviewgen.training.interrupts import uninterrupted
from reviewgen.training.loss import cross_entropy
from reviewgen.training.memory import reused_memory
from reviewgen.training.packing import pack, unpack
from reviewgen.training.processes import Processes, all_processes, local_processes
from reviewgen.training.restarts import interrupts_kept_for_restart, resumes_by_itself
from reviewgen.training.sizing import Sizing, choose_size
from reviewgen.training.verdict import RunVerdict, find_verdict

__all__ = [
    "Budget",
    "Checkpoints",
    "DivergenceGuard",
    "IsolatedRng",
    "Processes",
    "Report",
    "RunVerdict",
    "Sizing",
    "StopReason",
    "TrainingConfig",
    "all_processes",
    "choose_device",
    "choose_size",
    "cross_entropy",
    "find_verdict",
    "fit",
    "interrupts_kept_for_restart",
    "keep_threads",
    "local_processes",
    "native_precision",
    "pack",
    "process_state",
    "resumes_by_itself",
    "uninterrupted",
    "unpack",
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
    metrics: Metrics | None = None,
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
        prefix: Ids that stand for conditions not given, one for each condition that the texts have after bos.
        checkpoints: Where to save the state of a training by gradient; if they have loaded one, training resumes from it.
        metrics: Measured of the texts that each evaluation generates.

    Raises:
        TrainingError: The model can be trained neither by counting nor by gradient, or its loss is NaN or infinite from the
            first step on.
    """
    documents = sample_documents(validation, config.evaluation_tokens)
    evaluator = Evaluator(tokenizer, documents, config, index, prefix, metrics=metrics or Metrics())
    if isinstance(model, CountTrained):
        yield from train_by_counting(model, train, budget.deadline, evaluator)
    elif isinstance(model, nn.Module) and not any(True for _ in model.parameters()):
        result = evaluator.evaluate(model.eval())
        yield Report(
            0,
            1.0,
            0.0,
            0,
            evaluation=result.evaluation,
            token_copy_rate=result.token_copy_rate,
            sample=result.sample,
            is_best=result.is_best,
            metrics=result.metrics,
            notes=("The model has nothing to train.", *evaluator.metrics.pop_notes()),
            stopped=StopReason.NOTHING_TO_TRAIN,
        )
    elif isinstance(model, nn.Module):
        with all_processes() as evaluator.processes, reused_memory():
            yield from train_by_gradient(model, tokenizer, train, config, budget, seed, evaluator, checkpoints)
    else:
        raise TrainingError(f"{type(model).__name__} is neither a torch module nor CountTrained, so it cannot be trained.")
