"""Fields: columns of free text in front of a text, from the token store to bits, texts, tables,
receipts and the command line.
"""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reviewgen
from reviewgen.conditions import MAX_FIELD, Condition, Conditions
from reviewgen.config import from_dict
from reviewgen.data.lanes import IGNORED, Lanes
from reviewgen.errors import ConfigError, DataError
from reviewgen.evaluation.scoring import ConditionGain
from reviewgen.registry.plugins import find_tokenizer
from reviewgen.tables.receipts import Receipt, replay
from tests.support.fakes import brute_bits
from tests.support.live_server import error_of, in_process
from tests.support.texts import as_parquet, corpus_of, tokenized, write

CharTokenizer, _ = find_tokenizer("char")
ARTISTS = ["Mt. Joy", "Beach House", "Joywave", "Wolf Alice"]
SINGERS = [(n, ARTISTS[n % 4]) for n in range(400)]
ROWS = [
    {
        "text": f"{artist} wrote song {n}.",
        "artist": artist if n % 5 else None,
        "title": f"Song {n}",
        "stars": n % 2,
    }
    for n, artist in SINGERS
]
FIELDS = {"conditions": ("stars",), "fields": ("artist", "title")}


@pytest.fixture(scope="module")
def model():
    """An n-gram of short texts about artists, which sees the fields as the segment before the
    text.
    """
    settings = {"model": {"order": 12}, "training": {"novelty": "none"}, "steps": 1}
    return reviewgen.train("ngram-char", ROWS, **FIELDS, **settings)


def test_a_text_stands_behind_its_fields_which_are_left_out_at_random():
    tokenizer, conditions, found, corpus = tokenized(ROWS, CharTokenizer, **FIELDS)
    first = tokenizer.vocab_size
    assert (conditions.condition_ids, conditions.field_ids, conditions.vocab_size) == (
        3,
        3,
        first + 6,
    )
    kept = np.zeros(2)
    for split, store in found.items():
        assert store.lengths.tolist() == [len(ids) for ids, _ in store.documents()]
        for (text, (stars, *fields)), (ids, _) in zip(
            corpus.examples(split), store.documents(), strict=True
        ):
            stars_id = int(ids[1])
            rest = ids[2:].tolist()
            assert stars_id == first + 1 + int(stars) or (split == "train" and stars_id == first)
            for place, value in enumerate(fields):  # independently of our own encoding
                own = [] if value is None else [first + 3 + place, *tokenizer.encode(value)]
                is_kept = bool(own) and rest[: len(own)] == own
                assert is_kept or not own or split == "train"
                rest = rest[len(own) :] if is_kept else rest
                kept[place] += is_kept and split == "train"
            assert rest == [first + 5, *tokenizer.encode(text), tokenizer.eos_id]
    given_ = np.array(
        [
            sum(values[1 + place] is not None for _, values in corpus.examples("train"))
            for place in range(2)
        ]
    )
    assert kept / given_ == pytest.approx([0.75, 0.75], abs=0.07)


def test_fields_are_not_targets():
    tokenizer, _, found, corpus = tokenized(ROWS, CharTokenizer, **FIELDS)
    first = tokenizer.vocab_size
    lanes = Lanes(found["train"], lanes=4, bptt=50, seed=0)
    batches = [
        batch for batch, _ in zip(lanes.start_at(), range(lanes.batches_of(0)), strict=False)
    ]
    targets = np.concatenate([batch.targets for batch in batches], axis=1)
    wanted = sum(len(tokenizer.encode(text)) + 1 for text in corpus.texts("train"))
    assert (targets[targets != IGNORED] < first).all() and wanted - 4 * 60 <= (
        targets != IGNORED
    ).sum() <= wanted


@given(
    st.lists(st.one_of(st.none(), st.text("ab. ", min_size=1, max_size=9)), min_size=3, max_size=3)
)
def test_ids_are_split_into_the_parts_that_they_were_joined_from(values):
    tokenizer = CharTokenizer.train(["ab. "], CharTokenizer.Config())
    fields = tuple(Condition(name=name, kind="text") for name in "xyz")
    known = Conditions(fields).with_ids_from(tokenizer.vocab_size, tokenizer.encode)
    *parts, end = known.split(known.encode_values(values))
    for place, (value, part) in enumerate(zip(values, parts, strict=True)):
        text = " ".join((value or "").split())
        assert part == (
            [tokenizer.vocab_size + place, *tokenizer.encode(text)]
            if len(tokenizer.encode(text)) > 2
            else []
        )
    assert end == [tokenizer.vocab_size + 3] == known.unspecified_ids


@pytest.mark.slow
def test_any_fields_are_given_and_cost_no_bits(model):
    tokenizer = model.tokenizer
    conditions = model.conditions
    for given_ in (
        {},
        {"artist": "Mt. Joy"},
        {"title": "Song 1", "stars": 1},
        {"artist": "Nobody  ever"},
    ):
        expected = brute_bits(model, "Mt. Joy wrote", conditions.encode(given_))
        score = model.score("Mt. Joy wrote", conditions=given_)
        assert [token.bits for token in score.tokens] == pytest.approx(expected, rel=1e-4, abs=2e-6)
    (text,) = model.generate(conditions={"artist": "Mt. Joy"}, seed=1, return_dict_in_generate=True)
    assert max(text.tokens) < tokenizer.vocab_size
    # of what is written, not of fields
    settings = {"no_repeat_ngram_size": 4, "repetition_penalty": 1.3, "temperature": 0.2}
    assert "Beach House" in model.generate_one(
        conditions={"artist": "Beach House"}, seed=1, **settings
    )
    held_out = ROWS[3:40]
    bits = sum(
        sum(
            brute_bits(model, row["text"], conditions.encode({n: row[n] for n in conditions.names}))
        )
        for row in held_out
    )
    found = model.evaluate(held_out, clean=False)
    assert found.bits_per_character == pytest.approx(
        bits / sum(len(row["text"]) for row in held_out), rel=1e-4
    )


def test_what_each_condition_saves_is_measured_beside_leaving_it_out(model):
    rows = [row for row in ROWS[:60] if row["artist"]]
    found = {gain.name: gain for gain in model.evaluate(rows, clean=False).conditions}
    assert list(found) == ["stars", "artist", "title"]

    def bits_without(left_out):
        given_ = [{name: row[name] for name in found if name != left_out} for row in rows]
        prefixes = map(model.conditions.encode, given_)
        return sum(
            sum(brute_bits(model, row["text"], prefix))
            for row, prefix in zip(rows, prefixes, strict=True)
        )

    for name, gain in found.items():
        assert gain.characters == sum(len(row["text"]) for row in rows)
        assert gain.bits_per_character == pytest.approx(
            (bits_without(name) - bits_without("")) / gain.characters, abs=1e-5
        )
    blind = reviewgen.train("ngram-char", ROWS, conditions=["stars"], model={"order": 1}, steps=1)
    (gain,) = blind.evaluate(ROWS[:60], clean=False).conditions
    assert (
        gain.bits_per_character == gain.shuffled == 0 and "stars has no effect" in gain.describe()
    )
    assert [each["name"] for each in model.training["held_out"]["conditions"]] == [
        "stars",
        "artist",
        "title",
    ]


def test_a_network_without_effect_of_its_fields_says_what_to_do_next(
    tmp_path, monkeypatch, run_command
):
    monkeypatch.setattr(ConditionGain, "has_effect", property(lambda gain: gain.name != "artist"))
    rows = "".join(json.dumps(row) + "\n" for row in ROWS[:200])
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    words = ["--data", tmp_path / "rows.jsonl", "--text-column", "text"]
    fields = ["--field", "artist", "--field", "title", "--out", tmp_path / "m"]
    small = ["--steps", 1, "--set", "model.hidden_size=8", "--set", "training.copy_tokens=0"]
    more = [*fields, *small]
    status, out, said = run_command("train", "gru-char", *words, *more)
    assert status == 0, said
    (advice,) = [line for line in out.splitlines() if "artist" in line]
    assert advice.startswith("No effect on this network: artist. ") and "title" not in advice
    assert all(word in advice for word in ("train longer", "blend-word", "fewer fields"))
    assert advice in run_command("evaluate", tmp_path / "m", *words)[1]
    status, out, _ = run_command("train", "ngram-char", *words, *fields[:-1], tmp_path / "n")
    assert "artist has no effect" in out and "train longer" not in out


def test_tables_draw_whole_rows_and_receipts_replay_them(model, tmp_path):
    table = [
        {"artist": "Mt. Joy", "title": "Silver Lining"},
        {"artist": "Beach House", "title": ""},
    ]
    model.save_pretrained(tmp_path / "m")
    out = tmp_path / "texts.jsonl"
    reviewgen.generate_dataset(
        tmp_path / "m", 20, out=out, schema=table, columns=True, seed=4, max_new_tokens=20
    )
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    pairs = {(row["artist"], row["title"]) for row in rows}
    assert pairs == {("Mt. Joy", "Silver Lining"), ("Beach House", None)}
    for row in rows[:3]:
        assert replay(from_dict(Receipt, json.loads(row["receipt"])), model).is_equal


def test_the_words_of_a_field_may_be_written_and_those_of_others_may_not():
    names = ["".join(name) for name in itertools.product("bdfgk", "aeiou", "nrst", "o")]
    rows = [{"text": f"{name} sings of the sea and the sun.", "artist": name} for name in names]
    named = reviewgen.train(
        "ngram-char",
        rows,
        fields=["artist"],
        model={"order": 16},
        training={"novelty": "none"},
        steps=1,
    )

    def write(**given_):
        return [
            text.partition(" ")[0]
            for text in named.generate(
                conditions=given_, num_return_sequences=40, seed=0, temperature=1.0
            )
        ]

    assert not set(names) & set(write())  # each stands in one text only
    assert set(names) & set(write(artist=names[7])) == {names[7]}


@pytest.mark.parametrize(
    "given_, said",
    [
        ({"artist": ""}, "The field 'artist' is empty: give it a text, or leave it out."),
        (
            {"title": "x" * 10_000},
            "The field 'title' has 10,000 characters; a field has at most 200.",
        ),
        ({"song": "x"}, "'song' is not a condition of this model."),
    ],
)
def test_bad_fields_are_refused(model, given_, said):
    with pytest.raises(ConfigError, match=said):
        model.generate(conditions=given_)


@pytest.mark.parametrize(
    "value",
    [["Mt. Joy"], {"name": "Mt. Joy"}, ("Mt. Joy", "Joywave")],
    ids=["list", "object", "tuple"],
)
@pytest.mark.parametrize("name", ["artist", "stars"])
def test_several_values_of_a_condition_are_refused(model, name, value):
    with pytest.raises(
        ConfigError, match=f"The condition '{name}' takes one text or number; got"
    ) as refused:
        model.generate(conditions={name: value})
    with in_process({"m": model}) as server:
        response = server.complete(conditions={name: value})
        assert response.status_code == 400 and error_of(response)["param"] == "conditions"
        assert error_of(response)["message"] == str(refused.value).replace(
            "('Mt. Joy', 'Joywave')", "['Mt. Joy', 'Joywave']"
        )


def test_columns_are_checked_and_long_values_cut(tmp_path):
    with pytest.raises(DataError, match=r"has no column 'artis' .* Did you mean 'artist'"):
        reviewgen.train("ngram-char", ROWS, fields=["artis"], steps=1)
    with pytest.raises(ConfigError, match="named twice: artist, artist"):
        reviewgen.train("ngram-char", ROWS, conditions=["artist"], fields=["artist"], steps=1)
    with pytest.raises(DataError, match="'artist' is empty in all training texts"):
        reviewgen.train(
            "ngram-char", [row | {"artist": " "} for row in ROWS], fields=["artist"], steps=1
        )
    kept = {2**53 + 1: str(2**53 + 1), None: "", 7: "7"} | {
        "NaN": "NaN",
        " ": "",
        "nan": "nan",
        10**17: str(10**17),
    }
    # of numbers with and without nulls, and of texts
    pairs = [list(kept)[:3], list(kept)[3:-1], [10**17], [7.0, math.nan]]
    for own in pairs:
        table = write(
            tmp_path / f"{own}.parquet",
            as_parquet([{"text": f"{n}", "a": value} for n, value in enumerate(own)]),
        )
        for source in (table, [{"text": f"{n}", "a": value} for n, value in enumerate(own)]):
            values = [
                value for (value,) in corpus_of(source, text_column="text", fields=("a",)).values
            ]
            assert list(map(Condition(name="a", kind="text").text_of, values)) == [
                kept.get(value, "") for value in own
            ]
    long = [row | {"artist": "ab " * 100} for row in ROWS[:9]] + ROWS
    tokenizer, conditions, _, _ = tokenized(long, CharTokenizer, fields=("artist",))
    assert conditions.notes() == ["Cut to 200 characters: 8 values of the field 'artist'."]
    assert (
        len(conditions.encode_values(["ab " * 100]))
        == len(tokenizer.encode(("ab " * 100)[:MAX_FIELD])) + 2
    )
    lower = tokenized(
        [row | {"text": row["text"].lower()} for row in ROWS],
        CharTokenizer,
        fields=("artist",),
        lowercase=True,
    )[1]
    assert lower.encode({"artist": "MT. Joy"}) == lower.encode({"artist": "mt. joy"})


def test_the_commands_take_fields(tmp_path, run_command):
    file = write(tmp_path / "songs.jsonl", "\n".join(map(json.dumps, ROWS)))
    out = tmp_path / "m"
    words = [
        "train",
        "ngram-char",
        "--data",
        file,
        "--field",
        "artist",
        "--field",
        "title",
        "--steps",
        1,
        "--out",
        out,
    ]
    status, printed, err = run_command(*words, "--verbose")
    assert status == 0 and "Condition artist: free text" in err and "artist " in printed
    status, printed, _ = run_command(
        "generate", out, "--field", "artist=Mt. Joy", "--seed", 1, "-n", 2
    )
    assert status == 0 and printed
    status, printed, _ = run_command("evaluate", out, "--data", file, "--json")
    assert [each["name"] for each in json.loads(printed)["conditions"]] == ["artist", "title"]
    status, _, err = run_command("generate", out, "--field", "artist=")
    assert status == 2 and "The field 'artist' is empty" in err
