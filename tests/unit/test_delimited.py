"""csv files row by row: the same fields as the csv module, and the line of every error as counted in the file's bytes."""

import csv
import gzip
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.data import delimited
from reviewgen.data.delimited import read_header, read_rows
from reviewgen.data.sources import open_texts
from reviewgen.errors import DataError

FIELDS = st.text(st.sampled_from("ab, ;\"\n\r\t|é\u2028\u0085😀\\'"), max_size=8)
TABLES = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(FIELDS, min_size=width, max_size=width), min_size=1, max_size=6)
)


@pytest.fixture
def rows_of(tmp_path):
    """Write a file and return its rows."""

    def read(data, name="a.csv"):
        (tmp_path / name).write_bytes(data.encode())
        return list(read_rows(tmp_path / name, name))

    return read


STYLES = [(csv.QUOTE_ALL, "\n"), (csv.QUOTE_ALL, "\r\n"), (csv.QUOTE_ALL, "\r"), (csv.QUOTE_MINIMAL, "\r\n")]


@given(TABLES, st.sampled_from(STYLES), st.sampled_from(",;\t|"))
@settings(max_examples=200, deadline=None)
def test_the_rows_are_those_of_the_csv_module(tmp_path_factory, table, style, separator):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    columns = [f"column of {number}" for number in range(len(table[0]))]
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=separator, quoting=style[0], lineterminator=style[1]).writerows([columns, *table])
    assert read_header(path, "a") == columns
    assert [list(row.values()) for row in read_rows(path, "a")] == table


TEXTS = ["plain", "two\nlines", 'with "quotes", and\na comma', "\n\n\n", "crlf\r\ninside", "", "é\u2028x"]


def table_of(count):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["text", "id"])
    writer.writerows([TEXTS[number % len(TEXTS)], number] for number in range(count))
    return buffer.getvalue()


@pytest.mark.parametrize("rows", [0, 1, 7, 50])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("one field\n", "line {} has 1 field, and the header has 2 (text, id); keep the separators of missing values"),
        (
            "a, b, c\n",
            "line {} has 3 fields, and the header has 2 (text, id); put each text with a ',' or a line break in double",
        ),
        ('"never closed,1\n', "the double quote opened in line {} is never closed; close it where its text ends"),
        ("a;1\n", "line {} has 1 field, and the header has 2 (text, id); the line seems to be separated by ';'"),
    ],
)
def test_the_line_of_an_error_is_that_of_the_file(tmp_path, rows, packed, broken, said):
    before = table_of(rows)
    line = len(before.replace("\r\n", "\n").split("\n"))
    data = (before + broken + "a,1\nb,2\n").encode()
    path = tmp_path / ("a.csv.gz" if packed else "a.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    (tmp_path / "work").mkdir()
    with pytest.raises(DataError) as caught:
        list(open_texts(path, tmp_path / "work").texts)
    assert str(caught.value).startswith(f"{path} cannot be read: {said.format(line)}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('text,id\nx,0\n"a,1\nb,2\nc,3\n"d",4\ne,5\n', "opened in line 3 is closed within a text, in line 6; close it where"),
        ('text,id\n"two\nlines",1\n5,"a\nb,2\n', "opened in line 4 is never closed"),
        ('id,text\n"3\n4","a\nb,2\n', "opened in line 3 is never closed"),
        ('text,id\nx,1\n"no line end', "opened in line 3 is never closed"),
        ('"text,id\nx,1\n', "opened in line 1 is never closed"),
        (
            'text,id\n"a\nb", c, d\n',
            "lines 2 to 3 are one row of 3 fields, and the header has 2 (text, id); perhaps a double quote",
        ),
        ('text,id\n"He said "no, never" twice",5\n', "line 2 has 3 fields"),
        ("text\rone, two\r", "line 2 has 2 fields, and the header has 1 (text)"),
        ("a|b\n1|2|3\n", "put each text with a '|' or a line break"),
        ("text,id\n\n  \na\n", "line 4 has 1 field"),
        ("a,b,c,d,e,f\nx\n", "the header has 6 (a, b, c, d, e, ...)"),
        ("a,b\n1\t2\n", "separated by '\\t' and the header by ','"),
    ],
)
def test_what_is_wrong_and_where(rows_of, data, said):
    with pytest.raises(DataError) as caught:
        rows_of(data)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        ('text,id\n"He said "no" twice",5\n"b",6\n', ['He said no" twice"', "b"]),
        ('text,id\n"a" ,2\n"b"c,"d\ne"\n', ["a ", "bc"]),
        ("text,id\na,5,\nb,6,,,\n", ["a", "b"]),
        ("text,,\na\nb,1,2\n", ["a", "b"]),
        ('text\n""\n   \n\na\n', ["", "a"]),
        ("\ntext,id\n\n\ta,1\n", ["\ta"]),
        ('text,id\n""""",1\n', None),
        ("text,id\n" + "x" * 200_000 + ",1\n", ["x" * 200_000]),
        ("text,id\n'a, b',1\n", None),
        ("", []),
        ("\n \n", []),
        ("text,id\n", []),
    ],
)
def test_odd_files(rows_of, data, texts):
    if texts is None:
        with pytest.raises(DataError):
            rows_of(data)
    else:
        assert [row["text"] for row in rows_of(data)] == texts


@pytest.mark.parametrize(
    ("data", "columns"),
    [
        ("a\tb\n1\t2\n", ["a", "b"]),
        ("a,b\n1,2\n", ["a", "b"]),  # commas all the same
        ("a; b\n1;2\n3;4\n", ["a", " b"]),
        ("good, bad\nx\ny\n", ["good, bad"]),
        ("good, bad\nx, y\nz\n", ["good, bad"]),
        ("a, b\tc\n1\t2\n", ["a, b", "c"]),
    ],
)
def test_the_separator_of_a_tsv_file(tmp_path, data, columns):
    (tmp_path / "a.tsv").write_text(data)
    assert read_header(tmp_path / "a.tsv", "a") == columns
    assert next(read_rows(tmp_path / "a.tsv", "a")).keys() == set(columns)


def test_an_open_quote_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "_MAX_ROW", 5000)
    (tmp_path / "a.csv").write_text("text,id\nx,1\n" * 3 + '"open,1\n' + "b,2\n" * 100_000)
    rows = read_rows(tmp_path / "a.csv", "a")
    assert [next(rows)["text"] for _ in range(5)] == ["x", "text", "x", "text", "x"]
    with pytest.raises(DataError, match="the double quote opened in line 7 is never closed"):
        next(rows)
