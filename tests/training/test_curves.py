"""Learning curves: what a run records, and their plots."""

import json
import math
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.image import imread

import reviewgen
from reviewgen.rates import describe_copies
from tests.support.models import EXAMPLES
from tests.support.trainings import prepared, trained

# What a run records.


@pytest.fixture(scope="module")
def finished() -> tuple[Any, Any, Any]:
    """A run of 37 steps, its reports and its record."""
    run = prepared(source=EXAMPLES, conditions=["stars"], steps=37, training={"evaluations": 20})
    reports = list(run)
    return run, reports, run.finish().training


def test_the_training_loss_of_an_evaluation_is_the_mean_since_the_one_before(finished):
    run, reports, facts = finished
    documents = list(run.corpus.stores["train"].documents())
    # bos and the condition are inputs only, eos is a target
    targets = sum(len(ids) - 2 for ids, _ in documents)
    characters = sum(length for _, length in documents)
    start = 0
    evaluated = [step for step, report in enumerate(reports, 1) if report.evaluation]
    assert len(evaluated) == len(facts["evaluations"]) == 18  # of 20: two are due at the same step
    for end, kept in zip(evaluated, facts["evaluations"], strict=True):
        losses = [report.nats_per_token or 0.0 for report in reports[start:end]]
        mean = math.fsum(losses) / len(losses)
        assert kept["train_nats_per_token"] == pytest.approx(mean, rel=1e-5)
        assert kept["train_bits_per_character"] == pytest.approx(
            mean / math.log(2) * targets / characters, rel=1e-5
        )
        assert (kept["step"], kept["tokens_seen"], kept["progress"]) == (
            end,
            reports[end - 1].tokens,
            pytest.approx(end / 37),
        )
        start = end


def test_the_curve_has_each_step(finished):
    _, reports, facts = finished
    curve = facts["curve"]
    assert curve["step"] == list(range(1, 38))
    assert curve["train_nats_per_token"] == pytest.approx(
        [report.nats_per_token for report in reports]
    )
    assert curve["learning_rate"] == [report.learning_rate for report in reports]


def test_a_long_run_is_thinned_to_means():
    run = prepared(
        steps=450,
        model={"hidden_size": 2, "embedding_size": 2},
        training={"batch_size": 1, "patience": 99},
    )
    losses = [report.nats_per_token or 0.0 for report in run]
    curve = run.finish().training["curve"]
    assert 200 <= len(curve["step"]) <= 202 and curve["step"][-1] == 450
    assert {len(column) for column in curve.values()} == {len(curve["step"])}
    for first, last, mean in zip(
        [0, *curve["step"]], curve["step"], curve["train_nats_per_token"], strict=False
    ):
        assert mean == pytest.approx(math.fsum(losses[first:last]) / (last - first), rel=1e-5)


# Plots.


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model_folder) -> Path:
    """A network, an n-gram, and one whose bits are infinite."""
    folder: Path = tmp_path_factory.mktemp("models")
    shutil.copytree(model_folder("ngram-char"), folder / "ngram")
    trained(steps=20, out=folder / "gru", training={"copy_tokens": 200, "evaluations": 4})
    trained("ngram-char", out=folder / "infinite", model={"order": 6, "smoothing": "none"})
    shutil.copytree(folder / "gru", folder / "_$x_$")
    return folder


# not those of earlier tests
@pytest.mark.filterwarnings("error::UserWarning", "error::DeprecationWarning")
def test_every_kind_of_run_can_be_drawn(saved, tmp_path):
    every = {
        "seconds": ["infinite"],
        "steps": ["gru"],
        "tokens": ["gru", "ngram", "_$x_$", "infinite"],
    }
    for against, names in every.items():
        file = tmp_path / f"{against}.png"
        assert len(
            reviewgen.plot_training([saved / name for name in names], file, against=against)
        ) == len(names)
        pixels = imread(file)
        assert min(pixels.shape[:2]) > 600 and pixels[..., :3].std() > 0.02
    for name in ("gru", "infinite", "_$x_$"):
        reviewgen.plot_training([saved / name], tmp_path / f"{name}.svg")
        assert ElementTree.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")


def test_the_command_names_the_plot_after_the_run(saved, tmp_path, monkeypatch, run_command):
    monkeypatch.chdir(tmp_path)
    status, out, err = run_command("plot", saved / "gru")
    facts = reviewgen.load(saved / "gru").training
    summary = f"{facts['verdict']['words']} Copy rate: {describe_copies(facts['novelty'])}."
    assert status == 0 and out == f"gru: {summary}\nSaved as gru.svg\n", err
    words = ("plot", saved / "gru", f"{saved / 'ngram'}/", "--json", "--against", "tokens")
    status, out, _ = run_command(*words)
    found = json.loads(out)
    assert (status, found["file"], found["against"]) == (0, "curves.svg", "tokens")
    assert [run["name"] for run in found["runs"]] == ["gru", "ngram"] and found["runs"][0][
        "curve"
    ] == facts["curve"]
    assert found["runs"][1]["curve"] == {}  # counting has no curve
    (tmp_path / "gru.png").write_bytes(b"a photograph")
    status, _, err = run_command("plot", saved / "gru", "--out", "gru.png", "--overwrite")
    assert status == 0 and (tmp_path / "gru.png").read_bytes().startswith(b"\x89PNG"), err
