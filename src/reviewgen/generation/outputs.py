"""The returned texts: a string with the copied spans in it, or a Generation with everything known about the text."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from reviewgen.generation.request import Request
from reviewgen.generation.rows import Row
from reviewgen.novelty import Novelty


class GeneratedText(str):
    """A generated text, with the copied spans in it.

    Attributes:
        exceeds_max_copy: Whether it contains a longer copied span than was allowed, because no other token was left.
    """

    exceeds_max_copy: bool
    _examine: Callable[[], Novelty]

    @classmethod
    def of(cls, row: Row, examine: Callable[[], Novelty]) -> "GeneratedText":
        """Return the text of a finished row."""
        text = cls(row.text)
        text.exceeds_max_copy, text._examine = row.exceeds_limit, examine
        return text

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

    @classmethod
    def of(
        cls, row: Row, request: Request, number: int, examine: Callable[[], Novelty | None], score: Callable[[], list[float]]
    ) -> "Generation":
        """Return the Generation of a finished row."""
        return cls(
            text=row.text,
            prompt=row.prompt,
            tokens=row.ids,
            new_tokens=row.new_tokens,
            finish_reason=row.finish_reason or "",
            seed=request.seed,
            number=number,
            seconds=row.seconds,
            exceeds_max_copy=row.exceeds_limit,
            request=request,
            _examine=examine,
            _score=score,
        )

    def facts(self) -> dict[str, Any]:
        """Return what is known without further computation, as JSON values."""
        names = ("text", "prompt", "new_tokens", "finish_reason", "seed", "number", "exceeds_max_copy")
        return {name: getattr(self, name) for name in names} | {"seconds": round(self.seconds, 4)}
