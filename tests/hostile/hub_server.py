"""A hostile Hub on two ports: the endpoint, and another host to which it redirects. Attacks change its answers."""

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

__all__ = ["COMMIT", "REPOSITORY", "TOKEN", "Answer", "Attack", "HostileHub"]

REPOSITORY, COMMIT, TOKEN = "owner/name", "0123456789abcdef0123456789abcdef01234567", "hf_secretsecretsecret"
_LARGE = ".safetensors"
_MOST = 40 << 20  # bytes of an endless body


@dataclass
class Answer:
    """What is answered to one request; attacks change it.

    Attributes:
        status: The HTTP status.
        headers: The headers, without the length of the body.
        body: The body.
        length: What Content-Length says; None leaves it out and sends the body in chunks.
        kept: The share of the body that is sent.
        is_endless: Whether the body goes on after its end.
        pause: Seconds before each of the ten parts of the body.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    length: int | None = -1
    kept: float = 1.0
    is_endless: bool = False
    pause: float = 0.0


@dataclass(frozen=True)
class Attack:
    """A change of all answers whose request, as in ``HEAD /owner/name/resolve/...``, a pattern is found in."""

    name: str
    pattern: str
    change: Callable[[Answer], None]


@dataclass
class HostileHub:
    """The server of one repository.

    Attributes:
        files: The files of the repository.
        attacks: The attacks of the present case.
        stolen: What the other host was sent that it must not have.
    """

    files: dict[str, bytes]
    attacks: list[Attack] = field(default_factory=list)
    stolen: list[str] = field(default_factory=list)

    def start(self) -> None:
        self._servers = [_serve(self, is_hub) for is_hub in (True, False)]

    def stop(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def other(self) -> str:
        """The other host; another name of this machine, so that cookies and tokens differ by host, too."""
        return f"http://localhost:{self._servers[1].server_address[1]}"

    def info(self) -> dict[str, Any]:
        """Return what the API says of the repository."""
        facts = {"id": REPOSITORY, "sha": COMMIT, "private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0}
        return facts | {"likes": 0, "siblings": [_entry(name, data) for name, data in self.files.items()]}

    def answer(self, method: str, path: str, is_hub: bool) -> Answer:
        """Return the answer to a request, after the attacks."""
        answer = self._honest_answer(path, is_hub)
        for attack in self.attacks:
            if re.search(attack.pattern, f"{method} {'' if is_hub else '(other)'}{path}"):
                attack.change(answer)
        return answer

    def _honest_answer(self, path: str, is_hub: bool) -> Answer:
        if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            entries = [_entry(name, data) for name, data in self.files.items()]
            tree = [{"type": "file", "path": each["rfilename"], "size": each["size"], "oid": each["blobId"]} for each in entries]
            return Answer(200, {"Content-Type": "application/json"}, json.dumps(tree).encode())
        if path.startswith(f"/api/models/{REPOSITORY}"):
            return Answer(200, {"Content-Type": "application/json"}, json.dumps(self.info()).encode())
        name = unquote(path.rpartition("/")[2])
        data = self.files.get(name)
        if data is None or not ("/resolve/" in path or not is_hub):
            return Answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"")
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_digest(name, data)}"', "Content-Type": "application/octet-stream"}
        if not is_hub or not name.endswith(_LARGE):
            return Answer(200, headers, data)
        linked = {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(data)), "Location": f"{self.other}/large/{name}"}
        return Answer(302, headers | linked, b"")


def _digest(name: str, data: bytes) -> str:
    if name.endswith(_LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(name.encode()).hexdigest()}
    if name.endswith(_LARGE):
        return entry | {"lfs": {"sha256": _digest(name, data), "size": len(data), "pointerSize": 134}}
    return entry | {"blobId": _digest(name, data)}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is as it should be; anything else is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _serve(hub: HostileHub, is_hub: bool) -> _Server:
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub, "is_hub": is_hub}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[HostileHub]
    is_hub: ClassVar[bool]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self.is_hub and TOKEN in f"{self.path}{self.headers}":
            self.hub.stolen.append(f"{self.command} {self.path}")
        answer = self.hub.answer(self.command, urlsplit(self.path).path, self.is_hub)
        self.wfile.write(_head(answer))
        if self.command != "HEAD":
            self._send_body(answer)
        self.close_connection = self.close_connection or answer.kept < 1 or answer.is_endless

    do_HEAD = do_POST = do_GET

    def _send_body(self, answer: Answer) -> None:
        body = answer.body[: int(len(answer.body) * answer.kept)]
        step = max(1, len(body) // 10 + 1) if answer.pause else max(1, len(body))
        for start in range(0, len(body), step):
            time.sleep(answer.pause)
            self._send(body[start : start + step], answer.length is None)
        for _ in range(_MOST >> 20 if answer.is_endless else 0):
            self._send(b" " * (1 << 20), answer.length is None)
        if answer.length is None and answer.kept == 1:
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, part: bytes, is_chunked: bool) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if is_chunked else part)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing goes to stderr."""


def _head(answer: Answer) -> bytes:
    """Return the status line and headers as bytes; the values may be anything."""
    length = len(answer.body) if answer.length == -1 else answer.length
    headers: Mapping[str, str] = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    lines = [f"HTTP/1.1 {answer.status} Odd", *(f"{name}: {value}" for name, value in {**headers, **answer.headers}.items())]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
