"""PINNED: the n-gram engine: estimating and scoring, with KenLM beside it where it is at hand.

    python -m tests.benchmarks ngram                       everything
    KENLM=folder python -m tests.benchmarks ngram kenlm    with KenLM's programs

KenLM is no dependency: ``KENLM`` names the folder of binaries built from its source with
KENLM_MAX_ORDER=18. They get the ids as words, ``lmplz -o ORDER --discount_fallback 0.5 1 1.5``.
Targets stand beside the figures. Each estimate is a process of its own, so that its peak memory is
its own: first 2,000 tokens, which reads the compiled code from the disk, then the whole. "Cold" is
the whole process.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reviewgen.registry.plugins import find_model
from tests.benchmarks import timed
from tests.benchmarks.corpora import (
    char_tokenizer,
    documents,
    reviews,
    split_2018,
    stream,
    word_tokenizer,
)

ESTIMATE = """
import json, resource, sys, time
start = time.monotonic()
import numpy as np
from reviewgen.registry import find_model
Ngram = find_model("ngram")[0]
file, bos, vocab_size, order, limit = sys.argv[1], *map(int, sys.argv[2:])
if limit:
    resource.setrlimit(resource.RLIMIT_DATA, (limit << 20, limit << 20))
def run(ids):
    texts = np.split(ids, np.flatnonzero(ids == bos)[1:])
    begun = time.monotonic()
    model = Ngram(Ngram.Config(vocab_size=vocab_size, order=order, memory_mb=limit))
    for text in texts:
        model.observe(text)
    model.finish()
    return time.monotonic() - begun, len(model.state_dict()["tokens"])
ids = np.load(file, mmap_mode="r")
run(ids[:2000])  # the compiled loops are read from the disk
seconds, ngrams = run(ids)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0])  # of this program alone
print(json.dumps([seconds, peak / 1024, ngrams]))
"""


Ngram = find_model("ngram")[0]


def show(what: str, figure: str, target: str) -> None:
    """Print a line of the table."""
    print(f"{what:52} {figure:46} target {target}", flush=True)


def estimate(name: str, file: Path, tokenizer, order: int, target: str, limit: int = 0) -> None:
    """Estimate in a process of its own, the better of two runs, and print seconds and peak
    memory.
    """
    arguments = [
        str(file),
        str(tokenizer.bos_id),
        str(tokenizer.vocab_size),
        str(order),
        str(limit),
    ]
    runs = []
    for _ in range(2 if not limit else 1):
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", ESTIMATE, *arguments], capture_output=True, text=True, check=True
        )
        runs.append([*json.loads(done.stdout), time.monotonic() - start])
    seconds, peak, ngrams, cold = min(runs)
    figure = (
        f"{seconds:6.2f} s, cold process {cold:5.2f} s, peak {peak / 1024:.2f} GB,"
        f" {ngrams / 1e6:.1f} M n-grams"
    )
    show(
        f"estimate {name}, order {order}" + (f", limit {limit} MB" if limit else ""), figure, target
    )


def train(ids: np.ndarray, tokenizer, order: int, **more) -> Any:
    """Return a model of a stream."""
    model = Ngram(Ngram.Config(vocab_size=tokenizer.vocab_size, order=order, **more))
    for text in documents(ids, tokenizer.bos_id):
        model.observe(text)
    model.finish()
    return model


def score_speed(name: str, model: Any, ids: np.ndarray, target: str) -> None:
    """Print millions of tokens a second for 64 texts side by side and for one."""
    figures = []
    for rows in (64, 1):
        table = torch.from_numpy(ids[: len(ids) // rows * rows].reshape(rows, -1).astype(np.int64))
        state = model.initial_state(rows)
        best = min(
            timed(lambda table=table, state=state: model.score(table[:, :-1], table[:, 1:], state))
            for _ in range(5)
        )
        figures.append(table.numel() / best / 1e6)
    show(f"score {name}", f"{figures[0]:.1f} M tokens/s (one stream {figures[1]:.1f})", target)


def kenlm(file: Path, tokenizer, order: int, held_out: np.ndarray) -> None:
    """Run lmplz, build_binary and query on the ids as words."""
    binaries = Path(os.environ["KENLM"])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, ids in (("train", np.load(file, mmap_mode="r")), ("held_out", held_out)):
            with (place / name).open("w") as lines:
                lines.writelines(
                    " ".join(map(str, text[1:-1].tolist())) + "\n"
                    for text in documents(ids, tokenizer.bos_id)
                )
        lmplz = [
            binaries / "lmplz",
            "-o",
            str(order),
            "--discount_fallback",
            "0.5",
            "1",
            "1.5",
            "-S",
            "4G",
            "-T",
            folder,
        ]
        commands = {
            "lmplz": [*lmplz, "--text", place / "train", "--arpa", place / "arpa"],
            "build_binary": [
                binaries / "build_binary",
                "probing",
                place / "arpa",
                place / "binary",
            ],
            "query": [binaries / "query", "-v", "summary", place / "binary"],
        }
        for name, command in commands.items():
            start = time.monotonic()
            with (place / "held_out").open() as lines:
                done = subprocess.run(
                    command, stdin=lines, capture_output=True, text=True, check=True
                )
            print(
                f"    KenLM {name}: {time.monotonic() - start:.2f} s"
                f" {done.stdout.strip().replace(chr(10), ', ')[:120]}",
                flush=True,
            )


def main(part: str = "") -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train_texts, held_out, _ = split_2018()
        texts = reviews(21_000_000)
        while sum(map(len, texts[: len(texts) * 20 // 21])) > 20_000_000:
            texts.pop(0)
        few = char_tokenizer(train_texts)
        many = char_tokenizer(texts)
        words = word_tokenizer(texts)
        cut = len(texts) * 20 // 21
        np.save(folder / "2018.npy", stream(train_texts, few))
        np.save(folder / "chars.npy", stream(texts[:cut], many))
        word_ids = stream(texts[:cut], words)
        rest = stream(texts[cut:], many)
        np.save(folder / "words.npy", word_ids[:4_200_000])
        if part == "kenlm":
            for file, tokenizer, order, held in (
                ("2018", few, 9, stream(held_out, few)),
                ("chars", many, 9, rest),
                ("words", words, 5, word_ids[4_200_000:]),
            ):
                estimate(file, folder / f"{file}.npy", tokenizer, order, "-")
                kenlm(folder / f"{file}.npy", tokenizer, order, held)
            return
        estimate(
            "2018 text, 1.1 M characters", folder / "2018.npy", few, 9, "<= 0.4 s, cold <= 2 s"
        )
        estimate(
            "2018 text, 1.1 M characters", folder / "2018.npy", few, 16, "<= 0.8 s, cold <= 2 s"
        )
        estimate("reviews, 20 M characters", folder / "chars.npy", many, 9, "<= 4 s, <= 1 GB")
        estimate("reviews, 4.2 M word tokens", folder / "words.npy", words, 5, "<= 2.5 s")
        model = train(np.load(folder / "chars.npy"), many, 6)
        score_speed("reviews, order 6", model, rest, ">= 10")
        model = train(np.load(folder / "words.npy"), words, 5)
        score_speed("words, order 5", model, word_ids[4_200_000:], ">= 6")
        model = train(np.load(folder / "chars.npy"), many, 9)
        score_speed("reviews, order 9", model, rest, ">= 3")
