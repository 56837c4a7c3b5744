"""PINNED: tokens a second of ``fit`` beside a bare torch loop: same model, batch, BPTT and
precision. Target: 0.97 or more.

The bare loop is what a user would write: nn.RNN/GRU/LSTM, or MistralForCausalLM of transformers,
fused Adam, one batch of random ids again and again. ``fit`` also reads batches from the token
cache, carries the state, clips, schedules and reports. Both run in turn, and the ratio is the
median of the ratios of neighbours. A last line for each shape and cell is what ``fit`` does by
itself, as autotuning selects it and with Muon, beside the bare loop in 32 bits. Target at 2 x 512:
1.4 or more.

    python -m tests.benchmarks training_speed [SHAPES]        the recurrent models
    python -m tests.benchmarks training_speed transformer     the transformer, also beside its own
                                                              network in a bare loop
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from reviewgen_transformer.config import TransformerConfig
from reviewgen_transformer.network import Transformer
from torch import nn
from torch.nn import functional as F

from reviewgen.config.training import TrainingConfig
from reviewgen.data.tokens import Tokens
from reviewgen.registry.plugins import find_model
from reviewgen.training.loop import fit
from reviewgen.training.report import Budget
from tests.benchmarks.transformer import their_model

VOCAB = 70
# embedding, hidden, layers, T, B
SHAPES = [(42, 128, 2, 4, 512), (128, 256, 2, 64, 64), (128, 512, 2, 100, 64)]
TRANSFORMERS = [(128, 4, 2, 128, 16), (192, 4, 3, 128, 16)]  # hidden, layers, heads, T, B
ROUNDS = 9
TARGET = 0.97
ALONE = 1.4


class Ids:
    """A tokenizer of nothing but ids."""

    vocab_size = VOCAB
    bos_id = 0
    eos_id = 1

    def decode(self, ids):
        return ""


def random_store(folder, tokens=1_500_000, length=1000):
    """Write texts of random ids as a token store."""
    ids = np.random.default_rng(0).integers(2, VOCAB, tokens, dtype=np.uint16)
    ids[::length] = Ids.bos_id
    ids[length - 1 :: length] = Ids.eos_id
    ids.tofile(folder / "train.uint16")
    offsets = np.arange(0, tokens + 1, length)
    np.save(folder / "train.index.npy", np.stack([offsets, np.full_like(offsets, length - 2)]))
    return Tokens(folder, "train")


def bare_step(cell, embedding, hidden, layers, steps, batch, bf16):
    """Return a function that takes one step of the bare loop."""
    table = nn.Embedding(VOCAB, embedding)
    rnn = getattr(nn, cell)(embedding, hidden, layers)
    output = nn.Linear(hidden, VOCAB)
    parameters = nn.ModuleList([table, rnn, output]).parameters()
    optimizer = torch.optim.Adam(parameters, 1e-3, fused=True)
    ids = torch.randint(0, VOCAB, (steps + 1, batch))
    return bare(lambda: output(rnn(table(ids[:-1]))[0]), ids[1:], optimizer, bf16)


def bare(logits, targets, optimizer, bf16):
    """Return a function that takes one step of a bare loop."""

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(logits().float().view(-1, VOCAB), targets.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def our_step(model, steps, batch, store, **settings):
    """Return a function that takes one step of ``fit``, and the form in which it does so."""
    config = TrainingConfig(batch_size=batch, bptt=steps, evaluations=1, **settings)
    reports = fit(model, Ids(), store, store, config, Budget(steps=10**6), seed=0)
    first = next(reports)
    return lambda: next(reports), f"{first.device}, {first.threads} thread"


def seconds(step, count):
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def main(shapes="3"):
    """Print a line for each cell or network, shape and precision."""
    print(f"{'':32} {'bare':>12} {'reviewgen':>12}  ratio")
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder))
        if shapes == "transformer":
            misses = compare_transformers(store)
        else:
            misses = compare_recurrent(SHAPES[: int(shapes)], store)
    print(f"tokens/s; {misses} targets missed")


def compare_transformers(store):
    """Print the lines of the transformer; return the number of missed targets."""
    misses = 0
    for hidden, layers, heads, steps, batch in TRANSFORMERS:
        config = TransformerConfig(
            vocab_size=VOCAB, bos_id=0, hidden_size=hidden, layers=layers, heads=heads, window=steps
        )
        ids = torch.randint(2, VOCAB, (batch, steps + 1))
        for bf16 in (True, False):
            settings = {"optimizer": "adamw", "precision": "bf16" if bf16 else "no", "threads": 1}
            ours, form = our_step(Transformer(config), steps, batch, store, **settings)
            for name in ("Mistral", "own network"):
                theirs = bare_transformer(config, name == "Mistral", ids, bf16)
                label = f"{name} {layers}x{hidden} {'bf16' if bf16 else 'fp32'}"
                misses += compare(label, theirs, ours, steps * batch, TARGET, form)
    return misses


def bare_transformer(config, is_mistral, ids, bf16):
    """Return a function that takes one step of the bare loop, with the class of transformers or
    with ours.
    """
    own = Transformer(config)
    model = their_model(own).train() if is_mistral else own
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def logits():
        if is_mistral:
            return model(ids[:, :-1], use_cache=False).logits
        return own(ids[:, :-1], own.initial_state(len(ids)))[0]

    return bare(logits, ids[:, 1:], optimizer, bf16)


def compare_recurrent(shapes, store):
    """Print the lines of the recurrent models; return the number of missed targets."""
    misses = 0
    for shape in shapes:
        embedding, hidden, layers, steps, batch = shape
        for cell in ("RNN", "GRU", "LSTM"):
            kind, _ = find_model(cell.lower())
            config = kind.Config(
                vocab_size=VOCAB, embedding_size=embedding, hidden_size=hidden, layers=layers
            )
            for bf16 in (True, False):
                theirs = bare_step(cell, *shape, bf16)
                settings = {
                    "optimizer": "adamw",
                    "precision": "bf16" if bf16 else "no",
                    "threads": 1,
                }
                ours, form = our_step(kind(config), steps, batch, store, **settings)
                name = f"{cell} {layers}x{hidden} T{steps} B{batch} {'bf16' if bf16 else 'fp32'}"
                misses += compare(name, theirs, ours, steps * batch, TARGET, form)
            ours, form = our_step(kind(config), steps, batch, store)
            target = ALONE if hidden == 512 else 0.0
            misses += compare(
                "  by itself, bare in fp32", theirs, ours, steps * batch, target, form
            )
    return misses


def compare(name, bare, ours, tokens, target, form):
    """Time two functions in turn and print their rates; return whether the ratio misses a
    target.
    """
    count = max(1, round(0.15 / max(seconds(bare, 3), 1e-4)))
    seconds(ours, 3)
    pairs = [(seconds(bare, count), seconds(ours, count)) for _ in range(ROUNDS)]
    ratio = statistics.median(a / b for a, b in pairs)
    speeds = [tokens / statistics.median(column) for column in zip(*pairs, strict=True)]
    print(f"{name:32} {speeds[0]:>12,.0f} {speeds[1]:>12,.0f}  {ratio:.3f}  {form}", flush=True)
    return ratio < target
