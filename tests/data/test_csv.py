"""csv files row by row: the same fields as the csv module, and the line of every error as counted in the file's bytes."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.texts import corpus_of, refusal, texts_of, write

FIELDS = st.text(st.sampled_from("ab, ;\"\n\r\t|é\u2028\u0085😀\\'"), max_size=8)
TABLES = st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1, max_size=6)
STYLES = [(csv.QUOTE_ALL, "\n"), (csv.QUOTE_ALL, "\r\n"), (csv.QUOTE_ALL, "\r"), (csv.QUOTE_MINIMAL, "\r\n")]


@given(TABLES, st.sampled_from(STYLES), st.sampled_from(",;\t|"))
@settings(max_examples=60)
def test_the_rows_are_those_of_the_csv_module(tmp_path_factory, table, style, separator):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=separator, quoting=style[0], lineterminator=style[1])
        writer.writerows([["text", "one of 2", "two of 2"], *table])
    read = corpus_of(path, clean=False, text_column="text", conditions=("one of 2", "two of 2"))
    assert read.stream.columns == ["text", "one of 2", "two of 2"]
    assert [(text, *values) for text, values in zip(read.texts, read.values, strict=True)] == table


def test_csv_files_as_users_have_them(tmp_path):
    for data, texts in [
        (",text\n0,007\n1,1.0\n", ["007", "1.0"]),  # what DataFrame.to_csv writes
        ("text,text\na,b\n", ["a"]),
        ("\n\ntext,id\n007,1\n", ["007"]),
        ("text\na;b\nc|d\n", ["a;b", "c|d"]),
        ('text,id\n"' + "x, " * 100_000 + '",1\nb,2\n', ["x, " * 100_000, "b"]),
        ("\ufefftext,id\na,1\n", ["a"]),
        ("text\nlast line without end", ["last line without end"]),
        ("0\na7 b\n", ["a7 b"]),
        ('text,id\n"He said "no" twice",5\n"b",6\n', ['He said no" twice"', "b"]),
        ('text,id\n"a" ,2\n"b"c,"d\ne"\n', ["a ", "bc"]),
        ('text\n""\n   \n\na\n', ["", "   ", "a"]),
        ("\ntext,id\n\n\ta,1\n", ["\ta"]),
    ]:
        assert texts_of(write(tmp_path / "a.csv", data)) == texts


def test_the_separator_and_the_columns(tmp_path):
    for name, data, columns in [
        ("a.csv", '"id";"text, as written"\n1;"a;b"\n2;c,d\n', ["id", "text, as written"]),
        ("a.tsv", "a\tb\n1\tx\n", ["a", "b"]),
        ("a.tsv", "a,b\n1,x\n", ["a", "b"]),  # commas all the same
        ("a.tsv", "a; b\n1;x\n3;y\n", ["a", " b"]),
        ("a.tsv", "good, bad\nx\ny\n", ["good, bad"]),
        ("a.tsv", "good, bad\nx, y\nz\n", ["good, bad"]),
        ("a.tsv", "a, b\tc\n1\tx\n", ["a, b", "c"]),
        ("a.csv", "text,text,\nx,y,z\n", ["text", "text (2)", "column 3"]),
    ]:
        assert corpus_of(write(tmp_path / name, data)).stream.columns == columns


TEXTS = ["plain", "two\nlines", 'with "quotes", and\na comma', "\n\n\n", "crlf\r\ninside", "", "é\u2028x"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("one field\n", "row {} has 1 field, and the header has 2: 'one field'"),
        ("a, b, c\n", "row {} has 3 fields, and the header has 2: 'a, b, c'"),
        ('"never closed,1\n', "row {} has 1 field, and the header has 2: '\"never closed,1'"),
        ("a;1\n", "row {} has 1 field, and the header has 2: 'a;1'"),
    ],
)
def test_the_row_of_an_error_is_named_and_shown(tmp_path, broken, said):
    for rows in (0, 1, 7, 50):
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([["text", "id"], *([TEXTS[number % len(TEXTS)], number] for number in range(rows))])
        for name in ("a.csv", "a.csv.gz"):
            path = write(tmp_path / name, buffer.getvalue() + broken + "a,1\nb,2\n")
            assert refusal(path).startswith(f"{path} cannot be read: {said.format(rows + 2)}")
