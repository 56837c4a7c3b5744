"""Settings of sampling in one table, and the distribution of the next token that they define, in
plain numpy.

Each way to sample is compared with it: compiled code, an n-gram's own loop, the loop over torch
models, JavaScript.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

SETTINGS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.4},
    {"temperature": 1.9},
    {"temperature": (0.3, 1.0, 2.0)},  # by turns
    {"top_k": 1},
    {"top_k": 3},
    {"top_k": 99},
    {"top_p": 0.4},
    {"top_p": 0.9},
    {"min_p": 0.3},
    {"min_p": 0.05, "temperature": 1.5},
    {"top_k": 5, "top_p": 0.8, "min_p": 0.1, "temperature": 1.3},
    {"repetition_penalty": 1.5},
    {"repetition_penalty": 0.6},
    {"no_repeat_ngram_size": 1, "max_new_tokens": 6},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3, "temperature": 0.3},
    {"min_new_tokens": 6},
    {
        "min_new_tokens": 3,
        "top_p": 0.7,
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2,
        "temperature": 0.8,
    },
    {"max_new_tokens": 1},
    {"do_sample": False},
    {"do_sample": False, "repetition_penalty": 1.3, "min_new_tokens": 4},
]


def reference(
    logits: np.ndarray, text: Sequence[int], new_tokens: int, eos: int, bos: int, **settings: Any
) -> np.ndarray:
    """Return the probability of each token, (V,), after a text (bos first); all zero if every token
    is ruled out.

    The definitions of transformers, one after the other, in the order in which its ``generate``
    applies them.
    """
    scores = np.array(logits, np.float64)
    penalty = settings.get("repetition_penalty", 1.0)
    size = settings.get("no_repeat_ngram_size", 0)
    for token in set(text):
        scores[token] *= penalty if scores[token] < 0 else 1 / penalty
    for start in range(len(text) - size + 1 if size else 0):
        *before, last = text[start : start + size]
        if before == list(text[len(text) - size + 1 :]):
            scores[last] = -np.inf
    if new_tokens < settings.get("min_new_tokens", 0):
        scores[eos] = -np.inf
    scores[bos] = -np.inf
    if scores.max() == -np.inf:
        return np.zeros(len(scores))
    if settings.get("do_sample") is False:
        return np.eye(len(scores))[scores.argmax()]
    temperatures = np.atleast_1d(settings.get("temperature", 1.0))
    probs = np.exp((scores - scores.max()) / temperatures[new_tokens % len(temperatures)])
    if top_k := settings.get("top_k", 0):
        probs[probs < np.sort(probs)[::-1][:top_k][-1]] = 0  # ties stay
    order = np.argsort(-probs, kind="stable")
    before = np.cumsum(probs[order]) - probs[order]
    probs[order[before >= settings.get("top_p", 1.0) * probs.sum()]] = 0
    probs[probs < settings.get("min_p", 0.0) * probs.max()] = 0
    return np.asarray(probs / probs.sum())


def reference_tokens(
    logits_after: Any,
    text: Sequence[int],
    uniform: Any,
    draw: Any,
    eos: int,
    bos: int,
    **settings: Any,
) -> tuple[list[int], str]:
    """Return the tokens sampled after a text, token by token, and why they end.

    Args:
        logits_after: Returns the logits (V,) after some ids.
        text: The ids before, bos first.
        uniform: An iterator of random numbers.
        draw: Returns the token of some probabilities and a random number.
        eos, bos, settings: As in ``reference``.
    """
    ids = list(text)
    for new_tokens in range(settings["max_new_tokens"]):
        probs = reference(logits_after(ids), ids, new_tokens, eos, bos, **settings)
        if not probs.any():
            return ids[len(text) :], "stuck"
        token = draw(probs, next(uniform))
        if token == eos:
            return ids[len(text) :], "end"
        ids.append(token)
    return ids[len(text) :], "length"
