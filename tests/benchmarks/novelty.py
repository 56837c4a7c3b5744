"""PINNED: the novelty index over 20 M characters of reviews, and what a copy limit costs when
generating.

Targets: the exact index in 3 s or less, 300 texts/s or more for the longest copy in a text of 500
characters; generation with the filter at half the speed without it or more. The texts are held-out
reviews, cut to 500 characters. Without and with the filter the same model writes in turn, and the
ratio is the median of the ratios of neighbours.
"""

import statistics
import time

import reviewgen
from reviewgen.novelty import build_index
from tests.benchmarks import timed
from tests.benchmarks.corpora import char_tokenizer, reviews, split_2018, stream

TEXTS = 400
ROUNDS = 5


def index() -> None:
    """Print seconds to build, bytes, and texts a second."""
    texts = reviews(20_300_000)
    tokenizer = char_tokenizer(texts)
    train = texts[:-250]
    held_out = [text[:500] for text in texts[-250:] if len(text) >= 500]
    ids = stream(train, tokenizer)
    facts = {
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": "",
    }
    facts["characters_per_token"] = 1.0
    for form in ("exact", "compact"):
        # compiles
        build_index(ids[:10_000], **facts, form=form).examine([3, 4, 5] * 9, tokenizer.decode)
        start = time.monotonic()
        found = build_index(ids, **facts, form=form)
        seconds = time.monotonic() - start
        texts_a_second = {}
        encoded = [found.check_text(tokenizer.encode(text)) for text in held_out]
        if form == "exact":
            texts_a_second["longest copy"] = len(encoded) / timed(
                lambda e=encoded, f=found: [f.match(ids) for ids in e]
            )
        texts_a_second["whole report"] = len(encoded) / timed(
            lambda e=encoded, f=found: [f.examine(ids, tokenizer.decode) for ids in e]
        )
        rates = ", ".join(f"{name} {value:,.0f} texts/s" for name, value in texts_a_second.items())
        size = (
            f"{sum(s.bits.nbytes for s in found.sets) / 1e6:.1f} MB, stride {found.stride}"
            if form == "compact"
            else ""
        )
        print(
            f"{form:8} {len(ids) / 1e6:.0f} M tokens: {seconds:.2f} s to build, {rates} {size}",
            flush=True,
        )


def write(model, count, streams, **settings) -> None:
    """Let a model write so many texts, some side by side."""
    for start in range(0, count, streams):
        model.generate(
            num_return_sequences=streams,
            max_new_tokens=500,
            temperature=1.0,
            seed=start,
            **settings,
        )


def generation() -> None:
    """Print what the filter costs an n-gram and an LSTM."""
    train, held_out, _ = split_2018()
    for preset, more, number in (
        ("ngram-char", {"model": {"order": 9}}, 1000),
        ("lstm-char", {"steps": 400}, 64),
    ):
        more = more | {"training": {"novelty": "exact"}}
        model = reviewgen.train(
            preset, train, validation=held_out[:20], lowercase=True, clean=False, **more
        )
        for streams, limit in ((1, 20), (1, 50), (64, 20), (64, 50)):
            count = number if streams == 64 else number // 16
            guarded = {"novelty": "filter", "max_copy": limit}
            write(model, streams, streams, **guarded)  # compiles, and makes the set
            ratios = []
            for _ in range(ROUNDS):
                free = timed(lambda m=model, c=count, s=streams: write(m, c, s))
                ratios.append(
                    free / timed(lambda m=model, c=count, s=streams, g=guarded: write(m, c, s, **g))
                )
            ratio = statistics.median(ratios)
            print(
                f"{preset:10} filter, max_copy {limit}, {streams:2} streams: {ratio:.2f} of the"
                " free speed",
                flush=True,
            )


def main() -> None:
    """Print both tables."""
    index()
    generation()
