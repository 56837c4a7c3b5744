"""The cases of the fuzzer of HTTP requests: what is sent over a bare connection, and how. Each is drawn from a seed."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["KEY", "REFERENCE", "Case", "choose", "request"]

KEY = "sk-of-the-fuzzer-0123456789"
PATH = "/v1/completions"
REFERENCE: dict[str, Any] = {"model": "chars", "prompt": "the ", "seed": 1, "max_tokens": 20}
MODELS = ("chars", "words")
FIELDS = (
    *("model", "prompt", "max_tokens", "temperature", "top_p", "n", "best_of", "stop", "seed", "logprobs", "echo", "stream"),
    *("stream_options", "presence_penalty", "logit_bias", "suffix", "user", "min_tokens", "top_k", "min_p", "repetition_penalty"),
    *("no_repeat_ngram_size", "novelty", "max_copy", "conditions", "must_include", "words", "finish"),
)
PATHS = (
    "/v1/completions",
    "/v1/models",
    "/v1/models/chars",
    "/health",
    "/ready",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/",
    "/x",
)
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "post", "G\u00cbT", "LONG" * 50)
TEXTS = (
    "",
    " ",
    "\x00",
    "the ",
    "\u65e5\U0001f600",
    "\ufffd",
    "\ud800",
    "\r\n\r\n",
    "</script>",
    "{}",
    "%s%n",
    "a" * 300,
    "\u202e",
)
NUMBERS = (0, 1, -1, 2, 7, 64, 65, 2**31, 2**63, 2**64, 10**30, 10**400, 0.5, -0.0, 1e-320, 1e308, 1e999, float("nan"))


@dataclass
class Case:
    """What is sent.

    Attributes:
        title: What it is, in a line.
        parts: The bytes that are sent one after another.
        pause: Seconds between two parts.
        read: How many bytes of the answer are read, before the connection is closed; None for all.
        half: Whether the end of the request is missing, so that no answer need come.
        resets: Whether the connection is reset, not closed.
    """

    title: str
    parts: list[bytes]
    pause: float = 0.0
    read: int | None = None
    half: bool = False
    resets: bool = False


def request(body: bytes, head: str = "", path: str = PATH, method: str = "POST", key: str | None = KEY) -> bytes:
    """Return a request; ``head`` has further lines, each with its end."""
    lines = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    lines += "Content-Type: application/json\r\n" if "content-type" not in head.lower() else ""
    lines += f"Authorization: Bearer {key}\r\n" if key is not None else ""
    lines += (
        f"Content-Length: {len(body)}\r\n" if not {"content-length", "transfer-encoding"} & set(head.lower().split(":")) else ""
    )
    return (lines + head + "\r\n").encode("latin-1", "replace") + body


def choose(seed: int) -> Case:
    """Return the case of a seed."""
    chance = random.Random(seed)
    return chance.choice(_KINDS)(chance)


def _fields(chance: random.Random) -> dict[str, Any]:
    """Return a request that is right."""
    ask = {
        "model": chance.choice(MODELS),
        "prompt": chance.choice(["the ", ["a", "b"], [5, 6]]),
        "max_tokens": chance.randrange(40),
    }
    own: dict[str, Any] = {"seed": 3, "stream": True, "logprobs": 2, "echo": True, "n": 3, "stop": ["e", "an"], "top_p": 0.9}
    own |= {"temperature": 0, "must_include": "e", "novelty": "filter", "best_of": 3, "finish": "sentence"}
    return ask | {name: own[name] for name in chance.sample(sorted(own), chance.randrange(5))}


def _value(chance: random.Random, depth: int = 0) -> Any:
    """Return any value."""
    if depth < 3 and chance.random() < 0.3:
        values = [_value(chance, depth + 1) for _ in range(chance.choice([0, 1, 2, 3, 40]))]
        return values if chance.random() < 0.6 else {chance.choice([*TEXTS, *FIELDS]): value for value in values}
    return chance.choice([True, False, None, chance.choice(NUMBERS), chance.choice(TEXTS), chance.choice(FIELDS)])


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


def odd_values(chance: random.Random) -> Case:
    """Fields of other types and sizes, unknown fields, none."""
    ask = _fields(chance) | {chance.choice([*FIELDS, *TEXTS]): _value(chance) for _ in range(chance.randrange(1, 4))}
    body = _dump(ask if chance.random() < 0.9 else _value(chance))
    return Case(f"odd values: {body[:150]!r}", [request(body)])


def damaged_json(chance: random.Random) -> Case:
    """A body with some bytes changed, inserted or removed; or cut short."""
    body = bytearray(_dump(_fields(chance)))
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(body) + 1)
        body[place : place + chance.randrange(3)] = chance.choice(
            [b"", b"\xff", b"\x00", b'"', b"{", b"]", b"9" * 40, b"\\u12", b"\xed\xa0\x80"]
        )
    body = body[: chance.randrange(len(body) + 1)] if chance.random() < 0.2 else body
    return Case(f"damaged JSON: {bytes(body)[:150]!r}", [request(bytes(body))])


def huge_json(chance: random.Random) -> Case:
    """Deep nesting, long numbers, long lists, long names; up to the limit of a body and beyond."""
    size = int(10 ** chance.uniform(2, 5.7))
    bodies = {
        "nested lists": b'{"prompt":' + b"[" * size + b"]" * size + b"}",
        "nested objects": b'{"a":' * (size // 5) + b"1" + b"}" * (size // 5),
        "unclosed": b"[" * size,
        "digits": b'{"max_tokens":' + b"9" * size + b"}",
        "exponent": b'{"temperature":1e' + b"9" * size + b"}",
        "token ids": b'{"model":"chars","prompt":[' + b"5," * (size // 2) + b"5]}",
        "empty lists": b'{"model":"chars","prompt":[' + b"[]," * (size // 3) + b"[]]}",
        "a long name": b'{"' + b"n" * size + b'":1}',
        "a long text": b'{"model":"chars","max_tokens":1,"prompt":"' + b"a" * size + b'"}',
        "a long model": b'{"model":"' + b"a" * size + b'"}',
        "many fields": b"{" + b",".join(b'"f%d":1' % number for number in range(size // 10)) + b"}",
        "spaces": b" " * size,
    }
    name = chance.choice(sorted(bodies))
    return Case(f"{name}, {len(bodies[name]):,} bytes", [request(bodies[name])])


def odd_headers(chance: random.Random) -> Case:
    """Headers that contradict each other, are malformed, are too many or too long; and other encodings of the body."""
    body, chunk = _dump(_fields(chance)), b"5\r\nabcde\r\n"
    length = f"Content-Length: {len(body)}\r\n"
    heads = [
        *("Content-Length: -5\r\n", "Content-Length: abc\r\n", "Content-Length: 99999999999999999999\r\n", length + length),
        *(length + "Content-Length: 3\r\n", length + "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip\r\n"),
        *("Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked, chunked\r\n", "Content-Encoding: gzip\r\n"),
        *("Expect: 100-continue\r\n", "Expect: nonsense\r\n", "X-A: " + "b" * 70_000 + "\r\n", "X-A: b\r\n" * 3000, "X A: b\r\n"),
        *(
            "X-A: b\r\n  folded\r\n",
            ": b\r\n",
            "X-A\r\n",
            "X-A: \x00\r\n",
            "X-A: a\rb\r\n",
            "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        ),
        *("Content-Type: text/plain\r\n", "Content-Type: \r\n", "Content-Type: application/json; charset=utf-16\r\n"),
        *(
            "Content-Type: multipart/form-data\r\n",
            "Host: b\r\n",
            "Origin: null\r\n",
            "X-Forwarded-For: ::1\r\n",
            "Range: bytes=0-1\r\n",
        ),
    ]
    head, odd = (
        chance.choice(heads),
        chance.choice([body, body, body, body.decode().encode("utf-16"), b"\xef\xbb\xbf" + body, b"", chunk]),
    )
    return Case(f"header {head[:80]!r}, body {odd[:40]!r}", [request(odd, head)], half=True)


def odd_lines(chance: random.Random) -> Case:
    """First lines: methods, paths and versions of every kind, and what is not HTTP at all."""
    noise = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 400)))
    path = chance.choice(
        [
            *PATHS,
            "/../../etc/passwd",
            "/static/../keys",
            "/%00",
            "//",
            "/\u00e9",
            "/v1/models/" + "a" * 5000,
            "*",
            "http://b/health",
            "/?a=" + "b" * 70_000,
        ]
    )
    lines = [
        request(b"", path=path, method=chance.choice(METHODS)),
        request(b"", path=path, method="GET"),
        f"GET {path}\r\n\r\n".encode("latin-1"),
        f"GET {path} HTTP/{chance.choice(['0.9', '1.0', '2.0', '3', '1.1.1', 'x'])}\r\nHost: localhost\r\n\r\n".encode("latin-1"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise,
        noise,
        b"\r\n" * chance.randrange(1, 2000) + request(_dump(REFERENCE)),
    ]
    line = chance.choice(lines)
    return Case(f"first line {line[:100]!r}", [line], half=True)


def keys(chance: random.Random) -> Case:
    """Keys that are wrong, nearly right, missing or of another kind."""
    given = chance.choice([None, "", KEY[:-1], KEY + "0", KEY.upper(), " " + KEY, "\u00fc", "a" * 60_000, KEY + "\x00", KEY])
    heads = (
        "",
        "Authorization: Basic YTpi\r\n",
        f"Authorization: Bearer {KEY}\r\n",
        "Authorization: \r\n",
        "Authorization: Bearer\r\n",
    )
    head = chance.choice(heads)
    return Case(f"key {given!r:.60}, header {head!r:.40}", [request(_dump(_fields(chance)), head, key=given)])


def cut_short(chance: random.Random) -> Case:
    """A part of a request; then the client leaves."""
    whole = request(_dump(_fields(chance)))
    until = chance.randrange(1, len(whole))
    title = f"{until} of {len(whole)} bytes"
    return Case(title, [whole[:until]], chance.choice([0, 0, 0.05]), 0, half=True, resets=chance.random() < 0.5)


def slow(chance: random.Random) -> Case:
    """A request in small parts, with pauses."""
    whole = request(_dump(_fields(chance)))
    cuts = sorted(chance.sample(range(1, len(whole)), chance.randrange(1, 8)))
    parts = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    return Case(f"a request in {len(parts)} parts", parts, chance.uniform(0, 0.03))


def early_end(chance: random.Random) -> Case:
    """A client that leaves while it is answered."""
    ask = _fields(chance) | {"stream": chance.random() < 0.8, "max_tokens": 64, "best_of": None, "n": chance.randrange(1, 20)}
    read = chance.choice([0, 1, 100, 400, 2000])
    return Case(f"leaves after {read} bytes", [request(_dump(ask))], 0.01, read, half=True, resets=chance.random() < 0.5)


def several(chance: random.Random) -> Case:
    """Several requests at once on one connection; the last may be cut short."""
    wholes = [request(_dump(_fields(chance))).replace(b"Connection: close\r\n", b"") for _ in range(chance.randrange(2, 6))]
    last = request(_dump(_fields(chance)))
    return Case(f"{len(wholes) + 1} requests on one connection", [b"".join([*wholes, last])])


def right(chance: random.Random) -> Case:
    """A request that is right in every way."""
    ask = _fields(chance)
    return Case(f"a right request: {ask}", [request(_dump(ask))])


_KINDS: tuple[Callable[[random.Random], Case], ...] = (
    *(odd_values, odd_values, damaged_json, damaged_json, huge_json, odd_headers, odd_lines, keys, cut_short, slow, early_end),
    *(several, right),
)
