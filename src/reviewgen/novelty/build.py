"""Builds an index from the token ids of the training text."""

import numpy as np

from reviewgen.compiled.windows import Tokens, cut
from reviewgen.errors import ConfigError, DataError, did_you_mean, quoted
from reviewgen.novelty.base import IndexBase
from reviewgen.novelty.compact import CompactIndex, build_sets
from reviewgen.novelty.exact import ExactIndex, id_dtype, sort_suffixes


def build_index(
    ids: Tokens,
    *,
    bos_id: int,
    eos_id: int,
    vocab_size: int,
    characters: int,
    fingerprint: str,
    form: str = "compact",
    max_bytes: int = 4_000_000,
    tokens: int | None = None,
) -> ExactIndex | CompactIndex:
    """Build an index of a training text.

    Args:
        ids: The training texts one after the other, each enclosed in bos and eos; as blocks of whole texts if they do not fit
            into memory. The compact form iterates over them seven times; the exact form loads them into memory.
        bos_id: The id before each text.
        eos_id: The id after each text.
        vocab_size: The number of ids.
        characters: The number of characters of the training texts.
        fingerprint: Identifies the model that the index belongs to.
        form: "exact" or "compact".
        max_bytes: The maximum size of the compact form.
        tokens: The number of ids without bos and eos, where it is known and all ids are in the vocabulary; else they are counted.

    Raises:
        ConfigError: The form is unknown, or ``max_bytes`` is too small.
        DataError: The training text is empty, or has ids outside the vocabulary.
    """
    forms = (ExactIndex.form, CompactIndex.form)
    if form not in forms:
        raise ConfigError(f"{quoted(form)} is not a form of the novelty index. {did_you_mean(form, forms)}")
    separators = (bos_id, eos_id)
    if tokens is None:
        tokens = sum(_count_tokens(block, separators, vocab_size) for block in cut(ids))
    if not tokens or characters < 1:
        raise DataError("The training text is empty, so no novelty index can be built. Give a corpus with text in it.")
    facts = IndexBase(
        bos_id=bos_id,
        eos_id=eos_id,
        vocab_size=vocab_size,
        characters_per_token=characters / tokens,
        fingerprint=fingerprint,
    )
    if form == CompactIndex.form:
        return CompactIndex(**vars(facts), sets=tuple(build_sets(ids, separators, max_bytes)))
    small = np.concatenate(list(cut(ids)), dtype=id_dtype(vocab_size), casting="unsafe")
    return ExactIndex(**vars(facts), ids=small, suffixes=sort_suffixes(small))


def _count_tokens(ids: np.ndarray, separators: tuple[int, int], vocab_size: int) -> int:
    """Return the number of ids of a block without bos and eos.

    Raises:
        DataError: Some ids are outside the vocabulary.
    """
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise DataError(f"The training text has ids from {ids.min()} to {ids.max()}; the vocabulary has 0 to {vocab_size - 1}.")
    return len(ids) - sum(int(np.count_nonzero(ids == separator)) for separator in separators)
