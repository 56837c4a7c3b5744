"""A training run: from a plan to a saved model and its record.

    parts     the plugins, settings and trained weights that a run starts from
    plan      the keywords of a training, and everything that is decided before anything is read
    corpus    the corpus: read, then tokenized and indexed; shared by several runs
    run       ``TrainingRun``: read, tokenize, iterate for reports, finish; of a blend, a run for each of its models
    folder    the folder of the checkpoints, from which an interrupted run is resumed
    record    what was reported so far, the learning curves, and the parts of training.json
    measure   what is measured at the end of a training
    tracking  the log in a tracker of accelerate
    progress  the progress on a terminal or in a notebook
    blend, plot   the implementations of ``reviewgen.blend`` and ``reviewgen.plot_training``

Each name is imported on first use.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from reviewgen.runs.run import TrainingRun

__all__ = ["TrainingRun"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"run": ["TrainingRun"]})
