"""The architecture as a test: floors of rooms, no circles, no import of the package root, and what a plugin may import.

All imports count, wherever they stand: at module level, inside a function, and under TYPE_CHECKING. A file that names another
file's types depends on it, and an import moved into a function hides a circle and does not remove it. Importing ``reviewgen.a.b``
counts as an import of ``b`` only, and not of the package ``a`` around it.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src" / "reviewgen"
PLUGINS = ROOT / "plugins"
FLOORS = {
    room: floor
    for floor, rooms in {
        0: ("version", "errors", "interrupts", "inputs"),
        1: (
            "names",
            "config",
            "compiled",
            "pictures",
            "pages",
            "storage",
            "flushing",
            "scratch",
            "checksums",
            "lock",
            "sentences",
            "hub_client",
            "web",
        ),
        2: ("protocols", "registry", "conditions", "novelty", "lexicon", "scaffold", "partial"),
        3: ("data", "generation", "inspection"),
        4: ("evaluation", "blending", "bundle"),
        5: ("training", "card"),
        6: ("hub",),
        7: ("model",),
        8: ("runs", "search", "receipts", "preparation", "writing"),
        9: ("api",),
        10: ("explanation", "export", "graphs", "serving"),
        11: ("comparison",),
        12: ("cli", "__main__"),
    }.items()
    for room in rooms
}
SIDE = "testing"  # may import every room; only the command line imports it, for ``plugin check``
PLUGINS_MAY_IMPORT = {"protocols", "config", "errors", "compiled"}
HEAVY = {"torch", "numpy", "datasets", "accelerate", "tokenizers", "safetensors", "huggingface_hub", "typer", "rich", "numba"}
LIGHT_ROOMS = {
    "version": set(),
    "errors": set(),
    "interrupts": set(),
    "inputs": set(),
    "names": set(),
    "config": set(),
    "registry": set(),
    "storage": {"safetensors"},
}
"""Rooms that import no heavy library, and their exceptions."""


def imports(source: str) -> set[str]:
    """Return every module or name that a source text imports; ``from a import b`` gives ``a.b``, ``import a`` gives ``a``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "Imports are absolute here."
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_root(source: str) -> bool:
    """Return whether a source text imports the package root: ``from reviewgen import x``, or ``import`` that binds its name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            bound = {alias.name if alias.asname else alias.name.split(".")[0] for alias in node.names}
            if "reviewgen" in bound:
                return True
        if isinstance(node, ast.ImportFrom) and node.module == "reviewgen":
            return True
    return False


def rooms(source: str) -> set[str]:
    """Return the rooms of the core that a source text imports from."""
    parts = [name.split(".") for name in imports(source)]
    return {part[1] for part in parts if part[0] == "reviewgen" and len(part) > 1} & (FLOORS.keys() | {SIDE})


def room_of(file: Path) -> str:
    return file.relative_to(CORE).parts[0].removesuffix(".py")


def upward(room: str, source: str) -> list[str]:
    """Return the imports of a file that its room may not have: higher floors, the side, plugins, heavy libraries."""
    if room == SIDE:
        return []
    others = rooms(source) - {room}
    bad = [other for other in others if (room != "cli" if other == SIDE else FLOORS[other] > FLOORS[room])]
    tops = {name.split(".")[0] for name in imports(source)}
    heavy = (tops & HEAVY) - LIGHT_ROOMS[room] if room in LIGHT_ROOMS else set()
    return sorted(bad + list(heavy) + [top for top in tops if top.startswith("reviewgen_")])


def plugin_violations(own: str, source: str) -> list[str]:
    """Return the imports of a plugin's file beyond the contracts: other rooms, other plugins, the package root."""
    others = {name for name in imports(source) if name.startswith("reviewgen_") and name.split(".")[0] != own}
    root = {"reviewgen"} if imports_root(source) else set()
    return sorted((rooms(source) - PLUGINS_MAY_IMPORT) | others | root)


def module_name(file: Path) -> str:
    """Return the dotted name of a file of the core."""
    parts = file.relative_to(CORE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Return which of some modules imports which, by dotted name."""
    edges: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = imports(source)
        hits = {name if name in sources else name.rpartition(".")[0] for name in names}
        edges[module] = (hits & sources.keys()) - {module}
    return edges


def circle(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the nodes of a circle, the first again at the end; empty if there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for other in sorted(edges.get(node, ())):
            if way := visit(other, [*path, node]):
                return way
        done.add(node)
        return []

    return next((way for node in sorted(edges) if (way := visit(node, []))), [])


CORE_FILES = [file for file in sorted(CORE.rglob("*.py")) if file != CORE / "__init__.py"]
PLUGIN_FILES = sorted(PLUGINS.rglob("*.py"))
SOURCES = {file: file.read_text(encoding="utf-8") for file in CORE_FILES + PLUGIN_FILES}


@pytest.mark.parametrize("file", CORE_FILES, ids=lambda file: str(file.relative_to(CORE)))
def test_a_room_imports_from_no_higher_floor(file):
    assert upward(room_of(file), SOURCES[file]) == []


@pytest.mark.parametrize("file", CORE_FILES, ids=lambda file: str(file.relative_to(CORE)))
def test_no_file_of_the_core_imports_the_package_root(file):
    assert not imports_root(SOURCES[file])


@pytest.mark.parametrize("room", sorted({room_of(file) for file in CORE_FILES}))
def test_the_files_of_a_room_import_each_other_in_no_circle(room):
    assert circle(graph({module_name(file): SOURCES[file] for file in CORE_FILES if room_of(file) == room})) == []


def test_rooms_of_one_floor_import_each_other_in_no_circle():
    edges: dict[str, set[str]] = {room: set() for room in FLOORS}
    for file in CORE_FILES:
        if (room := room_of(file)) != SIDE:
            edges[room] |= rooms(SOURCES[file]) - {room}
    assert circle(edges) == []


@pytest.mark.parametrize("file", PLUGIN_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_plugin_imports_the_contracts_and_no_other_plugin(file):
    assert plugin_violations(file.relative_to(PLUGINS).parts[0], SOURCES[file]) == []


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples").glob("*/reviewgen_*/*.py")), ids=lambda file: f"{file.parent.name}/{file.stem}"
)
def test_example_packages_import_only_what_plugins_may(file):
    assert plugin_violations(file.parent.name, file.read_text(encoding="utf-8")) == []


def test_every_room_has_a_floor_and_every_floor_its_rooms():
    assert {room_of(file) for file in CORE_FILES} == FLOORS.keys() | {SIDE}


def test_the_page_on_architecture_has_one_row_for_each_floor():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \| .* \|$", text, re.MULTILINE)
    listed = [(int(floor), set(re.findall(r"`(\w+)`", rooms)) - {SIDE}) for floor, rooms in rows]
    floors = sorted(set(FLOORS.values()))
    assert listed == [(floor, {room for room in FLOORS if FLOORS[room] == floor} - {"__main__"}) for floor in floors]


def test_only_the_suite_imports_pytest():
    users = {room_of(file) for file in CORE_FILES if any(name.split(".")[0] == "pytest" for name in imports(SOURCES[file]))}
    assert users <= {SIDE}


# Each check can fail.


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("errors", "import torch"),
        ("config", "def f():\n    from numpy import array"),
        ("storage", "import numpy"),
        ("data", "from reviewgen.training import fit"),
        ("data", "def f():\n    from reviewgen.bundle.write import write_bundle"),
        ("novelty", "if TYPE_CHECKING:\n    from reviewgen.model import ReviewModel"),
        ("generation", "import reviewgen.api"),
        ("training", "from reviewgen import bundle, card, hub"),
        ("api", "import reviewgen_ngram.model"),
        ("api", "from reviewgen.testing import laws"),
    ],
)
def test_an_upward_import_is_noticed(room, source):
    assert upward(room, source)


@pytest.mark.parametrize(
    ("room", "source"),
    [("search", "from reviewgen.runs import TrainingRun"), ("storage", "import safetensors, os"), (SIDE, "import pytest")],
)
def test_an_import_from_the_same_or_a_lower_floor_is_not(room, source):
    assert upward(room, source) == []


@pytest.mark.parametrize(
    "source",
    ["import reviewgen", "import reviewgen as r", "import reviewgen.errors", "def f():\n    from reviewgen import __version__"],
)
def test_an_import_of_the_root_is_noticed(source):
    assert imports_root(source)
    assert not imports_root("from reviewgen.version import __version__\nimport reviewgen.errors as errors, reviewgen_ngram")


@pytest.mark.parametrize(
    "sources",
    [
        {"r.a": "from r.b import x", "r.b": "from r.a import y"},
        {"r.a": "from r import b", "r.b": "def f():\n    from r.c import z", "r.c": "if TYPE_CHECKING:\n    from r.a import y"},
        {"r": "from r.a import x", "r.a": "from r import y"},
    ],
    ids=["two files", "in a function and for types", "through the package"],
)
def test_a_circle_of_files_is_noticed(sources):
    way = circle(graph(sources))
    assert way[0] == way[-1] and set(way) == set(sources)


def test_files_without_a_circle_pass():
    sources = {"r": "from r.a import x\nfrom r.b import y", "r.a": "from r import b", "r.b": "import os", "r.c": "import r.a"}
    assert graph(sources) == {"r": {"r.a", "r.b"}, "r.a": {"r.b"}, "r.b": set(), "r.c": {"r.a"}}
    assert circle(graph(sources)) == []


@pytest.mark.parametrize(
    "source",
    [
        "from reviewgen.data import TokenStore",
        "def f():\n    from reviewgen.storage import new_folder",
        "from reviewgen import ReviewModel",
        "import reviewgen",
        "from reviewgen_ngram.model import Ngram",
    ],
)
def test_a_plugin_that_knows_too_much_is_noticed(source):
    assert plugin_violations("reviewgen_char", source)
    assert plugin_violations("reviewgen_ngram", "from reviewgen.protocols import Stepper\nimport reviewgen_ngram.trie") == []
