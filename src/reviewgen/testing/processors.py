"""The laws of the logits processor contract in ``reviewgen.protocols``, one function each.

A law is called with the factory that the entry point names. It is checked with the tokenizers
``char`` and ``word``, trained on ``TRAINING_TEXTS``. There are no laws for a ``TokenAutomaton``. T
time (tokens), V vocabulary.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from reviewgen.protocols.checks import assert_close, asserting
from reviewgen.protocols.extensions import TokenAutomaton
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.testing.laws import Laws, assert_unchanged
from reviewgen.testing.tokenizers import TRAINING_TEXTS, make_tokenizer

CONDITIONS = 3  # ids of conditions, which follow the tokenizer's ids
MANY = 300  # tokens of a long text


@lru_cache(maxsize=1)
def _tokenizers() -> tuple[Tokenizer, ...]:
    """Return the tokenizers that the laws use; they are trained once."""
    return make_tokenizer("char"), make_tokenizer("word")


def _cases(factory: Callable[[Any], Any]) -> list[tuple[Any, Any, Tokenizer]]:
    """Return the arguments of each call of a law: a processor, its factory and the tokenizer that
    it was made with. An automaton is left out, since it is checked where it is used.
    """
    cases = [(factory(tokenizer), factory, tokenizer) for tokenizer in _tokenizers()]
    return [case for case in cases if not isinstance(case[0], TokenAutomaton)]


PROCESSOR_LAWS = Laws(_cases)
"""All laws, in the order in which ``check_processor`` checks them."""
law = PROCESSOR_LAWS.law


def check_processor(factory: Callable[[Any], Any]) -> None:
    """Check all laws in order, and stop at the first that the processor breaks.

    Raises:
        AssertionError: A law is broken.
    """
    PROCESSOR_LAWS.check(factory)


@law()
def made(processor: Any, factory: Any, tokenizer: Tokenizer) -> None:
    """The factory takes a tokenizer as its only argument, and returns a function of ids and
    scores.
    """
    assert callable(processor) and not isinstance(processor, type), (
        f"It returned {processor!r:.80}."
    )


@law()
def scores(processor: Any, factory: Any, tokenizer: Tokenizer) -> None:
    """The scores must have the shape (1, V), are not NaN or plus infinity, and leave at least one
    token.

    For a model with conditions, V is larger than the tokenizer's vocab_size. Some of the scores
    that the processor gets are -inf.
    """
    for ids, conditions in product(_texts(tokenizer), (0, CONDITIONS)):
        inputs = _scores(tokenizer, conditions)
        with asserting(f"After {ids.shape[1] - 1} tokens, with V = {inputs.shape[1]}:"):
            result = processor(ids.clone(), inputs.clone())
            assert isinstance(result, Tensor), f"It returned a {type(result).__name__}."
            assert result.shape == inputs.shape, f"The scores have the shape {tuple(result.shape)}."
            wrong = result[~(result < math.inf)]
            assert not len(wrong), f"A score is {wrong[0].item()}."
            assert (result > -math.inf).any(), "It rules out every token."


@law()
def ids_unchanged(processor: Any, factory: Any, tokenizer: Tokenizer) -> None:
    """The processor does not change the ids that it is passed."""
    for ids in _texts(tokenizer):
        with assert_unchanged(ids):
            processor(ids, _scores(tokenizer))


@law()
def no_memory(processor: Any, factory: Any, tokenizer: Tokenizer) -> None:
    """The result must depend on ids and scores only: not on earlier calls, and not on the object
    that is called.

    Otherwise a text would depend on which others are generated beside it.
    """
    texts = list(_texts(tokenizer))
    results = [processor(ids.clone(), _scores(tokenizer)) for ids in texts]
    # in the opposite order, so that other texts have been read before each text
    for ids, expected in reversed([*zip(texts, results, strict=True)]):
        after = processor(ids.clone(), _scores(tokenizer))
        assert_close(after, expected, "The scores are different after other texts.", 0)
        from_new_one = factory(tokenizer)(ids.clone(), _scores(tokenizer))
        assert_close(
            from_new_one,
            expected,
            "The scores are different from another processor of the factory.",
            0,
        )


def _texts(tokenizer: Tokenizer) -> Iterator[Tensor]:
    """Yield ids (1, T): bos alone, the beginnings of texts, and a long text."""
    for text in TRAINING_TEXTS:
        ids = tokenizer.encode(text)
        for length in 0, 1, len(ids) // 2, len(ids):
            yield torch.tensor([[tokenizer.bos_id, *ids[:length]]])
    repeated = tokenizer.encode(TRAINING_TEXTS[-1]) * MANY
    yield torch.tensor([[tokenizer.bos_id, *repeated[:MANY]]])


def _scores(tokenizer: Tokenizer, conditions: int = 0) -> Tensor:
    """Return random scores (1, V), with -inf for bos, for the ids of conditions, and for every
    seventh token.
    """
    size = tokenizer.vocab_size + conditions
    table = torch.randn(1, size, generator=torch.Generator().manual_seed(0)) * 3
    table[:, ::7] = -math.inf
    table[:, [tokenizer.bos_id, *range(tokenizer.vocab_size, size)]] = -math.inf
    return table
