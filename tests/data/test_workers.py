"""Several processes for one corpus: the same bytes for any number of workers, and a clear error if
one of them ends.
"""

import os
import signal
import sys

import numpy as np
import pytest
from joblib.externals import loky

import reviewgen
from reviewgen.data.stage import cache_folder
from reviewgen.errors import ConfigError, WorkerError
from reviewgen.runs.plan import make_plan
from tests.support.fakes import LetterTokenizer
from tests.support.texts import as_csv, as_parquet, tokenized, write


class Plain(LetterTokenizer):
    """Encodes a text quickly; workers import it by name."""

    def encode(self, text: str) -> list[int]:
        return 2 + np.frombuffer(text.encode(), np.uint8) % len(self.characters)  # type: ignore[return-value]


class Deadly(Plain):
    """Kills the worker that it encodes in."""

    def encode(self, text: str) -> list[int]:
        if any("loky" in word for word in sys.orig_argv):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(text)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Files of 20 MB, which are two parts or more, with duplicates, tags, a repeated line and
    mojibake in a late part.
    """
    folder = tmp_path_factory.mktemp("sources")
    rows = [
        {"text": f"{n % 950} <b>x</b> &amp;\n" + "word " * 4_000 + "\nRead", "stars": n % 3 or None}
        for n in range(1_000)
    ]
    rows[-1] = {"text": "cafÃ©", "stars": 1}
    write(folder / "a.csv", as_csv(rows))
    write(
        folder / "a.parquet",
        as_parquet(rows, row_group_size=100, use_dictionary=False, compression="none"),
    )
    write(folder / "a.txt", "".join(row["text"].replace("\n", " ") + "\n" for row in rows))
    return folder


def run(monkeypatch, tmp_path, source, workers, kind=Plain, conditions=()):
    """Tokenize as a new run does; return all bytes of the cache, and what cleaning did."""
    monkeypatch.setenv("REVIEWGEN_WORKERS", str(workers))
    monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path / f"cache of {workers}"))
    corpus = tokenized(source, kind, conditions=conditions, drop_repeated_lines=True)[-1]
    files = [file for file in cache_folder().rglob("*") if file.is_file()]
    return (
        {str(file.relative_to(cache_folder())): file.read_bytes() for file in files},
        corpus.report,
        corpus.notes,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.txt"])
def test_the_bytes_are_the_same_whatever_the_number_of_workers(
    monkeypatch, tmp_path, sources, name
):
    conditions = () if name == "a.txt" else ("stars",)
    alone = run(monkeypatch, tmp_path, sources / name, 1, conditions=conditions)
    together = run(monkeypatch, tmp_path, sources / name, 2, conditions=conditions)
    assert together == alone
    assert (alone[1].duplicates, alone[1].mojibake) == (49, 1) and "'cafÃ©'" in alone[2][-2]
    assert alone[1].lines_dropped == (0 if name == "a.txt" else 999)
    assert any(
        name.endswith("train.uint16") and len(content) > 1_000_000
        for name, content in alone[0].items()
    )


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_error_and_leaves_no_store(monkeypatch, tmp_path, sources):
    with pytest.raises(WorkerError, match=r"was killed.*REVIEWGEN_WORKERS=1"):
        run(monkeypatch, tmp_path, sources / "a.txt", 2, Deadly)
    assert not [path for path in cache_folder().glob("encode-*") if path.suffix != ".partial"]


@pytest.fixture
def small(tmp_path):
    rows = [{"text": f"Text {n % 190} of a film", "stars": n % 3} for n in range(200)]
    return write(tmp_path / "a.csv", as_csv(rows))


@pytest.fixture
def started(monkeypatch, own_cache):
    """The number of workers of each piece of work that is shared with some."""
    numbers = []
    start = loky.get_reusable_executor

    def note_number(workers, **options):
        numbers.append(workers)
        return start(workers, **options)

    monkeypatch.setattr(loky, "get_reusable_executor", note_number)
    monkeypatch.setenv("REVIEWGEN_WORKERS", "3")  # the option comes first
    return numbers


def test_a_store_is_the_same_whatever_num_proc(tmp_path, small, started):
    for workers in (1, 2):
        out = tmp_path / f"store {workers}"
        reviewgen.prepare(
            small, preset="ngram-char", out=out, conditions=["stars"], num_proc=workers
        )
        # the texts are cleaned, compared, encoded and, in two passes, indexed
        assert started == [2] * 5 * (workers - 1)
    alone, together = (
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in (tmp_path / "store 1", tmp_path / "store 2")
    )
    assert together == alone
    reviewgen.prepare(small, preset="ngram-char", out=out, conditions=["stars"], num_proc=3)
    assert len(started) == 5  # the store is complete already


def test_a_training_with_another_num_proc_starts_from_the_same_stages(small, started):
    model = reviewgen.train("ngram-char", small, num_proc=2, steps=1, progress=False)
    names = {path.name for path in cache_folder().iterdir()}
    assert {name.partition("-")[0] for name in names} == {"clean", "split", "encode", "index"}
    assert started == [2] * 5
    again = reviewgen.train("ngram-char", small, num_proc=1, steps=1, progress=False)
    assert {path.name for path in cache_folder().iterdir()} == names
    assert again.training["data"] == model.training["data"] and len(started) == 5
    digests = [make_plan("ngram-char", small, {"num_proc": n}).digest() for n in (None, 1, 2)]
    assert len({*digests}) == 1


@pytest.mark.parametrize("number", [0, 10**30])
def test_a_num_proc_out_of_range_is_refused(tmp_path, small, number):
    calls = (
        lambda: reviewgen.train("ngram-char", small, num_proc=number),
        lambda: reviewgen.prepare(small, preset="ngram-char", out=tmp_path / "s", num_proc=number),
        lambda: reviewgen.corpus(small, num_proc=number),
    )
    message = rf"^num_proc must be at least 1 and at most 1024; got {number}\.$"
    for call in calls:
        with pytest.raises(ConfigError, match=message):
            call()


@pytest.mark.slow
def test_num_proc_is_the_number_of_processes_that_encode(monkeypatch, small, own_cache):
    monkeypatch.delenv("REVIEWGEN_WORKERS", raising=False)
    tokenized(small, Deadly, num_proc=1)
    with pytest.raises(WorkerError, match=r"was killed.*--num-proc 1"):
        tokenized(small, Deadly, lowercase=True, num_proc=2)
