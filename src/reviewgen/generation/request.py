"""Checks the arguments of one call of ``generate``."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Annotated, Any, TypeAlias

import numpy as np

from reviewgen.conditions import ANY, DRAW, Conditions, DrawGroup, draw_values
from reviewgen.config.generation import GenerationConfig, GenerationSettings, generation_config
from reviewgen.config.settings import Bound, check_mapping, check_value, seed_or_random
from reviewgen.errors import ConfigError, quoted
from reviewgen.generation.hooks import Hooks, as_processors, make_hooks, one_or_more
from reviewgen.protocols.extensions import TokenAutomaton
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.registry.metadata import Plugin

_MAX_BEST_OF = 100_000
# what each of these settings cannot be combined with
_EXCLUDED = {
    "num_beams": ("novelty='filter'", "a format", "stopping_criteria", "a streamer"),
    "best_of": ("num_beams", "do_sample=False", "a streamer"),
}


class GenerateKwargs(GenerationSettings, total=False):
    """The keywords of ``ReviewModel.generate``; see there for what they mean."""

    generation_config: GenerationConfig | Mapping[str, Any] | None
    logits_processor: Any
    stopping_criteria: Any
    streamer: Any
    seed: int | None
    novelty: str | None
    max_copy: int | None
    must_include: str | Iterable[str] | None
    profile: str | None
    best_of: int | None
    judge: Any


Judge: TypeAlias = Callable[[str, str], float]
"""Rates what a text adds to its prompt: ``judge(continuation, prompt)``; higher is better."""


def device_facts(device: str) -> dict[str, str]:
    """Return the type of a device, as in {"device": "cuda"} for "cuda:0"; {} for the CPU.

    It is part of what reproduces a text, since each type of accelerator rounds differently.
    """
    return {} if device == "cpu" else {"device": device.split(":")[0]}


@dataclass(frozen=True)
class Request:
    """The checked arguments of a call.

    Attributes:
        prompts: The prompt of each text. If a prompt gets several texts, it is repeated.
        config: The generation settings.
        seed: The seed of the call.
        hooks: Objects that are called at every token.
        novelty: "report", "filter" or None.
        max_copy: With novelty="filter", the maximum length of a copied span in tokens; None takes
            the default.
        prefix: The ids of the conditions, between bos and the text; used if no condition is drawn.
        conditions: The conditions of the model; needed if some are drawn.
        fixed: The values of the conditions that are the same for all texts.
        draws: The groups of conditions whose values are drawn for each text.
        best_of: The number of texts that are generated for each prompt; the best
            ``num_return_sequences`` of them are returned, the best first. 0 returns all texts.
        judge: Rates texts for ``best_of``; None rates them by the model's own log probability.
        offset: The number of the first text, if the call is a part of a larger one.
        device: The device that generates.
    """

    prompts: Sequence[str]
    config: GenerationConfig
    seed: int
    hooks: Hooks | None = None
    novelty: str | None = None
    max_copy: int | None = None
    prefix: Sequence[int] = ()
    conditions: Conditions = field(default_factory=Conditions)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    draws: Sequence[DrawGroup] = ()
    best_of: int = 0
    judge: Judge | None = None
    offset: int = 0
    device: str = "cpu"

    def conditions_of(self, number: int) -> dict[str, Any]:
        """Return the values of the conditions of text ``number``, given or drawn. Unspecified
        conditions are left out.
        """
        values = {**self.fixed, **draw_values(self.draws, self.seed, number)}
        return {name: value for name, value in values.items() if value is not None}

    def prefix_of(self, number: int) -> Sequence[int]:
        """Return the ids of the conditions of text ``number``."""
        return self.conditions.encode(self.conditions_of(number)) if self.draws else self.prefix

    @property
    def automata(self) -> Mapping[str, TokenAutomaton]:
        """The automata of plugins that the texts must fit, by name."""
        return {} if self.hooks is None else self.hooks.automata

    @property
    def has_format(self) -> bool:
        """Whether a setting or a plugin says what a text must look like."""
        return self.config.has_format or bool(self.automata)

    @property
    def plugins(self) -> list[Plugin]:
        """The plugins that provide the logits processors of this call."""
        processors = [] if self.hooks is None else self.hooks.processors
        return [each.plugin for each in processors if each.plugin is not None]

    def deadline(self) -> float | None:
        """Return the value of ``time.monotonic`` at which a call that starts now must end; None
        without ``max_time``.
        """
        return None if self.config.max_time is None else time.monotonic() + self.config.max_time


def make_request(
    prompt: str | Sequence[str],
    defaults: GenerationConfig,
    options: GenerateKwargs,
    tokenizer: Tokenizer,
    conditions: Conditions | None = None,
) -> Request:
    """Check the arguments of a call, and make the request.

    Args:
        prompt: A prompt, or a sequence of prompts.
        defaults: The model's generation defaults.
        options: The keywords of the call.
        tokenizer: The model's tokenizer; named logits processors are made for it.
        conditions: The conditions that the model was trained with.

    Raises:
        ConfigError: A setting is unknown, out of range, or incompatible with another.
        PluginError: A logits processor is not installed, or cannot be made.
    """
    args, settings = _split_options(options)
    config = generation_config(
        defaults.of_profile(args["profile"]), args["generation_config"], settings, args
    )
    check_value(
        "best_of",
        args["best_of"],
        Annotated[int | None, Bound(at_least=config.num_return_sequences, at_most=_MAX_BEST_OF)],
    )
    if args["judge"] is not None and args["best_of"] is None:
        raise ConfigError("judge needs best_of, the number of texts that it chooses among.")
    # a streamer gets each token at once, so no token can be removed later: a saved
    # finish="sentence" has no effect
    if args["streamer"] is not None and settings.get("finish") is None:
        config = replace(config, finish=None)
    config = replace(config, include=(*config.include, *_words(args["must_include"])))
    processors = args["logits_processor"]
    saved: Sequence[str] = ()
    if processors is None:
        processors = config.logits_processors
        saved = defaults.logits_processors
    hooks = make_hooks(processors, tokenizer, args["stopping_criteria"], args["streamer"], saved)
    conditions = conditions or Conditions()
    is_sampled = config.do_sample is not False and config.num_beams == 1
    fixed, draws = conditions.plan_draws(config.conditions, DRAW if is_sampled else ANY)
    texts_per_prompt = args["best_of"] or config.num_return_sequences
    request = Request(
        prompts=list(chain.from_iterable([text] * texts_per_prompt for text in _prompts(prompt))),
        config=config,
        seed=seed_or_random(args["seed"]),
        hooks=hooks,
        novelty=args["novelty"],
        max_copy=args["max_copy"],
        prefix=conditions.encode(config.conditions),
        conditions=conditions,
        fixed=fixed,
        draws=draws,
        best_of=args["best_of"] or 0,
        judge=args["judge"],
    )
    _refuse_pairs(request)
    return request


def _split_options(options: GenerateKwargs) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the keywords of a call into its own arguments and the generation settings.

    An argument that was not given is None.
    """
    keywords = GenerateKwargs.__annotations__.keys() - GenerationSettings.__annotations__.keys()
    args = {name: _plain(options.get(name)) for name in keywords}
    settings = {name: _plain(value) for name, value in options.items() if name not in keywords}
    if settings.get("conditions") is not None:
        values = check_mapping("conditions", settings["conditions"], "{'stars': 5}")
        settings["conditions"] = {name: _plain(value) for name, value in values.items()}
    if settings.get("likeness") is not None:
        raise ConfigError(
            "likeness is saved with a model, by save_generation_config, and a call chooses it with"
            " profile='likeness'."
        )
    if args["logits_processor"] is not None:
        if settings.get("logits_processors") is not None:
            raise ConfigError(
                "logits_processor and logits_processors are both given; name all in"
                " logits_processor."
            )
        processors = as_processors(args["logits_processor"])
        args["logits_processor"] = processors
        settings["logits_processors"] = tuple(item for item in processors if isinstance(item, str))
    return args, settings


def _refuse_pairs(request: Request) -> None:
    """Raise an error if ``novelty`` has an unknown value, or two settings cannot be combined."""
    config = request.config
    modes = (None, "report", "filter")
    if not isinstance(request.novelty, str | None) or request.novelty not in modes:
        raise ConfigError(f"novelty must be 'report' or 'filter'; got {quoted(request.novelty)}.")
    is_filtered = request.novelty == "filter"
    if request.max_copy is not None and not is_filtered:
        raise ConfigError("max_copy needs novelty='filter'.")
    has_streamer = request.hooks is not None and request.hooks.streamer is not None
    if has_streamer and len(request.prompts) != 1:
        raise ConfigError(f"A streamer takes one text; this call asks for {len(request.prompts)}.")
    if has_streamer and (request.has_format or config.finish == "sentence" or is_filtered):
        raise ConfigError(
            "A format, finish and novelty='filter' may remove text again, so they cannot be"
            " combined with a streamer."
        )
    is_greedy = config.do_sample is False
    is_set = {
        "num_beams": config.num_beams > 1,
        "best_of": request.best_of,
        "a format": request.has_format,
        "do_sample=False": is_greedy,
        "novelty='filter'": is_filtered,
        "a streamer": has_streamer,
        "stopping_criteria": request.hooks is not None and request.hooks.criteria,
    }
    for name, others in _EXCLUDED.items():
        wrong = [other for other in others if is_set[other]]
        if is_set[name] and wrong:
            raise ConfigError(f"{name} cannot be combined with {wrong[0]}.")


def _prompts(prompt: Any) -> Sequence[str]:
    """Check the argument ``prompt``, and return it as a list."""
    prompts = one_or_more(prompt)
    if prompt is None or not all(isinstance(text, str) for text in prompts):
        raise ConfigError(f"prompt must be a string or a list of strings; got {quoted(prompt)}.")
    return prompts


def _plain(value: Any) -> Any:
    """Convert a NumPy scalar to a Python number; return anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _words(words: Any) -> Sequence[str]:
    """Check the argument ``must_include``, the older name of ``include``; return it as a list."""
    listed = one_or_more(words)
    if not all(isinstance(word, str) and word for word in listed):
        raise ConfigError(
            f"must_include is a non-empty string or a list of such strings; got {quoted(words)}."
        )
    return listed
