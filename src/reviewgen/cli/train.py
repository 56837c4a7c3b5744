"""``reviewgen train | prepare``: trains a new model, or a trained model further; prepares a corpus
as a token store.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from reviewgen import api
from reviewgen.cli.console import Result, exit_resumable, note, notes, show_status
from reviewgen.cli.options import parse_data, start, takes
from reviewgen.config.names import PLAIN
from reviewgen.config.options import CorpusOptions, TrainingOptions
from reviewgen.config.settings import parse_settings
from reviewgen.errors import AlreadyTrained, ConfigError, Detail, counted
from reviewgen.interrupts import INTERRUPTED, block_signals
from reviewgen.rates import MIN_CHARACTERS, describe_copies
from reviewgen.storage import check_output, to_path

if TYPE_CHECKING:
    from reviewgen.data.split import Corpus
    from reviewgen.model.review_model import ReviewModel
    from reviewgen.runs.record import RunRecord
    from reviewgen.runs.run import TrainingRun
    from reviewgen.training.report import Report

_FEW = 10  # the bits of fewer held-out texts than this say little about other texts
# max number of characters that an evaluation shows of a generated text with --verbose; without it,
# one line is shown
_SAMPLE_CHARACTERS = 160
_MARGIN = "  | "  # printed before a generated text


@takes(CorpusOptions, TrainingOptions)
def train(
    preset: str | None = None,
    *,
    data: list[str],
    out: Path,
    trained: str | None = None,
    plain: bool = False,
    settings: list[str] | None = None,
    verbose: bool = False,
    **options: Any,
) -> Result:
    """Train a model on a corpus of reviews and save it as a folder.

    Args:
        out: The folder to save the model in; without --overwrite, it must not exist.
        plain: Train without the techniques that `reviewgen ablate` measures, as in a textbook;
            --set may switch one on again.
        settings: A setting that differs from the preset's: model.hidden_size=256. `reviewgen
            settings PRESET` lists all settings.
        verbose: Also print what training.json and the model card record: examples of the texts, all
            counts of the cleaning, what was chosen and how long it took, what each condition saves,
            metrics, parameters.
    """
    from reviewgen.processes import all_processes, resumes_by_itself

    options |= parse_settings(settings or [])
    notes.is_verbose = verbose
    if plain and trained is not None:
        raise ConfigError(
            "--plain is for a new model: one that is trained further keeps its techniques. Leave it"
            " out."
        )
    if plain and preset is not None:
        preset = f"{preset.removesuffix(PLAIN)}{PLAIN}"
    if not options["overwrite"] and not resumes_by_itself():
        check_output(to_path("out", out), "--overwrite")  # before torch is imported

    def create() -> "TrainingRun":
        """Return the run that this process takes part in."""
        from reviewgen.runs.run import TrainingRun

        source = parse_data(data, options["weights"])
        return TrainingRun(start(preset, trained), source, out=out, **options)

    with all_processes() as processes:
        run = processes.each(create, out)
    try:
        _prepare(run)
    except AlreadyTrained as finished:  # the launcher has restarted a job that was finished
        note(str(finished))
        facts = api.load(out).training
        return Result(facts | (facts["held_out"] or {}) | {"out": str(out)})
    from reviewgen.training.report import StopReason

    model = _train(run)
    record = run.record
    facts = model.training | (record.held_out or {}) | {"out": str(out)}
    status = int(facts["stopped"] == StopReason.PROCESS_ENDED.value)
    if record.is_interrupted:
        status = INTERRUPTED
    return Result(facts, _describe(record, model, out), status)


def _prepare(run: "TrainingRun") -> None:
    """Read and tokenize the corpus, and print facts about it."""
    try:
        with show_status("Reading ...") as say:
            for line in _describe_corpus(run.read(), run.corpus.conditions.describe()):
                note(line)
            say("Training the tokenizer and encoding the texts ...")
            run.tokenize()
    except KeyboardInterrupt:
        note("Interrupted before training began; nothing was saved.")
        sys.exit(INTERRUPTED)
    for line in run.record.notes:
        note(line)
    if run.record.log:
        note(run.record.log)


def _describe_corpus(corpus: "Corpus", conditions: list[str]) -> Iterator[str]:
    """Yield lines on a corpus: what was read and cleaned, how it was split, and its notes."""
    from reviewgen.data.clean import describe
    from reviewgen.data.open import SPLITS

    for part in corpus.corpora or [corpus]:
        if corpus.corpora:
            yield Detail(f"{part.source.name}:")
        yield from describe(part.source, part.report, is_brief=not notes.is_verbose)
    if corpus.validation is not None:
        yield "Validation:"
        yield from describe(*corpus.validation, is_brief=not notes.is_verbose)
    counts = ", ".join(f"{name} {corpus.counts[name]:,}" for name in SPLITS)
    yield f"Split: {counts}. Held out: {corpus.describe_held_out()}."
    # with --verbose, ``describe`` has yielded the notes of the source already
    yielded = corpus.source.notes if notes.is_verbose else []
    yield from (line for line in corpus.notes if line not in yielded)
    yield from (Detail(f"Condition {line}") for line in conditions)


def _train(run: "TrainingRun") -> "ReviewModel":
    """Train, save and measure the model, and return it. Ctrl-C and SIGTERM end the training or the
    measuring early, but they cannot stop the saving.
    """
    from reviewgen.runs.display import training_bar

    shown = 0  # number of the run's notes that were printed
    try:
        with training_bar(notes) as move:
            for report in run:
                move(report)
                _show_report(report)
        shown = len(run.record.notes)
        with show_status("Saving the model, then measuring it ..."):
            model = run.finish()
    except KeyboardInterrupt:
        with block_signals():
            run.interrupt()
            note("Interrupted; saving the best weights so far.")
            shown = len(run.record.notes)
            model = run.finish()
    for line in run.record.notes[shown:]:
        note(line)
    return model


def _show_report(report: "Report") -> None:
    """Print the notes of a training step. If the step ended with an evaluation, also print its
    result and the beginning of a generated text.
    """
    from reviewgen.data.clean import shorten

    if report.sample is not None:
        part = "" if report.part is None else f"{report.part}, "
        bits = None if report.evaluation is None else report.evaluation.bits_per_character
        score = "not scored" if bits is None else f"{bits:.4f} bits per character held out"
        best = " (best)" if report.is_best else ""
        note(f"{report.seconds:6.1f} s  {part}step {report.step:,}: {score}{best}")
        characters = _SAMPLE_CHARACTERS if notes.is_verbose else notes.width - len(_MARGIN)
        note(f"{_MARGIN}{shorten(report.sample, characters)}", "dim")
    for line in report.notes:
        note(line)


def _describe(record: "RunRecord", model: "ReviewModel", out: Path) -> Iterator[RenderableType]:
    """Yield the result of a training: bits per character, verdict, copy rate and folder. With
    --verbose, a part of the model card comes first.
    """
    from reviewgen.evaluation.scoring import suggest_next

    if notes.is_verbose:
        from rich.markdown import Markdown  # slower to import than all other parts of rich together

        card = model.bundle.card
        yield Markdown(card[card.index("## Metrics") : card.index("## Intended use")])
    evaluation = record.evaluation
    if evaluation is not None:
        yield _describe_held_out(record.held_out or {}, evaluation.bits_per_character)
    facts = model.training
    yield from _describe_improvement(facts)
    yield facts["verdict"]["words"]
    novelty = facts["novelty"]
    if novelty is not None and novelty["copy_rate"] is not None:
        yield f"Copy rate: {describe_copies(novelty)}{_end_of_copy_rate(novelty)}"
    gains = () if evaluation is None else evaluation.conditions
    advice = suggest_next(gains, model.bundle.model)
    yield from advice
    if not advice:
        yield from (gain.describe() for gain in gains if not gain.has_effect)
    if record.is_interrupted and evaluation is None:
        yield f"Saved in {out}. It was not evaluated: `reviewgen evaluate` does that."
    else:
        yield f"Saved in {out}"


def _describe_held_out(held_out: dict[str, Any], bits: float) -> str:
    """Return the sentence on the bits per character of the held-out texts."""
    reviews = held_out["reviews"]
    total = held_out["reviews_in_split"]
    part = f"{reviews:,} of " if reviews < total else ""
    few = "; other texts may give a very different value" if reviews < _FEW else ""
    return (
        f"Held out ({held_out['split']} split, {part}{counted(total, 'review')}): {bits:.4f} bits"
        f" per character{few}"
    )


def _describe_improvement(facts: dict[str, Any]) -> Iterator[str]:
    """Yield lines on how much a model that was trained further has improved. Yield nothing if the
    model is new.
    """
    before = facts.get("parent", {}).get("bits_per_character")
    best = [entry for entry in facts["evaluations"] if entry["is_best"]]
    after = best[-1].get("bits_per_character") if best else None
    if before is None or after is None:
        return
    yield (
        f"Validation texts: {before:.4f} bits per character before this training, {after:.4f} after"
        " it"
    )
    if after >= before:
        yield "The training did not improve them: the original model is better."


def _end_of_copy_rate(novelty: dict[str, Any]) -> str:
    """Return what follows the copy rate in its sentence; "" if too few characters were measured.

    An example: " of 20,000 generated characters are in spans of 50 or more characters of the
    training text; of held-out reviews 1.2%".
    """
    characters = novelty["copy_rate_characters"]
    if characters < MIN_CHARACTERS:
        return ""
    held_out = novelty["held_out_copy_rate"]
    held_out_part = "" if held_out is None else f"; of held-out reviews {held_out:.1%}"
    return (
        f" of {characters:,} generated characters are in spans of {novelty['copy_characters']} or"
        f" more characters of the training text{held_out_part}"
    )


@takes(CorpusOptions)
def prepare(
    data: list[str],
    *,
    preset: str,
    out: str,
    settings: list[str] | None = None,
    as_json: bool = False,
    **options: Any,
) -> Result | None:
    """Prepare a corpus once, as a token store that `train` accepts.

    Args:
        data: The reviews, as for `train --data`.
        preset: The preset whose tokenizer is trained, as in lstm-word.
        out: The folder of the store, or a URL; it must not exist.
        settings: A tokenizer setting that differs from the preset's: tokenizer.vocab_size=4000.
    """
    from reviewgen.conditions import Conditions
    from reviewgen.data.split import Corpus as CleanedCorpus
    from reviewgen.runs.corpus import prepare_tokens

    groups = parse_settings(settings or [])
    notes.is_verbose = True
    for group, values in groups.items():
        if values and group != "tokenizer":
            raise ConfigError(
                f"--set {group}... is a setting of training: give it to reviewgen train. Here it is"
                " tokenizer.NAME."
            )
    with exit_resumable(out), show_status("Preparing ...") as say:
        store = prepare_tokens(
            parse_data(data, options["weights"]),
            preset,
            out,
            lambda step: say(f"{step} ..."),
            tokenizer=groups["tokenizer"],
            **options,
        )
    if notes.quiet:
        return None
    tokens: dict[str, int] | None = None
    lines = [f"Saved in {out}"]
    if store.folder.exists():  # a store that was complete before may exist at its URL only
        tokens = {name: split.count for name, split in store.splits().items()}
        shards = counted(len(store.content["shards"]), "shard")
        lines.insert(0, f"Tokens: {tokens['train']:,} to train on, in {shards}.")
    if not as_json:
        corpus = CleanedCorpus.from_json(store.facts["corpus"])
        conditions = Conditions.from_json(store.facts["conditions"])
        for line in (*_describe_corpus(corpus, conditions.describe()), *store.facts["notes"]):
            note(line)
    return Result({"out": out, "tokens": tokens, **store.facts}, lines)
