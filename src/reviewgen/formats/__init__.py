"""Formats: what a text must look like, as a mask over the next token.

A format is a mask of the same kind as known words, valid UTF-8 and the novelty filter. A rule says
which tokens may follow a text, and may also weight them. Any number of rules can be combined.

    automata    words that a text must or must not contain, and choices, as automata over bytes
    bigrams     counts which tokens follow which; saved with a model
    look_ahead  the probability that a text will still contain a word; steers the text towards it
    grammars    regular expressions, JSON schemas, grammars and numbers of sentences, by llguidance
    cursor      all rules of a call, and the position of one text in them
    exact       samples from a model's true distribution under a format

This room must not know models; the function that predicts tokens is passed in.
"""
