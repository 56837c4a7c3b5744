"""csv files row by row: the same fields as the csv module, and the line of every error as counted in the file's bytes."""

import csv

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.texts import corpus_of, write

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


def test_the_separator_and_the_columns(tmp_path):
    for name, data, columns in [
        ("a.csv", '"id";"text, as written"\n1;"a;b"\n2;c,d\n', ["id", "text, as written"]),
        ("a.tsv", "a\tb\n1\tx\n", ["a", "b"]),
        ("a.tsv", "a; b\n1;x\n3;y\n", ["a", " b"]),
        ("a.tsv", "good, bad\nx\ny\n", ["good, bad"]),
        ("a.tsv", "a, b\tc\n1\tx\n", ["a, b", "c"]),
        ("a.csv", "text,text,\nx,y,z\n", ["text", "text (2)", "column 3"]),
    ]:
        assert corpus_of(write(tmp_path / name, data)).stream.columns == columns
