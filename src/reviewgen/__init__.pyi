from .api import (
    ablate,
    best_trial,
    blend,
    corpus,
    generate_dataset,
    load,
    novelty_dataset,
    plot_sweep,
    plot_training,
    prepare,
    score_dataset,
    sweep,
    train,
    tune,
    tune_sampling,
)
from .errors import ReviewgenError
from .look import Comparison, Explanation, Probe, compare, explain, graph, probe
from .model import ReviewModel
from .registry import list_models, list_presets, list_tokenizers, register_model, register_tokenizer
from .runs import TrainingRun
from .version import __version__

__all__ = [
    "Comparison",
    "Explanation",
    "Probe",
    "ReviewModel",
    "ReviewgenError",
    "TrainingRun",
    "__version__",
    "ablate",
    "best_trial",
    "blend",
    "compare",
    "corpus",
    "explain",
    "generate_dataset",
    "graph",
    "list_models",
    "list_presets",
    "list_tokenizers",
    "load",
    "novelty_dataset",
    "plot_sweep",
    "plot_training",
    "prepare",
    "probe",
    "register_model",
    "register_tokenizer",
    "score_dataset",
    "sweep",
    "train",
    "tune",
    "tune_sampling",
]
