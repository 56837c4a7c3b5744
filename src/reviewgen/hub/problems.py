"""What the client of the Hub raises, as one sentence of ours."""

import contextlib
from collections.abc import Iterator

from reviewgen.errors import ConfigError, HubError, ReviewgenError
from reviewgen.names import HubSource

__all__ = ["check_token", "plain_errors", "shorten"]

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def check_token(token: str | bool | None) -> None:
    """Raise where a text cannot be a token.

    Raises:
        ConfigError: It is empty, or holds what no header takes.
    """
    if isinstance(token, str) and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise ConfigError("The token of the Hub is empty, or holds blanks: copy it anew, or leave it out.")


@contextlib.contextmanager
def plain_errors(source: HubSource, failed: str) -> Iterator[None]:
    """Turn whatever the client raises into a HubError.

    Args:
        source: The repository.
        failed: What could not be done, as in "could not be fetched from the Hub".

    Raises:
        HubError: The Hub was not reached, or said no.
    """
    try:
        yield
    except ReviewgenError:
        raise
    except Exception as error:  # a dozen types of its own, of its HTTP library and of the operating system
        is_hidden = type(error) is ValueError and error.__cause__ is not None  # force_download wraps what has happened
        raise HubError(_spell((is_hidden and error.__cause__) or error, source, failed)) from None


def _spell(error: BaseException, source: HubSource, failed: str) -> str:
    """Return what happened, in a sentence."""
    from huggingface_hub import errors

    repository = source.repo_id
    if isinstance(error, errors.GatedRepoError):
        return f"The repository {repository} is gated: ask for access on its page, and {_LOG_IN}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"The Hub has no model repository {repository}, or it is private: {_LOG_IN}."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"The repository {repository} has no revision {source.revision!r}."
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"The Hub was not reached, and {source} is not in the local cache{_cause(error)}."
    if isinstance(error, errors.EntryNotFoundError):
        return f"The repository {source} holds no saved model."
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{source} {failed}: HF_HUB_OFFLINE is set."
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None and error.response.status_code in (401, 403):
        return f"{source} {failed}: the Hub says {error.response.status_code}, the token lacks the right; {_LOG_IN}."
    return f"{source} {failed}: {shorten(error)}."


def _cause(error: BaseException) -> str:
    """Return what kept the client from the Hub, where it says so."""
    cause = error.__cause__
    return "" if cause is None else f" ({shorten(cause)})"


def shorten(error: BaseException) -> str:
    """Return what an error says, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2])[:300].rstrip(".")
