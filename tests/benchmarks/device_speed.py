"""Tokens a second of ``fit`` with lstm 2 x 512 and 2 x 1024 on the accelerator, beside a bare loop of torch's layers.

On CUDA these are cuDNN's. Same model, batch, BPTT and precision, in turn; the ratio is the median of the ratios of neighbours.
Target: 0.95 or more. Without an accelerator the loops run on the CPU with a small shape, which shows that they work, and nothing
else.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from reviewgen.registry import find_model
from reviewgen.training import Budget, TrainingConfig, fit
from tests.benchmarks.training_speed import VOCAB, Ids, random_store

ON_DEVICE = [(256, 512, 2, 128, 256), (256, 1024, 2, 128, 256)]  # embedding, hidden, layers, T, B
ON_CPU = [(16, 32, 2, 16, 8)]
ROUNDS, WARM_UP, STEPS, TARGET = 5, 10, 60, 0.95


class Symbols(Ids):
    """The same, also for the text that an evaluation generates."""

    def encode(self, text):
        return []


def synchronize(device):
    """Wait for the device."""
    if device != "cpu":
        torch.accelerator.synchronize()


def bare_speed(device, precision, embedding, hidden, layers, length, batch):
    """Return the tokens a second of a bare loop: nn.LSTM, AdamW, one batch of random ids again and again."""
    table, rnn = nn.Embedding(VOCAB, embedding).to(device), nn.LSTM(embedding, hidden, layers).to(device)
    output = nn.Linear(hidden, VOCAB).to(device)
    parameters = [parameter for module in (table, rnn, output) for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-3, fused=True)
    ids = torch.randint(0, VOCAB, (length + 1, batch), device=device)

    def step():
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            logits = output(rnn(table(ids[:-1]))[0])
        optimizer.zero_grad()
        F.cross_entropy(logits.float().view(-1, VOCAB), ids[1:].reshape(-1)).backward()
        optimizer.step()

    for _ in range(WARM_UP):
        step()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    synchronize(device)
    return STEPS * length * batch / (time.perf_counter() - start)


def fit_speed(device, precision, store, embedding, hidden, layers, length, batch):
    """Return the tokens a second of ``fit``, from the step after the warm-up; its evaluations are at the start and at the end."""
    kind, _ = find_model("lstm")
    model = kind(
        kind.Config(vocab_size=VOCAB, embedding_size=embedding, hidden_size=hidden, layers=layers, tied=False, layer="fused")
    )
    settings = {"batch_size": batch, "bptt": length, "optimizer": "adamw", "evaluations": 1, "copy_tokens": 0, "novelty": "none"}
    config = TrainingConfig(**settings, precision=precision, device=device, threads=1, evaluation_tokens=2000)
    start = tokens = 0.0
    for report in fit(model, Symbols(), store, store, config, Budget(steps=WARM_UP + STEPS + 1), 0):
        if report.step == WARM_UP:
            synchronize(device)
            start = time.perf_counter()
        if report.step == WARM_UP + STEPS:
            synchronize(device)
            tokens = STEPS * length * batch / (time.perf_counter() - start)
    return tokens


def compare_loops(device):
    """Print a line for each shape and precision; return whether all reach the target."""
    precisions = ("no", "bf16") if device == "cuda" else ("no",)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder), 100_000 if device == "cpu" else 20_000_000)
        for shape in ON_CPU if device == "cpu" else ON_DEVICE:
            for precision in precisions:
                rounds = range(1 if device == "cpu" else ROUNDS)
                pairs = [(fit_speed(device, precision, store, *shape), bare_speed(device, precision, *shape)) for _ in rounds]
                ratios.append(statistics.median(own / bare for own, bare in pairs))
                own, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
                print(
                    f"lstm {shape[2]} x {shape[1]:4} {precision:4} {device}: "
                    f"fit {own:12,.0f}  bare {bare:12,.0f} tokens a second, ratio {ratios[-1]:.3f} (target {TARGET})",
                    flush=True,
                )
    return all(ratio >= TARGET for ratio in ratios)


def main():
    """Compare the loops."""
    device = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    if device == "cpu":
        print("No accelerator was found: these figures are of the CPU.")
    return int(not compare_loops(device) and device != "cpu")


if __name__ == "__main__":
    sys.exit(main())
