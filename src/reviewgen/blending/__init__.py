"""Several models as one: at each token their distributions, averaged with fixed weights.

    config     what a blend is made of, as JSON values
    weights    the weights, fitted on held-out text
    stepper    the blend that writes, without torch
    model      the blend as a LanguageModel

Source: Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse Data". Its parts it finds by
entry point; it knows none of them. Nothing is imported here, so that what writes does not load torch.
"""
