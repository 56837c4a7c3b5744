"""A token store as the source of a training: which plans it fits, and what it gives them; see ``reviewgen.prepare``."""

from typing import Any

from reviewgen.config import from_dict, to_dict
from reviewgen.data import DataConfig, StoreFolder, digest_tokenizer
from reviewgen.errors import ConfigError, DataError, quoted
from reviewgen.runs.parts import TrainingParts


def fit_store(store: StoreFolder, parts: TrainingParts, data: DataConfig, validation: Any) -> DataConfig:
    """Return how the texts of a store were read, after checking that a training can use it.

    Args:
        store: The store.
        parts: The parts of the training.
        data: How the user asks to read the texts; what is the default is not asked for.
        validation: The validation source that the user has given.

    Raises:
        ConfigError: The tokenizer, its settings or how the texts were read differ.
        DataError: The store has no facts, as one of the token cache.
    """
    try:
        _refuse_other_tokenizer(store, parts)
        stored = from_dict(DataConfig, dict(store.facts["reading"]))
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{store.name} is not a prepared token store, or it is damaged. Prepare it again.") from None
    if validation is not None:
        raise ConfigError(f"The validation texts of the token store {store.name} are in it: leave validation out.")
    plain = DataConfig()
    for name in plain.facts():
        asked, given = getattr(data, name), getattr(stored, name)
        if parts.trained is None and asked not in (getattr(plain, name), given):
            difference = f"{name}={quoted(given)}, not {quoted(asked)}"
            raise ConfigError(f"{store.name} was prepared with {difference}: leave it out, or prepare again.")
    return stored


def _refuse_other_tokenizer(store: StoreFolder, parts: TrainingParts) -> None:
    made, plugin = store.facts["tokenizer"], parts.tokenizer_plugin
    prepared = f"The token store {store.name} was prepared for {store.facts['preset']}"
    again = f"Prepare one with --preset {parts.preset}."
    if (made["name"], made["package"]) != (plugin.name, plugin.package):
        raise ConfigError(f"{prepared}, with the tokenizer {made['name']}; {parts.preset} has {plugin.name}. {again}")
    if parts.trained is not None:
        same = made["digest"] == digest_tokenizer(parts.trained.tokenizer)
        if not same or store.facts["conditions"] != parts.trained.conditions.to_json():
            what = "conditions" if same else "tokenizer"
            raise ConfigError(f"{prepared}; its {what} differ from those of the model. Give the reviews themselves instead.")
        return
    settings = to_dict(parts.tokenizer_config)
    different = [name for name, value in settings.items() if made["settings"].get(name) != value]
    if different:
        name = different[0]
        raise ConfigError(
            f"{prepared} with tokenizer.{name}={quoted(made['settings'].get(name))}; this training has {quoted(settings[name])}. "
            "Use the same settings, or prepare another store."
        )
