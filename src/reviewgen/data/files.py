"""Find data files, on disk or behind a URL, and make each a *plain file*: unpacked and, if it is a
text format, valid UTF-8.

One pass over a file computes its digest and checks its encoding. A file that is already plain is
used where it is. For any other file, a plain copy is made in a given folder.

A file counts as UTF-8 if all its bytes are valid UTF-8, or if most of its bytes beyond ASCII are:
then the other bytes are damage. For any other file, ``charset-normalizer`` detects the encoding
from a sample of the lines. It chooses among the encodings in use: those of the Encoding standard
(https://encoding.spec.whatwg.org) and one of DOS. If the sample is short, many of them fit equally
well; then Windows-1252 is taken as the most probable one.
"""

import bz2
import codecs
import contextlib
import difflib
import glob
import gzip
import itertools
import lzma
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from reviewgen.config.bounded import MAX_DEPTH
from reviewgen.config.names import parse_hub_id
from reviewgen.data.documents import file_layout
from reviewgen.errors import (
    DataError,
    ReviewgenError,
    first_line,
    quoted,
    shortened,
    storage_errors,
)
from reviewgen.registry.plugins import list_plugins
from reviewgen.storage import open_input

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # it begins with the BOM of UTF-16, so it is checked first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# the encodings among which ``recognise`` chooses; Windows-1252 is the most usual one
_WINDOWS = "cp1252"
_LATIN = (_WINDOWS, "cp1250", "cp1254", "cp1257", "iso8859_2", "mac_roman", "cp850")
_CYRILLIC = ("cp1251", "koi8_r", "koi8_u", "iso8859_5", "cp866")
_ASIAN = ("cp932", "euc_jp", "gb18030", "big5", "cp949", "cp874")
_OTHERS = (*_CYRILLIC, *_ASIAN, "cp1253", "iso8859_7", "cp1255", "cp1256")
# Max share of invalid bytes among the bytes beyond ASCII for a file to count as damaged UTF-8. In
# texts of the encodings above, the share is 0.54 or more.
_MAX_DAMAGE = 0.45
_MIN_BYTES = 8  # bytes beyond ASCII needed to tell encodings of other scripts apart
_MIN_LATIN_BYTES = 16  # bytes beyond ASCII needed to tell encodings of Latin letters apart
# The bonus of Windows-1252 in the scores of ``recognise``. This bonus, and the weight of chaos
# against coherence there, were measured on texts in 20 languages.
_PRIOR = 0.08
_SAMPLE = 1 << 16  # max bytes, about, of the sample that an encoding is detected from
_LINE = 1 << 12  # max bytes of a line in the sample

KINDS = {
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".db": "sqlite",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
}
"""The format of a file by its suffix; ``tables.find_read`` chooses its reader. Plugins in the
group ``reviewgen.readers`` add suffixes.
"""

# text formats: their files are converted to UTF-8 before they are read
_TEXTS = {"text", "csv", "json"}
_MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow", b"SQLite format 3\0": "sqlite"}
_CHUNK = 1 << 20  # bytes that are copied at once
_MAX_LINE = 1 << 16  # max bytes of a line that are read at once when an encoding is detected
_MAX_NAME = 255  # max bytes of a file name
# timeout in seconds for a web server to accept a connection, and for each read from it
_WAIT = 30.0
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DAMAGE = re.compile("\ufffd+")
_numbers = itertools.count()  # numbers of the copies that this process makes


def _open_zstd(file: Path) -> Any:
    """Open a zstd file for reading, as ``gzip.open`` opens a gzip file."""
    import pyarrow

    return pyarrow.input_stream(str(file), compression="zstd")


_OPENERS: Mapping[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}


@dataclass(frozen=True)
class PlainFile:
    """A file that is ready to be read.

    Attributes:
        path: The path of the plain file.
        name: The name of the user's original file, for messages.
        kind: The format, as in ``KINDS``, or the name of a reader.
        facts: The suffix, the size and the digest of the content.
        decode_errors: Number of runs of bytes that are not valid in the original encoding.
        encoding: The original encoding, if it was guessed; else None.
    """

    path: Path
    name: str
    kind: str
    facts: tuple[str, int, str]
    decode_errors: int = 0
    encoding: str | None = None


def is_url(source: str) -> bool:
    """Return whether a source is a URL. ``hf://owner/name`` names a dataset of the Hub and does not
    count as a URL.

    >>> is_url("s3://bucket/reviews.csv"), is_url("hf://datasets/owner/name/a.csv")
    (True, True)
    >>> is_url("hf://owner/name"), is_url("a.csv")
    (False, False)
    """
    return _URL.match(source) is not None and parse_hub_id(source) is None


def is_text(source: str | Path) -> bool:
    """Return whether a source is certainly a text and not a path: it has a line break, or a part of
    it is too long for a file name.
    """
    parts = str(source).encode("utf-8", "replace").split(b"/")
    return "\n" in str(source) or max(map(len, parts)) > _MAX_NAME


def expand(path: str | Path) -> Path:
    """Return a path with ``~`` expanded. The ``~name`` of an unknown user stays, so that
    ``find_files`` can report it.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser would raise


def suffix_of(file: Path) -> str:
    """Return a file's suffix in lower case, without a compression suffix such as ``.gz``."""
    return _unpacked(file).suffix.lower()


def _unpacked(file: Path) -> Path:
    """Return a file's path without its compression suffix."""
    return file.with_suffix("") if file.suffix.lower() in {*_OPENERS, ".zip"} else file


def find_files(pattern: str | Path) -> list[Path]:
    """Return the files that a path or a glob names, or the data files of a folder, sorted.

    Raises:
        DataError: No such file exists.
    """
    if not str(pattern).strip():
        raise DataError(
            "The source is an empty string. Name a file, a glob, a Hub dataset (owner/name) or"
            " 'reviews'."
        )
    try:
        path = Path(pattern).expanduser()
        is_folder = path.is_dir()
        exists = path.exists()
    except RuntimeError:
        raise DataError(
            f"{pattern} starts with the home folder of a user who does not exist on this machine."
        ) from None
    except OSError as error:  # such as a name that is too long, or a folder without permission
        shown = shortened(str(pattern), 60)
        raise DataError(
            f"{shown} cannot be read as a file: {error.strerror}. To train on texts, pass a list of"
            " them."
        ) from None
    if is_folder:
        return _find_in_folder(path, pattern)
    if exists:
        return [path]
    if not glob.has_magic(str(pattern)):
        names = ["reviews", *(file.name for file in path.parent.glob("*"))]
        near = difflib.get_close_matches(path.name, names, n=1)
        hint = f"Did you mean {near[0]}? Else give" if near else "Check the name, or give"
        raise DataError(
            f"There is no file {pattern}. {hint} a glob, a Hub dataset (owner/name) or 'reviews'."
        )
    # Path.glob also matches hidden files, and refuses absolute patterns
    matches = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207  see above
    files = sorted(filter(Path.is_file, matches))
    if not files:
        raise DataError(f"No file matches {pattern}.")
    return files


def _find_in_folder(folder: Path, name: str | Path) -> list[Path]:
    """Return the data files of a folder, sorted, without hidden ones. ``name`` is for messages."""
    if (folder / "store.json").is_file():
        raise DataError(
            f"{name} is a token store, which train, sweep and tune read. Give the reviews"
            " themselves here."
        )
    if (folder / "model.safetensors").is_file():
        raise DataError(f"The folder {name} is a saved model. Give the reviews instead.")
    files = list[Path]()
    for file in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        is_data = kind_of(file) and file.name != "manifest.json"
        if is_data and not is_hidden and file.is_file():
            files.append(file)
    if not files:
        raise DataError(
            f"The folder {name} has no data files ({', '.join(KINDS)}). Name its files with a glob."
        )
    return files


def fetch_files(url: str, folder: Path) -> list[tuple[Path, str]]:
    """Copy the files that a URL names, which may have a glob, into a folder; return each copy with
    its URL, sorted by name.

    Raises:
        DataError: The URL cannot be read, or no file matches.
    """
    with remote(url, "read") as (system, path):
        names = sorted(system.glob(path)) if glob.has_magic(path) else [path]
        if not names:
            raise DataError(f"No file matches {url}.")
        copies = [_copy_path(folder, Path(name).name.partition("?")[0]) for name in names]
        system.get(names, [str(copy) for copy in copies])
        # with a glob, the URL of each file
        urls = [url] if len(names) == 1 else map(str, map(system.unstrip_protocol, names))
        return list(zip(copies, urls, strict=True))


@contextlib.contextmanager
def reading_errors(name: str) -> Iterator[None]:
    """Context manager that turns any error of a reader in its block into a DataError of one
    sentence.
    """
    try:
        yield
    except ReviewgenError:
        raise
    except RecursionError:
        raise DataError(
            f"{name} cannot be read: its records are nested more than {MAX_DEPTH} levels deep."
        ) from None
    except SystemExit as error:
        raise DataError(
            f"{name} cannot be read: its reader calls sys.exit({quoted(error.code)})."
        ) from None
    # pyarrow and datasets raise errors of their own types, and a user's iterable may raise any
    # error
    except Exception as error:
        raise DataError(f"{name} cannot be read: {first_line(error)}.") from None


async def _open_session(**options: Any) -> Any:
    """Return an HTTP client for fsspec whose timeout limits each wait, and not the whole download.
    fsspec's configuration may override this.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_WAIT, sock_read=_WAIT)
    return aiohttp.ClientSession(**{"timeout": timeout, "trust_env": True, **options})


@contextlib.contextmanager
def remote(url: str, verb: str) -> Iterator[tuple[Any, str]]:
    """Context manager that yields the file system and the path of a URL, and raises a DataError for
    any error in its block.

    Args:
        url: The URL.
        verb: What the block does with the URL, for the error's message: "read" or "written".
    """
    import fsspec

    options = {"get_client": _open_session} if url.startswith("http") else {}
    try:
        yield fsspec.core.url_to_fs(url.rstrip("/"), **options)
    except ReviewgenError:
        raise
    except FileNotFoundError:
        raise DataError(f"There is no file {url}. Check the address.") from None
    except TimeoutError:
        raise DataError(
            f"{url} cannot be {verb}: no answer came in time. Check the address and the network."
        ) from None
    except Exception as error:  # each file system raises types of its own
        raise DataError(
            f"{url} cannot be {verb} ({first_line(error)}): check the address, the network and your"
            " credentials."
        ) from None


def kind_of(file: Path) -> str | None:
    """Return the format of a file by its suffix; None if it is unknown."""
    suffix = suffix_of(file)
    if kind := KINDS.get(suffix):
        return kind
    names = [plugin.name for plugin in list_plugins("reader")]
    return suffix[1:] if suffix[1:] in names else None


def make_plain(file: Path, folder: Path, name: str) -> Iterator[PlainFile]:
    """Yield the plain files made from a file: usually one; none if the file is empty; and one for
    each data file in a zip archive.

    Args:
        file: The file.
        folder: Where copies are written.
        name: The name of the file in messages.

    Raises:
        DataError: The file is unreadable, binary or damaged.
        StorageError: The disk of the folder is full.
    """
    with reading_errors(name):
        if file.suffix.lower() == ".zip":
            yield from _unzip(file, folder, name)
        else:
            plain = _make_plain(file, folder, name)
            if plain.facts[1]:  # its size
                yield plain


def _unzip(file: Path, folder: Path, name: str) -> Iterator[PlainFile]:
    """Yield the plain files of the data files in a zip archive."""
    with zipfile.ZipFile(file) as archive:
        members = [
            member
            for member in sorted(archive.namelist())
            if kind_of(Path(member)) and not member.startswith("__MACOSX/")
        ]
        if not members:
            raise DataError(f"{name} has no data files ({', '.join(KINDS)}).")
        for member in members:
            with archive.open(member) as stream:
                copy = _copy(stream, folder, Path(member).name)
            yield from make_plain(copy, folder, f"{name}/{member}")


def _make_plain(file: Path, folder: Path, name: str) -> PlainFile:
    """Return the plain file made from a file that is not a zip archive."""
    path = file
    suffix = suffix_of(file)
    opener = _OPENERS.get(file.suffix.lower())
    if opener or not file.is_file():  # a pipe can be read only once
        with (opener or open_input)(file) as stream:
            path = _copy(stream, folder, _unpacked(file).name)
    kind = kind_of(file) or ("text" if suffix else _kind_by_content(path))
    digest, encoding, has_nul = _inspect(path)
    if (log := Path(f"{path}-wal")).is_file() and kind == "sqlite":  # write-ahead log
        digest += _inspect(log)[0]
    facts = (suffix, path.stat().st_size, digest)
    # a file that is already plain
    if kind not in _TEXTS or (encoding == "utf-8" and not has_nul):
        return PlainFile(path, name, kind, facts)
    # a text has NUL bytes only in UTF-16 and UTF-32
    if has_nul and encoding in (None, "utf-8", "utf-8-sig"):
        raise DataError(
            f"{name} is a binary file, not text. Supported formats are {', '.join(KINDS)}, each"
            " also as .gz, .bz2, .xz, .zst or in a .zip archive."
        )
    guessed = None
    if encoding is None:
        with path.open("rb") as stream:
            guessed = recognise(iter(lambda: stream.readline(_MAX_LINE), b""))
    copy = _copy_path(folder, f"{path.stem}.utf8{suffix or '.txt'}")
    errors = _write_utf8(path, copy, encoding or guessed or "utf-8", name)
    if not copy.stat().st_size:  # the file has only a byte order mark
        facts = (suffix, 0, digest)
    return PlainFile(copy, name, kind, facts, errors, guessed)


def _kind_by_content(path: Path) -> str:
    """Return the format of a file by its first bytes; "text" if they are of no other format."""
    with path.open("rb") as stream:
        head = stream.read(16)
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "text")


def _copy(stream: Any, folder: Path, name: str) -> Path:
    """Copy a binary stream, such as an opened gzip file, into a folder under a unique name."""
    path = _copy_path(folder, name)
    with storage_errors(folder), path.open("wb") as target:
        shutil.copyfileobj(stream, target, _CHUNK)
    return path


def _copy_path(folder: Path, name: str) -> Path:
    """Return a path in a folder that no other copy has."""
    return folder / f"{next(_numbers):05d}-{name}"


def _inspect(path: Path) -> tuple[str, str | None, bool]:
    """Return the digest of a file, its encoding, and whether it has NUL bytes.

    The encoding is that of the byte order mark, if there is one, or "utf-8" if all bytes are valid
    UTF-8; otherwise None.
    """
    digest = xxhash.xxh3_128()
    decoder = codecs.getincrementaldecoder("utf-8")()
    has_nul = False
    with path.open("rb") as stream:
        head = stream.read(4)
        encoding: str | None = next((name for bom, name in _BOMS if head.startswith(bom)), "utf-8")
        stream.seek(0)
        chunk = head
        # the last chunk is empty, and tells the decoder that the file ends
        while chunk:
            chunk = stream.read(_CHUNK)
            digest.update(chunk)
            has_nul = has_nul or b"\0" in chunk
            try:
                if encoding == "utf-8":
                    decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError:
                encoding = None
    return digest.hexdigest(), encoding, has_nul


def _write_utf8(source: Path, target: Path, encoding: str, name: str) -> int:
    """Convert a file to UTF-8; return the number of runs of invalid bytes. Each run becomes one
    U+FFFD.

    Raises:
        DataError: The file has NUL characters, so it is not a text. ``name`` is used in the
            message.
    """
    errors = 0
    with (
        storage_errors(target.parent),
        source.open(encoding=encoding, errors="replace", newline="") as lines,
        target.open("w", encoding="utf-8", newline="") as copy,
    ):
        for line in lines:
            if "\0" in line:
                raise DataError(f"{name} has NUL characters, so it is not a text.")
            repaired, count = _DAMAGE.subn("\ufffd", line)
            errors += count
            copy.write(repaired)
    return errors


def recognise(lines: Iterable[bytes]) -> str | None:
    """Detect the encoding of a file that is not valid UTF-8. Return None if the file is damaged
    UTF-8, or if no encoding fits.

    >>> recognise(["Die Straße ist schön, und das Frühstück war köstlich.".encode("latin-1")])
    'cp1252'

    Args:
        lines: The lines of the file.
    """
    from charset_normalizer import from_bytes  # imported here, since few files need it

    sample = _telling_lines(lines)
    text = sample.decode("utf-8", "surrogateescape")  # an invalid byte becomes a surrogate
    beyond_ascii = len(re.findall(rb"[^\x00-\x7f]", sample))
    if len(re.findall("[\udc80-\udcff]", text)) <= _MAX_DAMAGE * beyond_ascii:
        return None
    is_latin = beyond_ascii < len(re.findall(rb"[A-Za-z]", sample))
    names = _LATIN if is_latin else _OTHERS
    # Windows-1252 if the sample has Latin letters and is valid in it, else None
    usual = _WINDOWS if is_latin and "\ufffd" not in sample.decode(_WINDOWS, "replace") else None
    # With too few bytes, encodings cannot be told apart. But a sample of Latin letters that is not
    # valid in Windows-1252 is always examined.
    min_bytes = _MIN_LATIN_BYTES if usual else _MIN_BYTES
    if beyond_ascii < min_bytes and (usual or not is_latin):
        return usual
    matches = from_bytes(
        sample, steps=16, chunk_size=1024, cp_isolation=list(names), preemptive_behaviour=False
    )
    # without coherence in any match, the sample is too short to detect a language
    if is_latin and not any(match.coherence for match in matches):
        return usual
    scores: dict[str, float] = {}
    for match in matches:
        for name in set(match.could_be_from_charset).intersection(names):
            scores[name] = match.coherence - 2 * match.chaos + (_PRIOR if name == _WINDOWS else 0)
    # of equal scores, the first name counts; -9 is below every score
    return max(names, key=lambda name: scores.get(name, -9.0)) if scores else None


def _telling_lines(lines: Iterable[bytes]) -> bytes:
    """Return a sample of the lines that are not ASCII, since only these tell encodings apart: half
    of it are the first such lines, the other half is every hundredth.
    """
    telling = itertools.filterfalse(bytes.isascii, (line[:_LINE] for line in lines))
    sample = b""
    for number, line in enumerate(telling):
        if len(sample) < _SAMPLE / 2 or (len(sample) < _SAMPLE and number % 100 == 0):
            sample += line
    return sample


def note_files(files: Sequence[PlainFile], documents: str) -> list[str]:
    """Return notes for the user: one for each encoding that was guessed, and one if txt files are
    hard-wrapped.

    Args:
        files: The files.
        documents: How txt files are cut into texts.
    """
    notes = []
    for encoding in dict.fromkeys(file.encoding for file in files if file.encoding):
        names = [file.name for file in files if file.encoding == encoding]
        subject = f"{names[0]} is"
        if len(names) > 1:
            subject = f"{len(names)} files, {names[0]} the first, are"
        notes.append(
            f"{subject} not UTF-8 and read as {encoding}."
            " If letters look wrong, convert to UTF-8: iconv -f ENCODING -t UTF-8."
        )
    cut_files = [file for file in files if file.kind == "text" and documents != "file"]
    # the first result of file_layout is whether the file is hard-wrapped
    wrapped = [file.name for file in cut_files if file_layout(file.path)[0]]
    if wrapped:
        subject = f"{wrapped[0]} is"
        if len(cut_files) > 1:
            subject = f"{len(wrapped)} of {len(cut_files)} files are"
        consequence = ": the lines of each paragraph are joined."
        if documents == "line":
            consequence = (
                ", so each text is a piece of a paragraph: use --documents paragraph, and"
                " --keep-line-breaks for poems."
            )
        notes.append(f"{subject} hard-wrapped{consequence}")
    return notes
