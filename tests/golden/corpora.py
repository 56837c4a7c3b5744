"""Six corpora made from a seed, and the one place that asks the library for their texts, splits,
counts and token ids.

The data of ``corpora.json`` outlives the functions that give it: where these change, only ``read``
and ``prepare`` change.
"""

import io
import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

import reviewgen

__all__ = ["CASES", "TOKENIZERS", "Reading", "framed", "prepare", "read", "review", "write"]

SUBJECTS = [
    "the movie",
    "The acting",
    "the music",
    "The plot",
    "a scene",
    "My café",
    "this record",
    "an ending",
    "Her voice",
]
VERBS = ["was", "is", "seemed", "felt", "wasn't", "became", "sounds", "had been"]
WORDS = [
    "good",
    "bad",
    "so-so",
    "very good",
    "slow",
    "naïve",
    "100 % fun",
    "a mess",
    "great!",
    "boring...",
    "rather long",
    "odd",
]
GENRES = ["folk", "jazz", "Über"]
ENDS = [
    ".",
    "!",
    "?",
    " and I liked it.",
    ", but not for me.",
    "; see it twice.",
    " (1999).",
    " 😀",
]
MESSY = (
    'He said ""great"", then left.¶Two lines\r\nin one cell,\nand a third.¶A <b>bold</b> claim<br'
    " />and <i>another</i><br/>one &amp; more &quot;text&quot; &nosuch; <!-- a comment -->¶cafÃ©"
    " and naÃ¯ve were decoded wrongly¶cafe\u0301 in two code points¶   spaces around, a tab\there  "
    " ¶¶   ¶A duplicate.¶A duplicate.¶a duplicate.¶NA¶null¶12345¶1 < 2 and 3 > 2, <3¶**bold**, [a"
    " link](https://example.org) and `code`¶日本語のレビュー。 Привет! 👍🏽¶one, two; three\tfour¶A"
    " <br> duplicate with a tag.¶A \n duplicate with a tag."
)


def pick(rng: random.Random, items: list[str]) -> str:
    """Return one of the items; only ``random()`` is drawn, which is the same in every version of
    Python.
    """
    return items[int(rng.random() * len(items))]


def review(rng: random.Random, most: int = 5) -> str:
    """Return a text of one to ``most`` sentences."""
    count = 1 + int(rng.random() * most)
    return " ".join(
        " ".join(pick(rng, part) for part in (SUBJECTS, VERBS, WORDS)) + pick(rng, ENDS)
        for _ in range(count)
    )


def messy(rng: random.Random) -> str:
    """Return a CSV with quotes, line breaks in cells, duplicates, tags, mojibake, empty cells and
    an empty row.
    """
    texts = [*MESSY.split("¶"), *(review(rng) for _ in range(30))]
    rows = [f'{number},"{text}",{1 + number % 5}' for number, text in enumerate(texts)]
    return "\r\n".join(["id,review,stars", *rows[:13], "", *rows[13:], ""])


def json_lines(rng: random.Random) -> str:
    """Return JSON lines with two conditions, of which one is sometimes null or missing."""
    lines = []
    for number in range(200):
        record = {"review": review(rng), "stars": 1 + number % 5}
        genre = pick(rng, GENRES)
        genres = {"genre": genre if number % 7 else None} if number % 11 else {}
        lines.append(json.dumps(record | genres, ensure_ascii=number % 2 == 0) + "\n")
    return "".join(lines)


def parquet(rng: random.Random) -> bytes:
    """Return a parquet file of several row groups with nulls."""
    texts = [None if number % 50 == 49 else review(rng) for number in range(300)]
    table = pa.table(
        {
            "product": list(range(300)),
            "text": texts,
            "rating": [number % 3 / 2 for number in range(300)],
        }
    )
    pq.write_table(table, stream := io.BytesIO(), row_group_size=64)
    return stream.getvalue()


def wrapped(rng: random.Random) -> str:
    """Return paragraphs that are wrapped at some 60 characters, one or several blank lines between
    them.
    """
    parts = []
    for _ in range(80):
        lines = [""]
        for word in review(rng, 9).split(" "):
            if len(lines[-1]) + len(word) > 60:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
        parts.append("\n".join(lines) + "\n" * (1 + int(rng.random() * 3)))
    return ("\ufeff" + "\n".join(parts)).replace("\n", "\r\n")


def three_files(rng: random.Random) -> list[str]:
    """Return a CSV of 20,000 rows in three files."""
    rows = [f'{number % 5},"{review(rng, 3)}"\n' for number in range(1, 20_001)]
    return [
        "stars,review\n" + "".join(part)
        for part in (rows[:4_000], rows[4_000:13_000], rows[13_000:])
    ]


class Case(NamedTuple):
    """A corpus, and the options of reading it."""

    file: str
    seed: int
    make: Callable[[random.Random], Any]
    options: dict[str, Any]


ALL = {"fix_encoding": True, "lowercase": True, "strip_markdown": True}
CASES: dict[str, Case] = {
    "messy csv": Case("messy.csv", 1, messy, {}),
    "messy csv, all options": Case("messy.csv", 1, messy, ALL),
    "messy csv, not cleaned": Case(
        "messy.csv", 1, messy, {"clean": False, "conditions": ["stars"]}
    ),
    "jsonl with conditions": Case("a.jsonl", 2, json_lines, {"conditions": ["stars", "genre"]}),
    "parquet": Case("a.parquet", 3, parquet, {"conditions": ["rating"]}),
    "one long text": Case(
        "a.txt",
        4,
        lambda rng: "\n\n".join(review(rng, 12) for _ in range(160)) + "\n",
        {"documents": "file"},
    ),
    "paragraphs": Case("a.txt", 5, wrapped, {"documents": "paragraph"}),
    "sentences": Case("a.txt", 5, wrapped, {"documents": "sentence"}),
    "lines": Case("a.txt", 5, wrapped, {}),
    "three files": Case("part-*.csv", 6, three_files, {}),
}
TOKENIZERS: dict[str, dict[str, Any]] = {
    "char": {},
    "word": {"vocab_size": 700, "min_frequency": 2},
}
# of each split, the ids of each text, with bos, conditions and eos
Ids: TypeAlias = dict[str, list[list[int]]]


def write(case: Case, folder: Path) -> Path:
    """Write the files of a corpus; return what is read, which may be a pattern."""
    made = case.make(random.Random(case.seed))
    for number, content in enumerate(made if isinstance(made, list) else [made]):
        file = folder / case.file.replace("*", str(number))
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / case.file


class Reading(NamedTuple):
    """What the library makes of a corpus."""

    # those kept, in the order of the source, with their conditions and splits
    texts: list[tuple[str, list[Any], str]]
    counts: dict[str, int]  # of the cleaning
    vocab_size: int
    ids: Ids
    decode: Callable[[list[int]], str]


def read(source: Path, tokenizer: str, options: dict[str, Any]) -> Reading:
    """Return what a training reads of a source."""
    run = reviewgen.TrainingRun(
        f"ngram-{tokenizer}", source, tokenizer=TOKENIZERS[tokenizer], **options
    )
    corpus = run.read()
    names = ("train", "validation", "test")
    examples = {split: corpus.examples(split) for split in names}
    pairs = [(next(examples[split]), split) for split in (names[code] for code in corpus.splits)]
    texts = [(text, list(values), split) for (text, values), split in pairs]
    counts = asdict(corpus.report)
    run.tokenize()  # and the texts of the corpus are gone
    ids = {split: framed(store) for split, store in run.corpus.stores.items()}
    return Reading(texts, counts, run.corpus.tokenizer.vocab_size, ids, run.corpus.tokenizer.decode)


def prepare(
    source: Path, tokenizer: str, options: dict[str, Any], out: Path
) -> tuple[dict[str, int], Ids]:
    """Return the counts and the ids of a store that is prepared of a source."""
    store = reviewgen.prepare(
        source, preset=f"ngram-{tokenizer}", out=out, tokenizer=TOKENIZERS[tokenizer], **options
    )
    counts = store.facts["corpus"]["source"]["cleaning"]
    return counts, {split: framed(each) for split, each in store.splits().items()}


def framed(store: Any) -> list[list[int]]:
    """Return the ids of each text of a token store."""
    return [ids.tolist() for ids, _ in store.documents()]
