"""``reviewgen.explain``: the operations of a model on a text, its loss, counts and gates, with the
actual numbers.

N predicted tokens, V vocabulary; B batch, T time (tokens).
"""

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from reviewgen.analysis import explanation
from reviewgen.analysis.explanation import Explanation, Line
from reviewgen.analysis.subject import LoadedModel
from reviewgen.analysis.trace import ModuleCall, broken_plugins, letter_sizes, name_axes, trace
from reviewgen.blending.model import Blend
from reviewgen.errors import ConfigError, DataError, GenerationError, NotADistribution
from reviewgen.generation.next_tokens import show
from reviewgen.protocols.abilities import Operation, SupportsOperations, count_parameters
from reviewgen.protocols.model import (
    CountTrained,
    SupportsExpert,
    SupportsScore,
    SupportsStep,
)
from reviewgen.protocols.stepper import CountedContext, SupportsContributions, SupportsExplain
from reviewgen.words import WordMap

if TYPE_CHECKING:
    from reviewgen.model.review_model import ReviewModel

SAMPLE_TEXTS = ("The movie was good.", "I did not like the end of it.")
IGNORED = -100  # target of a position without a prediction; torch's losses ignore it by default
_MAX_TEXTS = 4  # maximum number of texts that are explained at once
_MAX_TOKENS = 256  # maximum number of tokens of a text
_MAX_CHARACTERS = 64 * _MAX_TOKENS  # maximum number of characters of a text that are tokenized
_MAX_COUNTED = 64  # maximum number of tokens of a batch whose counts are explained

Windows = Mapping[tuple[int, int], tuple[str, ...]]
"""The tokens of the window that each prediction is made from, by row and position of the
prediction. Empty for a model without a window.
"""


@dataclass(frozen=True)
class TextBatch:
    """The texts to explain, as a batch of ids.

    Attributes:
        texts: The texts; long ones are cut.
        ids: The ids that the model reads: bos, conditions, tokens; shorter texts are padded with
            eos.
        targets: The ids of the next tokens; IGNORED where a condition follows, and at padding.
        rows: The ids of each text without padding.
        labels: The texts by which the ids of the model are displayed.
        notes: Sentences on texts that were cut.
    """

    texts: tuple[str, ...]
    ids: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    rows: list[list[int]]
    labels: "Labels"
    notes: tuple[str, ...]

    @property
    def is_read(self) -> Bool[Tensor, "B T"]:
        """Whether each position belongs to a text, and not to padding."""
        lengths = torch.tensor(list(map(len, self.rows)))
        return torch.arange(self.ids.size(1)) < lengths[:, None]

    @property
    def positions(self) -> list[tuple[int, int]]:
        """Row and position of each prediction, text by text."""
        return [(row, time) for row, time in torch.nonzero(self.targets != IGNORED).tolist()]


class Labels(dict[int, str]):
    """The texts by which the ids of a model are displayed: those of tokens and of conditions. A
    token is decoded when it is first looked up.
    """

    def __init__(self, subject: LoadedModel) -> None:
        self._tokenizer = subject.tokenizer
        super().__init__({self._tokenizer.bos_id: "(start)", self._tokenizer.eos_id: "(end)"})
        conditions = subject.conditions
        # the ids of a condition are consecutive; the first stands for "not given"
        for condition, first_id in zip(conditions.fixed, conditions.open_ids, strict=True):
            labels = ["not given", *(value.label for value in condition.values)]
            for token, label in enumerate(labels, first_id):
                self[token] = f"({condition.name} {label})"
        # the last ids are the markers of the fields and of the text
        markers = [*(f"({field.name})" for field in conditions.fields), "(text)"]
        self.update(enumerate(markers, conditions.vocab_size - conditions.field_ids))

    def __missing__(self, token: int) -> str:
        text = self._tokenizer.decode([token])
        is_whole = text and "\ufffd" not in text  # a token may be only some bytes of a character
        self[token] = show(text) if is_whole else "(byte)"
        return self[token]


def check_texts(text: Any) -> tuple[str, ...]:
    """Check the texts to explain, and return them as a tuple. For None, return sample texts.

    Raises:
        DataError: A text is empty or not a string, or there are too many.
    """
    if text is None:
        return SAMPLE_TEXTS
    is_list = isinstance(text, Sequence) and not isinstance(text, str)
    texts = tuple(text) if is_list else (text,)
    for item in texts:
        if not isinstance(item, str):
            raise DataError(f"A text to explain must be a string; got {type(item).__name__}.")
    if not texts or not all(texts):
        raise DataError("A text to explain is empty; give one of at least one character.")
    if len(texts) > _MAX_TEXTS:
        raise DataError(f"At most {_MAX_TEXTS} texts are explained at once; got {len(texts)}.")
    return texts


def make_batch(texts: Sequence[str], subject: LoadedModel, prefix: Sequence[int]) -> TextBatch:
    """Tokenize texts into a batch. Each text stands after ``prefix``, the ids of its conditions. A
    long text is cut, which a note says, and has no end token.
    """
    tokenizer = subject.tokenizer
    shown_texts = []
    rows = []
    targets = []
    notes = []
    for text in texts:
        tokens = list(tokenizer.encode(text[:_MAX_CHARACTERS]))
        if len(tokens) > _MAX_TOKENS or len(text) > _MAX_CHARACTERS:
            tokens = tokens[:_MAX_TOKENS]
            shown_texts.append(tokenizer.decode(tokens))
            notes.append(
                f"Only the first {len(tokens)} tokens of a text of {len(text):,} characters are"
                " explained."
            )
        else:
            tokens.append(tokenizer.eos_id)
            shown_texts.append(text)
        rows.append([tokenizer.bos_id, *prefix, *tokens[:-1]])
        targets.append(torch.tensor([IGNORED] * len(prefix) + tokens))
    tensors = map(torch.tensor, rows)
    ids = pad_sequence(list(tensors), batch_first=True, padding_value=tokenizer.eos_id)
    padded_targets = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
    return TextBatch(tuple(shown_texts), ids, padded_targets, rows, Labels(subject), tuple(notes))


def explain(
    source: "str | Path | ReviewModel",
    text: str | Sequence[str] | None = None,
    *,
    conditions: Mapping[str, Any] | None = None,
) -> Explanation:
    """Explain what a model computes on a text: each operation, the loss, counts or gates, with the
    actual numbers.

    >>> explanation = reviewgen.explain("lstm-char", "the movie was")  # doctest: +SKIP
    >>> explanation.save_html("explanation.html")  # doctest: +SKIP

    Args:
        source: A preset, a folder, a repository on the Hub, as in ``reviewgen.load``, or a loaded
            model. A preset without trained weights is initialised, with a note that says so.
        text: The text, or a list of up to 4 texts; the default is two short sentences. Only the
            first 256 tokens of a long text are explained.
        conditions: Values of the conditions that the model was trained with; others are
            unspecified.

    Raises:
        DataError: A text is empty or not a string.
        ConfigError: A condition is unknown, or the model has no tokenizer.
        SourceError, BundleError, HubError: As ``reviewgen.load``.
        UnknownPlugin, PluginConflict: The preset or the model's plugin is not installed, or two
            packages provide it.
        BrokenPlugin: The model raises when it is called.
        GenerationError: The logits are NaN or infinite.
    """
    texts = check_texts(text)
    subject = LoadedModel.of(source, [*SAMPLE_TEXTS, *texts])
    if subject.tokenizer is None:
        raise ConfigError(
            f"A text is explained by a model with its tokenizer; got a {type(source).__name__}."
        )
    batch = make_batch(
        texts, subject, subject.conditions.encode({} if conditions is None else conditions)
    )
    names = [subject.name]
    models = [subject.model]
    if isinstance(subject.model, Blend):
        names = [str(part["name"]) for part in subject.model.config.models]
        models = list(subject.model.components)
    passes, logits, mixture = _run_all(subject.model, batch)
    return Explanation(
        source=subject.source,
        is_trained=bool(subject.is_trained),
        texts=batch.texts,
        tokens=tuple(tuple(map(batch.labels.__getitem__, row)) for row in batch.rows),
        batch=(len(batch.ids), batch.ids.size(1)),
        models=tuple(map(partial(_explain_model, batch), names, models, passes)),
        loss=_explain_loss(logits, batch, _window_tokens(passes, batch, subject)),
        mixture=mixture,
        notes=(*subject.notes, *batch.notes, *_note_scores(subject.model, batch)),
        word_map=_map_words(subject),
    )


def _map_words(subject: LoadedModel) -> WordMap | None:
    """Return the map of words of a trained model; None if the model is not trained or has no
    embeddings of words.
    """
    if subject.review is None or subject.review.generator.pieces.are_characters:
        return None
    try:
        return subject.review.word_map()
    except ConfigError:
        return None


class _ForwardPass(NamedTuple):
    """The result of a forward pass: a line for each operation, the logits, and the operations.
    ``operations`` is empty for a model that does not describe itself. ``expert`` has the logits
    that the model mixed in.
    """

    lines: list[Line]
    logits: Float[Tensor, "B T V"]
    operations: list[Operation]
    expert: Float[Tensor, "B T V"] | None = None


@torch.no_grad()
def _run_forward(model: Any, batch: TextBatch) -> _ForwardPass:
    """Run a model on a batch. The lines are the operations that the model describes; for a model
    that describes none, they are its modules; for a model without modules, one line has the logits.
    """
    if isinstance(model, SupportsOperations):
        with broken_plugins(model, batch.ids):
            operations = list(model.operations(batch.ids, model.initial_state(len(batch.ids))))  # type: ignore[attr-defined]  # each model has it; the protocol does not say so
        lines = [
            Line(
                op.name,
                op.formula,
                tuple(op.axes.split()),
                tuple(op.values.shape),
                op.parameters,
                op.multiplications,
                *_mean_and_spread(op.values, batch.is_read),
                kind=op.kind,
            )
            for op in operations
        ]
        return _ForwardPass(lines, operations[-1].values, operations)
    traced = trace(model, batch.ids)
    logits = traced.logits
    if isinstance(model, nn.Module):
        return _ForwardPass(list(_module_lines(model, traced.calls, batch)), logits, [])
    return _ForwardPass([_logits_line(model, logits, batch)], logits, [])


@torch.no_grad()
def _run_with_expert(
    model: SupportsExpert, expert: Float[Tensor, "B T V"], batch: TextBatch
) -> _ForwardPass:
    """Run a model that mixes the log probabilities of an expert in."""
    state = model.initial_state(len(batch.ids))  # type: ignore[attr-defined]  # each model has it; the protocol does not say so
    logits, _ = model.call_with_expert(batch.ids, expert, state)
    return _ForwardPass([_logits_line(model, logits, batch)], logits, [], expert)


def _run_all(
    model: Any, batch: TextBatch
) -> tuple[list[_ForwardPass], Tensor, tuple[explanation.MixedToken, ...]]:
    """Run a model, or each component of a blend, on a batch. Return the forward passes; the logits
    of the model, (B, T, V); and for an average of components how each target is averaged.
    """
    if not isinstance(model, Blend):
        alone = _run_forward(model, batch)
        return [alone], alone.logits, ()
    passes = [_run_forward(each, batch) for each in model.components[: model.config.averaged]]
    logits, mixture = _mix(model, passes, batch)
    if not model.config.has_expert:
        return passes, logits, mixture
    # the average is only the expert of the last component, whose logits are those of the blend
    last = _run_with_expert(model.components[-1], logits, batch)
    return [*passes, last], last.logits, ()


def _logits_line(model: Any, logits: Float[Tensor, "B T V"], batch: TextBatch) -> Line:
    """Return the line of a model without modules, which has its logits."""
    figures = _mean_and_spread(logits, batch.is_read)
    parameters = sum(count_parameters(model).values())
    return Line("logits", "", ("B", "T", "V"), tuple(logits.shape), parameters, 0, *figures)


def _module_lines(
    model: nn.Module, calls: Sequence[ModuleCall], batch: TextBatch
) -> Iterator[Line]:
    """Yield a line for each module that computes something, in the order in which their first calls
    end. The last line is the model: what it computes outside of these modules.
    """
    by_name = dict[str, list[ModuleCall]]()
    for call in calls:
        by_name.setdefault(call.name, []).append(call)
    counted = set[nn.Parameter]()  # parameters of the lines above
    letters = letter_sizes(model.config)
    for name, group in by_name.items():
        module = group[0].module
        products = sum(call.products for call in group)
        # the line of the model (its name is empty) also has the parameters of modules that are not
        # called
        used = set(module.parameters(recurse=not name)) - counted
        counted |= used
        computes = used or products or not list(module.children())
        if name and not computes:
            continue
        # the first floating-point tensor; if there is none, the first tensor
        output = max(group[-1].outputs, key=torch.is_floating_point, default=None)
        shape = () if output is None else tuple(output.shape)
        figures = (None, None) if output is None else _mean_and_spread(output, batch.is_read)
        kind = type(module).__name__
        if name:
            title = f"{name} ({kind})"
        elif len(by_name) == 1:
            title = kind
        else:
            title = f"the rest of {kind}"
        axes = tuple(map(str, name_axes(shape, batch.ids.shape, letters)))
        parameters = sum(parameter.numel() for parameter in used)
        yield Line(title, "", axes, shape, parameters, products, *figures, calls=len(group))


def _mean_and_spread(
    values: Tensor, is_read: Bool[Tensor, "B T"]
) -> tuple[float | None, float | None]:
    """Return the mean and standard deviation of the finite values; None if there are none. Padding
    is left out if the first axes are B and T.
    """
    if values.shape[:2] == is_read.shape:
        values = values[is_read]
    numbers = values.detach().double()
    numbers = numbers[numbers.isfinite()]  # in a count model, the logit of bos is minus infinity
    if not values.is_floating_point() or not len(numbers):
        return None, None
    return float(numbers.mean()), float(numbers.std(correction=0))


def _explain_model(
    batch: TextBatch, name: str, model: Any, forward: _ForwardPass
) -> explanation.ModelExplanation:
    """Return the explanation of one model: its operations, counts, gates and heads."""
    gates = []
    for op in forward.operations:
        if op.kind == "gate":
            means = op.values.double().flatten(2).mean(-1).tolist()  # (B, T)
            pairs = zip(means, batch.rows, strict=True)
            openings = tuple(tuple(mean[: len(row)]) for mean, row in pairs)  # without padding
            gates.append(explanation.Gate(op.name, openings))
    multiplications = sum(line.multiplications for line in forward.lines)
    stepper = None
    if isinstance(model, CountTrained) and isinstance(model, SupportsStep):
        stepper = model.stepper()
    return explanation.ModelExplanation(
        name,
        tuple(forward.lines),
        sum(count_parameters(model).values()),
        multiplications,
        counts=tuple(_explain_counts(stepper, forward.logits, batch)),
        contributions=tuple(_explain_contributions(stepper, forward, batch)),
        gates=tuple(gates),
        attention=tuple(_explain_attention(forward.operations, batch)),
    )


def _explain_attention(
    operations: Sequence[Operation], batch: TextBatch
) -> Iterator[explanation.Attention]:
    """Yield what each head reads in each text. Only a model with attention has heads."""
    layers = [op for op in operations if op.kind == "attention"]
    for row, ids in enumerate(batch.rows if layers else []):
        heads = dict[str, tuple[tuple[float, ...], ...]]()
        for op in layers:
            layer = op.name.partition(", ")[2]  # the name may end with the layer, as in ", layer 2"
            for head, weights in enumerate(op.values[row].unbind(1), 1):  # (T, W) each
                # at ``time``, at most the last time + 1 weights are those of tokens of the text
                heads[", ".join(filter(None, (layer, f"head {head}")))] = tuple(
                    tuple(weights[time, -1 - time :].tolist()) for time in range(len(ids))
                )
        tokens = tuple(map(batch.labels.__getitem__, ids))
        yield explanation.Attention(tokens, tuple(heads), tuple(heads.values()))


def _explain_contributions(
    stepper: Any, forward: _ForwardPass, batch: TextBatch
) -> Iterator[explanation.Contributions]:
    """Yield what each context contributes to the tokens of each text. Only a model that mixes
    contexts has contributions.
    """
    if not isinstance(stepper, SupportsContributions):
        return
    nats = -forward.logits.double().log_softmax(-1)
    for row, ids in enumerate(batch.rows):
        times = [time for text, time in batch.positions if text == row]
        targets = batch.targets[row, times]
        expert = None if forward.expert is None else forward.expert[row, : len(ids)].numpy()
        # the contributions of each context to every token after the first, by the context's name
        named = stepper.contributions(np.array([*ids, int(targets[-1])], np.int64), expert)
        yield explanation.Contributions(
            tokens=tuple(map(batch.labels.__getitem__, targets.tolist())),
            bits=tuple((nats[row, times, targets] / math.log(2)).tolist()),
            contexts=tuple(named),
            parts=tuple(tuple(part[times].tolist()) for part in named.values()),
        )


def _explain_counts(
    stepper: Any, logits: Tensor, batch: TextBatch
) -> Iterator[explanation.CountedToken]:
    """Yield the counts that the probabilities of the tokens come from; none for a stepper that does
    not return its counts.

    The contexts of a token are numbered from 1, the longest that was seen, to the empty one. With
    their counts c, discounts D and back-off weights g, the probability of the token is::

        p = sum_i (g_1 ... g_{i-1}) (c_i - D_i) / divisor_i  +  the rest, from no count

    (Chen & Goodman 1998, interpolated smoothing, written out). A pruned or rounded model has no
    exact counts. For each context, it stores the probabilities of the tokens that were seen after
    it. Then p is the stored probability after the longest context that has one, times the back-off
    weights of the longer contexts.
    """
    if not isinstance(stepper, SupportsExplain):
        return
    log_probs = logits.double().log_softmax(-1)
    for row, time in batch.positions[:_MAX_COUNTED]:
        token = int(batch.targets[row, time])
        ids = batch.rows[row][: time + 1]
        probability = float(log_probs[row, time, token].exp())
        steps = tuple(_count_steps(stepper.explain(np.array(ids, np.int64)), ids, token, batch))
        parts = [step.part for step in steps if step.part is not None]
        rest = max(0.0, probability - sum(parts)) if len(parts) == len(steps) else None
        yield explanation.CountedToken(row, batch.labels[token], probability, steps, rest)


def _count_steps(
    contexts: Sequence[CountedContext], ids: Sequence[int], token: int, batch: TextBatch
) -> Iterator[explanation.CountStep]:
    """Yield what each context contributes to the probability of a token, the longest first."""
    weight: float | None = 1.0
    for context in contexts:
        count = None if context.counts is None else int(context.counts[token])
        discount = None
        if count is not None and context.divisor is not None:
            discount = 0.0
            if count and context.discounts is not None:
                # the discounts of the counts 1 and 2, and of all higher counts
                discount = context.discounts[min(count, 3) - 1]
        is_stored = context.seen[token] and context.probabilities is not None
        yield explanation.CountStep(
            order=context.tokens + 1,
            context="".join(map(batch.labels.__getitem__, ids[len(ids) - context.tokens :])),
            is_start=context.tokens == len(ids),
            count=count,
            unit=context.unit,
            discount=discount,
            divisor=context.divisor,
            weight=weight,
            probability=float(context.probabilities[token]) if is_stored else None,  # type: ignore[index]  # then it has them
            part=None if context.parts is None else float(context.parts[token]),
            backoff=context.backoff,
        )
        weight = None if weight is None or context.backoff is None else weight * context.backoff


@torch.no_grad()
def _mix(
    blend: Blend, passes: Sequence[_ForwardPass], batch: TextBatch
) -> tuple[Tensor, tuple[explanation.MixedToken, ...]]:
    """Return the log of the weighted average of the models' distributions, (B, T, V), and how the
    probability of each target is averaged.
    """
    log_probs = torch.stack([each.logits.log_softmax(-1) for each in passes])  # (models, B, T, V)
    by_model = blend.log_weights(list(log_probs))
    log_weights = torch.stack([each.expand(batch.ids.shape) for each in by_model])  # (models, B, T)
    tokens = []
    for row, time in batch.positions:
        target = int(batch.targets[row, time])
        weights = tuple(log_weights[:, row, time].exp().tolist())
        probabilities = tuple(log_probs[:, row, time, target].exp().tolist())
        total = sum(map(operator.mul, weights, probabilities))
        label = batch.labels[target]
        tokens.append(explanation.MixedToken(row, label, weights, probabilities, total))
    return (log_probs + log_weights[..., None]).logsumexp(0), tuple(tokens)


@torch.no_grad()
def _note_scores(model: Any, batch: TextBatch) -> Iterator[str]:
    """Yield a note if the scores of a model are not probabilities. Such a model cannot be
    evaluated.
    """
    try:
        if isinstance(model, SupportsScore):  # score raises if the scores are not probabilities
            model.score(batch.ids[:, :1], batch.ids[:, :1], model.initial_state(len(batch.ids)))  # type: ignore[attr-defined]  # each model has it; the protocol does not say so
    except NotADistribution:
        yield (
            "The scores of this model do not sum to one; the loss is that of its scores divided by"
            " their sum."
        )


def _window_tokens(
    passes: Sequence[_ForwardPass], batch: TextBatch, subject: LoadedModel
) -> Windows:
    """Return the tokens that each prediction is made from, as labels, by its row and time. Return
    an empty dict if the model does not predict from a window of tokens.
    """
    operations = chain.from_iterable(forward.operations for forward in passes)
    window = next((op.values for op in operations if op.kind == "window"), None)
    if window is None:
        return {}
    padding = subject.conditions.vocab_size  # the id before the beginning of a text
    windows = dict[tuple[int, int], tuple[str, ...]]()
    for position in batch.positions:
        tokens = window[position].tolist()
        windows[position] = tuple(
            "(before)" if token >= padding else batch.labels[token] for token in tokens
        )
    return windows


@torch.no_grad()
def _explain_loss(
    logits: Float[Tensor, "B T V"], batch: TextBatch, windows: Windows
) -> explanation.Loss:
    """Return the loss in float64, computed token by token and by torch's losses.

    Raises:
        GenerationError: A logit is NaN or positive infinity.
    """
    if bool((logits.isnan() | logits.isposinf()).any()):
        raise GenerationError.of_damaged_logits()
    scores = logits.double().flatten(0, 1)  # (B·T, V)
    targets = batch.targets.flatten()  # (B·T,)
    log_sums = scores.logsumexp(-1).view(batch.ids.shape)  # (B, T)
    tokens = []
    for row, time in batch.positions:
        target = int(batch.targets[row, time])
        log_sum = float(log_sums[row, time])
        logit = float(logits[row, time, target])
        log_probability = logit - log_sum
        tokens.append(
            explanation.TokenLoss(
                text=row,
                before=batch.labels[batch.rows[row][time]],
                token=batch.labels[target],
                logit=logit,
                log_sum_exp=log_sum,
                log_probability=log_probability,
                bits=abs(log_probability) / math.log(2),  # abs turns -0.0 into 0.0
                probability=math.exp(log_probability),
                window=windows.get((row, time), ()),
            )
        )
    nats = math.fsum(-token.log_probability for token in tokens)
    characters = sum(map(len, batch.texts))
    nll_loss = nn.NLLLoss(ignore_index=IGNORED)(nn.LogSoftmax(dim=-1)(scores), targets)
    cross_entropy = nn.CrossEntropyLoss(ignore_index=IGNORED)(scores, targets)
    return explanation.Loss(
        tokens=tuple(tokens),
        nats=nats,
        mean=nats / len(tokens),
        mean_of_nll_loss=float(nll_loss),
        mean_of_cross_entropy=float(cross_entropy),
        characters=characters,
        bits_per_character=nats / math.log(2) / characters,
    )
