"""A blend as a LanguageModel: a mixture of trained models. It uses its components only through the
``LanguageModel`` protocol.

Source: Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse
Data".
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from reviewgen.blending.characters import CharacterStepper, TokenCharacters
from reviewgen.blending.config import BlendConfig, describe_component, join_names, split_names
from reviewgen.blending.stepper import BlendStepper, make_blend_stepper
from reviewgen.errors import BundleError
from reviewgen.generation.model_stepper import make_stepper
from reviewgen.generation.states import map_state
from reviewgen.protocols.abilities import count_parameters
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph, SupportsGraph
from reviewgen.protocols.inputs import check_ids, check_state
from reviewgen.protocols.migration import read_saved_config
from reviewgen.protocols.model import LanguageModel, State, SupportsScore
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.plugins import find_model
from reviewgen.registry.saved import plugin_of_saved


class Blend:
    """A mixture of models that returns log probabilities (nats)::

        logits[b, t] = log sum_i w_i softmax(logits_i[b, t])                      (V,)

    If ``config.has_expert``, the sum is over all components but the last, and is the expert of the
    last one, which mixes it into its own distribution; see ``reviewgen.protocols.SupportsExpert``.

    Each component has the tokens of the blend, or is a ``CharacterModel``. The weights are fixed,
    or depend on the entropies of the components' distributions, see ``reviewgen.blending.weights``.
    A token has probability zero if all components with a nonzero weight give it probability zero.
    The state is the tuple of the components' states.

    A blend is made of trained models and is not trained itself, so the components are in evaluation
    mode. Its tensors are those of the components; ``weight`` of component 0 is called ``0.weight``.
    Until they are loaded, the components are on the meta device.

    Attributes:
        config: The settings of the blend.
        components: The models.
    """

    Config: ClassVar[type] = BlendConfig

    def __init__(self, config: BlendConfig) -> None:
        self.config = config
        # on the meta device, nothing is allocated or initialised; the weights are loaded later
        with torch.device("meta"), _WithoutRandomValues():
            self.components: tuple[Any, ...] = tuple(
                _build(entry, config) for entry in config.models
            )

    @classmethod
    def from_models(
        cls,
        models: Sequence[LanguageModel],
        plugins: Sequence[Plugin],
        weights: Sequence[float],
        gate: Mapping[str, Any] | None = None,
    ) -> "Blend":
        """Return a blend of trained models. It shares their tensors, and puts them in evaluation
        mode.

        Args:
            models: The models.
            plugins: The plugin of each model.
            weights: The mixture weight of each model; they sum to one. 0 for a last model that
                mixes the others.
            gate: How the weights depend on the context; None for fixed weights.

        Raises:
            ConfigError: There are fewer than two models, their vocabulary sizes differ, or the
                weights are wrong.
            UnknownPlugin: The plugin of a model is not installed, so the blend could not be loaded
                again.
        """
        entries = tuple(
            describe_component(plugin, _plain(model).config, getattr(model, "entry", None))
            for model, plugin in zip(models, plugins, strict=True)
        )
        config = BlendConfig(
            vocab_size=models[0].config.vocab_size if models else 1,
            weights=tuple(weights),
            gate=dict(gate or {}),
            models=entries,
        )
        blend = cls(config)
        blend.components = tuple(_in_evaluation_mode(model) for model in models)
        return blend

    def initial_state(self, batch_size: int) -> State:
        """Return the states of the components before the first token."""
        return tuple(component.initial_state(batch_size) for component in self.components)

    def __call__(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Return the log probability of every token after each of ``ids``, and the states of the
        components after the last.

        Raises:
            ShapeError: The ids or the states do not have the shapes that the components expect.
        """
        check_ids(ids)
        check_state(state, len(self.components))
        average, new_states = self._average(ids, state)
        if not self.config.has_expert:
            return average, new_states
        own, new_state = self.components[-1].call_with_expert(ids, average, state[-1])
        return own, (*new_states, new_state)

    def score(
        self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T"], State]:
        """Return the log probability (nats) of ``targets[b, t]`` after ``ids[b, :t + 1]``, and the
        states of the components after the last token.

        Raises:
            NotADistribution: The scores of a component do not sum to one.
        """
        if self.config.has_expert:
            average, new_states = self._average(ids, state)
            last = self.components[-1]
            own, new_state = last.score_with_expert(ids, targets, average, state[-1])
            return own, (*new_states, new_state)
        # a gate needs whole distributions; without one, each component only scores the targets
        if self.config.gate:
            log_probs, new_states = self._call_each(_log_probabilities, (ids,), state)
            scores = [_select_targets(each, targets) for each in log_probs]
        else:
            log_probs = []
            scores, new_states = self._call_each(_score, (ids, targets), state)
        return _mix(scores, self.log_weights(log_probs)), new_states

    def _average(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Return the log of the weighted average of the averaged components' distributions, and
        their new states.
        """
        log_probs, new_states = self._call_each(_log_probabilities, (ids,), state)
        log_weights = [weight.unsqueeze(-1) for weight in self.log_weights(log_probs)]
        return _mix(log_probs, log_weights), new_states

    def _call_each(
        self, function: Callable[..., tuple[Tensor, State]], arguments: Any, state: State
    ) -> tuple[list[Tensor], State]:
        """Call a function with each averaged component, followed by the arguments and the
        component's state. Return the results and the new states.
        """
        count = self.config.averaged
        pairs = zip(self.components[:count], state[:count], strict=True)
        calls = [function(component, *arguments, own_state) for component, own_state in pairs]
        results, new_states = zip(*calls, strict=True)
        return list(results), new_states

    def stepper(self, weight_bits: int = 32) -> BlendStepper:
        """Return a stepper that mixes the steppers of the components, with weights of
        ``weight_bits``. A component without a stepper is called through torch.
        """
        steppers = [make_stepper(_plain(each), weight_bits=weight_bits) for each in self.components]
        return make_blend_stepper(steppers, self.config)

    def describe_graph(self) -> ModelGraph:
        """Return the computational graph, to be drawn: the models side by side, and the mixture of
        their distributions. It leads to the logits, or to a last model that mixes it in.
        """
        scores = ("B", "T", "V")
        nodes = [
            GraphNode(id="ids", label="ids", kind="value"),
            GraphNode(
                id="mixture", label="mixture", detail=self._describe_mixture(), kind="operation"
            ),
            GraphNode(id="logits", label="logits", kind="value"),
        ]
        edges = []
        pairs = zip(self.config.models, map(_plain, self.components), strict=True)
        for number, (entry, model) in enumerate(pairs):
            name = f"part{number}"
            parameters = model.named_parameters() if isinstance(model, nn.Module) else ()
            nodes.append(
                GraphNode(
                    id=name,
                    label=entry["name"],
                    detail=_describe_sizes(model, entry["config"].get("order")),
                    parameters=tuple(f"{number}.{key}" for key, _ in parameters),
                )
            )
            edges.append(GraphEdge(source="ids", target=name, axes=("B", "T")))
            edges.append(GraphEdge(source=name, target=name, label="state", delay=1))
            if number < self.config.averaged:
                edges.append(
                    GraphEdge(source=name, target="mixture", axes=scores, label=f"p_{{{number}}}")
                )
            else:
                edges.append(GraphEdge(source="mixture", target=name, axes=scores, label="expert"))
        last = nodes[-1].id if self.config.has_expert else "mixture"
        edges.append(GraphEdge(source=last, target="logits", axes=scores))
        return ModelGraph(
            nodes=tuple(nodes), edges=tuple(edges), sizes={"V": self.config.vocab_size}
        )

    def _describe_mixture(self) -> str:
        """Return the formula of the mixture, with the values of its weights."""
        weights = [f"{weight:.2f}" for weight in self.config.weights[: self.config.averaged]]
        if self.config.gate:
            return (
                "log Σ w_{i} p_{i}, w = softmax of the entropies of p_{i}, from the weights"
                f" {' and '.join(weights)}"
            )
        terms = (f"{weight} p_{{{number}}}" for number, weight in enumerate(weights))
        return f"log ({' + '.join(terms)})"

    def parameter_kinds(self) -> dict[str, int]:
        """Return the number of parameters of each kind. The name of a kind begins with the name of
        its model.
        """
        counts = Counter[str]()
        for entry, component in zip(self.config.models, self.components, strict=True):
            for kind, count in count_parameters(_plain(component)).items():
                counts[f"{entry['name']} {kind}"] += count
        return dict(counts)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of all components. The name of a tensor begins with the number of its
        component.
        """
        return join_names([component.state_dict() for component in self.components])

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Build the components and load the tensors of each. Shapes are checked before memory is
        allocated.

        Raises:
            BundleError: A tensor is missing, unexpected, of the wrong shape or damaged; the blend
                stays unchanged.
        """
        split = split_names(tensors, len(self.components))
        for number, (component, named) in enumerate(zip(self.components, split, strict=True)):
            if not isinstance(_plain(component), nn.Module):
                continue  # a model of counts: the shapes depend on the training text
            different = _shapes(named) ^ _shapes(component.state_dict())
            if different:
                wrong = sorted({f"{number}.{name}" for name, _ in different})
                raise BundleError(
                    "Tensors of the blend are missing, unexpected or of the wrong shape:"
                    f" {', '.join(wrong):.200}."
                )
        components = [_build(entry, self.config) for entry in self.config.models]
        for component, named in zip(components, split, strict=True):
            component.load_state_dict(named)
        self.components = tuple(_in_evaluation_mode(component) for component in components)

    def log_weights(
        self, log_probs: list[Float[Tensor, "B T V"]] | list[Float[Tensor, "B T"]]
    ) -> list[Tensor]:
        """Return the log of each averaged component's weight. Its shape is () if the weights are
        fixed, and (B, T) if a gate computes them from the log probabilities of these components.
        """
        fixed = [
            torch.tensor(math.log(weight) if weight else -math.inf)
            for weight in self.config.weights[: self.config.averaged]
        ]
        if not self.config.gate:
            return fixed
        entropies = torch.stack([_entropy(each) for each in log_probs], dim=-1)  # (B, T, M)
        # the features are those of ``weights.features_of``
        first, second = torch.triu_indices(len(fixed), len(fixed))
        products = entropies[..., first] * entropies[..., second]
        ones = torch.ones_like(entropies[..., :1])
        features = torch.cat((ones, entropies, products), dim=-1)  # (B, T, F)
        gate = torch.tensor(self.config.coefficients, dtype=features.dtype)
        gated = (features @ gate.T + torch.stack(fixed)).log_softmax(-1)  # (B, T, M)
        return list(gated.unbind(-1))


class _WithoutRandomValues(TorchFunctionMode):
    """Skips filling tensors with random numbers. On the meta device, this would load torch's
    compiler, which takes seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch. If it fills a tensor with random numbers, return the tensor
        unchanged.
        """
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        is_random = getattr(func, "__name__", "") in ("normal_", "uniform_")
        if is_random and isinstance(tensor, Tensor):
            return tensor
        return func(*args, **kwargs)


class CharacterModel:
    """Wraps a model with another tokenizer so that it reads and predicts the ids of a blend; see
    ``reviewgen.blending.characters``.

    Attributes:
        model: The model.
        entry: How its tokens are spelled with ids of the blend, as JSON values.
        config: Has only ``vocab_size``, the number of ids of the blend.
    """

    Config: ClassVar[type] = SimpleNamespace

    def __init__(self, model: LanguageModel, entry: Mapping[str, Any], vocab_size: int) -> None:
        self.model = model
        self.entry = entry
        self.config = SimpleNamespace(vocab_size=vocab_size)
        self.state_dict = model.state_dict
        self.load_state_dict = model.load_state_dict
        self._tokens = TokenCharacters.of_entry(entry, model.config.vocab_size, vocab_size)

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first id of B texts."""
        return map_state(torch.from_numpy, self._stepper().initial_state(batch_size))

    def __call__(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T W"], State]:
        """Return the log probability of every id of the blend after each of ``ids``, and the state
        after the last.
        """
        table, new_state = self._stepper().log_probabilities(
            ids.numpy(), map_state(np.asarray, state)
        )
        return torch.from_numpy(table).float(), map_state(torch.from_numpy, new_state)

    def _stepper(self) -> CharacterStepper:
        """Return a stepper with the model's current weights."""
        return CharacterStepper(make_stepper(self.model), self._tokens)


class EntropyModel:
    """Wraps a model so that its scores are the negative entropies (nats) of its distributions,
    whatever the targets are.

    Functions that score the tokens of texts, such as ``score_tokens`` of
    ``reviewgen.evaluation.evaluate``, then return the negative entropies.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.config = model.config
        self.Config = model.Config
        self.initial_state = model.initial_state
        self.state_dict = model.state_dict
        self.load_state_dict = model.load_state_dict

    def __call__(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Return the model's own logits."""
        return self._model(ids, state)

    def score(
        self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T"], State]:
        """Return the negative entropy of the distribution after each of ``ids``, and the state
        after the last.
        """
        log_probs, new_state = _log_probabilities(self._model, ids, state)
        return -_entropy(log_probs), new_state


def _mix(log_probs: list[Float[Tensor, "*B"]], log_weights: list[Tensor]) -> Float[Tensor, "*B"]:
    """Return the log of the weighted sum of probabilities. The arguments are the logs of the
    probabilities and of the weights.
    """
    return reduce(torch.logaddexp, map(torch.add, log_probs, log_weights))


def _log_probabilities(
    model: LanguageModel, ids: Int[Tensor, "B T"], state: State
) -> tuple[Float[Tensor, "B T V"], State]:
    """Return the log probabilities (nats) of a model's distributions, and its new state."""
    logits, new_state = model(ids, state)
    return logits.log_softmax(-1), new_state


def _entropy(log_probs: Float[Tensor, "B T V"]) -> Float[Tensor, "B T"]:
    """Return entropies (nats)."""
    entropies: Tensor = torch.special.entr(log_probs.exp()).sum(-1)
    return entropies


def _select_targets(
    log_probs: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """Return the log probability of each target."""
    return log_probs.gather(-1, targets.long().unsqueeze(-1)).squeeze(-1)


def _score(
    model: LanguageModel, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: State
) -> tuple[Float[Tensor, "B T"], State]:
    """Return the log probability (nats) of each target under a model, and its new state."""
    if isinstance(model, SupportsScore):
        return model.score(ids, targets, state)
    log_probs, new_state = _log_probabilities(model, ids, state)
    return _select_targets(log_probs, targets), new_state


def _describe_sizes(model: Any, order: int | None) -> str:
    """Return the sizes of a component, or the order of an n-gram, for its node in the graph."""
    sizes = model.describe_graph().sizes if isinstance(model, SupportsGraph) else {}
    shown = ", ".join(f"{letter} {size:,}" for letter, size in sizes.items() if letter != "V")
    if order and not shown:
        return f"up to {order} tokens"
    return shown


def _shapes(tensors: Mapping[str, Tensor]) -> set[tuple[str, tuple[int, ...]]]:
    """Return the name and shape of each tensor."""
    return {(name, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _plain(model: Any) -> Any:
    """Return a component; if it is wrapped in a ``CharacterModel``, the model inside."""
    return model.model if isinstance(model, CharacterModel) else model


def _in_evaluation_mode(model: Any) -> Any:
    """Put a component in evaluation mode if it has modes, and return it."""
    plain = _plain(model)
    if isinstance(plain, nn.Module):
        plain.eval()
    return model


def _build(entry: Mapping[str, Any], blend: BlendConfig) -> LanguageModel:
    """Build the component that an entry in a blend's config describes, without its tensors."""
    kind, _ = find_model(plugin_of_saved("model", entry))
    model: LanguageModel = kind(read_saved_config(kind.Config, entry["config"], entry["version"]))
    if "characters" not in entry:
        return model
    return CharacterModel(model, entry["characters"], blend.vocab_size)
