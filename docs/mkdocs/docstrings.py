"""How the API reference reads docstrings, as an extension of griffe.

- Keywords that a function takes as ``**options: Unpack[SomeTypedDict]`` are shown in its signature.
  Those that its docstring does not describe are described as the TypedDict's does.
- A function with ``@describes_options`` has the docstring that importing it makes.
- Calls written as ``>>>`` become blocks of code, without the comments of doctest; so do the blocks
  after ``::``.
"""

import inspect
import pkgutil
import re
from typing import Any

import griffe

_PROMPT = re.compile(r"^( *)>>> .*\n(?:\1\S.*(?:\n|$))*", re.MULTILINE)
_SKIP = re.compile(r" *# doctest: \+SKIP")


class Docstrings(griffe.Extension):
    """Expands ``Unpack`` and rewrites examples once a package is loaded, when every name can be
    resolved.
    """

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings and signatures of a package."""
        for module in [pkg, *_submodules(pkg)]:
            _rewrite(module)
            for member in _own(module):
                _rewrite(member)
                for method in _own(member) if member.is_class else ():
                    _rewrite(method)


def _submodules(module: griffe.Module) -> list[griffe.Module]:
    children = [child for child in module.modules.values() if not child.is_alias]
    return [*children, *(found for child in children for found in _submodules(child))]


def _own(parent: Any) -> list[Any]:
    return [
        member for member in parent.members.values() if not member.is_alias and not member.is_module
    ]


def _rewrite(found: Any) -> None:
    if found.is_function and any(
        decorator.callable_path.endswith("describes_options") for decorator in found.decorators
    ):
        found.docstring.value = inspect.getdoc(pkgutil.resolve_name(found.path))
    if found.docstring:
        value = _SKIP.sub("", found.docstring.value)
        value = _PROMPT.sub(lambda block: _fenced(block[0], block[1]), value + "\n")
        found.docstring.value = re.sub(r"::$", ":", value, flags=re.MULTILINE).strip()
    if found.is_function:
        for parameter in list(found.parameters):
            if parameter.kind is griffe.ParameterKind.var_keyword and "Unpack[" in str(
                parameter.annotation
            ):
                _expand(found, parameter)


def _fenced(block: str, indent: str) -> str:
    return f"{indent}```pycon\n{block.rstrip()}\n{indent}```\n"


def _expand(function: Any, parameter: griffe.Parameter) -> None:
    """Replace ``**options`` by the keys of its TypedDict, in the signature and in the list of
    arguments.
    """
    keys, described = _keys(
        function, re.sub(r".*Unpack\[|\].*|['\"]", "", str(parameter.annotation))
    )
    del function.parameters[parameter.name]
    if not any(other.kind is griffe.ParameterKind.keyword_only for other in function.parameters):
        star = [
            other
            for other in function.parameters
            if other.kind is griffe.ParameterKind.var_positional
        ]
        assert not star, f"{function.path} takes both *{star} and keywords."
    for name, annotation in keys.items():
        if name not in {other.name for other in function.parameters}:
            keyword = griffe.ParameterKind.keyword_only
            function.parameters.add(
                griffe.Parameter(name, annotation=annotation, kind=keyword, default="...")
            )
    if function.docstring:
        known = _documented(function.docstring)
        missing = {name: text for name, text in described.items() if name not in known}
        if missing:
            function.docstring.value = _with_arguments(function.docstring.value, missing)


def _keys(scope: Any, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the keys of a TypedDict with their types, those of its bases first, and what its
    docstring says of each.
    """
    found = scope.modules_collection[scope.resolve(name)]
    found = found.final_target if found.is_alias else found
    keys: dict[str, Any] = {}
    described: dict[str, str] = {}
    for base in found.bases:
        if "TypedDict" not in str(base):
            more, texts = _keys(found, str(base))
            keys = keys | more
            described = described | texts
    keys |= {key: attribute.annotation for key, attribute in found.attributes.items()}
    for section in found.docstring.parse("google", warnings=False) if found.docstring else ():
        if section.kind is griffe.DocstringSectionKind.attributes:
            described |= {item.name: item.description for item in section.value}
    return keys, {
        name: " ".join(text.split())
        for each, text in described.items()
        for name in each.split(", ")
    }


def _documented(docstring: Any) -> set[str]:
    sections = docstring.parse("google", warnings=False)
    arguments = [
        item
        for part in sections
        if part.kind is griffe.DocstringSectionKind.parameters
        for item in part.value
    ]
    return {name for item in arguments for name in item.name.split(", ")}


def _with_arguments(value: str, described: dict[str, str]) -> str:
    """Return a docstring with arguments added after the ones that it describes."""
    lines = "".join(f"    {name}: {text}\n" for name, text in described.items())
    before, heading, after = value.partition("Args:\n")
    if not heading:
        first, gap, rest = value.partition("\n\n")
        return f"{first}\n\nArgs:\n{lines}{gap}{rest}"
    body = re.match(r"(?:[ ]+.*(?:\n|$)|\n(?=[ ]))*", after)
    assert body is not None
    own = body[0].rstrip("\n")
    return f"{before}{heading}{own}\n{lines}\n{after[body.end() :].lstrip()}"
