"""Templates with Jinja2, in which every value is escaped, and writing a page as a file."""

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reviewgen.errors import ConfigError, OutputExists, StorageError, storage_errors
from reviewgen.pages.numbers import FILTERS
from reviewgen.storage import atomic_file

_PACKAGE = Path(__file__).parents[1]
_SUFFIXES = (".html", ".htm")


def render(template: str, **values: Any) -> str:
    """Return a template filled with values, each escaped unless it is a ``Markup``.

    Args:
        template: Its path in the package, as in "comparison/comparison.html".
        values: The values by the names that the template uses.

    Raises:
        jinja2.UndefinedError: The template uses a value that was not given.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment


def refuse_page(file: Path, overwrite: bool = False) -> None:
    """Check that a page can be saved as a file of that name, before any work.

    Raises:
        ConfigError: The suffix is not that of an HTML page.
        StorageError: The folder does not exist or is not writable, or the file is a folder.
        OutputExists: The file exists, and ``overwrite`` is false.
    """
    if file.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{file} cannot be a page: its suffix must be .html.")
    with storage_errors(file):
        if file.is_dir():
            raise StorageError(f"{file} cannot be written: it is a folder. Give the name of a file.")
        if not overwrite and os.path.lexists(file):
            raise OutputExists(f"{file} already exists. Give another file, or --overwrite (overwrite=True).")
        with tempfile.TemporaryFile(dir=file.absolute().parent):
            pass


def save_page(html: str, file: Path, overwrite: bool = False) -> None:
    """Write a page: the whole file or nothing.

    Raises:
        ConfigError, StorageError, OutputExists: See ``refuse_page``.
    """
    refuse_page(file, overwrite)
    with storage_errors(file), atomic_file(file) as new:
        new.write_bytes(html.encode("utf-8", errors="replace"))  # a lone surrogate has no UTF-8
