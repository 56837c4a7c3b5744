"""The public names with their signatures, and every command with its options, are as stored: one
may go on purpose only.

``names.json`` is written by ``python -m tests.golden.test_names``. Paths of modules are left out of
the signatures, so that a class may move. Options that a function takes as ``**options`` are entries
of their own. What ``docs`` lists beside the public modules, as the class of a result, is found
where the docs name it.
"""

import ast
import functools
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Iterator, Mapping
from inspect import get_annotations
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from reviewgen.cli import app
from tests.golden.stored import read_stored, write_stored

DOCS = Path(__file__).parents[2] / "docs"
MODULES = [
    "reviewgen",
    *(f"reviewgen.{room}" for room in ("protocols", "config", "errors", "compiled", "testing")),
]
COMPILED = {  # what docs and examples import from the files of reviewgen.compiled
    "decoding": ["feed", "sample"],
    "linear": ["add_product", "exp32", "log32", "pack", "refuse_non_finite", "sigmoid32"],
    "sampling": ["SamplingParams"],
    "steps": ["CompiledStep"],
}


def observe() -> dict[str, str]:
    """Return every public name and its signature, and every option of every command."""
    found = dict(commands(typer.main.get_command(app), "reviewgen"))
    names = [(name, public) for name in MODULES for public in importlib.import_module(name).__all__]
    names += [
        (f"reviewgen.compiled.{name}", public)
        for name, publics in COMPILED.items()
        for public in publics
    ]
    for name, public in names:
        found |= describe(f"{name}.{public}", getattr(importlib.import_module(name), public))
    for path in re.findall(
        r"^::: (reviewgen\S*)",
        "\n".join(page.read_text() for page in DOCS.glob("*/*.[mt]*")),
        re.MULTILINE,
    ):
        value = pkgutil.resolve_name(path)
        if path.rpartition(".")[0] not in MODULES and not inspect.ismodule(value):
            found |= describe(f"documented {path.rpartition('.')[2]}", value)
    return dict(sorted(found.items()))


def describe(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the entries of one public name."""
    value = getattr(value, "py_func", value)  # of a function that numba has compiled
    if value is Any:
        yield name, "Any"
    elif typing.is_typeddict(value):
        yield name, "TypedDict"
        yield from ((f"{name}.{key}", plain(hint)) for key, hint in value.__annotations__.items())
    elif inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        # and has no signature
        is_bare = issubclass(value, BaseException | str) or getattr(value, "_is_protocol", False)
        yield name, f"class({bases})" + ("" if is_bare else signature(value))
        fields = () if is_bare else inspect.signature(value).parameters
        ours = [each for each in value.__mro__ if each.__module__.startswith("reviewgen")]
        for key in sorted({key for each in ours for key in (*vars(each), *get_annotations(each))}):
            if (not key.startswith("_") and key not in fields) or key == "__call__":
                yield from describe_member(f"{name}.{key}", value, key)
    elif callable(value) and not typing.get_origin(value):
        yield name, signature(value)
        yield from keywords(name, value)
    elif isinstance(value, tuple | list):
        yield name, ", ".join(getattr(each, "__name__", "...") for each in value)
    else:
        yield (
            name,
            (
                plain(value)
                if isinstance(value, str | int | float | dict) or typing.get_origin(value)
                else f"a {type(value).__name__}"
            ),
        )


def describe_member(name: str, owner: type, key: str) -> Iterator[tuple[str, str]]:
    """Yield the entries of a method, a property or an attribute of a class."""
    member = inspect.getattr_static(owner, key, None)
    function = getattr(member, "__func__", member)
    if isinstance(member, property | functools.cached_property):
        yield name, f"property {signature(getattr(member, 'fget', None) or member.func)}"
    elif inspect.isfunction(function):
        kind = type(member).__name__ if function is not member else ""
        yield name, f"{kind} {signature(function)}".strip()
        yield from keywords(name, function)
    else:
        kept = next(
            (get_annotations(each)[key] for each in owner.__mro__ if key in get_annotations(each)),
            type(member),
        )
        yield name, f"attribute {plain(kept)}"


def signature(value: Any) -> str:
    whole = inspect.signature(value)
    return plain(
        whole.replace(
            parameters=[each for name, each in whole.parameters.items() if not name.startswith("_")]
        )
    )


def plain(value: Any) -> str:
    """Return a signature or a type without paths of modules and quotes around types."""
    text = value.__name__ if inspect.isclass(value) and not typing.get_origin(value) else str(value)
    text = re.sub(r"<(?:class|function) '?([\w.]+)'?[^>]*>", r"\1", text)
    text = re.sub(r"(?:(?<=[:\[|] )|(?<=-> )|(?<=\[))'([^']*[A-Z][^']*)'", r"\1", text)
    text = re.sub(r"(?:, )?\b(at_least|above|at_most|below)=None(?=[,)])", "", text).replace(
        "Bound(, ", "Bound("
    )
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", text)


def keywords(name: str, function: Any) -> Iterator[tuple[str, str]]:
    """Yield the keywords of a function that takes ``**options`` of a TypedDict."""
    for parameter in inspect.signature(function).parameters.values():
        match = re.search(r"(?:Unpack\[|\*<class ')(?:\w+\.)*(\w+)", str(parameter.annotation))
        if match and parameter.kind is parameter.VAR_KEYWORD:
            options = resolve(importlib.import_module(function.__module__), match[1])
            yield from (
                (f"{name}(**{key})", plain(hint))
                for key, hint in typing.get_type_hints(options).items()
            )


def resolve(module: ModuleType, name: str) -> Any:
    """Return what a name stands for in a module, which may import it for annotations only."""
    if hasattr(module, name):
        return getattr(module, name)
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and any(each.name == name for each in node.names):
            return getattr(importlib.import_module(str(node.module)), name)
    raise LookupError(f"{module.__name__} does not import {name}")


def commands(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield each command, with its arguments, and each of its options."""
    takes = {} if command.callback is None else inspect.signature(command.callback).parameters
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    yield f"$ {name}", ", ".join(f"{each.name}: {kind(each, takes)}" for each in arguments)
    for param in command.params:
        if param.param_type_name == "option" and param.name in takes:
            yield (
                f"$ {name} {'/'.join([*sorted(param.opts), *param.secondary_opts])}",
                kind(param, takes),
            )
    for each in sorted(getattr(command, "commands", ())):
        yield from commands(command.commands[each], f"{name} {each}")


def kind(param: Any, takes: Mapping[str, inspect.Parameter]) -> str:
    """Return the type of an argument or option of a command, its bounds and its default."""
    hint, *infos = typing.get_args(takes[param.name].annotation)
    limits = [
        f" {end} {getattr(info, end)}"
        for info in infos
        for end in ("min", "max")
        if getattr(info, end) is not None
    ]
    return f"{plain(hint)}{''.join(limits)}" + (
        " required" if param.required else f" = {param.default!r}"
    )


def test_public_names_and_commands_are_as_stored():
    stored = read_stored("names")
    found = observe()
    names = sorted(
        name for name in stored.keys() | found.keys() if stored.get(name) != found.get(name)
    )
    differences = [
        f"{name}\n  stored: {stored.get(name, '-')}\n  now:    {found.get(name, '-')}"
        for name in names
    ]
    assert not differences, "\n".join(
        ["names.json differs (python -m tests.golden.test_names writes it):", *differences]
    )


if __name__ == "__main__":
    write_stored("names", observe(), indent=0)
