"""Sources of texts in tests: the one place that knows how reviewgen is asked for the texts of a
source.
"""

import csv
import gzip
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reviewgen.data.clean import describe
from reviewgen.data.cleaning import CleaningReport
from reviewgen.data.columns import DataConfig
from reviewgen.data.encode import Encoding, encode_corpus, find_conditions
from reviewgen.data.open import SPLITS, open_source
from reviewgen.data.split import CorpusSpec, read_corpus
from reviewgen.data.texts import read_examples
from reviewgen.errors import DataError

__all__ = [
    "Read",
    "as_csv",
    "as_lines",
    "as_parquet",
    "corpus_of",
    "read_all",
    "refusal",
    "texts_of",
    "tokenized",
    "write",
]


def texts_of(source: Any, *, clean: bool = False, split: str = "all", **options: Any) -> list[str]:
    """Return the texts of a source, in order, as they are or cleaned."""
    return [
        text for text, _ in read_examples(source, DataConfig(clean=clean, **options), split=split)
    ]


@dataclass(frozen=True)
class Read:
    """A source that was read and cleaned.

    Attributes:
        texts: The kept texts, in order, those of a validation source last.
        splits: The split of each.
        values: The values of the conditions of each.
        report: What cleaning did.
        notes: What the user should see.
        described: Lines for the user on what was read and changed.
        stream: How the source was read.
        fingerprint: What identifies the texts in the token cache.
        method: How texts are held out.
    """

    texts: list[str]
    splits: list[str]
    values: list[Any]
    report: CleaningReport
    notes: list[str]
    described: list[str]
    stream: Any
    fingerprint: str
    method: str

    def of(self, split: str) -> list[str]:
        """Return the texts of a split."""
        return [text for text, each in zip(self.texts, self.splits, strict=True) if each == split]


def corpus_of(source: Any, validation: Any = None, **options: Any) -> Read:
    """Read a source as a training does."""
    corpus = read_corpus(CorpusSpec(source, DataConfig(**options), validation))
    splits = [SPLITS[code] for code in corpus.splits]
    examples = {split: corpus.examples(split) for split in SPLITS}
    pairs = [next(examples[split]) for split in splits]
    described = describe(corpus.source, corpus.report)
    return Read(
        texts=[text for text, _ in pairs],
        splits=splits,
        values=[list(values) if values else () for _, values in pairs],
        report=corpus.report,
        notes=corpus.notes,
        described=described,
        stream=corpus.source,
        fingerprint=corpus.fingerprint,
        method=corpus.split_method,
    )


def tokenized(
    source: Any,
    kind: Any,
    config: Any = None,
    *,
    name: str = "",
    validation: Any = None,
    **options: Any,
) -> Any:
    """Tokenize a source as a training does; return the tokenizer, the conditions, the stores and
    the corpus.
    """
    texts = CorpusSpec(source, DataConfig(**options), validation)
    corpus = read_corpus(texts)
    fitted = find_conditions(corpus, texts.config)
    plugin = {"name": name or kind.__name__, "package": "tests", "version": "1"}
    encoding = Encoding(
        cls=kind,
        config=config or kind.Config(),
        plugin=plugin,
        num_proc=texts.config.num_proc,
    )
    folder = encode_corpus(corpus, encoding, fitted)
    tokenizer = kind.load(folder.folder / "tokenizer")
    return (
        tokenizer,
        fitted.with_ids_from(tokenizer.vocab_size, tokenizer.encode),
        folder.splits(),
        corpus,
    )


def read_all(source: Any, **options: Any) -> list[Any]:
    """Return the texts of a source as they are read, before they are cleaned."""
    with tempfile.TemporaryDirectory() as folder:
        opened = open_source(source, DataConfig(clean=False, **options), Path(folder))
        return [text for text, _ in opened.examples()]


def refusal(source: Any, **options: Any) -> str:
    """Return the sentence with which a source is refused."""
    with pytest.raises(DataError) as caught:
        texts_of(source, **options)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and not message.endswith("..")
    return message


def write(file: Path, content: bytes | str, *, packed: bool = True) -> Path:
    """Write a file, gzipped where its name says so."""
    content = content.encode() if isinstance(content, str) else content
    file.write_bytes(
        gzip.compress(content) if packed and file.name.lower().endswith(".gz") else content
    )
    return file


def as_csv(rows: list[dict[str, Any]], **options: Any) -> str:
    """Return rows as Python's csv module writes them."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_lines(rows: list[dict[str, Any]]) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    """Return rows as a parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, **options)
    return buffer.getvalue()
