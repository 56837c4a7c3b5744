"""The settings of ``mixing``, and its preset. Must not import torch or numba.

On small corpora the model is better than an n-gram and than minutes of a network; see
``docs/explanation/mixing.md`` for the measurements behind the defaults.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from reviewgen.config import (
    CHAR_GENERATION,
    Bound,
    NonNegativeInt,
    PositiveInt,
    Preset,
    Technique,
    check,
)
from reviewgen.errors import ConfigError

TECHNIQUES = (
    Technique(
        "counts of the text",
        "each text adds counts of its own to those of the corpus",
        {"local_slots": 0, "adapt_weights": False},
    ),
    Technique(
        "changing weights", "each text changes the mixer for itself", {"adapt_weights": False}
    ),
    Technique("gates", "what is known about the text chooses the weights", {"gated": False}),
    Technique(
        "probability maps",
        "the result is corrected by what followed such a probability before",
        {"maps": False},
    ),
    Technique("word contexts", "contexts of words, and not of symbols only", {"words": False}),
    Technique(
        "sparse contexts",
        "skipped symbols, the last successors of a pair, and the column",
        {"sparse": False},
    ),
)


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """The settings of ``mixing``.

    Attributes:
        vocab_size: Number of token ids, V; taken from the tokenizer.
        bos_id: The id that begins a text; taken from the tokenizer.
        eos_id: The id that ends a text; taken from the tokenizer.
        condition_ids: Number of ids of conditions, which follow the tokenizer's; taken from the
            conditions.
        field_ids: Number of ids of fields, the last ones; taken from the fields.
        alphabet: The character of each id of the tokenizer, NUL for ids that are not one character;
            taken from the tokenizer. Empty if it is unknown: all symbols are then taken for
            letters.
        local_slots: Number of slots that each text has for counts of its own, a power of two; 0 for
            a model that does not adapt to the text. A text has a state of 11 bytes for each slot.
        adapt_weights: Whether each text changes the weights of the mixer for itself.
        gated: Whether what is known about the text chooses the weights of the mixer.
        maps: Whether adaptive probability maps correct the mixer.
        words: Whether there are contexts of words.
        sparse: Whether there are contexts that skip symbols, of the last successors of a pair, and
            of the column.
        min_count: Slots of contexts that were seen less often than this are dropped.
        keep_text: Whether the model keeps its training text, to find where it goes on after a
            repetition of seven or more symbols. The model then contains the text, and copies it
            when it generates.
        expert: Whether the distribution of another model is mixed in, as in a blend.
    """

    vocab_size: PositiveInt
    bos_id: int = 0
    eos_id: int = 1
    condition_ids: NonNegativeInt = 0
    field_ids: NonNegativeInt = 0
    alphabet: str = ""
    local_slots: Annotated[int, Bound(at_least=0, at_most=1 << 20)] = 1 << 13
    adapt_weights: bool = True
    gated: bool = True
    maps: bool = True
    words: bool = True
    sparse: bool = True
    min_count: Annotated[int, Bound(at_least=1, at_most=255)] = 1
    keep_text: bool = False
    expert: bool = False

    techniques: ClassVar[tuple[Technique, ...]] = TECHNIQUES

    def __post_init__(self) -> None:
        check(self)
        is_power_of_two = self.local_slots & (self.local_slots - 1) == 0
        if self.local_slots and not (is_power_of_two and self.local_slots >= 64):
            raise ConfigError(
                "local_slots must be 0, or a power of two from 64 to 1048576; got"
                f" {self.local_slots}."
            )
        if self.adapt_weights and not self.local_slots:
            raise ConfigError(
                "adapt_weights needs counts of the text: set local_slots to 8192, or adapt_weights"
                " to false."
            )
        if len(self.alphabet) > self.vocab_size:
            raise ConfigError(
                f"alphabet must have a character for each of {self.vocab_size} ids, or fewer; got"
                f" {len(self.alphabet)}."
            )
        if self.vocab_size > 1 << 16:
            raise ConfigError(
                f"mixing takes at most 65536 symbols; got vocab_size={self.vocab_size}. Use the"
                " tokenizer char."
            )


MIXING_CHAR = Preset(
    model="mixing",
    tokenizer="char",
    # a text that adapts to what it has written itself would repeat it, so no 20 characters may
    # occur twice
    generation_settings=CHAR_GENERATION | {"no_repeat_ngram_size": 20},
)
