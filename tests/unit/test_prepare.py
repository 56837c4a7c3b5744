"""``reviewgen prepare``: a store gives the training that its source gives, is finished atomically, and is checked before use."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import reviewgen
from reviewgen import storage
from reviewgen.data import remote, spans
from reviewgen.errors import CheckpointError, ConfigError, DataError, OutputExists
from reviewgen.novelty import copied_spans
from reviewgen.preparation import duplicates, job, reading
from tests.support.fakes import TEXTS, run_command

SMALL = {
    "steps": 6,
    "model": {"hidden_size": 12, "embedding_size": 6, "layer": "fused"},
    "training": {"batch_size": 4, "bptt": 16, "evaluations": 2, "threads": 1, "precision": "no"},
}


def texts(count: int, seed: int = 0) -> list[str]:
    """Return reviews, of which some are equal and some are long."""
    draw = random.Random(seed)
    words = sorted({word for text in TEXTS for word in text.split()})
    made = [" ".join(draw.choices(words, k=draw.randrange(3, 30))) for _ in range(count)]
    return [*made, *draw.choices(made, k=count // 10)]


def facts_of(model) -> dict:
    """Return the record of a training, without its times."""
    names = ("data", "evaluations", "held_out", "novelty", "steps", "tokens_seen", "config")
    facts = json.loads(json.dumps({name: model.training[name] for name in names}))
    for evaluation in facts["evaluations"]:
        del evaluation["seconds"]
    return facts


def write_csv(file: Path, rows: list[str]) -> None:
    file.write_text("stars,review\n" + "".join(f'{len(row) % 5 + 1},"{row}"\n' for row in rows), encoding="utf-8")


def files_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def small_parts(monkeypatch):
    """Cut small files into parts."""
    monkeypatch.setattr(spans, "_MIN_BYTES", 1)
    monkeypatch.setattr(reading, "_PART_BYTES", 1 << 12)
    monkeypatch.setattr(reading, "_STREAM_CHARACTERS", 1 << 12)
    monkeypatch.setattr(duplicates, "_BUCKET_TEXTS", 50)


def make(kind: str, folder: Path):
    """Return a source, a second for validation if it has one, and the options that read them."""
    rows = texts(200)
    if kind == "csv":
        for number in range(3):
            write_csv(folder / f"{number}.csv", rows[number * 70 : number * 70 + 80])
        return str(folder / "*.csv"), {"conditions": ["stars"]}
    if kind == "parquet":
        table = pa.table({"text": rows, "stars": [len(row) % 5 for row in rows]})
        pq.write_table(table, folder / "a.parquet", row_group_size=20, compression="none")
        return str(folder / "a.parquet"), {"conditions": ["stars"]}
    (folder / "a.txt").write_text("\n".join(rows), encoding="utf-8")
    if kind == "validation":
        (folder / "b.txt").write_text("\n".join([*texts(30, 5), *rows[:3]]), encoding="utf-8")
        return str(folder / "a.txt"), {"validation": str(folder / "b.txt"), "lowercase": True}
    if kind == "one long text":
        return str(folder / "a.txt"), {"documents": "file"}
    return (rows, {"clean": False}) if kind == "list" else (str(folder / "a.txt"), {})


@pytest.mark.parametrize("kind", ["csv", "parquet", "txt", "validation", "one long text", "list"])
def test_a_training_from_a_store_is_that_from_its_source(kind, tmp_path, small_parts):
    source, options = make(kind, tmp_path)
    store = reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
    assert not (tmp_path / "store.partial").exists()
    one = reviewgen.train("gru-char", source, progress=False, **SMALL, **options)
    two = reviewgen.train("gru-char", store.folder, progress=False, **SMALL)
    assert facts_of(one) == facts_of(two)
    assert one.generate_one(do_sample=False, words="any") == two.generate_one(do_sample=False, words="any")
    one.save_pretrained(tmp_path / "one")
    two.save_pretrained(tmp_path / "two")
    first, second = (reviewgen.load(tmp_path / name) for name in ("one", "two"))
    assert first.digest == second.digest is not None
    assert (tmp_path / "one/novelty.safetensors").read_bytes() == (tmp_path / "two/novelty.safetensors").read_bytes()
    if kind in ("csv", "parquet", "txt"):
        assert len(store.content["shards"]) > 2


def test_a_store_of_another_tokenizer_or_reading_is_refused(tmp_path):
    source, options = make("csv", tmp_path)
    store = tmp_path / "store"
    reviewgen.prepare(source, preset="gru-char", out=store, **options)
    for problem, start, others in (
        ("was prepared for gru-char, with the tokenizer char; ngram-word has word", "ngram-word", {}),
        ("prepared with lowercase=False, not True", "ngram-char", {"lowercase": True}),
        ("leave validation out", "ngram-char", {"validation": source}),
    ):
        with pytest.raises(ConfigError, match=problem):
            reviewgen.train(start, store, **others)
    with pytest.raises(ConfigError, match="is a token store already"):
        reviewgen.prepare(str(store), preset="gru-char", out=tmp_path / "again")
    assert reviewgen.train("ngram-char", str(store), progress=False).training["data"]["source"] == source


def test_a_store_of_other_tokenizer_settings_is_refused(tmp_path):
    few = {"tokenizer": {"vocab_size": 300}}
    reviewgen.prepare(texts(50), preset="ngram-word", out=tmp_path / "store", **few)
    with pytest.raises(ConfigError, match=r"tokenizer.vocab_size=300; this training has \d+"):
        reviewgen.train("ngram-word", tmp_path / "store")
    model = reviewgen.train("gru-word", tmp_path / "store", progress=False, **few, **SMALL)
    assert model.tokenizer.vocab_size <= 300
    further = {"steps": 2, "training": {"evaluations": 1}, "progress": False}
    reviewgen.train(model, tmp_path / "store", **further)  # it has the model's tokenizer
    other = reviewgen.train("gru-word", texts(80, 3), progress=False, **few, **SMALL)
    with pytest.raises(ConfigError, match="its tokenizer differ"):
        reviewgen.train(other, tmp_path / "store", **further)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("newer", "newer version"),
        ("torn", "is damaged"),
        ("missing", "has no shards/00000"),
        ("shorter", "has changed of shards"),
    ],
)
def test_a_damaged_or_newer_store_is_refused(damage, problem, tmp_path):
    store = reviewgen.prepare(texts(50), preset="gru-char", out=tmp_path / "store").folder
    file, shard = store / "store.json", store / "shards/00000/train.uint16"
    if damage == "newer":
        file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 2}))
    elif damage == "torn":
        file.write_text(file.read_text()[:-30])
    elif damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(DataError, match=problem):
        reviewgen.train("gru-char", store)


def test_the_same_command_goes_on_from_the_finished_parts(tmp_path, small_parts, monkeypatch):
    source, options = make("csv", tmp_path)
    reviewgen.prepare(source, preset="gru-char", out=tmp_path / "whole", **options)
    made, write_new, tries = [], storage.write_new, 0

    def write(path, write, later):
        later = later or (lambda finish: finish())
        if path.exists():
            return
        if len(made) >= 2 * tries:
            raise SystemExit(9)
        write_new(path, write, lambda finish: later(lambda: (finish(), made.append(path))))  # once it has its name

    monkeypatch.setattr("reviewgen.partial.write_new", write)
    while not (tmp_path / "store").exists():
        tries += 1
        if tries == 8:
            (tmp_path / "store.partial/store/shards/.00000.1").mkdir()  # of a process that was killed
        with contextlib.suppress(SystemExit):
            reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
        if tries == 3:
            with pytest.raises(DataError, match="is not finished"):
                reviewgen.train("gru-char", tmp_path / "store.partial")
    assert tries > 5 and len(set(made)) == len(made)  # nothing was made twice
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole") and not (tmp_path / "store.partial").exists()


def test_an_unfinished_store_of_other_texts_or_settings_is_not_continued(tmp_path, monkeypatch):
    source, options = make("csv", tmp_path)
    out = tmp_path / "store"
    monkeypatch.setattr("reviewgen.preparation.run.encode_parts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reviewgen.prepare(source, preset="gru-char", out=out, **options)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="reading differ"):
        reviewgen.prepare(source, preset="gru-char", out=out, lowercase=True, **options)
    write_csv(tmp_path / "1.csv", texts(3))
    with pytest.raises(CheckpointError, match="texts differ"):
        reviewgen.prepare(source, preset="gru-char", out=out, **options)
    shutil.rmtree(tmp_path / "store.partial")
    reviewgen.prepare(source, preset="gru-char", out=out, **options)
    with pytest.raises(OutputExists):
        reviewgen.prepare(source, preset="lstm-char", out=out, **options)


def test_the_same_job_is_complete_already_and_another_is_not(tmp_path):
    source, options = make("txt", tmp_path)
    made = reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
    before = files_of(tmp_path / "store")
    assert reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options).content == made.content
    for other in ({"lowercase": True}, {"preset": "gru-word"}, {"near_duplicates": 0.9}, {"source": texts(200)}):
        with pytest.raises(OutputExists):
            reviewgen.prepare(**{"source": source, "preset": "gru-char", "out": tmp_path / "store", **options, **other})
    reviewgen.prepare(texts(200), preset="gru-char", out=tmp_path / "list")
    with pytest.raises(OutputExists):  # a list may have changed
        reviewgen.prepare(texts(200), preset="gru-char", out=tmp_path / "list")
    next((tmp_path / "store/shards").rglob("train.uint16")).unlink()
    with pytest.raises(OutputExists):  # it is not complete any more
        reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
    assert before.keys() - files_of(tmp_path / "store").keys() and not (tmp_path / "store.partial").exists()


def test_the_same_bytes_in_a_file_of_another_type_are_other_texts(tmp_path, monkeypatch):
    write_csv(tmp_path / "rows.csv", texts(60))
    shutil.copy(tmp_path / "rows.csv", tmp_path / "rows.txt")
    out = tmp_path / "store"
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("reviewgen.preparation.run.encode_parts", lambda *_: 1 / 0)
        reviewgen.prepare(tmp_path / "rows.txt", preset="gru-char", out=out)
    with pytest.raises(CheckpointError, match="texts differ"):
        reviewgen.prepare(tmp_path / "rows.csv", preset="gru-char", out=out)


def test_an_unfinished_store_of_files_is_not_removed_for_a_list(tmp_path, monkeypatch):
    source, options = make("txt", tmp_path)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("reviewgen.preparation.run.encode_parts", lambda *_: 1 / 0)
        reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
    before = files_of(tmp_path / "store.partial/texts")
    with pytest.raises(CheckpointError, match="texts differ"):
        reviewgen.prepare(texts(200), preset="gru-char", out=tmp_path / "store", **options)
    assert files_of(tmp_path / "store.partial/texts") == before


def test_what_a_process_has_left_that_was_killed_after_it_had_published(tmp_path, monkeypatch):
    source, options = make("txt", tmp_path)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("reviewgen.partial.PartialFolder.remove", lambda _: 1 / 0)
        reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
    assert (tmp_path / "store.partial").exists()
    reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)  # it is complete already
    assert not (tmp_path / "store.partial").exists()


def test_all_of_a_store_is_forced_to_disk_before_it_gets_its_name(tmp_path, small_parts, monkeypatch):
    source, options = make("csv", tmp_path)
    forced, publish = set(), job.publish
    monkeypatch.setattr(os, "fsync", lambda handle: forced.add(os.fstat(handle).st_ino))

    def publish_forced(store, out, **how):
        paths = [store, *store.rglob("*")]
        assert len(paths) > 20 and {path.stat().st_ino for path in paths} <= forced
        publish(store, out, **how)

    monkeypatch.setattr(job, "publish", publish_forced)
    reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
    assert (tmp_path / "store/store.json").exists()


@pytest.mark.parametrize("place", ["thesis.txt", "shards/mine", "link"])
def test_what_is_put_into_an_unfinished_store_is_not_published(place, tmp_path, monkeypatch):
    source, options = make("csv", tmp_path)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(job, "publish", lambda *_, **__: 1 / 0)
        reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
    other = tmp_path / "store.partial/store" / place
    other.symlink_to(tmp_path / "1.csv") if place == "link" else other.write_text("mine")
    with pytest.raises(OutputExists, match="is not of the store that is made there"):
        reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
    assert other.exists() and not (tmp_path / "store").exists()
    other.unlink()
    reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)


def test_duplicates_across_parts_are_those_of_a_set(tmp_path, small_parts):
    rows = texts(300)
    (tmp_path / "a.txt").write_text("\n".join(rows), encoding="utf-8")
    store = reviewgen.prepare(str(tmp_path / "a.txt"), preset="gru-char", out=tmp_path / "store")
    report = store.facts["corpus"]["source"]["cleaning"]
    assert (report["read"], report["kept"], report["duplicates"]) == (len(rows), len(set(rows)), len(rows) - len(set(rows)))
    assert sum(store.facts["corpus"]["texts"].values()) == len(set(rows))


def decoded(store, split: str) -> list[str]:
    from reviewgen_char.tokenizer import CharTokenizer

    tokenizer = CharTokenizer.load(store.folder / "tokenizer")
    return [tokenizer.decode(ids.tolist()) for ids, _ in store.splits()[split].documents()]


def jaccard(one: str, other: str) -> float:
    """Return the similarity of the word trigrams of two texts, by its definition."""
    first, second = ({tuple(words[n : n + 3]) for n in range(max(1, len(words) - 2))} for words in (one.split(), other.split()))
    return len(first & second) / len(first | second)


def test_near_duplicates_are_left_out(tmp_path, small_parts):
    pytest.importorskip("rensa", reason="the extra near-duplicates")
    draw = random.Random(3)
    vocabulary = [f"{a}{b}" for a in "abcdefgh" for b in "aeiouxyz"]
    originals = [" ".join(draw.choices(vocabulary, k=60)) for _ in range(60)]
    copies = [" ".join([*text.split()[:58], "another", "end"]) for text in originals[:20]]  # 56 of 60 trigrams: 0.93
    other = [" ".join(text.split()[:30] + draw.choices(vocabulary, k=30)) for text in originals[20:40]]  # about 0.3
    rows = [*originals, *copies, *other]
    store = reviewgen.prepare(rows, preset="gru-char", out=tmp_path / "store", near_duplicates=0.8)
    kept = [text for split in ("train", "validation", "test") for text in decoded(store, split)]
    assert min(jaccard(a, b) for a, b in zip(originals[:20], copies, strict=True)) > 0.88
    assert max(jaccard(a, b) for a, b in zip(originals[20:40], other, strict=True)) < 0.5
    assert sorted(kept) == sorted([*originals, *other])
    assert store.facts["corpus"]["source"]["cleaning"]["near_duplicates"] == 20
    with pytest.raises(ConfigError, match="a similarity from"):
        reviewgen.prepare(rows, preset="gru-char", out=tmp_path / "no", near_duplicates=80)


def test_held_out_texts_that_share_runs_with_training_texts(tmp_path, small_parts):
    draw = random.Random(4)
    run = "this long sentence stands in a number of reviews, word by word. "
    rows = ["".join(draw.choices("abcdefgh ", k=80)) + (run if number % 7 == 0 else "") for number in range(400)]
    plain = reviewgen.prepare(rows, preset="gru-char", out=tmp_path / "plain")
    training = decoded(plain, "train")
    held_out = [*decoded(plain, "validation"), *decoded(plain, "test")]
    leaking = [
        text for text in held_out if any(text[at : at + 50] in other for other in training for at in range(len(text) - 49))
    ]
    assert leaking and all(run[:40] in text for text in leaking)
    assert f"Of {len(held_out)} held-out texts, {len(leaking)} share a run" in plain.facts["notes"][0]
    clean = reviewgen.prepare(rows, preset="gru-char", out=tmp_path / "clean", decontaminate=50)
    left = [*decoded(clean, "validation"), *decoded(clean, "test")]
    assert sorted(left) == sorted(set(held_out) - set(leaking)) and decoded(clean, "train") == training
    assert not any(copied_spans(left, training, 50))
    assert clean.facts["corpus"]["source"]["cleaning"]["leaking"] == len(leaking)
    with pytest.raises(ConfigError, match="at least 20"):
        reviewgen.prepare(rows, preset="gru-char", out=tmp_path / "no", decontaminate=5)


def test_leaks_are_looked_for_in_a_sample_of_all_parts(tmp_path, small_parts, monkeypatch):
    monkeypatch.setattr("reviewgen.preparation.leaks._SAMPLE_CHARACTERS", 1000)
    draw = random.Random(4)
    run = "this long sentence stands in a number of reviews, word by word. "
    rows = ["".join(draw.choices("abcdefgh ", k=80)) + (run if number > 300 else "") for number in range(400)]
    (tmp_path / "rows.txt").write_text("\n".join(rows), encoding="utf-8")
    (note,) = reviewgen.prepare(tmp_path / "rows.txt", preset="gru-char", out=tmp_path / "store").facts["notes"]
    checked, leaking = re.match(r"Of a sample of (\d+) of \d+ held-out texts, (\d+) share", note).groups()
    assert 9 <= int(checked) < 30 and int(leaking) >= 2


def test_urls(tmp_path, small_parts):
    """From memory:// to memory://: the store is fetched once, each file checked against its digest."""
    import fsspec

    memory = fsspec.filesystem("memory")
    source, options = make("csv", tmp_path)
    for number in range(3):
        memory.pipe(f"/in/{number}.csv", (tmp_path / f"{number}.csv").read_bytes())
    local = reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
    made = reviewgen.prepare("memory://in/*.csv", preset="gru-char", out="memory://out/store", **options)
    assert made.facts["corpus"]["fingerprint"] == local.facts["corpus"]["fingerprint"]
    expected = files_of(local.folder)
    stored = {name.removeprefix("/out/store/"): memory.cat(name) for name in memory.find("/out/store")}
    for name in expected.keys() - {"store.json", "novelty.safetensors"}:
        assert hashlib.sha256(stored[name]).hexdigest() == expected[name], name
    assert stored.keys() == expected.keys()
    again = reviewgen.prepare("memory://in/*.csv", preset="gru-char", out="memory://out/store", **options)
    assert again.content == made.content
    with pytest.raises(DataError, match="is a token store already"):
        reviewgen.prepare("memory://in/*.csv", preset="gru-word", out="memory://out/store", **options)
    shutil.rmtree(remote.locate_store("memory://out/store").folder)  # as on another machine
    one = reviewgen.train("gru-char", "memory://out/store", progress=False, **SMALL)
    two = reviewgen.train("gru-char", local.folder, progress=False, **SMALL)
    assert one.training["data"]["source"] == "memory://in/*.csv"
    one.training["data"]["source"] = source
    assert facts_of(one) == facts_of(two)
    memory.delete("/out/store/shards", recursive=True)
    reviewgen.train("gru-char", "memory://out/store", progress=False, **SMALL)  # it was fetched before
    shutil.rmtree(remote.locate_store("memory://out/store").folder)
    memory.pipe({f"/out/store/{name}": content[:-1] + b"x" for name, content in stored.items() if name != "store.json"})
    with pytest.raises(DataError, match="differs from its digest"):
        reviewgen.train("gru-char", "memory://out/store")
    with pytest.raises(DataError, match="No file at"):
        reviewgen.train("gru-char", "memory://in/none.csv")
    with pytest.raises(DataError, match="cannot be reached"):
        reviewgen.train("gru-char", "nosuchscheme://in/none.csv")


def test_a_repository_without_a_folder_is_no_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="write hf://datasets/owner/name/folder"):
        reviewgen.prepare(texts(60), preset="gru-char", out="hf://owner/name")
    assert not any(tmp_path.iterdir())


def test_the_command(tmp_path, monkeypatch, capsys):
    source, _ = make("csv", tmp_path)
    words = ["prepare", source, "--preset", "gru-char", "--out", str(tmp_path / "store"), "--condition", "stars", "--json"]
    status, output, problem = run_command(monkeypatch, capsys, *words)
    facts = json.loads(output)
    assert (status, facts["preset"]) == (0, "gru-char"), problem
    assert facts["tokens"]["train"] == reviewgen.runs.prepared.find_store(tmp_path / "store").splits()["train"].tokens
    status, output, problem = run_command(monkeypatch, capsys, *words)
    assert status == 0 and "store is complete already: the same job has made it." in problem
    assert json.loads(output) == facts
    status, _, problem = run_command(monkeypatch, capsys, *words, "--lowercase")
    assert status == 1 and "already exists" in problem
    status, _, problem = run_command(monkeypatch, capsys, *words[:-1], "--set", "model.hidden_size=3")
    assert status == 2 and "reviewgen train" in problem


def test_every_text_counts_once(tmp_path, small_parts):
    source, _ = make("txt", tmp_path)
    store = reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store")
    rows = set(texts(200))
    made = [text for split in ("train", "validation", "test") for text in decoded(store, split)]
    assert sorted(made) == sorted(rows) and np.all(store.splits()["train"].lengths > 2)


def test_no_source(tmp_path):
    with pytest.raises(DataError, match="A source of texts is a path, a name or an iterable of strings; got NoneType"):
        reviewgen.prepare(None, preset="gru-char", out=tmp_path / "store")
    assert not list(tmp_path.glob("store*"))
