"""Names and sources: what a string given to ``load`` or ``train`` means. Reads no file and knows no plugin.

A preset is ``<model>-<tokenizer>[-<size>]``: lower case, digits, hyphens. A source of a trained model is a preset, a
repository on the Hub (``owner/name`` or ``hf://owner/name``, with or without ``@revision``), or a local folder (a ``Path``,
a string that starts with ``/``, ``./``, ``../`` or ``~``, or the bare name of a folder that can be nothing else). A preset with
``@revision`` is the repository of that name of ours.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from reviewgen.errors import SourceError

__all__ = [
    "HubSource",
    "LocalSource",
    "PresetName",
    "PresetSource",
    "Source",
    "find_revision",
    "parse_hub_id",
    "parse_preset",
    "parse_source",
]

_PRESET = re.compile(r"(?P<model>[a-z][a-z0-9]*)-(?P<tokenizer>[a-z][a-z0-9]*)(?:-(?P<size>[a-z0-9]+))?")
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_HUB = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[^\s@]+))?")
_LOCAL = ("/", "./", "../", "~")
_OWNER = "reviewgen"  # of the presets' repositories on the Hub


@dataclass(frozen=True)
class PresetName:
    """A preset's name taken apart."""

    model: str
    tokenizer: str
    size: str | None = None


@dataclass(frozen=True)
class PresetSource:
    """The published weights of a preset."""

    name: str


@dataclass(frozen=True)
class HubSource:
    """A repository on the Hugging Face Hub."""

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo_id + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class LocalSource:
    """A folder on this machine."""

    path: Path


Source = PresetSource | HubSource | LocalSource


def parse_preset(name: str) -> PresetName:
    """Take a preset's name apart.

    >>> parse_preset("lstm-word")
    PresetName(model='lstm', tokenizer='word', size=None)

    Raises:
        SourceError: The name does not have the form.
    """
    match = _PRESET.fullmatch(name)
    if match is None:
        raise SourceError(f"{_shorten(name)} is no preset name: it is <model>-<tokenizer>, in lower case, as in lstm-word.")
    return PresetName(match["model"], match["tokenizer"], match["size"])


def parse_hub_id(text: str) -> HubSource | None:
    """Return the repository that ``owner/name[@revision]``, with or without ``hf://``, names, or None."""
    match = _HUB.fullmatch(text.removeprefix("hf://"))
    if match is None or ".." in match["repo"] or "--" in match["repo"] or match["repo"].endswith(".git"):
        return None
    return HubSource(match["repo"], match["revision"])


def parse_source(source: str | Path, presets: Collection[str] | None = None, revision: str | None = None) -> Source:
    """Tell what a model source is: a preset, a repository on the Hub, or a local folder.

    ``presets`` are the names that are presets; without it, every name of that form is one. ``revision`` is what may also stand
    behind an @.

    >>> parse_source("lstm-word")
    PresetSource(name='lstm-word')
    >>> parse_source("ana/lyrics@v2")
    HubSource(repo_id='ana/lyrics', revision='v2')
    >>> parse_source("lstm-word@v2")
    HubSource(repo_id='reviewgen/lstm-word', revision='v2')

    Raises:
        SourceError: The string is none of these, or it could be two of them; or it cannot have a revision, or has two.
    """
    found = _parse(source, presets)
    return found if revision is None else find_revision(found, revision)


def find_revision(source: Source, revision: str) -> HubSource:
    """Return a revision of a source; that of a preset is its repository's.

    Raises:
        SourceError: It is a local folder, or names another revision, or ``revision`` can be none.
    """
    if not isinstance(revision, str) or re.fullmatch(r"[^\s@]+", revision) is None:
        raise SourceError(f"{_shorten(str(revision))} is no revision: it is a branch, a tag or a commit.")
    if isinstance(source, LocalSource):
        raise SourceError(f"{_shorten(str(source.path))} is a local folder, which has no revision {revision!r}: leave it out.")
    hub = HubSource(f"{_OWNER}/{source.name}") if isinstance(source, PresetSource) else source
    if hub.revision not in (None, revision):
        raise SourceError(f"{_shorten(str(hub))} names one revision and revision={revision!r} another: give one of them.")
    return HubSource(hub.repo_id, revision)


def _parse(source: str | Path, presets: Collection[str] | None) -> Source:
    if not isinstance(source, str | Path):
        raise SourceError(f"A model source is a string or a Path; got {type(source).__name__}.")
    if isinstance(source, Path) or source.startswith(_LOCAL) or source in (".", ".."):
        return LocalSource(_expand(Path(source)))
    if source.startswith("hf://"):
        hub = parse_hub_id(source)
        if hub is None:
            raise SourceError(
                f"{_shorten(source)} is no repository on the Hub: it is hf://owner/name, with or without @revision."
            )
        return hub
    return _parse_bare(source, presets)


def _parse_bare(source: str, presets: Collection[str] | None) -> Source:
    """Tell what a string without a marker is."""
    name, at, revision = source.partition("@")
    reading: Source | None = parse_hub_id(source)
    if _PRESET.fullmatch(name) and (revision or not at):
        reading = find_revision(PresetSource(name), revision) if at else PresetSource(name)
    if not _exists(source):
        if reading is None:
            raise SourceError(
                f"{_shorten(source)} is no preset (lstm-word), no repository (owner/name) and no folder that exists."
            )
        return reading
    if reading is None or (isinstance(reading, PresetSource) and presets is not None and source not in presets):
        return LocalSource(Path(source))
    raise SourceError(f"{source!r} could be two things. {_spell_out(source, reading)}")


def _spell_out(source: str, reading: Source) -> str:
    if isinstance(reading, PresetSource):
        return f"Write ./{source} for the folder; for the preset of that name, call from another directory or rename the folder."
    return f"Write ./{source} for the folder, hf://{reading} for the repository on the Hub."


def _exists(path: str) -> bool:
    try:
        return path != "" and Path(path).exists()  # Path("") is the current folder
    except (OSError, ValueError):  # too long for a file name, or a NUL in it
        return False


def _expand(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise SourceError(f"{_shorten(str(path))} begins with the home folder of a user that is not known here.") from None


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
