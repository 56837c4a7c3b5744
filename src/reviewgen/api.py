"""The main public functions: ``load``, ``train``, ``prepare``, and those that write tables of
texts. The other public functions are defined in the packages that implement them.

Each function imports its implementation when it is called, so that ``load`` does not import what
only training needs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from reviewgen.config.descriptions import describes_options
from reviewgen.config.options import (
    CorpusOptions,
    DatasetOptions,
    EvaluateKwargs,
    PrepareKwargs,
    ShardOptions,
    TrainingOptions,
    TrainKwargs,
    refuse_unknown_options,
)
from reviewgen.config.settings import check_flags
from reviewgen.errors import AlreadyTrained
from reviewgen.interrupts import block_signals

if TYPE_CHECKING:
    from reviewgen.data.tokens import StoreFolder
    from reviewgen.generation.request import GenerateKwargs
    from reviewgen.model.review_model import LoadKwargs, ReviewModel


def load(source: str | Path, **options: "Unpack[LoadKwargs]") -> "ReviewModel":
    """Load a trained model from a preset's installed weights, a local folder, an ARPA file, or the
    Hub.

    >>> model = reviewgen.load("lstm-word")  # doctest: +SKIP
    >>> model = reviewgen.load("ana/music-reviews", revision="v2")  # doctest: +SKIP

    Args:
        source: A preset, for its installed weights (``preset@revision`` loads that revision from
            the Hub), a repository ``owner/name[@revision]``, a folder, or a file of n-grams whose
            name ends in .arpa.
        weight_bits: The number of bits per weight during generation; 32 by default. With 8 bits,
            a model that is larger than the processor's cache generates two to three times as fast;
            each weight is rounded to a multiple of 1/127 of the largest weight of its output. 16
            bits are nearly exact. Evaluating and saving are not affected.
        revision: A branch, tag or commit on the Hub; it may also be given in ``source``, after an
            @.
        token: The Hub's access token, for private repositories; by default that of ``hf auth
            login`` or HF_TOKEN.
        cache_dir: Where downloaded files are kept; by default in HF_HOME.
        local_files_only: Whether to use only files that were downloaded before.
        force_download: Whether to download files again.
        accept_changes: Whether to load a model whose files have changed since it was saved;
            otherwise, a change is an error. ``reviewgen doctor FOLDER --accept`` accepts a change
            permanently.

    Raises:
        ConfigError: An argument is unknown, ``weight_bits`` is not 32, 16 or 8, or the token is
            empty.
        SourceError: The source is neither a preset, a repository nor a folder, or could be two of
            them.
        BundleError: The folder is missing, damaged or not a saved model, a file has changed since
            it was saved, or the preset has no weights.
        UnknownPlugin: The model's plugin is not installed; the message says what to install.
        PluginConflict, BrokenPlugin: Two packages claim the preset's weights, or the weights are
            missing.
        HubError: The Hub cannot be reached, has no such repository, or a download is damaged.
    """
    from reviewgen.model.review_model import ReviewModel

    return ReviewModel.from_pretrained(source, **options)


@describes_options(CorpusOptions, TrainingOptions)
def train(
    start: "str | ReviewModel",
    source: Any,
    *,
    progress: bool = True,
    **options: "Unpack[TrainKwargs]",
) -> "ReviewModel":
    """Train a model on a corpus of reviews and return it.

    An interrupt (Ctrl-C) ends the training early: the best model so far is returned, and saved if
    ``out`` is given. To watch or control a training step by step, use ``TrainingRun``.

    >>> model = reviewgen.train("lstm-word", "reviews.csv", budget="2m", out="m")  # doctest: +SKIP
    >>> tuned = reviewgen.train(model, "more-reviews.csv", budget="30s", out="t")  # doctest: +SKIP

    Args:
        start: A preset, ``<model>-<tokenizer>``, as in "lstm-word", or "blend-word", which trains
            an LSTM and an n-gram; or a trained ReviewModel to train further: a copy of its weights
            is trained, and its tokenizer, conditions, size and generation defaults are kept.
        source: The reviews: a file, a list of texts or of records, a repository on the Hub, and
            others; see ``reviewgen.data.open.open_source``.
        progress: Whether to show the progress on a terminal or in a notebook; elsewhere nothing is
            printed.
        out: A folder to save the model in; without ``overwrite``, it must not exist.
        model, tokenizer, training: Settings that differ from the preset's, as in
            ``model={"hidden_size": 256}``. When a trained model is trained further, only model
            settings that do not change its predictions can differ, such as dropout; the learning
            rate peaks at half that of its preset.
        See ``CorpusOptions`` and ``TrainingOptions`` for the other options.

    Raises:
        ConfigError: An argument or a setting is unknown or unusable, or the trained model cannot be
            trained further.
        UnknownPlugin, PluginConflict, BrokenPlugin: The preset is not installed, or cannot be used.
        OutputExists: ``out`` exists and ``overwrite`` is false, or it holds something other than a
            saved model.
        DataError: The source cannot be read, or contains a single review and no validation is
            given.
        CheckpointError: ``<out>.partial`` holds an interrupted run and ``resume`` is not set; or
            ``resume`` is set, and there is no interrupted run of these arguments.
        TrainingError: The loss is NaN or infinite before there are weights to keep, or the device
            is not available.
        StorageError: There is no room on the disk; the message says where the trained model was
            saved instead.
    """
    from reviewgen.compiled.jit import compiling_notice
    from reviewgen.runs.display import open_view
    from reviewgen.runs.run import TrainingRun

    refuse_unknown_options(options, TrainKwargs, "train")
    check_flags(progress=progress)
    run = TrainingRun(start, source, **options)
    view = open_view(run, progress)
    with compiling_notice.silenced():
        try:
            with view.phase("Reading ..."):
                run.read()
        except AlreadyTrained:  # the launcher has restarted a job that was finished
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
            with block_signals():
                run.interrupt()
                model = run.finish()
        view.finish()
        return model


@describes_options(CorpusOptions)
def prepare(
    source: Any, *, preset: str, out: str | Path, **options: "Unpack[PrepareKwargs]"
) -> "StoreFolder":
    """Prepare a token store: read, clean, split and tokenize a corpus once, into a folder that
    ``train`` accepts.

    Give the folder as the source of ``train``, ``TrainingRun``, ``sweep`` or ``tune``, for any
    preset with that tokenizer: the result is the same as training on the reviews. Under
    ``accelerate launch``, all processes call this and share the work. If a call is interrupted, the
    same call resumes from the finished parts, in the folder ``<out>.partial``.

    >>> store = reviewgen.prepare("reviews.csv", preset="lstm-word", out="s")  # doctest: +SKIP
    >>> model = reviewgen.train("lstm-word", store.folder, budget="2m")  # doctest: +SKIP

    Args:
        source: The reviews, as for ``train``; also a URL that fsspec reads, such as
            ``s3://bucket/reviews-*.parquet``.
        preset: The preset whose tokenizer is trained.
        out: The folder to create, or a URL.
        tokenizer: Tokenizer settings that differ from the preset's.
        See ``CorpusOptions`` for the other options.

    Returns:
        The store: ``folder`` is its path, and ``facts`` has the counts.

    Raises:
        ConfigError: An argument is unknown or unusable.
        UnknownPlugin, PluginConflict, BrokenPlugin: The preset cannot be used.
        DataError, HubError: A source cannot be read, or no texts are left.
        OutputExists, StorageError: ``out`` exists or cannot be written.
        CheckpointError: ``<out>.partial`` is in use, or holds an unfinished store of other texts.
        TrainingError: The processes of a launcher were started with different arguments;
            ProcessLost if one has ended.
    """
    from reviewgen.runs.corpus import prepare_tokens

    return prepare_tokens(source, preset, out, **options)


@describes_options(DatasetOptions)
def generate_dataset(
    model: "str | Path | ReviewModel",
    n: int,
    *,
    out: str | Path | None = None,
    prompt: str | Sequence[str] = "",
    columns: bool = False,
    unique: bool = False,
    schema: Any = None,
    format: str | None = None,
    shard_texts: int = 10_000,
    keep_formulas: bool = False,
    device: str = "auto",
    **options: "Unpack[GenerateKwargs]",
) -> Any:
    """Generate many texts into a folder of shards, which ``datasets`` and ``train`` read; or return
    them as a Dataset.

    Text i depends on the seed and on i only. Under ``accelerate launch``, all processes call this
    function and share the work: each generates one shard at a time. The files are the same for any
    number of processes. If a call is interrupted, the same call resumes from the finished shards in
    ``<out>.partial``. The file ``manifest.json`` of the folder has the settings, and the SHA-256 of
    each shard.

    >>> dataset = reviewgen.generate_dataset("ngram-word", 5)  # doctest: +SKIP
    >>> written = reviewgen.generate_dataset("ngram-word", 1_000_000, out="texts")  # doctest: +SKIP
    >>> stars = {"stars": {"5": 0.6, "1": 0.4}}
    >>> reviewgen.generate_dataset("./my-model", 1000, out="rated", schema=stars)  # doctest: +SKIP

    Args:
        model: A saved model: what ``load`` takes, or a model that it has returned.
        n: The number of texts of each prompt.
        out: The folder to create, or a file whose name ends in .jsonl, .parquet or .csv. Without
            ``out``, the table is returned, and nothing is kept after an interruption.
        prompt: The beginning of each text, or a list of beginnings.
        device: The device that generates: "auto", "cpu", "cuda" or "mps". "auto" is the device
            that accelerate selects if the model is a network, else the CPU. On another kind of
            device, the same seed gives other texts; see ``ReviewModel.to``.
        See ``DatasetOptions`` for the options of the table.
        options: The keywords of ``ReviewModel.generate`` except num_return_sequences, max_time,
            num_beams and functions. Without a seed, a resumed run reuses its seed, and a new run
            chooses a random one. With novelty, further columns say what each text copies.

    Returns:
        A ``WrittenTexts``: the folder, the number of texts, and the summary: seed, asked, drawn,
            repeats. With ``unique`` there may be fewer texts. Without ``out``, the table: a
            ``datasets.Dataset``, or a DataFrame of pandas if ``schema`` is one.

    Raises:
        ConfigError: An argument is unusable, or the folder or ``<out>.partial`` was written with
            other settings.
        DataError: The schema cannot be read, or ``novelty`` is given and the model has no index.
        OutputExists, StorageError: ``out`` exists or cannot be written.
        CheckpointError: Another process writes to ``<out>.partial``.
        TrainingError: The processes of a launcher were started with different arguments;
            ProcessLost if one has ended.
        ReviewgenError: The model cannot be loaded; see ``load``.
    """
    from reviewgen.tables.generating import generate_dataset as generate_texts

    shards = DatasetOptions(
        columns=columns,
        unique=unique,
        schema=schema,
        format=format,
        shard_texts=shard_texts,
        keep_formulas=keep_formulas,
    )
    return generate_texts(
        model, n, shards, out=out, prompt=prompt, receipts=columns, device=device, options=options
    )


@describes_options(ShardOptions)
def score_dataset(
    model: "str | Path | ReviewModel",
    source: Any,
    *,
    out: str | Path | None = None,
    format: str | None = None,
    shard_texts: int = 10_000,
    keep_formulas: bool = False,
    device: str = "auto",
    **options: "Unpack[EvaluateKwargs]",
) -> Any:
    """Score each text of a source, and write or return a table of the texts with their bits.

    The texts are read and cleaned as by ``ReviewModel.evaluate``, and keep their order. The columns
    are text, the conditions of the model, characters, tokens, bits and bits_per_character. Tokens
    and bits include the end token of the text; an infinite number of bits is null. Several
    processes share the work, and an interrupted call is resumed, as in ``generate_dataset``.

    >>> reviewgen.score_dataset("lstm-word", "reviews.csv", out="scored.parquet")  # doctest: +SKIP

    Args:
        model: A saved model: what ``load`` takes, or a model that it has returned.
        source: The texts, as for ``ReviewModel.evaluate``.
        out: The folder to create, or a file whose name ends in .jsonl, .parquet or .csv. Without
            ``out``, the table is returned.
        device: The device that scores, as for ``generate_dataset``.
        See ``ShardOptions`` for format, shard_texts and keep_formulas.
        options: As in ``ReviewModel.evaluate``: split, text_column, documents and cleaning.

    Returns:
        A ``WrittenTexts``: the path, the number of texts, and the summary: bits_per_character of
            all texts, characters, tokens and zero_probability_texts. Without ``out``, the table: a
            ``datasets.Dataset``, or a DataFrame of pandas if ``source`` is one.

    Raises:
        ConfigError, DataError, OutputExists, StorageError, CheckpointError, TrainingError: As in
            ``generate_dataset``.
        ReviewgenError: The model cannot be loaded; see ``load``.
    """
    from reviewgen.tables.scoring import score_texts

    shards = ShardOptions(format=format, shard_texts=shard_texts, keep_formulas=keep_formulas)
    return score_texts("score", model, source, shards, out=out, device=device, options=options)


def novelty_dataset(
    model: "str | Path | ReviewModel",
    source: Any,
    *,
    out: str | Path | None = None,
    format: str | None = None,
    shard_texts: int = 10_000,
    keep_formulas: bool = False,
    **options: "Unpack[EvaluateKwargs]",
) -> Any:
    """Look up what each text of a source copies from the training text, and write or return a
    table.

    The columns are text, longest_copy, longest_copy_characters, longest_copy_tokens, and
    copied_share_8, copied_share_12 and copied_share_20: the share of the text's windows of 8, 12
    and 20 tokens that occur in the training text, or null for a text that is shorter than the
    window. Arguments and errors are those of ``score_dataset``.

    >>> reviewgen.novelty_dataset("lstm-word", "generated.jsonl", out="copies")  # doctest: +SKIP

    Returns:
        A ``WrittenTexts``: the path, the number of texts, and the summary: longest_copy_characters,
            texts_with_copies_of_50_characters and mean_copied_share_20. Without ``out``, the table,
            as for ``score_dataset``.

    Raises:
        DataError: The model has no index of its training text.
    """
    from reviewgen.tables.scoring import score_texts

    shards = ShardOptions(format=format, shard_texts=shard_texts, keep_formulas=keep_formulas)
    return score_texts("novelty", model, source, shards, out=out, options=options)
