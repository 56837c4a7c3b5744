"""``reviewgen train | prepare``: trains a preset, or a trained model further, on a corpus; prepares a corpus as a token store."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviewgen import api, data, runs, training
from reviewgen.cli.console import Result, exit_resumable, note, notes, show_status
from reviewgen.cli.options import parse_data, start, takes
from reviewgen.config import PLAIN, parse_settings
from reviewgen.config.options import CorpusOptions, TrainingOptions
from reviewgen.errors import AlreadyTrained, ConfigError, counted
from reviewgen.interrupts import INTERRUPTED, block_signals
from reviewgen.rates import MIN_CHARACTERS, describe_copies

if TYPE_CHECKING:
    from reviewgen.model import ReviewModel

_FEW = 10  # held-out texts, whose bits say little about others
_SAMPLE_CHARACTERS = 160  # of the generated text that is shown at an evaluation


@takes(CorpusOptions, TrainingOptions)
def train(
    preset: str | None = None,
    *,
    data: list[str],
    out: Path,
    trained: str | None = None,
    plain: bool = False,
    settings: list[str] | None = None,
    **options: Any,
) -> Result | None:
    """Train a model on a corpus of reviews and save it as a folder.

    Args:
        out: The folder to save the model in; it must not exist.
        plain: Train without the techniques that `reviewgen ablate` measures, as in a textbook; --set may switch one on again.
        settings: A setting that differs from the preset's: model.hidden_size=256. `reviewgen settings PRESET` lists all
            settings.
    """
    options |= parse_settings(settings or [])
    if plain and trained is not None:
        raise ConfigError("--plain is for a new model: one that is trained further keeps its techniques. Leave it out.")
    if plain and preset is not None:
        preset = f"{preset.removesuffix(PLAIN)}{PLAIN}"
    from reviewgen.processes import all_processes

    def create() -> runs.TrainingRun:
        return runs.TrainingRun(start(preset, trained), parse_data(data, options["weights"]), out=out, **options)

    with all_processes() as processes:
        run = processes.each(create, out)
    try:
        _prepare(run)
    except AlreadyTrained as finished:  # a job that was restarted has nothing left to do
        note(str(finished))
        if notes.quiet:
            return None
        facts = api.load(out).training
        return Result(facts | (facts["held_out"] or {}) | {"out": str(out)})
    facts = _train(run).training
    status = INTERRUPTED if run.is_interrupted else int(facts["stopped"] == training.StopReason.PROCESS_ENDED.value)
    return Result(facts | (run.held_out or {}) | {"out": str(out)}, _describe(run, facts, out), status)


def _prepare(run: "runs.TrainingRun") -> None:
    """Read and tokenize the corpus, and show facts about it."""
    try:
        with show_status("Reading ...") as say:
            note(_show_corpus(run.read(), run.conditions.describe()))
            say("Training the tokenizer and encoding the texts ...")
            run.tokenize()
    except KeyboardInterrupt:
        note("Interrupted before training began; nothing was saved.")
        sys.exit(INTERRUPTED)
    note(f"Tokens: {run.stores['train'].tokens:,} to train on, {run.tokenizer.vocab_size:,} in the vocabulary.")
    for line in (*run.notes, *filter(None, [run.log.describe()])):
        note(line)


def _show_corpus(corpus: "data.Corpus", conditions: list[str]) -> str:
    """Print what was read; return how it was split."""
    validation = [] if corpus.validation is None else ["Validation:", *data.describe(*corpus.validation)]
    counts = ", ".join(f"{name} {corpus.counts[name]:,}" for name in data.SPLITS)
    split = f"Split: {counts}. Held out: {corpus.describe_held_out()}."
    remarks = [line for line in corpus.notes if line not in corpus.source.notes]  # which ``describe`` has
    named = [f"Condition {line}" for line in conditions]
    lines = list[str]()
    for part in corpus.corpora or [corpus]:
        lines += [f"{part.source.name}:"] if corpus.corpora else []
        lines += data.describe(part.source, part.report)
    for line in (*lines, *validation, *remarks, *named):
        note(line)
    return split


def _train(run: "runs.TrainingRun") -> "ReviewModel":
    """Train, save and measure the model; Ctrl-C and SIGTERM cut training and measuring short, and cannot stop the saving."""
    shown = 0
    try:
        with runs.training_bar(notes) as move:
            for report in run:
                move(report)
                _show_report(report)
        shown = len(run.notes)
        with show_status("Saving the model, then measuring it ..."):
            model = run.finish()
    except KeyboardInterrupt:
        with block_signals():
            run.interrupt()
            note("Interrupted; saving the best weights so far.")
            shown = len(run.notes)
            model = run.finish()
    for line in run.notes[shown:]:
        note(line)
    return model


def _show_report(report: "training.Report") -> None:
    """Print an evaluation with a generated text, whose lines end at words, and the notes of a step."""
    if report.sample is not None:
        score, part = "not scored", "" if report.part is None else f"{report.part}, "
        if report.evaluation is not None:
            score = f"{report.evaluation.bits_per_character:.4f} bits per character held out"
        copied = "" if report.token_copy_rate is None else f", token copy rate {report.token_copy_rate:.1%}"
        note(f"{report.seconds:6.1f} s  {part}step {report.step:,}: {score}{copied}{' (best)' if report.is_best else ''}")
        sample = data.shorten(report.sample, _SAMPLE_CHARACTERS)
        for line in textwrap.wrap(sample, notes.width, initial_indent="  | ", subsequent_indent="  | "):
            note(line, "dim")
    for line in report.notes:
        note(f"  {line}")


def _describe(run: "runs.TrainingRun", facts: dict[str, Any], out: Path) -> Iterator[str]:
    """Yield the lines of the result."""
    from reviewgen.protocols.abilities import describe_parameters

    if run.held_out is not None and run.evaluation is not None:
        reviews, total, split = (run.held_out[name] for name in ("reviews", "reviews_in_split", "split"))
        part = f"{reviews:,} of {counted(total, 'review')}" if reviews < total else counted(total, "review")
        few = "; other texts may give a very different value" if reviews < _FEW else ""
        yield f"Held out ({split} split, {part}): {run.evaluation.bits_per_character:.4f} bits per character{few}"
        yield from (gain.describe() for gain in run.evaluation.conditions)
    alone = [(part["preset"], part["held_out"]["bits_per_character"]) for part in facts.get("parts", ()) if part.get("held_out")]
    if alone:
        yield "Its models alone: " + ", ".join(f"{name} {'infinite' if bits is None else f'{bits:.4f}'}" for name, bits in alone)
    before = facts.get("parent", {}).get("bits_per_character")
    after = [entry.get("bits_per_character") for entry in facts["evaluations"] if entry["is_best"]]
    if before is not None and after and after[-1] is not None:
        yield f"Validation texts: {before:.4f} bits per character before this training, {after[-1]:.4f} after it"
        if after[-1] >= before:
            yield "The training did not improve them: the original model is better."
    novelty = facts["novelty"]
    if novelty is not None and novelty["copy_rate"] is not None:
        held_out, characters = novelty["held_out_copy_rate"], novelty["copy_rate_characters"]
        rate, beside = describe_copies(novelty), "" if held_out is None else f"; of held-out reviews {held_out:.1%}"
        what = f"generated characters are in spans of {novelty['copy_characters']} or more characters of the training text"
        yield f"Copy rate: {rate}" + (f" of {characters:,} {what}{beside}" if characters >= MIN_CHARACTERS else "")
    metrics = {name: metric for name, metric in facts.get("metrics", {}).items() if metric["generated"] is not None}
    if metrics:
        yield "Metrics of its texts: " + ", ".join(
            f"{name} {metric['generated']:.4g}" + ("" if metric["held_out"] is None else f" (held out {metric['held_out']:.4g})")
            for name, metric in metrics.items()
        )
    yield f"Parameters: {describe_parameters(facts['parameters'])}"
    share = facts["evaluation_seconds"] / max(facts["seconds"], 1e-9)
    final = "" if run.held_out is None else " and the final evaluation"
    yield f"Time: {facts['seconds']:.1f} s with reading{final}; {share:.1%} of it went into evaluations."
    yield facts["verdict"]["words"]
    unmeasured = " It was not evaluated: `reviewgen evaluate` does that." if run.is_interrupted and not final else ""
    yield f"Saved in {out}.{unmeasured}" if unmeasured else f"Saved in {out}"


@takes(CorpusOptions)
def prepare(
    data: list[str], *, preset: str, out: str, settings: list[str] | None = None, as_json: bool = False, **options: Any
) -> Result | None:
    """Prepare a corpus once, as a token store that `train` accepts; under accelerate launch, in several processes.

    Args:
        data: The reviews, as for `train --data`.
        preset: The preset whose tokenizer is trained, as in lstm-word.
        out: The folder of the store, or a URL; it must not exist.
        settings: A tokenizer setting that differs from the preset's: tokenizer.vocab_size=4000.
    """
    groups = parse_settings(settings or [])
    if other := next((name for name, values in groups.items() if values and name != "tokenizer"), None):
        raise ConfigError(f"--set {other}... is a setting of training: give it to reviewgen train. Here it is tokenizer.NAME.")
    with exit_resumable(out), show_status("Preparing ...") as say:
        from reviewgen.conditions import Conditions
        from reviewgen.data import Corpus as CleanedCorpus

        tokenizer, source = groups["tokenizer"], parse_data(data, options["weights"])
        store = runs.prepare_tokens(source, preset, out, lambda step: say(f"{step} ..."), tokenizer=tokenizer, **options)
    if notes.quiet:
        return None
    is_here = store.folder.exists()  # one that was complete already may be at its URL only
    tokens = {split: tokens.tokens for split, tokens in store.splits().items()} if is_here else None
    lines = [f"Saved in {out}"]
    if tokens is not None:
        lines.insert(0, f"Tokens: {tokens['train']:,} to train on, in {counted(len(store.content['shards']), 'shard')}.")
    if not as_json:
        conditions = Conditions.from_json(store.facts["conditions"])
        lines.insert(0, _show_corpus(CleanedCorpus.from_json(store.facts["corpus"]), conditions.describe()))
        for line in store.facts["notes"]:
            note(line)
    return Result({"out": out, "tokens": tokens, **store.facts}, lines)
