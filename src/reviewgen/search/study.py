"""An optuna study that suggests one trial after another; the only file that imports optuna.

The sampler of each trial has its own seed, so that an interrupted study resumes with the suggestions that it would have made.
Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization" (tree-structured Parzen estimators); hopeless trials, those
worse than the median at the same share of the run, are stopped.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reviewgen.config import MAX_VOCABULARY, parse_json
from reviewgen.errors import ConfigError, ReviewgenError, TrainingError, storage_errors
from reviewgen.inputs import is_pipe
from reviewgen.search.space import Choice, Range, Space

if TYPE_CHECKING:
    import optuna

_STARTUP = 6  # trials sampled at random, and run to the end, before the sampler and the pruner learn from them
_DIGITS = 3  # significant ones of a suggested number, which the user may want to type
_ABOUT, _RECORD = "reviewgen", "record"


class Study:
    """Suggests settings and keeps their results, in a file if one is given.

    Args:
        space: What to search.
        seed: Seed of the suggestions.
        first: The settings of the first trial.
        patience: The progress of a trial from which on it can be stopped, in the unit of ``is_hopeless``.
        file: Where the trials are saved, to resume an interrupted search.

    Raises:
        ConfigError: optuna is not installed, or the file does not hold a study.
        StorageError: The file cannot be written.
    """

    def __init__(self, space: Space, seed: int, first: Mapping[str, Any], patience: int, file: Path | None = None) -> None:
        try:
            import optuna
        except ImportError:
            raise ConfigError("Tuning needs an extra: pip install 'reviewgen[tune]'.") from None
        self._optuna, self._seed, self._first = optuna, seed, dict(first)
        self._distributions = {name: _distribution(values) for name, values in space.items()}
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=patience)
        with _quiet(optuna), _reading(file):
            storage = None if file is None else _journal(file)
            self._study = optuna.create_study(storage=storage, pruner=pruner, study_name="reviewgen", load_if_exists=True)
            for left in self._study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # of a process that was killed
                self._study.tell(left.number, state=optuna.trial.TrialState.FAIL)
        self._file = file

    def resume(self, about: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the records of the trials that were finished before; ``about`` identifies the study.

        Raises:
            ConfigError: The file holds another study.
        """
        with _quiet(self._optuna), _reading(self._file):
            kept = self._study.user_attrs.get(_ABOUT)
            if kept is None:
                self._study.set_user_attr(_ABOUT, dict(about))
            elif kept != about:
                other = next(name for name in {**about, **kept} if about.get(name) != kept.get(name))
                raise ConfigError(
                    f"{self._file} holds another search, of {other} {kept.get(other)}, not {about.get(other)}: give another file."
                )
            return [trial.user_attrs[_RECORD] for trial in self._study.trials if _RECORD in trial.user_attrs]

    def ask(self, number: int) -> tuple["optuna.Trial", dict[str, Any]]:
        """Return a new trial and its settings; ``number`` is the number of finished trials."""
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with _quiet(self._optuna), storage_errors(self._file):
            self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP)
            if number == 0 and self._first:
                self._study.enqueue_trial(self._first)
            trial = self._study.ask(self._distributions)
        return trial, {name: _round(value) for name, value in trial.params.items()}

    def is_hopeless(self, trial: "optuna.Trial", bits: float, progress: int) -> bool:
        """Record an evaluation at some progress, a whole number, and return whether the trial should be stopped."""
        with self._writing():
            trial.report(bits, progress)
            return bool(trial.should_prune())

    def tell(self, trial: "optuna.Trial", bits: float | None, record: Mapping[str, Any]) -> None:
        """Finish a trial with its bits per character; None if it was stopped or failed.

        Raises:
            TrainingError: Another search uses the file.
        """
        with self._writing():
            trial.set_user_attr(_RECORD, dict(record))
            self._study.tell(trial, bits, None if bits is not None else self._optuna.trial.TrialState.PRUNED)

    def forget(self, trial: "optuna.Trial") -> None:
        """Drop a trial, as if it had never been suggested."""
        with self._writing():
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL, skip_if_finished=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with _quiet(self._optuna), storage_errors(self._file):
                yield
        except self._optuna.exceptions.UpdateFinishedTrialError:
            raise TrainingError(f"Another search uses {self._file} too: run one search at a time with a file.") from None


def _distribution(values: Range | Choice) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choice):
        return CategoricalDistribution(values.values)
    if values.is_whole:
        return IntDistribution(int(values.low), int(values.high), log=values.is_logarithmic, step=values.step or 1)
    return FloatDistribution(values.low, values.high, log=values.is_logarithmic)


def _round(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _journal(file: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    return JournalStorage(JournalFileBackend(str(file), JournalFileOpenLock(str(file))))  # the default lock is a symlink


def _check_file(file: Path) -> None:
    """Raise a ValueError if the first line is not one of optuna's; remove a last line that a killed process left incomplete."""
    if file.stat().st_size > MAX_VOCABULARY:  # optuna reads all of it
        raise ValueError
    content = file.read_bytes()
    first = parse_json(str(content.splitlines()[0], "utf-8")) if content else None
    if content and not (isinstance(first, dict) and {"op_code", "worker_id"} <= first.keys()):
        raise ValueError
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(file, whole)


@contextmanager
def _reading(file: Path | None) -> Iterator[None]:
    """Turn optuna's errors on a file that does not hold a study into one sentence."""
    try:
        with storage_errors(file):
            if file is not None and is_pipe(file):
                raise ConfigError(f"The trials are kept in a file, and {file} is a pipe or a device. Give a file.")
            if file is not None and file.exists():
                _check_file(file)
            yield
    except ReviewgenError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):  # optuna's errors on other lines
        raise ConfigError(f"{file} holds no search that can be read; give another file, or remove it.") from None


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Keep optuna from printing inside the block."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
