"""Tables whose schema says which columns are drawn and what the generated ones look like."""

import csv
import json
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import reviewgen
from reviewgen.config import from_dict
from reviewgen.errors import CheckpointError, ConfigError
from reviewgen.sentences import sentence_ends
from reviewgen.tables.receipts import Receipt, read_receipts, replay
from tests.support.disks import interrupt, listing

OPINIONS = {5: ("Great", "good"), 3: ("Fine", "ok"), 1: ("Poor", "cold")}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "stars": {"enum": [1, 5]},
        "title": {"type": "string", "pattern": "^[A-Z]", "maxLength": 20},
        "text": {"type": "string", "minLength": 5},
        "likes": {"type": "integer", "maximum": 99},
        "price": {"type": "number"},
        "is_new": {"type": "boolean"},
    },
    "required": ["stars", "title", "text", "likes", "price", "is_new"],
}
TYPES = {
    "stars": pa.int64(),
    "title": pa.string(),
    "text": pa.string(),
    "likes": pa.int64(),
    "price": pa.float64(),
    "is_new": pa.bool_(),
}
OPTIONS: dict[str, Any] = {"seed": 7, "max_new_tokens": 150}


@pytest.fixture(scope="module")
def reviews(tmp_path_factory) -> Path:
    """A CSV file of reviews, with stars and titles."""
    file = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["stars", "title", "text", "likes", "price", "is_new"])
        for number in range(240):
            stars = list(OPINIONS)[number % 3]
            first, kind = OPINIONS[stars]
            noun = ("food", "beer", "room", "service")[number // 3 % 4]
            text = f'The {noun} was {kind}. I said "{kind}" to Wu! We came {number % 7} times.'
            cells = [stars, f"{first} {noun}", text, number % 10, number / 4, number % 2 == 0]
            writer.writerow(cells)
    return file


def read(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def json_model(reviews: Path) -> Path:
    """A model of JSON objects, conditioned on the stars."""
    rows = []
    for row in read(reviews):
        written = {"title": row["title"], "text": row["text"], "likes": int(row["likes"])}
        written |= {"price": float(row["price"]), "is_new": row["is_new"] == "True"}
        text = json.dumps(written, ensure_ascii=False, separators=(",", ":"))
        rows.append({"stars": row["stars"], "text": text})
    out = reviews.parent / "json-model"
    reviewgen.train("ngram-char", rows, conditions=["stars"], out=out, progress=False)
    return out


@pytest.fixture(scope="module")
def text_model(reviews: Path) -> Path:
    """A model of texts, conditioned on the stars and on the title, which is a field."""
    out = reviews.parent / "text-model"
    settings: dict[str, Any] = {"conditions": ["stars"], "fields": ["title"], "progress": False}
    reviewgen.train("ngram-char", reviews, out=out, **settings)
    return out


@pytest.mark.slow
def test_every_row_of_a_table_fits_its_schema(json_model, tmp_path):
    out = tmp_path / "t.parquet"
    reviewgen.generate_dataset(json_model, 60, out=out, schema=SCHEMA, **OPTIONS)
    table = pq.read_table(out)
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == TYPES
    for row in table.to_pylist():
        jsonschema.validate(row, SCHEMA)
    assert {1, 5} == set(table["stars"].to_pylist())


def test_each_row_is_what_generate_writes(json_model):
    table = reviewgen.generate_dataset(json_model, 5, schema=SCHEMA, columns=True, **OPTIONS)
    for row in table:
        receipt = json.loads(row["receipt"])
        written = json.loads(receipt["text"])
        assert {name: row[name] for name in written} == written
        assert row["finish_reason"] == "end" and row["number"] == receipt["number"]


def test_an_interrupted_table_of_several_columns_is_resumed(json_model, tmp_path, monkeypatch):
    options: dict[str, Any] = {"schema": SCHEMA, "columns": True, "shard_texts": 5, **OPTIONS}
    reviewgen.generate_dataset(json_model, 20, out=tmp_path / "whole", **options)
    interrupt(
        monkeypatch,
        lambda: reviewgen.generate_dataset(json_model, 20, out=tmp_path / "t", **options),
        6,
    )
    with pytest.raises(CheckpointError, match="other columns and schema and settings"):
        other = options | {"schema": {"title": {"type": "string"}, "text": {"type": "string"}}}
        reviewgen.generate_dataset(json_model, 20, out=tmp_path / "t", **other)
    assert reviewgen.generate_dataset(json_model, 20, out=tmp_path / "t", **options).is_resumed
    assert listing(tmp_path / "t") == listing(tmp_path / "whole")


def test_the_command_writes_the_same_rows_and_receipts_that_replay(
    json_model, tmp_path, monkeypatch, run_command
):
    monkeypatch.chdir(tmp_path)
    Path("schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    words = ["generate", json_model, "-n", 10, "--seed", 7, "--max-new-tokens", 150]
    words += ["--schema", "schema.json", "--receipt", "r.jsonl", "--out"]
    status, _, said = run_command(*words, "t.jsonl")
    assert status == 0, said
    rows = [json.loads(line) for line in Path("t.jsonl").read_text(encoding="utf-8").splitlines()]
    table = reviewgen.generate_dataset(json_model, 10, schema="schema.json", **OPTIONS)
    names = list(SCHEMA["properties"])
    assert [{name: row[name] for name in names} for row in rows] == table.select_columns(
        names
    ).to_list()
    model = reviewgen.load(json_model)
    receipts = list(read_receipts(Path("r.jsonl")))
    assert len(receipts) == 10
    for receipt in receipts:
        assert not replay(receipt, model).differences


def test_rows_without_repeats_differ_in_a_generated_column(json_model):
    schema = {
        "stars": {"5": 1, "1": 1},
        "title": {"choices": ["Great food", "Poor beer"], "regex": "[GP].*"},
        "is_new": {"type": "boolean"},
    }
    table = reviewgen.generate_dataset(json_model, 4, schema=schema, unique=True, **OPTIONS)
    rows = {(row["title"], row["is_new"]) for row in table}
    assert len(table) == len(rows) == 4


@pytest.mark.slow
def test_one_generated_column_is_the_text(text_model):
    schema = {
        "stars": {"type": "integer", "minimum": 5, "maximum": 5},
        "title": {"Great food": 2, "Great beer": 1},
        "text": {"sentences": "2..3", "include": ["Wu"]},
    }
    options: dict[str, Any] = {"seed": 7, "max_new_tokens": 300}
    table = reviewgen.generate_dataset(text_model, 20, schema=schema, **options)
    for row in table:
        assert row["stars"] == 5 and row["title"] in schema["title"]
        assert 2 <= len(sentence_ends(row["text"])) <= 3 and "Wu" in row["text"]


@pytest.mark.parametrize(
    ("entry", "fits"),
    [
        ({"type": "string", "minLength": 10, "maxLength": 20}, lambda text: 10 <= len(text) <= 20),
        ({"pattern": "^The .*[.!]$", "maxLength": 60}, lambda text: text[-1] in ".!"),
        ({"regex": "[A-Z][a-z]{2} [a-z]+"}, lambda text: text.replace(" ", "").isalpha()),
        ({"enum": ["good", "cold"]}, ["good", "cold"].__contains__),
        ({"exclude": ["The"]}, lambda text: "The" not in text.split()),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:30],
)
def test_the_formats_of_a_text(text_model, entry, fits):
    table = reviewgen.generate_dataset(text_model, 10, schema={"review": entry}, **OPTIONS)
    assert [text for text in table["review"] if not fits(text)] == []


def test_sentences_of_one_of_several_columns(json_model):
    schema = {"title": {"regex": "[A-Z][a-z]+ [a-z]+"}, "text": {"sentences": "2"}}
    table = reviewgen.generate_dataset(json_model, 20, schema=schema, **OPTIONS)
    assert all(len(sentence_ends(text)) == 2 for text in table["text"])
    assert all(title.replace(" ", "").isalpha() for title in table["title"])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"number": {"type": "string"}}, "'number' is the name of another column"),
    ({"starts": {"5": 1}}, "'starts' is not a condition.*needs a type.*Did you mean 'stars'"),
    ({"a": {"type": "array"}}, "'a' is not a condition.*needs a type"),
    ({"a": {"choices": "good"}}, "'a' is not a condition.*needs a type"),
    ({"stars": {"type": "integer", "minimum": 0, "maximum": 5}}, "0 is not a value"),
    ({"stars": {"type": "integer", "minimum": 5, "maximum": 1}}, "1 to 10,000 integers"),
    ({"stars": {"type": "number", "minimum": 1}}, "must say which values 'stars' has"),
    ({"title": {"type": "string"}}, "must say which values 'title' has"),
    ({"text": {"sentences": "x"}}, "sentences must be"),
    ({"text": {"regx": "a", "type": "string"}}, "'regx' is not a format.*'regex'"),
    ({"text": {"pattern": "^(?=a)"}}, "look-around"),
    ({"text": {"pattern": "a", "grammar": 'start: "a"'}}, "grammar cannot be combined"),
    ({"text": {"choices": ["good"], "regex": "b"}}, "No text"),
    ({"a": {"regex": "("}, "b": {"regex": "a"}}, "json_schema is not valid: unclosed group"),
    ({"a": {"type": "string", "not": {}}, "b": {"regex": "a"}}, "not"),
    ({"a": {"type": "string"}, "b": {"include": ["a"]}}, "include of 'b'"),
    ({"a": {"type": "string"}, "b": {"sentences": "2", "minLength": 5}}, "sentences of 'b'"),
    ({"type": "object", "properties": {}}, "empty"),
]


@pytest.mark.parametrize(
    ("schema", "problem"), WRONG, ids=lambda value: getattr(value, "__name__", str(value))[:40]
)
def test_a_wrong_schema_is_refused_in_a_sentence(schema, problem, text_model, tmp_path):
    with pytest.raises(ConfigError, match=problem):
        reviewgen.generate_dataset(text_model, 5, out=tmp_path / "t", schema=schema)
    assert not any(tmp_path.iterdir())


def test_a_format_is_given_once(text_model, tmp_path):
    schema = {"text": {"regex": "The .*"}}
    with pytest.raises(ConfigError, match="regex is given and also in the schema"):
        reviewgen.generate_dataset(text_model, 5, schema=schema, regex="a")


def test_a_text_that_is_stuck_is_generated_again(json_model):
    schema = {"title": {"regex": "[A-Z][a-z]{4,5} [a-z]{4}"}, "text": {"regex": ".{10,30}"}}
    options = {**OPTIONS, "words": "known", "columns": True}
    rows = reviewgen.generate_dataset(json_model, 60, schema=schema, **options).to_list()
    assert all(row["title"] and row["text"] for row in rows)
    (again, *_) = (row for row in rows if row["number"] >= 10**9)
    model = reviewgen.load(json_model)
    assert not replay(from_dict(Receipt, json.loads(again["receipt"])), model).differences


def test_the_columns_of_a_text_that_is_stuck_are_empty(json_model, caplog):
    schema = {"title": {"choices": ["Great food"]}, "text": {"regex": "[fgb]{4}"}}
    table = reviewgen.generate_dataset(json_model, 2, schema=schema, words="known", **OPTIONS)
    assert table.select_columns(["title", "text"]).to_list() == [{"title": None, "text": None}] * 2
    assert "are empty: The text does not fit json_schema" in caplog.text
