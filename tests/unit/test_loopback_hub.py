"""The loopback Hub, asked by the real clients in subprocesses and, for what they do not show, by plain HTTP."""

import gzip
import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.forked import run_python
from tests.support.loopback_hub import TOKEN, LoopbackHub

WEIGHTS = bytes(range(256)) * 40
ROWS = [{"text": f"review {number}, \u0e14\u0e35"} for number in range(5)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CSV = b'text,stars\nfine,4\n"bad, sad",1\n'
SECRET = ("model", "owner/secret")

PULL = "from huggingface_hub import snapshot_download\nfrom pathlib import Path\n"
SHOW = "print(json.dumps({str(f.relative_to(p)): f.stat().st_size for f in sorted(Path(p).rglob('*')) if f.is_file()}))"
STREAM = "from datasets import load_dataset\n"


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    files = {"config.json": b"{}", "notes/a b.txt": b"hello", "model.safetensors": WEIGHTS}
    repositories = {
        ("model", "owner/name"): {"main": files, "v1": {"config.json": b"{ }"}, "refs/pr/1": {"other.json": b"[]"}},
        SECRET: {"main": {"config.json": b"{}"}},
        ("dataset", "owner/jsonl"): {"main": {"train.jsonl": JSONL}, "old": {"train.jsonl": JSONL.splitlines(keepends=True)[0]}},
        ("dataset", "owner/zipped"): {"main": {"train.jsonl.gz": gzip.compress(JSONL)}},
        ("dataset", "owner/csv"): {"main": {"train.csv": CSV, "README.md": b"---\nlicense: mit\n---\n"}},
        ("dataset", "owner/parquet"): {"main": {"data/train.parquet": parquet()}},
    }
    with LoopbackHub(repositories, private=[SECRET]) as running:
        yield running
        assert [request for request in running.requests if request.status == 501] == []


def client(hub: LoopbackHub, home: Path, script: str, token: str | None = None, **variables: str) -> Any:
    """Run the script with the real client; the JSON of its last printed line."""
    environment = hub.environment(home, token) | variables
    done = run_python(["-c", f"import json\n{script}"], env=environment, cwd=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def failing(call: str) -> str:
    """A script that prints the error's class, the HTTP status behind it, and its message."""
    answer = "print(json.dumps([type(e).__name__, getattr(getattr(e, 'response', None), 'status_code', None), str(e)]))"
    return f"try:\n    {call}\n    print('[]')\nexcept Exception as e:\n    {answer}"


def asked(hub: LoopbackHub, since: int) -> list[str]:
    return [f"{request.method} {request.target}" for request in hub.requests[since:]]


def test_pull_into_an_empty_cache_then_from_the_cache_then_offline(hub: LoopbackHub, tmp_path: Path) -> None:
    script = f"{PULL}p = snapshot_download('owner/name')\nassert Path(p).name == {hub.sha('model', 'owner/name')!r}\n{SHOW}"
    sizes = {"config.json": 2, "model.safetensors": len(WEIGHTS), "notes/a b.txt": 5}
    since = len(hub.requests)
    assert client(hub, tmp_path, script) == sizes
    assert any(line.startswith("GET /lfs-objects/") for line in asked(hub, since))
    since = len(hub.requests)
    assert client(hub, tmp_path, script) == sizes
    assert not any("resolve" in line or "lfs" in line for line in asked(hub, since))
    since = len(hub.requests)
    assert client(hub, tmp_path, script, HF_HUB_OFFLINE="1") == sizes
    assert asked(hub, since) == []


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ("revision='v1'", {"config.json": 3}),
        ("revision='refs/pr/1'", {"other.json": 2}),
        ("allow_patterns=['*.json']", {"config.json": 2}),
    ],
)
def test_pull_a_revision_or_some_files(hub: LoopbackHub, tmp_path: Path, arguments: str, files: dict[str, int]) -> None:
    assert client(hub, tmp_path, f"{PULL}p = snapshot_download('owner/name', {arguments})\n{SHOW}") == files


def test_pull_by_commit_hash(hub: LoopbackHub, tmp_path: Path) -> None:
    revision = hub.sha("model", "owner/name", "v1")
    assert client(hub, tmp_path, f"{PULL}p = snapshot_download('owner/name', revision={revision!r})\n{SHOW}") == {
        "config.json": 3
    }


@pytest.mark.parametrize(
    ("call", "token", "error", "status"),
    [
        ("snapshot_download('owner/missing')", None, "RepositoryNotFoundError", 401),
        ("snapshot_download('owner/missing')", TOKEN, "RepositoryNotFoundError", 404),
        ("snapshot_download('owner/name', revision='v9')", None, "RevisionNotFoundError", 404),
        ("snapshot_download('owner/secret')", None, "RepositoryNotFoundError", 401),
        ("snapshot_download('owner/name')", "hf_wrong", "HfHubHTTPError", 401),
        ("hf_hub_download('owner/name', 'missing.json')", None, "RemoteEntryNotFoundError", 404),
    ],
)
def test_pull_what_is_not_there(hub: LoopbackHub, tmp_path: Path, call: str, token: str | None, error: str, status: int) -> None:
    script = "from huggingface_hub import hf_hub_download, snapshot_download\n" + failing(call)
    assert client(hub, tmp_path, script, token)[:2] == [error, status]


def test_pull_a_private_repository_with_its_token(hub: LoopbackHub, tmp_path: Path) -> None:
    assert client(hub, tmp_path, f"{PULL}p = snapshot_download('owner/secret')\n{SHOW}", TOKEN) == {"config.json": 2}


def test_datasets_stream(hub: LoopbackHub, tmp_path: Path) -> None:
    names = ["jsonl", "zipped", "csv", "parquet"]
    rows = f"{{n: list(load_dataset('owner/' + n, streaming=True, split='train')) for n in {names}}}"
    old = "list(load_dataset('owner/jsonl', revision='old', streaming=True, split='train'))"
    answer = client(hub, tmp_path, f"{STREAM}print(json.dumps({rows} | {{'old': {old}}}))")
    stars = [{"text": "fine", "stars": 4}, {"text": "bad, sad", "stars": 1}]
    assert answer == {"jsonl": ROWS, "zipped": ROWS, "csv": stars, "parquet": ROWS, "old": ROWS[:1]}


def test_a_missing_dataset(hub: LoopbackHub, tmp_path: Path) -> None:
    script = STREAM + failing("load_dataset('owner/missing', streaming=True, split='train')")
    assert client(hub, tmp_path, script)[0] == "DatasetNotFoundError"


def test_a_request_to_another_host_is_refused_and_seen(hub: LoopbackHub, tmp_path: Path) -> None:
    script = "from huggingface_hub import HfApi\n" + failing("HfApi(endpoint='https://huggingface.co').model_info('gpt2')")
    since = len(hub.requests)
    assert client(hub, tmp_path, script)[0] == "ProxyError"
    assert "CONNECT huggingface.co:443" in asked(hub, since)


def ask(hub: LoopbackHub, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
    """The answer to one request, without a client's opinions."""
    request = urllib.request.Request(hub.endpoint + path, method=method, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


@pytest.mark.parametrize(
    ("wanted", "status", "body", "span"),
    [
        ("bytes=1-3", 206, b"ell", "bytes 1-3/5"),
        ("bytes=2-", 206, b"llo", "bytes 2-4/5"),
        ("bytes=-2", 206, b"lo", "bytes 3-4/5"),
        ("bytes=3-99", 206, b"lo", "bytes 3-4/5"),
        ("bytes=5-", 416, b"", "bytes */5"),
        ("lines=1-2", 200, b"hello", None),
    ],
)
def test_ranges(hub: LoopbackHub, wanted: str, status: int, body: bytes, span: str | None) -> None:
    answer = ask(hub, "/owner/name/resolve/main/notes/a%20b.txt", Range=wanted)
    assert (answer[0], answer[1], answer[2]["Content-Range"]) == (status, body, span)


def test_head_tells_the_commit_the_etag_and_the_size(hub: LoopbackHub) -> None:
    status, body, headers = ask(hub, "/owner/name/resolve/main/config.json", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "2")
    assert headers["X-Repo-Commit"] == hub.sha("model", "owner/name")
    assert headers["ETag"] == '"9e26dfeeb6e641a33dae4961196235bdb965b21b"'  # git's name for a blob of "{}"


def test_paths_info_and_tree(hub: LoopbackHub, tmp_path: Path) -> None:
    _, shallow, _ = ask(hub, "/api/models/owner/name/tree/main")
    assert [entry["path"] for entry in json.loads(shallow)] == ["config.json", "model.safetensors", "notes"]
    _, inside, _ = ask(hub, "/api/models/owner/name/tree/main/notes")
    assert [(entry["type"], entry["path"]) for entry in json.loads(inside)] == [("file", "notes/a b.txt")]
    script = "from huggingface_hub import HfApi\n"
    script += "found = HfApi().get_paths_info('owner/name', ['notes', 'model.safetensors', 'none'])\n"
    script += "print(json.dumps([f.path for f in found]))"
    assert client(hub, tmp_path, script) == ["model.safetensors", "notes"]


def test_an_endpoint_nobody_wrote_is_loud() -> None:
    with LoopbackHub({}) as hub:
        assert ask(hub, "/api/whoami-v2")[0] == 501
    with pytest.raises(RuntimeError, match="not running"):
        _ = hub.endpoint
