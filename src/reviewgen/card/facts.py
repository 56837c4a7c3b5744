"""The facts that a model card is generated from, as plain data."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from reviewgen.config import to_dict
from reviewgen.model import Bundle
from reviewgen.version import __version__


class Sample(NamedTuple):
    """A text that the model generated.

    Attributes:
        temperature: The sampling temperature.
        text: The text.
    """

    temperature: float
    text: str


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """The facts about a trained model.

    Attributes:
        preset: The preset that it was trained from.
        model, tokenizer: The names of its plugins.
        version: The version of reviewgen.
        training: The content of ``training.json``.
        settings: The settings of the model and of the tokenizer, as in ``config.json``.
        source: The source for ``reviewgen.load``; None for a local folder.
        license, language, datasets, tags: As in the Hub's metadata.
        space: The Space on the Hub whose page generates with the model, as in "owner/name".
        samples: Generated texts.
        token_copy_rate: The share of 20-token windows of texts generated for the card, more than the training generates, that
            occur in the training text; None if there are none.
        parameters: The number of parameters.
        megabytes: The size of the folder.
        has_curve: Whether there is a plot of the learning curve in the folder.
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
    space: str | None = None
    samples: Sequence[Sample] = ()
    token_copy_rate: float | None = None
    parameters: int | None = None
    megabytes: float | None = None
    has_curve: bool = False

    @property
    def copy_rate(self) -> float | None:
        """The copy rate in characters that the training recorded; None if there is none."""
        recorded: float | None = (self.training.get("novelty") or {}).get("copy_rate")
        return recorded

    @property
    def known_token_copy_rate(self) -> float | None:
        """The token copy rate of the card's own texts, else the one that the training recorded; None if neither is known."""
        recorded: float | None = (self.training.get("novelty") or {}).get("token_copy_rate")
        return recorded if self.token_copy_rate is None else self.token_copy_rate


def describe(bundle: Bundle, **more: Any) -> CardFacts:
    """Return the facts of a trained model; ``more`` are further attributes of CardFacts."""
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


def brief_facts(bundle: Bundle) -> list[list[str]]:
    """Return what is worth knowing of a model at a glance, as pairs of a label and a value, for a page that generates with it."""
    training = bundle.training
    held_out, data, novelty = (training.get(name) or {} for name in ("held_out", "data", "novelty"))
    bits, rate = held_out.get("bits_per_character"), novelty.get("copy_rate")
    facts = {
        "Preset": bundle.preset,
        "Bits per character": None if bits is None else f"{bits:.3f}, held out",
        "Data": file_name(str(data.get("source") or "")),
        "License": _license(bundle.card),
        "Copy rate": None if rate is None else f"{rate:.1%} of the characters",
        "Texts": "synthetic: not written by a person",
    }
    return [[label, value] for label, value in facts.items() if value]


def _license(card: str) -> str | None:
    """Return the license in the front matter of a card."""
    match = re.match(r"\s*---\n.*?^license: *(\S[^\n]{0,80})$.*?^---", card, re.DOTALL | re.MULTILINE)
    return match and match[1].strip("'\"")


def without_paths(value: Any, key: str = "") -> Any:
    """Return the facts of a training with file names in place of paths."""
    if isinstance(value, dict):
        return {name: without_paths(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [without_paths(each) for each in value]
    return file_name(value) if key.endswith("source") and isinstance(value, str) else value


def file_name(source: str) -> str:
    """Return the last part of a source that is a path; a repository (hf://) unchanged."""
    return source if source.startswith("hf://") else source.replace("\\", "/").rstrip("/").rpartition("/")[2]
