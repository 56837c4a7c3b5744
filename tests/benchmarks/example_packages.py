"""PINNED: the speed of the example packages. Targets: minGRU's scan 2 times a loop's speed, attention 0.95 of a bare torch loop.

The scan and the recurrence written as a loop over tokens, forward and backward, T 256, H 256. Attention's loop is what a user
would write: AdamW, clipped gradients, a state that is carried and detached, one batch of random ids again and again. ``fit`` also
reads batches from the token cache, schedules and reports. What is compared runs in turn, and the ratio is the median of
those of neighbours. Times are of the processor, so that other programs on the machine count less.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from reviewgen.training import Budget, TrainingConfig, fit
from tests.benchmarks.training_speed import VOCAB, Ids, random_store

EXAMPLES = Path(__file__).parents[2] / "examples"
ROUNDS, TIME, HIDDEN, BATCH = 9, 256, 256, 32


def main():
    """Print a line for each comparison; return how many targets were missed."""
    sys.path += [str(EXAMPLES / "reviewgen-mingru"), str(EXAMPLES / "reviewgen-attention")]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder))
        misses = sum(compare_scan(rows) for rows in (16, 32))
        misses += sum(compare_attention(store, precision) for precision in ("no", "bf16"))
    print(f"{misses} targets missed")
    return misses


def compare_scan(rows):
    from reviewgen_mingru.scan import scan, sequential_scan

    factors, terms = (torch.rand(TIME, rows, HIDDEN, requires_grad=True) for _ in range(2))
    start, grad = torch.rand(rows, HIDDEN, requires_grad=True), torch.randn(TIME, rows, HIDDEN)

    def once(function):
        return lambda: torch.autograd.grad(function(factors, terms, start), (factors, terms, start), grad)

    return compare(f"scan T{TIME} B{rows} H{HIDDEN}, against a loop", once(sequential_scan), once(scan), TIME * rows, 2.0)


def compare_attention(store, precision):
    from reviewgen_attention.model import Attention, AttentionConfig

    models = [Attention(AttentionConfig(vocab_size=VOCAB)) for _ in range(2)]
    config = TrainingConfig(batch_size=BATCH, bptt=64, evaluations=1, optimizer="adamw", precision=precision, threads=1)
    reports = fit(models[0], Ids(), store, store, config, Budget(steps=10**6), seed=0)
    bare = bare_step(models[1], config)
    name = f"attention T{config.bptt} B{BATCH} {precision}, against a bare loop"
    return compare(name, bare, lambda: next(reports), config.bptt * BATCH, 0.95)


def bare_step(model, config):
    """Return a function that takes one step of the bare loop."""
    parameters = list(model.train().parameters())
    optimizer = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay, fused=True)
    ids = torch.randint(0, VOCAB, (BATCH, config.bptt + 1))
    carried = [model.initial_state(BATCH)]

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            logits, state = model(ids[:, :-1], carried[0])
        carried[0] = tuple(part.detach() for part in state)
        loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        optimizer.step()

    return step


def compare(name, theirs, ours, tokens, target):
    """Time two functions in turn and print their rates; return whether ``ours`` is slower than the target."""
    count = max(1, round(0.3 / max(seconds(theirs, 2), 1e-4)))
    seconds(ours, 2)
    pairs = [(seconds(theirs, count), seconds(ours, count)) for _ in range(ROUNDS)]
    ratio = statistics.median(a / b for a, b in pairs)
    rates = [tokens / statistics.median(column) for column in zip(*pairs, strict=True)]
    print(f"{name:46} {rates[0]:>12,.0f} {rates[1]:>12,.0f} tokens/s  {ratio:.3f}", flush=True)
    return ratio < target


def seconds(step, count):
    start = time.process_time()
    for _ in range(count):
        step()
    return (time.process_time() - start) / count


if __name__ == "__main__":
    sys.exit(main())
