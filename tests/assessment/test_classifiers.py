"""What classifiers say of texts and labels that are hard to learn from."""

import warnings
from collections.abc import Sequence
from statistics import fmean

import pytest

from reviewgen.assessment.classifier import FOLDS
from reviewgen.assessment.figures import measure
from reviewgen.assessment.likeness import measure_likeness
from reviewgen.assessment.privacy import measure_privacy
from reviewgen.assessment.texts import Texts
from reviewgen.assessment.use import measure_use
from tests.assessment.real import real_texts, table


def labelled(texts: Sequence[str], labels: Sequence[str]) -> Texts:
    return Texts("texts", texts, {"kind": labels}, len(texts))


@pytest.mark.parametrize("different", [1, 3])
def test_a_text_that_is_repeated_is_no_sample(different: int) -> None:
    real = real_texts()
    made = table(real[:different] * 100)
    likeness = measure_likeness(made, table(real[100:400]))
    assert "50 different synthetic texts" in likeness.words
    privacy = measure_privacy(made, table(real[100:400]), table(real[400:401] * 100))
    for figure in (likeness.figure("auc"), privacy.figure("membership"), privacy.figure("nearer")):
        assert figure.synthetic.value is None


def test_only_texts_that_can_be_told_have_tell_tales() -> None:
    real = real_texts()
    section = measure_likeness(table(real[:300]), table(real[300:900]))
    assert "cannot be told" in section.words
    assert not section.lists


def test_likeness_says_how_many_real_texts_it_needs() -> None:
    real = real_texts()
    section = measure_likeness(table(real[:60]), table(real[100:160]))
    assert "more than 100 real ones" in section.words


def test_rare_values_of_a_label_are_learned_without_a_warning() -> None:
    real = real_texts()
    labels = [str(number // (FOLDS - 2)) for number in range(60)]
    made = labelled(real[:60], labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        section = measure_use(made, labelled(real[60:360], labels * 5))
    assert section.figure("kind_bits").synthetic.value is not None


def test_a_label_that_real_texts_do_not_teach_is_not_known() -> None:
    real = real_texts()
    labels = ["a", "b", "b"] * 200
    section = measure_use(labelled(real[:600], labels), labelled(real[600:1200], labels))
    assert "from real ones, it learns nothing, either" in section.words


def test_labels_with_other_names_are_not_known() -> None:
    real = real_texts()
    made = labelled(real[:300], ["A", "B"] * 150)
    section = measure_use(made, labelled(real[300:900], ["a", "b"] * 300))
    assert "not known" in section.words
    assert "no value that both tables have" in section.figure("kind_ratio").note


def test_a_sorted_table_has_the_interval_of_a_shuffled_one() -> None:
    interval = measure(fmean, [0] * 500 + [1] * 500, True).interval
    assert interval is not None
    assert 0.03 < interval[1] - interval[0] < 0.15
