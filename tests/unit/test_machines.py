"""Two machines, joined by a cable and sharing nothing but the store, do what one does; and the one that is left says so."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

import reviewgen
from reviewgen.preparation.prepare import prepare_store
from tests.support.launches import made_once
from tests.support.machines import Machine, Running, machines, why_no_machines
from tests.unit.test_prepare import files_of, texts

pytestmark = pytest.mark.skipif(why_no_machines() is not None, reason=str(why_no_machines()))

TRAINING = {"learning_rate": 0.001, "bptt": 16, "precision": "no", "threads": 1, "evaluations": 4, "copy_tokens": 0}
TRAINING |= {"novelty": "none", "optimizer": "adamw"}  # Muon of torch rounds gradients to bfloat16: differences grow
MODEL = {"hidden_size": 12, "embedding_size": 6, "layer": "fused"}
NGRAM = {"order": 4}
PART_BYTES = {"reviewgen.data.spans._MIN_BYTES": 1, "reviewgen.preparation.reading._PART_BYTES": 1 << 12}
LOST = "error: Another process has ended or does not answer"

JOB = """
import contextlib, importlib, json, os, signal, sys, time
from functools import partial

rank = int(os.environ["RANK"])
if rank:  # a clock that is hours behind, in another time zone
    os.environ["TZ"] = "Pacific/Auckland"
    time.tzset()
    for name, shift in (("time", -10_000.0), ("monotonic", 1e6)):
        setattr(time, name, partial(lambda clock, shift: clock() + shift, getattr(time, name), shift))

from reviewgen.cli import main
from reviewgen.preparation import run
from reviewgen.runs import start
from reviewgen.training import checkpoints, loop
from reviewgen.writing import generating
from reviewgen_ngram.model import Ngram

shared, action, mark = sys.argv[1:4]
settings, small = json.load(open(f"{shared}/settings.json"))
for name, value in small.items():
    module, _, attribute = name.rpartition(".")
    setattr(importlib.import_module(module), attribute, value)
checkpoints._SHARE = 1.0

def hang_on_one(function, nth):  # the machine of rank 1 stands still in a call, and is removed by the test
    calls = []
    def called(*args, **options):
        calls.append(None)
        if rank == 1 and len(calls) == nth:
            open(mark, "w").close()
            time.sleep(600)
        return function(*args, **options)
    return called

if "stop-prepare" in action:
    run._clean = hang_on_one(run._clean, 3)
if "stop-train" in action:
    loop.Loop.train_step = hang_on_one(loop.Loop.train_step, 12)
if "restart-train" in action and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and rank:
    step, reports = loop.Loop.train_step, []
    def killed(*args):
        reports.append(None)
        if len(reports) == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args)
    loop.Loop.train_step = killed
if "stop-count" in action:
    Ngram.observe = hang_on_one(Ngram.observe, 100)
if "stop-generate" in action:
    generating._Job.generate = hang_on_one(generating._Job.generate, 2)

def command(name, *words):
    sys.argv[1:] = words
    begin = time.monotonic()
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code
    with open(f"{name}.json", "w") as file:
        json.dump({"status": status, "seconds": time.monotonic() - begin}, file)

def setting(group, values):
    return [word for name, value in values.items() for word in ("--set", f"{group}.{name}={value}")]

data = f"{shared}/reviews.txt"
own = [*setting("training", settings["training"]), *setting("model", settings["model"])]
gru = ["train", "gru-char", "--epochs", "1", "--set", "training.batch_size=3", *own]
short = ["train", "gru-char", "--steps", "30", "--set", "training.batch_size=3", *own]
ngram = ["train", "ngram-char", *setting("model", settings["ngram"]), "--set", "training.novelty=none"]
for part in action.split(","):
    if part.endswith("prepare"):
        command(part, "prepare", data, "--preset", "gru-char", "--out", f"{shared}/store")
    if part == "restart-train":
        seconds = ["--set", "training.checkpoint_seconds=0.001"]
        command(part, *short, *seconds, "--data", f"{shared}/store", "--out", f"{shared}/restarted")
    elif part.endswith("train"):
        seconds = ["--set", "training.checkpoint_seconds=0.001"]
        resume = ["--resume"] if part == "resume-train" else []
        command(part, *gru, *seconds, "--data", f"{shared}/store", "--out", f"{shared}/gru", *resume)
    if part.endswith("count"):
        command(part, *ngram, "--data", data, "--out", f"{shared}/ngram")
    if part.endswith("generate"):
        words = ["-n", "600", "--seed", "5", "--columns", "--max-new-tokens", "30", "--format", "jsonl"]
        command(part, "generate", f"{shared}/ngram", *words, "--out", f"{shared}/texts")
    if part == "arguments":
        command(part, *gru, "--data", f"{shared}/store", "--out", f"{shared}/no", "--seed", str(rank))
    if part == "unknown":
        command(part, *gru, "--data", f"{shared}/store", "--out", f"{shared}/no", *["--budget", "soon"][: 2 * rank])
    if part == "versions":
        before, start.__version__ = start.__version__, f"1.{rank}"
        command(part, *gru, "--data", f"{shared}/store", "--out", f"{shared}/no")
        start.__version__ = before
    if part == "tokenizers":
        size = ["--set", f"tokenizer.vocab_size={500 + rank}"]
        command(part, "prepare", data, "--preset", "gru-word", "--out", f"{shared}/no", *size)
sys.exit(json.load(open(f"{part}.json"))["status"])
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run all the launches, once for all workers of pytest-xdist."""
    folder = made_once(tmp_path_factory, "machines", _work)
    return SimpleNamespace(folder=folder, shared=folder / "shared", runs=json.loads((folder / "runs.json").read_text()))


def _work(folder: Path) -> None:
    """Do all phases on two machines; each is once ended in the middle, and goes on."""
    shared = folder / "shared"
    shared.mkdir()
    (shared / "reviews.txt").write_text("\n".join(texts(700)), encoding="utf-8")
    settings = {"training": TRAINING, "model": MODEL, "ngram": NGRAM}
    (shared / "settings.json").write_text(json.dumps([settings, PART_BYTES]))
    (folder / "job.py").write_text(JOB, encoding="utf-8")
    runs: dict[str, Any] = {}
    with machines(folder) as both:

        def launch(action: str, *options: str, **environment: str) -> list[Running]:
            words = [str(folder / "job.py"), str(shared), action, str(folder / action)]
            return [machine.launch(*words, options=options, **environment) for machine in both]

        def finish(action: str, *options: str, seconds: float = 120.0, **environment: str) -> None:
            running = launch(action, *options, **environment)
            runs[action] = {"status": [each.wait(seconds) for each in running], "said": [each.said() for each in running]}

        def lose(action: str, *, by_link: bool = False) -> None:
            """Let the second machine vanish when it says so."""
            left, lost = launch(action)
            _wait_for(folder / action, left)
            start = time.monotonic()
            if by_link:
                both[1].set_link("down")
            else:
                lost.kill()
            status = left.wait(90)
            runs[action] = {"status": status, "said": left.said(), "seconds": time.monotonic() - start}
            lost.kill()
            both[1].set_link("up")

        lose("stop-prepare")
        lose("prepare,stop-train", by_link=True)
        elastic = ("--rdzv_backend", "c10d", "--max_restarts", "3")
        finish("restart-train", *elastic, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
        runs["models"] = sorted(path.name for path in shared.iterdir())
        lose("resume-train,stop-count")
        lose("count,stop-generate")
        finish("generate,unknown,arguments,versions,tokenizers")
        runs["status"] = [_statuses(machine) for machine in both]
    (folder / "runs.json").write_text(json.dumps(runs))


def _wait_for(mark: Path, running: Running) -> None:
    deadline = time.monotonic() + 120
    while not mark.exists():
        assert running.process.poll() is None and time.monotonic() < deadline, running.said()
        time.sleep(0.05)


def _statuses(machine: Machine) -> dict[str, Any]:
    return {file.stem: json.loads(file.read_text()) for file in machine.folder.glob("*.json")}


def errors_of(said: str) -> list[str]:
    """Return the errors that a process of ours has printed, and check that it has printed no traceback."""
    assert "reviewgen/" not in said and "job.py" not in "".join(line for line in said.splitlines() if "File" in line), said
    return [line for line in said.splitlines() if line.startswith("error:")]


@pytest.fixture
def alone(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of what one process makes of the same."""
    for name, value in PART_BYTES.items():
        monkeypatch.setattr(name, value)
    yield cluster.folder / "alone"


def test_they_prepare_what_one_machine_prepares(cluster: Any, alone: Path) -> None:
    prepare_store(str(cluster.shared / "reviews.txt"), "gru-char", str(alone / "store"))
    assert files_of(cluster.shared / "store") == files_of(alone / "store")


def test_they_count_what_one_machine_counts(cluster: Any, alone: Path) -> None:
    data = str(cluster.shared / "reviews.txt")
    reviewgen.train("ngram-char", data, model=NGRAM, training={"novelty": "none"}, out=alone / "ngram", progress=False)
    name = "ngram/model.safetensors"
    assert (cluster.shared / name).read_bytes() == (alone / name).read_bytes()


def test_they_generate_what_one_machine_generates(cluster: Any) -> None:
    """Beside their texts, so that the receipts name the model alike."""
    out = cluster.shared / "texts-of-one"
    reviewgen.generate_dataset(cluster.shared / "ngram", 600, seed=5, columns=True, max_new_tokens=30, format="jsonl", out=out)
    assert files_of(cluster.shared / "texts") == files_of(out)


def test_they_train_as_one_machine_that_never_stopped(cluster: Any) -> None:
    """The batches of both machines in one, without the cut and the checkpoint in the middle."""
    settings = TRAINING | {"batch_size": 6}
    store = str(cluster.shared / "store")
    one = reviewgen.train("gru-char", store, epochs=1, model=MODEL, training=settings, progress=False)
    both = json.loads((cluster.shared / "gru/training.json").read_text())
    assert both["steps"] == one.training["steps"] > 12
    for name in ("train_nats_per_token", "bits_per_character", "tokens"):
        curve, expected = ([at[name] for at in each["evaluations"]] for each in (both, one.training))
        assert curve == pytest.approx(expected, abs=1e-5)
    weights = load_file(cluster.shared / "gru/model.safetensors")
    for name, expected in one.model.state_dict().items():
        assert weights[name].numpy() == pytest.approx(expected.numpy(), abs=2e-4), name  # rounding grows from step to step


def test_a_lost_process_restarts_the_job_on_both_machines(cluster: Any) -> None:
    run = cluster.runs["restart-train"]
    assert run["status"] == [0, 0] and "The run resumes from step" in run["said"][0]
    settings = TRAINING | {"batch_size": 6}
    one = reviewgen.train("gru-char", str(cluster.shared / "store"), steps=30, model=MODEL, training=settings, progress=False)
    both = json.loads((cluster.shared / "restarted/training.json").read_text())
    curves = [[at["bits_per_character"] for at in each["evaluations"]] for each in (both, one.training)]
    assert curves[0] == pytest.approx(curves[1], abs=1e-5) and len(curves[0]) > 2


@pytest.mark.parametrize("action", ["stop-prepare", "prepare,stop-train", "resume-train,stop-count", "count,stop-generate"])
def test_the_machine_that_is_left_says_so_within_a_minute_and_ends(action: str, cluster: Any) -> None:
    run = cluster.runs[action]
    assert run["status"] == 1 and run["seconds"] < 60
    (error,) = errors_of(run["said"])
    by_link = "stop-train" in action
    reasons = (
        ["Connection timed out", "No route to host"] if by_link else ["Connection closed by peer", "Connection reset by peer"]
    )
    assert error.startswith(LOST) and any(reason in error for reason in reasons) and "Check the logs" not in error
    assert ("The same command with --resume" in error) == by_link


def test_a_training_that_has_lost_a_machine_keeps_its_checkpoint(cluster: Any) -> None:
    assert "gru.run" in cluster.runs["models"] and "gru" not in cluster.runs["models"]
    assert "The run resumes from step" in cluster.runs["resume-train,stop-count"]["said"]
    assert not (cluster.shared / "gru.run").exists()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("unknown", "Give one of budget, steps and epochs."),
        ("arguments", "The processes have different settings: the seed."),
        ("versions", "The processes have different settings: versions."),
        ("tokenizers", "The processes have different settings: tokenizer settings."),
    ],
)
def test_differences_are_one_sentence_from_one_of_them(name: str, problem: str, cluster: Any) -> None:
    run = cluster.runs["generate,unknown,arguments,versions,tokenizers"]
    said = [error for text in run["said"] for error in errors_of(text) if problem in error]
    assert len(said) == 1
    for statuses in cluster.runs["status"]:
        assert statuses[name]["status"] in (1, 2) and statuses[name]["seconds"] < 60
    assert run["status"] == [1, 1] and not (cluster.shared / "no").exists()


def test_each_machine_has_its_own_cache(cluster: Any) -> None:
    for rank in range(2):
        assert list((cluster.folder / f"machine-{rank}/cache").iterdir())
