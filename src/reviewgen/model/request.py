"""What one call of ``generate`` asks for: settings, prompts, conditions, a copy limit, objects of transformers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reviewgen.config import GenerationConfig, GenerationSettings, generation_config
from reviewgen.errors import ConfigError
from reviewgen.sampling import Hooks, check_prompts, check_seed, make_hooks

__all__ = ["GenerateOptions", "Request", "make_request"]


class GenerateOptions(GenerationSettings, total=False):
    """The keywords of ``ReviewModel.generate``, which says what they mean."""

    generation_config: GenerationConfig | Mapping[str, Any] | None
    logits_processor: Any
    stopping_criteria: Any
    streamer: Any
    seed: int | None
    novelty: str | None
    max_copy: int | None
    conditions: Mapping[str, Any] | None
    must_include: str | Iterable[str] | None


@dataclass(frozen=True)
class Request:
    """A checked call."""

    prompts: Sequence[str]  # each as often as it is to be continued
    config: GenerationConfig
    seed: int
    hooks: Hooks | None
    novelty: str | None
    max_copy: int | None
    conditions: Mapping[str, Any]
    must_include: Sequence[str]

    @property
    def may_take_back(self) -> bool:
        """Whether tokens that were written may be missing from the text."""
        return bool(self.must_include) or self.config.finish is not None or self.novelty == "filter"


def make_request(prompt: str | Sequence[str], defaults: GenerationConfig, options: GenerateOptions) -> Request:
    """Check a call and put it together.

    Raises:
        ConfigError: A setting is unknown, out of range, or does not go with another.
    """
    own = GenerateOptions.__annotations__.keys() - GenerationSettings.__annotations__.keys()
    given: dict[str, Any] = {name: _plain(options.get(name)) for name in own}
    settings = {name: _plain(value) for name, value in options.items() if name not in own}
    config = generation_config(defaults, given["generation_config"], settings, own)
    request = Request(
        prompts=check_prompts(prompt, config.num_return_sequences),
        config=config,
        seed=check_seed(given["seed"]),
        hooks=make_hooks(given["logits_processor"], given["stopping_criteria"], given["streamer"]),
        novelty=given["novelty"],
        max_copy=given["max_copy"],
        conditions=_mapping(given["conditions"]),
        must_include=_words(given["must_include"]),
    )
    _refuse_pairs(request)
    return request


def _refuse_pairs(request: Request) -> None:
    """Raise where one wish excludes another."""
    if request.novelty not in (None, "report", "filter"):
        raise ConfigError(f"novelty must be 'report' or 'filter'; got {request.novelty!r}.")
    if request.max_copy is not None and request.novelty != "filter":
        raise ConfigError("max_copy goes with novelty='filter'.")
    if request.hooks is not None and request.hooks.streamer is not None:
        if len(request.prompts) != 1:
            raise ConfigError(f"A streamer takes one text; this call writes {len(request.prompts)}.")
        if request.may_take_back:
            raise ConfigError("must_include, finish and novelty='filter' may take text back, so they do not go with a streamer.")
    if request.config.num_beams > 1:
        for name, is_given in (
            ("novelty='filter'", request.novelty == "filter"),
            ("must_include", bool(request.must_include)),
            ("stopping_criteria", request.hooks is not None and bool(request.hooks.criteria)),
            ("a streamer", request.hooks is not None and request.hooks.streamer is not None),
        ):
            if is_given:
                raise ConfigError(f"num_beams does not go with {name}.")
    if request.must_include and request.config.do_sample is False:
        raise ConfigError("must_include draws texts until one fits, so it does not go with do_sample=False.")


def _mapping(conditions: Any) -> Mapping[str, Any]:
    if conditions is None:
        return {}
    if not isinstance(conditions, Mapping):
        raise ConfigError(f"conditions is a mapping of names to values, as in {{'stars': 5}}; got {conditions!r}.")
    return {name: _plain(value) for name, value in conditions.items()}


def _plain(value: Any) -> Any:
    """Return a number of numpy as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _words(words: Any) -> Sequence[str]:
    found: list[Any] = [words] if isinstance(words, str) else [] if words is None else [None]
    if isinstance(words, Iterable) and not isinstance(words, str):
        found = list(words)
    if not all(isinstance(word, str) and word for word in found):
        raise ConfigError(f"must_include is a string or a list of strings, none of them empty; got {words!r}.")
    return found
