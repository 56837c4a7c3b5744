"""What a table is made from: a saved model, and the name of a source of texts."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from reviewgen.data import workspace
from reviewgen.data.shards import fingerprint
from reviewgen.data.sources import open_texts
from reviewgen.errors import ConfigError, DataError
from reviewgen.model import ReviewModel, check_model

__all__ = ["identify_source", "load_saved", "name_source", "read_all", "reading_errors"]

Item = TypeVar("Item")


def load_saved(model: Any, weight_bits: int = 32) -> tuple[ReviewModel, str | Path | None]:
    """Return a model, and the source that it was loaded from.

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
    return model, model.bundle.source if folder is None else folder


def name_source(source: Any) -> str:
    """Return the name of a source of texts: its path or URL, or its type."""
    return str(source) if isinstance(source, str | Path) else type(source).__name__


def identify_source(source: Any, **columns: Any) -> list[Any] | None:
    """Return what identifies the texts of a source; None of one that is not read from files.

    Args:
        source: See ``reviewgen.data.sources.open_texts``.
        columns: The options of ``open_texts``.

    Raises:
        DataError: The source cannot be read.
    """
    if not isinstance(source, str | Path) and not (isinstance(source, list) and all(isinstance(one, Path) for one in source)):
        return None
    with workspace() as folder:
        stream = open_texts(source, folder, allow_missing=True, **columns)
        if stream.hub is not None:
            return stream.hub.facts()
        return None if stream.shard is None else fingerprint(stream.shard)


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


def read_all(items: Iterable[Item], name: object) -> Iterator[Item]:
    """Yield items that are read on the way; see ``reading_errors``."""
    with reading_errors(name):
        yield from items
