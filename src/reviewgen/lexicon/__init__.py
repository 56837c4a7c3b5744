"""The lexicon: the words of the training text. With it, generated texts contain no other words.
Must not know models. No torch.

    words         splits texts into words, and counts them
    automata      sets of strings, and valid UTF-8, as automata over bytes
    token_bytes   the bytes of each token; decodes many texts at once
    lexicon       the known words and the characters between them: builds, reads and writes them,
                  and makes the ``Spelling`` that compiled code takes
"""
