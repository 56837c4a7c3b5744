"""The corpus room: a source becomes cleaned texts, then token ids on disk, then batches.

    sources, files   any source to a stream of rows
    columns          the columns of the text and of its conditions
    cleaning         what is changed and dropped, counted
    corpus           one pass: clean, spool, split by hash
    cache            token ids in memory-mapped files, conditions before them
    reading          texts to measure a trained model on
    lanes            batches for truncated back-propagation through time

Knows no model; a tokenizer only by its protocol.
"""

from reviewgen.data.cache import TokenStore, cache_folder, digest_tokenizer, frame_texts, tokenize, workspace
from reviewgen.data.cleaning import CleaningReport
from reviewgen.data.corpus import SPLITS, Corpus, DataConfig, describe, gather, read_rows, read_texts, shorten
from reviewgen.data.lanes import IGNORED, Batch, Lanes
from reviewgen.data.reading import read_documents, trained_on

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
