"""From a source of texts to training batches: open, read, clean, split, encode into memory-mapped
files, batch.

    sources          open a source of any kind, a dataset of the Hub included, as units that any
                     process can read
    files            find and fetch files, unpack and decode them
    documents        txt files as lines, paragraphs, sentences or files; parts of one long text to
                     hold out; wrapped lines
    tables           csv, JSON, parquet, Arrow, SQLite files and spreadsheets as records; the units
                     of a file
    columns          from records to examples: the columns of the text and of its conditions
    cleaning         changes texts, with counts; HTML tags, markdown and mojibake
    parts            the Arrow files of a corpus, the work on them that several processes share;
                     near duplicates and leaks
    corpus           the cleaned corpus: duplicates, splits
    weighting        how often each of several corpora is read
    prepare          from a corpus to a token store
    store            a token store: its files, its folder, and stores behind a URL
    cache            the cache, of bounded size
    pipeline         the way from a source to a store, in the cache or elsewhere; texts to evaluate
                     models on
    lanes            batches for truncated back-propagation through time

Knows no model, and of a tokenizer only its protocol.
"""
