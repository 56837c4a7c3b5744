"""What synthetic texts are good for: a classifier of a label that learns from them, tested on real
texts.

The number of bits of a text that its label saves is the mutual information of the two. This is also
what the text tells about its label, and is measured as such: the entropy of the label, less the
cross-entropy of a classifier that reads the text.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from statistics import fmean
from typing import NamedTuple

import numpy as np

from reviewgen.assessment.classifier import INSTALL, cross_validate, fit, hash_texts, is_installed
from reviewgen.assessment.figures import MIN_TEXTS, NOT_KNOWN, Figure, Measured, Section, measure
from reviewgen.assessment.texts import Texts
from reviewgen.web.rendering import percent

_TEXTS = 2_000  # maximum number of texts of each side that a classifier reads
# Synthetic texts are called as good as real ones if a classifier that learns from them has at
# least this share of the accuracy of one that learns from real texts.
_GOOD = 0.97
# A classifier has learned nothing if its accuracy is above chance by at most this share of the
# difference that real texts make.
_NOTHING = 0.15


class _Labelled(NamedTuple):
    """Texts that have a label, and the value of the label of each text."""

    texts: Sequence[str]
    values: np.ndarray


def measure_use(synthetic: Texts, real: Texts) -> Section:
    """Measure what classifiers learn from the synthetic texts, for each label of both tables."""
    columns = [column for column in real.labels if column in synthetic.labels]
    if not columns:
        return Section(
            "use", "What a classifier learns from these texts is not known: there are no labels."
        )
    if not is_installed():
        return Section("use", f"What a classifier learns from these texts is not known. {INSTALL}")
    found = [_measure(column, synthetic, real) for column in columns]
    return Section(
        "use",
        " ".join(words for words, _ in found),
        list(chain.from_iterable(figures for _, figures in found)),
    )


def _measure(column: str, synthetic: Texts, real: Texts) -> tuple[str, list[Figure]]:
    """Return what was found about a label, in a sentence and as figures."""
    # Of the real texts, one half trains two classifiers, each on half of its texts; all classifiers
    # are tested on the other half.
    real_train, test = (_labelled(each, column) for each in real.halves())
    made = _labelled(synthetic, column)
    count = min(_TEXTS, len(made.texts), len(real_train.texts) // 2)
    made = _take(made, count)
    texts, values = _take(real_train, 2 * count)
    first, second = (_Labelled(texts[start::2], values[start::2]) for start in (0, 1))
    test = _take(test, _TEXTS)
    names = [
        f"{column}: accuracy on real texts",
        f"{column}: ratio of accuracies",
        f"{column}: bits it saves of a text",
    ]
    is_small = min(count, len(test.texts)) < MIN_TEXTS
    real_values = set(first.values)
    if is_small or len(real_values) < 2 or not real_values.intersection(made.values):
        note = (
            f"Fewer than {MIN_TEXTS} texts with this label ({4 * MIN_TEXTS} real ones), a single"
            " value, or no value that both tables have."
        )
        keys = (f"{column}_{key}" for key in ("accuracy", "ratio", "bits"))
        figures = [Figure(key, name, note=note) for key, name in zip(keys, names, strict=True)]
        return f"What a classifier of {column} learns from these texts is not known.", figures
    # whether each classifier is right, for each text of the test
    by_made, by_first, by_second = (_are_right(each, test) for each in (made, first, second))
    ratio = measure(_ratio, list(zip(by_made, by_first, strict=True)))
    of_real = measure(_ratio, list(zip(by_second, by_first, strict=True)))
    accuracy = measure(fmean, by_first, True)
    # without a text, the best guess is the most common value
    guess = Counter(first.values).most_common(1)[0][0]
    chance_rate = float((test.values == guess).mean())
    figures = [
        Figure(
            f"{column}_accuracy",
            names[0],
            (measure(fmean, by_made, True), accuracy),
            is_share=True,
            note=(
                f"A classifier that has learned from these texts; always “{guess}” is right in"
                f" {percent(chance_rate)}."
            ),
        ),
        Figure(f"{column}_ratio", names[1], (ratio, of_real)),
        Figure(f"{column}_bits", names[2], (_saved(made), _saved(first))),
    ]
    low, _ = accuracy.interval or (0.0, 1.0)
    if low <= chance_rate:
        words = (
            f"What a classifier of {column} learns from these texts is not known: from real ones,"
            " it learns nothing, either."
        )
        return words, figures
    gain = fmean(by_first) - chance_rate
    is_chance = fmean(by_made) - chance_rate <= _NOTHING * gain
    return _describe(column, ratio, of_real, is_chance), figures


def _describe(column: str, ratio: Measured, of_real: Measured, is_chance: bool) -> str:
    """Return the sentence on a classifier that learns a label from synthetic texts.

    Args:
        column: The label.
        ratio: Its accuracy, as a share of that of a classifier that learns from real texts.
        of_real: The same ratio for two classifiers that learn from real texts.
        is_chance: Whether it is right hardly more often than by chance.
    """
    assert ratio.value is not None
    assert of_real.value is not None
    if is_chance:
        return f"A classifier of {column} learns nothing from these texts: it is at chance."
    share = percent(ratio.value, 0)
    if ratio.interval and ratio.interval[0] > 1:
        return (
            f"To train a classifier of {column}, these texts are better than real ones ({share}):"
            " they may contain the real texts that it is tested on."
        )
    if ratio.value >= min(_GOOD, of_real.value):
        return f"To train a classifier of {column}, these texts are as good as real ones ({share})."
    return (
        f"A classifier of {column} that learns from these texts reaches {share} of the accuracy of"
        " one that learns from real texts."
    )


def _labelled(texts: Texts, column: str) -> _Labelled:
    """Return the texts that have a value of a label, with these values."""
    pairs = zip(texts.texts, texts.labels[column], strict=True)
    known = [(text, value) for text, value in pairs if value is not None]
    values = np.array([value for _, value in known], dtype=object)
    return _Labelled([text for text, _ in known], values)


def _take(labelled: _Labelled, count: int) -> _Labelled:
    """Return ``count`` random texts with their labels, in their order; all if there are fewer."""
    texts, values = labelled
    if count >= len(texts):
        return labelled
    chosen = np.sort(np.random.default_rng(0).choice(len(texts), count, replace=False))
    return _Labelled([texts[index] for index in chosen], values[chosen])


def _are_right(train: _Labelled, test: _Labelled) -> list[bool]:
    """Return for each text of ``test`` whether a classifier that has learned from ``train`` gives
    it the right label.
    """
    if len(set(train.values)) < 2:
        guessed = np.full(len(test.values), train.values[0])
    else:
        model = fit(hash_texts(train.texts), train.values.astype(str))
        guessed = model.predict(hash_texts(test.texts))
    return [bool(same) for same in guessed == test.values.astype(str)]


def _ratio(pairs: Sequence[tuple[bool, bool]]) -> float:
    """Return the ratio of the accuracies of two classifiers; for each text, a pair says whether the
    first and whether the second is right.
    """
    first, second = map(sum, zip(*pairs, strict=True))
    return first / second if second else float("nan")


def _saved(labelled: _Labelled) -> Measured:
    """Return the mutual information of text and label, in bits of a text."""
    texts, values = labelled
    classes = values.astype(str)
    if len(texts) < MIN_TEXTS or len(set(classes)) < 2:
        return NOT_KNOWN
    probabilities, names = cross_validate(hash_texts(texts), classes, texts)
    # the probability of the class that each text has: by the classifier, and without the text
    own = probabilities[np.arange(len(texts)), np.searchsorted(names, classes)]
    counts = Counter(classes)
    prior = np.array([counts[value] / len(classes) for value in classes])
    return measure(fmean, np.log2(own / prior).tolist())
