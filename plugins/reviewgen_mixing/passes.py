"""The compiled functions that read whole texts: training, scores, distributions, and the step.

Needs no torch. Shapes: B texts, T symbols, V symbols of the vocabulary, V64 at least V, and those
of ``coding``.
"""

import math

import numpy as np

from reviewgen.compiled import by_address, compiled
from reviewgen_mixing.coding import (
    add_up_leaves,
    begin_symbol,
    count_decision,
    count_own,
    expert_logit,
    hear_expert,
    learn_states,
    make_work,
    open_block,
    predict,
    read,
    remember,
    score_symbol,
    write_distribution,
)
from reviewgen_mixing.history import GIVEN, mixed, read_symbol, write_contexts
from reviewgen_mixing.mixer import learn_weights


@compiled
def learn(network, ids, floats, ints, counts, rates, opinions):
    """Learn the weights from the symbols of a text, whose counts are not in the slots yet.

    Args:
        network: The Network; its weights are updated.
        ids: int32 (T,).
        floats, ints: The state of one text; updated.
        counts: float32 (C, Q), the number of updates of each state; updated.
        rates: float64 (T, 2), the learning rates of weights and maps at each symbol.
        opinions: float32 (T, D), the expert's logit of each decision; (0, D) without an expert.

    Returns:
        The sum of the cross entropies, in nats.
    """
    tree = network.tree
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
            if tree.roots[node] == node:
                open_block(network, node, work)
            if len(opinions) > 0:
                work.expert[node] = opinions[time, level]
            p = predict(network, floats, ints, 0, work, node)
            nats -= math.log(p if bit else 1 - p)
            rate = rates[time, 0]
            map_rate = rates[time, 1]
            learn_weights(network.weights, node, level, work.unit, bit, rate, map_rate)
            learn_states(network, work, bit, counts)
            count_own(network, ints, 0, work, node, bit)
        remember(network, ints, 0, symbol)
    return nats


@compiled
def count(network, ids, ints):
    """Count the symbols of a text, int32 (T,), in the slots. ``ints`` is the state of the text."""
    tree = network.tree
    work = make_work(network)
    for time in range(len(ids)):
        symbol = np.int64(ids[time])
        if symbol == network.bos_id:
            ints[:, 0] = 0
        elif symbol >= network.first_given:
            ints[GIVEN, 0] = mixed(ints[GIVEN, 0], symbol + 1)
        else:
            write_contexts(ints[:, 0], work.contexts)
            for level in range(tree.lengths[symbol]):
                node = tree.paths[symbol, level]
                if tree.roots[node] == node:
                    open_block(network, node, work)
                count_decision(network, work, node, tree.bits[symbol, level])
            read_symbol(network.alphabet, symbol, ints[:, 0])


@compiled
def score(network, ids, targets, expert, floats, ints, scores):
    """Write the log probability of each target, float64 (B, T), after the ids up to it.

    Args:
        network: The model.
        ids, targets: int64 (B, T).
        expert: float32 (B, T, V), the expert's log probabilities; (B, 0, V) without an expert.
        floats, ints: float32 (B, F, I) and int64 (B, K), the states of the texts; updated.
        scores: Written.
    """
    own_floats = np.empty((floats.shape[1], 1, floats.shape[2]), np.float32)
    own_ints = np.empty((ints.shape[1], 1), np.int64)
    work = make_work(network)
    is_adaptive = network.local_slots > 0
    for row in range(len(ids)):
        own_floats[:, 0] = floats[row]
        own_ints[:, 0] = ints[row]
        is_read = False  # whether the next id was learned from when it was the target
        for time in range(ids.shape[1]):
            if is_read:
                remember(network, own_ints, 0, ids[row, time])
            else:
                read(network, own_floats, own_ints, 0, work, ids[row, time])
            if expert.shape[1] > 0:
                hear_expert(network, own_floats, 0, work, expert[row, time])
            target = targets[row, time]
            is_next = time + 1 < ids.shape[1] and ids[row, time + 1] == target
            is_symbol = network.tree.lengths[target] > 0
            is_read = is_adaptive and is_next and is_symbol
            scores[row, time] = score_symbol(
                network, own_floats, own_ints, 0, work, target, is_read
            )
        floats[row] = own_floats[:, 0]
        ints[row] = own_ints[:, 0]


@compiled
def distributions(network, ids, expert, floats, ints, logits):
    """Write the log probability of each symbol after each id, float32 (B, T, V); the other
    arguments are those of ``score``.
    """
    own_floats = np.empty((floats.shape[1], 1, floats.shape[2]), np.float32)
    own_ints = np.empty((ints.shape[1], 1), np.int64)
    work = make_work(network)
    for row in range(len(ids)):
        own_floats[:, 0] = floats[row]
        own_ints[:, 0] = ints[row]
        for time in range(ids.shape[1]):
            read(network, own_floats, own_ints, 0, work, ids[row, time])
            if expert.shape[1] > 0:
                hear_expert(network, own_floats, 0, work, expert[row, time])
            write_distribution(network, own_floats, own_ints, 0, work, logits[row, time])
        floats[row] = own_floats[:, 0]
        ints[row] = own_ints[:, 0]


@compiled
def write_opinions(tree, ids, expert, opinions):
    """Write the expert's logit of each decision on the way to each symbol, (T, D). ``expert``,
    (T, V), has its log probabilities after each symbol.
    """
    sums = np.zeros(len(tree.leaves) + 1)
    for time in range(1, len(ids)):
        add_up_leaves(tree, expert[time - 1], sums)
        for level in range(tree.lengths[ids[time]]):
            opinions[time, level] = expert_logit(tree, sums, tree.paths[ids[time], level])


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
            hear_expert(network, floats, text, work, logits[text])
        write_distribution(network, floats, ints, text, work, logits[text])
