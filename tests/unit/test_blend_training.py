"""Presets of several models: one training makes an LSTM and an n-gram on the same tokens and fits the weights of their blend."""

import itertools
import json
import math
import os
import subprocess
import sys

import pytest

import reviewgen
from reviewgen import TrainingRun
from reviewgen.config import Preset
from reviewgen.errors import ConfigError, NotADistribution, TrainingError
from reviewgen.registry import find_preset
from reviewgen.runs import parts
from reviewgen.training import checkpoints
from tests.support.fakes import run_command
from tests.support.forked import run_group
from tests.unit.test_blend import CORPUS, ENDS, OTHERS

TRAINING = {"batch_size": 16, "learning_rate": 0.02, "evaluations": 3, "copy_tokens": 0, "threads": 1, "precision": "no"}
LSTM = {"hidden_size": 64, "embedding_size": 16, "ngrams": 2, "layer": "fused"}  # else it would know the names as well
NGRAM = {"order": 5}
SHORT = {"model": LSTM | NGRAM, "training": TRAINING, "steps": 125}

FRESH = """
import sys, reviewgen
from tests.unit.test_blend import OTHERS
model = reviewgen.load(sys.argv[1])
print(model.preset, model.evaluate(OTHERS).bits_per_character.hex(), model.generate_one("A+ the ", seed=1))
"""

TOGETHER = """
import hashlib, json, sys, reviewgen
from tests.unit.test_blend import CORPUS
from tests.unit.test_blend_training import SHORT
options = SHORT | {"steps": None, sys.argv[2]: float(sys.argv[3]) if sys.argv[2] == "budget" else int(sys.argv[3])}
model = reviewgen.train("blend-char", CORPUS[:100], **options, out=sys.argv[1])
tensors = b"".join(tensor.contiguous().numpy().tobytes() for tensor in model.model.state_dict().values())
facts = {"weights": model.model.config.weights, "tensors": hashlib.sha256(tensors).hexdigest()}
print(json.dumps(facts | {"bits": model.training["held_out"]["bits_per_character"]}))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch, cache):
    monkeypatch.setenv("REVIEWGEN_CACHE", str(cache))
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)  # small models have checkpoints every few steps


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    """A trained blend, its reports and its saved folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REVIEWGEN_CACHE", str(cache))
        run = started(out=tmp_path_factory.mktemp("models") / "blend")
        reports = list(run)
        return run.finish(), reports, run.out


def started(source=CORPUS, **given):
    run = TrainingRun("blend-char", source, **(SHORT | given))
    run.read()
    run.tokenize()
    return run


def test_it_is_the_blend_of_its_models_trained_one_by_one(trained):
    blend = trained[0]
    ngram = reviewgen.train("ngram-char", CORPUS, model=NGRAM, training=TRAINING)
    lstm = reviewgen.train("lstm-char", CORPUS, model=LSTM, training=TRAINING, steps=125)
    by_hand = reviewgen.blend([ngram, lstm], data=CORPUS, split="validation")
    assert blend.model.config.weights == pytest.approx(by_hand.model.config.weights, abs=1e-4)
    bits = [model.evaluate(OTHERS).bits_per_character for model in (blend, by_hand, ngram, lstm)]
    assert bits[0] == pytest.approx(bits[1], abs=1e-5)
    assert bits[0] < min(bits[2:]) - 0.01, bits
    alone = [part["held_out"]["bits_per_character"] for part in blend.training["parts"]]
    assert alone == pytest.approx([model.training["held_out"]["bits_per_character"] for model in (ngram, lstm)], abs=1e-5)
    assert blend.training["held_out"]["split"] == "test" and blend.training["held_out"]["bits_per_character"] < min(alone)


def test_the_reports_name_the_model_that_is_trained_and_end_with_the_blend(trained):
    _, reports, _ = trained
    names = [name for name, _ in itertools.groupby(report.part for report in reports)]
    assert names == ["ngram-char", "lstm-char", "blend-char"]
    assert [report.stopped for report in reports if report.stopped] == ["all steps taken"] and reports[-1].stopped
    of_lstm = [report for report in reports if report.part == "lstm-char"]
    assert [report.step for report in of_lstm] == list(range(1, 126)) and of_lstm[-1].progress == 1
    assert sum(report.evaluation is not None for report in of_lstm) == 3
    last = reports[-1]
    assert last.evaluation.bits_per_character < of_lstm[-1].evaluation.bits_per_character and last.sample
    assert "held-out tokens: ngram-char 0." in last.notes[-1] and "lstm-char 0." in last.notes[-1]
    notes = [note for report in reports for note in report.notes]
    assert len(notes) == len(set(notes))


def test_the_folder_records_both_models_and_is_a_blend_like_any_other(trained):
    blend, _, folder = trained
    training = json.loads((folder / "training.json").read_text())
    assert training == json.loads(json.dumps(blend.training))
    assert (training["preset"], training["steps"], training["seed"]) == ("blend-char", 125, 0)
    assert [part["preset"] for part in training["parts"]] == ["ngram-char", "lstm-char"]
    assert [len(part["evaluations"]) for part in training["parts"]] == [1, 3]
    assert training["parts"][1]["curve"]["step"][-1] == 125 and training["verdict"]["words"]
    assert training["weights"]["split"] == "validation" and len(training["evaluations"]) == 1
    assert training["evaluations"][0]["bits_per_character"] == pytest.approx(
        training["weights"]["bits_per_character"]["fitted_weights"], abs=1e-4
    )
    assert not (folder.parent / "blend.run").exists()
    card = (folder / "README.md").read_text()
    assert "# blend-char" in card and "- lstm-char: weight 0." in card
    assert blend.generation_config.max_new_tokens == find_preset("lstm-char").generation_settings["max_new_tokens"]
    done = subprocess.run([sys.executable, "-c", FRESH, folder], capture_output=True, text=True, check=True)
    expected = "blend-char", blend.evaluate(OTHERS).bits_per_character.hex(), blend.generate_one("A+ the ", seed=1)
    assert done.stdout.strip() == " ".join(expected)


def test_a_resumed_run_gives_the_same_model(trained, tmp_path):
    frequent = {"training": TRAINING | {"checkpoint_seconds": 1e-9}}
    run = started(out=tmp_path / "m", **frequent)
    for report in run:
        if (report.part, report.step) == ("lstm-char", 40):
            break
    run._run_folder.checkpoints.close()  # as a dead process would leave it
    run = started(out=tmp_path / "m", resume=True, **frequent)
    reports = list(run)
    assert [report.step for report in reports if report.part == "lstm-char"] == list(range(40, 126))
    assert any("resumes from step 39" in note for report in reports for note in report.notes)
    again, blend = run.finish(), trained[0]
    assert again.model.config == blend.model.config
    assert again.evaluate(OTHERS) == blend.evaluate(OTHERS)
    evaluations = [[each["bits_per_character"] for each in model.training["parts"][1]["evaluations"]] for model in (again, blend)]
    assert evaluations[0] == evaluations[1]


@pytest.mark.parametrize(("length", "amount"), [("steps", "40"), ("budget", "12")])
def test_two_processes_end_with_the_same_blend(length, amount, tmp_path):
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    group = run_group(["-c", TOGETHER, "blend", length, amount], 2, cwd=tmp_path, env=env)
    assert [done.returncode for done in group] == [0, 0], [done.stderr for done in group]
    one, other = (json.loads(done.stdout) for done in group)
    assert one == other and all(0 < weight < 1 for weight in one["weights"])
    saved = reviewgen.load(tmp_path / "blend")
    assert list(saved.model.config.weights) == one["weights"]
    assert saved.training["held_out"]["bits_per_character"] == one["bits"]


def test_an_interrupt_keeps_the_best_so_far(tmp_path):
    run = started(out=tmp_path / "m")
    for report in run:
        if report.part == "lstm-char" and report.step == 50:
            run.interrupt()
            break
    model = run.finish()
    assert model.training["stopped"] == "interrupted" and model.training["held_out"] is None
    assert all(0 < weight < 1 for weight in model.model.config.weights)
    assert reviewgen.load(tmp_path / "m").evaluate(OTHERS) == model.evaluate(OTHERS)


def test_an_interrupt_before_the_lstm_has_taken_a_step_is_a_sentence(tmp_path):
    run = started(out=tmp_path / "m")
    assert next(iter(run)).part == "ngram-char"
    run.interrupt()
    with pytest.raises(TrainingError, match=r"over before the first step of lstm-char; nothing was saved"):
        run.finish()
    with pytest.raises(TrainingError, match="no record of blend-char yet"):
        run.facts()
    with pytest.raises(TrainingError, match="no blend-char yet: iterate over the run"):
        run.model  # noqa: B018  reading it raises
    assert not (tmp_path / "m").exists()


def test_a_time_budget_covers_both_models_and_the_weights():
    blend = reviewgen.train("blend-char", CORPUS, training=TRAINING, model=NGRAM, budget="15s")
    assert blend.training["budget_seconds"] == 15 and blend.training["stopped"]
    assert any("Chosen for the" in note for note in blend.training["notes"])  # the size of the LSTM
    assert blend.training["seconds"] < 1.2 * 15
    assert 0 < blend.training["evaluation_seconds"] < 0.5 * 15  # compiling counts on the first use


def test_conditions_reach_both_models():
    rows = [{"text": f"{ENDS[text[:2]]}, said {text[15:28]}", "mark": text[:2]} for text in CORPUS]
    blend = reviewgen.train("blend-char", rows, conditions=["mark"], **SHORT)
    assert blend.conditions.names == ("mark",)
    right, wrong = (blend.score(rows[0]["text"], conditions={"mark": mark}).bits for mark in (rows[0]["mark"], "A+"))
    assert rows[0]["mark"] == "D-" and right < wrong - 5
    assert all(part["held_out"]["bits_per_character"] < 2 for part in blend.training["parts"])


def test_words_and_settings_go_where_they_belong():
    settings = {"order": "3", "hidden_size": "20", "embedding_size": "10"}
    training = {"batch_size": "8", "evaluations": "1"}
    blend = reviewgen.train("blend-word", CORPUS, steps=2, model=settings, tokenizer={"vocab_size": "300"}, training=training)
    ngram, lstm = (part["config"] for part in blend.model.config.models)
    assert (ngram["order"], lstm["hidden_size"], lstm["embedding_size"]) == (3, 20, 10)
    assert ngram["vocab_size"] == lstm["vocab_size"] == blend.tokenizer.vocab_size <= 300
    assert blend.training["config"]["batch_size"] == 8
    assert blend.training["config"]["learning_rate"] == find_preset("lstm-word").training_settings["learning_rate"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hiden_size": 3}, r"'hiden_size' is not a setting of lstm-char and ngram-char\. Did you mean 'hidden_size'"),
        ({"vocab_size": 3}, "model.vocab_size is the tokenizer's"),
        ({"order": 0}, "order"),
    ],
)
def test_settings_that_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        TrainingRun("blend-char", CORPUS, model=settings)


PRESETS = {
    "blend-one": Preset(model="blend", tokenizer="char", parts=("lstm-char",)),
    "blend-twice": Preset(model="blend", tokenizer="char", parts=("lstm-char", "blend-char")),
    "blend-mixed": Preset(model="blend", tokenizer="char", parts=("lstm-char", "ngram-word")),
    "blend-gradients": Preset(model="blend", tokenizer="char", parts=("lstm-char", "gru-char")),
    "blend-counts": Preset(model="blend", tokenizer="char", parts=("ngram-char", "lstm-char")),
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("blend-one", "names fewer than two"),
        ("blend-twice", "blend-char is a blend itself"),
        ("blend-mixed", "ngram-word has another tokenizer"),
        ("blend-gradients", "the first model of a blend is trained by gradient, the others by counting"),
        ("blend-counts", "the first model of a blend is trained by gradient, the others by counting"),
    ],
)
def test_presets_that_cannot_be_trained(monkeypatch, name, words):
    monkeypatch.setattr(parts, "find_preset", lambda each: PRESETS.get(each) or find_preset(each))
    with pytest.raises(ConfigError, match=f"The preset '{name}' cannot be trained: .*{words}"):
        TrainingRun(name, CORPUS)


def test_a_setting_that_several_models_have_is_refused(monkeypatch):
    monkeypatch.setattr(parts, "fields_of", lambda config: {"order": int})
    with pytest.raises(ConfigError, match=r"model\.order is a setting of lstm-char and of ngram-char: train them separately"):
        TrainingRun("blend-char", CORPUS, model={"order": 3})


def test_scores_that_are_no_probabilities_are_refused_before_the_lstm_is_trained():
    run = started(model=LSTM | NGRAM | {"smoothing": "stupid-backoff"})
    with pytest.raises(NotADistribution, match=r"scores of ngram-char .* cannot be part of a blend"):
        for report in run:
            assert report.part == "ngram-char"


def test_what_takes_a_single_model_says_so(trained):
    with pytest.raises(ConfigError, match="blend-char is a blend of several models: give one of them, ngram-char or lstm-char"):
        reviewgen.sweep("blend-char", CORPUS, "model.order", [2, 3])
    with pytest.raises(ConfigError, match="blend-char is a blend of several models"):
        reviewgen.tune("blend-char", CORPUS)
    with pytest.raises(ConfigError, match="is a blend, which has no weights of its own to train"):
        reviewgen.train(trained[0], CORPUS)


def test_the_command_line(monkeypatch, capsys, tmp_path):
    file = tmp_path / "reviews.txt"
    file.write_text("\n".join(CORPUS))
    settings = [f"--set=model.{name}={value}" for name, value in (LSTM | NGRAM).items()]
    settings += [f"--set=training.{name}={value}" for name, value in TRAINING.items()]
    command = ["train", "blend-char", "--data", str(file), "--steps", "30", *settings, "--out"]
    status, out, err = run_command(monkeypatch, capsys, *command, str(tmp_path / "m"))
    assert status == 0, err
    assert "ngram-char, step 361: " in err and "lstm-char, step 30: " in err and "blend-char, step 30: " in err
    assert "Its models alone: ngram-char 0." in out and "Held out (test split" in out
    status, out, _ = run_command(monkeypatch, capsys, *command, str(tmp_path / "n"), "--json")
    assert status == 0 and [part["preset"] for part in json.loads(out)["parts"]] == ["ngram-char", "lstm-char"]


def test_its_picture_has_the_curves_of_its_models(trained, tmp_path):
    pytest.importorskip("matplotlib")
    (curves,) = reviewgen.plot_training([trained[2]], tmp_path / "curves.png")
    ngram, lstm = curves.parts
    assert (curves.preset, ngram.name, lstm.name) == ("blend-char", "ngram-char", "lstm-char")
    assert len(lstm.evaluations) == 3 and lstm.curve["step"][-1] == 125
    assert all(math.isnan(value) for value in ngram.column("step"))  # texts, not steps: it is drawn as a line
    assert curves.column("bits_per_character")[0] < min(ngram.column("bits_per_character") + lstm.column("bits_per_character"))
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_the_settings_of_both_models_are_listed(monkeypatch, capsys):
    facts = json.loads(run_command(monkeypatch, capsys, "settings", "blend-char", "--json")[1])
    assert {"order", "hidden_size"} <= {row["name"] for row in facts["model"]}
    assert {row["model"] for row in facts["model"]} == {"lstm", "ngram"}
    assert (
        facts["sizes"]
        and facts["training"] == json.loads(run_command(monkeypatch, capsys, "settings", "lstm-char", "--json")[1])["training"]
    )
    out = run_command(monkeypatch, capsys, "settings", "blend-char")[1]
    assert "model (lstm)" in out and "model (ngram)" in out and "tokenizer (char)" in out
