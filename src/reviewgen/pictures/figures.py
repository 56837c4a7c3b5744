"""What pictures share: whether one can be drawn at all, an empty figure, and its file. No pyplot, no global state."""

import os
from pathlib import Path
from typing import Any

from reviewgen.errors import ConfigError, OutputExists, StorageError, storage_errors

__all__ = ["new_figure", "plain", "refuse_plot", "save_figure"]


def refuse_plot(file: Path, overwrite: bool = True) -> None:
    """Raise where no plot could be drawn as a file of that name.

    Raises:
        ConfigError: matplotlib is not installed, or the suffix is none that it writes.
        StorageError: The folder may not be written.
        OutputExists: The file is there, and it may not be overwritten.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise ConfigError("A plot needs an extra: pip install 'reviewgen[plot]'.") from None
    known = FigureCanvasBase.get_supported_filetypes()
    if file.suffix[1:].lower() not in known:
        raise ConfigError(f"{file} cannot be drawn: its suffix is none of .png, .svg and .pdf.")
    if not os.access(file.absolute().parent, os.W_OK):
        raise StorageError(f"{file} cannot be drawn: {file.absolute().parent} is no writable folder.")
    if not overwrite and os.path.lexists(file):
        raise OutputExists(f"{file} is there already. Give another file, or --overwrite (overwrite=True).")


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of that size in inches."""
    from matplotlib.figure import Figure  # half a second

    return Figure(figsize=(width, height), layout="constrained")


def plain(text: str) -> str:
    """Return a text that matplotlib shows as it is: a dollar sign begins no formula, a low line hides nothing from a legend."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def save_figure(figure: Any, file: Path) -> None:
    """Write a figure as PNG, SVG or PDF, by the file's suffix.

    Raises:
        StorageError: The file cannot be written.
    """
    with storage_errors(file):
        figure.savefig(file, dpi=150)
