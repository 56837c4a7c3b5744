"""Working folders ``OUT.partial``: what a job has not made is never touched, and what was damaged is made again or refused."""

import json
import os
import shutil

import pytest

import reviewgen
from reviewgen import partial, scratch
from reviewgen.errors import CheckpointError, ConfigError, OutputExists
from reviewgen.lock import Lock
from reviewgen.partial import STORE_KINDS, TABLE_KINDS, PartialFolder, differences, remove_entry
from reviewgen.runs.litter import clean, find_unfinished
from reviewgen.training import Processes, rounds
from reviewgen.writing import judging, table
from tests.support.fakes import TEXTS, run_command
from tests.unit.test_prepare import files_of as digests_of
from tests.unit.test_prepare import make
from tests.unit.test_writing import SHORT, files_of, saved_model

FACTS = {"shard_texts": 5, "versions": {}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved_model(tmp_path_factory.mktemp("partial"))


@pytest.fixture(scope="module")
def model(folder):
    return reviewgen.load(folder)


def table_folder(out):
    return PartialFolder(out, "writes the same texts", TABLE_KINDS)


def begin(out, *parts):
    """Return the working folder of a table, with some finished parts, as a process leaves it that is killed."""
    work = table_folder(out)
    assert work.acquire() is None
    work.start(FACTS, resumes=False)
    for name in parts:
        work.write(work.place("parts", name), lambda file: file.write_text("content"))
    work.close()
    return work


def tree(root):
    return {path.relative_to(root).as_posix(): path.is_file() and path.read_bytes() for path in root.rglob("*")}


@pytest.mark.parametrize(
    "name",
    ["out/thesis.txt", "parts/000000.jsonl", "texts/chapter1.txt", "lock", "lock.pid", "parts", "checksums/mine", ".job.json"],
)
def test_what_others_have_put_into_a_folder_of_that_name_stays(name, tmp_path):
    file = tmp_path / "t.partial" / name
    file.parent.mkdir(parents=True)
    file.write_text("my thesis")
    before = tree(tmp_path)
    for kinds in (TABLE_KINDS, STORE_KINDS):
        with pytest.raises(OutputExists, match="has something else in it"):
            PartialFolder(tmp_path / "t", "writes", kinds).acquire()
    assert clean(tmp_path / "t") == [] == find_unfinished(tmp_path / "t")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("link", ["", "out", "parts", "store", "store/shards", "checksums", "lock", "job.json"])
@pytest.mark.parametrize("has_job", [True, False])
def test_links_are_not_followed(link, has_job, tmp_path):
    victim, place = tmp_path / "victim", tmp_path / "t.partial" / link
    (victim / ".ssh").mkdir(parents=True)
    (victim / ".ssh/id").write_text("key")
    (victim / "thesis").write_text("")
    place.parent.mkdir(parents=True, exist_ok=True)
    if has_job and link != "job.json":
        job = (victim if not link else tmp_path / "t.partial") / "job.json"
        job.write_text(json.dumps(FACTS))
    place.symlink_to(victim / "thesis" if link in ("lock", "job.json") else victim)
    before = tree(tmp_path)
    for kinds in (TABLE_KINDS, STORE_KINDS):
        if link and link in {*STORE_KINDS, *TABLE_KINDS} - {*kinds} and has_job:
            continue  # it is beside what such a job makes
        with pytest.raises(OutputExists, match=r"a link|something else"):
            PartialFolder(tmp_path / "t", "writes", kinds).acquire()
    clean(tmp_path / "t")
    assert tree(tmp_path) == before and place.is_symlink()


def test_links_in_a_folder_of_results_are_removed_and_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / ".rc").write_text("mine")
    work = begin(tmp_path / "t", "0")
    for name in (".scratch", "1", "2"):
        work.place("parts", name).symlink_to(victim)
    work.place("parts", "2").unlink()
    work.place("parts", "2").symlink_to(victim / "nothing")
    assert work.acquire() == FACTS
    work.start(FACTS, resumes=True)
    for name in ("1", "2"):
        work.write(work.place("parts", name), lambda file: file.write_text("new"))
        assert work.place("parts", name).read_text() == "new" and not work.place("parts", name).is_symlink()
    work.remove()
    assert tree(tmp_path) == {"victim": False, "victim/.rc": b"mine"}


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "t.partial").write_text("mine")
    with pytest.raises(OutputExists, match="is not a folder"):
        table_folder(tmp_path / "t").acquire()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="the system has no users")
def test_a_folder_of_another_user_is_refused_but_not_one_that_the_file_system_gives_to_another(tmp_path, monkeypatch):
    begin(tmp_path / "t", "0")
    monkeypatch.setattr(scratch.os, "getuid", lambda: 4711)
    work = table_folder(tmp_path / "t")
    assert work.acquire() == FACTS  # what is made there now has the same owner, as of root on NFS
    work.close()

    def refused(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", refused)
    before = tree(tmp_path)
    with pytest.raises(OutputExists, match="belongs to another user"):
        table_folder(tmp_path / "t").acquire()
    assert tree(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root gives folders away")
def test_a_folder_that_another_user_has_planted(tmp_path):
    begin(tmp_path / "t", "0")
    os.chown(tmp_path / "t.partial", 4711, 4711)
    before = tree(tmp_path)
    with pytest.raises(OutputExists, match="belongs to another user"):
        table_folder(tmp_path / "t").acquire()
    assert tree(tmp_path) == before and find_unfinished(tmp_path / "t") == []


def test_job_json_is_not_written_again(tmp_path, monkeypatch):
    work = begin(tmp_path / "t", "0")
    monkeypatch.setattr(partial, "write_file", lambda *_: 1 / 0)
    for resumes in (True, False):
        assert work.acquire() == FACTS
        work.start(FACTS, resumes=resumes)
        assert work.place("parts", "0").exists() == resumes
        work._lock.release()


def test_a_full_disk_leaves_no_empty_job_json(tmp_path, monkeypatch):
    def full(file, _):
        file.touch()
        raise OSError(28, "No space left on device")

    work = table_folder(tmp_path / "t")
    work.acquire()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(partial, "write_file", full)
        work.start(FACTS, resumes=False)
    assert not (work.folder / "job.json").exists()
    work.close()
    assert table_folder(tmp_path / "t").acquire() is None


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "\xff"])
def test_a_damaged_job_json(content, tmp_path):
    work = begin(tmp_path / "t", "0")
    (work.folder / "job.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"job\.json is damaged\. Remove .*t\.partial to start over"):
        work.acquire()
    work._lock.release()
    assert work.place("parts", "0").exists()
    shutil.rmtree(work.folder / "parts")
    shutil.rmtree(work.folder / "checksums")
    if not content:  # as of a process that is killed before it has written it: nothing is lost
        assert table_folder(tmp_path / "t").acquire() is None


def test_a_result_that_was_damaged_is_made_again(tmp_path, caplog):
    work = begin(tmp_path / "t", "0", "1", "2")
    work.place("parts", "0").write_text("conten!")
    work.place("checksums", "parts.1").unlink()
    assert work.acquire() == FACTS
    work.start(FACTS, resumes=True)
    finished = [work.is_finished(work.place("parts", name)) for name in ("0", "1", "2", "3")]
    assert finished == [False, False, True, False] and "0 was damaged" in caplog.text
    assert [path.name for path in work.place("parts", "").iterdir()] == ["2"]


STEPS = ("parts", "sums", "out", "digests", "checksums", "job.json", "lock.pid")


@pytest.mark.parametrize("killed_before", range(len(STEPS) + 1))
@pytest.mark.parametrize("again", ["command", "doctor"])
def test_a_process_that_is_killed_while_it_removes_the_folder_leaves_nothing_for_ever(killed_before, again, tmp_path):
    work = begin(tmp_path / "t", "0")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/manifest.json").touch()
    shutil.rmtree(work.folder / "out")  # it has its name
    for name in STEPS[:killed_before]:
        path = work.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
    if again == "command":
        table_folder(tmp_path / "t").remove_left(FACTS)
    else:
        assert find_unfinished(tmp_path / "t") == [] and clean(tmp_path / "t") == [work.folder]
    assert not work.folder.exists()


def test_doctor_says_what_is_unfinished_and_removes_what_is_useless(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    begin(tmp_path / "useful", "0")
    begin(tmp_path / "useless")
    store = PartialFolder(tmp_path / "store", "prepares", STORE_KINDS)
    store.acquire()
    store.start({"tokenizer settings": {}}, resumes=False)
    store.write(store.place("texts", "0"), lambda file: file.write_text("content"))
    store.close()
    held = begin(tmp_path / "held")
    lock = Lock(held.folder / "lock")
    (tmp_path / "download.partial").mkdir()
    (tmp_path / "other.partial").mkdir()
    (tmp_path / "other.partial/job.json").write_text("{}")
    expected = {"useful.partial", "store.partial", "held.partial", "download.partial", "other.partial"}
    status, said, _ = run_command(monkeypatch, capsys, "doctor", "--clean")
    assert status == 0 and "Removed" in said and "useless.partial" in said
    for name in ("store", "useful"):
        assert f"{tmp_path / name}.partial is unfinished: give its command again to go on from it, or remove it." in said
    _, said, _ = run_command(monkeypatch, capsys, "doctor", "--clean", "--json")
    facts = json.loads(said)
    assert facts["removed"] == [] and facts["unfinished"] == [f"{tmp_path / name}.partial" for name in ("store", "useful")]
    assert {path.name for path in tmp_path.glob("*.partial")} == expected
    assert list((tmp_path / "download.partial").iterdir()) == [] and store.place("texts", "0").exists()
    lock.remove()


DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "json": lambda content: b"[]",
    "flipped": lambda content: bytes(255 - byte for byte in content),
}


def damage_all(folder, damage):
    """Damage each result in a working folder, or each checksum, and return how many files those are."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in ("lock", "lock.pid", "job.json")]
    chosen = [file for file in files if (file.parent.name == "checksums") == (damage == "checksums")]
    for file in chosen:
        file.write_bytes(DAMAGES.get(damage, DAMAGES["flipped"])(file.read_bytes()))
    return len(chosen)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return a function that prepares a store, and a folder with it, ``w``, and its working folder just before, ``kept``."""
    root = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reviewgen.data.spans._MIN_BYTES", 1)
        patch.setattr("reviewgen.preparation.reading._PART_BYTES", 1 << 13)
        source, options = make("csv", root)

        def prepare():
            reviewgen.prepare(source, preset="gru-char", out=root / "w", decontaminate=30, **options)

        with pytest.MonkeyPatch.context() as killed, pytest.raises(ZeroDivisionError):
            killed.setattr("reviewgen.preparation.job.WorkFolder.publish", lambda _: 1 / 0)
            prepare()
        shutil.copytree(root / "w.partial", root / "kept")
        prepare()
        yield prepare, root


@pytest.mark.parametrize("damage", [*DAMAGES, "checksums"])
def test_a_store_is_whole_whatever_was_damaged_in_its_working_folder(damage, prepared):
    prepare, root = prepared
    expected = digests_of(root / "w")
    shutil.rmtree(root / "w")
    shutil.copytree(root / "kept", root / "w.partial")
    assert damage_all(root / "w.partial", damage) > 10
    prepare()
    assert digests_of(root / "w") == expected and not (root / "w.partial").exists()


def test_a_link_in_the_place_of_the_codes_is_not_followed(prepared):
    prepare, root = prepared
    expected = digests_of(root / "w")
    shutil.rmtree(root / "w")
    shutil.copytree(root / "kept", root / "w.partial")
    (root / "precious").write_text("mine")
    for file in (root / "w.partial/codes").iterdir():
        file.unlink()
        file.symlink_to(root / "precious")
    prepare()
    assert digests_of(root / "w") == expected and (root / "precious").read_text() == "mine"


def test_names_that_only_a_changed_job_has_are_not_printed():
    before = {"n": 5, "device": "cuda", "seed": 1}
    assert differences({"n": 5, "seed": 1}, before) == ["device"]
    assert differences({"n": 6, "device": "cuda", "seed": 1}, before) == ["n"]
    assert differences({"n": 5, "seed": 1}, {"n": 5, "seed": 1, "\x1b[31m": 1, "x" * 50: 1}) == ["other settings"]


@pytest.fixture(scope="module", params=["scores", "scores.jsonl", "texts"])
def written(request, model, tmp_path_factory):
    """The same of a table."""
    root = tmp_path_factory.mktemp("written")
    (root / "texts.txt").write_text("\n".join(TEXTS))
    out = root / request.param

    def write():
        if request.param == "texts":
            return reviewgen.generate_dataset(model, 9, out=out, seed=3, shard_texts=4, columns=True, **SHORT)
        return reviewgen.score_dataset(model, root / "texts.txt", out=out, shard_texts=3)

    with pytest.MonkeyPatch.context() as killed, pytest.raises(ZeroDivisionError):
        killed.setattr(table.Table, "_publish", lambda *_: 1 / 0)
        write()
    shutil.copytree(f"{out}.partial", root / "kept")
    return write, write(), root / "kept"


@pytest.mark.parametrize("damage", [*DAMAGES, "checksums"])
def test_a_table_is_whole_whatever_was_damaged_in_its_working_folder(damage, written):
    write, whole, kept = written
    out, work = whole.out, whole.out.with_name(f"{whole.out.name}.partial")
    expected = files_of(out) if out.is_dir() else out.read_bytes()
    remove_entry(out)
    shutil.copytree(kept, work)
    assert damage_all(work, damage) > 5
    again = write()
    assert again == whole and (files_of(out) if out.is_dir() else out.read_bytes()) == expected and not work.exists()


def test_a_damaged_digest_beside_a_file_of_others(model, tmp_path):
    work = begin(tmp_path / "s.jsonl", "0")
    (tmp_path / "s.jsonl").write_text("mine")
    work.place("digests", "s.jsonl").write_text("{broken")
    with pytest.raises(OutputExists, match="already exists"):
        reviewgen.score_dataset(model, ["a text"], out=tmp_path / "s.jsonl")
    assert (tmp_path / "s.jsonl").read_text() == "mine" and work.place("parts", "0").exists()


@pytest.mark.parametrize("seed", [None, "x", -1])
def test_a_seed_that_is_none(seed, model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(judging.Table, "finish", lambda *_: 1 / 0)
        reviewgen.generate_dataset(model, 5, out=tmp_path / "t", **SHORT)
    job = tmp_path / "t.partial/job.json"
    job.write_text(json.dumps(json.loads(job.read_text()) | {"seed": seed}))
    with pytest.raises(CheckpointError, match=r"job\.json is damaged"):
        reviewgen.generate_dataset(model, 5, out=tmp_path / "t", **SHORT)


@pytest.mark.parametrize("n", [10**24, 10**12, 10**9 + 1])
def test_more_texts_than_a_table_may_have(n, model, tmp_path):
    with pytest.raises(ConfigError, match="at most 1,000,000,000 texts"):
        reviewgen.generate_dataset(model, n, out=tmp_path / "t")
    with pytest.raises(ConfigError, match="at most 1,000,000,000 texts"):
        reviewgen.generate_dataset(model, n // 2 + 1, prompt=["a", "the"], out=tmp_path / "t")
    assert not any(tmp_path.iterdir())


def test_tasks_are_dealt_out_some_at_a_time(monkeypatch):
    monkeypatch.setattr(rounds, "_WINDOW", 7)
    done, reported = [], []
    rounds.share_tasks(Processes(), range(3, 40), done.append, "here", reported.append)
    assert done == [*range(3, 40)] and reported[-1] == 37 and reported == sorted(reported)
