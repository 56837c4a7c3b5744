"""From a source of texts to training batches: read, clean, split, encode into memory-mapped files, batch.

    sources, files   open a source; prepare files for reading
    file_systems     the file systems behind URLs, by fsspec, with limits of time and size
    urls, remote     files, and token stores, behind URLs
    charsets         which encoding a file has
    shards, spans    files as records, in parts that several processes may read; large files are cut
    documents        txt files as lines, paragraphs, sentences or files
    delimited        csv files as rows, with the line of each error
    columns          from records to examples: the columns of the text and of its conditions
    cleaning         changes texts and drops duplicates, with counts
    tags, mojibake   remove HTML tags; find and mend texts that were decoded wrongly
    cleaned_rows     cleaned examples, some at a time, in memory or as JSON lines
    corpus, spool    one pass: clean, store on disk, split by hash
    lost_characters  which characters the tokenizer loses
    long_text        which parts of one long text are held out
    encoding, store  token ids in memory-mapped files, with their conditions
    store_folder     the folder of a token store, as the cache has it and ``reviewgen prepare`` makes it
    corpus_facts     what such a folder keeps of its corpus
    cache            the token cache: each corpus is encoded once
    workers, worker  worker processes that read, clean and encode
    reading          texts to evaluate a trained model on
    lanes            batches for truncated back-propagation through time

Knows no model, and of a tokenizer only its protocol.
"""

from reviewgen.data.cache import cache_folder, digest_tokenizer, tokenize, workspace
from reviewgen.data.cleaning import CleaningReport
from reviewgen.data.corpus import SPLITS, Corpus, DataConfig, describe, gather, read_examples, shorten
from reviewgen.data.lanes import IGNORED, Batch, Lanes
from reviewgen.data.lost_characters import LostCharacters, find_lost_characters
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
    "LostCharacters",
    "TokenStore",
    "cache_folder",
    "describe",
    "digest_tokenizer",
    "find_lost_characters",
    "frame_texts",
    "gather",
    "read_documents",
    "read_examples",
    "shorten",
    "tokenize",
    "trained_on",
    "workspace",
]
