"""``compare``: trains or loads each model and measures it on the same held-out texts; one that fails is a row that says why."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from reviewgen.config import ReadingOptions, refuse_unknown_options
from reviewgen.config.keywords import TrialOptions

if TYPE_CHECKING:
    from rich.console import Console

    from reviewgen.comparison.comparison import Comparison
    from reviewgen.comparison.entries import Entry
    from reviewgen.comparison.folder import Folder
    from reviewgen.comparison.held_out import HeldOut
    from reviewgen.comparison.measuring import Measured
    from reviewgen.comparison.rows import OrderPoint
    from reviewgen.comparison.training import Trainer

_CLEANING = ("lowercase", "strip_markdown", "fix_encoding", "clean")
_READING = ("text_column", "sql", "subset", "split", "documents", *_CLEANING, "conditions", "max_text_characters")
_LENGTH = ("budget", "steps", "epochs")


class CompareOptions(ReadingOptions, TrialOptions, total=False):
    """The keywords of ``reviewgen.compare``, which documents them."""

    held_out: Any
    held_out_split: str | None
    prompt: str
    settings: Mapping[str, Mapping[str, Any]] | None
    conditions: Any
    out: str | Path | None
    resume: bool


def compare(models: Any, data: Any, *, progress: bool = True, **options: Unpack[CompareOptions]) -> "Comparison":
    """Train or load several models, evaluate them on the same held-out texts, and return the comparison.

    A preset is trained on the data, without its held-out texts; a trained model is taken as it is. A model that fails is a row
    that says why, and the others go on. Ctrl-C ends the comparison, and what is finished is returned.

    >>> reviewgen.compare(["ngram-char", "gru-char"], "reviews.csv", budget="1m").save_html("ladder.html")   # doctest: +SKIP

    Args:
        models: Presets, saved folders, repositories on the Hub, ReviewModels: a list, or a dictionary by the names of the rows.
        data: The reviews; see ``reviewgen.data.sources.open_texts``. It is read several times, so an iterator is refused.
        progress: Whether to show the progress on a terminal or in a notebook.
        held_out: Another source of held-out texts; by default they are the test split of the data.
        held_out_split: The split of a dataset with the held-out texts, of ``held_out`` or of the data.
        prompt: The beginning of the samples. Default: "the ".
        budget, steps, epochs: How long each preset is trained. Default: two minutes, which start when the texts are tokenized.
        seed: Seed of the initial weights, the order of the texts, dropout and samples.
        settings: Settings that differ from each preset's, by group, as in {"training": {"evaluations": 20}}.
        conditions: Columns beside the text, as in "stars", that the model is conditioned on.
        out: A folder for the trained models and the rows; it must not exist.
        resume: Take finished rows from ``out``, and continue with the others.
        text_column, documents, max_text_characters, lowercase, strip_markdown, fix_encoding, clean: How the data is read, as in
            ``train``.

    Raises:
        ConfigError: There is no model, two rows have one name, or an argument or a setting is unusable.
        SourceError, UnknownPlugin: A name is neither a preset nor the source of a model.
        DataError: The data cannot be read, or there is no held-out text.
        OutputExists: ``out`` exists, and is not resumed.
        CheckpointError: To resume, ``out`` is a comparison of other texts or settings.
        StorageError: ``out`` cannot be written.
    """
    from reviewgen.runs.progress import open_console

    request = make_request(models, data, options)
    console = open_console(progress)
    comparison = request.start(console)
    try:
        for measured in compare_each(request, comparison, console):
            comparison.add(measured)
    except KeyboardInterrupt:
        comparison.is_interrupted = True
    return comparison


@dataclass(frozen=True)
class Request:
    """The checked arguments of a comparison."""

    entries: "list[Entry]"
    data: Any
    held_out: tuple[Any, str | None]  # a separate source, and a split of a dataset
    prompt: str
    seed: int
    settings: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]  # of each training, but the settings
    folder: "Folder | None"

    def start(self, console: "Console") -> "Comparison":
        """Read the held-out texts, open the folder, and return a comparison without rows."""
        from reviewgen.comparison.comparison import Comparison
        from reviewgen.comparison.held_out import read_held_out

        reading = {name: value for name, value in self.options.items() if name in _READING}
        with console.status("Reading the held-out texts ..."):
            held_out = read_held_out(self.data, *self.held_out, reading, self.options.get("budget"))
        if self.folder is not None:
            length = {name: self.options.get(name) for name in _LENGTH}
            own = {
                "corpus": held_out.corpus,
                "held_out": held_out.digest,
                "prompt": self.prompt,
                "seed": self.seed,
                "settings": self.settings,
            }
            self.folder.open(own | {"settings": self.settings} | length)
        return Comparison(held_out, self.prompt, self.seed)


def make_request(models: Any, data: Any, options: CompareOptions) -> Request:
    """Return the checked arguments; nothing is read. Raises as ``compare``, except for what reading raises."""
    from reviewgen.comparison.entries import make_entries
    from reviewgen.comparison.folder import Folder
    from reviewgen.config import check_seed, parse_duration
    from reviewgen.errors import BrokenPlugin, ConfigError
    from reviewgen.runs.plan import DEFAULT_BUDGET, make_plan
    from reviewgen.search.variants import check_groups
    from reviewgen.storage import to_path

    refuse_unknown_options(options, CompareOptions, "compare", others=("models", "data", "progress"))
    prompt = options.get("prompt", "the ")
    if not isinstance(prompt, str):
        raise ConfigError(f"prompt must be a string; got {prompt!r:.60}.")
    if isinstance(data, Iterator):
        raise ConfigError("data is an iterator, which can be read only once; give a list, or a file.")
    entries, settings = make_entries(models), check_groups(options.get("settings"))
    known = dict[str, Any](options)
    training = {name: known[name] for name in (*_READING, *_LENGTH, "seed") if known.get(name) is not None}
    if not any(name in training for name in _LENGTH):
        training["budget"] = DEFAULT_BUDGET
    if "budget" in training:
        training["budget"] = parse_duration(training["budget"])
    for entry in entries:
        if entry.is_preset:
            with suppress(BrokenPlugin):  # its row says why
                make_plan(entry.source, data, {**training, **settings})  # type: ignore[typeddict-item]  # checked by make_plan
    out, resume = options.get("out"), options.get("resume", False)
    if resume and out is None:
        raise ConfigError("Only a comparison with an output folder can be resumed: give out, or leave resume out.")
    folder = None if out is None else Folder(to_path("out", out), resume)
    seed = check_seed(options.get("seed", 0))
    held_out = (options.get("held_out"), options.get("held_out_split"))
    return Request(entries, data, held_out, prompt, seed, settings, training, folder)


def compare_each(request: Request, comparison: "Comparison", console: "Console") -> "Iterator[Measured]":
    """Yield each row when it is finished."""
    from reviewgen.comparison.measuring import Measured
    from reviewgen.comparison.rows import Row
    from reviewgen.comparison.training import Trainer

    trainer = Trainer(request.data, request.settings, request.options, console)
    for number, entry in enumerate(request.entries, 1):
        measured = None if request.folder is None else request.folder.read(entry)
        if measured is not None:
            yield measured
            continue
        try:
            with _status(console, f"{entry.name} ({number} of {len(request.entries)})"):
                measured = _measure(entry, request, comparison.held_out, trainer)
            if request.folder is not None:
                request.folder.write(entry, measured)
        except (Exception, SystemExit) as error:  # a plugin may raise anything, and the other models go on
            failed = Row(name=entry.name, source=entry.label, is_trained_here=entry.is_preset, failed=_reason(error))
            measured = Measured(failed, None)
        yield measured


def _measure(entry: "Entry", request: Request, held_out: "HeldOut", trainer: "Trainer") -> "Measured":
    """Train or load one model, and measure it."""
    from reviewgen.comparison.measuring import measure_model
    from reviewgen.model import ReviewModel

    orders: tuple[OrderPoint, ...] = ()
    training = None
    if entry.is_preset:
        model = trainer.train(entry.source, None if request.folder is None else request.folder.model(entry))
        orders, training = trainer.measure_orders(model, entry.source), partial(trainer.training_texts, entry.source)
    else:
        model = entry.source if isinstance(entry.source, ReviewModel) else ReviewModel.from_pretrained(entry.source)
    return measure_model(model, entry, held_out, request.prompt, request.seed, orders, training)


@contextmanager
def _status(console: "Console", text: str) -> Iterator[None]:
    """Print what is being done above the bar of the training."""
    if not console.quiet:
        console.print(text, markup=False, style="dim")
    yield


def _reason(error: BaseException) -> str:
    """Return why a model has failed, in one sentence."""
    from reviewgen.errors import ReviewgenError

    text = " ".join(str(error).split())
    own = isinstance(error, ReviewgenError | OSError)
    reason = text if own and text else f"{type(error).__name__}: {text}" if text else type(error).__name__
    return reason if len(reason) <= 400 else reason[:399] + "…"
