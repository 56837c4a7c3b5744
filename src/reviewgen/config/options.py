"""Options that functions and commands share, besides the settings of a model.

A dataclass declares each option: its name, type, bounds, default and description. These classes and
``GenerationConfig`` are the source of the options of the commands (``reviewgen.cli.options``), and
of the descriptions in the docstrings of the public functions (``describes_options``). An option
that only one command has is described in the docstring of the command.

The TypedDicts repeat names and types, since type checkers and editors understand the keywords of a
function (``**options: Unpack[TrainKwargs]``) only if a TypedDict is written out. Classes and
TypedDicts cannot differ unnoticed: a command passes all options of its classes to a function, and
the function refuses options that its TypedDict lacks (``refuse_unknown_options``).

This module imports neither the command line nor the functions.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

from reviewgen.config.settings import Bound, PositiveInt, check_value, options_of
from reviewgen.errors import ConfigError, did_you_mean, quoted


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How a source of texts is read and cleaned.

    Attributes:
        text_column: The column that holds the text, "a.b" for the field b of the column a; guessed
            if not given.
        sql: The query of a SQLite file, as in "select text, stars from reviews"; by default its
            only table is read.
        subset: The subset (configuration) of a dataset of the Hub.
        split: The split of a dataset to read; by default train, or the first one if there is no
            train.
        documents: How a txt file is cut into texts: "line", "paragraph" (blank lines between),
            "sentence" or "file". With "file", a single file is one long text, blocks of which are
            held out.
        max_text_characters: Maximum number of characters of a text; longer texts are an error. A
            txt file read as one text has no limit.
        lowercase: Lower-case the texts.
        strip_markdown: Remove the markup of markdown, and keep its words.
        fix_encoding: Repair texts that were decoded wrongly, such as "cafÃ©"; needs ftfy.
        keep_line_breaks: Keep the line breaks of texts that are wrapped at a fixed width; by
            default, their lines are joined.
        drop_repeated_lines: Drop lines that occur in many texts, such as "Read more"; by default,
            they are only reported.
        clean: Whether to clean the texts (HTML, Unicode, empty and repeated texts), or to take them
            exactly as they are.
    """

    text_column: str | None = None
    sql: str | None = None
    subset: str | None = None
    split: str | None = None
    documents: Literal["line", "paragraph", "sentence", "file"] = "line"
    max_text_characters: PositiveInt = 10_000_000
    lowercase: bool | None = False
    strip_markdown: bool | None = False
    fix_encoding: bool | None = False
    keep_line_breaks: bool | None = False
    drop_repeated_lines: bool | None = False
    clean: bool | None = True


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(ReadingOptions):
    """How evaluation texts are read; cleaning options default to those of the model's training.

    Attributes:
        split: "all"; for a dataset, the name of one of its splits; for any other source, a part of
            its hash split: "train", "validation" or "test".
        lowercase: Lower-case the texts; as in training if not given.
        strip_markdown: Remove the markup of markdown, and keep its words; as in training if not
            given.
        fix_encoding: Repair texts that were decoded wrongly; as in training if not given.
        keep_line_breaks: Keep the line breaks of texts that are wrapped at a fixed width; as in
            training if not given.
        drop_repeated_lines: Drop the lines that occur in many texts, or that training has dropped;
            as in training if not given.
        clean: Clean the texts, or take them exactly as they are; as in training if not given.
    """

    split: str | None = "all"
    lowercase: bool | None = None
    strip_markdown: bool | None = None
    fix_encoding: bool | None = None
    keep_line_breaks: bool | None = None
    drop_repeated_lines: bool | None = None
    clean: bool | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingTextOptions(ReadingOptions):
    """How the texts of a training are read.

    Attributes:
        conditions: Columns beside the text, as in "stars", that the model is conditioned on.
        fields: Columns of free text, as in "artist" and "title", that the model is conditioned on;
            at most 200 characters of each value are read.
        weights: Relative weight of each of several corpora, as in 1,1: its share of the characters
            trained on; a corpus below its share is repeated. In Python, the source is then a list
            of sources.
        num_proc: Number of processes that clean and tokenize the corpus, which makes no difference
            to the result; by default $REVIEWGEN_WORKERS if set, else the number of cores, at most
            4, for a corpus of more than 20 MB.
    """

    conditions: Annotated[tuple[str, ...], Bound(at_least=1)] = ()
    fields: Annotated[tuple[str, ...], Bound(at_least=1)] = ()
    weights: Annotated[tuple[float, ...], Bound(above=0)] = ()
    num_proc: Annotated[int | None, Bound(at_least=1, at_most=1024)] = None


@dataclass(frozen=True, kw_only=True)
class CorpusOptions(TrainingTextOptions):
    """How a corpus is read, filtered and split.

    Attributes:
        validation: A second source to validate on, instead of a part of the first.
        validation_split: The split of a dataset to validate on: of the second source if there is
            one, else of the first.
        near_duplicates: A similarity from 0.3 to 1; of texts that are at least this similar, only
            the first is kept. 0.8 finds texts that differ slightly. Needs rensa.
        decontaminate: Leave out held-out texts that share a run of this many characters with a
            training text.
    """

    validation: Any = None
    validation_split: str | None = None
    near_duplicates: float | None = None
    decontaminate: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrialOptions:
    """How long a training runs, alone or among several, and its seed. At most one of budget, steps
    and epochs is given.

    Attributes:
        budget: Training time (2m, 90s, 1h), from the end of the first step to the last evaluation;
            two minutes if none of budget, steps and epochs is given.
        steps: Train for this number of steps, instead of a budget.
        epochs: Train for this number of passes over the corpus, instead of a budget.
        seed: Seed of the initial weights, the order of the texts, dropout and samples.
    """

    budget: str | float | None = None
    steps: int | None = None
    epochs: float | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions(TrialOptions):
    """How the trials of an experiment are trained: the rows of a table.

    Attributes:
        seeds: The number of trainings per row, from different seeds: the figures are their means.
            Only several seeds show whether a difference is more than chance.
        out: Keep the finished trainings in this folder, so that an interrupted command can be
            resumed.
        resume: Continue in the folder of an interrupted command with the same texts and settings,
            and train only what is missing.
    """

    seeds: PositiveInt = 1
    out: str | Path | None = None
    resume: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(TrialOptions):
    """How a model is trained, besides its settings.

    Attributes:
        initial_weights: A safetensors file from another source, whose tensors a new model starts
            from, such as an embedding table or the state dict of an nn.LSTM; only some models
            support it.
        min_texts: With words="known", a word is generated only if it occurs in at least this many
            training texts, so that rare names never appear; in a single long text, at least this
            many times.
        log: Also log the curves to a tracker of accelerate, which must be installed: tensorboard,
            wandb, trackio, mlflow, aim, clearml, comet_ml, dvclive or swanlab.
        resume: Resume an interrupted run of the same arguments from its last checkpoint in
            OUT.partial.
        overwrite: Replace the model that the output folder holds, once the new one is complete.
    """

    initial_weights: str | Path | None = None
    min_texts: PositiveInt = 2
    log: str | None = None
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """The options of a call of ``generate`` that are not settings.

    Attributes:
        seed: The same seed gives the same texts, whatever else is in the batch; random if not
            given.
        novelty: "report" looks up what each text copies from the training text; "filter" also
            prevents copied spans of more than max_copy tokens.
        max_copy: With "filter", the maximum length of a copied span, in tokens; by default about 50
            characters.
        must_include: The older name of include; it will be removed.
        profile: The saved defaults of the call: "reading" (default), texts that a person would
            rather read, or "likeness", texts whose statistics are close to those of human texts.
            Settings of the call take precedence.
    """

    seed: Annotated[int | None, Bound(at_least=0, below=2**64)] = None
    novelty: Literal["report", "filter"] | None = None
    max_copy: Annotated[int | None, Bound(at_least=0)] = None
    must_include: tuple[str, ...] = ()
    profile: Literal["reading", "likeness"] | None = None


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """How a table of texts is written.

    Attributes:
        format: The format of a folder: "jsonl" (default) or "parquet".
        shard_texts: The number of texts in a shard.
        keep_formulas: Write cells of a CSV file that begin with =, +, -, @, a tab or a carriage
            return as they are. By default an apostrophe is written before them, since spreadsheets
            run them as formulas.
    """

    format: str | None = None
    shard_texts: PositiveInt = 10_000
    keep_formulas: bool = False


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(ShardOptions):
    """How a table of generated texts is written.

    Attributes:
        columns: Write more than the text and its conditions: its number, the seed, the prompt, the
            finish reason, the number of new tokens, and a receipt, the JSON from which ``reviewgen
            replay`` generates the text again.
        unique: Leave out texts that equal an earlier one; further texts are generated until there
            are n, or about 10 n were generated.
        schema: What the columns are: a mapping (or .json file) of each column to its entry, or a
            JSON schema of an object. A condition of the model is drawn, from {value: weight}, an
            enum or a range of integers; an empty value leaves it unspecified. Other columns are
            generated as their entry says, such as {"type": "string", "maxLength": 80}: a single one
            is the text itself, several are values of a JSON object. Or a table (csv, jsonl,
            parquet, a list of mappings), one row of which is sampled per text. The value of a
            condition that is not in the schema is drawn by the shares of the values in the training
            texts.
    """

    columns: bool = False
    unique: bool = False
    schema: Any = None


class ReadingKwargs(TypedDict, total=False):
    """How a source of texts is read and cleaned; see ``ReadingOptions``."""

    text_column: str | None
    documents: str
    lowercase: bool | None
    strip_markdown: bool | None
    fix_encoding: bool | None
    keep_line_breaks: bool | None
    drop_repeated_lines: bool | None
    clean: bool | None
    sql: str | None
    subset: str | None
    split: str | None
    max_text_characters: int


class EvaluateKwargs(ReadingKwargs, total=False):
    """How the texts of an evaluation are read and cleaned; see ``EvaluationOptions``."""


class CorpusKwargs(ReadingKwargs, total=False):
    """The keywords of ``reviewgen.corpus``; see ``CorpusOptions``."""

    validation: Any
    validation_split: str | None
    conditions: Sequence[str]
    fields: Sequence[str]
    weights: Sequence[float]
    num_proc: int | None
    near_duplicates: float | None
    decontaminate: int | None


class PrepareKwargs(CorpusKwargs, total=False):
    """The keywords of ``reviewgen.prepare``."""

    tokenizer: Mapping[str, Any] | None


class TrialKwargs(TypedDict, total=False):
    """How long a model is trained, and from which seed; see ``TrialOptions``."""

    budget: str | float | None
    steps: int | None
    epochs: float | None
    seed: int


class ExperimentKwargs(CorpusKwargs, TrialKwargs, total=False):
    """The keywords of ``reviewgen.train`` that ``sweep``, ``ablate`` and ``tune`` accept, too."""

    initial_weights: str | Path | None
    min_texts: int
    log: str | None


class TrainKwargs(PrepareKwargs, ExperimentKwargs, total=False):
    """The keywords of ``reviewgen.train`` and ``TrainingRun``; see ``TrainingOptions``."""

    out: str | Path | None
    model: Mapping[str, Any] | None
    training: Mapping[str, Any] | None
    resume: bool
    overwrite: bool


class CompareKwargs(ReadingKwargs, TrialKwargs, total=False):
    """The keywords of ``reviewgen.compare``."""

    held_out: Any
    held_out_split: str | None
    prompt: str
    seeds: int
    settings: Mapping[str, Mapping[str, Any]] | None
    row_settings: Mapping[str, Mapping[str, Mapping[str, Any]]] | None
    conditions: Any
    fields: Any
    weights: Any
    num_proc: int | None
    out: str | Path | None
    resume: bool


def refuse_unknown_options(
    options: Mapping[str, Any],
    known: type,
    function: str,
    *,
    others: Collection[str] = (),
    hidden: Collection[str] = (),
) -> None:
    """Check the keywords of a call against a TypedDict: the names of all, and the types of those
    that are flags or strings.

    Args:
        options: The keywords.
        known: The TypedDict.
        function: The public function that was called, for the message.
        others: The other arguments of that function, which the message may suggest.
        hidden: Keywords that the message does not suggest.

    Raises:
        ConfigError: A keyword is unknown (the message suggests the closest known one), or its value
            has another type.
    """
    names = [*others, *(name for name in known.__annotations__ if name not in hidden)]
    for name in options:
        if name not in known.__annotations__:
            raise ConfigError(
                f"{quoted(name)} is not an argument of {function}. {did_you_mean(name, names)}"
            )
    for name, hint in get_type_hints(known).items():
        if name in options and set(options_of(hint)) <= {bool, str, NoneType}:
            check_value(name, options[name], hint)
