"""Tables of texts: generated texts with their receipts, and the scores of given texts, or the
passages that they copy from the training text.

    table      writes a table: shards of jsonl or parquet in ``OUT.partial``, then ``OUT``, a folder
               or a file
    generating the plan of a table of generated texts; draws the conditions of each
    scoring    that of a table of scores, or of copies; bits per character, by several processes
    receipts   what a text was generated with, and generating it again

Several processes share the work. The written files do not depend on the number of processes.
"""
