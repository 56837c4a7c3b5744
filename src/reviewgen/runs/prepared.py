"""A token store as the source of a training: which plans it fits, and what it gives them; see ``reviewgen.prepare``."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reviewgen.conditions import Conditions
from reviewgen.config import from_dict, to_dict
from reviewgen.data import Corpus, DataConfig, digest_tokenizer
from reviewgen.data.corpus_facts import corpus_from_json
from reviewgen.data.remote import locate_store
from reviewgen.data.store_facts import check_facts
from reviewgen.data.store_folder import STORE_FILE, StoreFolder
from reviewgen.data.urls import is_url
from reviewgen.errors import ConfigError, DataError, quoted
from reviewgen.runs.parts import TrainingParts

__all__ = ["NOVELTY_FILE", "corpus_of", "find_store", "fit_store", "novelty_settings"]

NOVELTY_FILE = "novelty.safetensors"


def find_store(source: Any) -> StoreFolder | None:
    """Return the prepared token store that a source is, of which only ``store.json`` was read; None if it is something else.

    Raises:
        DataError: The store is unfinished, damaged, of a newer version or cannot be reached.
    """
    if not isinstance(source, str | Path) or len(str(source)) > 1000:
        return None
    if isinstance(source, str) and is_url(source):
        store = locate_store(source)
    else:
        path = Path(source)
        with contextlib.suppress(RuntimeError):  # a user who does not exist; reading the texts says so
            path = path.expanduser()
        if (path / "job.json").is_file() and (path / "texts").is_dir():
            raise DataError(f"{source} is a token store that is not finished: give the same reviewgen prepare again to go on.")
        store = StoreFolder.read(path, str(source)) if (path / STORE_FILE).is_file() else None
    if store is not None and not store.facts:
        raise DataError(f"{store.name} is a folder of the token cache, not a prepared store. Give the reviews instead.")
    if store is not None:
        check_facts(store)
    return store


def fit_store(store: StoreFolder, parts: TrainingParts, data: DataConfig, validation: Any) -> DataConfig:
    """Return how the texts of a store were read, after checking that a training can use it.

    Args:
        store: The store.
        parts: The parts of the training.
        data: How the user asks to read the texts; what is the default is not asked for.
        validation: The validation source that the user has given.

    Raises:
        ConfigError: The tokenizer, its settings or how the texts were read differ.
    """
    _refuse_other_tokenizer(store, parts)
    if validation is not None:
        raise ConfigError(f"The validation texts of the token store {store.name} are in it: leave validation out.")
    stored, plain = from_dict(DataConfig, dict(store.facts["reading"])), DataConfig()
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


def corpus_of(store: StoreFolder) -> tuple[Corpus, Conditions, tuple[str, ...]]:
    """Return the corpus of a store, its conditions, and notes; its texts cannot be read."""
    facts = store.facts
    conditions = Conditions.from_json(facts["conditions"]) if facts["conditions"] else Conditions()
    return corpus_from_json(facts["corpus"], store.folder), conditions, tuple(facts["notes"])


def novelty_settings(plan: Any) -> Mapping[str, Any]:
    """Return what decides the novelty index of a plan besides the tokens, as JSON values."""
    training = plan.parts.training
    return {"form": training.novelty, "megabytes": training.novelty_mb}
