"""Models of the plugins, made directly: networks with random weights, and n-grams counted from
texts of ids.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reviewgen.compiled import SamplingParams
from reviewgen.registry.plugins import find_model

__all__ = [
    "BOS",
    "EOS",
    "LINES",
    "PLAIN",
    "count_ngram",
    "ids_of",
    "log_probabilities",
    "make_blend",
    "make_network",
    "train_mixing",
]
__all__ += ["random_texts", "spell"]

BOS = 0
EOS = 1
LINES = ("the band plays on", "the band is loud", "a quiet song", "loud and quiet")
GIVEN = {"bos_id": BOS, "condition_ids": 3, "field_ids": 3}
"""Settings of a network that holds what a text is given: the last ids are three of conditions, two
of fields, and their end.
"""

PLAIN = SamplingParams(np.ones(1), 0, 1.0, 0.0, 1.0, 0, 0, 1 << 40, False, EOS, BOS, 11)
"""No setting of sampling but the temperature, 1; 11 ids."""


def make_network(name: str, *, seed: int = 0, **settings: Any) -> Any:
    """Return an rnn, gru, lstm, nnlm or transformer with random weights; those that are zero in a
    fresh model, too.
    """
    cls: Any = find_model(name)[0]
    torch.manual_seed(seed)
    sizes = {"vocab_size": 11, "hidden_size": 7}
    if name != "transformer":
        sizes["embedding_size"] = 5
    model = cls(cls.Config(**(sizes | settings))).eval()
    for key, parameter in model.named_parameters():
        if any(part in key for part in ("bias", "ngrams", "held", "pointer")):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def make_blend(
    models: Sequence[Any],
    names: Sequence[str],
    weights: Sequence[float] = (0.5, 0.5),
    gate: Any = None,
) -> Any:
    """Return a blend of models of some plugins."""
    blend: Any = find_model("blend")[0]
    return blend.from_models(models, [find_model(name)[1] for name in names], weights, gate)


def count_ngram(
    texts: Sequence[Sequence[int]],
    vocab_size: int,
    order: int,
    smoothing: str = "kneser-ney",
    **more: Any,
) -> Any:
    """Return an n-gram model of texts of ids, and what it reports."""
    cls: Any = find_model("ngram")[0]
    model = cls(cls.Config(vocab_size=vocab_size, order=order, smoothing=smoothing, **more))
    for text in texts:
        model.observe(np.array(text, np.int64))
    return model, model.finish()


def train_mixing(texts: Sequence[Sequence[int]], vocab_size: int, **settings: Any) -> Any:
    """Return a mixing model of texts of ids."""
    cls: Any = find_model("mixing")[0]
    model = cls(cls.Config(vocab_size=vocab_size, **settings))
    for text in texts:
        model.observe(np.array(text, np.int64))
    model.finish()
    return model


def spell(*lines: str) -> list[list[int]]:
    """Return lines as texts of ids: one id for each character."""
    return [[BOS, *map(ord, line), EOS] for line in lines]


def random_texts(count: int, seed: int = 0) -> list[list[int]]:
    """Return texts of the ids 2 to 5, the smaller ones more frequent; the longest have 29."""
    rng = np.random.default_rng(seed)
    return [
        [
            BOS,
            *rng.choice([2, 3, 4, 5], rng.integers(0, 30), p=[0.6, 0.25, 0.1, 0.05]).tolist(),
            EOS,
        ]
        for _ in range(count)
    ]


def ids_of(*texts: Sequence[int]) -> Tensor:
    """Return texts of the same length as ids (B, T)."""
    return torch.tensor(texts, dtype=torch.int64)


def log_probabilities(model: Any, *texts: Sequence[int]) -> Tensor:
    """Return the logits of an n-gram model after each position of texts of the same length, (B, T,
    V), in double precision.
    """
    logits: Tensor = model(ids_of(*texts), model.initial_state(len(texts)))[0]
    return logits.double()
