"""Conditions: from columns to bins to ids, in the token store, in bits per character, in texts, in
the saved folder.
"""

import itertools
import json
import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reviewgen
from reviewgen.conditions import Conditions, draw_values, fit_condition
from reviewgen.config import from_dict
from reviewgen.data.lanes import IGNORED, Lanes
from reviewgen.errors import BundleError, ConfigError, DataError
from reviewgen.registry.plugins import find_tokenizer
from reviewgen.tables.receipts import Receipt, make_receipt, replay
from tests.support.fakes import LetterTokenizer, brute_bits
from tests.support.texts import as_csv, corpus_of, tokenized, write

WORDS = {
    1: ["awful", "boring", "terrible", "sad", "dreadful"],
    5: ["great", "lovely", "superb", "happy", "wonderful"],
}
NAMES = ("stars", "genre")
CharTokenizer, _ = find_tokenizer("char")


def reviews(rng):
    """Reviews whose words depend on the stars; the genre has no influence and is sometimes
    missing.
    """
    for number in range(300):
        stars = rng.choice([1, 5])
        text = f"{rng.choice(WORDS[stars])} and {rng.choice(WORDS[stars])} film {number}"
        yield {"text": text, "stars": stars, "genre": rng.choice(["Drama", "Comedy", None])}


ROWS = list(reviews(random.Random(0)))


@pytest.fixture(scope="module")
def ngram(tmp_path_factory):
    file = write(tmp_path_factory.mktemp("conditions") / "reviews.csv", as_csv(ROWS))
    return reviewgen.train(
        "ngram-char", file, conditions=NAMES, model={"order": 4}, training={"novelty": "exact"}
    )


def fit(*values, name="stars"):
    return fit_condition(name, values)


STARS = fit(1, 2, 2, 5, 5, 5, None, 5.0)
BOTH = Conditions((STARS, fit("Drama", "Comedy", "Drama", name="genre")), first_id=100)


# Bins, categories and ids.


def test_few_numbers_stay_a_bin_each():
    assert STARS.kind == "number"
    assert [(value.label, value.low, value.high) for value in STARS.values] == [
        ("1", 1, 1),
        ("2", 2, 2),
        ("5", 5, 5),
    ]
    assert [value.share for value in STARS.values] == [1 / 8, 2 / 8, 4 / 8]
    assert STARS.describe() == "stars: 1 (12.5 %), 2 (25 %), 5 (50 %), not given (12.5 %)"


@pytest.mark.parametrize(
    "values, labels",
    [
        (("5", "4.0", " 3 ", "nan", "", None), "345"),
        ((0.5, 1, -0.0, "1.5"), ["0", "0.5", "1", "1.5"]),
    ],
)
def test_numbers_are_read_however_they_are_written(values, labels):
    condition = fit(*values)
    assert [value.label for value in condition.values] == [*labels]
    assert [value.share for value in condition.values] == [1 / len(values)] * len(labels)


@given(
    st.lists(
        st.integers(-20, 20) | st.floats(-100, 100) | st.sampled_from([0, 1e300, -1e300]),
        min_size=1,
        max_size=80,
    )
)
def test_every_number_lies_in_its_bin_and_no_bin_is_empty(numbers):
    condition = fit(*numbers)
    found = Counter(condition.find(number) for number in numbers)
    assert sorted(found) == list(range(len(condition.values)))
    assert [value.share for value in condition.values] == [
        found[index] / len(numbers) for index in range(len(found))
    ]
    assert len(condition.values) <= 10 and Conditions.from_json(
        Conditions((condition,)).to_json()
    ) == Conditions((condition,))
    if len(set(numbers)) > 10:
        assert len(condition.values) <= 5
        most = max(Counter(map(float, numbers)).values())
        assert max(found.values()) <= math.ceil(len(numbers) / 5) + most


def test_categories_are_found_in_any_spelling_of_their_space():
    condition = fit("b", "a", "b", "c d", " c\n d ", True, name="genre")
    assert [(v.label, v.share * 6) for v in condition.values] == [
        ("True", 1),
        ("a", 1),
        ("b", 2),
        ("c d", 2),
    ]
    assert [condition.find(value) for value in ("c  d", True, "True", "x", 1)] == [
        3,
        0,
        0,
        None,
        None,
    ]


def test_models_of_the_same_categories_can_be_blended_whatever_their_frequencies():
    rarely = fit("b", "a", "a")
    often = fit("b", "b", "a")
    assert [v.label for v in rarely.values] == [v.label for v in often.values]


def test_the_most_frequent_categories_are_kept_and_the_rest_is_reported():
    many = Conditions((fit_condition("who", [f"p{number % 60}" for number in range(110)]),))
    assert [value.label for value in many.conditions[0].values] == sorted(
        f"p{number}" for number in range(50)
    )
    assert many.notes() == [
        "The condition 'who' keeps its 50 most frequent values; the other 10 count as not given."
    ]


def test_a_column_of_numbers_and_words_has_categories():
    mixed = fit(1, "1.0", "one", 2.5)
    assert mixed.kind == "category" and [value.label for value in mixed.values] == [
        "1",
        "2.5",
        "one",
    ]
    assert [mixed.find(value) for value in (1, "1", "one")] == [0, 0, 2]


def test_a_column_without_values_is_refused():
    with pytest.raises(DataError, match="The column 'stars' is empty in all training texts"):
        fit(None, "", math.nan)


@pytest.mark.parametrize("spelled", [["5.0", "4.0"], ["05", "007"], ["5", "4e0"]], ids=str)
def test_a_csv_column_of_numbers_and_one_word_keeps_the_value_of_every_text(tmp_path, spelled):
    rows = [
        {"text": f"Review {number} of a film.", "stars": spelled[number % 2]}
        for number in range(60)
    ]
    file = write(
        tmp_path / "reviews.csv", as_csv([*rows, {"text": "The last review.", "stars": "unclear"}])
    )
    _, conditions, _, rows = stores(("stars",), file)
    examples = list(itertools.chain.from_iterable(rows.values()))
    assert len(examples) == 61
    assert not any(conditions.unknown(values) for _, values in examples)
    shares = [value.share for value in conditions.conditions[0].values]
    assert sum(shares) == pytest.approx(1) and len(shares) == 3


def test_digits_with_an_underscore_are_no_number():
    """Python's ``float`` reads 1_0 as 10."""
    condition = fit_condition("version", ["1_0", "1_1", "1_0"])
    assert (condition.kind, [value.label for value in condition.values]) == (
        "category",
        ["1_0", "1_1"],
    )


def test_each_condition_has_an_unspecified_id_and_one_per_value():
    assert (BOTH.unspecified_ids, BOTH.vocab_size, len(BOTH), BOTH.names) == (
        [100, 104],
        107,
        2,
        NAMES,
    )
    assert BOTH.encode({}) == BOTH.encode({"stars": None, "genre": None}) == [100, 104]


def test_numbers_are_encoded_alike_in_every_type():
    for five in (5, 5.0, "5", " 5.0", np.int64(5), np.float32(5)):
        assert BOTH.encode({"stars": five, "genre": "Comedy"}) == [103, 105]


def test_missing_and_unknown_values_are_unspecified():
    assert BOTH.encode_values([math.nan, "Drama"]) == [100, 106]
    assert BOTH.encode_values([3, "unheard of"]) == [100, 104]


def test_ids_of_conditions_begin_where_they_are_told():
    assert BOTH.with_ids_from(7).encode({"stars": 1}) == [8, 11]


def test_no_conditions_have_no_ids():
    nothing = Conditions(first_id=9)
    assert (nothing.encode({}), nothing.vocab_size, nothing.unspecified_ids, bool(nothing)) == (
        [],
        9,
        [],
        False,
    )


# Columns and stores.


def test_values_stay_with_their_texts():
    rows = [
        {"text": "a", "stars": 1, "genre": "Drama"},
        {"text": "", "stars": 2, "genre": "dropped"},
        {"text": "b", "stars": np.int64(3), "genre": None},
        {"text": "a", "stars": 4, "genre": "a duplicate"},
        {"text": "c", "stars": math.nan},
        {"text": "d", "stars": True, "genre": 'quote"\u2028'},
    ]
    read = corpus_of(rows, rows[:1], conditions=NAMES)
    assert (read.of("train"), read.of("validation")) == (list("abcd"), ["a"])
    # one is not a number
    values = [["1", "Drama"], ["3", None], [None, None], ["True", 'quote"\u2028'], ["1", "Drama"]]
    assert read.values == values
    assert corpus_of(rows[:3], conditions=("stars",)).values == [[1.0], [3.0]]
    assert corpus_of(rows).values == [()] * 4
    for source, condition, said in [
        (ROWS, "star", "has no column 'star' for the condition of that name. Did you mean 'stars'"),
        (["a", "b"], "stars", "It has no columns at all"),
        (
            [{"text": "a", "tags": ["x"]}],
            "tags",
            "Value 1 of column 'tags' of list of texts is of type list",
        ),
    ]:
        with pytest.raises(DataError, match=said):
            corpus_of(source, conditions=(condition,))
    with pytest.raises(ConfigError, match="named twice"):
        corpus_of(ROWS, conditions=("stars", "stars"))


def stores(conditions, rows=ROWS, kind=CharTokenizer):
    """Gather and tokenize as a run does; return tokenizer, conditions, stores and rows."""
    tokenizer, fitted, found, corpus = tokenized(rows, kind, conditions=conditions)
    return tokenizer, fitted, found, {split: list(corpus.examples(split)) for split in found}


def test_texts_are_framed_with_their_conditions():
    tokenizer, conditions, found, rows = stores(NAMES)
    for split, store in found.items():
        assert store.count == sum(len(ids) for ids, _ in store.documents()) == store.lengths.sum()
        for (text, values), (ids, length) in zip(rows[split], store.documents(), strict=True):
            assert [ids[0], *ids[3:]] == [
                tokenizer.bos_id,
                *tokenizer.encode(text),
                tokenizer.eos_id,
            ] and length == len(text)
            true = conditions.encode_values(values)
            hidden = conditions.unspecified_ids
            assert all(
                int(ids[1 + n]) in ((true[n], hidden[n]) if split == "train" else (true[n],))
                for n in range(2)
            )
        assert store.ids.max() < tokenizer.vocab_size  # the novelty index reads only these
        assert store.document(0).dtype == store.ids.dtype == np.uint16


def test_conditions_are_inputs_and_not_targets():
    tokenizer, conditions, found, _ = stores(NAMES)
    lanes = Lanes(found["train"], lanes=16, bptt=16, seed=0)
    batch = next(lanes.start_at())
    following = np.concatenate((batch.ids[:, 1:], batch.targets[:, -1:]), 1)
    is_given = (following == tokenizer.bos_id) | (following >= tokenizer.vocab_size)
    assert is_given[:, :-1].sum() > 10
    assert (batch.targets[is_given] == IGNORED).all() and (
        batch.targets[~is_given] == following[~is_given]
    ).all()
    assert set(np.unique(batch.ids)) & set(range(conditions.first_id, conditions.vocab_size))


def test_each_condition_is_dropped_independently_in_a_tenth_of_the_training_texts():
    rows = [{"text": f"text {number}", "a": 1, "b": "x"} for number in range(5000)]
    _, conditions, found, _ = stores(("a", "b"), rows)
    is_hidden = found["train"].conditions == conditions.unspecified_ids
    assert is_hidden.mean(0) == pytest.approx([0.1, 0.1], abs=0.02)
    assert is_hidden.all(1).mean() == pytest.approx(0.01, abs=0.007)
    assert not (found["validation"].conditions == conditions.unspecified_ids).any()
    assert (
        stores(("a", "b"), iter(rows))[2]["train"].conditions == found["train"].conditions
    ).all()


class Wide(LetterTokenizer):
    """Has four two-byte ids left for conditions."""

    def __init__(self, characters):
        super().__init__(characters)
        self.vocab_size = (1 << 16) - 4


def test_the_width_of_an_id_counts_conditions():
    rows = [row | {"wide": f"{row['stars']} {number % 2}"} for number, row in enumerate(ROWS)]
    for name, dtype in (("stars", np.uint16), ("wide", np.uint32)):
        _, conditions, found, _ = stores((name,), rows, Wide)
        assert found["train"].document(0).dtype == dtype
        assert found["train"].conditions.max() == (1 << 16) - 4 + len(
            conditions.conditions[0].values
        )


# Bits per character, and texts.


@pytest.mark.parametrize("name", ["ngram", "gru"])
def test_scores_have_the_probabilities_of_plain_calls(name, ngram, micro):
    model = ngram if name == "ngram" else micro("conditional")
    for given_ in ({"stars": 5}, {"stars": "1"}, None):
        expected = brute_bits(model, "great and happy film", model.conditions.encode(given_ or {}))
        score = model.score("great and happy film", conditions=given_)
        assert [token.bits for token in score.tokens] == pytest.approx(expected, rel=1e-4, abs=2e-6)
        assert score.bits == pytest.approx(sum(expected), rel=1e-4)


@pytest.mark.parametrize("name", ["ngram", "gru"])
def test_evaluations_have_the_probabilities_of_plain_calls(name, ngram, micro):
    model = ngram if name == "ngram" else micro("conditional")
    others = ["Drama"] if name == "ngram" else []
    rows = [
        {"text": f"{'so ' * n}sad", "stars": stars, "genre": "Drama"}
        for n, stars in enumerate((1, 5, 3, None))
    ]
    bits = sum(
        sum(brute_bits(model, row["text"], model.conditions.encode_values([row["stars"], *others])))
        for row in rows
    )
    found = model.evaluate(rows, clean=False)
    assert found.bits_per_character == pytest.approx(
        bits / sum(len(row["text"]) for row in rows), rel=1e-4
    )
    assert found.tokens == sum(len(model.tokenizer.encode(row["text"])) + 1 for row in rows)
    for rows, prefix in (
        (["sad", "great"], model.conditions.unspecified_ids),
        (
            [{"text": text, "stars": 5} for text in ("sad", "great")],
            model.conditions.encode({"stars": 5}),
        ),
    ):
        bits = sum(sum(brute_bits(model, text, prefix)) for text in ("sad", "great"))
        assert model.evaluate(rows, clean=False).bits_per_character == pytest.approx(
            bits / 8, rel=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ngram", "gru"])
def test_texts_have_the_probabilities_of_plain_calls(name, ngram, micro):
    model = ngram if name == "ngram" else micro("conditional")
    (text,) = model.generate(
        conditions={"stars": 5}, seed=1, temperature=1.0, return_dict_in_generate=True
    )
    ids = [*text.tokens, model.tokenizer.eos_id][: len(text.log_probabilities)]
    assert max(ids) < model.tokenizer.vocab_size
    expected = brute_bits(model, text.tokens, model.conditions.encode(text.conditions))[: len(ids)]
    assert [-nats / math.log(2) for nats in text.log_probabilities] == pytest.approx(
        expected, rel=1e-3, abs=1e-4
    )


# What is drawn for each text.

ONE_TOKEN = {"max_new_tokens": 1, "return_dict_in_generate": True}


def test_a_condition_that_is_not_given_is_drawn_as_often_as_the_training_texts_have_it(ngram):
    texts = ngram.generate(num_return_sequences=1500, seed=1, **ONE_TOKEN)
    for condition in ngram.conditions:
        counts = Counter(text.conditions.get(condition.name) for text in texts)
        shares = {condition.plain(value.label): value.share for value in condition.values}
        assert {value: count / 1500 for value, count in counts.items() if value} == pytest.approx(
            shares, abs=0.04
        )
    # a third has no genre
    assert counts[None] / 1500 == pytest.approx(1 - sum(shares.values()), abs=0.04)


def test_the_draw_of_a_text_depends_on_seed_and_number_only(ngram):
    together = ngram.generate(
        num_return_sequences=70, seed=2, max_new_tokens=8, return_dict_in_generate=True
    )
    (alone,) = ngram.generate_each(num_return_sequences=70, first=69, seed=2, max_new_tokens=8)
    assert (alone.text, alone.conditions) == (together[69].text, together[69].conditions)
    assert "".join(ngram.stream(seed=2, max_new_tokens=8)) == together[0].text
    given = ngram.generate_each(
        num_return_sequences=70, first=69, seed=2, max_new_tokens=8, conditions=alone.conditions
    )
    assert next(given).text == alone.text


def test_the_draws_of_a_seed_stay_the_same():
    _, groups = BOTH.plan_draws({}, "draw")
    drawn = [draw_values(groups, 1, number) for number in range(8)]
    assert [values["stars"] for values in drawn] == [5, 1, 1, 5, 5, 5, 2, 5]
    assert "".join(values["genre"][0] for values in drawn) == "CCDDCDDC"


def test_any_leaves_a_condition_unspecified(ngram, tmp_path, run_command):
    unspecified = {"stars": "any", "genre": "any"}
    (text,) = ngram.generate(conditions=unspecified, seed=1, return_dict_in_generate=True)
    prefix = ngram.conditions.unspecified_ids
    bits = [-nats / math.log(2) for nats in text.log_probabilities]
    assert text.conditions == {} and bits == pytest.approx(
        brute_bits(ngram, text.tokens, prefix)[: len(bits)], rel=1e-3, abs=1e-4
    )
    assert ngram.score("sad", conditions=unspecified) == ngram.score("sad")
    ngram.save_pretrained(tmp_path / "m")
    words = [
        "generate",
        tmp_path / "m",
        "--seed",
        1,
        "--json",
        "--condition",
        "stars=any",
        "--condition",
        "genre=any",
    ]
    status, out, _ = run_command(*words)
    assert status == 0 and (json.loads(out)["texts"], json.loads(out)["conditions"]) == (
        [text.text],
        [{}],
    )


def test_a_category_that_is_called_any_or_draw_is_that_category():
    conditions = Conditions((fit("any", "draw", "draw", name="kind"),), first_id=10)
    assert conditions.encode({"kind": "any"}) == [11] and conditions.encode({"kind": "draw"}) == [
        12
    ]
    assert conditions.plan_draws({"kind": "draw"}, "any") == ({"kind": "draw"}, [])


@pytest.mark.parametrize("settings", [{"do_sample": False}, {"num_beams": 2}], ids=str)
def test_without_sampling_a_condition_is_drawn_only_if_asked_for(ngram, settings):
    texts = [ngram.generate(seed=seed, **ONE_TOKEN, **settings)[0] for seed in range(6)]
    assert all(text.conditions == {} for text in texts)
    drawn = ngram.generate(
        ["a"] * 40, seed=1, conditions={"stars": "draw"}, **ONE_TOKEN, **settings
    )
    assert {text.conditions["stars"] for text in drawn} == {1, 5}


def test_a_receipt_holds_what_was_drawn_and_one_without_a_condition_leaves_it_unspecified(ngram):
    texts = ngram.generate(
        num_return_sequences=8, seed=3, max_new_tokens=20, return_dict_in_generate=True
    )
    receipts = [json.loads(json.dumps(make_receipt(ngram, text))) for text in texts]
    drawn = [receipt["settings"]["generation_config"]["conditions"] for receipt in receipts]
    assert len({str(values) for values in drawn}) > 2 and drawn == [
        text.conditions for text in texts
    ]
    assert all(replay(from_dict(Receipt, receipt), ngram).is_equal for receipt in receipts)
    (plain,) = ngram.generate(seed=3, max_new_tokens=20, conditions=ngram.conditions.unspecified)
    receipts[0]["settings"]["generation_config"]["conditions"] = {}  # as 0.1.0 wrote it
    assert replay(from_dict(Receipt, receipts[0]), ngram).text == plain


# The run, the index, the saved folder, the command.


@pytest.mark.wrong_types
def test_the_folder_keeps_conditions_and_damaged_ones_are_refused(ngram, tmp_path):
    ngram.save_pretrained(tmp_path / "m")
    again = reviewgen.load(tmp_path / "m")
    assert again.conditions == ngram.conditions and again.training == ngram.training
    for stars in (1, 5):
        assert again.score("a film", conditions={"stars": stars}) == ngram.score(
            "a film", conditions={"stars": stars}
        )
    config = json.loads((tmp_path / "m" / "config.json").read_text(encoding="utf-8"))
    unsorted = {"name": "stars", "kind": "number", "values": [{"label": "1", "share": 1}]}
    category = {"name": "a", "kind": "category", "values": [{"label": "1", "share": 1}]}
    for damaged, said in (
        (None, "list of objects"),
        ([unsorted], "not ascending"),
        ([category], "do not belong"),
    ):
        (tmp_path / "m" / "config.json").write_text(
            json.dumps(config | {"conditions": damaged}), encoding="utf-8"
        )
        with pytest.raises(BundleError, match=said):
            reviewgen.load(tmp_path / "m")


def test_the_command_shows_bins_and_refuses_an_unknown_column(tmp_path, run_command):
    file = write(tmp_path / "reviews.csv", as_csv(ROWS))
    words = ["train", "ngram-char", "--data", file, "--steps", 1, "--condition", "stars", "--out"]
    status, _, err = run_command(*words, tmp_path / "m", "--condition", "genre", "--verbose")
    assert status == 0 and "Condition stars: 1 (" in err and "Condition genre: " in err
    status, _, err = run_command(*words, tmp_path / "n", "--condition", "star")
    assert status == 1 and "Did you mean 'stars'?" in err
    status, _, err = run_command("evaluate", tmp_path / "m", "--data", file, "--split", "test")
    assert status == 0, err
