"""The novelty index of a training: made of the texts that a model is trained on, as its tokenizer spells them."""

from collections.abc import Mapping
from typing import Any

from reviewgen.bundle import fingerprint
from reviewgen.data import TokenStore
from reviewgen.novelty import Index, build_index
from reviewgen.protocols import Tokenizer
from reviewgen.runs.start import Start

__all__ = ["make_index"]


def make_index(store: TokenStore, tokenizer: Tokenizer, start: Start, training: Mapping[str, Any]) -> Index | None:
    """Index a training text, unless the settings do without.

    Args:
        store: The text.
        tokenizer: Of the store.
        start: What the training starts from.
        training: What training.json will say of the corpus and of the models before.
    """
    if start.training.novelty == "none":
        return None
    index = build_index(
        store.blocks,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        vocab_size=tokenizer.vocab_size,
        characters=int(store.characters.sum()),
        fingerprint=fingerprint(training, start.tokenizer_plugin.name, start.tokenizer_config),
        form=start.training.novelty,
        max_bytes=round(start.training.novelty_mb * 1e6),
    )
    store.release_pages()
    return index
