"""What each context contributes to the prediction of a text, and the graph of the model, to be
drawn. Must not import torch.

Shapes: T symbols, N = T - 1, V symbols of the vocabulary, P contexts and matches; those of the
state are in ``coding``, those of the graph in ``describe_mixing``.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64

from reviewgen.compiled import compiled
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph
from reviewgen_mixing.coding import (
    Network,
    hear_expert,
    make_work,
    new_state,
    read,
    score_symbol,
)
from reviewgen_mixing.config import MixingConfig
from reviewgen_mixing.history import MATCHES, NAMES
from reviewgen_mixing.mixer import final_changes
from reviewgen_mixing.trained import expect_arrays

NOTE = (
    "A symbol is predicted as the decisions on the way to its leaf of a binary tree. What a text"
    " has learned, its own counts and changes of the weights, is a part of its state."
)


def contributions(
    network: Network, ids: Int64[np.ndarray, " T"], expert: Float[np.ndarray, "N V"] | None
) -> dict[str, Float64[np.ndarray, " N"]]:
    """Return what each context contributes to each of ``ids`` after the first; see
    ``reviewgen.protocols.SupportsContributions``.
    """
    names = [NAMES[number] for number in network.contexts]
    contexts = len(names)
    for number in range(network.first_own, contexts):
        names[number] = f"own {names[number]}"
    # The inputs of the mixer: one of each context and match, a second one of each, a third one of
    # each context, the bias, and the expert; see ``predict``.
    sources = contexts + MATCHES
    bias_index = 2 * sources + contexts
    sums = np.zeros((len(ids) - 1, network.weights.sets.shape[1]))
    was_seen = np.zeros(sums.shape, np.bool_)
    opinions = np.zeros((0, 1), np.float32) if expert is None else expert.astype(np.float32)
    _contribute(network, ids, opinions, *new_state(network, 1), sums, was_seen)
    # add up the inputs of each context and match
    parts = sums[:, :sources] + sums[:, sources : 2 * sources]
    parts[:, :contexts] += sums[:, 2 * sources : bias_index]
    # a context or match whose inputs were all zero has said nothing, which is NaN in the result
    is_silent = ~was_seen[:, :sources]
    is_silent[:, :contexts] &= ~was_seen[:, 2 * sources : bias_index]
    parts[is_silent] = np.nan
    named = dict(zip(names, parts.T, strict=False))
    if network.local_slots:
        named["match in this text"] = parts[:, contexts]
    if len(network.text):
        named["match in the training text"] = parts[:, contexts + 1]
    if network.expert:
        named["expert"] = sums[:, bias_index + 1]
    return named | {"bias": sums[:, bias_index]}


@compiled
def _contribute(network, ids, expert, floats, ints, sums, was_seen):
    """Add to ``sums``, (N, I), what each input of the mixer contributes to the log odds of each of
    ``ids`` after the first, and set in ``was_seen``, (N, I), whether the input was not zero.
    """
    tree = network.tree
    weights = network.weights
    work = make_work(network)
    for time in range(len(sums)):
        read(network, floats, ints, 0, work, ids[time])
        if len(expert) > 0:
            hear_expert(network, floats, 0, expert[time])
        symbol = ids[time + 1]
        _, predicted = score_symbol(network, floats, ints, 0, work, symbol, False)
        for level in range(predicted):
            node = tree.paths[symbol, level]
            sign = 2 * tree.bits[symbol, level] - 1  # the logits are those of the decision 1
            inputs = work.unit.inputs[level]
            was_seen[time] |= inputs != 0
            changes_row, start = final_changes(weights, node)
            for number in range(work.unit.rows.shape[1]):
                row = work.unit.rows[level, number]
                final = sign * weights.final[node, number]
                if weights.own_rows > 0:
                    final += sign * floats[changes_row, 0, start + number]
                sums[time] += final * weights.sets[row] * inputs
                if row < weights.own_rows:
                    sums[time] += final * floats[row, 0] * inputs


def describe_mixing(config: MixingConfig, slots: int) -> ModelGraph:
    """Return the graph of a model that has counted decisions in some slots.

    B texts, T symbols, V vocabulary; N decisions of the tree, P contexts and matches, I inputs of
    the mixer, S sets of weights.
    """
    shapes = {name: shape for name, (_, shape) in expect_arrays(config).items()}
    sizes = {
        "V": config.vocab_size,
        "N": max(1, config.vocab_size - config.condition_ids - config.field_ids - 2),
        "P": shapes["states"][0],
        "I": shapes["sets"][1],
        "S": shapes["final"][1],
    }
    # for each node: its kind, the axes of its result, and a remark
    boxes: dict[str, Any] = {
        "ids": ("value", "BT", ""),
        "contexts": ("operation", "BTP", "hashes of symbols and words"),
        "counts": ("layer", "BTNP", f"{slots:,} decisions"),
        "states": ("layer", "BTNP", "p of each state"),
        "inputs": ("operation", "BTNI", "x = log(p / (1 − p))"),
        "sets": ("layer", "BTNS", "y_{s} = w_{s} x"),
        "final": ("layer", "BTN", "p = σ(Σ v_{s} y_{s})"),
        "maps": ("layer", "BTN", "what followed such a p"),
        "leaves": ("operation", "BTV", "Σ log p"),
        "logits": ("value", "", ""),
    }
    if not config.maps:
        del boxes["maps"]
    # a link from a node to itself is drawn as a state
    links = [*pairwise(boxes), ("contexts", "contexts")]
    if config.local_slots:
        boxes["own counts"] = ("operation", "BTNP", "and matches of the text")
        links += [("contexts", "own counts"), ("own counts", "states")]
        links.append(("own counts", "own counts"))
    if config.adapt_weights:
        links += [("sets", "sets"), ("final", "final")]
    if config.expert:
        boxes["expert"] = ("value", "BTV", "log p of other models")
        links.append(("expert", "inputs"))
    nodes = []
    for name, (kind, _, detail) in boxes.items():
        tensors = (name,) if name in shapes else ()
        nodes.append(GraphNode(id=name, label=name, detail=detail, kind=kind, parameters=tensors))
    edges = []
    for source, target in links:
        if source == target:
            edges.append(GraphEdge(source=source, target=target, label="state", delay=1))
        else:
            edges.append(GraphEdge(source=source, target=target, axes=tuple(boxes[source][1])))
    return ModelGraph(nodes=tuple(nodes), edges=tuple(edges), sizes=sizes, note=NOTE)
