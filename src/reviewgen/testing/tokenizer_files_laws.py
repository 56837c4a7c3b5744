"""Laws about the files of a tokenizer: which names it may use, and where it may write."""

import contextlib
import json
import os
import pickletools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from reviewgen.errors import BundleError
from reviewgen.model.layout import OPTIONAL_FILES, OWN_FILES, TOLERATED, files_of
from reviewgen.storage import temporary_folder

__all__ = ["FILE_LAWS", "file_names", "no_subfolders", "own_folder", "plain_data"]

Make = Callable[[], Any]


def plain_data(make: Make) -> None:
    """``save`` writes JSON or text files in UTF-8, not pickles."""
    with temporary_folder() as folder:
        make().save(folder)
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files, "save must write at least one file."
        for path in files:
            _assert_plain(path)


def file_names(make: Make) -> None:
    """``save`` uses no name of the saved model's own files, and only names and suffixes that loading accepts."""
    with temporary_folder() as folder:
        make().save(folder)
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    reserved = {name.casefold(): name for name in OWN_FILES | OPTIONAL_FILES | TOLERATED}
    for name in names:
        assert name.casefold() not in reserved, (
            f"save writes {name}, a name that a saved model uses itself ({', '.join(sorted(reserved.values()))}): choose another."
        )
    try:
        files_of({"tokenizer": {"files": names}})
    except BundleError as error:
        raise AssertionError(f"save writes the files {names}, with which a saved model cannot be loaded. {error}") from error


def no_subfolders(make: Make) -> None:
    """``save`` writes plain files into the folder: no subfolders and no links."""
    with temporary_folder() as folder:
        make().save(folder)
        odd = [path.name for path in sorted(folder.iterdir()) if path.is_symlink() or not path.is_file()]
    assert not odd, f"save writes {odd[0]}, which is a folder or a link; a saved model is one folder of plain files."


def own_folder(make: Make) -> None:
    """Training, encoding, saving and loading write nothing outside the folder that ``save`` is passed."""
    make()  # imports and caches of libraries, before the working directory changes
    with temporary_folder() as name:
        root = name.resolve()
        target, work, home = (root / part for part in ("parent/tokenizer", "work", "home"))
        for folder in target, work, home:
            folder.mkdir(parents=True)
        with _elsewhere(work, home):
            tokenizer = make()
            tokenizer.decode(tokenizer.encode("A good film."))
            tokenizer.save(target)
            saved = _list_files(target)
            type(tokenizer).load(target)
        added = sorted(_list_files(target) - saved)
        assert not added, f"load writes {added[0]} into the folder that it reads, which may be read-only."
        for folder, what in (target.parent, "beside its folder"), (work, "into the working directory"), (home, "into HOME"):
            outside = sorted(_list_files(folder) - {f"tokenizer/{file}" for file in saved} - {"tokenizer"})
            assert not outside, f"The tokenizer writes {outside[0]} {what}; it may write only into the folder passed to save."


FILE_LAWS: tuple[Callable[[Make], None], ...] = (plain_data, no_subfolders, file_names, own_folder)


def _assert_plain(path: Path) -> None:
    """Raise AssertionError unless a file is UTF-8 text, valid JSON if its suffix says so, and not a pickle."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
        if path.suffix == ".json":
            json.loads(text)
    except ValueError as error:
        raise AssertionError(f"{path.name} must be JSON or text in UTF-8: {error}.") from error
    assert path.suffix == ".json" or not _is_pickle(content), (
        f"{path.name} is a pickle, which can run code when it is loaded; save JSON or text."
    )


def _is_pickle(content: bytes) -> bool:
    """Return whether the bytes are a complete pickle; pickletools parses them without running them."""
    try:
        return bool(list(pickletools.genops(content)))
    except Exception:  # pickletools raises various exceptions for other data
        return False


@contextlib.contextmanager
def _elsewhere(work: Path, home: Path) -> Iterator[None]:
    """Run with another working directory and home, and without the variables that lead back to the real one."""
    before = Path.cwd()
    variables = {"HOME": str(home), "USERPROFILE": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    with mock.patch.dict(os.environ, variables):
        os.chdir(work)
        try:
            yield
        finally:
            os.chdir(before)


def _list_files(folder: Path) -> set[str]:
    """Return the paths of everything in a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
