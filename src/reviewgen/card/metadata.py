"""The YAML front matter of a card, as the Hub reads it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reviewgen.card.facts import CardFacts
from reviewgen.errors import ConfigError, quoted
from reviewgen.names import parse_hub_id

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

_TASK = "text-generation"


def make_metadata(facts: CardFacts) -> "ModelCardData":
    """Return the metadata of a card.

    Raises:
        ConfigError: The license, the language, the datasets or the tags are not text.
    """
    from huggingface_hub import ModelCardData

    data = facts.training.get("data", {})
    source = str(data.get("source", ""))
    hub = parse_hub_id(source) if source.startswith("hf://") else None
    results = _results(facts, data)
    return ModelCardData(
        license=_check_strings("license", facts.license),
        language=_check_strings("language", facts.language),
        datasets=_check_strings("datasets", facts.datasets) or ([hub.repo_id] if hub else None),
        library_name="reviewgen",
        pipeline_tag=_TASK,
        tags=["reviewgen", facts.model, *_as_list(_check_strings("tags", facts.tags))],
        model_name=(facts.source or facts.preset).removeprefix("hf://") if results else None,
        eval_results=results or None,
    )


def _check_strings(name: str, value: Any) -> Any:
    """Return a value of the metadata after checking that it is a string, a list of strings, or None."""
    if value is None:
        return None
    parts = list(value) if isinstance(value, list | tuple) else [value]
    for part in parts:
        if not isinstance(part, str) or not part.strip() or not part.isprintable():
            raise ConfigError(
                f"{name} must be a string, or a list of strings, as in {quoted(_EXAMPLES[name])}; got {quoted(part)}."
            )
    return value if isinstance(value, str) else parts


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else value or []


_EXAMPLES = {"license": "apache-2.0", "language": "en", "datasets": "owner/name", "tags": "music"}


def _results(facts: CardFacts, data: Mapping[str, Any]) -> "list[EvalResult]":
    """Return the measured metrics: bits per character of held-out text, and the copy rate of generated text."""
    from huggingface_hub import EvalResult

    held_out = facts.training.get("held_out") or {}
    name = str(data.get("source", "an unnamed corpus")).removeprefix("hf://")
    metrics = [
        ("bits_per_character", "bits per character, held out", held_out.get("bits_per_character"), held_out.get("split")),
        (*_copy_rate(facts), "train"),
    ]
    return [
        EvalResult(
            task_type=_TASK,
            dataset_type=name,
            dataset_name=name,
            dataset_split=split,
            metric_type=metric,
            metric_name=label,
            metric_value=round(value, 4),
        )
        for metric, label, value, split in metrics
        if value is not None
    ]


def _copy_rate(facts: CardFacts) -> tuple[str, str, float | None]:
    """Return the type, the name and the value of the copy rate: in characters, or in token windows if only that is known."""
    if facts.copy_rate is None:
        name = "share of 20-token windows of generated texts that occur in the training text"
        return "token_copy_rate", name, facts.known_token_copy_rate
    length = facts.training["novelty"]["copy_characters"]
    name = f"share of the characters of generated texts in spans of {length} characters or more of the training text"
    return "copy_rate", name, facts.copy_rate
