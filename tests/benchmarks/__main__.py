"""Runs the benchmarks, each in a process of its own: ``python -m tests.benchmarks [NAME ...]``.

The corpora are not part of the project: ``REVIEWGEN_BENCH`` names the folder that holds ``data/`` and ``bench/``,
``../shared`` by default. A benchmark that says PINNED runs on one core with one thread.
"""

import os
import subprocess
import sys
from pathlib import Path

NAMES = (
    *("ngram", "novelty", "decoding", "cold_start", "training_speed", "speedrun", "quality_2018", "preparing"),
    *("readability", "serving_http", "bits"),
)


def main() -> int:
    """Run the named benchmarks, or all; return how many failed."""
    failed = 0
    for name in sys.argv[1:] or NAMES:
        pinned = "PINNED" in (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8").split('"""')[1]
        env = os.environ | ({"OMP_NUM_THREADS": "1"} if pinned else {})
        print(f"\n== {name}" + (" (one core, one thread)" if pinned else ""), flush=True)
        before = os.sched_getaffinity(0)
        if pinned:
            os.sched_setaffinity(0, {min(before)})
        failed += subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], env=env).returncode != 0
        os.sched_setaffinity(0, before)
    return failed


if __name__ == "__main__":
    sys.exit(main())
