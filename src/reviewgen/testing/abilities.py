"""The laws of the optional abilities of a model. Each ability is a small protocol of its own; a
model without the ability passes its laws.

B batch, T time (tokens), V vocabulary.
"""

import copy
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from graphlib import TopologicalSorter
from itertools import chain
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reviewgen.blending.model import Blend
from reviewgen.config.settings import fields_of, from_dict, to_dict, vocabulary_settings
from reviewgen.errors import ConfigError
from reviewgen.protocols.abilities import (
    Operation,
    SupportsInitialWeights,
    SupportsLoss,
    SupportsOperations,
    SupportsOutputLayer,
    SupportsParameterGroups,
    SupportsScaledLogits,
)
from reviewgen.protocols.checks import (
    ROWS,
    STEPS,
    TOLERANCE,
    assert_close,
    asserting,
    call,
    logits_of,
    output_layer,
    seeded,
    some_ids,
)
from reviewgen.protocols.graph import (
    ModelGraph,
    SupportsGraph,
    all_nodes,
    axis_size,
    parameter_sizes,
)
from reviewgen.protocols.migration import SupportsMigration, read_saved_config
from reviewgen.protocols.model import (
    CountTrained,
    SupportsCountMerge,
    SupportsDevices,
    SupportsImplementations,
    SupportsStep,
)
from reviewgen.protocols.ranges import SupportsCountRanges
from reviewgen.testing.experts import MODEL_LAWS as MODEL_LAWS  # the laws below are added to it
from reviewgen.testing.laws import assert_same, assert_unchanged
from reviewgen.testing.models import (
    compute_in_chunks,
    copies,
    gives_scores,
    is_trained_by_gradient,
    law,
    texts_to_count,
    train_by_counting,
)
from reviewgen.testing.steppers import no_step_trace, samples, step_logits

SUM_TOLERANCE = 1e-6  # how far from one a sum of probabilities may be
PROCESSES = 3  # number of processes in the laws of counting; the last one gets no texts
# for the law ``given``
LATER = 64  # another condition must still change the logits this many tokens after its id
HELD = 0.01  # a logit must change by more than this
MIN_VOCABULARY = 5  # the law needs bos, two tokens and two ids of conditions
IGNORED = -100  # a target that is not to be predicted


@law()
def sums_to_one(model: Any) -> None:
    """Over the whole vocabulary, the probabilities of ``score`` sum to one, and so do the
    exponentials of the logits of a count model or a blend.

    Bits per character are computed from them, and a larger sum lowers the bits of a model that
    predicts no better: a public compression contest was led for weeks by mixtures whose
    probabilities summed to 277. A model that raises NotADistribution is exempt; it has no bits.
    """
    ids = some_ids(model, 25, 20)
    state = model.initial_state(25)
    # each text is read twice, which makes 1,000 positions; the second time, it repeats itself
    for _ in range(2):
        logits, after = call(model, ids, state)
        log_probs = {"logits": logits} if isinstance(model, CountTrained | Blend) else {}
        if gives_scores(model):
            targets = [torch.full_like(ids, token) for token in range(model.config.vocab_size)]
            with torch.no_grad():
                scores = [model.score(ids, target, state)[0] for target in targets]
            log_probs["scores"] = torch.stack(scores, dim=-1)  # (B, T, V)
        for what, values in log_probs.items():
            totals = values.double().exp().sum(-1)
            worst = totals.flatten()[(totals - 1).abs().argmax()].item()
            assert abs(worst - 1) <= SUM_TOLERANCE, (
                f"After one of 1,000 tokens, the {what} are probabilities that sum to {worst:.7g}."
            )
        state = after


@law(gives_scores)
def score(model: Any) -> None:
    """SupportsScore: ``score`` returns the log-softmax of the model's logits at the targets, and
    the same state as a call.
    """
    ids = some_ids(model, ROWS, STEPS)
    targets = some_ids(model, ROWS, STEPS, seed=1)
    for passed in model.initial_state(ROWS), call(model, ids)[1]:
        logits, after = call(model, ids, passed)
        expected = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]  # (B, T)
        with torch.no_grad():
            scores = model.score(ids, targets, passed)
        assert_same(scores, (expected, after), TOLERANCE)


@law(SupportsStep)
def step(model: Any) -> None:
    """SupportsStep: a stepper gives the logits of the model's call; its greedy samples have the
    largest logits, and it keeps nothing of a text.
    """
    for check in step_logits, samples, no_step_trace:
        check(lambda: model)


@law(SupportsImplementations)
def implementations(model: Any) -> None:
    """SupportsImplementations: each gives the logits, state and gradients of the default, and keeps
    the model's tensors.
    """
    names = model.implementations()
    assert names and len(set(names)) == len(names), (
        f"implementations() must return different names; got {names}."
    )
    with asserting("use_implementation must raise for an unknown name:"):
        np.testing.assert_raises(Exception, model.use_implementation, "none")
    expected = compute_in_chunks(model)
    no_gradient = torch.zeros(1)  # stands for a gradient that is None
    for name in names:
        with assert_unchanged(tuple(model.state_dict().values())):
            model.use_implementation(name)
            for what, actual in compute_in_chunks(model).items():
                assert_close(
                    no_gradient if actual is None else actual,
                    no_gradient if expected[what] is None else expected[what],
                    f"Implementation {name!r} differs from the default in its {what}.",
                )


@law(CountTrained)
def reports(model: Any) -> None:
    """CountTrained: a new model can be trained by ``observe`` and ``finish``, which returns JSON
    values by name.
    """
    new = type(model)(model.config)
    json.dumps(dict(train_by_counting(new, model.config.vocab_size, seed=1, texts=3)))
    sums_to_one(lambda: new)


@law(SupportsCountMerge)
def count_merge(model: Any) -> None:
    """SupportsCountMerge: the merged counts of several models, in any order, make the model that
    counts all texts.
    """
    for order in (0, 1, 2), (2, 0, 1):
        models = _count_separately(model)
        merged, *others = [models[rank] for rank in order]
        for other in others:
            merged.add_counts(other.take_counts())
        merged.finish()
        _assert_counts_all(merged)


@law(SupportsCountRanges)
def count_ranges(model: Any) -> None:
    """SupportsCountRanges: several processes, one of which has counted nothing, finish the model
    that counts all texts.
    """
    models = _count_separately(model)
    # threads stand for the processes
    run_ranks(PROCESSES, lambda group: models[group.rank].finish_ranges(group))
    _assert_counts_all(models[0])


@law(SupportsDevices)
def devices(model: Any) -> None:
    """SupportsDevices: ``unsuited_devices`` is a frozenset of torch device types without "cpu", on
    which every model must run.
    """
    named = model.unsuited_devices
    assert isinstance(named, frozenset) and "cpu" not in named, f"It is {named!r}."
    assert {torch.device(name).type for name in named} == named, f"It has {named}."


@law(SupportsLoss)
def losses(model: Any) -> None:
    """SupportsLoss: each call returns the same names; a term is finite, without dimensions, a mean,
    and can be minimised.
    """
    terms = _compute_losses(model.train(), seed=0)
    again = _compute_losses(model, seed=1)
    assert terms and again.keys() == terms.keys(), f"The names are {[*terms]}, and then {[*again]}."
    for name, term in terms.items():
        is_scalar = isinstance(term, Tensor) and term.shape == ()
        assert is_scalar and term.isfinite(), f"{name!r} is {term!r:.80}."
    total = sum(terms.values(), torch.zeros(()))
    grads = torch.autograd.grad(total, [*model.parameters()], allow_unused=True)
    reached = [grad.to_dense() for grad in grads if grad is not None]
    assert reached and all(grad.isfinite().all() for grad in reached), (
        "The gradients must be finite, and reach a parameter."
    )
    has_no_dropout = all(torch.equal(term, again[name]) for name, term in terms.items())
    if has_no_dropout:  # then repeated rows have the same logits
        sentence = "changes if each row is there twice: return a mean per target, not a sum."
        for name, term in _compute_losses(model, seed=0, times=2).items():
            assert_close(term, terms[name], f"{name!r} {sentence}")


@law(SupportsParameterGroups)
def parameter_groups(model: Any) -> None:
    """SupportsParameterGroups: the groups have parameters of the model, none twice, and known
    settings; they are the same at each call.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def list_names() -> list[list[str | None]]:
        """Return the names of the parameters of each group; None for a parameter that the model
        does not have.
        """
        groups = model.parameter_groups()
        return [[names.get(id(parameter)) for parameter in group["params"]] for group in groups]

    first = list_names()
    again = list_names()
    assert first == again, f"It returns {again} after {first}, so a run cannot be resumed."
    listed = list(chain.from_iterable(first))
    assert None not in listed and len(set(listed)) == len(listed), (
        f"It lists {listed}; None is not a parameter of the model."
    )
    for group in model.parameter_groups():
        _check_parameter_group(group)


def _check_parameter_group(group: dict[str, Any]) -> None:
    """Check the settings of a parameter group."""
    numbers = ("learning_rate_scale", "weight_decay")
    known = ("params", "optimizer", *numbers)
    assert group.keys() <= {*known}, (
        f"A group has the keys {', '.join(group)}; known are {', '.join(known)}."
    )
    optimizer = group.get("optimizer", "adamw")
    are_matrices = all(parameter.ndim == 2 for parameter in group["params"])
    is_right = optimizer == "adamw" or (optimizer == "muon" and are_matrices)
    assert is_right, f'The optimizer {optimizer!r} must be "adamw" or, for matrices, "muon".'
    for name in numbers:
        number = group.get(name, 0)
        assert 0 <= number < torch.inf, f"{name} is {number}; it must be at least 0."


@law(SupportsScaledLogits)
def scaled_logits(model: Any) -> None:
    """SupportsScaledLogits: the logits are multiplied by the scale, or the model is unchanged."""
    ids = some_ids(model, ROWS, STEPS)
    with torch.no_grad():
        before, _ = model.eval()(ids, model.initial_state(ROWS))
        scale = 0.5 if model.scale_logits(0.5) else 1.0
        after, _ = model(ids, model.initial_state(ROWS))
    assert_close(after, scale * before, f"The logits are not {scale:g} times what they were.")


law(SupportsOutputLayer)(output_layer)


@law(SupportsInitialWeights)
def initial_weights(model: Any) -> None:
    """SupportsInitialWeights: own tensors are returned as they are, the model does not change, an
    unknown tensor is an error.
    """
    own = {name: tensor + 1 for name, tensor in copies(model).items()}
    with assert_unchanged(tuple(model.state_dict().values())):
        returned = model.initial_weights(dict(own))
    assert returned.keys() == own.keys(), (
        f"For all tensors of state_dict(), it returns {sorted(returned)}."
    )
    assert_same(tuple(returned[name] for name in own), tuple(own.values()))
    sentence = "accepts a tensor that it does not know, or does not name it in a ConfigError:"
    with asserting(f"initial_weights() {sentence}"):
        unknown = {"an unknown.tensor": torch.zeros(1)}
        np.testing.assert_raises_regex(
            ConfigError, r"an unknown\.tensor", model.initial_weights, unknown
        )


@law()
def migration(model: Any) -> None:
    """SupportsMigration: ``migrate`` is a class method of the config, and returns the values of a
    current config unchanged.
    """
    config: Any = type(model).Config
    if not isinstance(config, SupportsMigration):
        assert not hasattr(type(model), "migrate"), (
            "Move migrate from the model to its Config, which is also read without torch."
        )
        return
    values = json.loads(json.dumps(to_dict(model.config)))
    for version in "0", "999.0", "":
        migrated = read_saved_config(type(model).Config, values, version)
        assert migrated == model.config, (
            f"It returns {migrated} for version {version!r}, not {model.config}."
        )


@law(SupportsGraph)
def described_graph(model: Any) -> None:
    """SupportsGraph: the graph is sound, the same at each call, and has each of the model's
    parameters in one node.
    """
    graph = model.describe_graph()
    is_graph = isinstance(graph, ModelGraph) and graph == model.describe_graph()
    assert is_graph, f"describe_graph() returned {graph!r:.80}."
    assert {"ids", "logits"} <= {node.id for node in graph.nodes}, (
        "It must have the nodes ids and logits."
    )
    assert graph.sizes.get("V") == model.config.vocab_size, (
        f"V must be {model.config.vocab_size} in {graph.sizes}."
    )
    used = sorted(chain.from_iterable(node.parameters for node in all_nodes(graph)))
    known = sorted(parameter_sizes(model))
    is_right = used == known
    if not isinstance(model, nn.Module):  # such a model need not show all of its tensors
        is_right = len(set(used)) == len(used) and set(used) <= set(known)
    assert is_right, f"It has the parameters {used}; the model has {known}."
    _check_graph(graph, {"B": ROWS, "T": STEPS})
    # the axes of each edge from the ids, and of each edge to the logits
    ids = [edge.axes for edge in graph.edges if edge.source.split("/")[0] == "ids"]
    logits = [edge.axes for edge in graph.edges if edge.target.split("/")[0] == "logits"]
    assert ids[:1] == [("B", "T")] and logits[:1] == [("B", "T", "V")], (
        "ids must be (B, T), logits (B, T, V)."
    )


@law(SupportsOperations)
def operations(model: Any) -> None:
    """SupportsOperations: the last operation yields the logits; axes, names, parameters and gates
    are as the protocol says.
    """
    ids = some_ids(model, ROWS, STEPS)
    for state in model.initial_state(ROWS), call(model, ids)[1]:
        with torch.no_grad():
            steps = list(model.operations(ids, state))
        assert steps and all(isinstance(op, Operation) for op in steps), "It must yield Operation."
        sentence = "The last operation does not yield the logits of the call."
        assert_close(steps[-1].values, call(model, ids, state)[0], sentence)
        assert steps[-1].axes == "B T V", (
            f'The last operation has the axes {steps[-1].axes!r}, not "B T V".'
        )
        names = [op.name for op in steps]
        assert len(set(names)) == len(names), f"Two have one name: {names}."
        sizes = {"B": ROWS, "T": STEPS, "V": model.config.vocab_size}
        for op in steps:
            _check_operation(op, sizes)
    if isinstance(model, nn.Module):
        counted = sum(op.parameters for op in steps)
        expected = sum(parameter.numel() for parameter in model.parameters())
        assert counted == expected, (
            f"The operations have {counted:,} parameters in all; the model has {expected:,}."
        )


def _check_operation(op: Operation, sizes: dict[str, int]) -> None:
    """Check an operation. ``sizes`` has the sizes of the letters in earlier operations; the sizes
    of new letters are added.
    """
    words = op.axes.split()  # an axis is a letter, or several letters for their product
    shape = tuple(op.values.shape)
    for word, size in zip(words, shape, strict=True):
        sizes.setdefault(word, size)
    expected = tuple(prod(sizes.get(letter, 0) for letter in word) for word in words)
    assert shape == expected, (
        f"{op.name!r} is {op.axes} = {shape}; elsewhere its letters are {expected}."
    )
    assert min(op.parameters, op.multiplications) >= 0, f"{op.name!r} has a negative count."
    if op.kind == "gate":
        assert op.values.min() >= 0 and op.values.max() <= 1, (
            f"{op.name!r} is a gate, and has values beyond 0 to 1."
        )
    if op.kind == "window":
        assert not op.values.is_floating_point(), f"{op.name!r} is a window, and must hold ids."
    if op.kind == "attention":
        sums = op.values.sum(-1)
        assert words[:2] == ["B", "T"] and len(words) == 4, (
            f"{op.name!r} is attention, and has the axes {op.axes!r}, not B T heads tokens."
        )
        sentence = f"{op.name!r} is attention, and its rows do not sum to 1."
        assert_close(sums, torch.ones_like(sums), sentence)


def holds_given(model: Any) -> bool:
    """Return whether a model is trained by gradient and keeps conditions in its state. The config
    of such a model has ``condition_ids``.
    """
    return is_trained_by_gradient(model) and "condition_ids" in fields_of(type(model).Config)


@law(holds_given)
def given(model: Any) -> None:
    """A config with ``condition_ids``: another condition id changes logits 64 tokens later, and is
    forgotten in the next text.
    """
    size = model.config.vocab_size
    config = type(model).Config
    if size < MIN_VOCABULARY:
        return
    settings = to_dict(model.config) | vocabulary_settings(
        config, size, bos_id=0, eos_id=1, condition_ids=2
    )
    with seeded(), torch.no_grad():
        model = type(model)(from_dict(config, settings)).eval()
        for tensor in model.parameters():
            if not tensor.any():  # some parameters are zero before training
                nn.init.normal_(tensor, std=0.1)
        text = torch.randint(1, size - 2, (ROWS, LATER))

    def read(token: int) -> Tensor:
        """Return the logits of two texts, one after the other: the first has the condition
        ``token``, the second always has the last condition.
        """
        start = torch.tensor([0, token]).expand(ROWS, 2)  # bos and the condition
        next_start = torch.tensor([0, size - 1]).expand(ROWS, 2)
        return logits_of(model, torch.cat([start, text, next_start, text, text, text], dim=1))

    # the largest change of a logit at each position, (T,)
    changes = (read(size - 1) - read(size - 2)).abs().amax((0, 2))
    held = changes[LATER + 1].item()  # at the last token of the first text
    leak = changes[-1].item()  # at the last token of the second text
    assert held > HELD, (
        f"It changes logits {LATER} tokens later by {held:.3g}; hold it in the state, and add it at"
        " every step."
    )
    assert leak < held / 100, (
        f"It changes those of the next text by {leak:.3g}; begin anew where an id is config.bos_id."
    )


def check_model(make: Callable[[], Any]) -> None:
    """Check all laws in order, and stop at the first that the model breaks.

    Raises:
        AssertionError: A law is broken.
    """
    MODEL_LAWS.check(make)


class ThreadGroup:
    """A ``CountGroup`` whose members are threads. They exchange copies through a list.

    Args:
        rank: Number of this thread.
        slots: A slot for each thread, shared by all.
        barrier: For all threads, with a timeout.
    """

    def __init__(self, rank: int, slots: list[Any], barrier: threading.Barrier) -> None:
        self.rank = rank
        self.world_size = len(slots)
        self._slots = slots
        self._barrier = barrier

    def all_gather(self, numbers: np.ndarray) -> np.ndarray:
        """Return the numbers of each thread."""
        return np.stack(self._exchange(numbers))

    def all_to_all(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return what each thread has sent to this one."""
        return [sent[self.rank] for sent in self._exchange(parts)]

    def all_gather_into(self, whole: np.ndarray, part: np.ndarray) -> None:
        """Write the parts of all threads to ``whole``."""
        whole[:] = np.concatenate(self._exchange(part))

    def gather_into(self, whole: np.ndarray, part: np.ndarray) -> None:
        """Write the parts of all threads to ``whole`` in rank 0 only."""
        parts = self._exchange(part)
        if self.rank == 0:
            whole[:] = np.concatenate(parts)

    def reduce_scatter(self, array: np.ndarray, sizes: np.ndarray) -> None:
        """Give this thread its slice of the sum, and fill the other slices with a number that is
        certainly wrong.
        """
        is_own = np.repeat(np.arange(self.world_size), sizes) == self.rank  # (N,)
        array[:] = np.where(is_own, sum(self._exchange(array)), -(10**9))

    def _exchange(self, value: Any) -> list[Any]:
        """Return copies of the values of all threads."""
        self._slots[self.rank] = copy.deepcopy(value)
        self._barrier.wait()  # until all threads have written
        values = list(self._slots)
        self._barrier.wait()  # until all have read, so that the slots can be used again
        return values


def run_ranks(processes: int, work: Callable[[ThreadGroup], Any]) -> list[Any]:
    """Call a function once in each of several threads, with the ``ThreadGroup`` of the thread, and
    return the results. Raise the first error of a thread.
    """
    slots = [None] * processes
    barrier = threading.Barrier(processes, timeout=60)
    errors: list[Exception] = []

    def run(rank: int) -> Any:
        """Call the function as one thread; keep an error, and make the other threads raise."""
        try:
            return work(ThreadGroup(rank, slots, barrier))
        except Exception as error:
            errors.append(error)
            barrier.abort()

    with ThreadPoolExecutor(processes) as pool:
        results = list(pool.map(run, range(processes)))
    if errors:
        raise errors[0]
    return results


def _count_separately(model: Any) -> list[Any]:
    """Return new models, each of which has counted some of the texts; the last has counted none."""
    models = [type(model)(model.config) for _ in range(PROCESSES)]
    for number, text in enumerate(texts_to_count(model.config.vocab_size)):
        models[number % (PROCESSES - 1)].observe(text)
    return models


def _assert_counts_all(model: Any) -> None:
    """Raise AssertionError unless a model has the same tensors as a model that has counted all
    texts in one process.
    """
    reference = type(model)(model.config)
    train_by_counting(reference, model.config.vocab_size)
    expected = reference.state_dict()
    actual = model.state_dict()
    assert actual.keys() == expected.keys(), (
        f"It has the tensors {sorted(actual)}, not {sorted(expected)}."
    )
    for name, tensor in expected.items():
        is_equal = actual[name].dtype == tensor.dtype and torch.equal(actual[name], tensor)
        assert is_equal, f"Its tensor {name!r} differs."


def _compute_losses(model: Any, seed: int, times: int = 1) -> dict[str, Any]:
    """Return the terms of the model's loss by name, for a batch in which each row occurs ``times``
    times. The first target of each row is ignored.
    """
    ids = some_ids(model, ROWS, STEPS).repeat(times, 1)
    targets = some_ids(model, ROWS, STEPS, seed=1).repeat(times, 1)
    targets[:, 0] = IGNORED
    with seeded(seed):
        logits, _ = model(ids, model.initial_state(len(ids)))
        return dict(model.losses(logits, targets))


def _check_graph(graph: ModelGraph, sizes: Mapping[str, int]) -> None:
    """Check the names and edges of a graph and of the insides of its nodes. ``sizes`` has the sizes
    of the letters of the outer graph.
    """
    sizes = {**sizes, **graph.sizes}
    nodes = {node.id: node for node in graph.nodes}
    predecessors: dict[str, set[str]] = {name: set() for name in nodes}
    assert len(nodes) == len(graph.nodes) and not any("/" in name for name in nodes), (
        f"Nodes need other names: {[*nodes]}."
    )
    for edge in graph.edges:
        source, _, outlet = edge.source.partition("/")
        target, _, inlet = edge.target.partition("/")
        with asserting(f"The edge from {edge.source!r} to {edge.target!r}:"):
            assert not outlet or outlet in _ends(nodes[source].inside, "source"), (
                "It must leave an output of its node."
            )
            assert not inlet or inlet in _ends(nodes[target].inside, "target"), (
                "It must lead to an input of its node."
            )
            axis_sizes = [axis_size(axis, sizes) for axis in edge.axes]
            assert None not in axis_sizes and edge.delay >= 0, (
                f"It has the axes {edge.axes}, with the letters {[*sizes]}."
            )
            # a node may pass a value to itself, if it is for a later step
            if not (edge.delay and source == target):
                predecessors[target].add(source)
    TopologicalSorter(predecessors).prepare()  # raises if other edges form a cycle
    for node in graph.nodes:
        if node.inside is not None:
            _check_graph(node.inside, sizes)


def _ends(inside: ModelGraph | None, side: str) -> set[str]:
    """Return the outputs or the inputs of a node by the edges inside it. Side "source" gives the
    outputs: the inner nodes that are the source of no edge. Side "target" gives the inputs: the
    inner nodes that are the target of no edge.
    """
    if inside is None:
        return set()
    return {node.id for node in inside.nodes} - {getattr(edge, side) for edge in inside.edges}
