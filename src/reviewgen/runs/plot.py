"""The implementation of ``reviewgen.plot_training``: a picture of the learning curves of saved models."""

import os
from collections.abc import Sequence
from pathlib import Path

from reviewgen.config import check_flags, check_list, check_text
from reviewgen.errors import ConfigError, did_you_mean, quoted
from reviewgen.hub.download import locate
from reviewgen.model.read import read_training
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
    """Draw the learning curves of saved models; see ``reviewgen.plot_training``."""
    check_flags(overwrite=overwrite)
    sources = check_list("sources", sources, "['./my-model']")
    if not sources:
        raise ConfigError("Give at least one saved model, as in ['./my-model'].")
    metrics = [metrics] if isinstance(metrics, str) else check_list("metrics", metrics, "['distinct-2']")
    for name in metrics:
        check_text("metrics", name)
    if not isinstance(against, str) or against not in AXES:
        raise ConfigError(f"Curves cannot be drawn against {quoted(against)}. {did_you_mean(against, AXES)}")
    file = to_path("file", file)
    refuse_chart(file, overwrite)
    names = [_name(source) for source in sources]  # two folders of one name get the whole source
    names = [str(source) if names.count(name) > 1 else name for source, name in zip(sources, names, strict=True)]
    runs = [find_curves(read_training(locate(source).folder), name) for source, name in zip(sources, names, strict=True)]
    listed = list(dict.fromkeys(metrics))
    known = {name for run in runs for name in run.metrics}
    if unknown := [name for name in listed if name not in known]:
        raise ConfigError(f"No evaluation has the metric {quoted(unknown[0])}. {did_you_mean(unknown[0], known)}")
    save_chart(learning_chart(runs, against, listed), file)
    return runs


def picture_name(sources: Sequence[str | Path]) -> Path:
    """Return the default file of a picture, in the current folder."""
    return Path(f"{_name(sources[0])}.png" if len(sources) == 1 else "curves.png")


def _name(source: str | Path) -> str:
    return Path(os.path.normpath(to_path("sources", source).absolute())).name
