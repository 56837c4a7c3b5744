"""``reviewgen.explain``: joins the parts of an explanation."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor

from reviewgen.blending.model import Blend
from reviewgen.config import EvaluateOptions, refuse_unknown_options
from reviewgen.errors import NotADistribution
from reviewgen.explanation.batch import Batch, Labels, check_texts, make_batch
from reviewgen.explanation.counts import explain_counts
from reviewgen.explanation.explanation import Explanation
from reviewgen.explanation.loss import explain_loss, places
from reviewgen.explanation.measured import read_texts
from reviewgen.explanation.results import CountedToken, MixedToken, ModelExplanation
from reviewgen.explanation.subject import Subject, find_subject
from reviewgen.explanation.units import ReadText, explain_gates, find_units
from reviewgen.explanation.walk import Walk, count_parameters, walk
from reviewgen.protocols import (
    CountTrained,
    LanguageModel,
    Operation,
    SupportsExplain,
    SupportsOperations,
    SupportsScore,
    SupportsStep,
)

if TYPE_CHECKING:
    from reviewgen.model import ReviewModel

_COUNTED = 64  # tokens of a batch whose counts are explained


def explain(
    source: "str | Path | ReviewModel",
    text: str | Sequence[str] | None = None,
    *,
    conditions: Mapping[str, Any] | None = None,
    data: Any = None,
    **options: Unpack[EvaluateOptions],
) -> Explanation:
    """Explain what a model computes on a text: each operation, the loss, counts or gates, with the actual numbers.

    >>> explanation = reviewgen.explain("lstm-char", "the movie was")                            # doctest: +SKIP
    >>> explanation.save_html("explanation.html")                                                # doctest: +SKIP

    Args:
        source: A preset, a folder, a repository on the Hub, as in ``reviewgen.load``, or a loaded model. A preset without
            trained weights is initialised, with a note that says so.
        text: The text, or up to 4; of a long one the first 256 tokens are explained. By default two short sentences.
        conditions: Values of the conditions that the model was trained with; others are unspecified.
        data: Texts that the model was not trained on, to find the hidden units that follow quotes, the position in the line or a
            condition; a source as in ``ReviewModel.evaluate``. 64 of them are read.
        options: How ``data`` is read, as in ``ReviewModel.evaluate``: split, text_column, documents and cleaning.

    Raises:
        DataError: A text is empty or not a string, or ``data`` cannot be read.
        ConfigError: A condition or an option is unknown.
        SourceError, BundleError, HubError: As ``reviewgen.load``.
        UnknownPlugin, PluginConflict: The preset or the model's plugin is not installed, or two packages provide it.
        BrokenPlugin: The model raises when it is called.
        GenerationError: The logits are NaN or infinite.
    """
    refuse_unknown_options(options, EvaluateOptions, "explain", others=("conditions", "data"))
    texts = check_texts(text)
    subject = find_subject(source, texts)
    labels = Labels(subject.tokenizer, subject.conditions)
    prefix = subject.conditions.encode({} if conditions is None else conditions)
    batch = make_batch(texts, subject.tokenizer, prefix, labels)
    measured = [] if data is None else read_texts(subject, data, **options)
    parts = [(subject.name, subject.model)]
    if isinstance(subject.model, Blend):
        names = [str(part["name"]) for part in subject.model.config.models]
        parts = list(zip(names, subject.model.parts, strict=True))
    walks = [walk(model, batch) for _, model in parts]
    logits, mixture = walks[0].logits, tuple[MixedToken, ...]()
    if isinstance(subject.model, Blend):
        logits, mixture = _mix(subject.model, walks, batch, labels)
    named = zip(parts, walks, strict=True)
    return Explanation(
        source=subject.source,
        is_trained=subject.is_trained,
        texts=batch.texts,
        tokens=batch.tokens,
        batch=(batch.ids.size(0), batch.ids.size(1)),
        models=tuple(_explain_model(name, model, each, batch, subject, labels, measured) for (name, model), each in named),
        loss=explain_loss(logits, batch, labels, _windows(walks, batch, subject, labels)),
        mixture=mixture,
        notes=(*subject.notes, *batch.notes, *_note_scores(subject.model, batch)),
    )


def _explain_model(
    name: str,
    model: LanguageModel,
    done: Walk,
    batch: Batch,
    subject: Subject,
    labels: Labels,
    measured: Sequence[ReadText],
) -> ModelExplanation:
    can_measure = measured and any(operation.kind == "state" for operation in done.operations)
    units = (
        find_units(model, measured, done.operations, batch, subject.tokenizer.eos_id)
        if can_measure and isinstance(model, SupportsOperations)
        else ()
    )
    return ModelExplanation(
        name=name,
        lines=done.lines,
        parameters=count_parameters(model),
        multiplications=sum(line.multiplications for line in done.lines),
        counts=_explain_counts(model, done.logits, batch, labels),
        gates=tuple(explain_gates(done.operations, batch)),
        units=tuple(units),
    )


def _explain_counts(model: LanguageModel, logits: Tensor, batch: Batch, labels: Labels) -> tuple[CountedToken, ...]:
    """Return the counts behind the tokens of a batch, if the model has counts."""
    if not isinstance(model, CountTrained) or not isinstance(model, SupportsStep):
        return ()
    stepper = model.stepper()
    if not isinstance(stepper, SupportsExplain):
        return ()
    log_probs = logits.double().log_softmax(-1)
    tokens = [(*place, int(batch.targets[place]), float(log_probs[place][batch.targets[place]].exp())) for place in places(batch)]
    return tuple(explain_counts(stepper, batch.rows, tokens[:_COUNTED], labels))


@torch.no_grad()
def _mix(blend: Blend, walks: Sequence[Walk], batch: Batch, labels: Labels) -> tuple[Tensor, tuple[MixedToken, ...]]:
    """Return the log probabilities of a blend, and how those of the targets are mixed."""
    log_probs = [each.logits.log_softmax(-1) for each in walks]
    log_weights = [weights.expand(batch.ids.shape) for weights in blend.log_weights(log_probs)]  # (B, T) each
    mixed = torch.stack([part + weight[..., None] for part, weight in zip(log_probs, log_weights, strict=True)]).logsumexp(0)
    tokens = []
    for row, time in places(batch):
        target = int(batch.targets[row, time])
        weights = tuple(float(weight[row, time].exp()) for weight in log_weights)
        probabilities = tuple(float(part[row, time, target].exp()) for part in log_probs)
        total = sum(np.multiply(weights, probabilities).tolist())
        tokens.append(MixedToken(row, labels.label(target), weights, probabilities, total))
    return mixed, tuple(tokens)


@torch.no_grad()
def _note_scores(model: LanguageModel, batch: Batch) -> Iterator[str]:
    """Yield a note on a model whose scores are not probabilities, so that it cannot be evaluated."""
    try:
        if isinstance(model, SupportsScore):
            model.score(batch.ids[:, :1], batch.ids[:, :1], model.initial_state(len(batch.ids)))
    except NotADistribution:
        yield "The scores of this model do not sum to one; the loss is that of its scores divided by their sum."


def _windows(walks: Sequence[Walk], batch: Batch, subject: Subject, labels: Labels) -> dict[tuple[int, int], tuple[str, ...]]:
    """Return the tokens of the window before each prediction, of a model that has one."""
    windows: list[Operation] = [each for done in walks for each in done.operations if each.kind == "window"]
    if not windows:
        return {}
    padding, ids = subject.conditions.vocab_size, windows[0].values
    return {
        place: tuple("(before)" if token >= padding else labels.label(token) for token in ids[place].tolist())
        for place in places(batch)
    }
