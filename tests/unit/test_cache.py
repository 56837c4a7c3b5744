"""The token cache: its files equal the tokenizer's output, appear complete or not at all, and are written once."""

import itertools
import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from reviewgen_char.tokenizer import CharTokenizer

from reviewgen.data import SPLITS, DataConfig, TokenStore, cache_folder, frame_texts, gather, tokenize, workspace
from reviewgen.data.store import write_split
from reviewgen.errors import DataError, StorageError
from reviewgen.novelty import build_index
from tests.support.forked import run_python

TEXTS = [f"review {number} " + "ä😀" * (number % 7) for number in range(120)]


@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    """The number of ids."""

    vocab_size: int = 200


class FakeTokenizer:
    """One id per character, its code point modulo the vocabulary; counts its calls."""

    Config = FakeConfig
    bos_id, eos_id = 0, 1
    calls: ClassVar[dict[str, int]] = {"train": 0, "encode": 0}

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    @classmethod
    def train(cls, texts, config):
        cls.calls["train"] += sum(1 for _ in texts)
        return cls(config.vocab_size)

    def encode(self, text):
        type(self).calls["encode"] += 1
        return [self.vocab_size - 1 - ord(c) % (self.vocab_size - 2) for c in text]

    def decode(self, ids):
        return "".join(map(chr, ids))

    def save(self, folder):
        (folder / "fake.json").write_text(json.dumps(self.vocab_size))

    @classmethod
    def load(cls, folder):
        return cls(json.loads((folder / "fake.json").read_text()))


@pytest.fixture(autouse=True)
def no_calls_yet():
    FakeTokenizer.calls = {"train": 0, "encode": 0}


def run(texts, kind=FakeTokenizer, config=None, identity="fake 1", clean=True):
    """Tokenize as a new run does."""
    with workspace() as folder:
        corpus = gather(texts, folder, DataConfig(clean=clean))
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
    assert texts["validation"] and texts["test"]


def test_the_tokenizer_is_trained_on_the_train_split_only():
    _, _, texts = run(TEXTS)
    assert FakeTokenizer.calls == {"train": len(texts["train"]), "encode": len(TEXTS)}


def test_a_second_run_reads_the_cache():
    _, first, _ = run(TEXTS)
    before, names = dict(FakeTokenizer.calls), visible()
    tokenizer, second, _ = run(iter(TEXTS))
    assert FakeTokenizer.calls == before
    assert visible() == names
    assert tokenizer.vocab_size == 200
    assert all(np.array_equal(first[split].ids, second[split].ids) for split in SPLITS)


def test_other_data_settings_or_identity_have_another_folder():
    run(TEXTS)
    run(TEXTS[:-1])
    run(TEXTS, config=FakeConfig(vocab_size=300))
    run(TEXTS, identity="fake 2")
    run(TEXTS, CharTokenizer)
    assert len(visible()) == 5


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32), (200_000, np.uint32)])
def test_the_width_of_an_id(vocab_size, dtype):
    tokenizer, stores, texts = run(["\0", "a", "b" * 9, "\U000f0000"], config=FakeConfig(vocab_size=vocab_size), clean=False)
    assert stores["train"].ids.dtype == dtype
    expected = [i for text in texts["train"] for i in [0, *tokenizer.encode(text), 1]]
    assert stores["train"].ids.tolist() == expected
    assert max(max(tokenizer.encode(text)) for text in ["\0"]) == vocab_size - 1


def test_the_files_are_memory_mapped_and_released_pages_come_back():
    _, stores, _ = run(TEXTS)
    ids = stores["train"].ids
    base = ids
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
    assert not ids.flags.writeable
    before = ids.copy()
    stores["train"].release_pages()
    assert np.array_equal(ids, before)


def test_empty_splits_and_empty_texts():
    _, stores, _ = run(["", ""], clean=False)
    assert [len(stores[split]) for split in SPLITS] == [2, 0, 0]
    assert [stores[split].tokens for split in SPLITS] == [4, 0, 0]
    assert list(stores["test"].documents()) == []
    assert stores["train"].ids.tolist() == [0, 1, 0, 1]
    stores["test"].release_pages()


class Killed(Exception):
    """Simulates the end of a process in the middle of its work."""


class Fragile(FakeTokenizer):
    """Dies in the middle of encoding."""

    def encode(self, text):
        if self.calls["encode"] == 50:
            raise Killed
        return super().encode(text)


def test_a_writer_that_dies_leaves_nothing_visible():
    with pytest.raises(Killed):
        run(TEXTS, Fragile)
    assert visible() == []
    assert len(run(TEXTS)[1]["train"]) > 100


def test_a_killed_process_leaves_only_a_temporary_folder_that_the_next_one_removes(tmp_path):
    script = """if True:
        import os
        from reviewgen_char.tokenizer import CharTokenizer
        from reviewgen.data import DataConfig, cache, gather, workspace
        cache._publish = lambda *_: os._exit(9)
        with workspace() as folder:
            corpus = gather(["a", "b", "c"], folder, DataConfig())
            cache.tokenize(corpus, CharTokenizer, CharTokenizer.Config(), "char", folder)
    """
    assert run_python(["-c", script]).returncode == 9
    (left,) = cache_folder().iterdir()
    assert left.name.startswith("tmp-")
    assert (left / "new" / "tokens").is_dir()
    with workspace() as folder:
        assert not left.exists()
        with workspace() as other:  # that of a process which is alive stays, however old
            assert folder.is_dir() and other.is_dir()
    assert visible() == []


@pytest.mark.parametrize("damage", ["a shorter file", "a missing file", "no manifest", "a torn manifest"])
def test_an_incomplete_folder_is_written_again(damage):
    _, stores, _ = run(TEXTS)
    expected = stores["train"].ids.tolist()
    (home,) = cache_folder().iterdir()
    ids, manifest = home / "train.uint16", home / "store.json"
    if damage == "a shorter file":
        ids.write_bytes(ids.read_bytes()[:-2])
    elif damage == "a torn manifest":
        manifest.write_text(manifest.read_text()[:-1])
    else:
        (ids if damage == "a missing file" else manifest).unlink()
    FakeTokenizer.calls = {"train": 0, "encode": 0}
    assert run(TEXTS)[1]["train"].ids.tolist() == expected
    assert FakeTokenizer.calls["encode"] == len(TEXTS)
    assert visible() == [home.name]


def test_two_runs_at_once_make_one_folder():
    with workspace() as one, workspace() as two:
        corpora = [gather(TEXTS, folder, DataConfig()) for folder in (one, two)]
        first = tokenize(corpora[0], FakeTokenizer, FakeConfig(), "x", one)[1]

        class Late(FakeTokenizer):
            """Trains while the other run is first to publish."""

            @classmethod
            def train(cls, texts, config):
                hidden.rename(home)
                return super().train(texts, config)

        (home,) = (path for path in cache_folder().iterdir() if not path.name.startswith("tmp-"))
        hidden = cache_folder() / "hidden"
        home.rename(hidden)
        second = tokenize(corpora[1], Late, FakeConfig(), "x", two)[1]
    assert visible() == [home.name]
    assert all(np.array_equal(first[split].ids, second[split].ids) for split in SPLITS)


def test_a_workspace_is_removed_whatever_happens():
    with pytest.raises(Killed), workspace() as folder:
        (folder / "file").write_text("x")
        raise Killed
    assert visible() == []


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_cache_folder_that_cannot_be_created(tmp_path, monkeypatch, path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path / path))
    with pytest.raises(StorageError, match=r"^the cache folder .*REVIEWGEN_CACHE.* cannot be written.*\.$"), workspace():
        pass


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("REVIEWGEN_CACHE", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("REVIEWGEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/reviewgen")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "reviewgen"


def test_a_full_disk_is_one_error_at_every_stage():
    """A limit on file size simulates a full disk: at 100 bytes the tokenizer's file fails, then the ids, then the index."""
    script = """if True:
        import resource
        from reviewgen_char.tokenizer import CharTokenizer
        from reviewgen.data import DataConfig, cache_folder, gather, tokenize, workspace
        from reviewgen.errors import DataError, StorageError
        for limit in (50, 5_000, 22_000, 25_000, 60_000):
            try:
                with workspace() as folder:
                    corpus = gather((f"{number:04d}" for number in range(2000)), folder, DataConfig())
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                    tokenize(corpus, CharTokenizer, CharTokenizer.Config(), "char", folder)
                    print("written")
            except StorageError as error:
                print(str(error).count("No room to write the token cache"), str(error).count("File too large"))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert len(list(cache_folder().iterdir())) == (limit == 60_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try:
            with workspace() as folder:
                gather((f"{number:04d}" for number in range(2000)), folder, DataConfig())
        except StorageError as error:
            print("spool", "texts.jsonl" in str(error))
    """
    done = run_python(["-c", script])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 1"] * 4 + ["written", "spool True"]


def test_frame_texts_across_its_batches():
    tokenizer = CharTokenizer("abc")
    texts = ["abc"[: number % 4] for number in range(2500)]
    framed = list(frame_texts(((text, ()) for text in texts), tokenizer))
    assert [ids.tolist() for ids, _ in framed] == [[0, *tokenizer.encode(text), 1] for text in texts]
    assert [length for _, length in framed] == [len(text) for text in texts]


def test_blocks_are_whole_texts_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr("reviewgen.data.store._BLOCK_TOKENS", 10)
    texts = ["abc"[: number % 4] for number in range(50)] + ["abcabcabcabc", "a"]
    made = write_split(texts, CharTokenizer("abc"), tmp_path, "train", 100)
    for _ in range(2):
        blocks = [block.tolist() for block in made.blocks]
        assert [i for block in blocks for i in block] == made.ids.tolist()
        assert all(block[0] == 0 and block[-1] == 1 and (len(block) <= 10 or block.count(0) == 1) for block in blocks)
        assert all(len(first) + len(second) > 5 for first, second in itertools.pairwise(blocks))
    assert list(write_split([], CharTokenizer("abc"), tmp_path, "test", 100).blocks) == []


@pytest.mark.parametrize("form", ["compact", "exact"])
def test_an_index_of_blocks_equals_the_index_of_all_ids(tmp_path, monkeypatch, form):
    monkeypatch.setattr("reviewgen.data.store._BLOCK_TOKENS", 50)
    made = write_split(
        [text * 3 for text in TEXTS], CharTokenizer("".join(sorted(set("review 0123456789")))), tmp_path, "train", 100
    )
    facts = {"bos_id": 0, "eos_id": 1, "vocab_size": 100, "characters": 1000, "fingerprint": "", "form": form}
    whole, blocks = build_index(made.ids, **facts), build_index(made.blocks, **facts)
    if form == "exact":
        assert np.array_equal(whole.ids, blocks.ids) and np.array_equal(whole.suffixes, blocks.suffixes)
    else:
        assert all(np.array_equal(one.bits, other.bits) for one, other in zip(whole.sets, blocks.sets, strict=True))
        assert any(one.bits.any() for one in whole.sets)


def test_a_store_by_itself(tmp_path):
    made = write_split(["ab", "c"], CharTokenizer("abc"), tmp_path, "train", 100)
    again = TokenStore(tmp_path, "train")
    assert made.ids.tolist() == again.ids.tolist() == [0, 18, 19, 1, 0, 20, 1]
    assert again.document(1).tolist() == [0, 20, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.index.npy", "train.uint16"]


@pytest.mark.parametrize("vocab_size", [10, 1 << 16, 70_000])
@pytest.mark.parametrize("wrong", [-1, 0, 65_541, (1 << 32) + 3])
@pytest.mark.parametrize("kind", [list, np.array])
def test_an_id_outside_the_vocabulary_is_not_written(vocab_size, wrong, kind, tmp_path, monkeypatch):
    tokenizer = FakeTokenizer(vocab_size)
    wrong = vocab_size + wrong if 0 <= wrong < vocab_size else wrong
    monkeypatch.setattr(tokenizer, "encode", lambda text: kind([2, wrong] if text == "b" else [3]), raising=False)
    with pytest.raises(DataError, match=f"The tokenizer gives the id {wrong}; its vocabulary has 0 to {vocab_size - 1}."):
        write_split(["a", "b"], tokenizer, tmp_path, "train", vocab_size)
    assert write_split(["a", ""], tokenizer, tmp_path, "train", vocab_size).ids.tolist() == [0, 3, 1, 0, 3, 1]
