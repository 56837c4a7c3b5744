"""The public functions of ``reviewgen``. Each imports what it needs when it is called, so that ``load`` does not import what only
training needs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from reviewgen.model import LoadOptions, ReviewModel

__all__ = ["best_trial", "blend", "load", "plot_sweep", "plot_training", "sweep", "train", "tune"]


def load(source: str | Path, **options: "Unpack[LoadOptions]") -> "ReviewModel":
    """Load a trained model from a preset's installed weights, a local folder, or the Hub.

    >>> model = reviewgen.load("lstm-word")                                                      # doctest: +SKIP
    >>> model = reviewgen.load("ana/music-reviews", revision="v2")                               # doctest: +SKIP

    Args:
        source: A preset, whose installed weights are loaded (``preset@revision`` are those of that revision on the Hub), a
            repository ``owner/name[@revision]``, or a folder.
        weight_bits: The bits of a weight during generation (32). 8 generate two to three times as fast where the model is larger
            than the processor's cache, and round each weight to a 127th of the largest of its output; 16 are nearly exact.
            Evaluating and saving are not affected.
        revision: A branch, tag or commit on the Hub, which may also follow an @.
        token: For private repositories; by default that of ``hf auth login`` or HF_TOKEN.
        cache_dir: Where downloaded files are kept; by default in HF_HOME.
        local_files_only: Whether to use only files that were downloaded before.
        force_download: Whether to download files again.

    Raises:
        ConfigError: An argument is unknown, ``weight_bits`` is not 32, 16 or 8, or the token is empty.
        SourceError: The source is neither a preset, a repository nor a folder, or could be two of them.
        BundleError: The folder is missing, damaged or not a saved model, or the preset has no weights.
        UnknownPlugin: The model's plugin is not installed; says what to install.
        PluginConflict, BrokenPlugin: Two packages claim the preset's weights, or they are missing.
        HubError: The Hub cannot be reached, has no such repository, or a download is damaged.
    """
    from reviewgen.model import ReviewModel

    return ReviewModel.from_pretrained(source, **options)


def __getattr__(name: str) -> Any:
    homes = {
        "train": "runs.train",
        "blend": "runs.blend",
        "plot_training": "runs.plot",
        "sweep": "search.sweep",
        "plot_sweep": "search.sweep",
        "tune": "search.tune",
        "best_trial": "search.tune",
    }
    from importlib import import_module

    if name in homes:
        return getattr(import_module("reviewgen." + homes[name]), name)
    raise AttributeError(name)
