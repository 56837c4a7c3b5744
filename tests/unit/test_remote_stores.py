"""Token stores behind URLs: in S3, by a server on this machine, and in memory, which needs no package."""

import json
import os
from pathlib import Path
from typing import Any

import fsspec
import pytest

import reviewgen
from reviewgen.data import file_systems
from reviewgen.errors import ConfigError, DataError, ReviewgenError, StorageError
from reviewgen.preparation import job
from tests.support.fakes import run_command
from tests.support.launches import launch
from tests.unit.test_prepare import SMALL, facts_of, files_of, texts, write_csv

ROWS = texts(60)


@pytest.fixture(scope="module")
def s3():
    """Start an S3 server, and return the variables that lead to it."""
    server = pytest.importorskip("moto.server", reason="needs moto: pip install 'reviewgen[test-s3]'")
    pytest.importorskip("s3fs", reason="needs s3fs: pip install 'reviewgen[s3]'")
    running = server.ThreadedMotoServer(port=0)
    running.start()
    _, port = running.get_host_and_port()
    yield {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    running.stop()


@pytest.fixture(params=["memory", "s3"])
def bucket(request, monkeypatch) -> str:
    """Return the URL of an empty folder."""
    if request.param == "s3":
        for name, value in request.getfixturevalue("s3").items():
            monkeypatch.setenv(name, value)
        fsspec.filesystem("s3", skip_instance_cache=True)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    url = f"{request.param}://{request.node.name.replace('[', '-').strip(']').replace('_', '-').lower()}"
    system, path = fsspec.core.url_to_fs(url)
    system.mkdir(path)
    return url


def put(url: str, content: bytes) -> None:
    system, path = fsspec.core.url_to_fs(url)
    system.pipe_file(path, content)


def upload(folder: Path, url: str) -> None:
    """Copy a store, as another machine has written it."""
    for file in folder.rglob("*"):
        if file.is_file():
            put(f"{url}/{file.relative_to(folder).as_posix()}", file.read_bytes())


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store on this machine."""
    folder = tmp_path_factory.mktemp("local")
    write_csv(folder / "0.csv", ROWS)
    return reviewgen.prepare(str(folder / "*.csv"), preset="gru-char", out=folder / "store").folder


def test_the_commands_from_url_to_url(bucket, local, tmp_path, monkeypatch, capsys):
    put(f"{bucket}/in/0.csv", (local.parent / "0.csv").read_bytes())
    words = ["prepare", f"{bucket}/in/*.csv", "--preset", "gru-char", "--out", f"{bucket}/store", "--json"]
    status, output, problem = run_command(monkeypatch, capsys, *words)
    assert (status, json.loads(output)["preset"]) == (0, "gru-char"), problem
    system, path = fsspec.core.url_to_fs(f"{bucket}/store")
    stored = {name[len(path) :].strip("/"): system.cat_file(name) for name in system.find(path)}
    expected = files_of(local)
    assert stored.keys() == expected.keys()
    for name in expected.keys() - {"store.json", "novelty.safetensors"}:  # these have the name of the source
        assert stored[name] == (local / name).read_bytes(), name
    settings = ["--set", "model.hidden_size=12", "--set", "model.layer=fused", "--set", "training.threads=1"]
    short = ["--steps", "4", "--set", "training.precision=no", "--json", *settings]
    for source, out in ((f"{bucket}/store", "one"), (str(local), "two")):
        status, _, problem = run_command(
            monkeypatch, capsys, "train", "gru-char", "--data", source, "--out", str(tmp_path / out), *short
        )
        assert status == 0, problem
    first, second = (reviewgen.load(tmp_path / name) for name in ("one", "two"))
    assert first.generate_one(do_sample=False, words="any") == second.generate_one(do_sample=False, words="any")
    status, _, problem = run_command(monkeypatch, capsys, *words)
    assert status == 0 and "store is complete already: the same job has made it." in problem
    status, _, problem = run_command(monkeypatch, capsys, *words, "--lowercase")
    assert status == 1 and "is a token store already" in problem


def test_two_processes_from_url_to_url_to_url(s3, tmp_path, monkeypatch):
    """They prepare, train and score at URLs, with a cache that they share, as one process does with files."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.mkdir("ranks")
    for number in range(4):
        write_csv(tmp_path / f"{number}.csv", ROWS[number::4])
        system.pipe_file(f"ranks/in/{number}.csv", (tmp_path / f"{number}.csv").read_bytes())
    here = reviewgen.prepare(str(tmp_path / "*.csv"), preset="ngram-char", out=tmp_path / "here")
    urls = ["s3://ranks/in/*.csv", "--preset", "ngram-char", "--out", "s3://ranks/store"]
    done = launch(2, tmp_path, "-m", "reviewgen", "prepare", *urls)
    assert done.returncode == 0, done.stderr
    stored = {name.removeprefix("ranks/store/"): system.cat_file(name) for name in system.find("ranks/store")}
    expected = files_of(here.folder)
    assert stored.keys() == expected.keys()
    for name in expected.keys() - {"store.json", "novelty.safetensors"}:  # these have the name of the source
        assert stored[name] == (here.folder / name).read_bytes(), name
    done = launch(2, tmp_path, "-m", "reviewgen", "train", "ngram-char", "--data", "s3://ranks/store", "--out", "model")
    assert done.returncode == 0, done.stderr
    one = reviewgen.train("ngram-char", here.folder, progress=False)
    model = reviewgen.load(tmp_path / "model")
    assert model.generate(seed=1, num_return_sequences=5) == one.generate(seed=1, num_return_sequences=5)
    scoring = ["score", "model", "--data", "s3://ranks/in/*.csv", "--out", "scored.jsonl"]
    done = launch(2, tmp_path, "-m", "reviewgen", *scoring)
    assert done.returncode == 0, done.stderr
    table = reviewgen.score_dataset(model, str(tmp_path / "*.csv"), out=tmp_path / "expected.jsonl")
    assert (tmp_path / "scored.jsonl").read_bytes() == table.out.read_bytes() and table.texts > 50


def test_no_working_folder_is_left_beside_a_store_at_a_url(local, tmp_path, monkeypatch):
    monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path))
    source, finish = str(local.parent / "0.csv"), {"failed": (job, "upload_store"), "killed": (job.WorkFolder, "remove")}
    for name, (place, function) in finish.items():
        url = f"memory://left-{name}/store"
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(place, function, lambda *_: 1 / 0)
            reviewgen.prepare(source, preset="gru-char", out=url)
        assert len(list(tmp_path.glob("preparing-*"))) == 1
        reviewgen.prepare(source, preset="gru-char", out=url)  # complete already if it was killed after the upload
        assert not list(tmp_path.glob("preparing-*")), name
        assert reviewgen.train("gru-char", url, steps=1, model={"hidden_size": 8}, progress=False)


def test_the_working_folder_of_other_texts_is_kept(local, tmp_path, monkeypatch):
    monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path))
    source, url = str(local.parent / "0.csv"), "memory://other-texts/store"
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(job, "upload_store", lambda *_: 1 / 0)
        reviewgen.prepare(source, preset="gru-char", out=url)
    put(f"{url}/store.json", b"{}")
    with pytest.raises(DataError, match="is a token store already"):
        reviewgen.prepare(source, preset="gru-char", out=url)
    assert (next(tmp_path.glob("preparing-*")) / "store/store.json").exists()


def test_what_reads_texts_refuses_a_store(local):
    upload(local, "memory://refused/store")
    model = reviewgen.train("ngram-char", ROWS, model={"order": 2}, progress=False)
    for source in (local, str(local), "memory://refused/store"):
        with pytest.raises(DataError, match="is a token store, which train, sweep and tune read"):
            model.evaluate(source)
        with pytest.raises(DataError, match="is a token store, which train, sweep and tune read"):
            reviewgen.compare([model], source)


def test_a_store_that_cannot_be_used(bucket, local):
    upload(local, f"{bucket}/whole")
    content = json.loads((local / "store.json").read_bytes())
    with pytest.raises(ConfigError, match="was prepared for gru-char, with the tokenizer char; gru-word has word"):
        reviewgen.train("gru-word", f"{bucket}/whole")
    put(f"{bucket}/newer/store.json", json.dumps(content | {"format": 2}).encode())
    put(f"{bucket}/torn/store.json", json.dumps(content).encode()[:-30])
    put(f"{bucket}/half/shards/00000/train.index.npy", b"")
    problems = {"newer": "newer version", "torn": "is damaged", "half": "is not finished", "none": "No file at"}
    for name, problem in problems.items():
        with pytest.raises(DataError, match=problem):
            reviewgen.train("gru-char", f"{bucket}/{name}")
    put(f"{bucket}/changed/store.json", json.dumps(content | {"facts": content["facts"] | {"notes": []}}).encode())
    for name in content["files"]:
        put(f"{bucket}/changed/{name}", (local / name).read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="differs from its digest"):
        reviewgen.train("gru-char", f"{bucket}/changed")
    with pytest.raises(DataError, match="has something else in it, shards"):  # it may be anybody's
        reviewgen.prepare(ROWS, preset="gru-char", out=f"{bucket}/half")


def test_an_upload_goes_on_after_an_interruption(bucket, local, monkeypatch):
    source, url = str(local.parent / "*.csv"), f"{bucket}/store"
    send, sent = file_systems.Remote.send, []

    def fail(self, file: Path, name: str) -> None:
        sent.append(name)
        send(self, file, name) if len(sent) < 4 else 1 / 0

    with monkeypatch.context() as patch, pytest.raises(ReviewgenError):
        patch.setattr(file_systems.Remote, "send", fail)
        reviewgen.prepare(source, preset="gru-char", out=url)
    with pytest.raises(DataError, match="is not finished: its upload was interrupted"):
        reviewgen.train("gru-char", url)
    with pytest.raises(DataError, match="has the beginning of another token store"):
        reviewgen.prepare(ROWS[:30], preset="gru-char", out=url)
    again = reviewgen.prepare(source, preset="gru-char", out=url)
    one = reviewgen.train("gru-char", url, progress=False, **SMALL)
    two = reviewgen.train("gru-char", local, progress=False, **SMALL)
    assert again.name == url and facts_of(one) == facts_of(two)


def test_what_others_have_at_a_url_stays(bucket, local, tmp_path):
    for name in ("novelty.safetensors", "shards/00000/train.uint16", "notes.txt", "file://"):
        url = f"{bucket}/{name.partition('.')[0].replace('/', '-')}"
        if name == "file://":
            (tmp_path / "mine").mkdir()
            url, name = (tmp_path / "mine").as_uri(), "novelty.safetensors"
        put(f"{url}/{name}", b"mine")
        with pytest.raises(DataError, match=rf"has something else in it, {name.partition('/')[0]}\. Give another URL"):
            reviewgen.prepare(str(local.parent / "0.csv"), preset="gru-char", out=url)
        system, path = fsspec.core.url_to_fs(url)
        assert system.cat_file(f"{path}/{name}") == b"mine" and len(system.find(path)) == 1
    put(f"{bucket}/file", b"mine")
    with pytest.raises(DataError, match="has something else in it, file"):
        reviewgen.prepare(str(local.parent / "0.csv"), preset="gru-char", out=f"{bucket}/file")


def test_a_store_at_a_url_without_one_of_its_files(local):
    upload(local, "memory://without")
    fsspec.filesystem("memory").rm("/without/shards/00000/train.index.npy")
    with pytest.raises(DataError, match=r"is incomplete: it has no shards/00000/train\.index\.npy\. Copy it again"):
        reviewgen.train("gru-char", "memory://without")


def test_machines_that_do_not_share_the_cache_cannot_make_a_store_at_a_url(tmp_path, monkeypatch):
    monkeypatch.setattr(job.WorkFolder, "start", lambda *_, **__: None)  # another machine does it, in its own cache
    with pytest.raises(StorageError, match="set REVIEWGEN_CACHE to a folder that they share"):
        reviewgen.prepare(ROWS, preset="gru-char", out="memory://unshared")


def test_credentials_that_are_missing(s3, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    calls: list[Any] = [
        lambda: reviewgen.prepare("s3://a/in.csv", preset="gru-char", out=tmp_path / "store"),
        lambda: reviewgen.prepare(ROWS, preset="gru-char", out="s3://a/store"),
        lambda: reviewgen.train("gru-char", "s3://a/store"),
    ]
    for call in calls:
        with pytest.raises(
            DataError, match=r"cannot be reached: .*[Cc]redentials.* Check the address, the network and your credentials\."
        ):
            call()
