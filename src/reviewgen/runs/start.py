"""What a training starts from: a preset, or a trained model that learns on from where it stands.

A model that is trained further keeps its tokenizer, conditions, shape and generation defaults; only its weights change.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reviewgen.card import file_name
from reviewgen.conditions import Conditions, fit_conditions
from reviewgen.config import GenerationConfig, Preset, from_dict, to_dict
from reviewgen.data import Corpus, DataConfig, gather
from reviewgen.errors import ConfigError, DataError, NotADistribution, UnknownPlugin
from reviewgen.evaluation import Document, evaluate_documents
from reviewgen.model import ReviewModel
from reviewgen.protocols import CountTrained, LanguageModel, Tokenizer
from reviewgen.registry import Plugin, find_model, find_preset, find_tokenizer, preset_names
from reviewgen.runs.arguments import merge_settings
from reviewgen.runs.keeping import refuse_other_function, refuse_other_tokenizer, refuse_untrainable
from reviewgen.runs.record import past_facts
from reviewgen.training import IsolatedRng, Sizing, TrainingConfig, all_processes, choose_size, keep_threads, process_state

__all__ = ["Start", "find_start"]

_SHARE = 1 / 2  # of the preset's peak learning rate: a whole one spoils a model on texts like its own, a sixth is slow on others
_WARMUP = 0.05  # it needs less of it: a share of the run


@dataclass(frozen=True, kw_only=True)
class Start:
    """The parts and settings that a training begins with, and the trained model where it goes on with one."""

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
    sizable: Preset | None = None  # whose size nobody has named, so that it may be chosen
    has_own_batch: bool = True  # whether nobody has named a batch size or length either

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer that is kept; None where one is trained."""
        return None if self.trained is None else self.trained.tokenizer

    def keep_reading(self, reading: Mapping[str, Any]) -> dict[str, Any]:
        """Return how to read the corpus, with the conditions of the trained model and at least its cleaning.

        Raises:
            ConfigError: A condition is asked for that the model was not trained with.
        """
        if self.trained is None:
            return dict(reading)
        names = self.trained.conditions.names
        if more := [name for name in reading["conditions"] if name not in names]:
            raise ConfigError(
                f"A model that is trained further keeps its conditions ({', '.join(names) or 'none'}), so {more[0]!r} cannot be "
                "one of them: train a model from scratch."
            )
        before = self.trained.training.get("data", {})
        more_cleaning = {name: reading[name] or bool(before.get(name)) for name in ("lowercase", "strip_markdown")}
        return {**reading, **more_cleaning, "clean": reading["clean"] and before.get("clean", True), "conditions": names}

    def gather(self, source: Any, validation: Any, folder: Path, data: DataConfig) -> tuple[Corpus, Conditions, Sequence[str]]:
        """Return the corpus, its conditions, and what to say of them; other processes of this machine can take them over.

        Raises:
            DataError: The source cannot be read, or holds a single review and no validation is given.
        """
        corpus = gather(source, folder, data, validation, self.trained is not None)
        if len(corpus.splits) < 2:
            raise DataError(
                "The corpus is a single review; at least two are needed, one to train on and one to hold out. "
                "A text file is cut by line, by paragraph or by file: see documents."
            )
        return corpus, *self.fit_conditions(data.conditions, corpus.conditions("train"))

    def fit_conditions(
        self, names: Sequence[str], rows: Iterable[Sequence[str | float | None]]
    ) -> tuple[Conditions, Sequence[str]]:
        """Return the conditions, found in the values beside the texts or kept from the trained model, and what to say of them."""
        if self.trained is None:
            found = fit_conditions(names, rows)
            return found, found.notes()
        kept = self.trained.conditions
        return kept, _note_unknown(kept, rows)

    def identity(self) -> dict[str, Any]:
        """Return what a run that was cut short must have in common with one that goes on with it, as JSON values."""
        sample = from_dict(self.model_class.Config, {"vocab_size": 2} | self.model_settings)
        return {
            "from": None if self.trained is None else self.trained.digest,
            "model": to_dict(sample) | {"vocab_size": None},
            "tokenizer": to_dict(self.tokenizer_config),
            "training": to_dict(self.training),
        }

    @property
    def counts(self) -> bool:
        """Whether the model is trained by counting."""
        return issubclass(self.model_class, CountTrained)

    def choose_size(self, vocab_size: int, seconds: float, corpus_tokens: int) -> Sizing | None:
        """Return the size of model and batch that so much time is enough for; of a preset on a CPU.

        Of several processes the first one times steps, and all take what it finds, as if the others added nothing: on processors
        they add little. None where somebody has named a size, the preset has none, or no time is left.
        """
        if self.sizable is None or process_state().device.type != "cpu":
            return None

        def build(size: Mapping[str, Any]) -> LanguageModel:
            return self.build(vocab_size, 0, size)

        with all_processes() as processes:
            found: Sizing | None = None
            if processes.rank == 0 and seconds > 0:
                training = keep_threads(self.training, processes.world_size)
                found = choose_size(self.sizable, build, training, seconds, corpus_tokens, may_grow=self.has_own_batch)
            shared: Sizing | None = processes.broadcast(found)
            return shared

    def build(self, vocab_size: int, seed: int, size: Mapping[str, Any] | None = None) -> LanguageModel:
        """Return the model to train: with fresh weights, or with a copy of the trained ones.

        Args:
            vocab_size: The number of ids.
            seed: Of the weights.
            size: Settings that were chosen, in place of the preset's.

        Raises:
            ConfigError: There is no memory for it.
        """
        config = from_dict(self.model_class.Config, {"vocab_size": vocab_size} | self.model_settings | dict(size or {}))
        try:
            with IsolatedRng(seed):
                model: LanguageModel = self.model_class(config)
        except (RuntimeError, MemoryError) as error:  # torch's word on memory that is not there
            raise ConfigError(f"The model cannot be built with these settings: {str(error).splitlines()[0]}") from None
        if self.trained is not None:
            model.load_state_dict(self.trained.bundle.model.state_dict())
        return model

    def facts(self, held_out_bits: float | None) -> dict[str, Any]:
        """Return what is known of the trained model and of those before it, as JSON values; nothing of a preset.

        Args:
            held_out_bits: Bits per character that the trained model took of the new held-out texts.
        """
        if self.trained is None:
            return {}
        bundle = self.trained.bundle
        parent = {"source": bundle.source, "digest": self.trained.digest, "bits_per_character": held_out_bits}
        return {"parent": parent | past_facts(self.trained.training)}

    def measure(self, model: Any, documents: Sequence[Document], tokenizer: Tokenizer, conditions: Conditions) -> float | None:
        """Return the bits per character that the trained model takes of held-out texts before it learns more.

        None for a preset, and where they are infinite or no distribution's.
        """
        if self.trained is None:
            return None
        device = str(process_state().device)
        try:
            found = evaluate_documents(
                model.to(device).eval(), documents, tokenizer.vocab_size, device, given=len(conditions)
            ).bits_per_character
        except NotADistribution:
            return None
        finally:
            model.to("cpu")
        return found if math.isfinite(found) else None

    def notes(self, held_out_bits: float | None) -> list[str]:
        """Return what a person should know of a training that goes on with a trained model."""
        if self.trained is None:
            return []
        name = file_name(self.trained.bundle.source or "a trained model")
        bits = (
            "" if held_out_bits is None else f", which takes {held_out_bits:.4f} bits per character of the held-out texts so far"
        )
        return [f"Training {name} ({self.preset}) further{bits}; the learning rate peaks at {self.training.learning_rate:.3g}."]


def find_start(
    start: object,
    model: Mapping[str, Any] | None,
    tokenizer: Mapping[str, Any] | None,
    training: Mapping[str, Any] | None,
) -> Start:
    """Return what a training starts from.

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
            f"{start!s:.60} is no preset's name. To train a saved model further, write --from {start!s:.60} on the command line, "
            f"and reviewgen.train(reviewgen.load(...), ...) in Python."
        )
    return _from_preset(start, find_preset(start), model, tokenizer, training)


def _from_preset(
    name: str, preset: Preset, model: Any, tokenizer: Any, training: Any, trained: ReviewModel | None = None
) -> Start:
    model_class, model_plugin = find_model(preset.model)
    tokenizer_class, tokenizer_plugin = find_tokenizer(preset.tokenizer)
    model_settings = merge_settings(model_class.Config, preset.model_settings, model, "model")
    from_dict(model_class.Config, {"vocab_size": 2} | model_settings)  # a bad value is refused before any work
    return Start(
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
        sizable=_sizable(preset, set(model or {})),
        has_own_batch=not {"batch_size", "bptt"} & set(training or {}),
    )


def _sizable(preset: Preset, named: set[str]) -> Preset | None:
    """Return a preset whose size may be chosen, without the settings that somebody has named; None where that is its size."""
    if not preset.sizes or any(named & set(size) for size in preset.sizes):
        return None
    left = tuple(
        (least, {name: value for name, value in settings.items() if name not in named}) for least, settings in preset.by_epochs
    )
    return replace(preset, by_epochs=left)


def _from_model(trained: ReviewModel, model: Any, tokenizer: Any, training: Any) -> Start:
    """Return a start with a trained model's parts; its settings take the place of the preset's."""
    bundle = trained.bundle
    refuse_untrainable(trained)
    try:
        usual = find_preset(trained.preset).training_settings
    except UnknownPlugin:  # of a package that is gone, or composed in another process
        usual = {}
    peak = _SHARE * usual.get("learning_rate", TrainingConfig().learning_rate)
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
    start = _from_preset(trained.preset, own, model, tokenizer, training, trained)
    refuse_other_tokenizer(start.tokenizer_config, bundle.tokenizer_config)
    refuse_other_function(start.model_class, start.model_settings, bundle.model, sorted(model or {}))
    return start


def _note_unknown(conditions: Conditions, rows: Iterable[Sequence[str | float | None]]) -> list[str]:
    """Return a sentence for each condition of which texts have values that the trained model does not know."""
    texts, unknown = 0, Counter[str]()
    for row in rows if conditions else ():
        texts += 1
        unknown.update(conditions.unknown(row))
    return [
        f"{count:,} of {texts:,} training texts have a value of {name!r} that the model does not know; it counts as not given."
        for name, count in unknown.items()
    ]
