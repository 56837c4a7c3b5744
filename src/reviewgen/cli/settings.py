"""``reviewgen settings``: every setting of a preset, with its value, what it accepts and what it means."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import TerminalConsole, print_json
from reviewgen.config import (
    VOCABULARY_FIELDS,
    Preset,
    TrainingConfig,
    bounds_of,
    choices_of,
    describe_fields,
    describe_hint,
    fields_of,
)
from reviewgen.registry import find_model, find_preset, find_stepper, find_tokenizer


def settings(
    preset: Annotated[
        str, typer.Argument(help="<model>-<tokenizer>, as in lstm-word; see `reviewgen list`.", show_default=False)
    ],
    as_json: options.AsJson = False,
) -> None:
    """List all settings of a preset, for `reviewgen train --set`."""
    definition = find_preset(preset)
    models = [find_preset(part) for part in definition.parts] or [definition]
    by_model = {each.model: _describe(_model_config(each.model), each.model_settings, VOCABULARY_FIELDS) for each in models}
    groups = {
        "tokenizer": _describe(find_tokenizer(definition.tokenizer)[0].Config, definition.tokenizer_settings),
        "training": _describe(TrainingConfig, models[0].training_settings),
    }
    if as_json:
        choices = {
            "sizes": [dict(size) for size in models[0].sizes],
            "by_epochs": [{"epochs": epochs, "settings": dict(values)} for epochs, values in models[0].by_epochs],
        }
        rows = [row | ({"model": model} if definition.parts else {}) for model, own in by_model.items() for row in own]
        print_json({"preset": preset, "model": rows} | groups | choices)
    else:
        titles = {f"tokenizer ({definition.tokenizer})": "tokenizer", "training": "training"}
        tables = {f"model ({model})": rows for model, rows in by_model.items()}
        _print(preset, tables | {title: groups[group] for title, group in titles.items()}, models[0])


def _model_config(model: str) -> type:
    """Return the config class of a model, without importing torch where the model has a stepper factory."""
    factory = find_stepper(model)
    config: type = (find_model(model)[0] if factory is None else factory).Config
    return config


def _describe(config: type, preset_settings: Any, decided: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return name, value, default, accepted values and description of each setting, as JSON values.

    Fields without a default are left out, and those of ``decided``: the tokenizer sets them, and not the user.
    """
    hints, descriptions = fields_of(config), describe_fields(config)
    rows = []
    for field in fields(config):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if default is MISSING or field.name in decided:
            continue
        value = preset_settings.get(field.name, default)
        rows.append(
            {
                "name": field.name,
                "value": list(value) if isinstance(value, tuple) else value,
                "default": list(default) if isinstance(default, tuple) else default,
                "accepts": describe_hint(hints[field.name]),
                "choices": choices_of(hints[field.name]),
                "bounds": bounds_of(hints[field.name]),
                "description": descriptions[field.name],
            }
        )
    return rows


def _print(name: str, tables: dict[str, list[dict[str, Any]]], preset: Preset) -> None:
    """Print tables by title; the accepted values are below the name, which leaves room for the description."""
    from rich import box
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = TerminalConsole(highlight=False)
    for title, rows in tables.items():
        if not rows:
            console.print(Text(f"{title}: no settings\n", style="italic"))
            continue
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
        table.add_column("setting", width=27, overflow="fold")
        table.add_column("value", max_width=14, overflow="fold")
        table.add_column("description")
        for row in rows:
            setting = Group(Text(row["name"]), Padding(Text(row["accepts"], style="dim"), (0, 0, 0, 2)))
            table.add_row(setting, Text(_format_value(row["value"])), Text(row["description"].replace("``", "")))
        console.print(table)
    for note in _size_notes(preset):
        console.print(Text(note))
    console.print(Text(f"Change a setting with --set: reviewgen train {name} --set {_example(tables)}"), soft_wrap=True)


def _size_notes(preset: Preset) -> list[str]:
    """Return sentences on the settings that a time budget chooses."""
    notes = []
    if preset.sizes:
        sizes = " | ".join(_format_settings(size) for size in preset.sizes)
        notes.append(f"With a time budget (--budget), one of these sizes is chosen unless you set it: {sizes}.")
    if preset.by_epochs:
        regularisation = "; ".join(f"from {epochs:g} epochs {_format_settings(values)}" for epochs, values in preset.by_epochs)
        notes.append(f"It also depends on how many epochs fit into the time: {regularisation}.")
    return notes


def _format_settings(values: Any) -> str:
    return ", ".join(f"{name}={_format_value(value)}" for name, value in values.items())


def _example(tables: dict[str, list[dict[str, Any]]]) -> str:
    title, rows = next((title, rows) for title, rows in tables.items() if rows)
    return f"{title.split()[0]}.{rows[0]['name']}={_format_value(rows[0]['value'])}"


def _format_value(value: Any) -> str:
    """Return a value as ``--set`` accepts it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(_format_value(part) for part in value)
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
