"""Which models there are: the installed weights of reviewgen's presets, and those named in a file
of the user.

Listing reads metadata: it imports no PyTorch, and no plugin of reviewgen. A mistake in the file is
a line on standard error, since an exception would stop every command of llm.
"""

from pathlib import Path

import click
import llm

__all__ = ["FILE", "as_source", "find_sources"]

FILE = "reviewgen-models.yaml"


def find_sources() -> dict[str, str]:
    """Return what ``reviewgen.load`` loads for each name: the user's own models, then the presets
    with weights.
    """
    from reviewgen.registry.plugins import list_presets
    from reviewgen.registry.saved import describe_weights

    described = {plugin.name: describe_weights(plugin.name) for plugin in list_presets()}
    usable = {
        name: name
        for name, weights in described.items()
        if weights is not None and weights.problem is None
    }
    return usable | _read_file(llm.user_dir() / FILE)


def as_source(source: str, folder: Path | None = None) -> str | Path:
    """Return a source for ``reviewgen.load``: as a path if it starts like one; a relative path
    starts at ``folder``.
    """
    if not source.startswith(("/", "./", "../", "~")):
        return source
    path = Path(source).expanduser()
    return path if folder is None else folder / path


def _read_file(file: Path) -> dict[str, str]:
    """Return the models of the user's file, which maps names to sources: folders, or repositories
    of the Hub.
    """
    if not file.exists():
        return {}
    import yaml

    try:
        models = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return _ignore(file, f"it cannot be read: {' '.join(str(error).split()):.200}")
    if not isinstance(models, dict) or not all(
        isinstance(name, str) and isinstance(source, str) for name, source in models.items()
    ):
        return _ignore(
            file,
            "it should map names to folders or repositories, a line each, as in 'music:"
            " ~/models/music'",
        )
    return {name: str(as_source(source, file.parent)) for name, source in models.items()}


def _ignore(file: Path, reason: str) -> dict[str, str]:
    click.echo(f"{file} is ignored: {reason}.", err=True)
    return {}
