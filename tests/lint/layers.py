"""Which room may import which: floors, no circles, no import of the package root; and what plugins
and tests may import.

All imports count, wherever they stand. Importing ``reviewgen.a.b`` counts as an import of ``b``
only, not of the package ``a``.
"""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src" / "reviewgen"
PLUGINS = ROOT / "plugins"
FLOORS = [
    "version lazy errors interrupts",
    "config compiled devices processes storage sentences personal rates web",
    "protocols registry conditions novelty lexicon",
    "formats",
    "data generation",
    "evaluation blending saving",
    "training words",
    "hub",
    "model",
    "runs tables",
    "api",
    "analysis assessment export serving",
    "cli __main__",
]
"""The rooms of each floor, bottom up. ``testing`` stands beside them: it may import every room, and
only ``cli`` imports it.
"""
FLOOR = {"testing": len(FLOORS) - 1}
for number, rooms in enumerate(FLOORS):
    FLOOR |= dict.fromkeys(rooms.split(), number)
PLUGINS_MAY_IMPORT = {"protocols", "config", "errors", "compiled"}
PRIVATE = re.compile(r"(^|\.)_(?!_)")


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def check_layers() -> Iterator[str]:
    """Yield each import that the house does not allow."""
    files = {
        file: ast.parse(file.read_text(encoding="utf-8"))
        for file in CORE.rglob("*.py")
        if file != CORE / "__init__.py"
    }
    modules = {
        ".".join(file.relative_to(CORE.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): file
        for file in files
    }
    rooms = {file: file.relative_to(CORE).parts[0].removesuffix(".py") for file in files}
    yield from (f"{room}: has no floor" for room in {*rooms.values()} ^ FLOOR.keys())
    edges: dict[str, set[str]] = {module: set() for module in modules}
    between: dict[str, set[str]] = {room: set() for room in FLOOR}
    for module, file in modules.items():
        room = rooms[file]
        for name, line in imports(files[file]):
            parts = name.split(".")
            place = f"{file.relative_to(ROOT)}:{line}"
            if (parts[0] == "pytest" and room != "testing") or parts[0].startswith("reviewgen_"):
                yield f"{place}: the core does not import {parts[0]}"
            if parts[0] != "reviewgen":
                continue
            if parts[1] not in FLOOR:
                yield f"{place}: imports the package root"
            elif room != "testing" and (
                FLOOR[parts[1]] > FLOOR[room] or (parts[1] == "testing" and room != "cli")
            ):
                yield f"{place}: {room} is below {parts[1]}"
            target = name if name in modules else name.rpartition(".")[0]
            edges[module] |= {target} & (modules.keys() - {module} if parts[1] == room else set())
            between[room] |= {parts[1]} - {room, "testing"} if room != "testing" else set()
    for graph in (edges, between):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            yield f"a circle of imports: {' -> '.join(error.args[1])}"


def check_plugins() -> Iterator[str]:
    """Yield each import of a plugin beyond the contracts and its own package."""
    packages = [*PLUGINS.iterdir(), *(ROOT / "examples").glob("reviewgen-*/reviewgen_*")]
    for file in chain.from_iterable(package.rglob("*.py") for package in packages):
        own = next(part for part in file.relative_to(ROOT).parts if part.startswith("reviewgen_"))
        for name, line in imports(ast.parse(file.read_text(encoding="utf-8"))):
            top, _, rest = name.partition(".")
            allowed = rest.split(".")[0] in PLUGINS_MAY_IMPORT if top == "reviewgen" else top == own
            if top.startswith("reviewgen") and not allowed:
                yield f"{file.relative_to(ROOT)}:{line}: a plugin does not import {name}"


def check_tests() -> Iterator[str]:
    """Yield the private names that a test imports or patches."""
    for file in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        place = file.relative_to(ROOT)
        for name, line in imports(tree):
            if name.startswith("reviewgen") and PRIVATE.search(name):
                yield f"{place}:{line}: imports {name}, which is private"
        for node in ast.walk(tree):
            text = (
                node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            )
            if re.fullmatch(r"reviewgen(\.\w+){3,}", text):
                yield f"{place}:{node.lineno}: names {text}, from inside a room"
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
                "setattr",
                "delattr",
            ):
                named = [
                    str(each.value) for each in node.args[:2] if isinstance(each, ast.Constant)
                ]
                yield from (
                    f"{place}:{node.lineno}: patches {name}"
                    for name in named
                    if PRIVATE.search(name)
                )
