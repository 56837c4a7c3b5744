"""One request in progress: its texts, and the JSON that the client gets, whole or in chunks."""

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
    """One text of a response.

    Attributes:
        prompt: The prompt of the text.
        text: The text so far, with its prompt. If prompts are echoed, the text is empty at first,
            and the engine delivers the prompt with the first new part. A complete text does not
            have the stop string.
        tokens: The tokens that were not sent to the client yet.
        unsent: The characters that were not sent to the client yet.
        served: The text in the engine. None before the first new part has come, and after the end
            was sent.
        is_over: Whether the text is complete.
        is_sent: Whether any part of the text was sent.
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

    def add(self, delta: TextDelta) -> None:
        """Append the new part of the text."""
        self.served = delta.served
        self.is_over = delta.is_over
        self.tokens += delta.tokens
        self.text += delta.new_text
        self.unsent += delta.new_text

    @property
    def mean_logprob(self) -> float:
        """The mean log probability of the tokens of a complete text."""
        assert self.served is not None
        count = self.served.new_tokens
        # the index in ``scores`` of the first new token; eos, which may follow, is left out
        first = len(self.served.ids) - count - self.served.out.first
        scores = self.served.out.scores[first : first + count]
        return sum(score.logprob for score in scores) / max(1, count)


@dataclass
class Completion(CompletionCall):
    """A call in progress.

    Attributes:
        is_chat: Whether the call is for a chat completion.
        created: When the request came, in seconds since 1970.
    """

    is_chat: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def id(self) -> str:
        """The name of the completion, for the client's log."""
        return f"{'chatcmpl' if self.is_chat else 'cmpl'}-{uuid.uuid4().hex}"

    @cached_property
    def choices(self) -> list[Choice]:
        """All texts that are generated, in the order of their numbers in the request."""
        # if the client sent bos and asked for scores, bos is returned, too, without a score
        bos = Token(self.tokenizer.bos_id, "", 0, Scored(math.nan))
        choices = []
        for prompt, starts_with_bos in zip(
            self.submission.request.prompts, self.starts_with_bos, strict=True
        ):
            tokens = [bos] if self.fields.scores_prompts and starts_with_bos else []
            choices.append(Choice(prompt, "" if self.fields.echo else prompt, tokens))
        return choices

    @property
    def is_over(self) -> bool:
        """Whether all texts are complete."""
        return all(choice.is_over for choice in self.choices)

    @property
    def is_synthetic(self) -> bool:
        """Whether the model writes, and does not only score the prompts."""
        return self.submission.request.config.max_new_tokens > 0

    def whole(self, started: Sequence[ServedText]) -> dict[str, Any]:
        """Return the response to a request that is not streamed. If more than n texts were
        generated for a prompt, the response has the n texts with the largest mean log probability.

        Args:
            started: The generated texts, for the numbers of tokens in ``usage``.
        """
        texts_per_prompt = self.fields.tries_per_prompt
        best: list[Choice] = []
        for first in range(0, len(self.choices), texts_per_prompt):
            group = self.choices[first : first + texts_per_prompt]
            if self.fields.picks_best:
                group = sorted(group, key=lambda choice: -choice.mean_logprob)[: self.fields.n or 1]
            best += group
        choices = [self._choice(index, choice) for index, choice in enumerate(best)]
        return self._response(choices) | {"usage": self.usage(started)}

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Yield a chunk for each text that has grown or ended since the last call."""
        more = {"usage": None} if self.fields.include_usage else {}
        for index, choice in enumerate(self.choices):
            if choice.served is not None and (choice.unsent or choice.tokens or choice.is_over):
                yield self._response([self._choice(index, choice)]) | more

    def last_chunks(self, started: Sequence[ServedText]) -> list[dict[str, Any]]:
        """Return the chunk with the numbers of tokens, if the client asked for them; otherwise no
        chunk.
        """
        if not self.fields.include_usage:
            return []
        return [self._response([]) | {"usage": self.usage(started)}]

    def usage(self, started: Sequence[ServedText]) -> dict[str, int]:
        """Return the number of tokens of all prompts, each counted once, and of all texts."""
        # by the index of the prompt; all texts of a prompt have the same number
        tokens_of_prompt = {
            text.number // self.fields.tries_per_prompt: len(text.ids) - text.new_tokens
            for text in started
        }
        prompt_tokens = sum(tokens_of_prompt.values())
        new_tokens = sum(text.new_tokens for text in started)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": new_tokens,
            "total_tokens": prompt_tokens + new_tokens,
        }

    def _response(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """Return OpenAI's object around choices: a whole response, or a chunk of a stream."""
        kind = "text_completion"
        if self.is_chat:
            kind = "chat.completion.chunk" if self.fields.stream else "chat.completion"
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "synthetic": self.is_synthetic,
        }

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """Return the unsent part of a text in OpenAI's fields, with reviewgen's own fields under
        ``reviewgen``, and mark it as sent.
        """
        extras: dict[str, Any] = {}
        fields: dict[str, Any] = {
            "index": index,
            "text": choice.unsent,
            "logprobs": None,
            "finish_reason": None,
        }
        if self.fields.logprobs is not None:
            extras["tokens"] = [
                self._own_token(token) for token in choice.tokens if self._is_new(token, choice)
            ]
            fields["logprobs"] = self._logprobs(choice)
        if choice.served is not None and choice.is_over:
            reason = choice.served.finish_reason
            # every other reason, such as "time", means that the text was cut off
            fields["finish_reason"] = "stop" if reason in ("end", "stop") else "length"
            extras |= {
                "text": choice.text,
                "reason": reason,
                "copied": _spans(choice.text, choice.copied),
                "conditions": self.submission.request.conditions_of(choice.served.number),
            }
            choice.served.out.scores.clear()  # frees memory: there may be many
            choice.served = None
        if self.is_chat:
            role = {} if choice.is_sent else {"role": "assistant"}
            message = role | {"content": fields.pop("text")}
            fields["delta" if self.fields.stream else "message"] = message
        if extras:
            fields["reviewgen"] = extras
        choice.unsent = ""
        choice.tokens = []
        choice.is_sent = True
        return fields

    def _is_new(self, token: Token, choice: Choice) -> bool:
        """Return whether a token follows the prompt."""
        return token.start >= len(choice.prompt) and token.id != self.tokenizer.bos_id

    def _logprobs(self, choice: Choice) -> dict[str, Any]:
        """Return the log probabilities of the unsent tokens of a text in OpenAI's format: of each
        token itself, and of the most probable tokens in its place. If prompts are scored, too, eos
        is the last token.
        """
        listed = list(choice.tokens)
        served = choice.served
        if (
            served is not None
            and self.fields.scores_prompts
            and choice.is_over
            and served.finish_reason == "end"
        ):
            score = served.out.scores[len(served.ids)]  # the score of eos, which follows the ids
            listed.append(Token(self.tokenizer.eos_id, _END, len(choice.text), score))
        return {
            "tokens": [token.text for token in listed],
            "token_logprobs": [_number(token.score.logprob) for token in listed],
            "top_logprobs": [self._top_logprobs(token) for token in listed],
            "text_offset": [token.start for token in listed],
        }

    def _top_logprobs(self, token: Token) -> dict[str, float] | None:
        """Return the log probabilities of the alternatives and of the token taken, by the texts of
        the tokens; None for bos. Of several alternatives with the same text, the most probable one
        counts.
        """
        logprob = _number(token.score.logprob)
        if logprob is None:
            return None
        top: dict[str, float] = {}
        for alternative in token.score.alternatives:
            if alternative.token != token.id:
                text = _END if alternative.token == self.tokenizer.eos_id else alternative.text
                top.setdefault(text, alternative.logprob)
        return top | {token.text: logprob}

    def _own_token(self, token: Token) -> dict[str, Any]:
        """Return a token with a list of its alternatives, of which several may have the same
        text.
        """
        alternatives = [
            {"text": text, "logprob": logprob, "is_end": token_id == self.tokenizer.eos_id}
            for token_id, text, logprob in token.score.alternatives
        ]
        return {"text": token.text, "logprob": token.score.logprob, "alternatives": alternatives}


def _number(logprob: float) -> float | None:
    """Return a log probability as a JSON number; None for bos, which has no log probability."""
    return None if math.isnan(logprob) else max(logprob, _IMPOSSIBLE)


def _spans(text: str, spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Return copied spans as JSON values, with the offsets of JavaScript's strings: UTF-16
    units.
    """
    units = list(accumulate((2 if character > "\uffff" else 1 for character in text), initial=0))
    return [
        {
            "start": units[span.start],
            "end": units[min(span.end, len(text))],
            "length": span.tokens,
            "source": span.excerpt,
        }
        for span in spans
        if span.start < len(text)  # a span may contain the stop string, which the text does not
    ]
