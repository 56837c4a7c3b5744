"""PINNED: seconds until a cold process has written its first text with a saved model, compiled code on disk.

Targets: 2.5 s for the command, 1 s if writing needs no torch. Each figure is the best of several runs of the whole command
``reviewgen generate``, and beside it what Python and torch take to start and stop.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import reviewgen
from tests.benchmarks.corpora import split_2018

ROUNDS = 7


def seconds(*words: str) -> float:
    """Return the best time of a process."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.monotonic()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.monotonic() - start)
    return best


def main() -> None:
    """Print the table."""
    train, _, _ = split_2018()
    print(f"python alone {seconds('-c', 'pass'):.2f} s, import torch {seconds('-c', 'import torch'):.2f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for preset in ("lstm-char", "lstm-word", "ngram-char"):
            place = Path(folder) / preset
            reviewgen.train(preset, train, steps=5, out=place)
            found = seconds("-m", "reviewgen", "generate", str(place), "--seed", "1", "--max-new-tokens", "300")
            print(f"reviewgen generate, {preset}: {found:.2f} s  target <= 2.5, <= 1 without torch", flush=True)


if __name__ == "__main__":
    main()
