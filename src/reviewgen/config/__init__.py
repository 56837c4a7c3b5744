"""Strict settings: frozen dataclasses of JSON values, validated when they are created and when they
are read.

    settings      validates and converts the settings of every plugin's ``Config``; also checks
                  other arguments
    descriptions  descriptions of settings, from docstrings and type hints
    generation    generation settings, including the saved defaults of a model; presets
    training      training settings
    options       the options that functions and commands share, each declared and described once,
                  and their TypedDicts
    names         parses names of presets and plugins, and sources of models
    bounded       reads text and JSON of bounded size

Imports the standard library only, neither torch nor any plugin.
"""

from reviewgen.config.bounded import (
    MAX_DEPTH,
    MAX_RECORD,
    MAX_SETTINGS,
    MAX_VALUES,
    MAX_VOCABULARY,
    dump_json,
    encode_text,
    parse_json,
    read_json,
    read_text,
)
from reviewgen.config.descriptions import bounds_of, choices_of, describe_fields, describe_hint
from reviewgen.config.generation import (
    CHAR_GENERATION,
    FOREIGN,
    WORD_GENERATION,
    GenerationConfig,
    GenerationSettings,
    Preset,
    check_saved_generation,
    generation_config,
    read_saved_generation,
)
from reviewgen.config.options import EvaluateKwargs, ReadingKwargs, refuse_unknown_options
from reviewgen.config.settings import (
    SMALLEST_VOCABULARY,
    VOCABULARY_FIELDS,
    Bound,
    ConditionedConfig,
    NonNegativeInt,
    PositiveInt,
    Probability,
    RenamedValues,
    Technique,
    check,
    check_count,
    check_flags,
    check_list,
    check_mapping,
    check_seed,
    check_text,
    fields_of,
    from_dict,
    from_strings,
    parse_duration,
    parse_settings,
    rename_values,
    seed_or_random,
    to_dict,
    vocabulary_settings,
    without_vocabulary,
)
from reviewgen.config.training import TrainingConfig

__all__ = [
    "CHAR_GENERATION",
    "FOREIGN",
    "MAX_DEPTH",
    "MAX_RECORD",
    "MAX_SETTINGS",
    "MAX_VALUES",
    "MAX_VOCABULARY",
    "SMALLEST_VOCABULARY",
    "VOCABULARY_FIELDS",
    "WORD_GENERATION",
    "Bound",
    "ConditionedConfig",
    "EvaluateKwargs",
    "GenerationConfig",
    "GenerationSettings",
    "NonNegativeInt",
    "PositiveInt",
    "Preset",
    "Probability",
    "ReadingKwargs",
    "RenamedValues",
    "Technique",
    "TrainingConfig",
    "bounds_of",
    "check",
    "check_count",
    "check_flags",
    "check_list",
    "check_mapping",
    "check_saved_generation",
    "check_seed",
    "check_text",
    "choices_of",
    "describe_fields",
    "describe_hint",
    "dump_json",
    "encode_text",
    "fields_of",
    "from_dict",
    "from_strings",
    "generation_config",
    "parse_duration",
    "parse_json",
    "parse_settings",
    "read_json",
    "read_saved_generation",
    "read_text",
    "refuse_unknown_options",
    "rename_values",
    "seed_or_random",
    "to_dict",
    "vocabulary_settings",
    "without_vocabulary",
]
