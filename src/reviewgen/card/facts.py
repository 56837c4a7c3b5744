"""What a model card is written from: plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from reviewgen.bundle import Bundle
from reviewgen.config import to_dict
from reviewgen.version import __version__

__all__ = ["CardFacts", "Sample", "describe", "file_name", "without_paths"]


class Sample(NamedTuple):
    """A text that the model wrote."""

    temperature: float
    text: str


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What is known of a trained model.

    Attributes:
        preset: The preset that it was trained from.
        model, tokenizer: The names of its plugins.
        version: Of the library.
        training: What ``training.json`` holds.
        settings: Of the model and of the tokenizer, as ``config.json`` holds them.
        source: What ``reviewgen.load`` takes; None for a folder that may lie anywhere.
        license, language, datasets, tags: As the Hub's metadata spell them.
        samples: Texts that it wrote.
        copy_rate: Of what it wrote, on more text than the training looked at; None where that is all there is.
        parameters: How many numbers its tensors hold.
        megabytes: What the folder takes.
        has_curve: Whether the picture of the learning curve lies beside the card.
    """

    preset: str
    model: str
    tokenizer: str
    version: str
    training: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: str | None = None
    license: str | None = None
    language: str | Sequence[str] | None = None
    datasets: str | Sequence[str] | None = None
    tags: Sequence[str] = ()
    samples: Sequence[Sample] = ()
    copy_rate: float | None = None
    parameters: int | None = None
    megabytes: float | None = None
    has_curve: bool = False

    @property
    def known_copy_rate(self) -> float | None:
        """The copy rate that rests on most text, None where none is known."""
        recorded: float | None = (self.training.get("novelty") or {}).get("copy_rate")
        return recorded if self.copy_rate is None else self.copy_rate


def describe(bundle: Bundle, **more: Any) -> CardFacts:
    """Return what a trained model says of itself, and ``more``, as the attributes of CardFacts."""
    return CardFacts(
        preset=bundle.preset,
        model=bundle.model_plugin.name,
        tokenizer=bundle.tokenizer_plugin.name,
        version=__version__,
        training=without_paths(bundle.training),
        settings={"model": to_dict(bundle.model.config), "tokenizer": to_dict(bundle.tokenizer_config)},
        parameters=sum(tensor.numel() for tensor in bundle.model.state_dict().values()),
        **more,
    )


def without_paths(value: Any, key: str = "") -> Any:
    """Return the facts of a training with the names of files in place of their paths."""
    if isinstance(value, dict):
        return {name: without_paths(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [without_paths(each) for each in value]
    return file_name(value) if key.endswith("source") and isinstance(value, str) else value


def file_name(source: str) -> str:
    """Return a source without the folders that a file lies in; a repository (hf://) as it is."""
    return source if source.startswith("hf://") else source.replace("\\", "/").rstrip("/").rpartition("/")[2]
