"""The laws of the contract of readers in ``reviewgen.protocols``, one function each, with a file that the reader can read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reviewgen.data import DataConfig, read_examples
from reviewgen.data.tables import records_of

__all__ = ["READER_LAWS", "check_reader", "records", "same_again", "texts"]


def check_reader(reader: Any, source: str) -> None:
    """Check all laws in order, and stop at the first that the reader breaks.

    Args:
        reader: The reader.
        source: A file, or a URL, with a text or more.

    Raises:
        AssertionError: A law is broken.
    """
    for law in READER_LAWS:
        law(reader, source)


def records(reader: Any, source: str) -> None:
    """It yields Arrow batches or lists of mappings, whose columns have names."""
    found = _read(reader, source)
    assert found, f"The reader found nothing in {source}."
    assert all(isinstance(record, Mapping) and all(isinstance(key, str) for key in record) for record in found), (
        f"A record must be a mapping of column names to values; got {found[0]!r}."
    )


def same_again(reader: Any, source: str) -> None:
    """It reads the same records each time."""
    assert _read(reader, source) == _read(reader, source), "The reader does not read the same again."


def texts(reader: Any, source: str) -> None:
    """A column of its records holds text."""
    found = list(read_examples(_read(reader, source), DataConfig(clean=False)))
    assert any(text.strip() for text, _ in found), "No column of the records holds text."


def _read(reader: Any, source: str) -> list[Any]:
    chunks = list(reader(source))
    for chunk in chunks:
        is_known = hasattr(chunk, "schema") or (isinstance(chunk, Sequence) and not isinstance(chunk, str | bytes))
        assert is_known, f"The reader yields {type(chunk).__name__}; it must yield Arrow batches or lists of mappings."
    return list(records_of(chunks))


READER_LAWS: tuple[Callable[[Any, str], None], ...] = (records, same_again, texts)
"""All laws, in the order in which ``check_reader`` checks them."""
