"""The floors of the core: a room imports from lower floors only, and plugins know four rooms of it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src" / "reviewgen"
FLOORS = {
    **dict.fromkeys(("errors", "names", "config", "registry"), 0),
    **dict.fromkeys(("compiled", "conditions", "protocols"), 1),
    **dict.fromkeys(("data", "sampling", "evaluation", "novelty", "blending"), 2),
    "training": 3,
    "bundle": 4,
    **dict.fromkeys(("card", "hub", "pictures"), 5),
    **dict.fromkeys(("model", "api"), 6),
    "receipts": 6,
    **dict.fromkeys(("cli", "__main__"), 7),
}
SIDE = "testing"
PLUGINS_MAY_KNOW = {"protocols", "config", "errors", "compiled"}
HEAVY_ON_FLOOR_0 = {"torch", "numpy", "datasets", "accelerate", "tokenizers", "safetensors", "huggingface_hub", "typer", "rich"}


def imports(source: str) -> set[str]:
    """Return every module that a source text imports, wherever in it; ``from a import b`` gives a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "Imports are absolute here."
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def rooms(source: str) -> set[str]:
    """Return the rooms of the core that a source text imports from."""
    parts = [name.split(".") for name in imports(source) if name.split(".")[0] == "reviewgen"]
    return {part[1] for part in parts if len(part) > 1 and part[1] in FLOORS.keys() | {SIDE}}


def room_of(file: Path) -> str:
    return file.relative_to(CORE).parts[0].removesuffix(".py")


def violations(room: str, source: str) -> list[str]:
    """Return what a file of a room imports and may not."""
    if room == SIDE:
        return []
    floor = FLOORS[room]
    bad = [other for other in rooms(source) - {room} if other == SIDE or FLOORS[other] > floor]
    heavy = [name for name in imports(source) if floor == 0 and name.split(".")[0] in HEAVY_ON_FLOOR_0]
    plugins = [name for name in imports(source) if name.startswith("reviewgen_")]
    return bad + heavy + plugins


CORE_FILES = [file for file in CORE.rglob("*.py") if file != CORE / "__init__.py"]
PLUGIN_FILES = list((ROOT / "plugins").rglob("*.py"))


@pytest.mark.parametrize("file", CORE_FILES, ids=lambda file: str(file.relative_to(CORE)))
def test_a_room_imports_from_lower_floors_only(file):
    assert violations(room_of(file), file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("file", PLUGIN_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_plugin_knows_the_contracts_and_no_other_plugin(file):
    source = file.read_text(encoding="utf-8")
    own = file.relative_to(ROOT / "plugins").parts[0]
    others = {name for name in imports(source) if name.startswith("reviewgen_") and name.split(".")[0] != own}
    assert rooms(source) <= PLUGINS_MAY_KNOW
    assert others == set()


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("errors", "import torch"),
        ("data", "from reviewgen.training import fit"),
        ("data", "def f():\n    from reviewgen import bundle"),
        ("sampling", "import reviewgen.api"),
        ("api", "import reviewgen_ngram.model"),
        ("cli", "from reviewgen.testing import laws"),
    ],
)
def test_the_check_can_fail(room, source):
    assert violations(room, source)


def test_every_room_has_a_floor():
    assert {room_of(file) for file in CORE_FILES} <= FLOORS.keys() | {SIDE}


def test_only_the_suite_imports_pytest():
    users = {room_of(file) for file in CORE_FILES if "pytest" in imports(file.read_text(encoding="utf-8"))}
    assert users <= {SIDE}
