"""The compiled functions that read whole texts: training, scores, distributions, and the step.

Needs no torch. Shapes: B texts, T symbols, V symbols of the vocabulary, V64 at least V, and those
of ``coding``.
"""

import math

import numpy as np

from reviewgen.compiled import by_address, compiled
from reviewgen_mixing.coding import (
    begin_symbol,
    count_decision,
    count_own,
    expert_logits,
    hear_expert,
    learn_states,
    make_work,
    open_block,
    place_of_opinion,
    predict,
    read,
    remember,
    score_symbol,
    write_distribution,
)
from reviewgen_mixing.mixer import learn_maps, learn_weights


@compiled
def learn(network, ids, floats, ints, updates, rates, opinions):
    """Learn the weights from texts whose symbols are not counted in the slots yet.

    Args:
        network: The Network; its weights are updated.
        ids: int32 (T,), the texts, one after another.
        floats, ints: The state of one text; updated.
        updates: float32 (P, Q), the number of updates of each state; updated.
        rates: float64, at least T rows: the learning rates of weights and maps at each symbol.
        opinions: float32 (T, D), the expert's logit of each decision; (0, D) without an expert.

    Returns:
        The sum of the cross entropies, in nats.
    """
    tree = network.tree
    weights = network.weights
    sets = weights.sets.reshape((len(weights.sets), 1, -1))  # as if they were changes of one text
    work = make_work(network)
    nats = 0.0
    for time in range(len(ids)):
        symbol = np.int64(ids[time])
        if tree.lengths[symbol] == 0:  # bos, a condition or a field
            read(network, floats, ints, 0, work, symbol)
            continue
        begin_symbol(network, ints, 0, work)
        for level in range(tree.lengths[symbol]):
            node = tree.paths[symbol, level]
            bit = tree.bits[symbol, level]
            if len(opinions) > 0:
                row, column = place_of_opinion(network, floats, node)
                floats[row, 0, column] = opinions[time, level]
            p = predict(network, floats, ints, 0, work, node)
            nats -= math.log(p if bit else 1 - p)
            rate, map_rate = rates[time]
            final = weights.final[node]
            learn_weights(work.unit, level, bit, rate, sets, 0, len(sets), final)
            learn_maps(weights.maps, work.unit, level, bit, map_rate)
            learn_states(network, work, bit, updates)
            count_own(network, ints[:, 0], work, node, bit)
        remember(network, ints, 0, symbol)
    return nats


@compiled
def count(network, ids, floats, ints):
    """Count the symbols of texts, one after another, in the slots of the model.

    Args:
        network: The Network; its slots are updated. ``local_slots`` must be 0, so that the texts do
            not learn.
        ids: int32 (T,).
        floats, ints: The state of one text; updated.
    """
    tree = network.tree
    work = make_work(network)
    for time in range(len(ids)):
        symbol = np.int64(ids[time])
        begin_symbol(network, ints, 0, work)
        for level in range(tree.lengths[symbol]):
            node = tree.paths[symbol, level]
            if tree.roots[node] == node:
                open_block(network, node, work)
            count_decision(network, work, node, tree.bits[symbol, level])
        read(network, floats, ints, 0, work, symbol)


@compiled
def score(network, ids, targets, expert, floats, ints, results):
    """Write the log probability of ``targets[t]`` after ``ids[: t + 1]``, for each t; without
    targets, that of every symbol after ``ids[: t + 1]``.

    Args:
        network: The model.
        ids: int64 (T,).
        targets: int64 (T,), or (0,) for no targets.
        expert: float32 (T, V), the expert's log probabilities; (0, V) without an expert.
        floats, ints: The state of one text; updated.
        results: float32 (T, 1), or (T, V) without targets; written.
    """
    work = make_work(network)
    is_learned = False  # whether the text has already learned from the next id, as the last target
    for time in range(len(ids)):
        if is_learned:
            remember(network, ints, 0, ids[time])
        else:
            read(network, floats, ints, 0, work, ids[time])
        if len(expert) > 0:
            hear_expert(network, floats, 0, expert[time])
        if len(targets) > 0:
            target = targets[time]
            is_next = time + 1 < len(ids) and ids[time + 1] == target
            is_symbol = network.tree.lengths[target] > 0
            is_learned = network.local_slots > 0 and is_next and is_symbol
            results[time, 0], _ = score_symbol(network, floats, ints, 0, work, target, is_learned)
        else:
            write_distribution(network, floats, ints, 0, work, results[time])


@compiled
def read_opinions(tree, ids, expert):
    """Return the expert's logit of each decision on the way to each symbol, float32 (T, D).

    Args:
        tree: The Tree.
        ids: int64 (T,), the symbols.
        expert: float32 (T, V), the expert's log probabilities after each of them.
    """
    opinions = np.zeros((len(ids), tree.paths.shape[1]), np.float32)
    for time in range(1, len(ids)):
        logits = expert_logits(tree, expert[time - 1])
        for level in range(tree.lengths[ids[time]]):
            opinions[time, level] = logits[tree.paths[ids[time], level]]
    return opinions


@by_address
def step(weights, ids, floats, ints, logits):
    """Feed a symbol to each text, and write the log probabilities after it; see
    ``reviewgen.compiled.steps``. With an expert, ``logits`` first holds the expert's logits.
    """
    network = weights[0]
    work = make_work(network)
    for text in range(len(ids)):
        read(network, floats, ints, text, work, ids[text])
    for text in range(len(logits)):
        if network.expert > 0:
            hear_expert(network, floats, text, logits[text])
        write_distribution(network, floats, ints, text, work, logits[text])
