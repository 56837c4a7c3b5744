"""Several processes write and judge texts: as one process does, byte for byte; and none waits in vain for another."""

import json
import time
from types import SimpleNamespace

import pytest

import reviewgen
from tests.support.fakes import NGRAM, train_tiny
from tests.support.launches import launch, made_once
from tests.unit.test_writing import REVIEWS, files_of

SMALL = {
    "reviewgen.training.rounds.SECONDS": 0.1,
    "reviewgen.writing.judging._PART_TEXTS": 7,
    "reviewgen.evaluation.losses._BATCH_TEXTS": 7,
}
SCHEMA = {"stars": {"5": 2, "1": 1}}
GENERATED = {
    "plain": {"n": 300, "seed": 1, "shard_texts": 90},
    "unique": {"n": 200, "seed": 2, "unique": True, "columns": True, "max_new_tokens": 2, "schema": SCHEMA, "format": "parquet"},
    "few": {"n": 65, "seed": 3, "columns": True},  # two parts for three processes
}
JUDGED = {"score": "scored.parquet", "novelty": "copies"}

TOOLS = """
import contextlib, errno, importlib, io, json, os, signal, sys, time
import reviewgen
from reviewgen.cli import main
from reviewgen.errors import ReviewgenError
from reviewgen.writing import evaluating, judging, parts

rank, (small, generated, judged) = int(os.environ["RANK"]), json.load(open("settings.json"))
for name, value in small.items():
    module, _, attribute = name.rpartition(".")
    setattr(importlib.import_module(module), attribute, value)
facts, write, wrote, is_killed, last = {}, parts.TextPart.write, [], False, sys.argv[1]

def counted(part, rows, *how):
    wrote.append(part.number)
    if rank == 1 and is_killed and len(wrote) == 2:
        with open(f"{name}.json", "w") as file:
            json.dump(time.time(), file)
        os.kill(os.getpid(), signal.SIGKILL)
    write(part, rows, *how)

parts.TextPart.write = counted

def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

def damaged(file):
    raise ValueError("it is larger than 1 MB")

def command(name, *words):
    sys.argv[1:] = words
    with contextlib.redirect_stderr(io.StringIO()) as problem, contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code
    facts[name] = {"status": status, "stdout": said.getvalue(), "stderr": problem.getvalue()}

def attempt(name, call):
    try:
        call()
    except ReviewgenError as error:
        facts[name] = f"{type(error).__name__}: {error}"

"""

CALLS = """
for name, options in generated.items():
    wrote.clear()
    reviewgen.generate_dataset("./model", out=f"many/{name}", **options)
    facts[name] = list(wrote)
reviewgen.score_dataset("./model", "reviews.jsonl", out="many/" + judged["score"], text_column="text")
command("novelty", "novelty", "./model", "--data", "reviews.jsonl", "--text-column", "text", "--out", "many/" + judged["novelty"])
model, result = evaluating.evaluate("./model", "reviews.jsonl", text_column="text")
facts["evaluated"] = [result.bits_per_character, result.characters, result.tokens, result.reviews]
command("evaluate", "evaluate", "./model", "--data", "reviews.jsonl", "--text-column", "text")
command("again", "generate", "./model", "-n", "65", "--out", "many/few", "--seed", "3", "--columns")
command("other", "generate", "./model", "-n", "66", "--out", "many/few", "--seed", "3", "--columns")
command("different", "generate", "./model", "-n", str(5 + (rank == 1)), "--out", "many/different")
command("models", "generate", "./model2" if rank == 2 else "./model", "-n", "5", "--out", "many/models")
command("one", "generate", "./model", "-n", "5", "--out", "many/one", *["--temperature", "-1"][: 2 * (rank == 2)])
read_json = judging.read_json
judging.read_json = damaged if rank == 2 else read_json
command("damaged", "score", "./model", "--data", "reviews.jsonl", "--text-column", "text", "--out", "many/damaged")
judging.read_json = read_json
command("device", "generate", "./model", "-n", "5", "--out", "many/device", *["--device", "cuda"][: 2 * (rank == 1)])
parts.TextPart.write = full if rank == 1 else counted
command("full", "generate", "./model", "-n", "640", "--seed", "6", "--out", "many/full")
parts.TextPart.write = counted
command("nowhere", "generate", "./model", "-n", "5")
command("no table", "score", "./model", "--data", "reviews.jsonl")
command("descriptor", "evaluate", "./model", "--data", "/dev/fd/0")
command("stdin", "score", "./model", "--data", "-", "--out", "many/stdin")
command("prompts", "generate", "./model", "--prompts", "-", "--out", "many/prompts")
texts = [json.loads(line)["text"] for line in open("reviews.jsonl")]
attempt("order", lambda: reviewgen.score_dataset("./model", texts[:: -1 if rank == 1 else 1], out="many/order"))
attempt("length", lambda: reviewgen.novelty_dataset("./model", texts[: 9 if rank == 2 else 60], out="many/length"))
attempt("evaluation", lambda: evaluating.evaluate("./model", texts[: 9 if rank == 0 else 60]))
with open(f"facts.{rank}.json", "w") as file:
    json.dump(facts, file)
"""

KILLED = """
is_killed = True
wrote.clear()
words = {
    "killed": ["generate", "./model", "-n", "640", "--seed", "6"],
    "judged": ["score", "./model", "--data", "reviews.jsonl", "--text-column", "text"],
}
name = last
command(name, *words[name], "--out", f"many/{name}")
with open(f"lost.{name}.{rank}.json", "w") as file:
    json.dump(facts[name], file)
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Run the calls in three processes, once for all workers of pytest-xdist; at the end, one of the processes is killed."""
    folder = made_once(tmp_path_factory, "written", _launch)
    ended = json.loads((folder / "launched.json").read_text())
    assert (folder / "facts.2.json").exists(), ended
    facts = [json.loads((folder / f"facts.{rank}.json").read_text()) for rank in range(3)]
    return SimpleNamespace(folder=folder, facts=facts, ended=ended)


def _launch(folder):
    cache = folder / "cache"
    train_tiny("ngram-char", cache, REVIEWS, conditions=["stars", "genre"], **NGRAM).save_pretrained(folder / "model")
    train_tiny("ngram-char", cache, REVIEWS[:40], **NGRAM).save_pretrained(folder / "model2")
    (folder / "reviews.jsonl").write_text("\n".join(map(json.dumps, REVIEWS)), encoding="utf-8")
    (folder / "killed.py").write_text(TOOLS + CALLS + KILLED, encoding="utf-8")
    (folder / "judged.py").write_text(TOOLS + KILLED, encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps([SMALL, GENERATED, JUDGED]), encoding="utf-8")
    ended = {}
    for name in ("killed", "judged"):
        done = launch(3, folder, f"{name}.py", name, timeout=300)
        ended[name] = [done.returncode, time.time(), done.stderr]
    (folder / "launched.json").write_text(json.dumps(ended))


@pytest.fixture
def folder(launched, monkeypatch):
    monkeypatch.chdir(launched.folder)
    for name, value in SMALL.items():
        monkeypatch.setattr(name, value)
    return launched.folder


@pytest.mark.parametrize("name", GENERATED)
def test_three_processes_write_the_files_of_one(name, launched, folder, tmp_path):
    reviewgen.generate_dataset("./model", out=tmp_path / name, **GENERATED[name])
    assert files_of(folder / "many" / name) == files_of(tmp_path / name)
    shares = [facts[name] for facts in launched.facts]
    numbers = [number for share in shares for number in share]
    assert sorted(numbers) == list(range(len(numbers)))
    assert sum(map(bool, shares)) == (2 if name == "few" else 3)


def test_three_processes_judge_as_one(folder, tmp_path):
    options = {"text_column": "text"}
    one = reviewgen.score_dataset("./model", "reviews.jsonl", out=tmp_path / JUDGED["score"], **options)
    assert (folder / "many" / JUDGED["score"]).read_bytes() == one.out.read_bytes()
    reviewgen.novelty_dataset("./model", "reviews.jsonl", out=tmp_path / JUDGED["novelty"], **options)
    assert files_of(folder / "many" / JUDGED["novelty"]) == files_of(tmp_path / JUDGED["novelty"])


def test_three_processes_evaluate_as_one_bit_for_bit(launched, folder):
    whole = reviewgen.load("./model").evaluate("reviews.jsonl", text_column="text")
    expected = [whole.bits_per_character, whole.characters, whole.tokens, whole.reviews]
    assert [facts["evaluated"] for facts in launched.facts] == [expected] * 3
    assert [bool(facts["evaluate"]["stdout"]) for facts in launched.facts] == [True, False, False]


def test_one_process_speaks(launched):
    for name in ("novelty", "again"):
        assert not any(facts[name]["status"] for facts in launched.facts)
        assert [bool(facts[name]["stdout"]) for facts in launched.facts] == [True, False, False]
    assert "complete already" in launched.facts[0]["again"]["stdout"]


@pytest.mark.parametrize(
    ("name", "speaker", "problem"),
    [
        ("other", 0, "n differ"),
        ("different", 0, "different settings: n"),
        ("models", 0, "different settings: model"),
        ("one", 2, "temperature"),
        ("device", 1, "on the CPU only: leave out the device cuda"),
    ],
)
def test_a_mistake_is_said_once_and_ends_all(name, speaker, problem, launched, folder):
    said = [facts[name]["stderr"] for facts in launched.facts]
    assert problem in said[speaker] and len(said[speaker].splitlines()) == 1
    assert [bool(each) for each in said] == [rank == speaker for rank in range(3)]
    assert [facts[name]["status"] for facts in launched.facts] == [1, 1, 1]
    assert name == "other" or not list((folder / "many").glob(f"{name}*"))


def test_sums_that_one_process_cannot_read_end_all(launched):
    said = [facts["damaged"]["stderr"] for facts in launched.facts]
    assert [facts["damaged"]["status"] for facts in launched.facts] == [1, 1, 1]
    assert "error" not in said[0] + said[1]
    place = "many/damaged.partial"
    assert said[2] == f"error: {place}/sums/0 is damaged. Remove {place} to start over.\n"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere", "give --out FOLDER"),
        ("no table", "give --out FOLDER"),
        ("stdin", "standard input"),
        ("descriptor", "standard input"),
        ("prompts", "standard input"),
    ],
)
def test_command_lines_that_several_processes_refuse(name, problem, launched):
    assert [facts[name]["status"] for facts in launched.facts] == [1, 1, 1]
    said = [facts[name]["stderr"] for facts in launched.facts]
    assert sum(map(bool, said)) == 1 and problem in "".join(said)  # by the first that finds it


@pytest.mark.parametrize("name", ["order", "length", "evaluation"])
def test_texts_that_are_no_files_are_the_same_in_all_processes(name, launched, folder):
    said = [facts[name] for facts in launched.facts]
    assert said[0].startswith("TrainingError: The processes have different settings: the texts.")
    assert all(each.startswith("ProcessLost") for each in said[1:])
    assert not (folder / "many" / name).exists()


@pytest.mark.parametrize("name", ["killed", "judged"])
def test_a_killed_process_is_noticed_and_the_same_command_goes_on(name, launched, folder, tmp_path):
    status, ended, _ = launched.ended[name]
    assert status == 1 and ended - json.loads((folder / f"{name}.json").read_text()) < 60
    out = folder / f"many/{name}"
    finished = {file.name for file in (folder / f"many/{name}.partial/parts").glob("*.jsonl")}
    assert not out.exists() and len(finished) >= 1
    for place in (out, tmp_path / name):
        if name == "killed":
            reviewgen.generate_dataset("./model", 640, out=place, seed=6)
        else:
            reviewgen.score_dataset("./model", "reviews.jsonl", out=place, text_column="text")
    assert files_of(out) == files_of(tmp_path / name) and not (folder / f"many/{name}.partial").exists()


def test_a_full_disk_of_one_process_ends_all_and_the_same_command_goes_on(launched, folder, tmp_path):
    said = [facts["full"] for facts in launched.facts]
    assert [each["status"] for each in said] == [1, 1, 1] and not (folder / "many/full").exists()
    assert "No space left on device" in said[1]["stderr"] and len(said[1]["stderr"].splitlines()) == 1
    assert said[0]["stderr"] == said[2]["stderr"] == ""
    for place in (folder / "many/full", tmp_path / "full"):
        reviewgen.generate_dataset("./model", 640, out=place, seed=6)
    assert files_of(folder / "many/full") == files_of(tmp_path / "full")
