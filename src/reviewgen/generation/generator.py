"""Generator: texts of one model, many at once, as a stream, or such that they include some words.

Holds what every call needs of a model: its stepper, its tokenizer, the texts of its tokens and the index of its training text.
The function that scores a text, which only ``must_include`` and ``log_probabilities`` need, is passed in.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import count, islice

import numpy as np

from reviewgen.errors import DataError, GenerationError
from reviewgen.generation.beams import search
from reviewgen.generation.decode import Decoder, reachable_guard
from reviewgen.generation.outputs import GeneratedText, Generation
from reviewgen.generation.prompts import Pieces
from reviewgen.generation.request import Request
from reviewgen.generation.rows import Row, make_row, text_so_far
from reviewgen.generation.speller import Speller
from reviewgen.novelty import CopyGuard, Index, Novelty
from reviewgen.protocols import Stepper, Tokenizer
from reviewgen.sentences import sentence_ends

DEVICE_ROWS = 512
"""The texts that are generated side by side on an accelerator."""

_CPU_ROWS = 64
_MAX_TRIES, _TRIES_PER_BATCH = 128, 16  # texts generated for one that must include something
_BLOCK_SECONDS, _STREAM_BLOCK_SECONDS = 0.2, 0.02  # between two yields of a text that is still growing
_MAX_COPY = 50  # characters of a copied span that the filter allows by default


class Generator:
    """Generates texts with one model.

    Args:
        stepper: Predicts the next token.
        tokenizer: The model's tokenizer.
        pieces: The texts of its tokens; decoded when first needed if not given.
        speller: The words that texts are made of; without one, they are valid UTF-8.
        index: The index of the training text, for ``novelty``.
        score: Returns the model's log probability (nats) of each of some ids after the first ``given`` ones:
            ``score(ids, given)``.
        batch_size: How many texts to generate side by side.
    """

    def __init__(
        self,
        stepper: Stepper,
        tokenizer: Tokenizer,
        *,
        pieces: Pieces | None = None,
        speller: Speller | None = None,
        index: Index | None = None,
        score: Callable[[list[int], int], list[float]] | None = None,
        batch_size: int = _CPU_ROWS,
    ) -> None:
        self.stepper, self.tokenizer, self.index, self.batch_size = stepper, tokenizer, index, batch_size
        self._pieces, self._speller, self._score = pieces, speller or Speller(tokenizer), score

    @cached_property
    def pieces(self) -> Pieces:
        """The texts of the tokenizer's tokens."""
        return self._pieces or Pieces(self.tokenizer)

    def with_stepper(self, stepper: Stepper) -> "Generator":
        """Return the same generator with another stepper of the model."""
        return Generator(
            stepper,
            self.tokenizer,
            pieces=self.pieces,
            speller=self._speller,
            index=self.index,
            score=self._score,
            batch_size=self.batch_size,
        )

    def generate(self, request: Request, first: int = 0, start_late: bool = True) -> Iterator[Row]:
        """Return the finished rows of a call, in order and each as soon as it can be.

        Row i samples from the random stream of (seed, i). What is wrong with the call is raised before anything is generated.

        Args:
            request: The call.
            first: The number of the first text to generate.
            start_late: Whether texts that would start after ``max_time`` are returned without new tokens, instead of left out.

        Raises:
            DataError: ``novelty`` is given and the model has no index of its training text, or ``words="known"`` and it has no
                lexicon.
            GenerationError: No token can be sampled, or no try includes what must be included.
        """
        guard = self.guard(request)
        self._speller.spelling(request.config.words)  # raised before anything is generated
        if request.config.num_beams > 1:  # the texts of a prompt are found together
            return islice(self._search(request), first, None)
        if request.must_include:
            return filter(None, self._generate_including(request, guard, first))
        return self._generate_batches(request, guard, first, start_late)

    def search(self, request: Request) -> Iterator[Row | None]:
        """Return the finished rows of a call with ``must_include``, with a None after each block of tokens of all tries: where
        several calls take turns, no one of them waits for the whole search of another. Raises as ``generate``."""
        return self._generate_including(request, self.guard(request), 0)

    def stream(self, request: Request) -> Iterator[str]:
        """Return the pieces of the one text of a call as they are generated, the prompt first; raises as ``generate``."""
        return self._stream(request, self.guard(request))

    def output(self, row: Row, request: Request, number: int) -> Generation:
        """Return a finished row as the Generation with that number in the call."""
        return Generation.of(row, request, number, partial(self._examine, row.ids), partial(self.log_probabilities, row))

    def with_novelty(self, row: Row) -> GeneratedText:
        """Return the text of a finished row as a string that knows what of it was copied."""
        return GeneratedText.of(row, partial(require_index(self.index).examine, row.ids, self.tokenizer.decode))

    def log_probabilities(self, row: Row) -> list[float]:
        """Return the model's log probability (nats) of each token of a row, and of eos where the text ended by itself."""
        assert self._score is not None, "This generator was made without a function that scores."
        ends = [self.tokenizer.eos_id] if row.finish_reason == "end" else []
        return self._score([*row.prefix, *row.ids, *ends], len(row.prefix))

    def guard(self, request: Request) -> CopyGuard | None:
        """Return the copied spans that decoding must not complete; None without novelty="filter".

        Raises:
            DataError: ``novelty`` is given, and the model has no index of its training text.
        """
        if request.novelty is None:
            return None
        index = require_index(self.index)  # raised before anything is generated
        if request.novelty == "report":
            return None
        default = max(index.smallest_max_copy, math.ceil(_MAX_COPY / index.characters_per_token))
        return index.guard(default if request.max_copy is None else request.max_copy)

    def _generate_batches(self, request: Request, guard: CopyGuard | None, first: int, start_late: bool) -> Iterator[Row]:
        """Yield each row once it and all before it are finished, while others of its batch continue."""
        deadline = request.deadline()
        numbered = enumerate(islice(request.prompts, first, None), request.offset + first)
        while rows := [self.row(request, prompt, number) for number, prompt in islice(numbered, self.batch_size)]:
            if not start_late and deadline is not None and time.monotonic() >= deadline:
                return
            waiting = 0
            for _ in self.decoder(request, guard, deadline, rows).decode(rows):
                while waiting < len(rows) and rows[waiting].finish_reason is not None:
                    yield rows[waiting]
                    waiting += 1
            yield from rows[waiting:]

    def _generate_including(self, request: Request, guard: CopyGuard | None, first: int) -> Iterator[Row | None]:
        """Yield for each prompt the most probable of the first texts that include all words, and None as ``search`` does."""
        deadline = request.deadline()
        for number, prompt in enumerate(islice(request.prompts, first, None), request.offset + first):
            started, tries = time.monotonic(), ((number, attempt) if attempt else (number,) for attempt in count())
            generated, lacking = 0, dict.fromkeys(request.must_include, 0)
            best: Row | None = None
            while best is None:
                rows = [self.row(request, prompt, *numbers) for numbers in islice(tries, _TRIES_PER_BATCH)]
                for _ in self.decoder(request, guard, deadline, rows).decode(rows):
                    yield None
                generated += len(rows)
                best = max((row for row in rows if not _missing(request, row)), key=self._likelihood, default=None)
                for word in (word for row in rows for word in _missing(request, row)):
                    lacking[word] += 1
                is_late = deadline is not None and time.monotonic() >= deadline
                if best is None and (is_late or generated >= _MAX_TRIES):
                    raise _nothing_includes(request, generated, lacking, is_late)
            best.seconds = time.monotonic() - started
            yield best

    def _search(self, request: Request) -> Iterator[Row]:
        """Yield the best texts of each prompt, found by beam search."""
        decoder = self.decoder(request, None, request.deadline(), [])
        for prompt in request.prompts[:: request.config.num_return_sequences]:
            yield from search(decoder, self.row(request, prompt, 0))

    def _stream(self, request: Request, guard: CopyGuard | None) -> Iterator[str]:
        shown = request.prompts[0]
        if shown:
            yield shown
        rows = [self.row(request, shown, 0)]
        for _ in self.decoder(request, guard, request.deadline(), rows, _STREAM_BLOCK_SECONDS).decode(rows):
            text = text_so_far(rows[0], self.tokenizer)
            if request.config.finish == "sentence" and rows[0].finish_reason is None:  # the last sentence may be removed
                text = text[: max((end for end in sentence_ends(text, len(shown)) if text[end:].strip()), default=0)]
            if len(text) > len(shown):
                yield from _characters(text[len(shown) :]) if self.pieces.are_characters else (text[len(shown) :],)
                shown = text

    def decoder(
        self,
        request: Request,
        guard: CopyGuard | None,
        deadline: float | None,
        rows: Sequence[Row],
        block_seconds: float = _BLOCK_SECONDS,
    ) -> Decoder:
        """Return the decoding loop of a call.

        Args:
            request: The call.
            guard: The copied spans that must not be completed: those of ``guard(request)``.
            deadline: The ``time.monotonic`` at which all rows end where they are.
            rows: The rows at their beginning; the guard is left out if none of them can become long enough for it.
            block_seconds: About how long a block of a stepper's own loop should take.

        Raises:
            DataError: ``words="known"``, and the model has no lexicon.
        """
        guard = reachable_guard(guard, rows, request.config.max_new_tokens)
        spelling = self._speller.spelling(request.config.words)
        model = self.stepper, self.tokenizer, self.pieces
        return Decoder(*model, request.config, guard, spelling, request.hooks, deadline, block_seconds)

    def row(self, request: Request, prompt: str, *numbers: int) -> Row:
        """Return the row of a prompt, whose random stream is that of the seed and some numbers."""
        return make_row(prompt, self.pieces, np.random.default_rng((request.seed, *numbers)), request.prefix_of(numbers[0]))

    def _likelihood(self, row: Row) -> float:
        """Return the mean log probability (nats) of a row's tokens."""
        return math.fsum(self.log_probabilities(row)) / max(1, len(row.ids))

    def _examine(self, ids: Sequence[int]) -> Novelty | None:
        return None if self.index is None else self.index.examine(ids, self.tokenizer.decode)


def choose_batch_size(device: str) -> int:
    """Return how many texts to generate side by side on a device, as PyTorch names it."""
    return _CPU_ROWS if device == "cpu" else DEVICE_ROWS


def require_index(index: Index | None) -> Index:
    """Return the index of a model's training text.

    Raises:
        DataError: The model has none.
    """
    if index is None:
        raise DataError(
            "This model has no index of its training text: it was trained with training.novelty=none, saved without "
            "novelty.safetensors, or is a blend of models of different corpora."
        )
    return index


def _missing(request: Request, row: Row) -> list[str]:
    """Return which of the words that a text must include it lacks, upper or lower case."""
    text = row.text.casefold()
    return [word for word in request.must_include if word.casefold() not in text]


def _nothing_includes(request: Request, generated: int, lacking: dict[str, int], is_late: bool) -> GenerationError:
    rarest = max(lacking, key=lambda word: lacking[word])
    detail = f"; {lacking[rarest]} of them lack {rarest!r}" if len(lacking) > 1 else ""
    until, more = (" before the time was over", "time (max_time)") if is_late else ("", "tokens (max_new_tokens)")
    return GenerationError(
        f"None of {generated} tries includes {' and '.join(map(repr, request.must_include))}{until}{detail}. "
        f"Put it into the prompt, allow more {more}, or raise the temperature."
    )


def _characters(text: str) -> Iterator[str]:
    """Yield a text's characters; an incomplete last one, several U+FFFD at the end, comes in one piece."""
    whole = text.rstrip("\ufffd")
    yield from whole
    if len(whole) < len(text):
        yield text[len(whole) :]
