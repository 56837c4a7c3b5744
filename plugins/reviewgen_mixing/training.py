"""Trains a model: each block of text is predicted before it is counted.

So the weights are learned as they will be used, from contexts whose counts come from other texts,
while each text adds counts of its own. Had the block been counted first, or symbol by symbol, the
mixer would trust counts that are fresher than those of any text outside the training.

Needs no torch. Shapes: T symbols, D decisions.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int64, Integer

from reviewgen_mixing.coding import OPINIONS, ORDER_COUNT, Network, new_state
from reviewgen_mixing.config import MixingConfig
from reviewgen_mixing.history import LOCAL_CONTEXTS, MATCHES, index_text
from reviewgen_mixing.mixer import Weights
from reviewgen_mixing.passes import count, learn, read_opinions
from reviewgen_mixing.slots import LINE, Slots, pack
from reviewgen_mixing.trained import new_network
from reviewgen_mixing.tree import make_structure

BLOCK = 50_000  # max symbols of a block; a whole block is predicted before it is counted
MIN_BLOCK = 1_000  # min symbols of a block
BLOCKS = 20  # min number of blocks, unless they would be smaller than MIN_BLOCK
LINES_PER_SYMBOL = 4  # number of lines of slots for each symbol
MAX_LINES = 7_000_000  # max lines of slots; they take 672 MB while the model is trained
# the weights are learned from about this many symbols of a large corpus; all symbols are counted
LEARNED = 4_000_000
RATE = 0.006  # the learning rate falls linearly from this to a tenth of it
# the learning rate of the warm-up begins with this, and is used while it is higher than the other
# one
WARM_UP = 0.02
WARM_UP_SYMBOLS = 3_000  # after this number of symbols, the learning rate of the warm-up is halved
MAP_RATE = 0.02  # the learning rate of the probability maps
EXPERT_PASSES = 3  # number of passes over the held-out texts that fit an expert
EXPERT_RATE = 0.002  # like RATE, in these passes
EXPERT_WEIGHT = 0.3  # initial weight of the expert in each row


def train_network(texts: Sequence[Integer[np.ndarray, " T"]], config: MixingConfig) -> Network:
    """Return a network that is trained on some texts, each from bos to eos, with packed slots."""
    ids = np.concatenate(texts)
    first_condition_id = config.vocab_size - config.condition_ids - config.field_ids
    symbols = [symbol for symbol in range(first_condition_id) if symbol != config.bos_id]
    plain = ids[ids < first_condition_id]
    structure = make_structure(config.alphabet, symbols, plain, config.vocab_size)
    frequencies = np.bincount(plain, minlength=config.vocab_size).astype(np.float32) + 0.1
    size = min(LINES_PER_SYMBOL * len(ids) + 64, MAX_LINES) * LINE
    slots = Slots(np.zeros(size, np.uint16), np.zeros(size, np.uint32))
    text = ids.astype(np.int32) if config.keep_text else np.empty(0, np.int32)
    network = new_network(config, structure, frequencies, slots, text)
    # the index starts empty, and ``_read`` adds each block after it was counted: a prediction must
    # not copy from text that comes later
    network.starts[:] = 0
    _read(network, ids)
    # this changes ``slots.values`` in place; a packed slot contains a part of its check
    pack(slots.checks, slots.values, config.min_count)
    return network._replace(slots=Slots(np.empty(0, np.uint16), slots.values))


def _read(network: Network, ids: Integer[np.ndarray, " T"]) -> None:
    """Count each block of the texts. The weights learn from a block before it is counted; if the
    corpus is large, only from every k-th block.
    """
    updates = np.zeros(network.weights.states.shape, np.float32)
    # The model as ``learn`` and ``count`` need it: texts must not change the weights for
    # themselves, and to count symbols they need neither own slots nor matches with the training
    # text.
    learning = network._replace(weights=network.weights._replace(own_rows=0))
    counting = learning._replace(local_slots=0, text=network.text[:0])
    size = min(BLOCK, max(MIN_BLOCK, len(ids) // BLOCKS))
    no_opinions = np.empty((0, 1), np.float32)
    every = max(1, len(ids) // LEARNED)
    for number, start in enumerate(range(0, len(ids), size), start=1):
        block = ids[start : start + size].astype(np.int32)
        if number % every == 0:
            rates = _falling_rates(RATE, MAP_RATE, start, len(block), len(ids))
            warm_up_rates = WARM_UP / (1 + np.arange(start, start + len(block)) / WARM_UP_SYMBOLS)
            rates[:, 0] = np.maximum(rates[:, 0], warm_up_rates)
            learn(learning, block, *new_state(learning, 1), updates, rates, no_opinions)
        count(counting, block, *new_state(counting, 1))
        index_text(network.text[: start + size], start, network.starts)


def _falling_rates(
    rate: float, map_rate: float, start: int, symbols: int, total: int
) -> Float64[np.ndarray, "T 2"]:
    """Return the learning rates of weights and maps at ``symbols`` of ``total`` symbols, from
    number ``start`` on. The rate of the weights falls from ``rate`` to a tenth of it; that of the
    maps stays.
    """
    rates = np.full((symbols, 2), map_rate)
    rates[:, 0] = rate * (1 - 0.9 * np.arange(start, start + symbols) / max(1, total))
    return rates


def fit_expert(
    network: Network, texts: Iterable[tuple[Int64[np.ndarray, " T"], Float32[np.ndarray, "T V"]]]
) -> Network:
    """Return a network that mixes an expert in. It shares the slots; its weights are fitted on
    held-out texts, each with the expert's log probabilities after each id.
    """
    weights = Weights(*map(np.copy, network.weights[:-1]), own_rows=0)
    bias_index = 3 * len(network.contexts) + 2 * MATCHES
    weights.sets[:, bias_index + 1] = EXPERT_WEIGHT  # the expert's input follows the bias
    if len(network.set_starts) > 2:
        # The rows of set 3 were chosen by the number of own slots, and are now chosen by the
        # expert's opinion. For each number of orders, they start with the mean over the numbers of
        # own slots.
        by_opinion = weights.sets[network.set_starts[3] : network.set_starts[4]]
        by_opinion = by_opinion.reshape(OPINIONS, ORDER_COUNT, -1)
        by_opinion[:] = by_opinion[: len(LOCAL_CONTEXTS) + 1].mean(axis=0)
    fitted = network._replace(weights=weights, expert=1)
    # the texts may be read only once
    pairs = [(ids, read_opinions(network.tree, ids, expert)) for ids, expert in texts]
    # the states are trained already, so they change as slowly as after 255 updates
    updates = np.full(weights.states.shape, 255, np.float32)
    total = EXPERT_PASSES * sum(len(ids) for ids, _ in pairs)
    rates = _falling_rates(EXPERT_RATE, MAP_RATE / 2, 0, total, total)
    done = 0
    for ids, opinions in EXPERT_PASSES * pairs:
        state = new_state(fitted, 1)
        learn(fitted, ids.astype(np.int32), *state, updates, rates[done:], opinions)
        done += len(ids)
    return fitted._replace(weights=weights._replace(own_rows=network.weights.own_rows))
