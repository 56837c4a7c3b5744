"""What the results of ``explain`` and ``compare`` have in common: a page, and their values as JSON."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

from reviewgen.web.rendering import refuse_file, render, save_text


class Report(ABC):
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


def to_json(value: Any) -> Any:
    """Return dataclasses, and what they hold, as JSON values; a number that is NaN or infinite becomes None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
