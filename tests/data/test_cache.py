"""The token cache: its files equal the tokenizer's output, appear complete or not at all, and are
written once.
"""

import json
import os
from collections import Counter
from itertools import chain
from typing import ClassVar

import numpy as np
import pytest

from reviewgen.data.open import SPLITS
from reviewgen.data.stage import cache_folder, prune_cache
from reviewgen.data.tokens import Tokens
from reviewgen.errors import StorageError
from reviewgen.lexicon.words import words_of
from reviewgen.registry.plugins import find_tokenizer
from tests.support.disks import largest_file
from tests.support.fakes import FakeConfig, LetterTokenizer
from tests.support.texts import tokenized

TEXTS = [f"review {number} " + "ä😀" * (number % 7) for number in range(120)]
CharTokenizer, _ = find_tokenizer("char")


class FakeTokenizer(LetterTokenizer):
    """Counts its calls."""

    calls: ClassVar[dict[str, int]] = {}

    @classmethod
    def train(cls, texts, config):
        texts = list(texts)
        FakeTokenizer.calls["train"] += len(texts)
        return super().train(texts, config)

    def encode(self, text):
        FakeTokenizer.calls["encode"] += 1
        return super().encode(text)


@pytest.fixture(autouse=True)
def _fresh(own_cache):
    FakeTokenizer.calls = {"train": 0, "encode": 0}


def run(texts, kind=FakeTokenizer, config=None, name="fake", validation=None):
    """Tokenize as a new run does."""
    tokenizer, _, stores, corpus = tokenized(
        texts, kind, config, name=name, validation=validation, clean=False
    )
    return tokenizer, stores, {split: list(corpus.texts(split)) for split in SPLITS}


def visible(kind="*"):
    """Return the names in the cache folder."""
    return sorted(path.name for path in cache_folder().glob(kind))


@pytest.mark.parametrize("kind", [FakeTokenizer, CharTokenizer])
def test_ids_are_the_tokenizers_framed(kind):
    tokenizer, stores, texts = run(TEXTS, kind)
    assert texts["validation"] and texts["test"]
    for split in SPLITS:
        expected = [
            [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in texts[split]
        ]
        found = list(stores[split].documents())
        assert [ids.tolist() for ids, _ in found] == expected
        assert [characters for _, characters in found] == [len(text) for text in texts[split]]
        assert stores[split].ids.tolist() == list(chain.from_iterable(expected))
        assert (len(stores[split]), stores[split].count) == (
            len(expected),
            sum(map(len, expected)),
        )


def test_the_head_of_a_store_has_its_first_tokens():
    for store in run(TEXTS)[1].values():
        head = store.head(60)
        assert 1 <= len(head) <= len(store) and (head.count <= 60 or len(head) == 1)


@pytest.mark.parametrize("kind", [FakeTokenizer, CharTokenizer])
def test_words_are_counted_as_the_tokenizer_spells_them(kind):
    tokenizer, stores, _ = run(TEXTS, kind)
    spelled = (tokenizer.decode(ids.tolist()) for ids, _ in stores["train"].documents())
    words = Counter(chain.from_iterable(map(words_of, spelled)))
    [file] = cache_folder().glob("encode-*/words.json")
    assert json.loads(file.read_text())["words"] == words


def test_the_tokenizer_is_trained_on_the_train_split_and_a_second_run_reads_the_cache():
    trained, first, texts = run(TEXTS)
    before = dict(FakeTokenizer.calls)
    names = visible("encode-*")
    assert before["train"] == len(texts["train"]) and before["encode"] >= len(TEXTS)
    tokenizer, second, _ = run(iter(TEXTS))
    assert (FakeTokenizer.calls, visible("encode-*"), tokenizer.characters) == (
        before,
        names,
        trained.characters,
    )
    assert all(np.array_equal(first[split].ids, second[split].ids) for split in SPLITS)
    run(TEXTS[:-1])
    run(TEXTS, config=FakeConfig(vocab_size=300))
    run(TEXTS, name="other")
    run(TEXTS, CharTokenizer)
    assert len(visible("encode-*")) == 5


def test_a_store_of_shards_is_their_concatenation(tmp_path):
    (home,) = (run(TEXTS, CharTokenizer)[1] and cache_folder()).glob("encode-*/shards/00000")
    one = Tokens(home, "train")
    many = Tokens([home, home, home], "train")
    assert len(many) == 3 * len(one) and many.count == 3 * one.count
    assert many.ids.tolist() == one.ids.tolist() * 3
    assert [ids.tolist() for ids, _ in many.documents()] == [
        ids.tolist() for ids, _ in one.documents()
    ] * 3
    for part in (many, many.head(60), many.head(one.count), many.head(one.count + 60)):
        assert np.concatenate(list(part.blocks)).tolist() == many.ids[: part.offsets[-1]].tolist()
    many.release_pages()
    assert many.document(len(one)).tolist() == one.document(0).tolist()


# What does not end well.


def test_an_incomplete_folder_is_written_again():
    expected = run(TEXTS)[1]["train"].ids.tolist()
    (home,) = cache_folder().glob("encode-*")
    ids = home / "shards/00000/train.uint16"
    index = home / "shards/00000/train.index.npy"
    manifest = home / "stage.json"
    for damage in (
        lambda: ids.write_bytes(ids.read_bytes()[:-2]),
        lambda: index.write_bytes(index.read_bytes()[:20]),
        lambda: manifest.write_text(manifest.read_text()[:-1]),
        ids.unlink,
        manifest.unlink,
        (home / "tokenizer/letters.txt").unlink,
    ):
        damage()
        FakeTokenizer.calls["encode"] = 0
        assert run(TEXTS)[1]["train"].ids.tolist() == expected
        assert FakeTokenizer.calls["encode"] >= len(TEXTS) and visible("encode-*") == [home.name]


def test_a_full_disk_is_one_error_at_every_stage():
    texts = [f"{number:04d}" for number in range(2000)]
    for limit in (50, 5_000, 15_000):
        with pytest.raises(StorageError, match="File too large"), largest_file(limit):
            tokenized(texts, CharTokenizer)
    tokenized(texts, CharTokenizer)
    assert not visible("*.partial") and not visible("tmp-*")


def test_what_was_not_used_for_longest_is_removed_first(monkeypatch):
    for number in range(3):
        run([f"{text} {number}" for text in TEXTS])
    folders = sorted(cache_folder().iterdir())
    for age, folder in enumerate(folders):
        os.utime(folder, (1e9 - age, 1e9 - age))
    sizes = [
        sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for folder in folders
    ]
    prune_cache(sum(sizes[:4]))
    assert visible() == [folder.name for folder in folders[:4]]
    run(TEXTS)  # what was just used stays
    prune_cache(0)
    assert [name.partition("-")[0] for name in visible()] == ["clean", "encode", "split"]
