"""The command line, in processes of its own: results on standard output, notes on standard error, exit statuses."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import reviewgen
from tests.support.forked import run_python

REVIEWS = [
    f"The {noun} was {kind} number {i}." for noun in ("food", "band", "film") for kind in ("good", "bad") for i in range(12)
]


def run(*words, cwd=None, **options):
    """Run a command; with options of ``subprocess.run`` in a process that is started, not forked."""
    command = ["-m", "reviewgen", *map(str, words)]
    if options:
        return subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, **options)
    return run_python(command, cwd=cwd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a corpus as csv and a trained model m."""
    root = tmp_path_factory.mktemp("cli")
    (root / "reviews.csv").write_text(
        "id,body\n" + "\n".join(f'{i},"{text}"' for i, text in enumerate(REVIEWS)), encoding="utf-8"
    )
    reviewgen.train("ngram-char", REVIEWS, out=root / "m")
    return root


def refused(done, status, *words):
    """Assert one clear sentence on standard error, and no traceback."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]
    assert done.stdout == ""


def test_train_shows_what_it_read_and_prints_the_result(folder, tmp_path):
    small = ["--steps", 30, "--set", "model.hidden_size=16", "--set", "training.batch_size=4"]
    done = run("train", "gru-char", "--data", "reviews.csv", "--out", tmp_path / "g", *small, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Text column: 'body' (guessed; others: id)" in done.stderr
    assert done.stderr.count("  | The ") >= 3
    assert "Read 72 reviews, kept 72" in done.stderr
    assert "bits per character held out, token copy rate 0.0% (best)" in done.stderr
    assert "bits per character" in done.stdout
    assert f"Saved in {tmp_path / 'g'}" in done.stdout
    assert reviewgen.load(tmp_path / "g").model.config.hidden_size == 16


def test_train_json_is_one_object_of_the_names_of_the_api(folder, tmp_path):
    done = run("train", "ngram-char", "--data", "reviews.csv", "--out", tmp_path / "n", "--json", cwd=folder)
    facts = json.loads(done.stdout)
    assert {"preset", "out", "bits_per_character", "nats_per_character", "perplexity_per_token", "stopped", "data"} <= set(facts)
    assert facts["data"]["text_column"] == "body"


def test_generate_is_the_api_s(folder):
    model = reviewgen.load(folder / "m")
    done = run("generate", "m", "-n", 3, "--seed", 1, "--prompt", "The ", "--max-new-tokens", 40, cwd=folder)
    assert done.stdout == "\n---\n".join(model.generate("The ", num_return_sequences=3, seed=1, max_new_tokens=40)) + "\n"
    as_json = json.loads(run("generate", "m", "-n", 2, "--seed", 5, "--json", "--stop", ".", cwd=folder).stdout)
    assert as_json["texts"] == model.generate(num_return_sequences=2, seed=5, stop_strings=["."])
    unseeded = json.loads(run("generate", "m", "--json", cwd=folder).stdout)
    assert model.generate(seed=unseeded["seed"]) == unseeded["texts"]


def test_version_and_short_help():
    assert run("--version").stdout == f"reviewgen {reviewgen.__version__}\n"
    assert run("generate", "-h").stdout == run("generate", "--help").stdout != ""


def test_prompts_of_a_file(folder, tmp_path):
    (tmp_path / "prompts.txt").write_text("The \n\nA \n", encoding="utf-8")
    words = "generate", "m", "--prompts", tmp_path / "prompts.txt", "-n", 2, "--seed", 4, "--max-new-tokens", 9
    expected = reviewgen.load(folder / "m").generate(["The ", "A "], num_return_sequences=2, seed=4, max_new_tokens=9)
    assert json.loads(run(*words, "--json", cwd=folder).stdout)["texts"] == expected
    out = json.loads(run(*words, "--json", "--out", tmp_path / "out.jsonl", cwd=folder).stdout)
    assert out["texts"] == out["asked"] == 4
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == expected
    refused(run("generate", "m", "--prompts", tmp_path / "none.txt", cwd=folder), 1, "cannot be read")
    refused(run(*words, "--prompt", "a", cwd=folder), 2, "not both")


def test_standard_input_is_a_source(folder):
    given = {"cwd": folder, "input": "\n".join(REVIEWS)}
    measured = json.loads(run("evaluate", "m", "--data", "-", "--json", **given).stdout)
    assert measured["reviews"] == len(REVIEWS)
    scored = run("score", "m", "--text", "-", "--prompt", "The ", cwd=folder, input="food was good.").stdout
    assert scored == run("score", "m", "--text", "food was good.", "--prompt", "The ", cwd=folder).stdout


def test_any_words(folder):
    texts = [run("generate", "m", "--words", words, "--seed", 1, cwd=folder).stdout for words in ("known", "any")]
    assert all(texts)
    refused(run("generate", "m", "--words", "some", cwd=folder), 2, "words", "known")


def test_evaluate_and_score_are_the_api_s(folder):
    model = reviewgen.load(folder / "m")
    numbers = json.loads(run("evaluate", "m", "--data", "reviews.csv", "--json", cwd=folder).stdout)
    assert numbers["bits_per_character"] == pytest.approx(model.evaluate(REVIEWS).bits_per_character)
    assert set(numbers) >= {"bits_per_character", "nats_per_character", "perplexity_per_token", "characters", "tokens", "reviews"}
    assert "bits per character" in run("evaluate", "m", "--data", "reviews.csv", "--split", "test", cwd=folder).stdout
    scored = json.loads(run("score", "m", "--text", "The band", "--json", cwd=folder).stdout)
    assert scored["bits"] == pytest.approx(model.score("The band").bits)
    assert "".join(token["text"] for token in scored["tokens"]) == "The band"


def test_an_infinite_score_is_said_and_stays_json(folder, tmp_path):
    reviewgen.train("ngram-char", REVIEWS, out=tmp_path / "none", model={"smoothing": "none"})
    (tmp_path / "unseen.txt").write_text("A film that nobody has seen.")
    done = run("evaluate", tmp_path / "none", "--data", tmp_path / "unseen.txt", "--json")
    assert json.loads(done.stdout)["bits_per_character"] is None
    assert "probability zero" in done.stderr
    assert json.loads(run("score", tmp_path / "none", "--text", "Zzz", "--json").stdout)["bits"] is None


def test_evaluate_shows_what_it_read(folder, tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"The caf\xc3\xa9 band \xff was good.\nAnother line.\n")
    done = run("evaluate", folder / "m", "--data", tmp_path / "bad.txt")
    assert "decode errors 1" in done.stderr
    assert "  | Another line." in done.stderr
    assert "Text column: 'body'" in run("evaluate", "m", "--data", "reviews.csv", cwd=folder).stderr


def test_what_cannot_be_encoded_is_escaped(folder):
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = run("score", "m", "--text", "\u00e9", "--json", cwd=folder, env=env)
    assert json.loads(done.stdout)["bits"] > 0
    done = run("generate", "m", "--prompt", b"a\xff".decode("utf-8", "surrogateescape"), "--seed", 1, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr


def test_list_and_doctor():
    listed = json.loads(run("list", "--json").stdout)
    assert "lstm-word" in {plugin["name"] for plugin in listed["presets"]}
    assert "lstm-word" in run("list").stdout
    facts = json.loads(run("doctor", "--json").stdout)
    assert facts["problems"] == []
    assert facts["libraries"]["torch"]
    assert run("doctor").returncode == 0


BAD_CORPORA = {
    "missing.csv": (None, "no file missing.csv"),
    "empty.txt": (b"", "empty"),
    "blank.txt": (b"\n \n\n", "No reviews are left"),
    "binary.txt": (bytes(range(256)) * 9, "binary"),
    "one.txt": (b"just one review", "single review"),
    "character.txt": (b"a", "single review"),
    "broken.json": (b'[{"text": "x"', "cannot be read"),
    "ragged.csv": (b"a,b\n1,2\n3,4,5\n", "cannot be read"),
    "bad.parquet": (b"PAR1 nothing", "cannot be read"),
    "bad.txt.gz": (b"no gzip", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD_CORPORA)
def test_a_bad_corpus_gets_one_sentence(name, tmp_path):
    content, words = BAD_CORPORA[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(run("train", "ngram-char", "--data", name, "--out", "o", cwd=tmp_path), 1, words)
    assert not (tmp_path / "o").exists()


FUSED = ("gru-char", "--data", "reviews.csv", "--out", "o", "--set", "model.layer=fused")
BAD_WORDS = [
    (["train", "ngram-chr", "--data", "reviews.csv", "--out", "o"], 1, "'ngram-char'"),
    (["train", "ngram-char", "--data", "reviews.csv", "--out", "m"], 1, "already exists"),
    (["train", "ngram-char", "--data", "reviews.csv", "--out", "o", "--text-column", "bodi"], 1, "'body'"),
    (["train", "ngram-char", "--data", ".", "--out", "o"], 1, "is a folder"),
    (["train", "ngram-char", "--data", "The food was good.\nSo was the band.", "--out", "o"], 1, "pass a list"),
    (["train", "ngram-char", "--data", "reviews.csv", "--out", "o", "--set", "model.ordr=3"], 2, "'order'"),
    (["train", "ngram-char", "--data", "reviews.csv", "--out", "o", "--set", "model.order=many"], 2, "whole number"),
    (["train", "ngram-char", "--data", "reviews.csv", "--out", "o", "--set", "order=3"], 2, "group.name=value"),
    (["train", *FUSED, "--set", "model.activation=relu"], 2, "reference"),
    (["train", *FUSED, "--set", "model.zoneout=0.1"], 2, "zoneout to 0"),
    (["train", *FUSED, "--set", "model.token_dropout=1"], 2, "token_dropout must be at least 0 and below 1"),
    (["train", "gru-char", "--data", "reviews.csv", "--out", "o", "--budget", "0s"], 2, "duration"),
    (["train", "gru-char", "--data", "reviews.csv", "--out", "o", "--budget", "1m", "--steps", "3"], 2, "one of budget"),
    (["train", "gru-char", "--data", "reviews.csv", "--out", "o", "--documents", "page"], 2, "paragraph"),
    (["generate", "m", "--temperature", "0"], 2, "temperature"),
    (["generate", "m", "--top-p", "0"], 2, "top_p"),
    (["generate", "m", "--max-new-tokens", "-3"], 2, "max_new_tokens"),
    (["generate", "m", "--stop", ""], 2, "stop_strings"),
    (["generate", "m", "-n", "0"], 2, "num_return_sequences"),
    (["generate", "m", "--seed", "-1"], 2, "seed"),
    (["generate", "A text of some words"], 2, "existing folder"),
    (["generate", "./nowhere"], 1, "no such folder"),
    (["generate", "./reviews.csv"], 1, "is a file"),
    (["generate", "."], 1, "config.json"),
    (["generate", "lstm-wrod"], 1, "'lstm-word'"),
    (["score", "m", "--text", ""], 1, "no text"),
    (["evaluate", "m", "--data", "reviews.csv", "--split", "tset"], 2, "test"),
]


@pytest.mark.parametrize(
    ("words", "status", "said"), BAD_WORDS, ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else ""
)
def test_bad_usage_gets_one_sentence(folder, words, status, said):
    refused(run(*words, cwd=folder), status, said)
    assert not (folder / "o").exists()


@pytest.mark.parametrize(
    "words", [["train", "ngram-char"], ["train", "x", "--budgt", "3"], ["sing"], ["generate", "m", "-n", "x"]]
)
def test_a_usage_error_exits_with_2(folder, words):
    done = run(*words, cwd=folder)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def started(*words, cwd):
    """Start a command that signals reach, even where the tests run in the background, which ignores SIGINT."""

    def heed():
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    command = [sys.executable, "-m", "reviewgen", *map(str, words)]
    return subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True, preexec_fn=heed)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupted_run_leaves_a_loadable_model(folder, tmp_path, name):
    often = ["--steps", 100_000, "--set", "training.evaluations=10000", "--set", "training.patience=10000"]
    process = started("train", "gru-char", "--data", "reviews.csv", "--out", tmp_path / "i", *often, cwd=folder)
    next(line for line in process.stderr if "held out" in line)
    time.sleep(0.3)
    process.send_signal(getattr(signal, name))
    _, rest = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Interrupted; saving the best weights so far." in rest
    assert "Traceback" not in rest
    model = reviewgen.load(tmp_path / "i")
    assert model.training["stopped"] == "interrupted"
    assert model.training["steps"] > 0


def test_an_interrupt_before_training_writes_nothing(folder, tmp_path):
    fifo = tmp_path / "slow.jsonl"
    os.mkfifo(fifo)
    process = started("train", "ngram-char", "--data", fifo, "--out", tmp_path / "o", cwd=folder)
    with fifo.open("w"):  # waits until the command reads
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "nothing was saved" in said
    assert not (tmp_path / "o").exists()


def test_a_full_disk_gets_one_sentence_and_keeps_the_model(folder, tmp_path):
    """The size of written files is limited by the operating system, so the cache still fits and the model does not."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000));"
        f"sys.argv = ['reviewgen', 'train', 'ngram-char', '--data', 'reviews.csv', '--out', {str(tmp_path / 'full')!r}];"
        "from reviewgen.cli import main; main()"
    )
    done = run_python(["-c", script], cwd=folder)
    refused(done, 1, "No room")
    assert list(tmp_path.glob("*full*")) == []


def test_a_closed_pipe_is_no_error(folder):
    command = f"{sys.executable} -m reviewgen score m --text '{'The band. ' * 400}' | head -1"
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("sample", ["word " * 50, "a" * 500, "Short.", "", "two\n\nlines and more " * 20, "\u6620\u753b" * 90])
def test_samples_are_shown_in_lines_that_end_at_words(sample, width):
    from reviewgen.cli.train import _wrap_sample

    lines = _wrap_sample(sample, width)
    assert all(line.startswith("  | ") and len(line) <= width for line in lines)
    shown = " ".join(line.removeprefix("  | ") for line in lines).removesuffix("...")
    assert len(shown) <= 170
    if " " in sample.strip():
        assert set(shown.split()) <= set(sample.split())
    else:
        assert sample.startswith(shown.replace(" ", ""))
