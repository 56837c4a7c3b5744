"""The fields of a request of ``POST /v1/completions``: their types, bounds and descriptions.

They are OpenAI's, as at https://platform.openai.com/docs/api-reference/completions/create, then those of reviewgen. The OpenAPI
document and the checks are both made from this class.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from reviewgen.config import Bound, check

MAX_LOGPROBS = 20
MAX_STOPS = 16
_MAX_STRING = 200  # characters of a stop string, and of a string that a text must include


@dataclass(frozen=True, kw_only=True)
class CompletionFields:
    """The fields of a request, without ``prompt``; None is the default of the model.

    Attributes:
        model: The name of a model; may be left out where the server has only one.
        max_tokens: The maximum number of new tokens of a text.
        temperature: Below 1 favours probable tokens, above 1 rare ones; 0 takes the most probable token each time.
        top_p: Sample from the smallest set of most probable tokens whose probabilities sum to this; 1 is off.
        n: The number of texts per prompt.
        best_of: Generate this many texts per prompt and return the n whose tokens are most probable on average.
        stop: A text ends before the first occurrence of this string, or of any of these, up to 16.
        seed: The same seed gives the same texts.
        logprobs: Also return the log probabilities of this many most probable tokens, up to 20, and of the token taken.
        echo: Whether a returned text starts with its prompt; with logprobs, its tokens are scored, too, and max_tokens may be 0.
        stream: Whether to send the texts while they are generated, as server-sent events.
        stream_options: {"include_usage": true} sends the numbers of tokens at the end of a stream.
        presence_penalty: Not supported; only 0 is accepted. repetition_penalty is.
        frequency_penalty: Not supported; only 0 is accepted. repetition_penalty is.
        logit_bias: Not supported; only {} is accepted.
        suffix: Not supported; only the empty string is accepted.
        user: Accepted, and not used.
        min_tokens: The minimum number of new tokens before a text may end.
        top_k: Sample from the k most probable tokens only; 0 is off.
        min_p: Sample only from tokens at least this many times as probable as the most probable one; 0 is off.
        repetition_penalty: Above 1 makes tokens that the text already has less probable; 1 is off.
        no_repeat_ngram_size: No n-gram of this many tokens occurs twice in a text; 0 is off.
        novelty: "report" returns what of each text was copied from the training text; "filter" also keeps it from copying spans
            of more than max_copy tokens.
        max_copy: For novelty "filter", in tokens; about 50 characters if not given.
        conditions: Values of the conditions that the model was trained with, as in {"stars": 5}.
        must_include: A string, or several, that each text must contain, ignoring case.
        words: "known" lets a text consist of words of the training text only; "any" is the plain model.
        finish: "sentence" removes the unfinished last sentence of a text that was cut off; "anywhere" keeps it.
    """

    model: str | None = None
    max_tokens: Annotated[int | None, Bound(at_least=0)] = None
    temperature: Annotated[float | None, Bound(at_least=0, at_most=100)] = None
    top_p: Annotated[float | None, Bound(above=0, at_most=1)] = None
    n: Annotated[int | None, Bound(at_least=1)] = None
    best_of: Annotated[int | None, Bound(at_least=1)] = None
    stop: Annotated[str | tuple[str, ...] | None, Bound(at_least=1, at_most=_MAX_STRING)] = None
    seed: Annotated[int | None, Bound(at_least=0, below=2**64)] = None
    logprobs: Annotated[int | None, Bound(at_least=0, at_most=MAX_LOGPROBS)] = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None
    suffix: str | None = None
    user: str | None = None
    min_tokens: Annotated[int | None, Bound(at_least=0)] = None
    top_k: Annotated[int | None, Bound(at_least=0)] = None
    min_p: Annotated[float | None, Bound(at_least=0, at_most=1)] = None
    repetition_penalty: Annotated[float | None, Bound(at_least=0.01, at_most=100)] = None
    no_repeat_ngram_size: Annotated[int | None, Bound(at_least=0)] = None
    novelty: Literal["report", "filter"] | None = None
    max_copy: Annotated[int | None, Bound(at_least=0)] = None
    conditions: dict[str, Any] | None = None
    must_include: Annotated[str | tuple[str, ...] | None, Bound(at_least=1, at_most=_MAX_STRING)] = None
    words: Literal["known", "any"] | None = None
    finish: Literal["sentence", "anywhere"] | None = None

    def __post_init__(self) -> None:
        check(self)

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()

    @property
    def scores_prompts(self) -> bool:
        """Whether the log probabilities of the prompts are returned, too."""
        return bool(self.echo) and self.logprobs is not None

    @property
    def texts_per_prompt(self) -> int:
        """The number of texts per prompt that are returned."""
        return self.n or 1

    @property
    def tries_per_prompt(self) -> int:
        """The number of texts per prompt that are generated."""
        return self.best_of or self.texts_per_prompt
