"""Plain presets, ablations and parameters by kind: as settings written out by hand, single
trainings, and textbook formulas.
"""

import json
from itertools import chain
from typing import Any

import pytest
from torch import nn

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import ConfigError, UnknownPlugin
from reviewgen.evaluation.evaluate import evaluate_documents, sample_documents
from reviewgen.protocols import count_by_module
from reviewgen.registry.plugins import find_preset
from tests.support.fakes import TEXTS
from tests.support.trainings import MODEL, TRAINING, trained

DROPOUTS = (
    "dropout",
    "embedding_dropout",
    "output_dropout",
    "token_dropout",
    "weight_dropout",
    "zoneout",
    "ngram_dropout",
)
RECURRENT = {"ngrams": 1, "tied": False, "pointer": 0, "layer": "fused"} | dict.fromkeys(
    DROPOUTS, 0.0
)
RECURRENT["locked_dropout"] = False
OFF = {
    "weight_decay": 0.0,
    "warmup": 0.0,
    "averaging": 0.0,
    "calibration": False,
    "bptt_random": False,
    "sampled_softmax": 0,
}
WITHOUT = {"optimizer": "adamw", "precision": "no"} | OFF


@pytest.mark.parametrize(
    "preset, model",
    [
        ("lstm-char", RECURRENT),
        ("gru-word", RECURRENT),
        ("nnlm-word", {"activation": "tanh", "dropout": 0.0}),
        ("ngram-char", {"smoothing": "witten-bell"}),
    ],
)
def test_a_plain_preset_has_the_settings_without_techniques(preset, model):
    plain = TrainingRun(f"{preset}-plain", TEXTS, budget="9s").plan
    training = {} if preset == "ngram-char" else WITHOUT  # which counting does not use
    by_hand = TrainingRun(preset, TEXTS, model=model, training=training, budget="9s").plan
    assert plain.facts() == by_hand.facts() | {"preset": f"{preset}-plain"}
    assert plain.facts() != TrainingRun(preset, TEXTS, budget="9s").plan.facts() | {
        "preset": f"{preset}-plain"
    }
    sizes = plain.setup.sizes
    assert sizes is None or not [*sizes.by_epochs, *sizes.training_by_epochs]


def test_a_plain_lstm_has_the_parameters_of_the_textbook():
    model = reviewgen.train(
        "lstm-char-plain",
        TEXTS,
        steps=1,
        model={"hidden_size": 24, "embedding_size": 10},
        progress=False,
    )
    v = model.model.config.vocab_size
    e = 10
    h = 24
    wanted = {
        "embeddings": v * e,
        "recurrent layers": 4 * (h * e + h * h + 2 * h),
        "output layer": v * h + v,
    }
    assert model.training["parameters"] == wanted
    assert wanted["recurrent layers"] == sum(each.numel() for each in nn.LSTM(e, h).parameters())
    assert f"(recurrent layers {wanted['recurrent layers']:,}, " in model.bundle.card


def test_parameters_of_a_network_are_counted_by_kind():
    small = MODEL | {"ngrams": 3, "ngram_buckets": 50}
    network = reviewgen.train("rnn-char", TEXTS, steps=1, model=small, progress=False)
    assert network.training["parameters"]["n-gram vectors"] == 2 * 50 * 4


def test_parameters_of_an_n_gram_and_of_its_blends_are_counted_by_order():
    texts = ["abab", "ab"] * 20
    ngram = reviewgen.train(
        "ngram-char", texts, model={"order": 3}, validation=["ab"], progress=False
    )
    framed = [f"\1{text}\2" for text in texts]
    windows = set(chain.from_iterable(zip(t, t[1:], t[2:], strict=False) for t in framed))
    assert ngram.training["parameters"]["3-grams"] == len(windows)
    assert f"- Parameters: {sum(ngram.training['parameters'].values()):,} (" in ngram.bundle.card
    assert reviewgen.blend([ngram, ngram], [0.5, 0.5]).training["parameters"][
        "ngram 3-grams"
    ] == 2 * len(windows)


def test_parameters_of_other_networks_are_counted_by_module():
    assert count_by_module(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5))) == {"0": 9, "1": 20}


def bits_of(**options: Any) -> float:
    """Return the held-out bits per character of a training of its own."""
    run, _, model = trained("gru-word", steps=3, **options)
    documents = sample_documents(
        run.corpus.stores["test" if len(run.corpus.stores["test"]) else "validation"], 50_000
    )
    return evaluate_documents(model.model, documents, model.tokenizer.vocab_size).bits_per_character


def test_rows_are_single_trainings():
    fixed = {"model": MODEL, "training": TRAINING}
    rows = {
        row.name: row
        for row in reviewgen.ablate("gru-word", TEXTS, seeds=2, steps=3, settings=fixed)
    }
    used = [name for name, row in rows.items() if row.bits is not None]
    assert used == ["whole", "tied embeddings", "Muon", "weight decay", "warm-up", "plain"]
    changed: Any = {
        "Muon": {"training": {"optimizer": "adamw"}},
        "plain": {"model": RECURRENT, "training": WITHOUT},
    }
    for name, options in changed.items():
        runs = [bits_of(**options, seed=seed) for seed in (0, 1)]
        assert rows[name].bits == pytest.approx(sum(runs) / 2, rel=1e-6), name
    for row in (rows[name] for name in used[1:]):
        assert row.gain == pytest.approx(row.bits - rows["whole"].bits, abs=1e-9)
    assert rows["plain"].parameters["output layer"] > rows["whole"].parameters["output layer"]


def test_settings_that_are_set_are_not_taken_from_the_chosen_size():
    own: Any = {"model": {"ngrams": 1}, "training": {"weight_decay": 0.0}}
    setup = TrainingRun("lstm-char", TEXTS, budget="5s", **own).plan.setup
    size = {
        "model": {"hidden_size": 16, "ngrams": 3},
        "training": {"batch_size": 4, "weight_decay": 0.1},
    }
    assert setup.not_own(size) == {"model": {"hidden_size": 16}, "training": {"batch_size": 4}}


def test_what_has_no_plain_form_or_no_technique_is_refused():
    for name, error, words in (
        (
            "blend-char-plain",
            ConfigError,
            "blend of several models.*lstm-char-plain or mixing-char-plain",
        ),
        ("lstm-chat-plain", UnknownPlugin, "lstm-chat"),
        (
            "gru-char-plain-plain",
            UnknownPlugin,
            "no preset 'gru-char-plain-plain'.*Did you mean 'gru-char-plain'",
        ),
    ):
        with pytest.raises(error, match=words):
            find_preset(name)
    for preset, options, words in (
        ("blend-char", {}, "blend of several models"),
        (
            "ngram-char",
            {"settings": {"model": {"smoothing": "absolute"}}},
            "no technique left to ablate",
        ),
        ("rnn-char", {"settings": {"model": {"zoneout": 0.1}}}, "zoneout"),
        ("gru-char", {"seeds": 0}, "seeds"),
    ):
        with pytest.raises(ConfigError, match=words):
            reviewgen.ablate(preset, "no such file.csv", **options)


def test_the_command_prints_a_table_or_json(tmp_path, run_command):
    file = tmp_path / "reviews.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    words = ("ablate", "ngram-char", "--data", file, "--set", "model.order=3")
    status, out, err = run_command(*words)
    lines = [line.split() for line in out.splitlines()]
    assert status == 0 and [line[0] for line in lines[1:4]] == ["nothing", "Kneser-Ney", "all"], err
    rows = json.loads(run_command(*words, "--json")[1])["trials"]
    assert [f"{row['bits']:.4f}" for row in rows] == [lines[1][1], lines[2][2], lines[3][4]]
    assert (
        rows[1]["settings"] == {"model.smoothing": "witten-bell"}
        and rows[1]["bits"] != rows[0]["bits"]
    )
    # with the same seconds: it was trained once
    assert rows[2] == rows[1] | {"name": "plain", "description": ""}


def test_a_plain_model_is_trained_anew_only(tmp_path, run_command):
    file = tmp_path / "reviews.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    options = ("train", "--plain", "--data", file, "--out")
    train = ("ngram-char", "--set", "model.order=3", "--json")
    out = run_command(*options, tmp_path / "m", *train)[1]
    facts = json.loads(out)
    assert (
        facts["preset"] == "ngram-char-plain"
        and reviewgen.load(tmp_path / "m").model.config.smoothing == "witten-bell"
    )
    again = (*options, file, "--from", tmp_path / "m")
    status, _, err = run_command(*again)
    assert status == 2 and "--plain is for a new model" in err
