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

    A preset is trained on the data, without the held-out texts; a trained model is measured as it
    is. If a model fails, its row gives the reason, and the comparison continues with the other
    models. Ctrl-C ends the comparison; the finished rows are returned.

    >>> comparison = reviewgen.compare(["ngram-char", "gru-char"], "reviews.csv")  # doctest: +SKIP
    >>> comparison.save_html("ladder.html")  # doctest: +SKIP

    Args:
        models: Presets, saved folders, repositories on the Hub, ReviewModels: a list, or a
            dictionary from row names to models.
        data: The reviews; see ``reviewgen.data.open.open_source``. It is read several times, so
            an iterator is refused.
        progress: Whether to show the progress on a terminal or in a notebook.
        held_out: A separate source of held-out texts. By default, the held-out texts are the test
            split of the data.
        held_out_split: The name of the split with the held-out texts, in the dataset ``held_out``
            or in the data.
        prompt: The beginning of the samples. Default: "the ".
        seeds: The number of trainings of each preset, with the seeds ``seed``, ``seed`` + 1 and so
            on. With several, each row has the mean of their bits and the spread over seeds, and the
            intervals of differences cover texts and seeds.
        settings: Settings that differ from each preset's, by group, as in {"training":
            {"evaluations": 20}}.
        row_settings: Settings of single rows, by the name of the row, as in {"wide": {"model":
            {"hidden_size": 512}}}.
        out: A folder for the trained models and the rows; it must not exist.
        resume: Whether to continue the comparison in ``out``. A finished training is kept if the
            weights of its model have not changed. Models and seeds may be added.
        See ``TrainingTextOptions`` and ``TrialOptions``.

    Raises:
        ConfigError: There is no model, two rows have the same name, or an argument or a setting is
            unusable.
        SourceError, UnknownPlugin: A name is neither a preset nor the source of a model.
        DataError: The data cannot be read, or there is no held-out text.
        OutputExists: ``out`` exists, and ``resume`` is not set.
        CheckpointError: ``resume`` is set, but ``out`` is not a comparison, or has other texts or
            settings.
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
