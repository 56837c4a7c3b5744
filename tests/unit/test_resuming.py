"""Runs that were cut short and go on: the same losses bit for bit, the same model, and a sentence for whatever does not fit."""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import CheckpointError, ConfigError, OutputExists
from reviewgen.training import checkpoints
from reviewgen.training.device import native_precision
from tests.support.fakes import TEXTS, run_command
from tests.support.forked import run_group, run_python

SMALL = {
    "model": {"hidden_size": 12, "embedding_size": 6, "layers": 2, "dropout": 0.3, "output_dropout": 0.2, "layer": "fused"},
    "training": {"batch_size": 4, "bptt": 8, "threads": 1, "precision": "no", "evaluations": 8}
    | {"copy_tokens": 0, "evaluation_tokens": 500},
}

ALONE = """if True:
    import json, os, signal, sys
    from tests.support.fakes import TEXTS
    from reviewgen import TrainingRun
    from reviewgen.training import checkpoints
    checkpoints._SHARE = 1.0  # a checkpoint every few steps of a small model
    out, kill_at, resume, options = json.loads(sys.argv[1])
    run = TrainingRun("lstm-char", TEXTS, out=out, resume=resume, **options)
    run.read()
    run.tokenize()
    for report in run:
        bits = report.evaluation and report.evaluation.bits_per_character.hex()
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps([report.step, report.nats_per_token.hex(), bits]), flush=True)
        if report.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    run.finish()
"""


@pytest.fixture(autouse=True)
def frequent(monkeypatch):
    """Let small models have checkpoints every few steps."""
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)


def options(**training):
    return SMALL | {"training": SMALL["training"] | {"checkpoint_seconds": 1e-9} | training}


def start(out, resume=False, preset="lstm-char", source=TEXTS, **given):
    run = TrainingRun(preset, source, out=out, resume=resume, **(options() | {"steps": 40} | given))
    run.read()
    run.tokenize()
    return run


def losses(reports):
    """Return the loss of each step, exactly, and the held-out figure where there is one."""
    return {
        report.step: (report.nats_per_token.hex(), report.evaluation and report.evaluation.bits_per_character)
        for report in reports
    }


def cut_short(out, step, **given):
    """Train to a step and leave everything as a dead process would; return the reports so far."""
    run = start(out, **given)
    reports = list(itertools.takewhile(lambda report: report.step < step, run))
    run._run_folder.checkpoints.close()
    return reports


def files_of(folder):
    """Return what is in a saved model, but for the time that it took."""
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.name not in ("training.json", "README.md", "manifest.json")
    }


def evaluations_of(folder):
    facts = json.loads((folder / "training.json").read_text())["evaluations"]
    return [{name: value for name, value in evaluation.items() if name != "seconds"} for evaluation in facts]


def alone(out, kill_at=None, resume=False, processes=1, fails=False, **given):
    """Train in a process of its own, or in several, which may kill themselves after a step; return what it printed of each.

    What fails returns what it said instead.
    """
    words = json.dumps([str(out), kill_at, resume, options() | given])
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    env = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = ["-c", ALONE, words]
    group = [run_python(command, env=env)] if processes == 1 else run_group(command, processes, env=env)
    said = "".join(done.stderr for done in group)
    if fails:
        assert [done.returncode for done in group] == [1] * processes
        return said
    assert [done.returncode for done in group] == [0 if kill_at is None else -signal.SIGKILL] * processes, said
    return {step: rest for done in group for step, *rest in map(json.loads, done.stdout.splitlines())}


def test_a_run_killed_twice_is_the_run_that_was_never_killed(tmp_path):
    given = {"steps": 64, **options(precision=native_precision("cpu"))}  # evaluations after steps 1, 4, 9, ...
    whole = alone(tmp_path / "whole", **given)
    assert list(whole) == list(range(1, 65))
    before = alone(tmp_path / "m", kill_at=26, **given)  # shortly after an evaluation
    between = alone(tmp_path / "m", kill_at=45, resume=True, **given)
    after = alone(tmp_path / "m", resume=True, **given)
    for part, kill_at in ((before, 26), (between, 45), (after, 64)):
        assert part == {step: whole[step] for step in range(min(part), kill_at + 1)}
    assert 1 < min(between) <= 27
    assert 27 < min(after) <= 46
    assert files_of(tmp_path / "m") == files_of(tmp_path / "whole")
    assert evaluations_of(tmp_path / "m") == evaluations_of(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "m", "whole"]


@pytest.mark.parametrize("preset", ["gru-char", "nnlm-char"])
def test_any_step_is_one_to_go_on_from(tmp_path, preset):
    given = {"preset": preset, "steps": 16, **({"model": {"hidden_size": 8}} if preset == "nnlm-char" else {})}
    run = start(tmp_path / "whole", **given)
    whole = losses(run)
    run.finish()
    for step in (2, 7, 9, 16):
        cut_short(tmp_path / "m", step, **given)
        run = start(tmp_path / "m", resume=True, **given)
        reports = list(run)
        assert losses(reports) == {number: whole[number] for number in range(step, 17)}
        assert reports[0].notes == (f"The run resumes from step {step - 1:,}.",)
        run.finish()
        assert files_of(tmp_path / "m") == files_of(tmp_path / "whole")
        shutil.rmtree(tmp_path / "m")


def test_random_lengths_go_on_as_they_would_have_been(tmp_path):
    given = options(bptt_random=True, bptt=64) | {"epochs": 1.5, "steps": None}
    run = start(tmp_path / "whole", **given)
    reports = list(run)
    whole, lengths = losses(reports), [report.bptt for report in reports]
    assert len(set(lengths)) > 2 and run.finish().training["curve"]["bptt"] == lengths
    for step in (len(reports) // 2, len(reports) - 2):  # within both epochs
        cut_short(tmp_path / "m", step, **given)
        run = start(tmp_path / "m", resume=True, **given)
        after = list(run)
        assert losses(after) == {number: whole[number] for number in range(step, len(whole) + 1)}
        assert [report.bptt for report in after] == lengths[step - 1 :]
        assert [report.tokens for report in after] == [report.tokens for report in reports[step - 1 :]]
        run.finish()
        assert files_of(tmp_path / "m") == files_of(tmp_path / "whole")
        shutil.rmtree(tmp_path / "m")


def test_patience_and_the_best_weights_go_on(tmp_path):
    """A rate that spoils the weights: the run goes back to its best ones, lowers the rate, and ends early."""
    given = options(learning_rate=0.5, warmup=0.3, patience=2, evaluations=20) | {"preset": "rnn-char", "steps": 120}
    run = start(tmp_path / "whole", **given)
    reports = list(run)
    run.finish()
    turn = next(report.step for report in reports if any("Held-out text got no better" in note for note in report.notes))
    last = reports[-1].step
    assert turn < last < 120
    for step in (turn - 1, turn, turn + 1, last - 1):  # before the annealing, at its start, and within it
        cut_short(tmp_path / "m", step, **given)
        run = start(tmp_path / "m", resume=True, **given)
        assert list(run)[-1].step == last
        assert run.finish().training["stopped"].startswith("early")
        assert files_of(tmp_path / "m") == files_of(tmp_path / "whole")
        assert evaluations_of(tmp_path / "m") == evaluations_of(tmp_path / "whole")
        shutil.rmtree(tmp_path / "m")


def test_a_run_with_a_budget_goes_on_with_the_time_that_was_left(tmp_path, monkeypatch):
    now, later = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now() + later)
    given = {"budget": "600s", "steps": None}
    before = cut_short(tmp_path / "m", 9, **given)
    later = 1000.0  # in which nobody trains
    after = []
    for report in (run := start(tmp_path / "m", resume=True, **given)):
        after.append(report)
        later += 600 * (report.step == 12)
    assert [report.step for report in after] == [9, 10, 11, 12, 13]
    assert before[-1].seconds < after[0].seconds < 300
    assert before[-1].progress < after[0].progress < after[3].progress < 0.5
    assert (after[4].progress, after[4].stopped) == (1, "budget spent")
    assert 600 < run.finish().training["seconds"] < 900


def test_what_a_run_leaves_on_disk(tmp_path):
    run = start(tmp_path / "m", **options(checkpoints_kept=3))
    folder = tmp_path / "m.run"
    for report in run:
        if report.step == 10:
            assert sorted(path.name for path in folder.iterdir()) == [
                ".lock",
                ".lock.pid",
                "run.json",
                *(f"step-0000000{n}" for n in (7, 8, 9)),
            ]
            assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {"", ".json", ".pid", ".safetensors"}
            told = json.loads((folder / "run.json").read_text())
            assert (told["schema"], told["preset"], told["source"]) == (1, "lstm-char", "list of texts")
            assert told["settings"]["model"]["hidden_size"] == 12
            assert told["fingerprint"] == run.corpus.fingerprint
    run.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "m"]
    for given in (options(checkpoint_seconds=0), options(checkpoint_seconds=3600)):
        run = start(tmp_path / "n", **given)
        assert {len(list((tmp_path / "n.run").iterdir())) for _ in run} == {3}
        del run
        assert not (tmp_path / "n.run").exists()  # nothing was reached, so nothing is left


def test_an_interrupted_run_is_saved_and_leaves_no_checkpoints(tmp_path):
    run = start(tmp_path / "m")
    for report in run:
        if report.step == 20:
            break
    run.interrupt()
    run.finish()
    assert reviewgen.load(tmp_path / "m").training["steps"] == 20
    assert not (tmp_path / "m.run").exists()


def test_what_a_run_left_is_not_started_over_in_silence(tmp_path):
    cut_short(tmp_path / "m", 9)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=r"m\.run holds a run of lstm-char on list of texts .* step 8\b.*--resume.*remove"):
        start(tmp_path / "m")
    with pytest.raises(CheckpointError, match="--resume"):
        start(tmp_path / "m", preset="ngram-char", model={}, training={}, steps=None)
    assert sorted(tmp_path.rglob("*")) == before
    shutil.rmtree(tmp_path / "m.run")
    assert next(iter(start(tmp_path / "m"))).step == 1


def test_there_must_be_something_to_go_on_with(tmp_path):
    with pytest.raises(CheckpointError, match=r"no run to resume.*m\.run does not exist"):
        start(tmp_path / "m", resume=True)
    assert not (tmp_path / "m.run").exists()
    with pytest.raises(ConfigError, match="give out"):
        start(None, resume=True)
    (tmp_path / "m.run").mkdir()
    with pytest.raises(CheckpointError, match="no run to resume in"):
        start(tmp_path / "m", resume=True)
    (tmp_path / "m.run").mkdir(exist_ok=True)
    (tmp_path / "m.run" / "diary.txt").write_text("my own")
    for resume in (True, False):
        with pytest.raises(CheckpointError, match="holds no run that can be resumed"):
            start(tmp_path / "m", resume=resume)
    assert [path.name for path in (tmp_path / "m.run").iterdir()] == ["diary.txt"]


FOREIGN = {
    "a file of the same name": {"run.json": '{"my": "thesis"}'},
    "no JSON": {"run.json": "thesis"},
    "the digest alone": {"saved.json": "thesis"},
    "a hidden folder": {".step-by-step/thesis.txt": "thesis"},
    "a checkpoint of another tool": {"step-00000100/weights.bin": "thesis"},
    "a lock with content": {".lock": "thesis"},
    "a holder with content": {".lock.pid": "thesis", "diary.txt": "mine"},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_of_another_kind_is_left_as_it_is(tmp_path, files):
    folder = tmp_path / "m.run"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for resume in (False, True):
        with pytest.raises(CheckpointError):
            start(tmp_path / "m", resume=resume)
        assert {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()} == files


def test_counting_has_no_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match=r"ngram-char is trained by counting.*starts over"):
        TrainingRun("ngram-char", TEXTS, out=tmp_path / "m", resume=True)
    reviewgen.train("ngram-char", TEXTS, out=tmp_path / "m")
    assert not (tmp_path / "m.run").exists()


def test_a_run_that_died_before_its_first_checkpoint_begins_again(tmp_path):
    given = options(checkpoint_seconds=3600)
    whole = losses(start(None, **given))
    folder = tmp_path / "m.run"
    run = start(tmp_path / "m", **given)
    told = (folder / "run.json").read_bytes()
    del run
    folder.mkdir()
    (folder / "run.json").write_bytes(told)  # what SIGKILL leaves
    run = start(tmp_path / "m", resume=True, **given)
    reports = list(run)
    assert losses(reports) == whole
    assert "starts again" in reports[0].notes[0]


OTHERS = [
    ({"preset": "gru-char"}, "is a run of lstm-char, not of gru-char"),
    ({"model": SMALL["model"] | {"hidden_size": 16}}, "started with model.hidden_size=12, not model.hidden_size=16"),
    (options(bptt_random=True), "training.bptt_random=false, not training.bptt_random=true"),
    (options(bptt=9), "training.bptt=8, not training.bptt=9"),
    ({"seed": 1}, "seed=0, not seed=1"),
    ({"steps": 41}, "budget.steps=40, not budget.steps=41"),
    ({"steps": None, "budget": "5s"}, "budget.seconds=null, budget.steps=40, not budget.seconds=5.0, budget.steps=null"),
    ({"lowercase": True}, "data.lowercase=false, not data.lowercase=true"),
    ({"source": TEXTS[1:]}, "started on another corpus"),
    ({"source": TEXTS, "validation": ["another one"]}, "started on another corpus"),
]


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What a run that was cut short has left, and its token cache; to be copied."""
    root = tmp_path_factory.mktemp("left")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REVIEWGEN_CACHE", str(root / "cache"))
        patch.setattr(checkpoints, "_SHARE", 1e9)
        cut_short(root / "m", 9)
    return root / "m.run"


@pytest.mark.parametrize(("given", "words"), OTHERS, ids=[words for _, words in OTHERS])
def test_another_run_does_not_go_on(tmp_path, left, given, words):
    shutil.copytree(left, tmp_path / "m.run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("step-*/*")}
    with pytest.raises(CheckpointError, match=words):
        start(tmp_path / "m", resume=True, **given)
    assert {path: path.read_bytes() for path in tmp_path.rglob("step-*/*")} == before
    assert next(iter(start(tmp_path / "m", resume=True, **options(checkpoints_kept=5)))).step == 9  # that may change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "is newer than this one"),
        ({"versions": {"reviewgen": "99.1.0"}}, "started by reviewgen 99.1.0, which is newer"),
        ({"versions": {}}, "is damaged"),
        ({"preset": 3}, "is damaged"),
        ("[]", "is damaged"),
        ("{", "is damaged"),
        ("[" * 100_000 + "]" * 100_000, "is damaged"),
        ('{"settings": ' * 100_000 + "1" + "}" * 100_000, "is damaged"),
    ],
)
def test_what_a_newer_or_broken_version_wrote_does_not_go_on(tmp_path, left, change, words):
    shutil.copytree(left, tmp_path / "m.run")
    file = tmp_path / "m.run" / "run.json"
    file.write_text(change if isinstance(change, str) else json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=words):
        start(tmp_path / "m", resume=True)
    assert (tmp_path / "m.run" / "step-00000008").is_dir()


def test_another_version_of_torch_is_said(tmp_path, left):
    shutil.copytree(left, tmp_path / "m.run")
    file = tmp_path / "m.run" / "run.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"versions": told["versions"] | {"torch": "2.0.0"}}))
    (said,) = (note for note in next(iter(start(tmp_path / "m", resume=True))).notes if "torch" in note)
    assert "started with torch 2.0.0" in said


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink, lambda file: file.write_bytes(b"")])
@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "digests.json"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, left, harm, name):
    shutil.copytree(left, tmp_path / "m.run")
    harm(tmp_path / "m.run" / "step-00000008" / name)
    run = start(tmp_path / "m", resume=True)
    report = next(iter(run))
    assert report.step == 8
    assert report.notes == (
        "The checkpoint of step 8 is damaged; that of step 7 is used.",
        "The run resumes from step 7.",
    )
    run._run_folder.checkpoints.close()
    harm(tmp_path / "m.run" / "step-00000007" / name)
    with pytest.raises(CheckpointError, match=r"Every checkpoint in .* is damaged. Remove"):
        start(tmp_path / "m", resume=True)
    assert (tmp_path / "m.run" / "step-00000007").is_dir()


def _replace(folder, name, content):
    """Replace a file of a checkpoint by one that its digest fits."""
    (folder / name).write_bytes(content)
    digests = json.loads((folder / "digests.json").read_bytes())
    (folder / "digests.json").write_text(json.dumps(digests | {name: checkpoints._digest(content)}))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.safetensors", b"\xff" * 8 + b"{}"),
        ("state.safetensors", (10).to_bytes(8, "little") + b"not JSON. "),
        ("state.safetensors", b"\0" * 7),
        ("state.safetensors", (200_000).to_bytes(8, "little") + b"[" * 100_000 + b"]" * 100_000),
        ("state.json", b"[" * 100_000 + b"]" * 100_000),
        ("state.json", b"{}"),
    ],
    ids=["length", "header", "short", "nested", "nested-json", "empty-json"],
)
def test_a_checkpoint_that_fits_its_digest_and_cannot_be_read_is_passed_over(tmp_path, left, name, content):
    shutil.copytree(left, tmp_path / "m.run")
    _replace(tmp_path / "m.run" / "step-00000008", name, content)
    run = start(tmp_path / "m", resume=True)
    assert next(iter(run)).notes[0] == "The checkpoint of step 8 is damaged; that of step 7 is used."


def test_what_was_being_written_when_the_power_went_is_no_checkpoint(tmp_path, left):
    shutil.copytree(left, tmp_path / "m.run")
    (tmp_path / "m.run" / ".step-abc").mkdir()
    (tmp_path / "m.run" / ".step-abc" / "state.safetensors").write_bytes(b"half")
    assert next(iter(start(tmp_path / "m", resume=True))).step == 9
    assert not (tmp_path / "m.run" / ".step-abc").exists()


def test_two_runs_do_not_share_a_folder(tmp_path):
    first = start(tmp_path / "m")
    next(iter(first))
    for resume in (False, True):
        with pytest.raises(CheckpointError, match=rf"m\.run is in use by another run \(process {os.getpid()}\)"):
            start(tmp_path / "m", resume=resume)
    list(first)
    first.finish()
    with pytest.raises(OutputExists):
        start(tmp_path / "m", resume=True)


def test_a_full_disk_does_not_end_the_run(tmp_path, monkeypatch):
    plain = checkpoints.Checkpoints.write

    def write(file, content):
        if file.name == full_for:
            plain(file, content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(file, content)

    monkeypatch.setattr(checkpoints.Checkpoints, "write", staticmethod(write))
    full_for, said = "", {}
    run = start(tmp_path / "m")
    for report in run:
        full_for = {10: "state.safetensors", 15: "state.json", 18: "digests.json", 20: ""}.get(report.step, full_for)
        if 11 < report.step <= 20:
            assert run._run_folder.checkpoints.steps() == [8, 9]
            assert len(list((tmp_path / "m.run").iterdir())) == 5
        said |= {report.step: report.notes} if report.notes else {}
    assert list(said) == [11]
    assert said[11][0].startswith("No checkpoint at step 10: No room to write")
    assert said[11][0].endswith("Training continues; the last checkpoint is of step 9.")
    assert said[11][0] in run.finish().training["notes"]


def test_a_checkpoint_that_could_not_be_read_again_is_not_saved(tmp_path, monkeypatch):
    run, said = start(tmp_path / "m"), {}
    for report in run:
        monkeypatch.setattr(checkpoints, "MAX_VOCABULARY", 1 << (10 if report.step in (10, 11, 12) else 26))
        said |= {report.step: report.notes} if report.notes else {}
        if report.step == 13:
            assert run._run_folder.checkpoints.steps() == [8, 9]
            break
    note = (
        f"No checkpoint at step 10: {tmp_path / 'm.run'}/step-00000010/state.json cannot be saved: it would be larger than 0 MB."
    )
    assert said == {11: (f"{note} Training continues; the last checkpoint is of step 9.",)}


def test_a_folder_that_was_taken_away_is_not_written_to(tmp_path):
    first = start(tmp_path / "m")
    reports = iter(first)
    next(reports)
    shutil.rmtree(tmp_path / "m.run")
    second = start(tmp_path / "m")
    others = iter(second)
    for _ in range(9):
        next(others)
    notes = [note for report in reports for note in report.notes]
    assert len(notes) == 1
    assert "the folder was removed" in notes[0]
    del reports
    first._run_folder.checkpoints.discard()
    assert second._run_folder.checkpoints.steps() == [7, 8]
    assert (tmp_path / "m.run" / "run.json").is_file()


def test_two_processes_killed_go_on_as_if_they_had_not_been(tmp_path):
    """Their states, their drawn dropout, the first one's checkpoint: the losses are those of a run that nobody killed."""
    given = {"steps": 48, **options(batch_size=2)}
    whole = alone(tmp_path / "whole", processes=2, **given)
    assert list(whole) == list(range(1, 49))
    before = alone(tmp_path / "m", kill_at=27, processes=2, **given)
    with pytest.raises(CheckpointError, match="was started with processes=2, not processes=1"):
        start(tmp_path / "m", resume=True, **given)
    said = alone(tmp_path / "m", processes=2, fails=True, **given)  # the first one says why, and the other does not wait for it
    assert "m.run holds a run of lstm-char" in said and "The main process failed; its own error message says why." in said
    after = alone(tmp_path / "m", resume=True, processes=2, **given)
    for part in before, after:
        assert part == {step: whole[step] for step in part}
    assert list(before) == list(range(1, 28)) and 1 < min(after) <= 28 and max(after) == 48
    assert files_of(tmp_path / "m") == files_of(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "m", "whole"]


def test_the_disk_s_own_word(tmp_path):
    """A limit on the size of files stands for a full disk."""
    script = """if True:
        import resource, sys, torch
        from pathlib import Path
        from reviewgen.training import Checkpoints
        kept = Checkpoints(Path(sys.argv[1]), 60.0, 2)
        kept.open()
        kept.save(1, {"seconds": 1.0, "weights": torch.ones(1000)})
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        kept.save(2, {"seconds": 2.0, "weights": torch.zeros(1000)})
        print(*kept.pop_notes())
        kept.load()
        print(kept.steps(), kept.seconds, float(kept.pop_state()["weights"].sum()), len(list(Path(sys.argv[1]).iterdir())))
    """
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "m.run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, found = done.stdout.splitlines()
    assert said.startswith("No checkpoint at step 2: No room to write") and "File too large" in said
    assert found == "[1] 1.0 1000.0 3"


def test_checkpoints_take_a_hundredth_of_the_time_at_most(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoints, "_SHARE", 0.01)
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    kept = checkpoints.Checkpoints(tmp_path / "m.run", 60.0, 2)
    kept.open()
    found = []
    plain = kept._write

    def write(*words):
        plain(*words)
        now[0] += 2.0  # a slow disk

    monkeypatch.setattr(kept, "_write", write)
    for second in range(1000):
        now[0] = max(now[0], float(second))
        if kept.is_due():
            found.append(second)
            kept.save(second, {"seconds": 0.0})
    assert found == [60, 262, 464, 666, 868]


def test_a_command_goes_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS))
    words = ["train", "lstm-char", "--data", tmp_path / "reviews.txt", "--out", tmp_path / "m", "--steps", 40]
    for group, values in options().items():
        words += itertools.chain.from_iterable(("--set", f"{group}.{name}={value}") for name, value in values.items())
    cut_short(tmp_path / "m", 9, source=tmp_path / "reviews.txt")
    status, out, said = run_command(monkeypatch, capsys, *words)
    assert (status, out) == (1, "")
    assert "error: " in said and "--resume" in said and "step 8" in said
    status, out, said = run_command(monkeypatch, capsys, *words, "--resume")
    assert status == 0, said
    assert "The run resumes from step 8." in said
    assert f"Saved in {tmp_path / 'm'}" in out
    assert not (tmp_path / "m.run").exists()
    status, _, said = run_command(monkeypatch, capsys, *words, "--resume")
    assert (status, said.count("already exists")) == (1, 1)


def test_a_run_of_an_earlier_version_that_names_fewer_settings_is_resumed(tmp_path, left):
    shutil.copytree(left, tmp_path / "m.run")
    file = tmp_path / "m.run" / "run.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    del told["settings"]["data"]["fix_encoding"]
    file.write_text(json.dumps(told), encoding="utf-8")
    assert next(iter(start(tmp_path / "m", resume=True))).step == 9
