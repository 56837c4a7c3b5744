"""Fuzzer of HTTP requests: hostile clients of ``reviewgen serve``, over bare connections of this machine.

After every case the server answers ``/health`` and a reference request with the text that the model generates here; it never
answers 500, its messages are short, and its log has no traceback and no error.
"""

import contextlib
import json
import re
import socket
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import reviewgen
from tests.hostile.frame import Fuzzer, Outcome
from tests.hostile.request_cases import KEY, REFERENCE, Case, choose, request
from tests.support.servers import serving

__all__ = ["FUZZER"]

_PATIENCE = 60.0  # seconds: other processes may be busy
_MAX_MESSAGE = 510
_LIMITS = ("--max-tokens-limit", "64", "--request-timeout", "40s", "--stall-timeout", "2s", "--max-body", "500000")
_STATUSES = {200, 400, 401, 404, 405, 408, 413, 415, 422, 429, 431, 501, 503, 505}
_HARMLESS = ("WARNING Invalid HTTP request received.", "WARNING Unsupported upgrade request.")  # of uvicorn
_WARM_UP: tuple[dict[str, Any], ...] = (
    {"top_p": 0.9, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1, "no_repeat_ngram_size": 3, "logprobs": 1, "echo": True},
    {"novelty": "filter", "n": 3, "stop": "e"},
    {"must_include": "e", "seed": 1},
)
_TEXTS = ["the film was good and the end was sad.", "the end of the film was not good.", "a sad film with a good end."] * 4


class RequestFuzzer:
    """See the module."""

    name = "requests"

    def prepare(self, folder: Path) -> None:
        models = {
            name: reviewgen.train(f"ngram-{kind}", _TEXTS, steps=1) for name, kind in (("chars", "char"), ("words", "word"))
        }
        for name, model in models.items():
            model.save_pretrained(folder / name)
        expected = models["chars"].generate_one("the ", seed=1, max_new_tokens=20)
        self._expected = expected.removeprefix("the ")
        (folder / "keys").write_text(KEY + "\n", encoding="utf-8")
        (folder / "keys").chmod(0o600)
        self._log, self._stack = folder / "log", ExitStack()
        sources = [f"{name}={folder / name}" for name in models]
        words = ["serve", *sources, "--port", "0", "--api-key-file", str(folder / "keys"), *_LIMITS]
        said = self._stack.enter_context(serving(words, self._log))
        self._port, self._process = int(said["url"].rpartition(":")[2]), said["process"]
        self._read = len(self._log.read_bytes())
        for model in models:  # compiles what the cases need, so that none of them waits for it
            for ask in _WARM_UP:
                assert self._ask(request(json.dumps({"model": model, **ask}).encode()))[0] == 200

    def run(self, seed: int) -> Outcome:
        case = choose(seed)
        try:
            answer = self._send(case)
            problem = self._find_problem(case, answer) or self._find_damage()
        except (OSError, AssertionError, ValueError) as error:
            answer, problem = b"", f"{type(error).__name__}: {error}"
        if problem:
            return Outcome("failed", case.title, f"{problem}\n{answer[:1000]!r}")
        statuses = _statuses(answer)
        return Outcome("changed" if 200 in statuses else "clean", case.title, f"status {', '.join(map(str, statuses)) or 'none'}")

    def close(self) -> None:
        self._stack.close()

    def _send(self, case: Case) -> bytes:
        """Send a case and return what is answered."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=_PATIENCE) as connection:
            if case.resets:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(ConnectionError):  # the server may close before all is sent
                for number, part in enumerate(case.parts):
                    time.sleep(case.pause if number else 0)
                    connection.sendall(part)
                if case.half and case.read is None:
                    connection.shutdown(socket.SHUT_WR)  # what is missing does not come
            time.sleep(case.pause)
            return _receive(connection, case.read)

    def _find_problem(self, case: Case, answer: bytes) -> str:
        """Return what is wrong with an answer; "" if nothing is."""
        statuses = _statuses(answer)
        if strange := set(statuses) - _STATUSES:
            return f"status {strange}"
        if not statuses and not case.half:
            return "no answer"
        if b"Traceback" in answer:
            return "a traceback"
        for message in re.findall(rb'"error":\s?\{"message":\s?("(?:[^"\\]|\\.)*")', answer):
            if len(json.loads(message)) > _MAX_MESSAGE:
                return "a message of more than 500 characters"
        return ""

    def _find_damage(self) -> str:
        """Return how the server has changed; "" if it has not."""
        if self._process.poll() is not None:
            return f"the server has ended with {self._process.returncode}"
        head, _, health = self._ask(request(b"", path="/health", method="GET"))
        if head != 200 or json.loads(health) != {"status": "ok"}:
            return f"/health says {head} {health!r}"
        status, _, body = self._ask(request(json.dumps(REFERENCE).encode()))
        if status != 200 or json.loads(body)["choices"][0]["text"] != self._expected:
            return f"the reference request has {status} {body!r}, not {self._expected!r}"
        log = self._log.read_bytes()
        lines, self._read = log[self._read :].decode(errors="replace").splitlines(), len(log)
        return next((f"the log says {line}" for line in lines if not line.endswith(_HARMLESS)), "")

    def _ask(self, sent: bytes) -> tuple[int, bytes, bytes]:
        """Return the status, the head and the body of the answer to a request."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=_PATIENCE) as connection:
            connection.sendall(sent)
            answer = _receive(connection, None)
        head, _, body = answer.partition(b"\r\n\r\n")
        return next(iter(_statuses(head)), 0), head, body


def _receive(connection: socket.socket, count: int | None) -> bytes:
    """Return what comes until the connection is closed, or at least some bytes.

    Raises:
        TimeoutError: The server neither answers nor closes.
    """
    answer = b""
    with contextlib.suppress(ConnectionError):
        while (count is None or len(answer) < count) and (part := connection.recv(65_536)):
            answer += part
    return answer


def _statuses(answer: bytes) -> list[int]:
    """Return the statuses of the answers on a connection, but for "100 Continue"."""
    return [status for each in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer) if (status := int(each)) != 100]


FUZZER: Any = RequestFuzzer()
_: Fuzzer = FUZZER
