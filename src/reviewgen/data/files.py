"""Finds data files and prepares them for reading: unpacks gzip, checks that they are text, converts them to valid UTF-8.

Each file becomes a *prepared file* with a plain name in a workspace: a link to the original if that is valid UTF-8 and not
packed, otherwise an unpacked copy in valid UTF-8. Readers then need not handle odd names, encodings or gzip.
"""

import glob
import gzip
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BufferedIOBase
from pathlib import Path

from reviewgen.data.charsets import BOMS, decode_chunks, is_plain_utf8, recognise
from reviewgen.errors import DataError, StorageError, first_line, storage_errors
from reviewgen.inputs import is_pipe, open_input

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
_MAX_RATIO, _ALWAYS_UNPACKED = 100, 1 << 26  # times the size of a gzip file, and bytes; texts are packed to a third
_MAX_LINE = 1 << 16  # bytes, of a line that an encoding is recognised from


@dataclass(frozen=True)
class PreparedFiles:
    """Files of one format, ready to be read.

    Attributes:
        kind: The format: "text", "csv", "json" or "parquet".
        paths: The prepared files; empty files are left out.
        originals: The user's files, in the same order.
        decode_errors: Runs of bytes that are not valid in the encoding of their file, in all files.
        notes: Sentences about encodings that the user should see.
    """

    kind: str
    paths: list[Path]
    originals: list[Path]
    decode_errors: int
    notes: list[str] = field(default_factory=list)


def has_data_suffix(name: str) -> bool:
    """Return whether a name has the suffix of a data file (.csv, .jsonl.gz, ...)."""
    return _suffix(Path(name)) in KINDS


def find_files(pattern: str | Path) -> list[Path]:
    """Return the files that a path or a glob names, sorted.

    Raises:
        DataError: No such file exists, or it is a folder.
    """
    path = _expand_path(pattern)
    if (path / "store.json").is_file():
        raise DataError(f"{pattern} is a token store, which train, sweep and tune read. Give the reviews themselves here.")
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
    prepared = PreparedFiles(kind, [], [], 0)
    recognised: dict[str, list[Path]] = {}
    errors = 0
    for number, file in enumerate(files):
        target = workspace / f"{number:08d}{_suffix(file) or '.txt'}"
        count, encoding = _prepare(_spool_pipe(file, workspace / f"{number:08d}.pipe{file.suffix}"), kind, target)
        errors += count
        if encoding is not None:
            recognised.setdefault(encoding, []).append(file)
        if target.stat().st_size:
            prepared.paths.append(target)
            prepared.originals.append(file)
    if not prepared.paths:
        raise DataError(f"{files[0]} is empty." if len(files) == 1 else f"All {len(files)} files are empty.")
    notes = [_note_encoding(encoding, files) for encoding, files in recognised.items()]
    return replace(prepared, decode_errors=errors, notes=notes)


def _spool_pipe(file: Path, copy: Path) -> Path:
    """Return a file itself, or a copy of what a pipe gives until its end: files are read more than once."""
    if not is_pipe(file):
        return file
    try:
        source = open_input(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}. Name a file of texts, or a pipe that is written to.") from None
    with source, storage_errors(copy), copy.open("wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)
    return copy


def _note_encoding(encoding: str, files: list[Path]) -> str:
    """Return a sentence on the files that are read in an encoding that was recognised."""
    which = f"{files[0]} is" if len(files) == 1 else f"{len(files)} files, {files[0]} the first, are"
    return f"{which} not UTF-8 and read as {encoding}. If letters look wrong, convert to UTF-8: iconv -f ENCODING -t UTF-8."


def _suffix(file: Path) -> str:
    """Return a file's suffix in lower case, without .gz."""
    return Path(file.stem).suffix.lower() if file.suffix.lower() == ".gz" else file.suffix.lower()


def _prepare(file: Path, kind: str, target: Path) -> tuple[int, str | None]:
    """Create the prepared file of one file; return its number of decode errors, and its encoding if that was recognised."""
    try:
        if kind == "parquet":
            _prepare_parquet(file, target)
            return 0, None
        with _open(file) as stream:
            is_usable = not _is_packed(file) and is_plain_utf8(_text_chunks(stream, file))
        if is_usable:
            _link(file, target)
            return 0, None
        return _convert(file, target)
    except StorageError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {first_line(error)}.") from None


def _prepare_parquet(file: Path, target: Path) -> None:
    with _open(file) as stream:
        head = stream.read(4)
        if head == b"PARE":
            raise DataError(f"{file} is an encrypted parquet file, which cannot be read. Write it without encryption.")
        if head != b"PAR1":
            raise DataError(f"{file} is not a parquet file" + (": it is empty." if not head else "."))
        if _is_packed(file):
            stream.seek(0)
            with storage_errors(target.parent), target.open("wb") as copy:
                shutil.copyfileobj(stream, copy, _CHUNK)
            return
    _link(file, target)


def _is_packed(file: Path) -> bool:
    return file.suffix.lower() == ".gz"


def _open(file: Path) -> BufferedIOBase:
    return _BoundedGzip(file) if _is_packed(file) else file.open("rb")


class _BoundedGzip(gzip.GzipFile):
    """A gzip file that is read up to a plausible multiple of its size.

    Raises:
        DataError: It unpacks to more.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._file, self._max_bytes = file, max(_ALWAYS_UNPACKED, _MAX_RATIO * file.stat().st_size)

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes."""
        chunk = super().read(_CHUNK if size is None or size < 0 else size)
        if self.tell() > self._max_bytes:
            raise DataError(
                f"{self._file} unpacks to more than {_MAX_RATIO} times its size, unlike any text: unpack it and look into it."
            )
        return chunk


def _link(file: Path, target: Path) -> None:
    try:
        target.symlink_to(file.resolve())
    except OSError:  # a file system, or a Windows account, without symbolic links
        with storage_errors(target.parent):
            shutil.copyfile(file, target)


def _convert(file: Path, target: Path) -> tuple[int, str | None]:
    """Write a file as valid UTF-8; return its number of decode errors, and its encoding if that was recognised."""
    with _open(file) as stream:
        first = stream.read(4)
    marked = next((encoding for bom, encoding in BOMS if first.startswith(bom)), None)
    errors = _write_utf8(file, target, marked or "utf-8")
    recognised = _recognise(file) if errors and marked is None else None
    return (errors if recognised is None else _write_utf8(file, target, recognised)), recognised


def _write_utf8(file: Path, target: Path, encoding: str) -> int:
    """Write a file of a given encoding as UTF-8 and return its number of decode errors."""
    errors = 0
    with storage_errors(target.parent), _open(file) as stream, target.open("w", encoding="utf-8", newline="") as copy:
        for text, count in decode_chunks(_chunks(stream), encoding):
            _refuse_nul(text, file)
            copy.write(text)
            errors += count
    return errors


def _recognise(file: Path) -> str | None:
    with _open(file) as stream:
        return recognise(iter(lambda: stream.readline(_MAX_LINE), b""))


def _chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _text_chunks(stream: BufferedIOBase, file: Path) -> Iterator[bytes]:
    """Yield the chunks of a file; raise if it is binary, unless a byte order mark says that NUL bytes are part of characters."""
    for number, chunk in enumerate(_chunks(stream)):
        if number or not any(chunk.startswith(bom) for bom, _ in BOMS):
            _refuse_nul(chunk, file)
        yield chunk


def _refuse_nul(chunk: bytes | str, file: Path) -> None:
    if b"\0" in chunk if isinstance(chunk, bytes) else "\0" in chunk:
        raise DataError(f"{file} is a binary file, not text. Supported formats are {', '.join(KINDS)}, each also gzipped.")
