"""README and docs/: their snippets and commands run, page by page; links, the file tree and the call chains are true."""

import ast
import io
import itertools
import json
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import reviewgen
from reviewgen.cli import app
from tests.support.fakes import run_command
from tests.support.loopback_hub import TOKEN, LoopbackHub

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = {page: BLOCK.findall(text) for page, text in TEXT.items()}
WITHOUT_CODE = {page: re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL) for page, text in TEXT.items()}

COMMANDS = {command.name for command in app.registered_commands}

NOT_RUN = ("export ", "pip install ", "hf auth login", "python -m build", "python -m twine ", "python -m tests.hostile ")
QUICK = "--steps 4 --set training.evaluations=1"
SHORTER = (  # the commands of the pages ask for minutes
    (r"--trials 20 --budget 1m", f"--trials 2 {QUICK}"),
    (r"--budget \w+", QUICK),
    (r"--epochs 20", QUICK),
    (r"-n 100000", "-n 20"),
    (r"--steps 200", QUICK),
    (r"train lstm-(?:word|char)", "train gru-char"),
    (r"(train gru-\w+ .*--out my-(?:gru|parallel|cluster|elastic))$", rf"\1 {QUICK}"),
    (r" --resume", ""),  # tests/unit/test_resuming.py interrupts runs
    (r"order=2,4,6,8,12", "order=2,4"),
    (r"--language", "--allow copies,email,handle,phone,url --language"),
    (r"accelerate launch .* -m reviewgen", "reviewgen"),  # tests/unit/test_processes.py starts several processes
)
GRU = ("gru-char", {"steps": 4, "training": {"evaluations": 1}})
EXISTING = {"my-model": GRU, "my-tuned": GRU, "my-ngram": ("ngram-char", {}), "my-gru": GRU}


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(block: str) -> list[str]:
    """Return the commands of a block of shell; a backslash continues a line."""
    lines = re.sub(r" *\\\n *", " ", block).splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The saved models that pages use without having trained them; each is trained when it is first needed."""
    folder = tmp_path_factory.mktemp("models")

    def copy(name: str, to: Path) -> None:
        if not (folder / name).exists():
            preset, options = EXISTING[name]
            reviewgen.train(preset, reviews(), out=folder / name, **options)
        shutil.copytree(folder / name, to / name)

    return copy


def reviews() -> list[str]:
    counts = range(20)
    return [f"The food was {a} and the {b} was {c}." for a in ("good", "bad") for b in ("beer", "bill", "band") for c in counts]


def fill(folder: Path, page: Path, models) -> None:
    """Put the files that a page's commands read into a folder."""
    for name, texts in (("reviews", reviews()), ("more-reviews", reviews()[::3])):
        lines = [f'{number % 5 + 1},"{text}"' for number, text in enumerate(texts)]
        (folder / f"{name}.csv").write_text("stars,review\n" + "\n".join(lines), encoding="utf-8")
    for name in ("novel", "first", "last"):
        (folder / f"{name}.txt").write_text("\n\n".join(reviews()), encoding="utf-8")
    code = "\n".join(block for _, block in BLOCKS[page])
    for name in EXISTING:
        if re.search(rf"\b{name}\b", code) and not re.search(rf"--out {name}\b", code):
            models(name, folder)


def shorten(command: str) -> str:
    for pattern, shorter in SHORTER:
        command = re.sub(pattern, shorter, command)
    return command


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCKS[page]], ids=page_name)
def test_what_a_page_shows_runs(page, tmp_path, models, monkeypatch, capsys):
    """Run the blocks of a page in order: Python in one namespace, commands in this process, all in one folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    fill(tmp_path, page, models)
    namespace, on_the_hub = {}, []
    for language, text in steps(page):
        if re.search(r"\bana/", text):
            on_the_hub.append((language, text))
        elif language == "python":
            exec(compile(text, page_name(page), "exec"), namespace)  # the project's own pages
        else:
            program, *words = shlex.split(text)
            assert program == "reviewgen", f"The test does not know how to run {text!r}."
            if words[0] == "generate" and "--seed" not in words:
                words += ["--seed", "1"]  # a model of a few steps generates an empty review now and then
            status, output, problem = run_command(monkeypatch, capsys, *words)
            assert status == 0, f"{text}\n{problem}"
            assert output.strip(), text
    if on_the_hub:
        run_with_a_hub(on_the_hub, tmp_path)


def steps(page: Path) -> Iterator[tuple[str, str]]:
    """Yield what is to be run of a page: a block of Python, or a command."""
    for language, block in BLOCKS[page]:
        if language == "python":
            yield language, block
        else:
            yield from ((language, shorten(command)) for command in commands(block) if not command.startswith(NOT_RUN))


HUB_SCRIPT = """
import json, shlex, sys
from reviewgen.cli import main
for language, text in json.load(sys.stdin):
    if language == "python":
        exec(text, {})
        continue
    sys.argv = shlex.split(text)
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{text}: status {end.code}")
"""


def run_with_a_hub(texts: list[tuple[str, str]], folder: Path) -> None:
    """Run Python and commands in one other process: the client of the Hub reads its address when it is imported."""
    with LoopbackHub({}) as hub:
        environment = hub.environment(folder / "home", TOKEN)
        done = subprocess.run(
            [sys.executable, "-c", HUB_SCRIPT],
            input=json.dumps(texts),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_metadata_of_a_package_is_read_as_toml_and_its_groups_exist():
    page = DOCS / "how-to" / "plugins.md"
    blocks = re.findall(r"^```toml\n(.*?)^```", TEXT[page], re.MULTILINE | re.DOTALL)
    groups = {group for block in blocks for group in tomllib.loads(block)["project"]["entry-points"]}
    registry = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src/reviewgen/registry").glob("*.py"))
    assert groups >= {"reviewgen.models", "reviewgen.steppers", "reviewgen.presets", "reviewgen.weights"}
    assert [group for group in groups if f'"{group}"' not in registry] == []


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Markdown's toc makes them."""
    headings = re.findall(r"^#+ (.+)$", WITHOUT_CODE[page], re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower() for heading in headings]
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", WITHOUT_CODE[page]):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{target}: there is no {file}."
        assert not anchor or anchor in anchors(file), f"{target}: {path or 'this page'} has the anchors {sorted(anchors(file))}."


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_references_to_python_are_to_documented_objects(page):
    text = WITHOUT_CODE[page]
    for name in [*re.findall(r"^::: (\S+)", text, re.MULTILINE), *re.findall(r"\]\[(reviewgen[\w.]+)\]", text)]:
        assert pkgutil.resolve_name(name).__doc__, f"{name} has no docstring."
    documented = set(re.findall(r"^::: (\S+)", "\n".join(TEXT.values()), re.MULTILINE))
    assert set(re.findall(r"\]\[(reviewgen[\w.]+)\]", text)) <= documented


def test_the_reference_has_every_public_name_and_command():
    reference = "\n".join(text for page, text in TEXT.items() if page.parent.name == "reference")
    documented = set(re.findall(r"^::: reviewgen\.(\w+)$", reference, re.MULTILINE))
    assert set(reviewgen.__all__) - {"__version__", "ReviewgenError"} <= documented
    assert {f"reviewgen.{name}" for name in documented} >= {"reviewgen.load", "reviewgen.train"}
    names = COMMANDS | {group.name for group in app.registered_groups}
    nested = {f"{group.name} {each.name}" for group in app.registered_groups for each in group.typer_instance.registered_commands}
    page = TEXT[DOCS / "reference" / "cli.md"]
    assert names | nested == set(re.findall(r"^<!-- help: (\S.*) -->$", page, re.MULTILINE)) and "plugin check" in nested
    assert names == set(re.findall(r"^\| \[`([\w-]+)`\]", page, re.MULTILINE))


def test_the_readme_is_short_and_shows_a_picture():
    text = TEXT[ROOT / "README.md"]
    assert len(text.splitlines()) <= 150
    picture = ROOT / re.search(r"!\[[^\]]+\]\(([^)]+)\)", text)[1]
    assert picture.stat().st_size < 100_000
    assert "url(" not in picture.read_text(encoding="utf-8").replace("url(#", "")  # nothing from another server


def test_every_page_is_in_the_navigation():
    config = (DOCS / "mkdocs" / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ *- .+: (\S+\.md)$", config, re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES if page != ROOT / "README.md")


ARCHITECTURE = TEXT[DOCS / "architecture.md"]


def block_after(heading: str) -> list[str]:
    """Return the lines of the first block of code after a heading of the page on architecture."""
    return ARCHITECTURE.split(f"{heading}\n", 1)[1].split("```text\n", 1)[1].split("\n```", 1)[0].splitlines()


def tree() -> dict[str, str]:
    """Return path and comment of each line of the file tree; a folder ends with a slash."""
    listed, parents = {}, []
    for line in block_after("## Files"):
        depth = (len(line) - len(line.lstrip())) // 4
        name, _, comment = line.strip().partition(" ")
        parents[depth:] = [name]
        listed["".join(parents)] = comment.strip()
    return listed


def test_the_file_tree_lists_every_file():
    listed = tree()
    sources = [file for top in ("src/reviewgen", "plugins") for file in (ROOT / top).rglob("*") if file.suffix == ".py"]
    there = {str(file.relative_to(ROOT)) for file in sources} | {"src/reviewgen/py.typed"}
    there |= {f"{parent}/" for path in there for parent in map(str, Path(path).parents) if parent not in (".", "src")}
    assert sorted(there - listed.keys()) == [], "These are not in docs/architecture.md."
    assert sorted(listed.keys() - there) == [], "These are in docs/architecture.md and do not exist."
    assert [path for path, comment in listed.items() if not comment] == []


def functions(file: Path, name: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if getattr(node, "name", None) == name]


def called(function: ast.FunctionDef) -> set[str]:
    """Return the names of what a function calls; a loop over something calls its ``__iter__``."""
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            names.add(node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
        elif isinstance(node, ast.For | ast.YieldFrom):
            names.add("__iter__")
    return names


@pytest.mark.parametrize(
    ("heading", "most_calls"),
    [("### From generate to the sampled token", 9), ("### From train to the optimizer's step", 5)],
    ids=["generate", "train"],
)
def test_each_function_of_a_call_chain_calls_the_next(heading, most_calls):
    chain = [line.split(": ") for line in block_after(heading)]
    assert 1 < len(chain) <= most_calls + 1
    for (file, name), (_, following) in itertools.pairwise(chain):
        found = functions(ROOT / file, name)
        assert found, f"{file} has no function {name}."
        assert any(following in called(function) for function in found), f"{name} in {file} does not call {following}."
