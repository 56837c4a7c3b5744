"""Makes the options of commands from the classes that declare them, and parses their values."""

import inspect
import operator
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import partial, wraps
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_origin

import typer

from reviewgen import api
from reviewgen.cli.console import Result, show
from reviewgen.config.descriptions import bounds_of, describe_fields, parse_entries
from reviewgen.config.names import LOCAL
from reviewgen.config.settings import bare, fields_of, options_of
from reviewgen.errors import ConfigError, DataError, quoted

if TYPE_CHECKING:
    from reviewgen.model.review_model import ReviewModel

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


class Shared:
    """The help of parameters that several commands have. If the docstring of a command describes
    such a parameter, too, that description is used.

    Args:
        model: A saved folder (./my-model), owner/name on the Hub, or a preset.
        preset: <model>-<tokenizer>, as in lstm-word; see `reviewgen list`.
        trained: Train this model further instead of a preset: a saved folder, or owner/name on the
            Hub.
        data: A file, glob, folder or URL (txt, csv, tsv, json, jsonl, parquet, arrow, sqlite, xlsx,
            also compressed), owner/name of a Hub dataset, 'reviews', or - for the lines of standard
            input. Repeatable for files; with --weights, for any source.
        bits: The number of bits per weight: 32; or 16 or 8, which are faster for large models.
        overwrite: Replace what exists.
        token: The access token of the Hub. [default: that of `hf auth login`, or HF_TOKEN]
        as_json: Print one JSON object.
    """


_SHARED = parse_entries(inspect.getdoc(Shared) or "", "Args:")
_NAMES = {  # the names of an option, if they differ from the name of its field
    "num_return_sequences": ("-n", "--num-return-sequences"),
    "stop_strings": ("--stop-strings", "--stop"),
    "conditions": ("--condition",),
    "fields": ("--field",),
    "logits_processors": ("--logits-processor",),
    "max_tokens": ("--max-tokens-limit",),
    "settings": ("--set",),
    "message": ("--message", "-m"),
    "k": ("-k", "--k"),
    "n": ("-n", "--n"),
    "labels": ("--label",),
    "trained": ("--from",),
    "goal": ("--for",),
    "as_json": ("--json",),
    "page": ("--out", "--html"),  # --html and --plot are older names
    "chart": ("--out", "--plot"),
    "verbose": ("--verbose", "-v"),
}
# the name of the option for the value False, if it is not "no-" and the name of the field
_OPPOSITES = {
    "lowercase": "keep-case",
    "strip_markdown": "keep-markdown",
    "fix_encoding": "keep-encoding",
    "keep_line_breaks": "join-lines",
    "drop_repeated_lines": "keep-repeated-lines",
    "do_sample": "greedy",
    "private": "public",
}


class Option(NamedTuple):
    """An option as a parameter for typer, and the function that converts the value that typer has
    parsed to a value of the field.
    """

    parameter: inspect.Parameter
    parse: Callable[[Any], Any]


def declared(
    cls: type,
    *,
    only: Collection[str] = (),
    without: Collection[str] = (),
    unset: bool = False,
    is_bounded: bool = True,
    **defaults: Any,
) -> list[Option]:
    """Return the options that a class declares.

    Args:
        cls: The dataclass.
        only: The fields to take; empty to take all fields.
        without: The fields to leave out.
        unset: Whether an option that the user does not give is None instead of the class's default.
        is_bounded: Whether typer refuses a number that is too small, as bad usage. Otherwise, the
            class refuses such a number.
        defaults: Defaults that differ from those of the class.
    """
    described = describe_fields(cls)
    declared_defaults = dict.fromkeys(described) if unset else vars(cls())
    default_of = {**declared_defaults, **defaults}
    return [
        _option(
            name,
            hint,
            default_of[name],
            described[name].replace("``", "`"),
            is_bounded=is_bounded,
        )
        for name, hint in fields_of(cls).items()
        if name in (only or described) and name not in without
    ]


def takes(
    *groups: type | Iterable[Option],
) -> Callable[[Callable[..., Result | None]], Callable[..., None]]:
    """Return a decorator that makes a command for typer from a function. The command prints the
    function's result.

    Positional parameters of the function become arguments, keyword-only parameters become options,
    and the docstring describes both. The options that the classes in ``groups`` declare replace
    ``**options``: the function gets them under the names of their fields. The option ``--json`` is
    added.
    """
    options: list[Option] = []
    for group in groups:
        options += declared(group) if isinstance(group, type) else group

    def add(command: Callable[..., Result | None]) -> Callable[..., None]:
        """Return the command, whose signature lists all options for typer."""
        text = inspect.getdoc(command) or ""
        described = _SHARED | parse_entries(text, "Args:")
        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        # a command without a parameter ``as_json`` gets the option, but not its value
        adds_as_json = "as_json" not in signature.parameters
        if adds_as_json:
            own.append(inspect.Parameter("as_json", _KEYWORD, default=False, annotation=bool))
        accepted = [_own_option(each, described.get(each.name)) for each in own] + options
        parameters = [option.parameter for option in accepted]

        @wraps(command)
        def run(**values: Any) -> None:
            """Parse the values that typer has read, call the command, and print its result."""
            parsed = {
                parameter.name: parse(values[parameter.name]) for parameter, parse in accepted
            }
            as_json = parsed["as_json"]
            if adds_as_json:
                del parsed["as_json"]
            result = command(**parsed)
            if result is not None:
                show(result.facts, as_json, result.lines)
                sys.exit(result.status)

        run.__doc__ = text.partition("\n\nArgs:\n")[0]
        run.__signature__ = signature.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return add


def _own_option(parameter: inspect.Parameter, text: str | None) -> Option:
    """Return the option or the argument for a parameter of a command, with ``text`` as its help."""
    if text is None:  # then the parameter's annotation has the help
        return Option(parameter.replace(kind=_KEYWORD), _keep)
    if parameter.kind is _KEYWORD:
        return _option(
            parameter.name, parameter.annotation, parameter.default, text, is_bounded=False
        )
    # a positional parameter becomes an argument
    hint: Any = parameter.annotation
    argument = Annotated[hint, typer.Argument(help=text, show_default=False)]
    return Option(parameter.replace(kind=_KEYWORD, annotation=argument), _keep)


def _option(name: str, hint: Any, default: Any, text: str, *, is_bounded: bool) -> Option:
    """Return the option for a field or a parameter. It is required if there is no default.

    Args:
        name: The name of the field or parameter.
        hint: Its type.
        default: Its default.
        text: The help of the option.
        is_bounded: As for ``declared``.
    """
    # the types that ``hint`` joins, without None and without bounds
    types = [bare(each) for each in options_of(bare(hint)) if each is not NoneType]
    origins = {get_origin(each) for each in types}
    is_none_if_absent = default in (None, (), {})  # whether typer's default is None
    names = _NAMES.get(name, (f"--{name.replace('_', '-')}",))
    kind: Any = types[0]
    parse: Callable[[Any], Any] = _keep
    if kind is bool and is_none_if_absent:  # --NAME for True, --no-NAME for False
        names = (f"{names[0]}/--{_OPPOSITES.get(name, f'no-{name}')}",)
    elif kind is bool and default:  # on by default, so the option switches it off
        names = (f"--no-{name}",)
        parse = operator.not_
    elif dict in origins:  # conditions
        kind = list[str]
        names += ("--field",)
        parse = parse_conditions
        text += " Repeatable, as name=value."
    elif tuple[float, ...] in types:  # numbers separated by commas
        kind = str
        parse = partial(_parse_numbers, name, is_list=float not in types)
    elif origins & {list, tuple}:  # a repeatable option
        kind = list[str]
        parse = partial(_or_default, default)
        text += "" if "Repeatable" in text else " Repeatable."
    elif hint is Any:  # a source of texts
        kind = str
        parse = _parse_any
    elif Path in types:
        kind = Path
    elif Literal in origins:
        kind = str
    has_minimum = is_bounded and not is_none_if_absent and bounds_of(hint).keys() == {"at_least"}
    info = typer.Option(
        *names,
        help=text,
        min=int(bounds_of(hint)["at_least"]) if has_minimum else None,
        metavar="MODEL" if name == "trained" else None,
    )
    annotation: Any = Annotated[kind | None if is_none_if_absent else kind, info]
    absent = None if is_none_if_absent else default
    if default is True:  # the option is --no-NAME, and ``parse`` negates what typer returns
        absent = False
    return Option(inspect.Parameter(name, _KEYWORD, default=absent, annotation=annotation), parse)


def _keep(value: Any) -> Any:
    """Return a value that typer has already parsed."""
    return value


def _or_default(default: Any, value: list[str] | None) -> Any:
    """Return the values of a repeatable option; the default if the option was not given."""
    return value or default


def _parse_numbers(
    name: str, text: str | None, *, is_list: bool
) -> float | tuple[float, ...] | None:
    """Parse numbers separated by commas, and return them as a tuple. If there is only one and the
    setting is not always a list (``is_list``), return the number itself.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        form = (
            "numbers separated by commas, as in 0.3,0.7"
            if is_list
            else "a number, or several as in 1.0,0.5,0.2"
        )
        raise ConfigError(f"{name} must be {form}; got {quoted(text)}.") from None
    return values[0] if len(values) == 1 and not is_list else values


def start(preset: str | None, trained: str | None) -> "str | ReviewModel":
    """Return the preset to train, or the model to train further.

    Raises:
        ConfigError: Neither is given, or the model was trained from another preset.
    """
    if trained is None:
        if preset is None:
            raise ConfigError(
                "Give a preset to train, as in lstm-word, or a model to train further: --from"
                " ./my-model."
            )
        return preset
    model = api.load(trained)
    if preset not in (None, model.preset):
        raise ConfigError(
            f"{trained} is of the preset {model.preset}, not {preset}: leave the preset out, --from"
            " is enough."
        )
    return model


def read_stdin() -> str:
    """Return the text of standard input.

    Raises:
        DataError: The text is not UTF-8.
        ConfigError: There are several processes, which cannot share standard input.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(
            "Several processes cannot read one standard input. Write it to a file, and give the"
            " file's name."
        )
    try:
        return str(sys.stdin.buffer.read(), "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"Standard input is not UTF-8 text: byte {error.start:,} is not valid. Convert it, or"
            " give a file."
        ) from None


def parse_data(given: str | list[str], weights: Sequence[float] | None = None) -> Any:
    """Return the source of texts that was given on the command line: for ``-``, the lines of
    standard input; for anything else, what ``path_or_string`` returns.

    For several values, return a list: with weights, each value is a source of its own; without
    them, all are files of one source.
    """
    if isinstance(given, list) and len(given) > 1:
        return [parse_data(source) if weights else Path(source) for source in given]
    text = given[0] if isinstance(given, list) else given
    if text != "-":
        return path_or_string(text)
    lines = read_stdin().splitlines()
    if not lines:
        raise DataError(
            "Standard input is empty: pipe texts into it, one per line, or give a file with --data."
        )
    return lines


def _parse_any(text: str | None) -> Any:
    """Return the source that an option names; None if the option was not given."""
    return None if text is None else parse_data(text)


def path_or_string(text: str) -> str | Path:
    """Return a source from the command line: a Path if it can only be a path, else the string."""
    return (
        Path(text) if text.startswith(LOCAL) and not any(sign in text for sign in "*?[") else text
    )


def parse_conditions(conditions: list[str] | None) -> dict[str, str] | None:
    """Parse conditions of the form name=value.

    Raises:
        ConfigError: A condition does not have this form, or is given twice.
    """
    values: dict[str, str] = {}
    for text in conditions or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(
                f"A condition has the form name=value, as in stars=5; got {quoted(text)}."
            )
        if name in values:
            raise ConfigError(f"A condition is given twice: {name}.")
        values[name] = value
    return values or None


def select(options: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """Return those of ``options`` that a class declares."""
    return {field.name: options[field.name] for field in fields(cls) if field.name in options}
