"""The ES modules of the front end, and how one HTML file holds them: as ``data:`` URLs in an import map.

A ``data:`` URL has no folder, so an import of "./links.js" from it leads nowhere: each is rewritten to the bare name
"reviewgen/links.js", which the import map knows.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

STATIC = Path(__file__).with_name("static")
_IMPORT = re.compile(r"""^((?:import|export)\b[^;"']*?)(["'])\./([\w-]+\.js)\2""", re.MULTILINE)


def front_end() -> dict[str, str]:
    """Return the source of each ES module of the front end by its file name."""
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(STATIC.glob("*.js"))}


def import_map(sources: Mapping[str, str]) -> dict[str, str]:
    """Return modules that import one another by "./name.js" as ``data:`` URLs by "reviewgen/name.js"."""
    return {f"reviewgen/{name}": module_url(_IMPORT.sub(r"\1\2reviewgen/\3\2", source)) for name, source in sources.items()}


def module_url(source: str) -> str:
    """Return the source of an ES module as a ``data:`` URL."""
    return f"data:text/javascript;base64,{b64encode(source.encode()).decode()}"
