"""The setup of a run: the plugins of model and tokenizer with their settings, and the weights that
the run starts from.

A setup is made from a preset's name or from a ReviewModel, and checked before any work. A blend has
a setup for each of its components. A model that is trained further keeps its tokenizer, its
conditions, its size and its generation defaults.
"""

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, get_origin

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from reviewgen.blending.model import Blend
from reviewgen.conditions import Conditions
from reviewgen.config.generation import GenerationConfig, Preset
from reviewgen.config.names import PLAIN
from reviewgen.config.settings import (
    SMALLEST_VOCABULARY,
    VOCABULARY_FIELDS,
    bare,
    check_mapping,
    fields_of,
    from_dict,
    from_strings,
    options_of,
    to_dict,
    vocabulary_settings,
    without_vocabulary,
)
from reviewgen.config.training import TrainingConfig
from reviewgen.devices import using_threads
from reviewgen.errors import BrokenPlugin, ConfigError, PluginError, first_line, quoted
from reviewgen.lexicon.token_bytes import alphabet_of
from reviewgen.model.review_model import ReviewModel
from reviewgen.protocols.abilities import SupportsInitialWeights
from reviewgen.protocols.model import CountTrained, LanguageModel
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.plugins import find_model, find_preset, find_tokenizer, preset_names
from reviewgen.storage import digest_of, to_path
from reviewgen.training.device import IsolatedRng

# when a model is trained further, the new record keeps these entries of the model's earlier record
PAST = ("preset", "data", "parts", "steps", "seconds", "held_out", "parent")
# When a model is trained further, the learning rate peaks at this share of the preset's. The full
# rate spoils the model on texts like those it knows; with a sixth of it, the model learns other
# texts slowly.
_PEAK_SHARE = 1 / 2
_WARMUP = 0.05  # warmup as a share of the run; a trained model needs less of it than a new one
_EXAMPLE = "{'hidden_size': 256}"  # an example of settings for error messages
_ANCESTORS = 16  # max number of ancestors in the record of a model, besides its parent
_PROBE_TOKENS = 24  # number of tokens on which the logits of two models are compared
_TOLERANCE = 1e-3  # tolerated difference of the logits, relative and absolute


@dataclass(frozen=True)
class InitialWeights:
    """A safetensors file whose tensors a new model starts from, and the file's SHA-256."""

    file: Path
    digest: str

    @classmethod
    def find(cls, file: Any, setup: "TrainingSetup") -> "InitialWeights":
        """Check the file that the user has given, by reading its header, and return it.

        Raises:
            ConfigError: The file is missing or is not a safetensors file; or the setup cannot use
                initial weights.
        """
        path = to_path("initial_weights", file)
        if setup.trained is not None:
            raise ConfigError(
                "A model that is trained further has its weights already: leave out"
                " initial_weights."
            )
        if setup.components:
            raise ConfigError(
                f"{setup.preset} is a blend of several models: give initial_weights to one of them,"
                f" {setup.names}."
            )
        if not issubclass(setup.model_class, SupportsInitialWeights):
            raise ConfigError(
                f"{setup.preset} cannot start from tensors of another source: leave out"
                " initial_weights."
            )
        try:
            with safe_open(path, framework="numpy"):
                return cls(path, digest_of(path))
        except SafetensorError:
            raise ConfigError(
                f"initial_weights must be a safetensors file, and {path.name} is not one; a pickle"
                " (.pt, .bin) is never read, as it could run code. Save its tensors with"
                " safetensors.torch.save_file."
            ) from None
        except OSError as error:
            reason = error.strerror or str(error)
            if isinstance(error, FileNotFoundError):
                reason = "there is no such file"
            raise ConfigError(
                f"initial_weights={quoted(str(path))} cannot be read: {reason}."
            ) from None

    def copy_into(self, model: Any) -> list[str]:
        """Copy the tensors into a new model; return the names of the model's tensors that were
        replaced.

        Raises:
            ConfigError: The tensors do not fit the model.
            BrokenPlugin: The model's ``initial_weights`` returns a name that is not in its
                ``state_dict``.
        """
        name = self.file.name
        state = model.state_dict()
        try:
            tensors = dict(model.initial_weights(load_file(self.file)))
            if unknown := tensors.keys() - state.keys():
                raise BrokenPlugin(
                    f"{type(model).__name__}.initial_weights returns {quoted(min(unknown))}, which"
                    " the model does not have."
                )
            model.load_state_dict(state | tensors)
        except (ConfigError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"{name} does not fit the model. Set the sizes to match: {_last_line(error)}"
            ) from None
        if not tensors or not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise ConfigError(
                f"{name} has no tensor that this model can start from, or one that is not finite."
            )
        return list(tensors)


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """The plugins and settings of a run, and the trained model that it continues from, if any.

    The run of a blend trains each of its ``components`` in turn. The last one is the network, which
    is trained by gradient; ``training`` has its settings.
    """

    preset: str
    model_class: Any
    model_plugin: Plugin
    model_settings: dict[str, Any]  # all except VOCABULARY_FIELDS, which need the tokenizer
    tokenizer_class: Any
    tokenizer_plugin: Plugin
    tokenizer_config: Any
    training: TrainingConfig
    generation: GenerationConfig
    trained: ReviewModel | None = None
    initial_weights: InitialWeights | None = None
    # the preset with its sizes, if a time budget may choose one of them; None if the user has set
    # the size, or the preset has no sizes
    sizes: Preset | None = None
    # names of the settings that the user has set ("model.hidden_size")
    own: frozenset[str] = frozenset()
    # the setups of the models of a blend, in the order of their training
    components: tuple["TrainingSetup", ...] = ()

    @property
    def names(self) -> str:
        """The presets of a blend's models, for messages."""
        return " or ".join(component.preset for component in self.components)

    @property
    def is_counted(self) -> bool:
        """Whether the model is trained by counting, as an n-gram is, and not by gradient."""
        return issubclass(self.model_class, CountTrained)

    def config_of(self, group: str) -> Any:
        """Return the settings of a group, "model", "tokenizer" or "training". The settings of the
        model have the smallest vocabulary as a placeholder.
        """
        if group == "model":
            return check_settings(self.model_class.Config, self.model_settings)
        return self.tokenizer_config if group == "tokenizer" else self.training

    def takes_list(self, group: str, name: str) -> bool:
        """Return whether the value of a setting is a list; False for an unknown setting."""
        hint = fields_of(type(self.config_of(group))).get(name)
        return any(get_origin(option) is tuple for option in options_of(bare(hint)))

    def model_facts(self) -> dict[str, Any]:
        """Return all settings of the model; for a blend, those of each of its models, named
        "PRESET.SETTING". The settings of the vocabulary are None.
        """
        if self.components:
            return dotted({setup.preset: setup.model_facts() for setup in self.components})
        settings = to_dict(self.config_of("model"))
        return settings | dict.fromkeys(VOCABULARY_FIELDS & settings.keys())

    def not_own(self, size: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Return the settings of a size, by group, without those that the user has set."""
        return {
            group: {name: values[name] for name in values if f"{group}.{name}" not in self.own}
            for group, values in size.items()
        }

    def sized(self, model: Mapping[str, Any], training: Mapping[str, Any]) -> "TrainingSetup":
        """Return the setup with the settings of a size instead of the preset's."""
        return replace(
            self,
            model_settings={**self.model_settings, **model},
            training=replace(self.training, **training),
        )

    def build_model(self, tokenizer: Tokenizer, conditions: Conditions, seed: int) -> LanguageModel:
        """Return the model to train, with new weights or with a copy of the trained model's.

        Args:
            tokenizer: The tokenizer, for its special ids.
            conditions: The conditions, whose ids follow the tokenizer's.
            seed: Seed of the weights.

        Raises:
            ConfigError: There is not enough memory for it.
        """
        # has the numbers of ids of conditions and of fields
        counts = conditions if self.trained is None else self.trained.bundle.model.config
        ids = vocabulary_settings(
            self.model_class.Config,
            conditions.vocab_size,
            tokenizer.bos_id,
            tokenizer.eos_id,
            # 0 if an earlier version trained the model: its config lacks these two fields
            getattr(counts, "condition_ids", 0),
            getattr(counts, "field_ids", 0),
            alphabet_of(tokenizer) if "alphabet" in fields_of(self.model_class.Config) else "",
        )
        config = from_dict(self.model_class.Config, self.model_settings | ids)
        try:
            # the rounding of orthogonal matrices depends on the number of threads
            with IsolatedRng(seed), using_threads(1):
                model: LanguageModel = self.model_class(config)
        # torch raises these errors if memory cannot be allocated
        except (RuntimeError, MemoryError, OverflowError) as error:
            raise ConfigError(
                f"The model cannot be built with these settings: {first_line(error)}. Choose"
                " smaller ones."
            ) from None
        if self.trained is not None:
            model.load_state_dict(self.trained.bundle.model.state_dict())
        return model


def resolve_setup(
    start: object,
    model: Any = None,
    tokenizer: Any = None,
    training: Any = None,
    initial_weights: Any = None,
) -> TrainingSetup:
    """Return the setup of a run.

    Args:
        start: A preset's name, or a trained model.
        model, tokenizer, training: The user's settings, which replace those of ``start``.
        initial_weights: A safetensors file that a new model starts from; None for random weights.

    Raises:
        ReviewgenError: There is no such preset, the model cannot be trained further, or a setting
            is unusable.
    """
    if isinstance(start, ReviewModel):
        setup = _from_model(start, model, tokenizer, training)
    elif not isinstance(start, str) or (
        # not Path.is_dir, which raises for a name that is too long
        os.path.isdir(start)  # noqa: PTH112
        and start.removesuffix(PLAIN) not in preset_names()
    ):
        raise ConfigError(
            f"{start!s:.60} is not the name of a preset. To train a saved model further, write"
            f" --from {start!s:.60} on the command line, and reviewgen.train(reviewgen.load(...),"
            " ...) in Python."
        )
    else:
        preset = find_preset(start)
        make_setup = _from_blend if preset.parts else _from_preset
        setup = make_setup(start, preset, model, tokenizer, training)
    if initial_weights is None:
        return setup
    return replace(setup, initial_weights=InitialWeights.find(initial_weights, setup), sizes=None)


def dotted(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Flatten settings by group: {"model": {"order": 4}} becomes {"model.order": 4}."""
    values = dict[str, Any]()
    for group, settings in groups.items():
        values |= {f"{group}.{name}": value for name, value in settings.items()}
    return values


def merge_settings(
    config: type, defaults: Mapping[str, Any], own: Mapping[str, Any] | None, group: str
) -> dict[str, Any]:
    """Return the settings of a group: ``defaults``, the preset's, updated with ``own``, the user's.
    A string, as from the command line, is converted to the type of the setting.

    Raises:
        ConfigError: A setting of the user is unknown, has the wrong type, or is set by the
            tokenizer.
    """
    own = {} if own is None else check_mapping(f"{group} settings", own, _EXAMPLE)
    for name in VOCABULARY_FIELDS:
        if group == "model" and name in own:
            hint = "leave it out"
            if name == "vocab_size":
                hint = "set tokenizer.vocab_size if the tokenizer has such a setting"
            raise ConfigError(f"model.{name} is the tokenizer's: {hint}.")
    try:
        return dict(defaults) | from_strings(config, own)
    except ConfigError as error:
        raise ConfigError(f"{group}: {error}") from None


def check_settings(config: Any, settings: Mapping[str, Any]) -> Any:
    """Check a model's settings before there is a tokenizer: return its config with the smallest
    vocabulary.

    Raises:
        ConfigError: A setting is unknown or out of range.
    """
    return from_dict(config, {**settings, **vocabulary_settings(config, **SMALLEST_VOCABULARY)})


def _from_preset(
    name: str, preset: Preset, model: Any, tokenizer: Any, training: Any
) -> TrainingSetup:
    """Return the setup of a preset of a single model, with the user's settings in place of the
    preset's.
    """
    model_class, model_plugin = find_model(preset.model)
    tokenizer_class, tokenizer_plugin = find_tokenizer(preset.tokenizer)
    _check_class(model_class, model_plugin, "vocab_size")
    _check_class(tokenizer_class, tokenizer_plugin)
    model_settings = merge_settings(model_class.Config, preset.model_settings, model, "model")
    tokenizer_settings = merge_settings(
        tokenizer_class.Config, preset.tokenizer_settings, tokenizer, "tokenizer"
    )
    check_settings(model_class.Config, model_settings)  # a bad value is refused before any work
    defaults = dict(preset.training_settings)
    # the value of ``accelerate config`` is a default, which preset and user may replace
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "")
    if steps.isdecimal():
        defaults.setdefault("gradient_accumulation_steps", int(steps))
    training_settings = merge_settings(TrainingConfig, defaults, training, "training")
    own_model = model or {}
    own_training = training or {}
    has_own_size = any(own_model.keys() & size.keys() for size in preset.sizes)
    chooses_size = preset.sizes and not has_own_size
    return TrainingSetup(
        preset=name,
        model_class=model_class,
        model_plugin=model_plugin,
        model_settings=model_settings,
        tokenizer_class=tokenizer_class,
        tokenizer_plugin=tokenizer_plugin,
        tokenizer_config=from_dict(tokenizer_class.Config, tokenizer_settings),
        training=from_dict(TrainingConfig, training_settings),
        generation=from_dict(GenerationConfig, {"words": "known", **preset.generation_settings}),
        sizes=preset.with_fixed(own_model, own_training) if chooses_size else None,
        own=frozenset(
            dotted({"model": own_model, "tokenizer": tokenizer or {}, "training": own_training})
        ),
    )


def _check_class(plugin_class: Any, plugin: Plugin, *required: str) -> None:
    """Check that a plugin's class has a Config with the required fields.

    Raises:
        BrokenPlugin: It does not.
    """
    config: Any = getattr(plugin_class, "Config", None)
    is_usable = isinstance(plugin_class, type) and isinstance(config, type) and is_dataclass(config)
    if is_usable and fields_of(config).keys() >= set(required):
        return
    requirement = "".join(f" that has {name}" for name in required)
    raise BrokenPlugin(
        f"The {plugin.kind} {plugin.name!r} of {plugin.package} cannot be used: it must be a class,"
        f" with a frozen keyword-only dataclass Config{requirement}."
    )


def _from_blend(
    name: str, preset: Preset, model: Any, tokenizer: Any, training: Any
) -> TrainingSetup:
    """Return the setup of a blend, which contains a setup for each of its components. Each
    component gets the blend's tokenizer, and the model settings that its config has.
    """
    presets = {component: find_preset(component) for component in preset.parts}
    is_mixed = any(
        single.parts or single.tokenizer != preset.tokenizer for single in presets.values()
    )
    if is_mixed or len(presets) < 2:
        raise ConfigError(
            f"The preset {name!r} cannot be trained: a blend is made of two or more single models"
            " of one tokenizer."
        )
    configs = {
        component: find_model(single.model)[0].Config for component, single in presets.items()
    }
    shares = _share_settings(configs, preset.model_settings, model)
    setups = []
    for component, single in presets.items():
        shared = replace(
            single,
            tokenizer_settings=preset.tokenizer_settings,
            training_settings={**single.training_settings, **preset.training_settings},
        )
        setups.append(_from_preset(component, shared, shares[component], tokenizer, training))
    network, *counted = setups
    if network.is_counted or not all(setup.is_counted for setup in counted):
        raise ConfigError(
            f"The preset {name!r} cannot be trained: the first model of a blend is trained by"
            " gradient, the others by counting."
        )
    model_class, model_plugin = find_model("blend")
    is_known = all(setup.generation.words == "known" for setup in setups)
    generation = {**preset.generation_settings, "words": "known" if is_known else "any"}
    return replace(
        network,
        preset=name,
        model_class=model_class,
        model_plugin=model_plugin,
        model_settings={},
        generation=from_dict(GenerationConfig, generation),
        sizes=None,
        components=(*counted, network),
    )


def _share_settings(
    configs: Mapping[str, type], defaults: Mapping[str, Any], overrides: Any
) -> dict[str, dict[str, Any]]:
    """Distribute the model settings of a blend: each component gets the settings that its config
    has. The first component also gets the unknown settings, so that they are refused there.

    Raises:
        ConfigError: Several components have the same setting, or the settings are not a mapping.
    """
    shares: dict[str, dict[str, Any]] = {component: {} for component in configs}
    own = {} if overrides is None else check_mapping("model settings", overrides, _EXAMPLE)
    for setting, value in {**defaults, **own}.items():
        owners = [
            component for component, config in configs.items() if setting in fields_of(config)
        ]
        # merge_settings refuses the settings of the vocabulary later
        if len(owners) > 1 and setting not in VOCABULARY_FIELDS:
            raise ConfigError(
                f"model.{setting} is a setting of {' and of '.join(owners)}: train them separately,"
                " and combine them with reviewgen blend."
            )
        component = next(iter(owners or configs))
        shares[component][setting] = value
    return shares


def _from_model(trained: ReviewModel, model: Any, tokenizer: Any, training: Any) -> TrainingSetup:
    """Return the setup for training a model further: with the model's own settings in place of its
    preset's.
    """
    bundle = trained.bundle
    name = bundle.origin or f"This {trained.preset} model"
    if isinstance(bundle.model, Blend | CountTrained) or not isinstance(bundle.model, nn.Module):
        what = "a blend: train one of its models further, and blend them again"
        if isinstance(bundle.model, CountTrained):
            what = (
                "trained by counting: train another on the new texts, and combine the two with"
                " reviewgen blend"
            )
        raise ConfigError(f"{name} has no weights that can be trained further, since it is {what}.")
    try:
        defaults = find_preset(trained.preset).training_settings
    # the package of the preset is not installed any more, another package uses its name, or the
    # preset was composed in another process
    except PluginError:
        defaults = {}
    peak = _PEAK_SHARE * defaults.get("learning_rate", TrainingConfig().learning_rate)
    preset = Preset(
        model=bundle.model_plugin.name,
        tokenizer=bundle.tokenizer_plugin.name,
        model_settings=without_vocabulary(to_dict(bundle.model.config)),
        tokenizer_settings=to_dict(bundle.tokenizer_config),
        training_settings={**defaults, "learning_rate": peak, "warmup": _WARMUP},
        generation_settings=to_dict(bundle.generation),
    )
    setup = _from_preset(trained.preset, preset, model, tokenizer, training)
    setup = replace(setup, trained=trained)
    saved = to_dict(bundle.tokenizer_config)
    for setting, value in to_dict(setup.tokenizer_config).items():
        if value != saved[setting]:
            raise ConfigError(
                "A model that is trained further keeps its tokenizer, of"
                f" {setting}={saved[setting]}, so tokenizer.{setting} cannot be {value}: leave it"
                " out, or train a model from scratch."
            )
    if model and (reason := _find_difference(setup, trained)):
        values = ", ".join(
            f"model.{setting}={setup.model_settings[setting]}" for setting in sorted(model)
        )
        raise ConfigError(
            f"The trained weights do not fit {values}: {reason}. When a model is trained further,"
            " only settings that do not change its predictions can differ, such as dropout."
        )
    return setup


def _find_difference(setup: TrainingSetup, trained: ReviewModel) -> str | None:
    """Return why a trained model's weights cannot be used with the settings of a setup: the tensors
    do not fit, or the predictions would change. None if the weights can be used.
    """
    model: Any = trained.bundle.model
    try:
        changed: Any = setup.build_model(trained.tokenizer, trained.conditions, seed=0)
    except (RuntimeError, ConfigError) as error:
        return _last_line(error)
    # (1, T) some ids of the vocabulary; which ones does not matter
    probe = torch.arange(_PROBE_TOKENS).unsqueeze(0) * 7 % model.config.vocab_size
    with torch.inference_mode():
        changed_logits, _ = changed.eval()(probe, changed.initial_state(1))
        logits, _ = model.eval()(probe, model.initial_state(1))
    if torch.allclose(changed_logits, logits, rtol=_TOLERANCE, atol=_TOLERANCE):
        return None
    return "it would predict something else"


def _last_line(error: BaseException) -> str:
    """Return the last line of an error; in torch's errors, it names the tensor that does not
    fit.
    """
    return str(error).strip().splitlines()[-1].strip()


def parent_facts(trained: ReviewModel | None, held_out_bits: float | None) -> dict[str, Any]:
    """Return the facts for ``training.json`` on the model that is trained further, and on its own
    earlier trainings; an empty dict for a new model.

    Args:
        trained: The model that is trained further.
        held_out_bits: Its bits per character on the new held-out texts before the training.
    """
    if trained is None:
        return {}
    parent: dict[str, Any] = {
        "source": trained.bundle.origin,
        "digest": trained.digest,
        "bits_per_character": held_out_bits,
    }
    parent |= {
        name: copy.deepcopy(trained.training[name]) for name in PAST if name in trained.training
    }
    # Drop the ancestors of the oldest training that is kept: JSON that is nested too deeply cannot
    # be read again.
    oldest: dict[str, Any] = parent
    for _ in range(_ANCESTORS):
        oldest = oldest.get("parent") or {}
    oldest.pop("parent", None)
    return {"parent": parent}
