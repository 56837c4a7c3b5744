"""Tokens a second of one model on two cores: by one thread, by two threads, and by two processes of one thread each.

Each is the command that a user would type, on 3 MB of reviews, with as many lanes together; steps from the first fifth on count.
Numbers behind the name are hidden sizes: ``python -m tests.benchmarks.two_cores 256 512``.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.corpora import reviews
from tests.support.launches import launcher

SIZES = 192, 320, 512, 768
LANES, BPTT = 32, 64
SECONDS = "20s"
FORMS = {"1 thread": (1, 1), "2 threads": (1, 2), "2 processes": (2, 1)}  # processes, threads of each


def main():
    """Print a line for each size."""
    sizes = [int(size) for size in sys.argv[1:]] or SIZES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "reviews.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in reviews(3_000_000)), encoding="utf-8")
        print(f"{'lstm-char, ' + SECONDS:24}" + "".join(f"{form:>14}" for form in FORMS) + "   tokens/s, and beside one thread")
        for size in sizes:
            rates = [rate(folder, size, *form) for form in FORMS.values()]
            print(f"{size:<24}" + "".join(f"{r:>14,.0f}" for r in rates) + "   " + " ".join(f"{r / rates[0]:.2f}" for r in rates))


def rate(folder, size, processes, threads):
    """Train in processes of some threads each, and return tokens a second of all together."""
    out = folder / f"{size}-{processes}-{threads}"
    settings = f"batch_size={LANES // processes} bptt={BPTT} threads={threads} precision=bf16 evaluations=1".split()
    command = f"-m reviewgen train lstm-char --data {folder}/reviews.jsonl --out {out} --budget {SECONDS} --json".split()
    command += ["--set", f"model.hidden_size={size}"]
    for setting in settings:
        command += ["--set", f"training.{setting}"]
    launch = launcher(processes) if processes > 1 else [sys.executable]
    own = {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": "", "REVIEWGEN_CACHE": str(folder / "cache")}
    done = subprocess.run([*launch, *command], env=os.environ | own, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    curve = json.loads((out / "training.json").read_text(encoding="utf-8"))["curve"]
    begin = len(curve["step"]) // 5
    steps, seconds = (curve[name][-1] - curve[name][begin] for name in ("step", "seconds"))
    return steps * LANES * BPTT / seconds


if __name__ == "__main__":
    main()
