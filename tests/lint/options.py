"""Options are the same wherever they are: TypedDicts have the fields of the classes that declare
them, docstrings their words.

``python -m tests.lint.options`` writes the descriptions into the docstrings.
"""

import ast
import importlib
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import reviewgen
from reviewgen import config
from tests.golden.test_names import resolve

declared = config.options
DECLARED: dict[str, tuple[type, ...]] = {
    "EvaluateKwargs": (declared.EvaluationOptions,),
    "CorpusKwargs": (declared.CorpusOptions,),
    "PrepareKwargs": (declared.CorpusOptions,),
    "TrainKwargs": (declared.CorpusOptions, declared.TrainingOptions),
    "CompareKwargs": (declared.TrainingTextOptions, declared.TrialOptions),
    "GenerateKwargs": (config.GenerationConfig, declared.CallOptions),
}
"""The classes that declare the keywords of each TypedDict."""

FUNCTIONS: list[Callable[..., Any]] = [
    *(
        reviewgen.train,
        reviewgen.sweep,
        reviewgen.ablate,
        reviewgen.tune,
        reviewgen.blend,
        reviewgen.tune_sampling,
    ),
    *(
        reviewgen.corpus,
        reviewgen.prepare,
        reviewgen.generate_dataset,
        reviewgen.score_dataset,
        reviewgen.compare,
    ),
    *(reviewgen.ReviewModel.generate, reviewgen.ReviewModel.evaluate),
]
OWN = {"generate_dataset": (declared.DatasetOptions,), "score_dataset": (declared.ShardOptions,)}
"""Classes that declare arguments of a function beside its keywords."""

_WIDTH = 130
_ENTRY = re.compile(r"^( +)(\w+): .*\n(?:\1 +\S.*\n)*", re.MULTILINE)


def check_options() -> Iterator[str]:
    """Yield keywords whose types or descriptions are not those of their declarations."""
    for function in FUNCTIONS:
        name = typed_dict(function)
        keywords = typing.get_type_hints(
            resolve(importlib.import_module(function.__module__), name)
        )
        yield from differences(name, DECLARED[name], keywords)
        described = descriptions(function)
        for entry, text in entries(inspect.getdoc(function) or "").items():
            if entry in described and text != described[entry]:
                yield (
                    f"{function.__name__}: {entry} is not described as where it is declared: run"
                    " python -m tests.lint.options"
                )


def typed_dict(function: Callable[..., Any]) -> str:
    """Return the name of the TypedDict of a function's keywords."""
    [hint] = [
        each.annotation
        for each in inspect.signature(function).parameters.values()
        if each.kind is each.VAR_KEYWORD
    ]
    return str(re.findall(r"\w+", str(hint))[-1])


def descriptions(function: Callable[..., Any]) -> dict[str, str]:
    """Return the description of each option that a function takes."""
    classes = (*DECLARED[typed_dict(function)], *OWN.get(function.__name__, ()))
    defaults = {field.name: field.default for each in classes for field in fields(each)}
    known = {
        name: value
        for name, value in defaults.items()
        if value not in (None, False, (), MISSING) and value is not True
    }
    shown = {
        name: f"{value:,}" if isinstance(value, int) else f'"{value}"'
        for name, value in known.items()
    }
    return {
        name: text + (f" Default: {shown[name]}." if name in shown else "")
        for each in classes
        for name, text in config.describe_fields(each).items()
    }


def entries(text: str) -> dict[str, str]:
    """Return what the list of arguments of a docstring says of each."""
    return {
        found[2]: " ".join(found[0].partition(":")[2].split())
        for found in _ENTRY.finditer(text + "\n")
    }


def differences(name: str, classes: tuple[type, ...], keywords: Mapping[str, Any]) -> Iterator[str]:
    """Yield fields that a TypedDict lacks, or has with other types; it may take more."""
    for cls in classes:
        hints = typing.get_type_hints(cls)
        for field in fields(cls):
            if field.name not in keywords:
                yield f"{name}: {field.name} of {cls.__name__} is missing"
            elif (
                Any not in (kinds := plain(keywords[field.name]))
                and not plain(hints[field.name]) <= kinds
            ):
                yield f"{name}: {field.name} is not of the types of {cls.__name__}"


def plain(hint: Any) -> set[Any]:
    """Return the types of a union; of collections only whether they are mappings or lists."""
    if typing.get_origin(hint) is Annotated:
        return plain(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return {kind for each in typing.get_args(hint) for kind in plain(each)} - {types.NoneType}
    if typing.get_origin(hint) is Literal:
        return {type(each) for each in typing.get_args(hint)}
    origin = typing.get_origin(hint) or hint
    if origin is not str and isinstance(origin, type) and issubclass(origin, typing.Iterable):
        return {Mapping if issubclass(origin, Mapping) else list}
    return {hint}


def write(function: Callable[..., Any]) -> None:
    """Write the descriptions of the options into the docstring of a function."""
    described = descriptions(function)
    file = Path(inspect.getsourcefile(function) or "")
    text = file.read_text(encoding="utf-8")
    nodes = [
        each
        for each in ast.walk(ast.parse(text))
        if isinstance(each, ast.FunctionDef) and each.name == function.__name__
    ]
    [old] = [docstring for each in nodes if (docstring := ast.get_docstring(each, clean=False))]

    def entry(found: re.Match[str]) -> str:
        indent = found[1]
        name = found[2]
        lines = f"{name}: {described.get(name)}"
        below = indent + "    "
        return (
            textwrap.fill(
                lines,
                _WIDTH - 1,
                initial_indent=indent,
                subsequent_indent=below,
                break_on_hyphens=False,
            )
            + "\n"
        )

    new = _ENTRY.sub(lambda found: entry(found) if found[2] in described else found[0], old)
    file.write_text(text.replace(old, new), encoding="utf-8")


if __name__ == "__main__":
    for each in FUNCTIONS:
        write(each)
