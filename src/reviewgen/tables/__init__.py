"""Tables of texts: generated ones, with their receipts, and the scores and copies of given ones.

    table      writes a table: shards of jsonl or parquet in ``OUT.partial``, then ``OUT``, a folder
               or a file
    generating the plan of a table of generated texts; draws the conditions of each
    scoring    that of a table of scores, or of copies; bits per character, by several processes
    receipts   what a text was generated with, and generating it again

Processes share the shards, and the files do not depend on how many there are. Each name is imported
on first use.
"""
