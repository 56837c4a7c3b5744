"""Training: the loops, budgets, early stopping, best weights, interruption, and what a run leaves as it was."""

import inspect
import itertools
import math
import signal
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reviewgen
from reviewgen import TrainingRun
from reviewgen.cli import main
from reviewgen.config import EvaluateOptions, ReadingOptions
from reviewgen.data import IGNORED
from reviewgen.errors import ConfigError, DataError, OutputExists, TrainingError
from reviewgen.runs.fit import Fit
from reviewgen.runs.options import TrainOptions
from reviewgen.training.device import Threads, native_precision, using_threads
from reviewgen.training.loop import Loop, detach
from reviewgen.training.loss import cross_entropy
from reviewgen.training.optimizing import split_parameters
from reviewgen.training.schedule import linear_decay

TEXTS = [f"The {noun} was {kind} and the {other} was not." for noun, other, kind in itertools.product(
    ("food", "band", "film", "beer"), ("bill", "room", "crowd"), ("good", "bad", "loud", "long", "warm"))]  # fmt: skip
SMALL = {
    "model": {"hidden_size": 24, "embedding_size": 12, "layer": "fused"},
    "training": {"batch_size": 4, "bptt": 16, "precision": "no"},
}


def watched(preset, source=TEXTS, **options):
    """Return a finished run, its reports and its model."""
    run = TrainingRun(preset, source, **options)
    run.read()
    run.tokenize()
    reports = list(run)
    return run, reports, run.finish()


def test_cross_entropy_is_the_mean_over_the_targets_that_count():
    logits, targets = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
    targets[1, 2] = targets[0, 0] = IGNORED
    kept = [(b, t) for b in range(3) for t in range(5) if targets[b, t] != IGNORED]
    expected = -sum(F.log_softmax(logits[b, t].double(), -1)[targets[b, t]] for b, t in kept) / len(kept)
    assert float(cross_entropy(logits, targets, len(kept))) == pytest.approx(float(expected), abs=1e-6)
    time_first = logits.transpose(0, 1).contiguous().transpose(0, 1)
    assert not time_first.is_contiguous()
    assert float(cross_entropy(time_first, targets, len(kept))) == pytest.approx(float(expected), abs=1e-6)


def test_the_learning_rate_rises_and_falls_to_nothing():
    rates = [linear_decay(progress, 0.2) for progress in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(1) == rates[20]
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[0] < 0.1
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert linear_decay(0.0, 0.0) == 1.0


def test_detach_cuts_every_part_of_a_state():
    state = (torch.ones(2, requires_grad=True) * 2, (torch.ones(2, requires_grad=True) * 3,), ())
    assert not any(tensor.requires_grad for tensor in (detach(state)[0], detach(state)[1][0]))


@pytest.mark.parametrize(("accumulated", "is_random"), [(1, False), (3, False), (1, True), (3, True)])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loop_is_the_loop_written_out(optimizer, accumulated, is_random):
    """Four steps of fit give the losses of a plain torch loop on the same batches."""
    own = {"optimizer": optimizer, "warmup": 0.5, "gradient_accumulation_steps": accumulated, "bptt_random": is_random}
    run = TrainingRun("gru-char", TEXTS, steps=4, **SMALL | {"training": SMALL["training"] | own})
    run.read()
    run.tokenize()
    start = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    reports = list(run)
    losses = [report.nats_per_token for report in reports]
    expected, lengths = plain_losses(run, start)
    assert losses == pytest.approx(expected, abs=1e-5 if optimizer == "adamw" else 1e-3)
    assert reports[-1].tokens == 4 * sum(lengths)
    assert [report.bptt for report in reports] == (lengths[accumulated - 1 :: accumulated] if is_random else [None] * 4)


def plain_losses(run, start):
    """Each step reads n consecutive batches of the lanes, and minimises the mean over all their targets but bos."""
    from reviewgen.data import Lanes

    model = type(run.model)(run.model.config)
    model.load_state_dict(start)
    config = run.config
    inner = {name: 0 for name in start if "weight_ih" in name or "weight_hh" in name} if config.optimizer == "muon" else {}
    adam = torch.optim.AdamW([p for n, p in model.named_parameters() if n not in inner], betas=(0.9, 0.99))
    shape = {"lanes": config.batch_size, "bptt": config.bptt, "is_random": config.bptt_random}
    lanes = Lanes(run.stores["train"], bos_id=0, vocab_size=1 << 16, seed=0, **shape)
    state, losses, batches, lengths = model.initial_state(lanes.lanes), [], iter(lanes), []
    for step in range(4):
        rate = config.learning_rate * (0.04 + 0.96 * step / 2 if step < 2 else (4 - step) / 2)
        taken, nats = list(itertools.islice(batches, config.gradient_accumulation_steps)), []
        lengths += [batch.ids.shape[1] for batch in taken]
        if config.bptt_random:
            rate *= np.mean(lengths[-len(taken) :]) / config.bptt
        adam.param_groups[0] |= {"lr": rate, "weight_decay": config.weight_decay}
        for batch in taken:
            logits, state = model(torch.from_numpy(batch.ids), detach(state))
            nats.append(-F.log_softmax(logits, -1).gather(-1, torch.from_numpy(batch.targets).clamp(0)[..., None]).squeeze(-1))
            nats[-1] = nats[-1][torch.from_numpy(batch.targets) != IGNORED]
        loss = torch.cat(nats).mean()
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        adam.step()
        for name in inner:
            weights = model.get_parameter(name)
            inner[name] = 0.95 * inner[name] + 0.05 * weights.grad
            move = 0.2 * max(weights.shape) ** 0.5 * orthogonal(0.95 * inner[name] + 0.05 * weights.grad)
            weights.data = weights.data * (1 - rate * config.weight_decay) - rate * move
        losses.append(loss.item())
    return losses, lengths


def orthogonal(momentum):
    """Return the matrix with singular values near one, by five steps of Newton and Schulz's iteration on them, in 64 bits."""
    left, values, right = torch.linalg.svd(momentum.double(), full_matrices=False)
    values = values / values.square().sum().sqrt()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values @ right).float()


def test_muon_takes_the_inner_matrices_only():
    for preset, inner in (("lstm-word", {"recurrent.weight_ih_l0", "recurrent.weight_hh_l0"}), ("nnlm-char", {"hidden.weight"})):
        run = TrainingRun(preset, TEXTS, steps=1)
        run.read()
        run.tokenize()
        matrices, others = split_parameters(run.model)
        named = {name for name, parameter in run.model.named_parameters() if any(parameter is each for each in matrices)}
        assert inner <= named <= inner | {"output.projection.weight"}
        assert len(matrices) + len(others) == len(list(run.model.parameters()))


def test_averaged_weights_are_those_that_are_kept():
    settings = SMALL | {"training": SMALL["training"] | {"averaging": 0.8, "evaluations": 1, "threads": 1}}
    run = TrainingRun("gru-char", TEXTS, steps=6, **settings)
    run.read()
    run.tokenize()
    weights = [{name: tensor.clone() for name, tensor in run.model.state_dict().items()} for _ in run]
    average = weights[0]
    for later in weights[1:-1]:
        average = {name: 0.8 * average[name] + 0.2 * later[name] for name in average}
    kept = run.model.state_dict()
    assert any(not torch.allclose(kept[name], weights[-2][name]) for name in kept)
    last = {name: (kept[name] - 0.8 * average[name]) / 0.2 for name in kept}  # the weights after the last step
    moved = {name: (last[name] - weights[-2][name]).abs().max() for name in kept}
    assert all(move < 0.05 for move in moved.values())


def test_training_learns_and_keeps_the_best_weights():
    run, reports, model = watched("gru-char", steps=150, **SMALL)
    judged = [report for report in reports if report.evaluation]
    assert judged[-1].evaluation.bits_per_character < 0.5 * judged[0].evaluation.bits_per_character
    best = min(report.evaluation.bits_per_character for report in judged)
    documents = list(run.stores["validation"].documents())
    again = reviewgen.evaluation.evaluate_documents(model.model, documents, model.tokenizer.vocab_size)
    assert again.bits_per_character == pytest.approx(best, rel=1e-5)
    assert not model.model.training


def test_the_best_weights_come_back_when_later_ones_are_worse():
    spoilt = SMALL | {"training": SMALL["training"] | {"learning_rate": 10.0, "warmup": 0.9, "patience": 50, "evaluations": 20}}
    run, reports, model = watched("rnn-char", steps=200, **spoilt)
    judged = [report.evaluation.bits_per_character for report in reports if report.evaluation]
    assert judged[-1] > min(judged)
    documents = list(run.stores["validation"].documents())
    again = reviewgen.evaluation.evaluate_documents(model.model, documents, model.tokenizer.vocab_size)
    assert again.bits_per_character == pytest.approx(min(judged), rel=1e-5)


def test_same_seed_same_weights_and_another_seed_others():
    options = SMALL | {"steps": 5, "training": SMALL["training"] | {"threads": 1, "precision": "no"}}
    weights = [watched("lstm-char", seed=seed, **options)[2].model.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_dropout_leaves_global_random_state_and_threads_alone():
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads()
    settings = SMALL | {"model": SMALL["model"] | {"output_dropout": 0.5}}
    watched("gru-char", steps=12, **settings)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.get_num_threads() == before[2]


def test_a_budget_stops_on_time():
    start = time.monotonic()
    _, reports, model = watched("gru-char", budget="3s", **SMALL)
    assert 2 < time.monotonic() - start < 30
    assert reports[-1].progress >= 1 or model.training["stopped"].startswith("early")
    assert model.training["budget_seconds"] == 3


def test_a_budget_that_reading_has_used_up_still_takes_a_step():
    _, reports, _ = watched("gru-char", budget=0.001, **SMALL)
    assert len(reports) == 1
    assert reports[0].evaluation is not None


def test_epochs_are_passes_over_the_lanes():
    run, reports, _ = watched("gru-char", epochs=2, **SMALL)
    tokens = run.stores["train"].tokens
    assert {report.epoch for report in reports} == {0, 1}
    assert 2 * tokens - 2 * 4 * 17 <= reports[-1].tokens <= 2 * tokens


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"epochs": -1}, {"budget": "2m", "steps": 3}, {"seed": -1}, {"budget": "soon"}]
)
def test_an_impossible_budget_or_seed_is_refused(options):
    with pytest.raises(ConfigError):
        TrainingRun("ngram-char", TEXTS, **options)


def test_settings_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ConfigError, match="hidden_size"):
        TrainingRun("gru-char", "no such file.csv", model={"hiden_size": 3})
    with pytest.raises(ConfigError, match="tokenizer"):
        TrainingRun("gru-char", "no such file.csv", model={"vocab_size": 3})
    with pytest.raises(OutputExists):
        TrainingRun("gru-char", "no such file.csv", out=tmp_path)


def test_one_review_is_refused_and_two_are_enough():
    with pytest.raises(DataError, match="single review"):
        reviewgen.train("ngram-char", ["just one"])
    assert reviewgen.train("ngram-char", ["one", "two"]).training["data"]["reviews"] == {"train": 1, "validation": 1, "test": 0}
    assert reviewgen.train("gru-char", ["a", "b"], steps=2, **SMALL).generate_one(seed=1) is not None


def test_a_validation_source_replaces_the_split():
    run, _, model = watched("ngram-char", validation=["The food was cold.", TEXTS[0]])
    assert model.training["data"]["reviews"] == {"train": 60, "validation": 2, "test": 0}
    assert model.training["held_out"]["split"] == "validation"
    assert any("1 of 2 validation texts" in note for note in run.corpus.notes)


def test_an_interrupt_keeps_the_best_so_far(tmp_path):
    run = TrainingRun("gru-char", TEXTS, steps=1000, out=tmp_path / "m", **SMALL)
    run.read()
    run.tokenize()
    with pytest.raises(KeyboardInterrupt):
        for report in run:
            if report.step == 120:
                raise KeyboardInterrupt
    run.interrupt()
    run.finish()
    model = reviewgen.load(tmp_path / "m")
    assert model.training["stopped"] == "interrupted"
    assert model.training["steps"] == 120
    assert model.generate_one(seed=1) == reviewgen.load(tmp_path / "m").generate_one(seed=1)


def test_an_interrupt_inside_a_step_is_a_model_too(monkeypatch):
    plain, calls = Loop.train_step, itertools.count(1)

    def step(self, batch):
        if next(calls) == 30:
            raise KeyboardInterrupt
        return plain(self, batch)

    monkeypatch.setattr(Loop, "train_step", step)
    model = reviewgen.train("gru-char", TEXTS, steps=1000, **SMALL)
    assert model.training["stopped"] == "interrupted"
    assert model.training["steps"] == 29


def test_an_interrupted_count_is_a_model_of_what_was_seen():
    run = TrainingRun("ngram-char", TEXTS)
    run.read()
    run.tokenize()
    for report in run:
        if report.step > 10:
            break
    run.interrupt()
    assert run.finish().generate_one(seed=1)


def test_a_loss_that_is_no_number_stops_the_run():
    run = TrainingRun("gru-char", TEXTS, steps=10, **SMALL)
    run.read()
    run.tokenize()
    with torch.no_grad():
        next(iter(run.model.parameters())).fill_(math.nan)
    with pytest.raises(TrainingError, match=r"nan at step 1\b.*learning_rate"):
        list(run)


def test_what_can_be_trained_neither_way_is_refused():
    class Neither:
        def state_dict(self):
            return {}

    from reviewgen.training import Budget, TrainingConfig, fit

    run = TrainingRun("ngram-char", TEXTS)
    run.read()
    run.tokenize()
    with pytest.raises(TrainingError, match="Neither is neither"):
        next(
            fit.__wrapped__(
                Neither(), run.tokenizer, run.stores["train"], run.stores["validation"], TrainingConfig(), Budget(), 0
            )
        )


@pytest.mark.skipif(native_precision("cpu") != "bf16", reason="this machine has no bf16 instructions")
def test_bf16_leaves_the_weights_in_32_bits():
    settings = SMALL | {"training": {"batch_size": 4, "bptt": 16, "precision": "bf16"}}
    _, reports, model = watched("lstm-char", steps=40, **settings)
    assert "bf16" in model.training["device"]
    assert all(tensor.dtype == torch.float32 for tensor in model.model.state_dict().values())
    assert reports[-1].nats_per_token < reports[0].nats_per_token
    _, _, plain = watched("lstm-char", steps=2, **SMALL)  # another precision in the same process
    assert "no mixed precision" in plain.training["device"]
    logits, _ = plain.model(torch.tensor([[0, 1]]), plain.model.initial_state(1))
    assert logits.dtype == torch.float32


def test_a_run_falls_back_to_one_thread_when_the_others_turn_slow():
    with using_threads(2):
        threads = Threads(2, one_thread_seconds=1.0)
        for seconds in (0.5, 3.0, 3.0, 3.0, 3.0, 0.5, 3.0, 3.0, 3.0, 3.0):
            threads.record(seconds)
        assert threads.count == torch.get_num_threads() == 2
        threads.record(3.0)
        assert threads.count == torch.get_num_threads() == 1
        threads.restore()
        assert torch.get_num_threads() == 2


def test_a_full_disk_at_the_end_loses_nothing(tmp_path, monkeypatch):
    from reviewgen.bundle import write
    from reviewgen.errors import StorageError

    plain, calls = write.write_bundle, itertools.count()

    def save(bundle, folder, **options):
        if next(calls) == 0:
            raise StorageError("No room.")
        return plain(bundle, folder, **options)

    monkeypatch.setattr(write, "write_bundle", save)
    with pytest.raises(StorageError, match="was saved as") as caught:
        reviewgen.train("ngram-char", TEXTS, out=tmp_path / "m")
    rescued = str(caught.value).split("saved as ")[1].split(" instead")[0]
    assert reviewgen.load(rescued).generate_one(seed=1)


def test_an_interrupt_of_the_last_evaluation_still_saves(tmp_path, monkeypatch):
    def interrupted(self, threads):
        raise KeyboardInterrupt

    monkeypatch.setattr(Fit, "_measure", interrupted)
    reviewgen.train("gru-char", TEXTS, steps=3, out=tmp_path / "m", **SMALL)
    assert reviewgen.load(tmp_path / "m").training["stopped"] == "all steps taken"


@pytest.mark.parametrize("face", ["python", "shell"])
def test_an_interrupt_between_training_and_saving_still_saves(face, tmp_path, monkeypatch):
    calls, finish = [], Fit.finish

    def interrupted(self):
        calls.append(signal.getsignal(signal.SIGINT))
        if len(calls) == 1:
            raise KeyboardInterrupt
        return finish(self)

    monkeypatch.setattr(Fit, "finish", interrupted)
    if face == "python":
        reviewgen.train("gru-char", TEXTS, steps=3, out=tmp_path / "m", **SMALL)
    else:
        (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
        settings = [word for part in ("hidden_size=8", "embedding_size=4") for word in ("--set", f"model.{part}")]
        command = ["reviewgen", "train", "gru-char", "--data", str(tmp_path / "reviews.txt"), "--out", str(tmp_path / "m")]
        monkeypatch.setattr(sys, "argv", [*command, "--steps", "3", *settings])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 130
    assert reviewgen.load(tmp_path / "m").training["stopped"] == "all steps taken"
    assert calls[1] == signal.SIG_IGN  # a second signal cannot stop the saving


def test_a_run_of_no_step_saves_nothing(tmp_path):
    run = TrainingRun("gru-char", TEXTS, steps=3, out=tmp_path / "m", **SMALL)
    run.read()
    run.tokenize()
    run.interrupt()
    with pytest.raises(TrainingError, match="before its first step"):
        run.finish()


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (("tokenize",), "There is no corpus yet: call read before you tokenize."),
        (("read", "read"), "The corpus of this run was read before: make another TrainingRun to read it again."),
        (("__iter__",), "The corpus is not prepared yet: call read and tokenize before you train."),
        (("read", "__iter__"), "The corpus is not prepared yet: call tokenize before you train."),
        (("read", "tokenize", "tokenize"), "The corpus of this run was tokenized before: iterate over the run to train."),
        (("read", "tokenize", "read"), "The corpus of this run was read before: make another TrainingRun to read it again."),
        (("finish",), "The corpus is not prepared yet: call read and tokenize before you finish."),
        (("read", "finish"), "The corpus is not prepared yet: call tokenize before you finish."),
        (
            ("read", "tokenize", "finish"),
            "The training was over before its first step; nothing was saved. Give it a longer budget.",
        ),
        (("interrupt",), "The corpus is not prepared yet: call read and tokenize before you interrupt the training."),
        (("facts",), "The corpus is not prepared yet: call read and tokenize before you call facts."),
    ],
    ids=str,
)
def test_steps_out_of_order_are_one_sentence(steps, said):
    run = TrainingRun("ngram-char", TEXTS)
    *before, last = steps
    for step in before:
        getattr(run, step)()
    with pytest.raises(TrainingError) as caught:
        getattr(run, last)()
    assert str(caught.value) == said


def test_what_a_run_does_not_have_yet_says_which_step_comes_first():
    run = TrainingRun("ngram-char", TEXTS)
    for name in ("corpus", "conditions"):
        with pytest.raises(TrainingError, match=f"call read before you use the {name}"):
            getattr(run, name)
    for name in ("model", "tokenizer", "stores"):
        with pytest.raises(TrainingError, match="call read and tokenize before you use the"):
            getattr(run, name)
    assert (run.out, run.preset, run.notes, run.held_out, run.evaluation) == (None, "ngram-char", [], None, None)
    assert not run.is_interrupted
    with pytest.raises(AttributeError):
        run.model = None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: reviewgen.train("ngram-char", TEXTS, buget="2m"), "'buget' is not an argument of train. Did you mean 'budget'"),
        (lambda: TrainingRun("ngram-char", TEXTS, lower=True), "'lower' is not an argument of TrainingRun"),
        (lambda: reviewgen.sweep("ngram-char", TEXTS, "model.order", [2], step=3), "'step' is not an argument of sweep"),
        (
            lambda: reviewgen.sweep("ngram-char", TEXTS, "model.order", [2], resume=True),
            "no model is saved, so it takes no resume",
        ),
        (lambda: reviewgen.tune("ngram-char", TEXTS, sed=3), "'sed' is not an argument of tune. Did you mean 'seed'"),
        (lambda: reviewgen.tune("ngram-char", TEXTS, model={"order": 2}), "tune takes model settings in settings"),
        (lambda: reviewgen.blend([], splits="all"), "'splits' is not an argument of blend. Did you mean 'split'"),
    ],
)
def test_an_unknown_argument_names_the_closest(call, said):
    with pytest.raises(ConfigError) as caught:
        call()
    assert said in str(caught.value)


@pytest.mark.parametrize("options", [TrainOptions, EvaluateOptions])
def test_options_are_documented_where_help_shows_them(options):
    for name in options.__annotations__:
        fields = "".join(inspect.getdoc(kind) for kind in (TrainOptions, EvaluateOptions, ReadingOptions))
        assert f"\n    {name}: " in fields, name
    functions = [reviewgen.train] if options is TrainOptions else [reviewgen.blend, reviewgen.ReviewModel.evaluate]
    for function in functions:
        arguments = inspect.getdoc(function).partition("Args:")[2].partition("Raises:")[0]
        listed = {name.strip() for line in arguments.splitlines() for name in line.partition(":")[0].split(",")}
        assert options.__annotations__.keys() <= listed


def test_cleaning_that_is_none_is_not_given():
    run = TrainingRun("ngram-char", TEXTS, lowercase=None, strip_markdown=None, clean=None)
    run.read()
    run.tokenize()
    assert [run.facts()["data"][name] for name in ("lowercase", "strip_markdown", "clean")] == [False, False, True]


def test_the_largest_seed_trains():
    model = reviewgen.train("gru-char", TEXTS, steps=2, seed=2**64 - 1, **SMALL)
    assert model.training["seed"] == 2**64 - 1
    with pytest.raises(ConfigError, match="below 2"):
        TrainingRun("gru-char", TEXTS, seed=2**64)


def test_counting_says_why_it_ended_and_heeds_the_budget():
    assert reviewgen.train("ngram-char", TEXTS).training["stopped"] == "all texts counted"
    late = reviewgen.train("ngram-char", TEXTS, budget=0.001).training
    assert late["stopped"] == "budget spent"
    assert late["steps"] == 1
    assert "of the budget" in late["notes"][0]


def test_texts_without_a_character_are_refused_before_training():
    with pytest.raises(DataError, match="validation texts have no characters"):
        reviewgen.train("ngram-char", TEXTS, validation=["", ""], clean=False)


def test_a_damaged_cache_is_written_again(tmp_path):
    from reviewgen.data import cache_folder

    plain = reviewgen.train("ngram-char", TEXTS).generate_one(seed=1)
    (home,) = (folder for folder in cache_folder().iterdir() if folder.is_dir())
    for name in ("train.index.npy", "train.uint16", "store.json", "tokenizer/characters.json"):
        (home / name).write_bytes((home / name).read_bytes()[:20])
        assert reviewgen.train("ngram-char", TEXTS).generate_one(seed=1) == plain
        (home / name).unlink()
        assert reviewgen.train("ngram-char", TEXTS).generate_one(seed=1) == plain


def test_evaluation_cleans_as_the_training_did():
    shouted = [text.upper() for text in TEXTS]
    model = reviewgen.train("ngram-char", shouted, lowercase=True)
    as_trained = model.evaluate(shouted)
    assert as_trained == model.evaluate(shouted, lowercase=True)
    assert as_trained.bits_per_character < model.evaluate(shouted, lowercase=False).bits_per_character
    assert model.evaluate(shouted, split="test").reviews == model.training["data"]["reviews"]["test"]
    with pytest.raises(ConfigError, match="lowercase=True"):
        model.evaluate(shouted, split="test", lowercase=False)
    other = reviewgen.train("ngram-char", TEXTS, validation=["Another one."])
    with pytest.raises(ConfigError, match="with a separate validation source"):
        other.evaluate(TEXTS, split="test")
    assert other.training["data"]["validation_source"] == "list of texts"


def test_a_model_that_no_memory_holds_is_refused():
    with pytest.raises(ConfigError):
        reviewgen.train("gru-char", TEXTS, steps=1, model={"hidden_size": 10**7})
