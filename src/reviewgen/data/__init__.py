"""The corpus room: a source becomes cleaned texts, then token ids on disk, then batches.

    sources, files   any source to a stream of rows
    shards           files as rows, in parts that several processes may read
    columns          the columns of the text and of its conditions
    cleaning         what is changed and dropped, counted
    batches          cleaned rows, some at a time
    corpus, spool    one pass: clean, spool, split by hash
    encoding, store  token ids in memory-mapped files, conditions before them
    cache            each corpus is encoded once
    workers, worker  other processes that read, clean and encode
    reading          texts to measure a trained model on
    lanes            batches for truncated back-propagation through time

Knows no model; a tokenizer only by its protocol.
"""

from reviewgen.data.cache import cache_folder, digest_tokenizer, tokenize, workspace
from reviewgen.data.cleaning import CleaningReport
from reviewgen.data.corpus import SPLITS, Corpus, DataConfig, describe, gather, read_rows, read_texts, shorten
from reviewgen.data.lanes import IGNORED, Batch, Lanes
from reviewgen.data.reading import read_documents, trained_on
from reviewgen.data.store import TokenStore, frame_texts

__all__ = [
    "IGNORED",
    "SPLITS",
    "Batch",
    "CleaningReport",
    "Corpus",
    "DataConfig",
    "Lanes",
    "TokenStore",
    "cache_folder",
    "describe",
    "digest_tokenizer",
    "frame_texts",
    "gather",
    "read_documents",
    "read_rows",
    "read_texts",
    "shorten",
    "tokenize",
    "trained_on",
    "workspace",
]
