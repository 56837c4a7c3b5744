"""Starts a fit: chooses its size for a time budget, builds the model, and measures what it is compared with afterwards."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from reviewgen.config import to_dict
from reviewgen.errors import NotADistribution
from reviewgen.evaluation import Document, evaluate_documents, sample_documents
from reviewgen.hub.card import file_name
from reviewgen.processes import all_processes, process_state
from reviewgen.protocols import LanguageModel
from reviewgen.runs.curves import targets_per_character
from reviewgen.runs.fit import Baseline, Fit
from reviewgen.runs.initial_weights import set_initial_weights
from reviewgen.runs.plan import TrainingPlan
from reviewgen.runs.prepare import PreparedCorpus
from reviewgen.runs.record import ChosenSize, RunRecord
from reviewgen.runs.run_folder import RunFolder
from reviewgen.runs.tracking import RunLog
from reviewgen.training import Sizing, choose_size, keep_threads
from reviewgen.version import __version__


def start_fit(
    plan: TrainingPlan,
    corpus: PreparedCorpus,
    *,
    started: float | None = None,
    size: ChosenSize | None = None,
    log: RunLog | None = None,
    folder: RunFolder | None = None,
) -> Fit:
    """Build the model of a plan, and measure what is compared with it after the training.

    Args:
        plan: The plan.
        corpus: Its corpus.
        started: When the run was started; now, if not given.
        size: A size that was chosen for the time budget before; chosen here if not given. A resumed run has its own.
        log: The tracker that the curves are also logged to.
        folder: The folder of the checkpoints.

    Raises:
        ConfigError: There is not enough memory for the model.
        TrainingError: The processes of a launcher have different plans.
    """
    started = time.monotonic() if started is None else started
    train, conditions = corpus.stores["train"], corpus.conditions
    record = RunRecord.restore(targets_per_character(train, len(conditions)), {} if folder is None else folder.saved)
    record.note(*corpus.notes)
    record.size = record.size or size
    held_out = sample_documents(corpus.stores["validation"], plan.parts.training.evaluation_tokens)
    token_copy_rate = None
    if corpus.index is not None:
        token_copy_rate = corpus.index.token_copy_rate(ids[1 + len(conditions) : -1] for ids, _ in held_out)
    seconds = plan.length.seconds
    if record.size is None and seconds is not None and (sizing := find_size(plan, corpus, seconds)) is not None:
        record.size = ChosenSize(sizing.model, sizing.training)
        record.note(sizing.describe(seconds))
    size_settings = None if record.size is None else record.size.model
    model = plan.parts.build_model(corpus.tokenizer, conditions.vocab_size, plan.seed, size_settings)
    initial = plan.parts.initial_weights
    initial_tensors = [] if initial is None else set_initial_weights(model, initial)
    _refuse_differences(plan, corpus, model)
    bits = None if plan.parts.trained is None else _measure_bits(model, held_out, corpus)
    record.note(*_note_trained(plan, bits))
    if initial is not None:
        record.note(f"Initial weights from {initial.file.name}: {', '.join(initial_tensors)}; the others are random.")
    if folder is not None and folder.checkpoints is not None:
        folder.checkpoints.snapshot = record.to_checkpoint
    baseline = Baseline(token_copy_rate, bits, tuple(initial_tensors))
    log = log or RunLog(None, None, plan.preset)
    return Fit(plan=plan, corpus=corpus, started=started, record=record, log=log, folder=folder, model=model, baseline=baseline)


def find_size(plan: TrainingPlan, corpus: PreparedCorpus, seconds: float) -> Sizing | None:
    """Return the largest model and batch of a preset that can be trained in a time, on a CPU.

    Of several processes the first times some steps, and all use its result, as if the others added nothing: on processors
    they add little. None if the user has set a size, the preset has no sizes, or no time is left.
    """
    parts, sizes = plan.parts, plan.parts.sizes
    if sizes is None or process_state().device.type != "cpu":
        return None

    def build(size: Mapping[str, Any]) -> LanguageModel:
        return parts.build_model(corpus.tokenizer, corpus.conditions.vocab_size, 0, size)

    with all_processes() as processes:
        sizing: Sizing | None = None
        if processes.rank == 0 and seconds > 0:
            training, train = keep_threads(parts.training, processes.world_size), corpus.stores["train"]
            characters = int(train.characters.sum())
            sizing = choose_size(sizes.preset, build, training, seconds, train.tokens, characters, may_grow=sizes.may_grow_batch)
        shared: Sizing | None = processes.broadcast(sizing)
        return shared


def _refuse_differences(plan: TrainingPlan, corpus: PreparedCorpus, model: LanguageModel) -> None:
    """Raise in every process of a launcher if they are not about to train the same.

    Raises:
        TrainingError: They differ.
        ProcessLost: A process has ended.
    """
    with all_processes() as processes:
        processes.refuse_differences(
            {
                "the corpus": [corpus.corpus.fingerprint, corpus.conditions.to_json()],
                "model settings": to_dict(model.config),
                "versions": [__version__, torch.__version__],
                "the preset": plan.preset,
                "the seed": plan.seed,
                "the length": plan.length.to_json(),
                "settings": plan.identity(),
            }
        )


def _measure_bits(model: Any, held_out: Sequence[Document], corpus: PreparedCorpus) -> float | None:
    """Return a trained model's bits per character on held-out texts; None if they are infinite or it cannot be scored."""
    device = str(process_state().device)
    try:
        bits = evaluate_documents(
            model.to(device).eval(), held_out, corpus.tokenizer.vocab_size, device, given=len(corpus.conditions)
        ).bits_per_character
    except NotADistribution:
        return None
    finally:
        model.to("cpu")
    return bits if math.isfinite(bits) else None


def _note_trained(plan: TrainingPlan, bits: float | None) -> list[str]:
    """Return a note on the model that is trained further; none for a new model."""
    trained = plan.parts.trained
    if trained is None:
        return []
    name = file_name(trained.bundle.source or "a trained model")
    so_far = "" if bits is None else f", which takes {bits:.4f} bits per character of the held-out texts so far"
    rate = plan.parts.training.learning_rate
    return [f"Training {name} ({plan.preset}) further{so_far}; the learning rate peaks at {rate:.3g}."]
