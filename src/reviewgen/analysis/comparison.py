"""``reviewgen.compare``. It imports the rest of the comparison when it is called, so that its name
and signature are there without torch.
"""

from typing import TYPE_CHECKING, Any, Unpack

from reviewgen.config.descriptions import describes_options
from reviewgen.config.options import CompareKwargs, TrainingTextOptions, TrialOptions

if TYPE_CHECKING:
    from reviewgen.analysis.comparison_report import Comparison


@describes_options(TrainingTextOptions, TrialOptions)
def compare(
    models: Any, data: Any, *, progress: bool = True, **options: Unpack[CompareKwargs]
) -> "Comparison":
    """Train or load several models, evaluate them on the same held-out texts, and return the
    comparison.

    A preset is trained on the data, without its held-out texts; a trained model is taken as it is.
    If a model fails, its row gives the reason, and the others continue. Ctrl-C ends the comparison,
    and what is finished is returned.

    >>> comparison = reviewgen.compare(["ngram-char", "gru-char"], "reviews.csv")  # doctest: +SKIP
    >>> comparison.save_html("ladder.html")  # doctest: +SKIP

    Args:
        models: Presets, saved folders, repositories on the Hub, ReviewModels: a list, or a
            dictionary from row names to models.
        data: The reviews; see ``reviewgen.data.sources.open_source``. It is read several times, so
            an iterator is refused.
        progress: Whether to show the progress on a terminal or in a notebook.
        held_out: Another source of held-out texts; by default they are the test split of the data.
        held_out_split: The split of a dataset with the held-out texts, of ``held_out`` or of the
            data.
        prompt: The beginning of the samples. Default: "the ".
        settings: Settings that differ from each preset's, by group, as in {"training":
            {"evaluations": 20}}.
        out: A folder for the trained models and the rows; it must not exist.
        resume: Take finished rows from ``out``, of models whose weights have not changed, and
            continue with the others.
        See ``TrainingTextOptions`` and ``TrialOptions``.

    Raises:
        ConfigError: There is no model, two rows have the same name, or an argument or a setting is
            unusable.
        SourceError, UnknownPlugin: A name is neither a preset nor the source of a model.
        DataError: The data cannot be read, or there is no held-out text.
        OutputExists: ``out`` exists, and is not resumed.
        CheckpointError: ``resume`` is set, and ``out`` is a comparison of other texts or settings.
        StorageError: ``out`` cannot be written.
    """
    from reviewgen.analysis.comparison_run import ComparisonRun
    from reviewgen.runs.display import open_console

    run = ComparisonRun(models, data, options)
    console = open_console(progress)
    comparison = run.start(console)
    try:
        for measured in run.rows(comparison.held_out, console):
            comparison.add(measured)
    except KeyboardInterrupt:
        comparison.is_interrupted = True
    return comparison
