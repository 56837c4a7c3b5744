"""Optional abilities of a model: its own loss, output layer and optimizer settings, what it
computes, and others. Needs torch.

Shapes by letter: B batch, T time (tokens), V vocabulary.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
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

    The terms are added to the cross entropy and minimised together. A term named "cross_entropy" is
    minimised in place of it, as with label smoothing. Each term is reported by its name;
    ``Report.loss`` and bits per character remain those of the plain cross entropy, so that models
    can be compared.
    """

    def losses(
        self, logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]
    ) -> Mapping[str, Float[Tensor, ""]]:
        """Return the terms of a batch by name: with the same names at each call.

        Called in training only, after each call of the model, so that it may use what that call has
        kept. A term is averaged over the batches and processes of a step, weighted by their number
        of targets.

        Args:
            logits: What the model has returned for the batch, with gradients.
            targets: The tokens that follow; -100 where none is to be predicted, at the beginning of
                a text.

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

        - ``optimizer``: "adamw" or, for matrices, "muon", in place of the default, which is muon
          for matrices between hidden vectors. The user's setting ``optimizer=adamw`` uses AdamW for
          all.
        - ``learning_rate_scale``: a number of at least 0 that the learning rate is multiplied by.
        - ``weight_decay``: a number of at least 0, in place of the user's setting.
        """
        ...


@runtime_checkable
class SupportsInitialWeights(Protocol):
    """A model that can start from tensors of another source, which the user gives as a safetensors
    file.
    """

    def initial_weights(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return tensors of this model by name, made of those of another source, without changing
        the model.

        The core checks their names and shapes, and copies them into the model. What is not returned
        keeps its random values. The names of ``state_dict`` are accepted too, so that a model can
        start from one of its own kind.

        Args:
            tensors: The tensors of the file, by name.

        Raises:
            ConfigError: A tensor does not fit this model; the message names it, and says which ones
                are accepted.
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
            Whether it did: false if this model's settings make it impossible, and nothing has
                changed.
        """
        ...


@runtime_checkable
class SupportsOutputLayer(Protocol):
    """A model whose logits are a linear layer of features: training can then compute those of some
    tokens only.

    ``model(ids, state)`` returns ``F.linear(features, weight, bias)`` and the state, in training as
    in evaluation mode.
    """

    def features(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T K"], State]:
        """Return the input of the output layer at each of ``ids``, and the state after the last."""
        ...

    def output_layer(self) -> tuple[Float[Tensor, "V K"], Float[Tensor, " V"] | None]:
        """Return the weight of the output layer and its bias, if it has one: the parameters, with
        gradients.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of a model on a batch, and its result.

    Attributes:
        name: What it is, as in "input gate"; in a stack of layers, it includes the layer, so that
            names are distinct.
        formula: Its equation, as in the model's docstring.
        values: The result.
        axes: A word for each dimension of the result, as in "B T H". A word of several letters is
            the product of their sizes: "B T KE".
        parameters: The number of parameters that it uses and no operation before it has used.
        multiplications: The number of multiplications of two numbers: those of matrix products and
            of elementwise products. Activation functions, sums and look-ups have none.
        kind: "gate" for values between 0 and 1 that others are multiplied by, "state" for the
            hidden units that are carried from token to token, "window" for the ids that each
            prediction is made from; otherwise "values".
    """

    name: str
    formula: str
    values: Tensor
    axes: str
    parameters: int = 0
    multiplications: int = 0
    kind: Literal["values", "gate", "state", "window"] = "values"


@runtime_checkable
class SupportsOperations(Protocol):
    """A model that shows what it computes; ``reviewgen.explain`` prints it, and follows its gates
    and hidden units.

    Other models are shown by the calls of their modules.
    """

    def operations(self, ids: Int[Tensor, "B T"], state: State) -> Iterator[Operation]:
        """Yield the operations of a call in evaluation mode, in order; the last one yields the
        logits, (B, T, V).
        """
        ...


def count_parameters(model: Any) -> dict[str, int]:
    """Return the number of parameters of each kind, the largest first: as the model says, else by
    top-level module.
    """
    kinds: Mapping[str, int] = (
        model.parameter_kinds()
        if isinstance(model, SupportsParameterKinds)
        else count_by_module(model)
    )
    return dict(sorted(kinds.items(), key=lambda kind: -kind[1]))


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
    return f"{sum(kinds.values()):,}: " + ", ".join(
        f"{kind} {count:,}" for kind, count in kinds.items()
    )


def is_embedding_table(name: str) -> bool:
    """Return whether a tensor of another source is an embedding table, from its name; for
    ``initial_weights``.

    That is ``weight``, the only tensor of an ``nn.Embedding``, and ``weight`` of a module that is
    called ``embedding``, ``embeddings``, ``embed``, ``encoder`` or ``word_embeddings``.

    >>> [is_embedding_table(name) for name in ("weight", "model.embed.weight", "output.weight")]
    [True, True, False]
    """
    *path, last = name.split(".")
    return last == "weight" and (not path or path[-1] in _TABLE_MODULES)


def match_tensors(
    model: Any, tensors: Mapping[str, Tensor], own_name: Callable[[str], str], accepted: str
) -> dict[str, Tensor]:
    """Return the tensors of another source by the names that they have in a model; for
    ``initial_weights``.

    Args:
        model: The model. Embedding tables, see ``is_embedding_table``, become its
            ``embedding.weight``.
        tensors: The tensors, by name.
        own_name: Returns the model's name for that of another tensor.
        accepted: What is accepted besides embedding tables, for the message of the error.

    Raises:
        ConfigError: The model has no such tensor, or two are for the same one.
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
