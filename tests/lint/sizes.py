"""Code lines by room, without docstrings, comments and blank lines, against the budgets of ``budgets.toml``."""

import ast
import io
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> int:
    """Return the lines of a source text that hold code."""
    texts: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for each in body if isinstance(body, list) else []:
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) and isinstance(each.value.value, str):
                texts.update(range(each.lineno, (each.end_lineno or each.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SKIPPED:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - texts)


def check_sizes() -> Iterator[str]:
    """Yield each room, and each total, that is larger than its budget."""
    sizes: Counter[str] = Counter()
    for top, depth in (("src/reviewgen", 3), ("plugins", 2)):
        for file in (ROOT / top).rglob("*.py"):
            room = "/".join(file.relative_to(ROOT).parts[:depth])
            lines = code_lines(file.read_text(encoding="utf-8"))
            sizes.update({room: lines, "src and plugins": lines, "files of src and plugins": 1})
    scripts = [*(ROOT / "src").rglob("*.js"), *(ROOT / "plugins").rglob("*.js")]
    for name, files in (("lines of tests", (ROOT / "tests").rglob("*.py")), ("lines of JavaScript", scripts)):
        sizes[name] = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    budgets: dict[str, int] = tomllib.loads((Path(__file__).parent / "budgets.toml").read_text(encoding="utf-8"))
    for room, size in sizes.items():
        if size > budgets.get(room, 0):
            yield f"{room}: {size:,}, and its budget in tests/lint/budgets.toml is {budgets.get(room, 0):,}"
    yield from (f"{room}: has a budget and does not exist" for room in budgets.keys() - sizes.keys())
