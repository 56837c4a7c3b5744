"""The files of a tokenizer: saved into an empty folder of their own, checked, and only then moved to those of the model.

A tokenizer is a plugin, which may choose any name: one that writes a file of the saved model's own would replace it.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from reviewgen.bundle.layout import OPTIONAL_FILES, OWN_FILES, TOLERATED, files_of
from reviewgen.errors import BrokenPlugin, BundleError, ReviewgenError
from reviewgen.protocols import Tokenizer
from reviewgen.storage import find_same_names, temporary_folder

_RESERVED = OWN_FILES | OPTIONAL_FILES | TOLERATED
_MAX_REASON = 200  # characters of a plugin's own message


def check_tokenizer_files(tokenizer: Tokenizer, name: str) -> None:
    """Raise if a trained tokenizer cannot be saved, before a model is trained with it; raises as ``save_tokenizer``."""
    with temporary_folder() as folder:
        save_tokenizer(tokenizer, name, folder)


def save_tokenizer(tokenizer: Tokenizer, name: str, folder: Path) -> list[str]:
    """Save a tokenizer into the folder of a model, before anything else is written there; return the names of its files.

    Args:
        tokenizer: The tokenizer.
        name: The name of its plugin.
        folder: An empty folder.

    Raises:
        BrokenPlugin: It writes a file of a reserved name, a subfolder, a link, a program, or something outside its folder, or it
            cannot be saved.
        OSError: The operating system refused a step.
    """
    around = Path(tempfile.mkdtemp(prefix=".tokenizer-", dir=folder))
    own = around / "tokenizer"
    own.mkdir()
    try:
        _save(tokenizer, name, own)
        if outside := sorted(path.name for path in (*folder.iterdir(), *around.iterdir()) if path not in (around, own)):
            raise BrokenPlugin(f"The tokenizer {name!r} saves {ascii(outside[0])[:60]} outside the folder that it is given.")
        files = _check(name, own)
        for file in files:
            (own / file).rename(folder / file)
    finally:
        shutil.rmtree(around, ignore_errors=True)
    return files


def _save(tokenizer: Any, name: str, folder: Path) -> None:
    try:
        tokenizer.save(folder)
    except (OSError, ReviewgenError):
        raise
    except Exception as error:  # a plugin's code may raise anything
        raise BrokenPlugin(f"The tokenizer {name!r} cannot be saved: {type(error).__name__}: {error!s:.{_MAX_REASON}}") from error


def _check(name: str, folder: Path) -> list[str]:
    """Return the names of the files that a tokenizer has saved; raises as ``save_tokenizer``."""
    paths = sorted(folder.iterdir())
    if odd := [path.name for path in paths if path.is_symlink() or not path.is_file()]:
        raise BrokenPlugin(
            f"The tokenizer {name!r} saves {ascii(odd[0])[:60]}, which is not a plain file: a saved model has no subfolders and "
            "no links."
        )
    files = [path.name for path in paths]
    if taken := [file for file in files if file in _RESERVED]:
        raise BrokenPlugin(
            f"The tokenizer {name!r} saves {taken[0]}, a name that a saved model uses itself; reserved are "
            f"{', '.join(sorted(_RESERVED))}."
        )
    if same := find_same_names([*sorted(_RESERVED), *files]):
        raise BrokenPlugin(f"The tokenizer {name!r} saves {same[1]}, which is the same file as {same[0]} on Windows and macOS.")
    try:
        files_of({"tokenizer": {"files": files}})
    except BundleError as error:
        raise BrokenPlugin(f"The tokenizer {name!r} saves files that no saved model can have: {error}") from None
    return files
