"""The bias-variance table: its numbers are those of single runs, what is refused before any work, the plot, the command."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import reviewgen
from reviewgen import TrainingRun, plot_sweep
from reviewgen.errors import ConfigError, OutputExists
from reviewgen.evaluation import evaluate_documents
from reviewgen.runs import SweepRow
from tests.support.fakes import TEXTS, run_command


def by_hand(preset: str, **options: Any) -> list[Any]:
    """Return the numbers that a row of the table should have, from a run of its own."""
    run = TrainingRun(preset, TEXTS, **options)
    run.read()
    run.tokenize()
    assert list(run)
    model = run.finish()
    train = evaluate_documents(model.model, run.stores["train"].documents(), model.tokenizer.vocab_size)
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.model.state_dict().values())
    held_out, copies = model.training["held_out"]["bits_per_character"], model.training["novelty"]["token_copy_rate"]
    return [train.bits_per_character, held_out, size / 1e6, copies]


def numbers(row: SweepRow) -> list[Any]:
    return [row.train_bits, row.held_out_bits, row.megabytes, row.token_copy_rate]


def test_the_orders_of_an_ngram_of_a_source_that_is_read_once() -> None:
    rows = list(reviewgen.sweep("ngram-char", iter(TEXTS), "model.order", [1, 2, 4]))
    assert [row.value for row in rows] == [1, 2, 4]
    for row in rows:
        assert numbers(row) == pytest.approx(by_hand("ngram-char", model={"order": row.value}))
        assert row.seconds > 0
    bits = [row.train_bits or 0.0 for row in rows]
    assert bits[0] > bits[1] + 0.5 > bits[2] + 1.0
    assert rows[0].megabytes < rows[1].megabytes < rows[2].megabytes
    assert (rows[0].token_copy_rate or 0.0) < 0.03 and (rows[2].token_copy_rate or 0.0) > 0.1


def test_the_vocabulary_of_a_tokenizer() -> None:
    rows = list(reviewgen.sweep("ngram-word", TEXTS, "tokenizer.vocab_size", ["262", "270"], {"model": {"order": 2}}))
    assert [row.value for row in rows] == ["262", "270"] and rows[0].held_out_bits != rows[1].held_out_bits
    assert numbers(rows[1]) == pytest.approx(by_hand("ngram-word", model={"order": 2}, tokenizer={"vocab_size": 270}))


def test_a_wrong_sweep_is_refused_before_any_work() -> None:
    refused: list[tuple[str, Any, dict[str, Any], str]] = [
        ("data.lowercase", [True], {}, "not a setting"),
        ("model.order", [], {}, "at least one value"),
        ("model.ordr", [2], {}, "'order'"),
        ("model.order", [2], {"settings": {"model": {"order": 3}}}, "both set and varied"),
        ("model.order", [2], {"out": "somewhere"}, "no model is saved"),
    ]
    for setting, values, more, word in refused:
        with pytest.raises(ConfigError, match=word):
            reviewgen.sweep("ngram-char", "no such file.csv", setting, values, **more)


ROWS = [SweepRow("2", 2.0, 2.5, 0.1, 0.1, 0.0), SweepRow("4", 1.0, 2.0, 0.2, 0.1, 0.5), SweepRow("8", None, None, 0.3, 0.1, None)]


def test_a_plot_is_a_picture_that_replaces_a_file_only_if_asked(tmp_path: Path) -> None:
    from matplotlib.image import imread

    def plot(name: str, rows: Any = ROWS, **options: Any) -> bytes:
        plot_sweep(rows, "model.order", "ngram-char", tmp_path / name, **options)
        return (tmp_path / name).read_bytes()

    before, pdf = plot("plot.png"), plot("plot.pdf")
    assert imread(tmp_path / "plot.png")[..., :3].std() > 0.02 and pdf.startswith(b"%PDF")
    with pytest.raises(OutputExists, match=r"plot\.png already exists"):
        plot("plot.png")
    assert (tmp_path / "plot.png").read_bytes() == before != plot("plot.png", ROWS[2:], overwrite=True)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return tmp_path / "reviews.txt"


def test_the_command_prints_the_table_and_draws_it(corpus: Path, monkeypatch: Any, capsys: Any) -> None:
    words = ("sweep", "ngram-char", "--data", corpus, "--set", "model.order=1, 12", "--set", "training.novelty=exact")
    words = (*words, "--set", "training.metrics=distinct-1,distinct-2")  # a list, which is not swept
    status, out, err = run_command(monkeypatch, capsys, *words, "--plot", corpus.with_suffix(".svg"))
    assert status == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["order", "train", "bits/char", "held-out", "bits/char", "MB", "seconds", "token", "copy", "rate"]
    rows = list(reviewgen.sweep("ngram-char", TEXTS, "model.order", [1, 12], {"training": {"novelty": "exact"}}))
    for line, row in zip(lines[1:], rows, strict=True):
        assert line[:3] == [f"{row.value}", f"{row.train_bits:.4f}", f"{row.held_out_bits:.4f}"]
        assert [line[3], line[5]] == [f"{row.megabytes:.2f}", f"{row.token_copy_rate:.1%}"]
    assert ElementTree.parse(corpus.with_suffix(".svg")).getroot().tag.endswith("svg")
    facts = json.loads(run_command(monkeypatch, capsys, *words, "--json")[1])
    for row, wanted in zip(facts["rows"], rows, strict=True):
        assert {**row, "seconds": 0} == pytest.approx({**wanted.as_json(), "value": str(wanted.value), "seconds": 0})
