"""One text of a response, from the engine's events to what the client gets of it: pieces of text, log probabilities, its end.

The engine's text includes the stop string that ended it, OpenAI's does not; so a piece that may be the beginning of a stop
string is held back until it is known.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from reviewgen.novelty import Span
from reviewgen.serving.events import EndEvent, Scored, TokenEvent

_END = "<|endoftext|>"  # OpenAI's name of the token that ends a text
_IMPOSSIBLE = -9999.0  # OpenAI's log probability of a token that the model rules out
FINISH_REASONS = {"end": "stop", "stop": "stop"}  # every other reason of ours is a text that was cut off: "length"


@dataclass(frozen=True)
class Piece:
    """What is sent of a text at once.

    Attributes:
        text: The characters.
        tokens: The new tokens, each with the index in prompt and text at which it starts.
        is_last: Whether the text has ended with it.
        prompt: The tokens of the prompt, of the first piece of a text whose prompt is scored.
        ended: The score of the end, with the index where it is; of the last piece of such a text that ended by itself.
    """

    text: str
    tokens: Sequence[tuple[int, TokenEvent]]
    is_last: bool
    prompt: Sequence[tuple[int, TokenEvent]] = ()
    ended: tuple[int, Scored] | None = None


@dataclass
class Choice:
    """One text that is being generated.

    Attributes:
        prompt: Its prompt.
        stops: The strings that end it.
        echo: Whether the first piece starts with the prompt.
        scores_prompt: Whether it also has the prompt's tokens, before which nothing is sent.
        starts_with_bos: Whether these begin with bos.
        text: The characters after the prompt so far; without the stop string once it has ended.
        end: How it ended; None while it goes on.
        log_probability: The sum over its tokens, in nats.
        tokens: The number of its tokens so far.
    """

    prompt: str
    stops: Sequence[str] = ()
    echo: bool = False
    scores_prompt: bool = False
    starts_with_bos: bool = False
    text: str = ""
    end: EndEvent | None = None
    log_probability: float = 0.0
    tokens: int = 0
    _prompt: list[tuple[int, TokenEvent]] | None = None
    _held: list[tuple[int, TokenEvent]] = field(default_factory=list)
    _released: int = 0
    _is_reported: bool = False

    def add_prompt(self, tokens: Sequence[TokenEvent], bos_id: int) -> None:
        """Set the tokens of the prompt."""
        bos = [TokenEvent(0, bos_id, "", math.nan, ())] if self.starts_with_bos else []
        starts = accumulate((len(token.text) for token in (*bos, *tokens)), initial=0)
        self._prompt = list(zip(starts, (*bos, *tokens), strict=False))

    @property
    def scored_tokens(self) -> int:
        """The number of tokens that the next piece has."""
        return len(self._prompt or ()) + len(self._held)

    def add(self, event: TokenEvent) -> None:
        """Append a token."""
        self._held.append((len(self.prompt) + len(self.text), event))
        self.text += event.text
        self.log_probability += event.logprob
        self.tokens += 1

    def finish(self, event: EndEvent) -> None:
        """End the text."""
        self.end = event
        self.text = event.text[len(self.prompt) :]
        if event.reason == "stop":
            endings = [stop for stop in self.stops if self.text.endswith(stop)]
            self.text = self.text.removesuffix(max(endings, key=len, default=""))

    def release(self) -> Piece:
        """Return what may be sent by now and was not yet."""
        if self.scores_prompt and self._prompt is None:
            return Piece("", [], False)
        until = len(self.text) if self.end else self._last_boundary()
        start = len(self.prompt) + until
        is_cut = self.end is None or self.end.reason == "stop"
        ready = [held for held in self._held if held[0] < start or not is_cut]
        self._held = self._held[len(ready) :] if self.end is None else []
        if ready and is_cut:  # the stop string may begin inside the last token
            first, event = ready[-1]
            ready[-1] = first, event._replace(text=event.text[: start - first])
        text = self.text[self._released : until]
        if self.echo:
            text, self.echo = self.prompt + text, False
        self._released = max(self._released, until)
        is_last, self._is_reported = self.end is not None and not self._is_reported, self.end is not None
        prompt, self._prompt = self._prompt or (), [] if self.scores_prompt else None
        scored = self.end.ended if self.end and is_last and self.scores_prompt else None
        return Piece(text, ready, is_last, prompt, None if scored is None else (start, scored))

    def _last_boundary(self) -> int:
        """Return where the last token ends that has no part of what may be a stop string."""
        until = _first_stop(self.text, self.stops, self._released)
        starts = ((start - len(self.prompt), len(event.text)) for start, event in self._held)
        return next((start for start, length in starts if start + length > until), until)

    @property
    def finish_reason(self) -> str | None:
        """OpenAI's name of how the text ended: "stop" or "length"; None while it goes on."""
        return FINISH_REASONS.get(self.end.reason, "length") if self.end else None

    @property
    def mean_log_probability(self) -> float:
        """The mean over its tokens, in nats."""
        return self.log_probability / max(1, self.tokens)


def _first_stop(text: str, stops: Sequence[str], start: int) -> int:
    """Return where the first stop string, or the beginning of one at the end of a text, starts; its length if there is none."""
    if not stops:
        return len(text)
    found = min((place for stop in stops if (place := text.find(stop, start)) >= 0), default=len(text))
    for place in range(max(start, len(text) - max(map(len, stops)) + 1), found):
        if any(stop.startswith(text[place:]) for stop in stops):
            return place
    return found


def logprobs_of(piece: Piece, count: int, eos_id: int) -> dict[str, Any]:
    """Return the log probabilities of a piece, in OpenAI's format: those of the token taken, and of the most probable ones."""
    listed = [*piece.prompt, *piece.tokens]
    if piece.ended is not None:
        start, scored = piece.ended
        listed.append((start, TokenEvent(0, eos_id, _END, *scored)))
    return {
        "tokens": [event.text for _, event in listed],
        "token_logprobs": [_number(event.logprob) for _, event in listed],
        "top_logprobs": [_top_logprobs(event, count, eos_id) for _, event in listed],
        "text_offset": [start for start, _ in listed],
    }


def _top_logprobs(event: TokenEvent, count: int, eos_id: int) -> dict[str, float] | None:
    """Return log probabilities by text: of the token taken, then of the most probable token with each text; None for bos."""
    if (own := _number(event.logprob)) is None:
        return None
    top: dict[str, float] = {}
    for token, text, logprob in event.alternatives[:count]:
        if token != event.token:
            top.setdefault(_END if token == eos_id else text, logprob)
    return top | {event.text: own}


def _number(logprob: float) -> float | None:
    """Return a log probability as a number of JSON; None for bos, which has none."""
    return None if math.isnan(logprob) else max(logprob, _IMPOSSIBLE)


def own_tokens(piece: Piece, count: int, eos_id: int) -> list[dict[str, Any]]:
    """Return the tokens of a piece with their alternatives as a list, in which two may have the same text."""
    return [
        {
            "text": event.text,
            "logprob": event.logprob,
            "alternatives": [
                {"text": text, "logprob": logprob, "is_end": token == eos_id}
                for token, text, logprob in event.alternatives[:count]
            ],
        }
        for _, event in piece.tokens
    ]


def spans_of(text: str, spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Return copied spans as JSON values, with the offsets of JavaScript's strings: UTF-16 units."""
    units = list(accumulate((2 if character > "\uffff" else 1 for character in text), initial=0))
    last = len(text)  # a stop string is not part of the text, but may be of a span
    return [
        {
            "start": units[min(span.start, last)],
            "end": units[min(span.end, last)],
            "length": span.tokens,
            "source": span.excerpt,
        }
        for span in spans
        if span.start < last
    ]
