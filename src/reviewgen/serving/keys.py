"""API keys: read from a file, kept as digests, compared in constant time, never logged."""

import hashlib
import hmac
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reviewgen.errors import ConfigError
from reviewgen.storage import open_input

_MIN_LENGTH = 8
_MAX_FILE = 1 << 20  # bytes


@dataclass(frozen=True)
class ApiKeys:
    """The digests of the accepted keys.

    Attributes:
        digests: SHA-256 of each key.
    """

    digests: Sequence[bytes] = field(repr=False)

    @classmethod
    def of(cls, keys: Sequence[str]) -> "ApiKeys":
        """Return the digests of some keys."""
        return cls([_digest(key.encode("utf-8")) for key in keys])

    def accepts(self, authorization: bytes) -> bool:
        """Return whether a header ``Authorization`` holds one of the keys: ``Bearer KEY``."""
        scheme, _, key = authorization.strip().partition(b" ")
        given = _digest(key.strip())
        matches = [hmac.compare_digest(given, digest) for digest in self.digests]  # all of them, whatever the first one is
        return scheme.lower() == b"bearer" and any(matches)


def read_keys(file: Path) -> tuple[ApiKeys, list[str]]:
    """Return the keys of a file, one a line, and notes for the one who starts the server; # starts a comment line.

    Raises:
        ConfigError: The file is missing or unreadable, holds no key, or a line that cannot be one.
    """
    try:
        with open_input(file) as stream:
            mode, content = os.fstat(stream.fileno()).st_mode, stream.read(_MAX_FILE + 1)
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except OSError as error:
        raise ConfigError(f"The file of API keys, {file}, cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"The file of API keys, {file}, is not UTF-8 text.") from None
    if len(content) > _MAX_FILE:
        raise ConfigError(f"The file of API keys, {file}, is larger than 1 MB.")
    keys = [line for line in lines if line and not line.startswith("#")]
    for number, line in enumerate(lines, 1):
        if line in keys and (len(line) < _MIN_LENGTH or not line.isascii() or not line.isprintable() or " " in line):
            raise ConfigError(
                f"Line {number} of {file} is not an API key: a key has at least {_MIN_LENGTH} characters, ASCII without spaces."
            )
    if not keys:
        raise ConfigError(f"The file of API keys, {file}, is empty: write one key a line, as `openssl rand -hex 24` prints.")
    is_open = bool(mode & (stat.S_IRGRP | stat.S_IROTH))
    return ApiKeys.of(keys), [f"{file} can be read by other users of this machine: chmod 600 {file}."] if is_open else []


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
