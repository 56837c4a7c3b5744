"""Where a text ends: at its end token, at a stop string, at its last token, at its last whole sentence. Knows no model."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from reviewgen.protocols import Tokenizer
from reviewgen.sampling.row import Row, whole_text

__all__ = ["Ends"]

_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[\"'”’»)\]」』）】》]*")  # a full stop inside 3.5 is none
_TOKENS_A_CHARACTER = 8  # at most


@dataclass(frozen=True)
class Ends:
    """Finishes rows; the settings are those of ``GenerationConfig``."""

    tokenizer: Tokenizer
    max_new_tokens: int
    stop_strings: Sequence[str] = ()
    finish: str | None = None
    min_new_tokens: int = 0

    def after(self, row: Row, newest: int) -> bool:
        """Finish a row if its ``newest`` last tokens reach a stop string or the most new tokens; return whether they did."""
        if self.stop_strings and newest and self._stops(row, newest):
            return True
        if row.new_tokens >= self.max_new_tokens:
            self.end(row, "length")
        return row.finish_reason is not None

    def end(self, row: Row, reason: str) -> None:
        """Finish a row as it stands; one that was cut off ends with its last whole sentence where that is asked for."""
        row.text, row.finish_reason = whole_text(row, self.tokenizer), reason
        if self.finish == "sentence" and reason in ("length", "time", "stuck", "criteria"):
            ends = [match.end() for match in _SENTENCE_END.finditer(row.text, len(row.prompt))]
            if ends and self._leaves_enough(row, row.text[: ends[-1]]):
                row.text = row.text[: ends[-1]]
                self._drop_unused(row)

    def _leaves_enough(self, row: Row, text: str) -> bool:
        """Return whether a text that is cut still has as many new tokens as it must, if it had them."""
        return (
            row.new_tokens < max(1, self.min_new_tokens)
            or row.new_tokens - (len(row.ids) - self._needed(row, text)) >= self.min_new_tokens
        )

    def _stops(self, row: Row, newest: int) -> bool:
        """Finish a row at the end of the first stop string in what was generated."""
        window = _TOKENS_A_CHARACTER * (max(map(len, self.stop_strings)) + 1) - 1 + newest
        tail = self.tokenizer.decode(row.ids[-window:])
        if not any(stop in tail for stop in self.stop_strings):
            return False
        text = whole_text(row, self.tokenizer)
        ends = [place + len(stop) for stop in self.stop_strings if (place := text.find(stop, len(row.prompt))) >= 0]
        if not ends:
            return False
        row.text, row.finish_reason = text[: min(ends)], "stop"
        self._drop_unused(row)
        return True

    def _drop_unused(self, row: Row) -> None:
        """Forget the tokens behind the end of a row's text."""
        kept = self._needed(row, row.text)
        row.new_tokens -= len(row.ids) - kept
        del row.ids[kept:]

    def _needed(self, row: Row, text: str) -> int:
        """Return how many of a row's tokens spell a text that its own begins with."""

        def spelled(count: int) -> str:
            return row.prompt + self.tokenizer.decode(row.ids[:count])[row.prompt_length :]

        kept = bisect_left(range(len(row.ids)), len(text), key=lambda count: len(spelled(count)))
        while kept < len(row.ids) and not spelled(kept).startswith(text):  # inside a character
            kept += 1
        return kept
