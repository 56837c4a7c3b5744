"""``report``: what it says about texts whose faults are known, beside real texts of which a half
has none.
"""

import itertools
import json
import random

import pytest

import reviewgen
from reviewgen.assessment import classifier, report
from reviewgen.errors import ConfigError, DataError
from reviewgen.rates import area_under_curve
from tests.support.browser import problems


@pytest.fixture(scope="module")
def rows():
    corpus = reviewgen.corpus("reviews", conditions=["sentiment"])
    chosen = corpus.select(range(0, len(corpus), 8))
    found = [{"text": row["text"][:300], "sentiment": row["sentiment"]} for row in chosen]
    random.Random(0).shuffle(found)
    return found


@pytest.fixture(scope="module")
def halves(rows):
    return reviewgen.report(rows[:1000], rows[1000:3000], rows[3000:4000])


def show(found, name, key):
    return found.section(name).figure(key).synthetic


@pytest.mark.slow
def test_real_texts_are_like_real_texts(halves):
    assert show(halves, "likeness", "auc").value == pytest.approx(0.5, abs=0.05)
    assert show(halves, "privacy", "nearer").value == pytest.approx(0.5, abs=0.06)
    assert show(halves, "privacy", "membership").value == pytest.approx(0.5, abs=0.04)
    assert show(halves, "use", "sentiment_ratio").value == pytest.approx(1, abs=0.1)
    assert show(halves, "privacy", "copy_rate").value < 0.01
    assert "cannot be told" in halves.section("likeness").words
    assert "as varied" in halves.section("variety").words
    assert "no more of the training texts" in halves.section("privacy").words


@pytest.mark.slow
def test_a_copy_of_the_training_texts_is_found(rows):
    found = reviewgen.report(rows[1000:2000], rows[1000:3000], rows[3000:4000])
    assert show(found, "privacy", "copy_rate").value > 0.95
    assert show(found, "privacy", "nearer").value > 0.95
    assert show(found, "privacy", "membership").value > 0.7  # half of the training texts
    assert show(found, "likeness", "auc").value == pytest.approx(0.5, abs=0.06)
    assert "they copy them" in found.section("privacy").words
    assert "1,000 of 1,000" in " ".join(found.notes)


@pytest.mark.slow
def test_shuffled_labels_are_worth_nothing(rows):
    labels = [row["sentiment"] for row in rows[:1000]]
    random.Random(1).shuffle(labels)
    made = [row | {"sentiment": label} for row, label in zip(rows[:1000], labels, strict=True)]
    section = reviewgen.report(made, rows[1000:3000]).section("use")
    assert section.figure("sentiment_accuracy").synthetic.value < 0.6
    assert section.figure("sentiment_bits").synthetic.value < 0.05
    assert "at chance" in section.words


def test_few_texts_are_not_known(rows):
    found = reviewgen.report(rows[:20], rows[1000:1500])
    assert show(found, "likeness", "auc").value is None
    assert "not known" in found.section("variety").words
    assert any("20 texts" in note for note in found.notes)
    json.dumps(found.to_dict(), allow_nan=False)


def test_labels_of_one_side_are_left_out(rows):
    made = [{"text": row["text"], "stars": number % 5} for number, row in enumerate(rows[:100])]
    found = reviewgen.report(made, rows[1000:1500])
    assert "no labels" in found.section("use").words
    assert {"stars", "sentiment"} == {note.split("'")[1] for note in found.notes}


def test_a_label_of_neither_side_is_an_error(rows):
    with pytest.raises(ConfigError, match="'nope'"):
        reviewgen.report(rows[:60], rows[1000:1100], labels=["nope"])


def test_held_out_texts_that_are_training_texts_are_said(rows):
    found = reviewgen.report(rows[:60], rows[1000:1120], rows[1000:1120])
    assert any("not used as held-out" in note for note in found.notes)
    assert "without held-out texts" in found.section("privacy").words


@pytest.mark.slow
def test_without_scikit_learn_the_rest_is_measured(rows, monkeypatch):
    monkeypatch.setattr(classifier, "find_spec", lambda name: None)
    found = reviewgen.report(rows[:200], rows[1000:1500])
    assert "pip install 'reviewgen[report]'" in found.section("likeness").words
    assert "pip install 'reviewgen[report]'" in found.section("use").words
    assert show(found, "likeness", "bits_of_synthetic").value is not None
    assert show(found, "variety", "distinct_2").value is not None


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_read_by_all(halves, tmp_path, browser, scheme):
    page = tmp_path / "page.html"
    halves.save_html(page)
    assert problems(browser, page, 390, scheme) == []


def test_the_area_is_the_share_of_pairs_in_order():
    draw = random.Random(0)
    first, second = ([draw.randrange(5) for _ in range(30)] for _ in range(2))
    pairs = [(a > b) + (a == b) / 2 for a, b in itertools.product(first, second)]
    assert area_under_curve(first, second) == pytest.approx(sum(pairs) / len(pairs))


def test_a_sample_is_taken_of_large_tables_and_said(rows, monkeypatch):
    monkeypatch.setattr(report, "MAX_SYNTHETIC", 100)
    found = reviewgen.report(rows[:300], rows[1000:1500])
    assert len(found.synthetic) == 100
    assert any("a random sample of 100 of 300 texts" in note for note in found.notes)


def test_what_is_missing_is_one_sentence(rows):
    with pytest.raises(ConfigError, match="--train"):
        reviewgen.report(rows[:100])
    with pytest.raises(DataError, match="no column of text"):
        reviewgen.report([{"stars": 1}, {"stars": 2}], rows[:100])


@pytest.mark.slow
def test_the_command_writes_a_page_of_two_files(rows, tmp_path, monkeypatch, run_command):
    monkeypatch.chdir(tmp_path)
    for name, some in (("made.jsonl", rows[:150]), ("real.jsonl", rows[1000:1400])):
        lines = (json.dumps(row) for row in some)
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    command = "report", "made.jsonl", "--train", "real.jsonl"
    status, out, err = run_command(*command)
    assert status == 0, err
    assert "real against real" in out
    assert "not known" in out
    assert "200; the page has" in out
    html = (tmp_path / "made-report.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "Names are not searched for" in html
    _, out, err = run_command(*command, "--json")
    assert not err  # no page, though one exists
    figures = json.loads(out)["sections"]["likeness"]["figures"]
    assert 0.3 < figures["auc"]["synthetic"]["value"] < 0.7
    assert run_command(*command, "--out", "made-report.html")[0] == 1  # it exists


@pytest.mark.slow
def test_a_model_knows_its_corpus(rows, tmp_path, run_command):
    source = tmp_path / "reviews.jsonl"
    lines = (json.dumps(row) for row in rows[:2000])
    source.write_text("\n".join(lines), encoding="utf-8")
    model = reviewgen.train(
        "ngram-word", source, conditions=["sentiment"], progress=False, out=tmp_path / "m"
    )
    found = reviewgen.report(model=model, n=200)
    assert found.train.name == f"the train split of {source}"
    assert len(found.synthetic) == 200
    assert set(found.synthetic.labels) == {"sentiment"}
    assert show(found, "privacy", "membership").value > 0.5
    source.unlink()
    with pytest.raises(DataError, match="--train"):
        reviewgen.report(model=model, n=60)
