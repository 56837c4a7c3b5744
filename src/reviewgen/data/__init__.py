"""From a source of texts to training batches: open, read, clean, split, encode into memory-mapped files, batch.

    sources          open a source of any kind, a dataset of the Hub included, as units that any process can read
    files            find and fetch files, unpack and decode them
    documents        txt files as lines, paragraphs, sentences or files; parts of one long text to hold out
    tables           csv, JSON, parquet, Arrow, SQLite files and spreadsheets as records
    columns          from records to examples: the columns of the text and of its conditions
    cleaning         changes texts, with counts; HTML tags, markdown and mojibake
    parts            the Arrow files of a corpus, and the work on them that several processes share
    corpus           the cleaned corpus: duplicates, splits
    filters          near duplicates and leaks
    prepare, store   from a corpus to a token store
    pipeline         the way from a source to a store, in the cache or elsewhere
    cache            the folder of both, of bounded size
    reading          texts to evaluate models on
    lanes            batches for truncated back-propagation through time

Knows no model, and of a tokenizer only its protocol.
"""

from reviewgen.data.cache import MAX_BYTES, cache_folder, cache_size, digest_tokenizer, prune_cache, workspace
from reviewgen.data.cleaning import CleaningReport, first_of_each, hash_text
from reviewgen.data.columns import DataConfig, Example
from reviewgen.data.corpus import Corpus, describe, require_splits, shorten
from reviewgen.data.files import is_url
from reviewgen.data.filters import Filters
from reviewgen.data.lanes import IGNORED, Batch, Lanes
from reviewgen.data.pipeline import Texts, cached_corpus, cached_store, prepare_store
from reviewgen.data.prepare import (
    NOVELTY_FILE,
    IndexChoice,
    LostCharacters,
    TokenizerChoice,
    count_lost,
    index_tokens,
    sample_step,
    words_of_store,
)
from reviewgen.data.reading import AS_BEFORE, open_records, read_documents, read_examples, read_texts, trained_on
from reviewgen.data.sources import SPLITS, open_source
from reviewgen.data.store import StoreFolder, TokenStore, digest_file, fetch_store, find_store, frame_texts

__all__ = [
    "AS_BEFORE",
    "IGNORED",
    "MAX_BYTES",
    "NOVELTY_FILE",
    "SPLITS",
    "Batch",
    "CleaningReport",
    "Corpus",
    "DataConfig",
    "Example",
    "Filters",
    "IndexChoice",
    "Lanes",
    "LostCharacters",
    "StoreFolder",
    "Texts",
    "TokenStore",
    "TokenizerChoice",
    "cache_folder",
    "cache_size",
    "cached_corpus",
    "cached_store",
    "count_lost",
    "describe",
    "digest_file",
    "digest_tokenizer",
    "fetch_store",
    "find_store",
    "first_of_each",
    "frame_texts",
    "hash_text",
    "index_tokens",
    "is_url",
    "open_records",
    "open_source",
    "prepare_store",
    "prune_cache",
    "read_documents",
    "read_examples",
    "read_texts",
    "require_splits",
    "sample_step",
    "shorten",
    "trained_on",
    "words_of_store",
    "workspace",
]
