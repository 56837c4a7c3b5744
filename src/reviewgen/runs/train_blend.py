"""Trains a blend: the runs of its models, one after another on the same corpus; then the weights of
the blend are fitted on held-out texts, as by ``reviewgen.blend``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from reviewgen.blending.model import Blend
from reviewgen.compiled.jit import clock
from reviewgen.devices import using_threads
from reviewgen.errors import Detail, NotADistribution
from reviewgen.evaluation.metrics import TextMetrics
from reviewgen.evaluation.scoring import Document
from reviewgen.processes import all_processes
from reviewgen.runs.blend import fit_blend
from reviewgen.runs.corpus import PreparedCorpus
from reviewgen.runs.measure import choose_documents
from reviewgen.runs.plan import TrainingPlan
from reviewgen.runs.record import RunRecord, order_parts
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.report import Budget, Report

_COUNTING_SHARE = 0.4  # counting takes at most this share of the time left
# the network takes this share of the time that counting leaves; fitting the weights and evaluating
# the blend take the rest
_NETWORK_SHARE = 0.95
# share of a time budget for scoring the texts that the weights are fitted on; the fit itself takes
# three times as long
_WEIGHTS_SHARE = 0.01
_EVALUATION_SHARE = 0.005  # share of a time budget for evaluating the blend on validation texts


def train_parts(
    plan: TrainingPlan, record: RunRecord, start: Callable[[TrainingPlan], Any]
) -> Iterator[Report]:
    """Train the models of a blend in turn, and yield a report for each step.

    Args:
        plan: The plan of the blend.
        record: The record of the blend, which gets the records of its models.
        start: Returns a run that is ready to train, from the plan of one model.

    Raises:
        TrainingError: The training of a model has failed.
        NotADistribution: The probabilities of a model do not sum to one.
    """
    for setup in plan.setup.components:
        spent = sum(part.last.seconds for part in record.parts.values())
        share = _COUNTING_SHARE if setup.is_counted else _NETWORK_SHARE
        length = plan.length
        if length.seconds is not None:
            # all processes use the main process's clock, since they must agree on the length
            with all_processes() as processes:
                left = processes.broadcast(max(0.0, length.seconds - spent))
            length = Budget(seconds=share * left)
        run = start(replace(plan, setup=setup, length=length))
        record.parts[setup.preset] = run.record
        # the network is trained last, so that its facts stay in the record
        record.training = run.record.training
        record.token_copy_rate = run.record.token_copy_rate
        record.last = run.record.last
        for report in run:
            record.last = report
            # a note of an earlier model is not repeated
            notes = dict.fromkeys((*run.record.notes, *report.notes))
            new_notes = [note for note in notes if note not in record.notes]
            record.note(*new_notes)
            yield replace(report, part=setup.preset, notes=tuple(new_notes), stopped=None)
        if setup.is_counted and record.last.evaluation is None:
            raise NotADistribution(
                f"The scores of {setup.preset} with these settings are not probabilities that sum"
                " to one, so it cannot be part of a blend."
            )


def fit_weights(
    runs: Sequence[Any], corpus: PreparedCorpus, record: RunRecord, documents: list[Document]
) -> Blend:
    """Return the blend of the models of some runs, with weights that are fitted on held-out texts.
    How they were fitted is recorded.
    """
    blend, facts = fit_blend(
        [run.model for run in runs],
        [run.plan.setup.model_plugin for run in runs],
        documents,
        corpus.tokenizer.vocab_size,
    )
    record.weights = facts | {"source": corpus.texts.source.name, "split": "validation"}
    return blend


def finish_blend(
    plan: TrainingPlan,
    corpus: PreparedCorpus,
    record: RunRecord,
    runs: Sequence[Any],
    metrics: TextMetrics,
) -> tuple[Blend, Report]:
    """Fit the weights of a blend and evaluate it; return the blend, and the last report of its run.

    Args:
        plan: The plan of the blend.
        corpus: The corpus of all runs.
        record: The record of the blend.
        runs: The runs of its models, the last of which is the network's.
        metrics: The metrics to measure on the texts that the blend generates.
    """
    start = clock()
    seconds = plan.length.seconds
    last = record.last
    with using_threads(last.threads):
        documents = choose_documents(
            runs[-1].model,
            corpus,
            "validation",
            record.training.evaluation_tokens,
            None if seconds is None else _WEIGHTS_SHARE * seconds,
        )
        with all_processes() as processes:
            documents = processes.broadcast(documents)  # their number depends on a clock
        blend = fit_weights(runs, corpus, record, documents)
        evaluator = Evaluator(
            corpus.tokenizer,
            documents,
            record.training,
            corpus.index,
            corpus.conditions.unspecified_ids,
            metrics=metrics,
            seconds_each=None if seconds is None else _EVALUATION_SHARE * seconds,
        )
        report = replace(
            last,
            part=plan.preset,
            progress=1.0,
            loss=None,
            learning_rate=None,
            notes=(Detail(_describe_weights(record, blend)),),
            stopped=None,
        )
        report = evaluator.evaluate(blend, report)
    report = replace(
        report,
        seconds=last.seconds + clock() - start,
        evaluation_seconds=last.evaluation_seconds + evaluator.total_seconds,
        stopped=last.stopped,
    )
    return blend, report


def _describe_weights(record: RunRecord, blend: Blend) -> str:
    """Return a sentence with the weights and the bits per character of each model."""
    facts = record.weights
    described = []
    presets = order_parts(record.parts, facts)
    roles = [f"{weight:.3f}" for weight in blend.config.weights]
    if blend.config.has_expert:
        roles[-1] = "mixes the others"
    for preset, role, bits in zip(
        presets, roles, facts["bits_per_character"]["parts"], strict=True
    ):
        shown = "infinite" if bits is None else f"{bits:.4f}"
        described.append(f"{preset} {role} (alone {shown} bits per character)")
    return f"Weights, fitted on {facts['tokens']:,} held-out tokens: {', '.join(described)}."
