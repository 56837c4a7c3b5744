"""examples/serve_ray.py on a Ray of this machine: its answers are those of the model, and a replica that dies is replaced."""

import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

import reviewgen
from reviewgen.serving.app import create_app
from tests.support.servers import free_port, get, post, started, wait_until_it_answers

pytest.importorskip("ray.serve", reason="Ray Serve is not installed, or has no wheel for this Python: pip install 'ray[serve]'")
SCRIPT = Path(__file__).parents[2] / "examples/serve_ray.py"
MODEL = "ngram-char"
REQUEST = {"model": MODEL, "prompt": "The movie", "max_tokens": 30, "seed": 1}


@pytest.fixture(scope="module")
def ray():
    """The URL of two replicas, and the log of Ray."""
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:  # a socket's path must be short
        url, log = f"http://127.0.0.1:{(port := free_port())}", Path(folder) / "log"
        words = [str(SCRIPT), MODEL, "--port", str(port), "--replicas", "2", "--cpus", "0.1"]
        with started([sys.executable, *words], log, os.environ | quiet | {"RAY_TMPDIR": folder}) as process:
            wait_until_it_answers(f"{url}/ready", process, log)
            yield url, log
        said = log.read_text(encoding="utf-8")
    assert process.returncode == 0 and "Traceback" not in said, said


def expected():
    return reviewgen.load(MODEL).generate_one("The movie", max_new_tokens=30, seed=1).removeprefix("The movie")


def replicas(log):
    """Return the processes that have answered completions."""
    return set(re.findall(r"ServeReplica\S+ pid=(\d+)\)\S* .* POST /v1/completions 200", log.read_text(encoding="utf-8")))


def test_a_client_of_openai_gets_the_text_of_the_model_from_any_replica(ray):
    import openai

    url, log = ray
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def write(number):
        answer = client.completions.create(**REQUEST, stream=number % 2 == 0)
        return "".join(part.choices[0].text for part in (answer if number % 2 == 0 else [answer]))

    with ThreadPoolExecutor(8) as threads:
        texts = set(threads.map(write, range(64)))
    assert texts == {expected()}
    assert "Adding 2 replicas" in log.read_text(encoding="utf-8")


def test_a_replica_that_dies_is_replaced(ray):
    url, log = ray
    post(f"{url}/v1/completions", REQUEST)
    deadline = time.monotonic() + 120
    while not replicas(log) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(int(min(replicas(log))), signal.SIGKILL)
    while "Adding 1 replica" not in log.read_text(encoding="utf-8") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "Adding 1 replica" in log.read_text(encoding="utf-8")
    assert {post(f"{url}/v1/completions", REQUEST)["choices"][0]["text"] for _ in range(4)} == {expected()}
    assert get(f"{url}/health")


def test_the_options_of_the_page_are_those_of_the_script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from serve_ray import build

    page = (SCRIPT.parents[1] / "docs/how-to/deploy.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^serve run examples.serve_ray:build (.+)$", page, re.MULTILINE)
    deployment = build(dict(word.split("=", 1) for word in line.split()))._bound_deployment
    assert deployment.num_replicas == 8
    with pytest.raises(ValueError, match="modles is not an option"):
        build({"modles": MODEL})


def test_a_replica_whose_engine_has_stopped_says_so(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from serve_ray import build

    check_health = build({"models": MODEL})._bound_deployment.func_or_class.check_health
    replica = SimpleNamespace(app=create_app({MODEL: reviewgen.load(MODEL)}))  # Ray makes it in a process of its own
    service = replica.app.state.service
    asyncio.run(check_health(replica))
    service.engines[MODEL].close()
    with pytest.raises(RuntimeError, match=f"The engine of {MODEL} has stopped"):
        asyncio.run(check_health(replica))
