"""An optuna study that is asked for one trial after another; the one file of the room that knows optuna.

The sampler of each trial has a seed of its own, so that a study that was interrupted goes on with the suggestions that it
would have made. Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization" (tree-structured Parzen estimators);
hopeless trials are cut short where they are worse than the median at the same share of the run.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reviewgen.errors import ConfigError, ReviewgenError, TrainingError, storage_errors
from reviewgen.search.space import Choice, Range, Space

if TYPE_CHECKING:
    import optuna

__all__ = ["Study"]

_STARTUP = 6  # trials drawn at random, and finished whole, before the sampler and the pruner learn from them
_DIGITS = 3  # of a suggested number, which a person may want to type
_ABOUT, _RECORD = "reviewgen", "record"


class Study:
    """Suggests settings and remembers what became of them, in a file where one is given.

    Args:
        space: What to search.
        seed: Of the suggestions.
        first: The settings of the first trial.
        patience: Evaluations of a trial before it can be cut short.
        file: Where the trials are kept, to go on after an interrupt.

    Raises:
        ConfigError: optuna is not installed, or the file is none of a study.
        StorageError: The file cannot be written.
    """

    def __init__(self, space: Space, seed: int, first: Mapping[str, Any], patience: int, file: Path | None = None) -> None:
        try:
            import optuna
        except ImportError:
            raise ConfigError("Tuning needs an extra: pip install 'reviewgen[tune]'.") from None
        self._optuna, self._seed, self._first = optuna, seed, dict(first)
        self._distributions = {name: _distribution(found) for name, found in space.items()}
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=patience)
        with _quiet(optuna), _reading(file):
            storage = None if file is None else _journal(file)
            self._study = optuna.create_study(storage=storage, pruner=pruner, study_name="reviewgen", load_if_exists=True)
            for left in self._study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # of a process that was killed
                self._study.tell(left.number, state=optuna.trial.TrialState.FAIL)
        self._file = file

    def begin(self, about: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the records of trials that were finished before; ``about`` tells this study from others.

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
        """Return a trial and its settings; ``number`` counts the trials that were finished."""
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with _quiet(self._optuna), storage_errors(self._file):
            self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP)
            if number == 0 and self._first:
                self._study.enqueue_trial(self._first)
            trial = self._study.ask(self._distributions)
        return trial, {name: _round(value) for name, value in trial.params.items()}

    def is_hopeless(self, trial: "optuna.Trial", bits: float, evaluation: int) -> bool:
        """Take note of an evaluation, and return whether the trial should be cut short."""
        with self._writing():
            trial.report(bits, evaluation)
            return bool(trial.should_prune())

    def tell(self, trial: "optuna.Trial", bits: float | None, record: Mapping[str, Any]) -> None:
        """Finish a trial: with its bits per character, or without where it was cut short or gave no model.

        Raises:
            TrainingError: Another search has taken the file over.
        """
        with self._writing():
            trial.set_user_attr(_RECORD, dict(record))
            self._study.tell(trial, bits, None if bits is not None else self._optuna.trial.TrialState.PRUNED)

    def forget(self, trial: "optuna.Trial") -> None:
        """Give a trial up, as if it had not been asked for."""
        with self._writing():
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL, skip_if_finished=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with _quiet(self._optuna), storage_errors(self._file):
                yield
        except self._optuna.exceptions.UpdateFinishedTrialError:
            raise TrainingError(f"Another search has taken {self._file} over: run one at a time in a file.") from None


def _distribution(found: Range | Choice) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(found, Choice):
        return CategoricalDistribution(found.values)
    if found.is_whole:
        return IntDistribution(int(found.low), int(found.high), log=found.is_logarithmic, step=found.step or 1)
    return FloatDistribution(found.low, found.high, log=found.is_logarithmic)


def _round(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _journal(file: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(file)))


def _check_file(file: Path) -> None:
    """Raise a ValueError where a file's first line is not as optuna writes it; cut off a last one that a killed process began."""
    content = file.read_bytes()
    first = json.loads(content.splitlines()[0]) if content else None
    if content and not (isinstance(first, dict) and {"op_code", "worker_id"} <= first.keys()):
        raise ValueError
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(file, whole)


@contextmanager
def _reading(file: Path | None) -> Iterator[None]:
    """Say in one sentence that a file is none of a study."""
    try:
        with storage_errors(file):
            if file is not None and file.exists():
                _check_file(file)
            yield
    except ReviewgenError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError):  # optuna's words on lines that are not its own
        raise ConfigError(f"{file} holds no search that can be read; give another file, or remove it.") from None


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Keep optuna from printing: a library does not."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
