"""The token cache: its files equal the tokenizer's output, appear complete or not at all, and are written once."""

import contextlib
import json
import resource
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from reviewgen.data import SPLITS, DataConfig, TokenStore, cache_folder, frame_texts, gather, tokenize, workspace
from reviewgen.errors import StorageError
from reviewgen.registry import find_tokenizer
from tests.support.fakes import LETTERS

TEXTS = [f"review {number} " + "ä😀" * (number % 7) for number in range(120)]
CharTokenizer, _ = find_tokenizer("char")


@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    """The number of ids."""

    vocab_size: int = 200


class FakeTokenizer:
    """One id per character, its code point modulo the vocabulary; counts its calls."""

    Config = FakeConfig
    bos_id, eos_id = 0, 1
    calls: ClassVar[dict[str, int]] = {}

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    @classmethod
    def train(cls, texts, config):
        FakeTokenizer.calls["train"] += sum(1 for _ in texts)
        return cls(config.vocab_size)

    def encode(self, text):
        FakeTokenizer.calls["encode"] += 1
        return [self.vocab_size - 1 - ord(c) % (self.vocab_size - 2) for c in text]

    def decode(self, ids):
        return "".join(map(chr, ids))

    def save(self, folder):
        (folder / "fake.json").write_text(json.dumps(self.vocab_size))

    @classmethod
    def load(cls, folder):
        return cls(json.loads((folder / "fake.json").read_text()))


@pytest.fixture(autouse=True)
def _fresh(own_cache):
    FakeTokenizer.calls = {"train": 0, "encode": 0}


def run(texts, kind=FakeTokenizer, config=None, identity="fake 1", validation=None):
    """Tokenize as a new run does."""
    with workspace() as folder:
        corpus = gather(texts, folder, DataConfig(clean=False), validation=validation)
        tokenizer, stores = tokenize(corpus, kind, config or kind.Config(), identity, folder)
        return tokenizer, stores, {split: list(corpus.texts(split)) for split in SPLITS}


def visible():
    """Return the names in the cache folder."""
    return sorted(path.name for path in cache_folder().iterdir())


@pytest.mark.parametrize("kind", [FakeTokenizer, CharTokenizer])
def test_ids_are_the_tokenizers_framed(kind):
    tokenizer, stores, texts = run(TEXTS, kind)
    for split in SPLITS:
        expected = [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in texts[split]]
        found = list(stores[split].documents())
        assert [ids.tolist() for ids, _ in found] == expected
        assert [characters for _, characters in found] == [len(text) for text in texts[split]]
        assert stores[split].ids.tolist() == [token for ids in expected for token in ids]
        assert (len(stores[split]), stores[split].tokens) == (len(expected), sum(map(len, expected)))
        head = stores[split].head(60)
        assert 1 <= len(head) <= len(stores[split]) and (head.tokens <= 60 or len(head) == 1)
    assert texts["validation"] and texts["test"]


def test_the_tokenizer_is_trained_on_the_train_split_and_a_second_run_reads_the_cache():
    _, first, texts = run(TEXTS)
    before, names = {"train": len(texts["train"]), "encode": len(TEXTS)}, visible()
    assert FakeTokenizer.calls == before
    tokenizer, second, _ = run(iter(TEXTS))
    assert (FakeTokenizer.calls, visible(), tokenizer.vocab_size) == (before, names, 200)
    assert all(np.array_equal(first[split].ids, second[split].ids) for split in SPLITS)
    run(TEXTS[:-1])
    run(TEXTS, config=FakeConfig(vocab_size=300))
    run(TEXTS, identity="fake 2")
    run(TEXTS, CharTokenizer)
    assert len(visible()) == 5


def test_a_store_of_shards_is_their_concatenation(tmp_path):
    (home,) = (run(TEXTS, CharTokenizer)[1] and cache_folder()).iterdir()
    one, many = TokenStore(home, "train"), TokenStore([home, home, home], "train")
    assert len(many) == 3 * len(one) and many.tokens == 3 * one.tokens
    assert many.ids.tolist() == one.ids.tolist() * 3
    assert [ids.tolist() for ids, _ in many.documents()] == [ids.tolist() for ids, _ in one.documents()] * 3
    for part in (many, many.head(60), many.head(one.tokens), many.head(one.tokens + 60)):
        assert np.concatenate(list(part.blocks)).tolist() == many.ids[: part.offsets[-1]].tolist()
    many.release_pages()
    assert many.document(len(one)).tolist() == one.document(0).tolist()


def test_frame_texts_across_its_batches():
    texts = ["abc"[: number % 4] for number in range(2500)]
    framed = list(frame_texts(((text, (7,)) for text in texts), LETTERS))
    assert [ids.tolist() for ids, _ in framed] == [[0, 7, *LETTERS.encode(text), 1] for text in texts]
    assert [length for _, length in framed] == [len(text) for text in texts]


# What does not end well.


def test_a_writer_that_dies_leaves_nothing_visible(monkeypatch):
    encode = FakeTokenizer.encode
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(FakeTokenizer, "encode", lambda self, text: 1 / 0 if self.calls["encode"] == 50 else encode(self, text))
        run(TEXTS)
    assert visible() == []
    assert len(run(TEXTS)[1]["train"]) > 100


def test_an_incomplete_folder_is_written_again():
    expected = run(TEXTS)[1]["train"].ids.tolist()
    (home,) = cache_folder().iterdir()
    ids, manifest = home / "train.uint16", home / "store.json"
    for damage in (
        lambda: ids.write_bytes(ids.read_bytes()[:-2]),
        lambda: manifest.write_text(manifest.read_text()[:-1]),
        ids.unlink,
        manifest.unlink,
    ):
        damage()
        FakeTokenizer.calls["encode"] = 0
        assert run(TEXTS)[1]["train"].ids.tolist() == expected
        assert FakeTokenizer.calls["encode"] == len(TEXTS) and visible() == [home.name]


@contextlib.contextmanager
def largest_file(size):
    """Let no file be longer than a number of bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_error_at_every_stage():
    """The tokenizer's file fails first, then the ids, then the index."""
    texts = [f"{number:04d}" for number in range(2000)]
    for limit in (50, 5_000, 22_000, 25_000, None):
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(workspace())
            corpus = gather(texts, folder, DataConfig())
            if limit is not None:
                stack.enter_context(pytest.raises(StorageError, match=r"No room to write the token cache .*: File too large"))
                stack.enter_context(largest_file(limit))
            tokenize(corpus, CharTokenizer, CharTokenizer.Config(), "char", folder)
        assert len(visible()) == (limit is None)
    with workspace() as folder, pytest.raises(StorageError, match=r"No room to write .*texts\.jsonl"), largest_file(1000):
        gather(texts, folder, DataConfig())
