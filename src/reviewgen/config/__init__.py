"""Strict settings: frozen dataclasses of JSON values, validated when they are created and when they
are read.

    settings      validation and conversion, for every plugin's ``Config``, and of arguments that
                  are not settings
    descriptions  descriptions of settings, from docstrings and type hints
    generation    generation settings, also as the defaults of a saved folder, and presets
    training      training settings
    options       the options that functions and commands share, each declared and described once;
                  their TypedDicts
    names         names of plugins and presets, and sources of models, as given to ``load`` and
                  ``train``
    bounded       reads text and JSON of bounded size

Standard library only; knows neither torch nor any plugin.
"""

import lazy_loader

_OF_NAMES = {"HubSource", "find_revision", "is_plugin_name", "LOCAL", "PLAIN"}  # not for plugins
_OF_NAMES |= {
    "parse_hub_id",
    "parse_preset",
    "parse_source",
    "refuse_deep",
    "settings_off",
    "to_json",
}
__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted({*_names} - _OF_NAMES)
