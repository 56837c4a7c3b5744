"""Tables of texts that one process writes: the texts are those of ``generate``, and what exists is never taken for its own."""

import json
import math
import os
import shutil
import threading
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

import reviewgen
from reviewgen.cli.ranks import count_processes
from reviewgen.conditions import Condition, Conditions, Value
from reviewgen.errors import CheckpointError, ConfigError, DataError, OutputExists, StorageError
from reviewgen.evaluation import token_losses
from reviewgen.receipts import read_receipts, replay
from reviewgen.writing import generating, layout, parts
from reviewgen.writing.rows import column_names
from reviewgen.writing.schema import read_schema
from tests.support.fakes import NGRAM, TEXTS, run_command, train_tiny

REVIEWS = [
    {"text": f"{text} {word}", "stars": stars, "genre": genre}
    for text in TEXTS
    for word, stars, genre in [("fine", 5, "jazz"), ("poor", 1, "rock"), ("so so", 3, "jazz"), ("bad", 1, "folk")]
]
SHORT = {"max_new_tokens": 8}


def saved_model(root):
    """Return the folder of a small saved model with conditions."""
    train_tiny("ngram-char", root / "cache", REVIEWS, conditions=["stars", "genre"], **NGRAM).save_pretrained(root / "model")
    return root / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved_model(tmp_path_factory.mktemp("writing"))


@pytest.fixture(scope="module")
def model(folder):
    return reviewgen.load(folder)


def rows_of(out):
    """Return the rows of a folder of jsonl shards, or of a file."""
    files = [out] if out.is_file() else sorted(out.glob("train-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def files_of(out):
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


def test_text_i_is_that_of_generate(model, tmp_path):
    written = reviewgen.generate_dataset(model, 150, out=tmp_path / "t", seed=4, prompt=["the ", "a "], shard_texts=70, **SHORT)
    same = model.generate(["the ", "a "], num_return_sequences=150, seed=4, **SHORT)
    assert [row["text"] for row in rows_of(tmp_path / "t")] == same
    assert (written.texts, written.is_new, len(written.files)) == (300, True, 5)
    assert [len((tmp_path / "t" / name).read_text(encoding="utf-8").splitlines()) for name in written.files] == [70] * 4 + [20]


def test_parquet_has_the_same_rows_and_datasets_reads_the_folder(model, tmp_path):
    schema = {"stars": {"5": 1, "1": 1}}
    for format in ("jsonl", "parquet"):
        reviewgen.generate_dataset(model, 30, out=tmp_path / format, seed=4, columns=True, schema=schema, format=format, **SHORT)
    table = pq.read_table(tmp_path / "parquet" / "train-00000-of-00001.parquet")
    assert [row | {"receipt": 0} for row in table.to_pylist()] == [row | {"receipt": 0} for row in rows_of(tmp_path / "jsonl")]
    kinds = ["string", "int64", "uint64", "string", "string", "int64", "string", "string"]
    assert [str(kind) for kind in table.schema.types] == kinds
    from datasets import load_dataset

    loaded = load_dataset(str(tmp_path / "jsonl"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"] and loaded["train"]["text"] == table["text"].to_pylist()


def test_each_row_can_be_replayed(model, folder, tmp_path):
    schema = {"genre": {"jazz": 1, "folk": 1, "": 1}}
    reviewgen.generate_dataset(
        folder, 40, out=tmp_path / "t", seed=9, columns=True, schema=schema, conditions={"stars": 5}, **SHORT
    )
    rows = rows_of(tmp_path / "t")
    assert {row["genre"] for row in rows} == {"jazz", "folk", None} and {row["stars"] for row in rows} == {5}
    (tmp_path / "receipts.jsonl").write_text("\n".join(row["receipt"] for row in rows), encoding="utf-8")
    for row, receipt in zip(rows, read_receipts(tmp_path / "receipts.jsonl"), strict=True):
        assert (receipt["text"], receipt["number"], receipt["seed"]) == (row["text"], row["number"], row["seed"])
        assert receipt["settings"]["generation_config"]["conditions"].get("genre") == row["genre"]
        assert not replay(receipt, model).differences


def test_a_text_of_a_number_beyond_those_of_a_call_can_be_replayed(model, tmp_path, monkeypatch):
    """Text i of a table is that of the random stream of (seed, i), however large i is."""
    reviewgen.generate_dataset(model, 2, out=tmp_path / "t", seed=9, columns=True, **SHORT)
    receipts = [json.loads(row["receipt"]) for row in rows_of(tmp_path / "t")]
    far, seeds, default_rng = 12_345_678_901, [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeds.append(seed) or default_rng((9, 1)))
    assert replay(receipts[0] | {"number": far, "text": receipts[1]["text"]}, model).is_equal
    assert seeds == [(9, far)]


def test_unique_texts_are_the_first_distinct_ones_of_generate(model, tmp_path):
    short = {"max_new_tokens": 2, "temperature": 0.7}
    written = reviewgen.generate_dataset(model, 60, out=tmp_path / "t", seed=2, unique=True, columns=True, **short)
    drawn = model.generate(num_return_sequences=written.summary["drawn"], seed=2, **short)
    rows = rows_of(tmp_path / "t")
    assert [row["text"] for row in rows] == list(dict.fromkeys(drawn))[: written.texts]
    assert [drawn[row["number"]] for row in rows] == [row["text"] for row in rows]
    assert written.summary["repeats"] == len(drawn) - len(set(drawn)) > 0


def test_too_few_distinct_texts_are_all_that_there_are(folder, tmp_path, monkeypatch, capsys):
    options = ["-n", 50, "--out", tmp_path / "t", "--seed", 1, "--unique", "--greedy"]
    status, said, notes = run_command(monkeypatch, capsys, "generate", folder, *options)
    assert status == 1 and "1 text is in" in said and "There is only 1 different text among 512" in notes
    assert len(rows_of(tmp_path / "t")) == 1


def test_a_schema_draws_in_proportion_and_depends_on_the_number_only(model):
    schema = read_schema({"stars": {"5": 3, "1": 1, "3": 0}, "genre": {"jazz": 1}}, model.conditions, {})
    drawn = [schema.draw(7, number) for number in range(4000)]
    counts = Counter(values["stars"] for values in drawn)
    assert set(counts) == {5, 1} and abs(counts[5] / 4000 - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4000)
    assert drawn[::-1] == [schema.draw(7, number) for number in reversed(range(4000))]
    assert [schema.draw(8, number) for number in range(50)] != drawn[:50]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_rows_of_a_table_are_drawn_jointly(kind, model, tmp_path):
    file = tmp_path / f"people.{kind}"
    people = [{"name": "Ann", "stars": 5, "genre": "jazz"}, {"name": "Bob", "stars": 1, "genre": "rock"}]
    if kind == "parquet":
        import pyarrow as pa

        pq.write_table(pa.Table.from_pylist(people), file)
    else:
        lines = [json.dumps(row) for row in people] if kind == "jsonl" else ["name,stars,genre", "Ann,5,jazz", "Bob,1,rock"]
        file.write_text("\n".join(lines), encoding="utf-8")
    schema = read_schema(file, model.conditions, {})
    drawn = [schema.draw(1, number) for number in range(300)]
    assert {tuple(values.items()) for values in drawn} == {
        (("stars", 5), ("genre", "jazz")),
        (("stars", 1), ("genre", "rock")),
    }
    assert 100 < sum(values["stars"] == 5 for values in drawn) < 200


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({}, "empty"),
        ({"start": {"5": 1}}, "Did you mean 'stars'"),
        ({"stars": {"9": 1}}, "'9' is not a value|9 is not a value"),
        ({"stars": {"5": 0, "1": 0}}, "are 0"),
        ({"stars": {"5": -1}}, "at least 0"),
        ({"stars": {"5": math.nan}}, "at least 0"),
        ({"stars": {"5": "much"}}, "at least 0"),
        ({"stars": {"5": 10**400}}, "at least 0"),
        ({"stars": {"5": 10**5000}}, "at least 0"),
        ({"stars": {"5": 1e308, "1": 1e308}}, "their sum is infinite"),
        ({"stars": [5, 1]}, "no weights"),
        ([{"name": "Ann"}], "no column of a condition"),
        ([{"stars": 5}, {"stars": 17}], "Row 2"),
        ("missing.json", "cannot be read"),
        ("~nobody-here/a.json", "^schema=.* is in a home folder that does not exist"),
        ("/dev/zero.json", "cannot be read"),
        ("large.json", "^The schema large.json cannot be read: it is larger than 16 MB.$"),
        ("latin.json", "is not JSON"),
        ("missing.csv", "missing.csv"),
    ],
)
def test_a_schema_that_cannot_be_drawn_from(schema, problem, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "large.json").write_bytes(b" " * ((1 << 24) + 1))
    (tmp_path / "latin.json").write_bytes(b'{"stars": {"\xe9": 1}}')
    with pytest.raises((ConfigError, DataError), match=problem):
        reviewgen.generate_dataset(model, 5, out=tmp_path / "t", schema=schema)
    assert not any(tmp_path.glob("t*"))


def test_a_schema_may_be_a_pipe(model, tmp_path, monkeypatch):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=['{"stars": {"5": 1}}'])
    writer.start()
    assert read_schema(pipe, model.conditions, {}).draw(1, 1) == {"stars": 5}
    writer.join()
    monkeypatch.setattr("reviewgen.inputs._SECONDS", 0.2)
    with pytest.raises(DataError, match=r"nothing has opened this pipe for writing in 0\.2 seconds"):
        read_schema(pipe, model.conditions, {})


def test_the_columns_of_a_table_are_those_of_its_first_thousand_rows(model):
    rows = [{"stars": 5}] * 999 + [{"genre": "jazz", "stars": 1}] + [{"genre": "folk"}]
    schema = read_schema(rows, model.conditions, {})
    assert schema.names == ["stars", "genre"]
    assert set(schema.groups[0].rows) == {(5, None), (1, "jazz"), (None, "folk")} and len(schema.groups[0].rows) == 1001


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_values_that_a_table_cannot_hold_as_they_are_given(format, model, tmp_path):
    given = {"prompt": "\ud800a", "seed": (1 << 64) - 1, "conditions": {"stars": " 5 ", "genre": "jazz"}}
    reviewgen.generate_dataset(model, 3, out=tmp_path / "t", columns=True, format=format, **given, **SHORT)
    file = tmp_path / "t" / f"train-00000-of-00001.{format}"
    row = pq.read_table(file).to_pylist()[1] if format == "parquet" else rows_of(file)[1]
    prompt = given["prompt"] if format == "jsonl" else "\N{REPLACEMENT CHARACTER}a"
    expected = {"number": 1, "seed": (1 << 64) - 1, "prompt": prompt, "stars": 5, "genre": "jazz"}
    assert {name: row[name] for name in expected} == expected


def test_conditions_that_are_called_as_other_columns():
    values = (Value(label="a", share=1.0),)
    called = ("seed", "condition_seed", "stars")
    conditions = Conditions(tuple(Condition(name=name, kind="category", values=values) for name in called))
    names = {"seed": "condition_condition_seed", "condition_seed": "condition_seed", "stars": "stars"}
    assert column_names(conditions, ["text", "seed"]) == names
    assert column_names(conditions, []) == {name: name for name in names}


@pytest.mark.parametrize(("value", "count"), [("", 1), ("x", 1), ("-3", 1), ("\u00b2", 1), ("4", 4), (None, 1)])
def test_the_number_of_processes(value, count, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if value is not None:
        monkeypatch.setenv("WORLD_SIZE", value)
    assert count_processes() == count


def test_a_condition_that_is_given_and_drawn(model, tmp_path):
    with pytest.raises(ConfigError, match="given and also drawn"):
        reviewgen.generate_dataset(model, 5, out=tmp_path / "t", schema={"stars": {"5": 1}}, conditions={"stars": 5})


def test_a_model_without_conditions_has_the_other_columns_and_no_schema(tmp_path):
    train_tiny("ngram-char", tmp_path / "cache", **NGRAM).save_pretrained(tmp_path / "plain")
    reviewgen.generate_dataset(tmp_path / "plain", 3, out=tmp_path / "t", columns=True, **SHORT)
    assert list(rows_of(tmp_path / "t")[0]) == ["text", "number", "seed", "prompt", "finish_reason", "receipt"]
    with pytest.raises(ConfigError, match="without conditions"):
        reviewgen.generate_dataset(tmp_path / "plain", 3, out=tmp_path / "u", schema={"stars": {"5": 1}})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"n": 0}, "n must be"),
        ({"n": True}, "n must be"),
        ({"prompt": []}, "no prompts"),
        ({"format": "csv"}, "csv"),
        ({"shard_texts": 0}, "shard_texts"),
        ({"shard_texts": 1, "n": 100_001}, "at most 100,000 shards: for 100,001 texts, shard_texts must be at least 2; got 1"),
        ({"shard_texts": 10, "n": 500_001, "prompt": ["a", "b"]}, "for 1,000,002 texts, shard_texts must be at least 11; got 10"),
        ({"seed": -1}, "seed"),
        ({"max_time": 3.0}, "speed of this machine"),
        ({"num_beams": 3}, "num_beams"),
        ({"num_return_sequences": 3}, "num_return_sequences"),
        ({"stopping_criteria": lambda *_: False}, "Functions"),
        ({"temprature": 1}, "temperature"),
        ({"out": "t.jsonl"}, "name of a file"),
    ],
)
def test_arguments_that_are_refused(options, problem, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=problem):
        reviewgen.generate_dataset(model, **({"n": 5, "out": "t"} | options))
    assert not any(tmp_path.iterdir())


def test_the_number_of_shards_of_judged_texts_is_bounded(model, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "_MAX_SHARDS", 3)
    texts = [f"the food was good {i}" for i in range(10)]
    with pytest.raises(ConfigError, match="at most 3 shards: for 10 texts, shard_texts must be at least 4; got 3"):
        reviewgen.score_dataset(model, texts, out=tmp_path / "s", shard_texts=3, text_column="text")
    assert not any(tmp_path.glob("s*"))
    assert reviewgen.score_dataset(model, texts, out=tmp_path / "s", shard_texts=4).files == tuple(
        f"train-0000{number}-of-00003.jsonl" for number in range(3)
    )
    assert reviewgen.score_dataset(model, texts, out=tmp_path / "s.jsonl", shard_texts=1).texts == 10  # one file


def test_a_model_that_is_not_saved_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="save and load it first"):
        reviewgen.generate_dataset(train_tiny("ngram-char", tmp_path / "cache", **NGRAM), 5, out=tmp_path / "t")


def test_an_interrupted_call_goes_on_from_the_finished_parts(model, tmp_path, monkeypatch):
    options = {"columns": True, "unique": True, "shard_texts": 50, **SHORT}
    reviewgen.generate_dataset(model, 300, out=tmp_path / "whole", seed=5, **options)
    write, made = parts.TextPart.write, []

    def failing(part, rows, write_file):
        if len(made) % 3 == 2:
            made.append(None)
            raise SystemExit(9)
        write(part, rows, write_file)
        made.append(part.number)

    monkeypatch.setattr(parts.TextPart, "write", failing)
    tries = 0
    while not (tmp_path / "t").exists():
        tries += 1
        try:
            reviewgen.generate_dataset(model, 300, out=tmp_path / "t", seed=5 if tries == 1 else None, **options)
        except SystemExit:
            (tmp_path / "t.partial/parts/.000004.jsonl.1").write_text("half")  # of a process that was killed
    numbers = [number for number in made if number is not None]
    assert tries > 1 and len(numbers) == len(set(numbers))
    assert files_of(tmp_path / "t") == files_of(tmp_path / "whole") and not (tmp_path / "t.partial").exists()


def test_a_complete_folder_is_kept_and_another_job_refused(folder, tmp_path, monkeypatch, capsys):
    command = ["generate", folder, "--out", tmp_path / "t", "--format", "jsonl", "--max-new-tokens", 5]
    assert run_command(monkeypatch, capsys, *command, "-n", 7)[0] == 0
    before = files_of(tmp_path / "t")
    status, said, _ = run_command(monkeypatch, capsys, *command, "-n", 7)
    assert status == 0 and "complete already" in said
    status, _, notes = run_command(monkeypatch, capsys, *command, "-n", 8)
    assert status == 2 and "n differ" in notes
    status, _, notes = run_command(monkeypatch, capsys, *command, "-n", 7, "--seed", 12345)
    assert status == 2 and "seed differ" in notes
    assert files_of(tmp_path / "t") == before and not (tmp_path / "t.partial").exists()
    (tmp_path / "t.partial").mkdir()
    (tmp_path / "t.partial/job.json").write_text('{"n": 3}')
    shutil.rmtree(tmp_path / "t")
    status, _, notes = run_command(monkeypatch, capsys, *command, "-n", 7)
    assert status == 2 and "another job" in notes


def test_what_exists_is_left_as_it_is(model, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/manifest.json").write_text('{"name": "an extension"}')
    for name in ("file", "folder", "other"):
        with pytest.raises((OutputExists, StorageError)):
            reviewgen.generate_dataset(model, 3, out=tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "other"]


def test_a_full_disk_is_said_and_the_same_call_goes_on(model, tmp_path, monkeypatch):
    def full(file, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(parts, "write_file", full)
        with pytest.raises(StorageError, match="No room"):
            reviewgen.generate_dataset(model, 5, out=tmp_path / "t", seed=1, **SHORT)
    reviewgen.generate_dataset(model, 5, out=tmp_path / "t", **SHORT)
    assert [row["text"] for row in rows_of(tmp_path / "t")] == model.generate(num_return_sequences=5, seed=1, **SHORT)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--unique"], "give --out FOLDER"),
        (["--columns", "--out", "t", "--receipt", "r"], "--columns puts the receipts"),
        (["--format", "xml", "--out", "t"], "xml"),
        (["--format", "jsonl", "--out", "t", "-n", 0], "at least 1"),
    ],
)
def test_command_lines_that_are_refused(words, problem, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, notes = run_command(monkeypatch, capsys, "generate", folder, *words)
    assert status == 2 and problem in notes and not any(tmp_path.iterdir())


def test_scores_are_those_of_score_and_their_sum_that_of_evaluate(model, tmp_path):
    written = reviewgen.score_dataset(model, REVIEWS, out=tmp_path / "s.jsonl")
    rows, whole = rows_of(tmp_path / "s.jsonl"), model.evaluate(REVIEWS)
    assert len(rows) == written.texts == whole.reviews
    for row in rows[:10]:
        score = model.score(row["text"], conditions={"stars": row["stars"], "genre": row["genre"]})
        assert row["bits"] == pytest.approx(score.bits, rel=1e-6) and row["tokens"] == len(score.tokens)
        assert row["bits_per_character"] == row["bits"] / row["characters"]
    assert math.fsum(row["bits"] for row in rows) / whole.characters == pytest.approx(whole.bits_per_character, rel=1e-9)
    assert written.summary["bits_per_character"] == pytest.approx(whole.bits_per_character, rel=1e-9)


def test_copies_are_those_of_novelty(model, tmp_path):
    texts = [REVIEWS[0]["text"], "zzz qqq xxx", TEXTS[3] + TEXTS[1]]
    written = reviewgen.novelty_dataset(model, texts, out=tmp_path / "n.parquet")
    for row, text in zip(pq.read_table(tmp_path / "n.parquet").to_pylist(), texts, strict=True):
        report = model.novelty(text)
        assert row["text"] == text and row["longest_copy"] == report.longest_text
        assert [row[f"copied_share_{size}"] for size in (8, 12, 20)] == list(report.windows.values())
    assert written.summary["longest_copy_characters"] == max(model.novelty(text).longest_characters for text in texts)


def test_impossible_texts_have_no_bits(model, tmp_path, monkeypatch):
    def impossible(*args, **options):
        losses = token_losses(*args, **options)
        losses[1][0] = math.inf
        return losses

    monkeypatch.setattr("reviewgen.writing.judging.token_losses", impossible)
    written = reviewgen.score_dataset(model, REVIEWS[:5], out=tmp_path / "s.jsonl")
    assert [row["bits"] is None for row in rows_of(tmp_path / "s.jsonl")] == [False, True, False, False, False]
    assert written.summary["zero_probability_texts"] == 1 and written.summary["bits_per_character"] is None


def test_a_source_that_has_changed_is_not_gone_on_with(folder, tmp_path, monkeypatch):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(f"a text {number}" for number in range(10)))
    monkeypatch.setattr("reviewgen.writing.judging._PART_TEXTS", 4)
    finish = generating.Table.finish
    with monkeypatch.context() as patch:
        patch.setattr(generating.Table, "finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            reviewgen.score_dataset(folder, file, out=tmp_path / "s")
    assert generating.Table.finish is finish
    before = file.read_text()
    file.write_text("another\n" + before)
    with pytest.raises(ConfigError, match="texts differ"):
        reviewgen.score_dataset(folder, file, out=tmp_path / "s")
    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match="the source has changed"):
        same = json.loads((tmp_path / "s.partial/job.json").read_text())["texts"]  # as of a large file that differs in the middle
        patch.setattr("reviewgen.writing.judging.identify_source", lambda *_, **__: same)
        reviewgen.score_dataset(folder, file, out=tmp_path / "s")
    file.write_text(before)
    assert reviewgen.score_dataset(folder, file, out=tmp_path / "s").texts == 10


@pytest.mark.parametrize("verb", ["score", "novelty"])
def test_the_commands_write_tables(verb, folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "texts.txt").write_text("a fine record\nanother one\n")
    monkeypatch.chdir(tmp_path)
    status, said, _ = run_command(monkeypatch, capsys, verb, folder, "--data", "texts.txt", "--out", "t", "--format", "parquet")
    assert status == 0 and "2 texts are in t" in said
    assert pq.read_table("t/train-00000-of-00001.parquet")["text"].to_pylist() == ["a fine record", "another one"]
    for words in ([], ["--text", "a", "--data", "texts.txt"], ["--data", "texts.txt"], ["--text", "a", "--out", "u"]):
        status, _, notes = run_command(monkeypatch, capsys, verb, folder, *words)
        assert status == 2 and "--data" in notes


@pytest.mark.parametrize("name", ["a:b", "s3:x"])
def test_a_name_with_a_colon_is_no_protocol(name, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = reviewgen.generate_dataset(model, 5, out=name, seed=1, format="parquet", **SHORT)
    assert written.texts == 5 and (tmp_path / name / written.files[0]).exists()
    scored = reviewgen.score_dataset(model, ["a", "b"], out=f"{name}.parquet")
    assert (tmp_path / f"{name}.parquet").exists() and scored.texts == 2
