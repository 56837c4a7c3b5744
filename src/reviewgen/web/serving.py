"""The page as files that a server hands out; their paths are relative, so that any prefix will do."""

from collections.abc import Mapping
from pathlib import Path

from reviewgen.web.modules import STATIC
from reviewgen.web.rendering import render

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)


def page_for_server(title: str = "reviewgen") -> str:
    """Return the page that asks a server for texts: it takes its files from ``static/`` and calls ``v1/`` beside it."""
    return render("web/page.html", title=title, policy=_POLICY, style=None)


def static_files() -> Mapping[str, Path]:
    """Return the files that a server hands out under ``static/``, by name: the style and the modules."""
    return {file.name: file for file in sorted(STATIC.iterdir()) if file.suffix in (".css", ".js")}
