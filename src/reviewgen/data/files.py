"""Makes files fit to be read: finds them, unpacks them, checks that they are text, replaces what is no UTF-8.

Every file gets a stand-in of a plain name in a workspace: a link to it where it is sound, a repaired copy where it is not.
The stand-ins are then read, whatever the file was called and however it was packed.
"""

import codecs
import glob
import gzip
import itertools
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import IO, cast

from reviewgen.errors import DataError, storage_errors

__all__ = ["KINDS", "PreparedFiles", "find_files", "has_data_suffix", "prepare_files"]

KINDS = {
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}
_CHUNK = 1 << 20  # bytes
_NOT_UTF8 = re.compile("[\udc80-\udcff]+")
_ESCAPES = "".join(map(chr, range(0xDC80, 0xDD00)))  # what bytes that are no UTF-8 decode to
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


# UTF-16 and UTF-32 know no surrogateescape: any of its characters stands for the bytes.
codecs.register_error("reviewgen_files", lambda error: (_ESCAPES[0], cast(UnicodeDecodeError, error).end))


@dataclass(frozen=True)
class PreparedFiles:
    """Stand-ins of one kind, ready to be read; ``decode_errors`` counts runs of bytes that are no UTF-8."""

    kind: str
    paths: list[Path]
    originals: list[Path]
    decode_errors: int


def has_data_suffix(name: str) -> bool:
    """Return whether a name ends as a data file does (.csv, .jsonl.gz, ...)."""
    return _suffix(Path(name)) in KINDS


def find_files(pattern: str | Path) -> list[Path]:
    """Return the files that a path or a glob names, sorted.

    Raises:
        DataError: Nothing is there, or it is a folder.
    """
    path = _expand(pattern)
    if path.is_dir():
        raise DataError(f"{pattern} is a folder. Name its files with a glob, as in '{path}/*.txt'.")
    if path.exists():
        return [path]
    if glob.has_magic(str(pattern)):
        # Path.glob would take hidden files too, and no pattern that begins at the root
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())  # noqa: PTH207
        if not found:
            raise DataError(f"No file matches {pattern}.")
        return found
    raise DataError(f"There is no file {pattern}. Check the name, or give a glob, a Hub dataset (owner/name) or 'reviews'.")


def _expand(pattern: str | Path) -> Path:
    """Return a path that the system can be asked about."""
    shown = str(pattern) if len(str(pattern)) <= 60 else f"{str(pattern)[:57]}..."
    if not str(pattern).strip():
        raise DataError("The source is an empty string. Name a file, a glob, a Hub dataset (owner/name) or 'reviews'.")
    try:
        path = Path(pattern).expanduser()
        path.exists()
    except RuntimeError:
        raise DataError(f"{shown} begins with the home folder of a user that is not known here.") from None
    except OSError as error:  # too long for a name, as a text is; a folder that may not be searched
        raise DataError(f"{shown} is no file that can be read: {error.strerror}. To train on texts, pass a list.") from None
    return path


def prepare_files(files: list[Path], workspace: Path) -> PreparedFiles:
    """Check files and give each a stand-in in the workspace.

    Raises:
        DataError: A file is unreadable, binary or damaged, all are empty, or they are of several kinds.
        StorageError: There is no room for a repaired copy.
    """
    kinds = {KINDS.get(_suffix(file), "text") for file in files}
    if len(kinds) > 1:
        raise DataError(f"The files are of several kinds ({', '.join(sorted(kinds))}); give one kind at a time.")
    kind = kinds.pop()
    paths, originals, errors = [], [], 0
    for number, file in enumerate(files):
        target = workspace / f"{number:08d}{_suffix(file) or '.txt'}"
        errors += _prepare(file, kind, target)
        if target.stat().st_size:
            paths.append(target)
            originals.append(file)
    if not paths:
        raise DataError(f"{files[0]} is empty." if len(files) == 1 else f"All {len(files)} files are empty.")
    return PreparedFiles(kind, paths, originals, errors)


def _suffix(file: Path) -> str:
    """Return a file's suffix in lower case, that of the packed file where it is gzipped."""
    return Path(file.stem).suffix.lower() if file.suffix.lower() == ".gz" else file.suffix.lower()


def _prepare(file: Path, kind: str, target: Path) -> int:
    """Link or copy one file to its stand-in and return how many decode errors it had."""
    try:
        if kind == "parquet":
            return _prepare_parquet(file, target)
        with _open(file) as stream:
            sound = not _is_packed(file) and _is_sound(stream, file)
        if sound:
            _link(file, target)
            return 0
        with storage_errors(target.parent), _open(file) as stream, target.open("w", encoding="utf-8", newline="") as copy:
            return sum(_repair(stream, copy, file))
    except (PermissionError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {str(error).rstrip('.')}.") from None


def _prepare_parquet(file: Path, target: Path) -> int:
    with _open(file) as stream:
        head = stream.read(4)
        if head != b"PAR1":
            raise DataError(f"{file} is no parquet file" + (": it is empty." if not head else "."))
        if _is_packed(file):
            stream.seek(0)
            with storage_errors(target.parent), target.open("wb") as copy:
                shutil.copyfileobj(stream, copy, _CHUNK)
            return 0
    _link(file, target)
    return 0


def _is_packed(file: Path) -> bool:
    return file.suffix.lower() == ".gz"


def _open(file: Path) -> BufferedIOBase:
    return gzip.open(file) if _is_packed(file) else file.open("rb")


def _link(file: Path, target: Path) -> None:
    try:
        target.symlink_to(file.resolve())
    except OSError:  # a file system, or a Windows account, without symbolic links
        with storage_errors(target.parent):
            shutil.copyfile(file, target)


def _is_sound(stream: BufferedIOBase, file: Path) -> bool:
    """Return whether a file is UTF-8 without a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for number, chunk in enumerate(_chunks(stream)):
            if number == 0 and any(chunk.startswith(bom) for bom, _ in _BOMS):
                return False
            _refuse_nul(chunk, file)
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _repair(stream: BufferedIOBase, copy: IO[str], file: Path) -> Iterator[int]:
    """Write a file as sound UTF-8 and yield the decode errors of each chunk; a run of them counts once."""
    chunks = _chunks(stream)
    first = next(chunks, b"")
    encoding = next((name for bom, name in _BOMS if first.startswith(bom)), "utf-8")
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape" if encoding.startswith("utf-8") else "reviewgen_files")
    run = ""  # of errors at a chunk's end: the next chunk may go on with it
    for chunk in itertools.chain([first], chunks):
        text = run + decoder.decode(chunk)
        _refuse_nul(text, file)
        whole = text.rstrip(_ESCAPES)
        run = text[len(whole) :]
        yield _write(copy, whole)
    yield _write(copy, run + decoder.decode(b"", final=True))


def _write(copy: IO[str], text: str) -> int:
    repaired, errors = _NOT_UTF8.subn("\ufffd", text)
    copy.write(repaired)
    return errors


def _chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _refuse_nul(chunk: bytes | str, file: Path) -> None:
    if b"\0" in chunk if isinstance(chunk, bytes) else "\0" in chunk:
        raise DataError(f"{file} is a binary file, not text. Readable are {', '.join(KINDS)}, each also gzipped.")
