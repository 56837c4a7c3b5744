"""From a source of texts to training batches: open, read, clean, split, encode into memory-mapped
files, batch.

    stage            keep the results of each step in a cache of bounded size; share the work
    open             open a source of any kind, a dataset of the Hub included
    files            find and fetch files, unpack and decode them
    documents        cut txt files into lines, paragraphs, sentences or whole files; hold out blocks
                     of one long text; join wrapped lines
    tables           read records from csv, JSON, parquet, Arrow and SQLite files and spreadsheets
    columns          turn records into examples: choose the columns of the text and its conditions
    cleaning         clean a text and count the changes: HTML tags, markdown, mojibake
    clean            clean the texts of a source
    split            assign splits: find duplicates, near duplicates and leaks
    weighting        compute how often each of several corpora is read
    encode           tokenize a corpus and index its texts
    tokens           read tokens from memory-mapped files
    prepared         make a token store in a folder or at a URL, and open it
    texts            read texts to evaluate models on
    lanes            make batches for truncated back-propagation through time

This package does not know models. It uses a tokenizer only through its protocol.
"""
