"""A trained model as named arrays, and as the network that compiled functions read.

Needs no torch. Shapes: V symbols, N decision nodes, C contexts, I inputs, S sets, R rows of
weights, A rows of a map, U bytes, T symbols.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, Int32, Int64

from reviewgen.errors import BundleError
from reviewgen.protocols import TensorSpec
from reviewgen_mixing.coding import MIN_STATE, Network, set_sizes
from reviewgen_mixing.config import MixingConfig
from reviewgen_mixing.history import (
    CLASSES,
    GIVEN_CONTEXTS,
    LOCAL_CONTEXTS,
    MATCHES,
    ORDER_CONTEXTS,
    SPARSE_CONTEXTS,
    WORD_CONTEXTS,
    index_text,
    read_alphabet,
)
from reviewgen_mixing.mixer import MAP_ROWS, SETS, STEPS, Weights
from reviewgen_mixing.slots import LINE, STATES, Slots, read_slots, states_of, write_slots
from reviewgen_mixing.tree import build_tree

MAX_NODES = 256  # with more decision nodes, a text does not change the weights of single nodes
# In a subtree that is less probable than a limit, the frequencies of the symbols replace
# predictions. The limit is RARE_PER_NODE times the number of decision nodes, but at least MIN_RARE
# and at most MAX_RARE. With thousands of symbols, this costs some 0.3 % more bits than the lowest
# limit, and a text is written eight times as fast.
MIN_RARE = 1e-4
RARE_PER_NODE = 6e-7
MAX_RARE = 3e-3
MAX_WEIGHT = 1e6  # larger weights give infinite logits
_WEIGHTS = ("sets", "final", "maps", "states")
# the count that each level of a slot stands for
_PRIOR_COUNTS = np.array([0, 1, 2, 3, 4, 5.5, 8, 11.5, 16, 22, 28.5])
_MAP_LOGITS = np.arange(STEPS) / 2 - 8  # the logit of each step of a map
_MAX_INDEX = 1 << 22  # max entries of the index of a training text


def expect_arrays(config: MixingConfig) -> dict[str, TensorSpec]:
    """Return dtype and shape of each array of a trained model; None is a size that depends on the
    training text.
    """
    contexts = sum(map(len, _contexts(config)))
    # three for each context, two for each match, the bias and the expert; padded to a multiple of
    # 16 below, for vector instructions
    inputs = 3 * contexts + 2 * MATCHES + 2
    specs: dict[str, TensorSpec] = {
        "tree": ("int64", (None, 2)),
        "frequencies": ("float32", (config.vocab_size,)),
        "used": ("uint8", (None,)),
        "slots": ("uint8", (None, 3)),
        "sets": ("float32", (None, -(-inputs // 16) * 16)),
        "final": ("float32", (None, SETS if config.gated else 1)),
        "maps": ("float32", (2, MAP_ROWS if config.maps else 0, STEPS)),
        "states": ("float32", (contexts + MATCHES, STATES)),
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

    At first, all contexts have the same weight. The probability of a state is that of the counts
    which it stands for, and the maps return the probability that they get.
    """
    shapes = {name: shape for name, (_, shape) in expect_arrays(config).items()}
    sources = shapes["states"][0] or 0  # number of contexts and matches
    contexts = sources - MATCHES
    rows = _set_starts(len(structure), config)[-1]
    # at first, only the logits of the contexts' states and of their adaptive probabilities have
    # weights
    sets = np.zeros((rows, shapes["sets"][1] or 0), np.float32)
    sets[:, :contexts] = 1.5 / contexts
    sets[:, 2 * sources : 2 * sources + contexts] = 0.75 / contexts
    count = SETS if config.gated else 1
    final = np.full((len(structure), count), 1 / count, np.float32)
    identity = (1 / (1 + np.exp(-_MAP_LOGITS))).astype(np.float32)
    maps = np.tile(identity, (2, MAP_ROWS if config.maps else 0, 1))
    # (11, 11): the probability of the decision 1 for each pair of levels of the two counts
    counts_of_0 = _PRIOR_COUNTS[:, None]
    prior = (_PRIOR_COUNTS + 0.4) / (counts_of_0 + _PRIOR_COUNTS + 0.8)
    # each probability twice, since a state also has one of two last decisions
    states = np.tile(np.repeat(prior, 2).astype(np.float32), (sources, 1))
    # the state of a match is twice the class of its length, plus the decision that it expects
    classes = np.arange(CLASSES)
    states[-MATCHES:, 2 * classes] = 1 / (2 + 2 * classes)
    states[-MATCHES:, 2 * classes + 1] = 1 - 1 / (2 + 2 * classes)
    arrays = {"tree": structure, "frequencies": frequencies, "text": text}
    arrays |= {"sets": sets, "final": final, "maps": maps, "states": states}
    return _connect(config, arrays, slots)


def read_arrays(arrays: Mapping[str, np.ndarray], config: MixingConfig) -> Network:
    """Return the network of saved arrays.

    Raises:
        BundleError: An array is missing, unexpected, of another shape, or damaged.
    """
    _check_specs(arrays, expect_arrays(config))
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    arrays.setdefault("text", np.empty(0, np.int32))
    network = _connect(config, arrays, Slots(np.empty(0, np.uint16), np.empty(0, np.uint32)))
    # the min and max of the numbers of each array
    limits = dict.fromkeys(_WEIGHTS, (-MAX_WEIGHT, MAX_WEIGHT))
    limits["states"] = (MIN_STATE, 1 - MIN_STATE)
    limits["maps"] = (0, 1)
    limits["frequencies"] = (0.01, 1e12)
    used = arrays["used"]
    is_whole = (
        all(
            ((arrays[name] >= low) & (arrays[name] <= high)).all()
            for name, (low, high) in limits.items()
        )
        and len(arrays["sets"]) == network.set_starts[-1]
        and len(arrays["final"]) == len(arrays["tree"])
        and len(used) > 0
        and len(used) % (LINE // 8) == 0
        and np.unpackbits(used).sum() == len(arrays["slots"])
        and states_of(arrays["slots"]).max(initial=0) < STATES
    )
    if not is_whole:
        raise BundleError("The tensors of the mixing model do not belong together, or are damaged.")
    values = read_slots(used, arrays["slots"])
    return network._replace(slots=network.slots._replace(values=values))


def _check_specs(arrays: Mapping[str, np.ndarray], specs: Mapping[str, TensorSpec]) -> None:
    """Raise unless the arrays have the expected names, dtypes and shapes."""
    found = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    for name in sorted(specs.keys() | found.keys()):
        dtype, shape = found.get(name, ("", ()))
        expected_dtype, expected = specs.get(name, ("", ()))
        sizes = zip(shape, expected, strict=False)
        # an expected size that is None allows any size
        has_sizes = len(shape) == len(expected) and all(
            wanted in (size, None) for size, wanted in sizes
        )
        if not has_sizes or dtype != expected_dtype:
            raise BundleError(
                f"The tensor {name!r} of the mixing model is {found.get(name, 'missing')}; expected"
                f" {specs.get(name, 'no such tensor')}."
            )


def write_arrays(network: Network, config: MixingConfig) -> dict[str, np.ndarray]:
    """Return a trained network as arrays, which ``expect_arrays`` describes."""
    arrays = network._asdict() | network.weights._asdict() | write_slots(network.slots.values)
    arrays["tree"] = network.tree.children
    return {name: arrays[name] for name in expect_arrays(config)}


def _connect(config: MixingConfig, arrays: Mapping[str, np.ndarray], slots: Slots) -> Network:
    """Return the network that consists of these arrays, saved or new, and of these slots.

    Raises:
        BundleError: The tree or the text is damaged.
    """
    text = arrays["text"]
    if len(text) and not 0 <= text.min() <= text.max() < config.vocab_size:
        raise BundleError("The text of the mixing model has ids outside the vocabulary.")
    starts = np.zeros(min(_MAX_INDEX, 2 * len(text) + 1), np.int64)
    index_text(text, 0, starts)
    nodes = len(arrays["tree"])
    set_starts = _set_starts(nodes, config)
    changed = 5 if nodes <= MAX_NODES else 4  # number of the first sets, which a text may change
    contexts, own = _contexts(config)
    tree = build_tree(arrays["tree"], config.vocab_size)
    # for each place in the leaves, the sum of the frequencies before it
    sums_before = np.cumsum([0, *arrays["frequencies"][tree.leaves]], dtype=np.float64)
    return Network(
        tree=tree,
        alphabet=read_alphabet(config.alphabet, config.vocab_size),
        slots=slots,
        weights=Weights(
            *[arrays[name] for name in _WEIGHTS],
            own_rows=int(set_starts[: changed + 1][-1]) if config.adapt_weights else 0,
        ),
        contexts=np.array([*contexts, *own]),
        first_own=len(contexts),
        set_starts=set_starts,
        frequencies=arrays["frequencies"],
        log_frequencies=np.log(arrays["frequencies"]),
        below=sums_before[tree.spans[:, 2]] - sums_before[tree.spans[:, 0]],
        text=text,
        starts=starts,
        bos_id=config.bos_id,
        first_condition_id=config.vocab_size - config.condition_ids - config.field_ids,
        local_slots=config.local_slots,
        expert=int(config.expert),
        rare=min(max(MIN_RARE, RARE_PER_NODE * nodes), MAX_RARE),
        min_count=config.min_count,
    )


def _set_starts(nodes: int, config: MixingConfig) -> Int64[np.ndarray, " S+1"]:
    """Return the first row of each set of weights, and then the number of rows."""
    sizes = set_sizes(nodes, config.vocab_size)
    # without gates, only the first set
    return np.cumsum([0, *(sizes if config.gated else sizes[:1])])


def _contexts(config: MixingConfig) -> tuple[list[int], list[int]]:
    """Return the contexts in use, and those for which a text has counts of its own, as indices of
    ``history.NAMES``.
    """
    contexts = list(ORDER_CONTEXTS)
    contexts += WORD_CONTEXTS if config.words else ()
    contexts += SPARSE_CONTEXTS if config.sparse else ()
    contexts += GIVEN_CONTEXTS if config.condition_ids else ()
    return contexts, list(LOCAL_CONTEXTS) if config.local_slots else []
