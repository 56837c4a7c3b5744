"""``reviewgen prepare`` on csv, jsonl, parquet and txt: seconds and memory of one process, of
workers and of two ranks.

``python -m tests.benchmarks preparing 300`` writes the film reviews of the extra to files of about
300 MB, words rotated; 100 MB are the default. One process is pinned to one core. Targets: two ranks
1.6 times as fast as one; a peak of 600 MB.
"""

import json
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

import reviewgen

RANK = """
import os, sys, time
if os.environ["CORES"] == "1" and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
import reviewgen, torch  # not timed
start, used = time.perf_counter(), sum(os.times()[:4])
reviewgen.prepare(sys.argv[1], preset=sys.argv[2], out=sys.argv[3])
if os.environ.get("RANK", "0") == "0":
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(time.perf_counter() - start, sum(os.times()[:4]) - used, int(peak) / 1000)
"""


def write(folder: Path, megabytes: float) -> list[Path]:
    """Write the corpora; return the files."""
    texts = reviewgen.corpus("reviews", clean=False)["text"][:]
    times = range(round(megabytes * 1e6 / sum(map(len, texts))) or 1)
    words = [(text.split(" "), 3 * turn) for turn, text in product(times, texts)]
    rotated = [" ".join(each[by % len(each) :] + each[: by % len(each)]) for each, by in words]
    table = pa.table({"text": rotated, "stars": [number % 5 for number in range(len(rotated))]})
    files = [folder / f"a.{suffix}" for suffix in ("csv", "jsonl", "parquet", "txt")]
    pyarrow.csv.write_csv(table, files[0])
    files[1].write_text(
        "".join(json.dumps(row) + "\n" for row in table.to_pylist()), encoding="utf-8"
    )
    pyarrow.parquet.write_table(table, files[2], row_group_size=20_000)
    files[3].write_text("\n".join(text.replace("\n", " ") for text in rotated), encoding="utf-8")
    return files


def measure(file: Path, preset: str, ranks: int = 1, **environment: str) -> tuple[float, ...]:
    """Return the wall seconds, the CPU seconds and the peak in MB of the first process."""
    with tempfile.TemporaryDirectory(dir=file.parent) as name:
        (Path(name) / "rank.py").write_text(RANK, encoding="utf-8")
        launch = [
            "-m",
            "accelerate.commands.launch",
            "--multi_gpu",
            "--num_processes",
            str(ranks),
            "--num_machines",
            "1",
        ]
        command = [
            sys.executable,
            *(launch if ranks > 1 else []),
            f"{name}/rank.py",
            str(file),
            preset,
            f"{name}/store",
        ]
        own = {
            "OMP_NUM_THREADS": "1",
            "CORES": "",
            "CUDA_VISIBLE_DEVICES": "",
            "REVIEWGEN_CACHE": f"{name}/cache",
            **environment,
        }
        done = subprocess.run(
            command, env=os.environ | own, check=True, capture_output=True, text=True
        )
        return tuple(map(float, done.stdout.split()[-3:]))


def main(megabytes: str = "100") -> None:
    """Print a line for each corpus and way."""
    with tempfile.TemporaryDirectory() as name:
        for file in write(Path(name), float(megabytes)):
            one = measure(file, "ngram-char", REVIEWGEN_WORKERS="1", CORES="1")
            ways = {
                "one process": one,
                "workers": measure(file, "ngram-char"),
                "two ranks": measure(file, "ngram-char", 2),
            }
            for way, (seconds, cpu, peak) in ways.items():
                ratio = f"{one[0] / seconds:.2f} times as fast as one process"
                print(
                    f"{file.name:10} {way:12} {seconds:6.1f} s, {cpu:6.1f} CPU s, {peak:.0f} MB,"
                    f" {ratio}",
                    flush=True,
                )
