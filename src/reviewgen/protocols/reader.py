"""Reader, the contract of a function that reads files or URLs of a format that reviewgen does not know. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import pyarrow

Records: TypeAlias = "pyarrow.RecordBatch | Sequence[Mapping[str, Any]]"
"""Some records: an Arrow batch, or a list of mappings of column to value."""


@runtime_checkable
class Reader(Protocol):
    """A function from a file or a URL to its records; an entry point in ``reviewgen.readers``.

    The name of the entry point is the suffix of the files, without its dot, or the scheme of the URLs: ``mbox`` reads ``a.mbox``
    and ``mbox://...``. Any column of strings can be the text; others may become conditions. The records are the same each time,
    and are yielded in batches, so that a large file is never loaded as a whole::

        def read(source):
            for message in mailbox.mbox(source, create=False):
                yield [{"text": message.get_payload(), "subject": message["subject"]}]

    An error that it raises is shown in one sentence with the name of the file.
    """

    def __call__(self, source: str) -> Iterable[Records]:
        """Yield the records of a file, given its path, or of a URL."""
        ...
