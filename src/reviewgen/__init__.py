"""reviewgen trains small text generators on a corpus of reviews, from scratch and in minutes.

    import reviewgen
    model = reviewgen.train("lstm-word", "reviews.csv", budget="2m")
    print(model.generate_one("the "))

Importing this package loads neither torch nor any plugin: each name is imported on first use.
"""

import lazy_loader

from reviewgen.version import __version__

TYPE_CHECKING = False  # that of typing takes 40 ms, in which the command cannot handle Ctrl-C yet
if TYPE_CHECKING:
    from reviewgen.api import (
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
    from reviewgen.errors import ReviewgenError
    from reviewgen.look import Comparison, Explanation, explain, graph
    from reviewgen.look.compare import compare
    from reviewgen.model import ReviewModel
    from reviewgen.registry import list_models, list_presets, list_tokenizers, register_model, register_tokenizer
    from reviewgen.runs import TrainingRun

__all__ = [
    "Comparison",
    "Explanation",
    "ReviewModel",
    "ReviewgenError",
    "TrainingRun",
    "__version__",
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
    "register_model",
    "register_tokenizer",
    "score_dataset",
    "sweep",
    "train",
    "tune",
    "tune_sampling",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "api": [
            "best_trial",
            "blend",
            "corpus",
            "generate_dataset",
            "load",
            "novelty_dataset",
            "plot_sweep",
            "plot_training",
            "prepare",
            "score_dataset",
            "sweep",
            "train",
            "tune",
            "tune_sampling",
        ],
        "errors": ["ReviewgenError"],
        "look": ["Comparison", "Explanation", "compare", "explain", "graph"],
        "model": ["ReviewModel"],
        "registry": ["list_models", "list_presets", "list_tokenizers", "register_model", "register_tokenizer"],
        "runs": ["TrainingRun"],
    },
)
