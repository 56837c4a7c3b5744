"""One statement says one thing: parallel assignments, walruses, comprehensions, conditional
expressions, and the length of functions.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAX_LINES = 60  # of a function, without its signature and docstring
LONG = {
    # a picture or a page, drawn from top to bottom
}


def check_statements() -> Iterator[str]:
    """Yield each statement of the packages, the tests and the examples that says several things."""
    for top in ("src", "plugins", "tests", "examples"):
        for file in sorted((ROOT / top).rglob("*.py")):
            place = file.relative_to(ROOT)
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for line, offence in sorted({*_find(tree), *_find_long(tree)}):
                if (str(place), offence.partition(" ")[0]) not in LONG:
                    yield f"{place}:{line}: {offence}"


def _find(tree: ast.AST) -> Iterator[tuple[int, str]]:
    headers = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.If | ast.While)
        for part in ast.walk(node.test)
    }
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Assign) and _is_parallel(node):
            yield line, "two assignments in one; write two statements"
        elif isinstance(node, ast.NamedExpr) and id(node) not in headers:
            yield line, "a walrus outside the header of an if or a while"
        elif isinstance(node, ast.IfExp) and _holds(node, ast.IfExp):
            yield line, "a conditional expression inside another"
        elif isinstance(node, ast.Call):
            if sum(isinstance(argument, ast.Starred) for argument in node.args) > 2:
                yield line, "a call with three starred arguments"
        elif generators := getattr(node, "generators", None):
            if len(generators) > 1 or len(generators[0].ifs) > 1:
                yield line, "a comprehension of several loops or conditions"


def _is_parallel(node: ast.Assign) -> bool:
    """Return whether the values are independent: neither a swap nor a step of a recurrence."""
    [target, *_] = node.targets
    if not (isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)):
        return False
    if any(isinstance(value, ast.Starred) for value in [*target.elts, *node.value.elts]):
        return False
    assigned = {ast.unparse(name) for name in target.elts}
    return not any(ast.unparse(part) in assigned for part in ast.walk(node.value))


def _holds(node: ast.IfExp, kind: type[ast.AST]) -> bool:
    parts = ast.walk(ast.Tuple([node.test, node.body, node.orelse], ast.Load()))
    return any(isinstance(part, kind) for part in parts)


def _find_long(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body:
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
                if lines > MAX_LINES:
                    yield node.lineno, f"{node.name} has {lines} lines, {MAX_LINES} are the limit"
