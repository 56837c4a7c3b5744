"""The settings of ``ngram``, and its presets for a corpus of 1 to 50 MB. Must not import torch or
numba.

The orders of the presets come from these measurements of held-out bits per character:

    tokens       corpus                                order 3     4     5     6     7     8     9
    characters   2018 blogs, without leaks                            2.22  2.10  2.06  2.05  2.04
    characters   Shakespeare                                          2.30  2.24  2.24  2.24  2.24
    characters   film reviews, 32 M characters                        2.00  1.83  1.75  1.70  1.68
    words        the same film reviews, 8.5 M tokens     1.63  1.60  1.60

The models of film reviews in characters had 13, 37, 83, 162 and 279 MB. From order 8 on the gain is
small.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from reviewgen.config import (
    Bound,
    NonNegativeInt,
    PositiveInt,
    Preset,
    Probability,
    Technique,
    check,
)
from reviewgen.errors import ConfigError

TECHNIQUES = (
    Technique(
        "Kneser-Ney smoothing",
        "interpolated and modified (Chen & Goodman 1998), in place of Witten & Bell's (1991)",
        {"smoothing": "witten-bell"},
    ),
)


@dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """The settings of ``ngram``.

    Attributes:
        vocab_size: Number of token ids, V; taken from the tokenizer.
        order: Length of an n-gram in tokens, n, the predicted one included: order 6 looks back five
            tokens.
        smoothing: How probability is given to unseen n-grams: "kneser-ney" (interpolated and
            modified), "absolute" discounting, "witten-bell", "stupid-backoff" (generates only: its
            scores do not sum to one), or "none" (relative frequencies).
        min_count: N-grams of two or more tokens that occur less often than this are dropped.
        min_texts: N-grams of two or more tokens that occur in fewer texts than this count for lower
            orders only, and are dropped: with 2, no n-gram that only one text has is learned. Each
            part of a long text that is trained on counts as a text.
        prune_entropy: N-grams whose removal would raise the perplexity by less than this share are
            dropped (Stolcke 1998).
        quantized: Store probabilities in 8 bits.
        memory_mb: Memory in MiB that counting may use before it moves to disk; 0 sets no limit.
        field_ids: Number of ids of fields, the last of the vocabulary: each field has an id that
            opens it, and the last id closes them all; taken from the data. A text with fields may
            copy from them.
    """

    vocab_size: PositiveInt
    order: Annotated[int, Bound(at_least=1, at_most=64)] = 6
    smoothing: Literal["kneser-ney", "absolute", "witten-bell", "stupid-backoff", "none"] = (
        "kneser-ney"
    )
    min_count: PositiveInt = 1
    min_texts: PositiveInt = 1
    prune_entropy: Probability = 0.0
    quantized: bool = False
    memory_mb: NonNegativeInt = 0
    field_ids: NonNegativeInt = 0

    added_settings: ClassVar[tuple[str, ...]] = ("min_texts",)
    techniques: ClassVar[tuple[Technique, ...]] = TECHNIQUES

    def __post_init__(self) -> None:
        check(self)
        needs_backoff = self.prune_entropy or self.quantized or self.min_texts > 1
        if self.smoothing in ("none", "stupid-backoff") and needs_backoff:
            raise ConfigError(
                f"smoothing={self.smoothing!r} cannot be combined with prune_entropy, quantized or"
                " min_texts: it has no back-off weights to make up for what they change. Set"
                " smoothing to kneser-ney, absolute or witten-bell, or leave them out"
                " (min_texts=1)."
            )

    @property
    def is_distribution(self) -> bool:
        """Whether the probabilities of a context sum to one."""
        return self.smoothing != "stupid-backoff"


NGRAM_CHAR = Preset(
    model="ngram",
    tokenizer="char",
    model_settings={"order": 8},
    generation_settings={
        "max_new_tokens": 600,
        "temperature": 0.7,
        "finish": "sentence",
        "likeness": {"temperature": 1.0},
    },
)
NGRAM_WORD = Preset(
    model="ngram",
    tokenizer="word",
    model_settings={"order": 4},
    tokenizer_settings={"vocab_size": 8000, "min_frequency": 20},
    generation_settings={
        "max_new_tokens": 200,
        "temperature": 0.7,
        "finish": "sentence",
        "likeness": {"temperature": 1.0},
    },
)
