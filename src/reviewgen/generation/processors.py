"""The logits processors of a call: functions of the caller's, and installed ones by name.

Only entry points of installed packages are looked up; a saved model has names, and no code.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reviewgen.config import check_list
from reviewgen.errors import BrokenPlugin, ConfigError, UnknownPlugin, quoted
from reviewgen.protocols import Tokenizer
from reviewgen.registry import Plugin, find_logits_processor


@dataclass(frozen=True)
class Processor:
    """A logits processor of a call.

    Attributes:
        call: Takes ids (1, T) and scores (1, V), and returns scores.
        name: What error messages call it.
        plugin: The plugin that made it; None for a function of the caller's.
    """

    call: Callable[[Any, Any], Any]
    name: str
    plugin: Plugin | None = None


def as_list(given: Any) -> list[Any]:
    """Return the argument ``logits_processor`` as a list of names and functions; transformers' own lists are both.

    Raises:
        ConfigError: Something in it is neither.
    """
    if given is None:
        return []
    is_list = isinstance(given, Iterable) and not isinstance(given, str)
    listed = check_list("logits_processor", given, "['my-processor']") if is_list else [given]
    if not all(callable(each) or isinstance(each, str) for each in listed):
        raise ConfigError(
            "logits_processor is a function of ids and scores, the name of an installed logits processor, or a list of these; "
            f"got {quoted(given)}."
        )
    return listed


def make_processors(listed: Sequence[Any], tokenizer: Tokenizer) -> list[Processor]:
    """Return the processors of a list of names and functions, in its order.

    Raises:
        UnknownPlugin: No installed package provides a name.
        PluginConflict: Two packages provide a name.
        BrokenPlugin: A package cannot be imported, or its factory raises or returns something that cannot be called.
    """
    return [_make(each, tokenizer) if isinstance(each, str) else Processor(each, _name(each)) for each in listed]


def refuse_missing(names: Iterable[str]) -> None:
    """Raise if a saved name is not installed.

    Raises:
        UnknownPlugin: One is not; the message says how to generate without it.
    """
    for name in names:
        try:
            find_logits_processor(name)
        except UnknownPlugin:
            package, _, own = name.rpartition(":")
            install = f"pip install {package}" if package else "install the package that provides it"
            raise UnknownPlugin(
                f"This model's generation_config names the logits processor {own!r}, which is not installed: {install}, or set "
                "logits_processors=[] to generate without it."
            ) from None


def _make(name: str, tokenizer: Tokenizer) -> Processor:
    factory, plugin = find_logits_processor(name)
    described = f"The logits processor {name!r} of {plugin.package} {plugin.version}"
    try:
        processor = factory(tokenizer)
    except Exception as error:  # a third party's factory may raise anything
        raise BrokenPlugin(f"{described} cannot be made for this tokenizer: {type(error).__name__}: {error!s:.200}") from error
    if not callable(processor):
        raise BrokenPlugin(
            f"{described} is broken: its factory should return a function of ids and scores; it returned "
            f"{type(processor).__name__}."
        )
    return Processor(processor, described, plugin)


def _name(processor: Any) -> str:
    return getattr(processor, "__name__", type(processor).__name__)
