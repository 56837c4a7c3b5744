"""Files of every format give the same texts as Python's csv and json modules; what cannot be read
is refused with its place.
"""

import bz2
import csv
import gzip
import json
import lzma
import os
import random
import textwrap
import threading
import zipfile

import fsspec
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.errors import DataError
from tests.support.texts import as_csv, as_lines, as_parquet, corpus_of, refusal, texts_of, write

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
]
TEXTS += [
    "2020-01-01",
    " spaces ",
    "semi;colon\ttab|bar",
    "ดี 😀 é \u2028",
    "'single'",
    "back\\slash \\n",
    "crlf\r\ninside",
]
TEXTS += ["-", "<br />&amp;"]
ROWS = [
    {"id": str(number), "text": text, "stars": str(number % 5)} for number, text in enumerate(TEXTS)
]
FORMATS = {
    "a.csv": as_csv(ROWS),
    "semicolon.csv": as_csv(ROWS, delimiter=";"),
    "bar.csv": as_csv(ROWS, delimiter="|"),
    "tabs.csv": as_csv(ROWS, delimiter="\t"),
    "a.tsv": as_csv(ROWS, delimiter="\t"),
    "a.json": json.dumps(ROWS),
    "indented.json": "\n " + json.dumps(ROWS, indent=2, ensure_ascii=False),
    "strings.json": json.dumps(TEXTS),
    "objects.json": "".join(json.dumps(row, indent=1) for row in ROWS),
    "a.jsonl": as_lines(ROWS),
    "a.ndjson": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "a.parquet": as_parquet(ROWS),
    "groups.parquet": as_parquet(ROWS, row_group_size=3, use_dictionary=False, compression="none"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_texts(tmp_path, name):
    for suffix in ("", ".gz"):
        file = write(tmp_path / (name + suffix), FORMATS[name])
        assert texts_of(file) == TEXTS
        stream = corpus_of(file, clean=False).stream
        assert (stream.text_column in ("text", None), stream.preview, stream.decode_errors) == (
            True,
            TEXTS[:3],
            0,
        )


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_txt_by_line_paragraph_and_file(tmp_path, name, newline):
    unix = "\n\na one\nb\n\n\n\n\nc  \n \t\n\td\n\n\n"
    path = write(tmp_path / name, unix.replace("\n", newline))
    assert texts_of(path) == unix.split("\n")[:-1]
    assert texts_of(path, documents="paragraph") == ["a one\nb", "c  ", "\td"]
    assert texts_of(path, documents="file") == [unix]


@pytest.fixture
def three_files(tmp_path):
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.txt", f"{name}1\n{name}2\n")
    return tmp_path


def test_the_files_of_a_pattern_are_read_in_the_order_of_their_names(three_files):
    (three_files / "folder.txt").mkdir()
    write(three_files / "folder.txt" / "d.txt", "d1\n")
    assert texts_of(str(three_files / "?.txt")) == ["a1", "a2", "b1", "b2", "c1", "c2"]
    assert texts_of(three_files / "[ac].txt") == ["a1", "a2", "c1", "c2"]
    assert texts_of(str(three_files / "**/*.txt"))[-2:] == ["c2", "d1"]


def test_listed_files_are_read_in_the_order_of_the_list(three_files):
    listed = [three_files / "c.txt", three_files / "a.txt"]
    assert texts_of(listed) == ["c1", "c2", "a1", "a2"]


def test_a_file_may_be_one_text(three_files):
    texts = texts_of(str(three_files / "?.txt"), documents="file")
    assert texts == ["a1\na2\n", "b1\nb2\n", "c1\nc2\n"]


def test_an_empty_file_is_passed_over_unless_all_are_empty(three_files):
    write(three_files / "b.txt", "")
    texts = texts_of(str(three_files / "?.txt"), documents="file")
    assert texts == ["a1\na2\n", "c1\nc2\n"]
    write(three_files / "e.txt", "")
    assert "All 2 files are empty" in refusal(three_files / "[be].txt")


COMPRESSIONS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_an_existing_compressed_file_with_one_slash_in_its_name_is_a_path(
    tmp_path, monkeypatch, suffix
):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"reviews.csv{suffix}").write_bytes(COMPRESSIONS[suffix](b"text\na b\n"))
    monkeypatch.chdir(tmp_path)
    assert texts_of(f"data/reviews.csv{suffix}") == ["a b"]


def test_an_existing_archive_with_one_slash_in_its_name_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "reviews.zip", "w") as archive:
        archive.writestr("reviews.csv", "text\na b\n")
    monkeypatch.chdir(tmp_path)
    assert texts_of("data/reviews.zip") == ["a b"]


def test_an_existing_folder_with_one_slash_in_its_name_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "data" / "plain").mkdir(parents=True)
    write(tmp_path / "data" / "plain" / "a.txt", "a b\n")
    Dataset.from_list([{"text": "c d"}]).save_to_disk(tmp_path / "data" / "saved")
    DatasetDict({"test": Dataset.from_list([{"text": "e f"}])}).save_to_disk(
        tmp_path / "data" / "splits"
    )
    monkeypatch.chdir(tmp_path)
    assert texts_of("data/plain") == ["a b"]
    assert texts_of("data/saved") == ["c d"]
    assert texts_of("data/splits", split="test") == ["e f"]


def test_a_missing_compressed_file_with_one_slash_in_its_name_is_not_looked_for_on_the_hub(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert refusal("data/reviews.csv.gz").startswith("There is no file data/reviews.csv.gz.")


def test_a_condition_that_the_first_records_leave_out(tmp_path):
    write(
        tmp_path / "a.jsonl",
        as_lines([{"text": str(n)} | ({"stars": 5} if n > 500 else {}) for n in range(700)]),
    )
    assert (
        corpus_of(tmp_path / "a.jsonl", conditions=("stars",)).values
        == [[None]] * 501 + [[5.0]] * 199
    )


def test_files_behind_urls(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/reviews/b.csv", b"text\nb\n")
    memory.pipe_file("/reviews/a.csv.gz", gzip.compress(b"text\na\n"))
    assert texts_of("memory://reviews/*.csv*") == ["a", "b"]
    assert texts_of("memory://reviews/b.csv") == ["b"]
    assert refusal("memory://reviews/c.csv").startswith("There is no file memory://reviews/c.csv.")
    url = write(tmp_path / "a.csv", "text\na,b\n").as_uri()
    assert refusal(url).startswith(f"{url} cannot be read: row 2 has 2 fields")


@pytest.mark.posix
def test_a_pipe_is_read_from_its_first_byte(tmp_path):
    # such as <(zcat reviews.txt.gz) in a shell: without a suffix, and read only once
    pipe = tmp_path / "63"
    os.mkfifo(pipe)
    lines = [f"No. {number}" for number in range(2_000)]
    for content, texts in (("\n".join(lines), lines), (as_parquet(ROWS), TEXTS)):
        writer = threading.Thread(target=write, args=(pipe, content))
        writer.start()
        assert texts_of(pipe) == texts
        writer.join()


# Bytes and characters.


def test_a_byte_order_mark_is_used_and_removed(tmp_path):
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        for name in ("a.txt", "a.txt.gz", "a.csv"):
            read = corpus_of(
                write(tmp_path / name, "\ufefftext\r\né ดี 😀\r\nx".encode(encoding)), clean=False
            )
            assert (read.texts, read.report.decode_errors) == (
                ["text", "é ดี 😀", "x"][name == "a.csv" :],
                0,
            )


def bad_runs(data):
    """Count runs of bytes that are not valid UTF-8, and replace them, in one piece."""
    text = data.decode("utf-8", "surrogateescape")
    repaired = []
    runs = 0
    inside = False
    for c in text:
        bad = "\udc80" <= c <= "\udcff"
        runs += bad and not inside
        if not (bad and inside):
            repaired.append("\ufffd" if bad else c)
        inside = bad
    return "".join(repaired), runs


@pytest.mark.slow
@given(
    st.lists(
        st.sampled_from(
            [b"\xff", b"\xe0\xb8", b"\xed\xa0\x80", "é".encode(), "ดี 😀 ".encode(), b"a", b" "]
        ),
        max_size=30,
    )
)
@settings(max_examples=60)
def test_every_run_of_invalid_bytes_is_replaced_and_counted(tmp_path_factory, pieces):
    valid = "ดีมาก ".encode() * 40  # so much valid UTF-8 that no other encoding is thought of
    data = valid + b"".join(pieces) + b"."
    file = write(tmp_path_factory.mktemp("bytes") / "a.txt", data)
    read = corpus_of(file, clean=False)
    assert ("\n".join(read.texts), read.report.decode_errors) == bad_runs(data)


# The length of a text.


LONG = "ab " * 400  # 1,200 characters


def test_a_text_that_is_too_long_is_refused_with_its_place(tmp_path):
    texts = ["short", "also short", LONG]
    rows = [{"text": text, "stars": number} for number, text in enumerate(texts)]
    for name, content, place in [
        ("a.txt", "\n".join(texts), "Text 3 of"),
        ("a.txt.gz", "\n".join(texts), "Text 3 of"),
        ("a.csv", as_csv(rows), "Text 3 of column 'text' of"),
        ("a.csv.gz", as_csv(rows), "Text 3 of column 'text' of"),
        ("a.jsonl", as_lines(rows), "Text 3 of column 'text' of"),
        ("a.json", json.dumps(rows), "Text 3 of column 'text' of"),
        ("a.parquet", as_parquet(rows), "column 'text' of"),
    ]:
        file = write(tmp_path / name, content)
        message = refusal(file, max_text_characters=1_000)
        assert place in message and str(file) in message and "more than 1,000 characters" in message
        assert len(message) < 300 + len(str(tmp_path))
        assert texts_of(file, max_text_characters=1_300) == texts
        corpus_of(file, max_text_characters=1_300)
        # also where the cache has the corpus
        with pytest.raises(DataError, match="more than 1,000 characters"):
            corpus_of(file, max_text_characters=1_000)


# csv row by row.

FIELDS = st.text(st.sampled_from("ab, ;\"\n\r\t|é\u2028\u0085😀\\'"), max_size=8)
TABLES = st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1, max_size=6)
STYLES = [
    (csv.QUOTE_ALL, "\n"),
    (csv.QUOTE_ALL, "\r\n"),
    (csv.QUOTE_ALL, "\r"),
    (csv.QUOTE_MINIMAL, "\r\n"),
]


@pytest.mark.slow
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


# Encodings.

LANGUAGES = {
    "cp1252 French": (
        "Le dîner était très agréable malgré la pluie. Nous avons commandé des crêpes et un thé"
        " glacé, puis le garçon nous a apporté l'addition. Les prix étaient élevés, mais la qualité"
        " est là. C'est déjà la troisième fois."
    ),
    "cp1250 Polish": (
        "Ten film był świetny, a gra aktorów bardzo dobra. Źle się stało, że nie mogłem zostać"
        " dłużej. Książka jest jednak lepsza, bo więcej się w niej dzieje. Myślę, że każdy powinien"
        " ją przeczytać, zanim pójdzie do kina."
    ),
    "cp1254 Turkish": (
        "Film çok güzeldi, ışık ve müzik şahane. Oyuncular da iyiydi ama senaryo biraz zayıf"
        " kalmış. Yine de arkadaşlarıma öneririm, çünkü böyle filmler artık çekilmiyor. Gişede ne"
        " kadar kazandığını bilmiyorum."
    ),
    "cp1251 Russian": (
        "Фильм был очень хороший, мне понравилось. Актёры играли прекрасно, хотя конец немного"
        " предсказуем."
    ),
    "cp932 Japanese": (
        "この映画はとても面白かったです。俳優の演技も素晴らしく、音楽も良かった。"
        "ただ、終わり方は少し予想できました。また友達と見たいと思います。"
    ),
    "cp949 Korean": (
        "이 영화는 정말 재미있었다. 배우들의 연기도 훌륭했고 음악도 좋았다. 다만 결말은 조금 예상할"
        " 수 있었다."
    ),
    "gb18030 Chinese": (
        "这部电影非常好看，我很喜欢。演员的表演也很精彩，音乐也很好。只是结局有点容易猜到。"
    ),
    "big5 Chinese": (
        "這部電影非常好看，我很喜歡。演員的表演也很精彩，音樂也很好。只是結局有點容易猜到。"
    ),
}
LANGUAGES |= {
    "koi8_r Russian": LANGUAGES["cp1251 Russian"],
    "euc_jp Japanese": LANGUAGES["cp932 Japanese"],
}


@pytest.mark.parametrize("name", LANGUAGES)
def test_files_of_many_languages(tmp_path, name):
    for number, times in enumerate((1, 300)):
        data = f"{LANGUAGES[name]}\n".encode(name.split()[0]) * times
        file = tmp_path / ("a.txt.gz" if number else "a.txt")
        read = corpus_of(write(file, data), clean=False)
        assert (read.texts, read.report.decode_errors) == ([LANGUAGES[name]] * times, 0)
        assert f"{file} is not UTF-8 and read as" in read.notes[0]
    read = corpus_of(write(tmp_path / "a.txt", LANGUAGES[name]), clean=False)
    assert (read.texts, read.notes, read.report.decode_errors) == ([LANGUAGES[name]], [], 0)


def test_damaged_utf8_and_what_fits_nothing_is_read_as_utf8(tmp_path):
    for data in [
        b"caf\xc3\xa9 and caf\xe9",
        "ดี ".encode() * 20 + b"\xff",
        "naïve ".encode() * 5 + b"\xe0\xb8",  # cut in a character
        b"\xff",
        b"\xfe\xfd!\n\xe9\n",
        b"\xed\xa0\xbd\xed\xb8\x80 and " + "é".encode() * 9,  # CESU-8
        b"\x81\x8d\x8f\x90\x9d words and words",
    ]:
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(data))
        read = corpus_of(tmp_path / "a.txt.gz", clean=False)
        assert (
            read.notes == [] and read.report.decode_errors > 0 and "\ufffd" in "".join(read.texts)
        )


# txt files as documents.

SENTENCES = [
    "Mr. Doe and J. R. Roe went to the café on Jan. 3 and ordered 3.5 litres of tea.",
    (
        "It was late, the rain had not stopped since the morning, and nobody in the long street had"
        " seen the captain again."
    ),
    "“Will you go back?” she asked.",
    "No!",
    (
        "He thought of e.g. the sea, the ships and the harbour where they had spent so many"
        " evenings together before the war."
    ),
]
PARAGRAPHS = [" ".join(random.Random(seed).sample(SENTENCES, 4)) for seed in range(12)]


def wrap(width, paragraphs=PARAGRAPHS):
    return (
        "\n\n".join(textwrap.fill(text, width, break_on_hyphens=False) for text in paragraphs)
        + "\n"
    )


@pytest.mark.parametrize("width", [40, 60, 72, 75, 80, 100])
def test_the_lines_of_a_hard_wrapped_file_are_joined(tmp_path, width):
    for line_end in ("\n", "\r\n"):
        file = write(tmp_path / "a.txt", wrap(width).replace("\n", line_end))
        assert texts_of(file, documents="paragraph") == PARAGRAPHS
        sentences = texts_of(file, documents="sentence")
        assert sorted(set(sentences)) == sorted(SENTENCES)
        assert " ".join(sentences) == " ".join(PARAGRAPHS)
        assert texts_of(file, documents="line") == wrap(width).split("\n")[:-1]
        assert texts_of(file, documents="file") == [wrap(width)]


def test_sentences(tmp_path):
    for text, sentences in [
        # a line for each review
        ("One. Two! Three\nFour? Five.", ["One.", "Two!", "Three", "Four?", "Five."]),
        ("no end\n\n", ["no end"]),
        (" \n\t\n  a.   b. \n", ["a.", "b."]),
        (
            "First Citizen:\nSpeak, I\nsay. Go.\n\nAll:\nSpeak!\n",
            ["First Citizen:\nSpeak, I\nsay.", "Go.", "All:\nSpeak!"],
        ),
        (
            "Mr. Doe gave it 3.5 stars. e.g. No. 5 was good.",
            ["Mr. Doe gave it 3.5 stars.", "e.g. No. 5 was good."],
        ),
        ("「はい。」それは良い。次", ["「はい。」", "それは良い。", "次"]),
        ("Mr. Doe and Dr. Roe left. Then", ["Mr. Doe and Dr. Roe left.", "Then"]),
        ("it rained. he waited... so", ["it rained.", "he waited...", "so"]),
        (
            "e.g. this, i.e. that. etc. and so on. Then",
            ["e.g. this, i.e. that.", "etc. and so on.", "Then"],
        ),
        (
            "No. 5 is alive. Born Jan. 3 or in March. Yes",
            ["No. 5 is alive.", "Born Jan. 3 or in March.", "Yes"],
        ),
        ("...", ["..."]),
        (
            "By U.S. customs at 3 p.m. on Monday. In the U.S. It.",
            ["By U.S. customs at 3 p.m. on Monday.", "In the U.S.", "It."],
        ),
        (
            "“Why?” he said. “Go!” We went. (Or did we?) yes",
            ["“Why?” he said.", "“Go!”", "We went.", "(Or did we?) yes"],
        ),
        ("Wait... What?! “Yes.” (No.)", ["Wait...", "What?!", "“Yes.”", "(No.)"]),
        ("a. " * 3, ["a."] * 3),
    ]:
        assert texts_of(write(tmp_path / "a.txt", text), documents="sentence") == sentences


@given(st.text(st.sampled_from("aB .!?\n\r\té。"), max_size=200))
@settings(max_examples=40)
def test_no_word_is_lost(tmp_path_factory, text):
    path = write(tmp_path_factory.mktemp("txt") / "a.txt", "start " + text)
    for documents in ("line", "paragraph", "sentence", "file"):
        assert "".join("".join(texts_of(path, documents=documents)).split()) == "start" + "".join(
            text.split()
        )
