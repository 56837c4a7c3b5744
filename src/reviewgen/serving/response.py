"""One request in progress: its texts, and the JSON that the client gets of them, whole or in
chunks.
"""

import math
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

from reviewgen.generation.detokenizer import Scored, Token
from reviewgen.novelty import Span
from reviewgen.serving.engine import ServedText, TextDelta
from reviewgen.serving.protocol import CompletionCall

_END = "<|endoftext|>"  # OpenAI's name of the token that ends a text
_IMPOSSIBLE = -9999.0  # OpenAI's log probability of a token that the model rules out


@dataclass
class Choice:
    """One text that is being generated.

    Attributes:
        prompt: Its prompt.
        text: The text so far, whole if the prompt is not echoed; without the stop string once it is
            complete.
        tokens: The tokens that were not sent yet.
        unsent: The characters that were not sent yet.
        served: The text in the engine; None until there is anything of it, and once its end was
            sent.
        is_over: Whether it is complete.
        is_sent: Whether a part of it was sent.
        copied: The copied spans of the whole text.
    """

    prompt: str
    text: str
    tokens: list[Token]
    unsent: str = ""
    served: ServedText | None = None
    is_over: bool = False
    is_sent: bool = False
    copied: Sequence[Span] = ()

    def read(self, news: TextDelta) -> None:
        """Take in what is new of the text."""
        self.served = news.text
        self.is_over = news.is_over
        self.tokens += news.tokens
        self.text += news.characters
        self.unsent += news.characters

    @property
    def mean_logprob(self) -> float:
        """The mean log probability of the tokens of a complete text."""
        assert self.served is not None
        first = len(self.served.ids) - self.served.new_tokens - self.served.out.first
        count = self.served.new_tokens
        return sum(score.logprob for score in self.served.out.scores[first : first + count]) / max(
            1, count
        )


@dataclass
class Completion:
    """A request in progress.

    Attributes:
        call: What was asked for.
        is_chat: Whether as a chat completion.
        created: When it came, in seconds since 1970.
    """

    call: CompletionCall
    is_chat: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def id(self) -> str:
        """Its name, for the client's log."""
        return f"{'chat' * self.is_chat}cmpl-{uuid.uuid4().hex}"

    @cached_property
    def choices(self) -> list[Choice]:
        """All texts that are generated, by their number in the request."""
        fields = self.call.fields
        bos = Token(self.call.tokenizer.bos_id, "", 0, Scored(math.nan))
        return [
            Choice(
                prompt,
                "" if fields.echo else prompt,
                [bos] if fields.scores_prompts and starts_with_bos else [],
            )
            for prompt, starts_with_bos in zip(
                self.call.submission.request.prompts, self.call.starts_with_bos, strict=True
            )
        ]

    @property
    def is_over(self) -> bool:
        """Whether all texts are complete."""
        return all(choice.is_over for choice in self.choices)

    def whole(self, started: Sequence[ServedText]) -> dict[str, Any]:
        """Return the response of a request that is not streamed: for each prompt the n texts that
        are most probable on average.

        Args:
            started: The texts that were started, whose tokens are counted.
        """
        tries = self.call.fields.tries_per_prompt
        n = self.call.fields.n or 1
        groups = [
            self.choices[start : start + tries] for start in range(0, len(self.choices), tries)
        ]
        if self.call.fields.picks_best:
            groups = [
                sorted(group, key=lambda choice: -choice.mean_logprob)[:n] for group in groups
            ]
        best = [choice for group in groups for choice in group]
        return self._object([self._choice(index, choice) for index, choice in enumerate(best)]) | {
            "usage": self.usage(started)
        }

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Yield a chunk for each text that has grown or ended since the last call."""
        more = {"usage": None} if self.call.fields.include_usage else {}
        for index, choice in enumerate(self.choices):
            if choice.served is not None and (choice.unsent or choice.tokens or choice.is_over):
                yield self._object([self._choice(index, choice)]) | more

    def last_chunks(self, started: Sequence[ServedText]) -> list[dict[str, Any]]:
        """Return the chunk with the numbers of tokens, of a stream that asked for them."""
        return (
            [self._object([]) | {"usage": self.usage(started)}]
            if self.call.fields.include_usage
            else []
        )

    def usage(self, started: Sequence[ServedText]) -> dict[str, int]:
        """Return the tokens of all prompts, each of which counts once, and of all texts."""
        prompts = {
            text.number // self.call.fields.tries_per_prompt: len(text.ids) - text.new_tokens
            for text in started
        }
        prompt_tokens = sum(prompts.values())
        new = sum(text.new_tokens for text in started)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": new,
            "total_tokens": prompt_tokens + new,
        }

    def _object(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "text_completion"
        if self.is_chat:
            kind = "chat.completion.chunk" if self.call.fields.stream else "chat.completion"
        head = {"id": self.id, "object": kind, "created": self.created}
        return head | {"model": self.call.model, "choices": choices}

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """Return OpenAI's fields for the part of a text that has not been sent yet, and ours under
        ``reviewgen``.
        """
        logprobs = None
        extras = dict[str, Any]()
        reason = None
        if self.call.fields.logprobs is not None:
            bos = self.call.tokenizer.bos_id
            start = len(choice.prompt)
            extras["tokens"] = [
                self._own_token(token)
                for token in choice.tokens
                if token.start >= start and token.id != bos
            ]
            logprobs = self._logprobs(choice)
        if choice.served is not None and choice.is_over:
            ended = choice.served.finish_reason
            conditions = self.call.submission.request.conditions_of(choice.served.number)
            choice.served.out.scores.clear()  # they may be many
            choice.served = None
            reason = "stop" if ended in ("end", "stop") else "length"  # a text that was cut off
            extras |= {
                "text": choice.text,
                "reason": ended,
                "copied": _spans(choice.text, choice.copied),
            }
            extras["conditions"] = conditions
        fields: dict[str, Any] = {
            "index": index,
            "text": choice.unsent,
            "logprobs": logprobs,
            "finish_reason": reason,
        }
        if self.is_chat:
            role = {} if choice.is_sent else {"role": "assistant"}
            fields["delta" if self.call.fields.stream else "message"] = role | {
                "content": fields.pop("text")
            }
        choice.unsent = ""
        choice.tokens = []
        choice.is_sent = True
        return fields | ({"reviewgen": extras} if extras else {})

    def _logprobs(self, choice: Choice) -> dict[str, Any]:
        """Return the log probabilities of tokens, in OpenAI's format: those of the token taken, and
        of the most probable ones.
        """
        listed = choice.tokens
        served = choice.served
        if (
            self.call.fields.scores_prompts
            and served is not None
            and choice.is_over
            and served.finish_reason == "end"
        ):
            listed = [
                *listed,
                Token(
                    self.call.tokenizer.eos_id,
                    _END,
                    len(choice.text),
                    served.out.scores[len(served.ids)],
                ),
            ]
        return {
            "tokens": [token.text for token in listed],
            "token_logprobs": [_number(token.score.logprob) for token in listed],
            "top_logprobs": [self._top_logprobs(token) for token in listed],
            "text_offset": [token.start for token in listed],
        }

    def _top_logprobs(self, token: Token) -> dict[str, float] | None:
        """Return log probabilities by text: of the most probable token with each text, and of the
        token taken; None for bos.
        """
        if (logprob := _number(token.score.logprob)) is None:
            return None
        top: dict[str, float] = {}
        for other in token.score.alternatives:
            if other.token != token.id:
                top.setdefault(
                    _END if other.token == self.call.tokenizer.eos_id else other.text, other.logprob
                )
        return top | {token.text: logprob}

    def _own_token(self, token: Token) -> dict[str, Any]:
        """Return a token with its alternatives as a list, in which two may have the same text."""
        alternatives = [
            {"text": text, "logprob": logprob, "is_end": other == self.call.tokenizer.eos_id}
            for other, text, logprob in token.score.alternatives
        ]
        return {"text": token.text, "logprob": token.score.logprob, "alternatives": alternatives}


def _number(logprob: float) -> float | None:
    """Return a log probability as a number of JSON; None for bos, which has none."""
    return None if math.isnan(logprob) else max(logprob, _IMPOSSIBLE)


def _spans(text: str, spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Return copied spans as JSON values, with the offsets of JavaScript's strings: UTF-16
    units.
    """
    units = list(accumulate((2 if character > "\uffff" else 1 for character in text), initial=0))
    return [  # a stop string is not part of the text, but may be of a span
        {
            "start": units[span.start],
            "end": units[min(span.end, len(text))],
            "length": span.tokens,
            "source": span.excerpt,
        }
        for span in spans
        if span.start < len(text)
    ]
