"""Makes pages from templates, in which every value is escaped; formats numbers for people; and
writes pages and pictures as files.

A template extends "web/report.html" for a page. For a notebook, it extends "web/fragment.html",
whose style applies only inside the fragment. The style, ``report.css``, has classes for what pages
need: ``table.stacks`` is a table whose rows become cards on a phone (each ``td`` has a
``data-label``), ``.scrolls`` a box with its own scroll bar (give it ``tabindex="0" role="region"
aria-label="..."``), ``.charts`` a grid of charts, ``.sample`` a generated text, ``.copied`` a
copied span, ``.note`` small text, and ``.failed`` what went wrong. A page has no scripts and loads
nothing. A page with generated texts includes "web/mark.html" in its block ``mark``.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reviewgen.config.settings import check_flags
from reviewgen.errors import ConfigError, OutputExists, StorageError, storage_errors
from reviewgen.storage import atomic_file, to_path
from reviewgen.version import __version__

PAGES = (".html", ".htm")
_PACKAGE = Path(__file__).parents[1]
_MISSING = "–"
_SIZES = ("B", "kB", "MB", "GB", "TB")


def render(template: str, **values: Any) -> str:
    """Fill a template with values. Each value is escaped unless it is a ``Markup``.

    Args:
        template: The path of the template in the package, as in "analysis/comparison.html".
        values: The values by the names that the template uses.

    Raises:
        jinja2.UndefinedError: A value that the template uses is missing.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    """Return the environment of the templates, with the filters that show numbers."""
    environment = Environment(
        loader=FileSystemLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["version"] = __version__
    for show in (decimal, duration, percent, size, thousands):
        environment.filters[show.__name__] = show
    return environment


def refuse_file(file: str | Path, suffixes: Sequence[str] = PAGES, overwrite: bool = False) -> Path:
    """Check, before any work, that a page or a picture can be saved as ``file``, and return its
    path.

    Raises:
        ConfigError: ``file`` is not a path, ``overwrite`` is not a bool, or the file has another
            suffix.
        StorageError: The folder does not exist or is not writable, or the file is a folder.
        OutputExists: The file exists, and ``overwrite`` is false.
    """
    check_flags(overwrite=overwrite)
    file = to_path("file", file)
    if file.suffix.lower() not in suffixes:
        raise ConfigError(f"{file} cannot be written: its suffix must be {' or '.join(suffixes)}.")
    with storage_errors(file):
        if file.is_dir():
            raise StorageError(
                f"{file} cannot be written: it is a folder. Give the name of a file."
            )
        if not overwrite and os.path.lexists(file):
            raise OutputExists(
                f"{file} already exists. Give another file, or --overwrite (overwrite=True)."
            )
    if not os.access(file.absolute().parent, os.W_OK):
        raise StorageError(
            f"{file} cannot be written: {file.absolute().parent} is not a writable folder."
        )
    return file


def save_text(text: str, file: Path) -> None:
    """Write a page or a picture as a file: the whole text or nothing.

    Raises:
        StorageError: The file cannot be written.
    """
    with storage_errors(file), atomic_file(file) as new:
        new.write_bytes(text.encode("utf-8", errors="replace"))  # a lone surrogate has no UTF-8


class HtmlReport(ABC):
    """A result that can be saved as a page, and that a notebook shows as a fragment. Its template
    extends the value ``base``, which is the template of all pages or that of all fragments.
    """

    _template: ClassVar[str]

    @abstractmethod
    def _values(self) -> dict[str, Any]:
        """Return the values that the template uses."""

    def save_html(self, file: str | Path, *, overwrite: bool = False) -> None:
        """Save everything as a page: one file without scripts, which loads nothing.

        Args:
            file: The file to write, with the suffix .html or .htm.
            overwrite: Whether to replace it if it exists.

        Raises:
            ConfigError: The file is not a path, or its suffix is not .html or .htm.
            OutputExists: The file exists, and ``overwrite`` is false.
            StorageError: The file cannot be written.
        """
        path = refuse_file(file, overwrite=overwrite)
        save_text(render(self._template, base="web/report.html", **self._values()), path)

    def _repr_html_(self) -> str:
        return render(self._template, base="web/fragment.html", **self._values())


def thousands(value: float | None) -> str:
    """Return a whole number with separators.

    >>> thousands(1234567), thousands(None)
    ('1,234,567', '–')
    """
    return _special(value) or f"{value:,.0f}"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number with a fixed number of digits after the point.

    >>> decimal(2.0456, 2), decimal(math.inf)
    ('2.05', '∞')
    """
    return _special(value) or f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as a percentage.

    >>> percent(0.1234)
    '12.3 %'
    """
    return _special(value) or f"{value:.{digits}%}".replace("%", " %")


def size(value: float | None) -> str:
    """Return a number of bytes in decimal units.

    >>> size(999), size(1_234_000), size(10**16)
    ('999 B', '1.2 MB', '10,000.0 TB')
    """
    if value is None or not math.isfinite(value):
        return _special(value)
    power = 0
    while value >= 1000 and power < len(_SIZES) - 1:
        value /= 1000
        power += 1
    return f"{value:,.1f} {_SIZES[power]}" if power else f"{value:.0f} B"


def duration(value: float | None) -> str:
    """Return seconds as seconds, minutes or hours.

    >>> duration(0.04), duration(12.34), duration(125), duration(7260), duration(3599.7)
    ('0.04 s', '12.3 s', '2 m 05 s', '2 h 01 m', '1 h 00 m')
    """
    if value is None or not math.isfinite(value):
        return _special(value)
    if value < 1:
        return f"{value:.2g} s"
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} m"


def _special(value: float | None) -> str:
    """Return a dash for a missing value, and ∞ or -∞ for an infinite one; empty for other
    numbers.
    """
    if value is None or math.isnan(value):
        return _MISSING
    if math.isfinite(value):
        return ""
    return "∞" if value > 0 else "-∞"
