"""Where the benchmark corpora are, and what several benchmarks read: the 2018 split, and the
reviews as token ids.
"""

import gzip
import importlib.util
import json
import os
import random
import subprocess
from pathlib import Path

import numpy as np

from reviewgen.data.columns import DataConfig
from reviewgen.data.texts import read_examples
from reviewgen.registry.plugins import find_tokenizer

SHARED = Path(os.environ.get("REVIEWGEN_BENCH", "../shared"))


def split_2018() -> tuple[list[str], list[str], list[str]]:
    """Return the training texts, all held-out texts and the clean ones among them."""
    spec = importlib.util.spec_from_file_location("split_2018", SHARED / "bench" / "split_2018.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    train, held_out = module.split_2018()
    return train, held_out, module.clean(train, held_out)


def captions(count: int = 2000) -> list[str]:
    """Return the first captions of MusicCaps."""
    with gzip.open(SHARED / "data" / "musiccaps.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]


def posts() -> list[str]:
    """Return the posts about music, each once, in a random order."""
    rows = json.loads((SHARED / "data" / "music_blog_reviews.json").read_text(encoding="utf-8"))
    texts = list(dict.fromkeys(row["content"] for row in rows))
    random.Random(0).shuffle(texts)
    return texts


def verses() -> list[str]:
    """Return the verses of the King James Bible, from Debian's package bible-kjv."""
    printed = subprocess.run(
        ["bible", "-f", "gen1:1-rev22:21"], capture_output=True, text=True, check=True
    ).stdout
    return [line.partition(" ")[2] for line in printed.splitlines()]


def shakespeare() -> tuple[str, str]:
    """Return the first nine tenths of tiny Shakespeare, and the last."""
    text = (SHARED / "data" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    return text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]


def reviews(characters: int) -> list[str]:
    """Return the first texts of the reviews extra that have this many characters together."""
    texts = []
    total = 0
    for text, _ in read_examples("reviews", DataConfig()):
        texts.append(text)
        total += len(text)
        if total >= characters:
            break
    return texts


def char_tokenizer(texts: list[str]):
    """Return a tokenizer of the texts' characters."""
    kind = find_tokenizer("char")[0]
    return kind.train(texts, kind.Config())


def word_tokenizer(texts: list[str], vocab_size: int = 8000):
    """Return a BPE tokenizer of the texts."""
    kind = find_tokenizer("word")[0]
    return kind.train(texts, kind.Config(vocab_size=vocab_size))


def stream(texts: list[str], tokenizer) -> np.ndarray:
    """Return the texts as one stream of ids, each between bos and eos."""
    dtype = np.uint8 if tokenizer.vocab_size <= 256 else np.uint16
    parts = [
        np.array([tokenizer.bos_id, *ids, tokenizer.eos_id], dtype)
        for ids in tokenizer.encode_batch(texts)
    ]
    return np.concatenate(parts)


def documents(ids: np.ndarray, bos_id: int) -> list[np.ndarray]:
    """Return the framed texts of a stream."""
    return np.split(ids, np.flatnonzero(ids == bos_id)[1:])
