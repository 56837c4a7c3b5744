"""Where a text ends: at eos, at a stop string, at ``max_new_tokens``, or at its last whole sentence. Must not know the model."""

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from reviewgen.config import GenerationConfig
from reviewgen.generation.prompts import Pieces
from reviewgen.generation.rows import Row, full_text
from reviewgen.protocols import Tokenizer
from reviewgen.sentences import sentence_ends

_MAX_TOKENS_PER_CHARACTER = 8
_CUT_OFF = ("length", "time", "stuck", "criteria")  # finish reasons of a text that did not end by itself


@dataclass(frozen=True)
class Stopping:
    """Ends texts as a GenerationConfig says: at eos, at a stop string, at a length."""

    tokenizer: Tokenizer
    pieces: Pieces
    config: GenerationConfig

    def check(self, row: Row, newest: int) -> bool:
        """Finish a row if its last ``newest`` tokens complete a stop string or ``max_new_tokens``; return whether they do."""
        if self.config.stop_strings and newest and self._finish_at_stop_string(row, newest):
            return True
        if row.new_tokens >= self.config.max_new_tokens:
            self.finish(row, "length")
        return row.finish_reason is not None

    def finish(self, row: Row, reason: str) -> None:
        """Finish a row as it stands, without an incomplete last character.

        With ``finish="sentence"``, one that was cut off ends with its last whole sentence.
        """
        row.text, row.finish_reason = full_text(row, self.tokenizer), reason
        if reason in _CUT_OFF and row.text.endswith("\ufffd"):  # inside a character
            row.text = row.prompt + row.text[len(row.prompt) :].rstrip("\ufffd")
            self._drop_unused_tokens(row)
        if self.config.finish == "sentence" and reason in _CUT_OFF:
            ends = sentence_ends(row.text, len(row.prompt))
            if ends and self._keeps_min_new_tokens(row, row.text[: ends[-1]]):
                row.text = row.text[: ends[-1]]
                self._drop_unused_tokens(row)

    def _keeps_min_new_tokens(self, row: Row, text: str) -> bool:
        """Return whether a shortened text still has ``min_new_tokens``, if the whole one had."""
        minimum = self.config.min_new_tokens
        if row.new_tokens < minimum or not minimum:
            return True
        return row.new_tokens - (len(row.ids) - self._count_tokens(row, text)) >= minimum

    def _finish_at_stop_string(self, row: Row, newest: int) -> bool:
        """Finish a row at the end of the first stop string in its continuation; return whether there is one."""
        stops = self.config.stop_strings
        window = _MAX_TOKENS_PER_CHARACTER * (max(map(len, stops)) + 1) - 1 + newest
        tail = self.tokenizer.decode(row.ids[-window:])
        if not any(stop in tail for stop in stops):
            return False
        text = full_text(row, self.tokenizer)
        ends = [start + len(stop) for stop in stops if (start := text.find(stop, len(row.prompt))) >= 0]
        if not ends:
            return False
        row.text, row.finish_reason = text[: min(ends)], "stop"
        self._drop_unused_tokens(row)
        return True

    def _drop_unused_tokens(self, row: Row) -> None:
        """Remove the tokens behind the end of a row's text."""
        kept = self._count_tokens(row, row.text)
        row.new_tokens -= len(row.ids) - kept
        del row.ids[kept:]

    def _count_tokens(self, row: Row, text: str) -> int:
        """Return the number of leading tokens of a row that are needed for a beginning of its text; at least its prompt's."""

        @cache  # to decode is slow
        def decoded(count: int) -> str:
            return row.prompt + self.tokenizer.decode(row.ids[:count])[row.prompt_length :]

        first, last = row.prompt_tokens, len(row.ids)
        guess = self._guess_count(row, len(text) - len(row.prompt) + row.prompt_length)
        if first < guess <= last:
            first, last = (guess, last) if len(decoded(guess - 1)) < len(text) else (first, guess - 1)
        if first == guess and len(decoded(guess)) >= len(text):
            last = guess
        kept = bisect_left(range(last), len(text), first, key=lambda count: len(decoded(count)))
        while kept < len(row.ids) and not decoded(kept).startswith(text):  # inside a character
            kept += 1
        return kept

    def _guess_count(self, row: Row, characters: int) -> int:
        """Return the number of leading tokens with that many characters if none of them is a part of a character."""
        return bisect_left([0, *accumulate(map(len, map(self.pieces.texts.__getitem__, row.ids)))], characters)
