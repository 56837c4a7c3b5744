"""``reviewgen generate --out FOLDER`` by two ranks beside one: the seconds of the command, and of the writing alone.

Target, on idle cores: 100,000 texts of ngram-word by two ranks 1.8 times as fast as by one. A rank uses one thread. One rank runs
without a launcher. ``python -m tests.benchmarks.writing_ranks 20000`` writes fewer. The folders must be the same, byte for byte.
Where other programs hold the cores, CPU seconds say more.
"""

import hashlib
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = "ngram-word"
RANK = """
import os, sys, time
from reviewgen.writing import generating
run = generating._run
def timed(*args):
    start, used = time.perf_counter(), time.process_time()
    written = run(*args)
    if os.environ.get("RANK", "0") == "0":
        print(f"{time.perf_counter() - start:.2f} {time.process_time() - used:.2f}", file=sys.stderr)
    return written
generating._run = timed
from reviewgen.cli import main
main()
"""


def measure(folder: Path, texts: int, ranks: int) -> tuple[float, float, float, float, str]:
    """Return seconds and CPU seconds of the command, seconds and CPU seconds of the writing in the first rank, and a digest."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    plain = ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1", "--main_process_port", port]
    start = [] if ranks == 1 else ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(ranks), *plain]
    out, script = folder / f"ranks-{ranks}", folder / "rank.py"
    script.write_text(RANK, encoding="utf-8")
    command = [sys.executable, *start, str(script), "generate", MODEL, "-n", str(texts), "--out", str(out), "--format", "jsonl"]
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    before, at = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*command, "--seed", "1"], env=os.environ | own, check=True, capture_output=True, text=True)
    seconds, used = time.perf_counter() - at, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    writing = next(line for line in reversed(done.stderr.splitlines()) if line.replace(".", "").replace(" ", "").isdigit())
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(out.iterdir()))).hexdigest()
    return seconds, cpu, *map(float, writing.split()), digest


def main() -> None:
    """Print one line for each number of ranks, and the ratios."""
    texts = int(sys.argv[1]) if sys.argv[1:] else 100_000
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "warm").mkdir()
        measure(Path(name) / "warm", 64, 1)  # compiles what is not in the cache
        results = [measure(Path(name), texts, ranks) for ranks in (1, 2)]
    one, two = results
    for ranks, (seconds, cpu, writing, own, _) in zip((1, 2), results, strict=True):
        wrote = f"writing {writing:.1f} s ({own:.1f} CPU s of the first), {texts / writing:,.0f} texts/s"
        print(f"{ranks} rank(s): {seconds:.1f} s ({cpu:.1f} CPU s), of which {wrote}")
    command, writing, share = one[0] / two[0], one[2] / two[2], one[3] / two[3]
    print(
        f"two ranks: the command {command:.2f} times as fast, the writing {writing:.2f} times, by CPU seconds {share:.2f} times"
    )
    print("the folders are the same" if one[4] == two[4] else "THE FOLDERS DIFFER")
    sys.exit(one[4] != two[4])


if __name__ == "__main__":
    main()
