"""Trains a model: each block of text is predicted before it is counted.

So the weights are learned as they will be used, from contexts whose counts come from other texts,
while each text adds counts of its own. Had the block been counted first, or symbol by symbol, the
mixer would trust counts that are fresher than those of any text outside the training.

Needs no torch. Shapes: T symbols, N decision nodes, D decisions.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from reviewgen_mixing.coding import (
    LOCAL,
    OPINIONS,
    ORDERS,
    Network,
    float_rows,
    set_sizes,
)
from reviewgen_mixing.config import MixingConfig
from reviewgen_mixing.matching import index_text, state_size
from reviewgen_mixing.passes import count, learn, write_opinions
from reviewgen_mixing.slots import LINE, Slots, lines_for, pack
from reviewgen_mixing.trained import EXPERT_WEIGHT, expert_input, new_network
from reviewgen_mixing.tree import make_structure

BLOCK = 50_000  # symbols that are predicted before they are counted, at most
MIN_BLOCK = 1_000
BLOCKS = 20  # a small corpus has at least this many blocks
RATE = 0.006  # the learning rate falls from this to a tenth, along a line
WARM_UP = 0.02  # the first learning rate, which is halved after these symbols
WARM_UP_SYMBOLS = 3_000
MAP_RATE = 0.02
EXPERT_PASSES = 3  # over the held-out texts, to fit an expert
EXPERT_RATE = 0.002


def train_network(texts: Sequence[Int32[np.ndarray, " T"]], config: MixingConfig) -> Network:
    """Return a network that is trained on some texts, each from bos to eos, with packed slots."""
    ids = np.concatenate(texts)
    first_given = config.vocab_size - config.condition_ids - config.field_ids
    symbols = [symbol for symbol in range(first_given) if symbol != config.bos_id]
    plain = ids[ids < first_given]
    structure = make_structure(config.alphabet, symbols, plain, config.vocab_size)
    frequencies = np.bincount(plain, minlength=config.vocab_size).astype(np.float32) + 0.1
    size = lines_for(len(ids)) * LINE
    slots = Slots(np.zeros(size, np.uint16), np.zeros(size, np.uint32))
    text = ids if config.keep_text else ids[:0]
    network = new_network(config, structure, frequencies.astype(np.float32), slots, text)
    network.starts[:] = 0
    _read(network, texts, _rates(len(ids)))
    pack(slots.checks, slots.values, config.min_count)
    return network._replace(slots=Slots(np.empty(0, np.uint16), slots.values))


def _rates(symbols: int) -> Float64[np.ndarray, "T 2"]:
    """Return the learning rates of weights and maps at each symbol of the training."""
    time = np.arange(symbols)
    falling = RATE * (1 - 0.9 * time / max(1, symbols))
    rates = np.full((symbols, 2), MAP_RATE)
    rates[:, 0] = np.maximum(falling, WARM_UP / (1 + time / WARM_UP_SYMBOLS))
    return rates


def _read(
    network: Network, texts: Sequence[Int32[np.ndarray, " T"]], rates: Float64[np.ndarray, "T 2"]
) -> None:
    """Predict and count each block of the texts."""
    counts = np.zeros(network.weights.states.shape, np.float32)
    learning = network._replace(weights=network.weights._replace(own_rows=0))
    done = 0
    for block in _blocks(texts):
        for piece in block:
            floats, ints = _new_state(learning)
            none = np.empty((0, 1), np.float32)
            learn(learning, piece, floats, ints, counts, rates[done:], none)
            done += len(piece)
        for piece in block:
            _, ints = _new_state(learning)
            count(network, piece, ints)
        if len(network.text):
            length = sum(map(len, block))
            index_text(network.text[:done], done - length, network.starts)


def _blocks(
    texts: Sequence[Int32[np.ndarray, " T"]],
) -> Iterator[list[Int32[np.ndarray, " T"]]]:
    """Yield blocks of texts; a long text is cut to pieces."""
    total = sum(map(len, texts))
    limit = min(BLOCK, max(MIN_BLOCK, total // BLOCKS))
    block = []
    size = 0
    for text in texts:
        start = 0
        while start < len(text):
            piece = text[start : start + limit - size]
            block.append(piece)
            start += len(piece)
            size += len(piece)
            if size == limit:
                yield block
                block = []
                size = 0
    if block:
        yield block


def _new_state(network: Network) -> tuple[Float32[np.ndarray, "F 1 I"], Int64[np.ndarray, "K 1"]]:
    """Return the state of one text before its first symbol."""
    width = network.weights.sets.shape[1]
    floats = np.zeros((float_rows(network), 1, width), np.float32)
    return floats, np.zeros((state_size(network.local_slots), 1), np.int64)


def fit_expert(
    network: Network,
    config: MixingConfig,
    texts: Iterable[tuple[Int64[np.ndarray, " T"], Float32[np.ndarray, "T V"]]],
) -> Network:
    """Return a network that mixes an expert in. It shares the slots; its weights are fitted on
    held-out texts, each with the expert's log probabilities after each id.
    """
    weights = network.weights
    sets = weights.sets.copy()
    sets[:, expert_input(config)] = EXPERT_WEIGHT
    if config.gated:  # rows that were chosen by the number of own slots are chosen by the expert
        start = sum(set_sizes(0, 0)[:3])
        opinions = sets[start : start + OPINIONS * ORDERS].reshape(OPINIONS, ORDERS, -1)
        opinions[:] = opinions[: len(LOCAL) + 1].mean(axis=0)
    copied = weights._replace(
        sets=sets,
        final=weights.final.copy(),
        maps=weights.maps.copy(),
        states=weights.states.copy(),
        own_rows=0,
    )
    fitted = network._replace(weights=copied, expert=1)
    # the texts may be read only once
    pairs = [(ids.astype(np.int32), _opinions(network, ids, expert)) for ids, expert in texts]
    counts = np.full(weights.states.shape, 255, np.float32)
    total = EXPERT_PASSES * sum(len(ids) for ids, _ in pairs)
    rates = np.full((total, 2), MAP_RATE / 2)
    rates[:, 0] = EXPERT_RATE * (1 - 0.9 * np.arange(total) / max(1, total))
    done = 0
    for _ in range(EXPERT_PASSES):
        for ids, opinions in pairs:
            floats, ints = _new_state(fitted)
            learn(fitted, ids, floats, ints, counts, rates[done:], opinions)
            done += len(ids)
    return fitted._replace(weights=copied._replace(own_rows=weights.own_rows))


def _opinions(
    network: Network, ids: Int64[np.ndarray, " T"], expert: Float32[np.ndarray, "T V"]
) -> Float32[np.ndarray, "T D"]:
    """Return the expert's logit of each decision on the way to each symbol, from its log
    probabilities after each symbol.
    """
    tree = network.tree
    opinions = np.zeros((len(ids), tree.paths.shape[1]), np.float32)
    write_opinions(tree, ids, expert, opinions)
    return opinions
