"""The lexicon: the words of the training text, so that generated texts contain no others. Must not
know models. No torch.

    words         the words of a text, and how often each occurs
    automata      sets of strings, and valid UTF-8, as automata over bytes
    token_bytes   the bytes of each token, and texts decoded by them
    lexicon       the known words and the characters between them: built, read and written; with the
                  bytes of the tokens, what compiled code takes: a ``Spelling``
"""
