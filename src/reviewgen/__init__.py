"""reviewgen trains small text generators on a corpus of reviews, from scratch and in minutes.

    import reviewgen
    model = reviewgen.train("lstm-word", "reviews.csv", budget="2m")
    print(model.generate_one("the "))

Importing this module loads neither torch nor any plugin: each name is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from reviewgen.api import TrainingRun, best_trial, blend, load, plot_sweep, plot_training, sweep, train, tune
    from reviewgen.errors import ReviewgenError
    from reviewgen.model import ReviewModel
    from reviewgen.registry import list_models, list_presets, list_tokenizers, register_model, register_tokenizer

__all__ = [
    "ReviewModel",
    "ReviewgenError",
    "TrainingRun",
    "__version__",
    "best_trial",
    "blend",
    "list_models",
    "list_presets",
    "list_tokenizers",
    "load",
    "plot_sweep",
    "plot_training",
    "register_model",
    "register_tokenizer",
    "sweep",
    "train",
    "tune",
]

_HOMES = {
    "reviewgen.api": ("TrainingRun", "best_trial", "blend", "load", "plot_sweep", "plot_training", "sweep", "train", "tune"),
    "reviewgen.errors": ("ReviewgenError",),
    "reviewgen.model": ("ReviewModel",),
    "reviewgen.registry": ("list_models", "list_presets", "list_tokenizers", "register_model", "register_tokenizer"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'reviewgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
