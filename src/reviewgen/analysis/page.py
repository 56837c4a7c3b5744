"""What the results of ``explain``, ``compare`` and ``probe`` have in common: a page."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from reviewgen.web.rendering import refuse_file, render, save_text


class HtmlReport(ABC):
    """Results that are shown as a page, by a template that extends ``base``."""

    _template: ClassVar[str]

    @abstractmethod
    def _values(self) -> dict[str, Any]:
        """Return what the template is filled with."""

    def save_html(self, file: str | Path, *, overwrite: bool = False) -> None:
        """Save everything as a page: one file without scripts, which loads nothing.

        Args:
            file: The file, which ends with .html.
            overwrite: Whether to replace it if it exists.

        Raises:
            ConfigError: The file is not a path, or its suffix is not .html.
            OutputExists: The file exists, and ``overwrite`` is false.
            StorageError: It cannot be written.
        """
        path = refuse_file(file, overwrite=overwrite)
        save_text(render(self._template, base="web/report.html", **self._values()), path)

    def _repr_html_(self) -> str:
        return render(self._template, base="web/fragment.html", **self._values())
