"""Training a trained model further: what it keeps, what it gains, what is recorded, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen import TrainingRun
from reviewgen.conditions import Conditions
from reviewgen.data import digest_tokenizer, trained_on
from reviewgen.errors import BundleError, ConfigError, DataError, OutputExists, UnknownPlugin
from reviewgen.evaluation import Evaluation, evaluate_documents, sample_documents
from reviewgen.runs.parts import resolve_parts
from reviewgen.runs.record import parent_facts
from reviewgen.training.config import StopReason
from reviewgen.training.evaluator import Evaluator
from tests.support.fakes import TEXTS, run_command, train_tiny

NEW = [f"a {adjective} {noun}, and so was the {other}!" for adjective in ("warm", "loud", "dim", "fine", "sharp")
       for noun in ("song", "voice", "drum", "bass") for other in ("band", "room", "crowd")]  # fmt: skip
TRAINING = {"batch_size": 4, "bptt": 16, "threads": 1, "precision": "no", "evaluations": 1, "copy_tokens": 0}
SMALL = {
    "model": {"hidden_size": 32, "embedding_size": 12, "output_dropout": 0.2, "layer": "fused"},
    "training": TRAINING,
}
WITH_COLUMNS = [{"text": text, "stars": 1 + number % 2} for number, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """A folder of trained models: a gru with generation defaults of its own, one with conditions, an n-gram and a blend."""
    root: Path = tmp_path_factory.mktemp("further")
    train_tiny("gru-char", root / "cache", out=root / "gru", **(SMALL | {"steps": 80}))
    train_tiny("gru-char", root / "cache", WITH_COLUMNS, out=root / "stars", conditions=["stars"], **(SMALL | {"steps": 60}))
    train_tiny("ngram-char", root / "cache", out=root / "ngram")
    reviewgen.blend([str(root / "gru"), str(root / "ngram")]).save_pretrained(root / "blend")
    return root


@pytest.fixture
def gru(folder: Path) -> reviewgen.ReviewModel:
    return reviewgen.load(folder / "gru")


def further(start: Any, source: Any = NEW, **options: Any) -> tuple[TrainingRun, reviewgen.ReviewModel]:
    """Return a finished run that trains a model further, and its model."""
    run = TrainingRun(start, source, **({"steps": 20, "training": TRAINING} | options))
    run.read()
    run.tokenize()
    assert list(run)
    return run, run.finish()


def bits(run: TrainingRun, model: reviewgen.ReviewModel) -> float:
    """Return the bits per character of a model on the held-out texts of a run."""
    documents = sample_documents(run.stores["validation"], 50_000)
    return evaluate_documents(
        model.bundle.model, documents, model.tokenizer.vocab_size, given=len(model.conditions)
    ).bits_per_character


def test_it_beats_training_from_scratch_in_the_same_steps(gru: reviewgen.ReviewModel) -> None:
    similar = [f"The {noun} was {kind} and the {other} was {kind} too." for noun in ("soup", "show", "play", "wine")
               for other in ("cook", "crowd", "end") for kind in ("fine", "dim", "sharp", "warm", "loud")]  # fmt: skip
    run, tuned = further(gru, similar)
    scratch, fresh = further("gru-char", similar, model=SMALL["model"])
    assert run.corpus.fingerprint == scratch.corpus.fingerprint
    assert bits(run, tuned) < bits(run, gru) - 0.3
    assert bits(run, tuned) < bits(scratch, fresh) - 0.3


def test_a_rate_that_first_leaves_the_start_does_not_end_the_run(gru: reviewgen.ReviewModel, monkeypatch: Any) -> None:
    scripted = iter([1.50, 1.58, 1.57, 1.56, 1.55, 1.54, 1.53, 1.52, 1.51, 1.49])
    seen = []

    def score(*_: Any) -> Evaluation:
        seen.append(next(scripted))
        return Evaluation(seen[-1], seen[-1] * math.log(2), 2.0, 1, 1, 1, 0)

    monkeypatch.setattr(Evaluator, "_score", score)
    _, tuned = further(gru, steps=100, training=TRAINING | {"evaluations": 10, "patience": 2, "warmup": 0.05})
    assert tuned.training["stopped"] == StopReason.ALL_STEPS_TAKEN and tuned.training["steps"] == 100
    assert len(seen) == 10


def test_equal_seeds_give_equal_models_and_the_trained_one_stays_as_it_is(gru: reviewgen.ReviewModel) -> None:
    before = {name: tensor.clone() for name, tensor in gru.bundle.model.state_dict().items()}
    tuned = [further(gru, seed=seed)[1].model.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(tuned[0][name], tuned[1][name]) for name in before)
    assert not all(torch.equal(tuned[0][name], tuned[2][name]) for name in before)
    assert all(torch.equal(before[name], tensor) for name, tensor in gru.bundle.model.state_dict().items())
    assert not any(torch.equal(before[name], tuned[0][name]) for name in before)


def test_it_begins_with_the_trained_weights(gru: reviewgen.ReviewModel) -> None:
    run = TrainingRun(gru, NEW, steps=1, training=TRAINING | {"learning_rate": 1e-12})
    run.read()
    run.tokenize()
    for name, tensor in gru.bundle.model.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], tensor)
    assert next(iter(run)).nats_per_token == pytest.approx(run.facts()["parent"]["bits_per_character"] * np.log(2), rel=0.3)
    assert run.facts()["parent"]["bits_per_character"] == pytest.approx(bits(run, gru))


def test_tokenizer_settings_and_defaults_are_kept(gru: reviewgen.ReviewModel, tmp_path: Path) -> None:
    run, tuned = further(gru, NEW + ["ÿ новый 😀 text", "日本語"] * 3, out=tmp_path / "tuned")
    assert digest_tokenizer(tuned.tokenizer) == digest_tokenizer(gru.tokenizer)
    assert tuned.bundle.model.config == gru.bundle.model.config
    assert (tuned.generation_config, tuned.preset) == (gru.generation_config, "gru-char")
    assert "😀" in "".join(tuned.tokenizer.decode(list(run.stores["train"].document(n))) for n in range(len(run.stores["train"])))
    again = reviewgen.load(tmp_path / "tuned")
    assert again.generate_one("a 😀 ", seed=3, max_new_tokens=20) == tuned.generate_one("a 😀 ", seed=3, max_new_tokens=20)
    assert again.novelty(NEW[0]).longest_tokens > 20
    assert again.score("日本語").bits > 0


def test_the_cache_tells_tokenizers_of_equal_settings_apart(gru: reviewgen.ReviewModel) -> None:
    """One corpus with a tokenizer of its own, with that of one model and with that of another: three sets of ids."""
    other = further("gru-char", ["zyx wvu " + text for text in NEW], model=SMALL["model"])[1]
    for model in (gru, other, gru):
        run, _ = further(model)
        for number in range(3):
            ids = run.stores["train"].document(number)
            assert model.tokenizer.encode(model.tokenizer.decode(list(ids[1:-1]))) == list(ids[1:-1])
    own = further("gru-char", model=SMALL["model"])[0]
    assert own.tokenizer.vocab_size != gru.tokenizer.vocab_size


def test_parents_are_recorded_and_nested(gru: reviewgen.ReviewModel, folder: Path, tmp_path: Path) -> None:
    further(gru, out=tmp_path / "child")
    child = reviewgen.load(tmp_path / "child")
    grandchild = further(child, TEXTS + NEW)[1].training
    parent = grandchild["parent"]
    assert (parent["source"], parent["digest"]) == (str(tmp_path / "child"), child.digest)
    assert parent["digest"].startswith("sha256:")
    assert parent["parent"]["digest"] == gru.digest
    assert parent["parent"]["source"] == str(folder / "gru")
    assert "parent" not in parent["parent"]
    prints = [data["fingerprint"] for data in trained_on(grandchild)]
    assert prints == [
        grandchild["data"]["fingerprint"],
        child.training["data"]["fingerprint"],
        gru.training["data"]["fingerprint"],
    ]
    assert grandchild["novelty"]["corpus"] == prints[0]
    assert len(set(prints)) == 3
    card = (tmp_path / "child" / "README.md").read_text(encoding="utf-8")
    assert (
        "trained further with reviewgen" in card
        and str(gru.digest) in card
        and "Only the texts of the last training are covered" in card
    )
    assert "from scratch" in (folder / "gru" / "README.md").read_text(encoding="utf-8")


def test_a_model_that_was_never_saved_can_be_trained_further() -> None:
    fresh = further("gru-char", TEXTS, model=SMALL["model"])[1]
    run, _ = further(fresh)
    assert run.facts()["parent"]["digest"] is None and run.facts()["parent"]["preset"] == "gru-char"


def test_an_index_of_another_lineage_is_refused(gru: reviewgen.ReviewModel, tmp_path: Path) -> None:
    """The tokens of one corpus under two tokenizers of equal settings are different tokens."""
    further(gru, out=tmp_path / "tuned")
    further("gru-char", model=SMALL["model"], out=tmp_path / "fresh")
    (tmp_path / "fresh" / "novelty.safetensors").replace(tmp_path / "tuned" / "novelty.safetensors")
    with pytest.raises(BundleError, match="another model"):
        reviewgen.load(tmp_path / "tuned")


def test_the_learning_rate_is_half_of_the_preset_s_unless_it_is_set(gru: reviewgen.ReviewModel) -> None:
    assert TrainingRun(gru, NEW).config.learning_rate == pytest.approx(TrainingRun("gru-char", NEW).config.learning_rate / 2)
    assert TrainingRun(gru, NEW, training={"learning_rate": "0.001"}).config.learning_rate == 0.001
    run, tuned = further(gru)
    assert any("further" in note and "bits per character" in note for note in tuned.training["notes"])
    assert run.config.batch_size == 4


def test_settings_that_leave_predictions_alone_may_change(gru: reviewgen.ReviewModel) -> None:
    dropped = {"output_dropout": "0.5", "embedding_dropout": 0.1, "layer": "reference", "hidden_size": 32}
    tuned = further(gru, model=dropped)[1]
    config = tuned.bundle.model.config
    assert (config.output_dropout, config.embedding_dropout, config.layer) == (0.5, 0.1, "reference")
    assert (gru.bundle.model.config.output_dropout, gru.bundle.model.config.layer) == (0.2, "fused")


REFUSED = [
    ({"model": {"hidden_size": 64}}, r"model\.hidden_size=64.*weight_ih_l0 would be 192 x 12, and is 96 x 12"),
    ({"model": {"tied": True}}, "output.weight would be missing|projection"),
    ({"model": {"layers": 2, "output_dropout": 0.1}}, r"model\.layers=2, model\.output_dropout=0\.1"),
    ({"model": {"layer": "reference", "activation": "relu"}}, "predict something else"),
    ({"model": {"hidden_size": 1 << 60}}, "would be|Storage|overflow|large"),
    ({"model": {"hiden_size": 3}}, "hidden_size"),
    ({"model": {"vocab_size": 3}}, "tokenizer"),
    ({"tokenizer": {"vocab_size": 77}}, "'vocab_size' is not a setting here"),
    ({"conditions": ["stars"]}, "'stars' cannot be"),
    ({"training": {"learning_rate": -1}}, "learning_rate"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=str)
def test_what_does_not_go_with_the_weights_is_refused_before_any_work(
    options: dict[str, Any], said: str, gru: reviewgen.ReviewModel
) -> None:
    with pytest.raises(ConfigError, match=said):
        TrainingRun(gru, "no such file.csv", **options)


def test_another_tokenizer_is_refused_and_the_same_is_not() -> None:
    small = {"hidden_size": 8, "embedding_size": 4, "tied": False}
    words = further("gru-word", TEXTS, model=small, tokenizer={"vocab_size": 300})[1]
    with pytest.raises(ConfigError, match=r"keeps its tokenizer, of vocab_size=300, so tokenizer.vocab_size cannot be 400"):
        TrainingRun(words, NEW, tokenizer={"vocab_size": "400"})
    assert further(words, tokenizer={"vocab_size": 300})[1].tokenizer.vocab_size == words.tokenizer.vocab_size


def test_models_that_learn_nothing_more_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no count can be added.*reviewgen blend"):
        reviewgen.train(reviewgen.load(folder / "ngram"), NEW)
    with pytest.raises(ConfigError, match=r"blend.*one of its models"):
        reviewgen.train(reviewgen.load(folder / "blend"), NEW)


@pytest.mark.parametrize("start", [Path("gru"), "gru", "./gru", 7, None])
def test_a_folder_is_no_preset(start: Any, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=r"not the name of a preset.*--from"):
        resolve_parts(start)


def test_bad_corpora_are_refused(gru: reviewgen.ReviewModel) -> None:
    for source, said in (([], "holds no texts"), (["", "  "], "No reviews are left"), (["one"], "single review")):
        with pytest.raises(DataError, match=said):
            reviewgen.train(gru, source, steps=1)


# Conditions.


def test_conditions_are_kept(folder: Path) -> None:
    starred = reviewgen.load(folder / "stars")
    rows = [{"text": text, "stars": 2 + number % 2} for number, text in enumerate(NEW)]  # 3 is new
    run, tuned = further(starred, rows)
    assert tuned.conditions == starred.conditions == Conditions(starred.conditions.conditions, starred.tokenizer.vocab_size)
    assert any("do not know" in note or "does not know" in note for note in run.notes)
    assert run.stores["train"].conditions is not None
    two, any_id = starred.conditions.encode({"stars": 2}), starred.conditions.unspecified_ids
    assert {tuple(row) for row in run.stores["validation"].conditions} <= {tuple(two), tuple(any_id)}
    assert tuned.generate_one(conditions={"stars": 1}, seed=1) is not None
    run, _ = further(starred, NEW)
    assert {tuple(row) for row in run.stores["train"].conditions} == {tuple(any_id)}
    assert any("counts as not given" in note for note in run.corpus.notes)
    with pytest.raises(ConfigError, match="'genre' cannot be"):
        TrainingRun(starred, rows, conditions=["genre"])


def test_cleaning_is_at_least_that_of_the_trained_model() -> None:
    lowered = further("gru-char", [text.title() for text in TEXTS], lowercase=True, model=SMALL["model"])[1]
    run = TrainingRun(lowered, [text.upper() for text in NEW], steps=1, training=TRAINING)
    assert sorted(run.read().texts("train")) == sorted(set(run.corpus.texts("train")) & set(NEW))
    run.tokenize()
    assert run.facts()["data"]["lowercase"] is True


# The command.


def test_the_command_trains_further(folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "new.csv").write_text("text\n" + "\n".join(f'"{text}"' for text in NEW), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    small = [word for name, value in TRAINING.items() for word in ("--set", f"training.{name}={value}")]
    words = ("train", "--from", folder / "gru", "--data", "new.csv", "--out", "tuned", "--steps", 20, *small)
    status, out, err = run_command(monkeypatch, capsys, *words)
    assert status == 0, err
    assert "Training gru (gru-char) further" in err and "Saved in tuned" in out
    assert "Validation texts: " in out and "gained nothing" not in err
    hand = further(reviewgen.load(folder / "gru"), Path("new.csv"))[1].model.state_dict()
    saved = reviewgen.load("tuned").model.state_dict()
    assert all(torch.equal(hand[name], saved[name]) for name in hand)
    agreed = ("train", "gru-char", *words[1:6], "again", *words[7:], "--json")
    status, out, err = run_command(monkeypatch, capsys, *agreed)
    assert status == 0 and json.loads(out)["parent"]["digest"] == reviewgen.load(folder / "gru").digest, err


def test_the_command_says_that_nothing_was_gained(folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "old.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    spoiling = ("--set", "training.learning_rate=1", "--set", "training.evaluations=1", "--set", "training.warmup=0.9")
    words = ("train", "--from", folder / "gru", "--data", tmp_path / "old.txt", "--out", tmp_path / "o", "--steps", 9, *spoiling)
    status, _, err = run_command(monkeypatch, capsys, *words)
    assert status == 0 and "gained nothing" in err


BAD = [
    (["train", "--out", "o"], 2, "Give a preset"),
    (["train", "lstm-char", "--from", "gru", "--out", "o"], 2, "gru is of the preset gru-char, not lstm-char"),
    (["train", "--from", "nothing", "--out", "o"], 2, "'nothing'"),
    (["train", "--from", "./nothing", "--out", "o"], 1, "no such folder"),
    (["train", "--from", "cache", "--out", "o"], 1, "cache is not a saved model: it has no config.json"),
    (["train", "--from", "blend-char", "--out", "o"], 2, "is a blend, which has no weights of its own to train"),
    (["train", "./gru", "--out", "o"], 2, "--from ./gru"),
    (["train", "--from", "gru", "--out", "stars"], 1, "stars already exists"),
    (["train", "--from", "gru", "--out", "o", "--set", "tokenizer.vocab_size=900"], 2, "vocab_size"),
    (["train", "--from", "gru", "--out", "o", "--set", "model.hidden_size=9"], 2, "model.hidden_size=9"),
    (["train", "--from", "ngram", "--out", "o"], 2, "blend"),
    (["train", "--from", "gru", "--out", "o", "--condition", "stars"], 2, "keeps its conditions"),
]


@pytest.mark.parametrize(("words", "wanted", "said"), BAD, ids=str)
def test_the_command_refuses_in_one_sentence(
    words: list[str], wanted: int, said: str, folder: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    status, out, err = run_command(monkeypatch, capsys, *words, "--data", "no such file.csv")
    assert (status, out) == (wanted, "")
    assert err.startswith("error: ") and said in err and len(err.splitlines()) == 1
    assert sorted(folder.iterdir()) == before


def test_a_model_of_a_missing_plugin_says_what_to_install(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for file in (folder / "gru").iterdir():
        (tmp_path / "m" / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "m" / "config.json").read_text(encoding="utf-8"))
    config["model"] |= {"name": "mamba", "distribution": "reviewgen-mamba"}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UnknownPlugin, match="pip install reviewgen-mamba"):
        reviewgen.load(tmp_path / "m")


def test_a_preset_that_is_gone_does_not_stop_it(folder: Path, gru: reviewgen.ReviewModel) -> None:
    gru.bundle.preset = "gru-char-large"
    run, tuned = further(gru)
    assert run.preset == tuned.preset == "gru-char-large"


def test_nothing_is_overwritten(gru: reviewgen.ReviewModel, folder: Path) -> None:
    with pytest.raises(OutputExists):
        TrainingRun(gru, NEW, out=folder / "gru")


def test_a_record_keeps_sixteen_trainings_before_the_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further training nests the record one level deeper, and JSON of more than 64 levels is refused when it is loaded."""
    model = train_tiny("ngram-char", tmp_path)
    record: dict[str, Any] = {"preset": "ngram-char", "steps": 1}
    monkeypatch.setattr(type(model), "training", property(lambda _: record))
    for _ in range(200):
        record = {"preset": "ngram-char", "steps": 1, **parent_facts(model, 2.0)}
    depth = 0
    while "parent" in record:
        depth, record = depth + 1, record["parent"]
    assert depth == 17 and record["steps"] == 1
