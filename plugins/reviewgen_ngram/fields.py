"""N-grams of texts that begin with fields, such as a name, and may copy from them.

A field is written before the text: its *marker*, an id that opens the field, and then the tokens of
its value. The last id of the vocabulary closes the fields.

Training: wherever the value of a field occurs in a text, the field's marker takes its place. So the
n-gram learns where a text mentions the value and how the text continues, independent of what
the value is. This is a class-based n-gram with one word per class.

Generation: the n-gram writes the next token, or the token is copied from the fields. Which of the
two happened is not visible in the text, so it is the hidden state of a hidden Markov model. The
*belief* of a token of the fields is the probability that it is copied next; the forward algorithm
updates it. A copy begins at the first token of a value, with the probability of the field's marker
after the context; rarely, it begins at any token. A copy ends with the value, or sometimes earlier.
When a whole value has been written, the field's marker takes its place in the context, as in
training.

The value of a field may be tokenized in several forms: for example, with a space before it and
without. Each form stands after the marker of the field. Markers are never generated; they only give
copies a probability. If the text lacks a field, the probability of its marker is redistributed to
the other ids. Without fields, the model is a plain n-gram.

Sources: Brown et al. 1992, "Class-based n-gram models of natural language"; Rabiner 1989, "A
tutorial on hidden Markov models"; Kuhn & De Mori 1990, "A cache-based natural language model for
speech recognition"; Gu et al. 2016, "Incorporating copying mechanism in sequence-to-sequence
learning". Must not import torch.

Shapes: B batch, T time (tokens), V ids, S numbers of a state. A *place*, ``at`` in the code, is the
index of a token among all ids of the fields, markers included.
"""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from reviewgen.compiled import by_address, compiled, inlined, inner
from reviewgen.compiled.linear import add_up, log32
from reviewgen_ngram.config import NgramConfig
from reviewgen_ngram.trie import Trained, Trie, fill_row, follow, probability_after

CAP = 256  # max ids of fields in a state; further ids are dropped

# A state is an array of integers. At these indices it holds:
CONTEXT = 0  # the node of the context
IS_OPEN = 1  # whether a field is being read
SIZE = 2  # the number of ids of fields
WRITTEN = 3  # if the text ends with the beginning of a value: the place of the next token; else 0
AFTER = 4  # the context that follows the marker of this value
FIELDS = 5  # from here on, the ids of fields, up to CAP
BELIEFS = FIELDS + CAP  # from here on, the belief of each place, as a multiple of UNIT
STATE_SIZE = BELIEFS + CAP
UNIT = 2.0**-40  # a power of two, so that a product with it is exact

COPY_START = 0.002  # probability that a copy begins at any token of the fields
COPY_CONTINUE = 0.95  # probability that a copy goes on to the next token of the value
# The context is shortened until the tokens that may follow it have at least this probability in sum
MIN_REMAINING = 0.01
# added to the probability of the first token of each form of a field's value, so that their sum is
# not zero
FORM_PRIOR = 1e-9


class FieldNgram(NamedTuple):
    """An n-gram with fields.

    Attributes:
        trie: The n-gram.
        bos_id: The id that begins every text.
        first_marker: The first id of fields. The ids from here to the last but one are markers,
            each of which opens a field. The last id of the vocabulary closes the fields.
    """

    trie: Trie
    bos_id: int
    first_marker: int


def with_fields(trained: Trained, config: NgramConfig) -> FieldNgram:
    """Return a trained n-gram together with the ids of its fields."""
    return FieldNgram(trained.trie, trained.bos_id, config.vocab_size - config.field_ids)


def counted_form(ids: Integer[np.ndarray, " T"], config: NgramConfig) -> Integer[np.ndarray, " C"]:
    """Convert texts to the form in which their n-grams are counted.

    The fields are removed, and each value of a field is replaced by its marker in the text. If
    several values match, the longest one is replaced.

    Args:
        ids: One or more texts, each of which begins with bos.
        config: The settings.
    """
    first_marker = config.vocab_size - config.field_ids
    closing_id = config.vocab_size - 1  # closes the fields
    # the ids as a string, with one character for each id
    characters = ids.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    bos = chr(ids[0])
    pieces = []
    for text in characters.split(bos)[1:]:
        prefix, _, body = text.rpartition(chr(closing_id))
        # what precedes the fields, then each marker and the value after it
        before, *fields = re.split(f"([\\U{first_marker:08x}-\\U{closing_id:08x}])", prefix)
        # a text may leave the value of a field empty
        marker_of = {
            value: id_ for id_, value in zip(fields[::2], fields[1::2], strict=True) if value
        }
        if marker_of:
            pattern = "|".join(map(re.escape, sorted(marker_of, key=len, reverse=True)))
            # the default binds the dictionary of this text to the function
            body = re.sub(pattern, lambda match, marker_of=marker_of: marker_of[match[0]], body)
        pieces += [bos, before, body]
    return np.frombuffer("".join(pieces).encode("utf-32-le", "surrogatepass"), "<u4")


@inlined
def _known(state):
    """Return the number of ids of fields that may be copied from; 0 while a field is being read."""
    return 0 if state[IS_OPEN] else state[SIZE]


@inlined
def _begins_value(first_marker, state, at):
    """Return whether a value begins at place ``at``: a token that follows a marker."""
    return at > 0 and state[FIELDS + at - 1] >= first_marker and state[FIELDS + at] < first_marker


@inner
def _value_probability(model, state, context, at):
    """Return the probability that the value which begins at place ``at`` follows a context.

    The probability of the marker is divided among all forms of the field, in proportion to the
    probabilities of the first tokens of the forms.
    """
    marker = state[FIELDS + at - 1]
    weight = 0.0  # probability of the first token of this form
    total = 0.0  # sum of the probabilities of the first tokens of all forms of the field
    for form_at in range(1, _known(state)):
        if state[FIELDS + form_at - 1] == marker and _begins_value(
            model.first_marker, state, form_at
        ):
            p = FORM_PRIOR + probability_after(model.trie, context, state[FIELDS + form_at])
            total += p
            weight = p if form_at == at else weight
    return probability_after(model.trie, context, marker) * weight / total


@inner
def _remaining(model, state, context):
    """Return the total probability of the ids that may follow a context.

    The markers of fields without a value in the text, and the closing id, may not follow.
    """
    remaining = 1.0
    # the last of these ids is the closing id, which has no value either, so it is subtracted, too
    for marker in range(model.first_marker, len(model.trie.root)):
        has_value = False
        for at in range(1, _known(state)):
            has_value |= state[FIELDS + at - 1] == marker and _begins_value(
                model.first_marker, state, at
            )
        if not has_value:
            remaining -= probability_after(model.trie, context, marker)
    return remaining


@inner
def _mixture_weights(model, state):
    """Return the context and the weights that the distribution of the next token is computed from.

    Returns:
        context: The context that the next token depends on, shortened if too little probability
            remains after it.
        weight: The factor of the n-gram's probabilities.
        begins_here: The probability that a copy begins at one given token of the fields. It is the
            same for each of these tokens, and does not depend on the n-gram.
    """
    context = state[CONTEXT]
    remaining = _remaining(model, state, context)
    while context != 0 and remaining < MIN_REMAINING:
        context = np.int64(model.trie.links[context])
        remaining = _remaining(model, state, context)
    copied = 0.0  # probability that a copy goes on
    places = 0  # number of tokens of values
    for at in range(_known(state)):
        copied += state[BELIEFS + at] * UNIT
        if state[FIELDS + at] < model.first_marker:
            places += 1
    start = COPY_START if places > 0 else 0.0  # probability that a copy begins at any token
    weight = (1 - copied) * (1 - start) / remaining
    return context, weight, (1 - copied) * start / max(places, 1)


@inlined
def _copy_probability(model, state, at, context, weight, begins_here):
    """Return the probability that the next token is copied from place ``at``. ``context``,
    ``weight`` and ``begins_here`` are the results of ``_mixture_weights``.
    """
    p = state[BELIEFS + at] * UNIT + begins_here
    if _begins_value(model.first_marker, state, at):
        p += weight * _value_probability(model, state, context, at)
    return p


@inner
def _probability(model, state, context, weight, begins_here, token):
    """Return the probability of a token: written by the n-gram, or copied from any place.
    ``context``, ``weight`` and ``begins_here`` are the results of ``_mixture_weights``.
    """
    p = weight * probability_after(model.trie, context, token)
    for at in range(_known(state)):
        if state[FIELDS + at] == token:
            p += _copy_probability(model, state, at, context, weight, begins_here)
    return p


@inner
def _read(model, state, token):
    """Update the state of a text, (S,), with the next id."""
    closing_id = len(model.trie.root) - 1
    if token == model.bos_id:  # a new text, which has no fields yet
        state[IS_OPEN] = state[SIZE] = state[WRITTEN] = 0
    elif token >= model.first_marker:  # a marker opens a field, the closing id closes the last one
        state[IS_OPEN] = token != closing_id
    if state[IS_OPEN]:
        if state[SIZE] < CAP:
            state[FIELDS + state[SIZE]] = token
            state[BELIEFS + state[SIZE]] = 0
            state[SIZE] += 1
    elif token != closing_id:
        context = state[CONTEXT]
        _update_beliefs(model, state, token)
        state[CONTEXT] = follow(model.trie, context, token)
        _match_value(model, state, token, context)


@inner
def _update_beliefs(model, state, token):
    """Update the beliefs with a token that was written (a step of the forward algorithm).

    If the token was copied from a place, the copy may go on at the next place of the same value.
    """
    if state[SIZE] == 0:
        return
    context, weight, begins_here = _mixture_weights(model, state)
    p = _probability(model, state, context, weight, begins_here, token)
    # From the last place to the first: the new belief of a place is computed from the old one of
    # the place before.
    for at in range(state[SIZE] - 1, 0, -1):
        goes_on = (
            state[FIELDS + at - 1] == token and state[FIELDS + at] < model.first_marker and p > 0
        )
        copied = (
            _copy_probability(model, state, at - 1, context, weight, begins_here)
            if goes_on
            else 0.0
        )
        state[BELIEFS + at] = np.int64(COPY_CONTINUE * copied / max(p, FORM_PRIOR) / UNIT)
    state[BELIEFS] = 0  # of place 0, which has a marker


@inner
def _match_value(model, state, token, before):
    """Track whether the text is writing out a value of a field.

    When the whole value has been written, the context becomes the one after its marker. ``before``
    is the context before the token.
    """
    at = state[WRITTEN]
    if at > 0 and state[FIELDS + at] == token:  # the value goes on
        state[WRITTEN] += 1
    else:  # the first value that begins with the token, if any
        state[WRITTEN] = 0
        for start in range(1, state[SIZE]):
            if (
                state[WRITTEN] == 0
                and state[FIELDS + start] == token
                and _begins_value(model.first_marker, state, start)
            ):
                state[WRITTEN] = start + 1
                state[AFTER] = follow(model.trie, before, state[FIELDS + start - 1])
    at = state[WRITTEN]
    # the whole value is written if a marker or nothing is at the place of its next token
    if at > 0 and (at == state[SIZE] or state[FIELDS + at] >= model.first_marker):
        state[CONTEXT] = state[AFTER]
        state[WRITTEN] = 0


@inner
def _fill(model, state, row):
    """Write to ``row`` (V,) the probability of every id as the next one."""
    context, weight, begins_here = _mixture_weights(model, state)
    fill_row(model.trie, context, row)
    for token in range(len(row)):
        row[token] = weight * row[token] if token < model.first_marker else 0.0
    for at in range(_known(state)):
        if state[FIELDS + at] < model.first_marker:
            row[state[FIELDS + at]] += _copy_probability(
                model, state, at, context, weight, begins_here
            )
    scale = 1 / add_up(row)
    for token in range(len(row)):
        row[token] *= scale


@compiled
def fill_rows(model, ids, states, rows):
    """Read ids (B, T), and compute the probability of every id after each of them.

    The probabilities are written to ``rows``, float64 (B, T, V). ``states`` (S, B) is updated.
    """
    for b in range(ids.shape[0]):
        for t in range(ids.shape[1]):
            _read(model, states[:, b], ids[b, t])
            _fill(model, states[:, b], rows[b, t])


@compiled
def score_with_fields(model, ids, targets, states, scores):
    """Compute p(targets[b, t] | ids[b, :t + 1]).

    The probabilities are written to ``scores``, float64 (B, T). ``states`` (S, B) is updated to the
    end of ids.
    """
    for b in range(ids.shape[0]):
        state = states[:, b]
        for t in range(ids.shape[1]):
            _read(model, state, ids[b, t])
            scores[b, t] = 0.0
            if targets[b, t] < model.first_marker:
                context, weight, begins_here = _mixture_weights(model, state)
                scores[b, t] = _probability(
                    model, state, context, weight, begins_here, targets[b, t]
                )


@by_address
def step_with_fields(models, ids, floats, ints, logits):
    """Feed a token to each text, and write the log probabilities after it.

    This is a step of ``reviewgen.compiled.steps``.

    Args:
        models: A pointer to the n-gram: ``models[0]`` is a ``FieldNgram``.
        ids: The token to feed to each text, as in ``reviewgen.compiled.steps``.
        floats: Not used.
        ints: The states, (S, B); updated.
        logits: The log probabilities, written. If it has no rows, only the states are updated.
    """
    model = models[0]
    probs = np.empty(len(model.trie.root))
    for row in range(len(ids)):
        _read(model, ints[:, row], ids[row])
    for row in range(len(logits)):
        _fill(model, ints[:, row], probs)
        for token in range(len(probs)):
            logits[row, token] = log32(np.float32(probs[token]))
