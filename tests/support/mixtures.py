"""Mixing models, and texts to train them on, which are made here: sentences of invented words, some
much more frequent than others.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reviewgen.registry.plugins import find_model

__all__ = ["BOS", "EOS", "Mixing", "Prose", "count_mixing", "ids_of", "make_prose", "random_expert"]
__all__ += ["score_of", "with_expert"]

BOS = 0
EOS = 1
Mixing: Any = find_model("mixing")[0]
_SYLLABLES = ("ka", "lo", "mi", "ten", "sur", "a", "pro", "de", "qui", "non", "e", "vos")
_ENDS = (".", ".", ".", "!", "?", ", and so on;")


def make_prose(characters: int, seed: int = 0) -> list[str]:
    """Return texts of two sentences, about as many characters as given in all."""
    rng = np.random.default_rng(seed)
    own = np.random.default_rng(99)  # the same words for every seed
    words = ["".join(own.choice(_SYLLABLES, own.integers(1, 4))) for _ in range(400)]
    texts: list[str] = []
    while sum(map(len, texts)) < characters:
        sentences = []
        for _ in range(2):
            chosen = [words[min(rng.zipf(1.4), 400) - 1] for _ in range(rng.integers(3, 10))]
            sentences.append(" ".join(chosen).capitalize() + str(rng.choice(_ENDS)))
        texts.append("\n".join(sentences) if rng.random() < 0.2 else " ".join(sentences))
    return texts


def count_mixing(texts: Sequence[Sequence[int]], vocab_size: int, **settings: Any) -> Any:
    """Return a mixing model of texts of ids."""
    model = Mixing(Mixing.Config(vocab_size=vocab_size, **settings))
    for text in texts:
        model.observe(np.array(text, np.int64))
    model.finish()
    return model


def ids_of(text: Sequence[int]) -> Tensor:
    """Return a text as ids, (1, T)."""
    return torch.tensor([list(text)])


def score_of(model: Any, text: Sequence[int]) -> Tensor:
    """Return the log probability of each symbol of a text after the first, (T,)."""
    ids = ids_of(text)
    scores: Tensor = model.score(ids[:, :-1], ids[:, 1:], model.initial_state(1))[0]
    return scores[0]


class Prose:
    """Texts of ``make_prose`` as ids of their characters, and a mixing model of them."""

    def __init__(self, characters: int, **settings: Any) -> None:
        self.texts = make_prose(characters)
        self.alphabet = "\0\0" + "".join(sorted({*"".join(self.texts), *"éÉß"}))
        self.vocab_size = len(self.alphabet) + 2  # the last two are of conditions, if there are any
        self.has_conditions = bool(settings.get("condition_ids"))
        spelled = [self.spell(text, number % 2) for number, text in enumerate(self.texts)]
        self.model = count_mixing(spelled, self.vocab_size, alphabet=self.alphabet, **settings)

    def spell(self, text: str, condition: int = 1) -> list[int]:
        """Return the ids of a text, between bos, a condition if there are any, and eos."""
        given = [self.vocab_size - 2 + condition] if self.has_conditions else []
        return [BOS, *given, *map(self.alphabet.index, text), EOS]


def random_expert(time: int, vocab_size: int, seed: int = 0) -> Tensor:
    """Return the log probabilities of an expert that guesses, (T, V)."""
    logits = 2 * torch.randn(time, vocab_size, generator=torch.Generator().manual_seed(seed))
    return logits.log_softmax(-1)


def with_expert(model: Any, texts: Sequence[Sequence[int]]) -> Any:
    """Return a model that mixes an expert in, fitted on some texts."""
    size = model.config.vocab_size
    return model.fit_expert(
        (np.array(text), random_expert(len(text), size, number).numpy())
        for number, text in enumerate(texts)
    )
