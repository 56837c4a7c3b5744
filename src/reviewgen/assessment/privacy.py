"""What synthetic texts give away about the texts that they were made from."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from statistics import fmean
from typing import Any

import numpy as np

from reviewgen.assessment.figures import (
    MIN_TEXTS,
    NOT_KNOWN,
    Figure,
    Measured,
    Section,
    measure,
)
from reviewgen.assessment.grams import LONGEST, Encoded, Neighbours, count_texts, encode
from reviewgen.assessment.modelling import model_of, score
from reviewgen.assessment.texts import Texts
from reviewgen.errors import counted
from reviewgen.lexicon.words import words_of
from reviewgen.novelty import COPY_CHARACTERS, TextWindows
from reviewgen.personal import PERSONAL_DATA, find_personal_data, mask
from reviewgen.rates import area_under_curve
from reviewgen.web.rendering import percent

_COMPARED = 2_000  # texts whose nearest real text is looked for
_SCORED = 4_000  # training texts, and as many held-out ones, whose bits are measured
_SCORED_BY_MODEL = 300  # by a model of the user, which may be slow
_COPIED = 0.01  # a smaller share of copied characters is not worth a sentence
_DIRECT = ("email", "phone")  # kinds that the sentence counts
_FALSE_ALARMS = 0.01
_LISTED = 20
_NAMES = 200  # runs of words that are listed
_CHECKED = 5_000  # the rarest runs of words, of which names are listed first
_MAX_SHOWN = 120  # characters of a listed text
_NEEDS_HELD_OUT = (
    f"This needs {MIN_TEXTS} different synthetic texts, and {MIN_TEXTS} different real ones that"
    " they were not made from: --held-out."
)


def measure_privacy(
    synthetic: Texts, trained_on: Texts, held_out: Texts | None, model: Any = None
) -> Section:
    """Measure what the synthetic texts repeat of the training texts.

    Args:
        synthetic: The synthetic texts.
        trained_on: The real texts that they were made from.
        held_out: Other real texts.
        model: The model that generated them, if there is one.
    """
    known = set(trained_on.texts)
    if held_out is not None:
        held_out = held_out.take(
            [index for index, text in enumerate(held_out.texts) if text not in known]
        )
    others = held_out if held_out and held_out.count_different() >= MIN_TEXTS else None
    spans, copying, copied, of_real = _copied(synthetic, trained_on, others)
    words = encode(trained_on.texts)
    runs, replayed, by_chance = _replayed(synthetic, words, others)
    personal, replayed_data, has_data = _personal(synthetic, trained_on, others)
    figures = [
        Figure(
            "copy_rate",
            "characters in copied spans",
            (copied, of_real),
            is_share=True,
            note=f"Spans of {COPY_CHARACTERS} characters or more of a training text, joined.",
        ),
        *_near(synthetic, trained_on, others),
        *_membership(synthetic, trained_on, others, model),
        Figure(
            "rare_words",
            "texts with a word of a single training text",
            (replayed, by_chance),
            is_share=True,
            note=f"Listed below with the runs of up to {LONGEST} words.",
        ),
        Figure(
            "personal_data",
            "texts with personal data of training texts",
            has_data,
            is_share=True,
            note=f"What looks like {', '.join(name for name, _ in PERSONAL_DATA.values())}.",
        ),
    ]
    lists = {
        "Longest copied spans, joined where they overlap": spans,
        "Personal data": personal,
        "Names and words of one training text only": runs,
    }
    verdict = _describe({figure.key: figure for figure in figures}, replayed_data, model)
    return Section(
        "privacy",
        f"{verdict} Texts with a copied span of {COPY_CHARACTERS} characters or more: {copying:,}"
        f" of {len(synthetic):,}. Names are not searched for: only words of a single training text"
        " are listed.",
        figures,
        lists={title: rows for title, rows in lists.items() if len(rows) > 1},
    )


def _describe(figures: dict[str, Figure], replayed: int, model: Any) -> str:
    """Return what the figures say in sentences, the worst first."""
    found = list[str]()
    copied, near, member = (figures[key] for key in ("copy_rate", "nearer", "membership"))
    share = copied.show(copied.synthetic._replace(interval=None))
    if replayed:
        found.append(f"repeat {counted(replayed, 'contact detail')} of them (e-mail, telephone)")
    if _is_above(copied, _COPIED):
        found.append(f"copy them ({share} of the characters)")
    if _is_above(near):
        found.append("are nearer to them than to other real texts")
    sentences = list[str]()
    if found:
        sentences.append(f"These texts give away training texts: they {'; they '.join(found)}.")
    if _is_above(member):
        subject = "An n-gram that learns from these texts" if model is None else "The model"
        area = member.show(member.synthetic._replace(interval=None))
        sentences.append(
            f"{subject} tells training texts from other real texts by their bits (area under the"
            f" curve {area})."
        )
    if sentences:
        return " ".join(sentences)
    if copied.synthetic.value is None:
        return "What these texts give away is not known: there are too few."
    if near.synthetic.value is None:
        return (
            f"These texts copy little or nothing of the training texts ({share}); whether they give"
            " away more is not known without held-out texts."
        )
    return "These texts give away no more of the training texts than other real texts do."


def _is_above(figure: Figure, least: float = 0.0) -> bool:
    """Return whether a figure is above that of real texts, and above ``least``, by more than
    chance.
    """
    interval = figure.synthetic.interval
    real = figure.real
    if interval is None:
        return False
    highest = real.interval[1] if real.interval else real.value or 0.0
    return interval[0] > max(highest, least)


def _copied(
    synthetic: Texts, trained_on: Texts, others: Texts | None
) -> tuple[list[list[str]], int, Measured, Measured]:
    """Return the longest copied spans, the number of texts with one, the share of characters in
    copied spans, and that of other real texts.
    """
    some = None if others is None else others.sample(len(synthetic))
    texts = [*synthetic.texts, *(some.texts if some else ())]
    spans = TextWindows(texts).spans(trained_on.texts)
    of_real = NOT_KNOWN if some is None else _copy_rate(some, spans[len(synthetic) :])
    spans = spans[: len(synthetic)]
    found = Counter[str]()
    for text, places in zip(synthetic.texts, spans, strict=True):
        found.update({text[start:end] for start, end in places})
    ranked = sorted(found, key=lambda span: (-len(span), span))[:_LISTED]
    rows = [[_cut(span), f"{len(span):,}", f"{found[span]:,}"] for span in ranked]
    head = ["span", "characters", "synthetic texts"]
    return [head, *rows], sum(map(bool, spans)), _copy_rate(synthetic, spans), of_real


def _copy_rate(texts: Texts, spans: Sequence[Sequence[tuple[int, int]]]) -> Measured:
    """Return the share of the characters of all texts that are in copied spans; ``spans`` has the
    start and end of each span, for each text.
    """
    pairs = [
        (sum(end - start for start, end in each), len(text))
        for text, each in zip(texts.texts, spans, strict=True)
    ]

    def share(some: Sequence[tuple[int, int]]) -> float:
        copied, characters = map(sum, zip(*some, strict=True))
        return copied / characters

    return measure(share, pairs, True)


def _cut(text: str) -> str:
    """Return the beginning of a span, with its personal data masked."""
    for _, value in find_personal_data(text):
        text = text.replace(value, mask(value))
    text = " ".join(text.split())
    return text[:_MAX_SHOWN] + "…" * (len(text) > _MAX_SHOWN)


def _near(synthetic: Texts, trained_on: Texts, others: Texts | None) -> list[Figure]:
    """Return the share of texts that are nearer to a training text than to a held-out one, as if
    there were as many of both.
    """
    both = NOT_KNOWN, NOT_KNOWN
    if others is not None:
        first, second = others.halves()
        words = encode([*trained_on.texts, *first.texts, *second.texts])
        index = Neighbours(words)
        members = len(trained_on)
        both = (
            _nearer(synthetic, words, index, members, members),
            _nearer(first, words, index, members, members + len(first)),
        )
    note = _NEEDS_HELD_OUT if both[0].value is None else "50 % are expected if they copy nothing."
    name = "nearer to a training text than to a held-out one"
    return [Figure("nearer", name, both, is_share=True, note=note)]


def _nearer(texts: Texts, words: Encoded, index: Neighbours, members: int, start: int) -> Measured:
    """Return the balanced share of texts that are nearer to one of the first ``members`` texts of
    the index than to one from ``start`` on.
    """
    others = index.count - start
    # of N members and M others, the nearest is a member with odds N : M by chance, as in a tie
    chance = members / (members + others)
    compared = encode(texts.sample(_COMPARED).texts, words.vocabulary)
    runs = compared.runs(2)
    starts = np.searchsorted(runs.texts, np.arange(1, compared.count))
    are_nearer = []
    for codes in np.split(runs.codes, starts):
        nearness = index.nearness(codes)
        gap = nearness[:members].max() - nearness[start:].max()
        are_nearer.append(chance if gap == 0 else float(gap > 0))

    def balanced(some: Sequence[float]) -> float:
        share = sum(some) / len(some)
        return share * others / (share * others + (1 - share) * members)

    return measure(balanced, are_nearer, True)


def _membership(
    synthetic: Texts, trained_on: Texts, others: Texts | None, model: Any
) -> list[Figure]:
    """Return how well the bits of a text tell whether it was a training text."""
    names = (
        "membership, area under the curve",
        f"membership, hits at {percent(_FALSE_ALARMS, 0)} false alarms",
    )
    keys = ("membership", "membership_hits")
    if others is None or min(map(Texts.count_different, (synthetic, trained_on))) < MIN_TEXTS:
        return [
            Figure(key, name, note=_NEEDS_HELD_OUT, is_share=key != keys[0])
            for key, name in zip(keys, names, strict=True)
        ]
    first, second = others.halves()
    of_made = _scores(model or model_of(synthetic), trained_on, others, model is not None)
    of_real = _scores(model_of(second), trained_on, first, False)
    scored_by = "this model" if model is not None else "an n-gram that has learned from them"
    note = (
        f"Whether the bits of a text under {scored_by} tell that it was a training text; 0.50 is"
        " chance."
    )
    area, hits = (
        (measure(each, of_made, True), measure(each, of_real, True)) for each in (_area, _hits)
    )
    return [
        Figure(keys[0], names[0], area, note=note),
        Figure(keys[1], names[1], hits, is_share=True, note="1 % is chance."),
    ]


def _scores(model: Any, members: Texts, others: Texts, is_slow: bool) -> list[tuple[float, float]]:
    """Return pairs of the nats per token of a training text and of another text."""
    count = min(_SCORED_BY_MODEL if is_slow else _SCORED, len(members), len(others))
    texts = [*members.sample(count).texts, *others.sample(count).texts]
    means = [each.nats / each.tokens for each in score(model, texts)]
    return list(zip(means[:count], means[count:], strict=True))


def _area(pairs: Sequence[tuple[float, float]]) -> float:
    members, others = zip(*pairs, strict=True)
    return area_under_curve(others, members)


def _hits(pairs: Sequence[tuple[float, float]]) -> float:
    members, others = map(np.array, zip(*pairs, strict=True))
    # not interpolated, since a model without smoothing gives infinite values
    return float((members < np.quantile(others, _FALSE_ALARMS, method="lower")).mean())


def _personal(
    synthetic: Texts, trained_on: Texts, others: Texts | None
) -> tuple[list[list[str]], int, tuple[Measured, Measured]]:
    """Return the personal data of the synthetic texts, masked; how many of its e-mail addresses and
    telephone numbers the training texts have, too; and the share of texts with any that they have,
    of synthetic and of other real texts.
    """
    known = set(chain.from_iterable(map(find_personal_data, trained_on.texts)))
    by_text, replayed = _find_data(synthetic, known)
    counts = Counter(chain.from_iterable(by_text))
    ranked = sorted(counts, key=lambda found: (found not in replayed, -counts[found], found))
    rows = [
        [
            kind,
            mask(value),
            "yes" if (kind, value) in replayed else "no",
            f"{counts[kind, value]:,}",
        ]
        for kind, value in ranked[:_NAMES]
    ]
    of_real = NOT_KNOWN
    if others is not None:
        of_real = _share_of(*_find_data(others.sample(len(synthetic)), known))
    head = ["kind", "value", "in a training text", "synthetic texts"]
    direct = sum(kind in _DIRECT for kind, _ in replayed)
    return [head, *rows], direct, (_share_of(by_text, replayed), of_real)


def _find_data(
    texts: Texts, known: set[tuple[str, str]]
) -> tuple[list[set[tuple[str, str]]], set[tuple[str, str]]]:
    """Return the personal data of each text, and all of it that is known from training texts."""
    by_text = [set(find_personal_data(text)) for text in texts.texts]
    return by_text, known.intersection(chain.from_iterable(by_text))


def _share_of(by_text: Sequence[set[Any]], some: set[Any]) -> Measured:
    return measure(fmean, [bool(each & some) for each in by_text], True)


def _replayed(
    synthetic: Texts, words: Encoded, others: Texts | None
) -> tuple[list[list[str]], Measured, Measured]:
    """Return the runs of words of one training text that synthetic texts repeat, capitalised ones
    first; the share of synthetic texts with one, and that of other real texts.
    """
    rare = []  # for each length, the codes of the runs of one text
    for length in range(1, LONGEST + 1):
        codes, counts = count_texts(words.runs(length))
        rare.append(codes[counts == 1])
    made = encode(synthetic.texts, words.vocabulary)
    found: dict[str, set[int]] = {}
    for length, codes in enumerate(rare, 1):
        runs = made.runs(length)
        hits = np.flatnonzero(np.isin(runs.codes, codes))
        for text, start in zip(runs.texts[hits].tolist(), runs.firsts[hits].tolist(), strict=True):
            found.setdefault(made.spell(start, length), set()).add(text)
    capitals = [
        {word.casefold() for word in words_of(text) if word[0].isupper()}
        for text in synthetic.texts
    ]
    codes, counts = count_texts(words.runs(1))
    rarity = dict(zip(codes.tolist(), np.log(words.count / counts).tolist(), strict=True))
    weights = {run: sum(rarity[words.vocabulary[word]] for word in run.split()) for run in found}
    are_capitalised = {run: capitals[min(found[run])].issuperset(run.split()) for run in found}
    checked = sorted(found, key=lambda run: (not are_capitalised[run], -weights[run], run))
    names = {run: _as_name(run, synthetic.texts[min(found[run])]) for run in checked[:_CHECKED]}
    ranked = sorted(names, key=lambda run: (not names[run], -weights[run], run))
    shown = list[str]()
    for run in ranked:
        if len(shown) < _NAMES and not any(f" {run} " in f" {other} " for other in shown):
            shown.append(run)
    rows = [[names[run] or run, f"{len(found[run]):,}"] for run in shown]
    of_real = (
        NOT_KNOWN if others is None else _share_with(others.sample(len(synthetic)), words, rare[0])
    )
    head = ["words", "synthetic texts"]
    return [head, *rows], _share_with(synthetic, words, rare[0]), of_real


def _share_with(texts: Texts, words: Encoded, rare: np.ndarray) -> Measured:
    """Return the share of texts that have a word of one training text."""
    runs = encode(texts.texts, words.vocabulary).runs(1)
    has_one = np.zeros(len(texts), np.bool_)
    has_one[runs.texts[np.isin(runs.codes, rare)]] = True
    return measure(fmean, has_one.tolist(), True)


def _as_name(run: str, text: str) -> str:
    """Return a run as it is written in a text, if all its words are capitalised there and none
    begins a sentence; else "".
    """
    pattern = r"(?<=[\w,;:] )" + "[ -]".join(map(re.escape, run.split()))
    match = re.search(pattern, text, re.IGNORECASE)
    if match is None or not all(word[:1].isupper() for word in re.findall(r"\w+", match[0])):
        return ""
    return match[0]
