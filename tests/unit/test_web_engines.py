"""The page with its two real engines, in the browser from a file and over HTTP: the texts are those of Python."""

from urllib.parse import urlencode

import pytest

import reviewgen
from reviewgen.export import export_html
from tests.support.live_server import serve

ROWS = [
    {"review": f"The {noun} was {word}, and the {other} was {word} too.", "stars": stars}
    for stars, word in ((1, "cold"), (1, "dull"), (5, "great"), (5, "“good”"))
    for noun in ("food", "film", "bill")
    for other in ("beer", "band", "café")
]


@pytest.fixture(scope="module")
def model():
    return reviewgen.train("ngram-char", ROWS, model={"order": 6}, conditions=["stars"], training={"novelty": "exact"})


@pytest.fixture(scope="module", params=["file", "server"])
def address(request, model, tmp_path_factory):
    if request.param == "file":
        yield export_html(model, tmp_path_factory.mktemp("page") / "page.html", bits=32).as_uri()
    else:
        with serve({"ngram-char": model}, page=True) as server:
            yield f"{server.url}/"


def open_link(browser, address, **settings):
    """Return the page that a link has written."""
    page = browser.new_page()
    page.goto(f"{address}#{urlencode(settings)}")
    page.locator(".facts", has_text="tokens").last.wait_for()
    page.locator("#write", has_text="Write").wait_for()
    assert page.text_content("#error") == ""
    return page


def test_a_link_writes_the_texts_that_python_generates(browser, address, model):
    page = open_link(
        browser, address, **{"prompt": "The ", "seed": 11, "n": 3, "max_tokens": 60, "temperature": 0.9, "c.stars": 5}
    )
    settings = {"max_new_tokens": 60, "temperature": 0.9, "conditions": {"stars": 5}}
    expected = model.generate("The ", num_return_sequences=3, seed=11, **settings)
    assert page.locator(".written").all_text_contents() == [str(text) for text in expected]
    page.close()


def test_a_picked_alternative_is_continued_as_python_continues_it(browser, address, model):
    page = open_link(browser, address, prompt="The ", seed=3, max_tokens=50)
    page.locator(".token").nth(6).click()
    page.locator(".alternative:enabled:not(.chosen)").first.click()
    page.locator(".token.picked").wait_for()
    page.locator(".facts", has_text="tokens").wait_for()
    before = "The " + "".join(page.locator(".token").all_text_contents()[:7])
    expected = model.generate_one(before, seed=3, max_new_tokens=50, temperature=float(page.input_value("#temperature")))
    assert page.text_content(".written") == str(expected)
    page.close()


def test_the_microscope_shows_the_probabilities_of_python(browser, address, model):
    page = open_link(browser, address, prompt="The f", seed=3, max_tokens=3)
    page.locator(".token").first.click()
    shown = page.locator(".alternative .share").all_text_contents()
    expected = [each.probability for each in model.next_tokens("The f", k=10).alternatives][: len(shown)]
    shares = [float(each.removesuffix(" %")) for each in shown[:2]]
    assert shares == pytest.approx([100 * each for each in expected[:2]], abs=0.2)  # the server counts bos in, which is not drawn
    assert len(shown) == 10
    page.close()
