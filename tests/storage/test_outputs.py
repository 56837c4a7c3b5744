"""Every command that writes a file or a folder, where a user has something else: it is refused, and
left as it is.
"""

from pathlib import Path

import pytest

from reviewgen.cli import app
from tests.support.disks import listing
from tests.support.fakes import TEXTS

COMMANDS = [
    "train ngram-char --data texts.txt --steps 1 --out @",
    "prepare texts.txt --preset gru-char --out @",
    "blend net net --out @",
    "generate net -n 1 --max-new-tokens 3 --out @",
    "generate net -n 1 --max-new-tokens 3 --receipt @",
    "generate net -n 1 --max-new-tokens 3 --format jsonl --out @",
    "generate net -n 1 --max-new-tokens 3 --format parquet --out @.d",
    "score net --data texts.txt --out @",
    "score net --data texts.txt --out @.jsonl",
    "novelty net --data texts.txt --out @",
    "sweep ngram-char --data texts.txt --steps 1 --set model.order=2,3 --plot @.svg",
    "sweep ngram-char --data texts.txt --steps 1 --set model.order=2,3 --out @",
    "sweep ngram-char --data texts.txt --steps 1 --set model.order=2,3 --out @ --resume",
    "ablate ngram-char --data texts.txt --steps 1 --out @",
    "tune ngram-char --data texts.txt --trials 1 --steps 1 --storage @",
    "tune-sampling net --data texts.txt --texts 20 --out @",
    "compare net --data texts.txt --html @.html",
    "compare net --data texts.txt --out @",
    "compare net --data texts.txt --out @ --resume",
    "explain net --html @.html",
    "plot net --out @.svg",
    "graph net --out @.svg",
    "probe net --texts 0 --plot @.svg",
    "probe net --texts 0 --html @.html",
    "report texts.txt --train texts.txt --out @.html",
    "export net --html @.html",
    "export net --onnx @",
    "export net --tokenizer @",
    "export net --arpa @.arpa",
    "pull ana/net --out @",
    "plugin new mingru --model --out @",
]
WITH_OVERWRITE = (
    "sweep",
    "compare net --data texts.txt --html",
    "explain",
    "plot",
    "graph",
    "probe",
    "report",
    "export",
)
WITHOUT_A_FILE = {
    "settings",
    "list",
    "play",
    "replay",
    "evaluate",
    "serve",
    "demo",
    "doctor",
    "push",
    "search",
}
WITHOUT_A_FILE |= {"neighbours", "contrast", "classify"}
"""Commands without an output; what ``doctor`` and ``push`` change has tests of its own."""


def put(kind: str, target: Path) -> None:
    """Put a file, a folder or a link of the user's at a place."""
    if kind == "file":
        target.write_text("my thesis", encoding="utf-8")
    elif kind == "folder":
        (target / "parts").mkdir(parents=True)
        names = (
            "thesis.txt",
            "parts/1.txt",
            "config.json",
            "manifest.json",
            "README.md",
            "tokenizer_config.json",
            "model.onnx",
        )
        for name in names:
            (target / name).write_text('{"my": "thesis"}', encoding="utf-8")
    else:
        (target.parent / "elsewhere").write_text("my thesis", encoding="utf-8")
        target.symlink_to(target.parent / "elsewhere")


@pytest.mark.parametrize(
    "kind",
    [
        "folder",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("file", "link", "folder, with --overwrite")
        ),
    ],
)
@pytest.mark.posix
def test_what_a_user_has_there_is_left_as_it_is(
    kind, model_folder, tmp_path, monkeypatch, run_command
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    problems = []
    for number, line in enumerate(COMMANDS):
        if "overwrite" in kind and not line.startswith(WITH_OVERWRITE):
            continue
        place = tmp_path / str(number)
        place.mkdir()
        (place / "net").symlink_to(model_folder("gru-char"))
        (place / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
        monkeypatch.chdir(place)
        words = line.split()
        put(kind.partition(",")[0], place / next(word for word in words if "@" in word))
        before = listing(place)
        status, _, said = run_command(*words, *(["--overwrite"] if "overwrite" in kind else []))
        is_refused = status in (1, 2) and said.splitlines()[-1].startswith("error: ")
        problems += (
            [] if is_refused and listing(place) == before else [f"{line}: {status} {said[-200:]}"]
        )
    assert not problems, "\n".join(problems)


def test_all_commands_are_here():
    names = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    assert names - WITHOUT_A_FILE == {line.split()[0] for line in COMMANDS} - {"plugin"}
