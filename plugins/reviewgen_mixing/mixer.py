"""The mixer: gated logistic units, which turn many predictions of a decision into one.

Each input is a logit. Something known about the text chooses a row of weights from each of S sets;
each row gives a probability, and learns by its own error, as logistic regression does. A final unit
mixes the logits of the sets. Two adaptive probability maps then correct the result: they hold what
followed such a probability in a context before.

A text may change the weights for itself. The *changes* are a part of its state, and are added to
the trained weights; only the rows of the first sets can change.

Sources: Mahoney 2005, "Adaptive Weighing of Context Models for Lossless Data Compression"; Knoll &
de Freitas 2012, "A Machine Learning Perspective on Predictive Coding with PAQ"; Veness et al. 2017,
"Online Learning with Gated Linear Networks", where each unit predicts the decision, too.

Needs no torch. Shapes: K inputs, S sets, R rows of weights, N decision nodes, D levels of the tree,
A rows of a map, P contexts and matches, Q states, F rows of changes, B texts.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from reviewgen.compiled import exp32, log32, reordered, unmanaged

SETS = 8
STEPS = 33  # number of logits, from -8 to 8, for which a row of a map has probabilities
MAP_ROWS = 1 << 14  # number of rows of each map
FINAL_SHARE = 0.3  # learning rate of the final unit, relative to the sets
MAX_LOGIT = np.float32(12)
MAP_LIMIT = np.float32(7.999)  # below 8, so that each logit lies between two steps of a map
ONE = np.float32(1)
ZERO = np.float32(0)
HALF = np.float32(0.5)
MIN_PROBABILITY = 1e-6


class Weights(NamedTuple):
    """What the mixer has learned."""

    sets: Float32[np.ndarray, "R K"]  # the rows of all sets, one set after another
    final: Float32[np.ndarray, "N S"]
    maps: Float32[np.ndarray, "2 A 33"]  # no rows if there are no maps
    # the probability of the decision 1 in each of Q states, for each context and match
    states: Float32[np.ndarray, "P Q"]
    own_rows: int  # number of rows, the first ones, that a text may change; 0 if it may not


class Unit(NamedTuple):
    """Memory for mixing one decision at each level of the tree."""

    inputs: Float32[np.ndarray, "D K"]
    rows: Int64[np.ndarray, "D S"]  # the chosen row of each set
    logits: Float32[np.ndarray, "D S"]  # the logit of each set
    # the row of each of the two maps, and the step that is nearest to the logit
    cells: Int64[np.ndarray, "D 3"]
    probs: Float32[np.ndarray, " D"]  # the probability from the final unit, before the maps


@reordered
def _dot(weights, inputs):
    """Return the sum of products of two arrays, (K,)."""
    total = ZERO
    for k in range(len(inputs)):
        total += weights[k] * inputs[k]
    return total


@reordered
def _changed_dot(weights, changes, inputs):
    """Return the sum of products of the inputs with changed weights, (K,)."""
    total = ZERO
    for k in range(len(inputs)):
        total += (weights[k] + changes[k]) * inputs[k]
    return total


@unmanaged
def clipped(logit):
    """Return a logit, limited to -MAX_LOGIT .. MAX_LOGIT."""
    return min(max(logit, -MAX_LOGIT), MAX_LOGIT)


@unmanaged
def squash(logit):
    """Return the probability of a logit."""
    return ONE / (ONE + exp32(-logit))


@unmanaged
def final_changes(weights, node):
    """Return where the changes of a node's final weights begin: the row, and the column.

    Their rows are after those of the sets; each has the changes of as many nodes as fit.
    """
    width = weights.sets.shape[1] // SETS
    return weights.own_rows + node // width, node % width * SETS


@unmanaged
def mix_inputs(weights, node, level, unit, changes, text):
    """Return the probability of the decision 1 at a node, from the inputs and the chosen rows.

    Args:
        weights: The Weights.
        node, level: The node, and its level in the tree.
        unit: The Unit, with inputs and rows.
        changes: float32 (F, B, K), the changes of B texts; no rows if texts change nothing.
        text: The number of the text.
    """
    count = unit.rows.shape[1]
    inputs = unit.inputs[level]
    logits = unit.logits[level]
    for number in range(count):
        row = unit.rows[level, number]
        if row < weights.own_rows:
            logit = _changed_dot(weights.sets[row], changes[row, text], inputs)
        else:
            logit = _dot(weights.sets[row], inputs)
        logits[number] = clipped(logit)
    logit = ZERO
    for number in range(count):
        logit += weights.final[node, number] * logits[number]
    if weights.own_rows > 0:
        row, start = final_changes(weights, node)
        for number in range(count):
            logit += changes[row, text, start + number] * logits[number]
    logit = clipped(logit)
    # in float64, since 1 - p of a certain decision has few digits in float32
    p = 1 / (1 + math.exp(-np.float64(logit)))
    unit.probs[level] = p
    if weights.maps.shape[1] > 0:
        # the place of the logit among the steps, which are half a logit apart
        position = (min(max(logit, -MAP_LIMIT), MAP_LIMIT) + np.float32(8)) * np.float32(2)
        step = np.int64(position)
        distance = position - np.float32(step)
        unit.cells[level, 2] = step + (1 if distance > HALF else 0)
        mapped = 0.0
        for number in range(2):
            row = weights.maps[number, unit.cells[level, number]]
            mapped += (ONE - distance) * row[step] + distance * row[step + 1]
        p = p / 2 + mapped / 4  # the mean of p and of the mean of the two maps
    return min(max(p, MIN_PROBABILITY), 1 - MIN_PROBABILITY)


@unmanaged
def learn_weights(unit, level, bit, rate, sets, text, own_rows, final):
    """Change weights after a decision; see ``mix_inputs``.

    Args:
        unit, level, bit: The Unit, the level of the decision, and the decision.
        rate: The learning rate.
        sets, text: ``sets[:, text]``, (R, K), is changed: in training the weights of the sets, else
            the changes that a text has made to them. ``sets`` is float32 (R, B, K).
        own_rows: The number of rows, the first ones, that may be changed.
        final: float32 (S,), the same for the weights of the final unit at the node.
    """
    for number in range(len(final)):
        row = unit.rows[level, number]
        if row < own_rows:
            step = np.float32(rate * (bit - squash(unit.logits[level, number])))
            _add(sets[row, text], step, unit.inputs[level])
    step = np.float32(FINAL_SHARE * rate * (bit - unit.probs[level]))
    for number in range(len(final)):
        final[number] += step * unit.logits[level, number]


@unmanaged
def learn_maps(maps, unit, level, bit, rate):
    """Change the probability maps after a decision; see ``mix_inputs``."""
    if maps.shape[1] > 0:
        nearest = unit.cells[level, 2]
        for number in range(2):
            row = maps[number, unit.cells[level, number]]
            row[nearest] += np.float32(rate) * (np.float32(bit) - row[nearest])


@reordered
def _add(weights, step, inputs):
    """Add a multiple of the inputs to weights."""
    for k in range(len(inputs)):
        weights[k] += step * inputs[k]


@unmanaged
def stretch_all(probs, inputs, start):
    """Write the logits of P probabilities to the inputs from ``start`` on, and after these P
    further inputs: three times the difference of each probability from one half.
    """
    count = len(probs)
    for number in range(count):
        inputs[start + number] = log32(probs[number] / (ONE - probs[number]))
    for number in range(count):
        inputs[start + count + number] = np.float32(3) * (probs[number] - HALF)
