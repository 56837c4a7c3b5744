"""``reviewgen prepare`` on a large corpus: MB/s of a rank for char, two ranks beside one, and the memory of a rank.

Targets, on idle cores: 20 MB/s a rank; two ranks 1.8 times as fast as one; a peak of memory that grows by 10 % at most from a
tenth of the corpus to the whole. ``python -m tests.benchmarks.preparing 2000`` writes 2 GB of txt; 200 MB are the default. A
second number is the maximum number of ranks, 2 by default. The texts are synthetic: words drawn by Zipf's law, 20 to 360 a
text, and from 50 MB on the same texts with other letters. MB are 10^6 bytes. On Linux one rank has one core, and two have two. In
the end, one rank may use all cores: it computes digests beside the rest. Where others hold the cores, MB a CPU second (user and
system) say more than MB/s.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

DRAWN = 50.0  # megabytes; the rest are the same texts with other letters

RANK = """
import os, resource, sys, time
import torch  # not timed
from accelerate import PartialState
import reviewgen
if "RANK" in os.environ:
    PartialState(cpu=True)
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[3])])
start, used, steps = time.perf_counter(), time.process_time(), []
def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1000
before = peak()
reviewgen.prepare(sys.argv[1], preset="ngram-char", out=sys.argv[2])
steps.append(("end", time.process_time()))
if os.environ.get("RANK", "0") == "0":
    parts = ", ".join(f"{name} {end - at:.1f}" for (name, at), (_, end) in zip(steps, steps[1:]))
    cpu = time.process_time() - used
    print(f"{time.perf_counter() - start:.2f} {cpu:.2f} {before:.0f} {peak():.0f} {parts}")
"""


def write(file: Path, megabytes: float) -> float:
    """Write about so many megabytes of texts, a line each; return how many they are."""
    first = min(megabytes, DRAWN)
    written = draw_texts(file, first)
    content = file.read_bytes()
    letters = b"abcdefghijklmnopqrstuvwxyz"
    with file.open("ab") as stream:
        for turn in range(1, round(megabytes / first)):
            turned = letters[turn % 26 :] + letters[: turn % 26]
            if turn >= 26:
                turned = turned[::-1]
            written += stream.write(content.translate(bytes.maketrans(letters, turned))) / 1e6
    return written


def draw_texts(file: Path, megabytes: float) -> float:
    """Write texts of words drawn by Zipf's law."""
    draw, written = np.random.default_rng(0), 0
    letters = np.array(list("etaoinshrdlucmfw"))
    words = np.array(["".join(draw.choice(letters, draw.integers(2, 10))) for _ in range(50_000)], object)
    shares = np.cumsum(1 / np.arange(1, len(words) + 1))
    with file.open("w", encoding="utf-8") as stream:
        while written < megabytes * 1e6:
            lengths = draw.integers(20, 360, 500)
            chosen = words[shares.searchsorted(draw.random(lengths.sum()) * shares[-1])]
            for piece in np.split(chosen, lengths.cumsum()[:-1]):
                written += stream.write(" ".join(piece) + "\n")
    return written / 1e6


def measure(file: Path, out: Path, ranks: int, cores: int) -> tuple[float, float, float, float, str]:
    """Return the seconds, and of the first rank: CPU seconds, memory in MB before and at its peak, CPU seconds of each step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    plain = ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1", "--main_process_port", port]
    start = [] if ranks == 1 else ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(ranks), *plain]
    script = out.with_name("rank.py")
    script.write_text(RANK, encoding="utf-8")
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "REVIEWGEN_CACHE": str(out.parent / "cache")}
    command = [sys.executable, *start, str(script), str(file), str(out), str(cores)]
    done = subprocess.run(command, env=os.environ | own, check=True, capture_output=True, text=True)
    shutil.rmtree(out)
    os.sync()  # what is left to write would slow down the next run
    seconds, cpu, before, peak, steps = done.stdout.strip().splitlines()[-1].split(" ", 4)
    return float(seconds), float(cpu), float(before), float(peak), steps


def main() -> None:
    """Print two lines for each corpus and number of ranks."""
    megabytes, most = (float(sys.argv[1]) if sys.argv[1:] else 200.0), (int(sys.argv[2]) if sys.argv[2:] else 2)
    peaks, speeds = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size, ranks in ((megabytes / 10, 1), *((megabytes, ranks) for ranks in range(1, most + 1))):
            file = folder / f"{size:.0f}.txt"
            written = write(file, size) if not file.exists() else file.stat().st_size / 1e6
            seconds, cpu, before, peak, steps = measure(file, folder / f"store-{size:.0f}-{ranks}", ranks, ranks)
            peaks.append(peak)
            speeds.append(written / seconds)
            print(
                f"{written:6.0f} MB, {ranks} rank(s): {written / seconds:5.1f} MB/s; {written / cpu / ranks:.1f} MB a CPU second"
            )
            print(f"           memory {before:.0f} MB, {peak:.0f} MB at its peak; CPU seconds: {steps}", flush=True)
        free = written / measure(file, folder / "store-free", 1, most)[0]
    if most > 1:
        fast, free = speeds[-1] / speeds[1], speeds[-1] / free
        print(f"{most} ranks are {fast:.2f} times as fast as one on one core, and {free:.2f} times as one on {most} cores.")
    print(f"The peak is {peaks[1] / peaks[0]:.2f} of a tenth's.")


if __name__ == "__main__":
    main()
