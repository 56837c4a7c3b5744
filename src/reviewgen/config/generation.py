"""The settings of ``generate``, named and defined as in transformers; and presets."""

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypedDict

from reviewgen.config.names import check_plugin_names
from reviewgen.config.settings import Bound, NonNegativeInt, check, fields_of, from_dict
from reviewgen.errors import ConfigError, did_you_mean, quoted

# The limits of the defaults that are saved with a model; see check_saved_generation.
_MAX_TOKENS = 100_000  # limit of max_new_tokens
_MAX_FORCED = 10_000  # limit of min_new_tokens
_MAX_BEAM_TOKENS = 1_000_000  # limit of max_new_tokens times num_beams
_MAX_LISTED = 1_000  # limit of the elements of a list, and of no_repeat_ngram_size
_MAX_WORDS = 20  # limit of the words in include, which a text must contain
_MAX_STRING = 1_000  # limit of the characters of a stop string
# the settings that can be a list; a call may also give a single string, or any iterable
_LISTS = ("stop_strings", "logits_processors", "temperature", "choices", "include", "exclude")
GRAMMARS = ("regex", "json_schema", "grammar", "sentences")
"""The settings that describe all of what follows the prompt, and need llguidance."""

FORMATS = (*GRAMMARS, "choices", "include", "exclude")
"""The settings that say what a text must look like."""

# the settings that can differ between the profiles of a model
_PROFILE_SETTINGS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "words",
    *FORMATS,
)


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """The settings of ``generate``; the names and meanings are those of transformers.

    Attributes:
        max_new_tokens: The maximum number of new tokens; a longer text is cut off.
        min_new_tokens: The minimum number of new tokens before a text may end.
        num_return_sequences: The number of texts per prompt.
        do_sample: Sample tokens, or take the most probable one; sampled if not given, except with
            num_beams above 1.
        num_beams: The number of beams of a beam search; 1 is off.
        length_penalty: The score of a beam is its log probability divided by its length to the
            power of this; above 0 favours long texts.
        temperature: Below 1 favours probable tokens, above 1 rare ones. A list is a cycle: token t
            uses element t % length.
        top_k: Sample from the k most probable tokens only; 0 is off.
        top_p: Sample from the smallest set of most probable tokens whose probabilities sum to this;
            1 is off.
        min_p: Sample only from tokens at least this many times as probable as the most probable
            one; 0 is off.
        repetition_penalty: Above 1 makes tokens that already occur in the text less probable
            (Keskar et al. 2019); 1 is off.
        no_repeat_ngram_size: No n-gram of this many tokens occurs twice in a text; 0 is off.
        stop_strings: A text ends after the first occurrence of any of these strings.
        max_time: The maximum time of a call in seconds, after which all texts are cut off; no limit
            if not given.
        words: "known" restricts generation to words that occur in at least min_texts training texts
            (2 by default); "any" does not. An unknown word of a prompt is left alone.
        finish: "sentence" removes an unfinished last sentence, unless it is the only one;
            "anywhere" keeps it (default).
        logits_processors: Names of installed logits processors, called in this order; the list of a
            call replaces the saved one.
        conditions: Values of the conditions that the model was trained with, as in {"stars": 5};
            "any" leaves a condition unspecified. If texts are sampled, the value of a condition
            that is not given is drawn for each text, by the shares of the values in the training
            texts, as with the value "draw"; otherwise it is unspecified. The values of a call are
            added to the saved ones; None removes a saved value.
        regex: What follows the prompt matches this regular expression, in the syntax of Rust. This
            and json_schema, grammar and sentences need llguidance: pip install reviewgen[formats].
        choices: What follows the prompt is one of these texts.
        json_schema: What follows the prompt is JSON that this JSON schema allows, without white
            space between its parts.
        grammar: What follows the prompt matches this grammar, in the syntax of Lark as llguidance
            reads it; its start rule is named start.
        sentences: The number of sentences that follow the prompt, as in "3" or "2..4".
        include: Words or phrases that each text must contain, as whole words; the first letter may
            be of either case. The text is steered towards them from its beginning.
        exclude: Words or phrases that no text may contain, as whole words.
        exact: Sample from the model's true distribution under include, exclude, choices and regex;
            for models with few states only, such as small n-grams.
        likeness: Settings of the profile "likeness" that differ from "reading", as in
            {"temperature": 1.0}; saved with a model, not an argument of a call.
    """

    max_new_tokens: NonNegativeInt = 500
    min_new_tokens: NonNegativeInt = 0
    num_return_sequences: Annotated[int, Bound(at_least=1, at_most=10_000_000)] = 1
    do_sample: bool | None = None
    num_beams: Annotated[int, Bound(at_least=1, at_most=256)] = 1
    length_penalty: Annotated[float, Bound(at_least=-10, at_most=10)] = 1.0
    temperature: Annotated[float | tuple[float, ...], Bound(above=0)] = 0.8
    top_k: NonNegativeInt = 0
    top_p: Annotated[float, Bound(above=0, at_most=1)] = 1.0
    min_p: Annotated[float, Bound(at_least=0, at_most=1)] = 0.0
    repetition_penalty: Annotated[float, Bound(at_least=0.01, at_most=100)] = 1.0
    no_repeat_ngram_size: NonNegativeInt = 0
    stop_strings: Annotated[tuple[str, ...], Bound(at_least=1)] = ()
    max_time: Annotated[float | None, Bound(above=0)] = None
    words: Literal["known", "any"] = "any"
    finish: Literal["sentence", "anywhere"] | None = None
    logits_processors: tuple[str, ...] = ()
    conditions: dict[str, Any] = field(default_factory=dict, hash=False)
    regex: str | None = None
    choices: Annotated[tuple[str, ...], Bound(at_least=1)] = ()
    json_schema: dict[str, Any] | None = field(default=None, hash=False)
    grammar: str | None = None
    sentences: str | None = None
    include: Annotated[tuple[str, ...], Bound(at_least=1)] = ()
    exclude: Annotated[tuple[str, ...], Bound(at_least=1)] = ()
    exact: bool = False
    likeness: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check(self)
        for name in self.likeness:
            if name not in _PROFILE_SETTINGS:
                raise ConfigError(
                    f"A profile has the settings {', '.join(_PROFILE_SETTINGS)} only; got"
                    f" {quoted(name)}."
                )
        if self.likeness:
            self.of_profile("likeness")
        check_plugin_names("logits_processors", self.logits_processors)
        if self.temperature == ():
            raise ConfigError(
                "temperature must be a number or a list of at least one; got an empty list."
            )
        if self.min_new_tokens > self.max_new_tokens:
            raise ConfigError(
                f"min_new_tokens={self.min_new_tokens} is above"
                f" max_new_tokens={self.max_new_tokens}: lower the one or raise the other."
            )
        if self.num_beams > 1 and self.do_sample:
            raise ConfigError("num_beams does not sample: leave do_sample out, or set it to False.")
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise ConfigError(
                f"num_return_sequences={self.num_return_sequences} is above"
                f" num_beams={self.num_beams}: a beam search returns at most num_beams texts per"
                " prompt."
            )
        if self.do_sample is False and self.num_beams == 1 and self.num_return_sequences > 1:
            raise ConfigError(
                "Without do_sample every text of a prompt is the same: set num_return_sequences to"
                " 1, or set num_beams."
            )

    def of_profile(self, name: str | None) -> "GenerationConfig":
        """Return the settings of the profile ``name``.

        The profile "reading", the default, has these settings themselves: those for texts that
        people prefer to read. The profile "likeness" also has these settings, but those in the
        field ``likeness`` replace them: for texts whose statistics are close to those of human
        texts.

        Raises:
            ConfigError: The profile is unknown, or the model was saved without this profile.
        """
        if name in (None, "reading"):
            return self
        if name != "likeness":
            raise ConfigError(
                f"{quoted(name)} is not a profile."
                f" {did_you_mean(str(name), ['reading', 'likeness'])}"
            )
        if not self.likeness:
            raise ConfigError(
                "This model was saved without the profile likeness: leave profile out, or save one,"
                " as in save_generation_config(folder, likeness={'temperature': 1.0})."
            )
        settings: Any = {
            setting: tuple(value) if isinstance(value, list) else value
            for setting, value in self.likeness.items()
        }
        return replace(self, **settings | {"likeness": {}})

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The cycle of temperatures; a single one is a cycle of length 1."""
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)

    @property
    def has_format(self) -> bool:
        """Whether a setting says what a text must look like."""
        return any(getattr(self, name) for name in FORMATS)


class GenerationSettings(TypedDict, total=False):
    """The fields of ``GenerationConfig`` as keyword arguments of ``generate``; None keeps the
    default.
    """

    max_new_tokens: int | None
    min_new_tokens: int | None
    num_return_sequences: int | None
    do_sample: bool | None
    num_beams: int | None
    length_penalty: float | None
    temperature: float | Iterable[float] | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    no_repeat_ngram_size: int | None
    stop_strings: str | Iterable[str] | None
    max_time: float | None
    words: Literal["known", "any"] | None
    finish: Literal["sentence", "anywhere"] | None
    logits_processors: str | Iterable[str] | None
    conditions: Mapping[str, Any] | None
    regex: str | None
    choices: str | Iterable[str] | None
    json_schema: Mapping[str, Any] | str | None
    grammar: str | None
    sentences: str | None
    include: str | Iterable[str] | None
    exclude: str | Iterable[str] | None
    exact: bool | None
    likeness: Mapping[str, Any] | None


FOREIGN = {
    "n": "num_return_sequences",
    "nsamples": "num_return_sequences",
    "num_samples": "num_return_sequences",
    "prefix": "prompt",
    "start_text": "prompt",
    "text": "prompt",
    "inputs": "prompt",
    "length": "max_new_tokens",
    "max_length": "max_new_tokens",
    "max_gen_length": "max_new_tokens",
    "max_tokens": "max_new_tokens",
    "min_length": "min_new_tokens",
    "truncate": "stop_strings",
    "stop": "stop_strings",
    "stop_sequences": "stop_strings",
}
"""Maps names of settings in gpt-2-simple, textgenrnn, markovify, OpenAI and older transformers to
the names in reviewgen, for error messages.
"""


def generation_config(
    base: GenerationConfig,
    own: Any = None,
    settings: Mapping[str, Any] | None = None,
    others: Iterable[str] = (),
) -> GenerationConfig:
    """Return the settings of a call of ``generate``: the saved defaults, overridden by the call's
    ``generation_config``, then by its keyword arguments.

    Args:
        base: The saved defaults.
        own: The call's ``generation_config``: a GenerationConfig, which replaces all defaults; a
            mapping, which replaces the defaults that it names; or None.
        settings: Keyword arguments by name; None keeps the default.
        others: The names of other keyword arguments of the call, for the error message about an
            unknown name.

    Raises:
        ConfigError: A setting is unknown or out of range. For a name of another library, the
            message gives the name to use.
    """
    if isinstance(own, GenerationConfig):
        base = own
        own = {}
    elif own is not None and not isinstance(own, Mapping):
        raise ConfigError(
            "generation_config must be a reviewgen.GenerationConfig or a mapping of settings; got"
            f" {type(own).__module__}.{type(own).__name__}."
        )
    own = own or {}
    settings = settings or {}
    requested = {**own, **settings}
    _refuse_unknown(requested, settings, {*others, "prompt"})
    changes = {name: value for name, value in requested.items() if value is not None}
    schema = changes.get("json_schema")
    if isinstance(schema, str):
        try:
            changes["json_schema"] = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"json_schema is not valid JSON: {error}.") from None
    elif isinstance(schema, Mapping):
        changes["json_schema"] = dict(schema)
    for name in _LISTS:
        value = changes.get(name)
        if isinstance(value, str):
            changes[name] = (value,)
        elif isinstance(value, Iterable):
            with suppress(TypeError):  # an array without dimensions raises; ``check`` refuses it
                changes[name] = tuple(value)
    # the conditions of the saved defaults, of ``own`` and of ``settings`` are combined
    if isinstance(changes.get("conditions"), Mapping):
        added = own["conditions"] if isinstance(own.get("conditions"), Mapping) else {}
        changes["conditions"] = {**base.conditions, **added, **changes["conditions"]}
    return replace(base, **changes)


def _refuse_unknown(
    requested: Iterable[str], keywords: Collection[str], arguments: Collection[str]
) -> None:
    """Raise ConfigError if one of the requested settings is unknown.

    Args:
        requested: The names of the settings.
        keywords: The names of the settings that the call gives as keyword arguments.
        arguments: The names of the arguments of ``generate`` that are not settings.
    """
    known = fields_of(GenerationConfig)
    for name in requested:
        if name in FOREIGN:
            raise ConfigError(f"{quoted(name)} is called {FOREIGN[name]} here.")
        if name in known:
            continue
        if name in arguments and name not in keywords:
            raise ConfigError(
                f"{quoted(name)} is an argument of generate, not a setting of generation_config."
            )
        raise ConfigError(
            f"{quoted(name)} is not a setting of generate."
            f" {did_you_mean(name, {*known, *arguments})}"
        )


def read_saved_generation(values: Mapping[str, Any]) -> GenerationConfig:
    """Return the generation defaults that are saved with a model. ``num_return_sequences`` is not a
    default, since each call gives it; it is set to 1.

    Raises:
        ConfigError: A setting is unknown, or its value is out of range or above the limits for
            defaults.
    """
    config = replace(from_dict(GenerationConfig, values), num_return_sequences=1)
    check_saved_generation(config)
    return config


def check_saved_generation(config: GenerationConfig) -> None:
    """Check settings that are to be the defaults of a saved model. Defaults have lower limits than
    the settings of a call, so that a model from the Hub cannot make a call nearly endless.

    Raises:
        ConfigError: The settings ask for several texts, or exceed a limit.
    """
    if config.num_return_sequences != 1:
        raise ConfigError(
            f"num_return_sequences={config.num_return_sequences} is not saved with a model: give it"
            " in each call of generate."
        )
    if config.likeness:
        check_saved_generation(config.of_profile("likeness"))
    for name, value, limit in (
        ("max_new_tokens", config.max_new_tokens, _MAX_TOKENS),
        ("min_new_tokens", config.min_new_tokens, _MAX_FORCED),
        (
            "max_new_tokens times num_beams",
            config.max_new_tokens * config.num_beams,
            _MAX_BEAM_TOKENS,
        ),
        ("no_repeat_ngram_size", config.no_repeat_ngram_size, _MAX_LISTED),
        ("the number of temperatures", len(config.temperatures), _MAX_LISTED),
        ("the number of stop_strings", len(config.stop_strings), _MAX_LISTED),
        ("the number of logits_processors", len(config.logits_processors), _MAX_LISTED),
        ("the number of conditions", len(config.conditions), _MAX_LISTED),
        ("the number of choices", len(config.choices), _MAX_LISTED),
        ("the number of words in include", len(config.include), _MAX_WORDS),
        ("the number of words in exclude", len(config.exclude), _MAX_LISTED),
        ("the length of a stop string", max(map(len, config.stop_strings), default=0), _MAX_STRING),
    ):
        if value > limit:
            # a number with more than 15 digits would be hard to read
            shown = f"{value:,}" if value < 10**15 else f"about 1e{math.log10(value):.0f}"
            raise ConfigError(
                f"In the defaults of a saved model {name} is at most {limit:,}; got {shown}. A call"
                " may set more."
            )


CHAR_GENERATION: dict[str, Any] = {
    "max_new_tokens": 600,
    "temperature": 0.9,
    "top_p": 0.85,
    "finish": "sentence",
    "likeness": {"temperature": 0.9, "top_p": 1.0},
}
"""The generation settings of networks over characters, chosen by comparing texts; see the page of
the trained weights.
"""

WORD_GENERATION: dict[str, Any] = {
    "max_new_tokens": 200,
    "temperature": 0.7,
    "repetition_penalty": 1.1,
    "finish": "sentence",
    "likeness": {"temperature": 0.95, "repetition_penalty": 1.0},
}
"""The generation settings of networks over words, chosen in the same way."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The names of a model and a tokenizer, and the settings of both. A preset is plain data; a
    package declares it as an entry point of the group ``reviewgen.presets``.

    Attributes:
        model: The name of the model.
        tokenizer: The name of the tokenizer.
        model_settings: Settings of the model that differ from the model's defaults.
        tokenizer_settings: Settings of the tokenizer that differ from the tokenizer's defaults.
        training_settings: Training settings that differ from the defaults.
        generation_settings: Generation settings that differ from the defaults.
        sizes: Model settings from small to large, one of which is chosen if a training has a time
            budget and sets no size.
        by_epochs: Pairs of a number of epochs, and of model settings for runs of at least that many
            epochs, as in (4.0, {"dropout": 0.3}). A setting that is a float is interpolated
            between two pairs.
        training_by_epochs: Such pairs with training settings in place of model settings.
        parts: For the model ``blend``: the presets whose models the blend is made of, as in
            ("lstm-char", "ngram-char"). The first is trained by gradient, the others by counting.
            All are trained on the same tokens, with this preset's tokenizer.
    """

    model: str
    tokenizer: str
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)
    training_settings: Mapping[str, Any] = field(default_factory=dict)
    generation_settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: Sequence[Mapping[str, Any]] = ()
    by_epochs: Sequence[tuple[float, Mapping[str, Any]]] = ()
    training_by_epochs: Sequence[tuple[float, Mapping[str, Any]]] = ()
    parts: Sequence[str] = ()

    def with_fixed(self, model: Mapping[str, Any], training: Mapping[str, Any]) -> "Preset":
        """Return the preset with the given settings of the model and of training. These settings no
        longer depend on the number of epochs.
        """
        return replace(
            self,
            model_settings={**self.model_settings, **model},
            training_settings={**self.training_settings, **training},
            by_epochs=_drop_settings(self.by_epochs, model),
            training_by_epochs=_drop_settings(self.training_by_epochs, training),
        )


def _drop_settings(
    by_epochs: Sequence[tuple[float, Mapping[str, Any]]], names: Collection[str]
) -> Sequence[tuple[float, Any]]:
    """Return pairs of a number of epochs and settings, without the settings that ``names`` lists.
    If no settings remain, return no pairs.
    """
    remaining = [
        (epochs, {name: values[name] for name in values if name not in names})
        for epochs, values in by_epochs
    ]
    return remaining if any(values for _, values in remaining) else []
