"""The fields of a request of ``POST /v1/completions``: their types, bounds and descriptions.

They are OpenAI's, as at https://platform.openai.com/docs/api-reference/completions/create, then those of reviewgen, which are
declared with the settings of ``generate``. The OpenAPI document and the checks are both made from this class.
"""

from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any

from reviewgen.config import Bound, GenerationConfig, check, describe_fields, fields_of
from reviewgen.config.options import Call

MAX_LOGPROBS = 20
MAX_STOPS = 16
_MAX_STRING = 200  # characters of a stop string, and of a string that a text must include


@dataclass(frozen=True, kw_only=True)
class OpenAIFields:
    """The fields of a request that are not settings of ``generate`` of the same name; None is the default of the model.

    Attributes:
        model: The name of a model; may be left out where the server has only one.
        max_tokens: The maximum number of new tokens of a text.
        temperature: Below 1 favours probable tokens, above 1 rare ones; 0 takes the most probable token each time.
        n: The number of texts per prompt.
        best_of: Generate this many texts per prompt and return the n whose tokens are most probable on average.
        stop: A text ends before the first occurrence of this string, or of any of these, up to 16.
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
        must_include: A string, or several, that each text must contain, ignoring case.
    """

    model: str | None = None
    max_tokens: Annotated[int | None, Bound(at_least=0)] = None
    temperature: Annotated[float | None, Bound(at_least=0, at_most=100)] = None
    n: Annotated[int | None, Bound(at_least=1)] = None
    best_of: Annotated[int | None, Bound(at_least=1)] = None
    stop: Annotated[str | tuple[str, ...] | None, Bound(at_least=1, at_most=_MAX_STRING)] = None
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
    must_include: Annotated[str | tuple[str, ...] | None, Bound(at_least=1, at_most=_MAX_STRING)] = None

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


_OTHERWISE = {  # not offered, or under OpenAI's names
    *("max_new_tokens", "min_new_tokens", "num_return_sequences", "do_sample", "num_beams", "length_penalty", "temperature"),
    *("stop_strings", "max_time", "logits_processors", "must_include"),
}
_hints = {name: hint for name, hint in (fields_of(GenerationConfig) | fields_of(Call)).items() if name not in _OTHERWISE}
_described = describe_fields(GenerationConfig) | describe_fields(Call)
SAME = (*_hints, "must_include")
"""The fields that are named as keywords of ``generate``."""


def _optional(hint: Any) -> Any:
    return Annotated[hint.__origin__ | None, *hint.__metadata__] if hasattr(hint, "__metadata__") else hint | None


CompletionFields: type[OpenAIFields] = make_dataclass(
    "CompletionFields",
    [(name, _optional(hint), None) for name, hint in _hints.items()],
    bases=(OpenAIFields,),
    namespace={"__doc__": "\n".join(["All fields.", "", "Attributes:", *(f"    {name}: {_described[name]}" for name in _hints)])},
    frozen=True,
    kw_only=True,
)
"""All fields of a request, without ``prompt``."""
