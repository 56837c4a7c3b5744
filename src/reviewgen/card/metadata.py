"""The block of YAML that begins a card, as the Hub reads it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reviewgen.card.facts import CardFacts
from reviewgen.errors import ConfigError
from reviewgen.names import parse_hub_id

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

__all__ = ["make_metadata"]

_TASK = "text-generation"


def make_metadata(facts: CardFacts) -> "ModelCardData":
    """Return the metadata of a card.

    Raises:
        ConfigError: The license, the language, the data sets or the tags are not text.
    """
    from huggingface_hub import ModelCardData

    data = facts.training.get("data", {})
    source = str(data.get("source", ""))
    hub = parse_hub_id(source) if source.startswith("hf://") else None
    results = _results(facts, data)
    return ModelCardData(
        license=_checked("license", facts.license),
        language=_checked("language", facts.language),
        datasets=_checked("datasets", facts.datasets) or ([hub.repo_id] if hub else None),
        library_name="reviewgen",
        pipeline_tag=_TASK,
        tags=["reviewgen", facts.model, *_listed(_checked("tags", facts.tags))],
        model_name=(facts.source or facts.preset).removeprefix("hf://") if results else None,
        eval_results=results or None,
    )


def _checked(name: str, value: Any) -> Any:
    """Return a value of the metadata that is text, a list of texts, or None."""
    if value is None:
        return None
    parts = list(value) if isinstance(value, list | tuple) else [value]
    for part in parts:
        if not isinstance(part, str) or not part.strip() or not part.isprintable():
            raise ConfigError(f"{name} must be text, as in {_EXAMPLES[name]!r}; got {part!r}.")
    return value if isinstance(value, str) else parts


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else value or []


_EXAMPLES = {"license": "apache-2.0", "language": "en", "datasets": "owner/name", "tags": "music"}


def _results(facts: CardFacts, data: Mapping[str, Any]) -> "list[EvalResult]":
    """Return what was measured: bits per character on held-out text, and what share of its own texts is copied."""
    from huggingface_hub import EvalResult

    held_out = facts.training.get("held_out") or {}
    name = str(data.get("source", "an unnamed corpus")).removeprefix("hf://")
    found = [
        ("bits_per_character", "bits per character, held out", held_out.get("bits_per_character"), held_out.get("split")),
        (
            "copy_rate",
            "share of 20-token windows of its texts that stand in the training text",
            facts.known_copy_rate,
            "train",
        ),
    ]
    return [
        EvalResult(
            task_type=_TASK,
            dataset_type=name,
            dataset_name=name,
            dataset_split=split,
            metric_type=metric,
            metric_name=words,
            metric_value=round(value, 4),
        )
        for metric, words, value, split in found
        if value is not None
    ]
