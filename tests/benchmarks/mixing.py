"""Mixing beside the n-gram, the LSTM and their blends: nats per character, seconds, memory.

    python -m tests.benchmarks mixing table CORPUS [MINUTES]   shakespeare, music, 2018, film, FILE
    python -m tests.benchmarks mixing curve FILE.svg           0.1 to 30 MB, at equal time
    python -m tests.benchmarks mixing speed                    training, scoring, sampling

A single text is cut: its last tenth is held out, as one text; a network is trained on pieces of
4,000 characters. 2018 is the clean split. PINNED
"""

import resource
import tempfile
import time
from itertools import accumulate
from pathlib import Path

import reviewgen
from reviewgen.web.charts import Chart, Panel, Series, save_chart
from tests.benchmarks.corpora import posts, reviews, shakespeare, split_2018

PIECE = 4000  # characters
FILM = 20_000_000
FILM_HELD_OUT = 250  # texts
POSTS_HELD_OUT = 164  # texts
SIZES = (0.1, 0.3, 1, 3, 10, 30)  # MB
QUIET = {"copy_tokens": 0}


def main(what="table", *arguments):
    """Print the rows of a table, draw the curve, or print the speeds."""
    {"table": table, "curve": curve, "speed": speed}[what](*arguments)


def table(corpus="shakespeare", minutes="10", *presets):
    """Print nats per character of the held-out texts for each preset."""
    train, held_out, options = split(corpus)
    characters = sum(map(len, train))
    print(f"{corpus}: {characters:,} characters to train on, {len(held_out)} held-out texts")
    slots = {"local_slots": 1 << 17} if len(train) == 1 else {}
    frozen = {"local_slots": 0, "adapt_weights": False}
    rows = {
        "ngram-char": ("ngram-char", {}, train),
        "mixing-char": ("mixing-char", {"model": slots}, train),
        "mixing-char, text kept": ("mixing-char", {"model": slots | {"keep_text": True}}, train),
        "mixing-char, frozen": ("mixing-char", {"model": frozen}, train),
        "lstm-char": ("lstm-char", {"budget": f"{minutes}m"}, pieces(train)),
        "blend-char": ("blend-char", {"budget": f"{minutes}m", "model": slots}, pieces(train)),
    }
    for name in presets or rows:
        preset, settings, texts = rows[name]
        if "budget" not in settings:  # nothing is chosen by held-out texts, and all are counted
            settings = settings | {"validation": [texts[-1][-PIECE:]], "epochs": 1}
        start = time.monotonic()
        model = reviewgen.train(preset, texts, training=QUIET, **settings, **options)
        seconds = time.monotonic() - start
        start = time.monotonic()
        nats = model.evaluate(held_out, **options).nats_per_character
        speed = sum(map(len, held_out)) / (time.monotonic() - start)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{name:24} {nats:.4f} nats {nats / 0.693147:.4f} bits {seconds:6.1f} s"
            f" {seconds / characters * 1e6:5.1f} s/MB {speed:9,.0f} characters/s"
            f" {memory:.2f} GB at most so far",
            flush=True,
        )


def split(corpus):
    """Return the training texts, the held-out texts, and the options of reading them."""
    options = {"clean": False}
    if corpus == "2018":
        train, _, clean = split_2018()
        return train, [text.lower() for text in clean], options | {"lowercase": True}
    if corpus == "music":
        texts = posts()
        return texts[POSTS_HELD_OUT:], texts[:POSTS_HELD_OUT], options
    if corpus == "film":
        texts = reviews(FILM)
        return texts[:-FILM_HELD_OUT], texts[-FILM_HELD_OUT:], options
    if corpus == "shakespeare":
        train, held_out = shakespeare()
    else:
        text = Path(corpus).read_text(encoding="utf-8")
        train = text[: len(text) * 9 // 10]
        held_out = text[len(text) * 9 // 10 :]
    return [train], [held_out], options


def pieces(texts):
    """Return a single text in pieces, so that some can be held out; other texts as they are."""
    if len(texts) > 1:
        return texts
    return [texts[0][start : start + PIECE] for start in range(0, len(texts[0]), PIECE)]


def curve(file):
    """Draw the bits per character of film reviews by the size of the training text. The LSTM has
    the time that mixing takes.
    """
    points = {"ngram-char": [], "mixing-char": [], "lstm-char, in the same time": []}
    for size, train, held_out in film_sizes(SIZES):
        spent = 0.0
        for name, found in points.items():
            preset = name.partition(",")[0]
            settings = {"validation": train[-1:], "epochs": 1}
            if preset == "lstm-char":
                settings = {"budget": f"{max(2, round(spent))}s"}
            bits, spent = film_bits(preset, train, held_out, **settings)
            found.append((size, bits))
    save_curve(file, points)


def film_sizes(sizes):
    """Yield each size in MB, so much text of film reviews, and the held-out reviews."""
    texts = reviews(int((sizes[-1] + 0.3) * 1e6))
    rest = texts[FILM_HELD_OUT:]
    for size in sizes:
        ends = accumulate(map(len, rest))
        train = [text for text, end in zip(rest, ends, strict=True) if end <= size * 1e6]
        yield size, train, texts[:FILM_HELD_OUT]


def film_bits(preset, train, held_out, **settings):
    """Train a preset. Return and print its bits per character, and the seconds."""
    start = time.monotonic()
    model = reviewgen.train(preset, train, clean=False, training=QUIET, **settings)
    spent = time.monotonic() - start
    bits = model.evaluate(held_out, clean=False).bits_per_character
    size = sum(map(len, train)) / 1e6
    print(f"{size:5.1f} MB {preset:18} {bits:.4f} bits {spent:7.1f} s", flush=True)
    return bits, spent


def save_curve(file, points):
    """Draw the bits of each name by the size."""
    panel = Panel(
        label="bits per character of 250 held-out film reviews",
        series=[Series(name, found, style) for style, (name, found) in enumerate(points.items())],
    )
    chart = Chart(
        title="Film reviews: who wins at which size",
        x="MB of training text",
        panels=(panel,),
        summary=f"Bits per character of {', '.join(points)}, by the size of the training text.",
        log_x=True,
    )
    save_chart(chart, Path(file))


def speed():
    """Print the speeds on tiny Shakespeare: training, scoring, and sampling."""
    train, held_out = shakespeare()
    for name, settings in (
        ("adapting", {}),
        ("frozen", {"local_slots": 0, "adapt_weights": False}),
    ):
        options = {"clean": False, "training": QUIET, "model": settings}
        options |= {"validation": [train[-PIECE:]], "epochs": 1}
        reviewgen.train("mixing-char", [train[:3000]], **options).evaluate([held_out[:500]])
        start = time.monotonic()
        model = reviewgen.train("mixing-char", [train], **options)
        trained = time.monotonic() - start
        start = time.monotonic()
        model.evaluate([held_out], clean=False)
        scored = time.monotonic() - start
        model.generate(seed=1, max_new_tokens=50)
        start = time.monotonic()
        texts = model.generate(seed=1, num_return_sequences=20, top_p=0.9, finish="anywhere")
        sampled = time.monotonic() - start
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(Path(folder) / "model")
            size = sum(part.stat().st_size for part in Path(folder).rglob("*") if part.is_file())
        print(
            f"{name}: training {trained / len(train) * 1e6:.1f} s/MB, scoring"
            f" {len(held_out) / scored:,.0f} characters/s, sampling"
            f" {sum(map(len, texts)) / sampled:,.0f} characters/s, {size / 1e6:.0f} MB saved"
        )
