"""A corpus larger than memory: from many parquet shards into the token cache, by one process and by two.

Targets: 15 MB/s a core or more for char, 4 MB/s a core or more for word, everything included. ``--train 2000`` writes 2 GB
instead, trains 200 steps on them in a fresh process and prints the peak of its memory, its workers' included, over the import of
torch: 1.5 GB or less.

The texts are synthetic: words drawn by Zipf's law from the 100,000 most frequent ones of the reviews extra, 20 to 360 a text. A
quarter of a shard's texts carry what cleaning changes, as the reviews do. MB are 10^6 bytes of UTF-8. Where other programs hold
the cores, MB a CPU second say more than MB/s a core.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from reviewgen_char.tokenizer import CharTokenizer
from reviewgen_word.tokenizer import WordTokenizer

from reviewgen.conditions import Conditions
from reviewgen.data import DataConfig, TokenStore, gather, read_examples, workspace
from reviewgen.data.encoding import encode_corpus
from reviewgen.novelty import build_index

SHARD_MB = 25
STAGES = ("read, clean, spool", "train the tokenizer", "encode, write", "flush to disk")
TRAIN = """
import sys, torch
def peak():  # getrusage would count what the parent held when it started this process
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak(), flush=True)
import reviewgen
model = reviewgen.train(sys.argv[1], sys.argv[2], steps=200)
print(peak(), model.training["data"]["cleaning"]["characters"], flush=True)
"""


def vocabulary() -> np.ndarray:
    """Return the words of the reviews, the most frequent first."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for text, _ in read_examples("reviews", Path(scratch), DataConfig()):
            counts.update(text.split(" "))
    return np.array([word for word, _ in counts.most_common(100_000) if word], object)


def write_shards(folder: Path, megabytes: int) -> float:
    """Write so many megabytes of texts, the same every time; return how many they are."""
    words, written = vocabulary(), 0
    shares = np.cumsum(1 / np.arange(1, len(words) + 1))
    for number in range(max(2, round(megabytes / SHARD_MB))):
        random = np.random.default_rng(number)
        drawn = words[shares.searchsorted(random.random(SHARD_MB * 180_000) * shares[-1])]
        ends = np.cumsum(random.integers(20, 360, len(drawn) // 190))
        texts = [" ".join(drawn[first:last]) for first, last in pairwise(ends[ends <= len(drawn)])]
        texts[::4] = [f"{text} &amp; so on<br />" for text in texts[::4]]
        written += sum(len(text.encode()) for text in texts)
        pq.write_table(pa.table({"text": texts}), folder / f"{number:04d}.parquet", row_group_size=8192)
    return written / 1e6


def cpu_seconds() -> float:
    """Return what this process and its ended workers have computed."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@contextmanager
def cores(count: int):
    """Run on so many cores, with as many workers."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    os.environ |= {"REVIEWGEN_WORKERS": str(count), "TOKENIZERS_PARALLELISM": str(count > 1).lower()}
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def stages(source: str, kind: type, folder: Path):
    """Do each stage; yield after it."""
    corpus = gather(source, folder, DataConfig())
    yield
    tokenizer = kind.train(corpus.texts("train"), kind.Config())
    yield
    encode_corpus(folder / "tokens", corpus, tokenizer, Conditions())
    yield
    for file in (folder / "tokens").glob("*.*"):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    yield


def throughput(megabytes: int) -> None:
    """Print the speed of each stage, for both tokenizers, with one worker and with two."""
    with tempfile.TemporaryDirectory() as folder:
        size = write_shards(Path(folder), megabytes)
        print(f"{size:.0f} MB in {len(list(Path(folder).iterdir()))} shards", flush=True)
        for kind in (CharTokenizer, WordTokenizer):
            for count in (1, 2):
                with cores(count), workspace() as scratch:
                    measure(f"{folder}/*.parquet", kind, scratch, size, count)
                    if count == 1:
                        time_index(scratch / "tokens", kind, size)


def measure(source: str, kind: type, scratch: Path, size: float, count: int) -> None:
    """Print the speed of each stage and of all together."""
    begin = start = time.monotonic(), cpu_seconds()
    for stage, _ in zip(STAGES, stages(source, kind, scratch), strict=True):
        now = time.monotonic(), cpu_seconds()
        show(kind, count, stage, size, now[0] - start[0], now[1] - start[1])
        start = now
    show(kind, count, "all", size, start[0] - begin[0], start[1] - begin[1])


def show(kind: type, count: int, stage: str, size: float, seconds: float, computed: float) -> None:
    """Print a stage's speed."""
    print(
        f"{kind.__name__:14} {count} worker{'s' * (count > 1)}  {stage:20} {seconds:6.1f} s, {size / seconds:6.1f} MB/s, "
        f"{size / seconds / count:6.1f} MB/s a core, {size / max(computed, 0.01):6.1f} MB a CPU second",
        flush=True,
    )


def time_index(tokens: Path, kind: type, size: float) -> None:
    """Print how fast the training text is indexed."""
    store, tokenizer = TokenStore(tokens, "train"), kind.load(tokens / "tokenizer")
    facts = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "vocab_size": tokenizer.vocab_size, "fingerprint": ""}
    build_index(store.ids[:5000], characters=5000, **facts)  # compiles
    start = time.monotonic(), cpu_seconds()
    build_index(store.blocks, characters=int(store.characters.sum()), **facts)
    show(kind, 1, "index (not in all)", size * 0.9, time.monotonic() - start[0], cpu_seconds() - start[1])


def resident(pid: int) -> int:
    """Return the resident kilobytes of a process and all that it started."""
    total = 0
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.partition("VmRSS:")[2].split()[0]) if "VmRSS:" in status else 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(resident(int(child)) for child in (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return total


def memory(megabytes: int, preset: str) -> None:
    """Train in a fresh process and print the peak of the resident memory of it and its workers together."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir=folder) as cache:
        size = write_shards(Path(folder), megabytes)
        start, together = time.monotonic(), 0
        command = [sys.executable, "-c", TRAIN, preset, f"{folder}/*.parquet"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"REVIEWGEN_CACHE": cache}) as run:
            base = int(run.stdout.readline())
            while run.poll() is None:
                together = max(together, resident(run.pid))
                time.sleep(0.05)
            own, characters = run.stdout.read().split()
        peaks = [(peak - base) / 1024 for peak in (together, int(own))]
        print(
            f"{preset:10} {size:.0f} MB, {int(characters) / 1e6:.0f} million characters kept, {time.monotonic() - start:.0f} s: "
            f"{peaks[0]:.0f} MB with workers, {peaks[1]:.0f} MB without, over the import of torch ({base / 1024:.0f} MB)",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        memory(int(sys.argv[2]), sys.argv[3] if sys.argv[3:] else "lstm-char")
    else:
        throughput(int(sys.argv[1]) if sys.argv[1:] else 200)
