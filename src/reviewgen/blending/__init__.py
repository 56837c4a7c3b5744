"""Blends: mixtures of trained models that average their next-token probabilities.

    config     the settings of a blend: its models and their weights
    weights    checks given mixture weights, or fits fixed ones on held-out text
    gate       weights that depend on how certain each model is
    stepper    generation from a blend, without torch
    web        where the stepper in JavaScript is
    model      a blend as a LanguageModel
    presets    blend-char and blend-word, whose models are trained together

Source: Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse Data". The models are found by
entry point; none is imported by name. Each name is imported on first use, so that generation does not load torch.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from reviewgen.blending.gate import features_of, fit_gate, gated_weights
    from reviewgen.blending.weights import fit_weights

__all__ = ["features_of", "fit_gate", "fit_weights", "gated_weights"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__, submod_attrs={"gate": ["features_of", "fit_gate", "gated_weights"], "weights": ["fit_weights"]}
)
