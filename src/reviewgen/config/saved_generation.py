"""Generation defaults of a saved folder: a folder may come from anyone, and must not keep whoever loads it busy for ever."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reviewgen.config.generation import GenerationConfig
from reviewgen.config.settings import from_dict
from reviewgen.errors import ConfigError

_MAX_TOKENS, _MAX_FORCED = 100_000, 10_000
_MAX_BEAM_TOKENS = 1_000_000
_MAX_LISTED, _MAX_STRING = 1_000, 1_000  # elements of a list, characters of a stop string


def read_saved_generation(values: Mapping[str, Any]) -> GenerationConfig:
    """Return the generation defaults of a folder; ``num_return_sequences`` is left to each call.

    Raises:
        ConfigError: A setting is unknown, or its value is out of range or above the limits for defaults.
    """
    config = from_dict(GenerationConfig, values)
    check_saved_generation(replace(config, num_return_sequences=1))
    return replace(config, num_return_sequences=1)


def check_saved_generation(config: GenerationConfig) -> None:
    """Raise if settings cannot be the defaults of a saved model, although a call may have them.

    Raises:
        ConfigError: They ask for several texts, or for so long ones or so much work that a call would hardly end.
    """
    if config.num_return_sequences != 1:
        raise ConfigError(
            f"num_return_sequences={config.num_return_sequences} is not saved with a model: give it in each call of generate."
        )
    for name, value, limit in (
        ("max_new_tokens", config.max_new_tokens, _MAX_TOKENS),
        ("min_new_tokens", config.min_new_tokens, _MAX_FORCED),
        ("max_new_tokens times num_beams", config.max_new_tokens * config.num_beams, _MAX_BEAM_TOKENS),
        ("no_repeat_ngram_size", config.no_repeat_ngram_size, _MAX_LISTED),
        ("the number of temperatures", len(config.temperatures), _MAX_LISTED),
        ("the number of stop_strings", len(config.stop_strings), _MAX_LISTED),
        ("the number of logits_processors", len(config.logits_processors), _MAX_LISTED),
        ("the number of conditions", len(config.conditions), _MAX_LISTED),
        ("the length of a stop string", max(map(len, config.stop_strings), default=0), _MAX_STRING),
    ):
        if value > limit:
            shown = f"{value:,}" if value < 10**15 else f"about {value:.0e}" if value < 10**300 else "too large"
            raise ConfigError(f"In the defaults of a saved model {name} is at most {limit:,}; got {shown}. Give more in a call.")
