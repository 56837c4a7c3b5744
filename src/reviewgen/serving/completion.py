"""One request in progress: its texts, and the JSON that the client gets of them, whole or in chunks."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from reviewgen.serving.choices import Choice, Piece, logprobs_of, own_tokens, spans_of
from reviewgen.serving.events import EndEvent, Event, FailedEvent, PromptEvent
from reviewgen.serving.problems import problem_of
from reviewgen.serving.protocol import Call

_LARGE = 4096  # log probabilities


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
        fields, request = self.call.fields, self.call.request
        own = request.config.stop_strings, bool(fields.echo), fields.scores_prompts
        return [Choice(prompt, *own, bos) for prompt, bos in zip(request.prompts, self.call.starts_with_bos, strict=True)]

    @property
    def is_large(self) -> bool:
        """Whether making the JSON of the next response or chunk takes long."""
        logprobs = self.call.fields.logprobs
        return logprobs is not None and sum(choice.scored_tokens for choice in self.choices) * (2 + logprobs) > _LARGE

    @property
    def is_over(self) -> bool:
        """Whether all texts have ended."""
        return all(choice.end for choice in self.choices)

    def read(self, events: Sequence[Event]) -> None:
        """Take in what the engine has generated.

        Raises:
            Problem: It failed.
        """
        for event in events:
            if isinstance(event, FailedEvent):
                raise problem_of(event.error)
            if isinstance(event, EndEvent):
                self.choices[event.number].finish(event)
            elif isinstance(event, PromptEvent):
                self.choices[event.number].add_prompt(event.tokens, self.bos_id)
            else:
                self.choices[event.number].add(event)

    def whole(self) -> dict[str, Any]:
        """Return the response of a request that is not streamed."""
        choices = [self._choice(index, choice, choice.release()) for index, choice in enumerate(self._best())]
        return self._object(choices) | {"usage": self.usage()}

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Yield a chunk for each text that has grown or ended since the last call."""
        more = {"usage": None} if self.call.include_usage else {}
        for index, choice in enumerate(self.choices):
            piece = choice.release()
            if piece.is_last or piece.text or piece.tokens or piece.prompt:
                yield self._object([self._choice(index, choice, piece)]) | more

    def last_chunk(self) -> dict[str, Any]:
        """Return the chunk with the numbers of tokens, of a stream that asked for them."""
        return self._object([]) | {"usage": self.usage()}

    def usage(self) -> dict[str, int]:
        """Return the numbers of tokens of the texts that have ended; a prompt counts once."""
        ends = {number: choice.end for number, choice in enumerate(self.choices) if choice.end}
        prompts, new = self.sums({number: (end.prompt_tokens, end.new_tokens) for number, end in ends.items()})
        return {"prompt_tokens": prompts, "completion_tokens": new, "total_tokens": prompts + new}

    def sums(self, lengths: Mapping[int, tuple[int, int]]) -> tuple[int, int]:
        """Return the tokens of all prompts, each of which counts once, and of all texts, given both for some texts by number."""
        prompts = {number // self.call.fields.tries_per_prompt: prompt for number, (prompt, _) in lengths.items()}
        return sum(prompts.values()), sum(new for _, new in lengths.values())

    def _best(self) -> list[Choice]:
        """Return the texts that are returned: for each prompt the n that are most probable on average, the best first."""
        if not self.call.picks_best:
            return self.choices
        tries, n = self.call.fields.tries_per_prompt, self.call.fields.texts_per_prompt
        groups = [self.choices[start : start + tries] for start in range(0, len(self.choices), tries)]
        ranked = [sorted(group, key=lambda choice: -choice.mean_log_probability)[:n] for group in groups]
        return [choice for group in ranked for choice in group]

    def _object(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        head: dict[str, Any] = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        return head | {"choices": choices}

    def _choice(self, index: int, choice: Choice, piece: Piece) -> dict[str, Any]:
        """Return OpenAI's fields of a text, and ours under ``reviewgen``."""
        count = self.call.fields.logprobs
        own: dict[str, Any] = {}
        if count is not None:
            own["tokens"] = own_tokens(piece, count, self.eos_id)
        if piece.is_last and choice.end:
            text = choice.prompt + choice.text
            own |= {"text": text, "reason": choice.end.reason, "copied": spans_of(text, choice.end.copied)}
        fields = {
            "index": index,
            "text": piece.text,
            "logprobs": None if count is None else logprobs_of(piece, count, self.eos_id),
            "finish_reason": choice.finish_reason if piece.is_last else None,
        }
        return fields | ({"reviewgen": own} if own else {})
