"""The blend as a LanguageModel: trained models that share a vocabulary, averaged in probability at each token.

Source: Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse Data". It knows its parts by
their contracts only.
"""

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen.blending.config import BlendConfig, describe_part, join_names, split_names
from reviewgen.blending.stepper import BlendStepper
from reviewgen.config import from_dict
from reviewgen.errors import BundleError, UnknownPlugin
from reviewgen.generation.model_stepper import make_stepper
from reviewgen.protocols import LanguageModel, State, SupportsScore
from reviewgen.registry import Plugin, find_model

__all__ = ["Blend"]


class Blend:
    """A mixture of models with fixed weights; returns log probabilities (nats)::

        logits[b, t] = log sum_i w_i softmax(logits_i[b, t])                      (V,)

    A part may give probability zero; the blend gives it where all its parts with a weight do. The state is the tuple of the
    parts' states. The parts are in evaluation mode: a blend is made of trained models and is not trained. Its tensors are
    theirs, ``weight`` of part 0 as ``0.weight``; until they are loaded its parts are hollow, on the meta device.
    """

    Config: ClassVar[type] = BlendConfig

    def __init__(self, config: BlendConfig) -> None:
        self.config = config
        with torch.device("meta"):  # no memory, and nothing drawn, for weights that are loaded later
            self.parts = tuple(_build(part) for part in config.models)

    @classmethod
    def of(cls, models: Sequence[LanguageModel], plugins: Sequence[Plugin], weights: Sequence[float]) -> "Blend":
        """Return a blend of models that are there already; it shares their tensors, and puts them in evaluation mode.

        Raises:
            ConfigError: There are fewer than two, or they differ in vocabulary, or the weights do not fit.
            UnknownPlugin: One comes from no installed plugin, so the blend could not be loaded again.
        """
        facts = tuple(describe_part(plugin, model.config) for model, plugin in zip(models, plugins, strict=True))
        vocab_size = models[0].config.vocab_size if models else 1
        blend = cls(BlendConfig(vocab_size=vocab_size, weights=tuple(weights), models=facts))
        blend.parts = tuple(_evaluating(model) for model in models)
        return blend

    def initial_state(self, batch_size: int) -> State:
        """Return the states of the parts before the first token."""
        return tuple(part.initial_state(batch_size) for part in self.parts)

    def __call__(self, ids: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        """Return the log probability of every token after each position, and the parts' states after the last."""
        scores, after = [], []
        for part, before in zip(self.parts, state, strict=True):
            logits, behind = part(ids, before)
            scores.append(logits.log_softmax(-1))
            after.append(behind)
        return self._mix(scores), tuple(after)

    def score(self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T"], State]:
        """Return the log probability (nats) of ``targets[b, t]`` after ``ids[b, :t + 1]``, and the states after the last.

        Raises:
            NotADistribution: A part's scores do not sum to one.
        """
        scores, after = [], []
        for part, before in zip(self.parts, state, strict=True):
            found, behind = _score(part, ids, targets, before)
            scores.append(found)
            after.append(behind)
        return self._mix(scores), tuple(after)

    def stepper(self, weight_bits: int = 32) -> BlendStepper:
        """Return a stepper of steppers of so many bits; a part that has none is called as it is then."""
        return BlendStepper([make_stepper(part, weight_bits=weight_bits) for part in self.parts], self.config.weights)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of every part, each with the part's number before its name."""
        return join_names([part.state_dict() for part in self.parts])

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Build the parts and hand each its tensors; sizes that a config decides are compared before there is memory for them.

        Raises:
            BundleError: A tensor is missing, extra or misshapen, or a part finds its own damaged; the blend stays as it was.
        """
        split = split_names(tensors, len(self.parts))
        for number, (hollow, own) in enumerate(zip(self.parts, split, strict=True)):
            _refuse_other_tensors(number, hollow, own)
        parts = [_build(part) for part in self.config.models]
        for part, own in zip(parts, split, strict=True):
            part.load_state_dict(own)
        self.parts = tuple(_evaluating(part) for part in parts)

    def _mix(self, scores: list[Float[Tensor, "*B"]]) -> Float[Tensor, "*B"]:
        """Return the log of the weighted sum of probabilities, given as logs."""
        logs = [math.log(weight) if weight else -math.inf for weight in self.config.weights]
        return reduce(torch.logaddexp, [score + log for score, log in zip(scores, logs, strict=True)])


def _score(
    part: LanguageModel, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: State
) -> tuple[Float[Tensor, "B T"], State]:
    if isinstance(part, SupportsScore):
        return part.score(ids, targets, state)
    logits, after = part(ids, state)
    return logits.log_softmax(-1).gather(-1, targets.long().unsqueeze(-1)).squeeze(-1), after


def _evaluating(model: Any) -> Any:
    return model.eval() if isinstance(model, nn.Module) else model


def _refuse_other_tensors(number: int, hollow: LanguageModel, own: Mapping[str, Tensor]) -> None:
    """Raise unless tensors have the names and sizes of a torch module's; those of counts only the text decides."""
    if not isinstance(hollow, nn.Module):
        return
    found, wanted = ({name: tuple(tensor.shape) for name, tensor in named.items()} for named in (own, hollow.state_dict()))
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise BundleError(
                f"Model {number} of the blend asks for {name} of the shape {wanted.get(name)}; there is {found.get(name)}."
            )


def _build(part: Mapping[str, Any]) -> LanguageModel:
    try:
        kind, _ = find_model(part["name"])
    except UnknownPlugin:
        package = part["distribution"]
        raise UnknownPlugin(
            f"This blend needs the model {part['name']!r} of the package {package} {part['version']}, which is not installed. "
            f"Install it: pip install {package}"
        ) from None
    model: LanguageModel = kind(from_dict(kind.Config, part["config"]))
    return model
