"""Build the documentation as a site, ``build/docs``: ``make docs``.

zensical builds a copy of ``docs`` that has more pages: one for each command, made from its options,
and one for each public name and each method of ``ReviewModel``, made from its docstring. The tables
of ``reference/cli.md`` and ``reference/python.md`` give their order and groups,
``which-command.md`` says what belongs together, and ``results.toml`` what a function returns. The
example of a command is the first one with a result in its guide. ``llms.txt`` lists the pages for
coding assistants (https://llmstxt.org). A warning, a public object without
a docstring, a command without an example and a link that leads nowhere fail the build.
"""

import logging
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import griffe
import typer
import yaml
import zensical

from reviewgen.cli import app
from reviewgen.sentences import sentence_ends

ROOT = Path(__file__).parents[2]
SITE = "https://reviewgen.github.io/reviewgen/"
BUILD = ROOT / "build"
PAGES = BUILD / "pages"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
problems: list[str] = []


class Task(NamedTuple):
    """A row of ``which-command.md``: commands and public names of one purpose, and the link to
    their guide.
    """

    commands: list[str]
    names: list[str]
    guide: str


def main() -> None:
    """Write the pages, then build the site."""
    for folder in (PAGES, BUILD / "docs"):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES, ignore=shutil.ignore_patterns("mkdocs"))
    shutil.copy(ROOT / "docs" / "mkdocs" / "docstrings.py", BUILD)
    config = (ROOT / "docs" / "mkdocs" / "mkdocs.yml").read_text(encoding="utf-8")
    tasks = [Task(named(row[1]), named(row[2]), row[3]) for _, row in rows("which-command.md")]
    for index, written in (("cli", write_commands(tasks)), ("python", write_names(tasks))):
        before, line, after = re.split(
            rf"^( *- .*: reference/{index}\.md\n)", config, flags=re.MULTILINE
        )
        config = before + line + navigation(written, line[: line.index("-")]) + after
    (BUILD / "mkdocs.yml").write_text(config, encoding="utf-8")
    write_list(yaml.safe_load(config))
    begins = {
        page.name: page.read_text(encoding="utf-8").splitlines()[:25]
        for page in PAGES.glob("how-to/*.md")
    }
    shown = {
        name
        for name, lines in begins.items()
        if any(line.startswith(("```text", "![")) for line in lines)
    }
    problems.extend(
        f"{name} does not begin with a command and its result." for name in begins.keys() - shown
    )
    for page in PAGES.rglob("*.md"):
        link(page)
        for path in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            problems.extend(f"{path} has no docstring." for path in undocumented(load(path)))
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: problems.append(record.getMessage())  # type: ignore[method-assign]  # a handler of one function
    logging.getLogger().addHandler(handler)
    os.chdir(BUILD)
    try:
        zensical.build(str(BUILD / "mkdocs.yml"), {"strict": True, "clean": True})
    except RuntimeError as error:
        problems.append(str(error))
    sys.exit("\n".join(problems) or 0)


def rows(page: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of the tables of a page that name something as code, each with the heading
    above it.
    """
    heading = ""
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        heading = line[3:] if line.startswith("## ") else heading
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and any(named(cell) for cell in cells[:3]):
            yield heading, cells


def named(cell: str) -> list[str]:
    """Return what a cell names as code."""
    return re.findall(r"`([\w .-]+)`", cell)


# Commands.


def write_commands(tasks: list[Task]) -> list[tuple[str, str, str]]:
    """Write a page for each command; return their groups, names and pages."""
    listed = [(heading, named(cells[0])[0]) for heading, cells in rows("reference/cli.md")]
    for heading, name in listed:
        command = typer.main.get_command(app)
        context = command.context_class(command, info_name="reviewgen", terminal_width=88)
        for word in name.split():
            command = command.commands[word]
            context = command.context_class(
                command, info_name=word, parent=context, terminal_width=88
            )
        mine = [task for task in tasks if name in task.commands]
        summary, _, more = command.help.partition("\n\n")
        usage = command.get_usage(context).removeprefix("Usage:").strip()
        also = {
            "In Python": [
                f"[`{other}`][reviewgen.{other}]" for task in mine for other in task.names
            ],
            "Guides": guides(mine, rf"^reviewgen {name}\b"),
            "Commands beside it": [
                command_link(other) for at, other in listed if at == heading and other != name
            ],
        }
        example = find_example(name, [task.guide for task in mine])
        known = {each for param in command.params for each in (*param.opts, *param.secondary_opts)}
        called = re.search(rf"reviewgen {name}\b.*", example.replace("\\\n", ""))
        unknown = {*re.findall(r" (--?[a-z][\w-]*)", called[0])} - known if called else set()
        problems.extend(
            f"reviewgen {name} has no {option}, which its example gives." for option in unknown
        )
        parts = [
            f"# reviewgen {name}",
            summary,
            f"```text\n{usage}\n```",
            more,
            "## Example",
            example,
        ]
        write(
            f"reference/cli/{slug(name)}.md", [*parts, *options(command, context), *see_also(also)]
        )
    return [(heading, name, f"reference/cli/{slug(name)}.md") for heading, name in listed]


def options(command: Any, context: Any) -> list[str]:
    """Return the arguments and options of a command as tables, in the groups of its help."""
    tables: dict[str, list[str]] = {}
    for param in command.params:
        panel = getattr(param, "rich_help_panel", None) or (
            "Arguments" if param.param_type_name == "argument" else "Options"
        )
        record = param.get_help_record(context)
        if record:
            anchor = max(param.opts, key=len).lstrip("-")
            text = re.sub(r"([|*_<>\[\]])", r"\\\1", " ".join(record[1].split()))
            tables.setdefault(panel, []).append(f"| `{record[0]}`{{ #{anchor} }} | {text} |")
    first = {"Arguments": "argument"}
    return [
        f"## {panel}\n\n| {first.get(panel, 'option')} | what it does |\n|---|---|\n"
        + "\n".join(tables[panel])
        for panel in tables
    ]


def find_example(name: str, links: list[str]) -> str:
    """Return the first example of a command that stands in one of its guides with its result."""
    for page in re.findall(r"\(([\w/-]+\.md)", " ".join(links)):
        blocks = [*FENCE.finditer((PAGES / page).read_text(encoding="utf-8"))]
        for block, result in zip(blocks, [*blocks[1:], *blocks[:1]], strict=True):
            lines = re.sub(r"\\\n *", "", block[2]).splitlines()
            if block[1] == "text" and any(
                re.match(rf"\$ reviewgen {name}\b", line) for line in lines
            ):
                return block[0]
            if (
                block[1] == "bash"
                and result[1] == "text"
                and len(lines) == 1
                and re.match(rf"reviewgen {name}\b", lines[0])
            ):
                return f"{block[0]}\n\n{result[0]}"
    problems.append(
        f"No guide shows reviewgen {name} with its result: a block of bash with it alone, then a"
        " block of text."
    )
    return ""


def command_link(name: str) -> str:
    """Return a link from the page of a command or name to that of a command."""
    return f"[`{name}`](../cli/{slug(name)}.md)"


def slug(name: str) -> str:
    """Return the name of a command in an address."""
    return name.replace(" ", "-")


# Public names.


def write_names(tasks: list[Task]) -> list[tuple[str, str, str]]:
    """Write a page for each public name and each method of ``ReviewModel``; return their groups,
    names and pages.
    """
    results: dict[str, str] = tomllib.loads(
        (ROOT / "docs" / "mkdocs" / "results.toml").read_text(encoding="utf-8")
    )
    listed = [(heading, named(cells[0])[0]) for heading, cells in rows("reference/python.md")]
    members = {
        name: each
        for name, each in load("reviewgen.ReviewModel").members.items()
        if not name.startswith("_")
    }
    methods = {f"ReviewModel.{name}": each for name, each in members.items() if each.is_function}
    listed += [("Methods of ReviewModel", name) for name in methods]
    for heading, name in listed:
        mine = [task for task in tasks if name in task.names]
        parts = [f"::: reviewgen.{name}\n    options:\n      heading_level: 1"]
        if name == "TrainingRun":
            parts[0] += "\n      inherited_members: true"
        if name == "ReviewModel":
            parts[0] += "\n      members: false"
            lines = [
                f"| [`{each}`][reviewgen.{each}] | {summary_of(method)} |"
                for each, method in methods.items()
            ]
            parts.append("## Methods\n\n| method | what it does |\n|---|---|\n" + "\n".join(lines))
            level = "\n    options:\n      heading_level: 3"
            attributes = [
                each
                for each in members
                if members[each].docstring and f"{name}.{each}" not in methods
            ]
            parts += [
                "## Attributes",
                *(f"::: reviewgen.{name}.{each}{level}" for each in attributes),
                "## Its conditions",
            ]
        used = (
            rf"\b{name}\b"
            if name in ("ReviewModel", "TrainingRun")
            else rf"\.{name.rpartition('.')[2]}\("
        )
        also = {
            "On the command line": [
                command_link(other) for task in mine for other in task.commands
            ],
            "Guides": guides(mine, used),
            "Beside it": [
                f"[`{other}`][reviewgen.{other}]"
                for at, other in listed
                if at == heading and name not in (other, *methods)
            ],
        }
        write(
            f"reference/python/{name}.md", [*parts, results.pop(name, "").strip(), *see_also(also)]
        )
    problems.extend(f"results.toml: there is no {name}." for name in results)
    return [(heading, name, f"reference/python/{name}.md") for heading, name in listed]


def load(name: str) -> Any:
    """Return an object as it is written in the source; nothing is imported."""
    loader = load.__dict__.setdefault(
        "loader", griffe.GriffeLoader(search_paths=[ROOT / "src", ROOT / "plugins"])
    )
    package = name.partition(".")[0]
    if package not in loader.modules_collection:
        loader.load(package)
        loader.resolve_aliases(implicit=True, external=False)
    found = loader.modules_collection[name]
    return found.final_target if found.is_alias else found


def undocumented(found: griffe.Object) -> list[str]:
    """Return the paths of an object and its public members that lack a docstring; attributes need
    none.
    """
    missing = [] if found.docstring or found.is_attribute else [found.path]
    for name, member in found.members.items() if found.is_class else ():
        if (
            not name.startswith("_")
            and not member.is_alias
            and (member.is_function or "property" in member.labels)
        ):
            missing += [] if member.docstring else [member.path]
    return missing


def summary_of(found: Any) -> str:
    """Return the first sentence of a docstring."""
    first = found.docstring.value.partition("\n\n")[0] if found.docstring else ""
    return re.sub(r"``([^`]*)``", r"`\1`", " ".join(first.split()))


# All pages.


def write_list(config: dict[str, Any]) -> None:
    """Write ``llms.txt``: the pages of the navigation by section, each with a line about it."""
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}"]
    for entry in config["nav"]:
        for section, entries in entry.items():
            lines += ["", f"## {section}", ""]
            for title, page in pages_of(entries):
                address = re.sub(r"(index)?\.md$", "", page)
                slash = "/" if address and not address.endswith("/") else ""
                lines.append(f"- [{title}]({SITE}{address}{slash}): {about(PAGES / page)}")
    (PAGES / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def pages_of(entries: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the titles and pages of a part of the navigation."""
    for entry in entries:
        for title, below in entry.items():
            if isinstance(below, str):
                yield title, below
            else:
                yield from pages_of(below)


def about(page: Path) -> str:
    """Return what a page is about: its headings if it begins with an example, otherwise its first
    sentence.
    """
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    if documented := re.match(r"(?:# .+\n\n)?::: (\S+)", text):
        return summary_of(load(documented[1]))
    paragraphs = text.split("\n\n")[1:]
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    prose = [paragraph for paragraph in paragraphs if re.match(r"[\w`*\[]", paragraph)]
    if headings and paragraphs[0] not in prose:
        return ", ".join(headings)
    plain = re.sub(r"!?\[([^]]*)\](\([^)]*\)|\[[^]]*\])|\*\*", r"\1", " ".join(prose[0].split()))
    return plain[: next(iter(sentence_ends(plain)), len(plain))].rstrip(":")


def guides(tasks: list[Task], pattern: str) -> list[str]:
    """Return links to the guides of a command or name: those of its tasks, then those whose code
    has it.
    """
    found = [task.guide.replace("](", "](../../") for task in tasks if task.guide]
    for page in [PAGES / "tutorial.md", *sorted((PAGES / "how-to").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        target = f"](../../{page.relative_to(PAGES).as_posix()}"
        code = "\n".join(block[2] for block in FENCE.finditer(text))
        if re.search(pattern, code, re.MULTILINE) and not any(target in each for each in found):
            found.append(f"[{text.partition(chr(10))[0][2:]}{target})")
    return found


def see_also(links: dict[str, list[str]]) -> list[str]:
    """Return the end of a page, from links by what they lead to."""
    lines = [
        f"- {title}: {', '.join(dict.fromkeys(each))}" for title, each in links.items() if each
    ]
    return ["## See also", "\n".join(lines)] if lines else []


def write(page: str, parts: list[str]) -> None:
    """Write a page."""
    (PAGES / page).parent.mkdir(exist_ok=True)
    (PAGES / page).write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def link(page: Path) -> None:
    """Let links to a command of ``cli.md`` lead to its page, and link what the tables of commands,
    names and tasks name.
    """
    text = re.sub(
        r"(\]\([\w./-]*)\bcli\.md#([\w-]+)\)", r"\1cli/\2.md)", page.read_text(encoding="utf-8")
    )
    name = page.relative_to(PAGES).as_posix()
    if name == "reference/cli.md":
        text = re.sub(
            r"^\| `(.+?)`",
            lambda row: f"| [`{row[1]}`](cli/{slug(row[1])}.md){{ #{slug(row[1])} }}",
            text,
            flags=re.M,
        )
    elif name == "reference/python.md":
        text = re.sub(r"^\| `(.+?)`", r"| [`\1`][reviewgen.\1]", text, flags=re.MULTILINE)
    elif name == "which-command.md":
        text = re.sub(r"^(\|[^|\n]+)\|([^|\n]*)\|([^|\n]*)\|", link_task, text, flags=re.MULTILINE)
    page.write_text(text, encoding="utf-8")


def link_task(row: re.Match[str]) -> str:
    """Link the commands and names of a row of ``which-command.md``."""
    commands = re.sub(
        r"`(.+?)`", lambda each: f"[`{each[1]}`](reference/cli/{slug(each[1])}.md)", row[2]
    )
    return f"{row[1]}|{commands}|" + re.sub(r"`(.+?)`", r"[`\1`][reviewgen.\1]", row[3]) + "|"


def navigation(written: list[tuple[str, str, str]], indent: str) -> str:
    """Return pages by group as lines of the navigation."""
    groups = dict.fromkeys(heading for heading, _, _ in written)
    lines = {
        group: [
            f"{indent}    - {name}: {page}\n" for heading, name, page in written if heading == group
        ]
        for group in groups
    }
    return "".join(f"{indent}- {group}:\n" + "".join(lines[group]) for group in groups)


if __name__ == "__main__":
    main()
