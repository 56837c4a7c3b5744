"""Hooks: objects that are called at every token, namely logits processors, stopping criteria and
streamers.

Those of transformers work unchanged. A hook gets torch tensors with one row: the ids (1, T) of all
tokens so far, bos first, and the scores (1, V), float32.

The user gives a logits processor as a function, or as the name of an installed one. Names are only
looked up among the entry points of installed packages. A saved model contains names and no code.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from reviewgen.errors import (
    BrokenPlugin,
    ConfigError,
    GenerationError,
    UnknownPlugin,
    counted,
    quoted,
)
from reviewgen.generation.text import Text
from reviewgen.protocols.extensions import TokenAutomaton
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.registry.metadata import Plugin, title_of
from reviewgen.registry.plugins import find_logits_processor


@dataclass(frozen=True)
class Processor:
    """A logits processor of a call.

    Attributes:
        call: The function: it takes ids (1, T) and scores (1, V), and returns scores (1, V). An
            automaton is not called: it is one of the formats of the call.
        name: The name of the processor in error messages.
        plugin: The plugin that provides it; None for the user's own function.
    """

    call: Any
    name: str
    plugin: Plugin | None = None

    def __call__(self, ids: Any, scores: Any) -> Any:
        """Apply the processor to scores (1, V), and check the result.

        An error that the user's own function raises is not caught.

        Raises:
            GenerationError: The processor returns anything but scores of this shape, or it is a
                plugin and raises an error.
        """
        import torch

        shape = tuple(scores.shape)
        try:
            processed = self.call(ids, scores)
        except Exception as error:
            if self.plugin is None:
                raise
            raise GenerationError(
                f"{self.name} has failed after {ids.shape[1] - 1} tokens: {type(error).__name__}:"
                f" {error!s:.200}"
            ) from error
        got: object = type(processed).__name__
        if isinstance(processed, torch.Tensor):
            got = tuple(processed.shape)
        if got != shape:
            raise GenerationError(
                f"{self.name} should return scores of shape {shape}; it returned {got}."
            )
        if not (processed < torch.inf).all():  # NaN compares false
            raise GenerationError(
                f"{self.name} returns scores that are not numbers (NaN or plus infinity)."
            )
        return processed


@dataclass(frozen=True)
class Hooks:
    """The objects of a call that are called at every token.

    Attributes:
        processors: The logits processors, in the order in which they are called. A score of -inf
            rules a token out.
        criteria: The stopping criteria. Each takes ids and scores, and returns whether the text
            ends here.
        streamer: Its ``put(ids)`` is called with the prompt and then with each new token, and its
            ``end()`` when the text is complete.
    """

    processors: Sequence[Processor]
    criteria: Sequence[Callable[[Any, Any], Any]]
    streamer: Any = None

    @cached_property
    def automata(self) -> dict[str, TokenAutomaton]:
        """The automata among the processors, by a name for the middle of a sentence: its first
        letter is in lower case.
        """
        processors = self.processors
        return {
            f"{each.name[:1].lower()}{each.name[1:]}": each.call
            for each in processors
            if isinstance(each.call, TokenAutomaton)
        }

    def process(
        self, ids: Sequence[int], scores: Float[np.ndarray, " V"]
    ) -> Float[np.ndarray, " V"]:
        """Apply the logits processors to the scores of the next token; return the new scores.

        Args:
            ids: The ids of all tokens so far, bos first.
            scores: The scores of the token after them.

        Raises:
            GenerationError: The processors rule out every token, one of them fails, or one returns
                something other than scores.
        """
        functions = [each for each in self.processors if not isinstance(each.call, TokenAutomaton)]
        if not functions:
            return scores
        import torch

        table = torch.from_numpy(scores.astype(np.float32))[None]  # (1, V)
        for processor in functions:
            table = processor(torch.tensor([list(ids)]), table)
        processed: np.ndarray = table[0].double().cpu().numpy()
        if not (processed > -np.inf).any():
            raise GenerationError(
                "The logits processors rule out every token after"
                f" {counted(len(ids) - 1, 'token')}, so none can be drawn."
            )
        return processed

    def should_stop(self, text: Text, scores: Float[np.ndarray, " V"]) -> bool:
        """Return whether a stopping criterion ends a text.

        Args:
            text: The text; its last token has just been appended.
            scores: The scores that this token was sampled from.

        Raises:
            GenerationError: A criterion returns neither a bool nor a tensor.
        """
        if not self.criteria:
            return False
        import torch

        table = torch.from_numpy(scores.astype(np.float32))[None]
        ids = torch.tensor([[*text.prefix, *text.ids]])
        for criterion in self.criteria:
            stops = criterion(ids, table)
            if not isinstance(stops, bool | np.bool_ | torch.Tensor):
                raise GenerationError(
                    f"{_name(criterion)} should return whether the text ends here; it returned"
                    f" {quoted(stops)}."
                )
            if torch.as_tensor(stops).all():
                return True
        return False

    def begin(self, texts: Sequence[Text]) -> None:
        """Put the whole prompt of each text into the streamer, as the tokenizer encodes it."""
        if self.streamer is None:
            return
        for text in texts:
            self.put([[*text.prefix, *text.ids, *text.pieces.tokenizer.encode(text.rest)]])

    def put(self, tokens: Sequence[int] | Sequence[list[int]]) -> None:
        """Put tokens, or whole prompts, into the streamer, each by a call of its own."""
        if self.streamer is None:
            return
        import torch

        for item in tokens:
            self.streamer.put(torch.tensor([item]))  # (1,) for a token, (1, T) for a prompt

    def end(self) -> None:
        """Call ``end`` of the streamer, since the text is complete."""
        if self.streamer is not None:
            self.streamer.end()


def make_hooks(
    processors: Sequence[Any],
    tokenizer: Tokenizer,
    stopping_criteria: Any = None,
    streamer: Any = None,
    saved: Sequence[str] = (),
) -> Hooks | None:
    """Return the hooks of a call; None if there are none.

    Args:
        processors: The names and functions that ``as_processors`` returns.
        tokenizer: The tokenizer, which is passed to the factories of named processors.
        stopping_criteria, streamer: The arguments of ``ReviewModel.generate``.
        saved: The names that are saved with the model. If one of them is not installed, the error
            says how to generate without it.

    Raises:
        ConfigError: A criterion is not callable, or the streamer lacks a method.
        UnknownPlugin: No installed package provides a processor of this name.
        PluginConflict: Two packages provide a processor of the same name.
        BrokenPlugin: A package cannot be imported, or its factory raises an error or returns
            something that cannot be called.
    """
    resolved = [
        _make(item, tokenizer, saved) if isinstance(item, str) else Processor(item, _name(item))
        for item in processors
    ]
    criteria = one_or_more(stopping_criteria)
    if not all(map(callable, criteria)):
        raise ConfigError(
            "stopping_criteria is a function of ids and scores, or a list of such functions; got"
            f" {quoted(stopping_criteria)}."
        )
    methods = [getattr(streamer, name, None) for name in ("put", "end")]
    if streamer is not None and not all(map(callable, methods)):
        raise ConfigError(
            "streamer needs the methods put and end, as transformers' have; got"
            f" {type(streamer).__name__}."
        )
    if not resolved and not criteria and streamer is None:
        return None
    return Hooks(resolved, criteria, streamer)


def one_or_more(argument: Any) -> list[Any]:
    """Return an argument as a list: its items if it is a list or another iterable, else the
    argument as the only item. None gives an empty list.

    transformers' own lists of functions are callable, too; they are treated as lists.
    """
    if argument is None:
        return []
    if isinstance(argument, Iterable) and not isinstance(argument, str | bytes | Mapping):
        # a tensor without dimensions counts as Iterable, but raises TypeError
        with suppress(TypeError):
            return list(argument)
    return [argument]


def as_processors(argument: Any) -> list[Any]:
    """Return the names and functions in the argument ``logits_processor``.

    Raises:
        ConfigError: An item is neither a string nor a function.
    """
    listed = one_or_more(argument)
    if not all(callable(item) or isinstance(item, str) for item in listed):
        raise ConfigError(
            "logits_processor is a function of ids and scores, the name of an installed logits"
            f" processor, or a list of these; got {quoted(argument)}."
        )
    return listed


def _make(name: str, tokenizer: Tokenizer, saved: Sequence[str]) -> Processor:
    """Make the logits processor of a name; ``saved`` is as in ``make_hooks``."""
    try:
        factory, plugin = find_logits_processor(name)
    except UnknownPlugin:
        if name not in saved:
            raise
        package, _, short_name = name.rpartition(":")
        install = f"pip install {package}" if package else "install the package that provides it"
        raise UnknownPlugin(
            f"This model's generation_config names the logits processor {short_name!r}, which is"
            f" not installed: {install}, or set logits_processors=[] to generate without it."
        ) from None
    title = title_of(plugin)
    try:
        processor = factory(tokenizer)
    except Exception as error:  # a third party's factory may raise anything
        raise BrokenPlugin(
            f"{title} cannot be made for this tokenizer: {type(error).__name__}: {error!s:.200}"
        ) from error
    if not callable(processor) and not isinstance(processor, TokenAutomaton):
        raise BrokenPlugin(
            f"{title} is broken: its factory should return a function of ids and scores, or a"
            f" TokenAutomaton; it returned {type(processor).__name__}."
        )
    return Processor(processor, title, plugin)


def _name(function: Any) -> str:
    """Return the name of a function, or of an object's class, for error messages."""
    return getattr(function, "__name__", type(function).__name__)
