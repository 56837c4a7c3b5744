"""What texts are judged by and what is judged: a saved model, and a source of texts, which all processes read."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from reviewgen.data import DataConfig, open_source, workspace
from reviewgen.errors import ConfigError, DataError
from reviewgen.inputs import is_pipe
from reviewgen.model import ReviewModel, check_model
from reviewgen.processes import Processes, everywhere, share_stream

Item = TypeVar("Item")


def load_saved(model: Any, weight_bits: int = 32) -> tuple[ReviewModel, str | Path | None]:
    """Return a model, which may be moved to another device, and the source that it was loaded from.

    Args:
        model: A ReviewModel, or what ``load`` takes.
        weight_bits: The bits of a weight of a model that is loaded.

    Raises:
        ConfigError: It is neither, or a ReviewModel that is not saved as it is.
        ReviewgenError: It cannot be loaded; see ``load``.
    """
    if isinstance(model, str | Path):
        return ReviewModel.from_pretrained(model, weight_bits=weight_bits), model
    check_model("model", model)
    if model.digest is None:
        raise ConfigError("A table says which model it is from, and this one is not saved as it is: save and load it first.")
    folder = model.bundle.folder
    own = ReviewModel(replace(model.bundle, weights=copy.copy(model.bundle.weights)))  # the caller's stays on its device
    return own, model.bundle.source if folder is None else folder


def name_source(source: Any) -> str:
    """Return the name of a source of texts: its path or URL, or its type."""
    return str(source) if isinstance(source, str | Path) else type(source).__name__


def identify_source(source: Any, **columns: Any) -> list[Any] | None:
    """Return what identifies the texts of a source; None of one that is not read from files, or from a pipe.

    Args:
        source: See ``reviewgen.data.open_source``.
        columns: The options of ``DataConfig``.

    Raises:
        DataError: The source cannot be read.
    """
    if not isinstance(source, str | Path) and not (isinstance(source, list) and all(isinstance(one, Path) for one in source)):
        return None
    if isinstance(source, str | Path) and is_pipe(Path(source).expanduser()):
        return None
    with workspace() as folder:
        facts: list[Any] | None = open_source(source, DataConfig(**columns), folder, allow_missing=True).facts
        return facts


@contextmanager
def reading_errors(name: object) -> Iterator[None]:
    """Turn an OSError in a block that only reads into a DataError.

    Args:
        name: What is read, for the message.

    Raises:
        DataError: It cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or name} cannot be read: {error.strerror or error}.") from None


def share_batches(
    processes: Processes,
    batches: Iterable[Item],
    work: Callable[[int, Item], None],
    source: Any,
    *,
    content: Callable[[Item], bytes],
    place: object,
    report: Callable[[int], None] = lambda _: None,
) -> int:
    """Judge the batches of a source that all processes read; return their number.

    Args:
        processes: The processes.
        batches: The batches.
        work: Judges a batch.
        source: The source.
        content: Returns what identifies the texts of a batch.
        place: Where the results are written, for messages.
        report: Called with the number of batches that are known to be done.

    Raises:
        TrainingError: The processes have read different texts, as sources without an identity may be.
        ReviewgenError: The source cannot be read, or ``work`` has failed.
        ProcessLost: Another process has failed or ended.
    """
    digest = xxhash.xxh3_128()

    def read() -> Iterator[Item]:
        with reading_errors(name_source(source)):
            for batch in batches:
                digest.update(content(batch))
                yield batch

    count = share_stream(processes, read(), work, place, report)
    everywhere(processes, lambda: processes.refuse_differences({"the texts": digest.hexdigest()}), place)
    return count
