"""A loss term of the model's own, and metrics, in two processes that a launcher has started: as in one with all their lanes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import reviewgen
from reviewgen.config import GenerationConfig
from reviewgen.generation import Generator, Request
from reviewgen.generation.model_stepper import make_stepper
from reviewgen.lexicon import words_of
from reviewgen.registry import plugins
from reviewgen.runs import TrainingRun
from reviewgen.training.evaluator import SAMPLE_TOKENS
from tests.support.fakes import TEXTS
from tests.support.launches import launch
from tests.unit.test_abilities import Gate, Smoothed, ZLoss

METRICS = ["distinct-1", "new-words"]
SETTINGS = {"bptt": 16, "threads": 1, "precision": "no", "evaluations": 4, "copy_tokens": 200, "metrics": METRICS}
MODELS: dict[str, type] = {"zloss": ZLoss, "smoothed": Smoothed}
STEPS = 12

SCRIPT = """if True:
    import json, os, sys
    import reviewgen
    from tests.unit.test_processes_of_abilities import MODELS, SETTINGS, train
    corpus, facts = sys.argv[1], {}
    for name, kind in MODELS.items():
        reviewgen.register_model(name, kind)
        facts[name] = train(name, corpus, out=name, batch_size=3)
    with open(f"facts.{os.environ['RANK']}.json", "w") as file:
        json.dump(facts, file)
"""


def train(name: str, corpus: str, out: Path | str, batch_size: int) -> dict[str, Any]:
    """Train, and return the losses of each step and the final weights."""
    run = TrainingRun(f"{name}-char", corpus, steps=STEPS, out=out, training=SETTINGS | {"batch_size": batch_size})
    run.read()
    run.tokenize()
    steps = [[report.nats_per_token, {key: float(value) for key, value in report.losses.items()}] for report in run]
    run.finish()
    evaluations = run._fit.record.curves.evaluations  # type: ignore[union-attr]
    measured = [[at["step"], at["metrics"], at["bits_per_character"]] for at in evaluations]
    weights = {key: tensor.tolist() for key, tensor in run.model.state_dict().items()}
    return {"steps": steps, "evaluations": measured, "weights": weights}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launched")
    (folder / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = launch(2, folder, "script.py", "reviews.txt", env={"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    return folder


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {})
    for name, kind in MODELS.items():
        reviewgen.register_model(name, kind)


@pytest.mark.parametrize(("name", "term"), [("zloss", "z"), ("smoothed", "cross_entropy")])
def test_own_terms_are_those_of_one_process(launched: Path, registered: None, name: str, term: str, tmp_path: Path) -> None:
    first, second = (read(launched, f"facts.{rank}.json")[name] for rank in "01")
    one = train(name, str(launched / "reviews.txt"), tmp_path / "one", batch_size=6)
    assert first == second and len(first["steps"]) == STEPS
    for (loss, terms), (expected, its_terms) in zip(first["steps"], one["steps"], strict=True):
        assert loss == pytest.approx(expected, abs=1e-4)
        assert terms == {term: pytest.approx(its_terms[term], abs=1e-4)}
    assert max(abs(terms[term] - loss) for loss, terms in first["steps"]) > 2e-3  # not the plain cross entropy
    for key, weights in one["weights"].items():
        torch.testing.assert_close(torch.tensor(first["weights"][key]), torch.tensor(weights), rtol=0, atol=1e-4)
    both, alone = read(launched / name, "training.json"), read(tmp_path / "one", "training.json")
    assert both["curve"][f"loss.{term}"] == pytest.approx(alone["curve"][f"loss.{term}"], abs=1e-4)
    for ours, theirs in zip(both["evaluations"], alone["evaluations"], strict=True):
        assert ours["step"] == theirs["step"]
        for key in (f"loss.{term}", "bits_per_character"):
            assert ours[key] == pytest.approx(theirs[key], abs=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_metrics_are_those_of_the_texts_of_the_saved_model(launched: Path, registered: None, name: str) -> None:
    first, second = (read(launched, f"facts.{rank}.json")[name] for rank in "01")
    record, model = read(launched / name, "training.json"), reviewgen.load(launched / name)
    assert first["evaluations"] == second["evaluations"]  # the second process has them from the first, which generates
    saved = [[at["step"], at["metrics"], at["bits_per_character"]] for at in record["evaluations"]]
    assert saved == first["evaluations"] and len(saved) >= 4
    for _, metrics, _ in saved:
        assert metrics.keys() == set(METRICS) and None not in metrics.values()
    rows = Generator(make_stepper(model.bundle.model), model.tokenizer).generate(
        Request([""] * 4, GenerationConfig(max_new_tokens=SAMPLE_TOKENS), seed=0, prefix=())
    )
    words = [word for row in rows for word in words_of(row.text)]
    known = {word.casefold() for text in TEXTS for word in words_of(text)}
    assert record["metrics"].keys() == set(METRICS)
    assert record["metrics"]["distinct-1"]["generated"] == pytest.approx(len({word.casefold() for word in words}) / len(words))
    assert record["metrics"]["new-words"]["generated"] == pytest.approx(
        sum(word.casefold() not in known for word in words) / len(words)
    )
    assert 0 < record["metrics"]["distinct-1"]["held_out"] <= 1 and record["metrics"]["new-words"]["held_out"] == 0


def test_without_its_term_a_model_becomes_another(launched: Path, registered: None, tmp_path: Path) -> None:
    """The comparison above would not hold for a term that is left out."""
    reviewgen.register_model("zloss", Gate)
    other = train("zloss", str(launched / "reviews.txt"), tmp_path / "other", batch_size=6)
    ours = read(launched, "facts.0.json")["zloss"]["weights"]["output.weight"]
    assert (torch.tensor(ours) - torch.tensor(other["weights"]["output.weight"])).abs().max() > 1e-3
    assert all(terms == {} for _, terms in other["steps"])
