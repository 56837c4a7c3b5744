"""``reviewgen prepare``: a store gives the training that its source gives, is finished atomically,
and is checked before use.
"""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import reviewgen
from reviewgen.errors import CheckpointError, ConfigError, DataError, OutputExists
from reviewgen.novelty import TextWindows
from reviewgen.registry.plugins import find_tokenizer
from tests.support.disks import interrupt, listing
from tests.support.fakes import TEXTS
from tests.support.models import SMALL

TRAINING: dict[str, Any] = SMALL | {
    "training": {**SMALL["training"], "threads": 1, "precision": "no", "bptt": 16}
}
Source = tuple[Any, dict[str, Any]]


def texts(count: int, seed: int = 0) -> list[str]:
    """Return reviews, of which a tenth are equal to others."""
    draw = random.Random(seed)
    words = sorted(set(" ".join(TEXTS).split()))
    made = [" ".join(draw.choices(words, k=draw.randrange(3, 30))) for _ in range(count)]
    return [*made, *draw.choices(made, k=count // 10)]


def make(kind: str, folder: Path) -> Source:
    """Write a source of a kind; return it and the options that read it."""
    rows = texts(90)
    if kind == "csv":
        for number in range(3):
            lines = "".join(f'{len(row) % 5 + 1},"{row}"\n' for row in rows[number::3])
            (folder / f"{number}.csv").write_text(f"stars,review\n{lines}", encoding="utf-8")
        return str(folder / "*.csv"), {"conditions": ["stars"]}
    if kind == "parquet":
        table = pa.table({"text": rows, "stars": [len(row) % 5 for row in rows]})
        pq.write_table(table, folder / "a.parquet", row_group_size=20)
        return str(folder / "a.parquet"), {"conditions": ["stars"]}
    (folder / "a.txt").write_text("\n".join(rows), encoding="utf-8")
    if kind == "validation":
        (folder / "b.txt").write_text("\n".join([*texts(30, 5), *rows[:3]]), encoding="utf-8")
        return str(folder / "a.txt"), {"validation": str(folder / "b.txt"), "lowercase": True}
    if kind == "one long text":
        return str(folder / "a.txt"), {"documents": "file"}
    return (rows, {"clean": False}) if kind == "list" else (str(folder / "a.txt"), {})


def facts_of(model: reviewgen.ReviewModel) -> dict[str, Any]:
    """Return the record of a training, without its times."""
    names = ("data", "evaluations", "held_out", "novelty", "steps", "tokens_seen", "config")
    facts: dict[str, Any] = json.loads(json.dumps({name: model.training[name] for name in names}))
    for evaluation in facts["evaluations"]:
        del evaluation["seconds"]
    return facts


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet", "txt", "validation", "one long text", "list"])
def test_a_training_from_a_store_is_that_from_its_source(kind, tmp_path):
    source, options = make(kind, tmp_path)
    store = reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
    one = reviewgen.train("gru-char", source, progress=False, **TRAINING, **options)
    two = reviewgen.train("gru-char", store.folder, progress=False, **TRAINING)
    assert facts_of(one) == facts_of(two)
    for name, model in (("one", one), ("two", two)):
        model.save_pretrained(tmp_path / name)
    assert (
        reviewgen.load(tmp_path / "one").digest
        == reviewgen.load(tmp_path / "two").digest
        is not None
    )
    assert (tmp_path / "one/novelty.safetensors").read_bytes() == (
        tmp_path / "two/novelty.safetensors"
    ).read_bytes()
    assert not (tmp_path / "store.partial").exists()


def test_a_store_of_another_tokenizer_or_reading_is_refused(tmp_path):
    source, options = make("csv", tmp_path)
    reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("tokenizer=.char", "ngram-word", {}),
        ("lowercase=False", "ngram-char", {"lowercase": True}),
        ("validation", "ngram-char", {"validation": source}),
    ]
    for problem, preset, others in cases:
        with pytest.raises(ConfigError, match=problem):
            reviewgen.train(preset, tmp_path / "store", **others)
    with pytest.raises(ConfigError, match="already"):
        reviewgen.prepare(str(tmp_path / "store"), preset="gru-char", out=tmp_path / "again")
    assert (
        reviewgen.train("ngram-char", tmp_path / "store", progress=False).training["data"]["source"]
        == source
    )
    reviewgen.prepare(
        texts(50), preset="ngram-word", out=tmp_path / "words", tokenizer={"vocab_size": 300}
    )
    with pytest.raises(ConfigError, match="vocab_size"):
        reviewgen.train("ngram-word", tmp_path / "words")
    model = reviewgen.train(
        "ngram-word", tmp_path / "words", progress=False, tokenizer={"vocab_size": 300}
    )
    assert model.tokenizer.vocab_size <= 300


@pytest.mark.parametrize(
    "name, damage, problem",
    [
        ("store.json", lambda data: data.replace(b'"format": 1', b'"format": 2'), "newer"),
        ("store.json", lambda data: data[:-30], "damaged"),
        ("shards/00000/train.uint16", lambda data: data[:-2], "changed"),
        ("shards/00000/train.uint16", None, "shards/00000"),
    ],
)
def test_a_damaged_or_newer_store_is_refused(name, damage, problem, tmp_path):
    file = reviewgen.prepare(texts(50), preset="gru-char", out=tmp_path / "store").folder / name
    content = file.read_bytes()
    if damage is None:
        file.unlink()
    else:
        assert damage(content) != content
        file.write_bytes(damage(content))
    with pytest.raises(DataError, match=problem):
        reviewgen.train("gru-char", tmp_path / "store")


def test_the_same_command_continues_after_a_full_disk(tmp_path, monkeypatch):
    source, options = make("csv", tmp_path)

    def work(out: str = "store") -> object:
        return reviewgen.prepare(source, preset="gru-char", out=tmp_path / out, **options)

    work("whole")
    for calls in (0, 2, 5, 9, 14):
        interrupt(monkeypatch, work, calls)
        assert not (tmp_path / "store").exists()
    with pytest.raises(DataError, match="not finished"):
        reviewgen.train("gru-char", tmp_path / "store.partial")
    before = {
        file: file.stat().st_mtime_ns
        for file in (tmp_path / "store.partial/stages").rglob("*")
        if file.is_file()
    }
    interrupt(monkeypatch, work, 1)
    # what is finished is not made again
    assert before and {file: file.stat().st_mtime_ns for file in before} == before
    work()
    assert (
        listing(tmp_path / "store") == listing(tmp_path / "whole")
        and not (tmp_path / "store.partial").exists()
    )


def test_an_unfinished_store_of_other_texts_or_settings_is_not_continued(tmp_path, monkeypatch):
    source, options = make("csv", tmp_path)
    out = tmp_path / "store"
    interrupt(
        monkeypatch, lambda: reviewgen.prepare(source, preset="gru-char", out=out, **options), 14
    )
    kept = listing(tmp_path / "store.partial")
    assert any(name.endswith(".arrow") for name in kept)
    with pytest.raises(CheckpointError, match="other reading"):
        reviewgen.prepare(source, preset="gru-char", out=out, lowercase=True, **options)
    with pytest.raises(CheckpointError, match="other texts"):
        reviewgen.prepare([{"text": "a", "stars": 1}] * 9, preset="gru-char", out=out, **options)
    text = (tmp_path / "1.csv").read_text(encoding="utf-8")
    (tmp_path / "1.csv").write_text(text + "1,another\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="other texts"):
        reviewgen.prepare(source, preset="gru-char", out=out, **options)
    assert listing(tmp_path / "store.partial").keys() == kept.keys()


def test_the_same_job_is_complete_already_and_another_is_an_error(tmp_path):
    source, options = make("txt", tmp_path)
    made = reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)
    before = listing(tmp_path / "store")
    (tmp_path / "store.partial").mkdir()  # as of a process that was killed while it removed it
    assert (
        reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options).content
        == made.content
    )
    assert not (tmp_path / "store.partial").exists()
    for other in (
        {"lowercase": True},
        {"preset": "gru-word"},
        {"near_duplicates": 0.9},
        {"source": texts(90)},
    ):
        with pytest.raises(OutputExists):
            reviewgen.prepare(
                **{
                    "source": source,
                    "preset": "gru-char",
                    "out": tmp_path / "store",
                    **options,
                    **other,
                }
            )
    assert listing(tmp_path / "store") == before
    next((tmp_path / "store/shards").rglob("train.uint16")).unlink()
    with pytest.raises(OutputExists):  # it is not complete any more
        reviewgen.prepare(source, preset="gru-char", out=tmp_path / "store", **options)


def decoded(store: Any, split: str) -> list[str]:
    tokenizer = find_tokenizer("char")[0].load(store.folder / "tokenizer")
    return [tokenizer.decode(ids.tolist()) for ids, _ in store.splits()[split].documents()]


def jaccard(one: str, other: str) -> float:
    """Return the similarity of the word trigrams of two texts, by its definition."""
    first, second = (
        {tuple(words[n : n + 3]) for n in range(max(1, len(words) - 2))}
        for words in (one.split(), other.split())
    )
    return len(first & second) / len(first | second)


def test_near_duplicates_are_left_out(tmp_path):
    pytest.importorskip("rensa", reason="the extra near-duplicates")
    draw = random.Random(3)
    vocabulary = ["".join(pair) for pair in itertools.product("abcdefgh", "aeiouxyz")]
    originals = [" ".join(draw.choices(vocabulary, k=60)) for _ in range(60)]
    copies = [" ".join([*text.split()[:58], "another", "end"]) for text in originals[:20]]
    other = [
        " ".join(text.split()[:30] + draw.choices(vocabulary, k=30)) for text in originals[20:40]
    ]
    assert (
        min(map(jaccard, originals[:20], copies)) > 0.88
        and max(map(jaccard, originals[20:40], other)) < 0.5
    )
    rows = [*originals, *copies, *other]
    store = reviewgen.prepare(rows, preset="gru-char", out=tmp_path / "store", near_duplicates=0.8)
    splits = ("train", "validation", "test")
    kept = itertools.chain.from_iterable(decoded(store, split) for split in splits)
    assert sorted(kept) == sorted([*originals, *other])
    assert store.facts["corpus"]["source"]["cleaning"]["near_duplicates"] == 20
    with pytest.raises(ConfigError, match=r"at least 0\.3"):
        reviewgen.prepare(rows, preset="gru-char", out=tmp_path / "no", near_duplicates=80)


def test_held_out_texts_that_share_long_runs_with_training_texts_are_left_out(tmp_path):
    draw = random.Random(4)
    run = "this long sentence stands in a number of reviews, word by word. "
    rows = [
        "".join(draw.choices("abcdefgh ", k=80)) + (run if number % 7 == 0 else "")
        for number in range(400)
    ]
    plain = reviewgen.prepare(rows, preset="gru-char", out=tmp_path / "plain")
    train = decoded(plain, "train")
    held_out = [*decoded(plain, "validation"), *decoded(plain, "test")]
    known = "\n".join(train)
    leaking = [
        text
        for text in held_out
        if any(text[at : at + 50] in known for at in range(len(text) - 49))
    ]
    assert (
        leaking
        and f"Of {len(held_out)} held-out texts, {len(leaking)} share a run"
        in plain.facts["corpus"]["notes"][0]
    )
    clean = reviewgen.prepare(rows, preset="gru-char", out=tmp_path / "clean", decontaminate=50)
    left = [*decoded(clean, "validation"), *decoded(clean, "test")]
    assert sorted(left) == sorted(set(held_out) - set(leaking)) and decoded(clean, "train") == train
    assert not any(TextWindows(left, 50).spans(train))
    assert clean.facts["corpus"]["source"]["cleaning"]["leaking"] == len(leaking)
    with pytest.raises(ConfigError, match="at least 20"):
        reviewgen.prepare(rows, preset="gru-char", out=tmp_path / "no", decontaminate=5)


def test_the_command_says_what_it_made(tmp_path, run_command):
    source, _ = make("csv", tmp_path)
    words = [
        "prepare",
        source,
        "--preset",
        "gru-char",
        "--condition",
        "stars",
        "--out",
        tmp_path / "store",
    ]
    status, output, problem = run_command(*words, "--json")
    facts = json.loads(output)
    assert (status, facts["preset"]) == (0, "gru-char"), problem
    status, _, said = run_command(*words)
    assert status == 0 and "complete already" in said
    for others, key in (
        (["--preset", "nosuch-char"], "nosuch"),
        (["--near-duplicates", "7"], "at least 0.3"),
    ):
        status, _, said = run_command(*words[:-1], tmp_path / "other", *others)
        assert status in (1, 2) and key in said and not (tmp_path / "other").exists()
