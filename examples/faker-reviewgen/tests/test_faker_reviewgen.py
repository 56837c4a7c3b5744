"""Faker itself with the provider added: seeds, stars, tables, models, and what mistakes say."""

import itertools

import pytest
from faker import Faker
from faker_reviewgen import ReviewProvider

import reviewgen


def make(provider=ReviewProvider):
    """Return a Faker with a provider."""
    fake = Faker()
    fake.add_provider(provider)
    return fake


@pytest.fixture(scope="module")
def fake():
    return make()


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """A provider of a model that was trained with stars."""
    words = {1: "Awful", 5: "Lovely"}
    records = [
        {"review": f"{words[stars]} food, {number} times.", "stars": stars}
        for number, stars in itertools.product(range(40), words)
    ]
    folder = tmp_path_factory.mktemp("models") / "food"
    reviewgen.train("ngram-char", records, conditions=["stars"], out=folder, progress=False)

    class Rated(ReviewProvider):
        source = folder

    return Rated


def test_a_seed_repeats_the_texts_also_between_other_providers(fake):
    def write(fake):
        Faker.seed(0)
        return [(fake.name(), fake.review(), fake.review(stars=5)) for _ in range(3)]

    first = write(fake)
    Faker.seed(1)
    other = [fake.review() for _ in range(70)]
    assert len(set(other)) == 70 and first[0][1] not in other
    assert write(fake) == first
    assert write(make()) == first


def test_a_text_does_not_depend_on_the_texts_before_the_seed(fake):
    Faker.seed(3)
    fake.review()
    Faker.seed(4)
    fake.random.getrandbits(32)  # as many numbers as a review takes
    text = fake.review()
    again = make()
    Faker.seed(4)
    again.random.getrandbits(32)
    assert again.review() == text


def test_an_instance_has_its_own_seed():
    texts = []
    for _ in range(2):
        fake = make()
        fake.seed_instance(5)
        texts.append([fake.review() for _ in range(3)])
        Faker.seed(9)
    assert texts[0] == texts[1]


def test_more_texts_than_a_page_and_than_words_of_the_twister_differ(fake):
    Faker.seed(2)
    texts = [fake.review() for _ in range(1300)]
    assert len(set(texts)) > 1290 and all(texts)
    assert sum(map(len, texts)) / len(texts) > 50


def test_a_table_has_stars_and_reviews(fake):
    Faker.seed(0)
    rows = fake.review_table(50)
    assert [*rows[0]] == ["stars", "review"] and {row["stars"] for row in rows} == {1, 2, 3, 4, 5}
    assert len({row["review"] for row in rows}) > 45
    Faker.seed(0)
    assert fake.review_table(50) == rows
    assert {row["stars"] for row in fake.review_table(3, stars=2)} == {2}
    assert fake.review_table(0) == []


def test_stars_are_the_sentiment_of_the_shipped_model(fake):
    texts = []
    for stars in (4, 5, 1):
        Faker.seed(6)
        texts.append(fake.review(stars=stars))
    assert texts[0] == texts[1] != texts[2]
    Faker.seed(6)
    assert fake.review(sentiment="negative") == texts[2]


def test_stars_are_those_of_a_model_that_has_them(rated):
    fake = make(rated)
    Faker.seed(0)
    fives = [fake.review(stars=5) for _ in range(20)]
    assert sum("Lovely" in text for text in fives) > 15
    ones = [row["review"] for row in fake.review_table(20, stars=1)]
    assert sum("Awful" in text for text in ones) > 15


def test_faker_finds_the_provider_in_the_module():
    fake = Faker(includes=["faker_reviewgen"])
    Faker.seed(0)
    assert fake.review()


def test_mistakes_are_those_of_reviewgen(fake, rated):
    with pytest.raises(reviewgen.ReviewgenError, match="genre"):
        fake.review(genre="jazz")

    class Missing(ReviewProvider):
        source = "./no-such-model"

    with pytest.raises(reviewgen.ReviewgenError, match="no-such-model"):
        make(Missing).review()
