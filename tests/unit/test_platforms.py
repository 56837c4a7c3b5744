"""Windows and macOS: everything that writes files runs under the rules of Windows; see ``tests.support.windows_rules``."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen import storage
from reviewgen.bundle import Bundle
from reviewgen.bundle.layout import files_of
from reviewgen.bundle.write import write_bundle
from reviewgen.data import workers
from reviewgen.errors import BrokenPlugin, BundleError, StorageError
from reviewgen.storage import new_folder, recover
from tests.support.fakes import NGRAM, LetterTokenizer, train_tiny
from tests.support.loopback_hub import LoopbackHub
from tests.support.windows_rules import environment

SCRIPT = """if True:  # it has no ``if __name__ == "__main__"``: the workers must not run it again
    import json, os, sys
    from pathlib import Path
    import reviewgen
    from reviewgen import TrainingRun
    from reviewgen.cli import app
    from reviewgen.training import checkpoints
    from tests.support.fakes import TEXTS
    checkpoints._SHARE = 1e9  # a checkpoint at each step
    told = {"started": True}
    root = Path(sys.argv[1])
    Path("reviews.csv").write_text("text,stars\\n" + "".join(f'"{text}",{n % 5}\\n' for n, text in enumerate(TEXTS)), "utf-8")
    training = {"batch_size": 4, "bptt": 8, "threads": 1, "precision": "no", "checkpoint_seconds": 1e-9}

    def start(resume):
        settings = {"model": {"hidden_size": 8}, "training": training, "steps": 12, "log": "tensorboard"}
        run = TrainingRun("gru-char", "reviews.csv", out=Path("m"), resume=resume, conditions=["stars"], **settings)
        run.read()
        run.tokenize()
        return run

    def command(*words):
        try:
            app([str(word) for word in words])
        except SystemExit as end:
            assert not end.code, words

    run = start(resume=False)
    for report in run:
        if report.step == 7:
            break
    run._run_folder.checkpoints.close()
    told["left"] = sorted(path.name for path in Path("m.run").iterdir())
    run = start(resume=True)
    told["resumed"] = next(iter(run)).notes[0]
    model = run.finish()
    told["caches"] = len(list(Path(os.environ["REVIEWGEN_CACHE"]).iterdir()))
    model.save_pretrained("m", overwrite=True)
    model.save_pretrained("n")
    model = reviewgen.load("./m")
    told["text"] = model.generate("the ", seed=1, max_new_tokens=20, novelty="report")[0]
    model.save_pretrained("m", overwrite=True)  # over the files that it was loaded from
    told["same"] = reviewgen.load("./m").generate("the ", seed=1, max_new_tokens=20)[0] == told["text"]
    reviewgen.train("ngram-word", TEXTS, out="ngram", model={"memory_mb": 1})
    for words in ("list", "doctor", f"generate ./m -n 3 --receipt r.jsonl --out t.jsonl", "replay r.jsonl", "replay R.jsonl"):
        command(*words.split())
    told["files"] = sorted(path.name for path in root.iterdir())
    print("\\n" + json.dumps(told))
"""

PULL = """if True:
    import json, sys
    from pathlib import Path
    import reviewgen
    from reviewgen.hub.pull import pull
    for out in ("first", "second"):  # the second from the cache
        pull("ana/reviews", out=Path(out))
    link = any(path.is_symlink() for path in Path("home").rglob("*"))
    print("\\n" + json.dumps([link, reviewgen.load("ana/reviews").preset, reviewgen.load("./first").preset]))
"""

RULES = """if True:
    import json, os, pathlib, shutil, subprocess
    from pathlib import Path
    def refused(call, *arguments):
        try:
            call(*arguments)
        except OSError as error:
            return type(error).__name__
    file, folder = Path("Folder/File"), Path("Folder")
    folder.mkdir()
    file.write_text("a")
    Path("other").write_text("b")
    told = [refused(folder.mkdir), Path("folder/FILE").read_text(), refused(Path("link").symlink_to, file)]
    told += [refused(os.open, folder, os.O_RDONLY), refused(file.rename, "other")]
    with file.open() as stream:
        told += [refused(os.fsync, stream.fileno()), refused(folder.rename, "b"), refused(file.unlink)]
        told += [refused(os.replace, "other", file)]
    os.replace("other", file)
    shutil.rmtree("FOLDER")
    print("\\n" + json.dumps([*told, os.listdir()]))
"""


def run(script: str, folder: Path, **variables: str) -> Any:
    """Run a script under the rules in a folder, and return the JSON of its last line."""
    work, site = folder / "work", folder / "site"
    for new in (work, site):
        new.mkdir(exist_ok=True)
    (folder / "script.py").write_text(script, encoding="utf-8")
    settings = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "REVIEWGEN_WORKERS": "2"}
    env = os.environ | settings | variables | environment(site)
    command = [sys.executable, str(folder / "script.py"), str(work)]
    done = subprocess.run(command, env=env, cwd=work, capture_output=True, encoding="utf-8", timeout=600)
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("platforms")
    return run(SCRIPT, folder, REVIEWGEN_CACHE=str(folder / "cache")), folder / "work"


def test_the_rules_refuse_what_windows_refuses(tmp_path: Path) -> None:
    denied = "PermissionError"
    exists = "FileExistsError"
    assert run(RULES, tmp_path) == [exists, "a", denied, denied, exists, "OSError", denied, denied, denied, []]


def test_training_saving_and_generating_under_the_rules_of_windows(ran: tuple[dict[str, Any], Path]) -> None:
    told, folder = ran
    assert told["left"] == [".lock", ".lock.pid", "run.json", "step-00000005", "step-00000006"]
    assert told["resumed"] == "The run resumes from step 6."
    assert told["caches"] == 1  # the second run found the tokens of the first
    assert told["text"].startswith("the ") and told["same"]
    assert told["files"] == ["m", "n", "ngram", "r.jsonl", "reviews.csv", "runs", "t.jsonl"]  # and nothing half-written
    assert reviewgen.load(folder / "m").generate("the ", seed=1, max_new_tokens=20)[0] == told["text"]  # as elsewhere


def test_a_model_of_the_hub_needs_no_symbolic_links(ran: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    files = {file.name: file.read_bytes() for file in (ran[1] / "n").iterdir()}
    with LoopbackHub({("model", "ana/reviews"): {"main": files}}) as hub:
        home = tmp_path / "work" / "home"
        assert run(PULL, tmp_path, **hub.environment(home)) == [False, "gru-char", "gru-char"]


# The parts.


@pytest.fixture
def locks_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LOCKS_OPEN_FILES", True)


def old_folder(path: Path) -> Path:
    path.mkdir()
    (path / "file").write_text("old")
    return path


def test_a_file_that_a_virus_scanner_holds_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks_open_files: None
) -> None:
    refusals, plain = iter([True, True, False, True, False]), Path.rename

    def rename(self: Path, target: Path) -> Path:
        if next(refusals):
            raise PermissionError(13, "Permission denied")
        return plain(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with new_folder(old_folder(tmp_path / "m"), overwrite=True) as scratch:
        (scratch / "file").write_text("new")
    assert (tmp_path / "m" / "file").read_text() == "new" and [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_folder_that_stays_in_use_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks_open_files: None
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(StorageError, match="m cannot be replaced while its files are open"),
        new_folder(old_folder(tmp_path / "m"), overwrite=True),
    ):
        pass
    assert (tmp_path / "m" / "file").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_replacement_that_was_cut_off_between_its_renames_loses_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    train_tiny("ngram-char", cache, **NGRAM).save_pretrained(tmp_path / "m")
    for name in (".m-b-abcdefgh", ".m-abcdefgh"):  # the first is that of another folder
        scratch = tmp_path / name
        scratch.mkdir()
        (scratch / "reviewgen.lock").touch()  # as a killed process leaves it
        (tmp_path / "m").rename(scratch / "old")
        recover(tmp_path / "m")
        if name.startswith(".m-b"):
            assert not (tmp_path / "m").exists()
            (scratch / "old").rename(tmp_path / "m")
        else:
            assert reviewgen.load(tmp_path / "m").preset == "ngram-char" and not scratch.exists()
    recover(tmp_path / "m-b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "m"]


class TwoFiles(LetterTokenizer):
    """Saves a file under two names that differ in case, or under one that a saved model has already."""

    names = ("A.json", "a.json")

    def save(self, folder: Path) -> None:
        for name in self.names:
            (folder / name).write_text("{}")


@pytest.mark.parametrize("names", [("A.json", "a.json"), ("Training.json",)])
def test_names_that_differ_only_in_case(names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoFiles, "names", names)
    bundle: Bundle = train_tiny("ngram-char", tmp_path / "cache", **NGRAM).bundle
    monkeypatch.setattr(bundle, "tokenizer", TwoFiles("ab"))
    with pytest.raises(BrokenPlugin, match=rf"saves {names[-1]}, which is the same file as .* on Windows and macOS"):
        write_bundle(bundle, tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    with pytest.raises(BundleError, match=f"and {names[-1]}, which are one file on Windows and macOS"):
        files_of({"tokenizer": {"files": list(names)}})


def test_a_worker_is_in_a_group_of_its_own_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []

    def refuse(command: list[str], **options: Any) -> None:
        started.append(options)
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)
    with pytest.raises(FileNotFoundError):
        workers._start_worker()
    assert started[0]["creationflags"] == 0x200


def test_an_array_on_disk_without_posix_fallocate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reviewgen_ngram.memory import Arena

    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    array = Arena(64).zeros((3, 700_000), "int32")
    array[2, 699_999] = 5
    assert array.nbytes > 1 << 23 and array.sum() == 5
    assert list(tmp_path.iterdir()) == []
