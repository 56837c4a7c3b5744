"""Blends: mixtures of trained models that average their next-token probabilities.

    config     the settings of a blend: its models and their weights; blend-char and blend-word,
               whose models are trained together
    weights    checks given mixture weights, or fits them on held-out text: fixed ones, or by how
               certain each model is
    characters a part that has other tokens, in ids of the blend
    stepper    generation from a blend, without torch
    model      a blend as a LanguageModel

Source: Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse
Data". The models are found by entry point; none is imported by name. Each name is imported on first
use, so that generation does not load torch.
"""
