"""The recurrent language models rnn, gru and lstm. Each name is imported on first use, so that a
stepper does not load torch.
"""

from pathlib import Path

import lazy_loader

__all__ = ["WEB_STEPPER", "drop"]

WEB_STEPPER = Path(__file__).with_name("web_stepper.js")

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"dropout": ["drop"]})
