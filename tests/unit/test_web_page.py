"""The web page in a real Chromium, from a file: writing, links, microscope, keyboard, hostile texts; the engine is a fake."""

import json
import re
from base64 import b64decode, b64encode, b85decode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from reviewgen.web import PackedModel, compose, composing, modules
from tests.support.browser import violations

FAKE_ENGINE = (Path(__file__).parents[1] / "support/javascript/fake_engine.js").read_text(encoding="utf-8")
HOSTILE = "</script></title><img src=x onerror=alert(1)><script>alert(2)</script>\"'&<!--{{ 7 * 19101 }}"
STYLE = {"name": "style", "kind": "category", "values": [{"label": "review"}, {"label": "snippet"}]}
STARS = {
    "name": "stars",
    "kind": "number",
    "values": [{"label": "1..2", "low": 1, "high": 2}, {"label": "3", "low": 3, "high": 3}],
}
IS_TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
FACTS = [["Bits per character", "1.456"], ["Licence", "Apache-2.0"]]


def manifest(name, *, conditions=(), **more):
    defaults = {"temperature": 0.7, "max_new_tokens": 40}
    fields = {"preset": name, "conditions": list(conditions), "defaults": defaults, "hasIndex": "index" in name, "facts": FACTS}
    return {"id": name, "card": f"---\na: b\n---\n# {name}\n", **fields, **more}


def write_page(file, *models, title="reviewgen", steppers=None):
    """Write a page whose engine is the fake one."""
    front_end = modules.front_end() | {"browser_engine.js": FAKE_ENGINE}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composing, "front_end", lambda: front_end)
        html = compose([PackedModel(model, b"arrays") for model in models], steppers or {}, {}, title)
    file.write_text(html, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    models = [manifest("lstm-word", conditions=[STYLE, STARS]), manifest("ngram-index", conditions=[STYLE])]
    return write_page(tmp_path_factory.mktemp("page") / "page.html", *models)


@pytest.fixture
def open_page(browser):
    """Open a page; whatever it says on its console, and every dialog and request elsewhere, fails the test."""
    contexts, heard = [], []

    def opened(address, width=1400, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: heard.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
        page.goto(address if isinstance(address, str) else address.as_uri())
        page.locator("#model option").first.wait_for(state="attached")
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


def write_slowly(page):
    """Begin a text of 1,000 tokens, each of which takes a while."""
    page.fill("#max_tokens", "1000")
    page.fill("#prompt", "SLOW")
    page.click("#write")


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


class Reader(HTMLParser):
    """Collects the scripts and styles of a page by their attributes, and the names of its tags."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.policy, self.title, self.blocks = [], "", "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.policy = values.get("content", "") if values.get("http-equiv") else self.policy
        if tag in ("script", "style"):
            self.blocks.append((tag, values, []))

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def handle_data(self, data):
        if self.tags[-1:] == ["title"]:
            self.title += data
        elif self.tags and self.tags[-1] in ("script", "style"):
            self.blocks[-1][2].append(data)


# One file


def test_the_file_is_one_page_whatever_models_and_their_names_hold(tmp_path):
    model = manifest(f"m{HOSTILE}", card=HOSTILE, tokenizer={"files": {"vocab.txt": HOSTILE}})
    stepper = f"export default () => {json.dumps(HOSTILE)};"
    page = Reader(write_page(tmp_path / "page.html", model, title=HOSTILE, steppers={"x": stepper}).read_text(encoding="utf-8"))
    scripts = [("".join(text), values) for tag, values, text in page.blocks if tag == "script"]
    kinds = [values.get("type") for _, values in scripts]
    assert kinds == ["importmap", "application/json", "application/octet-stream", "module"]
    assert not {"img", "link", "iframe"} & set(page.tags) and page.title.strip() == HOSTILE
    assert json.loads(scripts[1][0])["models"] == [model]
    assert b85decode(scripts[2][0].translate(str.maketrans(",./", "&<>"))) == b"arrays"
    assert b64decode(json.loads(scripts[0][0])["imports"]["stepper/x"].partition(",")[2]).decode() == stepper


def test_the_policy_allows_the_scripts_and_the_style_of_the_page_by_their_hashes_and_no_connection(file):
    page = Reader(file.read_text(encoding="utf-8"))
    run = {"".join(text) for tag, values, text in page.blocks if tag == "style" or values.get("type") in ("importmap", "module")}
    hashes = {b64encode(sha256(text.encode()).digest()).decode() for text in run}
    assert set(re.findall(r"'sha256-([^']+)'", page.policy)) == hashes and len(hashes) == 3
    assert page.policy.startswith("default-src 'none'; ") and "unsafe" not in page.policy and "connect-src" not in page.policy


def test_imports_of_modules_beside_are_rewritten_and_others_are_not():
    source = (
        'import { a } from "./a.js";\nimport {\n  b,\n} from "./b-c.js";\nexport * from \'./d.js\';\nconst text = "./a.js";\n'
    )
    (url,) = modules.import_map({"x.js": source}).values()
    expected = source.replace('from "./', 'from "reviewgen/').replace("from './", "from 'reviewgen/")
    assert b64decode(url.partition(",")[2]).decode() == expected != source


def test_every_module_is_found_by_those_that_import_it():
    sources = modules.front_end() | {"browser_engine.js": FAKE_ENGINE}
    imported = {name for source in sources.values() for name in re.findall(r'from "\./([\w-]+\.js)"', source)}
    assert imported and imported <= sources.keys()


# Writing


def test_a_text_is_written_token_by_token_and_is_the_same_for_the_same_seed(open_page, file):
    page = open_page(file)
    page.fill("#seed", "7")
    (text,) = write(page, "The film")
    assert text.startswith("The film") and page.locator(".token").count() == 40
    assert write(page) == [text]
    page.fill("#seed", "8")
    assert write(page) != [text]
    assert [request["seed"] for request in requests(page)] == [7, 7, 8]
    assert "40 tokens" in page.text_content(".facts") and "reached the length" in page.text_content(".facts")


def test_a_new_seed_is_drawn_each_time_until_one_is_given(open_page, file):
    page = open_page(file)
    write(page, "A")
    write(page)
    one, other = (request["seed"] for request in requests(page))
    assert one != other and page.input_value("#seed") == str(other)


def test_several_texts_at_once(open_page, file):
    page = open_page(file)
    page.fill("#n", "3")
    texts = write(page, "A film")
    assert len(set(texts)) == 3 and requests(page)[0]["n"] == 3


def test_stop_ends_a_text_and_it_can_be_written_anew(open_page, file):
    page = open_page(file)
    write_slowly(page)
    page.locator(".token").nth(3).wait_for()
    page.locator("#write", has_text="Stop").click()
    page.locator(".facts", has_text="stopped").wait_for()
    assert 3 < page.locator(".token").count() < 500 and page.text_content("#error") == ""
    page.fill("#max_tokens", "5")
    assert len(write(page, "A")[0]) > 1 and page.locator(".token").count() == 5


def test_settings_follow_the_model_until_they_are_changed(open_page, tmp_path):
    cycle = {"temperature": [0.9, 0.5], "top_p": 0.95, "max_new_tokens": 11, "conditions": {"stars": 3}}
    page = open_page(
        write_page(tmp_path / "page.html", manifest("one"), manifest("two-index", conditions=[STARS], defaults=cycle))
    )
    assert not page.is_visible("#copying") and not page.is_visible("#conditions")
    page.fill("#max_tokens", "12")
    page.select_option("#model", "two-index")
    assert page.is_visible("#copying") and page.is_visible("#conditions")
    page.check("#novelty")
    write(page, "A")
    sent = requests(page)[-1]
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"]) == ([0.9, 0.5], 0.95, 12)
    assert (sent["conditions"], sent["novelty"], sent["max_copy"]) == ({"stars": "3"}, "filter", None)
    page.locator("#temperature").press("ArrowRight")
    page.fill("#max_copy", "9")
    write(page)
    sent = requests(page)[-1]
    assert (sent["temperature"], sent["max_copy"]) == (0.91, 9)
    page.click("#reset")
    write(page)
    assert requests(page)[-1]["max_tokens"] == 11


def test_the_end_that_an_engine_cuts_off_goes(open_page, file):
    page = open_page(file)
    page.fill("#seed", "1")
    (whole,) = write(page, "A")
    (cut,) = write(page, "CUT")
    tokens = page.locator(".token").all_text_contents()
    assert cut == "CUT" + "".join(tokens) and len(tokens) < 40 and len(whole) > 20


def test_shades_are_those_of_the_bits_and_can_be_turned_off(open_page, file):
    page = open_page(file)
    write(page, "A film")
    shades = page.evaluate("[...document.querySelectorAll('.token > span')].map((each) => Number(each.className.slice(1)))")
    labels = []
    page.locator(".token[tabindex='0']").focus()
    for _ in range(10):
        labels.append(page.locator(".token[role=button]").get_attribute("aria-label"))
        page.keyboard.press("ArrowRight")
    bits = [float(re.search(r"([\d.]+) bits", label)[1]) for label in labels]
    edges = (1, 2, 3, 5, 7, 9, 12)
    assert all(
        abs(sum(value >= edge for edge in edges) - shade) <= (min(abs(value - edge) for edge in edges) < 0.06)
        for value, shade in zip(bits, shades[:10], strict=True)
    )
    colors = "new Set([...document.querySelectorAll('.token > span')].map((each) => getComputedStyle(each).backgroundColor)).size"
    assert page.evaluate(colors) > 2
    page.uncheck("#shade")
    assert page.evaluate(colors) == 1


def test_copied_spans_are_underlined_with_length_and_source(open_page, file):
    page = open_page(file)
    page.select_option("#model", "ngram-index")
    (text,) = write(page, "A \U0001f600 film")  # two units of UTF-16, as offsets count
    start = len("A \U0001f600 film") + 3
    assert "".join(page.locator(".written mark").all_text_contents()) == text[start : start + 33]
    page.locator(".notes summary").click()
    assert page.locator(".notes li").all_text_contents() == [
        f"{text[start : start + 33]} 33 characters, from reviews.csv, row 12"
    ]
    page.locator(".token", has=page.locator("mark")).first.click()
    assert "33 characters that also stand in the training text, from reviews.csv, row 12." in page.text_content("#microscope")


def test_two_models_side_by_side(open_page, file):
    page = open_page(file)
    page.select_option("#second", "ngram-index")
    page.select_option("#condition-style", "snippet")
    page.locator("#condition-stars").press("End")
    page.fill("#n", "2")
    assert len(write(page, "A film")) == 4
    first, second = requests(page)
    assert (first["model"], first["conditions"]) == ("lstm-word", {"style": "snippet", "stars": "3"})
    assert (second["model"], second["conditions"]) == ("ngram-index", {"style": "snippet"})
    assert "second" not in first and first["seed"] == second["seed"]
    boxes = [page.locator(".column").nth(number).bounding_box() for number in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]


# Links


def test_a_link_writes_the_same_texts_again(open_page, file):
    page = open_page(file)
    page.select_option("#second", "ngram-index")
    page.select_option("#condition-style", "snippet")
    page.fill("#n", "2")
    page.locator("#temperature").press("ArrowLeft")
    page.check("#novelty")
    texts = write(page, "Ä film & a “story” #1 + 100 %")
    other = open_page(link(page, 1))
    assert written(other) == texts
    assert requests(other) == requests(page)


def test_a_link_to_a_continued_text_writes_it_again(open_page, file):
    page = open_page(file)
    page.fill("#n", "2")
    write(page, "A film")
    page.locator(".text").nth(1).locator(".token").nth(20).click()
    page.locator(".alternative").nth(4).click()
    texts = written(page)
    assert written(open_page(link(page, 1))) == [texts[1]] and written(open_page(link(page, 0)))[0] == texts[0]


def test_the_longest_prompt_makes_a_link_that_can_be_followed_and_a_longer_one_a_sentence(open_page, file):
    page = open_page(file)
    page.fill("#max_tokens", "2")
    (text,) = write(page, "€" * 20_000)
    assert written(open_page(link(page))) == [text]
    page.evaluate("document.getElementById('prompt').removeAttribute('maxlength')")
    write(page, "a" * 50_001)
    page.get_by_role("button", name="Share").click()
    assert error(page).startswith("The text is too long for a link: it can hold 50000 characters, and these are 50001.")


def test_a_default_beyond_a_slider_is_used_and_a_link_leaves_it_to_the_model(open_page, tmp_path):
    page = open_page(write_page(tmp_path / "page.html", manifest("one", defaults={"temperature": 3, "max_new_tokens": 4})))
    texts = write(page, "A")
    address = link(page)
    other = open_page(address)
    assert written(other) == texts and "temperature" not in address and requests(other)[-1]["temperature"] == 3


def test_another_link_in_the_same_window_is_followed(open_page, file):
    page = open_page(f"{file.as_uri()}#seed=3&prompt=One")
    (one,) = written(page)
    page.goto(f"{file.as_uri()}#seed=3&prompt=Two")
    page.locator(".prompt-text", has_text="Two").wait_for()
    assert written(page)[0].startswith("Two") and one.startswith("One")


def test_nothing_of_an_earlier_link_stays(open_page, file):
    page = open_page(f"{file.as_uri()}#prompt=One&n=2&seed=3&temperature=0.9,0.5&top_p=0.5&max_tokens=4&c.style=review")
    assert len(written(page)) == 2
    page.goto(f"{file.as_uri()}#model=&prompt=Two&min_p=0.1")  # no model is the first
    page.locator(".prompt-text", has_text="Two").wait_for()
    written(page)
    sent = requests(page)[-1]
    assert {name: sent[name] for name in ("model", "n", "temperature", "top_p", "min_p", "max_tokens")} == {
        "model": "lstm-word",
        "n": 1,
        "temperature": 0.7,
        "top_p": 1,
        "min_p": 0.1,
        "max_tokens": 40,
    }
    assert sent["seed"] != 3 and sent["conditions"] == {"style": None, "stars": None}


def test_a_setting_between_two_steps_of_its_slider_is_kept_until_the_slider_moves(open_page, tmp_path):
    model = manifest("one", defaults={"temperature": 0.725, "top_p": 0.9555, "min_p": 0.0005, "max_new_tokens": 4})
    page = open_page(write_page(tmp_path / "page.html", model))
    write(page, "A")
    sent = requests(page)[-1]
    assert (sent["temperature"], sent["top_p"], sent["min_p"]) == (0.725, 0.9555, 0.0005)
    page.locator("#min_p").press("ArrowRight")
    write(page)
    sent = requests(page)[-1]
    assert (sent["temperature"], sent["min_p"]) == (0.725, 0.01)
    other = open_page(link(page))
    written(other)
    assert requests(other)[-1] == sent


def test_the_models_own_settings_are_all_its_own(open_page, tmp_path):
    own = {"max_new_tokens": 4, "conditions": {"stars": 3}}
    page = open_page(write_page(tmp_path / "page.html", manifest("one", conditions=[STYLE, STARS], defaults=own)))
    page.fill("#n", "3")
    page.select_option("#condition-style", "snippet")
    page.locator("#condition-stars").press("Home")
    page.click("#reset")
    write(page, "A")
    assert requests(page)[-1]["n"] == 1 and requests(page)[-1]["conditions"] == {"style": None, "stars": "3"}


BAD_LINKS = [
    ("model=gpt", "The link names the model “gpt”, which this page does not have; it has lstm-word, ngram-index."),
    (urlencode({"model": HOSTILE}), "The link names the model “</script>"),
    ("seed=99999999999999999999999999", "The seed must be a whole number from 0 to 9007199254740991"),
    ("seed=-1", "The seed must be a whole number"),
    ("seed=1.5", "The seed must be a whole number"),
    ("seed=0x10", "The seed must be a whole number"),
    ("seed=", "The seed must be a whole number from 0 to 9007199254740991, not empty."),
    ("temperature=NaN", "The temperature must be a number from 0.05 to 2, not “NaN”."),
    ("temperature=0.5,x", "The temperature must be a number"),
    ("n=100000000", "The number of texts must be a whole number from 1 to 8"),
    ("max_tokens=1e9", "The length must be a whole number from 1 to 100000"),
    ("second=x", "The link names the model “x”"),
    ("novelty=report", "The link has novelty=“report”; it can only be “filter”."),
    ("c.style=epic", "The link has “epic” for the condition “style”; it can be review, snippet."),
    ("c.genre=x", "The link has the condition “genre”, which the model does not have."),
    ("c.__proto__=x", "The link has the condition “__proto__”"),
    ("constructor=1", "The link has a setting that this page does not know: “constructor”."),
    (urlencode({HOSTILE: HOSTILE}), "The link has a setting that this page does not know: “</script>"),
    ("%E0%A4%A=%", "The link has a setting that this page does not know"),
    ("=x", "The link has a setting that this page does not know: “”."),
    ("novelty=filter", "The link asks for a text without copies, but lstm-word has no index of its training text"),
    ("max_copy=5", "The link asks for a text without copies, but lstm-word has no index of its training text"),
    ("prompt=" + "a" * 60_000, "The prompt of the link is too long: at most 50000 characters."),
    ("prompt=" + "a" * 500_000, "The link is too long: at most 460000 characters can be read."),
]


def test_a_link_that_cannot_be_followed_is_a_sentence(open_page, file):
    page = open_page(f"{file.as_uri()}#seed=x")
    assert error(page) == "The seed must be a whole number from 0 to 9007199254740991, not “x”."
    for fragment, sentence in BAD_LINKS:
        page.goto(f"{file.as_uri()}#{fragment}")
        page.locator("#error", has_text=sentence).wait_for()
        assert page.text_content("#error").startswith(sentence) and len(page.text_content("#error")) < 300
    assert requests(page) == [] and page.locator(".text").count() == 0
    write(page, "A film")  # it still works
    assert page.text_content("#error") == ""


# The microscope


def test_the_microscope_shows_the_alternatives_and_picking_one_continues_from_there(open_page, file):
    page = open_page(file)
    (text,) = write(page, "A film")
    tokens = page.locator(".token").all_text_contents()
    page.locator(".token").nth(5).click()
    rows = page.locator(".alternative")
    assert rows.count() == 10 and "%" in rows.nth(0).text_content() and "(end)" in rows.nth(9).text_content()
    wanted = next(number for number in range(9) if rows.nth(number).locator("code").text_content() != tokens[5].replace(" ", "␣"))
    picked = rows.nth(wanted).locator("code").text_content().replace("␣", " ").replace("↵", "\n")
    rows.nth(wanted).click()
    (other,) = written(page)
    before = "A film" + "".join(tokens[:5])
    assert other.startswith(before + picked) and other != text and page.locator(".token").count() == 46
    sent = requests(page)[-1]
    assert (sent["prompt"], sent["n"], sent["seed"]) == (before + picked, 1, requests(page)[0]["seed"])
    assert page.locator(".token.picked").all_text_contents() == [picked]


def test_picking_the_end_ends_the_text(open_page, file):
    page = open_page(file)
    write(page, "A film")
    tokens = page.locator(".token").all_text_contents()
    page.locator(".token").nth(3).click()
    page.get_by_role("button", name="end of the text").click()
    page.locator(".facts", has_text="3 tokens").wait_for()
    assert page.text_content(".written") == "A film" + "".join(tokens[:3]) and len(requests(page)) == 1
    page.get_by_role("button", name="Share").click()
    assert error(page).startswith("There is no link to a text that you have ended") and not page.is_visible("#link")
    page.locator(".token").nth(1).click()
    page.get_by_role("button", name="end of the text").click()
    assert page.text_content(".facts").startswith("1 token ·")


def test_a_text_without_tokens_keeps_the_focus(open_page, file):
    page = open_page(file)
    write(page, "A film")
    page.locator(".token").first.click()
    page.get_by_role("button", name="end of the text").click()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.className") == "written" and "0 tokens" in page.text_content(".facts")


def test_a_blank_alternative_is_visible_and_a_text_that_is_stuck_says_why(open_page, file):
    page = open_page(file)
    write(page, "BLANK STUCK")
    assert "no token was left" in page.text_content(".facts")
    page.locator(".token").first.click()
    assert page.locator(".alternative code").nth(8).text_content() == "[2028]"
    page.keyboard.press("Escape")
    page.select_option("#model", "ngram-index")
    page.check("#novelty")
    write(page)
    assert "nothing left but copies" in page.text_content(".facts")


def test_an_end_of_the_prompt_that_is_sampled_again_costs_nothing_and_stays(open_page, file):
    page = open_page(file)
    (text,) = write(page, "The mov")
    assert text.startswith("The movie")
    page.locator(".token").first.click()
    assert page.locator("#microscope-title").text_content() == "ie" and "1.0 bits" in page.text_content("#microscope")
    assert page.locator(".alternative code").all_text_contents() == ["ie", "ement"]  # " film" would change the prompt
    page.locator(".alternative").nth(1).click()
    assert written(page)[0].startswith("The movement") and requests(page)[-1]["prompt"] == "The movement"


def test_while_a_text_is_written_alternatives_are_shown_but_not_picked(open_page, file):
    page = open_page(file)
    write_slowly(page)
    page.locator(".token").nth(2).click()
    assert page.locator(".alternative:enabled").count() == 0 and page.locator(".alternative").count() == 10
    page.keyboard.press("Escape")
    page.click("#write")


# The keyboard and screen readers


def test_everything_can_be_done_with_the_keyboard_alone(open_page, file):
    page = open_page(file)
    focus = "document.activeElement.id || document.activeElement.className || document.activeElement.textContent"
    page.locator("#prompt").focus()
    page.keyboard.type("A film")
    page.keyboard.press("Control+Enter")
    (text,) = written(page)
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focus))
        if seen[-1] == "token":
            break
    assert seen[-1] == "token" and {"write", "temperature", "seed", "shade", "Copy", "Share"} <= set(seen)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.locator(".token[tabindex='0']").count() == 1
    assert "token 2 of 40" in page.locator("[role=button].token").get_attribute("aria-label")
    page.keyboard.press("Enter")
    assert page.locator("#microscope").is_visible() and "alternative" in page.evaluate("document.activeElement.className")
    page.keyboard.press("ArrowRight")
    assert "token 3 of 40" in page.locator("[role=button].token").get_attribute("aria-label")
    page.keyboard.press("Escape")
    assert not page.locator("#microscope").is_visible()
    page.locator(".token.open").wait_for(state="detached")  # its event of being closed follows
    assert page.evaluate(focus) == "token"
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert written(page)[0][:7] == text[:7] and len(requests(page)) == 2
    assert page.evaluate(f"[{focus}, document.activeElement.tabIndex]") == ["token picked", 0]
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Close").focus()
    page.keyboard.press("Tab")
    assert page.locator("#microscope").is_visible()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert not page.locator("#microscope").is_visible() and page.evaluate(focus) == "Share"


def test_at_the_end_of_a_text_the_focus_stays_and_an_open_microscope_lets_pick(open_page, file):
    page = open_page(file)
    page.fill("#max_tokens", "30")
    page.fill("#prompt", "SLOW")
    page.click("#write")
    page.locator(".token").nth(2).focus()
    written(page)
    assert "token" in page.evaluate("document.activeElement.className")
    page.click("#write")
    page.locator(".token").nth(2).click()
    assert page.locator(".alternative:enabled").count() == 0
    written(page)
    assert page.locator(".alternative:enabled").count() == 10
    assert "alternative" in page.evaluate("document.activeElement.className")
    page.get_by_role("button", name="end of the text").click()
    assert page.locator(".token").count() == 2 and "token" in page.evaluate("document.activeElement.className")


def test_every_place_of_focus_is_visible(open_page, file):
    page = open_page(file)
    write(page, "A film")
    page.locator("#model").focus()
    for _ in range(22):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "(({outlineStyle, outlineWidth}) => [outlineStyle, outlineWidth])(getComputedStyle(document.activeElement))"
        )
        assert style == ["solid", "3px"] or page.evaluate("document.activeElement === document.body"), page.evaluate(
            "document.activeElement.id"
        )


def test_a_screen_reader_hears_when_a_text_begins_and_ends_and_not_each_token(open_page, file):
    page = open_page(file)
    page.evaluate("""() => {
        globalThis.heard = [];
        const watch = (records) => heard.push(...records.map((each) => each.target.textContent));
        new MutationObserver(watch).observe(document.getElementById("status"), { childList: true });
    }""")
    write(page, "A film")
    assert page.evaluate("heard") == ["Writing.", "Written: a text of 40 tokens by lstm-word."]
    assert page.locator("[aria-live]").count() == 0 and page.locator("[role=status], [role=alert]").count() == 2


def test_without_motion_nothing_blinks(open_page, file):
    for motion, moves in (("no-preference", True), ("reduce", False)):
        page = open_page(file, reduced_motion=motion)
        page.fill("#prompt", "SLOW")
        page.click("#write")
        page.locator(".written.writing").wait_for()
        name = page.evaluate("getComputedStyle(document.querySelector('.writing'), '::after').animationName")
        assert (name != "none") == moves
        page.click("#write")


def write_two(page):
    """Write two texts each of two models, with all that a page can show of them."""
    if not page.is_visible("#second"):
        page.click("#settings summary")
    page.select_option("#second", "ngram-index")
    page.fill("#n", "2")
    page.fill("#max_tokens", "30")
    page.check("#novelty")
    write(page, "A film of " + "averylongword" * 9)
    page.locator(".notes summary").first.click()


@pytest.mark.parametrize(("scheme", "width"), [("dark", 360), ("light", 800), ("light", 1400), ("dark", 1600)])
def test_axe_finds_no_fault_in_texts_and_nothing_is_wider_than_the_window(open_page, file, scheme, width):
    page = open_page(file, width, color_scheme=scheme, bypass_csp=True)
    write_two(page)
    assert violations(page) == [] and page.evaluate(IS_TOO_WIDE) is False


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1400)])
def test_axe_finds_no_fault_in_all_that_opens_and_nothing_is_wider_than_the_window(open_page, file, scheme, width):
    page = open_page(file, width, color_scheme=scheme, bypass_csp=True)

    def faults():
        return violations(page) + (["wider than the window"] if page.evaluate(IS_TOO_WIDE) else [])

    assert faults() == []
    write_two(page)
    page.locator(".token").nth(70).click()
    assert faults() == []
    page.keyboard.press("Escape")
    page.locator(".text").nth(0).get_by_role("button", name="Share").click()
    assert faults() == []
    page.keyboard.press("Escape")
    page.click("#about")
    page.locator("#card summary").first.click()
    assert faults() == []


# What may go wrong


def test_hostile_texts_are_only_text(open_page, tmp_path):
    hostile = {"name": HOSTILE, "kind": "category", "values": [{"label": HOSTILE}]}
    model = manifest(HOSTILE, conditions=[hostile], facts=[[HOSTILE, HOSTILE]], card=HOSTILE)
    page = open_page(write_page(tmp_path / "page.html", model, title=HOSTILE))
    assert page.title() == page.text_content("h1") == HOSTILE
    page.get_by_label(HOSTILE).last.select_option(HOSTILE)
    (text,) = write(page, HOSTILE)
    assert text.startswith(HOSTILE) and requests(page)[0]["conditions"] == {HOSTILE: HOSTILE}
    page.click("#about")
    page.locator("#card summary").click()
    assert page.text_content("#card dt") == page.text_content(".card-text") == HOSTILE
    page.keyboard.press("Escape")
    other = open_page(link(page))
    assert written(other) == [text]
    assert other.locator("img").count() == page.locator("img").count() == 0


def test_an_engine_that_fails_is_a_sentence_and_the_page_goes_on(open_page, file):
    page = open_page(file)
    page.fill("#prompt", "FAIL")
    page.click("#write")
    assert error(page) == "The engine has no memory left."
    assert len(write(page, "A film")[0]) > 20 and page.text_content("#error") == ""


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("#seed", "x", "The seed must be a whole number from 0 to 9007199254740991, not “x”."),
        ("#seed", "9" * 400, "The seed must be"),
        ("#n", "0", "The number of texts must be a whole number from 1 to 8, not “0”."),
        ("#max_tokens", "", "The length must be a whole number from 1 to 100000, not empty."),
        ("#max_tokens", "2.5", "The length must be a whole number"),
    ],
)
def test_a_setting_out_of_range_is_a_sentence(open_page, file, field, value, sentence):
    page = open_page(file)
    page.fill(field, value)
    page.click("#write")
    assert error(page).startswith(sentence) and requests(page) == []


def test_models_that_cannot_be_loaded_are_a_sentence(browser, tmp_path):
    page = browser.new_page()
    page.goto(write_page(tmp_path / "page.html", manifest("broken")).as_uri())
    assert error(page) == "The model is damaged." and page.locator("#write").is_disabled()
    page.close()


def test_a_model_name_in_the_address_is_not_markup(open_page, file):
    page = open_page(f"{file.as_uri()}#model={quote('<img src=x onerror=alert(1)>')}")
    assert "“<img src=x onerror=alert(1)>”" in error(page) and page.locator("img").count() == 0
