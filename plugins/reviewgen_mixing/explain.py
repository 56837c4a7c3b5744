"""What each context contributes to the prediction of a text, and the graph of the model, to be
drawn. Must not import torch.

Shapes: T symbols, N = T - 1, V symbols of the vocabulary, P contexts and matches; those of the
state are in ``coding``, those of the graph in ``describe_mixing``.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from reviewgen.compiled import compiled, inner
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph
from reviewgen_mixing.coding import (
    LOCAL,
    MATCHES,
    RARE,
    Network,
    begin_symbol,
    hear_expert,
    make_work,
    open_block,
    predict,
    read,
)
from reviewgen_mixing.config import MixingConfig
from reviewgen_mixing.history import NAMES
from reviewgen_mixing.mixer import final_changes
from reviewgen_mixing.trained import expect_arrays

NOTE = (
    "A symbol is predicted as the decisions on the way to its leaf of a binary tree. What a text"
    " has learned, its own counts and changes of the weights, is a part of its state."
)


def contributions(
    network: Network,
    ids: Int64[np.ndarray, " T"],
    expert: Float[np.ndarray, "N V"] | None,
    floats: Float32[np.ndarray, "F 1 I"],
    ints: Int64[np.ndarray, "K 1"],
) -> dict[str, Float64[np.ndarray, " N"]]:
    """Return what each context contributes to each of ``ids`` after the first; see
    ``reviewgen.protocols.SupportsContributions``. ``floats`` and ``ints`` are the state before the
    first.
    """
    own = LOCAL if network.local_slots else LOCAL[:0]
    contexts = len(network.chosen) + len(own)
    spoken = contexts + MATCHES
    sums = np.zeros((len(ids) - 1, network.weights.sets.shape[1]))
    was_seen = np.zeros((len(sums), spoken), np.bool_)
    opinions = np.zeros((0, 1), np.float32) if expert is None else expert.astype(np.float32)
    _contribute(network, ids, np.ascontiguousarray(opinions), floats, ints, sums, was_seen)
    # a context has up to three inputs; see ``predict``
    bias = 2 * spoken + contexts
    parts = sums[:, :spoken] + sums[:, spoken : 2 * spoken]
    parts[:, :contexts] += sums[:, 2 * spoken : bias]
    parts[~was_seen] = np.nan
    names = [NAMES[number] for number in network.chosen]
    names += [f"own {NAMES[number]}" for number in own]
    named = dict(zip(names, parts.T[:contexts], strict=True))
    if network.local_slots:
        named["match in this text"] = parts[:, contexts]
    if len(network.text):
        named["match in the training text"] = parts[:, contexts + 1]
    if network.expert:
        named["expert"] = sums[:, bias + 1]
    return named | {"bias": sums[:, bias]}


@compiled
def _contribute(network, ids, expert, floats, ints, sums, was_seen):
    """Add up what each input contributes to each symbol, (N, I), and write which contexts and
    matches were seen, (N, P).
    """
    tree = network.tree
    work = make_work(network)
    for time in range(len(sums)):
        read(network, floats, ints, 0, work, ids[time])
        if len(expert) > 0:
            hear_expert(network, floats, 0, work, expert[time])
        symbol = ids[time + 1]
        begin_symbol(network, ints, 0, work)
        mass = 1.0
        for level in range(tree.lengths[symbol]):
            if mass < RARE:
                break
            node = tree.paths[symbol, level]
            if tree.roots[node] == node:
                open_block(network, node, work)
            p = predict(network, floats, ints, 0, work, node)
            bit = tree.bits[symbol, level]
            mass *= p if bit else 1 - p
            _add_inputs(network.weights, floats, work.unit, node, level, 2 * bit - 1, sums[time])
            for number in range(was_seen.shape[1]):
                seen = work.found if number < len(work.found) else work.seen
                was_seen[time, number] |= seen[number] >= 0


@inner
def _add_inputs(weights, floats, unit, node, level, sign, sums):
    """Add what each input contributes to the logit of the decision that was taken, (I,)."""
    inputs = unit.inputs[level]
    changed, start = final_changes(weights, node)
    for number in range(unit.rows.shape[1]):
        row = unit.rows[level, number]
        final = sign * weights.final[node, number]
        if weights.own_rows > 0:
            final += sign * floats[changed, 0, start + number]
        sums += final * weights.sets[row] * inputs
        if row < weights.own_rows:
            sums += final * floats[row, 0] * inputs


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
    # of each node: its kind, the axes of its result, and a remark
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
