"""From the JSON of a request for a completion to a checked call, and what is wrong with a request,
in OpenAI's form.

The fields are OpenAI's, as at https://platform.openai.com/docs/api-reference/completions/create,
then those of reviewgen, which are declared with the settings of ``generate``. The OpenAPI document
and the checks are both made from these classes.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeGuard, cast

from reviewgen.config.bounded import parse_json
from reviewgen.config.descriptions import describe_fields
from reviewgen.config.generation import GenerationConfig
from reviewgen.config.options import CallOptions
from reviewgen.config.settings import Bound, check, check_value, fields_of, from_dict
from reviewgen.errors import (
    ConfigError,
    DataError,
    GenerationError,
    ReviewgenError,
    did_you_mean,
    quoted,
    shortened,
)
from reviewgen.generation.request import GenerateKwargs, make_request
from reviewgen.model.review_model import ReviewModel
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.serving.engine import EngineRequest, RequestTimeout
from reviewgen.serving.options import Limits

_MAX_MESSAGE = 500  # characters; a value of a request may be long
_MAX_PARAM = 100  # characters; a name of a request may be long
_MAX_LOGPROBS = 20
_STREAM_OPTIONS = ("include_usage", "include_obfuscation")
_MAX_STOPS = 16  # stop strings of a request
_MAX_STOP = 200  # characters of a stop string
_MAX_NUMBERS = 2_000_000  # log probabilities of a response, or of the prompts of a stream
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


@dataclass
class RequestError(Exception):
    """A request that is refused or failed.

    Attributes:
        status: The HTTP status.
        message: One sentence: what happened, what is accepted, what to do.
        param: The field of the request that is at fault; None if it is none.
        code: A short name for programs, as in "model_not_found".
        headers: Further headers of the response.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = "invalid_value"
    headers: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the body of the response, in OpenAI's format."""
        kind = _KINDS.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        param = None if self.param is None else shortened(self.param, _MAX_PARAM)
        return {
            "error": {
                "message": shortened(self.message, _MAX_MESSAGE),
                "type": kind,
                "param": param,
                "code": self.code,
            }
        }


def to_request_error(error: ReviewgenError) -> RequestError:
    """Return the problem that an error of the library is for the client."""
    message = str(error)
    if isinstance(error, ConfigError | DataError):
        named = (
            name for name in _SETTINGS if re.search(rf"\b{name.removesuffix('s')}s?\b", message)
        )
        return RequestError(400, message, next(named, None))
    if isinstance(error, RequestTimeout):
        return RequestError(503, message, code="timeout")
    if isinstance(error, GenerationError):
        return RequestError(422, message, code="generation_failed")
    return RequestError(500, message, code="server_error")


@dataclass(frozen=True, kw_only=True)
class OpenAIFields:
    """The fields of a request that OpenAI names or bounds in its own way; None is the default of
    the model.

    The others are settings of ``generate``, taken over below.

    Attributes:
        model: The name of a model; may be left out where the server has only one.
        prompt: The beginning of each text: a string, a list of strings, token ids, or lists of
            token ids; the empty text by default.
        max_tokens: The maximum number of new tokens of a text.
        temperature: Below 1 favours probable tokens, above 1 rare ones; 0 takes the most probable
            token each time.
        n: The number of texts per prompt.
        best_of: Generate this many texts per prompt and return the n whose tokens are most probable
            on average.
        stop: A text ends before the first occurrence of this string, or of any of these, up to 16.
        logprobs: Also return the log probabilities of this many most probable tokens, up to 20, and
            of the token taken.
        echo: Whether a returned text starts with its prompt; with logprobs, its tokens are scored,
            too, and max_tokens may be 0.
        stream: Whether to send the texts while they are generated, as server-sent events.
        stream_options: {"include_usage": true} sends the numbers of tokens at the end of a stream.
        presence_penalty: Accepted, and not used; repetition_penalty is.
        frequency_penalty: Accepted, and not used; repetition_penalty is.
        logit_bias: Not supported; only {} is accepted.
        suffix: Not supported; only the empty string is accepted.
        user: Accepted, and not used.
        min_tokens: The minimum number of new tokens before a text may end.
    """

    model: str | None = None
    prompt: str | list[Any] | None = None
    max_tokens: Annotated[int | None, Bound(at_least=0)] = None
    temperature: Annotated[float | None, Bound(at_least=0, at_most=100)] = None
    n: Annotated[int | None, Bound(at_least=1)] = None
    best_of: Annotated[int | None, Bound(at_least=1)] = None
    stop: Annotated[str | tuple[str, ...] | None, Bound(at_least=1, at_most=_MAX_STOP)] = None
    logprobs: Annotated[int | None, Bound(at_least=0, at_most=_MAX_LOGPROBS)] = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None
    suffix: Annotated[str | None, Bound(at_least=0, at_most=0)] = None
    user: str | None = None
    min_tokens: Annotated[int | None, Bound(at_least=0)] = None

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
    def tries_per_prompt(self) -> int:
        """The number of texts per prompt that are generated."""
        return self.best_of or self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return bool((self.stream_options or {}).get("include_usage"))

    @property
    def picks_best(self) -> bool:
        """Whether more texts are generated than returned."""
        return self.tries_per_prompt > (self.n or 1)


_OTHERWISE = {  # declared above, or decided by the server
    *(
        "max_new_tokens",
        "min_new_tokens",
        "num_return_sequences",
        "do_sample",
        "temperature",
        "stop_strings",
        "max_time",
    ),
    "logits_processors",
}
_ONLY_PYTHON = ("num_beams", "length_penalty", "must_include", "likeness")
_declared = fields_of(GenerationConfig) | fields_of(CallOptions)
_SETTINGS = {
    name: hint for name, hint in _declared.items() if name not in (*_OTHERWISE, *_ONLY_PYTHON)
}
_described = (
    describe_fields(GenerationConfig) | describe_fields(CallOptions) | describe_fields(OpenAIFields)
)


def _optional(hint: Any) -> Any:
    return (
        Annotated[hint.__origin__ | None, *hint.__metadata__]
        if hasattr(hint, "__metadata__")
        else hint | None
    )


HINTS = fields_of(OpenAIFields) | {name: _optional(hint) for name, hint in _SETTINGS.items()}
"""The types of all fields of a request: OpenAI's, and settings, which are keywords of
``generate``.
"""

CHAT_FIELDS = [
    name for name in HINTS if name not in ("prompt", "echo", "logprobs", "logit_bias", "suffix")
]
"""The fields of a completion that a chat completion has, too."""

DESCRIPTIONS = {name: _described[name] for name in HINTS}
"""What each field means."""


@dataclass(frozen=True)
class CompletionCall:
    """A checked request.

    Attributes:
        model: The name of its model.
        fields: Its fields, without the settings.
        submission: What the engine gets: text number i continues prompt i //
            fields.tries_per_prompt.
        starts_with_bos: Whether the ids that the client sent begin with bos, for each text.
        tokenizer: The model's tokenizer.
    """

    model: str
    fields: OpenAIFields
    submission: EngineRequest
    starts_with_bos: Sequence[bool]
    tokenizer: Tokenizer


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body.

    Raises:
        RequestError: It is not UTF-8, not JSON, nested too deeply or not an object, or holds NaN,
            half of a surrogate pair or a number of more than 100 digits.
    """
    try:
        value = parse_json(body.decode("utf-8"))
        # an escape can be half of a pair
        json.dumps(value, ensure_ascii=False).encode("utf-8") if b"\\u" in body else None
    except UnicodeDecodeError as error:
        raise RequestError(
            400, f"The body is not valid UTF-8, at byte {error.start}.", code="invalid_json"
        ) from None
    except UnicodeEncodeError:
        raise RequestError(
            400,
            "A string of the body holds half of a surrogate pair (\\ud800).",
            code="invalid_json",
        ) from None
    except ValueError as error:
        raise RequestError(
            400, f"The body is not valid JSON: {error}.", code="invalid_json"
        ) from None
    if not isinstance(value, dict):
        raise RequestError(
            400, f"The body must be a JSON object; got {quoted(value)}.", code="invalid_json"
        )
    return value


def find_model(name: str | None, names: Sequence[str]) -> str:
    """Return the name of the model that a request is for.

    Raises:
        RequestError: It is unknown (404), or not given where there are several (400).
    """
    chosen = names[0] if name is None and len(names) == 1 else name
    if chosen is None:
        raise RequestError(
            400, f"model is missing. {did_you_mean('', names)}", "model", "missing_field"
        )
    if chosen not in names:
        raise RequestError(
            404,
            f"There is no model {quoted(name)} here. {did_you_mean(name, names)}",
            "model",
            "model_not_found",
        )
    return chosen


def to_completion(chat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a completion for those of a chat completion: the last message of the
    user is its prompt.

    Fields that a completion does not have, such as tools, are left out, since chat programs send
    them without being asked.

    Raises:
        RequestError: There is no such message, or its content is not text.
    """
    messages = chat.get("messages")
    contents = [part.get("content") for part in _objects(messages) if part.get("role") == "user"]
    parts = contents[-1] if contents else None
    texts = [parts] if isinstance(parts, str) else [part.get("text") for part in _objects(parts)]
    if not _are_texts(texts):
        accepted = 'a string, or a list of parts {"type": "text", "text": "The movie"}'
        raise RequestError(
            400,
            f"messages must hold a message with the role user, whose content is {accepted}.",
            "messages",
        )
    fields = {name: chat[name] for name in CHAT_FIELDS if name in chat}
    return fields | {
        "prompt": "".join(texts),
        "max_tokens": chat.get("max_completion_tokens") or chat.get("max_tokens"),
    }


def _objects(value: Any) -> list[dict[str, Any]]:
    return (
        [each if isinstance(each, dict) else {} for each in value]
        if isinstance(value, list)
        else []
    )


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return (
        isinstance(value, list) and len(value) > 0 and all(isinstance(each, str) for each in value)
    )


def read_embedding(given: Mapping[str, Any], limits: Limits) -> list[str]:
    """Return the texts of a request for embeddings.

    Raises:
        RequestError: They are not texts or too long, or the vectors are asked for in another form.
    """
    texts = given.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not _are_texts(texts):
        raise RequestError(
            400, "input must be a string or a list of strings; token ids are not accepted.", "input"
        )
    _refuse_if(
        len(texts) > limits.max_texts,
        "input",
        f"input has {len(texts):,} texts; a request has at most {limits.max_texts}.",
    )
    is_known = given.get("encoding_format") in (None, "float", "base64")
    _refuse_if(not is_known, "encoding_format", "encoding_format must be float or base64.")
    _refuse_if(
        given.get("dimensions") is not None,
        "dimensions",
        "dimensions is not supported: leave it out.",
    )
    _refuse_long(texts, limits, "input")
    return texts


def read_call(
    given: Mapping[str, Any], models: Mapping[str, ReviewModel], limits: Limits
) -> CompletionCall:
    """Return the checked call of a request.

    Args:
        given: Its fields, as JSON values.
        models: The models by name.
        limits: The limits of the server.

    Raises:
        RequestError: A field is unknown, of a wrong type, out of range or of the limits, or
            contradicts another or the model.
    """
    fields, settings = _read_fields(given)
    _refuse_contradictions(fields, settings)
    prompts = _read_prompts(fields.prompt)
    tries = fields.tries_per_prompt
    texts = tries * len(prompts)
    most = min(limits.max_texts, limits.max_waiting)
    message = (
        f"A request may ask for at most {most:,} texts, all prompts together; this one asks for"
        f" {texts:,}."
    )
    param = "best_of" if fields.best_of else "n" if fields.n else "prompt"
    _refuse_if(texts > most, param, message, "limit_exceeded")
    _refuse_long(prompts, limits)
    name = find_model(fields.model, list(models))
    model = models[name]
    ids = list[list[int]]()
    with_bos = [False] * texts
    if not isinstance(prompts[0], str):
        with_bos = [part[:1] == [model.tokenizer.bos_id] for part in prompts for _ in range(tries)]
        ids = [part[part[:1] == [model.tokenizer.bos_id] :] for part in prompts]
        prompts = [_decode(part, model.tokenizer) for part in ids]
    elif fields.scores_prompts:  # a prompt is scored as it is: its last word is not sampled again
        ids = [list(model.tokenizer.encode(prompt)) for prompt in prompts]
        prompts = [model.tokenizer.decode(part) for part in ids]
    _refuse_long(prompts, limits)
    repeated = [prompt for prompt in prompts for _ in range(tries)]
    options = {**settings, "temperature": fields.temperature or None}
    if fields.scores_prompts and options.get("finish") is None:
        options["finish"] = "anywhere"  # all tokens are returned: programs that score count them
    try:
        defaults = _defaults(fields, model.generation_config, limits)
        request = make_request(
            repeated, defaults, cast(GenerateKwargs, options), model.tokenizer, model.conditions
        )
    except ReviewgenError as error:
        raise to_request_error(error) from None
    if fields.scores_prompts:
        request = replace(request, draws=())  # a score depends on no seed
    numbers = sum(map(len, ids)) * tries if fields.scores_prompts else 0
    numbers += 0 if fields.stream else request.config.max_new_tokens * texts
    numbers = 0 if fields.logprobs is None else numbers * (1 + fields.logprobs)
    message = (
        f"A response may have at most {_MAX_NUMBERS:,} log probabilities; this one may have"
        f" {numbers:,}: ask for less, or "
    )
    _refuse_if(numbers > _MAX_NUMBERS, "logprobs", f"{message}stream it.", "limit_exceeded")
    prompt_ids = [part for part in ids for _ in range(tries)] or None
    alternatives = 0 if fields.logprobs is None and fields.picks_best else fields.logprobs
    submission = EngineRequest(
        request,
        prompt_ids,
        alternatives,
        bool(fields.stream),
        bool(fields.echo),
        fields.scores_prompts,
    )
    return CompletionCall(name, fields, submission, with_bos, model.tokenizer)


def _read_fields(body: Mapping[str, Any]) -> tuple[OpenAIFields, dict[str, Any]]:
    """Return OpenAI's fields of a request, and its settings."""
    for name in body:
        if name in _ONLY_PYTHON:
            raise RequestError(
                400,
                f"{name} is not offered over HTTP: call generate in Python or as a command.",
                name,
                "unsupported",
            )
        if name not in HINTS:
            message = f"{quoted(name)} is not a field of a completion. {did_you_mean(name, HINTS)}"
            raise RequestError(400, message, name, "unknown_field")
    settings = {name: body[name] for name in _SETTINGS if name in body}
    try:
        for name, value in settings.items():
            check_value(name, value, HINTS[name])
        return (
            from_dict(
                OpenAIFields, {name: value for name, value in body.items() if name not in settings}
            ),
            settings,
        )
    except ConfigError as error:  # the description says what to do
        param = str(error).partition(" ")[0]
        raise RequestError(400, f"{error} {DESCRIPTIONS.get(param, '')}".rstrip(), param) from None


def _refuse_contradictions(fields: OpenAIFields, settings: Mapping[str, Any]) -> None:
    """Raise where a field is not supported as it is, or not together with another."""
    options = fields.stream_options or {}
    stops = len(fields.stops)
    tries = fields.tries_per_prompt
    is_known = all(
        name in _STREAM_OPTIONS and isinstance(value, bool) for name, value in options.items()
    )
    _refuse_if(fields.logit_bias, "logit_bias", "logit_bias is not supported: leave it out.")
    _refuse_if(
        stops > _MAX_STOPS, "stop", f"stop may hold at most {_MAX_STOPS} strings; got {stops:,}."
    )
    _refuse_if(
        not is_known,
        "stream_options",
        f"stream_options may hold include_usage, true or false; got {quoted(options)}.",
    )
    _refuse_if(
        options and not fields.stream, "stream_options", "stream_options needs stream: true."
    )
    _refuse_if(
        tries < (fields.n or 1), "best_of", f"best_of={tries} is below n={fields.n}: raise it."
    )
    _refuse_if(
        fields.picks_best and fields.stream,
        "best_of",
        "best_of chooses among whole texts: leave out stream.",
    )
    is_lost = settings.get("max_copy") is not None and settings.get("novelty") != "filter"
    _refuse_if(is_lost, "max_copy", 'max_copy needs novelty: "filter".')


def _refuse_if(is_wrong: object, param: str, message: str, code: str = "invalid_value") -> None:
    if is_wrong:
        raise RequestError(400, message, param, code)


def _refuse_long(prompts: Sequence[Any], limits: Limits, param: str = "prompt") -> None:
    length = sum(map(len, prompts))
    unit = "characters" if isinstance(prompts[0], str) else "token ids"
    message = (
        f"The {param}s may have at most {limits.max_prompt:,} {unit} together; these have"
        f" {length:,}."
    )
    _refuse_if(length > limits.max_prompt, param, message, "limit_exceeded")


def _read_prompts(prompt: Any) -> list[Any]:
    """Return the prompts, all of them texts or lists of token ids; the empty text if none is
    given.
    """
    is_one = not isinstance(prompt, list) or (prompt and all(type(item) is int for item in prompt))
    prompts = [prompt or ""] if is_one else prompt
    is_text = all(isinstance(part, str) for part in prompts)
    if prompts and (
        is_text
        or all(
            isinstance(part, list) and all(type(item) is int for item in part) for part in prompts
        )
    ):
        return prompts
    accepted = "a string, a list of strings, a list of token ids, or a list of such lists"
    raise RequestError(400, f"prompt must be {accepted}; got {quoted(prompt)}.", "prompt")


def _decode(ids: list[int], tokenizer: Tokenizer) -> str:
    """Return the text of token ids."""
    ends = tokenizer.bos_id, tokenizer.eos_id
    for token in set(ids):
        accepted = (
            f"they are 0 to {tokenizer.vocab_size - 1}, without {ends[0]} and {ends[1]}, the"
            " beginning and end of a text"
        )
        is_wrong = not 0 <= token < tokenizer.vocab_size or token in ends
        _refuse_if(
            is_wrong, "prompt", f"{token} in prompt is not a token id of this model: {accepted}."
        )
    text = tokenizer.decode(ids)
    is_cut = "\ufffd" in text and tokenizer.encode(text) != ids
    _refuse_if(
        is_cut, "prompt", "The token ids of prompt end inside a character: add the rest of it."
    )
    return text


def _defaults(fields: OpenAIFields, saved: GenerationConfig, limits: Limits) -> GenerationConfig:
    """Return the settings of a request that OpenAI has, within the limits; what is not given is the
    model's own default.
    """
    new = fields.max_tokens or 0
    message = f"max_tokens may be at most {limits.max_tokens:,} here; got {new:,}."
    _refuse_if(new > limits.max_tokens, "max_tokens", message, "limit_exceeded")
    max_tokens = (
        min(saved.max_new_tokens, limits.max_tokens)
        if fields.max_tokens is None
        else fields.max_tokens
    )
    min_tokens = (
        min(saved.min_new_tokens, max_tokens) if fields.min_tokens is None else fields.min_tokens
    )
    _refuse_if(
        min_tokens > max_tokens,
        "min_tokens",
        f"min_tokens={min_tokens} is above max_tokens={max_tokens}.",
    )
    return replace(
        saved,
        num_return_sequences=1,
        num_beams=1,
        do_sample=saved.do_sample if fields.temperature is None else fields.temperature > 0,
        max_new_tokens=max_tokens,
        min_new_tokens=min_tokens,
        max_time=min(
            limits.request_seconds, math.inf if saved.max_time is None else saved.max_time
        ),
        stop_strings=fields.stops or saved.stop_strings,
    )
