"""Tokens by room, without comments, docstrings and layout, against the budgets of ``budgets.toml``.

Tokens are Python's own (``tokenize``): a packed line and an unpacked one count the same.
"""

import ast
import io
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def docstring_lines(tree: ast.AST) -> set[int]:
    """Return the numbers of the lines of docstrings."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            is_expression = isinstance(statement, ast.Expr) and isinstance(
                statement.value, ast.Constant
            )
            if is_expression and isinstance(statement.value.value, str):
                lines.update(
                    range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
                )
    return lines


def count_tokens(source: str) -> int:
    """Return the number of tokens of a source text."""
    docstrings = docstring_lines(ast.parse(source))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return sum(token.type not in LAYOUT and token.start[0] not in docstrings for token in tokens)


def check_sizes() -> Iterator[str]:
    """Yield each room, and each total, that is larger than its budget."""
    sizes: Counter[str] = Counter()
    for top, depth in (("src/reviewgen", 3), ("plugins", 2), ("tests", 1)):
        for file in (ROOT / top).rglob("*.py"):
            room = "/".join(file.relative_to(ROOT).parts[:depth])
            tokens = count_tokens(file.read_text(encoding="utf-8"))
            sizes[room] += tokens
            if top != "tests":
                sizes["src and plugins"] += tokens
                sizes["files of src and plugins"] += 1
    for file in [*(ROOT / "src").rglob("*.js"), *(ROOT / "plugins").rglob("*.js")]:
        sizes["lines of JavaScript"] += len(file.read_text(encoding="utf-8").splitlines())
    text = (Path(__file__).parent / "budgets.toml").read_text(encoding="utf-8")
    budgets: dict[str, int] = tomllib.loads(text)
    for room, size in sizes.items():
        budget = budgets.get(room, 0)
        if size > budget:
            yield f"{room}: {size:,}, and its budget in tests/lint/budgets.toml is {budget:,}"
    yield from (
        f"{room}: has a budget and does not exist" for room in budgets.keys() - sizes.keys()
    )
