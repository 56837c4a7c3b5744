"""Predicts the decisions of a symbol: looks its contexts up, mixes what they say, and learns.

Nothing that a text learns is kept in the model: its own slots, its match and its changes of the
weights are a part of its state. Needs no torch.

The state of B texts is a pair of arrays: ``ints``, int64 (K, B), as in ``history`` and
``matching``; and ``floats``, float32 (F, B, I): the changes of the weights, and the expert's logit
at each node after the last symbol.

Shapes: V symbols, N decision nodes, C contexts, L contexts of a text's own, I inputs of the mixer.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from reviewgen.compiled import inner, unmanaged
from reviewgen_mixing.history import (
    COPIED,
    GIVEN,
    LETTERS,
    LOCAL_CONTEXTS,
    MASK,
    MATCH,
    MATCHED,
    NAMES,
    READ,
    SOURCE,
    Alphabet,
    mixed,
    read_symbol,
    write_contexts,
)
from reviewgen_mixing.matching import (
    CLASSES,
    OWN,
    follow_own,
    follow_source,
    length_class,
    symbol_at,
)
from reviewgen_mixing.mixer import (
    HALF,
    MAP_ROWS,
    ONE,
    SETS,
    ZERO,
    Unit,
    Weights,
    learn_changes,
    mix_inputs,
    stretch_all,
)
from reviewgen_mixing.slots import (
    LINE,
    NEW,
    PROBES,
    RATES,
    STRETCHED,
    Slots,
    check_of,
    claim,
    code_of,
    counted,
    find,
    find_line,
    slot_in,
    state_of,
    updated,
)
from reviewgen_mixing.tree import BLOCK, Tree

# a subtree that is less probable than this is divided by the frequencies of its symbols
RARE = 1e-4
LOCAL = np.array(LOCAL_CONTEXTS)
MATCHES = 2  # the match within the text, and the one with the training text
ORDERS = 9  # how many of the eight contexts of 1 to 11 symbols were seen
OPINIONS = 15  # classes of the expert's logit
MAX_NODES = 256  # with more decision nodes, a text does not change the weights of single nodes
BIAS = np.float32(0.3)
MAX_STATE_COUNT = 600  # of the updates of a state's probability, which set its rate
MIN_STATE = np.float32(1 / 4096)
MIN_TEXT_RATE = 0.0005  # at which a long text changes the weights
TEXT_SYMBOLS = 2000  # after these, the additional rate of a text is halved
MAX_EXPERT = 10.0  # limit of the expert's logits


class Network(NamedTuple):
    """A model, prepared for compiled functions."""

    tree: Tree
    alphabet: Alphabet
    slots: Slots
    weights: Weights
    chosen: Int64[np.ndarray, " C"]  # the contexts in use
    frequencies: Float32[np.ndarray, " V"]
    text: Int32[np.ndarray, " T"]  # the training text, if the model keeps it
    starts: Int64[np.ndarray, " H"]  # where it goes on after each hash
    bos_id: int
    first_given: int  # the ids from here on are those of conditions and fields
    local_slots: int  # number of slots that a text has of its own; 0 if it does not adapt
    expert: int  # whether the distribution of another model is an input
    min_count: int  # contexts that were seen less often are ignored
    rate: float  # additional rate at which a text changes the weights at first


class Work(NamedTuple):
    """Memory for the prediction of a symbol."""

    unit: Unit
    contexts: Int64[np.ndarray, " 22"]  # hashes
    lines: Int64[np.ndarray, "D C"]  # of each context, for each depth of blocks
    hashes: Int64[np.ndarray, "D C"]
    own_lines: Int64[np.ndarray, "D L"]
    own_hashes: Int64[np.ndarray, "D L"]
    found: Int64[np.ndarray, " P"]  # the slot of each context, own ones after the others; or -1
    seen: Int64[np.ndarray, " P"]  # the state of each found slot, and of the matches
    probs: Float32[np.ndarray, " P"]  # what these say
    expected: Int64[np.ndarray, "2 2"]  # the next symbol of each match, and the match's length
    expert: Float32[np.ndarray, " N"]  # the expert's logit of each decision
    stack: Int64[np.ndarray, " N2"]  # the nodes that are still to be visited
    masses: Float64[np.ndarray, " N2"]  # and the probability of each
    sums: Float64[np.ndarray, " N2"]  # of the expert's probabilities of the leaves before each


def input_count(contexts: int, local_slots: int) -> int:
    """Return the number of inputs of the mixer, I, padded for vector instructions."""
    looked_up = contexts + (len(LOCAL) if local_slots else 0)
    inputs = 3 * looked_up + 2 * MATCHES + 2
    return -(-inputs // 16) * 16


def set_sizes(nodes: int, vocab_size: int) -> list[int]:
    """Return the number of rows of each set of the mixer."""
    return [
        MATCHES * CLASSES * 4,  # length of the match, its decision, what the text has of its own
        ORDERS * 12,  # and the level of the decision
        4 * 8 * 5,  # words that were seen, letters of the word, orders that were seen
        OPINIONS * ORDERS,  # the expert's opinion, or how many own slots there are
        nodes,
        vocab_size + 1,  # the last symbol
        vocab_size + 1,  # the one before it
        vocab_size + 1,  # the symbol that a match expects
    ]


def changed_rows(nodes: int) -> int:
    """Return the number of rows of weights that a text may change, the first ones."""
    sizes = set_sizes(nodes, 0)
    return sum(sizes[:5]) if nodes <= MAX_NODES else sum(sizes[:4])


def float_rows(network: Network) -> int:
    """Return the number of rows of the floats of a state, F."""
    weights = network.weights
    width = weights.sets.shape[1]
    nodes = len(network.tree.levels)
    changes = weights.own_rows + -(-nodes // (width // SETS)) if weights.own_rows else 0
    return changes + (-(-nodes // width) if network.expert else 0)


@inner
def make_work(network):
    """Return memory for predictions with a model."""
    nodes = len(network.tree.levels)
    deepest = 0
    for level in network.tree.levels:
        deepest = max(deepest, level)
    depth = deepest // BLOCK + 1
    count = len(network.chosen)
    own = len(LOCAL) if network.local_slots > 0 else 0
    sets = network.weights.final.shape[1]
    levels = deepest + 1
    unit = Unit(
        np.zeros((levels, network.weights.sets.shape[1]), np.float32),
        np.zeros((levels, sets), np.int64),
        np.zeros((levels, sets), np.float32),
        np.zeros((levels, sets), np.float32),
        np.zeros((levels, 3), np.int64),
        np.zeros((levels, 2), np.float32),
    )
    return Work(
        unit,
        np.zeros(len(NAMES), np.int64),
        np.zeros((depth, count), np.int64),
        np.zeros((depth, count), np.int64),
        np.zeros((depth, own), np.int64),
        np.zeros((depth, own), np.int64),
        np.zeros(count + own, np.int64),
        np.zeros(count + own + MATCHES, np.int64),
        np.zeros(count + own + MATCHES, np.float32),
        np.zeros((MATCHES, 2), np.int64),
        np.zeros(nodes, np.float32),
        np.zeros(nodes + 2, np.int64),
        np.zeros(nodes + 2),
        np.zeros(nodes + 2),
    )


@unmanaged
def begin_symbol(network, ints, text, work):
    """Compute what all decisions of the next symbol share."""
    state = ints[:, text]
    write_contexts(state, work.contexts)
    work.expected[:] = 0
    if network.local_slots > 0 and state[MATCHED] > 0:
        work.expected[0, 0] = symbol_at(state, network.local_slots, state[MATCH])
        work.expected[0, 1] = state[MATCHED]
    if len(network.text) > 0 and state[COPIED] > 0:
        work.expected[1, 0] = network.text[state[SOURCE]]
        work.expected[1, 1] = state[COPIED]


@unmanaged
def open_block(network, root, work):
    """Find the lines of all contexts for a block of the tree."""
    depth = network.tree.levels[root] // BLOCK
    lines = len(network.slots.values) // LINE
    for number in range(len(network.chosen)):
        context = network.chosen[number]
        line, hashed = find_line(mixed(work.contexts[context], context), root, lines)
        work.lines[depth, number] = line
        work.hashes[depth, number] = hashed
    # loads of all lines at once, which the processor overlaps, are faster than one after another
    touched = 0
    for number in range(len(network.chosen)):
        line = work.lines[depth, number]
        touched += np.int64(network.slots.values[line])
        if len(network.slots.checks) > 0:
            touched += np.int64(network.slots.checks[line])
    work.seen[0] = touched
    open_own(network, root, work)


@unmanaged
def open_own(network, root, work):
    """Find the lines of a block in a text's own slots."""
    depth = network.tree.levels[root] // BLOCK
    for number in range(work.own_lines.shape[1]):
        hashed = mixed(mixed(work.contexts[LOCAL[number]], LOCAL[number]), root + 1)
        work.own_lines[depth, number] = (
            OWN + ((hashed * (network.local_slots // LINE)) >> 32) * LINE
        )
        work.own_hashes[depth, number] = mixed(hashed, 1)


@unmanaged
def find_own(state, line, hashed, place):
    """Return the place in the state of a decision's own slot; -1 if it has none."""
    check = check_of(hashed, place)
    for probe in range(PROBES):
        slot = slot_in(line, hashed, place, probe)
        if state[slot] >> 32 == check:
            return slot
    return -1


@unmanaged
def claim_own(state, line, hashed, place):
    """Return an own slot for a decision that has none: the one with the fewest counts, emptied."""
    best = slot_in(line, hashed, place, 0)
    fewest = 1 << 30
    for probe in range(PROBES):
        slot = slot_in(line, hashed, place, probe)
        count = counted(state[slot] & MASK) if state[slot] != 0 else -1
        if count < fewest:
            best = slot
            fewest = count
    state[best] = (check_of(hashed, place) << 32) | NEW
    return best


@unmanaged
def look_up(network, ints, text, work, node):
    """Look a decision up in all contexts: write the inputs that are the adaptive probabilities,
    and ``found``, ``seen`` and ``probs`` of the work.

    Return how many contexts of 1 to 11 symbols, of words, and of the text's own were seen.
    """
    state = ints[:, text]
    tree = network.tree
    place = tree.places[node]
    depth = tree.levels[tree.roots[node]] // BLOCK
    inputs = work.unit.inputs[tree.levels[node]]
    count = len(network.chosen)
    start = 2 * len(work.probs)
    is_packed = len(network.slots.checks) == 0
    orders = 0
    words = 0
    own = 0
    for number in range(count):
        slot = find(network.slots, work.lines[depth, number], work.hashes[depth, number], place)
        if slot >= 0 and not is_packed:
            value = np.int64(network.slots.values[slot])
            slot = slot if counted(value) >= network.min_count else -1
        work.found[number] = slot
        work.probs[number] = HALF
        inputs[start + number] = ZERO
        if slot >= 0:
            value = np.int64(network.slots.values[slot])
            seen = (value >> 5) & 255 if is_packed else state_of(value)
            work.seen[number] = seen
            work.probs[number] = network.weights.states[number, seen]
            code = value & 31 if is_packed else code_of(value)
            inputs[start + number] = STRETCHED[code]
            context = network.chosen[number]
            orders += 1 if 1 <= context < ORDERS else 0
            words += 1 if ORDERS <= context < ORDERS + 3 else 0
    for number in range(work.own_lines.shape[1]):
        slot = find_own(state, work.own_lines[depth, number], work.own_hashes[depth, number], place)
        index = count + number
        work.found[index] = slot
        work.probs[index] = HALF
        inputs[start + index] = ZERO
        if slot >= 0:
            value = state[slot] & MASK
            seen = state_of(value)
            work.seen[index] = seen
            work.probs[index] = network.weights.states[index, seen]
            inputs[start + index] = STRETCHED[code_of(value)]
            own += 1
    return orders, words, own


@unmanaged
def match(network, work, node):
    """Write what the matches say about a decision to ``seen`` and ``probs``. Return the class of
    the longest match, the decision that it expects, and its symbol, or V.
    """
    tree = network.tree
    level = tree.levels[node]
    first = len(work.probs) - MATCHES
    longest = 0
    expected_bit = 0
    expected = len(tree.lengths)
    for which in range(MATCHES):
        symbol = work.expected[which, 0]
        length = length_class(work.expected[which, 1])
        work.seen[first + which] = -1
        work.probs[first + which] = HALF
        is_on_path = level < tree.lengths[symbol] and tree.paths[symbol, level] == node
        if length > 0 and is_on_path:
            bit = tree.bits[symbol, level]
            work.seen[first + which] = 2 * length + bit
            work.probs[first + which] = network.weights.states[first + which, 2 * length + bit]
            if length >= longest:
                longest = length
                expected_bit = bit
                expected = symbol
    return longest, expected_bit, expected


@unmanaged
def predict(network, floats, ints, text, work, node):
    """Return the probability of the decision 1 at a node, whose block is open."""
    tree = network.tree
    level = tree.levels[node]
    inputs = work.unit.inputs[level]
    rows = work.unit.rows[level]
    orders, words, own = look_up(network, ints, text, work, node)
    length, expected_bit, expected = match(network, work, node)
    stretch_all(work.probs, inputs, 0)
    at = 2 * len(work.probs) + len(work.found)
    inputs[at] = BIAS
    support = own
    if network.expert > 0:
        inputs[at + 1] = work.expert[node]
        middle = OPINIONS // 2
        support = middle + np.int64(np.round(np.float32(1.5) * work.expert[node]))
        support = min(OPINIONS - 1, max(0, support))
    last = ints[0, text] + 1 if ints[READ, text] > 0 else 0
    before = ints[1, text] + 1 if ints[READ, text] > 1 else 0
    rows[0] = (min(3, own // 2) * CLASSES + length) * 2 + expected_bit
    if len(rows) > 1:
        vocab_size = len(tree.lengths)
        start = MATCHES * CLASSES * 4
        rows[1] = start + orders * 12 + min(level, 11)
        start += ORDERS * 12
        letters = min(7, ints[LETTERS, text])
        rows[2] = start + (words * 8 + letters) * 5 + orders // 2
        start += 160
        rows[3] = start + support * ORDERS + orders
        start += OPINIONS * ORDERS
        rows[4] = start + node
        start += len(tree.levels)
        rows[5] = start + last
        start += vocab_size + 1
        rows[6] = start + before
        start += vocab_size + 1
        rows[7] = start + expected
    work.unit.cells[level, 0] = mixed(node + 1, last) % MAP_ROWS
    work.unit.cells[level, 1] = mixed(mixed(node + 1, last), before + 1) % MAP_ROWS
    return mix_inputs(network.weights, node, level, work.unit, floats, text)


@unmanaged
def learn_states(network, work, bit, counts):
    """Move the probabilities of the states that were seen towards a decision.

    ``counts``, (C, Q), has the number of updates of each.
    """
    states = network.weights.states
    first_match = len(work.found)
    for number in range(len(work.probs)):
        is_seen = work.found[number] >= 0 if number < first_match else work.seen[number] >= 0
        if is_seen:
            seen = work.seen[number]
            count = counts[number, seen]
            p = states[number, seen]
            p += np.float32((bit - p) / (count + 1.5))
            states[number, seen] = min(max(p, MIN_STATE), ONE - MIN_STATE)
            counts[number, seen] = min(count + 1, MAX_STATE_COUNT)


@unmanaged
def count_decision(network, work, node, bit):
    """Count a decision in the slots of all contexts."""
    slots = network.slots
    depth = network.tree.levels[network.tree.roots[node]] // BLOCK
    place = network.tree.places[node]
    for number in range(len(network.chosen)):
        line = work.lines[depth, number]
        hashed = work.hashes[depth, number]
        slot = find(slots, line, hashed, place)
        if slot < 0:
            slot = claim(slots, line, hashed, place)
        slots.values[slot] = np.uint32(updated(np.int64(slots.values[slot]), bit, RATES, False))


@unmanaged
def count_own(network, ints, text, work, node, bit):
    """Count a decision in a text's own slots."""
    state = ints[:, text]
    depth = network.tree.levels[network.tree.roots[node]] // BLOCK
    place = network.tree.places[node]
    for number in range(work.own_lines.shape[1]):
        line = work.own_lines[depth, number]
        hashed = work.own_hashes[depth, number]
        slot = find_own(state, line, hashed, place)
        if slot < 0:
            slot = claim_own(state, line, hashed, place)
        value = updated(state[slot] & MASK, bit, RATES, True)
        state[slot] = (state[slot] >> 32 << 32) | value


@unmanaged
def read(network, floats, ints, text, work, symbol):
    """Read a symbol: the text learns from it, and remembers it."""
    if symbol == network.bos_id:
        ints[:, text] = 0
        floats[:, text] = 0
        return
    if symbol >= network.first_given:
        ints[GIVEN, text] = mixed(ints[GIVEN, text], symbol + 1)
        return
    tree = network.tree
    if network.weights.own_rows > 0:
        load_expert(network, floats, text, work)
        score_symbol(network, floats, ints, text, work, symbol, True)
    elif network.local_slots > 0:
        write_contexts(ints[:, text], work.contexts)
        for level in range(tree.lengths[symbol]):
            node = tree.paths[symbol, level]
            if tree.roots[node] == node:
                open_own(network, node, work)
            count_own(network, ints, text, work, node, tree.bits[symbol, level])
    remember(network, ints, text, symbol)


@unmanaged
def remember(network, ints, text, symbol):
    """Update the registers and the matches with a symbol."""
    state = ints[:, text]
    read_symbol(network.alphabet, symbol, state)
    if network.local_slots > 0:
        follow_own(state, network.local_slots, symbol)
    if len(network.text) > 0:
        follow_source(state, network.text, network.starts, symbol)


@unmanaged
def score_symbol(network, floats, ints, text, work, symbol, is_learned):
    """Return the log probability of a symbol. If ``is_learned``, the text learns from it, after all
    of its decisions.
    """
    tree = network.tree
    count = tree.lengths[symbol]
    if count == 0:
        return -np.inf
    begin_symbol(network, ints, text, work)
    mass = 1.0
    is_rare = False
    for level in range(count):
        node = tree.paths[symbol, level]
        if mass < RARE and not is_rare:
            is_rare = True
            mass *= share(network, node, symbol)
        if is_rare and not is_learned:
            break
        if tree.roots[node] == node:
            open_block(network, node, work)
        p = predict(network, floats, ints, text, work, node)
        if not is_rare:
            mass *= p if tree.bits[symbol, level] else 1 - p
    if is_learned:
        learn_symbol(network, floats, ints, text, work, symbol)
    return math.log(mass)


@unmanaged
def learn_symbol(network, floats, ints, text, work, symbol):
    """Let a text learn from a symbol whose decisions were all predicted."""
    tree = network.tree
    # a text changes the weights fast at first, and slower when it has learned from more symbols
    rate = MIN_TEXT_RATE + network.rate / (1 + ints[READ, text] / TEXT_SYMBOLS)
    for level in range(tree.lengths[symbol]):
        node = tree.paths[symbol, level]
        bit = tree.bits[symbol, level]
        if network.weights.own_rows > 0:
            learn_changes(network.weights, node, level, work.unit, bit, rate, floats, text)
        count_own(network, ints, text, work, node, bit)


@unmanaged
def share(network, node, symbol):
    """Return the share of a symbol in the frequencies of all symbols below a node."""
    total = 0.0
    for place in range(network.tree.spans[node, 0], network.tree.spans[node, 2]):
        total += network.frequencies[network.tree.leaves[place]]
    return network.frequencies[symbol] / total


@unmanaged
def write_distribution(network, floats, ints, text, work, logits):
    """Write the log probability of each symbol, depth first."""
    tree = network.tree
    stack = work.stack
    masses = work.masses
    logits[: len(tree.lengths)] = -np.inf
    begin_symbol(network, ints, text, work)
    stack[0] = 0
    masses[0] = 1.0
    count = 1
    while count > 0:
        count -= 1
        node = stack[count]
        mass = masses[count]
        if node < 0:
            logits[-1 - node] = np.float32(math.log(mass))
        elif mass < RARE:
            for place in range(tree.spans[node, 0], tree.spans[node, 2]):
                symbol = tree.leaves[place]
                logits[symbol] = np.float32(math.log(mass * share(network, node, symbol)))
        else:
            if tree.roots[node] == node:
                open_block(network, node, work)
            p = predict(network, floats, ints, text, work, node)
            stack[count] = tree.children[node, 1]
            masses[count] = mass * p
            stack[count + 1] = tree.children[node, 0]
            masses[count + 1] = mass * (1 - p)
            count += 2


@unmanaged
def hear_expert(network, floats, text, work, log_probs):
    """Write the expert's logit of each decision, from its log probability of each symbol, (V,). The
    state keeps them until the next symbol is read.
    """
    add_up_leaves(network.tree, log_probs, work.sums)
    width = network.weights.sets.shape[1]
    first = len(floats) - (len(work.expert) + width - 1) // width
    for node in range(len(work.expert)):
        work.expert[node] = expert_logit(network.tree, work.sums, node)
        floats[first + node // width, text, node % width] = work.expert[node]


@unmanaged
def add_up_leaves(tree, log_probs, sums):
    """Write the sum of the probabilities of the leaves before each place, up to a factor."""
    largest = log_probs[tree.leaves[0]]
    for symbol in tree.leaves:
        largest = max(largest, log_probs[symbol])
    for place in range(len(tree.leaves)):
        # an expert of which only bos or a condition has a probability says nothing
        p = math.exp(log_probs[tree.leaves[place]] - largest) if largest > -np.inf else 0.0
        sums[place + 1] = sums[place] + p


@unmanaged
def expert_logit(tree, sums, node):
    """Return the logit of a decision, from the sums that ``add_up_leaves`` writes."""
    left = sums[tree.spans[node, 1]] - sums[tree.spans[node, 0]] + 1e-12
    right = sums[tree.spans[node, 2]] - sums[tree.spans[node, 1]] + 1e-12
    logit = math.log(right / left)
    if np.isnan(logit):  # the expert's probabilities are not numbers
        return ZERO
    return np.float32(min(max(logit, -MAX_EXPERT), MAX_EXPERT))


@unmanaged
def load_expert(network, floats, text, work):
    """Read the expert's logits, which ``hear_expert`` has kept, from the state."""
    if network.expert > 0:
        width = network.weights.sets.shape[1]
        first = len(floats) - (len(work.expert) + width - 1) // width
        for node in range(len(work.expert)):
            work.expert[node] = floats[first + node // width, text, node % width]
