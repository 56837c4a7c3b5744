"""``reviewgen.plot_training``: the learning curves of saved models as a picture."""

import os
from collections.abc import Sequence
from pathlib import Path

from reviewgen.config.settings import check_list, check_text
from reviewgen.errors import ConfigError, did_you_mean, quoted
from reviewgen.hub.download import locate
from reviewgen.saving.read import read_training
from reviewgen.storage import to_path
from reviewgen.web.charts import refuse_chart, save_chart
from reviewgen.web.curves import AXES, LearningCurves, find_curves, learning_chart


def plot_training(
    sources: Sequence[str | Path],
    file: str | Path,
    *,
    against: str = "seconds",
    metrics: Sequence[str] = (),
    overwrite: bool = False,
) -> list[LearningCurves]:
    """Plot the learning curves of saved models into a file, and return the curves. The file's
    suffix selects PNG, SVG or PDF.

    >>> reviewgen.plot_training(["./my-gru", "./my-lstm"], "curves.png")  # doctest: +SKIP

    Args:
        sources: Saved folders, or repositories on the Hub; several are drawn in one figure.
        file: The file to write.
        against: The x axis: "seconds" since the training started (after reading and tokenizing),
            "steps" or "tokens".
        metrics: Metrics of generated texts, as in ["distinct-2"]: each is drawn in a panel of its
            own. See ``training.metrics``.
        overwrite: Whether to replace the file if it exists.

    Raises:
        ConfigError: There are no sources; the suffix, ``against`` or a metric is unknown; or the
            file is PNG or PDF, and matplotlib is not installed.
        BundleError: A source is not a saved model, or has no learning curve.
        OutputExists: The file exists.
        StorageError: The file cannot be written.
    """
    sources = check_list("sources", sources, "['./my-model']")
    if not sources:
        raise ConfigError("Give at least one saved model, as in ['./my-model'].")
    metrics = (
        [metrics] if isinstance(metrics, str) else check_list("metrics", metrics, "['distinct-2']")
    )
    for name in metrics:
        check_text("metrics", name)
    if not isinstance(against, str) or against not in AXES:
        raise ConfigError(
            f"Curves cannot be drawn against {quoted(against)}. {did_you_mean(against, AXES)}"
        )
    file = refuse_chart(file, overwrite)
    names = list(map(_name, sources))
    runs = []
    for source, name in zip(sources, names, strict=True):
        # two folders of the same name are told apart by their full paths
        label = str(source) if names.count(name) > 1 else name
        runs.append(find_curves(read_training(locate(source).folder), label))
    metrics = list(dict.fromkeys(metrics))
    known = set[str]().union(*(run.metrics for run in runs))
    for name in metrics:
        if name not in known:
            raise ConfigError(
                f"No evaluation has the metric {quoted(name)}. {did_you_mean(name, known)}"
            )
    save_chart(learning_chart(runs, against, metrics), file)
    return runs


def picture_name(sources: Sequence[str | Path]) -> Path:
    """Return the default file name of a picture, for the current folder."""
    return Path(f"{_name(sources[0])}.svg" if len(sources) == 1 else "curves.svg")


def _name(source: str | Path) -> str:
    """Return the last part of a folder's path, or of a repository's name."""
    return Path(os.path.normpath(to_path("sources", source).absolute())).name
