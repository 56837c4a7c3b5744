"""Blends: mixtures of trained models that average their next-token probabilities.

    config     the settings of a blend: its models and their weights
    weights    checks given mixture weights, or fits fixed ones on held-out text
    gate       weights that depend on how certain each model is
    stepper    generation from a blend, without torch
    web        where the stepper in JavaScript is
    model      a blend as a LanguageModel
    presets    blend-char and blend-word, whose models are trained together

Source: Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse Data". The models are found by
entry point; none is imported by name. This file imports nothing, so that generation does not load torch.
"""
