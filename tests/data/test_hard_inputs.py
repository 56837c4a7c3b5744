"""Hard inputs: each is read rightly, or refused in a sentence that names the file, the row and what
is wrong; none is lost.
"""

import bz2
import gzip
import io
import itertools
import json
import lzma
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import reviewgen
from reviewgen.errors import ConfigError
from reviewgen.registry.plugins import find_tokenizer
from tests.support.texts import refusal, texts_of, write

ROOT = Path(__file__).parents[2]
BIG = "long text " * 6_500_000  # 65 MB


def zipped(**files: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return stream.getvalue()


def parquet(values: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": values}), stream)
    return stream.getvalue()


TABLE = {"text": {"0": "a b", "1": "c d"}, "stars": {"0": 1, "1": 2}}
ROWS = [{"text": "a b", "stars": 1}, {"text": "c d", "stars": 2}]
READ: list[tuple[str, bytes | str, dict[str, Any], list[str]]] = [
    ("a.csv", "text,id\na,1\n\n\nb,2", {}, ["a", "b"]),
    ("a.csv", "text,id\r\ra,1\rb,2\r", {}, ["a", "b"]),
    ("a.csv", 'text,id\n"two\r\nlines, ""quoted""",1\n', {}, ['two\r\nlines, "quoted"']),
    ("a.csv", 'text,id\n"He said "no" twice",5\n"b",6\n', {}, ['He said no" twice"', "b"]),
    ("a.csv", "\ufefftext;id\nNA;1\nnull;2\nnan;3\n007;4\n", {}, ["NA", "null", "nan", "007"]),
    ("a.csv", f'text,id\n"{BIG}",1\nb,2\n', {"max_text_characters": 1 << 27}, [BIG, "b"]),
    ("a.csv", "text,text\na,b\n", {}, ["a"]),
    ("a.csv", ",text\n0,007\n1,1.0\n", {}, ["007", "1.0"]),  # what DataFrame.to_csv writes
    ("a.csv", '\n\ntext,id\n"a" ,2\n"b"c,"d e"\n', {}, ["a ", "bc"]),
    ("a.csv", '"text\nbody";"id; no"\n"a, b";1\n', {}, ["a, b"]),
    ("a.csv", "\ufeffsep=;\r\ntext;id\r\na, b;1\r\n", {}, ["a, b"]),
    ("a.tsv", "text\tid\na, b\t1\n", {}, ["a, b"]),
    ("a.txt.xz", lzma.compress(b"a\nb\n"), {}, ["a", "b"]),
    ("a.txt.bz2", bz2.compress(b"a\nb\n"), {}, ["a", "b"]),
    ("a.zip", zipped(b_csv="text,id\nb,1\n", a_csv="id,text\n2,a\n"), {}, ["a", "b"]),
    (
        "a.jsonl",
        '{"text": "a"}\n\n{"text": 5}\n{"text": null}\n{"id": 1}\n{"text": "b", "new": [1]}\n',
        {},
        ["a", "5", "", "", "b"],
    ),
    ("a.jsonl", '"a"\n"b c"\n', {}, ["a", "b c"]),
    (
        "a.jsonl",
        '{"review": {"body": "a b"}}\n{"review": {}}\n',
        {"text_column": "review.body"},
        ["a b", ""],
    ),
    ("a.json", json.dumps({"reviews": ROWS, "page": 1}), {}, ["a b", "c d"]),
    ("a.json", json.dumps({"data": {"reviews": ROWS}}), {}, ["a b", "c d"]),
    ("a.json", json.dumps(TABLE), {}, ["a b", "c d"]),
    (
        "a.json",
        json.dumps(
            {"columns": ["stars", "text"], "index": [0, 1], "data": [[1, "a b"], [2, "c d"]]}
        ),
        {},
        ["a b", "c d"],
    ),
    ("a.json", json.dumps({"tt01": ROWS[0], "tt02": ROWS[1]}), {}, ["a b", "c d"]),
    ("a.json", json.dumps({"text": ["a b", "c d"], "stars": [1, 2]}), {}, ["a b", "c d"]),
    ("a.json", '{"text": "only one", "tags": ["x y", "z"]}', {}, ["only one"]),
    ("a.json", json.dumps({"tt1": {"text": "a b", "who": "Ann", "title": "A c"}}), {}, ["a b"]),
    (
        "a.json",
        json.dumps({"a": "text 1", "b": "text 2", "c": "text 3"}),
        {},
        ["text 1", "text 2", "text 3"],
    ),
    ("a.json", '[{"text": "a", "b": ' + "[" * 62 + "]" * 62 + "}]", {}, ["a"]),
    ("a.jsonl", '{"text": "a", "b": ' + "[" * 63 + "]" * 63 + "}\n", {}, ["a"]),
    ("a.parquet", parquet(pa.array(["a", None, "a"]).dictionary_encode()), {}, ["a", "", "a"]),
    ("a", b"a\nb\n", {}, ["a", "b"]),
    ("a", parquet(["a b"]), {}, ["a b"]),
]
REFUSED: list[tuple[str, bytes | str, dict[str, Any], str]] = [
    ("a.csv", "text,id\na,1\nb, c,2\n", {}, "row 3 has 3 fields, and the header has 2: 'b, c,2'"),
    ("a.csv", "text,id\na,1\nb\n", {}, "row 3 has 1 field"),
    ("a.csv", "text,id\na;1\n", {}, "row 2 has 1 field"),
    (
        "a.csv",
        'text\n"never closed\na\nb\n',
        {},
        "the double quote opened in line 2 is never closed",
    ),
    (
        "a.csv",
        'text,title\na,b\nc,"never closed\nd,e\n',
        {},
        "the double quote opened in line 3 is never closed",
    ),
    (
        "a.csv",
        'text,author\n"Wow what a film,Ann\n"Great film, Bob\n',
        {},
        "closed within a text, in line 3",
    ),
    ("a.csv", 'text,stars\r"Wow what a film,5\r"fine film",4\rx,1\r', {}, "closed within a text"),
    ("a.csv", 'text,stars\n"He said \\"no\\" to me",5\n', {}, "quotes after backslashes"),
    (
        "a.json",
        json.dumps({"train": ROWS, "test": ROWS}),
        {},
        "several lists of records: train, test",
    ),
    (
        "a.json",
        json.dumps({"columns": ["text", "stars"], "data": [["a b", 5], [3]]}),
        {},
        "a row has 1 values",
    ),
    ("a.csv", 'text,id\n"never closed,1\na,2\n"b",3\n', {}, "closed within a text, in line 4"),
    ("a.csv", "text,id\na\x00b,1\n", {}, "binary file"),
    ("a.txt", "a\x00b\n".encode("utf-16"), {}, "NUL characters"),
    ("a.json", "[" * 100_000, {}, "its records are nested more than 64 levels deep"),
    (
        "a.json",
        '[{"text": ' + '{"a": ' * 100_000,
        {},
        "its records are nested more than 64 levels deep",
    ),
    ("a.json", '{"text": ' + "[" * 100_000, {}, "its records are nested more than 64 levels deep"),
    (
        "a.json",
        '{"text": "a", "b": ' + "[" * 64 + "]" * 64 + "}",
        {},
        "its records are nested more than 64 levels deep",
    ),
    (
        "a.json",
        '[{"text": "a", "b": ' + "[" * 63 + "]" * 63 + "}]",
        {},
        "its records are nested more than 64 levels deep",
    ),
    (
        "a.jsonl",
        '{"text": ' + "[" * 5000 + "]" * 5000 + "}\n",
        {},
        "its records are nested more than 64 levels deep",
    ),
    (
        "a.jsonl",
        '{"text": "a"}\n{"text": ' + "[" * 100_000,
        {},
        "line 2 is nested more than 64 levels deep",
    ),
    (
        "a.jsonl",
        '{"text": "a"}\n{"text": "b", "c": ' + "[" * 64 + "]" * 64 + "}",
        {},
        "line 2 is nested more than 64 levels deep",
    ),
    ("a.csv", "stars,id\n4,1\n", {}, "no column of text; its columns are: stars, id"),
    ("a.csv", "text,id\n", {}, "no texts"),
    ("a.csv", "", {}, "is empty"),
    ("a.csv", "text,id\na,1\n", {"text_column": "txt"}, "Did you mean 'text'"),
    ("a.csv.gz", gzip.compress(b"text\n" + b"a b c\n" * 9000)[:60], {}, "cannot be read"),
    ("a.txt.gz", b"not packed", {}, "cannot be read"),
    ("a.zip", zipped(image_png="x"), {}, "no data files"),
    ("a.jsonl", '{"text": "a"}\noops\n', {}, "line 2 is not JSON"),
    ("a.jsonl", '{"text": "a"}\n[1, 2]\n', {}, "line 2 is a list"),
    ("a.jsonl", '{"text": ["a", "b"]}\n', {"text_column": "text"}, "type list"),
    ("a.json", '[{"text": "a"}, {"text": "b"', {}, "after record 1"),
    ("a.json", '[{"text": "a"}, {"text": NaN}]', {}, "JSON has no NaN"),
    ("a.json", "[1, 2]", {}, "yields int"),
    ("a.parquet", parquet(["a"])[:-9], {}, "cannot be read"),
    ("a.parquet", parquet([["a"], ["b"]]), {"text_column": "text"}, "type list"),
    ("a.arrow", b"ARROW1 and nothing else", {}, "cannot be read"),
    ("a.sqlite", b"SQLite format 3\x00 no", {}, "cannot be read"),
    ("a.xlsx", b"PK\x03\x04", {}, "cannot be read"),
    ("a.txt", "a\n", {"documents": "file", "text_column": "x"}, "no columns"),
]


@pytest.mark.parametrize("number", range(len(READ)))
def test_it_is_read(number, tmp_path):
    name, content, options, texts = READ[number]
    found = texts_of(write(tmp_path / name, content, packed=False), **options)
    assert [text[:200] for text in found] == [text[:200] for text in texts] and found == texts


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_it_is_refused(number, tmp_path):
    name, content, options, said = REFUSED[number]
    message = refusal(write(tmp_path / name, content, packed=False), **options)
    assert said in message and name in message and len(message) < 500


LITTLE_MEMORY = """if True:
    import resource
    import sys
    from reviewgen.errors import DataError
    from tests.support.disks import peak_memory
    from tests.support.texts import texts_of
    texts_of(["a b"])
    used = peak_memory()
    resource.setrlimit(resource.RLIMIT_DATA, (used + (1 << 30), resource.RLIM_INFINITY))
    try:
        texts_of(sys.argv[1])
    except DataError as error:
        print(error)
    assert peak_memory() < used + (200 << 20)
"""


def refusal_in_little_memory(file: Path) -> str:
    """Return what a process that may take 200 MB more than at its start prints of a file."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    words = [sys.executable, "-c", LITTLE_MEMORY, file.name]
    done = subprocess.run(words, cwd=file.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_deep_nesting_takes_little_memory(tmp_path):
    write(tmp_path / "a.json", '[{"text": ' + "[" * 20_000 + "]" * 20_000 + "}]")
    message = "a.json cannot be read: its records are nested more than 64 levels deep.\n"
    assert refusal_in_little_memory(tmp_path / "a.json") == message


def spreadsheet(*cells: tuple[str, str]) -> bytes:
    """Return an xlsx file with a sheet of cells, each in a row element of its own."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    links = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    of_package = "http://schemas.openxmlformats.org/package/2006/relationships"
    rows = [
        f'<row><c r="{place}" t="inlineStr"><is><t>{text}</t></is></c></row>'
        for place, text in cells
    ]
    files = {
        "_rels/.rels": (
            f'<Relationships xmlns="{of_package}"><Relationship Id="a"'
            f' Type="{links}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
        ),
        "xl/_rels/workbook.xml.rels": (
            f'<Relationships xmlns="{of_package}"><Relationship Id="b" Type="{links}/worksheet" '
            'Target="worksheets/sheet1.xml"/></Relationships>'
        ),
        "xl/workbook.xml": (
            f'<workbook xmlns="{main}" xmlns:r="{links}"><sheets><sheet name="One" sheetId="1"'
            ' r:id="b"/></sheets></workbook>'
        ),
        "xl/worksheets/sheet1.xml": (
            f'<worksheet xmlns="{main}"><sheetData>{"".join(rows)}</sheetData></worksheet>'
        ),
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


SHEETS = {
    "few": [("A1", "text"), ("A2", "a b")],
    "a far row": [("A1", "text"), ("A2", "a b"), ("B60000", "c")],
    "a far column": [("A1", "text"), ("A2", "a b"), ("XFD3", "c")],
    "many columns and rows": [("A1", "text"), ("A2", "a b"), ("AD100000", "c")],
}


@pytest.mark.parametrize("name", SHEETS)
def test_a_spreadsheet_is_read(tmp_path, name):
    assert (
        texts_of(write(tmp_path / "a.xlsx", spreadsheet(*SHEETS[name])), text_column="text")[0]
        == "a b"
    )


FAR = [["XFD1048576"], ["XFD1", "A1048576"], ["ZZ1048576"]]


@pytest.mark.slow
@pytest.mark.parametrize("far", FAR)
def test_a_spreadsheet_with_a_far_cell_is_refused(tmp_path, far):
    """In another process with little memory, which it would take or which would end."""
    cells = [("A1", "text"), ("A2", "a b"), *((place, "c") for place in far)]
    write(tmp_path / "a.xlsx", spreadsheet(*cells))
    assert (
        refusal_in_little_memory(tmp_path / "a.xlsx")
        == "a.xlsx has a cell far from the others, in xl/worksheets/sheet1.xml. Delete the empty"
        " columns and rows in between, or save the sheet as csv.\n"
    )


@pytest.mark.slow
def test_the_time_of_an_archive_is_linear_in_its_files(tmp_path):
    seconds = []
    for count in (500, 4_000):
        archive = write(
            tmp_path / f"{count}.zip",
            zipped(**{f"{number}_txt": "a text\n" for number in range(count)}),
        )
        start = time.process_time()
        assert len(texts_of(archive)) == count
        seconds.append(time.process_time() - start)
    assert seconds[1] < 20 * seconds[0]  # 8 times as many files


@pytest.mark.parametrize(
    "sql",
    [
        "create table other (body text)",
        "delete from reviews",
        "attach 'new.sqlite' as new",
        "vacuum into 'new.sqlite'",
        "create temp table t (b)",
        "pragma table_info(reviews)",
        "explain select body from reviews",
        "with long as (select body from reviews) delete from reviews",
        "select body from reviews; select body from reviews",
    ],
)
def test_a_query_only_selects(tmp_path, monkeypatch, sql):
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("a.sqlite") as database:
        database.execute("create table reviews (body text)")
        database.execute("insert into reviews values ('a folk film')")
    content = Path("a.sqlite").read_bytes()
    with pytest.raises(ConfigError, match="only reads") as refused:
        texts_of("a.sqlite", sql=sql)
    assert ".." not in str(refused.value)
    assert [file.name for file in tmp_path.iterdir()] == ["a.sqlite"] and Path(
        "a.sqlite"
    ).read_bytes() == content


QUERIES = [
    "with long as (select body from reviews where length(body) > 9) select * from long",
    "select upper(body) as body from reviews union all select 'b' where 0",
    "select body from shown",
    "select body from found where found match 'folk'",
    "select 'a ' || id as body from areas where low > 1",
    "-- all\n/* of them */ SELECT body FROM reviews",
    (
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2) select body"
        " from n join reviews on i = rowid"
    ),
    "select value as body from reviews, json_each(json_array(body, 'a jazz film'))",
]


@pytest.mark.parametrize("sql", QUERIES)
def test_every_kind_of_select_is_read(tmp_path, sql):
    with sqlite3.connect(tmp_path / "a.sqlite") as database:
        database.execute("create table reviews (body text)")
        database.execute("create view shown as select body from reviews where body like '%film'")
        database.execute("create virtual table found using fts5(body)")
        database.execute("create virtual table areas using rtree(id, low, high)")
        database.execute("insert into areas values (7, 2, 3)")
        for table in ("reviews", "found"):
            database.execute(f"insert into {table} values ('a folk film')")
        expected = [str(row[0]) for row in database.execute(sql)]
    assert texts_of(tmp_path / "a.sqlite", sql=sql, text_column="body") == expected != []


def test_a_database_is_read_by_a_query(tmp_path):
    with sqlite3.connect(tmp_path / "a.sqlite") as database:
        database.execute("create table reviews (body text, film int)")
        database.execute("create table films (id int, genre text)")
        database.executemany(
            "insert into reviews values (?, ?)", [("a folk film", 1), ("a jazz film", 2)]
        )
        database.executemany("insert into films values (?, ?)", [(1, "folk"), (2, "jazz")])
    sql = "select body, genre from reviews join films on film = id where genre = 'jazz'"
    assert texts_of(tmp_path / "a.sqlite", sql=sql) == ["a jazz film"]


def test_the_only_table_of_a_database_is_read_whatever_its_name(tmp_path):
    with sqlite3.connect(tmp_path / "b.sqlite") as database:
        database.execute(
            'create table "my ""own"" films" (id integer primary key autoincrement, body text)'
        )
        database.execute('insert into "my ""own"" films" (body) values (?)', ("a fine film",))
    assert texts_of(tmp_path / "b.sqlite") == ["a fine film"]


def test_a_folder_is_read_as_its_data_files(tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    write(tmp_path / "folder" / "b.csv", "text,id\nfrom a csv file,1\n")
    write(tmp_path / "folder" / "inner" / "c.txt", "from a txt file\n")
    write(tmp_path / "folder" / "notes.md", "not data\n")
    assert texts_of(tmp_path / "folder") == ["from a csv file", "from a txt file"]
    write(tmp_path / "folder" / "d.csv", "review,id\nnot in text,1\n")
    assert "d.csv has no column 'text'" in refusal(tmp_path / "folder", text_column="text")


def test_a_table_of_arrow_is_read(tmp_path):
    assert texts_of(pa.table({"text": ["a b", "c d"]})) == ["a b", "c d"]


def test_a_folder_of_many_files_is_read_in_order(tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(1500):
        write(tmp_path / "many" / f"{number:04}.txt", f"text {number}\n")
    assert texts_of(tmp_path / "many") == [f"text {number}" for number in range(1500)]


def test_two_sources_of_one_name_are_kept_apart(tmp_path):
    for folder, text in (("one", "A one\nC three\n"), ("two", "B two\nD four\n")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.txt", text)
    one, two = ((tmp_path / folder / "a.txt").as_uri() for folder in ("one", "two"))
    assert reviewgen.corpus(one, validation=two)["text"][:] == [
        "A one",
        "C three",
        "B two",
        "D four",
    ]


def test_a_store_in_the_place_of_another_is_read_anew(tmp_path):
    for letters in ("abcde", "vwxyz"):
        rows = [
            f"{letter} good {number}" for letter, number in itertools.product(letters, range(20))
        ]
        store = reviewgen.prepare(rows, preset="ngram-char", out=tmp_path / "store")
        tokenizer = find_tokenizer("char")[0].load(store.folder / "tokenizer")
        assert {
            tokenizer.decode(ids.tolist()) for ids, _ in store.splits()["train"].documents()
        } < set(rows)
        shutil.rmtree(store.folder)


def test_a_condition_with_the_name_of_the_text_column_is_refused():
    with pytest.raises(ConfigError, match="rename it"):
        reviewgen.corpus(
            [{"review": "a b", "text": "good"}] * 9, text_column="review", conditions=["text"]
        )
