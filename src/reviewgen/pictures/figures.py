"""Shared by all plots: check that one can be drawn, create a figure, save it. No pyplot, so no global state."""

import os
from pathlib import Path
from typing import Any

from reviewgen.errors import ConfigError, OutputExists, StorageError, storage_errors
from reviewgen.storage import atomic_file


def refuse_plot(file: Path, overwrite: bool = False) -> None:
    """Check that a plot can be saved as a file of that name, before any work.

    Raises:
        ConfigError: matplotlib is not installed, or does not know the suffix.
        StorageError: The folder does not exist, or is not writable.
        OutputExists: The file exists, and ``overwrite`` is false.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise ConfigError("Plots need matplotlib: pip install 'reviewgen[plot]'.") from None
    if file.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise ConfigError(f"{file} cannot be drawn: its suffix must be .png, .svg or .pdf.")
    if not os.access(file.absolute().parent, os.W_OK):
        raise StorageError(f"{file} cannot be drawn: {file.absolute().parent} is not a writable folder.")
    if file.is_dir():
        raise StorageError(f"{file} cannot be drawn: it is a folder. Give the name of a file.")
    if not overwrite and os.path.lexists(file):
        raise OutputExists(f"{file} already exists. Give another file, or --overwrite (overwrite=True).")


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure; width and height are in inches."""
    from matplotlib.figure import Figure  # takes half a second to import

    return Figure(figsize=(width, height), layout="constrained")


def plain(text: str) -> str:
    """Escape a text for matplotlib: dollar signs do not start a formula, a leading underscore does not hide a legend entry.

    Lone surrogates, which matplotlib does not draw, become question marks.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def save_figure(figure: Any, file: Path) -> None:
    """Write a figure as PNG, SVG or PDF, by the file's suffix.

    Raises:
        StorageError: The file cannot be written.
    """
    with storage_errors(file), atomic_file(file) as new:
        figure.savefig(new, dpi=150, format=file.suffix[1:].lower())
