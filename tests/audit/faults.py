"""Small faults in central files, and the tests that notice them: what a smaller suite must still catch.

    python -m tests.audit.faults draw FAULTS.json              draws the faults from a seed
    python -m tests.audit.faults run FAULTS.json RESULTS.json  plants one after another, and runs the nearest tests of each

A fault changes one operator, bound or condition. The tests of ``NEAREST`` run file by file until one fails, for at most four
minutes of the processor; then the file is restored. Run it in a clone of its own.
"""

import ast
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SEED, EACH, LIMIT = 31, (5, 5, 4, 5, 4, 4, 5, 4, 5, 4), 240
NEAREST = {
    "src/reviewgen/compiled/sampling.py": ["tests/generation", "tests/golden", "tests/plugins"],
    "src/reviewgen/compiled/spelling.py": ["tests/generation", "tests/golden", "tests/plugins"],
    "src/reviewgen/compiled/windows.py": ["tests/generation", "tests/golden", "tests/plugins"],
    "src/reviewgen/generation/decode.py": ["tests/generation", "tests/golden", "tests/serving"],
    "src/reviewgen/generation/stopping.py": ["tests/generation", "tests/golden", "tests/serving"],
    "src/reviewgen/training/loop.py": ["tests/training", "tests/runs", "tests/golden"],
    "src/reviewgen/data/cleaning.py": ["tests/data", "tests/golden", "tests/storage"],
    "src/reviewgen/evaluation/scoring.py": ["tests/generation", "tests/golden", "tests/training", "tests/plugins"],
    "src/reviewgen/model/read.py": ["tests/saving", "tests/golden", "tests/kit"],
    "plugins/reviewgen_ngram/estimate.py": ["tests/plugins", "tests/golden", "tests/runs"],
}
SWAPS: dict[type, tuple[str, str]] = {
    getattr(ast, name): (old, new)
    for names, old, new in [
        ("Lt LtE", "<", "<="),
        ("Gt GtE", ">", ">="),
        ("Eq NotEq", "==", "!="),
        ("Is IsNot", "is", "is not"),
        ("In NotIn", "in", "not in"),
        ("Add Sub", "+", "-"),
        ("Mult Add", "*", "+"),
        ("Div Mult", "/", "*"),
        ("FloorDiv Mult", "//", "*"),
        ("And Or", "and", "or"),
    ]
    for name, old, new in [(names.split()[0], old, new), (names.split()[1], new, old)][: 1 + (names[0] not in "MDF")]
}


def candidates(source: str) -> Iterator[dict[str, Any]]:
    """Yield each possible fault of a file: its line, and the line as it is and as it becomes."""
    lines, tree = source.splitlines(), ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    hidden = (ast.Raise, ast.JoinedStr, ast.arguments, ast.AnnAssign, ast.Import, ast.ImportFrom)
    for node in ast.walk(tree):
        above = node
        while above in parents and not isinstance(above, hidden):
            above = parents[above]
        if isinstance(above, hidden):
            continue
        for line, start, end, new in _changes(node, lines):
            changed = lines[line - 1][:start] + new + lines[line - 1][end:]
            yield {"line": line, "before": lines[line - 1], "after": changed}


def _changes(node: ast.AST, lines: list[str]) -> Iterator[tuple[int, int, int, str]]:
    """Yield line, start, end and new text of each change of a node."""
    if isinstance(node, ast.Compare):
        yield from _operator(node.left, node.ops[0], node.comparators[0], lines)
    elif isinstance(node, ast.BinOp):
        yield from _operator(node.left, node.op, node.right, lines)
    elif isinstance(node, ast.BoolOp):
        yield from _operator(node.values[0], node.op, node.values[1], lines)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield node.lineno, node.col_offset, node.end_col_offset or 0, str(node.value + 1)
    elif isinstance(node, ast.If | ast.While | ast.IfExp) and node.test.lineno == node.test.end_lineno:
        test = node.test
        text = lines[test.lineno - 1][test.col_offset : test.end_col_offset]
        yield test.lineno, test.col_offset, test.end_col_offset or 0, f"(not ({text}))"


def _operator(left: ast.expr, operator: ast.AST, right: ast.expr, lines: list[str]) -> Iterator[tuple[int, int, int, str]]:
    if (
        type(operator) in SWAPS
        and left.end_lineno == right.lineno
        and all(map(str.isascii, lines[left.end_lineno - 1 : right.lineno]))
    ):
        old, new = SWAPS[type(operator)]
        start = lines[right.lineno - 1].find(old, left.end_col_offset or 0, right.col_offset)
        if start >= 0:
            yield right.lineno, start, start + len(old), new


def draw() -> list[dict[str, Any]]:
    """Return the faults, the same ones for the same seed and sources."""
    generator, faults = random.Random(SEED), []
    for (file, _), count in zip(NEAREST.items(), EACH, strict=True):
        possible = list(candidates((ROOT / file).read_text(encoding="utf-8")))
        faults += [{"file": file, **each} for each in generator.sample(possible, count)]
    return faults


def plant(fault: dict[str, Any]) -> None:
    """Change the line of a fault: the nearest one that has its text."""
    file = ROOT / fault["file"]
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    same = [number for number, line in enumerate(lines) if line.rstrip("\n") == fault["before"]]
    number = min(same, key=lambda each: abs(each + 1 - fault["line"]))
    lines[number] = fault["after"] + "\n"
    file.write_text("".join(lines), encoding="utf-8")


def check(fault: dict[str, Any], tests: list[str], options: list[str]) -> dict[str, Any]:
    """Plant a fault, run tests until one fails, and restore the file and the compiled code beside it."""
    file = ROOT / fault["file"]
    caches = [*ROOT.glob("src/**/__pycache__"), *ROOT.glob("plugins/**/__pycache__")]
    kept = {folder: folder.with_name("kept") for folder in caches}
    for folder, copy in kept.items():
        shutil.copytree(folder, copy, copy_function=shutil.copy2)
    backup = file.with_suffix(".kept")
    shutil.copy2(file, backup)
    start, caught = _used(), None
    try:
        plant(fault)
        for each in tests:
            left = LIMIT - int(_used() - start)
            if left <= 0:
                break
            command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=line", *options, each]
            try:
                done = subprocess.run(
                    ["prlimit", f"--cpu={left}", *command], cwd=ROOT, capture_output=True, text=True, timeout=6 * LIMIT
                )
            except subprocess.TimeoutExpired:  # it hangs
                caught = f"{each} does not end"
                break
            if done.returncode in (-9, -24):  # its time is up (SIGKILL, SIGXCPU); another signal is a crash
                break
            if done.returncode not in (0, 5):
                failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
                caught = failed[0][:200] if failed else done.stdout[-200:] + done.stderr[-200:]
                break
    finally:
        shutil.move(backup, file)
        for folder, copy in kept.items():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.move(copy, folder)
    return {**fault, "caught": caught, "seconds": round(_used() - start, 1)}


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    action, faults = sys.argv[1], Path(sys.argv[2])
    if action == "draw":
        faults.write_text(json.dumps(draw(), indent=1), encoding="utf-8")
        return
    results, tests = Path(sys.argv[3]), json.loads(os.environ.get("NEAREST", "{}"))
    done = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
    for fault in json.loads(faults.read_text(encoding="utf-8"))[len(done) :]:
        nearest = (tests or NEAREST)[fault["file"]]
        done.append(check(fault, nearest, os.environ.get("PYTEST_OPTIONS", "").split()))
        results.write_text(json.dumps(done, indent=1), encoding="utf-8")
        print(f"{fault['file']}:{fault['line']} {done[-1]['seconds']} s: {done[-1]['caught'] or 'NOT CAUGHT'}", flush=True)
    print(f"{sum(bool(each['caught']) for each in done)} of {len(done)} caught")


if __name__ == "__main__":
    main()
