"""``reviewgen.sweep`` and ``reviewgen.plot_sweep``: trainings with several values of one setting,
as a bias-variance table and its plot.

``Variants`` makes the plans of trainings that differ in some settings, for a sweep, an ablation and
a search. It prepares a corpus once for all trainings that read and tokenize it in the same way.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from reviewgen.config.bounded import to_json
from reviewgen.config.options import TrainKwargs, refuse_unknown_options
from reviewgen.config.settings import check_list, check_mapping, check_text
from reviewgen.config.training import TrainingConfig
from reviewgen.errors import ConfigError, did_you_mean, quoted
from reviewgen.evaluation.evaluate import Evaluation, sample_documents
from reviewgen.protocols.abilities import count_parameters
from reviewgen.rates import MIN_CHARACTERS
from reviewgen.runs.corpus import PreparedCorpus, read_plan, tokenize
from reviewgen.runs.measure import evaluate
from reviewgen.runs.plan import TrainingPlan, make_plan
from reviewgen.runs.run import Run
from reviewgen.web.charts import Chart, Panel, Series, refuse_chart, save_chart

GROUPS = ("model", "tokenizer", "training")
_TRAIN_TOKENS = 100_000  # tokens of the training text that are scored
# options of ``train`` that make sense for a single training only
_OF_ONE_TRAINING = ("out", "overwrite", "resume")


def split_name(setting: str) -> tuple[str, str]:
    """Return the group and the name of a setting.

    >>> split_name("model.order")
    ('model', 'order')

    Raises:
        ConfigError: The setting does not have the form GROUP.NAME, or there is no such group.
    """
    group, _, name = setting.partition(".") if isinstance(setting, str) else ("", "", "")
    if group not in GROUPS or not name:
        raise ConfigError(
            f"{quoted(setting)} is not a setting; name one as in model.order, tokenizer.vocab_size,"
            " training.bptt."
        )
    return group, name


def check_groups(settings: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """Return the settings of each group; a group that is not given gets an empty dict.

    Raises:
        ConfigError: ``settings`` is not a mapping from groups to settings.
    """
    groups = (
        {} if settings is None else check_mapping("settings", settings, "{'model': {'order': 4}}")
    )
    for group in groups:
        if group not in GROUPS:
            raise ConfigError(
                f"{quoted(group)} is not a group of settings. {did_you_mean(group, GROUPS)}"
            )
    return {
        group: check_mapping(f"settings[{group!r}]", groups.get(group, {}), "{'order': 4}")
        for group in GROUPS
    }


def check_values(setting: str, values: Any) -> None:
    """Check that ``values`` is a list of at least one value of a setting.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ConfigError(f"Give a list of at least one value of {setting}; got {quoted(values)}.")


def combine(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the values of some settings, each with the settings' names.

    >>> combine({"a": [1, 2], "b": [3]})
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    return [
        dict(zip(values, combination, strict=True))
        for combination in itertools.product(*values.values())
    ]


class Variants:
    """Trainings of the same preset or model on the same source with different settings.

    Args:
        function: For messages: the name of the public function, such as "sweep", then the names of
            its own arguments.
        start: A preset, or a trained model to train further.
        source: The reviews.
        settings: Settings of all trainings, by group; see ``check_groups``.
        options: Other arguments of ``reviewgen.train``, for all trainings.

    Attributes:
        settings: The settings of all trainings, by group.

    Raises:
        ConfigError: A keyword is unknown, or makes sense for a single training only, as "out" does.
    """

    def __init__(
        self, function: Sequence[str], start: Any, source: Any, settings: Any, options: TrainKwargs
    ) -> None:
        name, *arguments = function
        refuse_unknown_options(
            options, TrainKwargs, name, others=arguments, hidden=[*GROUPS, *_OF_ONE_TRAINING]
        )
        for group in GROUPS:
            if group in options:
                raise ConfigError(
                    f"{name} takes {group} settings in settings, as in"
                    f" settings={{{quoted(group)}: {{...}}}}."
                )
        for option in _OF_ONE_TRAINING:
            if options.get(option) not in (None, False):
                raise ConfigError(
                    f"{name} trains several models, and no model is saved, so it takes no {option}."
                )
        self.settings = check_groups(settings)
        self._start = start
        self._source = source
        self._options = options
        self._corpora: list[tuple[Any, PreparedCorpus]] = []

    def skip_copy_rates(self, training: TrainingConfig) -> None:
        """Switch the novelty index and copy rates off, since they take time. They stay on if the
        training needs them to choose which weights to keep.
        """
        if training.keep == "best":
            self.settings["training"] = {"novelty": "none", "copy_tokens": 0} | self.settings[
                "training"
            ]

    def plan(self, changed: Mapping[str, Any]) -> TrainingPlan:
        """Return the plan of a training with some settings changed, as in {"model.order": 4}.

        Raises:
            ConfigError: A setting is unknown or out of range, or is both changed and set for all
                trainings; or the preset is a blend.
        """
        groups: Any = check_groups(self.settings)
        for setting, value in changed.items():
            group, name = split_name(setting)
            if name in groups[group]:
                raise ConfigError(f"{setting} is both set and varied; do one of the two.")
            groups[group][name] = value
        plan = make_plan(self._start, self._source, {**self._options, **groups})
        if plan.setup.components:
            raise ConfigError(
                f"{plan.preset} is a blend of several models: give one of them, {plan.setup.names}."
            )
        return plan

    def corpus(self, plan: TrainingPlan) -> PreparedCorpus:
        """Return the prepared corpus of a plan. It is read and tokenized once for all plans that
        prepare it in the same way.
        """
        setup = plan.setup
        needed = (
            plan.data,
            setup.tokenizer_plugin,
            setup.tokenizer_config,
            setup.training.novelty,
            setup.training.novelty_mb,
        )
        for used, corpus in self._corpora:
            if used == needed:
                return corpus
        corpus = tokenize(plan, read_plan(plan))
        self._corpora.append((needed, corpus))
        return corpus

    def start(self, plan: TrainingPlan) -> Run:
        """Return a run that is ready to train. All runs on the same prepared corpus get the model
        size that was chosen for the first of them.

        Raises:
            ReviewgenError: The corpus cannot be read, or the model cannot be built.
        """
        run = Run(plan)
        run.start_on(self.corpus(plan))
        return run


@dataclass(frozen=True)
class SweepRow:
    """The results of a training with one value of the setting.

    Attributes:
        value: The value of the setting that is swept.
        train_bits: Bits per character of a sample of the training texts; None if the scores are not
            a probability distribution, infinite if a token has probability zero.
        held_out_bits: The same for held-out texts.
        megabytes: The size of the model's tensors.
        seconds: Duration of training and its evaluations, without reading and tokenizing.
        token_copy_rate: Share of 20-token windows of generated texts that occur in the training
            text; None if not measured.
        novelty: The copy rate with its interval, and the number of characters it was measured on,
            as in ``training.json``; empty if it was not measured.
        series: The settings that distinguish this row's series, as in {"model.smoothing": "none"}.
        train_impossible: Share of the tokens of the training sample that have probability zero;
            None if ``train_bits`` is None.
        held_out_impossible: The same for the held-out texts.
        ngrams: The numbers of distinct n-grams of 1, 2, ... n tokens in the model; empty for a
            model without n-grams.
    """

    value: Any
    train_bits: float | None
    held_out_bits: float | None
    megabytes: float
    seconds: float
    token_copy_rate: float | None
    series: Mapping[str, Any] = field(default_factory=dict)
    train_impossible: float | None = None
    held_out_impossible: float | None = None
    ngrams: Sequence[int] = ()
    novelty: Mapping[str, Any] = field(default_factory=dict)

    @property
    def copy_rate(self) -> float | None:
        """The copy rate; None if it was not measured, or was measured on too few characters."""
        if self.novelty.get("copy_rate_characters", 0) < MIN_CHARACTERS:
            return None
        return self.novelty.get("copy_rate")

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values; an infinite number becomes None."""
        return dict(to_json(self))


def sweep(
    preset: str,
    source: Any,
    setting: str,
    values: Sequence[Any],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    series: Mapping[str, Sequence[Any]] | None = None,
    **options: Unpack[TrainKwargs],
) -> Iterator[SweepRow]:
    """Train a preset with each value of a setting; yield a row of a bias-variance table for each
    model.

    The corpus is read and tokenized once, or once for each value of a tokenizer setting.

    >>> sweep = reviewgen.sweep("ngram-char", "reviews.csv", "model.order", [2])  # doctest: +SKIP
    >>> rows = list(sweep)  # doctest: +SKIP
    >>> reviewgen.plot_sweep(rows, "model.order", "ngram-char", "orders.png")  # doctest: +SKIP

    Args:
        preset: ``<model>-<tokenizer>``.
        source: The reviews.
        setting: A setting of the model, the tokenizer or the training, as in "model.order".
        values: The values of the setting, in this order; strings are converted to its type.
        settings: Other settings that differ from the preset's, by group, as in {"model":
            {"smoothing": "witten-bell"}}.
        series: Other settings with several values, as in {"model.smoothing": ["kneser-ney",
            "none"]}. The sweep is repeated for each value (for several settings, each combination),
            and a plot has a line for each.
        options: The other keywords of ``train``, except out, resume, model, tokenizer and training:
            budget (for each value), steps, epochs, seed, log, initial_weights, min_texts, and those
            for reading and filtering a corpus.

    Raises:
        ConfigError: The setting, a value or an argument is unknown; raised before any training.
    """
    variants = Variants(
        ("sweep", "setting", "values", "settings", "series"), preset, source, settings, options
    )
    grouping = {} if series is None else check_mapping("series", series, "{'model.order': [2, 4]}")
    varied = {**grouping, setting: values}
    for name, listed in varied.items():
        check_values(name, listed)
    if setting in grouping:
        raise ConfigError(
            f"{setting} is swept, so it cannot have a series for each of its values too."
        )
    # make all plans first, so that a bad value is refused before any work
    plans = [(variants.plan(changed), changed) for changed in combine(varied)]
    return (_train_row(variants.start(plan), changed, setting) for plan, changed in plans)


def _train_row(run: Run, changed: Mapping[str, Any], setting: str) -> SweepRow:
    """Train the model to the end, and return its row of the table.

    Args:
        run: The run.
        changed: The settings that are varied, with the values of this run.
        setting: The setting that is swept. The other settings distinguish the series.
    """
    seconds = 0.0
    for report in run:
        seconds = report.seconds
    model = run.finish()
    documents = sample_documents(run.corpus.stores["train"], _TRAIN_TOKENS)
    train_bits, train_impossible = _bits(
        evaluate(run.model, documents, run.corpus.tokenizer.vocab_size)
    )
    held_out_bits, held_out_impossible = _bits(run.record.evaluation)
    novelty = model.training["novelty"] or {}
    return SweepRow(
        value=changed[setting],
        train_bits=train_bits,
        held_out_bits=held_out_bits,
        megabytes=sum(tensor.nbytes for tensor in run.model.state_dict().values()) / 1e6,
        seconds=seconds,
        token_copy_rate=novelty.get("token_copy_rate"),
        series={name: value for name, value in changed.items() if name != setting},
        train_impossible=train_impossible,
        held_out_impossible=held_out_impossible,
        ngrams=_count_ngrams(count_parameters(run.model)),
        novelty=novelty,
    )


def _count_ngrams(kinds: Mapping[str, int]) -> list[int]:
    """Return the numbers of n-grams of 1, 2, ... n tokens, given the numbers of parameters by
    kind ("1-grams", "2-grams" and others).
    """
    names = [f"{length}-grams" for length in range(1, len(kinds) + 1)]
    return [kinds[name] for name in names if name in kinds]


def _bits(evaluation: Evaluation | None) -> tuple[float | None, float | None]:
    """Return bits per character, and the share of tokens with probability zero."""
    if evaluation is None:
        return None, None
    return evaluation.bits_per_character, evaluation.zero_probability_tokens / evaluation.tokens


def plot_sweep(
    rows: Sequence[SweepRow],
    setting: str,
    preset: str,
    file: str | Path,
    *,
    overwrite: bool = False,
) -> None:
    """Plot the bits per character and copy rates of a sweep against the values of its setting. The
    file's suffix selects PNG, SVG or PDF.

    Args:
        rows: The rows that ``sweep`` has yielded.
        setting: The name of the setting, for the axis.
        preset: The name of the preset, for the title.
        file: The file to write.
        overwrite: Whether to replace the file if it exists.

    Raises:
        ConfigError: The suffix is not .png, .svg or .pdf; or the file is PNG or PDF, and matplotlib
            is not installed.
        OutputExists: The file exists.
        StorageError: The file cannot be written.
    """
    check_text("setting", setting)
    check_text("preset", preset)
    rows = check_list("rows", rows, "list(reviewgen.sweep(...))")
    for row in rows:
        if not isinstance(row, SweepRow):
            raise ConfigError(
                f"rows must be what reviewgen.sweep has yielded; got {quoted(row)} among them."
            )
    file = refuse_chart(file, overwrite)
    # the rows of each series
    lines = [list(line) for _, line in itertools.groupby(rows, key=lambda row: row.series)]
    bits = list[Series]()
    copies = list[Series]()
    impossible = list[Series]()
    for colour, line in enumerate(lines):
        prefix = "".join(
            f"{name.partition('.')[2]} {value}, " for name, value in line[0].series.items()
        )
        train_colour = 7
        copy_colour = 5
        if len(lines) > 1:  # each series has one colour
            train_colour = colour
            copy_colour = colour
        bits.append(Series(f"{prefix}held-out text", _points(line, "held_out_bits"), colour))
        train = _points(line, "train_bits")
        bits.append(Series(f"{prefix}training text", train, train_colour, is_dashed=True))
        copies.append(Series(f"{prefix}copy rate", _points(line, "copy_rate"), copy_colour))
        if any(row.held_out_impossible for row in line):
            shares = _points(line, "held_out_impossible")
            impossible.append(Series(f"{prefix}probability zero", shares, colour))
    panels = [Panel("bits per character", bits)]
    if any(series.points for series in copies):
        panels.append(Panel("copy rate of generated text", copies, 90.0, (0.0, 1.0)))
    if impossible:
        panels.append(Panel("impossible tokens of held-out text", impossible, 90.0))
    labels = [str(row.value) for row in max(lines, key=len, default=[])]
    save_chart(Chart(preset, setting, panels, labels=labels), file)


def _points(rows: Sequence[SweepRow], name: str) -> list[tuple[float, float]]:
    """Return the points of a line, (index of the row, value of the field ``name``), without the
    rows whose value is None.
    """
    points = [(float(index), getattr(row, name)) for index, row in enumerate(rows)]
    return [point for point in points if point[1] is not None]
