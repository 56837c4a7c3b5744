"""The character encoding of text files: which one a file has, and its bytes as text. Knows nothing of formats or paths.

Valid UTF-8 is UTF-8, and so is a file whose bytes beyond ASCII are mostly valid UTF-8: its other bytes are damage. Anything else
is recognised from a sample of its lines by ``charset-normalizer``, among the encodings that are in use: those of the Encoding
standard (https://encoding.spec.whatwg.org) and one of DOS. A short sample fits many of them equally well; then Windows-1252 is
the most probable.
"""

import codecs
import re
from collections.abc import Iterable

BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # starts with the mark of UTF-16, so it is checked first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LATIN = ("cp1252", "cp1250", "cp1254", "cp1257", "iso8859_2", "mac_roman", "cp850")
_CYRILLIC = ("cp1251", "koi8_r", "koi8_u", "iso8859_5", "cp866")
_ASIAN = ("cp932", "euc_jp", "gb18030", "big5", "cp949", "cp874")
_OTHERS = (*_CYRILLIC, *_ASIAN, "cp1253", "iso8859_7", "cp1255", "cp1256")
_MAX_DAMAGE = 0.45  # of the bytes beyond ASCII are invalid in damaged UTF-8; in texts of the encodings above, 0.54 or more
_MIN_BYTES = 8  # beyond ASCII, to tell the encodings of other scripts apart
_MIN_LATIN_BYTES = 16  # beyond ASCII, to tell those of Latin letters apart
_PRIOR = 0.08  # of Windows-1252; measured on texts in 20 languages, as is the weight of chaos against coherence
_SAMPLE, _LINE = 1 << 16, 1 << 12  # bytes, in all and of one line
_ESCAPE_RUN = re.compile("[\udc80-\udcff]+")


def recognise(lines: Iterable[bytes]) -> str | None:
    """Return the name of the encoding of a file that is not UTF-8, or None if it is damaged UTF-8 or no encoding fits.

    >>> recognise(["Die Straße ist schön, und das Frühstück war köstlich.".encode("latin-1")])
    'cp1252'

    Args:
        lines: The lines of the file.
    """
    sample = _sample(lines)
    beyond_ascii = sum(byte > 127 for byte in sample)
    if not beyond_ascii:
        return None
    damaged = sum(map(len, _ESCAPE_RUN.findall(sample.decode("utf-8", "surrogateescape"))))
    if damaged <= _MAX_DAMAGE * beyond_ascii:
        return None
    is_latin = beyond_ascii < sum(map(len, re.findall(rb"[A-Za-z]+", sample)))
    if is_latin and beyond_ascii < _MIN_LATIN_BYTES and _is_valid(sample, _LATIN[0]):
        return _LATIN[0]
    if is_latin or beyond_ascii >= _MIN_BYTES:
        return _most_probable(sample, _LATIN if is_latin else _OTHERS)
    return None


def _sample(lines: Iterable[bytes]) -> bytes:
    """Return the first lines that are not ASCII, which tell encodings apart, and some of the later ones."""
    telling = (line[:_LINE] for line in lines if not line[:_LINE].isascii())
    kept: list[bytes] = []
    size = 0
    for number, line in enumerate(telling):
        if size < _SAMPLE / 2 or (size < _SAMPLE and number % 100 == 0):
            kept.append(line)
            size += len(line)
    return b"".join(kept)


def _most_probable(sample: bytes, names: tuple[str, ...]) -> str | None:
    from charset_normalizer import from_bytes  # for the few files that are not UTF-8

    matches = from_bytes(sample, steps=16, chunk_size=1024, cp_isolation=list(names), preemptive_behaviour=False)
    scores: dict[str, float] = {}
    for match in matches:
        for name in set(match.could_be_from_charset).intersection(names):
            scores[name] = match.coherence - 2 * match.chaos + (_PRIOR if name == "cp1252" else 0)
    if names is _LATIN and not any(match.coherence for match in matches):  # too short to recognise a language
        return names[0] if _is_valid(sample, names[0]) else None
    return max(names, key=lambda name: scores.get(name, -9.0)) if scores else None


def _is_valid(sample: bytes, encoding: str) -> bool:
    try:
        return bool(sample.decode(encoding))
    except UnicodeDecodeError:
        return False
