"""The sentences that users write: ``load``, ``train``, ``blend``, ``sweep``, ``tune`` and the lists of what is installed.

Joins the rooms below.

    catalog    which presets have trained weights
    training   a preset and a corpus to a trained model; ``run`` holds the same step by step
    start      what a training starts from; ``keeping`` says what a trained model keeps
    resuming   the folder of a run that may be cut short
    agreement  several processes that must have been told the same
    record     what training.json says of a run; ``index`` makes the index of its texts
    curves     what is kept of a training's reports
    tracking   the same, logged to TensorBoard or trackio
    plot       learning curves as a picture
    mixture    several trained models to one
    table      several trainings in a table; ``variants`` makes trainings that differ in some settings
    tuning     a search for good settings, by optuna in ``study``, over a ``space``

Each name is imported when it is first asked for, so that ``load`` does not bring what only training needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reviewgen.api.mixture import blend
    from reviewgen.api.plot import plot_training
    from reviewgen.api.run import TrainingRun
    from reviewgen.api.table import SweepRow, plot_sweep, sweep
    from reviewgen.api.training import train
    from reviewgen.api.tuning import TuneTrial, best_trial, tune
    from reviewgen.model.loading import load
    from reviewgen.pictures import LearningCurves, refuse_plot
    from reviewgen.registry import list_models, list_presets, list_tokenizers

__all__ = [
    "LearningCurves",
    "SweepRow",
    "TrainingRun",
    "TuneTrial",
    "best_trial",
    "blend",
    "list_models",
    "list_presets",
    "list_tokenizers",
    "load",
    "plot_sweep",
    "plot_training",
    "refuse_plot",
    "sweep",
    "train",
    "tune",
]

_HOMES = {
    "reviewgen.api.mixture": ("blend",),
    "reviewgen.api.plot": ("plot_training",),
    "reviewgen.api.run": ("TrainingRun",),
    "reviewgen.api.table": ("SweepRow", "plot_sweep", "sweep"),
    "reviewgen.api.training": ("train",),
    "reviewgen.api.tuning": ("TuneTrial", "best_trial", "tune"),
    "reviewgen.model.loading": ("load",),
    "reviewgen.pictures": ("LearningCurves", "refuse_plot"),
    "reviewgen.registry": ("list_models", "list_presets", "list_tokenizers"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
