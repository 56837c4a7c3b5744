"""Trains a model: each block of text is predicted before it is counted.

So the weights are learned as they will be used, from contexts whose counts come from other texts,
while each text adds counts of its own. Had the block been counted first, or symbol by symbol, the
mixer would trust counts that are fresher than those of any text outside the training.

Needs no torch. Shapes: T symbols, D decisions.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int64, Integer

from reviewgen_mixing.coding import OPINIONS, ORDERS, Network, new_state
from reviewgen_mixing.config import MixingConfig
from reviewgen_mixing.history import LOCAL_CONTEXTS, MATCHES, index_text
from reviewgen_mixing.mixer import Weights
from reviewgen_mixing.passes import count, learn, read_opinions
from reviewgen_mixing.slots import LINE, Slots, pack
from reviewgen_mixing.trained import new_network
from reviewgen_mixing.tree import make_structure

BLOCK = 50_000  # max symbols of a block; a whole block is predicted before it is counted
MIN_BLOCK = 1_000
BLOCKS = 20  # a small corpus has at least this many blocks
LINES_PER_SYMBOL = 4  # number of lines of slots for each symbol
MAX_LINES = 7_000_000  # 672 MB while the model is trained
# the weights are learned from about this many symbols of a large corpus; all symbols are counted
LEARNED = 4_000_000
RATE = 0.006  # the learning rate falls from this to a tenth, along a line
WARM_UP = 0.02  # the learning rate at the beginning, if it is higher than the falling one
WARM_UP_SYMBOLS = 3_000  # after these symbols, the learning rate of the warm-up is halved
MAP_RATE = 0.02
EXPERT_PASSES = 3  # over the held-out texts, to fit an expert
EXPERT_RATE = 0.002
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
    """Count each block of the texts. The weights learn from a block before it is counted, in a
    large corpus from every k-th block only.
    """
    updates = np.zeros(network.weights.states.shape, np.float32)
    learning = network._replace(weights=network.weights._replace(own_rows=0))
    counting = learning._replace(local_slots=0, text=network.text[:0])
    size = min(BLOCK, max(MIN_BLOCK, len(ids) // BLOCKS))
    no_opinions = np.empty((0, 1), np.float32)
    every = max(1, len(ids) // LEARNED)
    for number, start in enumerate(range(0, len(ids), size), start=1):
        block = ids[start : start + size].astype(np.int32)
        if number % every == 0:
            rates = _falling_rates(RATE, MAP_RATE, start, len(block), len(ids))
            first_rates = WARM_UP / (1 + np.arange(start, start + len(block)) / WARM_UP_SYMBOLS)
            rates[:, 0] = np.maximum(rates[:, 0], first_rates)
            learn(learning, block, *new_state(learning, 1), updates, rates, no_opinions)
        count(counting, block, *new_state(counting, 1))
        index_text(network.text[: start + size], start, network.starts)


def _falling_rates(
    rate: float, map_rate: float, start: int, symbols: int, total: int
) -> Float64[np.ndarray, "T 2"]:
    """Return the learning rates of weights and maps at some symbols; the former fall to a tenth."""
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
    bias = 3 * len(network.contexts) + 2 * MATCHES
    weights.sets[:, bias + 1] = EXPERT_WEIGHT
    if len(network.set_starts) > 2:
        # rows that were chosen by the number of own slots are chosen by the expert
        opinions = weights.sets[network.set_starts[3] : network.set_starts[4]]
        opinions = opinions.reshape(OPINIONS, ORDERS, -1)
        opinions[:] = opinions[: len(LOCAL_CONTEXTS) + 1].mean(axis=0)
    fitted = network._replace(weights=weights, expert=1)
    # the texts may be read only once
    pairs = [(ids, read_opinions(network.tree, ids, expert)) for ids, expert in texts]
    updates = np.full(weights.states.shape, 255, np.float32)
    total = EXPERT_PASSES * sum(len(ids) for ids, _ in pairs)
    rates = _falling_rates(EXPERT_RATE, MAP_RATE / 2, 0, total, total)
    done = 0
    for ids, opinions in EXPERT_PASSES * pairs:
        state = new_state(fitted, 1)
        learn(fitted, ids.astype(np.int32), *state, updates, rates[done:], opinions)
        done += len(ids)
    return fitted._replace(weights=weights._replace(own_rows=network.weights.own_rows))
