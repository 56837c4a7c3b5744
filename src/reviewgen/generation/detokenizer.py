"""Decides which characters of a text may be shown while it is generated, and gives the log
probabilities of its tokens.

Only whole characters are released, once they are certain to stay in the text. They are held back:

- while they may be the beginning of a stop string, if stop strings are left out of the text, as in
  OpenAI's API;
- with ``finish="sentence"``, until their sentence has ended and the next one has begun;
- until the text is complete, if decoding may remove any number of tokens (``novelty="filter"``), or
  if the caller only wants complete texts.

Log probabilities are the model's own, in nats: at temperature 1, before filters, penalties and
logits processors. V is the number of logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from reviewgen.generation.next_tokens import log_softmax, most_probable
from reviewgen.generation.pieces import TokenTexts
from reviewgen.generation.text import Text
from reviewgen.protocols.tokenizer import SupportsTokenBytes
from reviewgen.sentences import last_whole_sentence


class TopLogprob(NamedTuple):
    """A possible token at some position of a text.

    Attributes:
        token: Its id.
        text: Its text; "" for a token that is only a part of a character.
        logprob: Its log probability.
    """

    token: int
    text: str
    logprob: float


class Scored(NamedTuple):
    """The log probability of a token, and the most probable tokens at its position, the most
    probable first.
    """

    logprob: float
    alternatives: tuple[TopLogprob, ...] = ()


class Token(NamedTuple):
    """A released token, which stays in the text.

    Attributes:
        id: Its id.
        text: The characters that the token adds. If several tokens make up a character, the last
            one adds it, and the others have "".
        start: Where these characters start in the text, prompt included.
        score: The log probability of the token, and the most probable tokens at its position.
    """

    id: int
    text: str
    start: int
    score: Scored


@dataclass
class Detokenizer:
    """Turns the tokens of one text into characters that can be released.

    Attributes:
        text: The text that is being generated.
        stops: The stop strings. They end the text and are not released.
        is_whole: Whether everything is held back until the text is complete.
        is_echoed: Whether the prompt is released, too.
        wants_scores: Whether tokens are released with their log probabilities. A token is then held
            back until ``scores`` has its score.
        scores_prompt: Whether the tokens of the prompt are released, too; needs ``is_echoed``.
        scores: The scores of the tokens so far, to which the caller adds; also the score of eos, if
            the text ended with it.
    """

    text: Text
    stops: Sequence[str] = ()
    is_whole: bool = False
    is_echoed: bool = False
    wants_scores: bool = False
    scores_prompt: bool = False
    scores: list[Scored] = field(default_factory=list)
    _decoded: str = ""  # the decoded text, without an incomplete last character
    # the length of the decoded text after each token, if wants_scores
    _ends: list[int] = field(default_factory=list)
    # the number of ids, and of decoded characters, up to the last token that ended a character
    _boundary: tuple[int, int] | None = None
    _released_characters: int = 0
    _released_tokens: int = 0
    _sentence_end: int = 0  # number of characters up to the end of the last complete sentence

    def __post_init__(self) -> None:
        self._sentence_end = len(self.text.prompt)
        if not self.scores_prompt:
            self._decoded = self.text.prompt
        if not self.is_echoed:
            self._released_characters = self._sentence_end

    @property
    def first(self) -> int:
        """The index, in the ids of the text, of the first token that may be released."""
        return 0 if self.scores_prompt else len(self.text.ids) - self.text.new_tokens

    def release(self) -> tuple[str, list[Token]]:
        """Return the characters that can be released now, without those released before.

        The list has the tokens of these characters if ``wants_scores``; else it is empty.
        """
        if self.text.finish_reason is not None:
            return self._release_end()
        if self.is_whole:
            return "", []
        self._decode_new()
        prompt_end = len(self.text.prompt)
        until = first_stop(self._decoded, self.stops, max(self._released_characters, prompt_end))
        if self.text.config.finish == "sentence":
            self._sentence_end = last_whole_sentence(self._decoded, self._sentence_end)
            until = min(until, self._sentence_end)
        count = self._released_tokens
        # with scores, only whole tokens are released
        if self.wants_scores:
            while count < len(self._ends) and self._ends[count] <= until:
                count += 1
            until = self._ends[count - 1] if count else self._released_characters
        return self._take(until, count)

    def _release_end(self) -> tuple[str, list[Token]]:
        """Return the characters and tokens of a complete text that were not released yet, without
        the stop string that ended it.
        """
        if self.wants_scores:
            self._decode_new()
        self._decoded = self.text.text
        length = len(self._decoded)
        # when the text was finished, its last tokens may have been removed
        count = min(len(self._ends), len(self.text.ids) - self.first)
        self._ends = [min(end, length) for end in self._ends[:count]]
        # the last token gets all characters up to the end of the text
        if count > self._released_tokens:
            self._ends[-1] = length
        if self.text.finish_reason == "stop":
            new = self._decoded[len(self.text.prompt) :]
            stop = max((stop for stop in self.stops if new.endswith(stop)), key=len, default="")
            self._decoded = self._decoded.removesuffix(stop)
            # leave out the tokens that lie in the stop string
            while count > self._released_tokens and self._start(count - 1) >= len(self._decoded):
                count -= 1
        return self._take(len(self._decoded), count)

    def _take(self, until: int, count: int) -> tuple[str, list[Token]]:
        """Release the characters before index ``until`` and the first ``count`` tokens, and return
        those that were not released before.
        """
        tokens = list[Token]()
        for index in range(self._released_tokens, count):
            start = self._start(index)
            end = min(self._ends[index], until)  # a stop string may begin inside the last token
            token = self.text.ids[self.first + index]
            tokens.append(Token(token, self._decoded[start:end], start, self.scores[index]))
        characters = self._decoded[self._released_characters : until]
        self._released_characters = max(self._released_characters, until)
        self._released_tokens = max(self._released_tokens, count)
        return characters, tokens

    def _start(self, index: int) -> int:
        """Return where the characters of the token with this index start."""
        if index:
            return self._ends[index - 1]
        return 0 if self.scores_prompt else len(self.text.prompt)

    def _decode_new(self) -> None:
        """Decode the new tokens. With ``wants_scores``, only tokens that have scores are decoded,
        one at a time, to record where each ends; otherwise, all are decoded at once.
        """
        if self.wants_scores:
            scored = min(self.first + len(self.scores), len(self.text.ids))
            for count in range(self.first + len(self._ends) + 1, scored + 1):
                self._decode(count)
                self._ends.append(len(self._decoded))
        elif self.text.new_tokens:  # without new tokens, the ids may lack a part of the prompt
            self._decode(len(self.text.ids))

    def _decode(self, count: int) -> None:
        """Decode the first ``count`` ids, without an incomplete last character."""
        ids = self.text.ids
        tokenizer = self.text.pieces.tokenizer
        # without SupportsTokenBytes, the texts of single ids may not add up to that of all ids
        if self._boundary is None or not isinstance(tokenizer, SupportsTokenBytes):
            decoded = tokenizer.decode(ids[:count])
            if not self.scores_prompt:
                decoded = self.text.prompt + decoded[self.text.prompt_length :]
        else:
            first, characters = self._boundary
            # the usual case: one new token, whose text is known
            piece = self.text.pieces.texts[ids[first]] if count - first == 1 else ""
            decoded = self._decoded[:characters] + (piece or tokenizer.decode(ids[first:count]))
        self._decoded = decoded.rstrip("\ufffd")
        if len(self._decoded) == len(decoded):
            self._boundary = (count, len(decoded))


def first_stop(text: str, stops: Sequence[str], start: int) -> int:
    """Return where the first stop string in a text starts.

    The beginning of a stop string at the end of the text counts, too. If there is neither, return
    the length of the text.

    Args:
        text: The text.
        stops: The stop strings.
        start: The index at which the search starts.

    >>> first_stop("a cat", ["cab", "zoo"], 0), first_stop("a ca", ["cab", "zoo"], 0)
    (5, 2)
    """
    if not stops:
        return len(text)
    indices = [text.find(stop, start) for stop in stops]
    first = min((index for index in indices if index >= 0), default=len(text))
    longest = max(map(len, stops))
    for index in range(max(start, len(text) - longest + 1), first):
        if any(stop.startswith(text[index:]) for stop in stops):
            return index
    return first


def score_token(
    logits: Float[np.ndarray, " V"], token: int, count: int, pieces: TokenTexts
) -> Scored:
    """Return the log probability of a token, and the ``count`` most probable tokens.

    bos, ids of conditions, and tokens with probability zero are never among the most probable ones.

    Raises:
        GenerationError: The logits are damaged: NaN or infinite, or all tokens are ruled out.
    """
    logprobs = log_softmax(logits)
    own = float(logprobs[token])
    if count == 0:
        return Scored(own)
    logprobs[pieces.bos_id] = -np.inf
    logprobs = logprobs[: len(pieces.texts)]  # leaves out the ids of conditions
    alternatives = [
        TopLogprob(other, pieces.texts[other], float(logprobs[other]))
        for other in most_probable(logprobs, count)
        if logprobs[other] > -np.inf
    ]
    return Scored(own, tuple(alternatives))
