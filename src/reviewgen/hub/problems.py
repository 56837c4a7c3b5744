"""Turns exceptions of ``huggingface_hub`` into a ``HubError`` with a one-sentence message."""

import contextlib
from collections.abc import Iterator

from reviewgen.errors import ConfigError, HubError, ReviewgenError, first_line
from reviewgen.hub_client import guard_client
from reviewgen.names import HubSource

_OFFLINE = "Without a network, presets with installed weights and saved folders still load."
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def check_token(token: str | bool | None) -> None:
    """Check that a token given as a string can be sent in an HTTP header: the client's error about one that cannot names it.

    Raises:
        ConfigError: It is empty, or has spaces or characters that a header cannot contain.
    """
    if isinstance(token, str) and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise ConfigError("The Hub token is empty, or has spaces or unprintable characters: copy it again, or leave it out.")


@contextlib.contextmanager
def plain_errors(source: HubSource, failed: str) -> Iterator[None]:
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


def _describe(error: BaseException, source: HubSource, failed: str) -> str:
    """Return a sentence that says what happened."""
    from huggingface_hub import constants, errors

    repository, endpoint = source.repo_id, ascii(str(constants.ENDPOINT))[1:-1]
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"The repository {repository} is gated: request access on its page, and {_LOG_IN}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"The Hub has no repository {repository}, or it is private: {_LOG_IN}."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"The repository {repository} has no revision {source.revision!r}."
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"{source} is not in the local cache. {_OFFLINE}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{source} {failed}: HF_HUB_OFFLINE is set, and it is not in the local cache. Unset it, or name a folder."
    if status in (401, 403):
        return f"{source} {failed}: the token does not grant access (status {status}); {_LOG_IN}."
    if status is not None:
        return f"{source} {failed}: {endpoint} answered with status {status}: {shorten(error)}. Try again later."
    if isinstance(error, KeyError | AttributeError | TypeError | AssertionError):  # it has looked for something that is not there
        return f"{source} {failed}: the answer of {endpoint} has another form than the Hub's. Check HF_ENDPOINT."
    if isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "httpcore")):
        return f"{source} {failed}: {endpoint} was not reached ({shorten(error)}). {_OFFLINE}"
    return f"{source} {failed}: {shorten(error)}."


def shorten(error: BaseException) -> str:
    """Return the message of an error, shortened to one line."""
    _, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return " ".join([first_line(error), *more[:1]])[:300].rstrip(".")
