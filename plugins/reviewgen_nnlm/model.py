"""The feed-forward neural n-gram model (Bengio et al. 2003): embeddings of the last n-1 tokens, a hidden layer, an output layer.

Must not know tokenizers, training or text. Shapes: B batch, T time (tokens), V vocabulary, E embedding, H hidden, n order.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen.compiled.linear import Bits
from reviewgen.protocols import Operation, match_tensors
from reviewgen.protocols.graph import ModelGraph
from reviewgen.protocols.shapes import check_ids, check_shape, check_state
from reviewgen_nnlm.config import NnlmConfig
from reviewgen_nnlm.graph import describe_nnlm
from reviewgen_nnlm.stepping import NnlmStepper


class Nnlm(nn.Module):
    """A language model that sees the last n-1 tokens, like an n-gram model, but shares what it learns among similar contexts.

    Bengio, Ducharme, Vincent and Jauvin 2003, "A Neural Probabilistic Language Model", without the optional direct connections
    from embeddings to output. With e the embedding (V+1, E), whose last row is used before the beginning of a text::

        x_t = [e[ids_{t-n+2}], ..., e[ids_t]]       (B, (n-1) E), oldest first
        h_t = tanh(W_hidden x_t + b_hidden)         (B, H), or relu
        logits_t = W_out h_t + b_out                (B, V)

    Returns logits; see ``reviewgen.protocols.LanguageModel``.

    The state is the last n-1 ids, (B, n-1), padded with the id V before the beginning. Training feeds one long stream, in which
    no context is padded; so in training, one row in four starts a new context at a random token, as texts do in inference.
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

    def initial_state(self, batch_size: int) -> Int[Tensor, "B K"]:
        """Return the state before the first token: n-1 times the id V."""
        shape = (batch_size, self.config.order - 1)
        return torch.full(shape, self.config.vocab_size, dtype=torch.long, device=self.embedding.weight.device)

    def forward(self, ids: Int[Tensor, "B T"], state: Int[Tensor, "B K"]) -> tuple[Float[Tensor, "B T V"], Int[Tensor, "B K"]]:
        """Return logits of the token after each of ``ids``, and the last n-1 ids (K = n-1).

        Raises:
            ShapeError: The ids or the state have another shape.
        """
        context = self.config.order - 1
        self._check(ids, state)
        seen = torch.cat([state, ids], dim=1)  # (B, n-1+T)
        x = self.embedding(seen[:, 1:])  # (B, n-2+T, E)
        parts = [x[:, k : k + ids.size(1)] for k in range(context)]  # (B, T, E) each, oldest first
        if self.training:
            parts = self._restart_some_rows(parts)
        x = torch.cat(parts, dim=-1)  # (B, T, (n-1) E)
        h = self.dropout(self.activation(self.hidden(x)))  # (B, T, H)
        return self.output(h), seen[:, -context:]

    def operations(self, ids: Int[Tensor, "B T"], state: Int[Tensor, "B K"]) -> Iterator[Operation]:
        """Yield what a call in evaluation mode computes; see ``reviewgen.protocols.SupportsOperations``.

        Raises:
            ShapeError: The ids or the state have another shape.
        """
        context, function = self.config.order - 1, "relu" if self.config.activation == "relu" else "tanh"
        self._check(ids, state)
        window = torch.cat([state, ids], dim=1)[:, 1:].unfold(1, context, 1)  # (B, T, K), oldest first
        yield Operation(name="window", formula="ids_{t-n+2} ... ids_t", values=window, axes="B T K", kind="window")
        e = self.embedding(window)  # (B, T, K, E)
        count = self.embedding.weight.numel()
        yield Operation(name="embeddings", formula="e[ids_{t-n+2}], ..., e[ids_t]", values=e, axes="B T K E", parameters=count)
        x = e.flatten(2)  # (B, T, K E)
        yield Operation(name="concatenation", formula="x_t = [e[ids_{t-n+2}], ..., e[ids_t]]", values=x, axes="B T KE")
        h = self.activation(self.hidden(x))  # (B, T, H)
        yield _product(self.hidden, "hidden layer", f"h_t = {function}(W_hidden x_t + b_hidden)", h, "B T H")
        yield _product(self.output, "logits", "logits_t = W_out h_t + b_out", self.output(h), "B T V")

    def _check(self, ids: Tensor, state: Tensor) -> None:
        sizes = {"B": check_ids(ids), "K": self.config.order - 1}
        check_shape("The state", *check_state(state, 1), sizes, is_integer=True)

    def _restart_some_rows(self, parts: list[Tensor]) -> list[Tensor]:
        """Return the embeddings of the contexts, (B, T, E) each; in some rows a text start is simulated at a random token."""
        rows, length, _ = parts[0].shape
        padding = self.embedding.weight[self.config.vocab_size]
        time = torch.arange(length, device=padding.device)
        start = torch.randint(4 * length, (rows, 1), device=padding.device)  # past the end in three rows of four
        return [
            torch.where(((time >= start) & (time - back < start)).unsqueeze(-1), padding, part)
            for back, part in zip(range(len(parts) - 1, -1, -1), parts, strict=True)
        ]

    def initial_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of this model that those of an embedding table, or of a model of this kind, give.

        Accepted are the names of ``state_dict``, and those of an embedding table, see ``is_embedding_table``. A table of another
        model has V rows; the vector before the beginning of a text then stays random.

        Raises:
            ConfigError: A tensor is none of these, or two are for the same one.
        """
        given = match_tensors(self, tensors, str, "and the model's own, as hidden.weight")
        table, own_table = given.get("embedding.weight"), self.embedding.weight.detach()
        if table is not None and table.shape == own_table[1:].shape:
            given["embedding.weight"] = torch.cat([table.to(own_table), own_table[-1:]])
        return given

    def stepper(self, weight_bits: Bits = 32) -> NnlmStepper:
        """Return a stepper made from a copy of the current weights, rounded to ``weight_bits``.

        Raises:
            BundleError: A weight is NaN or infinite.
        """
        arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in self.state_dict().items()}
        return NnlmStepper(self.config, arrays, weight_bits)

    def describe_graph(self) -> ModelGraph:
        """Return the computational graph, for pictures."""
        return describe_nnlm(self.config)


def _product(layer: nn.Linear, name: str, formula: str, values: Tensor, axes: str) -> Operation:
    """Return the operation of a linear layer, perhaps with an activation function after it."""
    parameters, multiplications = layer.weight.numel() + layer.bias.numel(), values.numel() * layer.in_features
    return Operation(name=name, formula=formula, values=values, axes=axes, parameters=parameters, multiplications=multiplications)
