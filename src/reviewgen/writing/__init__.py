"""Tables of texts that one or several processes write: generated texts, and the judgements of given ones.

    inputs      the model, and the name of a source
    layout      where a table is written, in which format and columns
    parts       the rows of some texts, before they are in a shard
    manifest    what is said of a complete table
    table       a table in progress: its working folder and its shards
    schema      draws the conditions of each text
    rows        the columns and rows of generated texts
    generating  generates the texts of a table
    devices     the device that computes
    judging     scores given texts, or says what they copy
    evaluating  bits per character, by several processes

The texts, and so the files, do not depend on the number of processes.
"""
