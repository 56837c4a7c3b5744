"""The web page in a real Chromium, from a file: writing, links, microscope, keyboard, hostile
texts; the engine is a fake.
"""

import json
import re
from base64 import b64decode, b64encode, b85decode
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from reviewgen.web.composing import PackedModel, compose, static_files
from tests.support.browser import violations

FAKE_ENGINE = (Path(__file__).parents[1] / "support/javascript/fake_engine.js").read_text(
    encoding="utf-8"
)
HOSTILE = (
    "</script></title><img src=x onerror=alert(1)><script>alert(2)</script>\"'&<!--{{ 7 * 19101 }}"
)
STYLE = {"name": "style", "kind": "category", "values": [{"label": "review"}, {"label": "snippet"}]}
STARS = {
    "name": "stars",
    "kind": "number",
    "values": [{"label": "1..2", "low": 1, "high": 2}, {"label": "3", "low": 3, "high": 3}],
}
ARTIST = {"name": "artist", "kind": "text", "values": []}
IS_TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


def manifest(name, *, conditions=(), **more):
    defaults = {"temperature": 0.7, "max_new_tokens": 40}
    facts = [["Bits per character", "1.456"], ["Licence", "Apache-2.0"]]
    fields = {
        "preset": name,
        "conditions": list(conditions),
        "defaults": defaults,
        "hasIndex": "index" in name,
        "facts": facts,
    }
    return {"id": name, "card": f"---\na: b\n---\n# {name}\n", **fields, **more}


def digest(text):
    return b64encode(sha256(text.encode()).digest()).decode()


def write_page(file, *models, title="reviewgen", steppers=None):
    """Write a page whose engine is the fake one, which the policy allows."""
    html = compose([PackedModel(model, b"arrays") for model in models], steppers or {}, {}, title)
    imports = re.search(r'<script type="importmap">(.*?)</script>', html, re.DOTALL)[1]
    engine = "data:text/javascript;base64," + b64encode(FAKE_ENGINE.encode()).decode()
    fake = re.sub(r'("reviewgen/browser_engine.js": )"[^"]*"', rf'\1"{engine}"', imports)
    assert fake != imports
    file.write_text(
        html.replace(imports, fake).replace(digest(imports), digest(fake)), encoding="utf-8"
    )
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    models = [
        manifest("lstm-word", conditions=[STYLE, STARS, ARTIST]),
        manifest("ngram-index", conditions=[STYLE]),
    ]
    return write_page(tmp_path_factory.mktemp("page") / "page.html", *models)


@pytest.fixture
def open_page(browser):
    """Open a page; whatever it says on its console, and every dialog and request elsewhere, fails
    the test.
    """
    contexts = []
    heard = []

    def opened(address, width=1400, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on(
            "dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        page.on(
            "request",
            lambda request: (
                heard.append(request.url)
                if not request.url.startswith(("file:", "data:"))
                else None
            ),
        )
        page.goto(address if isinstance(address, str) else address.as_uri())
        page.locator("#model option").first.wait_for(state="attached")
        if "#" not in str(address):
            written(page)  # the first text
            page.evaluate("globalThis.requests = []")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert heard == []


def write(page, prompt=None):
    """Press Write and wait for the end; return the texts."""
    if prompt is not None:
        page.fill("#prompt", prompt)
    page.click("#write")
    return written(page)


def written(page):
    page.locator(".text .facts", has_text="tokens").last.wait_for()
    page.locator("#write", has_text="Write").wait_for()
    return page.locator(".written").all_text_contents()


def requests(page):
    return page.evaluate("globalThis.requests ?? []")


def error(page):
    page.locator("#error:not(:empty)").wait_for()
    return page.text_content("#error")


def link(page, number=0):
    page.locator(".text").nth(number).get_by_role("button", name="Share").click()
    address = page.input_value("#link-text")
    page.keyboard.press("Escape")
    return address


def test_the_file_is_one_page_whatever_models_and_their_names_hold():
    model = manifest(f"m{HOSTILE}", card=HOSTILE, tokenizer={"files": {"vocab.txt": HOSTILE}})
    stepper = f"export default () => {json.dumps(HOSTILE)};"
    html = compose([PackedModel(model, b"arrays")], {"x": stepper}, {}, HOSTILE)
    kinds = re.findall(r'<script type="([\w/+-]+)"', html)
    imported, mark, contents, blob, start = re.findall(
        r"<script [^>]*>(.*?)</script", html, re.DOTALL
    )
    data = ["application/ld+json", "application/json", "application/octet-stream"]
    assert kinds == ["importmap", *data, "module"]
    assert json.loads(mark)["@type"] == "CreativeWork"
    assert (
        not re.search("<(img|link|iframe)", html)
        and html.count("</title") == html.count("<style") == 1
    )
    assert json.loads(contents)["models"] == [model]
    assert b85decode(blob.translate(str.maketrans(",./", "&<>"))) == b"arrays"
    policy = re.search(r'content="(default-src [^"]*)"', html)[1].replace("&#39;", "'")
    style = re.search("<style>(.*?)</style", html, re.DOTALL)[1]
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == {
        digest(text) for text in (imported, start, style)
    }
    kinds = re.sub("'sha256-[^']+'", "HASH", policy)
    allowed = (
        "script-src HASH HASH 'strict-dynamic' 'wasm-unsafe-eval'; style-src HASH; img-src data:"
    )
    assert kinds == f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def test_scripts_of_the_page_import_each_other_by_name():
    stepper = f"export default () => {json.dumps(HOSTILE)};"
    html = compose([PackedModel(manifest("m"), b"arrays")], {"x": stepper}, {}, HOSTILE)
    imported = re.search(r"<script [^>]*>(.*?)</script", html, re.DOTALL)[1]
    imports = json.loads(imported)["imports"]
    sources = {name: b64decode(url.partition(",")[2]).decode() for name, url in imports.items()}
    assert sources["stepper/x"] == stepper
    pattern = r"from [\"'](reviewgen/[\w-]+\.js)"
    used = set(re.findall(pattern, "\n".join(sources.values())))
    # a data: URL has no folder: modules name one another by the import map
    assert len(used) > 12 and used <= sources.keys()
    for name, path in static_files().items():
        if path.suffix == ".js":
            assert sources[f"reviewgen/{name}"] == re.sub(
                r'(from "|import ")\./', r"\1reviewgen/", path.read_text("utf-8")
            )


def test_a_text_is_written_token_by_token_and_is_the_same_for_the_same_seed(open_page, file):
    """The one test with a browser in ``make test``."""
    page = open_page(file)
    page.fill("#seed", "7")
    (text,) = write(page, "The film")
    assert text.startswith("The film") and page.locator(".token").count() == 40
    assert write(page) == [text]
    page.fill("#n", "3")
    page.fill("#seed", "8")
    texts = write(page)
    seeds = [(request["seed"], request["n"]) for request in requests(page)]
    assert len({text, *texts}) == 4 and seeds == [(7, 1), (7, 1), (8, 3)]
    assert "40 tokens" in page.text_content(".facts") and "reached the length" in page.text_content(
        ".facts"
    )


@pytest.mark.browser
def test_the_page_opens_with_a_text(open_page, file):
    page = open_page(file)
    assert len(page.text_content(".written")) > 40 and page.text_content("#error") == ""


@pytest.mark.browser
def test_fields_stand_outside_the_closed_settings(open_page, file):
    page = open_page(file, 360)
    assert page.is_visible("#condition-artist") and not page.is_visible("#condition-style")
    page.fill("#condition-artist", "Mt. Joy")
    write(page)
    assert requests(page)[-1]["conditions"]["artist"] == "Mt. Joy"


@pytest.mark.browser
def test_stop_ends_a_text_and_while_it_is_written_alternatives_cannot_be_picked(open_page, file):
    page = open_page(file)
    page.fill("#max_tokens", "1000")
    page.fill("#prompt", "SLOW")  # each of its tokens takes a while
    page.click("#write")
    page.locator(".token").nth(2).click()
    assert (
        page.locator(".alternative:enabled").count() == 0
        and page.locator(".alternative").count() == 10
    )
    page.keyboard.press("Escape")
    page.locator("#write", has_text="Stop").click()
    page.locator(".facts", has_text="stopped").wait_for()
    assert 2 < page.locator(".token").count() < 500 and page.text_content("#error") == ""
    page.fill("#max_tokens", "5")
    assert len(write(page, "A")[0]) > 1 and page.locator(".token").count() == 5


@pytest.fixture
def two_models(open_page, tmp_path):
    """A page of a model whose settings are beyond its sliders, and one with conditions."""
    cycle = {
        "temperature": [0.9, 0.5],
        "top_p": 0.9555,
        "min_p": 0.0005,
        "max_new_tokens": 11,
        "conditions": {"stars": 3},
        "likeness": {"temperature": 1, "repetition_penalty": 1.2},
    }
    models = [
        manifest("one", defaults={"temperature": 3, "max_new_tokens": 4}),
        manifest("two-index", conditions=[STYLE, STARS], defaults=cycle),
    ]
    return open_page(write_page(tmp_path / "page.html", *models))


@pytest.mark.browser
def test_a_link_leaves_to_the_model_what_its_slider_cannot_show(two_models, open_page):
    page = two_models
    assert not any(map(page.is_visible, ("#copying", "#conditions", "#profile")))
    texts = write(page, "A")
    address = link(page)
    other = open_page(address)
    assert (
        written(other) == texts
        and "temperature" not in address
        and requests(other)[-1]["temperature"] == 3
    )


@pytest.mark.browser
def test_settings_follow_the_model_until_they_are_changed(two_models):
    page = two_models
    page.fill("#max_tokens", "12")
    page.select_option("#model", "two-index")
    assert page.is_visible("#copying") and page.is_visible("#conditions")
    page.check("#novelty")
    write(page, "A")
    sent = requests(page)[-1]
    assert [sent[name] for name in ("temperature", "top_p", "min_p", "max_tokens")] == [
        [0.9, 0.5],
        0.9555,
        0.0005,
        12,
    ]
    assert (sent["conditions"], sent["novelty"], sent["max_copy"]) == (
        {"style": None, "stars": "3"},
        "filter",
        None,
    )
    page.locator("#temperature").press("ArrowRight")
    page.locator("#min_p").press("ArrowRight")
    page.fill("#max_copy", "9")
    page.fill("#n", "3")
    page.select_option("#condition-style", "snippet")
    page.locator("#condition-stars").press("Home")
    write(page)
    sent = requests(page)[-1]
    assert [sent[name] for name in ("temperature", "top_p", "min_p", "max_copy")] == [
        0.91,
        0.9555,
        0.01,
        9,
    ]


@pytest.mark.browser
def test_reset_returns_to_the_settings_of_the_model(two_models):
    page = two_models
    page.fill("#max_tokens", "12")
    page.select_option("#model", "two-index")
    page.fill("#n", "3")
    page.locator("#condition-stars").press("Home")
    page.click("#reset")
    write(page)
    sent = requests(page)[-1]
    assert (sent["max_tokens"], sent["n"], sent["conditions"]) == (
        11,
        1,
        {"style": None, "stars": "3"},
    )


@pytest.mark.browser
def test_a_profile_is_sent_and_kept_in_a_link(two_models, open_page):
    page = two_models
    page.select_option("#model", "two-index")
    page.select_option("#profile", "likeness")
    texts = write(page)
    address = link(page)
    assert [requests(page)[-1][name] for name in ("profile", "temperature", "top_p")] == [
        "likeness",
        1,
        0.9555,
    ]
    assert written(open_page(address)) == texts and "profile=likeness" in address


@pytest.mark.browser
def test_a_condition_is_drawn_unless_any_or_a_value_is_chosen(open_page, file):
    page = open_page(file)
    write(page, "A")
    assert requests(page)[-1]["conditions"]["style"] is None
    page.select_option("#condition-style", "any")
    texts = write(page, "A")
    other = open_page(link(page))
    assert written(other) == texts
    assert [requests(each)[-1]["conditions"]["style"] for each in (page, other)] == ["any", "any"]


@pytest.mark.browser
def test_words_and_choices_are_sent_and_kept_in_a_link(open_page, file):
    page = open_page(file)
    write(page, "A film")
    assert [requests(page)[-1][name] for name in ("include", "exclude", "choices")] == [None] * 3
    page.fill("#include", " guitar,credit card ,, ")
    page.fill("#exclude", "the")
    page.fill("#choices", "good | so bad\n\n, and more ")
    texts = write(page, "The film was")
    wanted = [["guitar", "credit card"], ["the"], [" good", " so bad", ", and more"]]
    assert [requests(page)[-1][name] for name in ("include", "exclude", "choices")] == wanted
    assert "include guitar, credit card · exclude the" in page.text_content("#summary")
    other = open_page(link(page))
    assert written(other) == texts and requests(other)[-1] == requests(page)[-1]
    assert other.input_value("#choices") == "good\nso bad\n, and more"
    page.fill("#include", "")
    write(page, "The film was ")
    sent = requests(page)[-1]
    assert (sent["include"], sent["choices"]) == ([], ["good", "so bad", ", and more"])
    page.click("#reset")
    write(page)
    assert requests(page)[-1]["choices"] is None


@pytest.mark.browser
def test_the_words_of_a_model_are_in_the_fields(open_page, tmp_path):
    defaults = {"temperature": 1, "max_new_tokens": 9, "include": ["a", "b c"], "choices": []}
    page = open_page(write_page(tmp_path / "page.html", manifest("one", defaults=defaults)))
    assert page.input_value("#include") == "a, b c" and page.input_value("#choices") == ""


@pytest.mark.browser
def test_tokens_that_the_engine_takes_back_go(open_page, file):
    page = open_page(file)
    (text,) = write(page, "BACK ")
    tokens = page.locator(".token").all_text_contents()
    assert "".join(tokens) == text.removeprefix("BACK ") and 35 < len(tokens) < 38


@pytest.mark.browser
def test_copied_spans_are_underlined_with_length_and_source(open_page, file):
    page = open_page(file)
    page.select_option("#model", "ngram-index")
    (text,) = write(page, "A \U0001f600 film")  # two units of UTF-16, as offsets count
    start = len("A \U0001f600 film") + 3
    copied = text[start : start + 33]
    assert "".join(page.locator(".written mark").all_text_contents()) == copied
    page.locator(".notes summary").click()
    assert page.locator(".notes li").all_text_contents() == [
        f"{copied} 33 characters, from reviews.csv, row 12"
    ]
    page.locator(".token", has=page.locator("mark")).first.click()
    assert (
        "33 characters that also occur in the training text, from reviews.csv, row 12."
        in page.text_content("#microscope")
    )


@pytest.mark.browser
def test_a_link_writes_the_texts_of_two_models_again(open_page, file):
    page = open_page(file)
    page.select_option("#second", "ngram-index")
    page.select_option("#condition-style", "snippet")
    page.locator("#condition-stars").press("End")
    page.fill("#condition-artist", " Mt. Joy")
    page.fill("#n", "2")
    page.locator("#temperature").press("ArrowLeft")
    page.check("#novelty")
    texts = write(page, "Ä film & a “story” #1 + 100 %")
    first, second = requests(page)
    assert len(texts) == 4 and first["seed"] == second["seed"] and "second" not in first
    assert (first["model"], first["conditions"]) == (
        "lstm-word",
        {"style": "snippet", "stars": "3", "artist": "Mt. Joy"},
    )
    assert (second["model"], second["conditions"]) == ("ngram-index", {"style": "snippet"})
    boxes = [page.locator(".column").nth(number).bounding_box() for number in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    other = open_page(link(page, 1))
    assert written(other) == texts and requests(other) == requests(page)


BAD_LINKS = [
    ("seed=x", "whole number from 0 to 9007199254740991, not “x”"),
    ("model=gpt", "“gpt”, which this page does not have; it has lstm-word, ngram-index"),
    (urlencode({"model": HOSTILE}), "The link names the model “</script>"),
    *(
        (f"seed={wrong}", "The seed must be a whole number")
        for wrong in ("99999999999999999999999999", "-1", "1.5", "0x10", "")
    ),
    *((f"temperature={wrong}", "The temperature must be a number") for wrong in ("NaN", "0.5,x")),
    ("n=100000000", "from 1 to 8"),
    ("max_tokens=1e9", "from 1 to 100000"),
    ("second=x", "The link names the model “x”"),
    ("novelty=report", "it can only be “filter”"),
    ("c.style=epic", "it can be any, review, snippet"),
    ("c.genre=x", "“genre”, which the model does not have"),
    ("c.__proto__=x", "the condition “__proto__”"),
    ("constructor=1", "does not know: “constructor”"),
    (urlencode({HOSTILE: HOSTILE}), "does not know: “</script>"),
    ("%E0%A4%A=%", "does not know"),
    ("=x", "does not know: “”"),
    ("novelty=filter", "lstm-word has no index of its training text"),
    ("include=" + "a," * 600, "The words to include of the link are too long"),
    ("max_copy=5", "lstm-word has no index of its training text"),
    ("prompt=" + "a" * 60_000, "at most 50000 characters"),
    ("prompt=" + "a" * 500_000, "at most 460000 characters"),
]
BAD_SETTINGS = [
    ("#seed", "x", "The seed must be a whole number from 0 to 9007199254740991, not “x”."),
    ("#seed", "9" * 400, "The seed must be"),
    ("#n", "0", "from 1 to 8, not “0”"),
    ("#max_tokens", "", "from 1 to 100000, not empty"),
    ("#max_tokens", "2.5", "The length must be a whole number"),
]


@pytest.mark.browser
def test_bad_links_and_settings_and_an_engine_that_fails_are_a_sentence_and_the_page_goes_on(
    open_page, browser, file, tmp_path
):
    page = open_page(f"{file.as_uri()}#model={quote('<img src=x onerror=alert(1)>')}")
    assert "“<img src=x onerror=alert(1)>”" in error(page) and page.locator("img").count() == 0
    for fragment, words in BAD_LINKS:
        page.goto(f"{file.as_uri()}#{fragment}")
        page.locator("#error", has_text=words).wait_for()
        assert len(page.text_content("#error")) < 300, fragment
    page.goto("about:blank")
    page.goto(file.as_uri())
    first = written(page)
    for field, value, words in BAD_SETTINGS:
        before = page.input_value(field)
        page.fill(field, value)
        page.click("#write")
        page.locator("#error", has_text=words).wait_for()
        page.fill(field, before)
    assert len(requests(page)) == 1 and page.locator(".written").all_text_contents() == first
    page.fill("#prompt", "FAIL")
    page.click("#write")
    page.locator("#error", has_text="The engine has no memory left.").wait_for()
    assert len(write(page, "A film")[0]) > 20 and page.text_content("#error") == ""
    broken = browser.new_page()
    broken.goto(write_page(tmp_path / "page.html", manifest("broken")).as_uri())
    assert error(broken) == "The model is damaged." and broken.locator("#write").is_disabled()
    broken.close()


@pytest.mark.browser
def test_picking_an_alternative_continues_from_there(open_page, file):
    page = open_page(file)
    (text,) = write(page, "A film")
    tokens = page.locator(".token").all_text_contents()
    page.locator(".token").nth(5).click()
    rows = page.locator(".alternative")
    assert (
        rows.count() == 10
        and "%" in rows.nth(0).text_content()
        and "(end)" in rows.nth(9).text_content()
    )
    wanted = next(
        number
        for number in range(9)
        if rows.nth(number).locator("code").text_content() != tokens[5].replace(" ", "␣")
    )
    picked = rows.nth(wanted).locator("code").text_content().replace("␣", " ").replace("↵", "\n")
    rows.nth(wanted).click()
    (other,) = written(page)
    before = "A film" + "".join(tokens[:5])
    assert (
        other.startswith(before + picked) and other != text and page.locator(".token").count() == 46
    )
    sent = requests(page)[-1]
    assert (sent["prompt"], sent["n"], sent["seed"]) == (
        before + picked,
        1,
        requests(page)[0]["seed"],
    )
    assert page.locator(".token.picked").all_text_contents() == [picked]


@pytest.mark.browser
def test_picking_the_end_ends_the_text(open_page, file):
    page = open_page(file)
    write(page, "A film")
    tokens = page.locator(".token").all_text_contents()
    for count, facts in ((3, "3 tokens"), (1, "1 token ·"), (0, "0 tokens")):
        page.locator(".token").nth(count).click()
        page.get_by_role("button", name="end of the text").click()
        page.locator(".facts", has_text=facts).wait_for()
        assert page.text_content(".written") == "A film" + "".join(tokens[:count])
        assert len(requests(page)) == 1
    page.keyboard.press("ArrowRight")
    # a text without tokens keeps the focus
    assert page.evaluate("document.activeElement.className") == "written"
    page.get_by_role("button", name="Share").click()
    assert "no link to a text that you have ended" in error(page) and not page.is_visible("#link")


@pytest.mark.browser
def test_everything_can_be_done_with_the_keyboard_alone(open_page, file):
    page = open_page(file)
    page.fill("#seed", "7")  # of some others, the alternative that is picked is the end of the text
    focus = (
        "document.activeElement.id || document.activeElement.className ||"
        " document.activeElement.textContent"
    )
    outline = (
        "(({outlineStyle, outlineWidth}) => [outlineStyle,"
        " outlineWidth])(getComputedStyle(document.activeElement))"
    )
    page.locator("#prompt").focus()
    page.keyboard.type("A film")
    page.keyboard.press("Control+Enter")
    (text,) = written(page)
    seen = []
    while "token" not in seen and len(seen) < 40:
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focus))
        # every place of focus is visible
        assert page.evaluate(outline) == ["solid", "3px"], seen[-1]
    assert {"write", "temperature", "seed", "shade", "Copy", "Share", "token"} <= set(seen)
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "Home", "ArrowRight"):
        page.keyboard.press(key)
    assert page.locator(".token[tabindex='0']").count() == 1
    assert "token 2 of 40" in page.locator("[role=button].token").get_attribute("aria-label")
    page.keyboard.press("Enter")
    assert page.locator("#microscope").is_visible() and "alternative" in page.evaluate(
        "document.activeElement.className"
    )
    page.keyboard.press("ArrowRight")
    assert "token 3 of 40" in page.locator("[role=button].token").get_attribute("aria-label")
    page.keyboard.press("Escape")
    page.locator(".token.open").wait_for(state="detached")  # its event of being closed follows
    assert not page.locator("#microscope").is_visible() and page.evaluate(focus) == "token"
    for key in ("Enter", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    assert written(page)[0][:7] == text[:7] and len(requests(page)) == 2
    assert page.evaluate(f"[{focus}, document.activeElement.tabIndex]") == ["token picked", 0]
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Close").focus()
    page.keyboard.press("Tab")
    assert page.locator("#microscope").is_visible()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert not page.locator("#microscope").is_visible() and page.evaluate(focus) == "Share"


@pytest.mark.browser
def test_a_screen_reader_hears_when_a_text_begins_and_ends_and_not_each_token(open_page, file):
    page = open_page(file)
    page.evaluate("""() => {
        globalThis.heard = [];
        const watch = (records) => heard.push(...records.map((each) => each.target.textContent));
        new MutationObserver(watch).observe(document.getElementById("status"), { childList: true });
    }""")
    write(page, "A film")
    assert page.evaluate("heard") == ["Writing.", "Written: a text of 40 tokens by lstm-word."]
    assert (
        page.locator("[aria-live]").count() == 0
        and page.locator("[role=status], [role=alert]").count() == 2
    )


@pytest.mark.browser
@pytest.mark.parametrize("scheme, width", [("light", 360), ("dark", 1400)])
def test_axe_finds_no_fault_in_all_that_opens_and_nothing_is_wider_than_the_window(
    open_page, file, scheme, width
):
    page = open_page(file, width, color_scheme=scheme, bypass_csp=True)

    def faults():
        return violations(page) + (["wider than the window"] if page.evaluate(IS_TOO_WIDE) else [])

    assert faults() == []
    if not page.is_visible("#second"):
        page.click("#settings summary")
    page.select_option("#second", "ngram-index")
    page.fill("#n", "2")
    page.fill("#max_tokens", "30")
    page.check("#novelty")
    write(page, "A film of " + "averylongword" * 9)
    page.locator(".notes summary").first.click()
    page.locator(".token").nth(70).click()
    assert faults() == []
    page.keyboard.press("Escape")
    page.locator(".text").nth(0).get_by_role("button", name="Share").click()
    assert faults() == []
    page.keyboard.press("Escape")
    page.click("#about")
    page.locator("#card summary").first.click()
    assert faults() == []


@pytest.mark.browser
def test_hostile_texts_are_only_text(open_page, tmp_path):
    hostile = {"name": HOSTILE, "kind": "category", "values": [{"label": HOSTILE}]}
    model = manifest(HOSTILE, conditions=[hostile], facts=[[HOSTILE, HOSTILE]], card=HOSTILE)
    page = open_page(write_page(tmp_path / "page.html", model, title=HOSTILE))
    assert page.title() == page.text_content("h1") == HOSTILE
    page.get_by_role("combobox", name=HOSTILE).last.select_option(HOSTILE)
    (text,) = write(page, HOSTILE)
    assert text.startswith(HOSTILE) and requests(page)[0]["conditions"] == {HOSTILE: HOSTILE}
    page.click("#about")
    page.locator("#card summary").click()
    assert page.text_content("#card dt") == page.text_content(".card-text") == HOSTILE
    page.keyboard.press("Escape")
    other = open_page(link(page))
    assert (
        written(other) == [text]
        and other.locator("img").count() == page.locator("img").count() == 0
    )


def test_a_token_under_the_pointer_or_the_focus_shows_what_each_head_read(open_page, file):
    page = open_page(file)
    write(page, "HEADS ")
    heads = page.locator(".heads").first
    tokens = page.locator(".token")
    tokens.nth(7).hover()
    assert heads.locator("li").all_inner_texts() == [
        "layer 1, head 1<b> 75.0 %",
        "layer 1, head 2␣a 100.0 %",
    ]
    read = "spans => spans.map(span => span.style.getPropertyValue('--read')).slice(0, 9)"
    shares = ["100%", *["0%"] * 5, "75%", "0%", "0%"]
    assert tokens.evaluate_all(read) == shares
    tokens.nth(7).click()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowLeft")
    assert tokens.evaluate_all(read) == ["100%", *["0%"] * 4, "75%", "0%", "0%", "0%"]
    assert violations(page) == []
    write(page, "none ")
    assert not page.locator(".heads li").count()
