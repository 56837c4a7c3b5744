"""PINNED: training steps that reuse memory in large pages, beside steps that return it to the system.

``taskset -c 0 python -m tests.benchmarks.step_memory``: for each shape, tokens per second forward and backward of the two, each
in processes of its own, in turns, the fastest of three. Target: 1.2 times as many with 512 hidden units and more.
"""

import os
import subprocess
import sys

SHAPES = {
    "lstm-word 896": "dict(vocab_size=8000, embedding_size=256, hidden_size=896, tied=True), 128, 64",
    "lstm-word 512": "dict(vocab_size=8000, embedding_size=128, hidden_size=512, tied=True), 32, 64",
    "lstm-word 256": "dict(vocab_size=8000, embedding_size=128, hidden_size=256, tied=True), 16, 32",
    "lstm-char 896": "dict(vocab_size=199, hidden_size=896, ngrams=3, ngram_buckets=2048), 64, 128",
    "lstm-char 320": "dict(vocab_size=199, hidden_size=320, ngrams=5), 32, 64",
}
ROUNDS = 3
STEP = """
import contextlib, sys
import torch
torch.set_num_threads(1)
from reviewgen.registry import find_model
from reviewgen.training.autotune import ExecutionConfig, measure_throughput
from reviewgen.training.device import native_precision
from reviewgen.training.memory import reused_memory

settings, lanes, length = {shape}
model_class = find_model("lstm")[0]
model = model_class(model_class.Config(**settings)).train()
with reused_memory() if {reused} else contextlib.nullcontext():
    print(measure_throughput(model, ExecutionConfig(1, native_precision("cpu"), "fused"), (lanes, length), steps=4))
"""


def measure(shape: str, reused: bool) -> float:
    """Return tokens per second in a new process."""
    environment = os.environ | {"THP_MEM_ALLOC_ENABLE": str(int(reused))}
    script = STEP.format(shape=shape, reused=reused)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print a line for each shape."""
    for name, shape in SHAPES.items():
        pairs = [(measure(shape, False), measure(shape, True)) for _ in range(ROUNDS)]
        plain, reused = (max(rates) for rates in zip(*pairs, strict=True))
        print(f"{name:16} {plain:8,.0f} tokens/s, reusing memory {reused:8,.0f}: {reused / plain:.2f} times", flush=True)


if __name__ == "__main__":
    main()
