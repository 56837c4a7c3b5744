"""Memory that does not grow: over calls, over models loaded and dropped, and over the texts of one command.

Targets: resident memory grows by at most 5 % from a tenth of the work to all of it: 10,000 ``generate`` calls, 1,000 models
loaded and dropped, and for 100,000 texts by ``generate --json``.

``python -m tests.benchmarks.memory_flat [SHARE]``: a share of that work, such as 0.1.
"""

import subprocess
import sys

LIMIT = 1.05
RESIDENT = """
import gc, os, sys
def resident(what="VmRSS"):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))
number, preset = int(sys.argv[1]), sys.argv[2]
import reviewgen
"""
CALLS = """
model = reviewgen.load(preset)
for count in range(number):
    model.generate("The", seed=count, max_new_tokens=20)
    if count + 1 == number // 10:
        print(resident(), flush=True)
print(resident())
"""
CYCLES = """
for count in range(number):
    reviewgen.load(preset).generate("The", seed=count, max_new_tokens=2)
    if count + 1 == number // 10:
        print(resident(), flush=True)
print(resident())
"""
TEXTS = """
from reviewgen.cli import main
sys.argv = ["reviewgen", "generate", preset, "-n", str(number), "--seed", "1", "--json", "--max-new-tokens", "60"]
sys.stdout = open(os.devnull, "w")
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
sys.__stdout__.write(f"{resident('VmHWM')}")
"""
WORK = {"generate calls": (CALLS, 10_000), "load/unload cycles": (CYCLES, 1_000), "texts by --json": (TEXTS, 100_000)}


def measure(script: str, number: int, preset: str) -> tuple[float, float]:
    """Do some work in a fresh process; return its memory, in MB, at a tenth of it and at its end."""
    if script == TEXTS:  # one command, whose peak is measured: another one does a tenth
        return _run(script, number // 10, preset)[0], _run(script, number, preset)[0]
    early, late = _run(script, number, preset)
    return early, late


def _run(script: str, number: int, preset: str) -> list[float]:
    """Run a script in a fresh process, and return the numbers that it prints."""
    words = [sys.executable, "-c", RESIDENT + script, str(number), preset]
    return [float(word) for word in subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.split()]


def main(share: float = 1.0, presets: tuple[str, ...] = ("lstm-char", "ngram-word", "blend-char")) -> int:
    """Print the growth of each kind of work with each model; return 1 if one grows by more than the limit."""
    failed = False
    for name, (script, number) in WORK.items():
        for preset in presets:
            times = max(10, round(number * share))
            early, late = measure(script, times, preset)
            failed |= late / early > LIMIT
            print(f"{times:7,} {name:18} {preset:11} {early:6.0f} MB -> {late:6.0f} MB  {late / early - 1:+.1%}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if sys.argv[1:] else 1.0))
