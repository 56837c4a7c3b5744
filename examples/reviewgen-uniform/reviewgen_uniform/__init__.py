"""A model that gives every token the same probability: the smallest complete plugin for reviewgen.

Copy it, rename it, and replace ``forward``. A plugin imports ``reviewgen.config``, ``reviewgen.protocols`` and
``reviewgen.errors``, and nothing else of reviewgen. B batch, T time (tokens), V vocabulary.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from reviewgen.config import Bound, check

__all__ = ["Uniform", "UniformConfig"]


@dataclass(frozen=True, kw_only=True)
class UniformConfig:
    """What builds the model, and what is saved with it.

    ``vocab_size`` comes first and is filled in from the tokenizer. Every other field is a setting of yours, with a default: a
    bool, int, float, str or Literal. Users set it with ``--set model.<field>=...``; ``Bound`` says which values are accepted.
    """

    vocab_size: Annotated[int, Bound(at_least=1)]

    def __post_init__(self) -> None:
        check(self)  # checks types and bounds


class Uniform(nn.Module):
    """Every token is as probable as any other: log2(V) bits a token, whatever the text.

    >>> model = Uniform(UniformConfig(vocab_size=4))
    >>> logits, state = model(torch.tensor([[0, 3, 2]]), model.initial_state(1))
    >>> logits.shape
    torch.Size([1, 3, 4])
    """

    Config = UniformConfig  # where reviewgen finds the settings

    def __init__(self, config: UniformConfig) -> None:
        """The config is the only argument, so a saved config is enough to build the model again."""
        super().__init__()
        self.config = config

    def initial_state(self, batch_size: int) -> tuple[()]:
        """What the model remembers before the first token: a tensor or a nested tuple of tensors with B first; here nothing."""
        return ()

    def forward(self, ids: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """Return logits (B, T, V), where ``logits[b, t]`` scores the token after ``ids[b, t]``, and the state afterwards."""
        batch, time = ids.shape
        return torch.zeros(batch, time, self.config.vocab_size, device=ids.device), state
