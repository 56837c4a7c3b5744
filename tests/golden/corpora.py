"""Six corpora made from a seed, and the one place that asks the library for their texts, splits, counts and token ids.

The data of ``corpora.json`` outlives the functions that give it: where these change, only ``read`` and ``prepare`` change.
"""

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

import reviewgen

__all__ = ["CASES", "TOKENIZERS", "Reading", "big", "framed", "prepare", "read", "review"]

SUBJECTS = ["the movie", "The acting", "the music", "The plot", "a scene", "My café", "this record", "an ending", "Her voice"]
VERBS = ["was", "is", "seemed", "felt", "wasn't", "became", "sounds", "had been"]
WORDS = ["good", "bad", "so-so", "very good", "slow", "naïve", "100 % fun", "a mess", "great!", "boring...", "rather long", "odd"]
GENRES = ["folk", "jazz", "Über"]
ENDS = [".", "!", "?", " and I liked it.", ", but not for me.", "; see it twice.", " (1999).", " 😀"]


def sentence(rng: random.Random) -> str:
    """Return a sentence; only ``random()`` is drawn, which is the same in every version of Python."""
    return " ".join(pick(rng, part) for part in (SUBJECTS, VERBS, WORDS)) + pick(rng, ENDS)


def pick(rng: random.Random, items: list[str]) -> str:
    return items[int(rng.random() * len(items))]


def review(rng: random.Random, most: int = 5) -> str:
    return " ".join(sentence(rng) for _ in range(1 + int(rng.random() * most)))


MESSY = [
    'He said ""great"", then left.',
    "Two lines\r\nin one cell,\nand a third.",
    "A <b>bold</b> claim<br />and <i>another</i><br/>one &amp; more &quot;text&quot; &nosuch; <!-- a comment -->",
    "cafÃ© and naÃ¯ve were decoded wrongly",
    "cafe\u0301 in two code points",
    "   spaces around, a tab\there   ",
    "",
    "   ",
    "A duplicate.",
    "A duplicate.",
    "a duplicate.",
    "NA",
    "null",
    "12345",
    "1 < 2 and 3 > 2, <3",
    "**bold**, [a link](https://example.org) and `code`",
    "日本語のレビュー。 Привет! 👍🏽",
    "one, two; three\tfour",
    "A <br> duplicate with a tag.",
    "A \n duplicate with a tag.",
]


def write_messy(folder: Path) -> Path:
    """Write a CSV with quotes, line breaks in cells, duplicates, tags, mojibake, empty cells and an empty row."""
    rng, rows = random.Random(1), []
    for number, text in enumerate([*MESSY, *(review(rng) for _ in range(30))]):
        rows.append(f'{number},"{text}",{1 + number % 5}')
        if number == 12:
            rows.append("")
    path = folder / "messy.csv"
    path.write_bytes("\r\n".join(["id,review,stars", *rows, ""]).encode())
    return path


def write_jsonl(folder: Path) -> Path:
    """Write JSON lines with two conditions, of which one is sometimes null or missing."""
    rng, path = random.Random(2), folder / "conditions.jsonl"
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for number in range(200):
            record: dict[str, Any] = {
                "review": review(rng),
                "stars": 1 + number % 5,
                "genre": pick(rng, ["folk", "jazz", "Über"]),
            }
            if number % 7 == 0:
                record["genre"] = None
            if number % 11 == 0:
                del record["genre"]
            stream.write(json.dumps(record, ensure_ascii=number % 2 == 0) + "\n")
    return path


def write_parquet(folder: Path) -> Path:
    """Write a parquet file of several row groups with nulls."""
    rng, path = random.Random(3), folder / "reviews.parquet"
    texts = [None if number % 50 == 49 else review(rng) for number in range(300)]
    table = pa.table(
        {"product": pa.array(range(300)), "text": pa.array(texts), "rating": pa.array([n % 3 / 2 for n in range(300)])}
    )
    pq.write_table(table, path, row_group_size=64)
    return path


def write_long(folder: Path) -> Path:
    """Write one text of some 40,000 characters."""
    rng, path = random.Random(4), folder / "novel.txt"
    path.write_text("\n\n".join(review(rng, 12) for _ in range(160)) + "\n", encoding="utf-8", newline="\n")
    return path


def write_paragraphs(folder: Path) -> Path:
    """Write paragraphs that are wrapped at some 60 characters, one or several blank lines between them."""
    rng, path, parts = random.Random(5), folder / "wrapped.txt", []
    for _ in range(80):
        lines = [""]
        for word in review(rng, 9).split(" "):
            if len(lines[-1]) + len(word) > 60:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
        parts.append("\n".join(lines) + "\n" * (1 + int(rng.random() * 3)))
    path.write_text("\ufeff" + "\n".join(parts), encoding="utf-8", newline="\r\n")
    return path


def big(folder: Path) -> Path:
    """Write a CSV of 20,000 rows in three files."""
    rng, target, row = random.Random(6), folder / "big", 0
    target.mkdir()
    for name, count in (("a.csv", 4_000), ("b.csv", 9_000), ("c.csv", 7_000)):
        with (target / name).open("w", encoding="utf-8", newline="\n") as stream:
            stream.write("stars,review\n")
            for _ in range(count):
                row += 1
                stream.write(f'{row % 5},"{review(rng, 3)}"\n')
    return target / "*.csv"


class Case(NamedTuple):
    """A corpus and how it is read."""

    write: Callable[[Path], Path]
    options: dict[str, Any]


CASES: dict[str, Case] = {
    "messy csv": Case(write_messy, {}),
    "messy csv, all options": Case(write_messy, {"fix_encoding": True, "lowercase": True, "strip_markdown": True}),
    "messy csv, not cleaned": Case(write_messy, {"clean": False, "conditions": ["stars"]}),
    "jsonl with conditions": Case(write_jsonl, {"conditions": ["stars", "genre"]}),
    "parquet": Case(write_parquet, {"conditions": ["rating"]}),
    "one long text": Case(write_long, {"documents": "file"}),
    "paragraphs": Case(write_paragraphs, {"documents": "paragraph"}),
    "sentences": Case(write_paragraphs, {"documents": "sentence"}),
    "lines": Case(write_paragraphs, {}),
    "three files": Case(big, {}),
}
TOKENIZERS: dict[str, dict[str, Any]] = {"char": {}, "word": {"vocab_size": 700, "min_frequency": 2}}


Ids: TypeAlias = dict[str, list[list[int]]]


class Reading(NamedTuple):
    """What the library makes of a corpus.

    Attributes:
        texts: The kept texts in the order of the source: text, values of the conditions, split.
        counts: What cleaning counted.
        vocab_size: The size of the tokenizer's vocabulary.
        ids: Of each split, the ids of each text, with bos, conditions and eos.
        decode: The tokenizer's.
    """

    texts: list[tuple[str, list[Any], str]]
    counts: dict[str, int]
    vocab_size: int
    ids: Ids
    decode: Callable[[list[int]], str]


def read(source: Path, tokenizer: str, options: dict[str, Any]) -> Reading:
    """Return what a training reads of a source."""
    run = reviewgen.TrainingRun(f"ngram-{tokenizer}", source, tokenizer=TOKENIZERS[tokenizer], **options)
    corpus, names = run.read(), ("train", "validation", "test")
    each = {split: zip(corpus.texts(split), corpus.conditions(split), strict=True) for split in names}
    texts = [(*next(each[split]), split) for split in (names[code] for code in corpus.splits)]
    counts = asdict(corpus.report)
    run.tokenize()  # and the texts of the corpus are gone
    ids = {split: framed(store) for split, store in run.stores.items()}
    return Reading(texts, counts, run.tokenizer.vocab_size, ids, run.tokenizer.decode)


def prepare(source: Path, tokenizer: str, options: dict[str, Any], out: Path) -> tuple[dict[str, int], Ids]:
    """Return the counts and the ids of a store that is prepared of a source."""
    store = reviewgen.prepare(source, preset=f"ngram-{tokenizer}", out=out, tokenizer=TOKENIZERS[tokenizer], **options)
    counts = store.facts["corpus"]["source"]["cleaning"]
    return counts, {split: framed(each) for split, each in store.splits().items()}


def framed(store: Any) -> list[list[int]]:
    """Return the ids of each text of a token store."""
    return [ids.tolist() for ids, _ in store.documents()]
