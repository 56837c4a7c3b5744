"""How a trained model writes: a checked call becomes rows, pieces of a stream, and texts with what is known of them."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import islice

from reviewgen.bundle import Bundle
from reviewgen.conditions import Conditions
from reviewgen.errors import BundleError, DataError, GenerationError
from reviewgen.model.request import Request
from reviewgen.model.texts import GeneratedText, Generation
from reviewgen.novelty import Index, Novelty
from reviewgen.protocols import Guard
from reviewgen.sampling import Pieces, Row, Writer, text_so_far

__all__ = ["Writing"]

_MAX_COPY = 50  # characters of a copied span that a filter lets through if nobody says how many


class Writing:
    """Writes with the model of a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    @cached_property
    def pieces(self) -> Pieces:
        """The texts of the tokenizer's tokens."""
        return Pieces(self._bundle.tokenizer)

    @property
    def index(self) -> Index:
        """The index of the training text.

        Raises:
            DataError: The model has none.
        """
        if self._bundle.index is None:
            raise DataError(
                "This model has no index of its training text: it was trained with training.novelty=none, saved without "
                "novelty.safetensors, or is a blend of models of different corpora."
            )
        return self._bundle.index

    def rows(self, request: Request, first: int = 0, begins_late: bool = True) -> Iterator[Row]:
        """Return the finished rows of a call, from number ``first`` on; what cannot be done is said before any is written.

        Rows that are not begun when ``max_time`` is over are begun and end at once, or are left out.
        """
        writer = self._writer(request)
        if request.config.num_beams > 1:  # the texts of a prompt are found together
            return islice(writer.write(request.prompts), first, None)
        return writer.write(request.prompts[first:], first, self._log_likelihood, begins_late)

    def stream(self, request: Request) -> Iterator[str]:
        """Return the pieces of the one text of a call as they come, the prompt first."""
        return self._stream(self._writer(request), request.prompts[0])

    def generation(self, row: Row, request: Request, number: int) -> Generation:
        """Return a row with all that is known of it."""
        return Generation.of(row, request, number, partial(self._examine, row.ids), partial(self._log_probabilities, row))

    def with_novelty(self, row: Row) -> GeneratedText:
        """Return a row as a string that knows what of it was copied."""
        text = GeneratedText(row.text)
        text._examine = partial(self.index.examine, row.ids, self._bundle.tokenizer.decode)
        text.exceeds_max_copy = row.exceeds_limit
        return text

    def _writer(self, request: Request) -> Writer:
        conditions = self._bundle.conditions or Conditions()
        try:
            stepper = self._bundle.weights.stepper()
        except BundleError as error:  # its weights were changed since it was read
            raise GenerationError(str(error)) from None
        return Writer(
            stepper,
            self._bundle.tokenizer,
            self.pieces,
            request.config,
            request.seed,
            self._guard(request),
            request.hooks,
            conditions.encode(request.conditions),
            request.must_include,
        )

    def _guard(self, request: Request) -> Guard | None:
        """Return what the decoding must not complete."""
        if request.novelty is None:
            return None
        index = self.index  # there must be one before anything is written
        if request.novelty == "report":
            return None
        about = max(index.least_max_copy, math.ceil(_MAX_COPY / index.characters_per_token))
        return index.guard(about if request.max_copy is None else request.max_copy)

    def _stream(self, writer: Writer, prompt: str) -> Iterator[str]:
        shown = prompt
        if shown:
            yield shown
        for row in writer.stream(prompt):
            text = text_so_far(row, self._bundle.tokenizer)
            if len(text) > len(shown):
                yield from _cut(text[len(shown) :]) if self.pieces.are_characters else (text[len(shown) :],)
                shown = text

    def _examine(self, ids: Sequence[int]) -> Novelty | None:
        return None if self._bundle.index is None else self._bundle.index.examine(ids, self._bundle.tokenizer.decode)

    def _log_probabilities(self, row: Row) -> list[float]:
        """Return the log probability (nats) of each token of a row, and of its end where it ended by itself."""
        from reviewgen.evaluation import log_probabilities

        ends = [self._bundle.tokenizer.eos_id] if row.finish_reason == "end" else []
        return log_probabilities(self._bundle.model, [*row.start, *row.ids, *ends], len(row.start))

    def _log_likelihood(self, row: Row) -> float:
        return math.fsum(self._log_probabilities(row)) / max(1, len(row.ids))


def _cut(text: str) -> Iterator[str]:
    """Yield a text's characters; what is left of one that was cut short, several U+FFFD at the end, comes in one piece."""
    whole = text.rstrip("\ufffd")
    yield from whole
    if len(whole) < len(text):
        yield text[len(whole) :]
