"""``reviewgen plugin new | check``: writes the package of a new plugin, and checks an installed one."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reviewgen.cli import options
from reviewgen.cli.console import TerminalConsole, echo, notes, print_json
from reviewgen.cli.streams import interruptible
from reviewgen.errors import ConfigError

if TYPE_CHECKING:
    from reviewgen.testing import PluginReport

app = typer.Typer(
    help="Write the package of a new plugin, and check an installed one.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def new(
    name: Annotated[
        str, typer.Argument(help="The name that users will type: letters a to z and digits, as in mingru.", show_default=False)
    ],
    model: Annotated[bool, typer.Option("--model", help="A model, with presets and a stepper.")] = False,
    tokenizer: Annotated[bool, typer.Option("--tokenizer", help="A tokenizer.")] = False,
    weights: Annotated[bool, typer.Option("--weights", help="Trained weights, with their preset.")] = False,
    processor: Annotated[bool, typer.Option("--processor", help="A logits processor.")] = False,
    metric: Annotated[bool, typer.Option("--metric", help="A metric of generated texts.")] = False,
    reader: Annotated[bool, typer.Option("--reader", help="A reader of files of another format.")] = False,
    out: Annotated[Path | None, typer.Option(help="The folder to write.  [default: reviewgen-NAME]")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write the package of a new plugin, reviewgen-NAME, whose tests pass as written.

    Give one kind: --model, --tokenizer, --weights, --processor, --metric or --reader.
    """
    from reviewgen.scaffold import new_plugin

    networks = {"model": model, "tokenizer": tokenizer, "weights": weights}
    given = {**networks, "processor": processor, "metric": metric, "reader": reader}
    kinds = [kind for kind, is_given in given.items() if is_given]
    if len(kinds) != 1:
        got = " and ".join(f"--{kind}" for kind in kinds) or "none"
        raise ConfigError(f"Give one kind of plugin: {', '.join(f'--{kind}' for kind in given)}; got {got}.")
    folder = new_plugin(name, kinds[0], out)
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    if as_json:
        print_json({"folder": str(folder), "kind": kinds[0], "files": files})
        return
    echo(f"{folder}:")
    for file in files:
        echo(f"  {file}")
    echo("Next (its README says how to go on):")
    for command in (f"cd {folder}", "pip install -e '.[test]'", "pytest"):
        echo(f"  {command}")


def check(
    name: Annotated[
        str,
        typer.Argument(
            help="A preset, model, tokenizer, logits processor or metric, as `reviewgen list` shows it.", show_default=False
        ),
    ],
    as_json: options.AsJson = False,
) -> None:
    """Check an installed plugin: metadata, presets, every law, a short training, saving, loading elsewhere, the stepper.

    Weights are checked with their preset. A logits processor generates with a small model, and a metric measures its texts.

    Takes up to 20 seconds for a small model. Exit status 1 if a check fails. Needs pip install 'reviewgen[testing]'.
    """
    try:
        from reviewgen.testing import check_plugin
    except ModuleNotFoundError as missing:
        raise ConfigError(f"{missing.name} is not installed, which the checks need: pip install 'reviewgen[testing]'.") from None
    from reviewgen.compiled.notice import compiling_notice

    with compiling_notice.silenced(), notes.status(f"Checking {name} ...") as status:
        report = check_plugin(name, lambda check: status.update(f"Checking {name}: {check} ..."))
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    sys.exit(0 if report.passed else 1)


def _print(report: "PluginReport") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "failed": "red", "not checked": "yellow"}
    table = Table("check", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("", overflow="fold")
    for row in report.rows():
        table.add_row(Text(row.name), f"{row.seconds:.1f}", Text(row.outcome, style=styles[row.outcome]), Text(row.message))
    console = TerminalConsole(highlight=False)
    console.print(table)
    failed = sum(each.outcome == "failed" for each in report.checks)
    skipped = sum(each.outcome == "not checked" for each in report.checks)
    verdict = "all checks are ok" if report.passed else f"{failed} failed" + (f", {skipped} not checked" if skipped else "")
    trained = f" (trained as {report.preset})" if report.preset not in ("", report.name) else ""
    console.print(Text(f"{report.name}{trained}: {verdict}, {report.seconds:.1f} s"), soft_wrap=True)


def _add(name: str, command: Callable[..., None]) -> None:
    app.command(name, short_help=(inspect.getdoc(command) or "").partition("\n")[0])(interruptible(command))


_add("new", new)
_add("check", check)
