"""Trainings that differ in some settings, as a sweep and a search make them; the corpus is read and tokenized once for all."""

from collections.abc import Callable, Mapping
from typing import Any

from reviewgen.errors import ConfigError, did_you_mean
from reviewgen.runs.training_run import TrainingRun

__all__ = ["prepare", "split_name", "variant"]

GROUPS = ("model", "tokenizer", "training")


def split_name(setting: str) -> tuple[str, str]:
    """Return the group and the name of a setting.

    >>> split_name("model.order")
    ('model', 'order')

    Raises:
        ConfigError: It is written otherwise, or there is no such group.
    """
    group, _, name = setting.partition(".")
    if group not in GROUPS or not name:
        raise ConfigError(f"{setting!r} is no setting; name one as in model.order, tokenizer.vocab_size, training.bptt.")
    return group, name


def variant(
    start: Any, source: Any, settings: Mapping[str, Mapping[str, Any]] | None, changed: Mapping[str, Any], **run: Any
) -> TrainingRun:
    """Return a training with some settings changed.

    Args:
        start: What the training starts from.
        source: The reviews.
        settings: Those of all trainings, by group, as in {"model": {"smoothing": "witten-bell"}}.
        changed: Those of this one, as in {"model.order": 4}.
        run: What else ``TrainingRun`` takes, but for ``out``.

    Raises:
        ConfigError: A setting is unknown or out of range.
    """
    if unknown := sorted(set(settings or {}) - set(GROUPS)):
        raise ConfigError(f"{unknown[0]!r} is no group of settings. {did_you_mean(unknown[0], GROUPS)}")
    if "out" in run:
        raise ConfigError("Of several trainings no model is saved, so there is no out. Train with the settings that you choose.")
    groups: dict[str, Any] = {group: dict((settings or {}).get(group, {})) for group in GROUPS}
    for setting, value in changed.items():
        group, name = split_name(setting)
        groups[group][name] = value
    return TrainingRun(start, source, **groups, **run)


def prepare(make: Callable[[], TrainingRun], readers: list[TrainingRun]) -> TrainingRun:
    """Return a new training whose clock begins now, with its corpus read and tokenized.

    Args:
        make: Makes the training.
        readers: Trainings that have read and tokenized already; one more is added where none did so with the same settings.
    """
    run = make()
    if not any(run.adopt(reader) for reader in readers):
        run.read()
        run.tokenize()
        readers.append(run)
        run = make()
        run.adopt(readers[-1])
    return run
