"""Turns the JSON of a request for a completion into a checked call, or into an error in OpenAI's
format.

A request has OpenAI's fields (https://platform.openai.com/docs/api-reference/completions/create)
and those of reviewgen, which are settings of ``generate``. The OpenAPI document and the checks are
both made from the classes that declare these fields.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import Annotated, Any, TypeGuard, TypeVar, cast

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
from reviewgen.generation.request import GenerateKwargs, Request, make_request
from reviewgen.model.review_model import ReviewModel
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.serving.engine import EngineRequest, RequestTimeout
from reviewgen.serving.options import Limits

_MAX_MESSAGE = 500  # max characters of an error message, which may quote a long value
_MAX_PARAM = 100  # max characters of the name of a field in an error
_MAX_LOGPROBS = 20  # max alternatives to a token that are returned with their log probabilities
_STREAM_OPTIONS = ("include_usage", "include_obfuscation")
_MAX_STOPS = 16  # max stop strings of a request
_MAX_STOP = 200  # max characters of a stop string
# max log probabilities of a response; in a stream, only those of the prompts are counted
_MAX_ALL_LOGPROBS = 2_000_000
T = TypeVar("T")

# OpenAI's types of errors, by HTTP status; other statuses have a type by their range
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


@dataclass
class RequestError(Exception):
    """A request is refused, or has failed.

    Attributes:
        status: The HTTP status.
        message: One sentence: what happened, what is accepted, what to do.
        param: The field of the request that is at fault; None if no field is.
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
        other = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "error": {
                "message": shortened(self.message, _MAX_MESSAGE),
                "type": _KINDS.get(self.status, other),
                "param": None if self.param is None else shortened(self.param, _MAX_PARAM),
                "code": self.code,
            }
        }


def to_request_error(error: ReviewgenError) -> RequestError:
    """Convert an error of the library to an error for the client."""
    message = str(error)
    if isinstance(error, ConfigError | DataError):
        # the first setting whose name is in the message, as a singular or a plural
        for name in _SETTINGS:
            if re.search(rf"\b{name.removesuffix('s')}s?\b", message):
                return RequestError(400, message, name)
        return RequestError(400, message)
    if isinstance(error, RequestTimeout):
        return RequestError(503, message, code="timeout")
    if isinstance(error, GenerationError):
        return RequestError(422, message, code="generation_failed")
    return RequestError(500, message, code="server_error")


@dataclass(frozen=True, kw_only=True)
class OpenAIFields:
    """The fields of a request whose names or bounds come from OpenAI. None stands for the default
    of the model.

    The other fields of a request are settings of ``generate``; they are in ``_SETTINGS``.

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
        response_format: {"type": "json_schema", "json_schema": {"schema": ...}} for JSON that the
            schema allows, {"type": "json_object"} for any JSON object, or {"type": "text"}.
        guided_regex: The name of regex in vLLM.
        guided_choice: The name of choices in vLLM.
        guided_json: The name of json_schema in vLLM; also a string.
        guided_grammar: The name of grammar in vLLM.
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
    response_format: dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: tuple[str, ...] | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_grammar: str | None = None

    def __post_init__(self) -> None:
        check(self)

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()

    @property
    def formats(self) -> dict[str, Any]:
        """The formats that were given under the names of OpenAI and vLLM, as settings of
        ``generate``.

        Raises:
            RequestError: The type of ``response_format`` is unknown, or its schema is missing.
        """
        formats = {
            "regex": self.guided_regex,
            "choices": self.guided_choice,
            "json_schema": self.guided_json,
            "grammar": self.guided_grammar,
        }
        given = self.response_format or {"type": "text"}
        kind = given.get("type")
        if kind == "json_object":
            formats["json_schema"] = {"type": "object"}
        elif kind == "json_schema":
            inner = given.get("json_schema")
            schema = inner.get("schema") if isinstance(inner, dict) else None
            message = 'response_format of type json_schema needs {"json_schema": {"schema": ...}}.'
            _refuse_if(not isinstance(schema, dict), "response_format", message)
            formats["json_schema"] = schema
        else:
            message = (
                "The type of response_format is text, json_object or json_schema; got"
                f" {quoted(kind)}."
            )
            _refuse_if(kind != "text", "response_format", message)
        return {name: value for name, value in formats.items() if value is not None}

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


_EXCLUDED = {  # settings that ``OpenAIFields`` has, or that the server decides
    "max_new_tokens",
    "min_new_tokens",
    "num_return_sequences",
    "do_sample",
    "temperature",
    "stop_strings",
    "max_time",
    "logits_processors",
}
_ONLY_PYTHON = ("num_beams", "length_penalty", "must_include", "exact", "likeness")
_declared = fields_of(GenerationConfig) | fields_of(CallOptions)
_SETTINGS = {
    name: hint for name, hint in _declared.items() if name not in (*_EXCLUDED, *_ONLY_PYTHON)
}
_described = (
    describe_fields(GenerationConfig) | describe_fields(CallOptions) | describe_fields(OpenAIFields)
)


def _optional(hint: Any) -> Any:
    """Return the type hint of a value that may also be None."""
    if hasattr(hint, "__metadata__"):  # it is Annotated
        return Annotated[hint.__origin__ | None, *hint.__metadata__]
    return hint | None


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


@dataclass
class CompletionCall:
    """A checked request.

    Attributes:
        model: The name of the model.
        fields: OpenAI's fields of the request, without the settings of ``generate``.
        submission: The request for the engine. Text number i continues prompt i //
            fields.tries_per_prompt.
        starts_with_bos: For each text, whether the ids that the client sent begin with bos.
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
        RequestError: The body is not UTF-8, not JSON, nested too deeply or not an object, or holds
            NaN, half of a surrogate pair or a number of more than 100 digits.
    """
    try:
        value = parse_json(body.decode("utf-8"))
        if b"\\u" in body:  # an escape can be half of a surrogate pair, which has no UTF-8
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        if isinstance(value, dict):
            return value
        problem = f"The body must be a JSON object; got {quoted(value)}."
    except UnicodeDecodeError as error:
        problem = f"The body is not valid UTF-8, at byte {error.start}."
    except UnicodeEncodeError:
        problem = "A string of the body holds half of a surrogate pair (\\ud800)."
    except ValueError as error:
        problem = f"The body is not valid JSON: {error}."
    raise RequestError(400, problem, code="invalid_json")


def find_model(name: str | None, names: Sequence[str]) -> str:
    """Return the name of the model that a request is for.

    Raises:
        RequestError: The name is unknown (404), or is missing although there are several models
            (400).
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
    """Convert the fields of a chat completion to those of a completion. The last message of the
    user becomes the prompt.

    Fields that a completion does not have, such as tools, are ignored, since chat programs send
    them by themselves.

    Raises:
        RequestError: There is no message of the user, or its content is not text.
    """
    content = None  # the content of the user's last message
    for message in _objects(chat.get("messages")):
        if message.get("role") == "user":
            content = message.get("content")
    texts = [content]
    if not isinstance(content, str):
        texts = [part.get("text") for part in _objects(content)]
    if not _are_texts(texts):
        problem = (
            "messages must hold a message with the role user, whose content is a string, or a list"
            ' of parts {"type": "text", "text": "The movie"}.'
        )
        raise RequestError(400, problem, "messages")
    fields = {name: chat[name] for name in CHAT_FIELDS if name in chat}
    max_tokens = chat.get("max_completion_tokens") or chat.get("max_tokens")
    return fields | {"prompt": "".join(texts), "max_tokens": max_tokens}


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the items of a JSON array, with an empty object in place of each item that is not an
    object. Return no items if the value is not an array.
    """
    if not isinstance(value, list):
        return []
    return [item if isinstance(item, dict) else {} for item in value]


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    """Return whether a value is a list of strings that is not empty."""
    is_filled = isinstance(value, list) and len(value) > 0
    return is_filled and all(isinstance(item, str) for item in value)


def read_embedding(body: Mapping[str, Any], limits: Limits) -> list[str]:
    """Return the texts of a request for embeddings.

    Raises:
        RequestError: The input is not text or is too long, or the vectors are requested in a form
            that is not supported.
    """
    texts = body.get("input")
    if isinstance(texts, str):
        texts = [texts]
    if not _are_texts(texts):
        message = "input must be a string or a list of strings; token ids are not accepted."
        raise RequestError(400, message, "input")
    message = f"input has {len(texts):,} texts; a request has at most {limits.max_texts}."
    _refuse_if(len(texts) > limits.max_texts, "input", message)
    is_unknown = body.get("encoding_format") not in (None, "float", "base64")
    _refuse_if(is_unknown, "encoding_format", "encoding_format must be float or base64.")
    message = "dimensions is not supported: leave it out."
    _refuse_if(body.get("dimensions") is not None, "dimensions", message)
    _refuse_long(texts, limits, "input")
    return texts


def read_call(
    body: Mapping[str, Any], models: Mapping[str, ReviewModel], limits: Limits
) -> CompletionCall:
    """Return the checked call of a request.

    Args:
        body: The fields of the request, as JSON values.
        models: The models by name.
        limits: The limits of the server.

    Raises:
        RequestError: A field is unknown, of a wrong type, out of range or beyond a limit of the
            server, or contradicts another field or the model.
    """
    fields, settings = _read_fields(body)
    _refuse_contradictions(fields, settings)
    inputs = _read_prompts(fields.prompt)
    _refuse_many(fields, len(inputs), limits)
    _refuse_long(inputs, limits)
    name = find_model(fields.model, list(models))
    model = models[name]
    tokenizer = model.tokenizer
    prompts, prompt_ids, starts_with_bos = _prompts_and_ids(inputs, fields, tokenizer)
    _refuse_long(prompts, limits)
    options = {**settings, **fields.formats, "temperature": fields.temperature or None}
    if fields.scores_prompts and options.get("finish") is None:
        options["finish"] = "anywhere"  # return all tokens: programs that score texts count them
    tries = fields.tries_per_prompt
    try:
        request = make_request(
            _repeat(prompts, tries),
            _defaults(fields, model.generation_config, limits),
            cast(GenerateKwargs, options),
            tokenizer,
            model.conditions,
        )
    except ReviewgenError as error:
        raise to_request_error(error) from None
    if fields.scores_prompts:
        # draw no conditions, since a score must not depend on the seed
        request = replace(request, draws=())
    _refuse_many_logprobs(fields, request, prompt_ids)
    submission = EngineRequest(
        request,
        prompt_ids=_repeat(prompt_ids, tries) or None,
        # the best texts are chosen by the log probabilities of their tokens, without alternatives
        alternatives=0 if fields.logprobs is None and fields.picks_best else fields.logprobs,
        is_streamed=bool(fields.stream),
        is_echoed=bool(fields.echo),
        scores_prompts=fields.scores_prompts,
    )
    return CompletionCall(name, fields, submission, _repeat(starts_with_bos, tries), tokenizer)


def _repeat(items: Iterable[T], times: int) -> list[T]:
    """Return each item several times in a row."""
    return list(chain.from_iterable(repeat(item, times) for item in items))


def _prompts_and_ids(
    inputs: list[Any], fields: OpenAIFields, tokenizer: Tokenizer
) -> tuple[list[str], list[list[int]], list[bool]]:
    """Return three lists, each with an item for each prompt: its text; the ids to feed in place of
    the encoded text; and whether the ids that the client sent began with bos. The second list is
    empty if the texts are encoded as usual.
    """
    starts_with_bos = [False] * len(inputs)
    if not isinstance(inputs[0], str):
        bos = [tokenizer.bos_id]
        starts_with_bos = [ids[:1] == bos for ids in inputs]
        prompt_ids = [ids[1:] if ids[:1] == bos else ids for ids in inputs]
        return [_decode(ids, tokenizer) for ids in prompt_ids], prompt_ids, starts_with_bos
    if fields.scores_prompts:  # a prompt is scored as it is: its last word is not sampled again
        prompt_ids = [list(tokenizer.encode(prompt)) for prompt in inputs]
        return [tokenizer.decode(ids) for ids in prompt_ids], prompt_ids, starts_with_bos
    return inputs, [], starts_with_bos


def _read_fields(body: Mapping[str, Any]) -> tuple[OpenAIFields, dict[str, Any]]:
    """Return OpenAI's fields of a request, and its settings of ``generate``."""
    for name in body:
        if name in _ONLY_PYTHON:
            message = f"{name} is not offered over HTTP: call generate in Python or as a command."
            raise RequestError(400, message, name, "unsupported")
        if name not in HINTS:
            message = f"{quoted(name)} is not a field of a completion. {did_you_mean(name, HINTS)}"
            raise RequestError(400, message, name, "unknown_field")
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in body.items()
        if name in _SETTINGS
    }
    others = {name: value for name, value in body.items() if name not in _SETTINGS}
    try:
        for name, value in settings.items():
            check_value(name, value, HINTS[name])
        return from_dict(OpenAIFields, others), settings
    except ConfigError as error:
        param = str(error).partition(" ")[0]  # the message begins with the name of the field
        # the description of the field says what to do
        raise RequestError(400, f"{error} {DESCRIPTIONS.get(param, '')}".rstrip(), param) from None


def _refuse_contradictions(fields: OpenAIFields, settings: Mapping[str, Any]) -> None:
    """Raise if a value is not supported, or if two fields cannot be used together."""
    _refuse_if(fields.logit_bias, "logit_bias", "logit_bias is not supported: leave it out.")
    stops = len(fields.stops)
    message = f"stop may hold at most {_MAX_STOPS} strings; got {stops:,}."
    _refuse_if(stops > _MAX_STOPS, "stop", message)
    options = fields.stream_options or {}
    for name, value in options.items():
        is_known = name in _STREAM_OPTIONS and isinstance(value, bool)
        message = f"stream_options may hold include_usage, true or false; got {quoted(options)}."
        _refuse_if(not is_known, "stream_options", message)
    message = "stream_options needs stream: true."
    _refuse_if(options and not fields.stream, "stream_options", message)
    tries = fields.tries_per_prompt
    message = f"best_of={tries} is below n={fields.n}: raise it."
    _refuse_if(tries < (fields.n or 1), "best_of", message)
    message = "best_of chooses among whole texts: leave out stream."
    _refuse_if(fields.picks_best and fields.stream, "best_of", message)
    lacks_filter = settings.get("max_copy") is not None and settings.get("novelty") != "filter"
    _refuse_if(lacks_filter, "max_copy", 'max_copy needs novelty: "filter".')


def _refuse_many(fields: OpenAIFields, prompts: int, limits: Limits) -> None:
    """Raise if a request with this number of prompts asks for too many texts."""
    texts = fields.tries_per_prompt * prompts
    max_texts = min(limits.max_texts, limits.max_waiting)
    message = (
        f"A request may ask for at most {max_texts:,} texts, all prompts together; this one asks"
        f" for {texts:,}."
    )
    # the field at fault: the one that multiplies the texts, if one does
    param = "prompt"
    for name in ("n", "best_of"):
        if getattr(fields, name):
            param = name
    _refuse_if(texts > max_texts, param, message, "limit_exceeded")


def _refuse_many_logprobs(
    fields: OpenAIFields, request: Request, ids: Sequence[Sequence[int]]
) -> None:
    """Raise if a response may have too many log probabilities. In a stream, only those of the
    prompts are counted.
    """
    if fields.logprobs is None:
        return
    tokens = 0
    if fields.scores_prompts:
        tokens += sum(map(len, ids)) * fields.tries_per_prompt
    if not fields.stream:
        tokens += request.config.max_new_tokens * len(request.prompts)
    numbers = tokens * (1 + fields.logprobs)
    message = (
        f"A response may have at most {_MAX_ALL_LOGPROBS:,} log probabilities; this one may have"
        f" {numbers:,}: ask for less, or stream it."
    )
    _refuse_if(numbers > _MAX_ALL_LOGPROBS, "logprobs", message, "limit_exceeded")


def _refuse_if(is_wrong: object, param: str, message: str, code: str = "invalid_value") -> None:
    """Raise a ``RequestError`` about a field if ``is_wrong`` is true."""
    if is_wrong:
        raise RequestError(400, message, param, code)


def _refuse_long(prompts: Sequence[Any], limits: Limits, param: str = "prompt") -> None:
    """Raise if texts, or lists of token ids, are too long together. ``param`` is the field of the
    request that has them.
    """
    length = sum(map(len, prompts))
    unit = "characters" if isinstance(prompts[0], str) else "token ids"
    message = (
        f"The {param}s may have at most {limits.max_prompt:,} {unit} together; these have"
        f" {length:,}."
    )
    _refuse_if(length > limits.max_prompt, param, message, "limit_exceeded")


def _read_prompts(prompt: Any) -> list[Any]:
    """Return the prompts, which are all texts or all lists of token ids. Without a prompt, return
    the empty text.
    """
    # a list of token ids is one prompt, too; an empty list has no prompts
    is_one = not isinstance(prompt, list) or (prompt and _are_ids(prompt))
    prompts: list[Any] = [prompt or ""] if is_one else prompt
    if _are_texts(prompts) or (prompts and all(map(_are_ids, prompts))):
        return prompts
    problem = (
        "prompt must be a string, a list of strings, a list of token ids, or a list of such lists;"
        f" got {quoted(prompt)}."
    )
    raise RequestError(400, problem, "prompt")


def _are_ids(value: Any) -> bool:
    """Return whether a value is a list of integers, which may be empty."""
    return isinstance(value, list) and all(type(item) is int for item in value)


def _decode(ids: list[int], tokenizer: Tokenizer) -> str:
    """Return the text of token ids."""
    ends = (tokenizer.bos_id, tokenizer.eos_id)
    for token in set(ids):
        message = (
            f"{token} in prompt is not a token id of this model: they are 0 to"
            f" {tokenizer.vocab_size - 1}, without {ends[0]} and {ends[1]}, the beginning and end"
            " of a text."
        )
        _refuse_if(not 0 <= token < tokenizer.vocab_size or token in ends, "prompt", message)
    text = tokenizer.decode(ids)
    is_cut = "\ufffd" in text and tokenizer.encode(text) != ids
    _refuse_if(
        is_cut, "prompt", "The token ids of prompt end inside a character: add the rest of it."
    )
    return text


def _defaults(fields: OpenAIFields, saved: GenerationConfig, limits: Limits) -> GenerationConfig:
    """Return the model's own settings, changed by OpenAI's fields of a request, within the limits
    of the server.
    """
    max_tokens = fields.max_tokens
    if max_tokens is None:
        max_tokens = min(saved.max_new_tokens, limits.max_tokens)
    message = f"max_tokens may be at most {limits.max_tokens:,} here; got {max_tokens:,}."
    _refuse_if(max_tokens > limits.max_tokens, "max_tokens", message, "limit_exceeded")
    min_tokens = fields.min_tokens
    if min_tokens is None:
        min_tokens = min(saved.min_new_tokens, max_tokens)
    message = f"min_tokens={min_tokens} is above max_tokens={max_tokens}."
    _refuse_if(min_tokens > max_tokens, "min_tokens", message)
    return replace(
        saved,
        num_return_sequences=1,
        num_beams=1,
        do_sample=saved.do_sample if fields.temperature is None else fields.temperature > 0,
        max_new_tokens=max_tokens,
        min_new_tokens=min_tokens,
        max_time=min(limits.request_seconds, saved.max_time or math.inf),
        stop_strings=fields.stops or saved.stop_strings,
    )
