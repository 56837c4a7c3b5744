"""Turns exceptions of ``huggingface_hub`` into a ``HubError`` with a one-sentence message."""

import contextlib
from collections.abc import Iterator

from reviewgen.errors import ConfigError, HubError, ReviewgenError, first_line
from reviewgen.names import HubSource

_OFFLINE = "Without a network, presets with installed weights and saved folders still load."
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def check_token(token: str | bool | None) -> None:
    """Check that a token given as a string can be sent in an HTTP header.

    Raises:
        ConfigError: It is empty, or has spaces or characters that a header cannot contain.
    """
    if isinstance(token, str) and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise ConfigError("The Hub token is empty, or has spaces or unprintable characters: copy it again, or leave it out.")


@contextlib.contextmanager
def plain_errors(source: HubSource, failed: str) -> Iterator[None]:
    """Turn any exception of the client into a HubError.

    Args:
        source: The repository.
        failed: What failed, as in "could not be downloaded from the Hub".

    Raises:
        HubError: The Hub was not reached, or refused the request.
    """
    try:
        yield
    except ReviewgenError:
        raise
    except Exception as error:  # a dozen types: its own, its HTTP library's and the operating system's
        is_hidden = type(error) is ValueError and error.__cause__ is not None  # force_download wraps the cause
        raise HubError(_describe((is_hidden and error.__cause__) or error, source, failed)) from None


def _describe(error: BaseException, source: HubSource, failed: str) -> str:
    """Return a sentence that says what happened."""
    from huggingface_hub import errors

    repository = source.repo_id
    if isinstance(error, errors.GatedRepoError):
        return f"The repository {repository} is gated: request access on its page, and {_LOG_IN}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"The Hub has no model repository {repository}, or it is private: {_LOG_IN}."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"The repository {repository} has no revision {source.revision!r}."
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"{_reached(error)} {source} is not in the local cache either{_cause(error)}. {_OFFLINE}"
    if isinstance(error, errors.EntryNotFoundError):
        return f"The repository {source} does not contain a saved model."
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{source} {failed}: HF_HUB_OFFLINE is set, so that only the local cache is used. Unset it, or name a folder."
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None and error.response.status_code in (401, 403):
        return f"{source} {failed}: the token does not grant access (status {error.response.status_code}); {_LOG_IN}."
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        return f"{source} {failed}: {_endpoint()} answered with status {status}: {shorten(error)}. Try again later."
    if isinstance(error, KeyError | AttributeError | TypeError):  # the client has looked for something that is not there
        return f"{source} {failed}: the answer of {_endpoint()} has another form than the Hub's. Check HF_ENDPOINT."
    if _is_of_connection(error):
        return f"{source} {failed}: {_endpoint()} was not reached ({shorten(error)}). {_OFFLINE}"
    return f"{source} {failed}: {shorten(error)}."


def _endpoint() -> str:
    from huggingface_hub import constants

    return ascii(str(constants.ENDPOINT))[1:-1]


def _reached(error: BaseException) -> str:
    """Return whether the Hub was not reached, or what it answered."""
    status = getattr(getattr(error.__cause__, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return f"{_endpoint()} refused the request (status {status}: it does not exist, or the token does not grant access), and"
    return f"{_endpoint()} was not reached, and" if status is None else f"{_endpoint()} answered with status {status}, and"


def _is_of_connection(error: BaseException) -> bool:
    return isinstance(error, OSError | TimeoutError) or type(error).__module__.partition(".")[0] in (
        "httpx",
        "httpx2",  # of newer releases of the client
        "httpcore",
        "httpcore2",
        "requests",
    )


def _cause(error: BaseException) -> str:
    """Return the cause of a failed connection in brackets, or an empty string if it is unknown."""
    cause = error.__cause__
    return "" if cause is None else f" ({shorten(cause)})"


def shorten(error: BaseException) -> str:
    """Return the message of an error, shortened to one line."""
    _, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return " ".join([first_line(error), *more[:1]])[:300].rstrip(".")
