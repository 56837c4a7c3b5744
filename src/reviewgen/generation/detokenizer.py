"""What may be shown of a text while it is generated, and the log probabilities of its tokens.

Tokens are released as whole characters once they are final. Characters are held back

- while they may be the beginning of a stop string, where these are not a part of the text, as
  OpenAI has it;
- with ``finish="sentence"`` until their sentence has ended and another one has begun;
- until the text is complete, where decoding may go back by any number of tokens
  (``novelty="filter"``) or the consumer wants the complete text only.

Log probabilities are the model's own, in nats, at temperature 1, before filters, penalties and
processors. V logits.
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
    """A token that the model could have continued with: its id, its text ("" for a part of a
    character), and its logprob.
    """

    token: int
    text: str
    logprob: float


class Scored(NamedTuple):
    """The log probability of a token, and the most probable tokens in its place, the most probable
    first.
    """

    logprob: float
    alternatives: tuple[TopLogprob, ...] = ()


class Token(NamedTuple):
    """A token that belongs to a text for good.

    Attributes:
        id: Its id.
        text: The characters that it adds; "" for a part of a character, whose last part adds it.
        start: Where they start in the text, prompt included.
        score: Its log probability, with alternatives.
    """

    id: int
    text: str
    start: int
    score: Scored


@dataclass
class Detokenizer:
    """Turns the tokens of one text into characters that can be released.

    Attributes:
        source: The text that is being generated.
        stops: Strings that end it and are not a part of what is released.
        is_whole: Whether everything is held back until the text is complete.
        is_echoed: Whether the prompt is released, too.
        is_scored: Whether tokens are wanted, each with its log probability; a token is held back
            until it has one.
        scores_prompt: Whether the tokens of the prompt are wanted, too; only if it is echoed.
        scores: Those of the tokens, and of the end if the text ended by itself.
    """

    source: Text
    stops: Sequence[str] = ()
    is_whole: bool = False
    is_echoed: bool = False
    is_scored: bool = False
    scores_prompt: bool = False
    scores: list[Scored] = field(default_factory=list)
    _text: str = ""  # whole characters only
    # the length of the text after each token, if tokens are wanted
    _ends: list[int] = field(default_factory=list)
    # ids and characters up to the last token that ended a character
    _known: tuple[int, int] | None = None
    _sent: tuple[int, int] = (0, 0)  # characters and tokens
    _safe: int = 0  # characters of whole sentences

    def __post_init__(self) -> None:
        self._text, self._safe = (
            "" if self.scores_prompt else self.source.prompt,
            len(self.source.prompt),
        )
        self._sent = 0 if self.is_echoed else self._safe, 0

    @property
    def first(self) -> int:
        """The index of the first token that is wanted in the ids of the text."""
        return 0 if self.scores_prompt else len(self.source.ids) - self.source.new_tokens

    def release(self) -> tuple[str, list[Token]]:
        """Return the characters that can be released by now and were not yet, and their tokens if
        they are wanted.
        """
        if self.source.finish_reason is not None:
            return self._release_end()
        if self.is_whole:
            return "", []
        self._read()
        sent, count = self._sent
        until = first_stop(self._text, self.stops, max(sent, len(self.source.prompt)))
        if self.source.config.finish == "sentence":
            self._safe = last_whole_sentence(self._text, self._safe)
            until = min(until, self._safe)
        if self.is_scored:
            while count < len(self._ends) and self._ends[count] <= until:
                count += 1
            until = self._ends[count - 1] if count else sent
        return self._take(until, count)

    def _release_end(self) -> tuple[str, list[Token]]:
        """Return the rest of a complete text, without the stop string that ended it."""
        if self.is_scored:
            self._read()
        source, self._text = self.source, self.source.text
        self._ends = [
            min(end, len(self._text)) for end in self._ends[: len(source.ids) - self.first]
        ]
        if len(self._ends) > self._sent[1]:
            self._ends[-1] = len(self._text)
        count = len(self._ends)
        if source.finish_reason == "stop":
            new = self._text[len(source.prompt) :]
            stop = max((stop for stop in self.stops if new.endswith(stop)), key=len, default="")
            self._text = self._text.removesuffix(stop)
            while count > self._sent[1] and self._start(count - 1) >= len(self._text):
                count -= 1
        return self._take(len(self._text), count)

    def _take(self, until: int, count: int) -> tuple[str, list[Token]]:
        """Return the characters and the tokens up to some of each that were not returned yet."""
        (sent, first), tokens = self._sent, list[Token]()
        for index in range(first, count):
            start = self._start(index)
            end = min(self._ends[index], until)  # a stop string may begin inside the last token
            tokens.append(
                Token(
                    self.source.ids[self.first + index],
                    self._text[start:end],
                    start,
                    self.scores[index],
                )
            )
        self._sent = max(sent, until), max(first, count)
        return self._text[sent:until], tokens

    def _start(self, index: int) -> int:
        """Return where the characters of a token start."""
        return (
            self._ends[index - 1] if index else 0 if self.scores_prompt else len(self.source.prompt)
        )

    def _read(self) -> None:
        """Decode what is new: token by token if they are wanted, those that are scored, else all at
        once.
        """
        first = self.first
        last = len(self.source.ids)
        if self.is_scored:
            for count in range(
                first + len(self._ends) + 1, min(first + len(self.scores), last) + 1
            ):
                self._decode(count)
                self._ends.append(len(self._text))
        elif self.source.new_tokens:  # else a part of the prompt may not be in the ids yet
            self._decode(last)

    def _decode(self, count: int) -> None:
        """Set the text to that of the first ``count`` ids, without an incomplete last character."""
        ids = self.source.ids
        known = self._known
        tokenizer = self.source.pieces.tokenizer
        # a text may not be that of its tokens in turn
        if known is None or not isinstance(tokenizer, SupportsTokenBytes):
            text = tokenizer.decode(ids[:count])
            text = (
                text
                if self.scores_prompt
                else self.source.prompt + text[self.source.prompt_length :]
            )
        else:
            piece = self.source.pieces.texts[ids[known[0]]] if count - known[0] == 1 else ""
            text = self._text[: known[1]] + (piece or tokenizer.decode(ids[known[0] : count]))
        self._text = text.rstrip("\ufffd")
        if len(self._text) == len(text):
            self._known = count, len(text)


def first_stop(text: str, stops: Sequence[str], start: int) -> int:
    """Return where the first stop string, or the beginning of one at the end of a text, starts; its
    length if there is none.

    >>> first_stop("a cat", ["cab", "zoo"], 0), first_stop("a ca", ["cab", "zoo"], 0)
    (5, 2)
    """
    if not stops:
        return len(text)
    first = min(
        (place for stop in stops if (place := text.find(stop, start)) >= 0), default=len(text)
    )
    for place in range(max(start, len(text) - max(map(len, stops)) + 1), first):
        if any(stop.startswith(text[place:]) for stop in stops):
            return place
    return first


def score_token(
    logits: Float[np.ndarray, " V"], token: int, count: int, pieces: TokenTexts
) -> Scored:
    """Return the log probability of a token and the ``count`` most probable ones; none that the
    model rules out.

    Raises:
        GenerationError: The logits are damaged: NaN or infinite, or all tokens are ruled out.
    """
    logs = log_softmax(logits)
    score = float(logs[token])
    if count == 0:
        return Scored(score)
    logs[pieces.bos_id] = -np.inf
    logs = logs[: len(pieces.texts)]  # the others are those of conditions
    listed = ((id_, float(logs[id_])) for id_ in most_probable(logs, count))
    return Scored(
        score,
        tuple(
            TopLogprob(id_, pieces.texts[id_], logprob)
            for id_, logprob in listed
            if logprob > -np.inf
        ),
    )
