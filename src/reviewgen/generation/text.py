"""Text: one text that is being generated, from its prompt to its end. Must not know the model.

It ends at eos, at a stop string, at ``max_new_tokens``, or where it is cut off; with
``finish="sentence"`` one that was cut off ends with its last whole sentence. Texts are advanced by
``decode``.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float64, Int64

from reviewgen.config.generation import GenerationConfig
from reviewgen.generation.pieces import TokenTexts
from reviewgen.generation.states import Slot
from reviewgen.sentences import sentence_ends

_RANDOM_BLOCK = 64  # random numbers generated at a time, at least
_MAX_TOKENS_PER_CHARACTER = 8
# finish reasons of a text that did not end by itself
_CUT_OFF = ("length", "time", "stuck", "criteria")


@dataclass(eq=False)
class Text:
    """One text that is being generated.

    Attributes:
        pieces, config: The texts of the tokens, and the settings, which say where the text ends.
        prompt: The prompt.
        prefix: The ids before the text: bos, then those of the conditions.
        ids: The token ids of the text so far, those of the prompt included.
        rest: The end of the prompt that is not in ``ids`` yet: the next tokens must match it, and
            may run on.
        prompt_length: Characters of the decoded prompt; differs from len(prompt) where the
            tokenizer loses characters.
        rng: The text's own random stream.
        forced: Token ids to append next, whatever the model predicts.
        prompt_tokens: How many of ``ids`` belong to the prompt.
        new_tokens: How many do not.
        retries: How often it backtracked from a dead end.
        exceeds_limit: Whether it contains a copied span longer than allowed, because no other token
            was left.
        finish_reason: "end" (eos), "length", "stop" (a stop string), "time", "criteria" or "stuck"
            (no token was left); None while it is being generated.
        number: Its index in the call, which also seeds its random stream.
        text: The text, once there is a finish_reason.
        seconds: From the start of the batch until the text was complete.
        place: Its place among the known words, as in ``reviewgen.compiled.spelling``; None if it is
            not known yet.
        state, logits: The model's after the last token that it was fed; None before the first.
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
    place: Int64[np.ndarray, "3"] | None = None
    state: Slot | None = None
    logits: Float[np.ndarray, " V"] | None = None
    _random: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def is_past_prompt(self) -> bool:
        """Whether the whole prompt is in ``ids``."""
        return not self.rest and not self.forced

    def peek_random(self, count: int) -> Float64[np.ndarray, " N"]:
        """Return the next random numbers in [0, 1) of the text's stream without using them up."""
        lacking = count - len(self._random)
        if lacking > 0:
            self._random = np.concatenate(
                (self._random, self.rng.random(max(_RANDOM_BLOCK, lacking)))
            )
        return self._random[:count]

    def use_random(self, count: int) -> None:
        """Drop random numbers that were used."""
        self._random = self._random[count:]

    def drop_state(self) -> None:
        """Forget the model's state: the text is complete, or it is fed anew."""
        self.state = None
        self.logits = None

    def tail(self, size: int) -> list[int]:
        """Return the last ids after bos, padded with bos in front; without those of conditions and
        fields, which are never generated.
        """
        if size == 0:
            return []
        ids = self.prefix[:1] + self.ids
        return [self.prefix[0]] * (size - len(ids)) + ids[max(0, len(ids) - size) :]

    def so_far(self) -> str:
        """Return the prompt as given, even if the tokenizer cannot represent all of it, and its
        continuation.
        """
        return self._decode(len(self.ids))

    def _decode(self, count: int) -> str:
        return self.prompt + self.pieces.tokenizer.decode(self.ids[:count])[self.prompt_length :]

    def is_complete(self, newest: int) -> bool:
        """Finish if the last ``newest`` tokens complete a stop string or ``max_new_tokens``; return
        whether they do.
        """
        if self.config.stop_strings and newest and self._finish_at_stop_string(newest):
            return True
        if self.new_tokens >= self.config.max_new_tokens:
            self.finish("length")
        return self.finish_reason is not None

    def finish(self, reason: str) -> None:
        """Finish the text as it stands, without an incomplete last character; see ``finish`` of the
        settings.
        """
        self.text = self.so_far()
        self.finish_reason = reason
        if reason in _CUT_OFF and self.text.endswith("\ufffd"):  # inside a character
            self._cut(self.prompt + self.text[len(self.prompt) :].rstrip("\ufffd"))
        if self.config.finish == "sentence" and reason in _CUT_OFF:
            ends = sentence_ends(self.text, len(self.prompt))
            if ends and self._keeps_min_new_tokens(self.text[: ends[-1]]):
                self._cut(self.text[: ends[-1]])

    def finish_unextended(self) -> None:
        """Finish a text that gets no new token: it is its prompt."""
        self.ids += self.pieces.tokenizer.encode(self.rest)
        self.text = self.prompt
        self.rest = ""
        self.finish_reason = "length"

    def _keeps_min_new_tokens(self, text: str) -> bool:
        """Return whether a shortened text still has ``min_new_tokens``, if the whole one had."""
        minimum = self.config.min_new_tokens
        if self.new_tokens < minimum or not minimum:
            return True
        return self.new_tokens - (len(self.ids) - self._count_tokens(text)) >= minimum

    def _finish_at_stop_string(self, newest: int) -> bool:
        """Finish at the end of the first stop string in the continuation; return whether there is
        one.
        """
        stops = self.config.stop_strings
        window = _MAX_TOKENS_PER_CHARACTER * (max(map(len, stops)) + 1) - 1 + newest
        tail = self.pieces.tokenizer.decode(self.ids[-window:])
        if not any(stop in tail for stop in stops):
            return False
        text = self.so_far()
        starts = {stop: text.find(stop, len(self.prompt)) for stop in stops}
        ends = [start + len(stop) for stop, start in starts.items() if start >= 0]
        if ends:
            self.finish_reason = "stop"
            self._cut(text[: min(ends)])
        return bool(ends)

    def _cut(self, text: str) -> None:
        """Shorten the text, and remove the tokens behind its end."""
        self.text = text
        tokens = self._count_tokens(text)
        self.new_tokens -= len(self.ids) - tokens
        del self.ids[tokens:]

    def _count_tokens(self, text: str) -> int:
        """Return the number of leading tokens that are needed for a beginning of the text; at least
        its prompt's.
        """
        tokens = bisect_left(
            range(len(self.ids)),
            len(text),
            lo=self.prompt_tokens,
            key=lambda count: len(self._decode(count)),
        )
        # inside a character
        while tokens < len(self.ids) and not self._decode(tokens).startswith(text):
            tokens += 1
        return tokens
