"""Every error that reviewgen raises on purpose, in one tree.

A message says what happened with the value, what would be accepted, and what to do next. Inner code raises the plain
fact; the public function adds what the user passed in. This module knows nothing else of the package.

    ReviewgenError
    ├── ConfigError            a setting is unknown, of the wrong type or out of range       (also a ValueError)
    ├── SourceError            a preset name or a model source that cannot be read           (also a ValueError)
    ├── PluginError            a plugin
    │   ├── UnknownPlugin      nothing of that name is installed                             (also a LookupError)
    │   ├── PluginConflict     two packages claim one name
    │   └── BrokenPlugin       its package fails to import, or does not keep the contract
    ├── DataError              the corpus: missing, unreadable, empty, without the column    (also a ValueError)
    ├── TrainingError          a run that cannot go on
    │   ├── ProcessLost        another process of it has ended
    │   └── CheckpointError    its state on disk: in use, damaged, or of another run
    ├── GenerationError        no token can be drawn: the logits are NaN, or all are ruled out
    ├── NotADistribution       a model whose scores sum to anything was to be measured
    ├── BundleError            a saved folder: damaged, truncated, foreign, unsupported
    │   └── OutputExists       the folder to write is already there                          (also a FileExistsError)
    ├── StorageError           the disk is full or may not be written                        (also an OSError)
    ├── WorkerError            a process that helps was ended from outside, or failed
    ├── HubError               the Hugging Face Hub: not reached, not found, not allowed
    └── NotPublished           a model that was looked over first: no license, personal details, much copied text
"""

import contextlib
import difflib
import errno
from collections.abc import Iterable, Iterator

__all__ = [
    "BrokenPlugin",
    "BundleError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "GenerationError",
    "HubError",
    "NotADistribution",
    "NotPublished",
    "OutputExists",
    "PluginConflict",
    "PluginError",
    "ProcessLost",
    "ReviewgenError",
    "SourceError",
    "StorageError",
    "TrainingError",
    "UnknownPlugin",
    "WorkerError",
    "did_you_mean",
    "storage_errors",
]


class ReviewgenError(Exception):
    """Base of every error that reviewgen raises on purpose."""


class ConfigError(ReviewgenError, ValueError):
    """A setting is unknown, of the wrong type or out of its range."""


class SourceError(ReviewgenError, ValueError):
    """A preset name or a model source cannot be read, or could be two things."""


class PluginError(ReviewgenError):
    """Something is wrong with a plugin."""


class UnknownPlugin(PluginError, LookupError):
    """No installed package provides the name."""


class PluginConflict(PluginError):
    """Two installed packages claim one name."""


class BrokenPlugin(PluginError):
    """A plugin fails to import or does not keep its contract."""


class DataError(ReviewgenError, ValueError):
    """The corpus is missing, unreadable, empty or lacks the text column."""


class TrainingError(ReviewgenError):
    """A training run cannot start or go on."""


class ProcessLost(TrainingError):
    """Another process of a training in several has ended, or does not answer."""


class CheckpointError(TrainingError):
    """A run's state on disk is in use, damaged, of another run or of a newer version."""


class GenerationError(ReviewgenError):
    """No next token can be drawn: the model's logits are not numbers, or every token is ruled out."""

    @classmethod
    def of_damaged_logits(cls) -> "GenerationError":
        """Return the error of logits that are NaN or infinite."""
        return cls("The model's logits are not numbers (NaN or infinite): its weights are damaged.")


class NotADistribution(ReviewgenError):
    """A model whose scores do not sum to one was to be measured; it has no bits per character."""


class BundleError(ReviewgenError):
    """A saved folder is damaged, truncated, foreign or of an unknown schema."""


class OutputExists(BundleError, FileExistsError):
    """The folder to write is already there."""


class StorageError(ReviewgenError, OSError):
    """The disk is full, or the place may not be written."""


class WorkerError(ReviewgenError):
    """A process that helps to read or to tokenize was ended from outside, or failed."""


class HubError(ReviewgenError):
    """The Hugging Face Hub was not reached, or said no."""


class NotPublished(ReviewgenError):
    """A model was looked over before it was published, and something was found that nobody has allowed."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return the tail of an error message: the nearest known name, and all of them.

    >>> did_you_mean("hiden_size", ["hidden_size", "layers"])
    "Did you mean 'hidden_size'? Known: hidden_size, layers."
    >>> did_you_mean("zzz", ["layers"])
    'Known: layers.'
    >>> did_you_mean("zzz", [])
    'There are none.'
    """
    names = sorted(known)
    if not names:
        return "There are none."
    near = difflib.get_close_matches(wrong, names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(names)}."


@contextlib.contextmanager
def storage_errors(place: object) -> Iterator[None]:
    """Turn the operating system's word on a full or forbidden disk into one sentence that names the place.

    Raises:
        StorageError: Writing failed because the disk is full, a limit is reached, or the place may not be written.
    """
    try:
        yield
    except ReviewgenError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(f"No room to write {place}: {error.strerror}. Free some space, or choose another place.") from None
        if error.errno in _FORBIDDEN:
            raise StorageError(f"{place} may not be written: {error.strerror}. Choose another place.") from None
        raise


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EEXIST, errno.ENOENT),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
}
