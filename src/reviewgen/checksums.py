"""The checksum of a result on disk, which tells whether it was damaged since. It does not tell a forgery."""

import hashlib
import stat
from pathlib import Path

import xxhash


def checksum(path: Path) -> str:
    """Return the XXH3 hash of a file, or of the names and contents of the files of a folder, in hexadecimal.

    Raises:
        OSError: A file cannot be read.
    """
    if path.is_symlink() or not path.is_dir():
        return _hash_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_symlink() or not file.is_dir())
    lines = [f"{file.relative_to(path).as_posix()} {_hash_file(file)}\n" for file in files]
    return xxhash.xxh3_128("".join(lines).encode()).hexdigest()


def _hash_file(file: Path) -> str:
    if not stat.S_ISREG(file.lstat().st_mode):  # no result has a link, and reading a pipe would not end
        return "not a file"
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, xxhash.xxh3_128).hexdigest()
