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
    """Learn the weights from the symbols of texts, whose counts are not in the slots yet.

    Args:
        network: The Network; its weights are updated.
        ids: int32 (T,).
        floats, ints: The state of one text; updated.
        updates: float32 (P, Q), the number of updates of each state; updated.
        rates: float64 (T, 2), the learning rates of weights and maps at each symbol.
        opinions: float32 (T, D), the expert's logit of each decision; (0, D) without an expert.

    Returns:
        The sum of the cross entropies, in nats.
    """
    tree = network.tree
    weights = network.weights
    sets = weights.sets.reshape((len(weights.sets), 1, -1))
    work = make_work(network)
    nats = 0.0
    for time in range(len(ids)):
        symbol = np.int64(ids[time])
        if tree.lengths[symbol] == 0:
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
    """Count the symbols of texts, int32 (T,), in the slots. ``floats`` and ``ints`` are the state
    of one text. The texts must have no slots of their own.
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
    """Write the log probability of each target, float32 (T, 1), after the ids up to it; without
    targets, that of each symbol after each id, (T, V).

    Args:
        network: The model.
        ids, targets: int64 (T,).
        expert: float32 (T, V), the expert's log probabilities; (0, V) without an expert.
        floats, ints: The state of one text; updated.
        results: Written.
    """
    work = make_work(network)
    is_read = False  # whether the next id was learned from when it was the target
    for time in range(len(ids)):
        if is_read:
            remember(network, ints, 0, ids[time])
        else:
            read(network, floats, ints, 0, work, ids[time])
        if len(expert) > 0:
            hear_expert(network, floats, 0, expert[time])
        if len(targets) > 0:
            target = targets[time]
            is_next = time + 1 < len(ids) and ids[time + 1] == target
            is_symbol = network.tree.lengths[target] > 0
            is_read = network.local_slots > 0 and is_next and is_symbol
            results[time, 0], _ = score_symbol(network, floats, ints, 0, work, target, is_read)
        else:
            write_distribution(network, floats, ints, 0, work, results[time])


@compiled
def read_opinions(tree, ids, expert):
    """Return the expert's logit of each decision on the way to each symbol, (T, D). ``expert``,
    (T, V), has its log probabilities after each symbol.
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
    ``reviewgen.compiled.steps``. With an expert, ``logits`` has the expert's.
    """
    network = weights[0]
    work = make_work(network)
    for text in range(len(ids)):
        read(network, floats, ints, text, work, ids[text])
    for text in range(len(logits)):
        if network.expert > 0:
            hear_expert(network, floats, text, logits[text])
        write_distribution(network, floats, ints, text, work, logits[text])
