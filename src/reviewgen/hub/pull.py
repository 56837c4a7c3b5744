"""The Hugging Face Hub, through plain ``huggingface_hub`` functions: fetch a repository's model files as a local folder.

Only the files of a saved model are asked for, and nothing that arrives is executed; ``bundle`` then reads them strictly.
"""

from pathlib import Path

from reviewgen.errors import HubError
from reviewgen.names import HubSource

__all__ = ["pull"]

_PATTERNS = ["*.json", "*.safetensors", "*.txt", "README.md"]


def pull(source: HubSource) -> Path:
    """Return the local folder of a repository's files, downloaded where the cache lacks them.

    Raises:
        HubError: The Hub was not reached, or has no such repository or revision.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = source.repo_id + (f"@{source.revision}" if source.revision else "")
    try:
        folder = Path(snapshot_download(source.repo_id, revision=source.revision, allow_patterns=_PATTERNS))
    except RepositoryNotFoundError:
        raise HubError(
            f"The Hub has no model repository {source.repo_id}, or it is private: log in with `hf auth login`."
        ) from None
    except RevisionNotFoundError:
        raise HubError(f"The repository {source.repo_id} has no revision {source.revision!r}.") from None
    except LocalEntryNotFoundError:
        raise HubError(f"The Hub was not reached, and {name} is not in the local cache.") from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise HubError(f"{name} could not be fetched from the Hub: {_first_line(error)}") from None
    if not folder.is_dir():  # the client makes none where no file fits
        raise HubError(f"The repository {name} holds no saved model.")
    return folder


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
