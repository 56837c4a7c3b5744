"""The recurrent language models rnn, gru and lstm. Each name is imported on first use, so that a stepper does not load torch."""

import lazy_loader

__all__ = ["drop"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"dropout": ["drop"]})
