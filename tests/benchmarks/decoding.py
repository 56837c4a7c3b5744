"""PINNED: tokens a second of the recurrent steppers, sampling included, beside ``nn.LSTM`` called once a token.

    python -m tests.benchmarks decoding

Weights are random, the temperature is 0.8, no text ends early. The bare loop runs in the same minute as the stepper that it is
compared with, and each figure is the best of some runs. Targets stand beside the figures; "x" is times the bare loop.
"""

import time

import numpy as np
import torch
from reviewgen_recurrent.gru import Gru
from reviewgen_recurrent.lstm import Lstm
from reviewgen_recurrent.rnn import Rnn
from torch import nn

from reviewgen.compiled.draw import Drawing

CHARACTERS, WORDS = 70, 8000
RUNS = 5
TARGETS = {  # model, hidden size, vocabulary, texts side by side: what is asked for, in 32 bits and in fewer
    (Lstm, 128, CHARACTERS, 1): ">= 40,000, >= 20 x",
    (Gru, 128, CHARACTERS, 1): ">= 4/3 lstm",
    (Rnn, 128, CHARACTERS, 1): ">= 3 lstm",
    (Lstm, 256, CHARACTERS, 1): ">= 14,000",
    (Gru, 256, CHARACTERS, 1): ">= 4/3 lstm",
    (Rnn, 256, CHARACTERS, 1): ">= 3 lstm",
    (Lstm, 512, CHARACTERS, 1): ">= 4,000, >= 40 x",
    (Gru, 512, CHARACTERS, 1): ">= 4/3 lstm",
    (Rnn, 512, CHARACTERS, 1): ">= 3 lstm",
    (Lstm, 512, WORDS, 1): ">= 800",
    (Lstm, 512, CHARACTERS, 64): ">= 2 x",
}
EMBEDDING = {128: 42, 256: 64, 512: 128}


@torch.inference_mode()
def bare(hidden: int, vocabulary: int, texts: int, seconds: float = 1.5) -> float:
    """Return the tokens a second of the loop that one would write with torch's LSTM."""
    width = EMBEDDING[hidden]
    table, lstm, output = nn.Embedding(vocabulary, width), nn.LSTM(width, hidden, 2), nn.Linear(hidden, vocabulary)
    ids, state, best = torch.zeros(1, texts, dtype=torch.long), None, 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not best:
        start = time.perf_counter()
        for _ in range(10):
            out, state = lstm(table(ids), state)
            ids = torch.multinomial(torch.softmax(output(out[0]) / 0.8, -1), 1).view(1, texts)
        best = max(best, 10 * texts / (time.perf_counter() - start))
    return best


def measure(kind: type, hidden: int, vocabulary: int, texts: int, bits: int) -> float:
    """Return the tokens a second of a stepper's ``sample``, in calls of about 0.2 seconds."""
    model = kind(kind.Config(vocab_size=vocabulary, embedding_size=EMBEDDING[hidden], hidden_size=hidden, layers=2))
    stepper, random = model.stepper(bits=bits), np.random.default_rng(0)
    drawing = Drawing(np.array([0.8]), 0, 1.0, 0.0, 1.0, 0, 1 << 40, False, 1, 0, vocabulary)
    nothing, new, count, best = np.zeros((texts, 0), np.int64), np.zeros(texts, np.int64), 32, 0.0
    for _ in range(RUNS + 1):
        uniform = random.random((texts, count))
        start = time.perf_counter()
        tokens, _, _ = stepper.sample(stepper.initial_state(texts), uniform, drawing, nothing, new)
        speed = (tokens >= 0).sum() / (time.perf_counter() - start)
        best, count = max(best, speed), max(32, int(0.2 * max(best, speed) / texts))
    return best


def main() -> None:
    """Print the table."""
    for (kind, hidden, vocabulary, texts), target in TARGETS.items():
        reference, row = bare(hidden, vocabulary, texts), []
        for bits in (32, 16, 8):
            speed = measure(kind, hidden, vocabulary, texts, bits)
            row.append(f"{bits} bits {speed:8,.0f} ({speed / reference:5.1f} x)")
        name = f"{kind.__name__} 2x{hidden}, V {vocabulary}, {texts} text(s)"
        print(f"{name:32} {'  '.join(row)}  bare lstm {reference:7,.0f} tokens/s  target {target}", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
