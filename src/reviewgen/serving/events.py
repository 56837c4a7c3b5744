"""What an engine delivers: the tokens of a text, its end, or why a request has failed."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from reviewgen.errors import ReviewgenError
from reviewgen.novelty import Span


class Alternative(NamedTuple):
    """A token that the model could have continued with.

    Attributes:
        token: Its id.
        text: Its characters; "" for the end and for a part of a character.
        logprob: Its log probability in nats, at temperature 1.
    """

    token: int
    text: str
    logprob: float


class Scored(NamedTuple):
    """The log probability (nats) of a token, and the most probable tokens in its place."""

    logprob: float
    alternatives: tuple[Alternative, ...] = ()


class TokenEvent(NamedTuple):
    """A token that belongs to a text for good.

    Attributes:
        number: The number of the text in the request.
        token: Its id.
        text: The characters that it adds; "" for a part of a character, whose last part adds it.
        logprob: Its log probability in nats, at temperature 1, before filters, penalties and processors; NaN unless asked for.
        alternatives: The most probable tokens in its place, the most probable first; as many as asked for.
    """

    number: int
    token: int
    text: str
    logprob: float
    alternatives: tuple[Alternative, ...]


class PromptEvent(NamedTuple):
    """The tokens of a text's prompt, with their log probabilities; comes before the text's new tokens, only if asked for.

    Attributes:
        number: The number of the text in the request.
        tokens: The tokens; the first one follows bos and the conditions.
    """

    number: int
    tokens: Sequence[TokenEvent]


class EndEvent(NamedTuple):
    """A text is complete.

    Attributes:
        number: The number of the text in the request.
        text: The whole text, the prompt included. The texts of its tokens are a beginning of what follows the prompt, and nearly
            always all of it: a damaged last character comes here only.
        reason: The finish reason, as in ``Generation``.
        prompt_tokens, new_tokens: How many of ``ids`` belong to the prompt, and how many do not.
        copied: The copied spans, with ``novelty``; their offsets count characters of ``text`` as the tokens decode.
        ids: The token ids of the text, those of the prompt included.
        exceeds_max_copy: Whether it contains a longer copied span than was allowed, because no other token was left.
        ended: The log probability of the end, with alternatives, if tokens have them and the text ended by itself.
    """

    number: int
    text: str
    reason: str
    prompt_tokens: int
    new_tokens: int
    copied: tuple[Span, ...]
    ids: Sequence[int]
    exceeds_max_copy: bool = False
    ended: Scored | None = None


class FailedEvent(NamedTuple):
    """The request has failed, and no more events come; others go on."""

    error: ReviewgenError


Event: TypeAlias = PromptEvent | TokenEvent | EndEvent | FailedEvent
