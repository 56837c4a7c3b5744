"""Cleaning: each change and its count, against plain re-implementations, Python's HTML parser and
ftfy.
"""

import hashlib
import itertools
import random
import sys
import textwrap
import time
from collections import Counter
from dataclasses import asdict
from html.parser import HTMLParser

import ftfy
import numpy as np
import pytest
from datasets import concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st

import reviewgen
from reviewgen.data.cleaning import CleaningReport
from reviewgen.data.open import SPLITS
from reviewgen.errors import ConfigError, DataError
from tests.support.models import NGRAM, SMALL
from tests.support.texts import as_csv, as_lines, as_parquet, corpus_of, texts_of, write

LAST = "the last text"


def clean(*texts, **options):
    """Return what cleaning keeps of texts, and its counts that are not 0 other than those of the
    last text.
    """
    read = corpus_of([*texts, LAST], **options)
    counts = asdict(read.report)
    for name, count in {"read": 1, "kept": 1, "characters": len(LAST)}.items():
        counts[name] -= count
    assert read.texts[-1] == LAST
    return read.texts[:-1], {name: count for name, count in counts.items() if count}


def counts_of(*texts, **options):
    """Return the counts besides those of all texts."""
    return {
        name: count
        for name, count in clean(*texts, **options)[1].items()
        if name not in ("read", "kept", "characters")
    }


@pytest.mark.parametrize(
    "texts, kept, counts",
    [
        (
            ["a<br>b<br/>c<br />d<BR  />e", "<break>", "< br >"],
            ["a\nb\nc\nd\ne", "<break>", "< br >"],
            {"breaks_replaced": 4},
        ),
        (
            ["a</br>b", "x<br class='y'>z", "<br" + " " * 101 + ">w"],
            ["a\nb", "x\nz", "<br" + " " * 101 + ">w"],
            None,
        ),
        (
            [
                "Tom &amp; Jerry&#39;s &#x263A; &eacute;",
                "A&B &nosuch; AT&T; a=1&b=2",
                "a&lt;br /&gt;b",
                "&#xD800;",
                "&#12345678;",
            ],
            ["Tom & Jerry's ☺ é", "A&B &nosuch; AT&T; a=1&b=2", "a\nb", "\ufffd", "&#12345678;"],
            {"entities_decoded": 7, "breaks_replaced": 1},
        ),
        (["&amp;lt;", "A;&", "&"], ["&lt;", "A;&", "&"], {"entities_decoded": 1}),
        (
            [
                "<p>a<br>b</p>",
                "I <3 <i>it</i>",
                "a &lt;b&gt;c&lt;/b&gt;",
                "<p></p>",
                "x <really> y",
            ],
            ["a\nb", "I <3 it", "a c", "x <really> y"],
            {"breaks_replaced": 1, "tags_removed": 8, "entities_decoded": 4, "empty": 1},
        ),
        (
            ["<b>a\ud800</b>", "<b>\udfff\ud83d</b>", "a\ud800b\udfff"],
            ["a\ufffd", "\ufffd\ufffd", "a\ufffdb\ufffd"],
            None,
        ),
        (
            ["e\u0301e\u0301", "é", "ดี", "\u1112\u1161\u11ab"],
            ["éé", "é", "ดี", "한"],
            {"normalized": 2},
        ),
        (
            [
                "a",
                "",
                " \n\t\u00a0",
                "b",
                "a",
                "&#97;",
                "<br>",
                "A",
                "a ",
                "<br /><br /> c\n d&nbsp;<br>",
            ],
            ["a", "b", "A", "c\n d"],
            {"empty": 3, "duplicates": 3, "breaks_replaced": 4, "entities_decoded": 2},
        ),
    ],
)
def test_what_is_changed_and_counted(texts, kept, counts):
    found, counted = clean(*texts)
    assert found == kept
    assert (counted["read"], counted["kept"], counted["characters"]) == (
        len(texts),
        len(kept),
        sum(map(len, kept)),
    )
    if counts is not None:
        assert counts_of(*texts) == counts


def test_nothing_left_after_cleaning_is_an_error():
    for texts in (["", " ", "<br>"], ["\n"]):
        for read in (corpus_of, lambda texts: texts_of(texts, clean=True)):
            with pytest.raises(
                DataError,
                match=rf"No reviews are left of .* \({len(texts)} read, {len(texts)} empty\)",
            ):
                read(texts)


# Options.


def test_lower_case_is_an_option_and_makes_duplicates():
    kept, counts = clean("Good ÄÖ", "GOOD äö", "Bad", lowercase=True)
    assert kept == ["good äö", "bad"]
    assert (counts["duplicates"], counts["characters"]) == (1, 10)


def test_markdown_is_stripped_to_its_words():
    text = (
        "# Title\n\nSome *very* **good** [link](http://x.y) and `code`\nnext ![alt](i.png)\n\n-"
        " one\n- two\n\n```\nx = 1\n```"
    )
    kept, counts = clean(text, "***", "a  \nb", "    code\n\nc", strip_markdown=True)
    words = "Title\n\nSome very good link and code\nnext alt\n\none\n\ntwo\n\nx = 1"
    assert (kept, counts["empty"]) == ([words, "a\nb", "code\n\nc"], 1)
    assert clean("# a &amp; <b>b</b>", clean=False, strip_markdown=True)[0] == ["a & <b>b</b>"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("while **Avery ** works", "while Avery works"),
        ("the single ** bold** is", "the single bold is"),
        ('new song **" Easy" **is out', 'new song " Easy" is out'),
        ("by **Henry Green. **\n\nHe", "by Henry Green.\n\nHe"),
        ("after _Caracal _ and _Lighght, _ two", "after Caracal and Lighght, two"),
        ("an **album ** titled **** Easy", "an album titled Easy"),  # an empty one
    ],
)
def test_markers_with_a_blank_inside_are_stripped(text, words):
    assert clean(text, strip_markdown=True)[0] == [words]


@pytest.mark.parametrize(
    "text",
    [
        "What the f**k was that",
        "*** out of ****",  # stars of a rating
        "**1/2 of five",
        "I felt ____ about snake_case ^_^",
        "Jan 12 -- The Theatre*\n\nJan 13 -- The Hall**",  # footnotes
    ],
)
def test_asterisks_and_underscores_that_are_not_markdown_stay(text):
    assert clean(text, strip_markdown=True)[0] == [text]


def test_escaped_markers_and_code_stay():
    text = r"a \*\* b and `c ** d` of **Avery ** here"
    assert clean(text, strip_markdown=True)[0] == ["a ** b and c ** d of Avery here"]


def test_stripping_markdown_is_offered_when_many_texts_of_a_file_hold_it(tmp_path):
    plain = [f"Text {number}." for number in range(8)]
    marked = write(
        tmp_path / "marked.jsonl",
        as_lines([{"text": text} for text in [*plain, "The **song** is", "# Title"]]),
    )
    (note,) = corpus_of(marked).notes
    assert "Markdown is in 2 of the first texts" in note and "--strip-markdown" in note
    assert corpus_of(marked, strip_markdown=True).notes == []
    assert corpus_of([*plain, "**1/2 (out of ****)", "2 ** 3 ** 4"]).notes == []


WELL_DECODED = [
    "café",
    "Le garçon était très agréable à l'été.",
    "Das Frühstück war köstlich, die Straße laut.",
]
WELL_DECODED += [
    "«CAFÉ» — SÃO PAULO NÃO, À LA CARTE, CAFÉ’s",
    "Źle się stało; žluťoučký kůň; ÅNGSTRÖM",
]
WELL_DECODED += [
    "Фильм был очень хороший",
    "หนังเรื่องนี้สนุกมาก",
    "It’s a “great” film – really…",
    "5 € & 3 £ ½ ° × ÷",
    "好看 😀",
]


def test_well_decoded_texts_are_not_mojibake():
    for options in ({}, {"fix_encoding": True}):
        read = corpus_of(WELL_DECODED, **options)
        assert (read.texts, read.report.mojibake, read.report.encodings_fixed, read.notes) == (
            WELL_DECODED,
            0,
            0,
            [],
        )


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "sloppy-windows-1252"])
def test_mojibake_is_counted_and_mended_on_request(encoding):
    for text in ["café", *WELL_DECODED[1:3], *WELL_DECODED[5:8]]:
        try:
            wrong = text.encode().decode(encoding)
        except UnicodeDecodeError:
            continue  # Windows-1252 lacks one of the bytes
        assert clean("fine", wrong)[0] == ["fine", wrong]
        assert counts_of("fine", wrong) == {"mojibake": 1}
        assert (
            clean("fine", wrong, fix_encoding=True)[0]
            == ["fine", text]
            == ["fine", ftfy.fix_encoding(wrong)]
        )
        assert counts_of("fine", wrong, fix_encoding=True) == {"encodings_fixed": 1}


def test_odd_places_of_mojibake():
    text = "well\x85 fine \x96 ok"  # punctuation that nothing shows
    assert counts_of(text) == {"mojibake": 1}
    assert clean(text, fix_encoding=True)[0] == ["well… fine – ok"]
    assert clean("cafÃ© <b>", "\u2028 Ã©", clean=False, fix_encoding=True)[0] == [
        "café <b>",
        "\u2028 é",
    ]


def test_mojibake_in_ascii_is_counted_and_repaired_on_request():
    text = 'Their song aEURoeSilver Lining,aEUR aEUR" itaEUR(tm)s good.'
    assert counts_of(text, "The 3 aEURO note") == {"mojibake": 1}
    assert "--fix-encoding" in corpus_of([text, LAST]).notes[0]
    assert clean(text, fix_encoding=True)[0] == ["Their song “Silver Lining,” — it’s good."]


def test_the_note_on_mojibake_has_the_first_example_and_the_number_of_texts(tmp_path):
    texts = ["fine", "We went to the cafÃ© twice, and so did they.", "another cafÃ©"]
    for count in (2, 3):
        read = corpus_of(texts[:count])
        (note,) = read.notes
        assert note.startswith(["1 text seems", "2 texts seem"][count - 2])
        assert "such as 'went to the cafÃ© twice, and so'" in note and "--fix-encoding" in note
        assert note in read.described
    facts = reviewgen.prepare(texts, preset="ngram-char", out=tmp_path / "store").facts["corpus"]
    assert note in facts["notes"] and facts["source"]["cleaning"] == asdict(read.report)
    assert corpus_of(texts, fix_encoding=True).described[-1].endswith("encodings repaired 2.")


def test_mending_needs_ftfy(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(ConfigError, match=r"reviewgen\[ftfy\]"):
        corpus_of(["a"], fix_encoding=True)
    assert corpus_of(["cafÃ©"]).report.mojibake == 1


# Duplicates, which are found by hashes of 64 bits, some thousand at a time.


def test_duplicates_are_dropped_as_by_a_set():
    draw = random.Random(0)
    for size, count in ((7, 50), (3_000, 8_000), (100_000, 9_000)):
        texts = [f"text {draw.randrange(size)}" for _ in range(count)]
        texts += texts[:: -max(1, count // 900)]
        read = corpus_of(texts)
        assert read.texts == list(dict.fromkeys(texts))
        kept = len(read.texts)
        characters = sum(map(len, read.texts))
        assert read.report == CleaningReport(
            read=len(texts), kept=kept, characters=characters, duplicates=len(texts) - kept
        )


def test_a_text_is_split_by_64_bits_of_blake2b():
    """Of the cleaned text; 90 % train, 5 % validation, 5 % test."""
    texts = [f"review {number}" for number in range(3_000)] + ["", "é\ud800", "\u2028"]
    read = corpus_of(texts, clean=False)
    for text, split in zip(read.texts, read.splits, strict=True):
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        share = int.from_bytes(digest, "big") / 2**64
        assert split == SPLITS[(share >= 0.9) + (share >= 0.95)]
    shares = np.array([len(read.of(split)) for split in SPLITS]) / len(texts)
    assert shares == pytest.approx([0.9, 0.05, 0.05], abs=0.012)
    wrapped = corpus_of([f"<b>{text.replace(' ', '&#32;')}</b>" for text in texts[:500]])
    assert (wrapped.texts, wrapped.splits) == (texts[:500], read.splits[:500])


# HTML tags.


TAGGED = [
    ("<p>I <b>really</b> liked it.</p><p>You?</p>", "I really liked it.\n\nYou?", 6),
    ("one<div>two</div>three", "one\ntwo\nthree", 2),
    ("<ul><li>x<li>y</ul>z", "x\ny\nz", 4),
    ("<div class='a>b' data-x=1 hidden>q</div>", "q", 2),
    ('<a href="http://x.y/?a=1&amp;b=2">link</a>!', "link!", 2),
    ("<P ALIGN=center>A</P >\n<P>B", "A\n\nB", 3),
    ("<script>if (a<b && c>d) {'<p>'}</script>hi<style>p {}</style>", "hi", 4),
    ("<SCRIPT\n>x</sCript>y", "y", 2),
    ("a<!-- <no> -- > -->b<!---->c", "abc", 2),
    ("<td>a</td><td>b</td>c", "a\nb\nc", 4),
    ("<table>x<tr><td>1</table>", "x\n1", 4),
    ("<title>T</title><textarea><b>t</b></textarea>z", "T\nt\nz", 6),
    ("<b>a</i>b</p>c", "ab\n\nc", 3),
    ("one<hr />two<img src=x.png alt='a b'/>", "one\ntwo", 2),
    ("_  <i> x </i>\n_", "_   x \n_", 2),
    ("<!DOCTYPE html><html><body>x</body></html>", "x", 4),
    ("<b>& &nosuch; é 😀</b>", "& &nosuch; é 😀", 2),
    ("<svg><p>x</svg>y", "xy", 3),
    ("<frameset><frame src=x>text", "text", 2),
    ("<b>x</b> <script> y <!-- z", "x <script> y <!-- z", 2),
    (
        "<!DOCTYPE html><b>Good</b> <!-- ad --> film. <!-- never finished",
        "Good  film. <!-- never finished",
        3,
    ),
]


def test_tags_are_removed_and_counted():
    for text, expected, count in TAGGED:
        kept, counts = clean(text)
        assert (kept, counts["tags_removed"]) == ([expected], count), text


def test_what_is_not_a_tag_stays():
    texts = [
        "a < b and c > d",
        "a<b, b>c",
        "if x <b and c> d",
        "I <3 this",
        "I <really> liked it </really>",
    ]
    texts += [
        "<SPOILER>he dies</SPOILER>",
        "<<<sigh>>>",
        "<small talk> and <main character>",
        "<http://example.com/a?b=c>",
    ]
    texts += [
        "ana <ana@example.com>",
        "<b",
        "</",
        "<",
        "<p class='open",
        "<!-- never closed",
        "<script> never closed",
    ]
    texts += ["1 <!DOCTYPE html>", "vector<int> and List<String>", "->"]
    assert clean(*texts) == (
        texts,
        {"read": len(texts), "kept": len(texts), "characters": sum(map(len, texts))},
    )


class Words(HTMLParser):
    """Collects the text outside scripts, styles and comments."""

    def __init__(self, text):
        super().__init__(convert_charrefs=False)
        self.found = []
        self.hidden = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style") and self.hidden > 0

    def handle_data(self, data):
        if not self.hidden:
            self.found.append(data)


TAGS = [
    "<p>",
    "</p>",
    "<b>",
    "</b>",
    "<div class='x'>",
    "</div>",
    "<li>",
    "<td>",
    "</table>",
    '<a href="a>b">',
    "</a>",
    "<i\n>",
]
TAGS += [
    "<!-- c -->",
    "<script>x</script>",
    "<style>y</style>",
    "<table>",
    "<select>",
    "<option>",
    "<svg>",
    "</span>",
    "<h1>",
]
WORDS = ["word", " ", "\n", "é", "😀", "3 ", "> ", "& ", ".", "'", '"', "=", "/", "<hr/>"]


@pytest.mark.slow
@given(st.lists(st.sampled_from(TAGS + WORDS), max_size=25).map("".join))
@settings(max_examples=100)
def test_no_word_is_lost_or_moved(text):
    kept, counts = clean(text)
    words = "".join("".join(Words(text).found).split())
    assert "".join("".join(kept).split()) == words
    assert ("tags_removed" in counts) == (kept != [text.strip()]) or not words


def test_long_runs_of_markup_take_no_quadratic_time():
    texts = [
        "<b " * 50_000,
        "<b" + " " * 200_000,
        "<b " + "a=b " * 50_000,
        "<b a='" * 30_000,
        "<b>" * 100_000 + "x",
    ]
    texts += [
        "<!--" * 50_000 + "<b>",
        "<div>" * 100_000,
        "<ul><li>" * 50_000,
        "<table><tr><td>" * 20_000,
    ]
    texts += ["<script>" * 20_000 + "</script>", " " * 200_000 + "<p>"]
    start = time.process_time()
    clean(*texts)
    # two seconds on an idle core; minutes if it were quadratic
    assert time.process_time() - start < 20


def test_wrapped_texts_are_joined_as_they_were_before_and_verse_is_not():
    draw = random.Random(0)
    words = ["a", "film", "with", "actors", "and", "an", "ending", "nobody", "expected"]
    prose = ["\n\n".join(" ".join(draw.choices(words, k=40)) for _ in range(3)) for _ in range(50)]
    verse = [
        "\n".join(" ".join(draw.choices(words, k=draw.randint(3, 9))) for _ in range(8))
        for _ in range(50)
    ]
    for width in 60, 78:
        wrapped = [
            "\n\n".join(textwrap.fill(part, width) for part in text.split("\n\n")) for text in prose
        ]
        assert clean(*wrapped)[0] == prose and counts_of(*wrapped) == {"unwrapped": 50}
        assert (
            clean(*wrapped, keep_line_breaks=True)[0] == wrapped == clean(*wrapped, clean=False)[0]
        )
    assert clean(*verse)[0] == verse


# Lines that stand in many texts.

DRAW = random.Random(0)
BY = {f"By {count}": DRAW.sample(range(2400), count) for count in (9, 10, 11, 12, 13, 40, 900)}
LINES = [
    [f"One line of {n}", f" Another {n % 1999}", "***", *(line for line in BY if n in BY[line])]
    for n in range(2400)
]
TEXTS = ["\n".join(DRAW.sample(lines, len(lines))) for lines in LINES]
MANY = [f"A review of film {n}.\n\nRead more\n\nThe end of {n}." for n in range(60)]
SHORT = ["short", "Read more\nshort, and then it ends"]


def test_they_are_those_of_a_search_in_every_kind_of_source(tmp_path):
    counts = Counter(itertools.chain.from_iterable(map(set, LINES)))
    counts.pop("***", None)
    # 0.5 %
    repeated = [line for line in sorted(counts, key=counts.get, reverse=True) if counts[line] >= 12]
    kept = [
        "\n".join(line for line in text.split("\n") if line not in repeated).strip()
        for text in TEXTS
    ]
    rows = [{"text": text} for text in TEXTS]
    files = {
        "a.csv": as_csv(rows),
        "a.jsonl": as_lines(rows),
        "a.parquet": as_parquet(rows),
        "a.txt": "\n\n".join(TEXTS),
    }
    sources = [write(tmp_path / name, content) for name, content in files.items()]
    for source in [TEXTS, *sources, sources[-1]]:  # the last one from the cache
        options = {
            "drop_repeated_lines": True,
            "documents": "paragraph" if source == sources[-1] else "line",
        }
        read = corpus_of(source, **options)
        assert (read.texts, read.stream.repeated_lines, read.report.lines_dropped) == (
            kept,
            repeated,
            900 + 40 + 13 + 12,
        )
        assert read.notes[0].endswith(
            ": 'By 900' in 900, 'By 40' in 40, 'By 13' in 13, 'By 12' in 12; they are dropped."
        )
        assert sorted(texts_of(source, clean=True, **options)) == sorted(kept)


def test_refrains_and_whole_texts_stay():
    songs = [f"Verse {n}\n" + "Oh yes\n" * 20 for n in range(9)] + [
        f"Verse {n}" for n in range(9, 50)
    ]
    # of the latter, most is the line
    whole = ["Read more"] * 30 + [f"Read more\nNo {n}" for n in range(5)]
    for texts in (songs, [*whole, "x"], ["Read more"] * 50 + ["x"]):
        plain = corpus_of(texts)
        dropped = corpus_of(texts, drop_repeated_lines=True)
        assert (dropped.texts, dropped.report, dropped.fingerprint) == (
            plain.texts,
            plain.report,
            plain.fingerprint,
        )
    named, dropped = (
        corpus_of([*MANY, *whole], drop_repeated_lines=drop) for drop in (False, True)
    )
    assert named.notes[0].endswith(
        "texts: 'Read more' in 65; --drop-repeated-lines (drop_repeated_lines=True) drops them."
    )
    assert named.texts[:60] == MANY and dropped.texts[:60] == [
        text.replace("Read more\n\n", "") for text in MANY
    ]
    assert dropped.texts[60:] == named.texts[60:] == ["Read more", *whole[30:]]


@pytest.mark.slow
def test_what_a_training_has_dropped_is_dropped_from_what_its_model_reads(tmp_path):
    model = reviewgen.train(
        "gru-char", MANY, validation=SHORT, drop_repeated_lines=True, progress=False, **SMALL
    )
    further = reviewgen.train(model, MANY[:5] + SHORT, progress=False, steps=1)
    store = reviewgen.prepare(
        MANY, preset="ngram-char", out=tmp_path / "store", drop_repeated_lines=True
    ).folder
    counted = reviewgen.train("ngram-char", store, progress=False, **NGRAM)
    datasets = [
        reviewgen.corpus(MANY[start::2], drop_repeated_lines=True).filter(bool) for start in (0, 1)
    ]
    joined = reviewgen.train("ngram-char", concatenate_datasets(datasets), progress=False, **NGRAM)
    for each in (model, further, counted, joined):
        assert each.training["data"]["repeated_lines"] == ["Read more"]
        assert each.evaluate(SHORT).characters == len("short" + "short, and then it ends")
        assert each.evaluate(SHORT, drop_repeated_lines=False).characters == sum(map(len, SHORT))
    assert model.training["data"]["validation_cleaning"]["lines_dropped"] == 1
