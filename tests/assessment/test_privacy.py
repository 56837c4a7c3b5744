"""What synthetic texts give away about the texts that they were made from."""

import random
from collections.abc import Sequence

import pytest

import reviewgen
from reviewgen.assessment.figures import Section
from reviewgen.assessment.privacy import measure_privacy
from reviewgen.personal import find_personal_data, mask
from tests.assessment.real import real_texts, table

NAMES = "Ottoline Vasquetti", "Zebulon Quixworth", "Marguerite Thornquist"
PHONES = "555-867-5309", "(212) 555-0147", "+44 20 7946 0958", "646.555.0182", "+1 415 555 0133"
USERS = "ab", "bc", "cd", "de", "ef", "fg", "gh", "hi", "ij", "jk"
MAILS = tuple(f"{user}@{user[::-1]}.org" for user in USERS)


def value(section: Section, key: str) -> float:
    found = section.figure(key).synthetic.value
    assert found is not None
    return found


@pytest.mark.slow
def test_other_real_texts_give_nothing_away() -> None:
    real = real_texts()
    section = measure_privacy(table(real[:8000]), table(real[8000:16000]), table(real[16000:24000]))
    assert value(section, "nearer") == pytest.approx(0.5, abs=0.02)
    assert value(section, "membership") == pytest.approx(0.5, abs=0.02)
    assert value(section, "membership_hits") < 0.03
    assert "no more" in section.words


@pytest.mark.slow
def test_more_training_than_held_out_texts_are_no_nearer() -> None:
    real = real_texts()
    section = measure_privacy(table(real[:3000]), table(real[3000:9000]), table(real[9000:12000]))
    low, high = section.figure("nearer").synthetic.interval or (1, 0)
    assert low < 0.5 < high


def test_texts_that_share_no_words_are_as_near_to_both() -> None:
    real = real_texts()
    other = [f"zqx{number} wvb{number}" for number in range(100)]
    section = measure_privacy(table(other), table(real[:1000]), table(real[1000:1100]))
    assert value(section, "nearer") == pytest.approx(0.5)


@pytest.fixture(scope="module")
def memorised() -> tuple[Sequence[str], Sequence[str], reviewgen.ReviewModel]:
    """Texts of an n-gram of order 16 without smoothing, its training texts, and the n-gram."""
    texts = real_texts()[:300]
    model = reviewgen.train(
        "ngram-char",
        texts,
        model={"order": 16, "smoothing": "none"},
        training={"novelty": "none", "copy_tokens": 0},
        progress=False,
    )
    generated = model.generate([""] * 1500, temperature=1.0, max_new_tokens=600, seed=0)
    return generated, texts, model


@pytest.mark.slow
@pytest.mark.parametrize("has_model", [False, True])
def test_a_memorising_model_is_found(
    memorised: tuple[Sequence[str], Sequence[str], reviewgen.ReviewModel], has_model: bool
) -> None:
    generated, texts, model = memorised
    section = measure_privacy(
        table(generated),
        table(texts),
        table(real_texts()[300:900]),
        model if has_model else None,
    )
    assert value(section, "membership") >= 0.9
    assert value(section, "membership_hits") > 0.5
    assert value(section, "nearer") >= 0.9
    assert value(section, "copy_rate") > 0.5
    assert "copy them" in section.words
    assert "nearer to them" in section.words
    subject = "The model" if has_model else "An n-gram that learns from these texts"
    assert f"{subject} tells training texts from other real texts" in section.words


@pytest.mark.slow
def test_planted_personal_data_and_names_are_listed() -> None:
    real = real_texts()
    draw = random.Random(0)
    planted = [f"Write to {mail} about it." for mail in MAILS]
    planted += [f"Call me at {phone} today." for phone in PHONES]
    planted += [f"I went with {name} to see it." for name in NAMES]
    made = list(real[:10_000])
    trained_on = list(real[10_000:20_000])
    for fact in planted:
        made[draw.randrange(len(made))] += f" {fact}"
        trained_on[draw.randrange(len(trained_on))] += f" {fact}"
    section = measure_privacy(table(made), table(trained_on), None)
    listed = [row[:3] for row in section.lists["Personal data"]]
    for mail in MAILS:
        assert ["email", mask(mail), "yes"] in listed
    for phone in PHONES:
        assert ["phone", mask(phone), "yes"] in listed
    names = [name for name, _ in section.lists["Names and words of one training text only"]]
    for name in NAMES:
        assert any(name in each for each in names)
    assert "15 contact details" in section.words
    shown = str(section.to_dict())
    assert not any(each in shown for each in (*MAILS, *PHONES))


def test_personal_data_of_copied_spans_is_masked() -> None:
    texts = [f"{text} Write to {MAILS[0]} or call {PHONES[0]}." for text in real_texts()[:60]]
    section = measure_privacy(table(texts), table(texts), None)
    assert "characters or more: 60 of 60. Names are not searched for" in section.words
    assert not any(each in str(section.to_dict()) for each in (MAILS[0], PHONES[0]))
    short = ["Of all that was ever said here, write to ann@example.org, and soon."] * 60
    spans = measure_privacy(table(short), table(short), None).lists[
        "Longest copied spans, joined where they overlap"
    ]
    assert spans[1][0] == "Of all that was ever said here, write to a…@e….org, and soon."


def test_a_part_of_an_address_is_not_replayed() -> None:
    made = ["Write to ann@example.org now."] * 60
    section = measure_privacy(table(made), table(["Write to joann@example.org now."] * 60), None)
    assert section.lists["Personal data"][1][2] == "no"
    assert value(section, "personal_data") == 0


@pytest.mark.parametrize("count", [None, 20])
def test_without_held_out_texts_nearness_is_not_known(count: int | None) -> None:
    real = real_texts()
    held_out = None if count is None else table(real[400 : 400 + count])
    section = measure_privacy(table(real[:200]), table(real[200:400]), held_out)
    for key in ("nearer", "membership", "membership_hits"):
        figure = section.figure(key)
        assert figure.synthetic.value is None
        assert "--held-out" in figure.note
    assert "not known" in section.words


def test_few_texts_are_not_known() -> None:
    real = real_texts()
    section = measure_privacy(table(real[:49]), table(real[49:400]), table(real[400:800]))
    assert all(figure.synthetic.value is None for figure in section.figures)
    assert "What these texts give away is not known: there are too few." in section.words


def test_kinds_of_personal_data() -> None:
    text = "See example.com, write to @ann_lee or ann@example.org, call 555-867-5309."
    assert dict(find_personal_data(text)) == {
        "email": "ann@example.org",
        "url": "example.com",
        "phone": "555-867-5309",
        "handle": "@ann_lee",
    }
