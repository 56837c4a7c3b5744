"""Optional abilities of a model: its own loss, output layer, optimizer settings and initial
weights, the list of its operations, and others. Needs torch.

Shapes by letter: B batch, T time (tokens), V vocabulary, K width of the output layer's input.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from torch import Tensor

from reviewgen.errors import ConfigError
from reviewgen.protocols.graph import parameter_sizes
from reviewgen.protocols.model import State

# names that other libraries give to embedding tables
_TABLE_MODULES = {"embedding", "embeddings", "embed", "encoder", "word_embeddings"}


@runtime_checkable
class SupportsLoss(Protocol):
    """A model with loss terms of its own, for training: a penalty, an auxiliary task, or another
    loss than cross entropy.

    Training minimises the sum of the cross entropy and these terms. A term named "cross_entropy"
    takes the place of the plain cross entropy, as for label smoothing. Each term is reported by its
    name. ``Report.loss`` and bits per character still come from the plain cross entropy, so that
    models can be compared.
    """

    def losses(
        self, logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]
    ) -> Mapping[str, Float[Tensor, ""]]:
        """Return the loss terms of a batch by name. The names must be the same at each call.

        This is called in training only, after each call of the model. So it may use values that the
        model has stored during that call. A term is averaged over the batches and processes of a
        step, weighted by their number of targets.

        Args:
            logits: What the model has returned for the batch, with gradients.
            targets: The tokens that follow; -100 where no token is to be predicted, at the
                beginning of a text.

        Returns:
            Each term as a tensor without dimensions: a mean per target, in nats, or a penalty.
        """
        ...


@runtime_checkable
class SupportsParameterGroups(Protocol):
    """A model that has optimizer settings for some of its parameters, such as no weight decay for a
    gate's bias.
    """

    def parameter_groups(self) -> Sequence[Mapping[str, Any]]:
        """Return groups of parameters with their settings; parameters in no group follow the
        default rules.

        Each group has the key ``params``, a sequence of the model's parameters, and may have:

        - ``optimizer``: "adamw" or, for matrices only, "muon". By default, muon is used for
          matrices between hidden vectors. The user's setting ``optimizer=adamw`` uses AdamW for all
          parameters.
        - ``learning_rate_scale``: a factor of the learning rate, at least 0.
        - ``weight_decay``: a number of at least 0, in place of the user's setting.
        """
        ...


@runtime_checkable
class SupportsInitialWeights(Protocol):
    """A model that can start from tensors of another source, such as another library. The user
    passes them as a safetensors file.
    """

    def initial_weights(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Convert tensors of another source to tensors of this model, and return them by name. The
        model does not change.

        The core checks the names and shapes of the returned tensors, and copies them into the
        model. Tensors of the model that are not returned keep their random values. The names of
        ``state_dict`` are accepted too, so that a model can start from another model of its kind.

        Args:
            tensors: The tensors of the file, by name.

        Raises:
            ConfigError: A tensor does not fit this model. The message names the tensor, and says
                which tensors are accepted.
        """
        ...


@runtime_checkable
class SupportsParameterKinds(Protocol):
    """A model that says how many parameters it has of each kind; other models are counted by
    top-level module.
    """

    def parameter_kinds(self) -> Mapping[str, int]:
        """Return the number of parameters of each kind, in words, as in {"embeddings": 6400,
        "output layer": 25700}.
        """
        ...


@runtime_checkable
class SupportsScaledLogits(Protocol):
    """A model whose logits can be scaled by a change of its weights, so that training can calibrate
    the model.
    """

    def scale_logits(self, scale: float) -> bool:
        """Change the weights so that all logits are ``scale`` times what they were.

        Returns:
            True if the weights were changed. False if the settings of this model make that
                impossible, and nothing was changed.
        """
        ...


@runtime_checkable
class SupportsOutputLayer(Protocol):
    """A model whose last operation is a linear layer that turns features into logits. So training
    can compute the logits of only some tokens of the vocabulary.

    ``model(ids, state)`` returns ``F.linear(features, weight, bias)`` and the state, both in
    training and in evaluation mode.
    """

    def features(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T K"], State]:
        """Return the input of the output layer for each id, and the state after the last id."""
        ...

    def output_layer(self) -> tuple[Float[Tensor, "V K"], Float[Tensor, " V"] | None]:
        """Return the weight and the bias of the output layer, or None for the bias. These must be
        the parameters themselves, so that they get gradients.
        """
        ...


class Copies(NamedTuple):
    """What a model with a pointer copies after each of T tokens, out of S tokens of the text.

    Attributes:
        weights: The probability of each token to be the one that is copied; 0 for tokens that
            cannot be copied.
        ids: The ids of the S tokens; -1 where there is none.
        log_odds: The log odds that a token is copied, -inf where there is none to copy.
    """

    weights: Float[Tensor, "B T S"]
    ids: Int[Tensor, "B S"]
    log_odds: Float[Tensor, "B T 1"]

    def mix(self, logits: Float[Tensor, "B T V"]) -> Float[Tensor, "B T V"]:
        """Return the log probabilities of the mixture of a softmax and what is copied."""
        # (B, T, S); an id of -1 becomes 0, which changes nothing, since its weight is 0
        ids = self.ids.clamp(min=0)[:, None].expand_as(self.weights)
        copied = torch.zeros_like(logits, dtype=torch.float32).scatter_add(2, ids, self.weights)
        return self._mix(logits.float().log_softmax(-1), copied)

    def mix_targets(
        self, log_probs: Float[Tensor, "B T"], targets: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """Return the log probabilities of some targets under the mixture, given their log
        probabilities under the softmax.
        """
        is_target = self.ids[:, None] == targets[..., None]
        copied = (self.weights * is_target).sum(-1, keepdim=True)
        return self._mix(log_probs[..., None], copied)[..., 0]

    def _mix(self, log_probs: Tensor, copied: Tensor) -> Tensor:
        """Return ``log((1 - g) exp(log_probs) + g copied)``; g is the probability that a token is
        copied.
        """
        kept = log_probs + F.logsigmoid(-self.log_odds)
        is_copied = copied > 0
        # 1 in place of 0, since the gradient of log(0) would be NaN
        log_copied = torch.where(is_copied, copied, 1).log() + F.logsigmoid(self.log_odds)
        return torch.where(is_copied, torch.logaddexp(kept, log_copied), kept)


@runtime_checkable
class SupportsPointer(SupportsOutputLayer, Protocol):
    """A model that can copy tokens of the text: its prediction is a mixture of the softmax of its
    output layer and of a distribution over past tokens (Merity et al. 2017, "Pointer Sentinel
    Mixture Models").

    ``model(ids, state)`` returns ``copies.mix`` of what ``SupportsOutputLayer`` describes.
    """

    def copies(
        self, features: Float[Tensor, "B T K"], ids: Int[Tensor, "B T"], state: State
    ) -> Copies | None:
        """Return what is copied after each id, given the features that ``features(ids, state)`` has
        returned; None if the settings of this model switch this off.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of a model on a batch, and its result.

    Attributes:
        name: What the operation computes, as in "input gate". In a stack of layers, the name
            includes the layer, so that all names differ.
        formula: Its equation, as in the model's docstring.
        values: The result.
        axes: A word for each dimension of the result, as in "B T H". A word of several letters is
            the product of their sizes: "B T KE".
        parameters: The number of parameters that this operation is the first to use.
        multiplications: The number of multiplications of two numbers, in matrix products and
            elementwise products. Activation functions, sums and look-ups count as none.
        kind: "gate" for values between 0 and 1 that multiply other values; "state" for the hidden
            units that are carried from token to token; "window" for the ids from which each
            prediction is made; "attention" for the weights (B, T, heads, tokens) with which each
            head reads the last tokens, up to the token itself, where the weights of a head sum to
            1; otherwise "values".
    """

    name: str
    formula: str
    values: Tensor
    axes: str
    parameters: int = 0
    multiplications: int = 0
    kind: Literal["values", "gate", "state", "window", "attention"] = "values"


@runtime_checkable
class SupportsOperations(Protocol):
    """A model that lists the operations of its computation. ``reviewgen.explain`` prints them, and
    follows the gates and hidden units from token to token.

    For other models, it lists the calls of their modules.
    """

    def operations(self, ids: Int[Tensor, "B T"], state: State) -> Iterator[Operation]:
        """Yield the operations of a call in evaluation mode, in order; the last one yields the
        logits, (B, T, V).
        """
        ...


def count_parameters(model: Any) -> dict[str, int]:
    """Return the number of parameters of each kind, the largest first. The kinds are those of
    ``SupportsParameterKinds`` or, for other models, the top-level modules.
    """
    if isinstance(model, SupportsParameterKinds):
        kinds = model.parameter_kinds()
    else:
        kinds = count_by_module(model)
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def count_by_module(model: Any) -> dict[str, int]:
    """Return the number of parameters of each top-level module by name, or of each tensor if there
    are no modules.
    """
    counts = Counter[str]()
    sizes = parameter_sizes(model) or {
        name: tensor.numel() for name, tensor in model.state_dict().items()
    }
    for name, size in sizes.items():
        counts[name.partition(".")[0]] += size
    return dict(counts)


def describe_parameters(kinds: Mapping[str, int]) -> str:
    """Describe the numbers that ``count_parameters`` returns.

    >>> describe_parameters({"n-gram vectors": 4194304, "output layer": 18207})
    '4,212,511: n-gram vectors 4,194,304, output layer 18,207'
    """
    listed = ", ".join(f"{kind} {count:,}" for kind, count in kinds.items())
    return f"{sum(kinds.values()):,}: {listed}"


def float_arrays(model: Any) -> dict[str, Float32[np.ndarray, "..."]]:
    """Return the tensors of a model as arrays on the CPU, for its stepper."""
    return {name: tensor.float().cpu().numpy() for name, tensor in model.state_dict().items()}


def is_embedding_table(name: str) -> bool:
    """Return whether a tensor of another source is an embedding table, judging by its name; for
    ``initial_weights``.

    Such a name is ``weight`` alone, as in the state dict of an ``nn.Embedding``, or ``weight`` in a
    module that is called ``embedding``, ``embeddings``, ``embed``, ``encoder`` or
    ``word_embeddings``.

    >>> [is_embedding_table(name) for name in ("weight", "model.embed.weight", "output.weight")]
    [True, True, False]
    """
    *path, last = name.split(".")
    return last == "weight" and (not path or path[-1] in _TABLE_MODULES)


def match_tensors(
    model: Any, tensors: Mapping[str, Tensor], own_name: Callable[[str], str], accepted: str
) -> dict[str, Tensor]:
    """Rename tensors of another source to the names that they have in a model; for
    ``initial_weights``.

    Args:
        model: The model. An embedding table (see ``is_embedding_table``) gets the name
            ``embedding.weight``.
        tensors: The tensors, by name.
        own_name: Returns the model's name for the name of any other tensor.
        accepted: The names that are accepted besides embedding tables, for the message of an error.

    Raises:
        ConfigError: The model has no tensor of such a name, or two tensors get the same name.
    """
    names = model.state_dict().keys()
    matched = dict[str, Tensor]()
    for name, tensor in tensors.items():
        own = "embedding.weight" if is_embedding_table(name) else own_name(name)
        if own not in names:
            raise ConfigError(
                f"{name} does not fit this {type(model).__name__}; accepted are weight or"
                f" embedding.weight (V, E), {accepted}"
            )
        if own in matched:
            raise ConfigError(f"two tensors are for {own}, one of which is {name}")
        matched[own] = tensor
    return matched
