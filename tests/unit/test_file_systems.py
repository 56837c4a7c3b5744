"""File systems behind URLs that do not answer, or never end: by a file system of our own, and by http where aiohttp is there."""

import contextlib
import io
import socket
import threading
import time

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

import reviewgen
from reviewgen.config import MAX_RECORD
from reviewgen.data import file_systems
from reviewgen.data.remote import fetch_store, locate_store
from reviewgen.data.urls import fetch_files
from reviewgen.errors import DataError

NEVER = threading.Event()


class Endless(io.RawIOBase):
    """A file without an end; what was read of it is counted."""

    read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        Endless.read_bytes += len(buffer)
        return len(buffer)


class HostileSystem(AbstractFileSystem):
    """Names with "silent" are never answered; files with "endless" have no end, whatever is said of their size."""

    protocol = "hostile"
    cachable = False

    def info(self, path, **options):
        if "silent" in path:
            NEVER.wait(20)
        kind = "file" if "endless" in path or "json" in path else "directory"
        if "nothing" in path:
            raise FileNotFoundError(path)
        return {"name": path, "size": 7, "type": kind}

    def ls(self, path, detail=True, **options):
        return [self.info(path)] if detail else [path]

    def _open(self, path, mode="rb", **options):
        return io.BufferedReader(Endless())


@pytest.fixture(autouse=True)
def hostile(monkeypatch):
    fsspec.register_implementation("hostile", HostileSystem, clobber=True)
    monkeypatch.setattr(file_systems, "_SECONDS", 0.6)
    monkeypatch.setattr(file_systems, "_NOTE_SECONDS", 0.2)
    Endless.read_bytes = 0


@contextlib.contextmanager
def server(answer: bytes, body: bytes = b""):
    """Yield the address of a server that sends an answer to each request, if any, and then a body over and over."""
    listening = socket.create_server(("127.0.0.1", 0))
    stop, connections = threading.Event(), []

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while connection.recv(65536) and answer:
                connection.sendall(answer)
                while body and not stop.is_set():
                    connection.sendall(body)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connections.append(listening.accept()[0])
                threading.Thread(target=serve, args=connections[-1:], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        stop.set()
        for each in (listening, *connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def test_a_file_system_that_never_answers_is_named_and_given_up(tmp_path, caplog):
    for call in (lambda: fetch_files("hostile://silent/a.csv", tmp_path), lambda: locate_store("hostile://silent")):
        caplog.clear()
        with pytest.raises(DataError, match=r"hostile://silent.* has not answered for 0\.6 seconds\. Check the address"):
            call()
        assert [each for each in caplog.messages if each.startswith("Waiting for hostile://silent")] == caplog.messages[:1]
        assert len(caplog.messages) == 1


def test_a_file_system_that_answers_is_not_waited_for(tmp_path, caplog):
    fsspec.filesystem("memory").pipe_file("/answers/a.txt", b"text")
    assert [file.read_bytes() for file in fetch_files("memory://answers/a.txt", tmp_path)] == [b"text"]
    assert not caplog.messages


def test_a_store_file_is_read_up_to_its_limit(hostile):
    with pytest.raises(DataError, match=r"hostile://endless: store\.json has more than 16,777,216 bytes"):
        locate_store("hostile://endless")
    assert MAX_RECORD < Endless.read_bytes < MAX_RECORD + (1 << 23)


def test_a_file_of_a_store_is_read_up_to_its_size(tmp_path, monkeypatch):
    monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path / "cache"))
    store = reviewgen.prepare(["one review", "another one", "a third"], preset="ngram-char", out=tmp_path / "store")
    content = (store.folder / "store.json").read_bytes()
    fsspec.filesystem("memory").pipe_file("/endless-store/store.json", content)
    found = locate_store("memory://endless-store")
    assert found is not None
    monkeypatch.setattr(fsspec.filesystem("memory"), "_open", lambda *words, **options: io.BufferedReader(Endless()))
    with pytest.raises(DataError, match=r"has more than [0-9,]+ bytes"):
        fetch_store(found)
    assert Endless.read_bytes < 1 << 23
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file() and file.name == "new"]


def test_limits_in_the_users_configuration_of_fsspec_come_first(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(fsspec.config.conf, "hostile", {"read_timeout": 120})
    monkeypatch.setattr(NEVER, "wait", lambda _: time.sleep(1))  # longer than ours
    assert file_systems.Remote("hostile://silent/json").is_file("silent/json")
    assert caplog.messages == ["Waiting for hostile://silent/json ..."]


def test_http_is_given_up_and_bounded(tmp_path, caplog):
    pytest.importorskip("aiohttp", reason="needs aiohttp: pip install 'reviewgen[s3]'")
    with server(b"") as silent, pytest.raises(DataError, match=r"has not answered for 0\.6 seconds"):
        fetch_files(f"{silent}/a.csv", tmp_path)
    assert caplog.messages == [f"Waiting for {silent}/a.csv ..."]
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n"
    with server(head % (1 << 40), bytes(1 << 16)) as endless, pytest.raises(DataError, match="more than 16,777,216 bytes"):
        locate_store(endless)
    with server(head % 1000 + bytes(10)) as stuck, pytest.raises(DataError, match=r"has not answered for 0\.6 seconds"):
        fetch_files(f"{stuck}/a.csv", tmp_path)


def test_the_users_configuration_of_fsspec_is_respected(monkeypatch):
    aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp: pip install 'reviewgen[s3]'")
    mine = aiohttp.ClientTimeout(total=7)
    for scheme in ("http", "https"):
        with monkeypatch.context() as patch:
            patch.setitem(fsspec.config.conf, scheme, {"client_kwargs": {"trust_env": True}, "block_size": 77})
            remote = file_systems.Remote("https://127.0.0.1/a")
            options = remote._system.client_kwargs
            assert (options["trust_env"], options["timeout"].sock_read, remote._system.block_size) == (True, 1.2, 77)
            patch.setitem(fsspec.config.conf, scheme, {"client_kwargs": {"timeout": mine}})
            assert file_systems.Remote("https://127.0.0.1/a")._system.client_kwargs["timeout"] == mine
