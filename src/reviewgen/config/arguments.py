"""Checks of arguments that are not settings: each refuses a value in a sentence that names the argument."""

from collections.abc import Iterable, Mapping
from typing import Any

from reviewgen.errors import ConfigError, quoted


def check_count(name: str, value: Any) -> None:
    """Check that an argument is a whole number of at least 1.

    Raises:
        ConfigError: It is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1; got {quoted(value)}.")


def check_flags(**flags: Any) -> None:
    """Check that arguments are True or False; others, such as an array, may have no truth value.

    Raises:
        ConfigError: One is something else.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be True or False; got {quoted(value)}.")


def check_text(name: str, value: Any, *, optional: bool = False) -> None:
    """Check that an argument is a string, or None if it is optional.

    Raises:
        ConfigError: It is something else.
    """
    if not (isinstance(value, str) or (optional and value is None)):
        raise ConfigError(f"{name} must be a string{' or None' if optional else ''}; got {quoted(value)}.")


def check_list(name: str, value: Any, example: str) -> list[Any]:
    """Return the items of a list, a tuple or another iterable other than a string or a mapping.

    Args:
        name: The argument.
        value: Its value.
        example: A list that would be accepted, for the message.

    Raises:
        ConfigError: It is something else, or iterating it fails.
    """
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | Mapping | type):
        try:
            return list(value)
        except (TypeError, ValueError):  # such as an array without dimensions
            pass
    raise ConfigError(f"{name} must be a list, as in {example}; got {quoted(value)}.")


def check_mapping(name: str, value: Any, example: str) -> dict[str, Any]:
    """Return a mapping of strings to values as a dictionary.

    Args:
        name: The argument.
        value: Its value.
        example: A dictionary that would be accepted, for the message.

    Raises:
        ConfigError: It is something else, or reading it fails.
    """
    if isinstance(value, Mapping):
        try:
            items = dict(value)
        except Exception:  # whatever a mapping of the user's raises
            items = {None: None}
        if all(isinstance(key, str) for key in items):
            return items
    raise ConfigError(f"{name} must be a dictionary with strings as keys, as in {example}; got {quoted(value)}.")
