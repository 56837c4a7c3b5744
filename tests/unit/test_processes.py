"""Several processes train one model: as one process with all their lanes, with one mind, and none waits for another in vain."""

import json
import signal
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import ProcessLost, TrainingError
from reviewgen.training import connections, processes
from reviewgen.training.connections import connection_errors
from reviewgen.training.interrupts import Interrupts, deferred
from reviewgen.training.loop import Loop
from reviewgen.training.processes import Processes
from tests.support.fakes import TEXTS
from tests.support.launches import launch, made_once

SCRIPT = """
import itertools, json, os, signal, sys, time
from reviewgen import TrainingRun
from reviewgen.runs import prepare
from reviewgen.cli import main
from reviewgen.errors import TrainingError
from reviewgen.training import autotune, loop

corpus, out = sys.argv[1:]
is_other = os.environ["RANK"] == "1"
facts, ids = {"work": []}, []
gather, tokenize, step, cross_entropy = prepare.gather, prepare.tokenize, loop.Loop.train_step, loop.cross_entropy

def gathered(*args):
    facts["work"].append("gather")
    return gather(*args)

def tokenized(corpus, *args, **options):
    texts = type(corpus).texts
    type(corpus).texts = lambda *args: (facts["work"].append("texts"), texts(*args))[1]
    result = tokenize(corpus, *args, **options)
    type(corpus).texts = texts
    return result

def stepped(self, batches):
    ids.append([batch.ids.tolist() for batch in batches])
    return step(self, batches)

def train(name, watch=lambda report: None, steps=40, **training):
    settings = {"batch_size": 3, "bptt": 16, "precision": "no", "evaluations": 10} | training
    model = {"hidden_size": 12, "embedding_size": 6, "layer": "fused"}
    run = TrainingRun("gru-char", corpus, steps=steps, seed=int(is_other and name == "different"), model=model, training=settings)
    losses, error, start = [], None, 0.0
    try:
        run.read()
        run.tokenize()
        start = time.monotonic()
        for report in run:
            losses.append(report.nats_per_token)
            watch(report)
    except (KeyboardInterrupt, TrainingError, ZeroDivisionError) as problem:
        error = f"{type(problem).__name__}: {problem}"
    if run._fit is None:
        facts[name] = {"losses": losses, "error": error}
        return
    record = run._fit.record
    bits = [evaluation["bits_per_character"] for evaluation in record.curves.evaluations]
    weights = {key: tensor.tolist() for key, tensor in run.model.state_dict().items()}
    facts[name] = {"losses": losses, "error": error, "bits": bits, "weights": weights, "seconds": time.monotonic() - start}
    if record.last is not None:
        facts[name] |= {"stopped": record.last.stopped, "notes": record.last.notes, "tokens": record.last.tokens}

def sized():
    before, (autotune.SECONDS, autotune._SHARE) = (autotune.SECONDS, autotune._SHARE), (60.0, 1)  # enough on a busy machine
    run = TrainingRun("lstm-char", corpus, budget=60.0, training={"evaluations": 1, "copy_tokens": 0})
    run.read()
    run.tokenize()
    steps = [report.step for report in itertools.takewhile(lambda report: report.step < 3, run)]
    autotune.SECONDS, autotune._SHARE = before
    shape = run.model.config.hidden_size, run.config.batch_size, run.config.bptt
    facts["sized"] = {"shape": shape, "form": run._fit.record.last.device, "steps": steps, "notes": run.notes}

def interrupt(report):
    if is_other and report.step == 9:
        os.kill(os.getpid(), signal.SIGTERM)

def fail(report):
    if is_other and report.step == 9:
        1 / 0

def kill(self, batches):
    if is_other and self.schedule.progress > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batches)

def command(out):
    sys.argv = ["reviewgen", "train", "gru-char", "--data", corpus, "--out", out, "--epochs", "1", "--json"]
    for name in ("hidden_size=12", "embedding_size=6", "layer=fused"):
        sys.argv += ["--set", f"model.{name}"]
    for name in ("batch_size=3", "bptt=16"):
        sys.argv += ["--set", f"training.{name}"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code

prepare.gather, prepare.tokenize, loop.Loop.train_step = gathered, tokenized, stepped
command(out)
facts["ids"] = [batches[0] for batches in ids]
train("accumulated", steps=5, gradient_accumulation_steps=2)
train("random", lambda report: facts.setdefault("lengths", []).append(report.bptt), steps=12, bptt_random=True)
sized()
train("early", learning_rate=10.0, patience=2, evaluations=40)
train("different")
loop.cross_entropy = lambda *args: cross_entropy(*args) * (float("nan") if is_other and len(ids) > 8 else 1)
ids.clear()
train("nan")
loop.cross_entropy = cross_entropy
signal.signal(signal.SIGTERM, signal.default_int_handler)
train("interrupted", interrupt)
train("failed", fail)
with open(f"{out}.{os.environ['RANK']}.json", "w") as file:
    json.dump(facts, file)
loop.Loop.train_step = kill
command(out + "-killed")
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the script in two processes, once for all workers of pytest-xdist."""
    folder = made_once(tmp_path_factory, "launched", _launch)
    first, second = (json.loads((folder / f"both.{rank}.json").read_text()) for rank in "01")
    done = json.loads((folder / "done.json").read_text())
    return SimpleNamespace(folder=folder, first=first, second=second, both=(first, second), done=SimpleNamespace(**done))


def _launch(folder: Path) -> None:
    (folder / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    done = launch(2, folder, "script.py", "reviews.txt", "both")
    assert (folder / "both.1.json").exists(), done.stderr
    (folder / "done.json").write_text(json.dumps({"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}))


def one_process(folder: Path, **options: Any) -> tuple[TrainingRun, list[float], list[Any]]:
    """Train with the lanes of both processes; return the run, its losses and the ids of each batch."""
    settings = {"batch_size": 6, "bptt": 16, "precision": "no", "threads": 1} | options.pop("training", {})
    model = {"hidden_size": 12, "embedding_size": 6, "layer": "fused"}
    run = TrainingRun("gru-char", str(folder / "reviews.txt"), model=model, training=settings, **options)
    run.read()
    run.tokenize()
    ids: list[Any] = []
    plain = Loop.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "train_step", lambda self, batches: (ids.extend(b.ids for b in batches), plain(self, batches))[1])
        losses = [report.nats_per_token for report in run]
    return run, losses, ids


def test_two_processes_are_one_with_all_their_lanes(launched: Any) -> None:
    run, losses, ids = one_process(launched.folder, epochs=1)
    both = [np.concatenate(pair) for pair in zip(launched.first["ids"], launched.second["ids"], strict=True)]
    assert [batch.tolist() for batch in both] == [batch.tolist() for batch in ids]
    seen = np.bincount(np.concatenate(both, axis=None), minlength=run.tokenizer.vocab_size)
    texts = np.bincount(run.stores["train"].ids, minlength=run.tokenizer.vocab_size)
    assert (seen <= texts).all() and texts.sum() - seen.sum() < 6 * 17  # but the last, shorter step, each token once
    assert launched.first["ids"][0] != launched.second["ids"][0]
    model, one = reviewgen.load(launched.folder / "both"), run.finish()
    facts = json.loads(launched.done.stdout.split("\n}\n")[0] + "}")
    curve, expected = (training["evaluations"] for training in (facts, one.training))
    assert [at["step"] for at in curve] == [at["step"] for at in expected]
    for name in "train_nats_per_token", "bits_per_character", "tokens", "characters", "reviews":
        assert [at[name] for at in curve] == pytest.approx([at[name] for at in expected], abs=1e-5)
    assert all(0 <= at["token_copy_rate"] <= 1 for at in curve)  # the main process's; rounding can change a token that is drawn
    for name, weights in one.model.state_dict().items():
        torch.testing.assert_close(model.model.state_dict()[name], weights, rtol=0, atol=2e-4)  # rounding grows from step to step
    assert facts["steps"] == len(losses) and facts["tokens_seen"] == sum(batch.size for batch in ids)
    greedy = {"do_sample": False, "max_new_tokens": 30, "words": "any"}
    assert model.generate_one(**greedy) == one.generate_one(**greedy)
    assert model.score(TEXTS[0]).bits == pytest.approx(one.score(TEXTS[0]).bits, rel=1e-3)
    assert (launched.folder / "both/novelty.safetensors").read_bytes()
    files = {file.name for file in (launched.folder / "both").iterdir()}
    one.save_pretrained(launched.folder / "one")
    assert files == {file.name for file in (launched.folder / "one").iterdir()}


def test_each_loss_is_that_of_one_process_and_the_weights_stay_the_same(launched: Any) -> None:
    training = {"gradient_accumulation_steps": 2, "evaluations": 10}
    run, losses, _ = one_process(launched.folder, steps=5, training=training)
    for facts in launched.both:
        assert facts["accumulated"]["losses"] == pytest.approx(losses, abs=1e-5)
    assert launched.first["accumulated"]["weights"] == launched.second["accumulated"]["weights"]
    for name, weights in run.model.state_dict().items():
        found = torch.tensor(launched.first["accumulated"]["weights"][name])
        torch.testing.assert_close(found, weights, rtol=0, atol=1e-5)


def test_random_lengths_are_the_same_in_each_process(launched: Any) -> None:
    run, losses, ids = one_process(launched.folder, steps=12, training={"bptt_random": True, "evaluations": 10})
    lengths = [batch.shape[1] for batch in ids]
    assert len(set(lengths)) > 1
    for facts in launched.both:
        assert facts["lengths"] == lengths and facts["random"]["tokens"] == 6 * sum(lengths)
        assert facts["random"]["losses"] == pytest.approx(losses, abs=1e-5)
    assert launched.first["random"]["weights"] == launched.second["random"]["weights"]
    for name, weights in run.model.state_dict().items():
        found = torch.tensor(launched.first["random"]["weights"][name])
        torch.testing.assert_close(found, weights, rtol=0, atol=1e-5)


def test_one_process_of_a_machine_reads_and_tokenizes(launched: Any) -> None:
    assert launched.first["work"].count("gather") == 9 and "texts" in launched.first["work"]
    assert launched.second["work"] == []


def test_the_first_process_finds_size_and_form_for_all(launched: Any) -> None:
    first, second = (facts["sized"] for facts in launched.both)
    assert first["shape"] == second["shape"] and first["form"] == second["form"] and first["steps"] == second["steps"] == [1, 2]
    for facts in first, second:
        assert [note for note in facts["notes"] if note.startswith("Chosen for the")]
        assert [note for note in facts["notes"] if note.startswith("Fastest of")]


def test_all_stop_at_the_same_step(launched: Any) -> None:
    for name, stopped in ("early", "early: no more gain on held-out text"), ("nan", "diverged"), ("interrupted", None):
        first, second = (facts[name] for facts in launched.both)
        assert first["stopped"] == second["stopped"] == stopped
        np.testing.assert_array_equal(first["losses"], second["losses"])
        np.testing.assert_array_equal(first["bits"], second["bits"])
        assert first["weights"] == second["weights"] and first["error"] == second["error"], name
        assert len(first["losses"]) < 40
    assert "step 9" in launched.first["nan"]["notes"][0]
    assert launched.first["interrupted"]["error"].startswith("KeyboardInterrupt")
    assert len(launched.second["interrupted"]["losses"]) == 9


def test_who_leaves_ends_the_training_of_all(launched: Any) -> None:
    first, second = (facts["failed"] for facts in launched.both)
    assert second["error"].startswith("ZeroDivisionError") and second["stopped"] is None
    assert first["error"] is None and first["stopped"] == "another process ended" and first["seconds"] < 30
    assert "Another process has ended" in first["notes"][0]
    assert "Kept: the best weights so far" in first["notes"][0]
    assert len(first["losses"]) == 10 and first["weights"] == second["weights"]  # nine steps, and the word of the end


def test_a_killed_process_loses_nothing(launched: Any) -> None:
    assert launched.done.returncode != 0
    assert (launched.folder / "both-killed").is_dir(), launched.done.stderr
    model = reviewgen.load(launched.folder / "both-killed")
    assert model.training["stopped"] in ("another process ended", "interrupted")  # or the launcher was faster
    assert 0 < len(model.training["evaluations"]) < 20 and model.generate_one(seed=1)


def test_processes_that_were_told_other_things_are_refused(launched: Any) -> None:
    first, second = (facts["different"] for facts in launched.both)
    assert first["error"].startswith("TrainingError: The processes have different settings: the seed.")
    assert second["error"].startswith("ProcessLost: ") and second["error"].endswith("its own error message says why.")
    assert first["losses"] == second["losses"] == []


def test_the_mean_over_processes_is_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process adds to each sum is put in by hand: its 9 targets, and its gradients times 9 of 12."""
    others = [torch.tensor([[0.0, 0.0], [9.0, 0.0]], dtype=torch.float64), torch.tensor([2.0, 4.0, 0.0, 6.0, 8.0, 5.0]) * 9 / 12]
    fake = SimpleNamespace(all_reduce=lambda tensor, group: tensor.add_(others.pop(0)))
    monkeypatch.setattr(processes, "distributed", fake)
    used, unused, frozen = torch.zeros(1, 2, requires_grad=True), torch.zeros(2, requires_grad=True), torch.zeros(1)
    used.grad = torch.tensor([[10.0, 20.0]])
    losses = Processes(0, 2, "group").average_gradients([used, unused, frozen], torch.tensor([4.0, 1.0]), 3)
    assert losses.tolist() == [(3 * 4 + 9 * 8) / 12, (3 * 1 + 9 * 5) / 12]  # of the step, and a term of the model's own
    assert used.grad.tolist() == [[(3 * 10 + 9 * 2) / 12, (3 * 20 + 9 * 4) / 12]]
    assert unused.grad is not None and unused.grad.tolist() == [0.0, 4.5]
    assert frozen.grad is None and others == []


def test_one_process_has_nothing_to_exchange() -> None:
    alone, weight = Processes(), torch.zeros(2, requires_grad=True)
    loss = torch.tensor(3.0)
    assert alone.average_gradients([weight], loss, 0) is loss and weight.grad is None
    assert alone.all_gather([1, 2.5]).tolist() == [[1, 2.5]] and alone.broadcast(loss) is loss
    alone.refuse_differences({"the seed": 1})
    with pytest.raises(ZeroDivisionError), alone.main_process_first():
        _ = 1 / 0
    alone.close()


def test_processes_of_other_code_have_other_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them sees the facts of both, of which one has fewer."""
    facts = [{"the seed": 1, "the preset": "gru-char", "settings": {"bptt": 8}}, {"the seed": 1, "the preset": "gru-word"}]
    everyone: list[Any] = []
    monkeypatch.setattr(Processes, "all_gather_object", lambda self, value: everyone.append(value) or [value])
    for each in facts:
        Processes().refuse_differences(each)
    monkeypatch.setattr(Processes, "all_gather_object", lambda self, value: everyone)
    with pytest.raises(TrainingError, match=r"different settings: the preset, settings\. Run the same command everywhere"):
        Processes(0, 2).refuse_differences(facts[0])
    with pytest.raises(ProcessLost, match="The main process has failed"):
        Processes(1, 2).refuse_differences(facts[1])


def test_processes_of_a_machine_find_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three machines, whose five processes a launcher has numbered in turn; each sees what the others have put in."""
    names = ["b", "a", "b", "c", "a"]
    for rank, name in enumerate(names):
        made: list[list[int]] = []
        fake = SimpleNamespace(
            new_group=lambda ranks, made=made, **_: (made.append(ranks), ranks)[1],
            all_reduce=lambda table, group: table.copy_(torch.tensor([[processes._digest(other)] for other in names])),
            destroy_process_group=lambda group: None,
            barrier=lambda group: None,
        )
        monkeypatch.setattr(connections, "_lasting_group", lambda: None)
        monkeypatch.setattr(connections, "distributed", fake)
        monkeypatch.setattr(processes, "distributed", fake)
        monkeypatch.setattr(processes, "process_state", lambda rank=rank: SimpleNamespace(num_processes=5, process_index=rank))
        monkeypatch.delenv("GROUP_RANK", raising=False)
        monkeypatch.setattr(processes.socket, "gethostname", lambda name=name: name)
        here = processes.local_processes()
        own = [other for other, its in enumerate(names) if its == name]
        assert here._group == own and here.rank == own.index(rank) and here.world_size == len(own)
        assert sorted(made[1:]) == [[0, 2], [1, 4], [3]] and made[0] == [0, 1, 2, 3, 4]


def test_a_lost_connection_is_one_sentence_and_lets_go_of_it() -> None:
    def wait(group: Any) -> None:
        raise RuntimeError("Connection closed\nby peer")

    group = Interrupts()
    held = weakref.ref(group)
    sentence = r"^Another process has ended .*\(Connection closed\)\.$"
    with pytest.raises(ProcessLost, match=sentence) as caught, connection_errors():
        wait(group)
    del group
    assert held() is None and caught.value  # while the error is there


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_block(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(number, signal.default_int_handler)
    try:
        done, interrupts = [], Interrupts()
        with pytest.raises(KeyboardInterrupt), deferred(interrupts):
            signal.raise_signal(number)
            done.append(interrupts.arrived)
            signal.raise_signal(number)  # a launcher sends it once more
            done.append("whole")
        assert done == [True, "whole"] and signal.getsignal(number) is signal.default_int_handler
        with pytest.raises(ZeroDivisionError), deferred(Interrupts()):
            signal.raise_signal(number)
            _ = 1 / 0
        signal.signal(number, signal.SIG_DFL)
        with deferred(Interrupts()):
            assert signal.getsignal(number) is signal.SIG_DFL  # nobody has asked for anything else
    finally:
        signal.signal(number, before)


def test_a_thread_hears_no_signals() -> None:
    found = []

    def work() -> None:
        with deferred(Interrupts()):
            found.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["done"]
