"""One text of a response, from the engine's events to what the client gets of it: pieces of text, log probabilities, its end.

The engine's text includes the stop string that ended it, OpenAI's does not; so a piece that may be the beginning of a stop
string is held back until it is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from reviewgen.serving.events import EndEvent, Span, TokenEvent

__all__ = ["FINISH_REASONS", "Choice", "Piece", "logprobs_of", "own_tokens", "spans_of"]

_END = "<|endoftext|>"  # OpenAI's name of the token that ends a text
FINISH_REASONS = {"end": "stop", "stop": "stop"}  # every other reason of ours is a text that was cut off: "length"


@dataclass(frozen=True)
class Piece:
    """What is sent of a text at once.

    Attributes:
        text: The characters.
        tokens: The new tokens, each with the index in prompt and text at which it starts.
        is_last: Whether the text has ended with it.
    """

    text: str
    tokens: Sequence[tuple[int, TokenEvent]]
    is_last: bool


@dataclass
class Choice:
    """One text that is being generated.

    Attributes:
        prompt: Its prompt.
        stops: The strings that end it.
        echo: Whether the first piece starts with the prompt.
        text: The characters after the prompt so far; without the stop string once it has ended.
        end: How it ended; None while it goes on.
        log_probability: The sum over its tokens, in nats.
        tokens: The number of its tokens so far.
    """

    prompt: str
    stops: Sequence[str] = ()
    echo: bool = False
    text: str = ""
    end: EndEvent | None = None
    log_probability: float = 0.0
    tokens: int = 0
    _held: list[tuple[int, TokenEvent]] = field(default_factory=list)
    _released: int = 0
    _is_reported: bool = False

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
        return Piece(text, ready, is_last)

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
    top = [_top_logprobs(event, count, eos_id) for _, event in piece.tokens]
    return {
        "tokens": [event.text for _, event in piece.tokens],
        "token_logprobs": [event.logprob for _, event in piece.tokens],
        "top_logprobs": top,
        "text_offset": [start for start, _ in piece.tokens],
    }


def _top_logprobs(event: TokenEvent, count: int, eos_id: int) -> dict[str, float]:
    """Return log probabilities by text: of the token taken, then of the most probable token with each text."""
    top: dict[str, float] = {}
    for token, text, logprob in event.alternatives[:count]:
        if token != event.token:
            top.setdefault(_END if token == eos_id else text, logprob)
    return top | {event.text: event.logprob}


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
