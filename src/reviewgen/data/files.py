"""Finds data files and prepares them for reading: unpacks gzip, checks that they are text, replaces invalid UTF-8.

Each file becomes a *prepared file* with a plain name in a workspace: a link to the original if that is valid UTF-8 and not
packed, otherwise an unpacked copy in valid UTF-8. Readers then need not handle odd names, encodings or gzip.
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
_SPREADSHEETS = {".xlsx", ".xls", ".xlsm", ".ods", ".numbers"}
_CHUNK = 1 << 20  # bytes
_ESCAPE_RUN = re.compile("[\udc80-\udcff]+")
_ESCAPES = "".join(map(chr, range(0xDC80, 0xDD00)))  # what invalid bytes decode to with surrogateescape
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # starts with the mark of UTF-16, so it is checked first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


# surrogateescape does not work for UTF-16 and UTF-32; this handler replaces invalid bytes with one of its characters.
codecs.register_error("reviewgen_files", lambda error: (_ESCAPES[0], cast(UnicodeDecodeError, error).end))


@dataclass(frozen=True)
class PreparedFiles:
    """Files of one format, ready to be read.

    Attributes:
        kind: The format: "text", "csv", "json" or "parquet".
        paths: The prepared files; empty files are left out.
        originals: The user's files, in the same order.
        decode_errors: Runs of bytes that are not valid UTF-8, in all files.
    """

    kind: str
    paths: list[Path]
    originals: list[Path]
    decode_errors: int


def has_data_suffix(name: str) -> bool:
    """Return whether a name has the suffix of a data file (.csv, .jsonl.gz, ...)."""
    return _suffix(Path(name)) in KINDS


def find_files(pattern: str | Path) -> list[Path]:
    """Return the files that a path or a glob names, sorted.

    Raises:
        DataError: No such file exists, or it is a folder.
    """
    path = _expand_path(pattern)
    if path.is_dir():
        raise DataError(f"{pattern} is a folder. Name its files with a glob, as in '{path}/*.txt'.")
    if path.exists():
        return [path]
    if glob.has_magic(str(pattern)):
        # Path.glob also matches hidden files, and refuses absolute patterns
        names = glob.glob(str(path), recursive=True)  # noqa: PTH207  Path.glob takes no absolute pattern
        files = sorted(Path(name) for name in names if Path(name).is_file())
        if not files:
            raise DataError(f"No file matches {pattern}.")
        return files
    raise DataError(f"There is no file {pattern}. Check the name, or give a glob, a Hub dataset (owner/name) or 'reviews'.")


def _expand_path(pattern: str | Path) -> Path:
    """Return a path with ``~`` expanded, checked to be one that the operating system accepts."""
    shown = str(pattern) if len(str(pattern)) <= 60 else f"{str(pattern)[:57]}..."
    if not str(pattern).strip():
        raise DataError("The source is an empty string. Name a file, a glob, a Hub dataset (owner/name) or 'reviews'.")
    try:
        path = Path(pattern).expanduser()
        path.exists()
    except RuntimeError:
        raise DataError(f"{shown} starts with the home folder of a user who does not exist on this machine.") from None
    except OSError as error:  # the name is too long, as for a text; a folder may not be searched
        raise DataError(f"{shown} cannot be read as a file: {error.strerror}. To train on texts, pass a list of them.") from None
    return path


def prepare_files(files: list[Path], workspace: Path) -> PreparedFiles:
    """Check files and create the prepared file of each in the workspace.

    Raises:
        DataError: A file is unreadable, binary or damaged, all are empty, or they are of several formats.
        StorageError: The disk of the workspace is full.
    """
    if sheets := [file for file in files if file.suffix.lower() in _SPREADSHEETS]:
        raise DataError(
            f"{sheets[0]} is a spreadsheet. Save it as CSV (UTF-8) and give that file; in Python, pass the DataFrame of "
            "pandas.read_excel."
        )
    kinds = {KINDS.get(_suffix(file), "text") for file in files}
    if len(kinds) > 1:
        raise DataError(f"The files are of several formats ({', '.join(sorted(kinds))}); pass files of one format.")
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
    """Return a file's suffix in lower case, without .gz."""
    return Path(file.stem).suffix.lower() if file.suffix.lower() == ".gz" else file.suffix.lower()


def _prepare(file: Path, kind: str, target: Path) -> int:
    """Create the prepared file of one file and return its number of decode errors."""
    try:
        if kind == "parquet":
            return _prepare_parquet(file, target)
        with _open(file) as stream:
            is_usable = not _is_packed(file) and _is_plain_utf8(stream, file)
        if is_usable:
            _link(file, target)
            return 0
        with storage_errors(target.parent), _open(file) as stream, target.open("w", encoding="utf-8", newline="") as copy:
            return sum(_convert(stream, copy, file))
    except (PermissionError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {str(error).rstrip('.')}.") from None


def _prepare_parquet(file: Path, target: Path) -> int:
    with _open(file) as stream:
        head = stream.read(4)
        if head != b"PAR1":
            raise DataError(f"{file} is not a parquet file" + (": it is empty." if not head else "."))
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


def _is_plain_utf8(stream: BufferedIOBase, file: Path) -> bool:
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


def _convert(stream: BufferedIOBase, copy: IO[str], file: Path) -> Iterator[int]:
    """Write a file as valid UTF-8 and yield the number of decode errors in each chunk; a run of invalid bytes is one error."""
    chunks = _chunks(stream)
    first = next(chunks, b"")
    encoding = next((name for bom, name in _BOMS if first.startswith(bom)), "utf-8")
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape" if encoding.startswith("utf-8") else "reviewgen_files")
    run = ""  # of errors at the end of a chunk, which the next chunk may continue
    for chunk in itertools.chain([first], chunks):
        text = run + decoder.decode(chunk)
        _refuse_nul(text, file)
        whole = text.rstrip(_ESCAPES)
        run = text[len(whole) :]
        yield _write_repaired(copy, whole)
    yield _write_repaired(copy, run + decoder.decode(b"", final=True))


def _write_repaired(copy: IO[str], text: str) -> int:
    repaired, errors = _ESCAPE_RUN.subn("\ufffd", text)
    copy.write(repaired)
    return errors


def _chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _refuse_nul(chunk: bytes | str, file: Path) -> None:
    if b"\0" in chunk if isinstance(chunk, bytes) else "\0" in chunk:
        raise DataError(f"{file} is a binary file, not text. Supported formats are {', '.join(KINDS)}, each also gzipped.")
