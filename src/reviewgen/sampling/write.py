"""Many texts: rows in, finished rows out in their order, batch by batch; and texts that must include some words."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np

from reviewgen.config import GenerationConfig
from reviewgen.errors import GenerationError
from reviewgen.protocols import Guard, Stepper, Tokenizer
from reviewgen.sampling.beams import search
from reviewgen.sampling.decode import decode
from reviewgen.sampling.hooks import Hooks
from reviewgen.sampling.prompt import Pieces
from reviewgen.sampling.row import Row, make_row

__all__ = ["Writer"]

_ROWS = 64  # texts written side by side
_TRIES = 128  # texts written, at most, for one that must include something
_ROUND = 16  # of them side by side
_SMOOTH_PACE = 0.02  # seconds between two pieces of a stream


@dataclass(frozen=True)
class Writer:
    """All that a call needs to write texts."""

    stepper: Stepper
    tokenizer: Tokenizer
    pieces: Pieces
    config: GenerationConfig
    seed: int
    guard: Guard | None = None
    hooks: Hooks | None = None
    conditions: Sequence[int] = ()
    must_include: Sequence[str] = ()

    def write(
        self,
        prompts: Sequence[str],
        first: int = 0,
        likelihood: Callable[[Row], float] | None = None,
        begins_late: bool = True,
    ) -> Iterator[Row]:
        """Yield a finished row for each prompt, in order and as soon as it can; row i draws from the stream of (seed, first + i).

        Args:
            prompts: What the texts begin with; of beams, each as often as texts are asked for.
            first: The number of the first text; of beams 0.
            likelihood: How probable a row is: chooses among those that include what must be included.
            begins_late: Whether a text is begun after ``max_time``, to end at once; else those are left out.

        Raises:
            GenerationError: No token can be drawn, or no try includes what must be included.
        """
        deadline = None if self.config.max_time is None else time.monotonic() + self.config.max_time
        numbered = enumerate(prompts, first)
        if self.config.num_beams > 1:
            yield from self._search(prompts, deadline)
        elif self.must_include:
            for number, prompt in numbered:
                yield self._write_including(prompt, number, likelihood or (lambda _: 0.0), deadline)
        else:
            while rows := [self._row(prompt, number) for number, prompt in islice(numbered, _ROWS)]:
                if not begins_late and deadline is not None and time.monotonic() >= deadline:
                    return
                yield from self._in_order(rows, deadline)

    def stream(self, prompt: str) -> Iterator[Row]:
        """Yield the one row of a prompt again and again while it grows."""
        deadline = None if self.config.max_time is None else time.monotonic() + self.config.max_time
        for rows in self._decode([self._row(prompt, 0)], deadline, _SMOOTH_PACE):
            yield rows[0]

    def _row(self, prompt: str, *numbers: int) -> Row:
        return make_row(prompt, self.pieces, np.random.default_rng((self.seed, *numbers)), self.conditions)

    def _in_order(self, rows: list[Row], deadline: float | None) -> Iterator[Row]:
        """Yield each row once it and all before it are finished, while others go on."""
        waiting = 0
        for _ in self._decode(rows, deadline):
            while waiting < len(rows) and rows[waiting].finish_reason is not None:
                yield rows[waiting]
                waiting += 1
        yield from rows[waiting:]

    def _decode(self, rows: list[Row], deadline: float | None, pace: float = 0.2) -> Iterator[list[Row]]:
        return decode(self.stepper, self.tokenizer, self.pieces, rows, self.config, self.guard, self.hooks, deadline, pace)

    def _search(self, prompts: Sequence[str], deadline: float | None) -> Iterator[Row]:
        """Yield the best texts of each prompt."""
        for prompt in prompts[:: self.config.num_return_sequences]:
            row = self._row(prompt, 0)
            yield from search(self.stepper, self.tokenizer, self.pieces, row, self.config, self.hooks, deadline)

    def _write_including(self, prompt: str, number: int, likelihood: Callable[[Row], float], deadline: float | None) -> Row:
        """Return the most probable of the first texts that include all words; try 0 is what would be written without them."""
        tries = ((number, attempt) if attempt else (number,) for attempt in count())
        written, missing = 0, dict.fromkeys(self.must_include, 0)
        is_late, begun = False, time.monotonic()
        while written < _TRIES and not is_late:
            rows = [self._row(prompt, *numbers) for numbers in islice(tries, _ROUND)]
            for _ in self._decode(rows, deadline):
                pass
            written += len(rows)
            if fitting := [row for row in rows if not self._missing(row)]:
                best = max(fitting, key=likelihood)
                best.seconds = time.monotonic() - begun
                return best
            for row in rows:
                for word in self._missing(row):
                    missing[word] += 1
            is_late = deadline is not None and time.monotonic() >= deadline
        rarest, longer = max(missing, key=lambda word: missing[word]), "max_time" if is_late else "max_new_tokens"
        lack = f"; {missing[rarest]} of them lack {rarest!r}" if len(missing) > 1 else ""
        raise GenerationError(
            f"None of {written} tries includes {' and '.join(map(repr, self.must_include))}{lack}. Put it into the prompt, write "
            f"longer texts ({longer}), or raise the temperature."
        )

    def _missing(self, row: Row) -> list[str]:
        text = row.text.casefold()
        return [word for word in self.must_include if word.casefold() not in text]
