"""minGRU and minLSTM for reviewgen (Feng et al. 2024, "Were RNNs All We Needed?").

    config     the settings; no torch
    model      the models, for training
    scan       the recurrence of a whole sequence at once
    stepping   the steppers, for generation; no torch
    presets    the presets, as data; no torch

Importing the package imports none of them, so that a text is generated without torch.
"""

from pathlib import Path

WEB_STEPPER = Path(__file__).with_name("web_stepper.js")
