"""Makes the HTTP client of ``huggingface_hub`` safe against a hostile Hub, mirror or proxy. Knows neither models nor texts.

The client names files of its cache after the headers ``ETag`` and ``X-Repo-Commit``, so that a server could create a file
anywhere; it follows redirects, sends the token where it takes a host for the Hub's, and reads bodies of any size. Its HTTP
client may be replaced, so that ours has hooks that check each response before the library sees it.

    guard_client     refuses headers that are not plain names, in every use of the client in this process
    restrict_client  for a block of code: also keeps the token, the addresses and the sizes within bounds
"""

import contextlib
import importlib
import re
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from reviewgen.errors import HubError

_PLAIN_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.+=-]{0,127}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT_HEADER, _LINKED_ETAG, _LINKED_SIZE, _XET_HASH = "X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size", "X-Xet-Hash"
_MAX_ANSWER = 1 << 24  # bytes of an answer that is not a file, such as a list of files
_TIMEOUT_SECONDS = 15.0  # without any data; where the client sets no limit
_MAX_WAIT_SECONDS = 30
_MIN_SPEED = 1000  # bytes per second, after the first seconds of a body
_lock = threading.Lock()


@dataclass(frozen=True)
class _Rules:
    """What a block of code may receive.

    Attributes:
        max_bytes: The maximum size of a file's body.
        size: The size that the server has to give for a file; None for any.
    """

    max_bytes: int
    size: int | None


_rules: ContextVar[_Rules | None] = ContextVar("reviewgen_hub_rules", default=None)


def guard_client() -> None:
    """Let the client of this process refuse headers that would leave its cache folder; the user's own client factory is kept."""
    from huggingface_hub import get_session, set_client_factory
    from huggingface_hub.utils import _http

    # No public name gives the factory in use. Hooks on the present client alone would be lost: after an error of TLS, which a
    # server can cause, the library closes it and makes another one, in the middle of a download.
    with _lock:
        if _check_response in get_session().event_hooks["response"]:
            return
        make_client = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)

        def make_guarded() -> Any:
            """Return the client of the user's factory, or of the library's, with our hooks after its own."""
            client = make_client()
            hooks = client.event_hooks
            client.event_hooks = {
                "request": [*hooks["request"], _check_request],
                "response": [*hooks["response"], _check_response],
            }
            return client

        set_client_factory(make_guarded)


@contextlib.contextmanager
def restrict_client(max_bytes: int = _MAX_ANSWER, size: int | None = None) -> Iterator[None]:
    """Restrict what the client sends and receives in a block of code, in this thread.

    The token goes to the Hub's own address only. Calls of the Hub's API are not redirected to other hosts, and nothing from https
    to http. Digests and commits are hexadecimal, and no body is larger, or much slower, than is plausible. Files are downloaded
    by HTTP only, without hf_xet, which has connections of its own.

    Args:
        max_bytes: The maximum size of a file.
        size: The size that the server has to give for a file; None for any.

    Raises:
        HubError: Within the block: the server breaks a rule.
    """
    guard_client()
    token = _rules.set(_Rules(max_bytes, size))
    try:
        yield
    finally:
        _rules.reset(token)


def _check_request(request: Any) -> None:
    """Remove the token from a request to another host than the Hub's, and limit how long it waits.

    Raises:
        HubError: The Hub is asked by https, and this request is not encrypted.
    """
    if _rules.get() is None:
        return
    hub, origin = _origin(_endpoint()), _origin(str(request.url))
    if hub[0] == "https" != origin[0]:
        raise _refusal(request, "it is reached by a redirect from https to http")
    if origin != hub:
        request.headers.pop("Authorization", None)
        request.headers.pop("Cookie", None)
    if request.method in ("GET", "HEAD"):
        request.headers["Accept-Encoding"] = "identity"  # else, a small body may unpack to a large one
        given = request.extensions.get("timeout") or {}
        limits = {name: given.get(name) for name in ("connect", "read", "write", "pool")}
        request.extensions["timeout"] = {name: _TIMEOUT_SECONDS if value is None else value for name, value in limits.items()}


def _check_response(response: Any) -> None:
    """Check a response before its body is read.

    Raises:
        HubError: A header or an address breaks a rule.
    """
    _refuse_to_wait(response)
    rules, headers = _rules.get(), response.headers
    if rules is not None:
        _forget_cookies(response)
    names = {_COMMIT_HEADER: headers.get(_COMMIT_HEADER)}
    if response.request.method == "HEAD":
        names |= {"ETag": headers.get("ETag"), _LINKED_ETAG: headers.get(_LINKED_ETAG)}
    for header, value in names.items():
        form = _PLAIN_NAME if rules is None else _COMMIT if header == _COMMIT_HEADER else _DIGEST
        if value is not None and form.fullmatch(value.lstrip("W/").strip('"')) is None:  # as the client takes it for a name
            expected = "a plain name" if rules is None else "a hexadecimal digest"
            raise _refusal(response.request, f"the header {header} is {ascii(value)[:60]}, which is not {expected}")
    if rules is not None:
        headers.pop(_XET_HASH, None)
        _check_redirect(response)
        _check_size(response, rules)


def _refuse_to_wait(response: Any) -> None:
    """Raise where the server asks for a long wait, which the client would do in silence.

    Raises:
        HubError: It asks for more than half a minute.
    """
    asked = response.headers.get("Retry-After", "") + response.headers.get("ratelimit", "").rpartition("t=")[2]
    seconds = next((int(word) for word in re.findall(r"[0-9]{1,9}", asked)), 0)
    if response.status_code in (429, 503) and seconds > _MAX_WAIT_SECONDS:
        host = ascii(urlsplit(str(response.request.url)).netloc.rpartition("@")[2])[1:-1]
        raise HubError(
            f"{host[:80]} answers no more requests for {seconds:,} seconds (status {response.status_code}). Try again then; with "
            "an access token (`hf auth login`) more requests are allowed."
        )


def _forget_cookies(response: Any) -> None:
    """Forget the cookies of a response: the client would send them with all later requests, and one may make those fail."""
    from huggingface_hub import get_session

    if "Set-Cookie" in response.headers:
        get_session().cookies.clear()


def _check_redirect(response: Any) -> None:
    source = str(response.request.url)
    if not response.has_redirect_location or not source.removeprefix(_endpoint()).startswith("/api/"):
        return
    target = urljoin(source, response.headers["Location"])
    if _origin(target) != _origin(source):
        raise _refusal(response.request, f"it redirects a call of its API to {ascii(target)[:80]}, which is another host")


def _check_size(response: Any, rules: _Rules) -> None:
    headers, is_head = response.headers, response.request.method == "HEAD"
    if headers.get("Content-Encoding", "").strip().lower() not in ("", "identity"):
        raise _refusal(response.request, "it sends a compressed body, which was not asked for")
    size = headers.get(_LINKED_SIZE) or (None if response.has_redirect_location else headers.get("Content-Length"))
    if is_head and response.status_code < 400 and rules.size is not None and size not in (None, str(rules.size)):
        raise _refusal(response.request, f"it gives {ascii(size)[:40]} as the size of a file that has {rules.size} in its list")
    if not is_head:
        response.stream = _limit(response, max(rules.max_bytes, _MAX_ANSWER))


def _limit(response: Any, limit: int) -> Any:
    """Return the body of a response as a stream that ends with an error where it is too long or too slow."""
    stream = response.stream
    base = importlib.import_module(type(response).__module__.partition(".")[0]).SyncByteStream  # of httpx, or of its successor

    class Limited(base):  # type: ignore[misc, valid-type]  # known when the client is there
        def __iter__(self) -> Iterator[bytes]:
            start, received = time.monotonic(), 0
            for chunk in stream:
                received += len(chunk)
                seconds = time.monotonic() - start
                if received > limit:
                    raise _refusal(response.request, f"it sends more than {limit:,} bytes")
                if seconds > _TIMEOUT_SECONDS and received < _MIN_SPEED * seconds:
                    raise _refusal(response.request, f"it sends less than {_MIN_SPEED:,} bytes per second")
                yield chunk

        def close(self) -> None:
            stream.close()

    return Limited()


def _refusal(request: Any, problem: str) -> HubError:
    host = ascii(urlsplit(str(request.url)).netloc.rpartition("@")[2])[1:-1]
    return HubError(f"The answer of {host[:80]} was refused: {problem}. Nothing of it was saved; check HF_ENDPOINT.")


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT).rstrip("/")


def _origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address; of an invalid one, what no valid one has."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return "", "", -1
