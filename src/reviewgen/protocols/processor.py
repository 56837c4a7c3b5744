"""LogitsProcessorFactory, the contract of what changes the scores of the next token while a text is generated.

Importing this loads no torch; a processor gets torch tensors.
"""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from reviewgen.protocols.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class LogitsProcessor(Protocol):
    """Changes the scores of the next token of one text; the signature is that of transformers' logits processors.

    It is called at every token of every text, so its result depends on its two arguments only: a text is then the same whether it
    is generated alone or with others. transformers' own processors of that kind fit, such as ``SuppressTokensLogitsProcessor``.
    """

    def __call__(self, ids: "Tensor", scores: "Tensor") -> "Tensor":
        """Return the scores (1, V) of the next token.

        Args:
            ids: All tokens so far (1, T), int64: bos, the ids of conditions, then the text with its prompt. They are not changed.
            scores: Logits after the penalties, before temperature and filters (1, V), float32; may be changed in place. V is at
                least the tokenizer's vocab_size: ids from there on are those of conditions, which are never sampled.

        Returns:
            Of the same shape. -inf rules a token out; NaN and plus infinity are errors, and so is ruling out every token.
        """
        ...


@runtime_checkable
class LogitsProcessorFactory(Protocol):
    """Makes a logits processor for a tokenizer; an entry point in ``reviewgen.logits_processors`` is one.

    It is a function, or a class whose constructor takes the tokenizer. It is called once for each call of ``generate``::

        class NoDigits:
            def __init__(self, tokenizer):
                texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
                self.banned = [token for token, text in enumerate(texts) if any(map(str.isdigit, text))]

            def __call__(self, ids, scores):
                scores[:, self.banned] = float("-inf")
                return scores
    """

    def __call__(self, tokenizer: Tokenizer) -> LogitsProcessor:
        """Return a processor for texts of a tokenizer."""
        ...
