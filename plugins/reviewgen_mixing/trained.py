"""A trained model as named arrays, and as the network that compiled functions read.

Needs no torch. Shapes: V symbols, N decision nodes, C contexts, I inputs, S sets, R rows of
weights, A rows of a map, U bytes, T symbols.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64

from reviewgen.errors import BundleError
from reviewgen.protocols import TensorSpec
from reviewgen_mixing.coding import (
    LOCAL,
    MATCHES,
    MIN_STATE,
    Network,
    changed_rows,
    input_count,
    set_sizes,
)
from reviewgen_mixing.config import MixingConfig
from reviewgen_mixing.history import (
    GIVEN_CONTEXTS,
    ORDER_CONTEXTS,
    SPARSE_CONTEXTS,
    WORD_CONTEXTS,
    read_alphabet,
)
from reviewgen_mixing.matching import CLASSES, index_text
from reviewgen_mixing.mixer import MAP_ROWS, SETS, STEPS, Weights
from reviewgen_mixing.slots import LINE, STATES, Slots, read_slots, write_slots
from reviewgen_mixing.tree import build_tree

EXPERT_WEIGHT = 0.3  # first weight of the expert in each row
TEXT_RATE = 0.004  # additional learning rate at which a text changes the weights at first
WEIGHTS = ("sets", "final", "maps", "states")
MAX_WEIGHT = 1e6
MAX_DEPTH = 128  # decisions of a symbol; a tree of 65,536 symbols by their frequencies has fewer
_PRIOR_COUNTS = np.array([0, 1, 2, 3, 4, 5.5, 8, 11.5, 16, 22, 28.5])  # of the levels of a slot
_MAP_LOGITS = np.arange(STEPS) / 2 - 8
_MAX_INDEX = 1 << 22  # entries of the index of a training text


def expect_arrays(config: MixingConfig) -> dict[str, TensorSpec]:
    """Return dtype and shape of each array of a trained model; None is a size that depends on the
    training text.
    """
    specs: dict[str, TensorSpec] = {
        "tree": ("int64", (None, 2)),
        "frequencies": ("float32", (config.vocab_size,)),
        "used": ("uint8", (None,)),
        "slots": ("uint8", (None, 3)),
        "sets": ("float32", (None, _inputs(config))),
        "final": ("float32", (None, SETS if config.gated else 1)),
        "maps": ("float32", (2, MAP_ROWS if config.maps else 0, STEPS)),
        "states": ("float32", (_rows_of_states(config), STATES)),
    }
    if config.keep_text:
        specs["text"] = ("int32", (None,))
    return specs


def new_network(
    config: MixingConfig,
    structure: Int64[np.ndarray, "N 2"],
    frequencies: Float32[np.ndarray, " V"],
    slots: Slots,
    text: Int32[np.ndarray, " T"],
) -> Network:
    """Return a network with initial weights.

    A weight divides what all contexts say evenly. The states start from the counts that they stand
    for, the maps with the identity.
    """
    inputs = _inputs(config)
    contexts = len(_contexts(config)) + _own_contexts(config)
    looked_up = contexts + MATCHES
    sizes = set_sizes(len(structure), config.vocab_size)
    sets = np.zeros((sum(sizes) if config.gated else sizes[0], inputs), np.float32)
    sets[:, :contexts] = 1.5 / contexts
    sets[:, 2 * looked_up : 2 * looked_up + contexts] = 0.75 / contexts
    count = SETS if config.gated else 1
    final = np.full((len(structure), count), 1 / count, np.float32)
    identity = (1 / (1 + np.exp(-_MAP_LOGITS))).astype(np.float32)
    maps = np.tile(identity, (2, MAP_ROWS if config.maps else 0, 1))
    zeros = _PRIOR_COUNTS[:, None, None]
    ones = _PRIOR_COUNTS[None, :, None]
    prior = np.broadcast_to((ones + 0.4) / (zeros + ones + 0.8), (11, 11, 2)).reshape(STATES)
    states = np.tile(prior.astype(np.float32), (_rows_of_states(config), 1))
    for length in range(CLASSES):
        states[-MATCHES:, 2 * length] = 1 / (2 + 2 * length)
        states[-MATCHES:, 2 * length + 1] = 1 - 1 / (2 + 2 * length)
    return _connect(config, structure, frequencies, slots, (sets, final, maps, states), text)


def read_arrays(arrays: Mapping[str, np.ndarray], config: MixingConfig) -> Network:
    """Return the network of saved arrays.

    Raises:
        BundleError: An array is missing, unexpected, of another shape, or damaged.
    """
    specs = expect_arrays(config)
    for name in sorted(specs.keys() ^ arrays.keys()):
        state = "missing" if name in specs else "unexpected"
        raise BundleError(f"The tensor {name!r} of the mixing model is {state}.")
    for name, (dtype, shape) in specs.items():
        array = arrays[name]
        fits = array.ndim == len(shape) and array.dtype == dtype
        if not fits or not all(
            size in (None, axis) for size, axis in zip(shape, array.shape, strict=True)
        ):
            raise BundleError(
                f"The tensor {name!r} of the mixing model has the shape {array.shape} and the dtype"
                f" {array.dtype}; expected {shape} and {dtype}."
            )
    structure = np.ascontiguousarray(arrays["tree"])
    _check_tree(structure, config.vocab_size)
    nodes = len(structure)
    sizes = set_sizes(nodes, config.vocab_size)
    rows = sum(sizes) if config.gated else sizes[0]
    used_slots = int(np.unpackbits(arrays["used"]).sum())
    # larger weights give infinite logits
    weights = tuple(np.array(arrays[name], order="C") for name in WEIGHTS)
    are_weights = all((np.abs(array) < MAX_WEIGHT).all() for array in weights)
    text = arrays.get("text", np.empty(0, np.int32))
    are_symbols = not len(text) or (text.min() >= 0 and text.max() < config.vocab_size)
    is_whole = (
        arrays["sets"].shape[0] == rows
        and arrays["final"].shape[0] == nodes
        and used_slots == len(arrays["slots"])
        and len(arrays["used"]) % (LINE // 8) == 0
        and len(arrays["used"]) > 0
        and are_symbols
        and are_weights
        and (arrays["states"] >= MIN_STATE).all()
        and (arrays["states"] <= 1 - MIN_STATE).all()
        and (arrays["frequencies"] > 0).all()
        and np.isfinite(arrays["frequencies"]).all()
    )
    values = read_slots(arrays["used"], arrays["slots"]) if is_whole else np.empty(0, np.uint32)
    if not is_whole or ((values >> 5) & 255).max(initial=0) >= STATES:
        raise BundleError("The tensors of the mixing model do not belong together, or are damaged.")
    slots = Slots(np.empty(0, np.uint16), values)
    frequencies = np.ascontiguousarray(arrays["frequencies"])
    return _connect(config, structure, frequencies, slots, weights, np.ascontiguousarray(text))


def write_arrays(network: Network, config: MixingConfig) -> dict[str, np.ndarray]:
    """Return a trained network as arrays, which ``expect_arrays`` describes."""
    weights = network.weights
    arrays = {
        "tree": network.tree.children,
        "frequencies": network.frequencies,
        **write_slots(network.slots.values),
        "sets": weights.sets,
        "final": weights.final,
        "maps": weights.maps,
        "states": weights.states,
    }
    return arrays | ({"text": network.text} if config.keep_text else {})


def _connect(
    config: MixingConfig,
    structure: Int64[np.ndarray, "N 2"],
    frequencies: Float32[np.ndarray, " V"],
    slots: Slots,
    weights: Any,
    text: Int32[np.ndarray, " T"],
) -> Network:
    """Return the network of its parts."""
    starts = np.zeros(min(_MAX_INDEX, 2 * len(text) + 1) if len(text) else 0, np.int64)
    if len(text):
        index_text(text, 0, starts)
    first_given = config.vocab_size - config.condition_ids - config.field_ids
    gated_rows = changed_rows(len(structure)) if config.gated else len(weights[0])
    return Network(
        tree=build_tree(structure, config.vocab_size),
        alphabet=read_alphabet(config.alphabet, config.vocab_size),
        slots=slots,
        weights=Weights(*weights, own_rows=gated_rows if config.adapt_weights else 0),
        chosen=np.array(_contexts(config)),
        frequencies=frequencies,
        text=text,
        starts=starts,
        bos_id=config.bos_id,
        first_given=first_given,
        local_slots=config.local_slots,
        expert=int(config.expert),
        min_count=config.min_count,
        rate=TEXT_RATE,
    )


def _contexts(config: MixingConfig) -> list[int]:
    """Return the numbers of the contexts in use, as in ``history.NAMES``."""
    contexts = list(range(ORDER_CONTEXTS))
    contexts += WORD_CONTEXTS if config.words else ()
    contexts += SPARSE_CONTEXTS if config.sparse else ()
    contexts += GIVEN_CONTEXTS if config.condition_ids else ()
    return contexts


def _own_contexts(config: MixingConfig) -> int:
    return len(LOCAL) if config.local_slots else 0


def _inputs(config: MixingConfig) -> int:
    return input_count(len(_contexts(config)), config.local_slots)


def expert_input(config: MixingConfig) -> int:
    """Return the input of the mixer that is the expert's logit."""
    contexts = len(_contexts(config)) + _own_contexts(config)
    return 2 * (contexts + MATCHES) + contexts + 1


def _rows_of_states(config: MixingConfig) -> int:
    return len(_contexts(config)) + _own_contexts(config) + MATCHES


def _check_tree(structure: Int64[np.ndarray, "N 2"], vocab_size: int) -> None:
    """Check that children follow their parents, that no node or symbol has two parents, and that
    paths are short.

    Raises:
        BundleError: The array is not a tree of symbols.
    """
    children = structure.reshape(-1)
    parents = np.repeat(np.arange(len(structure)), 2)
    nodes = children[children >= 0]
    leaves = -1 - children[children < 0]
    is_tree = (
        np.array_equal(np.sort(nodes), np.arange(1, len(structure)))
        and (nodes > parents[children >= 0]).all()
        and len(np.unique(leaves)) == len(leaves)
        and leaves.max(initial=0) < vocab_size
    )
    if not is_tree or not len(structure) or _depth(structure) > MAX_DEPTH:
        raise BundleError("The tensor 'tree' of the mixing model is not a tree of its symbols.")


def _depth(structure: Int64[np.ndarray, "N 2"]) -> int:
    """Return the maximum number of decisions of a symbol."""
    level = np.zeros(1, np.int64)
    depth = 0
    while len(level):
        children = structure[level]
        level = children[children >= 0]
        depth += 1
    return depth
