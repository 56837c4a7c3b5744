"""Strict settings: frozen dataclasses of JSON values, validated when they are created and when they are read.

    bounded       reads text and JSON of bounded size
    settings      validation and conversion, for every plugin's ``Config``
    generation    generation settings, and presets
    saved_generation  limits of the generation defaults in a folder
    training      training settings
    names         names of presets, and sources of models, as given to ``load`` and ``train``
    plugin_names  settings whose values are names of plugins
    options       the options that functions and commands share, each declared and described once
    keywords      the same as type checkers see them, and the check of the names that a call gives
    vocabulary    the fields of a model's config that its tokenizer decides
    arguments     checks of arguments that are not settings
    descriptions  descriptions of settings, from docstrings and type hints

Standard library only; knows neither torch nor any plugin.
"""

from reviewgen.config.arguments import check_count, check_flags, check_list, check_mapping, check_text
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
from reviewgen.config.generation import FOREIGN, GenerationConfig, GenerationSettings, Preset, generation_config
from reviewgen.config.keywords import EvaluateOptions, ReadingOptions, refuse_unknown_options
from reviewgen.config.names import HubSource as HubSource
from reviewgen.config.names import LocalSource as LocalSource
from reviewgen.config.names import PresetSource as PresetSource
from reviewgen.config.names import find_revision as find_revision
from reviewgen.config.names import is_plugin_name as is_plugin_name
from reviewgen.config.names import parse_hub_id as parse_hub_id
from reviewgen.config.names import parse_preset as parse_preset
from reviewgen.config.names import parse_source as parse_source
from reviewgen.config.saved_generation import check_saved_generation, read_saved_generation
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
    "MAX_DEPTH",
    "MAX_RECORD",
    "MAX_SETTINGS",
    "MAX_VALUES",
    "MAX_VOCABULARY",
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
