"""Runs a benchmark, or each in a process of its own: ``python -m tests.benchmarks [NAME [ARGUMENTS
...]]``.

The corpora are not part of the project: ``REVIEWGEN_BENCH`` names the folder that holds ``data/``
and ``bench/``, ``../shared`` by default. A benchmark that says PINNED runs on one core with one
thread.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path

NAMES = (
    *(
        "ngram",
        "novelty",
        "decoding",
        "cold_start",
        "training_speed",
        "speedrun",
        "quality_2018",
        "preparing",
    ),
    *("readability", "serving_http", "bits", "mixing", "transformer", "formats"),
)


def main(*words: str) -> int:
    """Run a benchmark in this process, or each in one of its own; return how many of these
    failed.
    """
    if not words:
        return sum(
            subprocess.run([sys.executable, "-m", "tests.benchmarks", name]).returncode != 0
            for name in NAMES
        )
    name, *arguments = words
    is_pinned = (
        "PINNED"
        in (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8").split('"""')[1]
    )
    print(f"\n== {name}" + (" (one core, one thread)" if is_pinned else ""), flush=True)
    if is_pinned:
        os.environ["OMP_NUM_THREADS"] = "1"
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    importlib.import_module(f"tests.benchmarks.{name}").main(*arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
