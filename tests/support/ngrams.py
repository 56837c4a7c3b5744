"""n-gram models that are counted in milliseconds, with and without their own sampling loop, and
models with an exact index.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reviewgen import ReviewModel
from reviewgen.generation.generator import Generator
from reviewgen.generation.model_stepper import make_stepper
from reviewgen.generation.pieces import TokenTexts
from reviewgen.generation.request import Request
from reviewgen.novelty import build_index
from reviewgen.registry.plugins import find_model, find_tokenizer
from tests.support.fakes import LETTERS, TEXTS, TableModel, review_model, table

__all__ = [
    "CHAR",
    "LOOP",
    "WORD",
    "Plain",
    "counted",
    "indexed",
    "longest_copy",
    "looping",
    "only",
    "rows_of",
]

NGRAM = find_model("ngram")[0]
CHAR_TOKENIZER = find_tokenizer("char")[0]
WORD_TOKENIZER = find_tokenizer("word")[0]
CHAR: Any = CHAR_TOKENIZER.train(TEXTS, CHAR_TOKENIZER.Config())
WORD: Any = WORD_TOKENIZER.train(TEXTS * 3, WORD_TOKENIZER.Config(vocab_size=400))
LOOP = ["abcdefg" * 6, "ga cafe bad" * 3]  # no h


class Plain:
    """A model without its own sampling loop."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.config = model.config
        self.Config = type(model.config)
        self.initial_state = model.initial_state
        self.state_dict = model.state_dict
        self.load_state_dict = model.load_state_dict

    def __call__(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.model(ids, state)


def counted(texts: Sequence[str], tokenizer: Any = LETTERS, **settings: Any) -> Any:
    """Return an n-gram model of texts."""
    model: Any = NGRAM(NGRAM.Config(vocab_size=tokenizer.vocab_size, **settings))
    for text in texts:
        model.observe(np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]))
    model.finish()
    return model


def indexed(
    model: Any, texts: Sequence[str], tokenizer: Any = LETTERS, **generation: Any
) -> ReviewModel:
    """Return a ReviewModel with an exact index of texts."""
    ids = list[int]()
    for text in texts:
        ids += [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
    frame = {
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "vocab_size": tokenizer.vocab_size,
    }
    made = review_model(model, tokenizer, **generation)
    rate = sum(map(len, texts)) / (len(ids) - 2 * len(texts))
    made.bundle.index = build_index(
        np.array(ids), **frame, characters_per_token=rate, fingerprint="", form="exact"
    )
    return made


def looping(eos: float = -3.0) -> TableModel:
    """Return a model that favours abcdefgabcdefg... and can generate any token."""
    logits = table(LETTERS.vocab_size, scale=0.5, eos=eos)
    for letter in range(7):
        logits[2 + letter, 2 + (letter + 1) % 7] = 6.0
    return TableModel(logits)


def only(paths: dict[str, str], tokenizer: Any = LETTERS) -> TableModel:
    """Return a model that allows only some tokens after each piece; "" is bos as a key, and eos as
    a value.
    """
    pieces = {piece: token for token, piece in enumerate(TokenTexts(tokenizer).texts) if piece}
    logits = torch.full((tokenizer.vocab_size,) * 2, -torch.inf)
    logits[:, tokenizer.eos_id] = -1e9  # for rows that are never used
    for before, afters in paths.items():
        row = pieces[before] if before else tokenizer.bos_id
        logits[row] = -torch.inf
        for after in afters.split("|"):
            logits[row, pieces[after] if after else tokenizer.eos_id] = 0.0
    return TableModel(logits)


def rows_of(
    model: ReviewModel, prompts: Sequence[str], max_copy: int | None, seed: int = 0, **settings: Any
) -> list[Any]:
    """Return the generated rows, which have the ids, the retries and why each ended, not only the
    texts.
    """
    config = type(model.generation_config)(
        **({"temperature": 1.0, "max_new_tokens": 40} | settings)
    )
    novelty = None if max_copy is None else "filter"
    generator = Generator(make_stepper(model.model), model.tokenizer, index=model.bundle.index)
    return list(
        generator.generate(Request(prompts, config, seed, novelty=novelty, max_copy=max_copy))
    )


def longest_copy(ids: Sequence[int], texts: Sequence[str], tokenizer: Any = LETTERS) -> int:
    """Return the length in tokens of the longest span of ids that occurs in one of the texts."""
    corpus = ["".join(map(chr, tokenizer.encode(text))) for text in texts]
    whole = "".join(map(chr, ids))
    longest = 0
    for start, end in combinations(range(len(ids) + 1), 2):
        if any(whole[start:end] in text for text in corpus):
            longest = max(longest, end - start)
    return longest
