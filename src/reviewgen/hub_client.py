"""Lets ``huggingface_hub`` refuse answers that would make it write outside of its cache. Knows neither models nor texts.

The client names files of its cache after what a server sends: the headers ``ETag`` and ``X-Repo-Commit``, the ``sha`` of a
repository and the digests in its list of files. It does not check them, so that a path in one of them is a file anywhere.
"""

import contextlib
import re
import threading
from typing import Any

from reviewgen.errors import HubError

_PLAIN_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.+=-]{0,127}")
_COMMIT, _DIGESTS = "X-Repo-Commit", ("ETag", "X-Linked-Etag")
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
    if response.url.path.startswith("/api/") and response.is_success:
        response.read()
        with contextlib.suppress(ValueError):  # not JSON, which the client reports
            answer = response.json()
            entries = [each for each in (answer if isinstance(answer, list) else [answer]) if isinstance(each, dict)]
            files = [each["lfs"] for each in entries if isinstance(each.get("lfs"), dict)]
            names += [each["sha"] for each in entries if each.get("sha") is not None] + [each.get("oid") for each in files]
    for name in names:
        if not isinstance(name, str) or _PLAIN_NAME.fullmatch(name) is None:
            raise HubError(
                f"The answer of {ascii(response.url.host)[1:-1][:80]} was refused: it gives {ascii(name)[:60]} as a commit or a "
                "digest, which is not a plain name. Check HF_ENDPOINT."
            )
