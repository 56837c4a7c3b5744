"""Strict settings: frozen dataclasses of JSON values, checked when they are made and when they are read.

    settings     the machinery, for every plugin's ``Config``
    generation   how text is drawn, and presets

Standard library only; knows neither torch nor any plugin.
"""

from reviewgen.config.generation import FOREIGN, GenerationConfig, GenerationSettings, Preset, generation_config
from reviewgen.config.settings import (
    Bound,
    check,
    fields_of,
    from_dict,
    from_strings,
    parse_duration,
    parse_settings,
    to_dict,
)

__all__ = [
    "FOREIGN",
    "Bound",
    "GenerationConfig",
    "GenerationSettings",
    "Preset",
    "check",
    "fields_of",
    "from_dict",
    "from_strings",
    "generation_config",
    "parse_duration",
    "parse_settings",
    "to_dict",
]
