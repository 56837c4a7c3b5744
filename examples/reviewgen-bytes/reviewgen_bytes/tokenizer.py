"""The tokenizer ``bytes``: ids 0 and 1 are the beginning and the end of a text, id 2 + b is the
byte b of its UTF-8.

Every text is encoded without loss, also one with lone surrogates (half characters that broken JSON
leaves in a string): they are encoded as UTF-8 would encode their code points. Nothing is learned,
so all texts and languages have the same vocabulary.
"""

import codecs
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from reviewgen.config import check
from reviewgen.errors import BundleError, DataError

__all__ = ["BytesConfig", "BytesTokenizer"]

BOS = 0
EOS = 1
FIRST_BYTE = 2
FILE = "bytes.json"
CONTENT = {"schema": 1}


@dataclass(frozen=True, kw_only=True)
class BytesConfig:
    """The settings of ``bytes``: none."""

    def __post_init__(self) -> None:
        check(self)


class BytesTokenizer:
    """One id for each byte of UTF-8.

    >>> tokenizer = BytesTokenizer()
    >>> tokenizer.encode("né")
    [112, 197, 171]
    >>> tokenizer.decode([0, 112, 197, 171, 1])
    'né'
    """

    Config: ClassVar[type] = BytesConfig
    vocab_size = FIRST_BYTE + 256
    bos_id = BOS
    eos_id = EOS

    @classmethod
    def train(cls, texts: Iterable[str], config: BytesConfig) -> "BytesTokenizer":
        """Return the tokenizer; the texts are not read."""
        return cls()

    def encode(self, text: str) -> list[int]:
        """Return the ids of any text."""
        return [FIRST_BYTE + byte for byte in text.encode("utf-8", "surrogatepass")]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of any ids; bos and eos give no text, bytes that are not UTF-8 give
        U+FFFD.

        Raises:
            DataError: An id is not in the vocabulary.
        """
        wrong = next((number for number in ids if not 0 <= number < self.vocab_size), None)
        if wrong is not None:
            raise DataError(
                f"{wrong} is not an id of the tokenizer bytes: its ids are 0 to"
                f" {self.vocab_size - 1}."
            )
        return bytes(number - FIRST_BYTE for number in ids if number >= FIRST_BYTE).decode(
            "utf-8", "reviewgen_bytes"
        )

    def token_bytes(self) -> list[Sequence[int]]:
        """Return the bytes of each token, so that generated texts are valid UTF-8."""
        return [b"", b"", *([byte] for byte in range(256))]

    def save(self, folder: Path) -> None:
        """Write ``bytes.json``, which holds a schema number only, into an existing folder."""
        (folder / FILE).write_text(json.dumps(CONTENT), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "BytesTokenizer":
        """Return the tokenizer of a folder that ``save`` wrote to.

        Raises:
            BundleError: ``bytes.json`` is missing, damaged or of a later version.
        """
        path = folder / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{path} cannot be read: {error}. Save or download the model again."
            ) from None
        if content != CONTENT:
            raise BundleError(
                f"{path} holds {content!r}, not {CONTENT}. Upgrade reviewgen-bytes, or save the"
                " model again."
            )
        return cls()


def _pass_or_replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """Error handler of ``bytes.decode`` for invalid UTF-8: keep a surrogate, replace anything else
    by U+FFFD.
    """
    try:
        return codecs.lookup_error("surrogatepass")(error)
    except UnicodeDecodeError as invalid:
        return "\ufffd", invalid.end


codecs.register_error("reviewgen_bytes", _pass_or_replace)
