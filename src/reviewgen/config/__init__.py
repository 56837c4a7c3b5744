"""Strict settings: frozen dataclasses of JSON values, checked when they are made and when they are read.

    settings      the machinery, for every plugin's ``Config``
    generation    generation settings, and presets
    training      training settings
    reading       how a source of texts is read and cleaned
    descriptions  what each setting means and accepts, from docstrings and types

Standard library only; knows neither torch nor any plugin.
"""

from reviewgen.config.descriptions import bounds_of, choices_of, describe_fields, describe_hint
from reviewgen.config.generation import FOREIGN, GenerationConfig, GenerationSettings, Preset, generation_config
from reviewgen.config.reading import EvaluateOptions, ReadingOptions, refuse_unknown_options
from reviewgen.config.settings import (
    Bound,
    check,
    check_seed,
    fields_of,
    from_dict,
    from_strings,
    parse_duration,
    parse_settings,
    to_dict,
)
from reviewgen.config.training import TrainingConfig

__all__ = [
    "FOREIGN",
    "Bound",
    "EvaluateOptions",
    "GenerationConfig",
    "GenerationSettings",
    "Preset",
    "ReadingOptions",
    "TrainingConfig",
    "bounds_of",
    "check",
    "check_seed",
    "choices_of",
    "describe_fields",
    "describe_hint",
    "fields_of",
    "from_dict",
    "from_strings",
    "generation_config",
    "parse_duration",
    "parse_settings",
    "refuse_unknown_options",
    "to_dict",
]
