"""The command line: results on standard output, notes on standard error, exit statuses, one
sentence for bad usage.
"""

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import reviewgen
from reviewgen.cli import console
from reviewgen.errors import ReviewgenError
from reviewgen.interrupts import SIGNALS, raise_on_interrupt, raising_interrupts
from tests.support.fakes import TEXTS
from tests.support.forked import run_python

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(model_folder, tmp_path, monkeypatch) -> Path:
    """The working folder: a corpus as csv, and a trained model m."""
    rows = "\n".join(f'{number},"{text}"' for number, text in enumerate(TEXTS))
    (tmp_path / "reviews.csv").write_text(f"id,body\n{rows}\n", encoding="utf-8")
    (tmp_path / "m").symlink_to(model_folder("ngram-char"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def run(place: Path, run_command) -> Run:
    return lambda *words: run_command(*words)


def test_train_shows_what_it_read_and_prints_the_result(run, place):
    small = ["--steps", 5, "--set", "model.hidden_size=16", "--set", "training.batch_size=4"]
    status, out, said = run("train", "gru-char", "--data", "reviews.csv", "--out", "g", *small)
    assert status == 0, said
    read, split, *progress = said.splitlines()
    assert read.startswith(
        f"Read {len(TEXTS)} reviews of reviews.csv, column: 'body' (guessed; others: id); kept"
        f" {len(TEXTS)} ("
    )
    assert split.startswith("Split: train ") and "held out" in said
    assert [
        line.partition(":")[0] for line in progress if "held out" not in line and "  | " not in line
    ] == []
    bits, verdict, copies, saved = out.splitlines()
    assert (
        bits.startswith("Held out (")
        and verdict.startswith("No verdict")
        and copies.startswith("Copy rate: ")
    )
    assert saved == "Saved in g"
    assert reviewgen.load(place / "g").model.config.hidden_size == 16


def test_train_prints_json(run):
    _, out, _ = run("train", "ngram-char", "--data", "reviews.csv", "--out", "n", "--json")
    facts = json.loads(out)
    assert {
        "preset",
        "out",
        "bits_per_character",
        "nats_per_character",
        "perplexity_per_token",
        "stopped",
    } <= facts.keys()
    assert facts["data"]["text_column"] == "body"


def test_train_reads_a_compressed_file_in_a_folder(run, place):
    (place / "data").mkdir()
    (place / "data" / "reviews.csv.gz").write_bytes(
        gzip.compress((place / "reviews.csv").read_bytes())
    )
    status, out, said = run("train", "ngram-char", "--data", "data/reviews.csv.gz", "--out", "n")
    assert (status, "Saved in n" in out) == (0, True), said


def test_what_train_leaves_out_is_printed_with_verbose_and_recorded(run, place):
    words = ["ngram-char", "--data", "reviews.csv", "--set", "model.order=3"]
    brief = "".join(run("train", *words, "--out", "a")[1:])
    status, out, said = run("train", *words, "--out", "b", "-v")
    assert status == 0, said
    training = reviewgen.load(place / "b").training
    details = [
        "Text column: ",
        "Tokens: ",
        "n-grams of 1 to 3 tokens",
        "distinct-2",
        "3-grams ",
        "Seconds: ",
        "Cleaning: ",
    ]
    assert [detail for detail in details if detail not in said + out] == []
    assert [detail for detail in details if detail in brief] == []
    assert any("n-grams of 1 to 3 tokens" in note for note in training["notes"])
    card = reviewgen.load(place / "b").bundle.card
    assert all(name in card for name in (*training["metrics"], *training["parameters"]))
    assert f"Cleaning: read {len(TEXTS)}, kept {len(TEXTS)}" in card


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


def test_a_status_says_that_functions_are_compiled(monkeypatch):
    terminal = Terminal()
    settings: dict[str, Any] = {"file": terminal, "force_terminal": True, "width": 80}
    monkeypatch.setattr(console, "notes", console.TerminalConsole(**settings))
    with console.show_status("Explaining ..."):
        numba.njit(lambda numbers: np.sort(numbers))(np.zeros(3))
        time.sleep(0.3)
    shown = terminal.getvalue()
    assert shown.index("Compiling for the first use") < shown.rindex("Explaining ...")


def test_one_output_has_one_copy_rate_with_its_interval(run, place):
    words = [
        "train",
        "ngram-char",
        "--data",
        "reviews.csv",
        "--out",
        "c",
        "--set",
        "training.novelty=exact",
        "--verbose",
    ]
    _, out, said = run(*words)
    model = reviewgen.load(place / "c")
    low, high = model.training["novelty"]["copy_rate_interval"]
    rate = f"{model.training['novelty']['copy_rate']:.1%} (95 %: {low:.1%} to {high:.1%})"
    assert f"Copy rate: {rate} of " in out
    _, plotted, _ = run("plot", "./c", "--out", "c.svg")
    assert f"Copy rate: {rate}." in plotted and rate in Path("c.svg").read_text(encoding="utf-8")
    printed = said + out + plotted + model.bundle.card + Path("c.svg").read_text(encoding="utf-8")
    assert "token copy rate" not in printed and "20-token" not in printed


def test_a_model_that_cannot_be_evaluated_is_trained_to_the_end(run):
    words = [
        "--data",
        "reviews.csv",
        "--out",
        "b",
        "--set",
        "model.order=3",
        "--set",
        "model.smoothing=stupid-backoff",
    ]
    status, out, said = run("train", "ngram-char", *words)
    assert status == 0, said
    assert "cannot be evaluated" in said and "bits per character" not in out and "Saved in b" in out


def test_generate_prints_the_texts_of_the_api(run, micro):
    model = micro("ngram-char")
    _, out, _ = run(
        "generate", "./m", "-n", 3, "--seed", 1, "--prompt", "the ", "--max-new-tokens", 40
    )
    assert (
        out
        == "\n---\n".join(model.generate("the ", num_return_sequences=3, seed=1, max_new_tokens=40))
        + "\n"
    )


def test_generate_prints_json(run, micro):
    model = micro("ngram-char")
    _, out, _ = run("generate", "./m", "-n", 2, "--seed", 5, "--json", "--stop", ".")
    assert json.loads(out)["texts"] == model.generate(
        num_return_sequences=2, seed=5, stop_strings=["."]
    )


def test_generate_prints_the_seed_that_was_drawn(run, micro):
    unseeded = json.loads(run("generate", "./m", "--json")[1])
    assert micro("ngram-char").generate(seed=unseeded["seed"]) == unseeded["texts"]


def test_generate_reads_prompts_and_writes_a_file(run, micro):
    model = micro("ngram-char")
    Path("prompts.txt").write_text("the \n\na \n", encoding="utf-8")
    words = (
        "generate",
        "./m",
        "--prompts",
        "prompts.txt",
        "-n",
        2,
        "--seed",
        4,
        "--max-new-tokens",
        9,
        "--json",
    )
    expected = model.generate(["the ", "a "], num_return_sequences=2, seed=4, max_new_tokens=9)
    assert json.loads(run(*words)[1])["texts"] == expected
    assert json.loads(run(*words, "--out", "out.jsonl")[1])["texts"] == len(expected)
    assert [
        json.loads(line)["text"]
        for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()
    ] == expected


def test_the_json_of_texts_is_what_json_dumps_prints(run, micro):
    for words in ([], ["--novelty", "report"], ["-n", 4]):
        _, out, _ = run(
            "generate", "./m", "--seed", 3, "--prompt", "a\u2028\x85\u00e9", "--json", *words
        )
        assert out == json.dumps(json.loads(out), indent=2, ensure_ascii=False) + "\n"


def test_evaluate_and_score_are_the_api_s(run, micro, monkeypatch):
    model = micro("ngram-char")
    numbers = json.loads(run("evaluate", "./m", "--data", "reviews.csv", "--json")[1])
    assert numbers["bits_per_character"] == pytest.approx(model.evaluate(TEXTS).bits_per_character)
    assert numbers.keys() >= {
        "bits_per_character",
        "nats_per_character",
        "perplexity_per_token",
        "characters",
        "reviews",
    }
    scored = json.loads(run("score", "./m", "--text", "the movie", "--json")[1])
    assert scored["bits"] == pytest.approx(model.score("the movie").bits)
    assert "".join(token["text"] for token in scored["tokens"]) == "the movie"
    Path("bad.txt").write_bytes(b"the caf\xc3\xa9 band \xff was good.\nanother line.\n")
    said = run("evaluate", "./m", "--data", "bad.txt")[2]
    assert "decode errors 1" in said and "  | another line." in said


def test_an_infinite_score_is_null_in_json(run, place):
    reviewgen.train(
        "ngram-char",
        TEXTS,
        out=place / "none",
        model={"smoothing": "none", "order": 3},
        progress=False,
    )
    Path("unseen.txt").write_text("A film that nobody has seen.", encoding="utf-8")
    status, out, said = run("evaluate", "./none", "--data", "unseen.txt", "--json")
    assert (
        status == 0 and json.loads(out)["bits_per_character"] is None and "probability zero" in said
    )
    assert json.loads(run("score", "./none", "--text", "Zzz", "--json")[1])["bits"] is None


def test_the_tables_of_explain_have_all_columns_at_80(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run("explain", "rnn-word", "--tokens", 3)
    assert (
        re.search(r"after +token +logit +log sum exp +log-softmax +bits +probability", out)
        and "… not given)" in out
    )


def test_list_doctor_and_version(run):
    assert "lstm-word" in {
        plugin["name"] for plugin in json.loads(run("list", "--json")[1])["presets"]
    }
    assert "lstm-word" in run("list")[1]
    facts = json.loads(run("doctor", "--json")[1])
    assert facts["problems"] == [] and facts["libraries"]["torch"]
    assert run("--version")[1] == f"reviewgen {reviewgen.__version__}\n"
    assert run("generate", "-h")[1] == run("generate", "--help")[1] != ""


TRAIN = "train ngram-char --data reviews.csv --out o"
GRU = "train gru-char --data reviews.csv --out o"
BAD_WORDS: list[tuple[str, int, str]] = [
    ("train ngram-char --data missing.csv --out o", 1, "missing.csv"),
    ("train ngram-char --data binary.txt --out o", 1, "binary.txt"),
    ("train ngram-chr --data reviews.csv --out o", 1, "'ngram-char'"),
    (f"{TRAIN} --text-column bodi", 1, "'body'"),
    ("train ngram-char --data m --out o", 1, "a saved model"),
    (f"{TRAIN} --set model.ordr=3", 2, "'order'"),
    (f"{TRAIN} --set model.order=many", 2, "whole number"),
    (f"{TRAIN} --set order=3", 2, "group.name=value"),
    (f"{GRU} --set model.layer=fused --set model.activation=relu", 2, "reference"),
    (f"{GRU} --set model.layer=fused --set model.zoneout=0.1", 2, "zoneout"),
    (f"{GRU} --set model.token_dropout=1", 2, "token_dropout"),
    (f"{GRU} --budget 0s", 2, "duration"),
    (f"{GRU} --budget 1m --steps 3", 2, "one of budget"),
    (f"{GRU} --documents page", 2, "paragraph"),
    ("generate ./m --temperature 0", 2, "temperature"),
    ("generate ./m --max-new-tokens -3", 2, "max_new_tokens"),
    ("generate ./m --seed -1", 2, "seed"),
    ("generate ./m --words some", 2, "known"),
    ("generate ./m --prompts none.txt", 1, "none.txt"),
    ("generate ./nowhere", 1, "no such folder"),
    ("generate lstm-wrod", 1, "'lstm-word'"),
    ("evaluate ./m --data reviews.csv --split tset", 2, "test"),
]


@pytest.mark.wrong_types
def test_bad_usage_gets_one_sentence(run, place):
    (place / "binary.txt").write_bytes(bytes(range(256)) * 9)
    problems = []
    for line, expected, key in BAD_WORDS:
        status, out, said = run(*line.split())
        errors = [each for each in said.splitlines() if each.startswith("error:")]
        is_fine = (
            (status, len(errors), out) == (expected, 1, "")
            and key in errors[0]
            and "Traceback" not in said
        )
        problems += [] if is_fine else [f"{line}: {status} {said[-300:]}"]
    assert not problems, "\n".join(problems)
    assert not (place / "o").exists()
    for line in ("train ngram-char", "train x --budgt 3", "sing", "generate m -n x"):
        status, _, said = run(*line.split())
        assert status == 2 and "Traceback" not in said


WRONG = {
    "train('rnn-char', TEXTS, seed=None)": "seed",
    "train('rnn-char', TEXTS, out=3)": "out must be a path",
    "train('rnn-char', TEXTS, step=3)": "'steps'",
    "TrainingRun('rnn-char', TEXTS, step=3)": "'step'",
    "train('rnn-char', TEXTS, model={1: 2})": "strings as keys",
    "train('x' * 100_000, TEXTS)": "preset",
    "train('rnn-char', TEXTS, out='a\\0b')": "out must be a path",
    "train('rnn-char', TEXTS, resume=np.zeros(3))": "resume",
    "load('gru-char', weight_bits=8.0)": "weight_bits",
    "load('gru-char', bit=8)": "'bit'",
    "load('ngram-char').score(3)": "string",
    "load('ngram-char').generate(novelty=np.zeros(3))": "novelty",
    "load('ngram-char').generate(Unprintable())": "Unprintable",
    "load('ngram-char').walk(logits_processor=np.array(3))": "logits_processor",
    "load('ngram-char').walk().take('a')": "'a'",
    "load('ngram-char').next_tokens(temperature=10**400)": "temperature",
    "load('ngram-char').save_pretrained('m', overwrite=np.zeros(2))": "overwrite",
    "load('ngram-char').push_to_hub('a/b', allow=np.array(3))": "allow",
    "blend(['ngram-char', 'ngram-char'], np.array(3))": "weights",
    "blend(['ngram-char', 'ngram-char'], [1e308, float('nan')])": "weights",
    "sweep('ngram-char', TEXTS, 3, [2])": "3 is not a setting",
    "sweep('ngram-char', TEXTS, 'model.order', [3], settings={'modle': {}})": "'model'",
    "tune('gru-char', TEXTS, trails=3)": "'trials'",
    "best_trial([3])": "trials",
    "graph('gru-char', 3)": "out must be a path",
    "generate_dataset('ngram-char', 3, out='t', device=5)": "device",
    "score_dataset('ngram-char', TEXTS, out='t', format=np.zeros(3))": "format",
    "plot_training(3, 'a.svg')": "sources",
    "register_model(3, int)": "name",
}


@pytest.mark.slow
@pytest.mark.wrong_types
def test_wrong_arguments_are_refused_in_one_sentence_before_any_work(tmp_path, monkeypatch):
    import numpy as np

    from tests.hostile.calls import Unprintable

    monkeypatch.chdir(tmp_path)
    names = {**vars(reviewgen), **{name: getattr(reviewgen, name) for name in reviewgen.__all__}}
    for call, key in WRONG.items():
        with pytest.raises(ReviewgenError) as error:
            # the calls above
            eval(call, names | {"TEXTS": TEXTS, "np": np, "Unprintable": Unprintable})
        assert (
            key in str(error.value) and len(str(error.value)) < 500 and "\n" not in str(error.value)
        ), call
    assert not any(tmp_path.iterdir())


STEERING = "\x1b\x07\x9b\u202e"
ODD: list[tuple[int, list[str]]] = [
    (0, ["evaluate", "./m", "--data", "odd.csv"]),
    (1, ["evaluate", "./m", "--data", "odd.csv", "--text-column", "te\x1b[31mxt"]),
    (2, ["generate", "no\x1b]0;x\x07ne"]),
    (0, ["novelty", "./m", "--text", "the movie was \x1b[31mgood\u202e."]),
    (0, ["score", "./m", "--text", "\x1b[31mgood\u202e"]),
    (0, ["explain", "./m", "--text", "the \x1b[31mgood\u202e"]),
    (2, ["settings", "no\x1b[31mne"]),
    (2, ["no\x1b[31mne"]),
    (2, ["generate", "./m", "--seed", "\x1b[31m"]),
    (2, ["push", "./m", "a\x1b[31m/b"]),
    (2, ["serve", "[/a]=nosuch", "--port", "0"]),
    (2, ["pull", "a/[/b]"]),
]


def test_what_others_have_written_cannot_steer_a_terminal(run, place):
    rows = "\n".join(
        f'{number % 2},"the \x1b[31m{text}\u202e"' for number, text in enumerate(TEXTS)
    )
    (place / "odd.csv").write_text(f"st\x1b]0;x\x07ars,bo\x1b[2Jdy\n{rows}\n", encoding="utf-8")
    for expected, words in ODD:
        status, out, said = run(*words)
        assert status == expected and "Traceback" not in said, (words, said)
        assert not any(character in out + said for character in STEERING), words
        assert status == 0 or said.strip()


@pytest.mark.parametrize(
    "preset, is_listed", [("ngram-char", False), ("gru-char", True), ("blend-char", True)]
)
def test_settings_lists_no_setting_of_training_by_gradient_for_an_n_gram(run, preset, is_listed):
    status, out, _ = run("settings", preset, "--json")
    names = {row["name"] for row in json.loads(out)["training"]}
    assert status == 0 and {"evaluation_tokens", "novelty"} <= names
    assert all(
        (name in names) == is_listed
        for name in ("learning_rate", "batch_size", "warmup", "calibration", "device")
    )


@pytest.mark.posix
def test_signals_raise_an_interrupt_inside_a_command_and_are_restored():
    # a shell may ignore some in the background
    found = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        with pytest.raises(KeyboardInterrupt), raising_interrupts():
            raise_on_interrupt()
            signal.raise_signal(number)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup sets it
    with raising_interrupts():
        raise_on_interrupt()
        signal.raise_signal(signal.SIGHUP)
    for number, handler in found.items():
        signal.signal(number, handler)


def test_an_interrupted_command_says_so(run, monkeypatch):
    monkeypatch.setattr("reviewgen.api.load", unittest.mock.Mock(side_effect=KeyboardInterrupt))
    assert run("neighbours", "./m", "the") == (130, "", "Interrupted.\n")


# In processes of their own.


def started(*words: object) -> "subprocess.Popen[str]":
    """Start a command that SIGHUP reaches, even where the tests run under nohup; conftest.py does
    it for SIGINT.
    """
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "reviewgen", *map(str, words)], stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "name",
    ["SIGINT", *(pytest.param(each, marks=pytest.mark.slow) for each in ("SIGTERM", "SIGHUP"))],
)
def test_an_interrupted_training_leaves_a_loadable_model(place, name):
    often = [
        "--steps",
        100_000,
        "--set",
        "training.evaluations=10000",
        "--set",
        "training.patience=10000",
    ]
    process = started(
        "train",
        "gru-char",
        "--data",
        "reviews.csv",
        "--out",
        "i",
        "--set",
        "model.hidden_size=8",
        *often,
    )
    assert process.stderr is not None
    next(line for line in process.stderr if "held out" in line)
    time.sleep(0.3)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130 and "Interrupted" in said and "Traceback" not in said
    model = reviewgen.load(place / "i")
    assert model.training["stopped"] == "interrupted" and model.training["steps"] > 0


@pytest.mark.slow
def test_an_interrupt_before_training_writes_nothing(place):
    os.mkfifo("slow.jsonl")
    process = started("train", "ngram-char", "--data", "slow.jsonl", "--out", "o")
    with Path("slow.jsonl").open("w"):  # waits until the command reads
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130 and "nothing was saved" in said and not (place / "o").exists()


@pytest.mark.slow
def test_standard_streams(place, micro):
    def piped(
        words: str, given: str, encoding: str = "utf-8"
    ) -> "subprocess.CompletedProcess[str]":
        command = f"{sys.executable} -m reviewgen {words}"
        env = os.environ | {"PYTHONIOENCODING": encoding}
        return subprocess.run(
            command, shell=True, input=given, capture_output=True, text=True, env=env
        )

    measured = json.loads(piped("evaluate ./m --data - --json", "\n".join(TEXTS)).stdout)
    assert measured["reviews"] == len(TEXTS)
    assert json.loads(piped("score ./m --text \u00e9 --json", "", "ascii").stdout)["bits"] > 0
    # as in a pipe on Windows
    said = piped("generate ./m --prompt \U0001f600 --max-new-tokens 5 --json", "", "cp1252")
    assert json.loads(said.stdout)["prompt"] == "\U0001f600"
    assert (
        "Traceback" not in piped(f"score ./m --text '{'the movie. ' * 400}' | head -1", "").stderr
    )


def test_a_full_disk_gets_one_sentence_and_leaves_nothing(place):
    """The size of written files is limited by the operating system: the cache fits and the model
    does not.
    """
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000));"
        "sys.argv = ['reviewgen', 'train', 'ngram-char', '--data', 'reviews.csv', '--out', 'full'];"
        "from reviewgen.cli import main; main()"
    )
    done = run_python(["-c", script], cwd=place)
    assert done.returncode == 1 and "No room" in done.stderr and "Traceback" not in done.stderr
    assert list(place.glob("*full*")) == []
