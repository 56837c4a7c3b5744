"""Counting n-grams in one and in two processes: seconds, peak memory of each, and whether both make the same model.

    python -m tests.benchmarks ngram_ranks                  10 million characters
    python -m tests.benchmarks.ngram_ranks 1000 2048        1,000 million characters, model.memory_mb=2048

The texts are drawn from an order-8 n-gram of the reviews. Target: 1,000 million characters, order 6, in two processes under 4 GB
each, with the model of one process. Each process has one thread; the peak is VmHWM, which counts mapped files too, and stands
beside what the imports take. Where other programs hold the cores, only the ratio of the seconds says something.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.corpora import char_tokenizer, reviews, stream
from tests.benchmarks.ngram import sample_from, train

ORDER, SOURCE_ORDER = 6, 8
SOURCE_CHARACTERS = 40_000_000

RANK = """
import hashlib, json, os, sys, time
from pathlib import Path
from accelerate import PartialState
from reviewgen.data import TokenStore
from reviewgen.evaluation.metrics import Metrics
from reviewgen.training.counting import train_by_counting
from reviewgen.training.evaluator import EvaluationResult, Evaluator
from reviewgen_ngram.model import Ngram, NgramConfig

class NoEvaluator(Evaluator):
    def __init__(self):
        self.metrics = Metrics()
    def evaluate(self, model, device="cpu"):
        return EvaluationResult(None, None, "", True)
    def notes(self):
        return ()

def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1e6

folder, vocab_size, order, limit = sys.argv[1], *map(int, sys.argv[2:])
if "RANK" in os.environ:
    PartialState(cpu=True)
store = TokenStore(Path(folder), "train")
model = Ngram(NgramConfig(vocab_size=vocab_size, order=order, memory_mb=limit))
before, start, counted = peak(), time.monotonic(), 0.0
for report in train_by_counting(model, store, None, NoEvaluator()):
    counted = report.seconds if report.progress < 1 else counted
seconds, digest, tensors = time.monotonic() - start, hashlib.sha256(), model.state_dict()
highest = peak()
for name in sorted(tensors):
    digest.update(name.encode() + tensors[name].numpy().tobytes())
size = sum(tensor.nbytes for tensor in tensors.values()) / 1e6
print(json.dumps([seconds, counted, before, highest, digest.hexdigest(), len(tensors["tokens"]), size]))
"""


def write_store(folder: Path, characters: int) -> int:
    """Write a token store of synthetic reviews; return the size of the vocabulary."""
    texts = reviews(SOURCE_CHARACTERS)
    tokenizer = char_tokenizer(texts)
    model = train(stream(texts, tokenizer), tokenizer, SOURCE_ORDER)
    random, lengths, total = np.random.default_rng(0), [], 0
    with (folder / "train.uint16").open("wb") as file:
        while total < characters:
            for row in sample_from(model, tokenizer.bos_id, tokenizer.eos_id, 1.0, random.random((256, 2048))):
                ids = np.concatenate([[tokenizer.bos_id], row[row >= 0]]).astype(np.uint16)
                file.write(ids.data)
                lengths.append(len(ids))
                total += len(ids) - 1
    index = np.zeros((2, len(lengths) + 1), np.int64)
    index[0, 1:], index[1, :-1] = np.cumsum(lengths), np.array(lengths) - 2
    np.save(folder / "train.index.npy", index)
    return tokenizer.vocab_size


def measure(folder: Path, vocab_size: int, limit: int, ranks: int) -> list[list]:
    """Return what each process has printed, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    own |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "ACCELERATE_MIXED_PRECISION": "no"}
    command = [sys.executable, "-c", RANK, str(folder), str(vocab_size), str(ORDER), str(limit)]
    started = []
    for rank in range(ranks):
        environment = own | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {"OMP_NUM_THREADS": "1"}
        started.append(subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True))
    printed = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit("A process has failed.")
    return [json.loads(text.splitlines()[-1]) for text in printed]


def main(millions: str = "10", limit: str = "0") -> None:
    """Print a line for each process, and the comparison."""
    with tempfile.TemporaryDirectory(prefix="ngram-ranks-") as name:
        start = time.monotonic()
        vocab_size = write_store(Path(name), int(float(millions) * 1e6))
        print(
            f"{millions} M characters, {vocab_size} ids, drawn in {time.monotonic() - start:.0f} s; memory_mb={limit}", flush=True
        )
        seconds, digests = [], set()
        for ranks in (1, 2):
            for rank, measured in enumerate(measure(Path(name), vocab_size, int(limit), ranks)):
                took, counted, before, peak, digest, ngrams, size = measured
                seconds += [took] if rank == 0 else []
                digests.add(digest)
                memory = f"peak {peak:.2f} GB (imports {before:.2f})"
                found = f"{ngrams / 1e6:.1f} M n-grams, {size:.0f} MB"
                print(f"rank {rank} of {ranks}: {took:7.1f} s ({counted:.1f} counting), {memory}; {found}", flush=True)
        verdict = "the same model" if len(digests) == 1 else "OTHER MODELS"
        print(f"Two are {seconds[0] / seconds[1]:.2f} times as fast as one; {verdict}")
        if len(digests) > 1:
            sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
