"""Strict settings: frozen dataclasses of JSON values, validated when they are created and when they are read.

    settings      validation and conversion, for every plugin's ``Config``
    generation    generation settings, and presets
    training      training settings
    plugin_names  settings whose values are names of plugins
    reading       the options for reading and cleaning a source of texts
    vocabulary    the fields of a model's config that its tokenizer decides
    arguments     checks of arguments that are not settings
    descriptions  descriptions of settings, from docstrings and type hints

Standard library only; knows neither torch nor any plugin.
"""

from reviewgen.config.arguments import check_flags, check_list, check_mapping, check_text
from reviewgen.config.descriptions import bounds_of, choices_of, describe_fields, describe_hint
from reviewgen.config.generation import FOREIGN, GenerationConfig, GenerationSettings, Preset, generation_config
from reviewgen.config.reading import EvaluateOptions, ReadingOptions, refuse_unknown_options
from reviewgen.config.settings import (
    Bound,
    RenamedValues,
    check,
    check_seed,
    fields_of,
    from_dict,
    from_strings,
    parse_duration,
    parse_settings,
    rename_values,
    seed_or_random,
    to_dict,
)
from reviewgen.config.training import TrainingConfig
from reviewgen.config.vocabulary import SMALLEST_VOCABULARY, VOCABULARY_FIELDS, vocabulary_settings, without_vocabulary

__all__ = [
    "FOREIGN",
    "SMALLEST_VOCABULARY",
    "VOCABULARY_FIELDS",
    "Bound",
    "EvaluateOptions",
    "GenerationConfig",
    "GenerationSettings",
    "Preset",
    "ReadingOptions",
    "RenamedValues",
    "TrainingConfig",
    "bounds_of",
    "check",
    "check_flags",
    "check_list",
    "check_mapping",
    "check_seed",
    "check_text",
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
    "rename_values",
    "seed_or_random",
    "to_dict",
    "vocabulary_settings",
    "without_vocabulary",
]
