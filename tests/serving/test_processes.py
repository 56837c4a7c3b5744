"""Real processes: ``reviewgen serve`` and ``demo``, several workers, and what docs/how-to/deploy.md
puts around them.
"""

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from typer.main import get_command

import reviewgen
from reviewgen.cli import app
from reviewgen.serving.app import create_app
from reviewgen.serving.options import Limits
from reviewgen.serving.server import uvicorn_options
from tests.support.live_server import KEY, wait_for
from tests.support.servers import free_port, serving, started, wait_for_log

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs/how-to"
PAGE = (HOW_TO / "deploy.md").read_text(encoding="utf-8")
MODEL = "ngram-char"
REQUEST = {"model": MODEL, "prompt": "The movie", "max_tokens": 30, "seed": 1}


def block(language):
    """Return the code of the page in a language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return code


def completed(url, **fields):
    """Return the texts of a completion, with their prompts."""
    answer = httpx.post(f"{url.rstrip('/')}/v1/completions", json=fields, timeout=120)
    assert answer.status_code == 200, answer.text
    return [choice["reviewgen"]["text"] for choice in answer.json()["choices"]]


def expected():
    return reviewgen.load(MODEL).generate("The movie", max_new_tokens=30, seed=1)


# The commands


@pytest.fixture
def folder(model_folder, tmp_path):
    for name in ("mine", "copy"):
        shutil.copytree(model_folder("exact"), tmp_path / name)
    (tmp_path / "broken").mkdir()
    return tmp_path


def workers_of(process):
    """Return the ids of the processes that a server has started to serve, by what the system knows
    of them.
    """
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return {
        int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    }


@pytest.mark.server
@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_serves_what_loads_until_a_signal_ends_it(folder, micro, workers):
    words = ["serve", "./mine", "./broken", "two=./copy", "--workers", str(workers), "--port", "0"]
    log = folder / "log"
    with serving(words, log, cwd=folder) as said:
        url = said["url"]
        process = said["process"]
        assert said["models"] == ["mine", "two"] and "config.json" in said["failed"]["broken"]
        texts = micro("exact").generate("the ", seed=3, max_new_tokens=20)
        for _ in range(8):
            assert completed(url, model="two", prompt="the ", seed=3, max_tokens=20) == texts
        counted = 'reviewgen_requests_total{model="two",status="200"} 8.0'
        assert counted in httpx.get(f"{url}/metrics").text  # of all processes
        assert httpx.get(f"{url}/v1/models", headers={"Host": "a.example"}).status_code == 400
        if workers == 2 and Path("/proc").exists():  # one that cannot be replaced leaves the other
            killed = min(workers_of(process))
            (folder / "copy").rename(folder / "away")
            os.kill(killed, signal.SIGKILL)
            wait_for_log(log, lambda text: "A worker cannot start. ./copy cannot be served" in text)
            assert completed(url, model="two", prompt="the ", seed=3, max_tokens=20) == texts
            (folder / "away").rename(folder / "copy")
            wait_for(lambda: len(workers_of(process) - {killed}) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    said = log.read_text()
    assert "Traceback" not in said and said.count("broken is left out") == 1


@pytest.mark.server
@pytest.mark.parametrize(
    "head", [b"", b"GET /health HTTP/1.1\r\nHos"], ids=["silent", "half a header"]
)
def test_many_connections_without_a_request_do_not_keep_others_out(folder, head):
    prefix = ["sh", "-c", 'ulimit -n 200; exec "$0" "$@"']
    log = folder / "log"
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(
            serving(["serve", "./mine", "--port", "0"], log, cwd=folder, prefix=prefix)
        )
        for _ in range(260):
            connection = stack.enter_context(
                socket.create_connection(("127.0.0.1", httpx.URL(said["url"]).port))
            )
            connection.sendall(head)
        assert httpx.get(f"{said['url']}/health", timeout=20).json() == {"status": "ok"}
        assert "Traceback" not in log.read_text() and log.stat().st_size < 1000


@pytest.mark.server
@pytest.mark.linux
def test_connections_that_cannot_be_accepted_are_one_line_of_the_log(folder):
    import resource

    log = folder / "log"
    with serving(["serve", "./mine", "--port", "0"], log, cwd=folder) as said:
        pid = said["process"].pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        opened = len([*Path(f"/proc/{pid}/fd").iterdir()])
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened, limits[1]))
        with pytest.raises(httpx.ReadTimeout):
            # asyncio tries to accept it each second
            httpx.get(f"{said['url']}/health", timeout=2.5)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        assert httpx.get(f"{said['url']}/health", timeout=20).status_code == 200
        logged = log.read_text()
        assert (
            "Traceback" not in logged
            and logged.count("Too many open files") == logged.count("ERROR") == 1
        )


@pytest.mark.server
def test_the_command_prints_a_command_that_calls_it(folder):
    (folder / "mine").rename(folder / "it's <mine>")
    (folder / "keys").write_text(KEY)
    words = ["serve", "./it's <mine>", "--port", "0", "--api-key-file", "keys"]
    log = folder / "log"
    with started([sys.executable, "-u", "-m", "reviewgen", *words], log, cwd=folder):
        text = wait_for_log(log, lambda text: "-d" in text and text.endswith("\n\n"))
        command = text[text.index("curl") :]
        done = subprocess.run(
            ["sh", "-c", command], env=os.environ | {"KEY": KEY}, capture_output=True, text=True
        )
        assert (
            json.loads(done.stdout)["model"] == "it's <mine>"
            and KEY not in command
            and "chmod 600" in text
        )


@pytest.mark.server
@pytest.mark.parametrize("status", [0, 1])
def test_the_demo_opens_its_page_or_names_its_address(folder, status):
    script = folder / "browser"
    opened = folder / "opened"
    log = folder / "log"
    script.write_text(f'#!/bin/sh\necho "$1" >> {opened}\nexit {status}\n')
    script.chmod(0o755)
    nothing = {"BROWSER": f"{script} %s"} | ({"PATH": "", "DISPLAY": ""} if status else {})
    with serving(["demo", "./mine", "./broken"], log, os.environ | nothing, folder) as said:
        url = said["url"]
        process = said["process"]
        assert (
            said["models"] == ["mine"]
            and "broken" in said["failed"]
            and url.startswith("http://127.0.0.1:")
        )
        assert (
            "<html" in httpx.get(url).text
            and httpx.get(url, headers={"Host": "evil.example"}).status_code == 400
        )
        wait_for(opened.exists)
        assert opened.read_text() == f"{url}\n"
        if status:
            wait_for_log(
                log,
                lambda text: (
                    f"No browser was found: open {url} yourself." in " ".join(text.split())
                ),
            )
        body = {
            "model": "mine",
            "prompt": ["the "] * 64,
            "max_tokens": 4000,
            "min_tokens": 4000,
            "stream": True,
        }
        with httpx.stream("POST", f"{url}v1/completions", json=body, timeout=300) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            # a text that is being written does not hold up the end
            process.send_signal(signal.SIGINT)
            assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
        assert process.wait(60) == 0 and "Traceback" not in log.read_text()


# docs/how-to/deploy.md

DEPLOYMENT, SERVICE = yaml.safe_load_all(block("yaml"))
POD = DEPLOYMENT["spec"]["template"]
CONTAINER = POD["spec"]["containers"][0]


@pytest.mark.server
def test_kubernetes_accepts_the_objects():
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="pip install kubernetes-validate"
    )
    for each in DEPLOYMENT, SERVICE:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_the_probes_of_kubernetes_are_routes_of_the_server():
    routes = {route.path for route in create_app({}).routes}
    probes = {
        name: CONTAINER[name]["httpGet"]
        for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert (probes["livenessProbe"]["path"], probes["readinessProbe"]["path"]) == (
        "/health",
        "/ready",
    )
    assert {each["path"] for each in probes.values()} | set(
        re.findall(r"^\| `GET (\S+)`", PAGE, re.MULTILINE)
    ) <= routes
    assert {each["port"] for each in probes.values()} == {CONTAINER["ports"][0]["name"]}


def test_the_objects_of_kubernetes_fit_each_other():
    (port,) = CONTAINER["ports"]
    assert SERVICE["spec"]["ports"][0]["targetPort"] == port["name"]
    assert (
        SERVICE["spec"]["selector"]
        == DEPLOYMENT["spec"]["selector"]["matchLabels"]
        == POD["metadata"]["labels"]
    )


def test_the_arguments_of_the_container_are_those_of_the_command():
    (port,) = CONTAINER["ports"]
    assert block("dockerfile").splitlines()[-1] == 'ENTRYPOINT ["reviewgen"]'
    name, *words = CONTAINER["args"]
    given = get_command(app).commands[name].make_context(name, words).params
    key_file = Path(given["api_key_file"])  # earlier versions of typer have a str here
    assert (given["port"], given["host"]) == (port["containerPort"], "0.0.0.0")
    mounted = POD["spec"]["volumes"][0]["name"], CONTAINER["volumeMounts"][0]["mountPath"]
    assert (
        mounted == (CONTAINER["volumeMounts"][0]["name"], str(key_file.parent))
        and f"> {key_file.name}\n" in PAGE
    )


def test_the_container_has_time_to_end_its_requests():
    before = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["spec"]["terminationGracePeriodSeconds"] > before + Limits().shutdown_seconds
    assert int(re.search(r"proxy_read_timeout (\d+)s", PAGE)[1]) > Limits().request_seconds


def test_the_commands_of_the_pages_are_ours():
    for page in ("deploy", "serve"):
        text = (HOW_TO / f"{page}.md").read_text(encoding="utf-8")
        lines = re.findall(r"^(?:\$ )?reviewgen ((?:serve|demo).*)$", text, re.MULTILINE)
        assert lines
        for name, *words in map(shlex.split, lines):
            # raises if an option is unknown
            get_command(app).commands[name].make_context(name, words)


@pytest.mark.server
def test_replicas_of_ray_write_the_text_of_the_model(monkeypatch):
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'ray[serve]'")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from serve_ray import build

    (line,) = re.findall(r"^serve run examples.serve_ray:build (.+)$", PAGE, re.MULTILINE)
    check_health = build(
        dict(word.split("=", 1) for word in line.split())
    )._bound_deployment.func_or_class.check_health
    # Ray makes it in a process of its own
    replica = SimpleNamespace(app=create_app({MODEL: reviewgen.load(MODEL)}))
    asyncio.run(check_health(replica))
    replica.app.state.service.close()
    with pytest.raises(RuntimeError, match=f"The engine of {MODEL} has stopped"):
        asyncio.run(check_health(replica))
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    # a socket's path must be short
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        log = Path(folder) / "log"
        words = [
            str(ROOT / "examples/serve_ray.py"),
            MODEL,
            "--port",
            str(port),
            "--replicas",
            "2",
            "--cpus",
            "0.1",
        ]
        with started(
            [sys.executable, *words], log, os.environ | quiet | {"RAY_TMPDIR": folder}
        ) as process:
            wait_for(
                lambda: (
                    process.poll() is not None
                    or subprocess.run(["curl", "-sf", f"{url}/ready"]).returncode == 0
                )
            )
            with ThreadPoolExecutor(8) as threads:
                assert (
                    list(threads.map(lambda _: completed(url, **REQUEST), range(32)))
                    == [expected()] * 32
                )
        assert process.returncode == 0 and "Traceback" not in log.read_text(encoding="utf-8")


@pytest.mark.posix
def test_connections_are_limited_although_more_files_may_be_open(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda _: -1)  # as on macOS, without a limit
    assert uvicorn_options(Limits())["limit_concurrency"] == 1000
