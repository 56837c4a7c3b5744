"""Tables of texts and scores: those of ``generate`` and ``score``; continued after an interruption,
never over other files.
"""

import csv as plain_csv
import json
import math
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

import reviewgen
from reviewgen.config import from_dict
from reviewgen.errors import CheckpointError, ConfigError, DataError, OutputExists
from reviewgen.tables.receipts import Receipt, read_receipts, replay
from tests.support.disks import interrupt, listing
from tests.support.fakes import TEXTS
from tests.support.models import EXAMPLES

SHORT = {"max_new_tokens": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small saved model with two conditions."""
    rows = [
        row | {"genre": ("jazz", "rock", "folk")[number % 3]} for number, row in enumerate(EXAMPLES)
    ]
    out = tmp_path_factory.mktemp("tables") / "model"
    reviewgen.train(
        "ngram-char", rows, conditions=["stars", "genre"], model={"order": 4}, progress=False
    ).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def model(folder: Path) -> reviewgen.ReviewModel:
    return reviewgen.load(folder)


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Return the rows of a folder of shards, or of a file."""
    rows = []
    for file in [out] if out.is_file() else sorted(out.glob("train-*")):
        if file.suffix == ".parquet":
            rows += pq.read_table(file).to_pylist()
        elif file.suffix == ".jsonl":
            rows += map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return rows


def test_text_i_of_a_table_is_that_of_generate(model, tmp_path):
    written = reviewgen.generate_dataset(
        model, 50, out=tmp_path / "t", seed=4, prompt=["the ", "a "], shard_texts=30, **SHORT
    )
    same = model.generate(["the ", "a "], num_return_sequences=50, seed=4, **SHORT)
    assert [row["text"] for row in rows_of(tmp_path / "t")] == same
    assert (written.texts, written.is_new, len(written.files)) == (100, True, 4)
    assert [
        len((tmp_path / "t" / name).read_text(encoding="utf-8").splitlines())
        for name in written.files
    ] == [30, 30, 30, 10]


def test_parquet_has_the_same_rows_and_datasets_reads_the_folder(model, tmp_path):
    schema = {"stars": {"5": 1, "1": 1}}
    for kind in ("jsonl", "parquet"):
        reviewgen.generate_dataset(
            model,
            30,
            out=tmp_path / kind,
            seed=4,
            columns=True,
            schema=schema,
            format=kind,
            **SHORT,
        )
    table = rows_of(tmp_path / "parquet")
    lines = rows_of(tmp_path / "jsonl")
    marked = {"receipt": 0, "synthetic": True}  # the mark is a column of the lines only
    assert [row | marked for row in table] == [row | {"receipt": 0} for row in lines]
    from datasets import load_dataset

    loaded = load_dataset(str(tmp_path / "jsonl"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"] and loaded["train"]["text"] == [row["text"] for row in table]
    reviewgen.generate_dataset(
        model,
        30,
        out=tmp_path / "t.csv",
        seed=4,
        columns=True,
        schema=schema,
        novelty="report",
        **SHORT,
    )
    read = csv.read_csv(
        tmp_path / "t.csv", parse_options=csv.ParseOptions(newlines_in_values=True)
    ).to_pylist()
    assert (tmp_path / "t.csv").read_bytes().startswith(b"\xef\xbb\xbf")  # else Excel misreads "é"
    assert [(row["text"], row["stars"], row["seed"]) for row in read] == [
        (row["text"], int(row["stars"]), 4) for row in table
    ]
    assert set(read[0]) > set(table[0]) and {row["longest_copy"] for row in read} != {""}


def test_each_row_can_be_replayed(model, folder, tmp_path):
    schema = {"genre": {"jazz": 1, "folk": 1, "": 1}}
    given = {"schema": schema, "conditions": {"stars": 5}, "columns": True}
    reviewgen.generate_dataset(folder, 30, out=tmp_path / "t", seed=9, **given, **SHORT)
    rows = rows_of(tmp_path / "t")
    assert {row["genre"] for row in rows} == {"jazz", "folk", None} and {
        row["stars"] for row in rows
    } == {5}
    (tmp_path / "receipts.jsonl").write_text(
        "\n".join(row["receipt"] for row in rows), encoding="utf-8"
    )
    for row, receipt in zip(rows, read_receipts(tmp_path / "receipts.jsonl"), strict=True):
        assert (receipt.text, receipt.number, receipt.seed) == (
            row["text"],
            row["number"],
            row["seed"],
        )
        assert not replay(receipt, model).differences


def test_a_condition_that_is_not_given_is_drawn_for_each_row(model, tmp_path):
    schema = {"stars": {"5": 1, "1": 1}}
    reviewgen.generate_dataset(
        model, 40, out=tmp_path / "t", seed=9, columns=True, schema=schema, shard_texts=7, **SHORT
    )
    rows = rows_of(tmp_path / "t")
    assert {row["genre"] for row in rows} == {"jazz", "rock", "folk"} and {
        row["stars"] for row in rows
    } == {1, 5}
    for row in rows:
        assert not replay(from_dict(Receipt, json.loads(row["receipt"])), model).differences
    reviewgen.generate_dataset(model, 40, out=tmp_path / "own", seed=9, columns=True, **SHORT)
    texts = model.generate(num_return_sequences=40, seed=9, return_dict_in_generate=True, **SHORT)
    drawn = [{name: row[name] for name in ("stars", "genre")} for row in rows_of(tmp_path / "own")]
    assert drawn == [text.conditions for text in texts]


@pytest.mark.parametrize("out", [None, "t", "t.parquet"])
def test_the_drawn_conditions_are_columns_of_every_table(out, model, tmp_path):
    returned = reviewgen.generate_dataset(model, 20, out=out and tmp_path / out, seed=9, **SHORT)
    rows = returned.to_list() if out is None else rows_of(tmp_path / out)
    texts = model.generate(num_return_sequences=20, seed=9, return_dict_in_generate=True, **SHORT)
    mark = {"synthetic": True} if out == "t" else {}
    assert rows == [{"text": text.text, **text.conditions, **mark} for text in texts]


def test_a_schema_draws_what_is_given_as_draw(model):
    schema = {"stars": {"5": 1}}
    table = reviewgen.generate_dataset(
        model, 9, seed=9, schema=schema, conditions={"stars": "draw"}, **SHORT
    )
    assert set(table["stars"]) == {5}
    with pytest.raises(ConfigError, match="given and also drawn"):
        reviewgen.generate_dataset(model, 9, schema=schema, conditions={"stars": 1}, **SHORT)


def test_any_in_a_schema_is_a_value_that_is_not_given(model, tmp_path):
    schema = {"stars": {"5": 1, "any": 1}}
    reviewgen.generate_dataset(
        model, 20, out=tmp_path / "t", seed=9, columns=True, schema=schema, **SHORT
    )
    assert {row["stars"] for row in rows_of(tmp_path / "t")} == {5, None}
    with pytest.raises(ConfigError, match="draw"):
        reviewgen.generate_dataset(
            model, 20, out=tmp_path / "u", schema={"stars": {"draw": 1}}, **SHORT
        )


def test_unique_texts_are_the_first_distinct_ones_of_generate(model, folder, tmp_path, run_command):
    short = {"max_new_tokens": 2, "temperature": 0.7}
    written = reviewgen.generate_dataset(
        model, 40, out=tmp_path / "t", seed=2, unique=True, columns=True, **short
    )
    drawn = model.generate(num_return_sequences=written.summary["drawn"], seed=2, **short)
    rows = rows_of(tmp_path / "t")
    assert [row["text"] for row in rows] == list(dict.fromkeys(drawn))[: written.texts]
    assert [drawn[row["number"]] for row in rows] == [row["text"] for row in rows]
    assert written.summary["repeats"] == len(drawn) - len(set(drawn)) > 0
    words = [
        "generate",
        folder,
        "-n",
        50,
        "--out",
        tmp_path / "few",
        "--seed",
        1,
        "--unique",
        "--greedy",
    ]
    status, _, said = run_command(*words)
    assert status == 1 and "only 1 different text" in said and len(rows_of(tmp_path / "few")) == 1


def test_a_schema_draws_in_proportion_and_rows_of_a_table_jointly(model, tmp_path):
    schema = {"stars": {"5": 3, "1": 1, "3": 0}, "genre": {"jazz": 1}}
    short = {"max_new_tokens": 1, "columns": True}
    reviewgen.generate_dataset(model, 2000, out=tmp_path / "t", seed=7, schema=schema, **short)
    counts = Counter((row["stars"], row["genre"]) for row in rows_of(tmp_path / "t"))
    assert counts.keys() == {(5, "jazz"), (1, "jazz")}
    assert abs(counts[5, "jazz"] / 2000 - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 2000)
    people = [
        {"name": "Ann", "stars": 5, "genre": "jazz"},
        {"name": "Bob", "stars": 1, "genre": "rock"},
    ]
    (tmp_path / "people.csv").write_text(
        "name,stars,genre\nAnn,5,jazz\nBob,1,rock\n", encoding="utf-8"
    )
    (tmp_path / "people.jsonl").write_text("\n".join(map(json.dumps, people)), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(people), tmp_path / "people.parquet")
    for kind in ("csv", "jsonl", "parquet"):
        reviewgen.generate_dataset(
            model, 60, out=tmp_path / kind, seed=7, schema=tmp_path / f"people.{kind}", **short
        )
        drawn = [(row["stars"], row["genre"]) for row in rows_of(tmp_path / kind)]
        assert set(drawn) == {(5, "jazz"), (1, "rock")} and 15 < drawn.count((5, "jazz")) < 45
        assert drawn == [(row["stars"], row["genre"]) for row in rows_of(tmp_path / "csv")]
    reviewgen.generate_dataset(
        model, 2000, out=tmp_path / "j", seed=7, schema=json.dumps(schema), **short
    )
    assert Counter((row["stars"], row["genre"]) for row in rows_of(tmp_path / "j")) == counts


def test_rare_categories_of_a_table_count_as_not_given(tmp_path, caplog):
    caplog.set_level("INFO", "reviewgen")
    rows = [
        {"text": f"film {number} was good", "genre": f"g{number % 60}"} for number in range(600)
    ]
    reviewgen.train(
        "ngram-char",
        rows,
        conditions=["genre"],
        out=tmp_path / "m",
        model={"order": 3},
        progress=False,
    )
    model = reviewgen.load(tmp_path / "m")
    kept = {value.label for value in model.conditions.conditions[0].values}
    schema = [{"genre": min({row["genre"] for row in rows} - kept)}, {"genre": min(kept)}]
    reviewgen.generate_dataset(
        model, 40, out=tmp_path / "t.jsonl", seed=1, columns=True, schema=schema, **SHORT
    )
    assert {row["genre"] for row in rows_of(tmp_path / "t.jsonl")} == {None, schema[1]["genre"]}
    assert (
        "1 row of the schema: a rare value of 'genre'" in caplog.text
        and "trained by counting" in caplog.text
    )


def test_arguments_that_are_refused_leave_no_file(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"n": 0}, "n must be"),
        ({"n": True}, "n must be"),
        ({"prompt": []}, "no prompts"),
        ({"format": "csv"}, "csv"),
        ({"shard_texts": 0}, "shard_texts"),
        ({"seed": -1}, "seed"),
        ({"max_time": 3.0}, "speed"),
        ({"num_beams": 3}, "num_beams"),
        ({"num_return_sequences": 3}, "num_return_sequences"),
        ({"stopping_criteria": lambda *_: False}, "Functions"),
        ({"temprature": 1}, "temperature"),
        ({"out": "t.txt"}, "must be a folder"),
        ({"out": "."}, "already exists"),
        ({"schema": {}}, "empty"),
        ({"schema": {"start": {"5": 1}}}, "stars"),
        ({"schema": {"stars": {"9": 1}}}, "9"),
        ({"schema": {"stars": {"5": 0, "1": 0}}}, "above 0"),
        ({"schema": {"stars": {"5": -1}}}, "at least 0"),
        ({"schema": {"stars": {"5": math.nan}}}, "at least 0"),
        ({"schema": {"stars": {"5": "much"}}}, "at least 0"),
        ({"schema": {"stars": {"5": 1e308, "1": 1e308}}}, "finite"),
        ({"schema": [{"name": "Ann"}]}, "condition"),
        ({"schema": [{"stars": 5}, {"stars": 17}]}, "Row 2"),
        ({"schema": "missing.json"}, "missing.json"),
        ({"schema": {"stars": {"5": 1}}, "conditions": {"stars": 5}}, "also drawn"),
    ]
    for options, problem in cases:
        with pytest.raises((ConfigError, DataError, OutputExists), match=problem):
            reviewgen.generate_dataset(model, **({"n": 5, "out": "t"} | options))
    assert not any(tmp_path.iterdir())
    unsaved = reviewgen.train("ngram-char", TEXTS, model={"order": 4}, progress=False)
    with pytest.raises(ConfigError, match="save"):
        reviewgen.generate_dataset(unsaved, 5, out="t")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_values_that_a_table_cannot_hold_as_they_are_given(kind, model, tmp_path):
    given: dict[str, Any] = {
        "prompt": "\ud800a",
        "seed": (1 << 64) - 1,
        "conditions": {"stars": " 5 ", "genre": "jazz"},
    }
    reviewgen.generate_dataset(
        model, 3, out=tmp_path / "t", columns=True, format=kind, **given, **SHORT
    )
    row = rows_of(tmp_path / "t")[1]
    prompt = given["prompt"] if kind == "jsonl" else "\N{REPLACEMENT CHARACTER}a"
    expected = {"number": 1, "seed": (1 << 64) - 1, "prompt": prompt, "stars": 5, "genre": "jazz"}
    assert {name: row[name] for name in expected} == expected


def test_an_interrupted_call_continues_from_the_finished_parts(model, tmp_path, monkeypatch):
    options: dict[str, Any] = {"columns": True, "unique": True, "shard_texts": 20, **SHORT}
    reviewgen.generate_dataset(model, 150, out=tmp_path / "whole", seed=5, **options)
    for calls in (1, 6, 3, 4, 294):
        seed = 5 if calls in (1, 6) else None  # that of the unfinished table
        interrupt(
            monkeypatch,
            lambda seed=seed: reviewgen.generate_dataset(
                model, 150, out=tmp_path / "t", seed=seed, **options
            ),
            calls,
        )
    assert (
        not (tmp_path / "t").exists() and 0 < len(rows_of(tmp_path / "t.partial" / "table")) < 25
    ), "some are written"
    reviewgen.generate_dataset(model, 150, out=tmp_path / "t", **options)
    assert (
        listing(tmp_path / "t") == listing(tmp_path / "whole")
        and not (tmp_path / "t.partial").exists()
    )


def test_a_complete_table_is_kept_and_another_job_is_refused(folder, tmp_path, run_command):
    command = [
        "generate",
        folder,
        "--out",
        tmp_path / "t",
        "--format",
        "jsonl",
        "--max-new-tokens",
        5,
    ]
    assert run_command(*command, "-n", 7)[0] == 0
    before = listing(tmp_path / "t")
    status, said, _ = run_command(*command, "-n", 7)
    assert status == 0 and "complete already" in said
    for words in (["-n", 8], ["-n", 7, "--seed", 12345]):
        status, _, said = run_command(*command, *words)
        assert status == 2 and "differ" in said
    assert listing(tmp_path / "t") == before and not (tmp_path / "t.partial").exists()
    for words, problem in (
        (["--unique"], "--out FOLDER"),
        (["--format", "xml", "--out", tmp_path / "u"], "xml"),
    ):
        status, _, said = run_command("generate", folder, *words)
        assert status == 2 and problem in said and not (tmp_path / "u").exists()


def test_scores_are_those_of_score_and_their_sum_that_of_evaluate(model, tmp_path):
    reviews = [row | {"genre": "jazz"} for row in EXAMPLES]
    written = reviewgen.score_dataset(model, reviews, out=tmp_path / "s.jsonl")
    rows = rows_of(tmp_path / "s.jsonl")
    whole = model.evaluate(reviews)
    assert len(rows) == written.texts == whole.reviews
    for row in rows[:10]:
        score = model.score(row["text"], conditions={"stars": row["stars"], "genre": row["genre"]})
        assert row["bits"] == pytest.approx(score.bits, rel=1e-6) and row["tokens"] == len(
            score.tokens
        )
        assert row["bits_per_character"] == row["bits"] / row["characters"]
    assert math.fsum(row["bits"] for row in rows) / whole.characters == pytest.approx(
        whole.bits_per_character, rel=1e-9
    )
    assert written.summary["bits_per_character"] == pytest.approx(
        whole.bits_per_character, rel=1e-9
    )


def test_a_text_of_probability_zero_has_no_bits(tmp_path):
    unsmoothed = {
        "model": {"order": 3, "smoothing": "none"},
        "progress": False,
        "validation": ["aab"],
    }
    reviewgen.train("ngram-char", ["aab", "aba", "abb"] * 20, **unsmoothed).save_pretrained(
        tmp_path / "m"
    )
    written = reviewgen.score_dataset(
        tmp_path / "m", ["aab", "bbbbbb", "aba"], out=tmp_path / "s.jsonl"
    )
    assert [row["bits"] is None for row in rows_of(tmp_path / "s.jsonl")] == [False, True, False]
    assert (
        written.summary["zero_probability_texts"] == 1
        and written.summary["bits_per_character"] is None
    )


def test_a_source_of_scores_that_is_no_file(model, tmp_path):
    for wrong, reason in (
        ("b" * 300, "The source is a text"),
        ("~no_such_user/a.csv", "does not exist on this machine"),
    ):
        with pytest.raises(DataError, match=reason):
            reviewgen.score_dataset(model, wrong, out=tmp_path / "s.jsonl")


def test_copies_are_those_of_novelty(model, tmp_path):
    texts = [TEXTS[0], "zzz qqq xxx", TEXTS[3] + TEXTS[1]]
    written = reviewgen.novelty_dataset(model, texts, out=tmp_path / "n.parquet")
    for row, text in zip(rows_of(tmp_path / "n.parquet"), texts, strict=True):
        report = model.novelty(text)
        assert row["text"] == text and row["longest_copy"] == report.longest_text
        assert [row[f"copied_share_{size}"] for size in (8, 12, 20)] == list(
            report.windows.values()
        )
    assert written.summary["longest_copy_characters"] == max(
        model.novelty(text).longest_characters for text in texts
    )


def test_a_source_that_has_changed_is_not_continued_with(folder, tmp_path, monkeypatch):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    interrupt(monkeypatch, lambda: reviewgen.score_dataset(folder, file, out=tmp_path / "s"), 4)
    file.write_text("another\n" + "\n".join(TEXTS), encoding="utf-8")
    with pytest.raises((ConfigError, CheckpointError), match="other texts"):
        reviewgen.score_dataset(folder, file, out=tmp_path / "s")
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    assert reviewgen.score_dataset(folder, file, out=tmp_path / "s").texts == len(TEXTS)


@pytest.mark.parametrize("verb", ["score", "novelty"])
def test_the_commands_write_tables(verb, folder, tmp_path, monkeypatch, run_command):
    (tmp_path / "texts.txt").write_text("a fine record\nanother one\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    status, said, notes = run_command(
        verb,
        folder,
        "--data",
        "texts.txt",
        "--out",
        "t",
        "--format",
        "parquet",
    )
    assert status == 0 and "2 texts are in t" in said
    assert ("These are upper bounds" in notes) == (verb == "novelty")
    assert [row["text"] for row in rows_of(tmp_path / "t")] == ["a fine record", "another one"]
    for words in (
        [],
        ["--text", "a", "--data", "texts.txt"],
        ["--data", "texts.txt"],
        ["--text", "a", "--out", "u"],
    ):
        status, _, said = run_command(verb, folder, *words)
        assert status == 2 and "--data" in said


def halve(file: Path) -> None:
    """Cut a file in the middle of a row."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def drop_rows(file: Path) -> None:
    """Cut a file at the end of a row."""
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:3]))


@pytest.mark.parametrize("harm", [halve, drop_rows])
@pytest.mark.parametrize("out, kind", [("t", "jsonl"), ("t", "parquet"), ("t.csv", None)])
def test_a_damaged_shard_of_an_unfinished_table_is_written_again(
    harm, out, kind, model, tmp_path, monkeypatch
):
    options: dict[str, Any] = {
        "format": kind,
        "columns": True,
        "shard_texts": 10,
        "seed": 5,
        **SHORT,
    }
    (tmp_path / "whole").mkdir()
    reviewgen.generate_dataset(model, 60, out=tmp_path / "whole" / out, **options)
    interrupt(
        monkeypatch,
        lambda: reviewgen.generate_dataset(model, 60, out=tmp_path / out, **options),
        13,
    )
    shards = sorted((tmp_path / f"{out}.partial" / "shards").iterdir())
    assert len(shards) > 1
    harm(shards[0])
    assert reviewgen.generate_dataset(model, 60, out=tmp_path / out, **options).texts == 60
    assert listing(tmp_path / "whole") == {
        name: content for name, content in listing(tmp_path).items() if name.startswith("t")
    }


TABLE: dict[str, Any] = {"seed": 4, "columns": True, **SHORT}


def test_without_out_a_table_is_returned(model, tmp_path, monkeypatch):
    from datasets import Dataset

    monkeypatch.chdir(tmp_path)
    options = TABLE | {"schema": {"stars": {"5": 1}}}
    reviewgen.generate_dataset(model, 5, out="t.parquet", **options)
    table = reviewgen.generate_dataset(model, 5, **options)
    assert isinstance(table, Dataset) and table.to_list() == rows_of(Path("t.parquet"))
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_data_frame_is_returned_for_a_data_frame(model):
    import pandas

    schema = pandas.DataFrame({"stars": [5]})
    frame = reviewgen.generate_dataset(model, 5, **TABLE, schema=schema)
    assert isinstance(frame, pandas.DataFrame) and list(frame["stars"]) == [5] * 5
    scored = reviewgen.score_dataset(model, pandas.DataFrame(EXAMPLES[:3]))
    assert isinstance(scored, pandas.DataFrame)
    assert list(scored["bits"]) == [
        row["bits"] for row in reviewgen.score_dataset(model, EXAMPLES[:3])
    ]


def test_novelty_is_returned_as_a_table(model):
    from datasets import Dataset

    copies = reviewgen.novelty_dataset(model, EXAMPLES[:3])
    assert isinstance(copies, Dataset) and copies["text"][:] == [
        row["text"] for row in EXAMPLES[:3]
    ]


FORMULAS = ['=HYPERLINK("http://example.org")', "+a", "-b", "@SUM(A1)"]


@pytest.fixture(scope="module")
def formulas(tmp_path_factory) -> Path:
    """A model whose conditions are formulas."""
    folder = tmp_path_factory.mktemp("formulas") / "m"
    moods = [(-1 - number % 2, FORMULAS[number % len(FORMULAS)]) for number in range(360)]
    rows = [
        {"text": f"record {number}", "=stars": stars, "mood": mood}
        for number, (stars, mood) in enumerate(moods)
    ]
    options = {"conditions": ["=stars", "mood"], "model": {"order": 3}, "progress": False}
    reviewgen.train("ngram-char", rows, out=folder, **options)
    return folder


def test_a_cell_of_a_csv_file_is_not_a_formula_unless_formulas_are_kept(
    formulas, tmp_path, monkeypatch, run_command
):
    monkeypatch.chdir(tmp_path)
    schema = [{"=stars": -1, "mood": mood} for mood in FORMULAS]
    Path("schema.jsonl").write_text("\n".join(map(json.dumps, schema)), encoding="utf-8")
    words = [
        "generate",
        formulas,
        "-n",
        40,
        "--seed",
        1,
        "--max-new-tokens",
        5,
        "--prompt",
        "=1+1",
        "--schema",
        "schema.jsonl",
    ]
    for name, more in (("safe.csv", []), ("kept.csv", ["--keep-formulas"])):
        status, _, said = run_command(*words, "--out", name, *more)
        assert status == 0, said
    with Path("safe.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = list(chain.from_iterable(plain_csv.reader(file)))
    assert {cell[0] for cell in cells if cell and cell != "-1"}.isdisjoint(
        "=+-@\t\r"
    ) and "-1" in cells
    assert {"'=stars", "'+a", f"'{FORMULAS[0]}"} <= set(cells)
    with Path("kept.csv").open(encoding="utf-8-sig", newline="") as file:
        assert {row["text"][:4] for row in plain_csv.DictReader(file)} == {"=1+1"}


def test_a_cell_that_begins_with_white_space_is_not_a_formula(formulas, tmp_path):
    out = tmp_path / "blank.csv"
    reviewgen.generate_dataset(formulas, 1, out=out, prompt=["\tx", "\rx"], seed=1, **SHORT)
    assert b"'\tx" in out.read_bytes() and b"'\rx" in out.read_bytes()


@pytest.mark.parametrize("keep", [False, True], ids=["escaped", "kept"])
def test_a_scored_text_is_not_a_formula_unless_formulas_are_kept(formulas, tmp_path, keep):
    out = tmp_path / "score.csv"
    reviewgen.score_dataset(formulas, ["=1+1"], out=out, keep_formulas=keep)
    assert ("'=1+1" in out.read_text(encoding="utf-8-sig")) == (not keep)
