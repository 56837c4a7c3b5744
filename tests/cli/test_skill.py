"""The skill for coding assistants in the package: its format, and every command that it names."""

import itertools
import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

import reviewgen
from tests.support.fakes import run_command
from tests.support.forked import run_python
from tests.support.loopback_hub import TOKEN, LoopbackHub

FILE = Path(reviewgen.__file__).parent / ".agents" / "skills" / "reviewgen" / "SKILL.md"
TEXT = FILE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = "".join(block for language, block in BLOCKS if language == "bash").splitlines()
SMALL = "--steps 4 --set training.evaluations=1 --set model.hidden_size=16"
SHORTER = {  # so new a model copies, and invents addresses
    "train lstm-word": "train gru-char",
    "--budget 8m": SMALL,
    "-n 200": "-n 20",
    "--allow copies": "--allow copies,email,handle,phone,url",
}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with a file of reviews and stars."""
    words = itertools.product(
        range(1, 6), ("beer", "bill", "band"), ("good", "bad", "so so"), range(5)
    )
    rows = [
        f'{stars},"The {noun} was {kind}, table {n}, {stars} stars."'
        for stars, noun, kind, n in words
    ]
    (tmp_path / "reviews.csv").write_text("stars,review\n" + "\n".join(rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_skill_has_the_format_of_skills():
    _, front, body = TEXT.split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["name"] == FILE.parent.name
    assert len(fields["description"]) <= 1024
    assert fields.keys() <= {"name", "description", "license"}
    assert body.startswith("\n# ") and len(TEXT.splitlines()) <= 120


@pytest.mark.slow
@pytest.mark.server
def test_the_commands_of_the_skill_run(place, capsys):
    with LoopbackHub({}) as hub:
        for command in COMMANDS:
            if re.search(r"^pip|plugin check|--logits-processor", command):
                continue  # see below
            for words, shorter in SHORTER.items():
                command = command.replace(words, shorter)
            with hub.client(place / "ana", TOKEN), pytest.MonkeyPatch.context() as patch:
                status, output, problem = run_command(patch, capsys, *shlex.split(command)[1:])
            assert status == 0 and output.strip(), f"{command}\n{problem}"
        published = hub.repositories["model", "ana/my-reviews"].log[1:]
        assert published == ["main: Publish gru-char with reviewgen"]
    (code,) = [block for language, block in BLOCKS if language == "python"]
    exec(compile(code, FILE.name, "exec"), {})  # the project's own page


@pytest.mark.install
def test_the_plugin_of_the_skill_is_written_installed_and_checked(place):
    about_plugins = [
        line for line in COMMANDS if re.match(r"pip|reviewgen plugin|.*--logits-processor", line)
    ]
    new, install, check, generate = map(shlex.split, about_plugins)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", "site"]
    site = {"PYTHONPATH": str(place / "site")}
    for words, environment in (
        (new, {}),
        ([*install[:2], *options, *install[2:]], {}),
        (check, site),
        (["ngram-char" if word == "my-model" else word for word in generate], site),
    ):
        done = run_python(["-m", *words], env=os.environ | environment, cwd=place, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() and not re.search(r"\d", done.stdout)
