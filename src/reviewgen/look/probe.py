"""``reviewgen.probe``: what models have learned of structure, by minimal pairs of sentences and by the marks that their texts close.

A *minimal pair* is two sentences that differ in a word, of which one is right: "The actor of the films is good." and "... are
good." A model knows which if it finds the right one more probable (Linzen et al. 2016; Marvin and Linzen 2018; BLiMP, Warstadt et
al. 2020). Chance is one half. Of two nouns the one next to the verb is the *attractor* if its number is the other one: who looks
only at the last words is always wrong.
"""

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reviewgen.config import check_count, check_flags, check_seed
from reviewgen.data import frame_texts, open_records
from reviewgen.errors import ConfigError, DataError, quoted
from reviewgen.evaluation import token_losses
from reviewgen.lexicon import words_of
from reviewgen.look.page import Report, to_json
from reviewgen.model import ReviewModel
from reviewgen.rates import find_intervals
from reviewgen.storage import to_path
from reviewgen.web.charts import Chart, Panel, Series, draw_figure, refuse_chart, save_chart
from reviewgen.web.rendering import percent

PAIRS = 60  # of each kind
_MIN_PAIRS, _MIN_MARKS = 10, 10  # fewer say nothing
_CHARACTERS = 1200  # of a text, about, in which marks are counted
_AFTER = 200  # characters after an opening mark in which it should be closed
_NOUNS = (
    *(("film", "films"), ("movie", "movies"), ("actor", "actors"), ("character", "characters"), ("scene", "scenes")),
    *(("story", "stories"), ("director", "directors"), ("woman", "women"), ("man", "men"), ("book", "books"), ("song", "songs")),
)
_VERBS = ("is", "are"), ("was", "were"), ("has been", "have been"), ("looks", "look")
_ENDS = "good", "bad", "great", "very good", "so bad"
_THINGS = "dog", "car", "war", "house", "girl", "king", "doctor", "city", "train", "ship", "horse", "family", "money", "teacher"
_FILLERS = (
    "It is a bit slow at times, but the acting is good.",
    "There are not many of this kind, and most of them are worse.",
    "I did not expect much when I saw it for the first time.",
)
_KINDS = {
    "agreement": "The {0} {verb} {end}.",
    "agreement past an attractor": "The {0} of the {1} {verb} {end}.",
    "agreement past a relative clause": "The {0} that made the {1} {verb} {end}.",
}
MEMORY = "a word remembered"
MARKS = {"brackets closed": ("(", ")"), "quotation marks closed": ('"“', '"”')}


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences that differ in a word.

    Attributes:
        kind: What the pair is about, as in "agreement".
        good: The right sentence.
        bad: The wrong one.
    """

    kind: str
    good: str
    bad: str


@dataclass(frozen=True)
class ProbeRow:
    """What a model does in a probe.

    Attributes:
        model: The model.
        probe: The kind of the pairs, or of the marks.
        share: The share of pairs of which the right sentence is more probable, or of marks that are closed; None if it is not known.
        interval: Its 95 % interval, low and high; None if it is not known.
        count: The number of pairs, or of opened marks.
    """

    model: str
    probe: str
    share: float | None
    interval: Sequence[float] | None
    count: int

    def describe(self) -> str:
        """Return the share and its interval, as in "58% (46% to 70%)"."""
        if self.share is None:
            return f"not known ({self.count})"
        return percent(self.share) + (
            "" if self.interval is None else f" ({percent(self.interval[0])} to {percent(self.interval[1])})"
        )


@dataclass
class Probe(Report):
    """The results of ``reviewgen.probe``: a row for each model and probe.

    Attributes:
        rows: The rows, those of a model after one another.
    """

    rows: list[ProbeRow] = field(default_factory=list)
    _template: ClassVar[str] = "look/probe.html"

    @property
    def models(self) -> list[str]:
        """The names of the models."""
        return list(dict.fromkeys(row.model for row in self.rows))

    @property
    def probes(self) -> list[str]:
        """The names of the probes."""
        return list(dict.fromkeys(row.probe for row in self.rows))

    def table(self) -> list[list[str]]:
        """Return the cells of a table: a line for each probe, and after its name a column for each model."""
        cells = {(row.probe, row.model): row.describe() for row in self.rows}
        return [[probe, *(cells[probe, model] for model in self.models)] for probe in self.probes]

    def chart(self) -> Chart:
        """Return the shares as a chart, with a panel for each probe and its intervals as bars."""
        places = {model: float(number) for number, model in enumerate(self.models)}
        panels = []
        for probe in self.probes:
            rows = [row for row in self.rows if row.probe == probe and row.share is not None]
            series = [
                Series(row.model, [(places[row.model], row.share or 0.0)], int(places[row.model]), interval=_pair(row.interval))
                for row in rows
            ]
            half = [] if probe in MARKS else [Series("chance", level=0.5, style=7)]
            panels.append(Panel(probe, [*series, *half], 110.0, (0.0, 1.0)))
        summary = "Shares of minimal pairs whose right sentence is more probable, and of opened marks that are closed."
        return Chart("What models know of structure", "model", panels, summary, labels=self.models)

    def plot(self, file: str | Path, *, overwrite: bool = False) -> None:
        """Save the chart as PNG, SVG or PDF, by the file's suffix.

        Raises:
            ConfigError: The suffix is another one, or matplotlib, which PNG and PDF need, is not installed.
            OutputExists: The file exists, and ``overwrite`` is false.
            StorageError: It cannot be written.
        """
        check_flags(overwrite=overwrite)
        path = to_path("file", file)
        refuse_chart(path, overwrite)
        save_chart(self.chart(), path)

    def to_json(self) -> dict[str, Any]:
        """Return the rows as JSON values."""
        rows: dict[str, Any] = {"rows": to_json([asdict(row) for row in self.rows])}
        return rows

    def _values(self) -> dict[str, Any]:
        return {"models": self.models, "table": self.table(), "chart": draw_figure(self.chart())}


def probe(models: Any, *, pairs: Any = None, texts: int = 100, seed: int = 0) -> Probe:
    """Probe what models know of structure: agreement, a word remembered, brackets and quotation marks that are closed.

    >>> reviewgen.probe(["ngram-word", "lstm-word"]).plot("probes.svg")                          # doctest: +SKIP

    Args:
        models: A model, what ``load`` takes, or a list of them.
        pairs: Minimal pairs instead of those of the package: a table (csv, jsonl, a list of mappings) with the columns
            ``sentence_good`` and ``sentence_bad``, as in BLiMP, and perhaps ``UID`` or ``kind``.
        texts: How many texts each model writes, of which the marks are counted; 0 leaves that out.
        seed: The seed of these texts.

    Raises:
        ConfigError: An argument is unusable.
        DataError: The pairs cannot be read.
        BundleError, HubError: A model cannot be loaded.
    """
    listed = models if isinstance(models, list | tuple) else [models]
    if not listed:
        raise ConfigError("Give at least one model to probe.")
    check_seed(seed)
    if texts:
        check_count("texts", texts)
    given = None if pairs is None else read_pairs(pairs)
    result = Probe()
    for each in listed:
        model = each if isinstance(each, ReviewModel) else ReviewModel.from_pretrained(each)
        name = each if isinstance(each, str) else str(model.bundle.source or model.preset)
        together = 2 if given is None else 1  # of those of the package, singular and plural
        result.rows += _probe(name, model, make_pairs(model) if given is None else given, together, texts, seed)
    return result


def read_pairs(source: Any) -> list[MinimalPair]:
    """Return the minimal pairs of a table.

    Raises:
        DataError: The table cannot be read, or lacks a sentence.
    """
    found = []
    for number, record in enumerate(open_records(source), 1):
        good, bad = record.get("sentence_good"), record.get("sentence_bad")
        if not (isinstance(good, str) and isinstance(bad, str) and good and bad):
            raise DataError(f"Row {number} of the pairs has no sentence_good and sentence_bad; got {quoted(dict(record))}.")
        found.append(MinimalPair(str(record.get("kind") or record.get("UID") or "pairs"), good, bad))
    if not found:
        raise DataError("There are no pairs.")
    return found


def make_pairs(model: ReviewModel) -> list[MinimalPair]:
    """Return the minimal pairs of the package whose words a model knows: of each kind at most 60, half of them singular."""
    lexicon = model.bundle.lexicon

    def knows(pair: MinimalPair) -> bool:
        return lexicon is None or all(word in lexicon for word in words_of(f"{pair.good} {pair.bad}"))

    chosen: list[MinimalPair] = []
    for all_of_kind in (*(_agreement(kind) for kind in _KINDS), _memory()):
        ordered = list(all_of_kind)
        random.Random(0).shuffle(ordered)
        known = [both for both in ordered if all(map(knows, both))]
        chosen += [pair for both in known[: PAIRS // 2] for pair in both]
    return chosen


def _agreement(kind: str) -> Iterator[tuple[MinimalPair, MinimalPair]]:
    """Yield pairs of agreement, a singular subject and a plural one at a time."""
    for subject, other, verbs, end in product(_NOUNS, _NOUNS, _VERBS, _ENDS):
        if subject != other and ("{1}" in _KINDS[kind] or other == _NOUNS[subject == _NOUNS[0]]):
            sentences = [
                [_KINDS[kind].format(subject[number], other[1 - number], verb=verb, end=end) for verb in verbs]
                for number in (0, 1)
            ]
            yield tuple(MinimalPair(kind, own[number], own[1 - number]) for number, own in enumerate(sentences))  # type: ignore[misc]


def _memory() -> Iterator[tuple[MinimalPair, MinimalPair]]:
    """Yield pairs whose last word stands in the first sentence; each word once as the right one and once as the wrong one."""
    for one, other, filler in product(_THINGS, _THINGS, _FILLERS):
        if one < other:
            texts = [[f"It is about a {word}. {filler} I liked the {last}." for last in (one, other)] for word in (one, other)]
            yield MinimalPair(MEMORY, *texts[0]), MinimalPair(MEMORY, *reversed(texts[1]))


def _probe(
    name: str, model: ReviewModel, pairs: Sequence[MinimalPair], together: int, texts: int, seed: int
) -> Iterator[ProbeRow]:
    """Yield the rows of a model; so many pairs that follow one another are alike, and are one item of an interval."""
    bits = score_sentences(model, [text for pair in pairs for text in (pair.good, pair.bad)]).reshape(-1, 2)
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        own = [float(np.sign(bad - good) + 1) / 2 for pair, (good, bad) in zip(pairs, bits, strict=True) if pair.kind == kind]
        items = [(sum(own[start : start + together]), together) for start in range(0, len(own), together)]
        yield _row(name, kind, items, len(own) >= _MIN_PAIRS)
    if texts:
        longest = _CHARACTERS if model.generator.pieces.are_characters else _CHARACTERS // 4
        written = model.generate(num_return_sequences=texts, seed=seed, max_new_tokens=longest, return_dict_in_generate=True)
        for probe_name, signs in MARKS.items():
            counts = [count_closed(each.text, *signs, is_whole=each.finish_reason == "end") for each in written]
            yield _row(name, probe_name, counts, sum(opened for _, opened in counts) >= _MIN_MARKS)


def _row(model: str, name: str, counts: Sequence[tuple[float, int]], is_known: bool) -> ProbeRow:
    """Return the row of counts of what is right and of all, in each of some items."""

    def measure(some: Sequence[tuple[float, int]]) -> list[float]:
        return [sum(right for right, _ in some) / max(1, sum(total for _, total in some))]

    total, kept = sum(each for _, each in counts), [each for each in counts if each[1]]
    if not is_known:
        return ProbeRow(model, name, None, None, total)
    return ProbeRow(model, name, measure(kept)[0], find_intervals(measure, kept)[0], total)


def score_sentences(model: ReviewModel, texts: Sequence[str]) -> np.ndarray:
    """Return the bits of each text without those of its end."""
    prefix, weights = model.conditions.unspecified_ids, model.bundle.weights
    framed = [ids for ids, _ in frame_texts([(text, prefix) for text in texts], model.tokenizer)]
    losses = token_losses(weights.model_on_device, framed, model.tokenizer.vocab_size, weights.device)
    return np.array([each[:-1].sum(dtype=np.float64) / math.log(2) for each in losses])


def count_closed(text: str, opening: str, closing: str, *, is_whole: bool) -> tuple[int, int]:
    """Return how many marks of a text are closed, and how many are opened.

    A sign that is both opens and closes in turn. What is opened within the last 200 characters counts only if it is closed, or if
    the text is whole.

    >>> count_closed("a (b) (c", "(", ")", is_whole=True), count_closed("a (b) (c", "(", ")", is_whole=False)
    ((1, 2), (1, 1))
    """
    waiting: list[int] = []
    closed = 0
    for found in re.finditer(f"[{re.escape(opening + closing)}]", text):
        sign = found.group()
        if sign in closing and waiting:
            waiting.pop()
            closed += 1
        elif sign in opening:
            waiting.append(found.start())
    missing = [start for start in waiting if is_whole or len(text) - start > _AFTER]
    return closed, closed + len(missing)


def _pair(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (interval[0], interval[1])
