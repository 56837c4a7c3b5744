"""Blends: mixtures of trained models, the components, that average their next-token probabilities.

    config      the settings of a blend: its components and their weights; blend-char and
                blend-word, whose components are trained together
    weights     checks mixture weights, or fits them on held-out text: fixed ones, or by how certain
                each component is
    characters  a component with other tokens, in ids of the blend
    stepper     generation from a blend, without torch
    model       a blend as a LanguageModel

Source: Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse
Data". The components are found by entry point; none is imported by name.
"""
