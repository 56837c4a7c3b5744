"""Evaluation of a model in bits per character, a measure that also compares models with different
vocabularies.

Bits per character is the sum of ``-log2 p`` over all tokens of the texts, including end tokens,
divided by the number of characters of the texts. No token is skipped: if the model gives one of
them probability zero, the result is infinite, and the number of such tokens is reported. The ids of
conditions are inputs that the model does not predict, so they add no bits. Inner functions compute
in nats; results are in bits.

    evaluate  bits per character of many texts, or of one text token by token
    scoring   the nats of each token of many texts, scored together; what each condition saves
    metrics   metrics by name, and other statistics that compare generated texts with human ones
"""
