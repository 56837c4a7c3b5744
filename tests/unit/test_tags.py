"""HTML tags: the words that remain are those that Python's own HTML parser finds; what is no tag stays."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.data.tags import strip_tags


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        ("<p>I <b>really</b> liked it.</p><p>You?</p>", "I really liked it.\n\nYou?", 6),
        ("one<div>two</div>three", "one\ntwo\nthree", 2),
        ("<ul><li>x<li>y</ul>z", "x\ny\nz", 4),
        ("<div class='a>b' data-x=1 hidden>q</div>", "q", 2),
        ('<a href="http://x.y/?a=1&amp;b=2">link</a>!', "link!", 2),
        ("<P ALIGN=center>A</P >\n<P>B", "A\n\nB", 3),
        ("<script>if (a<b && c>d) {'<p>'}</script>hi<style>p {}</style>", "hi", 5),
        ("<SCRIPT\n>x</sCript>y", "y", 2),
        ("a<!-- <no> -- > -->b<!---->c", "abc", 2),
        ("<td>a</td><td>b</td>c", "a\nb\nc", 4),
        ("<table>x<tr><td>1</table>", "x\n1", 4),
        ("<title>T</title><textarea><b>t</b></textarea>z", "T\nt\nz", 6),
        ("<b>a</i>b</p>c", "ab\n\nc", 3),
        ("one<hr />two<img src=x.png alt='a b'/>", "one\ntwo", 2),
        ("  <i> x </i>\n", "   x \n", 2),
        ("<!DOCTYPE html><html><body>x</body></html>", "x", 4),
        ("<b>&lt;i&gt; &amp;amp; &nosuch; & é 😀</b>", "&lt;i&gt; &amp;amp; &nosuch; & é 😀", 2),
        ("</p>", "", 1),
        ("<svg><p>x</svg>y", "x y".replace(" ", ""), 3),
        ("<frameset><frame src=x>text", "text", 2),
    ],
)
def test_tags_are_removed_and_counted(text, expected, count):
    assert strip_tags(text) == (expected, count)


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "a<b, b>c",
        "if x <b and c> d",
        "I <3 this",
        "I <really> liked it </really>",
        "<SPOILER>he dies</SPOILER>",
        "<<<sigh>>>",
        "<small talk> and <main character>",
        "<http://example.com/a?b=c>",
        "ana <ana@example.com>",
        "<b",
        "</",
        "<",
        "<p class='open",
        "<!-- never closed",
        "<script> never closed",
        "1 <!DOCTYPE html>",
        "vector<int> and List<String>",
        "&lt;p&gt;",
        "->",
    ],
)
def test_what_is_no_tag_stays(text):
    assert strip_tags(text) == (text, 0)


def test_what_is_never_closed_stays_among_tags():
    assert strip_tags("<b>x</b> <script> y <!-- z") == ("x <script> y <!-- z", 2)


class Words(HTMLParser):
    """Collects the text outside scripts, styles and comments."""

    def __init__(self, text):
        super().__init__(convert_charrefs=False)
        self.found, self.hidden = [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style") and self.hidden > 0

    def handle_data(self, data):
        if not self.hidden:
            self.found.append(data)

    def handle_entityref(self, name):
        self.found.append(f"&{name};")


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
    "<hr/>",
]
TAGS += ["<!-- c -->", "<script>x</script>", "<style>y</style>", "<table>", "<select>", "<option>", "<svg>", "</span>", "<h1>"]
TEXT = ["word", " ", "\n", "é", "😀", "3 ", "> ", "&amp;", ".", "'", '"', "=", "/"]


@given(st.lists(st.sampled_from(TAGS + TEXT), max_size=25).map("".join))
@settings(max_examples=300, deadline=None)
def test_no_word_is_lost_or_moved(text):
    kept, count = strip_tags(text)
    assert "".join(kept.split()) == "".join("".join(Words(text).found).split())
    assert (count == 0) == (kept == text)


@given(st.text(st.sampled_from("<>/!-pb ='\"a&;scrit\x1e\ud800".replace("\ud800", "")), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_passes(text):
    kept, count = strip_tags(text)
    assert kept == text or count


@pytest.mark.parametrize(
    "text",
    [
        "<b " * 50_000,
        "<b" + " " * 200_000,
        "<b " + "a=b " * 50_000,
        "<b a='" * 30_000,
        "<b>" * 100_000,
        "<!--" * 50_000 + "<b>",
        "<div>" * 100_000,
        "<ul><li>" * 50_000,
        "<table><tr><td>" * 20_000,
        "<script>" * 20_000 + "</script>",
        " " * 200_000 + "<p>",
    ],
    ids=lambda text: text[:12],
)
def test_hostile_texts_take_no_quadratic_time(text):
    start = time.process_time()
    strip_tags(text)
    assert time.process_time() - start < 5  # half a second on a busy core


def test_a_document_type_before_what_is_never_closed():
    text = "<!DOCTYPE html><b>Good</b> <!-- ad --> film. <!-- I wrote this: never finished, but kept"
    assert strip_tags(text)[0] == "Good  film. <!-- I wrote this: never finished, but kept"
