"""Cleaning: every count and every option, against plain re-implementations."""

import html
import re
import sys
import unicodedata
from collections import Counter

import ftfy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.data.cleaning import Cleaner, CleaningReport, HashSet, hash_text
from reviewgen.data.mojibake import find_mojibake
from reviewgen.errors import ConfigError

PIECES = ["<br>", "<BR />", "&amp;", "&#39;", "&nosuch;", "e\u0301", "é", " ", "a", "B", "\n", "ดี", "\ud83d", "😀", "<", "&"]
TEXTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=5).map("".join), max_size=12)


def clean(*texts, **options):
    cleaner = Cleaner(**options)
    cleaned = [kept for text in texts if (kept := cleaner(text)) is not None]
    hashes, lengths = np.array([value for _, value in cleaned], np.uint64), np.array([len(text) for text, _ in cleaned], np.int64)
    return [text for (text, _), is_new in zip(cleaned, cleaner.keep_new(hashes, lengths), strict=True) if is_new], cleaner.report


def test_breaks_become_newlines_and_each_is_counted():
    kept, report = clean("a<br>b<br/>c<br />d<BR  />e", "<break>", "x < br >")
    assert kept == ["a\nb\nc\nd\ne", "<break>", "x < br >"]
    assert report.breaks_replaced == 4


def test_entities_are_decoded_and_only_those_that_change_are_counted():
    kept, report = clean("Tom &amp; Jerry&#39;s &#x263A; &eacute;", "A&B &nosuch; AT&T; a=1&b=2", "a&lt;br /&gt;b", "&#xD800;")
    assert kept == ["Tom & Jerry's ☺ é", "A&B &nosuch; AT&T; a=1&b=2", "a\nb", "\ufffd"]
    assert report.entities_decoded == 7
    assert report.breaks_replaced == 1


def test_other_tags_are_removed_and_counted():
    kept, report = clean("<p>a<br>b</p>", "I <3 <i>it</i>", "a &lt;b&gt;c&lt;/b&gt;", "<p></p>", "x <really> y")
    assert kept == ["a\nb", "I <3 it", "a c", "x <really> y"]
    assert (report.breaks_replaced, report.tags_removed, report.empty) == (1, 8, 1)


def test_tags_stay_in_exact_texts():
    assert clean("<p>a</p>", clean=False)[0] == ["<p>a</p>"]


def test_surrogates_among_tags():
    assert clean("<b>a\ud800</b>", "<b>\udfff\ud83d</b>")[0] == ["a\ufffd", "\ufffd\ufffd"]


WELL_DECODED = [
    "café",
    "Le garçon était très agréable à l'été.",
    "Das Frühstück war köstlich, die Straße laut.",
    "«CAFÉ» — SÃO PAULO NÃO, À LA CARTE, CAFÉ’s",
    "Źle się stało; žluťoučký kůň; ÅNGSTRÖM",
    "Фильм был очень хороший",
    "หนังเรื่องนี้สนุกมาก",
    "It’s a “great” film – really…",
    "5 € & 3 £ ½ ° × ÷",
    "好看 😀",
]


@pytest.mark.parametrize("text", WELL_DECODED)
def test_well_decoded_texts_are_not_mojibake(text):
    assert find_mojibake(text) is None
    kept, report = clean(text, fix_encoding=True)
    assert kept == [text]
    assert (report.mojibake, report.encodings_fixed) == (0, 0)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "sloppy-windows-1252"])
@pytest.mark.parametrize("text", ["café", *WELL_DECODED[1:3], *WELL_DECODED[5:8]])
def test_mojibake_is_said_and_mended_on_request(text, encoding):
    try:
        wrong = text.encode().decode(encoding)
    except UnicodeDecodeError:
        pytest.skip("Windows-1252 lacks one of the bytes")
    kept, report = clean("fine", wrong)
    assert kept == ["fine", wrong]
    assert (report.mojibake, report.encodings_fixed) == (1, 0)
    kept, report = clean("fine", wrong, fix_encoding=True)
    assert kept == ["fine", text] == ["fine", ftfy.fix_encoding(wrong)]
    assert (report.mojibake, report.encodings_fixed) == (0, 1)


def test_invisible_punctuation_is_mojibake():
    assert clean("well\x85 fine \x96 ok")[1].mojibake == 1
    assert clean("well\x85 fine \x96 ok", fix_encoding=True)[0] == ["well… fine – ok"]


def test_what_is_said_of_mojibake():
    cleaner = Cleaner()
    assert cleaner.notes() == []
    cleaner("We went to the cafÃ© twice, and so did they.")
    said = "to be decoded wrongly, as in 'went to the cafÃ© twice, and so': --fix-encoding (fix_encoding=True) mends them."
    assert cleaner.notes() == [f"1 text seems {said}"]
    cleaner.add({"mojibake": 2000}, "another")
    assert cleaner.notes() == [f"2,001 texts seem {said}"]


def test_mending_also_works_without_cleaning_and_with_surrogates():
    assert clean("cafÃ© <b>", "\ud800 Ã©", clean=False, fix_encoding=True)[0] == ["café <b>", "\ud800 é"]


def test_ftfy_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(ConfigError, match=r"^Mending encodings needs ftfy: pip install 'reviewgen\[ftfy\]'\.$"):
        Cleaner(fix_encoding=True)


def test_normal_form_is_composed_and_counted_by_text():
    kept, report = clean("e\u0301e\u0301", "é", "ดี", "\u1112\u1161\u11ab")
    assert kept == ["éé", "é", "ดี", "한"]
    assert report.normalized == 2


def test_surrogates_are_replaced():
    assert clean("a\ud800b\udfff")[0] == ["a\ufffdb\ufffd"]


def test_empty_texts_and_duplicates_are_dropped_and_counted():
    kept, report = clean("a", "", " \n\t\u00a0", "b", "a", "&#97;", "<br>", "A", "a ")
    assert kept == ["a", "b", "A", "a "]
    expected = CleaningReport(read=9, kept=4, characters=5, empty=3, duplicates=2, breaks_replaced=1, entities_decoded=1)
    assert report == expected


def test_lower_case_is_an_option_and_makes_duplicates():
    kept, report = clean("Good ÄÖ", "GOOD äö", "Bad", lowercase=True)
    assert kept == ["good äö", "bad"]
    assert (report.duplicates, report.characters) == (1, 10)


def test_markdown_is_stripped_to_its_words():
    text = "# Title\n\nSome *very* **good** [link](http://x.y) and `code`\nnext ![alt](i.png)\n\n- one\n- two\n\n```\nx = 1\n```"
    kept, _ = clean(text, "***", strip_markdown=True)
    assert kept == ["Title\n\nSome very good link and code\nnext alt\n\none\n\ntwo\n\nx = 1"]
    assert clean("***", strip_markdown=True)[1].empty == 1


def test_without_cleaning_texts_pass_exactly():
    texts = ["", " ", "a<br>b", "a<br>b", "&amp;", "e\u0301", "\ud800", "A"]
    kept, report = clean(*texts, clean=False)
    assert kept == texts
    assert report == CleaningReport(read=8, kept=8, characters=sum(map(len, texts)))
    assert clean("A<br>", "A<br>", clean=False, lowercase=True)[0] == ["a<br>", "a<br>"]


@given(TEXTS)
@settings(max_examples=150, deadline=None)
def test_against_a_plain_reference(texts):
    counts: Counter[str] = Counter()
    expected: list[str] = []
    for text in texts:
        plain = re.sub("(?i)<br */?>", "\n", text)
        counts["breaks"] += len(re.findall("(?i)<br */?>", text))
        counts["entities"] += plain.count("&amp;") + plain.count("&#39;")
        plain = html.unescape(plain.replace("&nosuch;", "\0")).replace("\0", "&nosuch;")
        composed = unicodedata.normalize("NFC", plain)
        counts["normalized"] += composed != plain
        composed = "".join("\ufffd" if unicodedata.category(c) == "Cs" else c for c in composed)
        if not composed.strip():
            counts["empty"] += 1
        elif composed in expected:
            counts["duplicates"] += 1
        else:
            expected.append(composed)
    kept, report = clean(*texts)
    assert kept == expected
    assert report == CleaningReport(
        read=len(texts),
        kept=len(expected),
        characters=sum(map(len, expected)),
        empty=counts["empty"],
        duplicates=counts["duplicates"],
        breaks_replaced=counts["breaks"],
        entities_decoded=counts["entities"],
        normalized=counts["normalized"],
    )


def test_content_hashes_are_stable_and_of_the_cleaned_text():
    assert hash_text("") == 0xE4A6A0577479B2B4
    assert Cleaner()("&#97;") == ("a", hash_text("a"))
    assert hash_text("\ud800") != hash_text("\ufffd")


@given(st.lists(st.lists(st.sampled_from([0, 1, 2**63, 2**64 - 1, *range(100, 140)]), max_size=30), max_size=30))
@settings(max_examples=150, deadline=None)
def test_the_hash_set_is_a_set(batches):
    plain, compact = set(), HashSet()
    for batch in batches:
        expected = []
        for value in batch:
            expected.append(value not in plain)
            plain.add(value)
        assert compact.add(np.array(batch, np.uint64)).tolist() == expected


def test_the_hash_set_takes_eight_bytes_per_hash():
    compact = HashSet()
    for first in range(0, 100_000, 1000):
        compact.add(np.arange(first, first + 1000, dtype=np.uint64))
    assert sum(run.nbytes for run in compact._runs) == 800_000
    assert len(compact._runs) < 8
