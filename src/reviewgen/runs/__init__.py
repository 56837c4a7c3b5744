"""A training run is made of values: a plan, a corpus prepared for it, and a fit of its model. ``TrainingRun`` is their facade.

    options       the keywords of a training
    parts         the plugins, settings and trained model that a run starts from
    further       what may change when a trained model is trained further
    plan          everything that is decided before anything is read
    prepare       the corpus: read, then tokenized and indexed
    start, fit    the model on that corpus, iterated for reports and finished into a ReviewModel
    final         what is measured at the end of a training
    blend_fit     the same for a blend: a fit for each of its models, then their weights
    suggestion    suggests to train shipped weights further, where that serves better
    finished      the folder of a run that was killed after it had saved its model
    litter        what killed processes have left
    run_folder    the folder of the checkpoints, from which an interrupted run is resumed
    curves        the learning curves
    record        what was reported so far, and the parts of training.json
    tracking      the log in a tracker of accelerate
    training_run  the facade
    blend, plot   the implementations of ``reviewgen.blend`` and ``reviewgen.plot_training``

Each name is imported on first use: ``options`` loads no torch.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from reviewgen.runs.training_run import TrainingRun

__all__ = ["TrainingRun"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"training_run": ["TrainingRun"]})
