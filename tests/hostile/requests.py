"""HTTP requests of hostile clients of ``reviewgen serve``, over bare connections of this machine.

After every case the server answers a reference request with the text that the model generates here;
it never answers 500, its messages are short, and its log has no traceback.
"""

import contextlib
import json
import random
import re
import socket
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import reviewgen
from tests.hostile.frame import Fuzzer
from tests.support.models import make_model
from tests.support.servers import serving

KEY = "sk-of-the-fuzzer-0123456789"
PATIENCE = 60.0
STATUSES = {200, 400, 401, 404, 405, 408, 413, 415, 422, 429, 431, 501, 503, 505}
# of uvicorn
HARMLESS = ("WARNING Invalid HTTP request received.", "WARNING Unsupported upgrade request.")
LIMITS = (
    "--max-tokens-limit",
    "64",
    "--request-timeout",
    "40s",
    "--stall-timeout",
    "2s",
    "--max-body",
    "500000",
)
FIELDS = (
    *(
        "model",
        "prompt",
        "max_tokens",
        "temperature",
        "top_p",
        "n",
        "best_of",
        "stop",
        "seed",
        "logprobs",
        "echo",
        "stream",
    ),
    *(
        "stream_options",
        "min_tokens",
        "top_k",
        "repetition_penalty",
        "novelty",
        "conditions",
        "max_copy",
        "words",
        "finish",
    ),
)
VALUES: list[Any] = [
    *(
        True,
        None,
        0,
        1,
        -1,
        65,
        2**31,
        2**64,
        10**400,
        0.5,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
        [1e9],
        {},
        {"a": {"b": 1}},
    ),
    *(
        "",
        "\x00",
        "\u65e5\U0001f600",
        "\ud800",
        "a" * 300,
        "\u202e",
        "known",
        [],
        [[]],
        ["a"] * 40,
        [5, 6],
    ),
    {"include_usage": True},
]


def request(
    body: bytes, head: str = "", path: str = "/v1/completions", method: str = "POST", key: str = KEY
) -> bytes:
    """Return a request; ``head`` has further lines, each with its end."""
    lines = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer"
        f" {key}\r\n"
    )
    lines += "" if "Content-Type" in head else "Content-Type: application/json\r\n"
    lines += (
        ""
        if "Content-Length" in head or "Transfer-Encoding" in head
        else f"Content-Length: {len(body)}\r\n"
    )
    return (lines + head + "\r\n").encode("latin-1", "replace") + body


def right(source: random.Random) -> dict[str, Any]:
    """Return the fields of a request that is right."""
    own = {
        "seed": 3,
        "stream": True,
        "logprobs": 2,
        "echo": True,
        "n": 3,
        "stop": ["e"],
        "top_p": 0.9,
        "novelty": "filter",
    }
    chosen = {name: own[name] for name in source.sample(sorted(own), source.randrange(4))}
    return {
        "model": "chars",
        "prompt": source.choice(["the ", ["a", "b"], [5, 6]]),
        "max_tokens": source.randrange(40),
    } | chosen


def choose(source: random.Random) -> tuple[str, list[bytes], int | None, bool]:
    """Return a case: its name, the parts sent, how much of the answer is read (None for all), and
    whether it is cut short.
    """
    body = json.dumps(right(source)).encode()
    size = int(10 ** source.uniform(2, 5.7))
    kind = source.choice(
        [
            "values",
            "values",
            "bytes",
            "bytes",
            "huge",
            "header",
            "line",
            "key",
            "cut",
            "leaves",
            "several",
            "right",
        ]
    )
    if kind == "values":
        body = json.dumps(
            right(source)
            | {source.choice([*FIELDS, "", "x"]): source.choice(VALUES) for _ in range(2)}
        ).encode()
    elif kind == "bytes":
        place = source.randrange(len(body))
        body = (
            body[:place]
            + source.choice([b"", b"\xff", b"\x00", b'"', b"{", b"]", b"9" * 40, b"\\u12"])
            + body[place + 1 :]
        )
    elif kind == "huge":
        bodies = [
            b"[" * size,
            b'{"a":' * (size // 5) + b"1" + b"}" * (size // 5),
            b'{"max_tokens":' + b"9" * size + b"}",
        ]
        bodies += [
            b'{"model":"chars","prompt":[' + b"5," * (size // 2) + b"5]}",
            b'{"model":"' + b"a" * size + b'"}',
            b" " * size,
        ]
        body = source.choice(bodies)
    elif kind == "header":
        heads = [
            "Content-Length: -5",
            "Content-Length: abc",
            "Content-Length: 3\r\nContent-Length: 4",
            "Transfer-Encoding: gzip",
        ]
        heads += [
            "Transfer-Encoding: chunked",
            "Content-Encoding: gzip",
            "Expect: nonsense",
            "X-A: " + "b" * 70_000,
            "X-A: \x00",
        ]
        heads += [
            "X-A",
            "Content-Type: text/plain",
            "Host: b",
            "Origin: null",
            "Upgrade: websocket\r\nConnection: Upgrade",
        ]
        head = source.choice(heads)
        return f"header {head[:60]}", [request(body, head + "\r\n")], None, True
    elif kind == "line":
        method = source.choice(
            ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "post", "LONG" * 50]
        )
        paths = [
            "/v1/models",
            "/health",
            "/",
            "/x",
            "/../../etc/passwd",
            "/%00",
            "//",
            "/" + "a" * 70_000,
            "/v1/models/chars",
        ]
        path = source.choice(paths)
        line = source.choice([request(b"", path=path, method=method), source.randbytes(200)])
        return f"{method[:9]} {path[:20]}", [line], None, True
    elif kind == "key":
        key = source.choice(["", "x", KEY[:-1], KEY + "0", KEY.upper(), "é" * 9, "a" * 60_000])
        return f"key {key[:30]!r}", [request(body, key=key)], None, True
    whole = request(body)
    if kind == "cut":
        cuts = sorted(source.sample(range(1, len(whole)), 3))
        parts = [
            whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
        ]
        is_half = source.random() < 0.5
        return "in parts", parts[:-1] if is_half else parts, None, is_half
    if kind == "leaves":
        ask = right(source) | {"stream": True, "max_tokens": 64, "n": source.randrange(1, 20)}
        return "leaves early", [request(json.dumps(ask).encode())], source.choice([0, 1, 400]), True
    if kind == "several":
        return (
            "several on one connection",
            [whole.replace(b"Connection: close\r\n", b"") * 3 + whole],
            None,
            False,
        )
    return f"{kind}: {body[:150]!r}", [whole], None, False


class Requests(Fuzzer):
    """The fuzzer."""

    def prepare(self, folder: Path) -> None:
        """Start a server with a small model."""
        make_model("ngram-char", folder / "chars")
        model = reviewgen.load(folder / "chars" / "model")
        self.expected = model.generate_one("the ", seed=1, max_new_tokens=20).removeprefix("the ")
        (folder / "keys").write_text(KEY + "\n", encoding="utf-8")
        (folder / "keys").chmod(0o600)
        self.log = folder / "log"
        self.stack = ExitStack()
        words = [
            "serve",
            f"chars={folder / 'chars' / 'model'}",
            "--port",
            "0",
            "--api-key-file",
            str(folder / "keys"),
            *LIMITS,
        ]
        said = self.stack.enter_context(serving(words, self.log))
        self.port = int(said["url"].rpartition(":")[2])
        self.process = said["process"]
        self.read = self.log.stat().st_size
        for more in (
            {"top_p": 0.9, "logprobs": 1, "echo": True},
            {"novelty": "filter", "n": 3},
            {"must_include": "e"},
        ):  # compiles
            self._send([request(json.dumps({"model": "chars", **more}).encode())], None, False)

    def run(self, seed: int) -> tuple[str, str]:
        """Send one case, then a reference request."""
        source = random.Random(seed)
        case, parts, count, is_half = choose(source)
        try:
            answer = self._send(parts, count, is_half)
            reference = {"model": "chars", "prompt": "the ", "seed": 1, "max_tokens": 20}
            after = self._send([request(json.dumps(reference).encode())], None, False)
        except (OSError, ValueError) as error:
            return case, f"{type(error).__name__}: {error}"
        statuses = {int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)} - {100}
        messages = re.findall(rb'"error":\s?\{"message":\s?("(?:[^"\\]|\\.)*")', answer)
        log = self.log.read_bytes()
        lines = log[self.read :].decode(errors="replace").splitlines()
        self.read = len(log)
        problems = {
            "status": statuses - STATUSES,
            "no answer": not statuses and not is_half,
            "traceback": b"Traceback" in answer,
            "message": any(len(json.loads(message)) > 510 for message in messages),
            "ended": self.process.poll() is not None,
            "reference": json.dumps(self.expected).encode() not in after,
            "log": [line for line in lines if not line.endswith(HARMLESS)],
        }
        found = {name: problem for name, problem in problems.items() if problem}
        return case, f"{found} {answer[:500]!r}" if found else ""

    def close(self) -> None:
        """Stop the server."""
        self.stack.close()

    def _send(self, parts: list[bytes], count: int | None, is_half: bool) -> bytes:
        """Send the parts, and return what is answered until the server closes, or at least
        ``count`` bytes.
        """
        answer = b""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection,
            contextlib.suppress(ConnectionError),
        ):
            if count is not None:  # leaves with a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for part in parts:
                connection.sendall(part)
                time.sleep(0.01 if len(parts) > 1 else 0)
            if is_half and count is None:
                connection.shutdown(socket.SHUT_WR)
            while (count is None or len(answer) < count) and (read := connection.recv(65_536)):
                answer += read
        return answer


FUZZER = Requests()
