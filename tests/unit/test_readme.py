"""The README's snippets run, in order and in one namespace, and its commands parse."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.loopback_hub import TOKEN, LoopbackHub

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^reviewgen (.+)$", README, re.MULTILINE)


def test_the_python_snippets_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), namespace)  # the project's own README
    assert len(SNIPPETS) == 5
    assert "The food was" in capsys.readouterr().out
    assert (tmp_path / "gru-model" / "model.safetensors").exists()


def test_the_commands_run(tmp_path):
    reviews = [
        f"The food was {a} and the {b} was {c}." for a in ("good", "bad") for b in ("beer", "bill", "band") for c in range(20)
    ]
    for name, rows in (("reviews", reviews), ("more-reviews", reviews[::3])):
        lines = [f'{number % 5 + 1},"{text}"' for number, text in enumerate(rows)]
        (tmp_path / f"{name}.csv").write_text("stars,review\n" + "\n".join(lines))
    assert len(COMMANDS) == 22
    with LoopbackHub({}) as hub:
        run_all(tmp_path, hub.environment(tmp_path / "home", TOKEN))


def run_all(folder, environment):
    for command in COMMANDS:
        command = command.replace("--trials 20 --budget 1m", "--trials 2 --steps 8").replace(
            "--language", "--allow copies,email,handle,phone,url --language"
        )
        words = shlex.split(command.replace("8m", "3s").replace("lstm-word", "gru-char").replace("order=2,4,6,8,12", "order=2,4"))
        done = subprocess.run(
            [sys.executable, "-m", "reviewgen", *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
