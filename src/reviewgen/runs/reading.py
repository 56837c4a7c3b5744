"""How the corpus of a training is read: by the user's options. A model that is trained further
reads its new texts like its earlier ones. The texts of a token store must have been read in the way
that the options ask for.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reviewgen.config.settings import from_dict, to_dict
from reviewgen.data.columns import DataConfig
from reviewgen.data.encode import digest_tokenizer
from reviewgen.data.split import CorpusSpec, Filters
from reviewgen.data.texts import LEGACY_OPTIONS
from reviewgen.data.tokens import StoreFolder
from reviewgen.data.weighting import check_corpora
from reviewgen.errors import ConfigError, DataError, quoted
from reviewgen.runs.setup import TrainingSetup

# if one of these options was on in a training of a model, it stays on in the later trainings
_CLEANING = ("lowercase", "strip_markdown", "fix_encoding", "drop_repeated_lines")


def make_texts(
    source: Any, options: Mapping[str, Any], config: DataConfig, *, allow_missing: bool = False
) -> CorpusSpec:
    """Check the options that select the texts of a corpus, and return them as its specification.

    Raises:
        ConfigError: An option is unusable.
    """
    if weights := options.get("weights"):  # the user's; the weights of a token store are in config
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
    """Return how the corpus is read: by the user's options, else by the defaults.

    A model that is trained further keeps its conditions. Its new texts are cleaned like its earlier
    ones: a step that was on stays on, and the user may switch on others. The step ``clean`` is on
    only if it was on before and the user does not switch it off. The same repeated lines are
    dropped as before.

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
    earlier = trained.training.get("data") or {}
    if new := [
        name
        for name in (*chosen.get("conditions", ()), *chosen.get("fields", ()))
        if name not in names
    ]:
        raise ConfigError(
            f"A model that is trained further keeps its conditions ({', '.join(names) or 'none'}),"
            f" so {quoted(new[0])} cannot be one of them: train a model from scratch."
        )
    cleaning = {name: chosen.get(name, False) or bool(earlier.get(name)) for name in _CLEANING}
    clean = chosen.get("clean", True) and earlier.get("clean", True)
    lines = earlier.get("repeated_lines") if earlier.get("drop_repeated_lines") else None
    kept = {"conditions": names, "fields": (), "repeated_lines": lines}
    return from_dict(DataConfig, {**chosen, **cleaning, "clean": clean, **kept})


def check_store(
    store: StoreFolder, setup: TrainingSetup, data: DataConfig, validation: Any
) -> DataConfig:
    """Check that a training can use a token store, and return how the texts of the store were read.

    Raises:
        ConfigError: The store was made with another tokenizer, other tokenizer settings or other
            options of reading; or validation texts are given.
        DataError: The store is damaged, or does not record how it was made.
    """
    trained = setup.trained
    plugin = setup.tokenizer_plugin
    defaults = DataConfig()
    try:
        tokenizer_facts = store.facts["tokenizer"]
        stored_config = from_dict(DataConfig, {**LEGACY_OPTIONS, **store.facts["reading"]})
        reading = {name: getattr(stored_config, name) for name in (*defaults.facts(), "fields")}
        stored = {"tokenizer": tokenizer_facts["name"], "package": tokenizer_facts["package"]}
        stored |= {
            f"tokenizer.{name}": value for name, value in tokenizer_facts["settings"].items()
        }
        # a model that is trained further must have the same tokenizer and conditions
        identity = tokenizer_facts["digest"], store.facts["conditions"]
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            f"{store.name} is not a prepared token store, or it is damaged. Prepare it again."
        ) from None
    if validation is not None:
        raise ConfigError(
            f"The validation texts of the token store {store.name} are in it: leave validation out."
        )
    wanted = {"tokenizer": plugin.name, "package": plugin.package}
    if trained is None:
        wanted |= {
            f"tokenizer.{name}": value for name, value in to_dict(setup.tokenizer_config).items()
        }
        # an option of reading that has its default is not compared: the user may not have set it
        wanted |= {
            name: getattr(data, name)
            for name in reading
            if getattr(data, name) != getattr(defaults, name)
        }
    elif identity != (digest_tokenizer(trained.tokenizer), trained.conditions.to_json()):
        raise ConfigError(
            f"The tokenizer or the conditions of the token store {store.name} are not those of the"
            " model."
        )
    for name, value in wanted.items():
        if (saved := (stored | reading).get(name)) != value:
            raise ConfigError(
                f"The token store {store.name} was prepared with {name}={quoted(saved)}, not"
                f" {quoted(value)}: leave that out, or prepare another store."
            )
    return replace(stored_config, num_proc=data.num_proc)
