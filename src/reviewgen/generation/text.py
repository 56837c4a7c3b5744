"""Text: one text that is being generated, from its prompt to its end.

A text ends at eos, at a stop string, at ``max_new_tokens``, or where it is cut off for another
reason. With ``finish="sentence"``, a text that did not end by itself is shortened to its last
complete sentence. The module ``decode`` adds tokens to texts. This module must not know the model.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float64, Int64

from reviewgen.config.generation import GenerationConfig
from reviewgen.formats.cursor import Cursor
from reviewgen.generation.pieces import TokenTexts
from reviewgen.generation.states import Slot
from reviewgen.sentences import sentence_ends

_RANDOM_BLOCK = 64  # at least this many random numbers are generated at a time
_MAX_TOKENS_PER_CHARACTER = 8  # a character has at most four bytes, each of at most two tokens
# the finish reasons of texts that did not end by themselves
_CUT_OFF = ("length", "time", "stuck", "criteria")


@dataclass(eq=False)
class Text:
    """One text that is being generated.

    Attributes:
        pieces: The tokenizer, and the text of each of its tokens.
        config: The generation settings, which say where the text ends.
        prompt: The prompt.
        prefix: The ids before the text: bos, then the ids of the conditions.
        ids: The token ids of the text so far, the prompt included.
        rest: The end of the prompt that is not in ``ids`` yet. The next tokens must match it; they
            may go beyond its end.
        prompt_length: The number of characters of the decoded prompt. It differs from len(prompt)
            if the tokenizer cannot represent all characters.
        rng: The text's own random stream.
        forced: Token ids that are appended next, whatever the model predicts.
        prompt_tokens: The number of ``ids`` that belong to the prompt.
        new_tokens: The number of generated tokens. A token that goes beyond the end of the prompt
            counts both here and in ``prompt_tokens``.
        retries: How often the text has backtracked from a dead end.
        exceeds_limit: Whether the text contains a longer copied span than was allowed, because no
            other token was possible.
        finish_reason: "end" (eos), "length", "stop" (a stop string), "time", "criteria" or "stuck"
            (no token was possible); None while the text is being generated.
        number: The number of the text in the call, which is also part of its random seed.
        text: The finished text; empty before.
        seconds: The time from the start of the batch until the text was complete.
        place: The text's state in the automaton of ``reviewgen.compiled.spelling``; None if it is
            not known yet.
        cursor: The position of the text in the formats of the call; None without a format.
        problem: Why the text does not fit its formats; empty if it does.
        state, logits: The model's state and logits after the last token that it was fed; None if it
            was fed none.
    """

    pieces: TokenTexts
    config: GenerationConfig
    prompt: str
    prefix: list[int]
    ids: list[int]
    rest: str
    prompt_length: int
    rng: np.random.Generator
    forced: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    new_tokens: int = 0
    retries: int = 0
    exceeds_limit: bool = False
    finish_reason: str | None = None
    number: int = 0
    text: str = ""
    seconds: float = 0.0
    place: Int64[np.ndarray, "5"] | None = None
    cursor: Cursor | None = None
    problem: str = ""
    state: Slot | None = None
    logits: Float[np.ndarray, " V"] | None = None
    # random numbers that were generated, but not used yet
    _random: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def is_past_prompt(self) -> bool:
        """Whether the whole prompt is in ``ids``."""
        return not self.rest and not self.forced

    def peek_random(self, count: int) -> Float64[np.ndarray, " N"]:
        """Return the next random numbers in [0, 1) of the text's stream, without consuming them."""
        lacking = count - len(self._random)
        if lacking > 0:
            self._random = np.concatenate(
                (self._random, self.rng.random(max(_RANDOM_BLOCK, lacking)))
            )
        return self._random[:count]

    def use_random(self, count: int) -> None:
        """Remove the next ``count`` random numbers from the stream, since they were used."""
        self._random = self._random[count:]

    def drop_state(self) -> None:
        """Drop the model's state, because the text is complete or will be fed again."""
        self.state = None
        self.logits = None

    def tail(self, size: int) -> list[int]:
        """Return the last ``size`` ids of the text; if it has fewer, bos fills the places in front.

        The ids of conditions are left out, since they are never generated.
        """
        padding = [self.prefix[0]] * size  # bos
        # without its first len(ids) items, the list has ``size`` items
        return (padding + self.ids)[len(self.ids) :]

    def so_far(self) -> str:
        """Return the text so far: the prompt and its continuation.

        The prompt is returned as it was given, even if the tokenizer cannot represent all of it.
        """
        return self._decode(len(self.ids))

    def _decode(self, count: int) -> str:
        """Return the text so far as if it had only its first ``count`` ids."""
        return self.prompt + self.pieces.tokenizer.decode(self.ids[:count])[self.prompt_length :]

    def finish_if_complete(self, newest: int) -> bool:
        """Finish the text if its last ``newest`` tokens contain the end of a stop string, or if it
        has ``max_new_tokens`` new tokens. Return whether it is finished, now or before.
        """
        if self.finish_reason is None and self.config.stop_strings and newest:
            self._finish_at_stop_string(newest)
        if self.finish_reason is None and self.new_tokens >= self.config.max_new_tokens:
            self.finish("length")
        return self.finish_reason is not None

    def finish(self, reason: str) -> None:
        """Finish the text where it is.

        If the text did not end by itself, an incomplete last character is removed; so is an
        unfinished last sentence with ``finish="sentence"``.

        Args:
            reason: The finish reason.
        """
        self.text = self.so_far()
        self.finish_reason = reason
        if self.cursor is not None:
            self.cursor.follow(self.ids)
            if not self.cursor.is_complete:
                self.problem = self.cursor.formats.describe_failure(reason)
        if reason not in _CUT_OFF:
            return
        if self.text.endswith("\ufffd"):  # the text ends inside a character
            self._cut(self.prompt + self.text[len(self.prompt) :].rstrip("\ufffd"))
        if self.config.finish == "sentence":
            ends = sentence_ends(self.text, len(self.prompt))
            if ends and self._may_end_after(self.text[: ends[-1]]):
                self._cut(self.text[: ends[-1]])

    def finish_unextended(self) -> None:
        """Finish a text that gets no new tokens, so that it consists of its prompt."""
        self.ids += self.pieces.tokenizer.encode(self.rest)
        self.text = self.prompt
        self.rest = ""
        self.finish_reason = "length"

    def _may_end_after(self, text: str) -> bool:
        """Return whether the text may be shortened to ``text``. It must still fit its formats, and
        keep at least ``min_new_tokens`` new tokens, unless it has fewer already.
        """
        if self.cursor is not None and not self.cursor.fits(self.ids[: self._count_tokens(text)]):
            return False
        minimum = self.config.min_new_tokens
        if self.new_tokens < minimum:
            return True
        removed = len(self.ids) - self._count_tokens(text)
        return self.new_tokens - removed >= minimum

    def _finish_at_stop_string(self, newest: int) -> None:
        """If the continuation contains a stop string, finish the text at the end of the first one.
        A text with a format is finished at the first one after which it fits.

        Args:
            newest: The number of last tokens in which a stop string may have ended.
        """
        stops = self.config.stop_strings
        longest = max(map(len, stops))
        # A stop string that ends in the newest tokens begins in the last ``window`` tokens. These
        # have room for one more character, since they may begin inside a character.
        window = _MAX_TOKENS_PER_CHARACTER * (longest + 1) - 1 + newest
        tail = self.pieces.tokenizer.decode(self.ids[-window:])
        if not any(stop in tail for stop in stops):
            return
        text = self.so_far()
        start = len(self.prompt)
        if self.cursor is not None:
            if not self.cursor.fits(self.ids):
                return
            # skip earlier stop strings, at which the text did not fit
            start = max(start, len(text) - len(tail))
        ends = [text.index(stop, start) + len(stop) for stop in stops if stop in text[start:]]
        if ends:  # else the stop string begins in the prompt
            self.finish_reason = "stop"
            self._cut(text[: min(ends)])

    def _cut(self, text: str) -> None:
        """Shorten the text to ``text``, a beginning of it, and remove the tokens after that."""
        self.text = text
        tokens = self._count_tokens(text)
        self.new_tokens -= len(self.ids) - tokens
        del self.ids[tokens:]

    def _count_tokens(self, text: str) -> int:
        """Return how many tokens spell ``text``, a beginning of the text; the tokens of the prompt
        always count.
        """
        # the smallest number of tokens whose text is at least as long as ``text``
        needed = bisect_left(
            range(len(self.ids)),
            len(text),
            lo=self.prompt_tokens,
            key=lambda count: len(self._decode(count)),
        )
        # the last of these tokens may end inside a character
        while needed < len(self.ids) and not self._decode(needed).startswith(text):
            needed += 1
        return needed
