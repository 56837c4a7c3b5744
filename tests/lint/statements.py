"""One statement says one thing: no parallel assignments, walruses outside headers, comprehensions
of several loops, nested conditional expressions or long functions.
"""

import ast
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAX_LINES = 60  # of a function, without its signature and docstring
LONG = {
    "_sample": "one loop over a batch in compiled code; divided, it takes 10 % longer",
    "_functions": "a list of calls",
    "choose": "a list of cases",
}
"""Longer functions, and why; the list only shrinks."""


def check_statements() -> Iterator[str]:
    """Yield what says several things at once in the packages, the tests and the examples.

    The golden net is left as it was stored.
    """
    for top in ("src", "plugins", "tests", "examples"):
        for file in sorted((ROOT / top).rglob("*.py")):
            place = file.relative_to(ROOT)
            if place.parts[:2] != ("tests", "golden"):
                tree = ast.parse(file.read_text(encoding="utf-8"))
                for line, offence in sorted({*_find(tree), *_find_long(tree)}):
                    yield f"{place}:{line}: {offence}"


def _find(tree: ast.AST) -> Iterator[tuple[int, str]]:
    tests = [node.test for node in ast.walk(tree) if isinstance(node, ast.If | ast.While)]
    in_headers = {*map(id, _parts(tests))}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        loops = getattr(node, "generators", [])
        if isinstance(node, ast.Assign) and _is_parallel(node):
            yield line, "several assignments in one statement"
        elif isinstance(node, ast.NamedExpr) and id(node) not in in_headers:
            yield line, "a walrus outside the header of an if or a while"
        elif isinstance(node, ast.IfExp) and _holds_another(node):
            yield line, "a conditional expression inside another"
        elif isinstance(node, ast.Call) and _count_starred(node) > 2:
            yield line, "a call with three starred arguments"
        elif len(loops) > 1 or (loops and len(loops[0].ifs) > 1):
            yield line, "a comprehension of several loops or conditions"


def _parts(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    return chain.from_iterable(map(ast.walk, nodes))


def _is_parallel(node: ast.Assign) -> bool:
    """Return whether independent values are assigned: no swap, and no step of a recurrence."""
    [target, *_] = node.targets
    if not (isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)):
        return False
    if any(isinstance(value, ast.Starred) for value in [*target.elts, *node.value.elts]):
        return False
    assigned = {ast.unparse(name) for name in target.elts}
    return not any(ast.unparse(part) in assigned for part in ast.walk(node.value))


def _holds_another(node: ast.IfExp) -> bool:
    return any(isinstance(part, ast.IfExp) for part in _parts([node.test, node.body, node.orelse]))


def _count_starred(node: ast.Call) -> int:
    return sum(isinstance(argument, ast.Starred) for argument in node.args)


def _find_long(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > MAX_LINES and node.name not in LONG:
                yield node.lineno, f"{node.name} has {lines} lines; {MAX_LINES} are the limit"
