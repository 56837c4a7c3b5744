"""Tables of texts: generated texts with their receipts, and the scores of given texts, or the
passages that they copy from the training text.

    table      writes a table: first shards in ``OUT.partial``, then ``OUT``, a folder or a file
    schema     reads what the columns of a table of generated texts are
    generating plans a table of generated texts
    scoring    plans a table of scores or of copies; evaluates a model with several processes
    receipts   records how a text was generated, and generates it again

Several processes share the work. The written files do not depend on the number of processes.
"""
