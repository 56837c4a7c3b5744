"""A training run, and what else makes a trained model. Each name is imported on first use."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from reviewgen.runs.training_run import TrainingRun

__all__ = ["TrainingRun"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"training_run": ["TrainingRun"]})
