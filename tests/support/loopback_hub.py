"""A small Hugging Face Hub on 127.0.0.1, so that the real ``huggingface_hub`` and ``datasets`` can
be tested with no internet.

    repositories = {("model", "owner/name"): {"main": {"config.json": b"{}"}}}
    with LoopbackHub(repositories) as hub:
        subprocess.run([sys.executable, "-c", script], env=hub.environment(tmp_path / "home"),
        check=True)

The clients read ``HF_ENDPOINT`` when they are imported: a subprocess gets ``environment``, and
``client`` sets the constants of ``huggingface_hub`` in this process. Both also name the hub as the
proxy for every other host: whatever a client sends elsewhere arrives here, is refused at once
(502), and stands in ``hub.requests``. A 501 in there is a question that has no answer here yet.

The read side, as the real Hub answers it: repository info, tree, paths-info, and resolve (HEAD,
GET, ranges, ETag; a file that the real Hub keeps in LFS is a redirect to another server, with the
SHA-256 as its ETag). A repository that the caller cannot see is 401 without a token and 404 with
one, private or missing alike. The write side is in ``loopback_writes``. To add an endpoint, write a
method of ``_Handler`` and a line in ``_HUB_ROUTES``; what the store of large files answers has its
lines in ``_STORE_ROUTES``. ``hub.faults`` makes it fail, or send another byte than it should.
"""

import contextlib
import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
import yaml

from tests.support.loopback_writes import READ_TOKEN, WriteSide

__all__ = ["READ_TOKEN", "TOKEN", "Fault", "LoopbackHub", "Request"]

TOKEN = "hf_loopback"

Key = tuple[str, str]
"""("model", "dataset" or "space", "owner/name")."""

_LFS = (".bin", ".gz", ".parquet", ".png", ".safetensors")
_DATE = "2024-01-01T00:00:00.000Z"


class Request(NamedTuple):
    """One request that the hub has answered, and the token that came with it."""

    method: str
    target: str
    status: int
    token: str | None = None


@dataclass
class Fault:
    """What goes wrong with the requests whose method and target, as in "GET /api/models/...", a
    pattern is found in.

    Attributes:
        pattern: It.
        status: What they are answered with, in place of the true answer.
        flips: Whether one byte in the middle of the body is another.
        times: How often, from now on.
        act: Called before the answer.
        edit: Returns another status, other headers and another body.
    """

    pattern: str
    status: int | None = None
    flips: bool = False
    times: int = 1_000_000
    act: Callable[[], object] = lambda: None
    edit: Callable[[int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]] | None = None


@dataclass(frozen=True)
class _Blob:
    """The bytes of one file and the names the Hub knows them by."""

    path: str
    data: bytes

    @cached_property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def is_lfs(self) -> bool:
        return self.path.endswith(_LFS)

    def entry(self) -> dict[str, Any]:
        """The file as the tree and paths-info endpoints list it."""
        entry: dict[str, Any] = {
            "type": "file",
            "path": self.path,
            "size": len(self.data),
            "oid": self.oid,
        }
        if self.is_lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 134}
        return entry


@dataclass(frozen=True)
class _Commit:
    """One state of a repository's files."""

    sha: str
    files: Mapping[str, _Blob]

    def folders(self) -> set[str]:
        parents = chain.from_iterable(Path(path).parents for path in self.files)
        return {*map(str, parents)} - {"."}

    def entries(self) -> list[dict[str, Any]]:
        folders = [
            {"type": "directory", "path": path, "size": 0, "oid": _sha1(path)}
            for path in self.folders()
        ]
        return sorted(
            [*folders, *(blob.entry() for blob in self.files.values())],
            key=lambda entry: entry["path"],
        )


@dataclass
class _Repository:
    """A repository: the commits by hash, and the names (branches, tags) that point at them."""

    kind: str
    id: str
    private: bool = False
    sdk: str | None = None
    commits: dict[str, _Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def commit(
        self, revision: str, files: Mapping[str, bytes], summary: str = "initial commit"
    ) -> _Commit:
        """Make the files the newest state of the revision."""
        self.log.append(f"{revision}: {summary}")
        content = [(path, hashlib.sha256(data).hexdigest()) for path, data in sorted(files.items())]
        sha = _sha1(json.dumps([self.kind, self.id, content]))
        commit = _Commit(sha, {path: _Blob(path, data) for path, data in sorted(files.items())})
        self.commits[sha] = commit
        self.refs[revision] = sha
        return commit

    def at(self, revision: str) -> _Commit | None:
        return self.commits.get(self.refs.get(revision, revision))


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


class LoopbackHub:
    """The server: started by ``with``, stopped on the way out; ``requests`` is what was asked, in
    order.
    """

    def __init__(self, repositories: Mapping[Key, Mapping[str, Mapping[str, bytes]]]) -> None:
        self.repositories: dict[Key, _Repository] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.uploads: dict[str, bytes] = {}  # by digest, in a commit or not
        self._hub: _Server | None = None
        self._store: _Server | None = None
        for key, revisions in repositories.items():
            repository = self.repositories[key] = _Repository(*key)
            for revision, files in revisions.items():
                repository.commit(revision, files)

    def add(
        self, kind: str, repository_id: str, private: bool = False, sdk: str | None = None
    ) -> None:
        """Make a repository as the real Hub does, with a first commit; that of a Space is an
        example.
        """
        repository = self.repositories[kind, repository_id] = _Repository(
            kind, repository_id, private, sdk
        )
        files = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
        if sdk is not None:
            readme = (
                f"---\ntitle: Example\nemoji: x\ncolorFrom: red\ncolorTo: red\nsdk: {sdk}\n---\n"
            )
            files |= {
                "README.md": readme.encode(),
                "index.html": b"<p>Welcome</p>\n",
                "style.css": b"p {}\n",
            }
        repository.commit("main", files)

    def files(self, kind: str, repository_id: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a revision."""
        commit = self.repositories[kind, repository_id].at(revision)
        return {} if commit is None else {path: blob.data for path, blob in commit.files.items()}

    @staticmethod
    def is_large(path: str) -> bool:
        """Whether a file of this name lies in the store."""
        return path.endswith(_LFS)

    @property
    def endpoint(self) -> str:
        """The Hub's address, for HF_ENDPOINT."""
        return _address(self._hub)

    @property
    def store(self) -> str:
        """The address of the server that large files are on. The real one is another host; here it
        is another port.
        """
        return _address(self._store)

    def sha(self, kind: str, repository_id: str, revision: str = "main") -> str:
        """The commit hash a revision stands for."""
        return self.repositories[kind, repository_id].refs[revision]

    def blob(self, sha256: str) -> bytes | None:
        """The large file of this digest."""
        if sha256 in self.uploads:
            return self.uploads[sha256]
        for repository in self.repositories.values():
            for commit in repository.commits.values():
                for blob in commit.files.values():
                    if blob.is_lfs and blob.sha256 == sha256:
                        return blob.data
        return None

    def fault(self, method: str, target: str) -> Fault | None:
        """What goes wrong with this request."""
        found = next(
            (
                fault
                for fault in self.faults
                if fault.times and re.search(fault.pattern, f"{method} {target}")
            ),
            None,
        )
        if found is not None:
            found.times -= 1
        return found

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """This process's environment for a client that knows this hub only, with ``home`` as its
        own HF_HOME.
        """
        ours = ("HF_", "HUGGING_FACE_", "HUGGINGFACE_")
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(ours) and not k.lower().endswith("_proxy")
        }
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), self.endpoint) | {
            "NO_PROXY": "127.0.0.1"
        }
        proxies |= {name.lower(): value for name, value in proxies.items()}
        hugging_face = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
        } | ({"HF_TOKEN": token} if token else {})
        return kept | proxies | hugging_face

    @contextlib.contextmanager
    def client(
        self, home: Path, token: str | None = None, *, offline: bool = False
    ) -> Iterator[None]:
        """Let the client of this process know this hub only, with ``home`` as its HF_HOME, inside
        the block.
        """
        from huggingface_hub import close_session, constants

        values = {
            "ENDPOINT": self.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": (
                self.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
            ),
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "AGENT_HARNESSES_PATH": str(home / "agents"),
            "HF_HUB_OFFLINE": offline,
            "HF_HUB_DISABLE_XET": True,
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "environ", os.environ.copy())
            os.environ.clear()
            os.environ.update(self.environment(home, token))
            for name, value in values.items():
                patch.setattr(constants, name, value)
            close_session()
            yield
            close_session()

    def __enter__(self) -> Self:
        self._hub = _Server(self, _HUB_ROUTES)
        self._store = _Server(self, _STORE_ROUTES)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in (self._hub, self._store):
            if server is not None:
                server.shutdown()
                server.server_close()
        self._hub = self._store = None


def _address(server: ThreadingHTTPServer | None) -> str:
    if server is None:
        raise RuntimeError("the loopback hub is not running: use it in a with statement")
    return f"http://127.0.0.1:{server.server_address[1]}"


class _Server(ThreadingHTTPServer):
    """A server on a free port, running in a thread of its own from the start."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: LoopbackHub, routes: list["_Route"]) -> None:
        super().__init__(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub, "routes": routes})
        )
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up half-way is no error of ours; anything else is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Refusal(Exception):
    """An answer that is an error: the status, the Hub's error code and its message."""

    def __init__(self, status: int, code: str | None, message: str, sha: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        if sha is not None:
            self.headers["X-Repo-Commit"] = sha


class _Handler(WriteSide, BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    hub: ClassVar[LoopbackHub]
    routes: ClassVar[list["_Route"]]
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    # The front door: read the request, find its route, turn a refusal into the answer.

    def do_GET(self) -> None:
        self._body = self._read_body()
        self._fault = self.hub.fault(self.command, self.path)
        try:
            if self._fault is not None:
                self._fault.act()
                if self._fault.status is not None:
                    self._refuse(self._fault.status, None, "out of order")
            self._check_token()
            self._route()
        except _Refusal as refusal:
            self._answer_json({"error": str(refusal)}, refusal.status, refusal.headers)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_CONNECT = do_GET

    def _route(self) -> None:
        url = urlsplit(self.path)
        if url.netloc or self.command == "CONNECT":
            raise _Refusal(502, None, f"there is no internet here: {self.command} {self.path}")
        self._query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        for methods, pattern, answer in self.routes:
            if self.command in methods and (match := pattern.fullmatch(url.path)):
                answer(
                    self,
                    **{name: unquote(value or "") for name, value in match.groupdict().items()},
                )
                return
        raise _Refusal(501, None, f"the loopback hub does not answer {self.command} {self.path}")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _refuse(self, status: int, code: str | None, message: str) -> None:
        raise _Refusal(status, code, message)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing goes to stderr: ``hub.requests`` is the log."""

    # Answers.

    def _answer(
        self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        fault = self._fault or Fault("")
        fields = dict(headers or {})
        if fault.edit is not None:
            status, fields, body = fault.edit(status, fields, body)
        self.hub.requests.append(Request(self.command, self.path, status, self._token()))
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.flips and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        self.wfile.write(body)

    def _answer_json(
        self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self._answer(
            json.dumps(value).encode(),
            status,
            {"Content-Type": "application/json"} | dict(headers or {}),
        )

    def _answer_bytes(self, data: bytes, headers: Mapping[str, str]) -> None:
        """The data, or the one range of it that was asked for."""
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"} | dict(
            headers
        )
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or wanted.group() == "bytes=-":
            self._answer(data, 200, headers)
            return
        start, stop = _span(*wanted.groups(), len(data))
        self._answer(
            data[start:stop],
            206,
            headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"},
        )

    # What the caller may see.

    def _token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def _check_token(self) -> None:
        if self._token() not in (None, TOKEN, READ_TOKEN):
            raise _Refusal(401, None, "Invalid credentials in Authorization header")

    def _repository(self, kind: str, id: str) -> _Repository:
        repository = self.hub.repositories.get((kind, id))
        if repository is None or (repository.private and self._token() is None):
            # The code goes with the 401 too: the client takes a bare 401 for a repository's only
            # over https.
            raise _Refusal(
                401 if self._token() is None else 404, "RepoNotFound", "Repository not found"
            )
        return repository

    def _commit(self, kind: str, id: str, revision: str) -> tuple[_Repository, _Commit]:
        repository = self._repository(kind, id)
        commit = repository.at(revision or "main")
        if commit is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    # The endpoints.

    def agent_harnesses(self) -> None:
        """``/api/agent-harnesses``: which coding agents there are. The client asks once a day; here
        there are none.
        """
        self._answer_json({"standardEnvVars": [], "harnesses": {}})

    def info(self, kind: str, id: str, revision: str = "") -> None:
        """``/api/models/owner/name`` and ``…/revision/<revision>``."""
        repository, commit = self._commit(kind, id, revision)
        siblings = [{"rfilename": path} for path in commit.files]
        facts = {
            "id": id,
            "author": id.split("/")[0],
            "sha": commit.sha,
            "private": repository.private,
            "gated": False,
        }
        dates = {"createdAt": _DATE, "lastModified": _DATE} | (
            {"sdk": repository.sdk} if repository.sdk else {}
        )
        self._answer_json(
            facts
            | dates
            | {
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": siblings,
            }
        )

    def listing(self) -> None:
        """``/api/models``: the public models with a tag, whose names have some words, and the
        metadata of their cards.
        """
        found = []
        for (kind, id), repository in self.hub.repositories.items():
            readme = self.hub.files(kind, id).get("README.md", b"").decode()
            block = re.match(r"---\s*\n(.*?)\n---", readme, re.DOTALL)
            card = (yaml.safe_load(block[1]) if block else None) or {}
            tags = [*(card.get("tags") or []), card.get("library_name")]
            words = self._query.get("search", "").lower().split()
            is_found = self._query["filter"] in tags and all(word in id.lower() for word in words)
            if kind == "model" and not repository.private and is_found:
                found.append({"id": id, "cardData": card})
        self._answer_json(found[: int(self._query["limit"])])

    def commits(self, kind: str, id: str, revision: str) -> None:
        """``/api/models/owner/name/commits/<revision>``: the commits of a branch, the newest
        first.
        """
        repository, commit = self._commit(kind, id, revision)
        titles = [
            line.partition(": ")[2]
            for line in reversed(repository.log)
            if line.startswith(f"{revision}: ")
        ]
        self._answer_json(
            [
                {"id": commit.sha, "title": title, "message": "", "date": _DATE, "authors": []}
                for title in titles
            ]
        )

    def tree(self, kind: str, id: str, revision: str, path: str = "") -> None:
        """``/api/models/owner/name/tree/<revision>[/<folder>]``: one folder, or with ``recursive``
        all that is below it.
        """
        _, commit = self._commit(kind, id, revision)
        if path and path not in commit.folders():
            raise _Refusal(404, "EntryNotFound", f"{path} does not exist on {revision}", commit.sha)
        below = [
            entry for entry in commit.entries() if not path or entry["path"].startswith(f"{path}/")
        ]
        deep = self._query.get("recursive", "").lower() in ("true", "1")
        self._answer_json(
            [e for e in below if deep or str(Path(e["path"]).parent) == (path or ".")]
        )

    def paths_info(self, kind: str, id: str, revision: str) -> None:
        """``/api/models/owner/name/paths-info/<revision>``: the paths of the form that exist."""
        _, commit = self._commit(kind, id, revision)
        wanted = parse_qs(self._body.decode()).get("paths", [])
        self._answer_json([entry for entry in commit.entries() if entry["path"] in wanted])

    def resolve(self, kind: str, id: str, revision: str, path: str) -> None:
        """``/[datasets/]owner/name/resolve/<revision>/<file>``: the file, or for LFS the way to
        it.
        """
        _, commit = self._commit(kind, id, revision)
        blob = commit.files.get(path)
        if blob is None:
            raise _Refusal(404, "EntryNotFound", "Entry not found", commit.sha)
        headers = {
            "X-Repo-Commit": commit.sha,
            "Content-Disposition": f'inline; filename="{quote(Path(path).name)}";',
        }
        if not blob.is_lfs:
            self._answer_bytes(blob.data, headers | {"ETag": f'"{blob.oid}"'})
            return
        linked = {"X-Linked-Size": str(len(blob.data)), "X-Linked-ETag": f'"{blob.sha256}"'}
        self._answer(
            b"", 302, headers | linked | {"Location": f"{self.hub.store}/lfs-objects/{blob.sha256}"}
        )

    def lfs_object(self, sha256: str) -> None:
        """Where ``resolve`` sends the client: the store of large files. Knowing the digest is
        enough, as with a signed URL.
        """
        data = self.hub.blob(sha256)
        if data is None:
            raise _Refusal(404, None, "No such object")
        self._answer_bytes(data, {"ETag": f'"{sha256}"'})


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """The start and stop of an HTTP range."""
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


class _Route(NamedTuple):
    methods: tuple[str, ...]
    pattern: re.Pattern[str]
    answer: Callable[..., None]


def _routes(methods: str, pattern: str, answer: Callable[..., None]) -> list[_Route]:
    """The route for each kind of repository. The path is matched as it was sent: a quoted slash
    belongs to its part.
    """
    part = "[^/]+"
    spelled = {
        "model": ("models", ""),
        "dataset": ("datasets", "datasets/"),
        "space": ("spaces", "spaces/"),
    }
    routes = []
    for kind, (plural, prefix) in spelled.items():
        text = (
            pattern.replace("KINDS", plural)
            .replace("PREFIX/", prefix)
            .replace("ID", f"(?P<id>{part}/{part})")
        )
        text = text.replace("REVISION", f"(?P<revision>{part})")
        routes.append(_Route(tuple(methods.split()), re.compile(text), partial(answer, kind=kind)))
    return routes


_HUB_ROUTES = [
    _Route(("GET",), re.compile("/api/agent-harnesses"), _Handler.agent_harnesses),
    _Route(("GET",), re.compile("/api/models"), _Handler.listing),
    *_routes("GET", "/api/KINDS/ID", _Handler.info),
    *_routes("GET", "/api/KINDS/ID/revision/REVISION", _Handler.info),
    *_routes("GET", "/api/KINDS/ID/commits/REVISION", _Handler.commits),
    *_routes("GET", "/api/KINDS/ID/tree/REVISION(?:/(?P<path>.+))?", _Handler.tree),
    *_routes("POST", "/api/KINDS/ID/paths-info/REVISION", _Handler.paths_info),
    _Route(("POST",), re.compile("/api/repos/create"), _Handler.create),
    _Route(("POST",), re.compile("/api/validate-yaml"), _Handler.validate_yaml),
    _Route(("POST",), re.compile("/lfs-verify"), _Handler.lfs_verify),
    *_routes("POST", "/api/KINDS/ID/branch/REVISION", _Handler.branch),
    *_routes("POST", "/api/KINDS/ID/preupload/REVISION", _Handler.preupload),
    *_routes("POST", "/api/KINDS/ID/commit/REVISION", _Handler.commit),
    *_routes("POST", "/PREFIX/ID.git/info/lfs/objects/batch", _Handler.lfs_batch),
    *_routes("GET HEAD", "/PREFIX/ID/resolve/REVISION/(?P<path>.+)", _Handler.resolve),
]

_STORE_ROUTES = [
    _Route(
        ("GET", "HEAD"), re.compile("/lfs-objects/(?P<sha256>[0-9a-f]{64})"), _Handler.lfs_object
    ),
    _Route(("PUT",), re.compile("/upload/(?P<sha256>[0-9a-f]{64})"), _Handler.lfs_upload),
]
