"""From the tokens of a row to events: what each token adds to the text, and what is held back because it may still be removed.

What was delivered is never wrong. A token is held back

- with ``finish="sentence"`` until its sentence has ended and another one has begun;
- with ``novelty="filter"``, where decoding may go back by any number of tokens, until the text is complete.
"""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

from reviewgen.generation import Pieces
from reviewgen.generation.rows import Row
from reviewgen.protocols import SupportsTokenBytes, Tokenizer
from reviewgen.sentences import sentence_ends
from reviewgen.serving.events import Scored, TokenEvent

Hold: TypeAlias = Literal["nothing", "sentence", "everything"]
"""What of a text that is not complete is held back."""


_NOT_ASKED = Scored(math.nan)


class Outlet:
    """Turns the new tokens of one row into events.

    Args:
        number: The number of the text in the request.
        row: The row.
        tokenizer, pieces: The tokenizer, and the texts of its single tokens.
        hold: What is held back.
    """

    def __init__(self, number: int, row: Row, tokenizer: Tokenizer, pieces: Pieces, hold: Hold) -> None:
        self._number, self._row, self._tokenizer, self._pieces, self._hold = number, row, tokenizer, pieces, hold
        self._text = ""  # after the prompt, whole characters only
        self._ends: list[int] = []  # its length after each new token
        self._sent, self._safe = 0, 0  # events; characters that can no longer be removed
        self._whole: tuple[int, int] | None = None  # ids and characters up to the last token that ended a character
        self._adds_up = isinstance(tokenizer, SupportsTokenBytes)  # whether a text is that of its tokens, one after another

    def take(self, scores: Sequence[Scored]) -> list[TokenEvent]:
        """Return the events of the tokens that can be delivered by now and were not yet.

        Args:
            scores: Of each new token of the row; empty if nobody asked.
        """
        row = self._row
        if self._hold == "everything" and row.finish_reason is None:
            return []
        self._read()
        return self._release_end(scores) if row.finish_reason is not None else self._release(self._releasable(), scores)

    def _read(self) -> None:
        """Append the texts of the new tokens."""
        row, known = self._row, self._pieces.texts
        for index in range(len(row.ids) - row.new_tokens + len(self._ends), len(row.ids)):
            piece, whole = known[row.ids[index]], self._whole if self._adds_up else None
            if piece and whole is not None and whole[0] == index:
                self._text += piece
                self._whole = index + 1, len(self._text)
            else:
                if whole is None:
                    text = self._tokenizer.decode(row.ids[: index + 1])[row.prompt_length :]
                else:
                    text = self._text[: whole[1]] + self._tokenizer.decode(row.ids[whole[0] : index + 1])
                self._text = text.rstrip("\ufffd")
                if len(self._text) == len(text):
                    self._whole = index + 1, len(text)
            self._ends.append(len(self._text))

    def _releasable(self) -> int:
        """Return the number of tokens that can no longer be removed."""
        if self._hold == "nothing":
            return len(self._ends)
        prompt = self._row.prompt
        text = prompt + self._text
        ends = (end for end in sentence_ends(text, len(prompt) + self._safe) if text[end:].strip())
        self._safe = max((end - len(prompt) for end in ends), default=self._safe)
        count = self._sent
        while count < len(self._ends) and self._ends[count] <= self._safe:
            count += 1
        return count

    def _release(self, count: int, scores: Sequence[Scored]) -> list[TokenEvent]:
        """Return the events of the tokens before the ``count``-th that were not delivered yet."""
        number, ids, text, ends = self._number, self._row.ids, self._text, self._ends
        first, start, events = len(ids) - self._row.new_tokens, ends[self._sent - 1] if self._sent else 0, []
        for index in range(self._sent, count):
            logprob, alternatives = scores[index] if scores else _NOT_ASKED
            events.append(TokenEvent(number, ids[first + index], text[start : ends[index]], logprob, alternatives))
            start = ends[index]
        self._sent = max(self._sent, count)
        return events

    def _release_end(self, scores: Sequence[Scored]) -> list[TokenEvent]:
        """Return the last events: of the tokens that the complete text has, the last of which may be cut short."""
        row = self._row
        self._text = row.text[len(row.prompt) :]
        del self._ends[row.new_tokens :]
        self._ends = [min(end, len(self._text)) for end in self._ends]
        if len(self._ends) > self._sent:
            self._ends[-1] = len(self._text)
        return self._release(row.new_tokens, scores)
