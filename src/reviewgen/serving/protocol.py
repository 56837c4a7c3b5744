"""From the JSON of ``POST /v1/completions`` to a checked call: the model, the prompts and the ``Request`` of each text.

Knows the models by what is asked of them only: tokenizer, conditions, generation defaults.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from reviewgen.config import fields_of, from_dict
from reviewgen.errors import ConfigError, ReviewgenError, did_you_mean, quoted
from reviewgen.generation import GenerateOptions, Request, make_request
from reviewgen.model import ReviewModel
from reviewgen.protocols import Tokenizer
from reviewgen.serving.fields import MAX_STOPS, SAME, CompletionFields, OpenAIFields
from reviewgen.serving.limits import Limits
from reviewgen.serving.problems import Problem, problem_of

_MAX_WORDS = 16  # of must_include
_MAX_NUMBERS = 2_000_000  # log probabilities of a response, or of the prompts of a stream
_NEUTRAL = {"presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}, "suffix": ""}
_INSTEAD = {
    "presence_penalty": "Use repetition_penalty.",
    "frequency_penalty": "Use repetition_penalty.",
    "logit_bias": "Leave it out.",
    "suffix": "These models write from left to right: leave it out.",
}


@dataclass(frozen=True)
class Call:
    """A checked request.

    Attributes:
        fields: Its fields.
        request: What the engine is asked for: text number i continues prompt i // fields.tries_per_prompt.
        prompt_ids: The token ids of each text's prompt; None where prompts are texts, and not to be scored.
        starts_with_bos: Whether the ids that the client sent begin with bos, for each text.
    """

    fields: OpenAIFields
    request: Request
    prompt_ids: Sequence[Sequence[int]] | None = None
    starts_with_bos: Sequence[bool] = ()

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return bool((self.fields.stream_options or {}).get("include_usage"))

    @property
    def needs_tokens(self) -> bool:
        """Whether the tokens are needed, and not only whole texts."""
        return bool(self.fields.stream) or self.alternatives is not None

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to each token are needed; None if no log probabilities are."""
        return 0 if self.fields.logprobs is None and self.picks_best else self.fields.logprobs

    @property
    def picks_best(self) -> bool:
        """Whether more texts are generated than returned."""
        return self.fields.tries_per_prompt > self.fields.texts_per_prompt


def find_model(name: str | None, names: Sequence[str]) -> str:
    """Return the name of the model that a request is for.

    Raises:
        Problem: It is unknown (404), or not given where there are several (400).
    """
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise Problem(400, f"model is missing. {did_you_mean('', names)}", "model", "missing_field")
    if name not in names:
        raise Problem(404, f"There is no model {name!r} here. {did_you_mean(name, names)}", "model", "model_not_found")
    return name


def make_call(body: Mapping[str, Any], model: ReviewModel, limits: Limits) -> Call:
    """Return the checked call of a request.

    Raises:
        Problem: A field is unknown, of a wrong type, out of range or of the limits, or contradicts another.
    """
    given = {name: value for name, value in body.items() if name != "prompt"}
    fields = _read_fields(given)
    _refuse_unsupported(fields)
    _refuse_pairs(fields)
    _refuse_too_much(fields, body.get("prompt"), limits)  # before the prompts are decoded, which takes a while
    prompts, ids, with_bos = _read_prompts(body.get("prompt"), model.tokenizer)
    if fields.scores_prompts and ids is None:  # a prompt is scored as it is: its last word is not sampled again
        ids = [list(model.tokenizer.encode(prompt)) for prompt in prompts]
        prompts = [model.tokenizer.decode(each) for each in ids]
    _refuse_long(sum(map(len, prompts)), "characters", limits)
    try:
        request = _make_request(fields, prompts, model, limits)
    except ReviewgenError as error:
        raise problem_of(error) from None
    _refuse_many_numbers(fields, ids, request)
    tries = range(fields.tries_per_prompt)
    repeated = [each for each in with_bos for _ in tries]
    return Call(fields, request, None if ids is None else [each for each in ids for _ in tries], repeated)


def _read_fields(given: Mapping[str, Any]) -> OpenAIFields:
    known = [*fields_of(CompletionFields), "prompt"]
    for name in given:
        if name not in known:
            raise Problem(
                400, f"{quoted(name)} is not a field of a completion. {did_you_mean(name, known)}", name, "unknown_field"
            )
    for name, limit in (("stop", MAX_STOPS), ("must_include", _MAX_WORDS)):
        value = given.get(name)
        if isinstance(value, list) and len(value) > limit:
            raise Problem(400, f"{name} may hold at most {limit} strings; got {len(value):,}.", name, "invalid_value")
    try:
        return from_dict(CompletionFields, given)
    except ConfigError as error:
        param = str(error).partition(" ")[0]
        raise Problem(400, str(error), param if param in known else None, "invalid_value") from None


def _read_prompts(prompt: Any, tokenizer: Tokenizer) -> tuple[list[str], list[list[int]] | None, list[bool]]:
    """Return the prompts as texts, none given as the empty text; their token ids if they are given as such, without bos; and
    which of these begin with bos."""
    if prompt is None or isinstance(prompt, str):
        return [prompt or ""], None, [False]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(part, str) for part in prompt):
            return prompt, None, [False] * len(prompt)
        lists = [prompt] if all(map(_is_whole, prompt)) else prompt
        if all(isinstance(part, list) and all(map(_is_whole, part)) for part in lists):
            with_bos = [part[:1] == [tokenizer.bos_id] for part in lists]
            ids = [part[has_bos:] for part, has_bos in zip(lists, with_bos, strict=True)]
            return [_decode(part, tokenizer) for part in ids], ids, with_bos
    accepted = "a string, a list of strings, a list of token ids, or a list of such lists"
    raise Problem(400, f"prompt must be {accepted}; got {prompt!r}.", "prompt", "invalid_value")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _decode(ids: list[int], tokenizer: Tokenizer) -> str:
    """Return the text of token ids."""
    for token in ids:
        if not 0 <= token < tokenizer.vocab_size:
            message = f"{token} in prompt is not a token id of this model: they are 0 to {tokenizer.vocab_size - 1}."
            raise Problem(400, message, "prompt", "invalid_value")
        if token in (tokenizer.bos_id, tokenizer.eos_id):
            raise Problem(400, f"The token id {token} in prompt is the beginning or end of a text.", "prompt", "invalid_value")
    text = tokenizer.decode(ids)
    if "\ufffd" in text and tokenizer.encode(text) != ids:
        raise Problem(400, "The token ids of prompt end inside a character: add the rest of it.", "prompt", "invalid_value")
    return text


def _refuse_unsupported(fields: OpenAIFields) -> None:
    for name, neutral in _NEUTRAL.items():
        value = getattr(fields, name)
        if value is not None and value != neutral:
            message = f"{name} is not supported; only {neutral!r} is accepted, got {value!r}. {_INSTEAD[name]}"
            raise Problem(400, message, name, "unsupported")
    for name, value in (fields.stream_options or {}).items():
        if name not in ("include_usage", "include_obfuscation") or not isinstance(value, bool):
            message = f"stream_options may hold include_usage, true or false; got {name!r}: {value!r}."
            raise Problem(400, message, "stream_options", "invalid_value")


def _refuse_pairs(fields: OpenAIFields) -> None:
    """Raise where two fields contradict each other."""
    n, best_of = fields.texts_per_prompt, fields.tries_per_prompt
    lacks_filter = vars(fields)["max_copy"] is not None and vars(fields)["novelty"] != "filter"
    is_greedy = bool(fields.must_include) and fields.temperature == 0
    _refuse_if(best_of < n, "best_of", f"best_of={best_of} is below n={n}: raise it, or leave it out.")
    _refuse_if(best_of > n and fields.stream, "best_of", "best_of chooses among whole texts: it cannot be combined with stream.")
    _refuse_if(fields.stream_options and not fields.stream, "stream_options", "stream_options needs stream: true.")
    searches = fields.scores_prompts and bool(fields.must_include)
    _refuse_if(searches, "echo", "must_include cannot be combined with echo and logprobs: leave one of them out.")
    _refuse_if(lacks_filter, "max_copy", 'max_copy needs novelty: "filter".')
    _refuse_if(is_greedy, "must_include", "must_include samples texts until one fits, so it needs a temperature above 0.")


def _refuse_if(is_wrong: Any, param: str, message: str) -> None:
    if is_wrong:
        raise Problem(400, message, param, "invalid_value")


def _refuse_too_much(fields: OpenAIFields, prompt: Any, limits: Limits) -> None:
    """Raise where a request asks for more than one request may."""
    prompts, length, unit = _measure(prompt)
    texts = prompts * fields.tries_per_prompt
    if fields.max_tokens is not None and fields.max_tokens > limits.max_tokens:
        message = f"max_tokens may be at most {limits.max_tokens:,} here; got {fields.max_tokens:,}."
        raise Problem(400, message, "max_tokens", "limit_exceeded")
    if texts > limits.most_texts:
        param = "best_of" if fields.best_of else "n" if fields.n else "prompt"
        message = f"A request may ask for at most {limits.most_texts:,} texts, all prompts together; this one asks for {texts:,}."
        raise Problem(400, message, param, "limit_exceeded")
    _refuse_long(length, unit, limits)


def _refuse_long(length: int, unit: str, limits: Limits) -> None:
    if length > limits.max_prompt:
        message = f"The prompts may have at most {limits.max_prompt:,} {unit} together; these have {length:,}."
        raise Problem(400, message, "prompt", "limit_exceeded")


def _refuse_many_numbers(fields: OpenAIFields, ids: Sequence[Sequence[int]] | None, request: Request) -> None:
    """Raise where a response would have millions of log probabilities at once."""
    if fields.logprobs is None:
        return
    prompts = sum(map(len, ids or ())) * fields.tries_per_prompt if fields.scores_prompts else 0
    new = 0 if fields.stream else request.config.max_new_tokens * len(request.prompts)
    if (count := (prompts + new) * (1 + fields.logprobs)) > _MAX_NUMBERS:
        message = f"A response may have at most {_MAX_NUMBERS:,} log probabilities; this one may have {count:,}"
        raise Problem(400, f"{message}: ask for fewer texts or tokens, lower logprobs, or stream.", "logprobs", "limit_exceeded")


def _measure(prompt: Any) -> tuple[int, int, str]:
    """Return the number of prompts, and their length together with its unit, of a prompt that was not checked yet."""
    if prompt is None or isinstance(prompt, str):
        return 1, len(prompt or ""), "characters"
    if not isinstance(prompt, list) or not prompt:
        return 1, 0, "characters"
    if not isinstance(prompt[0], str | list):
        return 1, len(prompt), "token ids"
    length = sum(len(part) for part in prompt if isinstance(part, str | list))
    return len(prompt), length, "characters" if isinstance(prompt[0], str) else "token ids"


def _make_request(fields: OpenAIFields, prompts: Sequence[str], model: ReviewModel, limits: Limits) -> Request:
    """Return the request of the engine; what is not given is the model's own default, within the limits."""
    saved = model.generation_config
    max_tokens = min(saved.max_new_tokens, limits.max_tokens) if fields.max_tokens is None else fields.max_tokens
    min_tokens = min(saved.min_new_tokens, max_tokens) if fields.min_tokens is None else fields.min_tokens
    if min_tokens > max_tokens:
        raise Problem(400, f"min_tokens={min_tokens} is above max_tokens={max_tokens}.", "min_tokens", "invalid_value")
    seconds = min(limits.request_seconds, math.inf if saved.max_time is None else saved.max_time)
    samples = saved.do_sample if fields.temperature is None else fields.temperature > 0
    defaults = replace(
        saved,
        num_return_sequences=1,
        num_beams=1,
        do_sample=samples,
        max_new_tokens=max_tokens,
        min_new_tokens=min_tokens,
        max_time=seconds,
        stop_strings=fields.stops or saved.stop_strings,
    )
    options: dict[str, Any] = {name: getattr(fields, name) for name in SAME} | {"temperature": fields.temperature or None}
    if fields.scores_prompts and vars(fields)["finish"] is None:
        options["finish"] = "anywhere"  # all tokens are returned: programs that score count them
    repeated = [prompt for prompt in prompts for _ in range(fields.tries_per_prompt)]
    return make_request(repeated, defaults, cast(GenerateOptions, options), model.tokenizer, model.conditions)
