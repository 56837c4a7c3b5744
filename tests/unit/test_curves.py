"""Learning curves: what a run records, and their plots."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from matplotlib.image import imread

import reviewgen
from reviewgen.errors import BundleError, ConfigError, OutputExists, ReviewgenError, StorageError
from reviewgen.pictures import draw_curves, learning
from reviewgen.runs import plot
from reviewgen.runs.curves import Curves, targets_per_character
from reviewgen.training import Report, StopReason
from tests.support.fakes import GRU, NGRAM, TEXTS, run_command, train_tiny

# What a run records.


def test_the_training_loss_of_an_evaluation_is_the_mean_since_the_one_before() -> None:
    run = reviewgen.TrainingRun("gru-char", TEXTS, steps=37, **GRU)
    run.read()
    run.tokenize()
    reports = list(run)
    facts = run.finish().training
    store = run.stores["train"]
    targets = sum(len(ids) - 1 for ids, _ in store.documents())  # bos is input only, eos is a target
    characters = sum(length for _, length in store.documents())
    start = 0
    evaluated = [step for step, report in enumerate(reports, 1) if report.evaluation]
    assert len(evaluated) == len(facts["evaluations"]) == 18  # of 20: two are due at the same step
    for end, kept in zip(evaluated, facts["evaluations"], strict=True):
        losses = [report.nats_per_token or 0.0 for report in reports[start:end]]
        mean = math.fsum(losses) / len(losses)
        assert kept["train_nats_per_token"] == pytest.approx(mean, rel=1e-5)
        assert kept["train_bits_per_character"] == pytest.approx(mean / math.log(2) * targets / characters, rel=1e-5)
        assert (kept["step"], kept["tokens_seen"], kept["progress"]) == (end, reports[end - 1].tokens, pytest.approx(end / 37))
        start = end
    curve = facts["curve"]
    assert curve["step"] == list(range(1, 38))
    assert curve["train_nats_per_token"] == pytest.approx([report.nats_per_token for report in reports])
    assert curve["learning_rate"] == [report.learning_rate for report in reports]


def test_conditions_are_not_targets() -> None:
    rows = [{"text": text, "stars": str(1 + index % 3)} for index, text in enumerate(TEXTS)]
    run = reviewgen.TrainingRun("ngram-char", rows, conditions=["stars"])
    run.read()
    run.tokenize()
    store = run.stores["train"]
    targets = sum(len(ids) - 2 for ids, _ in store.documents())
    assert targets_per_character(store, 1) == pytest.approx(targets / int(store.characters.sum()))


def report(step: int, steps: int, loss: float, **more: Any) -> Report:
    return Report(step, step / steps, 0.1 * step, 64 * step, loss=torch.tensor(loss), learning_rate=1e-3, **more)


def test_a_long_run_is_thinned_to_means_and_losses_are_converted_once_a_point(monkeypatch: Any) -> None:
    curves, losses, steps = Curves(1.0), [3.0 + (7 * step % 10) / 10 for step in range(5000)], 5000
    reads, plain = [], torch.Tensor.__float__
    monkeypatch.setattr(torch.Tensor, "__float__", lambda tensor: reads.append(1) or plain(tensor))
    for step, loss in enumerate(losses, 1):
        curves.add(report(step, steps, loss, sample="" if step % 500 == 0 else None))
    assert 200 <= len(curves.points) <= 202
    assert len(reads) == len(curves.points) + len(curves.evaluations)
    ends = [0, *(point["step"] for point in curves.points)]
    for first, last, point in zip(ends, ends[1:], curves.points, strict=False):
        assert point["train_nats_per_token"] == pytest.approx(sum(losses[first:last]) / (last - first), rel=1e-5)
    assert ends[-1] == steps
    facts = curves.facts("all steps taken", None)
    json.dumps(facts, allow_nan=False)
    assert {len(column) for column in facts["curve"].values()} == {len(curves.points)}


def test_a_loss_that_is_nan_stays_json() -> None:
    curves = Curves(1.0)
    assert curves.add(report(1, 9, 2.0)) is not None
    kept = curves.add(report(2, 9, math.nan, stopped=StopReason.DIVERGED))
    assert kept is not None and kept["train_nats_per_token"] is None and kept["train_bits_per_character"] is None


def test_a_model_trained_by_counting_has_evaluations_and_no_curve() -> None:
    facts = reviewgen.train("ngram-char", TEXTS, model={"order": 3}).training
    assert len(facts["evaluations"]) == 1 and facts["curve"] == {}
    assert facts["evaluations"][0]["train_nats_per_token"] is None


# Plots.


@pytest.fixture(scope="module")
def saved(tmp_path_factory: Any) -> Path:
    """Save a network, an n-gram, one whose bits are infinite, one whose scores are not a distribution, and a blend."""
    folder: Path = tmp_path_factory.mktemp("models")
    settings = {
        "gru": ("gru-char", GRU | {"steps": 30}),
        "_$x_$": ("gru-char", GRU | {"steps": 12}),
        "ngram": ("ngram-char", NGRAM),
        "infinite": ("ngram-char", {"model": {"order": 6, "smoothing": "none"}}),
        "scores": ("ngram-char", {"model": {"order": 3, "smoothing": "stupid-backoff"}, "training": {"novelty": "none"}}),
    }
    models = {name: train_tiny(preset, folder / "cache", **more) for name, (preset, more) in settings.items()}
    models["blend"] = reviewgen.blend([models["gru"], models["ngram"]])
    for name, model in models.items():
        model.save_pretrained(folder / name)
    (folder / "other").mkdir()
    models["gru"].save_pretrained(folder / "other" / "gru")
    return folder


SETS = [["gru"], ["ngram"], ["infinite"], ["scores"], ["_$x_$"], ["gru", "ngram", "_$x_$", "infinite", "scores", "other/gru"]]


@pytest.mark.parametrize("names", SETS, ids="+".join)
@pytest.mark.parametrize("against", ["seconds", "steps", "tokens"])
@pytest.mark.filterwarnings("error::UserWarning", "error::DeprecationWarning")  # not those of earlier tests
def test_every_kind_of_run_can_be_drawn(saved: Path, names: list[str], against: str, tmp_path: Path) -> None:
    file = tmp_path / "curves.png"
    drawn = reviewgen.plot_training([saved / name for name in names], file, against=against)
    assert len(drawn) == len(names)
    pixels = imread(file)
    assert min(pixels.shape[:2]) > 600 and pixels[..., :3].std() > 0.02


def test_what_is_drawn_is_what_was_recorded(saved: Path) -> None:
    """The lines of the figure have the values of training.json."""
    facts = json.loads((saved / "gru" / "training.json").read_text())
    figure = draw_curves([plot.read_curves(saved / "gru")], "steps")
    bits, copies, rates = figure.axes
    held_out, trained, ring = bits.lines
    steps = [each["step"] for each in facts["evaluations"]]
    assert list(held_out.get_xdata()) == steps
    assert list(held_out.get_ydata()) == [each["bits_per_character"] for each in facts["evaluations"]]
    assert list(trained.get_ydata()) == facts["curve"]["train_bits_per_character"]
    best = min(facts["evaluations"], key=lambda each: each["bits_per_character"])
    assert (*ring.get_xdata(), *ring.get_ydata()) == (best["step"], best["bits_per_character"])
    assert list(copies.lines[0].get_ydata()) == [each["token_copy_rate"] for each in facts["evaluations"]]
    assert set(copies.lines[1].get_ydata()) == {facts["novelty"]["held_out_token_copy_rate"]}
    assert list(rates.lines[0].get_ydata()) == facts["curve"]["learning_rate"]
    assert (rates.get_xlabel(), bits.get_ylabel()) == ("steps", "bits per character")
    low, high = bits.get_ylim()
    assert low < best["bits_per_character"] < high


def test_the_legend_tells_several_runs_apart(saved: Path) -> None:
    sources = [saved / "gru", saved / "other" / "gru", saved / "_$x_$"]
    curves = [plot.read_curves(source, name) for source, name in zip(sources, plot._names(sources), strict=True)]
    labels = [text.get_text() for text in draw_curves(curves, "seconds").legends[0].get_texts()]
    assert labels[0].startswith(str(saved / "gru")) and labels[1].startswith(str(saved / "other" / "gru"))
    assert labels[2].startswith(r" _\$x_\$: ")
    colors = {handle.get_color() for handle in learning._legend(curves)[:3]}
    assert len(colors) == 3


@pytest.mark.parametrize(("seconds", "unit"), [(100, "seconds"), (600, "minutes"), (9000, "hours")])
def test_time_is_in_a_readable_unit(saved: Path, seconds: float, unit: str) -> None:
    run = plot.read_curves(saved / "gru")
    run = replace(run, evaluations=[*run.evaluations[:-1], {**run.evaluations[-1], "seconds": seconds}])
    size = {"seconds": 1, "minutes": 60, "hours": 3600}[unit]
    bits, *_, rates = draw_curves([run], "seconds").axes
    assert rates.get_xlabel() == f"{unit} of training"
    assert bits.lines[0].get_xdata()[-1] == pytest.approx(seconds / size)


def test_svg_and_pdf(saved: Path, tmp_path: Path) -> None:
    for suffix in ("svg", "pdf"):
        reviewgen.plot_training([saved / "gru"], tmp_path / f"curves.{suffix}")
    assert ElementTree.parse(tmp_path / "curves.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")


def damaged(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Return a function that changes the training.json of a saved folder."""

    def apply(folder: Path) -> None:
        facts = json.loads((folder / "training.json").read_text())
        change(facts)
        (folder / "training.json").write_text(json.dumps(facts))

    return apply


DAMAGES = {
    "evaluations of words": (damaged(lambda f: f.update(evaluations=["a"])), "damaged"),
    "evaluations of a number": (damaged(lambda f: f.update(evaluations=3)), "damaged"),
    "a word for a number": (damaged(lambda f: f["evaluations"][0].update(step="x")), "damaged"),
    "a curve of a list": (damaged(lambda f: f.update(curve=[1])), "damaged"),
    "columns of two lengths": (damaged(lambda f: f["curve"]["step"].pop()), "damaged"),
    "a column missing": (damaged(lambda f: f["curve"].pop("seconds")), "damaged"),
    "a verdict of a word": (damaged(lambda f: f.update(verdict="good")), "damaged"),
    "a novelty of a list": (damaged(lambda f: f.update(novelty=[1])), "damaged"),
    "no evaluation": (damaged(lambda f: f.update(evaluations=[])), "before the first evaluation"),
    "no object": (lambda folder: (folder / "training.json").write_text("[]"), "should be a JSON object"),
    "no JSON": (lambda folder: (folder / "training.json").write_text("{"), "not JSON"),
    "no file": (lambda folder: (folder / "training.json").unlink(), "No such file"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "not a saved model"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_gets_one_sentence(saved: Path, name: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    reviewgen.load(saved / "gru").save_pretrained(tmp_path / "m")
    damage, said = DAMAGES[name]
    damage(tmp_path / "m")
    (tmp_path / "m" / "manifest.json").unlink()  # as of an earlier version; otherwise the change itself is the sentence
    status, out, err = run_command(monkeypatch, capsys, "plot", tmp_path / "m", "--out", tmp_path / "c.png")
    assert (status, out) == (1, "") and said in err and err.count("\n") == 1
    assert not (tmp_path / "c.png").exists()


def test_old_runs_without_curves_are_drawn_from_their_evaluations(saved: Path, tmp_path: Path) -> None:
    reviewgen.load(saved / "gru").save_pretrained(tmp_path / "m")
    damaged(lambda facts: (facts.pop("curve"), facts.pop("verdict")))(tmp_path / "m")
    (tmp_path / "m" / "manifest.json").unlink()  # old folders have none
    (drawn,) = reviewgen.plot_training([tmp_path / "m"], tmp_path / "c.png")
    assert drawn.verdict is None and (tmp_path / "c.png").exists()


REFUSED: list[tuple[Any, dict[str, Any], type[ReviewgenError], str]] = [
    ("gru", {}, ConfigError, "list"),
    ([], {}, ConfigError, "at least one"),
    (["gru"], {"against": "second"}, ConfigError, "'seconds'"),
    (["gru"], {"file": "c.xyz"}, ConfigError, "suffix"),
    (["gru"], {"file": "nowhere/c.png"}, StorageError, "not a writable folder"),
    (["gru"], {"file": "gru"}, ConfigError, "suffix"),
    (["gru", "blend"], {}, BundleError, "a blend is not trained"),
    (["gru", "nothing-here-at-all/x"], {}, ReviewgenError, "nothing-here-at-all"),
    (["./nothing"], {}, BundleError, "no such folder"),
]


@pytest.mark.parametrize(("sources", "options", "kind", "said"), REFUSED, ids=str)
def test_invalid_sources_and_options(
    saved: Path, sources: Any, options: dict[str, Any], kind: Any, said: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(saved)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = sorted(saved.iterdir())
    with pytest.raises(kind, match=said):
        reviewgen.plot_training(sources, **({"file": "c.png"} | options))
    assert sorted(saved.iterdir()) == before


# The command.


def test_the_command_names_the_plot_after_the_run(saved: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run_command(monkeypatch, capsys, "plot", saved / "gru")
    assert status == 0, err
    verdict = json.loads((saved / "gru" / "training.json").read_text())["verdict"]["words"]
    assert out == f"gru: {verdict}\nSaved as gru.png\n"
    status, out, _ = run_command(
        monkeypatch, capsys, "plot", saved / "gru", f"{saved / 'ngram'}/", "--json", "--against", "tokens"
    )
    found = json.loads(out)
    assert (status, found["file"], found["against"]) == (0, "curves.png", "tokens")
    assert [run["name"] for run in found["runs"]] == ["gru", "ngram"]
    assert found["runs"][0]["curve"] == json.loads((saved / "gru" / "training.json").read_text())["curve"]
    assert sorted(file.name for file in tmp_path.glob("*.png")) == ["curves.png", "gru.png"]


def test_a_plot_is_replaced_only_with_overwrite(saved: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    file = tmp_path / "gru.png"
    file.write_bytes(b"a photograph")
    status, _, err = run_command(monkeypatch, capsys, "plot", saved / "gru", "--out", file)
    assert status == 1 and "--overwrite" in err and err.count("\n") == 1
    with pytest.raises(OutputExists):
        reviewgen.plot_training([saved / "gru"], file)
    assert file.read_bytes() == b"a photograph"
    status, _, err = run_command(monkeypatch, capsys, "plot", saved / "gru", "--out", file, "--overwrite")
    assert status == 0 and file.read_bytes().startswith(b"\x89PNG"), err


def test_a_training_prints_its_verdict(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    words = ("train", "gru-char", "--data", tmp_path / "reviews.txt", "--steps", 5, "--set", "model.hidden_size=8", "--out")
    status, out, err = run_command(monkeypatch, capsys, *words, tmp_path / "m")
    assert status == 0, err
    assert json.loads((tmp_path / "m" / "training.json").read_text())["verdict"]["words"] in out.splitlines()
