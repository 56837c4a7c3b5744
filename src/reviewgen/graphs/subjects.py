"""What is drawn: a trained model, a preset without weights, or a model; with its tokenizer and the sizes of its batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reviewgen.config import from_dict, vocabulary_settings
from reviewgen.errors import ConfigError
from reviewgen.hub.download import locate
from reviewgen.model import ReviewModel
from reviewgen.names import PresetSource, parse_source
from reviewgen.protocols import LanguageModel
from reviewgen.registry import find_weights, preset_names
from reviewgen.runs.parts import TrainingParts, resolve_parts

_SAMPLE = "".join(map(chr, range(32, 127)))  # a tokenizer without a fixed vocabulary is trained on these characters


@dataclass(frozen=True)
class Subject:
    """A model to draw.

    Attributes:
        name: Its name in the picture.
        model: The model.
        remark: Whether it is trained.
        tokenizer: Its tokenizer, for the text of tokens; None if there is none.
        batch: The sizes of B and T in its training, if they are known.
    """

    name: str
    model: Any
    remark: str
    tokenizer: Any = None
    batch: Mapping[str, int] = field(default_factory=dict)


def find_subject(source: Any) -> Subject:
    """Return what a source means: a preset's trained weights or, without any, a new model; a saved model; or a model itself.

    Raises:
        ConfigError: It is none of these.
        SourceError, UnknownPlugin, BundleError, HubError: As in ``reviewgen.load``.
    """
    if isinstance(source, ReviewModel):
        return _of_trained(source, source.bundle.source or source.preset)
    if isinstance(source, str | Path):
        parsed = parse_source(source, preset_names())
        if isinstance(parsed, PresetSource) and find_weights(parsed.name) is None:
            return _of_preset(parsed.name)
        name = locate(source).name if isinstance(parsed, PresetSource) else str(source)
        return _of_trained(ReviewModel.from_pretrained(source), Path(name).name)
    if not isinstance(source, LanguageModel):
        raise ConfigError(
            f"A graph is drawn of a preset, a saved model, a ReviewModel or a LanguageModel; got a {type(source).__name__}."
        )
    return Subject(type(source).__name__, source, "")


def _of_trained(trained: ReviewModel, name: str) -> Subject:
    parts = trained.training.get("parts")
    first = parts[0] if isinstance(parts, list) and parts and isinstance(parts[0], Mapping) else {}
    settings = trained.training.get("config") or first.get("config")
    known = settings if isinstance(settings, Mapping) else {}
    batch = {letter: known[key] for letter, key in (("B", "batch_size"), ("T", "bptt")) if isinstance(known.get(key), int)}
    return Subject(name, trained.bundle.model, "trained", trained.tokenizer, batch)


def _of_preset(name: str) -> Subject:
    """Return a new model of a preset, with the vocabulary that its tokenizer's settings say or that a few characters give."""
    parts = resolve_parts(name)
    if parts.models:
        raise ConfigError(
            f"The blend {name} has no trained weights, so there is nothing to draw. Draw its models: {_names(parts)}."
        )
    tokenizer = None
    size = getattr(parts.tokenizer_config, "vocab_size", None)
    if size is None:
        tokenizer = parts.tokenizer_class.train([_SAMPLE], parts.tokenizer_config)
        size = tokenizer.vocab_size
    ids = vocabulary_settings(parts.model_class.Config, size, bos_id=0, eos_id=min(1, size - 1))
    model = parts.model_class(from_dict(parts.model_class.Config, parts.model_settings | ids))
    batch = {"B": parts.training.batch_size, "T": parts.training.bptt}
    return Subject(name, model, "not trained", tokenizer, batch)


def _names(parts: TrainingParts) -> str:
    return ", ".join(each.preset for each in parts.models)
