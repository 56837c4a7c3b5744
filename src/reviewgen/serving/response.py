"""One request in progress: its texts, and the JSON that the client gets of them, whole or in chunks."""

import math
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

from reviewgen.novelty import Span
from reviewgen.serving.engine import Progress, ServedText
from reviewgen.serving.protocol import Call
from reviewgen.serving.texts import Scored, Token

_END = "<|endoftext|>"  # OpenAI's name of the token that ends a text
_IMPOSSIBLE = -9999.0  # OpenAI's log probability of a token that the model rules out


@dataclass
class Choice:
    """One text that is being generated.

    Attributes:
        prompt: Its prompt.
        is_echoed: Whether the prompt is sent, too.
        bos: The token before the prompt, where the client has sent it and wants the tokens of the prompt.
        unsent: What was not sent yet.
        prompt_tokens, tokens: The tokens of prompt and text that were not sent yet.
        text: The characters after the prompt so far; without the stop string once the text is complete.
        source: The text in the engine; None until there is anything of it.
        is_over: Whether it is complete.
        copied: The copied spans of the whole text.
        is_reported: Whether the client knows that it is complete.
    """

    prompt: str
    is_echoed: bool
    bos: Sequence[Token]
    unsent: str = ""
    prompt_tokens: list[Token] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    text: str = ""
    source: ServedText | None = None
    is_over: bool = False
    copied: Sequence[Span] = ()
    is_reported: bool = False

    def read(self, news: Progress) -> None:
        """Take in what is new of the text."""
        if self.source is None:
            self.prompt_tokens, self.unsent = [*self.bos, *news.prompt], self.prompt if self.is_echoed else ""
        self.source, self.is_over = news.source, news.is_over
        self.tokens += news.tokens
        self.text += news.text
        self.unsent += news.text

    @property
    def has_news(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.unsent or self.prompt_tokens or self.tokens or (self.is_over and not self.is_reported))

    @property
    def mean_logprob(self) -> float:
        """The mean log probability of the tokens of a complete text."""
        assert self.source is not None
        count = self.source.new_tokens
        return sum(score.logprob for score in self.source.out.scores[:count]) / max(1, count)


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
        fields, bos = self.call.fields, Token(self.bos_id, "", 0, Scored(math.nan))
        return [
            Choice(prompt, bool(fields.echo), [bos] if fields.scores_prompts and starts_with_bos else [])
            for prompt, starts_with_bos in zip(self.call.asked.request.prompts, self.call.starts_with_bos, strict=True)
        ]

    @property
    def is_over(self) -> bool:
        """Whether all texts are complete."""
        return all(choice.is_over for choice in self.choices)

    def whole(self, started: Sequence[ServedText]) -> dict[str, Any]:
        """Return the response of a request that is not streamed: for each prompt the n texts that are most probable on average.

        Args:
            started: The texts that were started, whose tokens are counted.
        """
        tries, n = self.call.fields.tries_per_prompt, self.call.fields.n or 1
        groups = [self.choices[start : start + tries] for start in range(0, len(self.choices), tries)]
        if self.call.fields.picks_best:
            groups = [sorted(group, key=lambda choice: -choice.mean_logprob)[:n] for group in groups]
        best = [choice for group in groups for choice in group]
        return self._object([self._choice(index, choice) for index, choice in enumerate(best)]) | {"usage": self.usage(started)}

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Yield a chunk for each text that has grown or ended since the last call."""
        more = {"usage": None} if self.call.fields.include_usage else {}
        for index, choice in enumerate(self.choices):
            if choice.has_news:
                yield self._object([self._choice(index, choice)]) | more

    def last_chunks(self, started: Sequence[ServedText]) -> list[dict[str, Any]]:
        """Return the chunk with the numbers of tokens, of a stream that asked for them."""
        return [self._object([]) | {"usage": self.usage(started)}] if self.call.fields.include_usage else []

    def usage(self, started: Sequence[ServedText]) -> dict[str, int]:
        """Return the tokens of all prompts, each of which counts once, and of all texts."""
        prompts = {text.number // self.call.fields.tries_per_prompt: len(text.ids) - text.new_tokens for text in started}
        given, new = sum(prompts.values()), sum(text.new_tokens for text in started)
        return {"prompt_tokens": given, "completion_tokens": new, "total_tokens": given + new}

    def _object(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        head: dict[str, Any] = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        return head | {"choices": choices}

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """Return OpenAI's fields of what was not sent yet of a text, and ours under ``reviewgen``."""
        logprobs, own, reason = None, dict[str, Any](), None
        if self.call.fields.logprobs is not None:
            own["tokens"] = [self._own_token(token) for token in choice.tokens]
            logprobs = self._logprobs(choice)
        if choice.is_over and not choice.is_reported and choice.source is not None:
            text, choice.is_reported, ended = choice.prompt + choice.text, True, choice.source.finish_reason
            reason = "stop" if ended in ("end", "stop") else "length"  # a text that was cut off
            own |= {"text": text, "reason": ended, "copied": _spans(text, choice.copied)}
        fields: dict[str, Any] = {"index": index, "text": choice.unsent, "logprobs": logprobs, "finish_reason": reason}
        choice.unsent, choice.prompt_tokens, choice.tokens = "", [], []
        return fields | ({"reviewgen": own} if own else {})

    def _logprobs(self, choice: Choice) -> dict[str, Any]:
        """Return the log probabilities of tokens, in OpenAI's format: those of the token taken, and of the most probable ones."""
        listed, source = choice.prompt_tokens + choice.tokens, choice.source
        is_last = source is not None and choice.is_over and not choice.is_reported and source.finish_reason == "end"
        if self.call.fields.scores_prompts and source is not None and is_last:
            score = source.out.scores[source.new_tokens]
            listed.append(Token(self.eos_id, _END, len(choice.prompt) + len(choice.text), score))
        return {
            "tokens": [token.text for token in listed],
            "token_logprobs": [_number(token.score.logprob) for token in listed],
            "top_logprobs": [self._top_logprobs(token) for token in listed],
            "text_offset": [token.start for token in listed],
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
