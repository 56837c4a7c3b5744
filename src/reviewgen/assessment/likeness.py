"""Whether synthetic texts can be told from real ones: by a classifier, by their lengths and labels,
and by a language model.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from statistics import fmean
from typing import Any

import numpy as np

from reviewgen.assessment.classifier import (
    INSTALL,
    cross_validate,
    fit,
    hash_texts,
    is_installed,
)
from reviewgen.assessment.figures import (
    MIN_TEXTS,
    NOT_KNOWN,
    Figure,
    Measured,
    Section,
    measure,
)
from reviewgen.assessment.modelling import Scored, model_of, score
from reviewgen.assessment.texts import Texts, split_words
from reviewgen.rates import area_under_curve
from reviewgen.sentences import sentence_ends

_CLASSIFIED = 2_000  # maximum number of texts of each side that the classifier reads
_MODELLED = 3_000  # maximum number of texts that a language model is trained on
_SCORED = 1_000  # maximum number of texts of each side that the language model scores
_LISTED = 20  # maximum number of n-grams that are listed
_CANDIDATES = 4_000  # maximum number of n-grams that are scored by the classifier's weights
_CHARACTERS = 2_000  # n-grams are looked for in this many first characters of a text
_EASY = 0.75  # from this area under the curve on, texts are easy to tell apart
_HARD = 0.6  # below this area under the curve, they are hard to tell apart


def measure_likeness(synthetic: Texts, real: Texts) -> Section:
    """Measure how alike synthetic and real texts are, beside two halves of the real texts."""
    first, second = real.halves()
    count = min(len(synthetic), len(first), len(second))
    made, first, second = (each.sample(count) for each in (synthetic, first, second))
    area, real_area, tell_tales = _classify(made, first, second)
    note = "" if is_installed() else INSTALL
    if area.value is not None:
        sides = f"{area.texts // 2:,} texts of each side"
        note = f"0.50: cannot be told apart; 1.00: always. {sides}; five folds."
    figures = [
        Figure("auc", "classifier, area under the curve", (area, real_area), note=note),
        *_lengths(synthetic, real),
        *_bits(made, first, second),
        *_labels(synthetic, real),
    ]
    lists = {"What tells them apart": tell_tales} if tell_tales else {}
    return Section("likeness", _describe(area, tell_tales), figures, lists=lists)


def _describe(area: Measured, tell_tales: Sequence[Sequence[str]]) -> str:
    """Return the sentence on how well a classifier tells the texts from real ones, and by what."""
    if area.value is None:
        if not is_installed():
            return f"Whether these texts can be told from real ones is not known. {INSTALL}"
        return (
            "Whether these texts can be told from real ones is not known: this needs"
            f" {MIN_TEXTS} different synthetic texts, and more than {2 * MIN_TEXTS} real ones."
        )
    if not tell_tales:
        return "These texts cannot be told from real ones by their words."
    by = ", ".join(f"“{row[0]}”" for row in tell_tales[1:4])  # the first row is the header
    mostly = f", mostly by {by}" if by else ""
    if area.value >= _EASY:
        return f"These texts are easy to tell from real ones{mostly}."
    if area.value >= _HARD:
        return f"These texts can often be told from real ones{mostly}."
    return f"These texts are hard to tell from real ones, but not impossible{mostly}."


def _classify(
    made: Texts, first: Texts, second: Texts
) -> tuple[Measured, Measured, Sequence[Sequence[str]]]:
    """Train a classifier to tell synthetic texts, ``made``, from real ones, and another one to tell
    the ``first`` half of the real texts from the ``second``.

    Returns:
        The area under the curve of synthetic against real texts; that of the two halves of the real
        texts; and a table of the n-grams that tell synthetic texts from real ones, empty if the
        first area may be chance.
    """
    if not is_installed() or min(map(Texts.count_different, (made, first, second))) < MIN_TEXTS:
        return NOT_KNOWN, NOT_KNOWN, ()
    made, first, second = (each.sample(_CLASSIFIED) for each in (made, first, second))
    area, features, is_first = _area(made.texts, second.texts)
    real_area, _, _ = _area(first.texts, second.texts)
    if not area.interval or area.interval[0] <= max(0.5, real_area.value or 0.5):
        return area, real_area, ()
    weights = fit(features, is_first).coef_[0]
    return area, real_area, _tell_tales(made.texts, second.texts, weights)


def _area(first: Sequence[str], second: Sequence[str]) -> tuple[Measured, Any, np.ndarray]:
    """Return the area under the curve of a classifier between two sets of texts, the features of
    all texts, and whether each text is of the first set.
    """
    texts = [*first, *second]
    is_first = np.arange(len(texts)) < len(first)
    features = hash_texts(texts)
    # the probability that each text is of the first set, which is the class True, in column 1
    scores = cross_validate(features, is_first, texts)[0][:, 1]
    # ``measure`` splits its items into groups: as pairs, each group has texts of both sets
    pairs = list(zip(scores[is_first], scores[~is_first], strict=False))
    area = measure(lambda some: area_under_curve(*zip(*some, strict=True)), pairs)
    return area._replace(texts=len(texts)), features, is_first


def _tell_tales(
    made: Sequence[str], real: Sequence[str], weights: np.ndarray
) -> Sequence[Sequence[str]]:
    """Return a table of the words and pairs of words that tell synthetic texts from real ones, with
    the share of the texts of each side that have them. Both sides have the same number of texts;
    ``weights`` are those of the classifier's features.
    """
    # for each side, the number of texts that have each n-gram
    sides = [Counter(chain.from_iterable(map(_grams, texts))) for texts in (made, real)]
    gaps = {gram: abs(sides[0][gram] - sides[1][gram]) for gram in sides[0] | sides[1]}
    grams = sorted(gaps, key=lambda gram: (-gaps[gram], gram))[:_CANDIDATES]
    # how synthetic the classifier would find a text of each n-gram alone
    effects = hash_texts(grams) @ weights
    shares = [[side[gram] / len(made) for side in sides] for gram in grams]
    # positive if the classifier takes the n-gram as a sign of the side that has it more often
    worth = [
        effect * (made_share - real_share)
        for effect, (made_share, real_share) in zip(effects, shares, strict=True)
    ]
    best = sorted(range(len(grams)), key=lambda index: -worth[index])[:_LISTED]
    rows = [
        [grams[index], *(f"{share:.1%}".replace("%", " %") for share in shares[index])]
        for index in best
        if worth[index] > 0
    ]
    return [["n-gram", "synthetic texts with it", "real texts with it"], *rows]


def _grams(text: str) -> set[str]:
    """Return the different words, and pairs of adjacent words, at the beginning of a text."""
    words = split_words(text[:_CHARACTERS])
    return {*words, *(" ".join(pair) for pair in pairwise(words))}


def _lengths(synthetic: Texts, real: Texts) -> list[Figure]:
    """Return figures of the mean length of a text, in characters and in sentences."""
    kinds: Sequence[tuple[str, str, Callable[[str], int]]] = (
        ("characters", "characters of a text", len),
        ("sentences", "sentences of a text", lambda text: len(sentence_ends(text))),
    )
    figures = []
    for key, name, length in kinds:
        made, others = (list(map(length, each.texts)) for each in (synthetic, real))
        both = measure(fmean, made), measure(fmean, others)
        figures.append(Figure(key, name, both, note="The mean.", digits=1))
    return figures


def _labels(synthetic: Texts, real: Texts) -> list[Figure]:
    """Return a figure for each value of each label that both tables have: the share of texts with
    this value.
    """
    figures = []
    for column in real.labels:
        if column not in synthetic.labels:
            continue
        made, others = (
            [value for value in each.labels[column] if value is not None]
            for each in (synthetic, real)
        )
        for value in sorted({*made, *others}):
            both = _share_of(value, made), _share_of(value, others)
            figures.append(
                Figure(f"{column}={value}", f"texts with {column} {value}", both, is_share=True)
            )
    return figures


def _share_of(value: str, values: Sequence[str]) -> Measured:
    """Return which share of the values equal a value."""
    return measure(fmean, [each == value for each in values], True)


def _bits(made: Texts, first: Texts, second: Texts) -> list[Figure]:
    """Return two figures of bits per character: of synthetic texts under a model of real texts, and
    of real texts under a model of synthetic ones. Beside both stand the bits of real texts,
    ``second``, under a model of other real texts, ``first``.
    """
    made_by_real = real_by_real = real_by_made = NOT_KNOWN
    if min(map(Texts.count_different, (made, first))) >= MIN_TEXTS:
        made_by_real, real_by_real = _bits_under(first.sample(_MODELLED), made, second)
        (real_by_made,) = _bits_under(made.sample(_MODELLED), second)
    return [
        Figure(
            "bits_of_synthetic",
            "bits per character, model of real texts",
            (made_by_real, real_by_real),
            note="Far below that of real texts: too predictable, or copied.",
            digits=3,
        ),
        Figure(
            "bits_of_real",
            "bits per character of real texts, model of these",
            (real_by_made, real_by_real),
            note=(
                "An n-gram of characters, trained on the synthetic texts; real: trained on other"
                " real texts."
            ),
            digits=3,
        ),
    ]


def _bits_under(trained_on: Texts, *scored: Texts) -> list[Measured]:
    """Return the bits per character of each of ``scored`` under an n-gram model of characters."""
    model = model_of(trained_on)
    return [measure(_per_character, score(model, texts.sample(_SCORED).texts)) for texts in scored]


def _per_character(scored: Sequence[Scored]) -> float:
    """Return the bits per character of all texts together."""
    nats = sum(each.nats for each in scored)
    return nats / sum(each.characters for each in scored) / math.log(2)
