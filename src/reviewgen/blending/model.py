"""A blend as a LanguageModel: a mixture of trained models.

Source: Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse
Data". It uses its parts through the ``LanguageModel`` protocol only.
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
from reviewgen.blending.config import BlendConfig, describe_part, join_names, split_names
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
    """A mixture of models, each with the tokens of the blend or a ``CharacterModel``; returns log
    probabilities (nats)::

        logits[b, t] = log sum_i w_i softmax(logits_i[b, t])                      (V,)

    The weights are fixed, or depend on the entropies of the parts' distributions, see
    ``reviewgen.blending.weights``. A token has probability zero if all parts with a nonzero weight
    give it zero. The state is the tuple of the parts' states. The parts are in evaluation mode: a
    blend is made of trained models and is not trained itself. Its tensors are those of the parts,
    ``weight`` of part 0 as ``0.weight``; until they are loaded, the parts are on the meta device.

    Attributes:
        config: The settings of the blend.
        parts: The models.
    """

    Config: ClassVar[type] = BlendConfig

    def __init__(self, config: BlendConfig) -> None:
        self.config = config
        # allocates and initialises nothing: the weights are loaded later
        with torch.device("meta"), _WithoutRandomValues():
            self.parts = tuple(_build_part(part, config) for part in config.models)

    @classmethod
    def from_models(
        cls,
        models: Sequence[LanguageModel],
        plugins: Sequence[Plugin],
        weights: Sequence[float],
        gate: Mapping[str, Any] | None = None,
    ) -> "Blend":
        """Return a blend of trained models; it shares their tensors and puts them in evaluation
        mode.

        Args:
            models: The models.
            plugins: The plugin of each model.
            weights: The mixture weight of each model; they sum to one.
            gate: How the weights depend on the context; None for fixed weights.

        Raises:
            ConfigError: There are fewer than two models, their vocabulary sizes differ, or the
                weights are wrong.
            UnknownPlugin: A model's plugin is not installed, so the blend could not be loaded
                again.
        """
        entries = tuple(
            describe_part(plugin, _plain(model).config, getattr(model, "entry", None))
            for model, plugin in zip(models, plugins, strict=True)
        )
        vocab_size = models[0].config.vocab_size if models else 1
        blend = cls(
            BlendConfig(
                vocab_size=vocab_size, weights=tuple(weights), gate=dict(gate or {}), models=entries
            )
        )
        blend.parts = tuple(_in_evaluation_mode(model) for model in models)
        return blend

    def initial_state(self, batch_size: int) -> State:
        """Return the states of the parts before the first token."""
        return tuple(part.initial_state(batch_size) for part in self.parts)

    def __call__(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Return the log probability of every token after each of ``ids``, and the parts' states
        after the last.

        Raises:
            ShapeError: The ids or a part's state have another shape.
        """
        check_ids(ids)
        check_state(state, len(self.parts))
        steps = [
            _log_probabilities(part, ids, part_state)
            for part, part_state in zip(self.parts, state, strict=True)
        ]
        scores = [log_probs for log_probs, _ in steps]
        logs = [log_weights.unsqueeze(-1) for log_weights in self.log_weights(scores)]
        return _mix(scores, logs), tuple(new_state for _, new_state in steps)

    def score(
        self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T"], State]:
        """Return the log probability (nats) of ``targets[b, t]`` after ``ids[b, :t + 1]``, and the
        states after the last.

        Raises:
            NotADistribution: A part's scores do not sum to one.
        """
        if self.config.gate:
            steps = [
                _log_probabilities(part, ids, part_state)
                for part, part_state in zip(self.parts, state, strict=True)
            ]
            logs = self.log_weights([log_probs for log_probs, _ in steps])
            steps = [(_gather(log_probs, targets), new_state) for log_probs, new_state in steps]
        else:
            steps = [
                _score_part(part, ids, targets, part_state)
                for part, part_state in zip(self.parts, state, strict=True)
            ]
            logs = self.log_weights([])
        return _mix([score for score, _ in steps], logs), tuple(new_state for _, new_state in steps)

    def stepper(self, weight_bits: int = 32) -> BlendStepper:
        """Return a stepper that mixes the parts' steppers of that precision; a part without one is
        called through torch.
        """
        return make_blend_stepper(
            [make_stepper(_plain(part), weight_bits=weight_bits) for part in self.parts],
            self.config,
        )

    def describe_graph(self) -> ModelGraph:
        """Return the computational graph, for pictures: the models side by side, and what mixes
        them.
        """
        weights = [f"{weight:.2f}" for weight in self.config.weights]
        scores = ("B", "T", "V")
        terms = (f"{weight} p_{{{number}}}" for number, weight in enumerate(weights))
        mixed = f"log ({' + '.join(terms)})"
        gated = (
            "log Σ w_{i} p_{i}, w = softmax of the entropies of p_{i}, from the weights"
            f" {' and '.join(weights)}"
        )
        nodes = [
            GraphNode(id="ids", label="ids", kind="value"),
            GraphNode(
                id="mixture",
                label="mixture",
                detail=gated if self.config.gate else mixed,
                kind="operation",
            ),
            GraphNode(id="logits", label="logits", kind="value"),
        ]
        edges = [GraphEdge(source="mixture", target="logits", axes=scores)]
        for number, (entry, part) in enumerate(
            zip(self.config.models, map(_plain, self.parts), strict=True)
        ):
            sizes = part.describe_graph().sizes if isinstance(part, SupportsGraph) else {}
            order = entry["config"].get("order")
            name = f"part{number}"
            detail = ", ".join(
                f"{letter} {size:,}" for letter, size in sizes.items() if letter != "V"
            )
            detail = detail or (f"up to {order} tokens" if order else "")
            names = (
                [key for key, _ in part.named_parameters()] if isinstance(part, nn.Module) else []
            )
            parameters = tuple(f"{number}.{key}" for key in names)
            nodes.append(
                GraphNode(id=name, label=str(entry["name"]), detail=detail, parameters=parameters)
            )
            edges.append(GraphEdge(source="ids", target=name, axes=("B", "T")))
            edges.append(GraphEdge(source=name, target=name, label="state", delay=1))
            edges.append(
                GraphEdge(source=name, target="mixture", axes=scores, label=f"p_{{{number}}}")
            )
        return ModelGraph(
            nodes=tuple(nodes), edges=tuple(edges), sizes={"V": self.config.vocab_size}
        )

    def parameter_kinds(self) -> dict[str, int]:
        """Return the number of parameters of each kind, with the name of its model before it."""
        counts = Counter[str]()
        for entry, part in zip(self.config.models, self.parts, strict=True):
            counts.update(
                {
                    f"{entry['name']} {kind}": count
                    for kind, count in count_parameters(_plain(part)).items()
                }
            )
        return dict(counts)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of all parts, with the part's number before each name."""
        return join_names([part.state_dict() for part in self.parts])

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Build the parts and load each part's tensors; shapes are checked before memory is
        allocated.

        Raises:
            BundleError: A tensor is missing, unexpected, of the wrong shape or damaged; the blend
                stays unchanged.
        """
        split = split_names(tensors, len(self.parts))
        for number, (part, subset) in enumerate(zip(self.parts, split, strict=True)):
            pairs = [
                {(name, tuple(tensor.shape)) for name, tensor in named.items()}
                for named in (subset, part.state_dict())
            ]
            # of counts, the shapes depend on the training text
            if isinstance(_plain(part), nn.Module) and pairs[0] != pairs[1]:
                wrong = sorted({f"{number}.{name}" for name, _ in pairs[0] ^ pairs[1]})
                raise BundleError(
                    "Tensors of the blend are missing, unexpected or of the wrong shape:"
                    f" {', '.join(wrong):.200}."
                )
        parts = [_build_part(entry, self.config) for entry in self.config.models]
        for part, subset in zip(parts, split, strict=True):
            part.load_state_dict(subset)
        self.parts = tuple(_in_evaluation_mode(part) for part in parts)

    def log_weights(
        self, log_probs: list[Float[Tensor, "B T V"]] | list[Float[Tensor, "B T"]]
    ) -> list[Tensor]:
        """Return the log of each part's weight: (), or, with a gate, (B, T) from all log
        probabilities of the parts.
        """
        logs = [
            torch.tensor(math.log(weight) if weight else -math.inf)
            for weight in self.config.weights
        ]
        if not self.config.gate:
            return logs
        entropies = torch.stack([_entropy(part) for part in log_probs], dim=-1)  # (B, T, M)
        first, second = torch.triu_indices(len(logs), len(logs))
        products = entropies[..., first] * entropies[..., second]
        # (B, T, F)
        features = torch.cat((torch.ones_like(entropies[..., :1]), entropies, products), dim=-1)
        gate = torch.tensor(self.config.coefficients, dtype=features.dtype)
        return list((features @ gate.T + torch.stack(logs)).log_softmax(-1).unbind(-1))


class _WithoutRandomValues(TorchFunctionMode):
    """Skips filling tensors with random numbers: on the meta device, it loads torch's compiler,
    taking seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or return its tensor as it is."""
        tensor = args[0] if args else (kwargs or {}).get("tensor")
        is_skipped = getattr(func, "__name__", "") in ("normal_", "uniform_") and isinstance(
            tensor, Tensor
        )
        return tensor if is_skipped else func(*args, **(kwargs or {}))


class CharacterModel:
    """Wraps a model so that it reads and predicts ids of a blend with another tokenizer; see
    ``reviewgen.blending.characters``.

    Attributes:
        part: The model.
        entry: What its tokens are in ids of the blend, as JSON values.
        config: Has the number of ids of the blend, ``vocab_size``, only.
    """

    Config: ClassVar[type] = SimpleNamespace

    def __init__(self, part: LanguageModel, entry: Mapping[str, Any], vocab_size: int) -> None:
        self.part = part
        self.entry = entry
        self.config = SimpleNamespace(vocab_size=vocab_size)
        self.state_dict = part.state_dict
        self.load_state_dict = part.load_state_dict
        self._tokens = TokenCharacters.of_entry(entry, part.config.vocab_size, vocab_size)

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
        return CharacterStepper(make_stepper(self.part), self._tokens)


class EntropyModel:
    """A model whose scores are minus the entropies (nats) of its distributions, whatever the
    targets are.

    Functions that score the tokens of texts, such as ``score_tokens`` of
    ``reviewgen.evaluation.evaluate``, then return these.
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
        """Return minus the entropy of the token after each of ``ids``, and the state after the
        last.
        """
        log_probs, new_state = _log_probabilities(self._model, ids, state)
        return -_entropy(log_probs), new_state


def _mix(scores: list[Float[Tensor, "*B"]], logs: list[Tensor]) -> Float[Tensor, "*B"]:
    """Return the log of the weighted sum of probabilities, from their logs and those of the
    weights.
    """
    return reduce(torch.logaddexp, [score + log for score, log in zip(scores, logs, strict=True)])


def _log_probabilities(
    part: LanguageModel, ids: Int[Tensor, "B T"], state: State
) -> tuple[Float[Tensor, "B T V"], State]:
    logits, new_state = part(ids, state)
    return logits.log_softmax(-1), new_state


def _entropy(log_probs: Float[Tensor, "B T V"]) -> Float[Tensor, "B T"]:
    """Return entropies (nats)."""
    entropies: Tensor = torch.special.entr(log_probs.exp()).sum(-1)
    return entropies


def _gather(log_probs: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    return log_probs.gather(-1, targets.long().unsqueeze(-1)).squeeze(-1)


def _score_part(
    part: LanguageModel, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: State
) -> tuple[Float[Tensor, "B T"], State]:
    if isinstance(part, SupportsScore):
        return part.score(ids, targets, state)
    log_probs, new_state = _log_probabilities(part, ids, state)
    return _gather(log_probs, targets), new_state


def _plain(model: Any) -> Any:
    return model.part if isinstance(model, CharacterModel) else model


def _in_evaluation_mode(model: Any) -> Any:
    if isinstance(plain := _plain(model), nn.Module):
        plain.eval()
    return model


def _build_part(part: Mapping[str, Any], blend: BlendConfig) -> LanguageModel:
    kind, _ = find_model(plugin_of_saved("model", part))
    model: LanguageModel = kind(read_saved_config(kind.Config, part["config"], part["version"]))
    return (
        CharacterModel(model, part["characters"], blend.vocab_size)
        if "characters" in part
        else model
    )
