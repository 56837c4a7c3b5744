"""Generated texts are marked as synthetic, as docs/explanation/marks.md says; its checker reads the
marks.
"""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

import reviewgen
from reviewgen.export.html import export_html
from reviewgen.version import __version__
from reviewgen.web.composing import page_for_server
from tests.support.live_server import in_process

PAGE = Path(__file__).parents[2] / "docs/explanation/marks.md"
TEXTS = [{"review": f"The food was {word}.", "synthetic": "no"} for word in ("good", "bad")] * 20


@pytest.fixture(scope="module")
def is_marked() -> Callable[[Path], bool]:
    """The checker of the page."""
    code = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {}
    exec("".join(code), namespace)
    return namespace["is_marked"]


@pytest.fixture(scope="module")
def model(model_folder) -> Path:
    return model_folder("ngram-char")


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "jsonl", "parquet"])
def test_a_table_is_marked(name, model, tmp_path, run_command, is_marked):
    out = tmp_path / name
    words = ["generate", model, "-n", "5", "--seed", "1", "--max-new-tokens", "9", "--out", out]
    kind = [] if out.suffix else ["--format", name]
    status, _, said = run_command(*words, *kind)
    assert status == 0, said
    files = [out] if out.is_file() else sorted(out.glob("train-*"))
    assert files and all(map(is_marked, files))
    if not out.suffix:
        assert json.loads((out / "manifest.json").read_text())["synthetic"] is True
        again, _, said = run_command(*words, *kind)  # the same command finds it complete
        assert again == 0, said
    if "parquet" in name:
        assert parquet.read_schema(files[0]).names[0] == "text"
        assert "synthetic" not in parquet.read_schema(files[0]).names


def test_texts_of_people_are_not_marked(model, tmp_path, is_marked):
    for name in ("s.csv", "s.jsonl", "s.parquet"):
        reviewgen.score_dataset(model, ["the movie"], out=tmp_path / name)
        assert not is_marked(tmp_path / name)


@pytest.mark.slow
def test_a_marked_table_trains_as_before_and_a_condition_keeps_its_values(
    model, tmp_path, is_marked
):
    trained = reviewgen.train("ngram-char", TEXTS, conditions=["synthetic"], out=tmp_path / "m")
    assert trained.conditions.names == ("synthetic",)
    reviewgen.generate_dataset(tmp_path / "m", 30, out=tmp_path / "t.csv", seed=1)
    with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert is_marked(tmp_path / "t.csv") and {row["condition_synthetic"] for row in rows} == {"no"}
    again = reviewgen.train("ngram-char", tmp_path / "t.csv", progress=False)
    assert list(again.conditions) == [] and again.training["data"]["text_column"] == "text"
    with pytest.raises(reviewgen.ReviewgenError, match="'synthetic' is the name of another column"):
        schema = {"synthetic": {"regex": "a"}, "text": {"regex": "b"}}
        reviewgen.generate_dataset(model, 1, schema=schema)


def test_receipts_and_json_are_marked(model, tmp_path, run_command, is_marked):
    receipts = tmp_path / "r.jsonl"
    words = ["generate", model, "-n", "2", "--seed", "1", "--max-new-tokens", "9"]
    assert run_command(*words, "--receipt", receipts)[0] == 0 and is_marked(receipts)
    assert json.loads(run_command(*words, "--json")[1])["synthetic"] is True


def test_pages_are_marked_and_a_browser_accepts_the_mark(model, tmp_path, is_marked, browser):
    exported = export_html(reviewgen.load(model), tmp_path / "page.html")
    (tmp_path / "served.html").write_text(page_for_server(), encoding="utf-8")
    for file in (exported, tmp_path / "served.html"):
        generator = f'<meta name="generator" content="reviewgen {__version__}">'
        assert is_marked(file) and generator in file.read_text(encoding="utf-8")
    page = browser.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.goto(exported.as_uri())
    page.locator("#write:not([disabled])").wait_for()
    mark = json.loads(page.text_content('script[type="application/ld+json"]'))
    assert mark["digitalSourceType"].endswith("/trainedAlgorithmicMedia") and heard == []


def test_a_card_names_both_laws(micro):
    card = micro("ngram-char").bundle.card
    assert "Regulation (EU) 2024/1689" in card and "Directive 2005/29/EC" in card


def test_answers_are_marked(micro, tmp_path, is_marked):
    ask = {"prompt": "the ", "max_tokens": 9}
    with in_process({"m": micro("ngram-char")}) as server:
        whole = server.complete(**ask)
        chunks = server.stream(**ask)
        chat = {"messages": [{"role": "user", "content": "the "}], "max_tokens": 9}
        talked = server.http.post("/v1/chat/completions", json=chat)
        scored = server.complete(**ask | {"max_tokens": 0, "echo": True, "logprobs": 1})
        failed = server.complete(prompt=3)
    (tmp_path / "answer.json").write_text(whole.text, encoding="utf-8")
    assert is_marked(tmp_path / "answer.json") and all(chunk["synthetic"] for chunk in chunks)
    assert talked.json()["synthetic"] is True
    for answer in (whole, talked):
        assert answer.headers["ai-disclosure"] == "mode=machine-generated"
    assert scored.json()["synthetic"] is False
    assert not {"ai-disclosure"} & {*scored.headers, *failed.headers}
