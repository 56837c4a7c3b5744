"""Tables that are written again, or were begun: what others have put there stays, and what was killed leaves nothing."""

import json
import os
import shutil
import threading

import pytest

import reviewgen
from reviewgen import partial, storage
from reviewgen.errors import ConfigError, DataError, OutputExists
from reviewgen.lock import Lock
from reviewgen.partial import PartialFolder
from reviewgen.writing import evaluating, judging, table
from reviewgen.writing.inputs import identify_source
from tests.support.fakes import run_command
from tests.unit.test_writing import REVIEWS, SHORT, files_of, rows_of, saved_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved_model(tmp_path_factory.mktemp("again"))


@pytest.fixture(scope="module")
def model(folder):
    return reviewgen.load(folder)


def test_a_folder_that_looks_like_a_working_folder_is_left_as_it_is(model, tmp_path):
    (tmp_path / "mine.partial/thesis").mkdir(parents=True)
    with pytest.raises(OutputExists, match="thesis"):
        reviewgen.generate_dataset(model, 3, out=tmp_path / "mine", **SHORT)
    with pytest.raises(OutputExists, match="thesis"):
        reviewgen.prepare(REVIEWS, preset="gru-char", out=tmp_path / "mine", text_column="text")
    assert [path.name for path in (tmp_path / "mine.partial").iterdir()] == ["thesis"]


def test_a_folder_with_the_names_of_a_working_folder_is_left_as_it_is(model, tmp_path):
    thesis = tmp_path / "mine.partial/parts/thesis/chapter.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("mine")
    for write in (
        lambda: reviewgen.generate_dataset(model, 3, out=tmp_path / "mine", **SHORT),
        lambda: reviewgen.prepare(REVIEWS, preset="gru-char", out=tmp_path / "mine", text_column="text"),
    ):
        with pytest.raises(OutputExists, match="has something else in it, parts"):
            write()
        assert thesis.read_text() == "mine" and [path.name for path in thesis.parents[2].iterdir()] == ["parts"]
    shutil.rmtree(thesis.parent)
    reviewgen.generate_dataset(model, 3, out=tmp_path / "mine", **SHORT)  # empty folders: as after a kill at the very start


def test_what_is_put_into_a_working_folder_outlives_it(tmp_path):
    work = PartialFolder(tmp_path / "t", "writes", ("parts",))
    assert work.acquire() is None
    work.start({}, resumes=False)
    (work.folder / "notes").mkdir()
    work.start({}, resumes=False)
    work.remove()
    assert [path.name for path in work.folder.iterdir()] == ["notes"]


def test_a_lock_whose_file_was_removed_in_between_is_not_taken(tmp_path, monkeypatch):
    work, made = PartialFolder(tmp_path / "t", "writes", ("parts",)), []

    class Overtaken(Lock):
        def __init__(self, file):
            super().__init__(file)
            made.append(self)
            if len(made) == 1:  # its holder before removes the folder now
                shutil.rmtree(file.parent)

    monkeypatch.setattr(partial, "Lock", Overtaken)
    assert work.acquire() is None and len(made) == 2 and (work.folder / "lock").exists()
    work.remove()
    assert not work.folder.exists()


def test_other_texts_under_the_same_name_are_not_taken_for_the_old_ones(model, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("one text\nanother")
    reviewgen.score_dataset(model, file, out=tmp_path / "s")
    assert not reviewgen.score_dataset(model, file, out=tmp_path / "s").is_new
    before = files_of(tmp_path / "s")
    file.write_text("two text\nanother")
    with pytest.raises(ConfigError, match=r"texts differ\. Remove that folder"):
        reviewgen.score_dataset(model, file, out=tmp_path / "s")
    assert files_of(tmp_path / "s") == before
    reviewgen.score_dataset(model, ["one text"], out=tmp_path / "l")
    with pytest.raises(OutputExists):
        reviewgen.score_dataset(model, ["two text"], out=tmp_path / "l")


def test_a_large_file_that_was_changed_in_its_middle_is_other_texts(model, tmp_path):
    file, lines = tmp_path / "texts.txt", ["a plain text of forty characters or so."] * 80_000
    file.write_text("\n".join(lines))
    other = tmp_path / "other.txt"
    other.write_text("\n".join([*lines[:40_000], lines[0].replace("plain", "other"), *lines[40_001:]]))
    assert file.stat().st_size == other.stat().st_size > 3 << 20
    assert identify_source(file) != identify_source(other)
    shutil.copy(file, other)
    assert identify_source(file) == identify_source(other)


def test_a_condition_of_equal_texts_that_was_changed_is_noticed(model, tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text("\n".join(map(json.dumps, REVIEWS[:6])))
    reviewgen.score_dataset(model, file, out=tmp_path / "s", text_column="text")
    before = files_of(tmp_path / "s")
    changed = [review | {"stars": 6 - review["stars"]} for review in REVIEWS[:6]]
    file.write_text("\n".join(map(json.dumps, changed)))
    assert file.stat().st_size == len("\n".join(map(json.dumps, REVIEWS[:6])))
    with pytest.raises(ConfigError, match=r"texts differ\. Remove that folder"):
        reviewgen.score_dataset(model, file, out=tmp_path / "s", text_column="text")
    assert files_of(tmp_path / "s") == before
    reviewgen.score_dataset(model, file, out=tmp_path / "t", text_column="text")
    assert [row["bits"] for row in rows_of(tmp_path / "t")] != [row["bits"] for row in rows_of(tmp_path / "s")]


def test_texts_that_are_no_files_are_judged_anew(model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(judging.Table, "finish", lambda *_: 1 / 0)
        reviewgen.score_dataset(model, ["one text"], out=tmp_path / "l")
    assert list((tmp_path / "l.partial/parts").glob("*.jsonl"))
    reviewgen.score_dataset(model, ["two text"], out=tmp_path / "l")
    assert [row["text"] for row in rows_of(tmp_path / "l")] == ["two text"]


def test_a_pipe_is_read_once(model, tmp_path):
    file, pipe = tmp_path / "r.jsonl", tmp_path / "pipe.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in ["one text", "two texts"]), encoding="utf-8")
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[file.read_bytes()])
    writer.start()
    reviewgen.score_dataset(model, pipe, out=tmp_path / "p", text_column="text")
    writer.join()
    reviewgen.score_dataset(model, file, out=tmp_path / "f", text_column="text")
    assert rows_of(tmp_path / "p") == rows_of(tmp_path / "f")


def test_shards_of_another_number_are_not_published(model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(table.Table, "_publish", lambda *_: 1 / 0)
        reviewgen.score_dataset(model, REVIEWS[:8], out=tmp_path / "s", shard_texts=5)
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "s.partial/out", kept)
    texts = tmp_path / "r.jsonl"
    texts.write_text("\n".join(map(json.dumps, REVIEWS[:12])))
    shutil.rmtree(tmp_path / "s.partial")

    def begun(*arguments):
        work = arguments[0].work
        shutil.copytree(kept, work.folder / "out", dirs_exist_ok=True)
        return finish(*arguments)

    finish = table.Table.finish
    monkeypatch.setattr(judging.Table, "finish", begun)
    written = reviewgen.score_dataset(model, texts, out=tmp_path / "s", shard_texts=5, text_column="text")
    names = sorted(path.name for path in (tmp_path / "s").iterdir())
    assert names == ["manifest.json", *written.files] and len(written.files) == 3


@pytest.mark.parametrize("name", ["s", "s.jsonl"])
def test_what_a_process_has_left_that_was_killed_after_it_had_published(name, model, tmp_path, monkeypatch):
    file = tmp_path / "texts.txt"
    file.write_text("one text\nanother")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(PartialFolder, "remove", lambda _: 1 / 0)
        reviewgen.score_dataset(model, file, out=tmp_path / name)
    assert (tmp_path / f"{name}.partial/job.json").exists()
    if name == "s":
        assert not reviewgen.score_dataset(model, file, out=tmp_path / name).is_new
    else:
        with pytest.raises(OutputExists):
            reviewgen.score_dataset(model, file, out=tmp_path / name)
    assert [path.name for path in tmp_path.glob("s*")] == [name]


def test_what_is_in_progress_beside_another_file_is_kept(model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(judging.Table, "finish", lambda *_: 1 / 0)
        reviewgen.score_dataset(model, ["one text"], out=tmp_path / "s.jsonl")
    (tmp_path / "s.jsonl").write_text("mine")
    with pytest.raises(OutputExists):
        reviewgen.score_dataset(model, ["one text"], out=tmp_path / "s.jsonl")
    assert list((tmp_path / "s.jsonl.partial/parts").glob("*.jsonl")) and (tmp_path / "s.jsonl").read_text() == "mine"


def test_a_table_that_another_process_has_just_completed(model, tmp_path, monkeypatch):
    acquire = PartialFolder.acquire
    reviewgen.generate_dataset(model, 5, out=tmp_path / "other", seed=1, **SHORT)

    def late(work):
        shutil.copytree(tmp_path / "other", work.out)
        return acquire(work)

    monkeypatch.setattr(PartialFolder, "acquire", late)
    assert not reviewgen.generate_dataset(model, 5, out=tmp_path / "t", seed=1, **SHORT).is_new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "t"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"summary": {}}, "was changed"),
        ({"files": 5}, "is not a manifest"),
        ({"format": 99}, "is not a manifest"),
        ({"texts": "x"}, "is not a manifest"),
        ({"summary": 5}, "is not a manifest"),
        ({"texts": -5}, "is not a manifest"),
        ({"texts": True}, "is not a manifest"),
        ({"files": {"train-00000-of-00001.jsonl": {"size": -1}}}, "is not a manifest"),
        ({"files": {}}, "was changed"),
        ({"files": {"x" * 300: {"size": 0, "texts": 5}}}, "is incomplete: it has no x"),
        ({"job": {"seed": None}}, "is not a manifest|was changed|differ"),
        *(
            ({"summary": {"seed": 1, "asked": 5, "drawn": 5, "repeats": 0, name: value}}, "was changed")
            for name in ("asked", "repeats")
            for value in (None, -1, 1.5, "5", True)
        ),
    ],
)
def test_a_manifest_that_was_changed(change, problem, model, tmp_path):
    reviewgen.generate_dataset(model, 5, out=tmp_path / "t", seed=1, **SHORT)
    manifest = tmp_path / "t/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises((OutputExists, DataError, ConfigError), match=problem):
        reviewgen.generate_dataset(model, 5, out=tmp_path / "t", seed=1, **SHORT)


@pytest.mark.parametrize("value", [None, -1, 1.5])
def test_a_manifest_of_scores_whose_summary_was_changed(value, model, tmp_path):
    """The bits of a character may be unknown, and no number of texts or characters is."""
    file, manifest = tmp_path / "texts.txt", tmp_path / "s/manifest.json"
    file.write_text("one text\nanother")
    reviewgen.score_dataset(model, file, out=tmp_path / "s")
    content = json.loads(manifest.read_text())
    for name in content["summary"]:
        manifest.write_text(json.dumps(content | {"summary": content["summary"] | {name: value}}))
        if name == "bits_per_character" and value != -1:
            assert reviewgen.score_dataset(model, file, out=tmp_path / "s").summary[name] == value
        else:
            with pytest.raises(DataError, match="was changed"):
                reviewgen.score_dataset(model, file, out=tmp_path / "s")


def test_a_complete_table_without_one_of_its_files(model, tmp_path):
    reviewgen.generate_dataset(model, 9, out=tmp_path / "t", seed=1, shard_texts=5, **SHORT)
    shard = tmp_path / "t/train-00001-of-00002.jsonl"
    for damage, problem in ((lambda: shard.write_text("x"), "the size has changed of"), (shard.unlink, "it has no")):
        damage()
        with pytest.raises(DataError, match=f"{problem} {shard.name}"):
            reviewgen.generate_dataset(model, 9, out=tmp_path / "t", seed=1, shard_texts=5, **SHORT)


@pytest.mark.parametrize("out", [".", "/", ""])
def test_the_current_folder_is_not_written(out, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputExists):
        reviewgen.generate_dataset(model, 3, out=out)
    assert not any(tmp_path.iterdir())


def test_a_source_that_cannot_be_read_leaves_nothing(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "right.txt").write_text("a text")
    for data, expected in (("typo.csv", 1), ("right.txt", 0)):
        assert run_command(monkeypatch, capsys, "score", folder, "--data", data, "--out", "q1")[0] == expected
        assert (tmp_path / "q1").exists() == (not expected) and not (tmp_path / "q1.partial").exists()


def test_a_read_error_is_not_called_a_write_error(folder, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", "reviews.csv")
        yield

    monkeypatch.setattr(judging, "read_texts", refused)
    monkeypatch.setattr(evaluating, "read_documents", refused)
    for call in (
        lambda: reviewgen.score_dataset(folder, ["a"], out=tmp_path / "s"),
        lambda: evaluating.evaluate(str(folder), ["a"]),
    ):
        with pytest.raises(DataError, match=r"reviews\.csv cannot be read: Permission denied"):
            call()


def test_new_files_are_forced_to_disk(tmp_path, monkeypatch):
    forced = []
    monkeypatch.setattr(storage, "fsync_file", lambda file: forced.append(file.read_text()))
    storage.write_new(tmp_path / "new", lambda file: file.write_text("content"))
    assert forced == ["content"] and (tmp_path / "new").read_text() == "content"


def test_a_number_of_texts_in_a_shard_without_a_folder(folder, tmp_path, monkeypatch, capsys):
    words = ["generate", folder, "-n", 7, "--shard-texts", 5, "--out", tmp_path / "o.jsonl"]
    status, _, notes = run_command(monkeypatch, capsys, *words)
    assert status == 2 and "--shard-texts is for a folder" in notes and not any(tmp_path.iterdir())
