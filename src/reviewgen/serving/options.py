"""What the operator of a server decides: the limits, the keys, the names of models, and the names
of the server.

The command line imports this file for its help, so it imports neither Starlette nor a model.
"""

import hashlib
import hmac
import ipaddress
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from reviewgen.config.names import LOCAL
from reviewgen.config.settings import Bound, PositiveInt, check
from reviewgen.errors import ConfigError, quoted
from reviewgen.storage import to_path

_MIN_KEY = 8  # min characters of an API key
_KEY = re.compile(rf"[!-~]{{{_MIN_KEY},}}")  # printable ASCII without spaces
_MAX_NAME = 100  # max characters of the name of a model
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"[^\s/*@:\[\]]+")  # the name of a host, without a port


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of the server.

    Attributes:
        max_tokens: The largest ``max_tokens`` of a request.
        max_texts: The largest number of texts of a request: prompts times ``n`` or ``best_of``.
        max_waiting: The number of texts that may wait, per model, before requests are refused with
            429.
        max_rows: The number of texts, per model, that are generated side by side; others wait.
        max_prompt: The largest number of characters of all prompts of a request.
        max_body: The largest body of a request, in bytes.
        request_seconds: The time limit of a request; texts that are not finished by then are cut
            off.
        stall_seconds: The time that a client may take to read a part of a stream, to send the
            headers of a request, or to send a part of its body.
        shutdown_seconds: The time that running requests have after SIGTERM or Ctrl-C.
    """

    max_tokens: PositiveInt = 4096
    max_texts: PositiveInt = 128
    max_waiting: PositiveInt = 512
    max_rows: Annotated[int, Bound(at_least=1, at_most=1024)] = 64
    max_prompt: PositiveInt = 16_384
    max_body: Annotated[int, Bound(at_least=1024)] = 1_000_000
    request_seconds: Annotated[float, Bound(above=0)] = 300.0
    stall_seconds: Annotated[float, Bound(above=0)] = 60.0
    shutdown_seconds: Annotated[float, Bound(at_least=0)] = 30.0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What a server serves, and how; JSON values, since they are handed to worker processes.

    Attributes:
        sources: The source of each model by its name.
        weight_bits: The bits of a weight, as in ``reviewgen.load``.
        limits: The limits of a request.
        key_digests: The SHA-256 of each accepted API key; None accepts every request.
        cors_origins: The origins whose pages may call the server.
        hosts: The names that requests may call the server by; None accepts any.
        page: Whether to serve the page that writes texts.
        access_log: Whether to log each request.
    """

    sources: dict[str, str]
    weight_bits: int = 32
    limits: Limits = field(default_factory=Limits)
    key_digests: Sequence[str] | None = field(default=None, repr=False)
    cors_origins: Sequence[str] = ()
    hosts: Sequence[str] | None = None
    page: bool = False
    access_log: bool = False


def digest_key(key: str) -> str:
    """Return the SHA-256 of an API key, in hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def accepts_key(digests: Sequence[str], authorization: str) -> bool:
    """Return whether a header ``Authorization`` holds one of the keys: ``Bearer KEY``."""
    scheme, _, key = authorization.strip().partition(" ")
    key_digest = digest_key(key.strip())
    # compare with all digests, so that the time taken does not reveal which digest matches
    matches = [hmac.compare_digest(key_digest, digest) for digest in digests]
    return scheme.lower() == "bearer" and any(matches)


def read_keys(file: Path) -> tuple[list[str], list[str]]:
    """Read a file with one API key per line; # starts a comment line. Return the digests of the
    keys, and notes for the operator.

    Raises:
        ConfigError: The file is missing or unreadable, holds no key, or has a line that is not a
            valid key.
    """
    try:
        lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file of API keys, {file}, cannot be read: {error}.") from None
    digests = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        if not _KEY.fullmatch(line):
            raise ConfigError(
                f"Line {number} of {file} is not an API key: a key has at least {_MIN_KEY}"
                " characters, ASCII without spaces."
            )
        digests.append(digest_key(line))
    if not digests:
        raise ConfigError(
            f"The file of API keys, {file}, is empty: write one key per line, as `openssl rand -hex"
            " 24` prints it."
        )
    notes = []
    if os.name != "nt" and mode & (stat.S_IRGRP | stat.S_IROTH):
        notes.append(f"{file} can be read by other users of this machine: chmod 600 {file}.")
    return digests, notes


def is_loopback(host: str) -> bool:
    """Return whether the address of a host can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def accepted_hosts(host: str, address: str, more: Sequence[str] = ()) -> list[str] | None:
    """Return the host names, without a port, that a request may have in its header ``Host``; None
    if any name is accepted.

    This prevents DNS rebinding: a site loads its page in a browser, then changes its own name to
    the address 127.0.0.1. The browser now lets this page read the answers of a server on this
    machine, without CORS. But the header ``Host`` still has the name of the site. So a server that
    can only be reached from this machine accepts only names of this machine, as Jupyter and Ollama
    do.

    Args:
        host: The host on which the server listens, as the user wrote it.
        address: The IP address of this host.
        more: Further names to accept, without a port; ``*`` accepts any.

    Raises:
        ConfigError: One of the further names is not the name of a host.
    """
    for name in more:
        if name != "*" and not _HOST.fullmatch(name):
            raise ConfigError(
                f"{quoted(name)} is not the name of a host: give one without a port, as in"
                " example.org, or *."
            )
    if "*" in more or (not more and not is_loopback(address)):
        return None
    return [*_THIS_MACHINE, f"[{host}]" if ":" in host else host, *more]


def name_sources(given: Sequence[str]) -> dict[str, str]:
    """Return the source of each model by its name. The user writes NAME=SOURCE, or only a source,
    which is then named by its preset, folder or repository.

    >>> name_sources(["mine=./my-model", "lstm-word", "ana/music@v2"])
    {'mine': './my-model', 'lstm-word': 'lstm-word', 'ana/music': 'ana/music@v2'}

    Raises:
        ConfigError: A name is empty, too long or not printable; or two are the same.
    """
    sources: dict[str, str] = {}
    for name, source in map(_name_source, given):
        if name in sources:
            raise ConfigError(
                f"Two models are named {quoted(name)}: {sources[name]} and {source}. Name one of"
                " them: NAME=MODEL."
            )
        sources[name] = source
    return sources


def _name_source(text: str) -> tuple[str, str]:
    """Return the name and the source of a model; see ``name_sources``."""
    name, equals, source = text.partition("=")
    # if there is a file of this name, the = belongs to the name
    if not equals or os.path.exists(os.path.expanduser(text)):  # noqa: PTH110, PTH111  Path raises for a name that is too long
        source = text
        name = source.removeprefix("hf://").partition("@")[0]
        if source.startswith(LOCAL) or source in (".", ".."):
            name = to_path("model", source).resolve().name
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or not source:
        raise ConfigError(
            f"{quoted(text)} does not name a model: give MODEL, or NAME=MODEL with a printable"
            " name."
        )
    return name, source
