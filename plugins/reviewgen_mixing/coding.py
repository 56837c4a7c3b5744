"""Predicts the decisions of a symbol: looks its contexts up, mixes what they say, and learns.

Nothing that a text learns is kept in the model: its own slots, its match and its changes of the
weights are a part of its state. Needs no torch.

The state of B texts is a pair of arrays: ``ints``, int64 (K, B), as in ``history``; and ``floats``,
float32 (F, B, I): the changes of the weights, and the expert's logit at each node after the last
symbol.

Shapes: V symbols, N decision nodes, C contexts, those of a text's own after the others, P contexts
and matches, I inputs of the mixer, S sets of weights.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from reviewgen.compiled import inner, unmanaged
from reviewgen_mixing.history import (
    CLASSES,
    FACTOR_C,
    GIVEN,
    LETTERS,
    MASK,
    MATCH,
    MATCHED,
    MATCHES,
    NAMES,
    ORDER_CONTEXTS,
    OWN_SLOTS,
    READ,
    Alphabet,
    follow_own,
    follow_source,
    length_class,
    mixed,
    read_symbol,
    state_size,
    symbol_at,
    write_contexts,
)
from reviewgen_mixing.mixer import (
    HALF,
    MAP_ROWS,
    ONE,
    SETS,
    ZERO,
    Unit,
    Weights,
    final_changes,
    learn_weights,
    mix_inputs,
    stretch_all,
)
from reviewgen_mixing.slots import (
    IN_TRAINING,
    OWN,
    PACKED,
    STRETCHED,
    Slots,
    check_of,
    counted,
    counts_of,
    find,
    find_to_count,
    line_of,
    updated,
)
from reviewgen_mixing.tree import BLOCK, Tree

# Number of contexts of the last symbols, one of which has no symbols. Of the other eight, from 0 to
# 8 may have been seen, so this is also the number of these cases.
ORDER_COUNT = len(ORDER_CONTEXTS)
OPINIONS = 15  # number of classes of the expert's logit
BIAS = np.float32(0.3)  # an input that is always the same
# the probability of a state changes less with each update, up to this number of updates
MAX_STATE_COUNT = 600
MIN_STATE = np.float32(1 / 4096)
# A text changes the weights at the learning rate MIN_TEXT_RATE, to which at first TEXT_RATE is
# added; after TEXT_SYMBOLS symbols, half of it is added.
TEXT_RATE = 0.004
MIN_TEXT_RATE = 0.0005
TEXT_SYMBOLS = 2000
MAX_EXPERT = 10.0  # max absolute value of the expert's logits


class Network(NamedTuple):
    """A model, prepared for compiled functions."""

    tree: Tree
    alphabet: Alphabet
    slots: Slots
    weights: Weights
    contexts: Int64[np.ndarray, " C"]  # the contexts in use, then those of a text's own
    first_own: int  # where those of a text's own begin in ``contexts``
    set_starts: Int64[np.ndarray, " S+1"]  # the first row of each set of weights
    frequencies: Float32[np.ndarray, " V"]
    log_frequencies: Float32[np.ndarray, " V"]
    below: Float64[np.ndarray, " N"]  # the sum of the frequencies of all symbols below a node
    text: Int32[np.ndarray, " T"]  # the training text, if the model keeps it
    # for each hash of symbols, the position in the training text after their last occurrence
    starts: Int64[np.ndarray, " H"]
    bos_id: int
    first_condition_id: int  # this id and those after it stand for conditions and fields
    local_slots: int  # number of slots that a text has of its own; 0 if it does not adapt
    expert: int  # whether the distribution of another model is an input
    # in a subtree that is less probable than this, nothing is predicted: its probability is divided
    # among its symbols in proportion to their frequencies
    rare: float
    min_count: int  # slots that have counted fewer decisions are ignored


class Work(NamedTuple):
    """Memory for the prediction of a symbol."""

    unit: Unit
    hashes: Int64[np.ndarray, " 22"]  # the hash of each context that ``history.NAMES`` lists
    bases: Int64[np.ndarray, " C"]  # for each context in use, a hash of its hash and its number
    # the line of slots of each context in use, for each depth of blocks in the tree; see ``slots``
    lines: Int64[np.ndarray, "D C"]
    checks: Int64[np.ndarray, "D C"]  # the hashes that the checks in these lines are made from
    seen: Int64[np.ndarray, " P"]  # the state that each context and match has; -1 if it has none
    probs: Float32[np.ndarray, " P"]  # the probability that each of these states stands for
    # for each match, the symbol that it expects next, and the class of its length
    expected: Int64[np.ndarray, "2 2"]
    masses: Float64[np.ndarray, " N"]  # the probability of each node; 0 within a rare subtree


def set_sizes(nodes: int, vocab_size: int) -> list[int]:
    """Return the number of rows of each set of the mixer. ``predict`` chooses one row of each set;
    the comments say by what.
    """
    return [
        # class of the longest match, decision that it expects, number of own slots in four classes
        MATCHES * CLASSES * 4,
        # number of contexts of symbols ("orders") that were seen, level of the decision
        ORDER_COUNT * 12,
        # number of word contexts that were seen, number of letters of the word, half the number of
        # orders
        4 * 8 * 5,
        # class of the expert's opinion, or number of own slots; number of orders
        OPINIONS * ORDER_COUNT,
        nodes,  # the node
        vocab_size + 1,  # the last symbol
        vocab_size + 1,  # the symbol before the last one
        vocab_size + 1,  # the symbol that the longest match expects
    ]


def new_state(
    network: Network, batch_size: int
) -> tuple[Float32[np.ndarray, "F B I"], Int64[np.ndarray, "K B"]]:
    """Return the state of B texts before their first symbol."""
    nodes = len(network.tree.levels)
    width = network.weights.sets.shape[1]
    own_rows = network.weights.own_rows
    # the changes of the sets, then those of the final weights; as many nodes as fit share a row
    rows = own_rows + -(-nodes // (width // SETS)) if own_rows else 0
    rows += -(-nodes // width) if network.expert else 0  # the expert's logits
    floats = np.zeros((rows, batch_size, width), np.float32)
    return floats, np.zeros((state_size(network.local_slots), batch_size), np.int64)


@inner
def make_work(network):
    """Return memory for predictions with a model."""
    nodes, sets = network.weights.final.shape
    levels = network.tree.paths.shape[1]
    contexts = len(network.contexts)
    unit = Unit(
        np.zeros((levels, network.weights.sets.shape[1]), np.float32),  # inputs
        np.zeros((levels, sets), np.int64),  # rows
        np.zeros((levels, sets), np.float32),  # logits
        np.zeros((levels, 3), np.int64),  # cells
        np.zeros(levels, np.float32),  # probs
    )
    return Work(
        unit,
        np.zeros(len(NAMES), np.int64),  # hashes
        np.zeros(contexts, np.int64),  # bases
        np.zeros((levels, contexts), np.int64),  # lines
        np.zeros((levels, contexts), np.int64),  # checks
        np.zeros(contexts + MATCHES, np.int64),  # seen
        np.zeros(contexts + MATCHES, np.float32),  # probs
        np.zeros((MATCHES, 2), np.int64),  # expected
        np.zeros(nodes),  # masses
    )


@unmanaged
def begin_symbol(network, ints, text, work):
    """Compute what all decisions of the next symbol of text number ``text`` share: hashes, and what
    the matches expect.
    """
    state = ints[:, text]
    write_contexts(state, work.hashes)
    for number in range(len(network.contexts)):
        context = network.contexts[number]
        work.bases[number] = mixed(work.hashes[context], context)
    for which in range(MATCHES):
        # each match has two places in the state, for its position and its length
        length = state[MATCHED + 2 * which]
        work.expected[which, 1] = length_class(length)
        if length > 0:
            work.expected[which, 0] = symbol_at(
                state, network.local_slots, network.text, which, state[MATCH + 2 * which]
            )


@unmanaged
def open_block(network, root, work):
    """Find the lines of all contexts for the block of the tree that begins at the node ``root``."""
    depth = network.tree.levels[root] // BLOCK
    slots = network.slots
    for number in range(len(network.contexts)):
        hashed = mixed(work.bases[number], root + 1)
        if number < network.first_own:
            work.lines[depth, number] = line_of(hashed, len(slots.values))
            work.checks[depth, number] = (hashed * FACTOR_C) & MASK
        else:
            work.lines[depth, number] = OWN_SLOTS + line_of(hashed, network.local_slots)
            work.checks[depth, number] = mixed(hashed, 1)
    # loads of all lines at once, which the processor overlaps, are faster than one after another
    touched = 0
    for number in range(network.first_own):
        line = work.lines[depth, number]
        touched += np.int64(slots.values[line])
        if len(slots.checks) > 0:
            touched += np.int64(slots.checks[line])
    work.seen[0] = touched  # else the compiler would leave the loads out; look_up overwrites it


@unmanaged
def look_up(network, state, work, node):
    """Look a decision up in all contexts.

    Write the state of each to ``work.seen``, or -1 if it has no slot, and the logits of the
    adaptive probabilities to the inputs. Return how many contexts with counts there are of 1 to 11
    symbols, of words, and of the text's own.
    """
    level = network.tree.levels[node]
    place = network.tree.places[node]
    inputs = work.unit.inputs[level, 2 * len(work.seen) :]
    orders = 0
    words = 0
    own = 0
    for number in range(len(network.contexts)):
        context = network.contexts[number]
        line = work.lines[level // BLOCK, number]
        check = work.checks[level // BLOCK, number]
        counts = -1
        if number >= network.first_own:
            slot = find(state, OWN, line, check, place)
            if slot >= 0:
                counts = counts_of(state[slot] & MASK)
                own += 1
        else:
            counts = look_up_counts(network, line, check, place)
            orders += 1 if counts >= 0 and 1 <= context < ORDER_COUNT else 0
            # the three contexts of one to three words follow those of symbols
            words += 1 if counts >= 0 and ORDER_COUNT <= context < ORDER_COUNT + 3 else 0
        work.seen[number] = counts >> 5  # the state; -1 stays -1
        inputs[number] = STRETCHED[counts & 31] if counts >= 0 else ZERO
    return orders, words, own


@unmanaged
def look_up_counts(network, line, check, place):
    """Return the counts (13 bits) of a decision in a context of the corpus; -1 without a slot."""
    slots = network.slots
    if len(slots.checks) == 0:
        slot = find(slots.values, PACKED, line, check, place)
        return np.int64(slots.values[slot]) & 0x1FFF if slot >= 0 else -1
    slot = find(slots.checks, IN_TRAINING, line, check, place)
    if slot < 0 or counted(np.int64(slots.values[slot])) < network.min_count:
        return -1
    return counts_of(np.int64(slots.values[slot]))


@unmanaged
def match(tree, work, node):
    """Write the states of the matches at a decision to ``work.seen``; -1 for a match whose symbol
    is not below the node.

    Of the longest of the other matches, return the class of its length, and the decision and the
    symbol that it expects; 0, 0 and V if there are none.
    """
    level = tree.levels[node]
    longest_class = 0
    expected_bit = 0
    expected = len(tree.lengths)
    for which in range(MATCHES):
        symbol, match_class = work.expected[which]
        seen = -1
        is_on_path = level < tree.lengths[symbol] and tree.paths[symbol, level] == node
        if match_class > 0 and is_on_path:
            bit = tree.bits[symbol, level]
            seen = 2 * match_class + bit
            if match_class >= longest_class:
                longest_class = match_class
                expected_bit = bit
                expected = symbol
        work.seen[len(work.seen) - MATCHES + which] = seen
    return longest_class, expected_bit, expected


@unmanaged
def predict(network, floats, ints, text, work, node):
    """Return the probability of the decision 1 at a node, for text number ``text``. The parent of
    the node must have been predicted before, since the nodes of a block share lines of slots.
    """
    tree = network.tree
    unit = work.unit
    level = tree.levels[node]
    state = ints[:, text]
    if tree.roots[node] == node:
        open_block(network, node, work)
    orders, words, own = look_up(network, state, work, node)
    match_class, expected_bit, expected = match(tree, work, node)
    for number in range(len(work.seen)):
        seen = work.seen[number]
        work.probs[number] = network.weights.states[number, seen] if seen >= 0 else HALF
    inputs = unit.inputs[level]
    stretch_all(work.probs, inputs, 0)
    bias_index = 2 * len(work.probs) + len(network.contexts)
    inputs[bias_index] = BIAS
    # for the fourth set: the number of own slots, or with an expert the class of its opinion
    support = own
    if network.expert > 0:
        row, column = place_of_opinion(network, floats, node)
        opinion = floats[row, text, column]
        inputs[bias_index + 1] = opinion
        support = OPINIONS // 2 + np.int64(np.round(np.float32(1.5) * opinion))
        support = min(OPINIONS - 1, max(0, support))
    # the last symbol and the one before it, plus one; 0 at the beginning of a text
    last = state[0] + 1 if state[READ] > 0 else 0
    before = state[1] + 1 if state[READ] > 1 else 0
    # the row within each set, as ``set_sizes`` describes them
    choices = (
        (min(3, own // 2) * CLASSES + match_class) * 2 + expected_bit,
        orders * 12 + min(level, 11),
        (words * 8 + min(7, state[LETTERS])) * 5 + orders // 2,
        support * ORDER_COUNT + orders,
        node,
        last,
        before,
        expected,
    )
    for number in range(unit.rows.shape[1]):
        unit.rows[level, number] = network.set_starts[number] + choices[number]
    unit.cells[level, 0] = mixed(node + 1, last) % MAP_ROWS
    unit.cells[level, 1] = mixed(mixed(node + 1, last), before + 1) % MAP_ROWS
    return mix_inputs(network.weights, node, level, unit, floats, text)


@unmanaged
def learn_states(network, work, bit, updates):
    """Move the probabilities of the states in ``work.seen`` towards a decision.

    ``updates``, float32 (P, Q), has the number of updates of each probability; updated.
    """
    states = network.weights.states
    for number in range(len(work.seen)):
        seen = work.seen[number]
        if seen >= 0:
            count = updates[number, seen]
            p = states[number, seen]
            p += np.float32((bit - p) / (count + 1.5))
            states[number, seen] = min(max(p, MIN_STATE), ONE - MIN_STATE)
            updates[number, seen] = min(count + 1, MAX_STATE_COUNT)


@unmanaged
def count_decision(network, work, node, bit):
    """Count a decision in the slots that the contexts have in the model."""
    slots = network.slots
    depth = network.tree.levels[node] // BLOCK
    place = network.tree.places[node]
    for number in range(network.first_own):
        line = work.lines[depth, number]
        check = work.checks[depth, number]
        slot, value = find_to_count(slots.checks, IN_TRAINING, slots.values, line, check, place)
        slots.checks[slot] = check_of(check, place)
        slots.values[slot] = updated(value, bit, False)


@unmanaged
def count_own(network, state, work, node, bit):
    """Count a decision in the slots that the contexts have in the state of a text."""
    depth = network.tree.levels[node] // BLOCK
    place = network.tree.places[node]
    for number in range(network.first_own, len(network.contexts)):
        line = work.lines[depth, number]
        check = work.checks[depth, number]
        slot, value = find_to_count(state, OWN, state, line, check, place)
        state[slot] = (check_of(check, place) << OWN) | updated(value, bit, True)


@unmanaged
def read(network, floats, ints, text, work, symbol):
    """Let text number ``text`` read an id. bos clears the state of the text; the id of a condition
    or field is added to a hash in the state. Any other id is a symbol, which the text learns from
    and remembers.
    """
    if symbol == network.bos_id:
        ints[:, text] = 0
        floats[:, text] = 0
    elif symbol >= network.first_condition_id:
        ints[GIVEN, text] = mixed(ints[GIVEN, text], symbol + 1)
    else:
        if network.local_slots > 0:
            score_symbol(network, floats, ints, text, work, symbol, True)
        remember(network, ints, text, symbol)


@unmanaged
def remember(network, ints, text, symbol):
    """Update the state of a text, ``ints[:, text]``, with a symbol that it has read: its registers,
    and its matches with the text itself and with the training text.
    """
    state = ints[:, text]
    read_symbol(network.alphabet, symbol, state)
    if network.local_slots > 0:
        follow_own(state, network.local_slots, network.text, symbol)
    if len(network.text) > 0:
        follow_source(state, network.local_slots, network.text, network.starts)


@unmanaged
def score_symbol(network, floats, ints, text, work, symbol, is_learned):
    """Return the log probability of a symbol as the next one of text number ``text``, and from how
    many predictions it was computed.

    Below a node that is less probable than ``network.rare``, the frequencies of the symbols replace
    the predictions. If ``is_learned``, the decisions below such a node are predicted all the same,
    and the text learns from all decisions.
    """
    tree = network.tree
    begin_symbol(network, ints, text, work)
    mass = 1.0 if tree.lengths[symbol] > 0 else 0.0
    predicted = 0
    is_rare = False
    for level in range(tree.lengths[symbol]):
        node = tree.paths[symbol, level]
        if mass < network.rare and not is_rare:
            is_rare = True
            mass *= network.frequencies[symbol] / network.below[node]
        if is_rare and not is_learned:
            break
        p = predict(network, floats, ints, text, work, node)
        if not is_rare:
            predicted += 1
            mass *= p if tree.bits[symbol, level] else 1 - p
    if is_learned:
        learn_symbol(network, floats, ints, text, work, symbol)
    return np.log(mass), predicted


@unmanaged
def learn_symbol(network, floats, ints, text, work, symbol):
    """Let text number ``text`` learn from a symbol whose decisions were all predicted."""
    tree = network.tree
    own_rows = network.weights.own_rows
    # a text changes the weights fast at first, and slower when it has learned from more symbols
    rate = MIN_TEXT_RATE + TEXT_RATE / (1 + ints[READ, text] / TEXT_SYMBOLS)
    for level in range(tree.lengths[symbol]):
        node = tree.paths[symbol, level]
        bit = tree.bits[symbol, level]
        if own_rows > 0:
            row, start = final_changes(network.weights, node)
            final = floats[row, text, start : start + work.unit.rows.shape[1]]
            learn_weights(work.unit, level, bit, rate, floats, text, own_rows, final)
        count_own(network, ints[:, text], work, node, bit)


@unmanaged
def write_distribution(network, floats, ints, text, work, logits):
    """Write the log probability of each symbol after text number ``text`` to ``logits``, (V64,);
    -inf for a symbol without a leaf.
    """
    tree = network.tree
    masses = work.masses
    logits[: len(tree.lengths)] = -np.inf
    begin_symbol(network, ints, text, work)
    masses[:] = 0
    masses[0] = 1
    for node in range(len(masses)):
        mass = masses[node]
        if mass >= network.rare:
            p = predict(network, floats, ints, text, work, node)
            for bit in range(2):
                child = tree.children[node, bit]
                child_mass = mass * (p if bit else 1 - p)
                if child >= 0:
                    masses[child] = child_mass
                else:
                    logits[-1 - child] = np.float32(math.log(child_mass))
        elif mass > 0:  # the root of a rare subtree; the masses of the nodes below it stay 0
            log_share = math.log(mass / network.below[node])
            for place in range(tree.spans[node, 0], tree.spans[node, 2]):
                symbol = tree.leaves[place]
                logits[symbol] = np.float32(log_share + network.log_frequencies[symbol])


@unmanaged
def place_of_opinion(network, floats, node):
    """Return where the state has the expert's logit of a decision: the row, and the column."""
    # the expert's logits are in the last rows of ``floats``
    width = floats.shape[2]
    rows = (len(network.tree.levels) + width - 1) // width
    return len(floats) - rows + node // width, node % width


@inner
def hear_expert(network, floats, text, log_probs):
    """Write the expert's logit of each decision to the state, which keeps them until the next
    symbol is read. ``log_probs`` has its log probability of each symbol, (V,).
    """
    logits = expert_logits(network.tree, log_probs)
    for node in range(len(logits)):
        row, column = place_of_opinion(network, floats, node)
        floats[row, text, column] = logits[node]


@inner
def expert_logits(tree, log_probs):
    """Return the expert's logit of each decision, (N,), from the log probabilities of symbols."""
    logs = log_probs[tree.leaves]
    # for each place in the leaves, the sum of the (unnormalised) probabilities before it
    sums = np.zeros(len(logs) + 1)
    sums[1:] = np.cumsum(np.exp(logs - logs.max()).astype(np.float64))
    middle = sums[tree.spans[:, 1]]
    # the probabilities of the two decisions, never zero
    left = middle - sums[tree.spans[:, 0]] + 1e-12
    right = sums[tree.spans[:, 2]] - middle + 1e-12
    logits = np.log(right / left)
    # NaN if the expert gives all probability to bos and conditions, which are not leaves: such an
    # expert has no opinion, so its logit is 0
    logits = np.where(np.isnan(logits), 0.0, logits)
    return np.minimum(np.maximum(logits, -MAX_EXPERT), MAX_EXPERT).astype(np.float32)
