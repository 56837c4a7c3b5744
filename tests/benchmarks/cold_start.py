"""PINNED: seconds until a cold process has written its first text with a saved model, compiled code on disk.

Targets: 2.5 s for the command, 1 s if writing needs no torch. Each figure is the best of several runs of the whole command
``reviewgen generate``, and beside it what Python and torch take to start and stop. Then the seconds of ``load`` alone, after all
imports, for the trained weights of each preset that has any; target 0.3 s.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import reviewgen
from reviewgen.registry import find_weights
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


LOAD = """
import sys, time, reviewgen
reviewgen.load(sys.argv[1])  # imports, and code compiled on disk
start = time.monotonic()
reviewgen.load(sys.argv[1]).generation_config
print(time.monotonic() - start)
"""


def loading() -> None:
    """Print the seconds of loading each preset's weights."""
    for preset in (plugin.name for plugin in reviewgen.list_presets() if find_weights(plugin.name)):
        words = [sys.executable, "-c", LOAD, preset]
        found = min(float(subprocess.run(words, check=True, capture_output=True, text=True).stdout) for _ in range(ROUNDS))
        print(f"load {preset}: {found:.3f} s  target <= 0.3", flush=True)


if __name__ == "__main__":
    main()
    loading()
