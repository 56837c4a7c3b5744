"""From a source of texts to training batches: open, read, clean, split, encode into memory-mapped
files, batch.

    sources          open a source of any kind, a dataset of the Hub included, as units that any
                     process can read
    files            find and fetch files, unpack and decode them
    documents        cut txt files into lines, paragraphs, sentences or whole files; hold out blocks
                     of one long text; join wrapped lines
    tables           read records from csv, JSON, parquet, Arrow and SQLite files and spreadsheets;
                     cut a file into units
    columns          turn records into examples: choose the columns of the text and its conditions
    cleaning         clean texts and count the changes: HTML tags, markdown, mojibake
    parts            read and write the Arrow files of a corpus, share the work on them among
                     processes, and find near duplicates and leaks
    corpus           make the cleaned corpus: drop duplicates, assign splits
    weighting        compute how often each of several corpora is read
    prepare          encode a corpus into a token store
    store            open a token store, in a folder or behind a URL
    cache            keep corpora and stores in a cache of bounded size
    pipeline         run all steps from a source to a store, in the cache or elsewhere; read texts
                     to evaluate models on
    lanes            make batches for truncated back-propagation through time

This package does not know models. It uses a tokenizer only through its protocol.
"""
