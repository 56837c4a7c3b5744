"""The attacks of the Hub's fuzzer: what a hostile Hub, mirror or proxy may answer. Each is chosen by a seeded generator."""

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.hub_server import COMMIT, REPOSITORY, Answer, Attack

__all__ = ["choose_attacks", "choose_files"]

_HEADERS = (
    *("ETag", "X-Linked-Etag", "X-Repo-Commit", "X-Linked-Size", "Location", "Content-Encoding", "Content-Type", "X-Xet-Hash"),
    *(
        "Link",
        "Content-Disposition",
        "Set-Cookie",
        "Content-Range",
        "Retry-After",
        "RateLimit",
        "X-Error-Code",
        "X-Error-Message",
    ),
)
_STATUSES = (
    *(200, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 408, 410, 416, 418, 429, 451),
    *(500, 502, 503, 504, 599),
)
_NAMES = (
    *("../evil", "/etc/evil", "..", "", "a/../../evil", "C:\\evil", "a\\..\\evil", "C:evil", "config.JSON", "con"),
    *("a\nb", "\x1b[31mred"),
)


_FIELDS = ("id", "tags", "createdAt", "cardData", "gguf", "safetensors", "config", "gated")


def nasty_values(rng: random.Random, outside: Path, other: str) -> str:
    """Return a value of a header or field; some are paths of files that must not come into being."""
    up = "../" * rng.randint(1, 8)
    values = [
        str(outside / "planted"),
        f'"{outside / "planted"}"',
        f'W/"{up}planted"',
        f'"{up}planted"',
        f"{up}{up}tmp/planted",
        "..",
        ".",
        "",
        '""',
        "W/",
        "a" * rng.choice([200, 5_000]),
        "%2e%2e/planted",
        "C:\\planted",
        "0" * 40,
        "f" * 64,
        COMMIT.upper(),
        "\u202eabc",
        "\x1b[2J",
        "-1",
        "1e9",
        str(10 ** rng.choice([3, 9, 20])),
        "gzip",
        "gzip, br, identity",
        f"{other}/large/config.json",
        f"//{other.partition('//')[2]}/x",
        f"file://{outside}/canary",
        "http://[::1",
        "http://",
        "javascript:1",
        f'<{other}/token>; rel="xet-auth"',
        '"api";r=0;t=99999999',
        "text/html",
        "RepoNotFound",
        "RevisionNotFound",
        "GatedRepo",
        "EntryNotFound",
    ]
    return rng.choice(values)


def choose_files(rng: random.Random, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files of a repository, sometimes with changed content, whose digests are right."""
    changed = dict(files)
    if rng.random() < 0.7:
        return changed
    name = rng.choice(sorted(changed))
    data = bytearray(changed[name])
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    odd = [bytes(data), b"", bytes(data[: len(data) // 2]), b"[" * 90_000, b'{"a": ' * 80 + b"1" + b"}" * 80, b"9" * 5_000]
    changed[name] = rng.choice([*odd, b"\xff\xfe\x00", b" " * (3 << 20)])
    if rng.random() < 0.2:
        changed[rng.choice(["extra.py", "model.bin", "README.MD", "sub folder.txt"])] = b"x"
    return changed


def choose_attacks(rng: random.Random, outside: Path, other: str) -> list[Attack]:
    """Return one to three attacks."""
    makers = [_escape, _escape, _header, _header, _status, _redirect, _body, _info, _info]
    return [rng.choice(makers)(rng, outside, other) for _ in range(rng.choice([1, 1, 2, 3]))]


def _target(rng: random.Random) -> str:
    """Return a pattern of the requests that an attack changes."""
    return rng.choice(["HEAD .*/resolve/", "GET .*/resolve/", "/resolve/", "config.json", "safetensors", "/api/", "(other)", ""])


def _pattern(rng: random.Random) -> str:
    return _target(rng).replace("(other)", r"\(other\)")


def _header(rng: random.Random, outside: Path, other: str) -> Attack:
    name, value, is_gone = rng.choice(_HEADERS), nasty_values(rng, outside, other), rng.random() < 0.1

    def change(answer: Answer) -> None:
        answer.headers.pop(name, None)
        if not is_gone:
            answer.headers[name] = value

    return Attack(f"{name}: {'left out' if is_gone else ascii(value)[:60]}", _pattern(rng), change)


def _escape(rng: random.Random, outside: Path, other: str) -> Attack:
    """Return an attack that names a file outside of the cache where the client takes a header for a name."""
    name = rng.choice(["ETag", "X-Linked-Etag", "X-Repo-Commit"])
    up = "../" * rng.randint(1, 6)
    value = rng.choice(
        [f'"{outside / "planted"}"', str(outside / "planted"), f'"{up}planted"', f"W/{up}planted", f'"x/../{up}planted"']
    )
    return Attack(
        f"{name}: {value[-40:]}",
        rng.choice(["HEAD .*config.json", "/resolve/", ""]),
        lambda answer: answer.headers.update({name: value}),
    )


def _status(rng: random.Random, outside: Path, other: str) -> Attack:
    status, more = rng.choice(_STATUSES), [(rng.choice(_HEADERS), nasty_values(rng, outside, other)) for _ in range(2)]
    body = rng.choice([b"", b"<html>no</html>", b'{"error": "\x1b[31m"}', b"x" * 100_000, b"\xff\xfe", b'{"error": ["a"]}'])

    def change(answer: Answer) -> None:
        answer.status, answer.body = status, body
        answer.headers |= dict(more)

    return Attack(f"status {status}", _pattern(rng), change)


def _redirect(rng: random.Random, outside: Path, other: str) -> Attack:
    status = rng.choice([301, 302, 303, 307, 308])
    places = [f"{other}/api/models/{REPOSITORY}", f"{other}/large/config.json", f"/{REPOSITORY}/resolve/main/config.json"]
    place = rng.choice([*places, "", nasty_values(rng, outside, other)])

    def change(answer: Answer) -> None:
        answer.status = status
        answer.headers["Location"] = place

    return Attack(f"redirect {status} to {ascii(place)[:60]}", _pattern(rng), change)


def _body(rng: random.Random, outside: Path, other: str) -> Attack:
    kind = rng.choice(["cut", "flip", "longer", "empty", "chunked", "endless", "slow", "wrong length", "html"])

    def change(answer: Answer) -> None:
        if kind == "cut":
            answer.kept = 0.5
        elif kind == "flip" and answer.body:
            middle = len(answer.body) // 2
            answer.body = answer.body[:middle] + bytes([answer.body[middle] ^ 1]) + answer.body[middle + 1 :]
        elif kind == "longer":
            answer.body += b"more"
        elif kind == "empty":
            answer.body = b""
        elif kind == "html":
            answer.body, answer.headers["Content-Type"] = b"<html>Log in to the network</html>", "text/html"
        elif kind in ("chunked", "endless"):
            answer.length, answer.is_endless = None, kind == "endless"
        elif kind == "slow":
            answer.pause = 0.05
        elif kind == "wrong length":
            answer.length = max(0, len(answer.body) + rng.choice([-3, 7]))
            answer.kept = 0.999

    return Attack(f"body {kind}", _pattern(rng), change)


def _info(rng: random.Random, outside: Path, other: str) -> Attack:
    """Return an attack on the JSON that the API sends of the repository."""
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda info: info | {"sha": nasty_values(rng, outside, other)},
        lambda info: info | {"sha": rng.choice([None, 5, [], {}])},
        lambda info: info | {"siblings": rng.choice([None, 5, "x", [1], [None], [{}], [{"rfilename": 5}], {"a": 1}])},
        lambda info: info | {"siblings": [*info["siblings"], {"rfilename": rng.choice(_NAMES), "size": 1, "blobId": "0" * 40}]},
        lambda info: info | {"siblings": [*info["siblings"], info["siblings"][0]]},
        lambda info: info | {"siblings": [_worse(rng, entry, outside, other) for entry in info["siblings"]]},
        lambda info: info | {"siblings": info["siblings"] * 3_000},
        lambda info: rng.choice([None, [], 5, "x", {}, [info], {"sha": COMMIT}]),
        lambda info: (
            info
            | {
                rng.choice(["id", "tags", "createdAt", "cardData", "gguf", "safetensors", "config"]): rng.choice(
                    [5, [[]], "x", {"a": {}}]
                )
            }
        ),
    ]
    change_info = rng.choice(changes)
    raw = rng.choice([b"{", b"[" * 200_000, b"\xff", b'{"sha": 1e999}', b'{"size": ' + b"9" * 6_000 + b"}"])
    is_raw, state = rng.random() < 0.15, rng.getstate()

    def change(answer: Answer) -> None:
        rng.setstate(state)  # all answers are changed alike
        with contextlib.suppress(ValueError, TypeError, KeyError):  # another attack has left no information to change
            answer.body = raw if is_raw else json.dumps(change_info(json.loads(answer.body))).encode()

    return Attack("odd information", "GET /api/", change)


def _worse(rng: random.Random, entry: dict[str, Any], outside: Path, other: str) -> dict[str, Any]:
    field = rng.choice(["size", "blobId", "lfs", "rfilename"])
    value = rng.choice([None, -1, 1.5, 10**30, "5", [], {}, {"sha256": "x"}, {"sha256": "0" * 64, "size": -1, "pointerSize": 1}])
    return entry | {field: nasty_values(rng, outside, other) if rng.random() < 0.3 else value}
