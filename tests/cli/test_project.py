"""The project holds together: start-up, metadata, examples in docstrings, pages whose commands run,
dependencies.
"""

import doctest
import importlib
import io
import itertools
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import distribution, requires, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import reviewgen

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted(DOCS.rglob("*.md")),
]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
WITHOUT_CODE = {
    page: re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for page, text in TEXT.items()
}
BLOCKS = {
    page: re.findall(r"^```(python|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for page, text in TEXT.items()
}


# Start-up.

LOADED = """
import json, sys
try:
    {code}
except SystemExit:
    pass
heavy = "torch datasets accelerate tokenizers numpy".split()
plugins = [f"reviewgen_{{name}}" for name in "mixing ngram recurrent transformer char".split()]
print(json.dumps(sorted({{*heavy, *plugins}} & set(sys.modules))))
"""


def loaded(code: str) -> list[str]:
    """Return which heavy modules a fresh process has loaded after some code."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(code=code)], capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_nothing_heavy_is_loaded_at_the_start():
    commands = ["--help", "train --help", "plugin new --help", "list"]
    run = (
        "sys.argv = ['reviewgen', *words.split()]\n        with contextlib.suppress(SystemExit):\n "
        "           main()"
    )
    code = f"""import contextlib, inspect, reviewgen
    from reviewgen.cli import main
    [inspect.signature(getattr(reviewgen, name)) for name in ("load", "train", "compare")]
    reviewgen.list_presets(), reviewgen.list_models(), reviewgen.list_tokenizers()
    for words in {commands}:
        {run}"""
    assert loaded(code) == []


@pytest.mark.slow
def test_generating_loads_no_torch(model_folder, micro):
    """Neither from Python nor by the command, and the same text as with the torch model."""
    names = ["ngram-char", "nnlm-char", "rnn-char", "gru-char", "lstm-word", "blend-char"]
    folders = {name: str(model_folder(name)) for name in names}
    code = f"""import reviewgen
    for folder in {list(folders.values())}:
        print(json.dumps(reviewgen.load(folder).generate_one("the ", seed=3, max_new_tokens=30)))
        reviewgen.load(folder).generate(num_return_sequences=3, novelty="filter", max_new_tokens=20)
    options = ["--max-new-tokens", "20", "--seed", "1"]
    sys.argv = ["reviewgen", "generate", {folders["gru-char"]!r}, *options]
    from reviewgen.cli import main
    main()"""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(code=code)], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert "torch" not in json.loads(lines[-1])
    for name, line in zip(names, lines, strict=False):
        model = reviewgen.load(folders[name])
        assert model.model is not None and model.generate_one(
            "the ", seed=3, max_new_tokens=30
        ) == json.loads(line)
    assert "torch" in loaded("import reviewgen; reviewgen.TrainingRun")


# Metadata.


def test_the_entry_points_are_those_of_the_metadata():
    groups = PROJECT["project"]["entry-points"]
    installed = {
        (p.group, p.name, p.value)
        for p in distribution("reviewgen").entry_points
        if p.group.startswith("reviewgen.")
    }
    declared = set()
    for group, points in groups.items():
        if group.startswith("reviewgen."):
            declared |= {(group, name, value) for name, value in points.items()}
    assert installed == declared


def test_all_packages_are_in_the_wheel():
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert (
        packages == PROJECT["tool"]["check-wheel-contents"]["package"]
        and packages[0] == "src/reviewgen"
    )
    assert {*packages[1:]} == {
        f"plugins/{folder.name}" for folder in (ROOT / "plugins").iterdir() if folder.is_dir()
    }


def test_the_changelog_begins_with_the_version():
    headings = re.findall(
        r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    released = [heading for heading in headings if heading != "Unreleased"]
    assert re.findall(r"\d+\.\d+\.\d+", released[0])[0] == reviewgen.__version__


def test_workflows_call_targets_of_the_makefile():
    targets = set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    called = set()
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = file.read_text(encoding="utf-8")
        rows = [
            job.get("strategy", {}).get("matrix", {})
            for job in yaml.safe_load(text)["jobs"].values()
        ]
        called |= {
            *re.findall(r"make ([a-z-]+)", text),
            *itertools.chain.from_iterable(row.get("target", []) for row in rows),
        }
    assert {"test", "test-all", "audit", "dist"} <= called <= targets


def test_plugins_have_the_bounds_of_the_core():
    """In the examples, the templates and the documentation: a lower bound that the core does not
    allow cannot be installed.
    """
    lines = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["dev"],
    ]
    own = {Requirement(line).name: str(Requirement(line).specifier) for line in lines}
    files = [
        *(ROOT / "examples").glob("*/pyproject.toml"),
        *(ROOT / "src").rglob("pyproject.toml.template"),
    ]
    count = 0
    for file in [*files, *DOCS.rglob("*.md")]:
        for each in re.findall(
            r"^dependencies = (\[.*?\])", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            for line in tomllib.loads(f"a = {each}")["a"]:
                given = Requirement(line.replace("@version@", "0.1"))
                count += given.name == "torch"
                assert given.name == "reviewgen" or own.get(
                    given.name, str(given.specifier)
                ) == str(given.specifier), file
    assert count >= 5


@pytest.mark.slow
def test_examples_in_docstrings_give_what_they_say():
    names = [f"reviewgen_{name}" for name in ("char", "word", "ngram", "nnlm", "recurrent")]
    tried = 0
    for package in map(importlib.import_module, ["reviewgen", *names]):
        found = [
            each.name for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        ]
        for name in (each for each in found if not each.endswith("__main__")):
            result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
            assert result.failed == 0, name
            tried += result.attempted
    assert tried > 70


# Pages.

NOT_RUN = ("reviewgen search ", "export ", "pip install ", "hf auth login", "python -m ", "make ")
QUICK = "--steps 4 --set training.evaluations=1"
SHORTER = (  # the commands of the pages ask for minutes
    (r"--trials 20 --budget 1m", f"--trials 2 {QUICK}"),
    (r"--budget \w+", QUICK),
    (r"--epochs 20", QUICK),
    (r"-n [12]000(?:00)?\b", "-n 20"),
    (r"--steps \d{3}\b", QUICK),
    (r"train lstm-(?:word|char)", "train gru-char"),
    (r"(train gru-\w+ .*--out my-(?:gru|both|parallel|cluster|elastic))$", rf"\1 {QUICK}"),
    (r" --resume", ""),
    (r"order=2,4,6,8,12", "order=2,4"),
    (r"--language", "--allow copies,email,handle,phone,url --language"),
    (r"accelerate launch .* -m reviewgen", "reviewgen"),
)
GRU: tuple[str, dict[str, Any]] = ("gru-char", {"steps": 4, "training": {"evaluations": 1}})
EXISTING = {"my-model": GRU, "my-tuned": GRU, "my-ngram": ("ngram-char", {}), "my-gru": GRU}


def reviews() -> list[str]:
    counts = range(20)
    return [
        f"The food was {a} and the {b} was {c}."
        for a, b, c in itertools.product(("good", "bad"), ("beer", "bill", "band"), counts)
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """The saved models that pages use without having trained them; each is trained when it is first
    needed.
    """
    return tmp_path_factory.mktemp("models")


def fill(folder: Path, page: Path, models: Path) -> None:
    """Put the files that a page's commands read into a folder."""
    for step, name in enumerate(("reviews", "more-reviews", "made", "others"), 1):
        lines = [f'{number % 5 + 1},"{text}"' for number, text in enumerate(reviews()[::step])]
        (folder / f"{name}.csv").write_text("stars,review\n" + "\n".join(lines), encoding="utf-8")
    (folder / "music-reviews.json").write_text(
        json.dumps([{"review": text} for text in reviews()]), encoding="utf-8"
    )
    (folder / "titles.txt").write_text(
        "\n".join(f"Title {number}" for number in range(40)), encoding="utf-8"
    )
    blogs = ("indieshuffle.com", "acidstag.com")
    posts = [
        (f"Band {number % 7}", f"Song {number}", text, blogs[number % 2])
        for number, text in enumerate(reviews())
    ]
    columns_of = {"posts": ("artist", "title", "post", "blog"), "songs": ("artist", "title")}
    for name, columns in columns_of.items():
        lines = [",".join(row[: len(columns)]) for row in (columns, *posts)]
        (folder / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    for name in ("novel", "first", "last"):
        (folder / f"{name}.txt").write_text("\n\n".join(reviews()), encoding="utf-8")
    (folder / "test.csv").write_text(
        "text,sentiment\nI loved it.,positive\nIt was boring.,negative\n", encoding="utf-8"
    )
    (folder / "pairs.jsonl").write_text(
        '{"sentence_good": "He is.", "sentence_bad": "He are."}\n', encoding="utf-8"
    )
    code = "\n".join(block for _, block in BLOCKS[page])
    for name, (preset, options) in EXISTING.items():
        if re.search(rf"\b{name}\b", code) and not re.search(rf"--out {name}\b", code):
            if not (models / name).exists():
                reviewgen.train(
                    preset, folder / "reviews.csv", out=models / name, progress=False, **options
                )
            shutil.copytree(models / name, folder / name)


def steps(page: Path) -> Iterator[tuple[str, str]]:
    """Yield what is to be run of a page: a block of Python, or a command; what needs a Hub is left
    out.
    """
    for language, block in BLOCKS[page]:
        joined = re.sub(r" *\\\n *", " ", block)
        commands = [
            line.partition("  #")[0].strip()
            for line in joined.splitlines()
            if line.strip() and not line.startswith("#")
        ]
        for text in (
            [block]
            if language == "python"
            else [each for each in commands if not each.startswith(NOT_RUN)]
        ):
            for pattern, shorter in SHORTER if language == "bash" else ():
                text = re.sub(pattern, shorter, text)
            if not re.search(r"\bana/", text):
                yield language, text


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if BLOCKS[page]], ids=lambda page: str(page.relative_to(ROOT))
)
def test_what_a_page_shows_runs(page, tmp_path, models, monkeypatch, run_command):
    """Run the blocks of a page in order: Python in one namespace, commands in this process, all in
    one folder.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    fill(tmp_path, page, models)
    namespace: dict[str, Any] = {}
    for language, text in steps(page):
        if language == "python":
            exec(compile(text, page.name, "exec"), namespace)  # the project's own pages
            continue
        program, *words = shlex.split(text)
        assert program == "reviewgen", f"The test does not know how to run {text!r}."
        if words[0] == "generate" and "--seed" not in words:
            # a model of a few steps generates an empty review now and then
            words += ["--seed", "1"]
        status, output, problem = run_command(*words)
        assert status == 0 and output.strip(), f"{text}\n{problem}"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Markdown's toc makes them, and of the names in
    its tables.
    """
    headings = map(
        "".join, re.findall(r"^(?:#+ (.+)|\| `(.+?)` \|.*)$", WITHOUT_CODE[page], re.MULTILINE)
    )
    plain = [
        re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
        for heading in headings
    ]
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


def test_links_lead_somewhere_and_references_are_documented():
    problems = []
    documented = set(
        re.findall(
            r"^::: (\S+)",
            "\n".join(page.read_text() for page in DOCS.glob("*/*.[mt]*")),
            re.MULTILINE,
        )
    )
    documented |= {
        f"reviewgen.{name}"
        for name in re.findall(r"^\| `(\w+)`", TEXT[DOCS / "reference/python.md"], re.MULTILINE)
    }
    for page, text in WITHOUT_CODE.items():
        for target in re.findall(r"\]\((?!https?://)([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            problems += (
                []
                if file.is_file() and (not anchor or anchor in anchors(file))
                else [f"{page.name}: {target}"]
            )
        problems += [
            f"{page.name}: {name}"
            for name in set(re.findall(r"\]\[(reviewgen[\w.]+)\]", text)) - documented
        ]
    problems += [name for name in documented if not pkgutil.resolve_name(name).__doc__]
    assert not problems
    assert len(TEXT[ROOT / "README.md"].splitlines()) <= 90


# Dependencies: what ``make audit`` and ``make wheel`` say.


def test_which_licences_are_accepted():
    from tests.audit import licences

    accepted = [
        "MIT",
        "MIT OR GPL-3.0-only",
        "(MIT OR GPL-2.0-only) AND BSD-3-Clause",
        "Apache-2.0 WITH LLVM-exception",
    ]
    refused = [
        "MIT AND GPL-3.0-only",
        "GPL-2.0-only WITH Classpath-exception-2.0",
        "LGPL-3.0-only",
        "unknown",
        "",
    ]
    assert all(map(licences.is_accepted, accepted)) and not any(map(licences.is_accepted, refused))
    for headers, licence in (
        ([("License-Expression", "ISC"), ("License", "GPL")], "ISC"),
        ([("License", "Apache License, Version 2.0")], "Apache-2.0"),
        (
            [("License", "UNKNOWN"), ("Classifier", "License :: OSI Approved :: BSD License")],
            "BSD-3-Clause",
        ),
        ([], "unknown"),
    ):
        message = Message()
        for key, value in headers:
            message[key] = value
        assert licences.licence(type("Metadata", (), {"metadata": message})()) == licence  # type: ignore[arg-type]


def test_all_dependencies_installed_here_have_accepted_licences_and_lower_bounds():
    from tests.audit import bounds, licences
    from tests.audit.walk import walk

    tree = walk("reviewgen", frozenset(["dev"]))
    found = {
        name: licences.licence(dist)
        for name, dist in tree.found.items()
        if not licences.why_excepted(name)
    }
    assert {
        name: licence for name, licence in found.items() if not licences.is_accepted(licence)
    } == {}
    # a dependency, one of its dependencies, and one of that one's
    assert {"torch", "sympy", "mpmath"} <= set(tree.found)
    ranges = [Requirement(text) for text in requires("reviewgen") or []]
    assert [
        str(each) for each in ranges if each.name != "reviewgen" and bounds.bound(each) is None
    ] == []


def test_vulnerabilities_are_read_and_silence_is_not_taken_for_safety(monkeypatch):
    from tests.audit import vulnerabilities

    known = {
        "name": "a",
        "version": "1.0",
        "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}],
    }
    report = {
        "dependencies": [
            known,
            {"name": "b", "version": "2.0", "vulns": []},
            {"name": "c", "skip_reason": "not found"},
        ]
    }
    answer = vulnerabilities.read(json.dumps(report))
    assert answer.known == ["a 1.0: CVE-1, mended in 1.1"] and answer.unanswered == ["c: not found"]
    done = subprocess.CompletedProcess([], 0, "", "ERROR: no route to host")
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: done)
    with pytest.raises(ConnectionError, match="no route to host"):
        vulnerabilities.ask([distribution("torch")])


@pytest.mark.install
def test_the_wheel_holds_the_skill_and_a_valid_sbom_that_lists_its_dependencies(tmp_path):
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    from tests.audit import sbom

    first, second = (JsonV1Dot6(sbom.bom("reviewgen")).output_as_string(indent=2) for _ in range(2))
    assert first == second
    (tmp_path / "reviewgen.cdx.json").write_text(first, encoding="utf-8")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    env = {**os.environ, "REVIEWGEN_SBOM": os.path.relpath(tmp_path / "reviewgen.cdx.json", ROOT)}
    subprocess.run(words, cwd=ROOT, env=env, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert "reviewgen/.agents/skills/reviewgen/SKILL.md" in wheel.namelist()
        text = wheel.read(
            f"reviewgen-{version('reviewgen')}.dist-info/sboms/reviewgen.cdx.json"
        ).decode("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    scopes = {
        canonicalize_name(each["name"]): each["scope"] for each in json.loads(text)["components"]
    }
    assert (scopes["mpmath"], scopes["matplotlib"]) == ("required", "optional")
