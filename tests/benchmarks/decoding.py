"""PINNED: tokens a second of the recurrent steppers, sampling included, beside ``nn.LSTM`` called
once a token; and of blends.

    python -m tests.benchmarks decoding                 everything
    python -m tests.benchmarks decoding blends          the blends only

Weights are random, the temperature is 0.8, no text ends early. The bare loop and the steppers that
it is compared with take turns in short bursts, timed in seconds of the processor (there is one
thread); each figure is a best burst, for other work on the machine slows the memory down. Targets
stand beside the figures; "x" is times the bare loop, and of a blend times the LSTM. The n-gram of a
blend is a real one: of the 2018 text, order 8, and of reviews, order 4. The weights of a blend have
a gate.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from reviewgen.compiled import SamplingParams
from reviewgen.registry.plugins import find_model
from tests.benchmarks.corpora import char_tokenizer, reviews, split_2018, stream, word_tokenizer
from tests.benchmarks.ngram import train as train_ngram

Lstm, Gru, Rnn, Blend = (find_model(name)[0] for name in ("lstm", "gru", "rnn", "blend"))
CHARACTERS = 70
WORDS = 8000
BITS = (32, 16, 8)
# seconds: other work on the machine leaves some bursts alone
ROUNDS = 40
BURST = 0.03
TARGETS = {  # model, hidden size, vocabulary, texts side by side: what is asked for
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


def bare(hidden: int, vocabulary: int, texts: int) -> Callable[[int], int]:
    """Return the loop that one would write with torch's LSTM; it takes a number of steps, and
    returns that of its tokens.
    """
    width = EMBEDDING[hidden]
    table = nn.Embedding(vocabulary, width)
    lstm = nn.LSTM(width, hidden, 2)
    output = nn.Linear(hidden, vocabulary)

    @torch.inference_mode()
    def write(steps: int) -> int:
        ids = torch.zeros(1, texts, dtype=torch.long)
        state = None
        for _ in range(steps):
            out, state = lstm(table(ids), state)
            ids = torch.multinomial(torch.softmax(output(out[0]) / 0.8, -1), 1).view(1, texts)
        return steps * texts

    return write


def ours(kind: type, hidden: int, vocabulary: int, texts: int, bits: int) -> Callable[[int], int]:
    """Return a stepper's ``sample``, in the same form."""
    model = kind(
        kind.Config(
            vocab_size=vocabulary, embedding_size=EMBEDDING[hidden], hidden_size=hidden, layers=2
        )
    )
    return writer(model.stepper(weight_bits=bits), vocabulary, texts)


def writer(stepper, vocabulary: int, texts: int) -> Callable[[int], int]:
    """Return a loop that takes a number of steps, samples from the beginning of a text, and returns
    that of its tokens.
    """
    random = np.random.default_rng(0)
    params = SamplingParams(
        np.array([0.8]), 0, 1.0, 0.0, 1.0, 0, 0, 1 << 40, False, -5, 0, vocabulary
    )
    nothing = np.zeros((texts, 0), np.int64)
    new = np.zeros(texts, np.int64)

    def write(steps: int) -> int:
        uniform = random.random((texts, steps + 1))
        _, state = stepper.forward(np.zeros((texts, 1), np.int64), stepper.initial_state(texts))
        tokens, _, _ = stepper.sample(state, uniform, params, nothing, new)
        return int((tokens >= 0).sum())

    return write


def race(writers: list[Callable[[int], int]]) -> list[float]:
    """Return the most tokens a second of each, over rounds of short bursts in which each has its
    turn.
    """
    best = [0.0] * len(writers)
    steps = [2] * len(writers)
    for _ in range(ROUNDS):
        for place, write in enumerate(writers):
            start = time.process_time()
            tokens = write(steps[place])
            seconds = time.process_time() - start
            best[place] = max(best[place], tokens / seconds)
            steps[place] = max(2, min(10 * steps[place], round(steps[place] * BURST / seconds)))
    return best


def blends() -> None:
    """Print the rates of blends of an LSTM of one layer and an n-gram, and of the LSTM alone."""
    train_texts = split_2018()[0]
    words = reviews(10_000_000)
    for texts, tokenizer, order, more in (
        (train_texts, char_tokenizer(train_texts), 8, {"embedding_size": 64, "ngrams": 5}),
        (words, word_tokenizer(words), 4, {"tied": True}),
    ):
        size = tokenizer.vocab_size
        ngram = train_ngram(stream(texts, tokenizer), tokenizer, order)
        for hidden, rows in ((128, 1), (256, 1), (512, 1), (256, 64)):
            settings = {"embedding_size": hidden // 2} | more
            lstm = Lstm(Lstm.Config(vocab_size=size, hidden_size=hidden, layers=1, **settings))
            gate = {"coefficients": np.random.default_rng(0).normal(0, 0.1, (2, 6)).tolist()}
            plugins = [find_model(name)[1] for name in ("ngram", "lstm")]
            blend = Blend.from_models([ngram, lstm], plugins, (0.5, 0.5), gate)
            alone, together = race([writer(model.stepper(), size, rows) for model in (lstm, blend)])
            name = f"blend of order {order}, 1x{hidden}, V {size}, {rows} text(s)"
            print(
                f"{name:48} {together:8,.0f} ({together / alone:.2f} x)  lstm {alone:8,.0f}"
                " tokens/s  target >= 0.7 x",
                flush=True,
            )


def main(part: str = "") -> None:
    """Print the tables."""
    torch.manual_seed(0)
    if part == "blends":
        blends()
        return
    for (kind, hidden, vocabulary, texts), target in TARGETS.items():
        shape = hidden, vocabulary, texts
        reference, *speeds = race([bare(*shape), *(ours(kind, *shape, bits) for bits in BITS)])
        row = [
            f"{bits} bits {speed:8,.0f} ({speed / reference:5.1f} x)"
            for bits, speed in zip(BITS, speeds, strict=True)
        ]
        name = f"{kind.__name__} 2x{hidden}, V {vocabulary}, {texts} text(s)"
        print(
            f"{name:32} {'  '.join(row)}  bare lstm {reference:7,.0f} tokens/s  target {target}",
            flush=True,
        )
    blends()
