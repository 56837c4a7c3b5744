"""From the training text, as one stream of ids, to an index of it."""

import numpy as np

from reviewgen.compiled.windows import Tokens, cut
from reviewgen.errors import ConfigError, DataError, did_you_mean
from reviewgen.novelty.compact import CompactIndex, build_sets
from reviewgen.novelty.exact import ExactIndex, id_dtype, sort_suffixes
from reviewgen.novelty.stream import Stream

__all__ = ["build_index"]


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
) -> ExactIndex | CompactIndex:
    """Index a training text.

    Args:
        ids: The training texts one after the other, each between bos and eos; in blocks of whole texts where they are larger
            than memory. The compact form reads them seven times, the exact one holds them.
        bos_id: The id before each text.
        eos_id: The id after each text.
        vocab_size: The number of ids.
        characters: Of the training texts.
        fingerprint: Tells the model that the index belongs to from others.
        form: "exact" or "compact".
        max_bytes: What the compact form may take.

    Raises:
        ConfigError: The form is unknown, or ``max_bytes`` too small.
        DataError: The stream holds no text, or ids outside the vocabulary.
    """
    if form not in (ExactIndex.form, CompactIndex.form):
        raise ConfigError(f"{form!r} is no form of the novelty index. {did_you_mean(form, [ExactIndex.form, CompactIndex.form])}")
    separators = (bos_id, eos_id)
    tokens = sum(_count_tokens(block, separators, vocab_size) for block in cut(ids))
    if not tokens or characters < 1:
        raise DataError("The training text is empty, so there is nothing to compare with.")
    facts = Stream(
        bos_id=bos_id,
        eos_id=eos_id,
        vocab_size=vocab_size,
        characters_per_token=characters / tokens,
        fingerprint=fingerprint,
    )
    if form == CompactIndex.form:
        return CompactIndex(**vars(facts), sets=build_sets(ids, separators, max_bytes))
    small = np.concatenate(list(cut(ids)), dtype=id_dtype(vocab_size), casting="unsafe")
    return ExactIndex(**vars(facts), ids=small, suffixes=sort_suffixes(small))


def _count_tokens(ids: np.ndarray, separators: tuple[int, int], vocab_size: int) -> int:
    """Return how many ids of a block are no separators.

    Raises:
        DataError: Some are outside the vocabulary.
    """
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise DataError(f"The training text has ids from {ids.min()} to {ids.max()}; the vocabulary has 0 to {vocab_size - 1}.")
    return len(ids) - int(np.isin(ids, separators).sum())
