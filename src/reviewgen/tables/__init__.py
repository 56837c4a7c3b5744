"""Tables of texts: generated ones, with their receipts, and the scores and copies of given ones.

    shards     the rows of a table as files: jsonl or parquet
    table      a table in progress: shards in ``OUT.partial``, then ``OUT`` with a manifest
    generating generates the texts of a table
    judging    scores given texts, or says what they copy; bits per character, by several processes
    schema     draws the conditions of each text
    receipts   what a text was generated with, and generating it again

Processes share the shards, and the files do not depend on how many there are. Each name is imported on first use.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from reviewgen.tables.generating import generate_dataset
    from reviewgen.tables.judging import evaluate, judge_texts, move
    from reviewgen.tables.receipts import (
        Replay,
        describe_replays,
        find_source,
        make_receipt,
        portable_source,
        read_receipts,
        replay,
    )
    from reviewgen.tables.shards import read_rows
    from reviewgen.tables.table import WrittenTexts

__all__ = [
    "Replay",
    "WrittenTexts",
    "describe_replays",
    "evaluate",
    "find_source",
    "generate_dataset",
    "judge_texts",
    "make_receipt",
    "move",
    "portable_source",
    "read_receipts",
    "read_rows",
    "replay",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "generating": ["generate_dataset"],
        "judging": ["evaluate", "judge_texts", "move"],
        "receipts": ["Replay", "describe_replays", "find_source", "make_receipt", "portable_source", "read_receipts", "replay"],
        "shards": ["read_rows"],
        "table": ["WrittenTexts"],
    },
)
