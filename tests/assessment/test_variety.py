"""Whether synthetic texts repeat each other."""

import random

import pytest

from reviewgen.assessment import variety
from reviewgen.assessment.variety import measure_variety
from tests.assessment.real import real_texts, table


@pytest.mark.slow
def test_real_texts_are_as_varied_as_real_texts() -> None:
    real = real_texts()
    section = measure_variety(table(real[:2000]), table(real[2000:6000]))
    assert section.words == "These texts are as varied as real ones."
    for figure in section.figures:
        assert figure.synthetic.value is not None
        assert figure.real.value is not None
        assert abs(figure.synthetic.value - figure.real.value) < 0.05, figure.key


def test_twenty_texts_with_small_changes_are_named_near_duplicates() -> None:
    real = real_texts()
    draw = random.Random(0)
    changed = []
    for _ in range(1000):
        words = draw.choice(real[:20]).split()
        for _ in range(3):
            words[draw.randrange(len(words))] = draw.choice(["good", "bad", "great", "poor"])
        changed.append(" ".join(words))
    section = measure_variety(table(changed), table(real[20:2020]))
    share = section.figure("near_duplicates")
    assert share.synthetic.value is not None
    assert share.synthetic.value > 0.5
    assert share.real.value == 0
    assert f"{100 * share.synthetic.value:.1f} % are near duplicates" in section.words
    head, *rows = section.lists["Texts with near duplicates"]
    assert head == ["text", "near duplicates"]
    assert len(rows) >= 15
    _, duplicates = section.charts
    synthetic, of_real = duplicates.panels[0].series
    assert synthetic.points[-1][1] > synthetic.points[0][1] > of_real.points[-1][1]


def test_repeated_beginnings_are_named_and_listed() -> None:
    real = real_texts()
    begun = [f"As a viewer {text}" for text in real[:300]]
    section = measure_variety(table(begun), table(real[300:900]))
    assert section.figure("beginnings").synthetic.value == 1
    assert "100.0 % begin as another one does" in section.words
    assert section.lists["Repeated beginnings"][1] == ["as a viewer", "300", "0"]


def test_both_sides_have_as_many_texts() -> None:
    real = real_texts()
    section = measure_variety(table(real[:100]), table(real[100:3000]))
    assert {figure.synthetic.texts for figure in section.figures} == {100}
    assert {figure.real.texts for figure in section.figures} == {100}


def test_few_texts_are_not_known() -> None:
    section = measure_variety(table(real_texts()[:49]), table(real_texts()[:100]))
    assert "not known" in section.words
    assert not section.figures


def test_texts_without_words_are_measured() -> None:
    section = measure_variety(table(["!?"] * 60), table(real_texts()[:100]))
    assert section.figure("vocabulary").synthetic.value == 0
    assert "repeat each other" in section.words


def test_without_rensa_near_duplicates_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variety, "find_spec", lambda name: None)
    real = real_texts()
    section = measure_variety(table(real[:500]), table(real[500:1500]))
    assert "near duplicates are not known" in section.words
