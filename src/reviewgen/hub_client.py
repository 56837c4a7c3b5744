"""Uses ``huggingface_hub`` with a guard, and with errors of one sentence. Knows neither models nor texts.

The client names files of its cache after what a server sends: the headers ``ETag`` and ``X-Repo-Commit``, the ``sha`` of a
repository and the digests in its list of files. It does not check them, so that a path in one of them is a file anywhere.
"""

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any

from reviewgen.errors import ConfigError, HubError, ReviewgenError, first_line

_PLAIN_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.+=-]{0,127}")
_API = re.compile("/api/(?:models|datasets|spaces)/")
_COMMIT, _DIGESTS = "X-Repo-Commit", ("ETag", "X-Linked-Etag")
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_lock = threading.Lock()


def guard_client() -> None:
    """Let the client of this process refuse names that are not plain; the client factory of the user is kept."""
    from huggingface_hub import get_session, set_client_factory
    from huggingface_hub.utils import _http

    with _lock:
        if _check_response in get_session().event_hooks["response"]:
            return
        # No public name gives the factory in use, which may be the user's own, with a proxy or certificates.
        make_client = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)

        def make_guarded() -> Any:
            client = make_client()
            client.event_hooks["response"].append(_check_response)
            return client

        set_client_factory(make_guarded)


def _check_response(response: Any) -> None:
    """Check the names that a response gives, before the client reads it.

    Raises:
        HubError: A commit or a digest is not a plain name.
    """
    headers = (_COMMIT, *(_DIGESTS if response.request.method == "HEAD" else ()))
    names = [value.lstrip("W/").strip('"') for header in headers if (value := response.headers.get(header)) is not None]
    if _API.search(response.url.path) and response.has_redirect_location:
        target = response.url.join(response.headers["Location"])
        names += [] if _API.search(target.path) else [str(target)]  # what it says would not be checked there
    elif _API.search(response.url.path) and response.is_success:
        response.read()
        with contextlib.suppress(ValueError):  # not JSON, which the client reports
            answer = response.json()
            entries = [entry for entry in (answer if isinstance(answer, list) else [answer]) if isinstance(entry, dict)]
            files = [entry["lfs"] for entry in entries if isinstance(entry.get("lfs"), dict)]
            names += [entry["sha"] for entry in entries if entry.get("sha") is not None] + [file.get("oid") for file in files]
    for name in names:
        if not isinstance(name, str) or _PLAIN_NAME.fullmatch(name) is None:
            raise HubError(
                f"The answer of {ascii(response.url.host)[1:-1][:80]} was refused: it gives {ascii(name)[:60]} as a commit, a "
                "digest or an address, which is not a plain name. Check HF_ENDPOINT."
            )


def check_token(token: str | bool | None) -> None:
    """Check that a token string can be sent in an HTTP header: the client's error for others shows the token.

    Raises:
        ConfigError: It is empty, or has spaces or characters that a header cannot contain.
    """
    if isinstance(token, str) and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise ConfigError("The Hub token is empty, or has spaces or unprintable characters: copy it again, or leave it out.")


@contextlib.contextmanager
def plain_errors(source: object, failed: str) -> Iterator[None]:
    """Guard the client, and turn any exception of it into a HubError.

    Args:
        source: The repository.
        failed: What failed, as in "could not be downloaded from the Hub".

    Raises:
        HubError: The Hub was not reached, or refused the request.
    """
    guard_client()
    try:
        yield
    except ReviewgenError:
        raise
    except Exception as error:  # a dozen types: its own, its HTTP library's and the operating system's
        is_hidden = type(error) is ValueError and error.__cause__ is not None  # force_download wraps the cause
        raise HubError(_describe((is_hidden and error.__cause__) or error, source, failed)) from None


def _describe(error: BaseException, source: object, failed: str) -> str:
    """Return a sentence that says what happened."""
    from huggingface_hub import constants, errors

    endpoint, status = ascii(str(constants.ENDPOINT))[1:-1], getattr(getattr(error, "response", None), "status_code", None)
    local = "it is not in the local cache, and the Hub is not asked (HF_HUB_OFFLINE, local_files_only)"
    known: dict[type[Exception], str] = {
        errors.GatedRepoError: f"it is gated: request access on its page, and {_LOG_IN}",
        errors.RepositoryNotFoundError: f"the Hub has no such repository, or it is private: {_LOG_IN}",
        errors.RevisionNotFoundError: "the repository has no such revision",
        errors.LocalEntryNotFoundError: local,
        errors.OfflineModeIsEnabled: local,
    }
    reason = next((reason for kind, reason in known.items() if isinstance(error, kind)), shorten(error))
    if reason not in known.values():
        if status in (401, 403):
            reason = f"the token does not grant access (status {status}); {_LOG_IN}"
        elif status is not None:
            reason = f"{endpoint} answered with status {status}: {reason}. Try again later"
        elif isinstance(error, KeyError | AttributeError | TypeError | AssertionError):  # it has looked for what is not there
            reason = f"the answer of {endpoint} has another form than the Hub's. Check HF_ENDPOINT"
        elif isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "httpcore")):
            offline = "Without a network, presets with installed weights and saved folders still load"
            reason = f"{endpoint} was not reached ({reason}). {offline}"
    return f"{source} {failed}: {reason}."


def shorten(error: BaseException) -> str:
    """Return the message of an error, shortened to one line."""
    _, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return " ".join([first_line(error), *more[:1]])[:300].rstrip(".")
