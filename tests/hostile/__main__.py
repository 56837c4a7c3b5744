"""The long run: ``python -m tests.hostile --minutes 30``. Exit status 1 if a case failed."""

import argparse
import os
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.table import Table

from tests.hostile.driver import CASE_SECONDS, MEMORY, Summary, fuzz, modules
from tests.hostile.frame import Tried

_printing = threading.Lock()


def main(words: list[str] | None = None) -> int:
    """Run the fuzzers, print failures as they come and a summary at the end."""
    options = _parser().parse_args(words)
    names = options.only or modules()
    if unknown := [name for name in names if "." not in name and name not in modules()]:
        print(f"Unknown fuzzer {unknown[0]!r}; there are: {', '.join(modules()) or 'none'}.", file=sys.stderr)
        return 2
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    at_once = max(1, min(options.jobs, len(names)))
    seconds = float("inf") if options.cases else options.minutes * 60 * at_once / max(1, len(names))
    print(f"seed {seed}; fuzzers: {', '.join(names)}", flush=True)
    with ThreadPoolExecutor(at_once) as pool:
        summaries = list(pool.map(lambda name: _run(name, seed, options.cases, seconds), names))
    _console().print(_table(summaries))
    return int(any(summary.failures for summary in summaries))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="shared by the fuzzers in equal parts; 30 by default")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"one of {', '.join(modules())}; repeatable")
    parser.add_argument("--cases", type=int, metavar="N", help="this many cases of each fuzzer, instead of a time")
    parser.add_argument("--seed", type=int, metavar="S", help="seed of the first case, the next one has S + 1; random by default")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="fuzzers at the same time; 2 by default")
    return parser


def _run(name: str, seed: int, cases: int | None, seconds: float) -> Summary:
    summary = fuzz(name, seed=seed, cases=cases, seconds=seconds, each=lambda tried: _print_failure(name, tried))
    with _printing:
        print(f"{name}: {summary.tried:,} cases in {summary.seconds:.0f} s, {len(summary.failures)} failed", flush=True)
    return summary


def _print_failure(name: str, tried: Tried) -> None:
    """Print a failed case and how to repeat it."""
    if tried.outcome.verdict != "failed":
        return
    with _printing:
        print(f"\nFAILED {name}: {ascii(tried.outcome.case)[1:-1]}")
        print(f"  repeat: python -m tests.hostile --only {name} --seed {tried.seed} --cases 1")
        for line in tried.outcome.detail.splitlines():
            print("  | " + line.encode("unicode_escape").decode("ascii"))
        sys.stdout.flush()


def _table(summaries: list[Summary]) -> Table:
    """The summary, with the limits of time and memory."""
    table = Table(caption=f"limits: {CASE_SECONDS:g} s, and {MEMORY / 1e6:,.0f} MB over what the process has after prepare")
    table.add_column("fuzzer", no_wrap=True)
    for heading in ("tried", "clean", "same", "changed", "failed", "slowest", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in summaries:
        counts = [f"{one.verdicts[verdict]:,}" for verdict in ("clean", "same", "changed", "failed")]
        table.add_row(one.name, f"{one.tried:,}", *counts, f"{one.slowest:.1f} s", f"{one.peak_bytes / 1e6:,.0f} MB")
    return table


def _console() -> Console:
    """A console that keeps the table whole where the output is a file."""
    return Console() if sys.stdout.isatty() else Console(width=100)


if __name__ == "__main__":
    sys.exit(main())
