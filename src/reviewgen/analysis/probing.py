"""``reviewgen.probe``: measures what models have learned about structure, by minimal pairs and by
the brackets and quotation marks that they close.

A *minimal pair* is two sentences that differ in one word; only one of them is correct: "The actor
of the films is good." and "The actor of the films are good." A model passes if it assigns a higher
probability to the correct sentence (Linzen et al. 2016; Marvin and Linzen 2018; BLiMP, Warstadt et
al. 2020). Chance is one half. An *attractor* is a noun between subject and verb that has the other
number, as "films" here. With it, a model that looks only at the nearest noun is always wrong.
"""

import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from reviewgen.config.bounded import to_json
from reviewgen.config.generation import GenerationConfig
from reviewgen.config.settings import check_count, check_seed
from reviewgen.data.texts import open_records
from reviewgen.data.tokens import frame_texts
from reviewgen.errors import ConfigError, DataError, quoted
from reviewgen.evaluation.scoring import token_losses
from reviewgen.lexicon.words import words_of
from reviewgen.model.review_model import ReviewModel
from reviewgen.rates import find_intervals
from reviewgen.web.charts import Chart, Panel, Series, draw_figure, refuse_chart, save_chart
from reviewgen.web.rendering import HtmlReport

PAIRS = 60  # maximum number of pairs of each kind
_MIN_COUNT = 10  # a share of fewer pairs or opened marks is not given
_CHARACTERS = 1200  # approximate length of a text in which marks are counted
_AFTER = 200  # a mark should be closed within this many characters after it
_MAX_COLUMNS = 3  # with more models, a table has a line for each model, not a column
_MAX_LABELS = 5  # with more models, the axis of a chart has numbers instead of names
_SUMMARY = (
    "Share of minimal pairs whose correct sentence is more probable, and of opened marks that are"
    " closed."
)
_NOUNS = [  # singular and plural
    ("film", "films"),
    ("movie", "movies"),
    ("actor", "actors"),
    ("character", "characters"),
    ("scene", "scenes"),
    ("story", "stories"),
    ("director", "directors"),
    ("woman", "women"),
    ("man", "men"),
    ("book", "books"),
    ("song", "songs"),
]
_VERBS = ("is", "are"), ("was", "were"), ("has been", "have been"), ("looks", "look")
_ENDS = "good", "bad", "great", "very good", "so bad"
_THINGS = [
    "dog",
    "car",
    "war",
    "house",
    "girl",
    "king",
    "doctor",
    "city",
    "train",
    "ship",
    "horse",
    "family",
    "money",
    "teacher",
]
_FILLERS = (
    "It is a bit slow at times, but the acting is good.",
    "There are not many of this kind, and most of them are worse.",
    "I did not expect much when I saw it for the first time.",
)
ATTRACTOR = "agreement past an attractor"
MEMORY = "a word remembered"
_TEMPLATES = {
    "agreement": "The {0} {verb} {end}.",
    ATTRACTOR: "The {0} of the {1} {verb} {end}.",
    "agreement past a relative clause": "The {0} that made the {1} {verb} {end}.",
}
MARKS = {"brackets closed": ("(", ")"), "quotation marks closed": ('"“', '"”')}


MinimalPair = tuple[str, str]
"""Two sentences that differ in one word: the correct one, then the incorrect one."""


@dataclass(frozen=True)
class ProbeRow:
    """The result of one model in one probe.

    Attributes:
        model: The name of the model.
        probe: The name of the probe: a kind of pairs, or of marks.
        share: The share of pairs in which the correct sentence is more probable, or of opened marks
            that are closed; None if fewer than ten were counted.
        interval: The low and high end of the 95 % interval of ``share``; None if it is not known.
        count: The number of pairs, or of opened marks.
    """

    model: str
    probe: str
    share: float | None
    interval: tuple[float, float] | None
    count: int

    def describe(self) -> str:
        """Return the share and its interval in percent, as in "58% (46–70)"."""
        if self.share is None:
            return "not known"
        if self.interval is None:
            return f"{self.share:.0%}"
        low, high = self.interval
        return f"{self.share:.0%} ({100 * low:.0f}–{100 * high:.0f})"


@dataclass
class Probe(HtmlReport):
    """The results of ``reviewgen.probe``: a row for each model and probe.

    Attributes:
        rows: The rows, model by model.
    """

    rows: list[ProbeRow] = field(default_factory=list)
    _template: ClassVar[str] = "analysis/probe.html"

    @property
    def models(self) -> list[str]:
        """The names of the models."""
        return list(dict.fromkeys(row.model for row in self.rows))

    @property
    def probes(self) -> list[str]:
        """The names of the probes."""
        return list(dict.fromkeys(row.probe for row in self.rows))

    def table(self) -> list[list[str]]:
        """Return the cells of a table, the header first. It has a line for each probe; if there are
        more than three models, it has a line for each model.
        """
        cells = {(row.probe, row.model): row.describe() for row in self.rows}
        models = self.models
        table = [["probe", *models]]
        table += [[probe, *(cells[probe, model] for model in models)] for probe in self.probes]
        if len(models) > _MAX_COLUMNS:
            table = list(map(list, zip(*table, strict=True)))
            table[0][0] = "model"
        return table

    def chart(self) -> Chart:
        """Return the shares as a chart, with a panel for each probe. Vertical lines are the
        intervals.
        """
        models = self.models
        names = models  # in the legend
        labels = models  # of the axis
        if len(models) > _MAX_LABELS:
            labels = [str(number) for number in range(1, len(models) + 1)]
            names = [f"{number} {name}" for number, name in zip(labels, models, strict=True)]
        panels = []
        for probe in self.probes:
            series = []
            for row in self.rows:
                if row.probe == probe and row.share is not None:
                    index = models.index(row.model)
                    points = [(float(index), row.share)]
                    series.append(
                        Series(names[index], points, index, interval=row.interval, is_bar=True)
                    )
            if probe not in MARKS:
                # the last of eight colours, so that few models have the same
                series.append(Series("chance", level=0.5, style=7))
            panels.append(Panel(probe, series, 110.0, (0.0, 1.0)))
        return Chart("Probes of structure", "model", panels, _SUMMARY, labels=labels)

    def plot(self, file: str | Path, *, overwrite: bool = False) -> None:
        """Save the chart as PNG, SVG or PDF, by the file's suffix.

        Raises:
            ConfigError: The suffix is none of these, or matplotlib is not installed (PNG and PDF
                need it).
            OutputExists: The file exists, and ``overwrite`` is false.
            StorageError: The file cannot be written.
        """
        save_chart(self.chart(), refuse_chart(file, overwrite))

    def to_dict(self) -> dict[str, Any]:
        """Return the rows as JSON values."""
        return dict(to_json(self))

    def _values(self) -> dict[str, Any]:
        head, *lines = self.table()
        return {"head": head, "lines": lines, "chart": draw_figure(self.chart())}


def probe(models: Any, *, pairs: Any = None, texts: int = 100, seed: int = 0) -> Probe:
    """Probe what models have learned about structure: agreement, remembering a word, closing
    brackets and quotes.

    >>> reviewgen.probe(["ngram-word", "lstm-word"]).plot("probes.svg")  # doctest: +SKIP

    Args:
        models: A ReviewModel, a source for ``load``, or a list of these.
        pairs: Minimal pairs to use instead of the built-in ones: a table (jsonl, csv, a list of
            mappings) with the columns ``sentence_good`` and ``sentence_bad``, as BLiMP has them,
            and optionally ``UID`` or ``kind``.
        texts: The number of texts that each model generates at temperature 1. Marks are counted in
            these texts; 0 leaves this probe out.
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
    given_pairs = None if pairs is None else read_pairs(pairs)
    result = Probe()
    for source in listed:
        if isinstance(source, ReviewModel):
            model = source
            base = model.bundle.origin or model.preset
        else:
            model = ReviewModel.from_pretrained(source)
            base = str(source)
        # a model that is given again gets a number
        names = [base, *(f"{base} ({number})" for number in range(2, 2 + len(listed)))]
        name = next(name for name in names if name not in result.models)
        result.rows += measure_pairs(name, model, given_pairs or make_pairs(model))
        if texts:
            result.rows += _count_marks(name, model, texts, seed)
    return result


def read_pairs(source: Any) -> dict[str, list[MinimalPair]]:
    """Read minimal pairs from a table, and return them by kind.

    Raises:
        DataError: The table cannot be read or is empty, or a row lacks a sentence.
    """
    pairs = dict[str, list[MinimalPair]]()
    for number, record in enumerate(open_records(source), 1):
        good = record.get("sentence_good")
        bad = record.get("sentence_bad")
        if not (isinstance(good, str) and isinstance(bad, str) and good and bad):
            raise DataError(
                f"Row {number} of the pairs has no sentence_good or sentence_bad; got"
                f" {quoted(dict(record))}."
            )
        kind = str(record.get("kind") or record.get("UID") or "pairs")
        pairs.setdefault(kind, []).append((good, bad))
    if not pairs:
        raise DataError("There are no pairs.")
    return pairs


def make_pairs(
    model: ReviewModel, kinds: Sequence[str] = (*_TEMPLATES, MEMORY)
) -> dict[str, list[MinimalPair]]:
    """Return at most 60 built-in pairs of each kind, with words that a model knows.

    Each pair is followed by its mirror image: for example, one has a singular subject, the other a
    plural one. A model that always prefers the same word is right in one of the two, so its share
    is one half.
    """
    lexicon = model.bundle.lexicon

    def knows(pair: MinimalPair) -> bool:
        """Return whether the model knows all words of a pair."""
        return lexicon is None or all(word in lexicon for word in words_of(" ".join(pair)))

    chosen = dict[str, list[MinimalPair]]()
    for kind in kinds:
        mirrored = list(_memory_pairs() if kind == MEMORY else _agreement_pairs(_TEMPLATES[kind]))
        random.Random(0).shuffle(mirrored)
        known = (two_pairs for two_pairs in mirrored if all(map(knows, two_pairs)))
        chosen[kind] = list(chain.from_iterable(islice(known, PAIRS // 2)))
    return chosen


def _agreement_pairs(template: str) -> Iterator[list[MinimalPair]]:
    """Yield lists of two pairs: one with a singular subject, and one with a plural subject. An
    attractor has the other number. In each pair, the correct sentence is first.
    """
    attractors = _NOUNS if "{1}" in template else [("", "")]
    for noun, attractor, (one_does, many_do), end in product(_NOUNS, attractors, _VERBS, _ENDS):
        if noun != attractor:
            singular = partial(template.format, noun[0], attractor[1], end=end)
            plural = partial(template.format, noun[1], attractor[0], end=end)
            yield [
                (singular(verb=one_does), singular(verb=many_do)),
                (plural(verb=many_do), plural(verb=one_does)),
            ]


def _memory_pairs() -> Iterator[list[MinimalPair]]:
    """Yield lists of two pairs. The last word of a text should repeat a word of its first sentence.
    Each of the two words is correct in one pair and incorrect in the other.
    """
    for one, other, filler in product(_THINGS, _THINGS, _FILLERS):
        if one < other:
            about_one = f"It is about a {one}. {filler} I liked the"
            about_other = f"It is about a {other}. {filler} I liked the"
            yield [
                (f"{about_one} {one}.", f"{about_one} {other}."),
                (f"{about_other} {other}.", f"{about_other} {one}."),
            ]


def measure_pairs(
    name: str, model: ReviewModel, pairs: Mapping[str, Sequence[MinimalPair]]
) -> Iterator[ProbeRow]:
    """Yield a row for each kind of pairs. For the interval, a pair and its mirror image are one
    item.
    """
    for kind, kind_pairs in pairs.items():
        # the bits of the correct and of the incorrect sentence of each pair, (pairs, 2)
        bits = score_sentences(model, list(chain.from_iterable(kind_pairs))).reshape(-1, 2)
        # fewer bits are a higher probability; a tie is half right
        right = [float(good < bad) + 0.5 * float(good == bad) for good, bad in bits]
        mirrored = [right[start : start + 2] for start in range(0, len(right), 2)]
        yield _make_row(name, kind, [(sum(item), len(item)) for item in mirrored])


def _count_marks(name: str, model: ReviewModel, texts: int, seed: int) -> Iterator[ProbeRow]:
    """Generate texts, and yield a row for each kind of marks in them."""
    # a token that is not a character has about four characters
    max_tokens = _CHARACTERS if model.generator.pieces.are_characters else _CHARACTERS // 4
    config = GenerationConfig(
        temperature=1.0, max_new_tokens=max_tokens, num_return_sequences=texts
    )
    written = model.generate(
        generation_config=config,
        conditions=model.conditions.unspecified,
        seed=seed,
        return_dict_in_generate=True,
    )
    for probe_name, signs in MARKS.items():
        counts = [count_closed(each.text, *signs, each.finish_reason == "end") for each in written]
        yield _make_row(name, probe_name, counts)


def _make_row(model: str, name: str, counts: Sequence[tuple[float, int]]) -> ProbeRow:
    """Return the row of a probe. ``counts`` has two numbers for each item, which is a text or two
    pairs: how many answers or marks were right, and how many there were.
    """

    def measure(items: Sequence[tuple[float, int]]) -> list[float]:
        """Return the share of some items that is right, as the only number of a list."""
        return [sum(right for right, _ in items) / max(1, sum(total for _, total in items))]

    count = sum(total for _, total in counts)
    if count < _MIN_COUNT:
        return ProbeRow(model, name, None, None, count)
    # texts without marks say nothing
    with_answers = [(right, total) for right, total in counts if total]
    (interval,) = find_intervals(measure, with_answers)
    limits = None if interval is None else (interval[0], interval[1])
    return ProbeRow(model, name, measure(with_answers)[0], limits, count)


def score_sentences(model: ReviewModel, texts: Sequence[str]) -> Float64[np.ndarray, " N"]:
    """Return the bits of each text. The end token is left out, since the sentences of a pair differ
    before it.
    """
    prefix = model.conditions.unspecified_ids
    weights = model.bundle.weights
    tokenizer = model.tokenizer
    rows = [ids for ids, _ in frame_texts([(text, prefix) for text in texts], tokenizer)]
    losses = token_losses(weights.model_on_device, rows, tokenizer.vocab_size, weights.device)
    return np.array([nats[:-1].sum(dtype=np.float64) for nats in losses]) / math.log(2)


def count_closed(text: str, opening: str, closing: str, is_whole: bool) -> tuple[int, int]:
    """Return how many of the marks that a text opens are closed, and how many it opens.

    A sign that is both an opening and a closing mark opens and closes in turn. If a text was cut
    off, a mark that it opens in its last 200 characters counts only if it is closed.

    >>> count_closed("a (b) (c", "(", ")", True), count_closed("a (b) (c", "(", ")", False)
    ((1, 2), (1, 1))
    """
    waiting = list[int]()  # where the marks that are still open begin
    closed = 0
    for match in re.finditer(f"[{re.escape(opening + closing)}]", text):
        sign = match.group()
        if sign in closing and waiting:
            waiting.pop()
            closed += 1
        elif sign in opening:
            waiting.append(match.start())
    unclosed = [start for start in waiting if is_whole or len(text) - start > _AFTER]
    return closed, closed + len(unclosed)
