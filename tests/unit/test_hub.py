"""Loading from the Hub, with the real client against the loopback Hub, in a subprocess."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reviewgen import ReviewModel
from tests.support.fakes import NGRAM, train_tiny
from tests.support.forked import run_python
from tests.support.loopback_hub import LoopbackHub


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ReviewModel:
    return train_tiny("ngram-char", tmp_path_factory.mktemp("cache"), **NGRAM)


@pytest.fixture(scope="module")
def hub(trained: ReviewModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    folder = tmp_path_factory.mktemp("saved") / "model"
    trained.save_pretrained(folder)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    more = {
        ".gitattributes": b"*.safetensors filter=lfs\n",
        "pytorch_model.bin": b"\x80\x04never read",
        "code.py": b"raise SystemExit(3)\n",
    }
    damaged = files | {"model.safetensors": files["model.safetensors"][:100]}
    repositories = {
        ("model", "owner/name"): {"main": files | more, "v1": files, "damaged": damaged},
        ("model", "owner/foreign"): {"main": {"config.json": b'{"model_type": "gpt2"}', "README.md": b"# gpt2\n"}},
        ("model", "owner/empty"): {"main": {".gitattributes": b""}},
    }
    with LoopbackHub(repositories) as running:
        yield running


def load(hub: LoopbackHub, home: Path, source: str, **variables: str) -> Any:
    """Load in a subprocess; return the text that it generates, or the class and message of the error."""
    script = f"""
import json, reviewgen
try:
    print(json.dumps(reviewgen.load({source!r}).generate("the ", num_return_sequences=2, seed=3)))
except reviewgen.ReviewgenError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
    done = run_python(["-c", script], env=hub.environment(home) | variables, cwd=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_repository_generates_what_the_folder_does_then_offline_too(
    hub: LoopbackHub, trained: ReviewModel, tmp_path: Path
) -> None:
    texts = trained.generate("the ", num_return_sequences=2, seed=3)
    assert load(hub, tmp_path, "owner/name") == texts
    asked = [request.target for request in hub.requests]
    assert not any("pytorch_model.bin" in target or "code.py" in target for target in asked if "resolve" in target)
    since = len(hub.requests)
    assert load(hub, tmp_path, "hf://owner/name", HF_HUB_OFFLINE="1") == texts
    assert len(hub.requests) == since
    assert load(hub, tmp_path, "owner/name@v1") == texts


@pytest.mark.parametrize(
    ("source", "variables", "error", "said"),
    [
        ("owner/missing", {}, "HubError", "no model repository owner/missing"),
        ("owner/name@v9", {}, "HubError", "owner/name has no revision 'v9'"),
        ("owner/name", {"HF_HUB_OFFLINE": "1"}, "HubError", "not in the local cache"),
        ("owner/name", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "HubError", "not in the local cache"),
        ("owner/name@damaged", {}, "BundleError", "damaged"),
        ("owner/foreign", {}, "BundleError", "keys of config.json"),
        ("owner/empty", {}, "HubError", "does not contain a saved model"),
    ],
)
def test_what_cannot_be_loaded(
    hub: LoopbackHub, tmp_path: Path, source: str, variables: dict[str, str], error: str, said: str
) -> None:
    name, message = load(hub, tmp_path, source, **variables)
    assert name == error
    assert said in message
    assert "\n" not in message


def test_the_loopback_hub_implements_all_requests(hub: LoopbackHub) -> None:
    assert [request for request in hub.requests if request.status in (501, 502)] == []
