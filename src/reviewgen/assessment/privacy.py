"""What synthetic texts give away about the texts that they were made from."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
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

_COMPARED = 2_000  # maximum number of texts whose nearest real text is looked for
# maximum number of training texts, and of held-out texts, whose bits are measured
_SCORED = 4_000
_SCORED_BY_MODEL = 300  # the same if a model of the user measures them, which may be slow
_COPIED = 0.01  # a smaller share of copied characters is not worth a sentence
_DIRECT = ("email", "phone")  # the kinds of personal data that are contact details
_FALSE_ALARMS = 0.01  # the share of other texts that a test takes for training texts
_LISTED = 20  # maximum number of copied spans that are listed
_NAMES = 200  # maximum number of runs of words, and of personal data, that are listed
_CHECKED = 5_000  # maximum number of runs of words, the rarest, that are checked for being names
_MAX_SHOWN = 120  # maximum number of characters of a listed span
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
        # a text that is also a training text is not held out
        held_out = held_out.take(
            [index for index, text in enumerate(held_out.texts) if text not in known]
        )
    others = held_out if held_out and held_out.count_different() >= MIN_TEXTS else None
    span_rows, copying, copied, copied_of_real = _copied(synthetic, trained_on, others)
    words = encode(trained_on.texts)
    run_rows, replayed, replayed_of_real = _replayed(synthetic, words, others)
    data_rows, contact_details, data_shares = _personal(synthetic, trained_on, others)
    figures = [
        Figure(
            "copy_rate",
            "characters in copied spans",
            (copied, copied_of_real),
            is_share=True,
            note=f"Spans of {COPY_CHARACTERS} characters or more of a training text, joined.",
        ),
        *_near(synthetic, trained_on, others),
        *_membership(synthetic, trained_on, others, model),
        Figure(
            "rare_words",
            "texts with a word of a single training text",
            (replayed, replayed_of_real),
            is_share=True,
            note=f"Listed below with the runs of up to {LONGEST} words.",
        ),
        Figure(
            "personal_data",
            "texts with personal data of training texts",
            data_shares,
            is_share=True,
            note=f"What looks like {', '.join(name for name, _ in PERSONAL_DATA.values())}.",
        ),
    ]
    lists = {
        "Longest copied spans, joined where they overlap": span_rows,
        "Personal data": data_rows,
        "Names and words of one training text only": run_rows,
    }
    verdict = _describe({figure.key: figure for figure in figures}, contact_details, model)
    return Section(
        "privacy",
        f"{verdict} Texts with a copied span of {COPY_CHARACTERS} characters or more: {copying:,}"
        f" of {len(synthetic):,}. Names are not searched for: only words of a single training text"
        " are listed.",
        figures,
        lists={title: rows for title, rows in lists.items() if len(rows) > 1},
    )


def _describe(figures: dict[str, Figure], contact_details: int, model: Any) -> str:
    """Return what the figures say in sentences, the worst first. ``contact_details`` is how many
    e-mail addresses and telephone numbers of training texts the synthetic texts repeat.
    """
    found = list[str]()
    copied, near, member = (figures[key] for key in ("copy_rate", "nearer", "membership"))
    share = copied.show(copied.synthetic._replace(interval=None))
    if contact_details:
        found.append(
            f"repeat {counted(contact_details, 'contact detail')} of them (e-mail, telephone)"
        )
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
    """Look for spans of training texts in the synthetic texts.

    Returns:
        A table of the longest copied spans; the number of synthetic texts with a copied span; and
        the share of characters in copied spans, of the synthetic texts and of other real texts.
    """
    some = None if others is None else others.sample(len(synthetic))
    texts = [*synthetic.texts, *(some.texts if some else ())]
    all_spans = TextWindows(texts).spans(trained_on.texts)  # those of each text
    of_real = NOT_KNOWN if some is None else _copy_rate(some, all_spans[len(synthetic) :])
    spans = all_spans[: len(synthetic)]
    counts = Counter[str]()  # the number of synthetic texts with each span
    for text, places in zip(synthetic.texts, spans, strict=True):
        counts.update({text[start:end] for start, end in places})
    ranked = sorted(counts, key=lambda span: (-len(span), span))[:_LISTED]
    rows = [[_mask_and_cut(span), f"{len(span):,}", f"{counts[span]:,}"] for span in ranked]
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
        """Return the copied characters of some texts, as a share of all their characters."""
        copied, characters = map(sum, zip(*some, strict=True))
        return copied / characters

    return measure(share, pairs, True)


def _mask_and_cut(text: str) -> str:
    """Return the beginning of a copied span on one line, with its personal data masked."""
    for _, value in find_personal_data(text):
        text = text.replace(value, mask(value))
    text = " ".join(text.split())
    return text[:_MAX_SHOWN] + "…" * (len(text) > _MAX_SHOWN)


def _near(synthetic: Texts, trained_on: Texts, others: Texts | None) -> list[Figure]:
    """Return the figure of the share of texts that are nearer to a training text than to a held-out
    one, as if there were as many of both. For the same share of real texts, half of the held-out
    texts are compared with the training texts and the other half.
    """
    both = NOT_KNOWN, NOT_KNOWN
    if others is not None:
        first, second = others.halves()
        words = encode([*trained_on.texts, *first.texts, *second.texts])
        index = Neighbours(words)
        member_count = len(trained_on)
        both = (
            _nearer(synthetic, words, index, member_count, member_count),
            _nearer(first, words, index, member_count, member_count + len(first)),
        )
    note = _NEEDS_HELD_OUT if both[0].value is None else "50 % are expected if they copy nothing."
    name = "nearer to a training text than to a held-out one"
    return [Figure("nearer", name, both, is_share=True, note=note)]


def _nearer(
    texts: Texts, words: Encoded, index: Neighbours, member_count: int, others_start: int
) -> Measured:
    """Return the balanced share of texts that are nearer to a member than to one of the others.

    Args:
        texts: The texts.
        words: The words of the texts in the index.
        index: The members and the others.
        member_count: The number of members, which are the first texts in the index.
        others_start: The place of the first of the others, which are the last texts in the index.
    """
    other_count = index.count - others_start
    # how often the nearest text is a member by chance; a tie counts as this
    chance = member_count / (member_count + other_count)
    compared = encode(texts.sample(_COMPARED).texts, words.vocabulary)
    runs = compared.runs(2)
    starts = np.searchsorted(runs.texts, np.arange(1, compared.count))
    are_nearer = []
    for codes in np.split(runs.codes, starts):
        nearness = index.nearness(codes)
        gap = nearness[:member_count].max() - nearness[others_start:].max()
        are_nearer.append(chance if gap == 0 else float(gap > 0))

    def balanced(some: Sequence[float]) -> float:
        """Return the share of some texts that are nearer to a member, weighted as if there were as
        many members as others: ``chance`` becomes 0.5.
        """
        share = sum(some) / len(some)
        return share * other_count / (share * other_count + (1 - share) * member_count)

    return measure(balanced, are_nearer, True)


def _membership(
    synthetic: Texts, trained_on: Texts, others: Texts | None, model: Any
) -> list[Figure]:
    """Return two figures of how well the bits of a text tell whether it is a training text: the
    area under the curve, and the hits at few false alarms.

    The bits are those under ``model``, or without one, under an n-gram model of the synthetic
    texts. Beside them stand those under an n-gram model of real texts that are not training texts.
    """
    area = hits = NOT_KNOWN, NOT_KNOWN
    area_note = hits_note = _NEEDS_HELD_OUT
    if others is not None and min(map(Texts.count_different, (synthetic, trained_on))) >= MIN_TEXTS:
        first, second = others.halves()
        of_made = _scores(model or model_of(synthetic), trained_on, others, model is not None)
        of_real = _scores(model_of(second), trained_on, first, False)
        area = measure(_area, of_made, True), measure(_area, of_real, True)
        hits = measure(_hits, of_made, True), measure(_hits, of_real, True)
        scored_by = "this model" if model is not None else "an n-gram that has learned from them"
        area_note = (
            f"Whether the bits of a text under {scored_by} tell that it was a training text; 0.50"
            " is chance."
        )
        hits_note = "1 % is chance."
    hits_name = f"membership, hits at {percent(_FALSE_ALARMS, 0)} false alarms"
    return [
        Figure("membership", "membership, area under the curve", area, note=area_note),
        Figure("membership_hits", hits_name, hits, is_share=True, note=hits_note),
    ]


def _scores(model: Any, members: Texts, others: Texts, is_slow: bool) -> list[tuple[float, float]]:
    """Return pairs of the nats per token of a training text (a member) and of another text. Fewer
    pairs are measured if the model is slow.
    """
    count = min(_SCORED_BY_MODEL if is_slow else _SCORED, len(members), len(others))
    texts = [*members.sample(count).texts, *others.sample(count).texts]
    means = [each.nats / each.tokens for each in score(model, texts)]
    return list(zip(means[:count], means[count:], strict=True))


def _area(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the area under the curve of telling members from others by their fewer nats."""
    members, others = zip(*pairs, strict=True)
    return area_under_curve(others, members)


def _hits(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the share of members that have fewer nats than a limit. The limit is so low that
    only the share ``_FALSE_ALARMS`` of the others have fewer.
    """
    members, others = map(np.array, zip(*pairs, strict=True))
    # the quantile is not interpolated, since a model without smoothing gives infinite nats
    return float((members < np.quantile(others, _FALSE_ALARMS, method="lower")).mean())


def _personal(
    synthetic: Texts, trained_on: Texts, others: Texts | None
) -> tuple[list[list[str]], int, tuple[Measured, Measured]]:
    """Look for personal data of training texts in the synthetic texts.

    Returns:
        A table of all personal data of the synthetic texts, masked; the number of different e-mail
        addresses and telephone numbers in it that training texts have, too; and the share of texts
        with personal data that training texts have, of synthetic texts and of other real texts.
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
    contact_details = sum(kind in _DIRECT for kind, _ in replayed)
    return [head, *rows], contact_details, (_share_of(by_text, replayed), of_real)


def _find_data(
    texts: Texts, known: set[tuple[str, str]]
) -> tuple[list[set[tuple[str, str]]], set[tuple[str, str]]]:
    """Return the personal data of each text as pairs of kind and value, and all pairs of any text
    that are in ``known``.
    """
    by_text = [set(find_personal_data(text)) for text in texts.texts]
    return by_text, known.intersection(chain.from_iterable(by_text))


def _share_of(by_text: Sequence[set[Any]], some: set[Any]) -> Measured:
    """Return the share of texts whose set has at least one of ``some``."""
    return measure(fmean, [bool(each & some) for each in by_text], True)


def _replayed(
    synthetic: Texts, words: Encoded, others: Texts | None
) -> tuple[list[list[str]], Measured, Measured]:
    """Look for the rare runs of words in the synthetic texts: runs that only one training text has.
    ``words`` are those of the training texts.

    Returns:
        A table of the rare runs, names first; and the share of texts with a rare word, of synthetic
        texts and of other real texts.
    """
    rare = []  # for each length, the codes of the rare runs
    for length in range(1, LONGEST + 1):
        codes, counts = count_texts(words.runs(length))
        rare.append(codes[counts == 1])
    made = encode(synthetic.texts, words.vocabulary)
    found: dict[str, set[int]] = {}  # for each rare run, the indices of the synthetic texts with it
    for length, codes in enumerate(rare, 1):
        runs = made.runs(length)
        hits = np.flatnonzero(np.isin(runs.codes, codes))
        for text, start in zip(runs.texts[hits].tolist(), runs.firsts[hits].tolist(), strict=True):
            found.setdefault(made.spell(start, length), set()).add(text)
    names = _find_names(found, synthetic, words)
    shown = list[str]()
    for run in names:
        # a run that is a part of one that is shown is left out
        if len(shown) < _NAMES and not any(f" {run} " in f" {other} " for other in shown):
            shown.append(run)
    rows = [[names[run] or run, f"{len(found[run]):,}"] for run in shown]
    of_real = (
        NOT_KNOWN if others is None else _share_with(others.sample(len(synthetic)), words, rare[0])
    )
    head = ["words", "synthetic texts"]
    return [head, *rows], _share_with(synthetic, words, rare[0]), of_real


def _find_names(found: Mapping[str, set[int]], synthetic: Texts, words: Encoded) -> dict[str, str]:
    """Return for each run the name that it seems to be, or "" (see ``_as_name``). The runs are in
    the order of the list: names first, and runs of rarer words before others.
    """
    codes, counts = count_texts(words.runs(1))
    rarity = dict(zip(codes.tolist(), np.log(words.count / counts).tolist(), strict=True))
    weights = {run: sum(rarity[words.vocabulary[word]] for word in run.split()) for run in found}
    # for each synthetic text, its capitalised words, in lower case
    capitals = [
        {word.casefold() for word in words_of(text) if word[0].isupper()}
        for text in synthetic.texts
    ]
    # A run is looked at in the first synthetic text that has it. To save time, at most ``_CHECKED``
    # runs are passed to ``_as_name``, beginning with those whose words are all capitalised.
    firsts = {run: min(texts) for run, texts in found.items()}
    are_capitalised = {run: capitals[firsts[run]].issuperset(run.split()) for run in found}
    checked = sorted(found, key=lambda run: (not are_capitalised[run], -weights[run], run))
    names = {run: _as_name(run, synthetic.texts[firsts[run]]) for run in checked[:_CHECKED]}
    ranked = sorted(names, key=lambda run: (not names[run], -weights[run], run))
    return {run: names[run] for run in ranked}


def _share_with(texts: Texts, words: Encoded, rare: np.ndarray) -> Measured:
    """Return the share of texts that have a word whose code is in ``rare``."""
    runs = encode(texts.texts, words.vocabulary).runs(1)
    has_one = np.zeros(len(texts), np.bool_)
    has_one[runs.texts[np.isin(runs.codes, rare)]] = True
    return measure(fmean, has_one.tolist(), True)


def _as_name(run: str, text: str) -> str:
    """Return a run as it is written in a text, if all its words are capitalised there and none
    begins a sentence; else "".
    """
    # a word that follows a letter or one of these signs does not begin a sentence
    pattern = r"(?<=[\w,;:] )" + "[ -]".join(map(re.escape, run.split()))
    match = re.search(pattern, text, re.IGNORECASE)
    if match is None or not all(word[:1].isupper() for word in re.findall(r"\w+", match[0])):
        return ""
    return match[0]
