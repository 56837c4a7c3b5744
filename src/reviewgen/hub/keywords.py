"""The keyword arguments for loading from the Hub and for publishing on it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict


class HubKwargs(TypedDict, total=False):
    """Options for downloading a repository, with the names and meanings of
    ``huggingface_hub.snapshot_download``.
    """

    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool


class PushOptions(TypedDict, total=False):
    """The keyword arguments of ``ReviewModel.push_to_hub``, which documents them. The first eight
    have the same meaning as in huggingface_hub.
    """

    commit_message: str | None
    private: bool | None
    token: str | bool | None
    revision: str | None
    create_pr: bool
    allow_patterns: list[str] | str | None
    ignore_patterns: list[str] | str | None
    delete_patterns: list[str] | str | None
    license: str | None
    model_card_kwargs: Mapping[str, Any] | None
    allow: Collection[str]
    copy_limit: float
    dtype: Literal["float32", "float16", "int8"] | None
    dry_run: bool
