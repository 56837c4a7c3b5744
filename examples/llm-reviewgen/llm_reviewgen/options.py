"""The options of a prompt, ``llm -o NAME VALUE``: their types and bounds, and the keywords of
reviewgen that they become.

They are called as in OpenAI's protocol where it has them, so that the same command line works with
another model of llm.
"""

import json
from typing import Any, Literal

import llm
from pydantic import Field

__all__ = ["GenerateKwargs", "SourceOptions", "to_keywords"]

_RENAMED = {"max_tokens": "max_new_tokens", "stop": "stop_strings"}
_NOT_OF_GENERATE = {"source", "bits"}


class GenerateKwargs(llm.Options):
    """What can be set for a prompt. None is the model's own default."""

    max_tokens: int | None = Field(
        default=None, ge=0, description="The maximum number of new tokens."
    )
    temperature: float | None = Field(
        default=None, gt=0, description="Below 1 favours probable tokens, above 1 rare ones."
    )
    top_k: int | None = Field(
        default=None, ge=0, description="Sample from the k most probable tokens; 0 is off."
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sample from the most probable tokens that together have this probability.",
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description=(
            "Sample from tokens at least this many times as probable as the most probable one."
        ),
    )
    repetition_penalty: float | None = Field(
        default=None,
        ge=0.01,
        le=100,
        description="Above 1 makes tokens that are already in the text less probable.",
    )
    stop: str | list[str] | None = Field(
        default=None, description="The text ends after this string."
    )
    seed: int | None = Field(
        default=None,
        description="The same seed gives the same text; `llm logs --json` shows a random one.",
    )
    novelty: Literal["report", "filter"] | None = Field(
        default=None,
        description=(
            "report: log what the text copies from the training text; filter: also prevent long"
            " copied spans."
        ),
    )
    max_copy: int | None = Field(
        default=None,
        ge=0,
        description="With filter: the maximum length of a copied span in tokens.",
    )
    must_include: str | list[str] | None = Field(
        default=None, description="A string that the text must contain."
    )
    words: Literal["known", "any"] | None = Field(
        default=None,
        description="known: only words that occur at least twice in the training text.",
    )
    finish: Literal["sentence", "anywhere"] | None = Field(
        default=None, description="sentence: remove an unfinished last sentence."
    )
    conditions: str | dict[str, Any] | None = Field(
        default=None,
        description="Values of the model's conditions: stars=5,genre=drama, or a JSON object.",
    )
    bits: Literal["32", "16", "8"] | None = Field(
        default=None,
        coerce_numbers_to_str=True,
        description="Bits of a weight: 16 or 8 are faster for large models.",
    )


class SourceOptions(GenerateKwargs):
    """The options of the model ``reviewgen``, which has no weights of its own."""

    source: str | None = Field(
        default=None,
        description="What to load: a folder (./my-model), owner/name on the Hub, a preset.",
    )


def to_keywords(options: GenerateKwargs) -> dict[str, Any]:
    """Return the options that are set as keywords of ``ReviewModel.generate``.

    Raises:
        ValueError: The conditions have another form.
    """
    given = {
        name: value
        for name, value in options.model_dump(exclude_none=True).items()
        if name not in _NOT_OF_GENERATE
    }
    if isinstance(given.get("conditions"), str):
        given["conditions"] = _parse_conditions(given["conditions"])
    return {_RENAMED.get(name, name): value for name, value in given.items()}


def _parse_conditions(text: str) -> dict[str, Any]:
    """Return conditions given as a JSON object, or as ``name=value,name=value``."""
    if text.lstrip().startswith("{"):
        try:
            return dict(json.loads(text))
        except ValueError as error:
            raise ValueError(f"conditions is not a JSON object: {error}.") from None
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and sign for name, sign, _ in pairs):
        raise ValueError(
            "conditions must be name=value, several separated by commas, as in stars=5; got"
            f" {text!r}."
        )
    return {name.strip(): value.strip() for name, _, value in pairs}
