"""The feed-forward neural n-gram model (Bengio et al. 2003): embeddings of the last n-1 tokens, a
hidden layer, an output layer.

Must not know tokenizers, training or text. Shapes: B batch, T time (tokens), V vocabulary, E
embedding, H hidden, n the order, K = n-1 tokens of context.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen.compiled.linear import Bits
from reviewgen.protocols import Operation, State, count_by_module, match_tensors
from reviewgen.protocols.abilities import float_arrays
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph
from reviewgen.protocols.inputs import (
    GIVEN_FORMULA,
    check_call,
    group_held,
    hold_given,
    initial_tensors,
    learn_given,
    make_held,
)
from reviewgen.protocols.stepper import join_state
from reviewgen_nnlm.config import NnlmConfig
from reviewgen_nnlm.stepping import NnlmStepper, state_parts

KINDS = {
    "embedding": "embeddings",
    "hidden": "hidden layer",
    "held": "conditions",
    "output": "output layer",
}
"""What the parameters of each module are called in reports. ``held`` is the matrix A that
multiplies the vector of conditions and fields.
"""


class Nnlm(nn.Module):
    """A language model that predicts a token from the n-1 tokens before it. Unlike an n-gram model,
    this model shares what it learns among similar contexts.

    Bengio, Ducharme, Vincent and Jauvin 2003, "A Neural Probabilistic Language Model", without the
    optional direct connections from embeddings to output. The embedding table e has V+1 rows of
    width E. Its last row stands for each position before the beginning of a text::

        x_t = [e[ids_{t-n+2}], ..., e[ids_t]]       (B, (n-1) E), oldest first
        h_t = tanh(W_hidden x_t + b_hidden)         (B, H), or relu
        logits_t = W_out h_t + b_out                (B, V)

    Returns logits; see ``reviewgen.protocols.LanguageModel``.

    The state holds the last n-1 ids, (B, n-1), padded with the id V before the beginning. Training
    feeds one long stream of tokens, in which no context is padded. In training, one row in four
    therefore starts a new context at a random token, as texts do in inference.

    A model with ids of conditions or fields adds ``A g_t`` to the hidden layer's input. ``g_t`` is
    the vector of the conditions and fields of the text (``reviewgen.protocols.inputs``). The state
    is then a pair: the last ids, and the sums from which ``g_t`` is computed, (B, E + 2).
    """

    Config: ClassVar[type] = NnlmConfig

    def __init__(self, config: NnlmConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size + 1, config.embedding_size)
        self.hidden = nn.Linear((config.order - 1) * config.embedding_size, config.hidden_size)
        self.activation = nn.ReLU() if config.activation == "relu" else nn.Tanh()
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_size, config.vocab_size)
        nn.init.normal_(self.embedding.weight)
        nn.init.normal_(self.output.weight, std=config.hidden_size**-0.5)
        nn.init.xavier_uniform_(self.hidden.weight, nn.init.calculate_gain(config.activation))
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.output.bias)
        # A, the matrix of conditions and fields
        self.held = make_held(config, config.hidden_size, config.embedding_size)
        self.parts = state_parts(config)

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token: the id V, n-1 times, and zero sums if the model
        has conditions or fields.
        """
        return initial_tensors(self.parts, batch_size, self.embedding.weight)

    def forward(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Return logits for the token after each of ``ids``, and the state after the last.

        Raises:
            ShapeError: The ids or the state have another shape.
        """
        features, after = self.features(ids, state)
        return self.output(features), after

    def features(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T H"], State]:
        """Return the input of the output layer, and the state after the last token; see
        ``reviewgen.protocols.SupportsOutputLayer``.

        Raises:
            ShapeError: The ids or the state have another shape.
        """
        context = self.config.order - 1
        last, sums = check_call(self.parts, ids, state)
        seen = torch.cat([last, ids], dim=1)  # (B, n-1+T)
        # the oldest id is not in the context of any of ``ids``
        x = self.embedding(seen[:, 1:])  # (B, n-2+T, E)
        window = [x[:, k : k + ids.size(1)] for k in range(context)]  # (B, T, E) each, oldest first
        if self.training:
            window = self._restart_some_rows(window)
        h = self.hidden(torch.cat(window, dim=-1))  # (B, T, H)
        if self.held is not None:
            table = self.embedding.weight
            conditions, sums = hold_given(self.config, table, ids, sums)  # (B, T, E)
            h = h + F.linear(learn_given(conditions, self.training), self.held)
        return self.dropout(self.activation(h)), join_state(seen[:, -context:], sums)

    def output_layer(self) -> tuple[Float[Tensor, "V H"], Float[Tensor, " V"]]:
        """Return the weight and the bias of the output layer; see
        ``reviewgen.protocols.SupportsOutputLayer``.
        """
        return self.output.weight, self.output.bias

    def operations(self, ids: Int[Tensor, "B T"], state: State) -> Iterator[Operation]:
        """Yield the operations of a call in evaluation mode; see
        ``reviewgen.protocols.SupportsOperations``.

        Raises:
            ShapeError: The ids or the state have another shape.
        """
        context = self.config.order - 1
        last, sums = check_call(self.parts, ids, state)
        # the last K ids at each token, oldest first, (B, T, K)
        window = torch.cat([last, ids], dim=1)[:, 1:].unfold(1, context, 1)
        yield Operation(
            name="window",
            formula="ids_{t-n+2} ... ids_t",
            values=window,
            axes="B T K",
            kind="window",
        )
        e = self.embedding(window)  # (B, T, K, E)
        yield Operation(
            name="embeddings",
            formula="e[ids_{t-n+2}], ..., e[ids_t]",
            values=e,
            axes="B T K E",
            parameters=self.embedding.weight.numel(),
        )
        x = e.flatten(2)  # (B, T, K E)
        yield Operation(
            name="concatenation",
            formula="x_t = [e[ids_{t-n+2}], ..., e[ids_t]]",
            values=x,
            axes="B T KE",
        )
        hidden = self.hidden(x)  # (B, T, H)
        formula = "W_hidden x_t + b_hidden"
        if self.held is not None:
            conditions, _ = hold_given(self.config, self.embedding.weight, ids, sums)
            yield Operation(name="given", formula=GIVEN_FORMULA, values=conditions, axes="B T E")
            a = F.linear(conditions, self.held)
            yield Operation(
                name="held",
                formula="a_t = A g_t",
                values=a,
                axes="B T H",
                parameters=self.held.numel(),
                multiplications=self.held.numel() * ids.numel(),
            )
            formula = f"{formula} + a_t"
            hidden = hidden + a
        formula = f"h_t = {self.config.activation}({formula})"
        h = self.activation(hidden)
        yield _product(self.hidden, "hidden layer", formula, h, "B T H")
        formula = "logits_t = W_out h_t + b_out"
        yield _product(self.output, "logits", formula, self.output(h), "B T V")

    def _restart_some_rows(self, window: list[Tensor]) -> list[Tensor]:
        """Return the window with some rows of the batch changed. In such a row, a text begins at a
        random token. In the contexts of this token and of those after it, all tokens before it are
        replaced by the padding.

        ``window`` has the embeddings of each position of a context, oldest first, each (B, T, E).
        """
        rows, length, _ = window[0].shape
        padding = self.embedding.weight[self.config.vocab_size]
        time = torch.arange(length, device=padding.device)
        # in three rows of four, the start is past the end, so nothing changes
        start = torch.randint(4 * length, (rows, 1), device=padding.device)
        restarted = []
        # ``embeddings`` are those of the tokens that are ``back`` tokens before the last one
        for back, embeddings in zip(reversed(range(len(window))), window, strict=True):
            is_before_start = (time >= start) & (time - back < start)  # (B, T)
            restarted.append(torch.where(is_before_start.unsqueeze(-1), padding, embeddings))
        return restarted

    def initial_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors from elsewhere under the names that they have in this model.

        Accepted are the names of ``state_dict`` and the names of an embedding table (see
        ``is_embedding_table``). The table of another model has only V rows. Then this model's last
        row, the vector for positions before a text, keeps its random values.

        Raises:
            ConfigError: A name is not accepted, or two tensors stand for the same tensor of this
                model.
        """
        matched = match_tensors(self, tensors, str, "and the model's own, as hidden.weight")
        table = matched.get("embedding.weight")
        own_table = self.embedding.weight.detach()
        # a table of V rows, one less than this model's own
        if table is not None and table.shape == own_table[1:].shape:
            matched["embedding.weight"] = torch.cat([table.to(own_table), own_table[-1:]])
        return matched

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return a parameter group for the matrix of conditions and fields, which has a lower
        learning rate. See ``reviewgen.protocols.SupportsParameterGroups``.
        """
        return group_held(self.held)

    def scale_logits(self, scale: float) -> bool:
        """Multiply the logits by a number; see ``reviewgen.protocols.SupportsScaledLogits``."""
        with torch.no_grad():
            for weights in self.output.parameters():
                weights *= scale
        return True

    def parameter_kinds(self) -> dict[str, int]:
        """Return the number of parameters of each kind; see
        ``reviewgen.protocols.SupportsParameterKinds``.
        """
        return {KINDS[module]: count for module, count in count_by_module(self).items()}

    def stepper(self, weight_bits: Bits = 32) -> NnlmStepper:
        """Return a stepper made from a copy of the current weights, rounded to ``weight_bits``.

        Raises:
            BundleError: A weight is NaN or infinite.
        """
        return NnlmStepper(self.config, float_arrays(self), weight_bits)

    def describe_graph(self) -> ModelGraph:
        """Return the computational graph, to be drawn. For each of the last n-1 tokens, an edge
        leads from the embedding to the window.
        """
        config = self.config
        nodes = tuple(_nodes(config))
        sizes = {"E": config.embedding_size, "H": config.hidden_size, "V": config.vocab_size}
        return ModelGraph(nodes=nodes, edges=tuple(_edges(config)), sizes=sizes)


def _product(layer: nn.Linear, name: str, formula: str, values: Tensor, axes: str) -> Operation:
    """Return the operation of a linear layer. ``values`` is its result, possibly after an
    activation function.
    """
    return Operation(
        name=name,
        formula=formula,
        values=values,
        axes=axes,
        parameters=layer.weight.numel() + layer.bias.numel(),
        multiplications=values.numel() * layer.in_features,
    )


def _nodes(config: NnlmConfig) -> Iterator[GraphNode]:
    """Yield the nodes of the graph, in the order in which they are drawn."""
    hidden = ("hidden.weight", "hidden.bias")
    output = ("output.weight", "output.bias")
    yield GraphNode(id="ids", label="ids", kind="value")
    yield GraphNode(
        id="embedding", label="embedding", detail="e[ids]", parameters=("embedding.weight",)
    )
    yield GraphNode(
        id="window",
        label="concatenate",
        detail=f"x: the last {config.order - 1} tokens",
        kind="operation",
    )
    yield GraphNode(id="hidden", label="hidden layer", detail="W x + b", parameters=hidden)
    yield GraphNode(id="activation", label=config.activation, kind="operation")
    yield GraphNode(id="output", label="output", detail="W h + b", parameters=output)
    yield GraphNode(id="logits", label="logits", kind="value")
    if config.holds:
        detail = "g: Σ e[id] / √n of the given ids"
        yield GraphNode(id="given", label="given", detail=detail, kind="operation")
        yield GraphNode(id="held", label="+ A g", parameters=("held",))


def _edges(config: NnlmConfig) -> Iterator[GraphEdge]:
    """Yield the edges of the graph."""
    context = config.order - 1
    yield _edge("ids", "embedding", "BT")
    for delay in reversed(range(context)):
        yield _edge("embedding", "window", "BTE", delay=delay)
    yield _edge("window", "hidden", ("B", "T", "E" if context == 1 else f"{context}E"))
    yield _edge("hidden", "held" if config.holds else "activation", "BTH")
    yield _edge("activation", "output", "BTH", "h")
    yield _edge("output", "logits", "BTV")
    if config.holds:
        yield _edge("ids", "given", "BT")
        yield _edge("given", "given", "BE", "g", delay=1)
        yield _edge("given", "held", "BTE")
        yield _edge("held", "activation", "BTH")


def _edge(
    source: str, target: str, axes: Sequence[str], label: str = "", delay: int = 0
) -> GraphEdge:
    """Return an edge for a value with these axes. It leads to the step that is ``delay`` later."""
    return GraphEdge(source=source, target=target, axes=tuple(axes), label=label, delay=delay)
