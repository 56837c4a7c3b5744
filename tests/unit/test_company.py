"""Other threads, other processes and a system that misbehaves: the same results, or one sentence."""

import errno
import fcntl
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import reviewgen
from reviewgen.data import cache_folder
from reviewgen.errors import StorageError
from reviewgen.lock import Lock
from reviewgen.runs import TrainingRun
from tests.support.fakes import TEXTS, train_tiny

ROOT = Path(__file__).parents[2]
THREADS = 64
# Without autotuning, which selects by how busy the machine is; other threads, precisions and layers add up in another order.
OPTIONS = {"steps": 6, "seed": 3, "training": {"threads": 1, "precision": "no"}}
FUSED = {"gru-word": {"model": {"layer": "fused"}}}


def digest(model):
    """A model's digest, which only a saved one has."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder, "m"))
        found = reviewgen.load(Path(folder, "m")).digest
    assert found.startswith("sha256:")
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model of each kind of stepper, trained in peace."""
    cache = tmp_path_factory.mktemp("cache")
    return {
        preset: train_tiny(preset, cache, **OPTIONS, **FUSED.get(preset, {}))
        for preset in ("ngram-char", "gru-word", "nnlm-char")
    }


@pytest.mark.parametrize("preset", ["ngram-char", "gru-word", "nnlm-char"])
def test_threads_that_share_a_model_get_what_one_thread_gets(models, preset):
    model = models[preset]
    starts = threading.Barrier(THREADS)

    def work(seed):
        starts.wait()  # so that all are inside at the same time
        return model.generate("a", seed=seed, max_new_tokens=40)[0], model.score("a good band").bits

    alone = [(model.generate("a", seed=seed, max_new_tokens=40)[0], model.score("a good band").bits) for seed in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(work, range(THREADS))) == alone
    assert len({text for text, _ in alone}) > 16  # not one text 64 times


def test_a_clock_that_runs_backwards_changes_nothing(models, monkeypatch):
    later = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1.0e9 - 3600 * next(later))
    for _ in range(2):  # the second one reads the cache of the first, whose files are then from the future
        assert digest(reviewgen.train("gru-word", TEXTS, **OPTIONS, **FUSED["gru-word"])) == digest(models["gru-word"])
        for file in cache_folder().rglob("*"):
            os.utime(file, (4e9, 4e9))


@pytest.mark.parametrize("preset", ["gru-word", "ngram-char"])
def test_a_cache_that_is_deleted_during_a_training_changes_nothing(models, preset):
    run = TrainingRun(preset, TEXTS, **OPTIONS, **FUSED.get(preset, {}))
    run.read()
    run.tokenize()
    for _ in run:
        shutil.rmtree(cache_folder(), ignore_errors=True)
    assert digest(run.finish()) == digest(models[preset])


def test_a_cache_that_is_deleted_before_it_is_read_is_one_sentence():
    run = TrainingRun("ngram-char", TEXTS, **OPTIONS)
    run.read()
    shutil.rmtree(cache_folder())
    with pytest.raises(StorageError, match="cache"):
        run.tokenize()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks(models, monkeypatch, tmp_path, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    held = Lock(tmp_path / "lock")
    assert held.is_in_place()
    held.remove()
    reviewgen.train("gru-word", TEXTS, out=tmp_path / "m", **OPTIONS, **FUSED["gru-word"])
    assert reviewgen.load(tmp_path / "m").digest == digest(models["gru-word"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "m"]  # and no lock is left


SHARED = """
import errno, fcntl, sys
def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = fcntl.lockf = refuse
import reviewgen
from tests.support.fakes import TEXTS
from tests.unit.test_company import FUSED, OPTIONS
reviewgen.train("gru-word", TEXTS, out=sys.argv[1], **OPTIONS, **FUSED["gru-word"])
print(reviewgen.load(sys.argv[1]).digest)
"""


def test_processes_on_a_shared_folder_without_locks_get_the_same_model(models, tmp_path):
    """As machines with one core and with two on a network file system: one cache, one folder for the results, and no locks."""
    environment = {**os.environ, "REVIEWGEN_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SHARED, str(tmp_path / cores)],
            env=environment | {"OMP_NUM_THREADS": cores},
            stdout=subprocess.PIPE,
            text=True,
        )
        for cores in ("1", "2")
    ]
    assert [process.communicate()[0].split()[-1:] for process in started] == [[digest(models["gru-word"])]] * 2


def test_a_user_without_a_home_folder(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("REVIEWGEN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(StorageError, match="Set REVIEWGEN_CACHE"):
        reviewgen.train("ngram-char", TEXTS, steps=1)
