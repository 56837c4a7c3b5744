"""``load`` and ``pull`` from a Hub, mirror or proxy that answers with anything, through the real client.

Judged by the tree of files around the cache, by what another host was sent, by the message, the wait, and by the text and score
of the model against those of the folder that was published.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from typer.testing import CliRunner

from tests.hostile.frame import find_fault

REPOSITORY, COMMIT, TOKEN = "owner/name", "0123456789abcdef0123456789abcdef01234567", "hf_secretsecretsecret"
TARGETS = ["HEAD .*/resolve/", "GET .*/resolve/", "/resolve/", "config.json", "safetensors", "/api/", r"\(other\)", ""]
HEADERS = (
    *("ETag", "X-Linked-Etag", "X-Repo-Commit", "X-Linked-Size", "Location", "Content-Encoding", "Content-Type", "X-Xet-Hash"),
    *("Link", "Content-Range", "Retry-After", "X-Error-Code", "X-Error-Message"),
)
STATUSES = (200, 204, 206, 301, 302, 307, 308, 400, 401, 403, 404, 410, 416, 429, 500, 502, 503, 599)
NAMES = ("../evil", "/etc/evil", "..", "", "a/../../evil", "C:\\evil", "a\\..\\evil", "config.JSON", "con", "a\nb", "\x1b[31mred")


class Answer:
    """What is answered to one request; attacks change it. A length of None sends the body in chunks."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.status, self.headers, self.body = status, headers, body
        self.length: int | None = -1
        self.kept, self.is_endless = 1.0, False


Attack = Callable[[Answer], None]


class Hub:
    """The fuzzer: a server on two ports, the endpoint and another host to which it redirects."""

    def prepare(self, folder: Path) -> None:
        """Start the server, and train the model that it has; the client reads its address when it is imported."""
        self.servers = [serve(self, is_hub) for is_hub in (True, False)]
        self.endpoint = f"http://127.0.0.1:{self.servers[0].server_address[1]}"
        self.other = f"http://localhost:{self.servers[1].server_address[1]}"
        self.outside = folder / "outside"
        inner = self.outside.joinpath(*"abcdefgh")
        self.home, self.out = inner / "home", inner / "out"
        inner.mkdir(parents=True)
        for place in [self.outside, *inner.parents[:7]]:
            (place / "canary").write_text("as it was")
        own = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.home), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        os.environ.update(own | {"HF_HUB_ETAG_TIMEOUT": "3", "HF_HUB_DOWNLOAD_TIMEOUT": "3", "no_proxy": "*"})
        from tests.support.models import make_model

        make_model("ngram-char", folder / "model")
        self.published = {file.name: file.read_bytes() for file in (folder / "model" / "model").iterdir()}
        self.files, self.attacks, self.stolen, self.waited = dict(self.published), list[tuple[str, Attack]](), list[str](), 0.0
        time.sleep = self._wait  # type: ignore[assignment]  # what the client waits is added up
        self.expected = self._use("load")

    def run(self, seed: int) -> tuple[str, str]:
        """Load from a Hub with one to three attacks, and sometimes other files."""
        source = random.Random(seed)
        action, self.waited = source.choice(["load", "pull", "revision"]), 0.0
        self.files, self.stolen = change_files(source, dict(self.published)), []
        makers = [self._header, self._header, self._status, self._redirect, self._body, self._info, self._info]
        chosen = [(source.choice(TARGETS), *source.choice(makers)(source)) for _ in range(source.choice([1, 1, 2, 3]))]
        self.attacks = [(pattern, attack) for pattern, _, attack in chosen]
        changed = [name for name, data in self.files.items() if data != self.published.get(name)]
        case, before = f"{action}; {[(pattern, name) for pattern, name, _ in chosen]} {changed}", self._tree()
        try:
            result: Any = self._use(action)
            problem = "another model" if result != self.expected and not changed else ""
        except BaseException as error:
            problem = find_fault(error)
        leaks = [str(path) for path in self.home.rglob("*") if not path.resolve().is_relative_to(self.home.resolve())]
        found = {"token": self.stolen, "files": before != self._tree(), "cache": leaks, "": problem}
        self.attacks, self.files = [], dict(self.published)
        for place in (self.home, self.out):
            shutil.rmtree(place, ignore_errors=True)
        return case, f"{ {name: each for name, each in found.items() if each} }" if any(found.values()) else ""

    def close(self) -> None:
        """Stop the server."""
        for server in self.servers:
            server.shutdown()

    def answer(self, method: str, path: str, is_hub: bool) -> Answer:
        """Return the answer to a request, after the attacks."""
        answer = self._honest_answer(path, is_hub)
        for pattern, attack in self.attacks:
            if re.search(pattern, f"{method} {'' if is_hub else '(other)'}{path}"):
                attack(answer)
        return answer

    def _honest_answer(self, path: str, is_hub: bool) -> Answer:
        entries = [entry(name, data) for name, data in self.files.items()]
        if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            tree = [{"type": "file", "path": each["rfilename"], "size": each["size"], "oid": each["blobId"]} for each in entries]
            return Answer(200, {"Content-Type": "application/json"}, json.dumps(tree).encode())
        if path.startswith(f"/api/models/{REPOSITORY}"):
            info = {"id": REPOSITORY, "sha": COMMIT, "private": False, "gated": False, "tags": [], "siblings": entries}
            return Answer(200, {"Content-Type": "application/json"}, json.dumps(info).encode())
        name = unquote(path.rpartition("/")[2])
        data = self.files.get(name)
        if data is None or not ("/resolve/" in path or not is_hub):
            return Answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest(name, data)}"', "Content-Type": "application/octet-stream"}
        if not is_hub or not name.endswith(".safetensors"):
            return Answer(200, headers, data)
        linked = {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(data)), "Location": f"{self.other}/large/{name}"}
        return Answer(302, headers | linked)

    def _use(self, action: str) -> tuple[str, float]:
        """Load or pull the model; return a text and a score."""
        import reviewgen
        from reviewgen.cli import app

        if action == "pull":
            done = CliRunner().invoke(app, ["pull", REPOSITORY, "--out", str(self.out)])
            if done.exception:
                raise done.exception
            model = reviewgen.load(self.out)
        else:
            model = reviewgen.load(f"hf://{REPOSITORY}", token=TOKEN, revision="main" if action == "revision" else None)
        return model.generate_one("the ", seed=1), model.score("the film was good").bits_per_character

    def _wait(self, seconds: float) -> None:
        self.waited += seconds
        if self.waited > 3600:
            raise TimeoutError(f"a wait of {self.waited:.0f} seconds")

    def _tree(self) -> dict[str, tuple[int, bytes]]:
        """Return the files around the cache, and the planted paths elsewhere."""
        places = [
            each for each in self.outside.rglob("*") if not each.is_relative_to(self.home) and not each.is_relative_to(self.out)
        ]
        places += [path for path in map(Path, ("/tmp/planted", "/planted")) if path.exists()]
        return {str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in places}

    # The attacks: each returns its name, and how it changes an answer.

    def _value(self, source: random.Random) -> str:
        """Return a value of a header; some are paths of files that must not come into being."""
        up, outside = "../" * source.randint(1, 8), self.outside / "planted"
        values = [str(outside), f'"{outside}"', f'W/"{up}planted"', f'"x/../{up}planted"', f"{up}{up}tmp/planted", "..", "", '""']
        values += [
            "a" * 5_000,
            "%2e%2e/planted",
            "C:\\planted",
            "0" * 40,
            COMMIT.upper(),
            "\u202eabc",
            "\x1b[2J",
            "-1",
            "1e9",
            str(10**20),
        ]
        values += ["gzip, br", f"{self.other}/large/config.json", f"file://{self.outside}/canary", "http://[::1", "javascript:1"]
        return source.choice([*values, f'<{self.other}/token>; rel="xet-auth"', "RepoNotFound", "GatedRepo", "EntryNotFound"])

    def _header(self, source: random.Random) -> tuple[str, Attack]:
        name, value = source.choice(HEADERS), self._value(source)
        return f"{name}: {value[:60]}", lambda answer: answer.headers.update({name: value})

    def _status(self, source: random.Random) -> tuple[str, Attack]:
        status, body = (
            source.choice(STATUSES),
            source.choice([b"", b"<html>no</html>", b'{"error": "\x1b[31m"}', b"x" * 100_000, b"\xff\xfe"]),
        )

        def change(answer: Answer) -> None:
            answer.status, answer.body = status, body

        return f"status {status}", change

    def _redirect(self, source: random.Random) -> tuple[str, Attack]:
        places = [f"{self.other}/api/models/{REPOSITORY}", f"{self.other}/large/config.json", "", self._value(source)]
        status, place = source.choice([301, 302, 307, 308]), source.choice(places)

        def change(answer: Answer) -> None:
            answer.status, answer.headers["Location"] = status, place

        return f"redirect {status} to {place[:60]}", change

    def _body(self, source: random.Random) -> tuple[str, Attack]:
        kind = source.choice(["cut", "flip", "longer", "empty", "chunked", "endless", "wrong length", "html"])

        def change(answer: Answer) -> None:
            middle = len(answer.body) // 2
            answer.kept = {"cut": 0.5, "wrong length": 0.99}.get(kind, 1.0)
            bodies = {"longer": answer.body + b"more", "empty": b"", "html": b"<html>Log in to the network</html>"}
            bodies["flip"] = (
                answer.body[:middle] + bytes(each ^ 1 for each in answer.body[middle : middle + 1]) + answer.body[middle + 1 :]
            )
            answer.body = bodies.get(kind, answer.body)
            if kind in ("chunked", "endless"):
                answer.length, answer.is_endless = None, kind == "endless"
            elif kind == "wrong length":
                answer.length = len(answer.body) + 7

        return f"body {kind}", change

    def _info(self, source: random.Random) -> tuple[str, Attack]:
        """Return an attack on the JSON that the API sends of the repository."""
        value: Any = source.choice([None, 5, "x", -1, 10**30, [], {}, [1], [{}], [{"rfilename": 5}], self._value(source)])
        key = source.choice(
            ["sha", "sha", "siblings", "siblings", "id", "tags", "cardData", "safetensors", "size", "blobId", "lfs", "name"]
        )
        raw = source.choice([b"{", b"[" * 200_000, b"\xff", b"null"]) if source.random() < 0.15 else None

        def change(answer: Answer) -> None:
            with contextlib.suppress(ValueError, TypeError, KeyError):  # another attack has left no JSON to change
                info = json.loads(answer.body)
                if key in ("size", "blobId", "lfs"):
                    info["siblings"] = [each | {key: value} for each in info["siblings"]]
                elif key == "name":
                    info["siblings"].append({"rfilename": NAMES[len(str(value)) % len(NAMES)], "size": 1, "blobId": "0" * 40})
                else:
                    info[key] = value
                answer.body = json.dumps(info).encode()
            answer.body = answer.body if raw is None else raw

        return f"{key} of the information: {value!r:.40}", change


def change_files(source: random.Random, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files of a repository, sometimes with changed content, whose digests are right."""
    if source.random() < 0.3:
        name = source.choice(sorted(files))
        data = bytearray(files[name])
        data[source.randrange(len(data))] ^= 1
        odd = [bytes(data), b"", bytes(data[: len(data) // 2]), b"[" * 90_000, b"\xff\xfe\x00", b" " * (3 << 20)]
        files[name] = source.choice(odd)
        files |= {source.choice(["extra.py", "model.bin", "sub folder.txt"]): b"x"} if source.random() < 0.2 else {}
    return files


def digest(name: str, data: bytes) -> str:
    """Return the digest of a file, as the Hub has it: that of git, or of LFS."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def entry(name: str, data: bytes) -> dict[str, Any]:
    """Return what the API says of a file."""
    found = {"rfilename": name, "size": len(data), "blobId": digest(name, data)}
    large = {"sha256": digest(name, data), "size": len(data), "pointerSize": 134}
    return found | {"lfs": large} if name.endswith(".safetensors") else found


def serve(hub: Hub, is_hub: bool) -> ThreadingHTTPServer:
    """Start a server in a thread."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not is_hub and TOKEN in f"{self.path}{self.headers}":
                hub.stolen.append(f"{self.command} {self.path}")
            answer = hub.answer(self.command, urlsplit(self.path).path, is_hub)
            length = len(answer.body) if answer.length == -1 else answer.length
            size = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
            lines = [f"HTTP/1.1 {answer.status} Odd", *(f"{name}: {value}" for name, value in {**size, **answer.headers}.items())]
            with contextlib.suppress(OSError):  # the client hangs up
                self.wfile.write("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape"))
                body = b"" if self.command == "HEAD" else answer.body[: int(len(answer.body) * answer.kept)]
                for part in [body, *([b" " * (1 << 20)] * 40 if answer.is_endless and body else [])]:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if length is None and part else part)
                self.wfile.write(b"0\r\n\r\n" if length is None and body else b"")
            self.close_connection = self.close_connection or answer.kept < 1 or answer.is_endless

        do_HEAD = do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing goes to standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


FUZZER = Hub()
