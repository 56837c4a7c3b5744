"""The base class of the recurrent language models: embedding, output layer, initial weights, states
and the forward pass.

Must not know any cell (its equations are in the cell's own file), nor tokenizers, training or text.
Shapes: B batch, T time (tokens), V vocabulary, E embedding, H hidden, L layers, N longest n-gram, K
width of the output layer's input (E if tied, else H). A caller sees tensors with the batch first,
(B, T, ...); inside, time comes first, (T, B, ...), as in ``layers``.

Sources: Press and Wolf 2017, "Using the Output Embedding to Improve Language Models" (tied
embeddings); Saxe et al. 2014 (orthogonal weights).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen.compiled.dropout import drop
from reviewgen.compiled.linear import Bits
from reviewgen.protocols import Operation, count_by_module, match_tensors
from reviewgen.protocols.abilities import Copies, float_arrays
from reviewgen.protocols.graph import ModelGraph
from reviewgen.protocols.inputs import (
    GIVEN_FORMULA,
    check_call,
    group_held,
    hold_given,
    initial_tensors,
    learn_given,
    make_held,
)
from reviewgen.protocols.ngrams import NgramEmbedding
from reviewgen.protocols.stepper import join_state, split_state
from reviewgen_recurrent.config import RecurrentConfig
from reviewgen_recurrent.graph import describe_recurrent
from reviewgen_recurrent.kernels import GATES
from reviewgen_recurrent.layers import Cell, Layers, layer_operations
from reviewgen_recurrent.pointer import Pointer
from reviewgen_recurrent.stepping import RecurrentStepper, state_parts

State: TypeAlias = Tensor | tuple[Tensor, ...]
"""The state of a model, in this order: h, (B, L, H); for the lstm c, (B, L, H); with n-grams the
last N-1 ids, (B, N-1); with conditions or fields their sums, (B, E + 2), see ``hold_given``; with a
pointer its keys and ids, see ``Pointer``. If h is the whole state, it is not in a tuple.
"""

RELU_RECURRENT_GAIN = 0.5
"""Gain of the initial recurrent matrices of gru and lstm with relu. With a gain of 1, the state of
an untrained lstm exceeds 1e30 within 300 tokens; with 0.5 it stays below 5.
"""

KINDS = {
    "embedding": "embeddings",
    "ngrams": "n-gram vectors",
    "recurrent": "recurrent layers",
    "held": "conditions",
    "output": "output layer",
    "pointer": "pointer",
}
"""What the parameters of each module are called in reports. ``held`` is the matrix A that
multiplies the vector of conditions and fields.
"""


def _operation(
    name: str, formula: str, x: Tensor, axes: str, parameters: int, multiplications: int = 0
) -> Operation:
    """Return an operation whose result is ``x``, (T, B, ...)."""
    return Operation(
        name=name,
        formula=formula,
        values=x.transpose(0, 1),
        axes=axes,
        parameters=parameters,
        multiplications=multiplications,
    )


class Output(nn.Module):
    """The parameters of the output layer. A call returns the layer's input x; the model itself
    computes the logits, W x + b.

    W is a matrix of its own, (V, H). If the layer is tied, W is the embedding table, (V, E). Then
    ``weight`` is None, so that a saved model contains the table only once, and a projection brings
    h to width E if H differs from E.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.projection: nn.Module = nn.Identity()
        self.weight: nn.Parameter | None = None
        if not config.tied:
            weight = torch.empty(config.vocab_size, config.hidden_size)
            self.weight = nn.Parameter(nn.init.normal_(weight, std=config.hidden_size**-0.5))
        elif config.hidden_size != config.embedding_size:
            self.projection = nn.Linear(config.hidden_size, config.embedding_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(
        self, hidden: Float[Tensor, "T B H"], shift: Float[Tensor, "T B K"] | None
    ) -> Float[Tensor, "T B K"]:
        """Return x, the input of the output layer: the hidden state, projected if there is a
        projection, plus ``shift``, the vector of conditions and fields, if there is one.
        """
        projected: Tensor = self.projection(hidden)
        return projected if shift is None else projected + shift


class Recurrent(nn.Module):
    """Base class of the recurrent language models. A subclass adds its cell and torch's layer.

    With ``pointer`` above 0, tokens of the text can be copied, see ``Pointer``: the logits are then
    log probabilities, and the state has the keys and ids of the last tokens.

    Returns logits; see ``reviewgen.protocols.LanguageModel``.
    """

    cell: ClassVar[Cell]
    Torch: ClassVar[type[nn.RNNBase]]
    Stepper: ClassVar[type[RecurrentStepper]]

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        # a tied embedding starts small, so that the logits are small
        std = config.embedding_size**-0.5 if config.tied else 1.0
        nn.init.normal_(self.embedding.weight, std=std)
        self.ngrams: NgramEmbedding | None = None
        if config.ngrams > 1:
            self.ngrams = NgramEmbedding(config, config.embedding_size)
        self.recurrent = self.Torch(config.embedding_size, config.hidden_size, config.layers)
        self.layers = Layers(self.cell, config)
        self.output = Output(config)
        output_width = config.embedding_size if config.tied else config.hidden_size
        # A, the matrix of conditions and fields
        self.held = make_held(config, output_width, config.embedding_size)
        self.pointer = Pointer(config, output_width) if config.pointer else None
        self.parts = state_parts(config, len(self.cell.state))
        self.initialise()

    def initialise(self) -> None:
        """Initialise the layers gate by gate: Glorot for input matrices, orthogonal for recurrent
        matrices, zero for biases.

        An orthogonal matrix keeps the length of a vector, so signals and gradients neither fade nor
        grow over time.
        """
        gain = RELU_RECURRENT_GAIN if self.config.activation == "relu" else 1.0
        for name, weights in self.recurrent.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(weights)
                continue
            for gate in weights.detach().chunk(GATES[self.cell.kernel]):  # each (H, in)
                if name.startswith("weight_hh"):
                    nn.init.orthogonal_(gate, gain)
                else:
                    nn.init.xavier_uniform_(gate)

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token: zeros, and with n-grams the id V, which stands
        for each token before the beginning; with a pointer, the ids -1.
        """
        return initial_tensors(self.parts, batch_size, self.embedding.weight)

    def forward(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Return logits for the token after each of ``ids``, and the state after the last.

        Raises:
            ShapeError: The ids or a tensor of the state have another shape.
        """
        features, after = self.features(ids, state)
        logits = F.linear(features.transpose(0, 1), *self.output_layer()).transpose(0, 1)
        copies = self.copies(features, ids, state)
        if copies is not None:
            return copies.mix(logits), after
        return logits, after

    def features(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T K"], State]:
        """Return the input of the output layer, and the state after the last token; see
        ``reviewgen.protocols.SupportsOutputLayer``.

        Raises:
            ShapeError: The ids or a tensor of the state have another shape.
        """
        config = self.config
        table = self.embedding.weight
        # ``memory`` is [h], or [h, c] for the lstm. The other parts are None if the model does not
        # need them: the last ids, for n-grams; the sums of conditions and fields; and the keys and
        # ids of the pointer.
        *memory, past, sums, keys, seen = check_call(self.parts, ids, state)
        vectors = table
        if self.training and config.token_dropout > 0:
            # a mask (V, 1) times the table (V, E): some tokens lose their whole embedding
            mask = drop(torch.ones_like(table[:, :1]), config.token_dropout, self.training)
            vectors = table * mask
        x = F.embedding(ids.T, vectors)  # (T, B, E)
        if self.ngrams is not None:
            x = x + self.ngrams(ids.T, past.T)
            past = torch.cat([past, ids], dim=1)[:, -past.size(1) :]
        shift = None
        if self.held is not None:
            conditions, sums = hold_given(config, table, ids, sums)
            shift = F.linear(learn_given(conditions, self.training).transpose(0, 1), self.held)
        x = drop(x, config.embedding_dropout, self.training, config.locked_dropout)
        # the state as the layers need it: each part is (L, B, H)
        before = tuple(part.transpose(0, 1).to(x.dtype).contiguous() for part in memory)
        x, after = self.layers(self.recurrent, x, before)  # (T, B, H)
        x = drop(x, config.output_dropout, self.training, config.locked_dropout)
        x = self.output(x, shift).transpose(0, 1)  # (B, T, K)
        # the state as a caller sees it: each part is (B, L, H)
        memory = [part.to(table.dtype).transpose(0, 1) for part in after]
        if self.pointer is not None:
            keys, seen = self.pointer.advance(x, ids, keys, seen)
        return x, join_state(*memory, past, sums, keys, seen)

    def copies(
        self, features: Float[Tensor, "B T K"], ids: Int[Tensor, "B T"], state: State
    ) -> Copies | None:
        """Return what the pointer copies, None without a pointer; see
        ``reviewgen.protocols.SupportsPointer``.
        """
        if self.pointer is None:
            return None
        *_, keys, seen = split_state(self.parts, state)
        return self.pointer(features, ids, keys, seen)  # type: ignore[no-any-return]  # the call of a module is untyped

    def output_layer(self) -> tuple[Float[Tensor, "V K"], Float[Tensor, " V"]]:
        """Return the weight and the bias of the output layer; see
        ``reviewgen.protocols.SupportsOutputLayer``.
        """
        weight = self.output.weight
        return self.embedding.weight if weight is None else weight, self.output.bias

    def operations(self, ids: Int[Tensor, "B T"], state: State) -> Iterator[Operation]:
        """Yield the operations of a call in evaluation mode; see
        ``reviewgen.protocols.SupportsOperations``.

        Raises:
            ShapeError: The ids or a tensor of the state have another shape.
        """
        config = self.config
        table = self.embedding.weight
        # the parts of the state, as in ``features``
        *memory, past, sums, keys, seen = check_call(self.parts, ids, state)
        x = self.embedding(ids.T)  # (T, B, E)
        yield _operation("embedding", "x_t = e[ids_t]", x, "B T E", table.numel())
        if self.ngrams is not None:
            x = x + self.ngrams(ids.T, past.T)
            formula = (
                f"x_t = e[ids_t] + the sum of the embeddings of the last 2 to {config.ngrams}"
                " tokens"
            )
            size = self.ngrams.table.weight.numel()
            yield _operation("n-gram embeddings", formula, x, "B T E", size)
        shift = None
        if self.held is not None:
            conditions = hold_given(config, table, ids, sums)[0].transpose(0, 1)  # (T, B, E)
            yield _operation("given", GIVEN_FORMULA, conditions, "B T E", 0)
            shift = F.linear(conditions, self.held)
            size = self.held.numel()
            yield _operation("held", "a_t = A g_t", shift, "B T K", size, size * ids.numel())
        for layer, weights in enumerate(self.recurrent.all_weights):
            suffix = f", layer {layer + 1}" if config.layers > 1 else ""
            before = tuple(part[:, layer] for part in memory)  # each (B, H)
            *gates, hidden = layer_operations(self.cell, config, tuple(weights), x, before, suffix)
            yield from gates
            yield hidden
            x = hidden.values.transpose(0, 1)  # h of this layer, (T, B, H)
        # the projection (if there is one) and the product with W
        *projection, scores = self._output_operations(x, shift)
        yield from projection
        if self.pointer is None:
            yield scores
            return
        # with a pointer, the scores are not the logits yet: the pointer makes these of them
        formula = scores.formula.replace("logits_t", "u_t")
        yield replace(scores, name="output layer", formula=formula)
        features = self.output(x, shift).transpose(0, 1)  # (B, T, K)
        yield from self.pointer.operations(features, ids, keys, seen, scores.values)

    def _output_operations(
        self, hidden: Float[Tensor, "T B H"], shift: Float[Tensor, "T B K"] | None
    ) -> Iterator[Operation]:
        """Yield the operations after the last layer: the projection (if there is one) and the
        logits.
        """
        output = self.output
        tokens = hidden[..., 0].numel()
        features = "h_t"
        if isinstance(output.projection, nn.Linear):
            size = output.projection.weight.numel()
            projected = output.projection(hidden)
            features = "p_t"
            yield _operation("projection", "p_t = W_p h_t", projected, "B T E", size, size * tokens)
        if shift is not None:
            features = f"({features} + a_t)"
        weight, bias = self.output_layer()
        matrix = "e" if output.weight is None else "W_out"
        # the parameters of a tied matrix were counted with the embedding
        parameters = bias.numel() + (0 if output.weight is None else weight.numel())
        yield _operation(
            "logits",
            f"logits_t = {matrix} {features} + b_out",
            F.linear(output(hidden, shift), weight, bias),
            "B T V",
            parameters,
            weight.numel() * tokens,
        )

    def initial_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors from elsewhere under the names that they have in this model.

        Accepted are the names of ``state_dict``, the names of torch's layer (such as
        ``weight_ih_l0``), and the names of an embedding table (such as ``weight``; see
        ``is_embedding_table``). The names of torch's layer may have a prefix, as in
        ``rnn.weight_ih_l0``; it is ignored.

        Raises:
            ConfigError: A name is not accepted, or two tensors stand for the same tensor of this
                model.
        """
        names = self.state_dict().keys()

        def own_name(name: str) -> str:
            """Return this model's name for a tensor of torch's layer, such as
            ``recurrent.weight_ih_l0`` for ``rnn.weight_ih_l0``. Other names stay unchanged.
            """
            layers_name = f"recurrent.{name.rpartition('.')[2]}"
            return layers_name if layers_name in names else name

        accepted = "the tensors of torch's layer, as weight_ih_l0, and the model's own"
        return match_tensors(self, tensors, own_name, accepted)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return a parameter group for the matrix of conditions and fields, which has a lower
        learning rate. See ``reviewgen.protocols.SupportsParameterGroups``.
        """
        return group_held(self.held)

    def parameter_kinds(self) -> dict[str, int]:
        """Return the number of parameters of each kind; see
        ``reviewgen.protocols.SupportsParameterKinds``.
        """
        return {KINDS[module]: count for module, count in count_by_module(self).items()}

    def scale_logits(self, scale: float) -> bool:
        """Multiply the logits by a number; see ``reviewgen.protocols.SupportsScaledLogits``.

        Return False, and change nothing, if the embedding table is the only matrix of the output
        layer: scaling this table would change the embeddings. The logits of a model with a pointer
        are log probabilities, which cannot be scaled.
        """
        if self.pointer is not None:
            return False
        output = self.output
        scaled = [output.bias, output.weight]
        if output.weight is None:
            if isinstance(output.projection, nn.Identity):
                return False
            # logits = table (projection h + held g) + bias: scale all but the table
            scaled = [output.bias, *output.projection.parameters(), self.held]
        with torch.no_grad():
            for weights in scaled:
                if weights is not None:
                    weights *= scale
        return True

    def implementations(self) -> tuple[str, ...]:
        """Return the names of the available implementations of the layers; the first one is the
        default.
        """
        return self.layers.implementations

    def use_implementation(self, name: str) -> None:
        """Use an implementation of the layers from now on.

        Raises:
            ConfigError: The config does not allow this implementation.
        """
        self.layers.use(name)

    def stepper(self, weight_bits: Bits = 32) -> RecurrentStepper:
        """Return a stepper made from a copy of the current weights, rounded to ``weight_bits``.

        Raises:
            BundleError: A weight is NaN or infinite.
        """
        return self.Stepper(self.config, float_arrays(self), weight_bits)

    def describe_graph(self) -> ModelGraph:
        """Return the computational graph, to be drawn."""
        return describe_recurrent(self.config, self.cell.kernel)
