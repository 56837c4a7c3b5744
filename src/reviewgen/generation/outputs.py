"""The returned texts: a string with the copied spans in it, or a Generation with everything known about the text."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from reviewgen.generation.request import Request
from reviewgen.novelty import Novelty


class GeneratedText(str):
    """A generated text, with the copied spans in it.

    Attributes:
        exceeds_max_copy: Whether it contains a longer copied span than was allowed, because no other token was left.
    """

    exceeds_max_copy: bool
    _examine: Callable[[], Novelty]

    def __new__(cls, text: str, exceeds_max_copy: bool, examine: Callable[[], Novelty]) -> "GeneratedText":
        """Return a text; ``examine`` finds out what of it was copied."""
        self = super().__new__(cls, text)
        self.exceeds_max_copy, self._examine = exceeds_max_copy, examine
        return self

    @cached_property
    def novelty(self) -> Novelty:
        """What of the text occurs in the training text; computed on first use."""
        return self._examine()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Copy and pickle as a plain string: the index of the training text does not travel with a text."""
        return str, (str(self),)


@dataclass
class Generation:
    """A generated text and everything known about it.

    Attributes:
        text: The text, the prompt included.
        prompt: The prompt.
        tokens: The ids of the text, those of the prompt included.
        new_tokens: How many of them are new.
        finish_reason: "end" (the model ended the review), "length" (``max_new_tokens``), "stop" (a stop string), "time"
            (``max_time``), "criteria" (``stopping_criteria``) or "stuck" (every token was ruled out).
        seed: The seed of the call, a random one where none was given.
        number: The number of the text in the call, from 0: seed and number reproduce the text.
        seconds: From the start of its batch until it was complete.
        exceeds_max_copy: Whether it contains a longer copied span than was allowed, because no other token was left.
        request: The call, checked.
    """

    text: str
    prompt: str
    tokens: list[int]
    new_tokens: int
    finish_reason: str
    seed: int
    number: int
    seconds: float
    exceeds_max_copy: bool
    request: Request = field(repr=False, compare=False)
    _examine: Callable[[], Novelty | None] = field(repr=False, compare=False)
    _score: Callable[[], list[float]] = field(repr=False, compare=False)

    @cached_property
    def novelty(self) -> Novelty | None:
        """What of the text occurs in the training text; None if the model has no index. Computed on first use."""
        return self._examine()

    @cached_property
    def log_probabilities(self) -> list[float]:
        """The model's log probability (nats) of each of ``tokens``, and of the end if the text ended by itself.

        They are the model's own, before temperature, filters and penalties; computed on first use.
        """
        return self._score()

    def facts(self) -> dict[str, Any]:
        """Return what is known without further computation, as JSON values."""
        names = ("text", "prompt", "new_tokens", "finish_reason", "seed", "number", "exceeds_max_copy")
        return {name: getattr(self, name) for name in names} | {"seconds": round(self.seconds, 4)}
