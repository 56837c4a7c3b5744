"""The model card, generated from recorded facts only; reads no files.

facts     the facts that a card is generated from
metadata  the YAML front matter that the Hub reads
text      the Markdown below it
card      the whole card, and whether one was edited by hand
"""

from reviewgen.card.card import is_written_by_hand, metadata_of, with_license, write_card
from reviewgen.card.facts import CardFacts, Sample, brief_facts, describe, file_name, without_paths
from reviewgen.card.text import space_address

__all__ = [
    "CardFacts",
    "Sample",
    "brief_facts",
    "describe",
    "file_name",
    "is_written_by_hand",
    "metadata_of",
    "space_address",
    "with_license",
    "without_paths",
    "write_card",
]
