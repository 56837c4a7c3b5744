"""Every command that writes a file or a folder, at a place where somebody else has something: it is refused and left as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.cli import app
from tests.support.fakes import GRU, TEXTS, run_command

COMMANDS = {
    "train": "train ngram-char --data texts.txt --steps 1 --out @",
    "prepare": "prepare texts.txt --preset gru-char --out @",
    "blend": "blend net net --out @",
    "generate": "generate net -n 1 --max-new-tokens 3 --out @",
    "generate receipt": "generate net -n 1 --max-new-tokens 3 --receipt @",
    "generate jsonl": "generate net -n 1 --max-new-tokens 3 --format jsonl --out @",
    "generate parquet": "generate net -n 1 --max-new-tokens 3 --format parquet --out @.d",
    "score": "score net --data texts.txt --out @",
    "score file": "score net --data texts.txt --out @.jsonl",
    "novelty": "novelty net --data texts.txt --out @",
    "sweep": "sweep ngram-char --data texts.txt --steps 1 --set model.order=2,3 --plot @.svg",
    "tune": "tune ngram-char --data texts.txt --trials 1 --steps 1 --storage @",
    "tune-sampling": "tune-sampling net --data texts.txt --texts 20 --out @",
    "compare page": "compare net --data texts.txt --html @.html",
    "compare": "compare net --data texts.txt --out @",
    "compare resumed": "compare net --data texts.txt --out @ --resume",
    "explain": "explain net --html @.html",
    "plot": "plot net --out @.svg",
    "graph": "graph net --out @.svg",
    "export html": "export net --html @.html",
    "export onnx": "export net --onnx @",
    "export transformers": "export net --transformers @",
    "pull": "pull ana/net --out @",
    "plugin new": "plugin new mingru --model --out @",
}
WITH_OVERWRITE = ["sweep", "compare page", "explain", "plot", "graph", "export html", "export onnx", "export transformers"]
WITHOUT_A_FILE = {"settings", "list", "play", "replay", "evaluate", "serve", "demo", "doctor", "push"}
"""Commands without an output; what ``doctor`` and ``push`` change has tests of its own."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    reviewgen.train("gru-char", TEXTS * 3, steps=2, out=folder / "net", progress=False, **GRU)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and texts, in which the commands run."""
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "net").symlink_to(made / "net")
    (folder / "texts.txt").write_text("\n".join(TEXTS * 3), encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


def content_of(folder: Path) -> dict[str, bytes | str | None]:
    """Return what is below a folder: the content of files, the targets of links."""
    found: dict[str, bytes | str | None] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        found[name] = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def put_file(target: Path) -> None:
    target.write_text("my thesis", encoding="utf-8")


def put_folder(target: Path) -> None:
    (target / "parts").mkdir(parents=True)
    for name in ("thesis.txt", "parts/1.txt", "config.json", "README.md", "tokenizer_config.json", "model.onnx", "manifest.json"):
        (target / name).write_text('{"my": "thesis"}', encoding="utf-8")


def put_link(target: Path) -> None:
    (target.parent / "elsewhere").write_text("my thesis", encoding="utf-8")
    target.symlink_to(target.parent / "elsewhere")


@pytest.mark.parametrize("put", [put_file, put_folder, put_link], ids=["file", "folder", "link"])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_others_have_there_is_left_as_it_is(
    name: str, put: Callable[[Path], None], place: Path, monkeypatch: Any, capsys: Any
) -> None:
    words = COMMANDS[name].split()
    put(place / next(word for word in words if "@" in word))
    _refuses(words, place, monkeypatch, capsys)


@pytest.mark.parametrize("name", WITH_OVERWRITE)
def test_no_option_replaces_a_folder_of_another_kind(name: str, place: Path, monkeypatch: Any, capsys: Any) -> None:
    words = COMMANDS[name].split()
    put_folder(place / next(word for word in words if "@" in word))
    _refuses([*words, "--overwrite"], place, monkeypatch, capsys)


def _refuses(words: list[str], place: Path, monkeypatch: Any, capsys: Any) -> None:
    before = content_of(place)
    status, _, said = run_command(monkeypatch, capsys, *words)
    assert status in (1, 2) and said.splitlines()[-1].startswith("error: "), said
    assert content_of(place) == before, said


def test_all_commands_are_here() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    assert names - WITHOUT_A_FILE == {words.split()[0] for words in COMMANDS.values()} - {"plugin"}
