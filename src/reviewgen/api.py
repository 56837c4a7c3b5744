"""The public functions of ``reviewgen``, with their documentation.

Each imports its implementation when it is called, since the rooms import their names on first use: ``load`` does not import what
only training needs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from reviewgen import runs, tables
from reviewgen.config import EvaluateOptions, check_flags, refuse_unknown_options
from reviewgen.config.options import CorpusOptions, PrepareOptions, TrainOptions
from reviewgen.errors import AlreadyTrained
from reviewgen.interrupts import uninterrupted

if TYPE_CHECKING:
    from datasets import Dataset

    from reviewgen.data import StoreFolder
    from reviewgen.generation import GenerateOptions
    from reviewgen.model import LoadOptions, ReviewModel
    from reviewgen.runs import AblationRow, SamplingTrial, SweepRow, TuneTrial
    from reviewgen.tables import WrittenTexts
    from reviewgen.web.curves import LearningCurves


def load(source: str | Path, **options: "Unpack[LoadOptions]") -> "ReviewModel":
    """Load a trained model from a preset's installed weights, a local folder, or the Hub.

    >>> model = reviewgen.load("lstm-word")                                                      # doctest: +SKIP
    >>> model = reviewgen.load("ana/music-reviews", revision="v2")                               # doctest: +SKIP

    Args:
        source: A preset, whose installed weights are loaded (``preset@revision`` are those of that revision on the Hub), a
            repository ``owner/name[@revision]``, or a folder.
        weight_bits: The bits of a weight during generation (32). 8 generate two to three times as fast where the model is larger
            than the processor's cache, and round each weight to a 127th of the largest of its output; 16 are nearly exact.
            Evaluating and saving are not affected.
        revision: A branch, tag or commit on the Hub, which may also follow an @.
        token: For private repositories; by default that of ``hf auth login`` or HF_TOKEN.
        cache_dir: Where downloaded files are kept; by default in HF_HOME.
        local_files_only: Whether to use only files that were downloaded before.
        force_download: Whether to download files again.
        accept_changes: Whether to load files that have changed since the model was saved, which is an error otherwise.
            ``reviewgen doctor FOLDER --accept`` takes a change for good.

    Raises:
        ConfigError: An argument is unknown, ``weight_bits`` is not 32, 16 or 8, or the token is empty.
        SourceError: The source is neither a preset, a repository nor a folder, or could be two of them.
        BundleError: The folder is missing, damaged or not a saved model, a file has changed since it was saved, or the preset has
            no weights.
        UnknownPlugin: The model's plugin is not installed; says what to install.
        PluginConflict, BrokenPlugin: Two packages claim the preset's weights, or they are missing.
        HubError: The Hub cannot be reached, has no such repository, or a download is damaged.
    """
    from reviewgen.model import ReviewModel

    return ReviewModel.from_pretrained(source, **options)


def train(start: "str | ReviewModel", source: Any, *, progress: bool = True, **options: "Unpack[TrainOptions]") -> "ReviewModel":
    """Train a model on a corpus of reviews and return it.

    An interrupt (Ctrl-C) ends the training early: the best model so far is returned, and saved if ``out`` is given. To watch or
    control a training step by step, use ``TrainingRun``.

    >>> model = reviewgen.train("lstm-word", "reviews.csv", budget="2m", out="my-model")         # doctest: +SKIP
    >>> tuned = reviewgen.train(model, "more-reviews.csv", budget="30s", out="my-tuned-model")   # doctest: +SKIP

    Args:
        start: A preset, ``<model>-<tokenizer>``, as in "lstm-word", or "blend-word", which trains an LSTM and an n-gram; or a
            trained ReviewModel to train further: a copy of its weights is trained, and its tokenizer, conditions, size and
            generation defaults are kept.
        source: The reviews: a file, a list of texts or of records, a repository on the Hub, and others; see
            ``reviewgen.data.sources.open_source``.
        progress: Whether to show the progress on a terminal or in a notebook; elsewhere nothing is printed.
        validation: A second source to validate on, instead of a part of the first.
        out: A folder to save the model in; it must not exist.
        budget: Training time (2m, 90s, 1h), from the end of the first step to the last evaluation; two minutes if none of the
            three is given.
        steps: Train for this number of steps, instead of a budget.
        epochs: Train for this number of passes over the corpus, instead of a budget.
        seed: Seed of the initial weights, the order of the texts, dropout and samples.
        model, tokenizer, training: Settings that differ from the preset's, as in ``model={"hidden_size": 256}``. When a trained
            model is trained further, only model settings that do not change its predictions can differ, such as dropout; the
            learning rate peaks at half of its preset's.
        initial_weights: A safetensors file of another source whose tensors a new model starts from, as an embedding table or the
            state dict of an nn.LSTM; only some models support it.
        min_texts: A generated word occurs in at least this many of the training texts (words="known"), so that a name from fewer
            of them is never written; of a single text, as a book, it occurs this often. Default: 2.
        text_column: The column that holds the text, "a.b" for the field b of the column a; guessed if not given.
        documents: How a txt file is cut into texts: "line", "paragraph" (blank lines between), "sentence" or "file"; a single
            file is then one long text, of which blocks are held out. Default: "line".
        lowercase: Lower-case the texts.
        strip_markdown: Keep only the words of markdown.
        fix_encoding: Mend texts that were decoded wrongly, as "cafÃ©"; needs ftfy.
        keep_line_breaks: Keep the line breaks of texts that are wrapped at a width; without it their lines are joined.
        clean: Clean the texts (HTML, Unicode, empty and repeated texts); without it they are taken exactly as they are.
        max_text_characters: A text of more characters is an error; a txt file that is one text has no limit. Default:
            10,000,000.
        sql: The query of a SQLite file, as in "select text, stars from reviews"; by default its only table is read.
        subset: The subset (configuration) of a dataset of the Hub.
        split: The split of a dataset that is read; by default train, or the first one.
        validation_split: The split of a dataset to validate on; of the first source if there is no second.
        near_duplicates: A similarity from 0.3 to 1; of texts that are at least this similar, only the first is kept. 0.8 finds
            texts that differ slightly. Needs rensa.
        decontaminate: Leave out held-out texts that share a run of this many characters with a training text.
        conditions: Columns beside the text, as in "stars", that the model is conditioned on.
        fields: Columns of free text, as in "artist" and "title", that the model is conditioned on; of each value at most 200
            characters are read.
        weights: The shares of several corpora in the characters that are trained on, as in 1,1: a corpus with too few is read
            more often. In Python, the source is then a list of sources.
        log: Also log the curves to a tracker of accelerate, which must be installed: tensorboard, wandb, trackio, mlflow, aim,
            clearml, comet_ml, dvclive or swanlab.
        resume: Resume an interrupted run of the same arguments from its last checkpoint in OUT.partial.

    Raises:
        ConfigError: An argument or a setting is unknown or unusable, or the trained model cannot be trained further.
        UnknownPlugin, PluginConflict, BrokenPlugin: The preset is not installed, or cannot be used.
        OutputExists: ``out`` exists.
        DataError: The source cannot be read, or contains a single review and no validation is given.
        CheckpointError: ``<out>.partial`` holds an interrupted run that is not resumed; or ``resume`` is set, and no run of these
            arguments is there.
        TrainingError: The loss is NaN or infinite before there are weights to keep, or the device is not available.
        StorageError: There is no room on the disk; says where the trained model was saved instead.
    """
    from reviewgen.compiled.notice import compiling_notice

    refuse_unknown_options(options, TrainOptions, "train")
    check_flags(progress=progress)
    run = runs.TrainingRun(start, source, **options)
    view = runs.open_view(run, progress)
    with compiling_notice.silenced():
        try:
            with view.phase("Reading ..."):
                run.read()
        except AlreadyTrained:  # and the launcher has restarted the job
            return load(Path(str(options["out"])))
        with view.phase("Training the tokenizer and encoding the texts ..."):
            run.tokenize()
        try:
            with view.training() as show:
                for report in run:
                    show(report)
            with view.phase("Saving the model, then measuring it ..."):
                model = run.finish()
        except KeyboardInterrupt:
            with uninterrupted():
                run.interrupt()
                model = run.finish()
        view.finish()
        return model


def blend(models: Any, weights: Any = None, *, data: Any = None, **options: "Unpack[EvaluateOptions]") -> "ReviewModel":
    """Blend trained models: at each token, their probabilities are averaged.

    A blend is a ReviewModel like any other: it evaluates, generates and saves itself. An n-gram and an LSTM together often
    predict better than either. Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse Data".
    Models of different tokenizers are averaged at each character: the blend has the tokenizer ``char``. Vieira et al. 2024,
    "From Language Models over Tokens to Language Models over Characters".

    >>> model = reviewgen.blend(["./my-ngram", "./my-lstm"], data="held-out.csv")                # doctest: +SKIP

    Args:
        models: Two or more ReviewModels, or what ``load`` takes; a blend may be among them.
        weights: A positive number for each model; they are divided by their sum. None: equal, or fitted if data is given.
        data: Texts that no model was trained on. The weights are fitted to them, and depend on how certain each model is of the
            next token; ``training["weights"]`` of the blend records the bits per character of each part, and of the blend with
            equal, fixed and fitted weights.
        split: "all"; a split that a dataset has; or of any other source a part of its hash split: "train", "validation" or
            "test". Default: "all".
        text_column: The column that holds the text, "a.b" for the field b of the column a; guessed if not given.
        documents: How a txt file is cut into texts: "line", "paragraph" (blank lines between), "sentence" or "file"; a single
            file is then one long text, of which blocks are held out. Default: "line".
        sql: The query of a SQLite file, as in "select text, stars from reviews"; by default its only table is read.
        subset: The subset (configuration) of a dataset of the Hub.
        lowercase, strip_markdown, fix_encoding, keep_line_breaks, clean: How to clean the data; what is not given is done as in
            the trainings.
        max_text_characters: A text of more characters is an error; a txt file that is one text has no limit. Default:
            10,000,000.

    Raises:
        ConfigError: There are fewer than two models or their conditions differ, the tokenizers differ and one does not say which
            bytes its tokens are, the weights are not a positive number for each model, both weights and data are given, or an
            argument is unknown.
        NotADistribution: The scores of a model do not sum to one.
        DataError: The data cannot be read, or none of its tokens can be predicted.
        ReviewgenError: A model cannot be loaded; see ``load``.
    """
    return runs.blend.blend(models, weights, data=data, **options)


def sweep(
    preset: str,
    source: Any,
    setting: str,
    values: Sequence[Any],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    series: Mapping[str, Sequence[Any]] | None = None,
    **options: "Unpack[TrainOptions]",
) -> "Iterator[SweepRow]":
    """Train a preset with each value of a setting; yield a row of a bias-variance table for each model.

    The corpus is read and tokenized once, or once for each tokenizer setting.

    >>> rows = list(reviewgen.sweep("ngram-char", "reviews.csv", "model.order", [2, 4, 6]))      # doctest: +SKIP
    >>> reviewgen.plot_sweep(rows, "model.order", "ngram-char", "orders.png")                    # doctest: +SKIP

    Args:
        preset: ``<model>-<tokenizer>``.
        source: The reviews.
        setting: A setting of the model, the tokenizer or the training, as in "model.order".
        values: The values of the setting, in this order; strings are converted to its type.
        settings: Other settings that differ from the preset's, by group, as in {"model": {"smoothing": "witten-bell"}}.
        series: Settings with several values, each of which is swept: {"model.smoothing": ["kneser-ney", "none"]}. A plot has a
            line for each.
        options: The other keywords of ``train``, except out, resume, model, tokenizer and training: budget (for each value),
            steps, epochs, seed, log, initial_weights, min_texts, and those for reading and filtering a corpus.

    Raises:
        ConfigError: The setting, a value or an argument is unknown; nothing was trained by then.
    """
    return runs.sweep.sweep(preset, source, setting, values, settings, series, options)


def ablate(
    preset: str,
    source: Any,
    *,
    seeds: int = 1,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    **options: "Unpack[TrainOptions]",
) -> "Iterator[AblationRow]":
    """Train a preset whole, without one technique at a time, and plain; yield a row for each when it is done.

    All are scored on the same held-out texts. With a time budget, all have the size that is chosen for the whole preset.

    >>> for row in reviewgen.ablate("lstm-char", "reviews.csv", budget="2m"):                        # doctest: +SKIP
    ...     print(row.name, row.bits, row.bought)

    Args:
        preset: ``<model>-<tokenizer>``.
        source: The reviews.
        seeds: The number of trainings of each row, from different seeds, of which means are taken.
        settings: Settings of all trainings, by group, as in {"model": {"hidden_size": 256}}. No technique is taken away whose
            settings are all given.
        options: The other keywords of ``train``, except out, resume, model, tokenizer and training: budget (for each training),
            steps, epochs, seed, log, initial_weights, min_texts, and those for reading and filtering a corpus.

    Raises:
        ConfigError: An argument is unusable, the preset is a blend, or it has no technique; nothing was trained by then.
        NotADistribution: The model's scores do not sum to one.
    """
    return runs.ablate.ablate(preset, source, seeds, settings, options)


def plot_sweep(rows: "Sequence[SweepRow]", setting: str, preset: str, file: str | Path, *, overwrite: bool = False) -> None:
    """Plot bits per character and token copy rate of a sweep against its values, as PNG, SVG or PDF by the file's suffix.

    Args:
        rows: What ``sweep`` has yielded.
        setting: The name of the setting, for the axis.
        preset: The name of the preset, for the title.
        file: The file to write.
        overwrite: Whether to replace the file if it exists.

    Raises:
        ConfigError: The suffix is not .png, .svg or .pdf; or matplotlib, which PNG and PDF need, is not installed.
        OutputExists: The file exists.
        StorageError: The file cannot be written.
    """
    runs.sweep.plot_sweep(rows, setting, preset, file, overwrite)


def tune(
    start: "str | ReviewModel",
    source: Any,
    *,
    trials: int = 20,
    search: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    storage: str | Path | None = None,
    **options: "Unpack[TrainOptions]",
) -> "Iterator[TuneTrial]":
    """Search for settings with few bits per character; yield each trial when it is done.

    The first trial has the preset's own settings, if the search space contains them. The corpus is read and tokenized once, or
    once for each tokenizer setting.

    >>> trials = list(reviewgen.tune("lstm-char", "reviews.csv", trials=20, budget="30s"))           # doctest: +SKIP
    >>> reviewgen.best_trial(trials).settings                                                        # doctest: +SKIP

    Args:
        start: A preset, or a trained model to train further.
        source: The reviews.
        trials: The number of trials.
        search: What to search instead of learning rate, size and dropout (for an n-gram: its order), by the name of a setting: a
            range as "1e-3:2e-2" or a tuple of two numbers, or a list of values as "2,4,8" or a list. A range whose ends differ by
            a factor of ten or more is searched on a logarithmic scale.
        settings: Settings of every trial, by group, as in {"model": {"layers": 2}}.
        storage: A file that saves the trials; with the same file, an interrupted search is resumed.
        options: The other keywords of ``train``, except out, resume, model, tokenizer and training: budget (for each trial;
            default 30 seconds), steps, epochs, seed (also of the suggestions), log, initial_weights, min_texts, and those for
            reading and filtering a corpus.

    Raises:
        ConfigError: optuna is not installed, or a setting, a range or an argument is unusable; nothing was trained by then.
        TrainingError: The budget is too short to learn anything.
        NotADistribution: The model's scores do not sum to one.
    """
    return runs.tune.tune(start, source, trials, search, settings, storage, options)


def best_trial(trials: "Iterable[TuneTrial]") -> "TuneTrial":
    """Return the trial with the fewest bits per character.

    Args:
        trials: What ``tune`` has yielded.

    Raises:
        TrainingError: No trial gave a model.
    """
    return runs.tune.best_trial(trials)


def tune_sampling(
    model: "ReviewModel",
    source: Any,
    *,
    search: "Mapping[str, Sequence[Any]] | None" = None,
    texts: int = 100,
    judge: "ReviewModel | None" = None,
    profile: str = "likeness",
    seed: int = 0,
    **options: "Unpack[EvaluateOptions]",
) -> "Iterator[SamplingTrial]":
    """Try generation settings for a profile; yield one trial for each combination of values.

    Each trial compares generated texts with human texts of the same size: the share of unknown words, distinct-1 to 4, the
    length, the repetition within a text, and the bits per character under a judge, a model that was trained on other texts. For
    the profile "likeness" the lowest ``distance`` is the best: the mean difference in standard deviations between groups of human
    texts. For "reading" it is the lowest ``reading``: the bits per character of texts that do not repeat themselves.

    >>> model = reviewgen.load("./my-model")                                                     # doctest: +SKIP
    >>> trials = list(reviewgen.tune_sampling(model, "held-out.csv"))                            # doctest: +SKIP
    >>> best = min(trials, key=lambda trial: trial.distance)                                     # doctest: +SKIP
    >>> model.save_generation_config("./my-model", likeness=best.settings)                       # doctest: +SKIP

    Args:
        model: The model.
        source: Human texts that it was not trained on, at least 40.
        search: The values to try, by setting: temperature, top_k, top_p, min_p, repetition_penalty, no_repeat_ngram_size,
            words. By default temperatures from 0.7 to 1.1, each with top_p 1 and 0.95.
        texts: The number of texts that are generated for each trial, at least 20.
        judge: The model that scores all texts; by default an n-gram that is trained on half of the human texts, which are then
            not compared with.
        profile: The profile of the model whose other settings hold, "reading" or "likeness".
        seed: The seed of all texts, and of the order of the human ones.
        options: As in ``ReviewModel.evaluate``: split, text_column, documents and cleaning.

    Raises:
        ConfigError: A setting or an argument is unusable; nothing was generated by then.
        DataError: The source cannot be read, or has fewer than 40 texts.
    """
    return runs.tune_sampling.tune_sampling(model, source, search, texts, judge, profile, seed, options)


def plot_training(
    sources: Sequence[str | Path],
    file: str | Path,
    *,
    against: str = "seconds",
    metrics: Sequence[str] = (),
    overwrite: bool = False,
) -> "list[LearningCurves]":
    """Plot the learning curves of saved models as PNG, SVG or PDF, by the file's suffix, and return the curves.

    >>> reviewgen.plot_training(["./my-gru", "./my-lstm"], "curves.png")                         # doctest: +SKIP

    Args:
        sources: Saved folders, or repositories on the Hub; several are drawn in one figure.
        file: The file to write.
        against: The x axis: "seconds" since the training started (after reading and tokenizing), "steps" or "tokens".
        metrics: Metrics of generated texts to draw a panel of, as in ["distinct-2"]; see ``training.metrics``.
        overwrite: Whether to replace the file if it exists.

    Raises:
        ConfigError: There are no sources; the suffix, ``against`` or a metric is unknown; or matplotlib, which PNG and PDF
            need, is not installed.
        BundleError: A source is not a saved model, or has no learning curve.
        OutputExists: The file exists.
        StorageError: The file cannot be written.
    """
    return runs.plot_training(sources, file, against, metrics, overwrite)


def corpus(source: Any, **options: "Unpack[CorpusOptions]") -> "Dataset":
    """Read, clean and split a corpus as a training does, and return it as a ``datasets.Dataset``.

    Its columns are text, the conditions, and split, a class label: 0 is train, 1 validation, 2 test. It is memory-mapped from the
    cache, so it takes little memory: look at it, filter or change it, push it to the Hub, and give it back as the source of
    ``train``, ``prepare``, ``evaluate`` or any other function: its texts are then taken as they are, with their splits.

    >>> texts = reviewgen.corpus("reviews.csv", conditions=["stars"])                            # doctest: +SKIP
    >>> model = reviewgen.train("lstm-word", texts.filter(lambda row: len(row["text"]) > 20))    # doctest: +SKIP

    Args:
        source: The reviews, as for ``train``.
        options: The keywords of ``train`` for reading and filtering a corpus, from text_column to conditions, and validation.

    Raises:
        ConfigError: An argument is unknown or unusable.
        DataError, HubError: A source cannot be read, or no texts are left.
        StorageError: The cache cannot be written.
    """
    return runs.read_dataset(source, **options)


def prepare(source: Any, *, preset: str, out: str | Path, **options: "Unpack[PrepareOptions]") -> "StoreFolder":
    """Prepare a token store: read, clean, split and tokenize a corpus once, into a folder that trainings start from.

    Give the folder as the source of ``train``, ``TrainingRun``, ``sweep`` or ``tune``, for any preset with that tokenizer: the
    model is the one that the reviews themselves give. Under ``accelerate launch``, all processes call this and share the work. If
    it is interrupted, the same call goes on from the parts that are finished, in the folder ``<out>.partial``.

    >>> store = reviewgen.prepare("reviews.csv", preset="lstm-word", out="my-store")             # doctest: +SKIP
    >>> model = reviewgen.train("lstm-word", store.folder, budget="2m")                          # doctest: +SKIP

    Args:
        source: The reviews, as for ``train``; also a URL that fsspec reads, as ``s3://bucket/reviews-*.parquet``.
        preset: The preset whose tokenizer is trained.
        out: The folder to create, or a URL.
        options: Also the other keywords of ``train`` for reading a corpus, from text_column to conditions.
        validation: A second source to validate on, instead of a part of the first.
        conditions: Columns beside the text, as in "stars", that the model is conditioned on.
        fields: Columns of free text, as in "artist" and "title", that the model is conditioned on; of each value at most 200
            characters are read.
        weights: The shares of several corpora in the characters that are trained on, as in 1,1: a corpus with too few is read
            more often. In Python, the source is then a list of sources.
        tokenizer: Tokenizer settings that differ from the preset's.
        near_duplicates: A similarity from 0.3 to 1; of texts that are at least this similar, only the first is kept. 0.8 finds
            texts that differ slightly. Needs rensa.
        decontaminate: Leave out held-out texts that share a run of this many characters with a training text.

    Returns:
        The store: ``folder`` is where it is, and ``facts`` has the counts.

    Raises:
        ConfigError: An argument is unknown or unusable.
        UnknownPlugin, PluginConflict, BrokenPlugin: The preset cannot be used.
        DataError, HubError: A source cannot be read, or no texts are left.
        OutputExists, StorageError: ``out`` exists or cannot be written.
        CheckpointError: ``<out>.partial`` is in use, or the beginning of another store.
        TrainingError: The processes of a launcher were started with different arguments; ProcessLost if one has ended.
    """
    return runs.prepare_tokens(source, preset, out, **options)


def generate_dataset(
    model: "str | Path | ReviewModel",
    n: int,
    *,
    out: str | Path,
    prompt: str | Sequence[str] = "",
    columns: bool = False,
    unique: bool = False,
    schema: Any = None,
    format: str | None = None,
    shard_texts: int = 10_000,
    device: str = "auto",
    **options: "Unpack[GenerateOptions]",
) -> "WrittenTexts":
    """Generate many texts into a folder of shards, which ``datasets`` and ``train`` read.

    Text i depends on the seed and on i only. Under ``accelerate launch``, all processes call this and share the work, a
    shard each at a time; the files are the same for any number of processes. If it is interrupted, the same call resumes from the
    shards that are finished, in ``<out>.partial``. ``manifest.json`` in it has the settings, and the SHA-256 of each shard.

    >>> written = reviewgen.generate_dataset("ngram-word", 1_000_000, out="texts", seed=1)       # doctest: +SKIP
    >>> stars = {"stars": {"5": 0.6, "1": 0.4}}
    >>> reviewgen.generate_dataset("./my-model", 1000, out="rated", columns=True, schema=stars)  # doctest: +SKIP

    Args:
        model: A saved model: what ``load`` takes, or a model that it has returned.
        n: The number of texts of each prompt.
        out: The folder to create, or a file whose name ends in .jsonl or .parquet.
        prompt: The beginning of each text, or a list of beginnings.
        columns: Write more than the text: its number, the seed, the prompt, the finish reason, the number of new tokens, each
            condition of the model, and a receipt, the JSON from which ``reviewgen replay`` generates the text again.
        unique: Leave out texts that equal an earlier one; others are drawn until there are enough, or about ten times as many
            are drawn.
        schema: What the conditions of each text are drawn from: a mapping, or a .json file with one, of condition to {value:
            weight}, where conditions are independent; or a table (csv, jsonl, parquet, a list of mappings), of whose rows the
            values are drawn together. An empty value leaves a condition unspecified.
        format: The format of a folder: "jsonl" (default) or "parquet".
        shard_texts: The number of texts in a shard. Default: 10,000.
        device: The device that generates: "auto", "cpu", "cuda" or "mps". "auto" is the one that accelerate selects if the model
            is a network, else the CPU. On another kind of device a seed gives other texts; see ``ReviewModel.to``.
        options: The keywords of ``ReviewModel.generate`` except num_return_sequences, max_time, num_beams and functions. Without
            a seed, it is that of an interrupted try, or a random one. With novelty, what each text copies is written beside it.

    Returns:
        The folder, the number of texts, and the summary: seed, asked, drawn, repeats. With ``unique`` there may be fewer texts.

    Raises:
        ConfigError: An argument is unusable, or the folder or ``<out>.partial`` has the texts of another job.
        DataError: The schema cannot be read, or ``novelty`` is given and the model has no index.
        OutputExists, StorageError: ``out`` exists or cannot be written.
        CheckpointError: Another process writes to ``<out>.partial``.
        TrainingError: The processes of a launcher were started with different arguments; ProcessLost if one has ended.
        ReviewgenError: The model cannot be loaded; see ``load``.
    """
    return tables.generate_dataset(
        model,
        n,
        out=out,
        prompt=prompt,
        seed=options.pop("seed", None),
        columns=columns,
        unique=unique,
        schema=schema,
        format=format,
        shard_texts=shard_texts,
        device=device,
        options=options,
    )


def score_dataset(
    model: "str | Path | ReviewModel",
    source: Any,
    *,
    out: str | Path,
    format: str | None = None,
    shard_texts: int = 10_000,
    device: str = "auto",
    **options: "Unpack[EvaluateOptions]",
) -> "WrittenTexts":
    """Score each text of a source, and write a table with its bits beside it.

    The texts are those that ``ReviewModel.evaluate`` reads, cleaned and in their order. The columns are text, the conditions of
    the model, characters, tokens, bits and bits_per_character, end tokens included; bits that are infinite are null. Processes
    and interrupts are as for ``generate_dataset``.

    >>> reviewgen.score_dataset("lstm-word", "reviews.csv", out="scored.parquet")                # doctest: +SKIP

    Args:
        model: A saved model: what ``load`` takes, or a model that it has returned.
        source: The texts, as for ``ReviewModel.evaluate``.
        out: The folder to create, or a file whose name ends in .jsonl or .parquet.
        format: The format of a folder: "jsonl" (default) or "parquet".
        shard_texts: The number of texts in a shard. Default: 10,000.
        device: The device that scores, as for ``generate_dataset``.
        options: As in ``ReviewModel.evaluate``: split, text_column, documents and cleaning.

    Returns:
        The path, the number of texts, and the summary: bits_per_character of all texts, characters, tokens and
        zero_probability_texts.

    Raises:
        ConfigError, DataError, OutputExists, StorageError, CheckpointError, TrainingError: As ``generate_dataset``.
        ReviewgenError: The model cannot be loaded; see ``load``.
    """
    return tables.judge_texts(
        "score", model, source, out=out, format=format, shard_texts=shard_texts, device=device, options=options
    )


def novelty_dataset(
    model: "str | Path | ReviewModel",
    source: Any,
    *,
    out: str | Path,
    format: str | None = None,
    shard_texts: int = 10_000,
    **options: "Unpack[EvaluateOptions]",
) -> "WrittenTexts":
    """Look up what each text of a source copies from the training text, and write a table.

    The columns are text, longest_copy, longest_copy_characters, longest_copy_tokens, and copied_share_8, copied_share_12 and
    copied_share_20: the share of the text's windows of 8, 12 and 20 tokens that occur in the training text, or null for a text
    that is shorter than the window. Arguments and errors are those of ``score_dataset``.

    >>> reviewgen.novelty_dataset("lstm-word", "generated.jsonl", out="copies")                  # doctest: +SKIP

    Returns:
        The path, the number of texts, and the summary: longest_copy_characters, texts_with_copies_of_50_characters and
        mean_copied_share_20.

    Raises:
        DataError: The model has no index of its training text.
    """
    return tables.judge_texts("novelty", model, source, out=out, format=format, shard_texts=shard_texts, options=options)
