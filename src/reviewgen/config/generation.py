"""How text is drawn: the settings of ``generate``, by the names of transformers and with their meaning; and presets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypedDict

from reviewgen.config.settings import Bound, check, fields_of
from reviewgen.errors import ConfigError, did_you_mean

__all__ = ["FOREIGN", "GenerationConfig", "GenerationSettings", "Preset", "generation_config"]


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How text is drawn; the names are those of transformers.

    Attributes:
        max_new_tokens: Where a text that does not end by itself is cut off.
        min_new_tokens: No text ends by itself before it has so many.
        num_return_sequences: Texts a prompt.
        do_sample: Whether tokens are drawn; else the most probable one is taken. None draws unless there are beams.
        num_beams: More than 1 searches for the most probable texts, so many at a time.
        length_penalty: Of beams: a text's log probability is divided by its tokens to this power; above 0 favours longer ones.
        temperature: Above 0; below 1 likelier, above 1 wilder. A list is a cycle: new token t has the temperature t % length.
        top_k: Draw from the k most probable tokens only; 0 is off.
        top_p: Draw from the most probable tokens that together have this probability; 1 is off.
        min_p: Draw from tokens at least this many times as probable as the most probable one; 0 is off.
        repetition_penalty: Above 1, tokens that the text has already become less probable (Keskar et al. 2019); 1 is off.
        no_repeat_ngram_size: No run of so many tokens occurs twice in a text; 0 is off.
        stop_strings: A text ends after the first of these that it writes.
        max_time: Seconds after which a call stops; texts end where they are. None is no limit.
        finish: "sentence" takes a text that was cut off back to the end of its last whole sentence, where it has one.
    """

    max_new_tokens: Annotated[int, Bound(at_least=0)] = 500
    min_new_tokens: Annotated[int, Bound(at_least=0)] = 0
    num_return_sequences: Annotated[int, Bound(at_least=1, at_most=10_000_000)] = 1
    do_sample: bool | None = None
    num_beams: Annotated[int, Bound(at_least=1, at_most=256)] = 1
    length_penalty: Annotated[float, Bound(at_least=-10, at_most=10)] = 1.0
    temperature: Annotated[float | tuple[float, ...], Bound(above=0)] = 0.8
    top_k: Annotated[int, Bound(at_least=0)] = 0
    top_p: Annotated[float, Bound(above=0, at_most=1)] = 1.0
    min_p: Annotated[float, Bound(at_least=0, at_most=1)] = 0.0
    repetition_penalty: Annotated[float, Bound(at_least=0.01, at_most=100)] = 1.0
    no_repeat_ngram_size: Annotated[int, Bound(at_least=0)] = 0
    stop_strings: Annotated[tuple[str, ...], Bound(at_least=1)] = ()
    max_time: Annotated[float | None, Bound(above=0)] = None
    finish: Literal["sentence"] | None = None

    def __post_init__(self) -> None:
        check(self)
        if self.temperature == ():
            raise ConfigError("temperature must be a number or a list of at least one.")
        if self.min_new_tokens > self.max_new_tokens:
            raise ConfigError(f"min_new_tokens={self.min_new_tokens} is above max_new_tokens={self.max_new_tokens}.")
        if self.num_beams > 1 and self.do_sample:
            raise ConfigError("num_beams searches and does not draw: leave do_sample out, or set it to False.")
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise ConfigError(
                f"num_beams={self.num_beams} finds so many texts a prompt; num_return_sequences={self.num_return_sequences} "
                "is more."
            )
        if self.do_sample is False and self.num_beams == 1 and self.num_return_sequences > 1:
            raise ConfigError(
                "Without do_sample every text of a prompt is the same: set num_return_sequences to 1, or num_beams."
            )

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The cycle of temperatures."""
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)


class GenerationSettings(TypedDict, total=False):
    """What may be given to ``generate`` by keyword, each for that call: the fields of ``GenerationConfig``. None is not given."""

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
    finish: Literal["sentence"] | None


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
"""What gpt-2-simple, textgenrnn, markovify, OpenAI and older transformers call it, and what it is called here."""


def generation_config(
    base: GenerationConfig, own: Any = None, settings: Mapping[str, Any] | None = None, others: Iterable[str] = ()
) -> GenerationConfig:
    """Return how to draw: the saved defaults, overlaid with a call's ``generation_config`` and with its own settings.

    Args:
        base: The defaults.
        own: A GenerationConfig, which stands for all of them, or a mapping of some settings. None changes nothing.
        settings: Settings by name; None stands for one that was not given.
        others: What else a call may take, for the error that names it.

    Raises:
        ConfigError: A setting is unknown, also where others use that name and this library another; or is out of range.
    """
    known, own_arguments = fields_of(GenerationConfig), {*others, "prompt"}
    if isinstance(own, GenerationConfig):
        base, own = own, {}
    elif own is not None and not isinstance(own, Mapping):
        raise ConfigError(
            f"generation_config is reviewgen's GenerationConfig or a mapping of settings; got {type(own).__module__}."
            f"{type(own).__name__}."
        )
    said = {name: value for part in (own or {}, settings or {}) for name, value in part.items()}
    for name in said:
        if name in FOREIGN:
            raise ConfigError(f"{name!r} is called {FOREIGN[name]} here.")
        if name not in known:
            if name in own_arguments and name not in (settings or {}):
                raise ConfigError(f"{name!r} is given to generate itself, not in generation_config.")
            raise ConfigError(f"{name!r} is no setting of generate. {did_you_mean(name, {*known, *own_arguments})}")
    given = {name: value for name, value in said.items() if value is not None}
    stops = given.get("stop_strings")
    if isinstance(stops, str):
        given["stop_strings"] = (stops,)
    for name in ("stop_strings", "temperature"):
        if isinstance(given.get(name), Iterable) and not isinstance(given[name], str):
            given[name] = tuple(given[name])
    return replace(base, **given)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model, a tokenizer and the settings for both: plain data behind an entry point of ``reviewgen.presets``.

    Where a training has a budget of time and nobody names a size, it takes one of ``sizes``, which are model settings from small
    to large, and of ``by_epochs`` those of the last entry whose number of epochs is reached, as in ``(4.0, {"dropout": 0.3})``.
    ``expected`` holds what was measured: tokens seen, and the lowest and highest bits per character held out.
    """

    model: str
    tokenizer: str
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)
    training_settings: Mapping[str, Any] = field(default_factory=dict)
    generation_settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: Sequence[Mapping[str, Any]] = ()
    by_epochs: Sequence[tuple[float, Mapping[str, Any]]] = ()
    expected: Sequence[tuple[float, float, float]] = ()
