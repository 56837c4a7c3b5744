"""The laws of the logits processor contract in ``reviewgen.protocols``, one function each.

``factory`` is what the entry point names: called with a tokenizer, it returns a processor. The laws try the tokenizers ``char``
and ``word``, trained on ``TRAINING_TEXTS``. T time (tokens), V vocabulary.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from reviewgen.protocols import Tokenizer
from reviewgen.testing.tokenizer_laws import TRAINING_TEXTS, make_tokenizer

__all__ = ["PROCESSOR_LAWS", "check_processor", "ids_unchanged", "made", "no_memory", "scores"]

Factory = Callable[[Any], Any]

TOKENIZERS = ("char", "word")
CONDITIONS = 3  # ids behind the tokenizer's in a model with conditions
MANY = 300  # tokens of a long text


def check_processor(factory: Factory) -> None:
    """Check all laws in order, and stop at the first that the processor breaks.

    Raises:
        AssertionError: A law is broken.
    """
    for law in PROCESSOR_LAWS:
        law(factory)


def made(factory: Factory) -> None:
    """The factory takes a tokenizer as its only argument, and returns a function."""
    for tokenizer in _tokenizers():
        processor = factory(tokenizer)
        assert callable(processor), f"The factory should return a function of ids and scores; it returned {processor!r}."
        assert not isinstance(processor, type), (
            f"The factory returned the class {processor.__name__}; it should return an object. The class can be the factory."
        )


def scores(factory: Factory) -> None:
    """The scores have the shape (1, V), are not NaN or plus infinity, and leave at least one token.

    V is larger than the tokenizer's vocab_size for a model with conditions; scores that are -inf come in.
    """
    for tokenizer in _tokenizers():
        processor = factory(tokenizer)
        for ids in _texts(tokenizer):
            for conditions in 0, CONDITIONS:
                given = _scores(tokenizer, conditions)
                _check_scores(_call(processor, ids, given), given, ids)


def ids_unchanged(factory: Factory) -> None:
    """The ids are not changed."""
    for tokenizer in _tokenizers():
        processor = factory(tokenizer)
        for ids in _texts(tokenizer):
            passed = ids.clone()
            processor(passed, _scores(tokenizer, 0))
            assert torch.equal(passed, ids), "The processor changes the ids that it is passed; it may change the scores only."


def no_memory(factory: Factory) -> None:
    """The result depends on ids and scores only: not on earlier calls, and not on the object that is called.

    Otherwise a text would depend on which others are generated beside it.
    """
    for tokenizer in _tokenizers():
        processor, given = factory(tokenizer), _scores(tokenizer, 0)
        texts = list(_texts(tokenizer))
        first = [_call(processor, ids, given) for ids in texts]
        again = [_call(processor, ids, given) for ids in reversed(texts)][::-1]
        other = [_call(factory(tokenizer), ids, given) for ids in texts]
        for number, ids in enumerate(texts):
            for result, when in ((again[number], "after other texts"), (other[number], "from another processor of the factory")):
                assert torch.equal(first[number], result), (
                    f"The scores after {ids.shape[1] - 1} tokens are different {when}, by up to "
                    f"{_difference(first[number], result):.3g}; they must depend on ids and scores only."
                )


def _check_scores(result: Any, given: Tensor, ids: Tensor) -> None:
    after = f"after {ids.shape[1] - 1} tokens, with V = {given.shape[1]}"
    assert isinstance(result, Tensor), f"The processor returned {type(result).__name__} {after}; it should return a tensor."
    assert result.shape == given.shape, (
        f"The processor returned scores of shape {tuple(result.shape)} {after}; they should have the shape {tuple(given.shape)}."
    )
    bad = torch.nonzero(~(result < math.inf))
    assert not len(bad), (
        f"The score of token {int(bad[0, 1])} is {float(result[0, bad[0, 1]])} {after}; it must be below infinity."
    )
    assert bool((result > -math.inf).any()), f"The processor rules out every token {after}; at least one must be left."


def _call(processor: Any, ids: Tensor, given: Tensor) -> Any:
    return processor(ids.clone(), given.clone())


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).nan_to_num(posinf=math.inf).abs().max())


@lru_cache(maxsize=1)
def _tokenizers() -> tuple[Tokenizer, ...]:
    return tuple(make_tokenizer(name) for name in TOKENIZERS)


def _texts(tokenizer: Tokenizer) -> Iterator[Tensor]:
    """Yield ids (1, T): bos alone, the beginnings of texts, and a long text."""
    for text in TRAINING_TEXTS:
        ids = tokenizer.encode(text)
        for length in 0, 1, len(ids) // 2, len(ids):
            yield torch.tensor([[tokenizer.bos_id, *ids[:length]]])
    ids = tokenizer.encode(" ".join(TRAINING_TEXTS))
    yield torch.tensor([[tokenizer.bos_id, *(ids * (1 + MANY // len(ids)))[:MANY]]])


def _scores(tokenizer: Tokenizer, conditions: int) -> Tensor:
    """Return random scores (1, V), with -inf for bos, for the ids of conditions, and for every seventh token."""
    size = tokenizer.vocab_size + conditions
    table = torch.randn(1, size, generator=torch.Generator().manual_seed(0)) * 3
    table[:, ::7] = -math.inf
    table[:, tokenizer.bos_id] = -math.inf
    table[:, tokenizer.vocab_size :] = -math.inf
    return table


PROCESSOR_LAWS: tuple[Callable[[Factory], None], ...] = (made, scores, ids_unchanged, no_memory)
"""All laws, in the order in which ``check_processor`` checks them."""
