"""Descriptions of settings and options, for ``reviewgen settings``, the help of commands, and the
docstrings of functions. The descriptions are read from the docstrings and type hints of the
dataclasses that declare the settings.

A field is described in the Google-style ``Attributes:`` section of its class or of a base class::

    Attributes:
        hidden_size: The width of each layer, H.
        layers: The number of layers, L; a description
            may continue on indented lines.

Imports the standard library only.
"""

import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain
from typing import Any, Literal, TypeVar, get_args, get_origin

from reviewgen.config.settings import bare, bound_of, fields_of, limits_of, options_of

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_DOCSTRING_WIDTH = 100  # characters of a line
# an entry "name: description" or "name (type): description", with its indented further lines
_ENTRY = re.compile(r"^(\w+)(?: \([^)]*\))?: *(.*(?:\n+ +.*)*)", re.MULTILINE)
_TYPE_NAMES: dict[Any, str] = {
    int: "int",
    float: "float",
    str: "string",
    dict: "JSON object",
    types.NoneType: "none",
}
# the name of each type in a JSON schema
_JSON_TYPES = {
    int: "integer",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
    types.NoneType: "null",
}
# the keyword of a JSON schema for each limit of a number; ``Bound`` has these limits
_NUMBER_KEYWORDS = {
    "at_least": "minimum",
    "above": "exclusiveMinimum",
    "at_most": "maximum",
    "below": "exclusiveMaximum",
}
# the keywords for the limits of each type that can have limits
_KEYWORDS: dict[Any, dict[str, str]] = {
    int: _NUMBER_KEYWORDS,
    float: _NUMBER_KEYWORDS,
    str: {"at_least": "minLength", "at_most": "maxLength"},
}
# how ``describe_hint`` writes the limits of a ``Bound``
_LIMITS = {"at_least": ">=", "above": ">", "at_most": "<=", "below": "<"}


def describe_fields(cls: type) -> dict[str, str]:
    """Return the description of each field of a config dataclass, in the order of the fields. A
    field without a description has the empty string.

    A description in a subclass replaces the description of the same field in its base class.
    """
    described: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        described |= parse_entries(base.__dict__.get("__doc__") or "")
    return {field.name: described.get(field.name, "") for field in dataclasses.fields(cls)}


def describes_options(*classes: type) -> Callable[[FunctionT], FunctionT]:
    """Return a decorator that completes the docstring of a function: the line that begins with "See
    ``...Options``" is replaced by the descriptions of all options that ``classes`` declare.
    """

    def describe(function: FunctionT) -> FunctionT:
        """Complete the docstring of a function, and return the function."""
        docstring = function.__doc__ or ""  # python -OO has none
        if line := re.search(r"^(?P<indent> +)See ``\w+Options``.*\n", docstring, re.MULTILINE):
            entries = chain.from_iterable(
                _docstring_entries(cls, line["indent"]) for cls in classes
            )
            function.__doc__ = docstring.replace(line[0], "".join(entries))
        return function

    return describe


def _docstring_entries(cls: type, indent: str) -> Iterator[str]:
    """Yield the docstring entry of each field of a class, with the field's default if the default
    is a number or a string.
    """
    described = describe_fields(cls)
    for field in dataclasses.fields(cls):
        text = f"{field.name}: {described[field.name]}"
        if isinstance(field.default, str):
            text += f' Default: "{field.default}".'
        elif isinstance(field.default, int) and not isinstance(field.default, bool):
            text += f" Default: {field.default:,}."
        wrapped = textwrap.fill(
            text,
            _DOCSTRING_WIDTH,
            initial_indent=indent,
            subsequent_indent=f"{indent}    ",
            break_on_hyphens=False,
        )
        yield f"{wrapped}\n"


def describe_settings(
    cls: type, given: Mapping[str, Any], hidden: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return name, value, default, accepted values and description of each setting.

    Args:
        cls: The config dataclass.
        given: Values that differ from the defaults.
        hidden: Fields to leave out, since the user does not set them. Fields without a default are
            left out, too.
    """
    hints = fields_of(cls)
    descriptions = describe_fields(cls)
    rows = []
    for field in dataclasses.fields(cls):
        default = (
            field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory()
        )
        if default is dataclasses.MISSING or field.name in hidden:
            continue
        hint = hints[field.name]
        value = given.get(field.name, default)
        rows.append(
            {
                "name": field.name,
                "value": value,
                "default": default,
                "accepts": describe_hint(hint),
                "choices": choices_of(hint),
                "bounds": bounds_of(hint),
                "description": descriptions[field.name],
            }
        )
    return rows


def describe_hint(hint: Any) -> str:
    """Return the accepted values of a type hint in short form.

    >>> from typing import Annotated
    >>> from reviewgen.config.settings import Bound
    >>> describe_hint(Annotated[int, Bound(at_least=1, at_most=64)])
    'int, 1 to 64'
    >>> describe_hint(Literal["muon", "adamw"])
    'muon | adamw'
    >>> describe_hint(Annotated[tuple[float, ...], Bound(above=0)])
    'list of float, > 0'
    """
    limits = {
        name: str(int(limit)) if limit == int(limit) else f"{limit:g}"
        for name, limit in bounds_of(hint).items()
    }
    if limits.keys() == {"at_least", "at_most"}:
        bounds = [f"{limits['at_least']} to {limits['at_most']}"]
    else:
        bounds = [f"{_LIMITS[name]} {limit}" for name, limit in limits.items()]
    kinds = " | ".join(_describe_type(option) for option in options_of(bare(hint)))
    return ", ".join([kinds, *bounds])


def choices_of(hint: Any) -> list[Any] | None:
    """Return the values that a type hint accepts, if they can be listed; None otherwise."""
    choices: list[Any] = []
    for option in options_of(bare(hint)):
        if option is bool:
            choices += [True, False]
        elif option is types.NoneType:
            choices.append(None)
        elif get_origin(option) is Literal:
            choices += get_args(option)
        else:
            return None
    return choices


def bounds_of(hint: Any) -> dict[str, float]:
    """Return the bounds in the type hint of a number or of a list, by the names of the fields of
    ``Bound``; an empty dictionary if there are no bounds.
    """
    return limits_of(bound_of(hint))


def json_schema(hint: Any) -> dict[str, Any]:
    """Return the JSON schema of the accepted values of a type hint.

    >>> json_schema(int | None)
    {'anyOf': [{'type': 'integer'}, {'type': 'null'}]}
    """
    if choices := choices_of(hint):
        return {"enum": choices}
    schemas = [_option_schema(option, bounds_of(hint)) for option in options_of(bare(hint))]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _option_schema(option: Any, bounds: dict[str, float]) -> dict[str, Any]:
    """Return the JSON schema of one member of a union."""
    if get_origin(option) is tuple:
        return {"type": "array", "items": _option_schema(bare(get_args(option)[0]), bounds)}
    keywords = _KEYWORDS.get(option, {})
    limits = {keywords[name]: limit for name, limit in bounds.items() if name in keywords}
    return {"type": _JSON_TYPES[get_origin(option) or option]} | limits


def parse_entries(docstring: str, heading: str = "Attributes:") -> dict[str, str]:
    """Return the descriptions in a section of a docstring, by the names of the entries. Each
    description is on one line.
    """
    # the body of a section: the lines below its heading that are indented deeper, or are blank
    section = re.search(
        rf"^( *){heading}\n(?P<body>(?:\1 +.*\n|\s*\n)*)",
        inspect.cleandoc(docstring) + "\n",
        re.MULTILINE,
    )
    entries = _ENTRY.findall(textwrap.dedent(section["body"])) if section else []
    return {name: " ".join(text.split()) for name, text in entries}


def _describe_type(option: Any) -> str:
    """Return the accepted values of one member of a union, without its bounds."""
    if get_origin(option) is Literal:
        return " | ".join(str(choice) for choice in get_args(option))
    if get_origin(option) is tuple:
        return f"list of {_describe_type(bare(get_args(option)[0]))}"
    if option is bool:
        return "true | false"
    kind = get_origin(option) or option
    return _TYPE_NAMES.get(kind, getattr(option, "__name__", str(option)))
