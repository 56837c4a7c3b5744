"""The parts of a run: the model and tokenizer plugins, their settings, and the trained model when one is trained further.

A run of a blend has these parts for each of its models. Resolved from a preset's name or a ReviewModel, and checked before any
work.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

from reviewgen.config import (
    SMALLEST_VOCABULARY,
    VOCABULARY_FIELDS,
    GenerationConfig,
    Preset,
    fields_of,
    from_dict,
    from_strings,
    to_dict,
    vocabulary_settings,
    without_vocabulary,
)
from reviewgen.errors import BrokenPlugin, ConfigError, PluginError, did_you_mean, first_line
from reviewgen.generation.model_stepper import using_threads
from reviewgen.model import ReviewModel
from reviewgen.protocols import CountTrained, LanguageModel, Tokenizer
from reviewgen.registry import Plugin, find_model, find_preset, find_tokenizer, name_of, preset_names
from reviewgen.runs.further import refuse_other_predictions, refuse_other_tokenizer, refuse_untrainable
from reviewgen.runs.initial_weights import InitialWeights
from reviewgen.training import IsolatedRng, TrainingConfig

_PEAK_SHARE = 1 / 2  # of the preset's learning rate: a whole one spoils a model on texts like its own, a sixth is slow on others
_WARMUP = 0.05  # a trained model needs less warmup than a new one: a share of the run


@dataclass(frozen=True)
class SizeOptions:
    """The sizes that a time budget can choose from, when the user has set no size."""

    preset: Preset  # without the settings by epochs that the user has set
    may_grow_batch: bool  # whether the user has set neither batch_size nor bptt


@dataclass(frozen=True, kw_only=True)
class TrainingParts:
    """The plugins and settings of a run, and the trained model that it continues from, if any.

    A run of a blend trains each of its ``models`` in turn, the one by gradient last; ``training`` has the settings of that one.
    """

    preset: str
    model_class: Any
    model_plugin: Plugin
    model_settings: dict[str, Any]  # all but those of VOCABULARY_FIELDS
    tokenizer_class: Any
    tokenizer_plugin: Plugin
    tokenizer_config: Any
    training: TrainingConfig
    generation: GenerationConfig
    trained: ReviewModel | None = None
    initial_weights: InitialWeights | None = None
    sizes: SizeOptions | None = None
    models: tuple["TrainingParts", ...] = ()  # of a blend, in the order of their training

    @property
    def plugins(self) -> list[Plugin]:
        """The plugins of the model, or of the blend and its models, and of the tokenizer."""
        return [self.model_plugin, *(each.model_plugin for each in self.models), self.tokenizer_plugin]

    @property
    def is_counted(self) -> bool:
        """Whether the model is trained by counting."""
        return issubclass(self.model_class, CountTrained)

    def identity(self) -> dict[str, Any]:
        """Return what an interrupted run and the run that resumes it must have in common, as JSON values."""
        return {
            "from": None if self.trained is None else self.trained.digest,
            "initial_weights": None if self.initial_weights is None else self.initial_weights.digest,
            "model": self._identify_models(),
            "tokenizer": to_dict(self.tokenizer_config),
            "training": to_dict(self.training),
        }

    def _identify_models(self) -> dict[str, Any]:
        """Return all settings of the model, or of each model of a blend by its preset's name."""
        if self.models:
            return {f"{each.preset}.{key}": value for each in self.models for key, value in each._identify_models().items()}
        settings = to_dict(check_settings(self.model_class.Config, self.model_settings))
        return settings | dict.fromkeys(VOCABULARY_FIELDS & settings.keys())

    def build_model(
        self, tokenizer: Tokenizer, vocab_size: int, seed: int, size: Mapping[str, Any] | None = None
    ) -> LanguageModel:
        """Return the model to train, with new weights or with a copy of the trained model's.

        Args:
            tokenizer: The tokenizer, for its special ids.
            vocab_size: The number of ids, those of conditions included.
            seed: Seed of the weights.
            size: Model settings that a time budget has chosen, instead of the preset's.

        Raises:
            ConfigError: There is not enough memory for it.
        """
        ids = vocabulary_settings(self.model_class.Config, vocab_size, tokenizer.bos_id, tokenizer.eos_id)
        config = from_dict(self.model_class.Config, self.model_settings | dict(size or {}) | ids)
        try:
            with IsolatedRng(seed), using_threads(1):  # the rounding of orthogonal matrices depends on the number of threads
                model: LanguageModel = self.model_class(config)
        except (RuntimeError, MemoryError) as error:  # torch's error when memory cannot be allocated
            raise ConfigError(
                f"The model cannot be built with these settings: {first_line(error)}. Choose smaller ones."
            ) from None
        if self.trained is not None:
            model.load_state_dict(self.trained.bundle.model.state_dict())
        return model


def resolve_parts(
    start: object,
    model: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    initial_weights: Any = None,
) -> TrainingParts:
    """Return the parts of a run.

    Args:
        start: A preset's name, or a trained model.
        model, tokenizer, training: Settings that differ from its own.
        initial_weights: A safetensors file that a new model starts from; None for random weights.

    Raises:
        ReviewgenError: There is no such preset, the model cannot be trained further, or a setting is unusable.
    """
    parts = _resolve(start, model, tokenizer, training)
    return parts if initial_weights is None else _with_initial_weights(parts, initial_weights)


def _resolve(start: object, model: Any, tokenizer: Any, training: Any) -> TrainingParts:
    if isinstance(start, ReviewModel):
        return _from_model(start, model, tokenizer, training)
    if not isinstance(start, str) or (os.path.isdir(start) and start not in preset_names()):  # noqa: PTH112  Path raises for a name that is too long
        raise ConfigError(
            f"{start!s:.60} is not the name of a preset. To train a saved model further, write --from {start!s:.60} on the "
            "command line, and reviewgen.train(reviewgen.load(...), ...) in Python."
        )
    preset = find_preset(start)
    make = _from_blend if preset.parts else _from_preset
    return make(start, preset, model, tokenizer, training)


def _with_initial_weights(parts: TrainingParts, file: Any) -> TrainingParts:
    """Return the parts of a model that starts from a file, and whose size the user has chosen to fit it.

    Raises:
        ConfigError: The file cannot be read, or the model cannot start from it.
    """
    if parts.trained is not None:
        raise ConfigError("A model that is trained further has its weights already: leave out initial_weights.")
    if parts.models:
        names = " or ".join(each.preset for each in parts.models)
        raise ConfigError(f"{parts.preset} is a blend of several models: give initial_weights to one of them, {names}.")
    return replace(parts, initial_weights=InitialWeights.find(file, parts.model_class, parts.preset), sizes=None)


def merge_settings(config: type, defaults: Mapping[str, Any], own: Mapping[str, Any] | None, group: str) -> dict[str, Any]:
    """Return a preset's settings, overlaid with the user's, which may be strings.

    Raises:
        ConfigError: A setting of the user's is unknown or of the wrong type.
    """
    own = {} if own is None else own
    if not isinstance(own, Mapping):
        raise ConfigError(f"{group} settings are a mapping, as in {{'hidden_size': 256}}; got {type(own).__name__}.")
    if group == "model" and (decided := [name for name in VOCABULARY_FIELDS if name in own]):
        hint = "set tokenizer.vocab_size if the tokenizer has such a setting" if decided[0] == "vocab_size" else "leave it out"
        raise ConfigError(f"model.{decided[0]} is the tokenizer's: {hint}.")
    try:
        return dict(defaults) | from_strings(config, own)
    except ConfigError as error:
        raise ConfigError(f"{group}: {error}") from None


def check_settings(config: Any, settings: Mapping[str, Any]) -> Any:
    """Return a model's config with the smallest vocabulary, to check its settings before there is a tokenizer.

    Raises:
        ConfigError: A setting is unknown or out of range.
    """
    return from_dict(config, {**settings, **vocabulary_settings(config, **SMALLEST_VOCABULARY)})


def _from_preset(
    name: str, preset: Preset, model: Any, tokenizer: Any, training: Any, trained: ReviewModel | None = None
) -> TrainingParts:
    model_class, model_plugin = find_model(preset.model)
    tokenizer_class, tokenizer_plugin = find_tokenizer(preset.tokenizer)
    _check_config(model_class, model_plugin, required="vocab_size")
    _check_config(tokenizer_class, tokenizer_plugin)
    model_settings = merge_settings(model_class.Config, preset.model_settings, model, "model")
    check_settings(model_class.Config, model_settings)  # a bad value is refused before any work
    return TrainingParts(
        preset=name,
        model_class=model_class,
        model_plugin=model_plugin,
        model_settings=model_settings,
        tokenizer_class=tokenizer_class,
        tokenizer_plugin=tokenizer_plugin,
        tokenizer_config=from_dict(
            tokenizer_class.Config, merge_settings(tokenizer_class.Config, preset.tokenizer_settings, tokenizer, "tokenizer")
        ),
        training=from_dict(TrainingConfig, merge_settings(TrainingConfig, preset.training_settings, training, "training")),
        generation=from_dict(GenerationConfig, preset.generation_settings),
        trained=trained,
        sizes=_size_options(preset, set(model or {}), set(training or {})),
    )


def _check_config(plugin_class: Any, plugin: Plugin, required: str | None = None) -> None:
    """Raise if a plugin is not a class with settings.

    Raises:
        BrokenPlugin: It has no dataclass ``Config``, or that one has not the required field.
    """
    config = getattr(plugin_class, "Config", None)
    if not isinstance(plugin_class, type):
        problem = f"it must be a class; got {ascii(plugin_class)[:60]}"
    elif not (isinstance(config, type) and is_dataclass(config)):
        problem = f"{plugin_class.__name__}.Config must be a frozen keyword-only dataclass of its settings"
    elif required is not None and required not in fields_of(config):
        problem = f"{plugin_class.__name__}.Config must have the field {required}: int"
    else:
        return
    raise BrokenPlugin(f"The {plugin.kind} {plugin.name!r} of {plugin.package} cannot be used: {problem}.")


def _from_blend(name: str, preset: Preset, model: Any, tokenizer: Any, training: Any) -> TrainingParts:
    """Return the parts of a blend and of each of its models, which get its tokenizer and the model settings that are theirs."""
    presets = {part: find_preset(part) for part in preset.parts}
    _refuse_parts(name, preset, presets)
    own = _share_settings(
        {part: find_model(each.model)[0].Config for part, each in presets.items()}, preset.model_settings, model
    )
    models = [
        _from_preset(part, _with_settings_of(preset, each), own[part], tokenizer, training) for part, each in presets.items()
    ]
    first, *others = models
    if first.is_counted or not all(each.is_counted for each in others):
        raise ConfigError(
            f"The preset {name!r} cannot be trained: the first model of a blend is trained by gradient, the others by counting."
        )
    model_class, model_plugin = find_model("blend")
    return replace(
        first,
        preset=name,
        model_class=model_class,
        model_plugin=model_plugin,
        model_settings={},
        generation=from_dict(GenerationConfig, preset.generation_settings),
        sizes=None,
        models=(*others, first),
    )


def _with_settings_of(blend: Preset, part: Preset) -> Preset:
    """Return the preset of one model of a blend, with the blend's tokenizer and training settings."""
    training = {**part.training_settings, **blend.training_settings}
    return replace(part, tokenizer_settings=blend.tokenizer_settings, training_settings=training)


def _refuse_parts(name: str, blend: Preset, presets: Mapping[str, Preset]) -> None:
    """Raise if the presets that a blend names are not two or more single models with its tokenizer."""
    reason = "it names fewer than two" if len(presets) < 2 else None
    for part, preset in presets.items():
        if preset.parts:
            reason = f"{part} is a blend itself"
        elif preset.tokenizer != blend.tokenizer:
            reason = f"{part} has another tokenizer"
    if reason is not None:
        raise ConfigError(
            f"The preset {name!r} cannot be trained: a blend is made of single models of one tokenizer, and {reason}."
        )


def _share_settings(configs: Mapping[str, type], defaults: Mapping[str, Any], own: Any) -> dict[str, Any]:
    """Return the model settings of each preset of a blend: those that its config has.

    Raises:
        ConfigError: A setting is not one of theirs, or several have it.
    """
    if not isinstance(own, Mapping | None):
        return dict.fromkeys(configs, own)  # refused where it is merged
    shared: dict[str, dict[str, Any]] = {part: {} for part in configs}
    names = " and ".join(configs)
    for setting, value in {**defaults, **(own or {})}.items():
        owners = [part for part, config in configs.items() if setting in fields_of(config)]
        if not owners:
            known = [each for config in configs.values() for each in fields_of(config)]
            raise ConfigError(f"model: {setting!r} is not a setting of {names}. {did_you_mean(setting, known)}")
        if len(owners) > 1 and setting not in VOCABULARY_FIELDS:  # that is refused where it is merged
            raise ConfigError(
                f"model.{setting} is a setting of {' and of '.join(owners)}: train them separately, and combine them with "
                "reviewgen blend."
            )
        shared[owners[0]][setting] = value
    return shared


def _size_options(preset: Preset, model: set[str], training: set[str]) -> SizeOptions | None:
    """Return the sizes to choose from, given the names of the settings that the user has set; None if one of them is a size."""
    if not preset.sizes or any(model & set(size) for size in preset.sizes):
        return None
    own = replace(
        preset,
        by_epochs=_without(preset.by_epochs, model),
        training_by_epochs=_without(preset.training_by_epochs, training),
    )
    return SizeOptions(own, may_grow_batch=not {"batch_size", "bptt"} & training)


def _without(
    by_epochs: Sequence[tuple[float, Mapping[str, Any]]], names: set[str]
) -> tuple[tuple[float, Mapping[str, Any]], ...]:
    """Return settings by epochs without those of some names."""
    return tuple(
        (epochs, {name: value for name, value in settings.items() if name not in names}) for epochs, settings in by_epochs
    )


def _from_model(trained: ReviewModel, model: Any, tokenizer: Any, training: Any) -> TrainingParts:
    """Return the parts of a trained model, whose settings replace the preset's."""
    bundle = trained.bundle
    refuse_untrainable(trained)
    try:
        usual = find_preset(trained.preset).training_settings
    except PluginError:  # its package is not installed any more, or another one has the name; or composed in another process
        usual = {}
    peak = _PEAK_SHARE * usual.get("learning_rate", TrainingConfig().learning_rate)
    settings = without_vocabulary(to_dict(bundle.model.config))
    own = Preset(
        model=name_of("model", bundle.model_plugin.name, bundle.model_plugin.package),
        tokenizer=name_of("tokenizer", bundle.tokenizer_plugin.name, bundle.tokenizer_plugin.package),
        model_settings=settings,
        tokenizer_settings=to_dict(bundle.tokenizer_config),
        training_settings={**usual, "learning_rate": peak, "warmup": _WARMUP},
        generation_settings=to_dict(bundle.generation),
    )
    parts = _from_preset(trained.preset, own, model, tokenizer, training, trained)
    refuse_other_tokenizer(parts.tokenizer_config, bundle.tokenizer_config)
    refuse_other_predictions(parts.model_class, parts.model_settings, bundle.model, sorted(model or {}))
    return parts
