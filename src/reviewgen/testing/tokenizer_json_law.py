"""The law of a tokenizer that other programs can use: its ``tokenizer.json`` gives the same ids and texts."""

from collections.abc import Callable, Iterable
from typing import Any

from tokenizers import Tokenizer

from reviewgen.protocols import SupportsTokenizerJson

__all__ = ["check_tokenizer_json"]


def check_tokenizer_json(make: Callable[[], Any], texts: Iterable[str]) -> None:
    """Check that the library ``tokenizers`` encodes texts to the same ids and decodes them to the same texts.

    Args:
        make: Returns a tokenizer; one without the ability passes.
        texts: The texts; those with lone surrogates, which the library does not take, are left out.

    Raises:
        AssertionError: The law is broken.
    """
    tokenizer: Any = make()
    if not _can(tokenizer):
        return
    other: Any = Tokenizer.from_str(tokenizer.tokenizer_json())
    assert other.get_vocab_size() == tokenizer.vocab_size, "tokenizer.json must have as many ids as the tokenizer."
    for text in texts:
        if any("\ud800" <= character <= "\udfff" for character in text):
            continue
        ids = tokenizer.encode(text)
        assert other.encode(text).ids == ids, f"tokenizer.json must encode {text!a:.60} as the tokenizer does."
        decoded = other.decode([tokenizer.bos_id, *ids, tokenizer.eos_id], skip_special_tokens=False)
        assert decoded == tokenizer.decode(ids), f"tokenizer.json must decode the ids of {text!a:.60} as the tokenizer does."


def _can(tokenizer: Any) -> bool:
    return isinstance(tokenizer, SupportsTokenizerJson)
