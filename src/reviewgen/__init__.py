"""reviewgen trains small text generators on a corpus of reviews, from scratch and in minutes.

    import reviewgen
    model = reviewgen.train("lstm-word", "reviews.csv", budget="2m")
    print(model.generate_one("the "))

Importing this package loads neither torch nor any plugin: each name is imported on first use.
"""

from typing import TYPE_CHECKING

from reviewgen.lazy import import_on_first_use
from reviewgen.version import __version__

if TYPE_CHECKING:
    from reviewgen.analysis.comparison import compare
    from reviewgen.analysis.comparison_report import Comparison
    from reviewgen.analysis.explanation import Explanation
    from reviewgen.analysis.explanation_run import explain
    from reviewgen.analysis.graph_picture import graph
    from reviewgen.analysis.probing import Probe, probe
    from reviewgen.api import generate_dataset, load, novelty_dataset, prepare, score_dataset, train
    from reviewgen.assessment.report import Report, report
    from reviewgen.errors import ReviewgenError
    from reviewgen.model.review_model import ReviewModel
    from reviewgen.registry.plugins import (
        list_models,
        list_presets,
        list_tokenizers,
        register_model,
        register_tokenizer,
    )
    from reviewgen.runs.ablate import ablate
    from reviewgen.runs.blend import blend
    from reviewgen.runs.corpus import corpus
    from reviewgen.runs.plotting import plot_training
    from reviewgen.runs.run import TrainingRun
    from reviewgen.runs.sweep import plot_sweep, sweep
    from reviewgen.runs.tune import best_trial, tune
    from reviewgen.runs.tune_sampling import tune_sampling

__all__ = [
    "Comparison",
    "Explanation",
    "Probe",
    "Report",
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
    "report",
    "score_dataset",
    "sweep",
    "train",
    "tune",
    "tune_sampling",
]

__getattr__ = import_on_first_use(
    __name__,
    {
        "analysis.comparison_report": "Comparison",
        "analysis.comparison": "compare",
        "analysis.explanation": "Explanation",
        "analysis.explanation_run": "explain",
        "analysis.graph_picture": "graph",
        "analysis.probing": "Probe probe",
        "api": "generate_dataset load novelty_dataset prepare score_dataset train",
        "assessment.report": "Report report",
        "errors": "ReviewgenError",
        "model.review_model": "ReviewModel",
        "registry.plugins": (
            "list_models list_presets list_tokenizers register_model register_tokenizer"
        ),
        "runs.ablate": "ablate",
        "runs.blend": "blend",
        "runs.corpus": "corpus",
        "runs.plotting": "plot_training",
        "runs.run": "TrainingRun",
        "runs.sweep": "plot_sweep sweep",
        "runs.tune": "best_trial tune",
        "runs.tune_sampling": "tune_sampling",
    },
)


def __dir__() -> list[str]:
    return __all__
