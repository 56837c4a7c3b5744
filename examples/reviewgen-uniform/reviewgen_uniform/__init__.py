"""A model that gives every token the same probability: the smallest complete plugin for reviewgen.

To make your own, copy the package, rename it, and replace ``forward``. A plugin may import
``reviewgen.config``, ``reviewgen.protocols``, ``reviewgen.errors`` and ``reviewgen.compiled``, and
nothing else of reviewgen.

Shapes: B batch, T time (tokens), V vocabulary.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from reviewgen.config import Bound, check

__all__ = ["Uniform", "UniformConfig"]


@dataclass(frozen=True, kw_only=True)
class UniformConfig:
    """The settings of the model, which are saved with it.

    ``vocab_size`` comes first and is taken from the tokenizer. Add your own settings after it, each
    with a type (bool, int, float, str or a Literal), a default, and a line below; ``Bound`` limits
    the accepted values. Users set one with ``--set model.NAME=VALUE``.

    Attributes:
        vocab_size: Number of token ids, V.
    """

    vocab_size: Annotated[int, Bound(at_least=1)]

    def __post_init__(self) -> None:
        check(self)  # of types and bounds


class Uniform(nn.Module):
    """A language model in which all tokens are equally probable: log2(V) bits a token, whatever the
    text.

    >>> model = Uniform(UniformConfig(vocab_size=4))
    >>> logits, state = model(torch.tensor([[0, 3, 2]]), model.initial_state(1))
    >>> logits.shape
    torch.Size([1, 3, 4])
    """

    Config = UniformConfig  # reviewgen finds the settings here

    def __init__(self, config: UniformConfig) -> None:
        """Build the model from its config, the only argument: a saved config is enough to build it
        again.
        """
        super().__init__()
        self.config = config

    def initial_state(self, batch_size: int) -> tuple[()]:
        """Return the state before the first token: a tensor, or a nested tuple of tensors, each
        with B first; here, none.
        """
        return ()

    def forward(self, ids: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """Return logits (B, T, V), where ``logits[b, t]`` are of the token after ``ids[b, t]``, and
        the state after ``ids``.
        """
        batch, time = ids.shape
        return torch.zeros(batch, time, self.config.vocab_size, device=ids.device), state
