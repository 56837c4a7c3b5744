"""Hooks of the documentation's build: the commands' help, and a warning, which ``--strict`` turns into a failure, for each public
object on a reference page that has no docstring.
"""

import logging
import re
from pathlib import Path
from typing import Any

import griffe

_LOG = logging.getLogger("mkdocs.hooks.reviewgen")
_ROOT = Path(__file__).parents[2]
_OBJECT = re.compile(r"^::: (\S+)", re.MULTILINE)
_HELP = re.compile(r"^<!-- help: (\S.*) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill in the help of commands, and check the docstrings of the objects that the page documents."""
    for name in _OBJECT.findall(markdown):
        for path in _undocumented(_load(name)):
            _LOG.warning("%s: %s has no docstring.", page.file.src_uri, path)
    return _HELP.sub(lambda found: _help(found[1]), markdown)


def _load(name: str) -> griffe.Object:
    """Return an object as it is written in the source; nothing is imported."""
    loader = _load.__dict__.setdefault("loader", griffe.GriffeLoader(search_paths=[_ROOT / "src", _ROOT / "plugins"]))
    package = name.partition(".")[0]
    if package not in loader.modules_collection:
        loader.load(package)
        loader.resolve_aliases(implicit=True, external=False)
    found = loader.modules_collection[name]
    return found.final_target if found.is_alias else found


def _undocumented(found: griffe.Object) -> list[str]:
    """Return the paths of an object and its public members that lack a docstring; attributes need none."""
    missing = [] if found.docstring or found.is_attribute else [found.path]
    for name, member in found.members.items() if found.is_class else ():
        if not name.startswith("_") and not member.is_alias and (member.is_function or "property" in member.labels):
            missing += [] if member.docstring else [member.path]
    return missing


def _help(command: str) -> str:
    """Return what ``reviewgen COMMAND --help`` prints, as a code block; a command of a group is ``plugin new``."""
    import typer

    from reviewgen.cli import app

    own = typer.main.get_command(app)
    context = own.context_class(own, info_name="reviewgen", terminal_width=88, max_content_width=88)
    for name in command.split():
        below = getattr(own, "commands", {}).get(name)
        if below is None:
            _LOG.warning("There is no command %s.", command)
            return ""
        own = below
        context = own.context_class(own, info_name=name, parent=context, terminal_width=88, max_content_width=88)
    return f"```text\n{own.get_help(context).strip()}\n```"
