"""The tokenizer ``char``: one id per character of the training text, and a byte fallback for every
other character.

Ids, in order:

    0, 1       beginning and end of text
    2 .. 17    the sixteen hexadecimal digits: the byte fallback
    18 ..      the characters of the training text, sorted by code point

A character that is not in the training text is encoded as its UTF-8 bytes. Each byte becomes two
digits, the high one first: ``é`` (bytes C3 A9) becomes the four ids of C, 3, A and 9. So every text
can be encoded and decoded without loss.

Why sixteen digits, not 256 bytes: every id is a row of a model's output layer, which is computed at
every step. 240 more rows, which are never trained, would more than double the vocabulary of an
English corpus. In return, a character outside the vocabulary takes two ids per byte, not one.

Surrogates (half characters, which broken JSON leaves in a Python string) never get an id, because
two neighbours in the saved vocabulary would be read from JSON as one character. They are encoded by
the fallback. Must not know any model or import torch.
"""

import codecs
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import filterfalse, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reviewgen.config import MAX_VOCABULARY, check, read_json
from reviewgen.errors import BundleError, DataError

BOS = 0
EOS = 1
FIRST_DIGIT = 2
FIRST_CHARACTER = 18
FILE = "characters.json"
SCHEMA = 1
UNKNOWN = -1  # stands for the id of a character that has none


@dataclass(frozen=True, kw_only=True)
class CharConfig:
    """The settings of ``char``: none, since the training text decides the vocabulary."""

    def __post_init__(self) -> None:
        check(self)


class CharTokenizer:
    """One id per character, lossless for every ``str``.

    >>> tokenizer = CharTokenizer("abc")
    >>> tokenizer.encode("cab")
    [20, 18, 19]
    >>> tokenizer.encode("é")
    [14, 5, 12, 11]
    >>> tokenizer.decode([0, 20, 14, 5, 12, 11, 1])
    'cé'
    """

    Config = CharConfig
    bos_id = BOS
    eos_id = EOS

    def __init__(self, characters: str) -> None:
        """Create a tokenizer with a vocabulary.

        ``characters`` are distinct and sorted by code point, without surrogates.
        """
        self.characters = characters
        self.vocab_size = FIRST_CHARACTER + len(characters)
        self._codes = _to_codes(characters)
        highest = int(self._codes[-1]) if characters else -1
        # the id of each code point; the last entry is for all higher code points
        self._ids = np.full(highest + 2, UNKNOWN, dtype=np.int32)
        self._ids[self._codes] = np.arange(FIRST_CHARACTER, self.vocab_size, dtype=np.int32)
        # The table of bytes.translate that maps ASCII text to ids; its upper half is not used. A
        # character without an id is mapped to bos, which is not the id of any character.
        ascii_ids = [max(int(self._ids[min(code, highest + 1)]), BOS) for code in range(128)]
        self._ascii = bytes(ascii_ids) + bytes(128)

    @classmethod
    def train(cls, texts: Iterable[str], config: CharConfig) -> "CharTokenizer":
        """Return a tokenizer whose vocabulary has all characters of the texts. The texts are
        iterated once.
        """
        seen = set[str]()
        seen_ascii = b""
        for text in texts:
            # removing known ASCII characters first is faster than a set of each text
            new = text.encode("utf-8", "surrogatepass").translate(None, seen_ascii)
            characters = new.decode("utf-8", "surrogatepass")
            if not seen.issuperset(characters):
                seen.update(characters)
                seen_ascii = "".join(filter(str.isascii, seen)).encode()
        return cls("".join(sorted(filterfalse(_is_surrogate, seen))))

    @classmethod
    def combine(cls, tokenizers: Sequence["CharTokenizer"]) -> "CharTokenizer":
        """Combine tokenizers that were trained on different texts into one for all of these texts.

        See ``reviewgen.protocols.SupportsTrainingInParts``.
        """
        every = "".join(tokenizer.characters for tokenizer in tokenizers)
        return cls("".join(sorted(set(every))))

    def encode(self, text: str) -> list[int]:
        """Return the ids of any text."""
        return self._encode(text).tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32] | NDArray[np.uint8]]:
        """Return the ids of each text, as arrays."""
        return [self._encode(text) for text in texts]

    def decode(self, ids: Sequence[int] | int) -> str:
        """Return the text of a sequence of ids, or of one id.

        bos and eos give no text. Digits that are not valid UTF-8 give U+FFFD.

        Raises:
            DataError: An id is not in the vocabulary.
        """
        checked = self._checked([ids] if isinstance(ids, int) else ids)
        checked = checked[checked >= FIRST_DIGIT]  # without bos and eos
        is_digit = checked < FIRST_CHARACTER
        if not is_digit.any():
            return self._decode_characters(checked)
        # cut the ids into runs: of digits only, or of characters only
        starts = np.flatnonzero(np.diff(is_digit)) + 1
        bounds = [0, *starts.tolist(), len(checked)]
        runs = (checked[start:stop] for start, stop in pairwise(bounds))
        return "".join(
            _decode_digits(run) if run[0] < FIRST_CHARACTER else self._decode_characters(run)
            for run in runs
        )

    def token_bytes(self) -> list[Sequence[int]]:
        """Return the UTF-8 bytes of each token; for the digit n, which is half a byte, 256 + n.

        See ``reviewgen.protocols.SupportsTokenBytes``.
        """
        digits = [(256 + digit,) for digit in range(FIRST_CHARACTER - FIRST_DIGIT)]
        return [b"", b"", *digits, *(character.encode() for character in self.characters)]

    def tokenizer_json(self) -> str:
        """Return the tokenizer in the format of the library ``tokenizers``.

        See ``reviewgen.protocols.SupportsTokenizerJson``.
        """
        from reviewgen_char.tokenizer_json import write_json  # slow: loads the library tokenizers

        return write_json(self.characters)

    @classmethod
    def from_tokenizer_json(cls, text: str) -> "CharTokenizer":
        """Return the tokenizer that ``tokenizer_json`` was called on."""
        from reviewgen_char.tokenizer_json import read_characters

        characters = read_characters(json.loads(text)["model"]["vocab"])
        content = {"schema": SCHEMA, "characters": characters}
        return cls(_checked_characters(Path("tokenizer.json"), content))

    def save(self, folder: Path) -> None:
        """Write ``characters.json`` into an existing folder."""
        content = json.dumps({"schema": SCHEMA, "characters": self.characters}, ensure_ascii=False)
        (folder / FILE).write_text(content, encoding="utf-8", newline="")

    @classmethod
    def load(cls, folder: Path) -> "CharTokenizer":
        """Load a tokenizer from a folder that ``save`` wrote to.

        Raises:
            BundleError: ``characters.json`` is missing or damaged, or another program wrote it.
        """
        path = folder / FILE
        try:
            content = read_json(path, MAX_VOCABULARY)
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read: {error.strerror}. It contains the vocabulary of a char"
                " model."
            ) from error
        except ValueError:  # not UTF-8, not JSON, too large, or nested too deeply
            raise BundleError(
                f"{path} is damaged: it is not a JSON file. Save or download the model again."
            ) from None
        return cls(_checked_characters(path, content))

    def _encode(self, text: str) -> NDArray[np.int32] | NDArray[np.uint8]:
        """Return the ids of a text."""
        # A fast path, since most texts are ASCII. The ids of ASCII characters fit into a byte. If
        # one of them has no id (the table gives bos), the text takes the general path.
        if text.isascii():
            translated = text.encode().translate(self._ascii)
            if BOS not in translated:
                return np.frombuffer(translated, np.uint8)
        codes = _to_codes(text)
        ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
        unknown = ids == UNKNOWN
        return _encode_unknown(ids, codes, unknown) if unknown.any() else ids

    def _decode_characters(self, ids: NDArray[np.int64]) -> str:
        """Return the text of ids from FIRST_CHARACTER on."""
        return _to_text(self._codes[ids - FIRST_CHARACTER])

    def _checked(self, ids: Sequence[int]) -> NDArray[np.int64]:
        """Return ids as an array, or raise if one is not in the vocabulary."""
        array = np.asarray(ids)  # not converted to int64 yet: an id may be too large
        if array.size and (array.min() < 0 or array.max() >= self.vocab_size):
            wrong = array[(array < 0) | (array >= self.vocab_size)][0]
            raise DataError(
                f"{wrong} is not an id of this tokenizer: its ids are 0 to {self.vocab_size - 1}."
            )
        return array.astype(np.int64, copy=False)


def _to_codes(text: str) -> NDArray[np.uint32]:
    """Return the code point of each character."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _to_text(codes: NDArray[np.uint32]) -> str:
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


def _is_surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def _encode_unknown(
    ids: NDArray[np.int32], codes: NDArray[np.uint32], unknown: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Return ids in which each unknown character is replaced by the digits of its UTF-8 bytes, two
    digits per byte. ``ids``, ``codes`` and ``unknown`` have one entry for each character.
    """
    unknown_codes = codes[unknown]
    raw = np.frombuffer(_to_text(unknown_codes).encode("utf-8", "surrogatepass"), np.uint8)
    digits = np.stack((raw >> 4, raw & 15), axis=1).reshape(-1)
    # The number of ids of each character: 1 if it is known, else 2 for each byte. In UTF-8, a
    # character has one byte more from each of the following code points on.
    counts = np.ones(len(ids), dtype=np.int64)
    counts[unknown] = 2 * (
        1
        + (unknown_codes >= 0x80).astype(np.int64)
        + (unknown_codes >= 0x800)
        + (unknown_codes >= 0x10000)
    )
    encoded = np.repeat(ids, counts)
    encoded[np.repeat(unknown, counts)] = digits.astype(np.int32) + FIRST_DIGIT
    return encoded


def _decode_digits(ids: NDArray[np.int64]) -> str:
    """Decode pairs of digits as UTF-8 bytes. A last digit without a partner becomes U+FFFD."""
    digits = (ids - FIRST_DIGIT).astype(np.uint8)
    paired = len(digits) // 2 * 2  # number of digits that have a partner
    raw = (digits[0:paired:2] << 4) | digits[1:paired:2]
    # "reviewgen_char" names ``_pass_or_replace``, which handles invalid UTF-8
    return raw.tobytes().decode("utf-8", "reviewgen_char") + "\ufffd" * (len(digits) - paired)


def _pass_or_replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handle invalid UTF-8 in ``bytes.decode``: return what the invalid bytes become, and where to
    go on. An encoded surrogate is decoded; other bytes become U+FFFD.
    """
    try:
        return codecs.lookup_error("surrogatepass")(error)
    except UnicodeDecodeError as broken:
        return "\ufffd", broken.end


codecs.register_error("reviewgen_char", _pass_or_replace)


def _checked_characters(path: Path, content: Any) -> str:
    """Check the parsed content of a saved tokenizer, and return its vocabulary.

    Raises:
        BundleError: The content is damaged, or no char tokenizer has written it.
    """
    if (
        not isinstance(content, dict)
        or set(content) != {"schema", "characters"}
        or not isinstance(content["characters"], str)
    ):
        raise BundleError(
            f"{path} is not the file of a char tokenizer: it must have the keys schema and"
            " characters, a string."
        )
    if content["schema"] != SCHEMA:
        raise BundleError(
            f"{path} has schema {content['schema']!r}; this version of reviewgen supports {SCHEMA}."
            " Upgrade reviewgen."
        )
    characters: str = content["characters"]
    is_sorted = all(a < b for a, b in pairwise(characters))
    if not is_sorted or any(map(_is_surrogate, characters)):
        raise BundleError(
            f"{path} is damaged: characters must be distinct, sorted by code point and without"
            " surrogates."
        )
    return characters
