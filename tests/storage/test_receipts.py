"""Receipts and files of texts: a receipt replays to its text, and a file is continued only by the
command that began it.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.config import from_dict
from reviewgen.errors import ConfigError, DataError
from reviewgen.storage import Job
from reviewgen.tables.receipts import (
    Receipt,
    Replay,
    describe_replays,
    make_receipt,
    read_receipts,
    replay,
)
from tests.support.fakes import raising


@pytest.fixture(scope="module")
def models(model_folder) -> Any:
    """Models of this module's own: one whose ``model`` was accessed elsewhere has no digest."""
    loaded = {name: reviewgen.load(model_folder(name)) for name in ("ngram-char", "gru-word")}
    return loaded.__getitem__


@pytest.fixture(scope="module")
def saved(model_folder) -> dict[str, Path]:
    return {name: model_folder(name) for name in ("ngram-char", "gru-word")}


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": [1.2, 0.4], "top_p": 0.9, "repetition_penalty": 1.1},
    {"do_sample": False, "no_repeat_ngram_size": 4},
    {"num_beams": 3},
    {"finish": "sentence", "stop_strings": ["movie"]},
    {"include": ["movie"], "exclude": ["so"]},
    {"novelty": "filter", "max_copy": 12},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["ngram-char", "gru-word"])
def test_a_receipt_replays_to_the_same_text(models, saved, name, settings):
    model = models(name)
    count = 1 if "do_sample" in settings else 3
    own = {
        "num_return_sequences": count,
        "max_new_tokens": 30,
        "seed": 5,
        "return_dict_in_generate": True,
    }
    for text in model.generate("the ", **own, **settings):
        receipt = json.loads(json.dumps(make_receipt(model, text, saved[name])))
        assert receipt["synthetic"] is True and receipt["model"]["digest"].startswith("sha256:")
        again = replay(from_dict(Receipt, receipt), model)
        assert again.is_equal and again.text == text.text and again.differences == ()


@pytest.fixture
def receipt(models: Any) -> dict[str, Any]:
    (text,) = models("ngram-char").generate(max_new_tokens=40, seed=1, return_dict_in_generate=True)
    return json.loads(json.dumps(make_receipt(models("ngram-char"), text)))


def test_differences_are_reported(models, receipt):
    model = models("ngram-char")
    text = receipt["text"]

    def changed_replay(**changes: Any) -> Replay:
        return replay(from_dict(Receipt, receipt | changes), model)

    changed = changed_replay(text=text[:5] + "#" + text[6:])
    assert not changed.is_equal and "character 5" in changed.differences[0]
    other = changed_replay(model=receipt["model"] | {"digest": "sha256:0"})
    assert other.is_equal and "model" in other.differences[0]
    newer = changed_replay(versions=receipt["versions"] | {"numpy": "1.0"})
    assert newer.is_equal and "1.0" in newer.differences[0]
    device = changed_replay(model=receipt["model"] | {"device": "cuda"})
    assert device.is_equal and "cuda" in device.differences[0]
    assert "1 of 2" in describe_replays([changed, newer])


def test_a_model_whose_weights_may_have_changed_has_no_digest(saved):
    model = reviewgen.load(saved["gru-word"])
    for tensor in model.model.state_dict().values():
        tensor *= 0.5
    assert model.digest is None


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    "damage",
    [
        {"settings": {}},
        {"settings": {"generation_config": {"temperature": -1}}},
        {"settings": {"generation_config": [1]}},
        {"model": 3},
        {"model": {"source": 7, "preset": "x", "digest": "y", "bits": 32}},
        {"number": -1},
        {"number": 10**12},
        {"text": 5},
        {"seed": None},
        {"versions": []},
    ],
    ids=str,
)
def test_an_invalid_receipt_is_refused(receipt, damage, tmp_path):
    (tmp_path / "r.jsonl").write_text(json.dumps(receipt | damage), encoding="utf-8")
    with pytest.raises(DataError, match=r"Receipt 1 in .* is invalid"):
        list(read_receipts(tmp_path / "r.jsonl"))


def test_files_that_are_not_receipts_are_refused(tmp_path):
    for content in ("", "{}", "[1]", "{\n", '{"a": 1}\n{}\n'):
        (tmp_path / "r.json").write_text(content)
        with pytest.raises(DataError, match=r"empty|invalid"):
            list(read_receipts(tmp_path / "r.json"))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_receipts(tmp_path / "missing.json"))


def test_a_receipt_cannot_hold_functions(models):
    options: dict[str, Any] = {
        "logits_processor": [lambda ids, scores: scores],
        "return_dict_in_generate": True,
    }
    (text,) = models("ngram-char").generate(max_new_tokens=5, seed=1, **options)
    with pytest.raises(ConfigError, match="functions"):
        make_receipt(models("ngram-char"), text)


def test_the_commands(saved, tmp_path, run_command):
    file = tmp_path / "r.json"
    words = (
        "generate",
        saved["gru-word"],
        "-n",
        3,
        "--seed",
        4,
        "--max-new-tokens",
        20,
        "--receipt",
        file,
    )
    status, out, _ = run_command(*words)
    assert status == 0 and len(file.read_text().splitlines()) == 3
    status, again, said = run_command("replay", file, "--model", saved["gru-word"])
    assert status == 0 and again == out and "3 of 3" in said.splitlines()[-1]
    status, found, _ = run_command("replay", file, "--model", saved["ngram-char"], "--json")
    assert status == 1 and json.loads(found)["identical"] == 0


def test_a_model_is_found_after_it_was_moved_with_its_receipts(
    saved, tmp_path, monkeypatch, run_command
):
    monkeypatch.chdir(tmp_path)
    # the name of a preset
    shutil.copytree(saved["ngram-char"], tmp_path / "project" / "models" / "gru-char")
    words = ("generate", "./project/models/gru-char", "-n", 2, "--seed", 4, "--max-new-tokens", 9)
    assert run_command(*words, "--receipt", "project/r.jsonl")[0] == 0
    assert {each.model.source for each in read_receipts(Path("project/r.jsonl"))} == {
        "./models/gru-char"
    }
    (tmp_path / "project").rename(tmp_path / "elsewhere")
    assert run_command("replay", "elsewhere/r.jsonl")[0] == 0
    shutil.rmtree(tmp_path / "elsewhere" / "models")
    status, _, said = run_command("replay", "elsewhere/r.jsonl")
    assert status in (1, 2) and "gru-char" in said and "Traceback" not in said


GENERATE = ("-n", 3, "--max-new-tokens", 9, "--seed", 3, "--out")


def test_a_file_of_texts_and_one_of_their_receipts(saved, tmp_path, monkeypatch, run_command):
    monkeypatch.chdir(tmp_path)
    common = ("generate", saved["ngram-char"], *GENERATE)
    assert run_command(*common, "t.jsonl", "--receipt", "r.jsonl")[0] == 0
    rows = [json.loads(line) for line in Path("t.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["number"] for row in rows] == [0, 1, 2] and {row["seed"] for row in rows} == {3}
    assert [each.text for each in read_receipts(Path("r.jsonl"))] == [row["text"] for row in rows]
    assert run_command("replay", "r.jsonl", "--model", saved["ngram-char"])[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ["t.jsonl"],
        ["u.jsonl", "--receipt", "r.jsonl"],
        ["v.jsonl", "--receipt", "v.jsonl"],
        ["folder", "--receipt", "s"],
    ],
    ids=" ".join,
)
def test_nothing_is_written_without_a_new_place_for_both_files(
    words, saved, tmp_path, monkeypatch, run_command
):
    monkeypatch.chdir(tmp_path)
    for name in ("r.jsonl", "t.jsonl"):
        Path(name).touch()
    given = ("generate", saved["ngram-char"], *GENERATE, *words)
    assert run_command(*given)[0] in (1, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.jsonl", "t.jsonl"]


@pytest.mark.posix
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_receipts_survive_a_process_that_ends_when_the_table_gets_its_name(
    saved, tmp_path, monkeypatch, moment, suffix, run_command
):
    monkeypatch.chdir(tmp_path)
    words = [
        "generate",
        str(saved["ngram-char"]),
        "-n",
        "5",
        "--max-new-tokens",
        "9",
        "--seed",
        "3",
        "--unique",
    ]
    whole = [*words, "--out", f"whole{suffix}", "--receipt", "whole"]
    assert run_command(*whole)[0] == 0
    words += ["--out", f"t{suffix}", "--receipt", "r"]
    child = os.fork()
    if child == 0:
        finish = Job.finish
        monkeypatch.setattr(
            Job,
            "finish",
            lambda job, name: ((moment == "after" and finish(job, name)), os._exit(9)),
        )
        run_command(*words)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    status, _, said = run_command(*words)
    assert status == 0 if moment == "before" else "already exists" in said
    assert Path("r").read_bytes() == Path("whole").read_bytes()
    assert Path(f"t{suffix}").read_bytes() == Path(f"whole{suffix}").read_bytes()


def test_receipts_do_not_replace_a_file_that_was_made_in_the_meantime(
    saved, tmp_path, monkeypatch, run_command
):
    monkeypatch.chdir(tmp_path)
    words = [
        "generate",
        saved["ngram-char"],
        "-n",
        3,
        "--max-new-tokens",
        9,
        "--seed",
        3,
        "--out",
        "t.jsonl",
        "--receipt",
        "r",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(Job, "finish", raising(KeyboardInterrupt()))
        run_command(*words)
    Path("r").write_text("mine")
    status, _, said = run_command(*words)
    assert status == 1 and "r already exists" in said
    assert Path("r").read_text() == "mine" and not Path("t.jsonl").exists()
