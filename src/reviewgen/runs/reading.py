"""How the corpus of a training is read: as the user has chosen, and as the texts of a trained model
or of a token store were.
"""

from collections.abc import Mapping
from typing import Any

from reviewgen.config.settings import from_dict, to_dict
from reviewgen.data.columns import DataConfig
from reviewgen.data.parts import Filters
from reviewgen.data.pipeline import LEGACY_OPTIONS, CorpusSpec
from reviewgen.data.store import StoreFolder, digest_tokenizer
from reviewgen.data.weighting import check_corpora
from reviewgen.errors import ConfigError, DataError, quoted
from reviewgen.runs.setup import TrainingSetup

# what was done to the texts of a model is done in its further trainings
_CLEANING = ("lowercase", "strip_markdown", "fix_encoding", "drop_repeated_lines")


def make_texts(
    source: Any, options: Mapping[str, Any], config: DataConfig, *, allow_missing: bool = False
) -> CorpusSpec:
    """Return which texts a corpus is made of, checked.

    Raises:
        ConfigError: An option is unusable.
    """
    if weights := options.get("weights"):  # which are not those of a token store
        check_corpora(source, weights)
        if options.get("validation") is None and options.get("validation_split") is not None:
            raise ConfigError(
                "With several corpora, validation_split does not say which one it is of: give"
                " validation, too."
            )
    filters = Filters(
        near_duplicates=options.get("near_duplicates"), decontaminate=options.get("decontaminate")
    )
    return CorpusSpec(
        source,
        config,
        options.get("validation"),
        options.get("validation_split"),
        filters,
        allow_missing,
    )


def data_config(options: Mapping[str, Any], trained: Any = None) -> DataConfig:
    """Return how the corpus is read: as the user has chosen, else by the defaults.

    A model that is trained further keeps its conditions. Its new texts are cleaned as its earlier
    ones, and more if the user says so; the same repeated lines are dropped.

    Raises:
        ConfigError: An option is unusable, or the trained model does not have one of the
            conditions.
    """
    chosen = {
        name: options[name] for name in to_dict(DataConfig()) if options.get(name) is not None
    }
    if trained is None:
        return from_dict(DataConfig, chosen)
    names = trained.conditions.names
    before = trained.training.get("data") or {}
    if new := [
        name
        for name in (*chosen.get("conditions", ()), *chosen.get("fields", ()))
        if name not in names
    ]:
        raise ConfigError(
            f"A model that is trained further keeps its conditions ({', '.join(names) or 'none'}),"
            f" so {quoted(new[0])} cannot be one of them: train a model from scratch."
        )
    cleaning = {name: chosen.get(name, False) or bool(before.get(name)) for name in _CLEANING}
    clean = chosen.get("clean", True) and before.get("clean", True)
    lines = before.get("repeated_lines") if before.get("drop_repeated_lines") else None
    kept = {"conditions": names, "fields": (), "repeated_lines": lines}
    return from_dict(DataConfig, {**chosen, **cleaning, "clean": clean, **kept})


def check_store(
    store: StoreFolder, setup: TrainingSetup, data: DataConfig, validation: Any
) -> DataConfig:
    """Return how the texts of a store were read, after checking that a training can use it.

    Raises:
        ConfigError: The tokenizer, its settings or how the texts were read differ.
        DataError: The store has no facts, as one of the token cache.
    """
    trained = setup.trained
    plugin = setup.tokenizer_plugin
    plain = DataConfig()
    try:
        facts = store.facts["tokenizer"]
        stored = from_dict(DataConfig, {**LEGACY_OPTIONS, **store.facts["reading"]})
        reading = {name: getattr(stored, name) for name in (*plain.facts(), "fields")}
        before = {"tokenizer": facts["name"], "package": facts["package"]}
        before |= {f"tokenizer.{name}": value for name, value in facts["settings"].items()}
        identity = facts["digest"], store.facts["conditions"]
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            f"{store.name} is not a prepared token store, or it is damaged. Prepare it again."
        ) from None
    if validation is not None:
        raise ConfigError(
            f"The validation texts of the token store {store.name} are in it: leave validation out."
        )
    asked = {"tokenizer": plugin.name, "package": plugin.package}
    if trained is None:
        asked |= {
            f"tokenizer.{name}": value for name, value in to_dict(setup.tokenizer_config).items()
        }
        asked |= {
            name: getattr(data, name)
            for name in reading
            if getattr(data, name) != getattr(plain, name)
        }
    elif identity != (digest_tokenizer(trained.tokenizer), trained.conditions.to_json()):
        raise ConfigError(
            f"The tokenizer or the conditions of the token store {store.name} are not those of the"
            " model."
        )
    for name, value in asked.items():
        if (saved := (before | reading).get(name)) != value:
            raise ConfigError(
                f"The token store {store.name} was prepared with {name}={quoted(saved)}, not"
                f" {quoted(value)}: leave that out, or prepare another store."
            )
    return stored
