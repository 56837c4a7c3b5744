"""Blends: mixtures of trained models. A blend averages the next-token probabilities of its models,
the components.

    config      the settings of a blend: its components and their weights; the presets blend-char
                and blend-word, whose components are trained together
    weights     checks mixture weights, or fits them on held-out text; the weights are fixed, or
                depend on how certain each component is
    characters  converts a component with a different tokenizer to the ids of the blend
    stepper     generation from a blend, without torch
    model       a blend as a LanguageModel

Source: Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse
Data". The components are found by entry point; none is imported by name.
"""
