from .analysis import Comparison, Explanation, Probe, compare, explain, graph, probe
from .api import generate_dataset, load, novelty_dataset, prepare, score_dataset, train
from .errors import ReviewgenError
from .model import ReviewModel
from .registry import list_models, list_presets, list_tokenizers, register_model, register_tokenizer
from .runs import TrainingRun
from .runs.ablate import ablate
from .runs.blend import blend
from .runs.corpus import corpus
from .runs.display import plot_training
from .runs.sweep import plot_sweep, sweep
from .runs.tune import best_trial, tune
from .runs.tune_sampling import tune_sampling
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
