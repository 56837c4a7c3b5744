"""One request in progress: its texts, and the JSON that the client gets of them, whole or in chunks."""

import math
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

from reviewgen.novelty import Span
from reviewgen.serving.protocol import Call
from reviewgen.serving.texts import Ended, Progress, Scored, Token

_END = "<|endoftext|>"  # OpenAI's name of the token that ends a text
_IMPOSSIBLE = -9999.0  # OpenAI's log probability of a token that the model rules out


@dataclass
class Choice:
    """One text that is being generated.

    Attributes:
        prompt: Its prompt.
        starts_with_bos: Whether the ids of the prompt begin with bos, which is then listed with the prompt's tokens.
        unsent: What was not sent yet: at first the prompt, where it is echoed.
        prompt_tokens, tokens: The tokens of prompt and text that were not sent yet, with the index of the first character.
        text: The characters after the prompt so far; without the stop string once it has ended.
        ended: How it ended; None while it goes on.
        copied: The copied spans of the whole text.
        is_reported: Whether the client knows that it has ended.
    """

    prompt: str
    starts_with_bos: bool
    unsent: str
    prompt_tokens: list[tuple[int, Token]] = field(default_factory=list)
    tokens: list[tuple[int, Token]] = field(default_factory=list)
    text: str = ""
    ended: Ended | None = None
    copied: Sequence[Span] = ()
    is_reported: bool = False

    def read(self, event: Progress, bos_id: int) -> None:
        """Take in what is new of the text."""
        if event.prompt is not None:
            bos = [Token(bos_id, "", Scored(math.nan))] if self.starts_with_bos else []
            self.prompt_tokens = _placed([*bos, *event.prompt], 0)
        self.tokens += _placed(event.tokens, len(self.prompt) + len(self.text))
        self.text += event.text
        self.unsent += event.text
        self.ended = event.ended

    @property
    def has_news(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.unsent or self.prompt_tokens or self.tokens or (self.ended and not self.is_reported))


@dataclass
class Completion:
    """A request in progress.

    Attributes:
        model: The name of its model.
        call: What was asked for.
        bos_id, eos_id: The tokens before a text, and that end it.
        id: Its name, for the client's log.
        created: When it came, in seconds since 1970.
    """

    model: str
    call: Call
    bos_id: int
    eos_id: int
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def choices(self) -> list[Choice]:
        """All texts that are generated, by their number in the request."""
        prompts, echo = self.call.asked.request.prompts, self.call.fields.echo
        return [
            Choice(prompt, bos, prompt if echo else "") for prompt, bos in zip(prompts, self.call.starts_with_bos, strict=True)
        ]

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return bool((self.call.fields.stream_options or {}).get("include_usage"))

    @property
    def is_over(self) -> bool:
        """Whether all texts have ended."""
        return all(choice.ended for choice in self.choices)

    def whole(self, lengths: Mapping[int, tuple[int, int]]) -> dict[str, Any]:
        """Return the response of a request that is not streamed: for each prompt the n texts that are most probable on average.

        Args:
            lengths: The tokens of prompt and text, by the number of the text.
        """
        tries, n = self.call.fields.tries_per_prompt, self.call.fields.n or 1
        groups = [self.choices[start : start + tries] for start in range(0, len(self.choices), tries)]
        if self.call.fields.picks_best:
            groups = [sorted(group, key=_surprise)[:n] for group in groups]
        best = [choice for group in groups for choice in group]
        return self._object([self._choice(index, choice) for index, choice in enumerate(best)]) | {"usage": self.usage(lengths)}

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Yield a chunk for each text that has grown or ended since the last call."""
        more = {"usage": None} if self.include_usage else {}
        for index, choice in enumerate(self.choices):
            is_scoring = self.call.fields.scores_prompts and not (choice.prompt_tokens or choice.text or choice.ended)
            if choice.has_news and not is_scoring:
                yield self._object([self._choice(index, choice)]) | more

    def last_chunk(self, lengths: Mapping[int, tuple[int, int]]) -> dict[str, Any]:
        """Return the chunk with the numbers of tokens, of a stream that asked for them."""
        return self._object([]) | {"usage": self.usage(lengths)}

    def usage(self, lengths: Mapping[int, tuple[int, int]]) -> dict[str, int]:
        """Return the tokens of all prompts, each of which counts once, and of all texts."""
        prompts = {number // self.call.fields.tries_per_prompt: prompt for number, (prompt, _) in lengths.items()}
        given, new = sum(prompts.values()), sum(new for _, new in lengths.values())
        return {"prompt_tokens": given, "completion_tokens": new, "total_tokens": given + new}

    def _object(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        head: dict[str, Any] = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        return head | {"choices": choices}

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """Return OpenAI's fields of what was not sent yet of a text, and ours under ``reviewgen``."""
        count, logprobs, own, reason = self.call.fields.logprobs, None, dict[str, Any](), None
        if count is not None:
            own["tokens"] = [self._own_token(token) for _, token in choice.tokens]
            logprobs = self._logprobs(choice)
        if choice.ended and not choice.is_reported:
            text, choice.is_reported = choice.prompt + choice.text, True
            reason = "stop" if choice.ended.reason in ("end", "stop") else "length"  # a text that was cut off
            own |= {"text": text, "reason": choice.ended.reason, "copied": _spans(text, choice.copied)}
        fields: dict[str, Any] = {"index": index, "text": choice.unsent, "logprobs": logprobs, "finish_reason": reason}
        choice.unsent, choice.prompt_tokens, choice.tokens = "", [], []
        return fields | ({"reviewgen": own} if own else {})

    def _logprobs(self, choice: Choice) -> dict[str, Any]:
        """Return the log probabilities of tokens, in OpenAI's format: those of the token taken, and of the most probable ones."""
        listed = choice.prompt_tokens + choice.tokens
        if self.call.fields.scores_prompts and choice.ended and choice.ended.score and not choice.is_reported:
            end = len(choice.prompt) + len(choice.text), Token(self.eos_id, _END, choice.ended.score)
            listed.append(end)
        return {
            "tokens": [token.text for _, token in listed],
            "token_logprobs": [_number(token.score.logprob) for _, token in listed],
            "top_logprobs": [self._top_logprobs(token) for _, token in listed],
            "text_offset": [start for start, _ in listed],
        }

    def _top_logprobs(self, token: Token) -> dict[str, float] | None:
        """Return log probabilities by text: of the most probable token with each text, and of the token taken; None for bos."""
        if (own := _number(token.score.logprob)) is None:
            return None
        top: dict[str, float] = {}
        for other in token.score.alternatives:
            if other.token != token.id:
                top.setdefault(_END if other.token == self.eos_id else other.text, other.logprob)
        return top | {token.text: own}

    def _own_token(self, token: Token) -> dict[str, Any]:
        """Return a token with its alternatives as a list, in which two may have the same text."""
        others = [
            {"text": text, "logprob": logprob, "is_end": other == self.eos_id}
            for other, text, logprob in token.score.alternatives
        ]
        return {"text": token.text, "logprob": token.score.logprob, "alternatives": others}


def _surprise(choice: Choice) -> float:
    return -choice.ended.mean_logprob if choice.ended else 0.0


def _placed(tokens: Sequence[Token], start: int) -> list[tuple[int, Token]]:
    """Return tokens, each with the index of its first character; that of the first one is ``start``."""
    starts = accumulate((len(token.text) for token in tokens), initial=start)
    return list(zip(starts, tokens, strict=False))


def _number(logprob: float) -> float | None:
    """Return a log probability as a number of JSON; None for bos, which has none."""
    return None if math.isnan(logprob) else max(logprob, _IMPOSSIBLE)


def _spans(text: str, spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Return copied spans as JSON values, with the offsets of JavaScript's strings: UTF-16 units."""
    units = list(accumulate((2 if character > "\uffff" else 1 for character in text), initial=0))
    last = len(text)  # a stop string is not part of the text, but may be of a span
    return [
        {"start": units[span.start], "end": units[min(span.end, last)], "length": span.tokens, "source": span.excerpt}
        for span in spans
        if span.start < last
    ]
