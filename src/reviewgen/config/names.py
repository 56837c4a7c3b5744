"""Parses names of presets and sources of models, as given to ``load`` and ``train``. Opens no files
and does not look for plugins.

The name of a preset is ``<model>-<tokenizer>[-<size>]``, in lower-case letters, digits and hyphens.
A name with ``-plain`` at its end means the preset without the techniques of its model and its
training.

The source of a trained model is a preset, a repository on the Hub (``owner/name`` or
``hf://owner/name``, with or without ``@revision``), or a local folder:

- A ``Path``, and a string that starts with ``/``, ``./``, ``../`` or ``~``, is a folder.
- ``owner/name`` is a folder if it has a ``config.json``, and otherwise a repository.
- The name of a known preset that is also a folder is refused as ambiguous; any other existing path
  is a folder.
- A preset with ``@revision`` is the repository ``reviewgen/<preset>``.
"""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from reviewgen.errors import ConfigError, SourceError, did_you_mean, quoted

PRESET = re.compile(
    r"(?P<model>[a-z][a-z0-9]*)-(?P<tokenizer>[a-z][a-z0-9]*)(?:-[a-z0-9]+)?(?:-plain)?"
)
PLAIN = "-plain"
"""The end of a preset's name that means: without the techniques of its model and its training."""

_PLUGIN = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
# an owner or a name on the Hub, of at most 96 characters
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_HUB = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[^\s@]+))?")
_MAX_PLUGIN_NAME = 100  # characters
LOCAL = ("/", "./", "../", "~", os.sep, f".{os.sep}", f"..{os.sep}")
"""A source that starts with one of these is a path, and is not looked up as a name."""
_OWNER = "reviewgen"  # the owner of the presets' repositories on the Hub


@dataclass(frozen=True)
class HubSource:
    """A repository on the Hugging Face Hub.

    Attributes:
        repo_id: ``owner/name``.
        revision: A branch, a tag or a commit; None for the default branch.
    """

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo_id + (f"@{self.revision}" if self.revision else "")


Source = str | HubSource | Path
"""Where a trained model comes from: the name of a preset (for its weights), a repository on the
Hub, or a local folder.
"""


def parse_preset(name: str, presets: Collection[str] = ()) -> tuple[str, str]:
    """Return the name of the model and the name of the tokenizer, with which a preset's name
    begins.

    Args:
        name: The name.
        presets: The known presets; an error message suggests the closest one.

    >>> parse_preset("lstm-word-large")
    ('lstm', 'word')

    Raises:
        SourceError: The name does not have the form ``<model>-<tokenizer>[-<size>]``.
    """
    match = PRESET.fullmatch(name)
    if match is None:
        advice = "Write <model>-<tokenizer> in lower case, as in lstm-word."
        if presets:
            advice += f" {_suggest(name, presets)}"
        raise SourceError(f"{quoted(name, 60)} is not a preset name. {advice}")
    return match["model"], match["tokenizer"]


def is_plugin_name(name: str) -> bool:
    """Return whether a string can name a logits processor or a metric: words of a to z and digits
    joined by hyphens.

    >>> [is_plugin_name(name) for name in ("no-digits", "No digits", "filters.py")]
    [True, False, False]
    """
    return len(name) <= _MAX_PLUGIN_NAME and _PLUGIN.fullmatch(name) is not None


def check_plugin_names(setting: str, names: Sequence[str]) -> None:
    """Validate a setting that lists plugin names.

    Raises:
        ConfigError: A name does not have the form of a plugin's name, or is given twice.
    """
    for index, name in enumerate(names):
        if not is_plugin_name(name):
            raise ConfigError(
                f"{setting} must list names of installed plugins, in lower-case letters, digits and"
                f" hyphens; got {name!r:.60}."
            )
        if name in names[:index]:
            raise ConfigError(f"{setting} has {quoted(name)} twice: name it once.")


def parse_hub_id(text: str) -> HubSource | None:
    """Parse ``[hf://]owner/name[@revision]``; return None if the string does not have this form."""
    match = _HUB.fullmatch(text.removeprefix("hf://"))
    # the Hub refuses names that contain ".." or "--", or end with ".git"
    if (
        match is None
        or ".." in match["repo"]
        or "--" in match["repo"]
        or match["repo"].endswith(".git")
    ):
        return None
    return HubSource(match["repo"], match["revision"])


def parse_source(
    source: str | Path, presets: Collection[str] | None = None, revision: str | None = None
) -> Source:
    """Parse the source of a model: a preset, a repository on the Hub, or a local folder.

    Args:
        source: The source.
        presets: The known presets. If None, every name that has the form of a preset counts as a
            preset.
        revision: The revision, if the source does not have one.

    >>> parse_source("lstm-word")
    'lstm-word'
    >>> parse_source("ana/lyrics@v2")
    HubSource(repo_id='ana/lyrics', revision='v2')
    >>> parse_source("lstm-word@v2")
    HubSource(repo_id='reviewgen/lstm-word', revision='v2')

    Raises:
        SourceError: The source is neither a preset, a repository nor a folder, or is ambiguous; or
            a revision is given for a folder; or two revisions are given.
    """
    parsed = _parse(source, presets)
    return parsed if revision is None else find_revision(parsed, revision)


def find_revision(source: Source, revision: str) -> HubSource:
    """Return the repository on the Hub for a source, with a revision. For a preset, this is the
    repository of the preset's weights.

    Raises:
        SourceError: The source is a local folder, or has a different revision; or ``revision`` is
            not valid.
    """
    if not isinstance(revision, str) or re.fullmatch(r"[^\s@]+", revision) is None:
        raise SourceError(
            f"{quoted(str(revision), 60)} is not a revision. Give a branch, a tag or a commit."
        )
    if isinstance(source, Path):
        raise SourceError(
            f"{quoted(str(source), 60)} is a local folder, which has no revision"
            f" {quoted(revision)}: leave it out."
        )
    hub = HubSource(f"{_OWNER}/{source}") if isinstance(source, str) else source
    if hub.revision not in (None, revision):
        raise SourceError(
            f"{quoted(str(hub), 60)} has one revision and revision={quoted(revision)} is another:"
            " give one of them."
        )
    return HubSource(hub.repo_id, revision)


def _parse(source: str | Path, presets: Collection[str] | None) -> Source:
    """Parse a source. A revision can only be a part of the source, as in ``owner/name@v2``."""
    if not isinstance(source, str | Path):
        raise SourceError(
            f"The source of a model must be a string or a Path; got {type(source).__name__}."
        )
    if isinstance(source, Path) or source.startswith(LOCAL) or source in (".", ".."):
        return _expand(Path(source))
    if source.startswith("hf://"):
        hub = parse_hub_id(source)
        if hub is None:
            raise SourceError(
                f"{quoted(source, 60)} is not a repository on the Hub. Write hf://owner/name, with"
                " or without @revision."
            )
        return hub
    return _parse_bare(source, presets)


def _parse_bare(source: str, presets: Collection[str] | None) -> Source:
    """Parse a string without a prefix such as ``./`` or ``hf://``: a preset, a repository or a
    folder.
    """
    name, at, revision = source.partition("@")
    parsed: Source | None = parse_hub_id(source)
    if PRESET.fullmatch(name):
        if revision:
            parsed = find_revision(name, revision)
        elif not at:  # "lstm-word@" has no revision, and is not a preset either
            parsed = name
    if not os.path.exists(source):  # noqa: PTH110  Path raises for long names
        if parsed is None:
            hint = "" if presets is None else f" {_suggest(source, presets)}"
            kinds = "a preset (lstm-word), a repository (owner/name) or an existing folder"
            raise SourceError(f"{quoted(source, 60)} is not {kinds}.{hint}")
        return parsed
    folder = Path(source)
    if isinstance(parsed, HubSource):
        return folder if (folder / "config.json").is_file() else parsed
    # the folder's name may have the form of a preset's name, but not be a known preset
    if parsed is None or (presets is not None and source not in presets):
        return folder
    raise SourceError(
        f"{quoted(source)} is ambiguous: write ./{source} for the folder, or rename the folder for"
        " the preset."
    )


def _expand(path: Path) -> Path:
    """Expand ``~`` at the beginning of a path."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise SourceError(
            f"{quoted(str(path), 60)} begins with the home folder of a user that does not exist on"
            " this machine."
        ) from None


def _suggest(name: str, presets: Collection[str]) -> str:
    """Return the end of an error message about a wrong name: the preset with the closest name, and
    the known presets.
    """
    return did_you_mean(name.lower().replace("_", "-"), presets)
