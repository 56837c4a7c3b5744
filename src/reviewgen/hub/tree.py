"""Checks the list of a repository's files that the Hub gives, before any of them is downloaded."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from reviewgen.config import MAX_RECORD, MAX_SETTINGS, MAX_VOCABULARY
from reviewgen.errors import HubError
from reviewgen.model.layout import CARD, CONFIG, GENERATION, LEXICON, NOVELTY, TRAINING, WEIGHTS

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_FILES = 10_000
_MAX_NAME = 1_000  # characters
_MAX_TENSORS = 1 << 40  # bytes; headers are compared with config.json before any tensor is read
_LIMITS = (
    dict.fromkeys((CONFIG, GENERATION, CARD), MAX_SETTINGS)
    | {TRAINING: MAX_RECORD}
    | dict.fromkeys((WEIGHTS, NOVELTY, LEXICON), _MAX_TENSORS)
)  # of the size of a file in bytes; a file of the tokenizer has MAX_VOCABULARY


def check_commit(commit: Any) -> str:
    """Return the commit that the Hub gives for a revision.

    Raises:
        HubError: It is not 40 hexadecimal digits.
    """
    if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None:
        raise HubError(f"The Hub gives {ascii(commit)[:60]} as a commit, which is not 40 hexadecimal digits: check HF_ENDPOINT.")
    return commit


def check_entries(entries: Sequence[Any], names: set[str], repository: object) -> dict[str, Any]:
    """Return the entries of those files of a repository that belong to a saved model, by name.

    Args:
        entries: All entries, as ``huggingface_hub`` returns them with ``files_metadata``.
        names: The names of the model's files.
        repository: The repository, for messages.

    Raises:
        HubError: A name leaves the folder or is not unique, a digest is not hexadecimal, or a size is not plausible.
    """
    if len(entries) > _MAX_FILES:
        raise HubError(f"{repository} has {len(entries):,} files, which is more than the {_MAX_FILES:,} of a saved model.")
    listed = [entry.rfilename for entry in entries]
    if odd := [name for name in listed if not _is_safe_name(name)]:
        raise HubError(f"{repository} lists {ascii(odd[0])[:80]}, which is not a file inside it: nothing was downloaded.")
    own = {name.casefold() for name in names}
    count = Counter(name.casefold() for name in listed)
    if same := [name for name in listed if name.casefold() in own and count[name.casefold()] > 1]:
        raise HubError(
            f"{repository} lists {' and '.join(map(ascii, same[:2]))[:200]}, which are one file on Windows and macOS. Remove one."
        )
    wanted = {entry.rfilename: entry for entry in entries if entry.rfilename in names}
    for name, entry in wanted.items():
        _check_entry(name, entry, repository)
    return wanted


def _is_safe_name(name: Any) -> bool:
    """Return whether a name leads to a file inside a folder on every system."""
    if not isinstance(name, str) or len(name) > _MAX_NAME or "\\" in name or ":" in name[:2] or not name.isprintable():
        return False
    return not {"", ".", ".."} & set(name.split("/"))  # "" begins an absolute path


def _check_entry(name: str, entry: Any, repository: object) -> None:
    digest, form = (entry.blob_id, _COMMIT) if entry.lfs is None else (getattr(entry.lfs, "sha256", None), _SHA256)
    if not isinstance(digest, str) or form.fullmatch(digest) is None:
        raise HubError(f"{repository} gives {ascii(digest)[:60]} as the digest of {name}, which is not hexadecimal.")
    limit = _LIMITS.get(name, MAX_VOCABULARY)
    if type(entry.size) is not int or not 0 <= entry.size <= limit:
        raise HubError(f"{repository} gives {ascii(entry.size)[:40]} as the size of {name}; at most {limit:,} bytes are read.")
