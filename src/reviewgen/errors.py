"""The exceptions of reviewgen. All derive from ``ReviewgenError``.

A message says what is wrong with the value, what is accepted, and what to do next. Inner functions
say what is wrong, and the public function adds the user's value. This module imports no other
module of the package. The tree shows each error below its base class. If an error also derives from
a built-in exception, this exception is in brackets:

    ReviewgenError
    ├── ConfigError            a setting is unknown, of the wrong type or out of range (ValueError)
    ├── SourceError            the name or the source of a model is not valid (ValueError)
    ├── PluginError            base of the errors of plugins
    │   ├── UnknownPlugin      no installed plugin has that name (LookupError)
    │   ├── PluginConflict     two installed packages provide the same name
    │   └── BrokenPlugin       its package cannot be imported, or breaks the contract
    ├── DataError              the corpus is missing, unreadable or has no texts (ValueError)
    ├── TrainingError          a training run cannot start or continue
    │   ├── ProcessLost        another process of a distributed run has ended or hangs
    │   └── CheckpointError    a checkpoint is in use, damaged, or belongs to another run
    ├── GenerationError        no token can be sampled: NaN logits, or no token is allowed
    ├── DeviceError            an accelerator has failed, as it does when it has no memory left
    ├── ShapeError             a model was called with ids or a state of another shape (ValueError)
    ├── NotADistribution       a model without normalised probabilities cannot be evaluated
    ├── BundleError            a saved model is damaged, incomplete, or has an unknown schema
    │   └── OutputExists       the output folder or file already exists (FileExistsError)
    │       └── AlreadyTrained  a restarted training had already saved its model
    ├── StorageError           the disk is full, or a path is not writable (OSError)
    ├── WorkerError            a worker process was killed, or failed
    ├── HubError               the Hugging Face Hub was not reached, or refused the request
    └── NotPublished           personal data, copied text or no license was found
"""

import contextlib
import difflib
import errno
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Any

__all__ = [
    "AlreadyTrained",
    "BrokenPlugin",
    "BundleError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Detail",
    "DeviceError",
    "GenerationError",
    "HubError",
    "NotADistribution",
    "NotPublished",
    "OutputExists",
    "PluginConflict",
    "PluginError",
    "ProcessLost",
    "ReviewgenError",
    "ShapeError",
    "SourceError",
    "StorageError",
    "TrainingError",
    "UnknownPlugin",
    "WorkerError",
    "counted",
    "did_you_mean",
    "first_line",
    "growing_state",
    "per_second",
    "printable",
    "quoted",
    "shortened",
    "storage_errors",
]


_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # the control characters C0 and C1, which start escape sequences
    # line separators, and marks that change the direction of writing
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    # invisible characters
    "\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff"
    "\ud800-\udfff]"  # surrogates, which stand for bytes of file names that are not UTF-8
)


class ReviewgenError(Exception):
    """Base class of all exceptions of reviewgen.

    If a message is very long, because it names many files or columns, it is printed without its
    middle. ``args`` has the whole message.
    """

    # maximum characters of a message: below 500 even with a name in front of the message
    _max_length = 490

    def __str__(self) -> str:
        return shortened(super().__str__(), self._max_length)


class ConfigError(ReviewgenError, ValueError):
    """A setting is unknown, has the wrong type or is out of range."""


class SourceError(ReviewgenError, ValueError):
    """The name of a preset, or the source of a model, is not valid or is ambiguous."""


class PluginError(ReviewgenError):
    """Base class of the errors of plugins."""


class UnknownPlugin(PluginError, LookupError):
    """No installed plugin has that name."""


class PluginConflict(PluginError):
    """Two installed packages provide the same name."""


class BrokenPlugin(PluginError):
    """A plugin cannot be imported, or breaks its contract."""


class DataError(ReviewgenError, ValueError):
    """The corpus is missing, unreadable, empty or has no text column."""


class TrainingError(ReviewgenError):
    """A training run cannot start or continue."""


class ProcessLost(TrainingError):
    """Another process of a distributed training run has ended, or does not respond."""


class CheckpointError(TrainingError):
    """A checkpoint is in use, damaged, or belongs to another run or a newer version."""


class GenerationError(ReviewgenError):
    """No token can be sampled: the model's logits are NaN or infinite, or no token is allowed."""

    @classmethod
    def of_damaged_logits(cls) -> "GenerationError":
        """Return the error for logits that are NaN or infinite."""
        return cls("The model's logits are NaN or infinite: its weights are damaged.")


class DeviceError(ReviewgenError):
    """An accelerator has failed, for example because it is out of memory."""


class ShapeError(ReviewgenError, ValueError):
    """A model was called with ids or a state of a wrong shape or dtype."""


class NotADistribution(ReviewgenError):
    """The probabilities of a model do not sum to one, so it has no bits per character."""


class BundleError(ReviewgenError):
    """A saved model is damaged, incomplete, not one of reviewgen's, or has an unknown schema."""


class OutputExists(BundleError, FileExistsError):
    """The output folder or file already exists."""


class AlreadyTrained(OutputExists):
    """A training was restarted by the launcher, but its model was already saved. There is nothing
    left to do.
    """


class StorageError(ReviewgenError, OSError):
    """The disk is full, or a path is not writable."""


class WorkerError(ReviewgenError):
    """A worker process that reads or tokenizes was killed, or failed."""


class HubError(ReviewgenError):
    """The Hugging Face Hub was not reached, or refused the request."""


class NotPublished(ReviewgenError):
    """The check before publishing found a problem that ``allow`` does not list: personal data,
    copied text, or that there is no license.
    """


def printable(text: str) -> str:
    """Return a text for a message, in which unprintable characters are replaced by their escapes.

    >>> printable("shards/\x1b[31m")
    'shards/\\\\x1b[31m'
    """
    # without the quotation marks that ascii() writes
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def escape_controls(text: str, keep: str = "", quote: Callable[[str], str] = ascii) -> str:
    r"""Return a text in which control characters are replaced by their escapes, except those in
    ``keep``.

    Unlike ``printable``, this function keeps unusual spaces and the characters that join letters.
    ``quote`` makes the escapes: Python's by default, JSON's with ``json.dumps``.

    >>> print(escape_controls("a\x1b[31mb\n"))
    a\x1b[31mb\n
    """
    # without the quotation marks that ``quote`` writes
    return _CONTROL.sub(lambda match: match[0] if match[0] in keep else quote(match[0])[1:-1], text)


def quoted(value: object, most: int = 100) -> str:
    """Return the ``repr`` of a value for a message, on one line and shortened to ``most``
    characters. Never raises, whatever the value is.

    >>> quoted("a" * 1000, 20)
    "'aaaaaaa ... aaaaaa'"
    >>> quoted([1, 2, 3]), quoted(range(10**9))
    ('[1, 2, 3]', 'range(0, 1000000000)')
    """
    try:
        text = _Brief(most).repr(value)
    except Exception:  # a __repr__ of a user's class may raise anything
        text = f"a {type(value).__name__}"
    return shortened(" ".join(text.split()), most)


def shortened(text: str, most: int) -> str:
    """Shorten a text that is longer than ``most`` characters, by leaving out its middle.

    >>> shortened("The quick brown fox jumps.", 15)
    'The q ... umps.'
    """
    if len(text) <= most:
        return text
    kept = max(most - len(_GAP), 2)  # number of characters of the text that are kept
    return text[: kept - kept // 2] + _GAP + text[len(text) - kept // 2 :]


def counted(number: int, noun: str) -> str:
    """Return a number and a noun, in the plural unless the number is 1.

    >>> counted(1, "text"), counted(1234, "text")
    ('1 text', '1,234 texts')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def per_second(number: float, seconds: float) -> str:
    """Return a rate for a message. A rate below ten has a decimal.

    >>> per_second(3, 2.0), per_second(123_456, 10.0), per_second(1, 1000.0)
    ('1.5 a second', '12,346 a second', '0.001 a second')
    """
    rate = number / max(seconds, 1e-9)
    if rate >= 9.95:  # a rate from 9.95 on would be rounded to 10.0
        return f"{rate:,.0f} a second"
    return f"{rate:.1f} a second" if rate >= 0.095 else f"{rate:.1g} a second"


class Detail(str):
    """A sentence for users who want more details. ``reviewgen train`` prints it only with
    ``--verbose``.
    """


class _Brief(reprlib.Repr):
    """A ``Repr`` that shortens the items of a value before it formats them, so that a list of ten
    million numbers takes no time.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = most
        self.fillvalue = _GAP.strip()

    def repr_str(self, x: str, level: int) -> str:
        return repr(shortened(x, self.maxstring - 2))

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x[: self.maxstring])

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if level <= 0:
            return "{...}"
        shown = [
            f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}"
            for key, value in islice(x.items(), 4)
        ]
        if len(x) > len(shown):
            shown.append("...")
        return "{" + ", ".join(shown) + "}"


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message; the name of the exception's type if there is
    no message.

    >>> first_line(OSError(28, "No space left on device"))
    'No space left on device'
    >>> first_line(Exception("[Errno -2] Name or service not known"))
    'Name or service not known'
    >>> first_line(MemoryError())
    'MemoryError'
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = text.strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[Errno -?\d+\] ", "", lines[0].strip()).rstrip(".")


def first_lines(error: BaseException) -> str:
    """Return the first two lines of an exception's message as one line, for errors of the Hub's
    client, whose second line says what the error is about.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = first_line(error)
    if len(lines) > 1:
        text += f" {lines[1]}"
    return text[:300].rstrip(".")


def did_you_mean(wrong: object, known: Iterable[str]) -> str:
    """Return the end of an error message about an unknown name: the closest known name, if a known
    name is similar; and all known names, or only the first ones if there are many.

    >>> did_you_mean("hiden_size", ["hidden_size", "layers"])
    "Did you mean 'hidden_size'? Known: hidden_size, layers."
    >>> did_you_mean("zzz", ["layers"])
    'Known: layers.'
    >>> did_you_mean("zzz", [])
    'Known: none.'
    """
    names = sorted(set(known))
    if not names:
        return "Known: none."
    hint = ""
    if isinstance(wrong, str) and len(wrong) <= _MAX_MISSPELLED:
        for near in difflib.get_close_matches(wrong, names, n=1):
            hint = f"Did you mean {near!r}? "
    # the length of the list of names up to each name; at least one name is shown
    lengths = accumulate(len(name) + 2 for name in names)
    shown = names[: max(1, sum(length <= _MAX_KNOWN for length in lengths))]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return f"{hint}Known: {', '.join(shown)}{more}."


def growing_state(after: Sequence[int], before: Sequence[int]) -> BrokenPlugin:
    """Return the error for a model whose states cannot be joined in a batch, since their shapes
    differ. The arguments are the shapes of two states.
    """
    shapes = " and ".join(str(tuple(shape)) for shape in (before, after))
    return BrokenPlugin(
        f"The model's states have different shapes, {shapes}: those of a state may depend on the"
        " batch size only (the first axis), never on the tokens read. A cache that grows must have"
        " a fixed size from the start. reviewgen.testing.check_model says more."
    )


@contextlib.contextmanager
def storage_errors(path: object) -> Iterator[None]:
    """Turn an OSError about a full disk or a path that is not writable into a StorageError that
    names the path.

    Args:
        path: What the block writes, for the message: a path or a description.

    Raises:
        StorageError: The disk is full, a size limit is reached, or the path is not writable.
    """
    try:
        yield
    except ReviewgenError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                f"No room to write {path}: {error.strerror}. Free some space, or choose another"
                " location."
            ) from None
        if error.errno in _NOT_WRITABLE:
            raise StorageError(
                f"{path} cannot be written: {error.strerror}. Choose another location."
            ) from None
        raise


_GAP = " ... "
_MAX_MISSPELLED = 200  # max characters of a name for which a similar known name is searched
_MAX_KNOWN = 300  # max characters of the list of known names in a message
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EBUSY,
    errno.EEXIST,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
