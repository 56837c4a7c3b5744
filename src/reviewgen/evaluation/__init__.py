"""Evaluation of a model in bits per character, which compares models of different vocabularies
(n-gram, character, BPE).

It is the sum of ``-log2 p`` over all tokens of the texts, end tokens included, divided by the
number of characters of the texts. No token is skipped: if the model gives one probability zero, the
result is infinite, and the number of such tokens is reported. Condition ids are inputs and not
predicted, so they add no bits. Inner functions use nats, results are in bits.

    evaluate  bits per character of many texts or of one
    scoring   the nats of each token of many texts, scored together; what each condition saves
    metrics   metrics of generated texts by name, and how texts read, beside human ones
"""
