"""The keywords of functions, as type checkers see them.

What each means stands in ``options``, whose classes have the same fields: ``python -m tests.lint`` compares them.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, TypedDict, get_type_hints

from reviewgen.config.settings import check_value, options_of
from reviewgen.errors import ConfigError, did_you_mean, quoted


class ReadingOptions(TypedDict, total=False):
    """How a source of texts is read and cleaned; see ``options.Reading``."""

    text_column: str | None
    documents: str
    lowercase: bool | None
    strip_markdown: bool | None
    fix_encoding: bool | None
    keep_line_breaks: bool | None
    clean: bool | None
    sql: str | None
    subset: str | None
    split: str | None
    max_text_characters: int


class EvaluateOptions(ReadingOptions, total=False):
    """How texts are read that a trained model is measured on; see ``options.Evaluating``."""

    split: str | None


class CorpusOptions(ReadingOptions, total=False):
    """The keywords of ``reviewgen.corpus``; see ``options.Corpus``."""

    validation: Any
    validation_split: str | None
    conditions: Sequence[str]
    near_duplicates: float | None
    decontaminate: int | None


class PrepareOptions(CorpusOptions, total=False):
    """The keywords of ``reviewgen.prepare``."""

    tokenizer: Mapping[str, Any] | None


class TrialOptions(TypedDict, total=False):
    """How long a model is trained, and from which seed; see ``options.Trial``."""

    budget: str | float | None
    steps: int | None
    epochs: float | None
    seed: int


class TrainOptions(PrepareOptions, TrialOptions, total=False):
    """The keywords of ``reviewgen.train`` and ``TrainingRun``; ``sweep`` and ``tune`` take those that apply to several trainings.

    See ``options.Training``.
    """

    out: str | Path | None
    model: Mapping[str, Any] | None
    training: Mapping[str, Any] | None
    initial_weights: str | Path | None
    min_texts: int
    log: str | None
    resume: bool


def refuse_unknown_options(
    options: Mapping[str, Any], known: type, function: str, *, others: Collection[str] = (), hidden: Collection[str] = ()
) -> None:
    """Raise if a keyword is not one of a TypedDict's, or if the value of a flag or string has another type.

    Args:
        options: The keywords.
        known: The TypedDict.
        function: The public function that was called, for the message.
        others: The other arguments of that function, which the message may suggest.
        hidden: Keywords that the message does not suggest.

    Raises:
        ConfigError: A keyword is unknown, of which the closest known one is suggested, or has a value of another type.
    """
    names = [*others, *(name for name in known.__annotations__ if name not in hidden)]
    for name in options:
        if name not in known.__annotations__:
            raise ConfigError(f"{quoted(name)} is not an argument of {function}. {did_you_mean(name, names)}")
    for name, hint in get_type_hints(known).items():
        if name in options and set(options_of(hint)) <= {bool, str, NoneType}:
            check_value(name, options[name], hint)


class CompareOptions(ReadingOptions, TrialOptions, total=False):
    """The keywords of ``reviewgen.compare``, which documents them."""

    held_out: Any
    held_out_split: str | None
    prompt: str
    settings: Mapping[str, Mapping[str, Any]] | None
    conditions: Any
    out: str | Path | None
    resume: bool
