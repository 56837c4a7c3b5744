"""The model card, written from recorded facts only; reads no file.

facts     what a card is written from
metadata  the block of YAML that the Hub reads
text      the Markdown below it
card      both, and whether somebody has changed them since
"""

from reviewgen.card.card import is_written_by_hand, metadata_of, with_license, write_card
from reviewgen.card.facts import CardFacts, Sample, describe, file_name, without_paths

__all__ = [
    "CardFacts",
    "Sample",
    "describe",
    "file_name",
    "is_written_by_hand",
    "metadata_of",
    "with_license",
    "without_paths",
    "write_card",
]
