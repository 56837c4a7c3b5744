"""The parts of a run: the model and tokenizer plugins, their settings, and the trained model when one is trained further.

Resolved from a preset's name or a ReviewModel, and checked before any work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reviewgen.config import GenerationConfig, Preset, from_dict, from_strings, to_dict
from reviewgen.errors import ConfigError, UnknownPlugin
from reviewgen.model import ReviewModel
from reviewgen.protocols import CountTrained, LanguageModel
from reviewgen.registry import Plugin, find_model, find_preset, find_tokenizer, preset_names
from reviewgen.runs.further import refuse_other_predictions, refuse_other_tokenizer, refuse_untrainable
from reviewgen.training import IsolatedRng, TrainingConfig

__all__ = ["SizeOptions", "TrainingParts", "merge_settings", "resolve_parts"]

_PEAK_SHARE = 1 / 2  # of the preset's learning rate: a whole one spoils a model on texts like its own, a sixth is slow on others
_WARMUP = 0.05  # a trained model needs less warmup than a new one: a share of the run


@dataclass(frozen=True)
class SizeOptions:
    """The sizes that a time budget can choose from, when the user has set no size."""

    preset: Preset  # without the settings by epochs that the user has set
    may_grow_batch: bool  # whether the user has set neither batch_size nor bptt


@dataclass(frozen=True, kw_only=True)
class TrainingParts:
    """The plugins and settings of a run, and the trained model that it continues from, if any."""

    preset: str
    model_class: Any
    model_plugin: Plugin
    model_settings: dict[str, Any]  # all but vocab_size
    tokenizer_class: Any
    tokenizer_plugin: Plugin
    tokenizer_config: Any
    training: TrainingConfig
    generation: GenerationConfig
    trained: ReviewModel | None = None
    sizes: SizeOptions | None = None

    @property
    def is_counted(self) -> bool:
        """Whether the model is trained by counting."""
        return issubclass(self.model_class, CountTrained)

    def identity(self) -> dict[str, Any]:
        """Return what an interrupted run and the run that resumes it must have in common, as JSON values."""
        config = from_dict(self.model_class.Config, {"vocab_size": 2} | self.model_settings)
        return {
            "from": None if self.trained is None else self.trained.digest,
            "model": to_dict(config) | {"vocab_size": None},
            "tokenizer": to_dict(self.tokenizer_config),
            "training": to_dict(self.training),
        }

    def build_model(self, vocab_size: int, seed: int, size: Mapping[str, Any] | None = None) -> LanguageModel:
        """Return the model to train, with new weights or with a copy of the trained model's.

        Args:
            vocab_size: The number of ids.
            seed: Seed of the weights.
            size: Model settings that a time budget has chosen, instead of the preset's.

        Raises:
            ConfigError: There is not enough memory for it.
        """
        config = from_dict(self.model_class.Config, {"vocab_size": vocab_size} | self.model_settings | dict(size or {}))
        try:
            with IsolatedRng(seed):
                model: LanguageModel = self.model_class(config)
        except (RuntimeError, MemoryError) as error:  # torch's error when memory cannot be allocated
            raise ConfigError(f"The model cannot be built with these settings: {str(error).splitlines()[0]}") from None
        if self.trained is not None:
            model.load_state_dict(self.trained.bundle.model.state_dict())
        return model


def resolve_parts(
    start: object,
    model: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> TrainingParts:
    """Return the parts of a run.

    Args:
        start: A preset's name, or a trained model.
        model, tokenizer, training: Settings that differ from its own.

    Raises:
        ReviewgenError: There is no such preset, the model cannot be trained further, or a setting is unusable.
    """
    if isinstance(start, ReviewModel):
        return _from_model(start, model, tokenizer, training)
    if not isinstance(start, str) or (Path(start).is_dir() and start not in preset_names()):
        raise ConfigError(
            f"{start!s:.60} is not the name of a preset. To train a saved model further, write --from {start!s:.60} on the "
            "command line, and reviewgen.train(reviewgen.load(...), ...) in Python."
        )
    return _from_preset(start, find_preset(start), model, tokenizer, training)


def merge_settings(config: type, defaults: Mapping[str, Any], own: Mapping[str, Any] | None, group: str) -> dict[str, Any]:
    """Return a preset's settings, overlaid with the user's, which may be strings.

    Raises:
        ConfigError: A setting of the user's is unknown or of the wrong type.
    """
    own = {} if own is None else own
    if not isinstance(own, Mapping):
        raise ConfigError(f"{group} settings are a mapping, as in {{'hidden_size': 256}}; got {type(own).__name__}.")
    if group == "model" and "vocab_size" in own:
        raise ConfigError("model.vocab_size is the tokenizer's: set tokenizer.vocab_size if the tokenizer has such a setting.")
    try:
        return dict(defaults) | from_strings(config, own)
    except ConfigError as error:
        raise ConfigError(f"{group}: {error}") from None


def _from_preset(
    name: str, preset: Preset, model: Any, tokenizer: Any, training: Any, trained: ReviewModel | None = None
) -> TrainingParts:
    model_class, model_plugin = find_model(preset.model)
    tokenizer_class, tokenizer_plugin = find_tokenizer(preset.tokenizer)
    model_settings = merge_settings(model_class.Config, preset.model_settings, model, "model")
    from_dict(model_class.Config, {"vocab_size": 2} | model_settings)  # a bad value is refused before any work
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
    except UnknownPlugin:  # its package is not installed any more, or it was composed in another process
        usual = {}
    peak = _PEAK_SHARE * usual.get("learning_rate", TrainingConfig().learning_rate)
    settings = to_dict(bundle.model.config)
    del settings["vocab_size"]
    own = Preset(
        model=bundle.model_plugin.name,
        tokenizer=bundle.tokenizer_plugin.name,
        model_settings=settings,
        tokenizer_settings=to_dict(bundle.tokenizer_config),
        training_settings={**usual, "learning_rate": peak, "warmup": _WARMUP},
        generation_settings=to_dict(bundle.generation),
    )
    parts = _from_preset(trained.preset, own, model, tokenizer, training, trained)
    refuse_other_tokenizer(parts.tokenizer_config, bundle.tokenizer_config)
    refuse_other_predictions(parts.model_class, parts.model_settings, bundle.model, sorted(model or {}))
    return parts
