"""Where the bits are: of held-out texts by position, by how frequent the word is in the training
texts, and within words.

``python -m tests.benchmarks bits [PRESETS [BUDGETS [CORPORA]]]``, each a list with commas, as in
``lstm-char,blend-word 1m,5m captions,2018``. A word begins at its space. PINNED
"""

import math
import re
import tempfile
import time
from collections import Counter, defaultdict
from itertools import chain
from pathlib import Path

import reviewgen
from tests.benchmarks.corpora import captions, reviews, shakespeare, split_2018, verses

PRESETS = "mixing-char,lstm-char,lstm-word,blend-char,blend-word"
BUDGETS = "1m,5m"
FREQUENCIES = (0, 1, 10, 100, 1000)  # of a word: never seen, from 1, ...
POSITIONS = (0, 32, 128, 512, 2048)  # characters from the beginning of the text
WORDS = re.compile(r"\s*\S+")  # each with what stands before it
# texts that are looked at
HELD_OUT = 300
TRAINED = 100


def main(presets=PRESETS, budgets=BUDGETS, corpora="film,captions,shakespeare,2018,verses"):
    """Print the tables of each training."""
    with tempfile.TemporaryDirectory() as folder:
        for name in corpora.split(","):
            source, held_out, options = split(name, Path(folder))
            train = (
                source if isinstance(source, list) else [Path(source).read_text(encoding="utf-8")]
            )
            frequency = Counter(chain.from_iterable(map(WORDS.findall, train)))
            for preset in presets.split(","):
                for budget in budgets.split(","):
                    start = time.monotonic()
                    model = reviewgen.train(preset, source, budget=budget, **options)
                    describe(
                        f"{name} {preset} {budget} {time.monotonic() - start:.0f} s",
                        model,
                        train,
                        held_out,
                        frequency,
                    )


def split(name, folder):
    """Return the training texts of a corpus, or their file, the held-out ones, and the options of
    reading them.
    """
    if name == "2018":
        train, _, clean = split_2018()
        return train, [text.lower() for text in clean], {"lowercase": True, "clean": False}
    if name == "shakespeare":
        train, held_out = shakespeare()
        (folder / "shakespeare.txt").write_text(train, encoding="utf-8")
        return folder / "shakespeare.txt", [held_out], {"documents": "file"}
    texts = {"film": lambda: reviews(9_000_000), "captions": captions, "verses": verses}[name]()
    return [text for number, text in enumerate(texts) if number % 10], texts[::10], {}


def describe(title, model, train, held_out, frequency):
    """Print the bits per character in all, of training texts, and by position, frequency and place
    in the word.
    """
    nats = model.evaluate(held_out).nats_per_character
    seen = model.evaluate([text[:10_000] for text in train[:TRAINED]]).nats_per_character
    speed = (model.training.get("tokens_seen") or math.nan) / model.training["seconds"]
    bits = (
        f"{nats:.4f} nats, {nats / math.log(2):.4f} bits; of training texts"
        f" {seen / math.log(2):.4f}"
    )
    print(f"\n{title}: {bits}; {speed:,.0f} tokens a second")
    sums = defaultdict(float)
    counts = Counter()
    for text in [text[:10_000] for text in held_out[:HELD_OUT]]:
        for (table, key), bits, characters in pieces_of(model.score(text), text, frequency):
            sums[table, key] += bits
            counts[table, key] += characters
    for table in ("position", "frequency", "word"):
        keys = sorted(
            (key for kind, key in sums if kind == table),
            key=lambda key: int(re.sub(r"\D", "", key) or 0),
        )
        print(
            f"    {table:10}",
            "  ".join(f"{key}: {sums[table, key] / counts[table, key]:.3f}" for key in keys),
        )


def pieces_of(score, text, frequency):
    """Yield the table and row that each token or word belongs to, its bits and characters."""
    # the bits of each character: a token's, evenly; where tokens begin
    spread = list[float]()
    starts = set[int]()
    for token in score.tokens:
        starts.add(len(spread))
        spread += [token.bits / len(token.text)] * len(token.text) if token.text else []
    place = 0
    for word in WORDS.findall(text):
        end = place + len(word)
        bits = sum(spread[place:end])
        second = next((at for at in range(place + 1, end) if at in starts), end)
        first = sum(spread[place:second])
        yield (
            (
                "frequency",
                f"from {max(limit for limit in FREQUENCIES if limit <= frequency[word])}",
            ),
            bits,
            len(word),
        )
        yield (
            ("position", f"from {max(limit for limit in POSITIONS if limit <= place)}"),
            bits,
            len(word),
        )
        yield ("word", "bits of the first token"), first, 1
        yield ("word", "of the others together"), bits - first, 1
        place = end
