"""docs/how-to/deploy.md: its Kubernetes objects are valid and fit the server; its nginx configuration spreads real requests."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

import reviewgen
from reviewgen.cli import app
from reviewgen.serving.app import create_app
from reviewgen.serving.limits import Limits
from tests.support.servers import free_port, post, serving, started, wait_until_it_answers

HOW_TO = Path(__file__).parents[2] / "docs/how-to"
PAGE = (HOW_TO / "deploy.md").read_text(encoding="utf-8")
MODEL = "ngram-char"


def block(language):
    """Return the code of the page in a language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return code


DEPLOYMENT, SERVICE = yaml.safe_load_all(block("yaml"))
POD = DEPLOYMENT["spec"]["template"]
CONTAINER = POD["spec"]["containers"][0]
ROUTES = {route.path for route in create_app({}).routes}


def test_kubernetes_accepts_the_objects():
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for each in DEPLOYMENT, SERVICE:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_probe_asks_for_a_page_of_the_server(probe):
    question = CONTAINER[probe]["httpGet"]
    assert question["path"] in ROUTES
    assert question["port"] in {port["name"] for port in CONTAINER["ports"]}


def test_a_replica_is_restarted_for_its_health_and_called_when_it_is_ready():
    assert CONTAINER["livenessProbe"]["httpGet"]["path"] == "/health"
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == "/ready"


def test_the_command_of_the_container_is_one_of_ours():
    assert block("dockerfile").splitlines()[-1] == 'ENTRYPOINT ["reviewgen"]'
    name, *words = CONTAINER["args"]
    given = get_command(app).commands[name].make_context(name, words).params
    key_file = Path(given["api_key_file"])  # earlier versions of typer have a str here
    assert given["port"] == CONTAINER["ports"][0]["containerPort"]
    assert given["host"] == "0.0.0.0"
    mounted = POD["spec"]["volumes"][0]["name"], CONTAINER["volumeMounts"][0]["mountPath"]
    assert mounted == (CONTAINER["volumeMounts"][0]["name"], str(key_file.parent))
    assert f"> {key_file.name}\n" in PAGE  # the file that becomes the Secret


@pytest.mark.parametrize("page", ["deploy", "serve"])
def test_the_commands_of_the_pages_are_ours(page):
    text = (HOW_TO / f"{page}.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:\$ )?reviewgen ((?:serve|demo).*)$", text, re.MULTILINE)
    assert lines
    for name, *words in map(shlex.split, lines):
        get_command(app).commands[name].make_context(name, words)  # raises if an option is unknown


def test_the_service_leads_to_the_pods():
    labels = POD["metadata"]["labels"]
    assert SERVICE["spec"]["selector"] == DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert SERVICE["spec"]["ports"][0]["targetPort"] == CONTAINER["ports"][0]["name"]


def test_there_is_time_to_end_the_requests():
    before = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["spec"]["terminationGracePeriodSeconds"] > before + Limits().shutdown_seconds
    assert int(re.search(r"proxy_read_timeout (\d+)s", PAGE)[1]) > Limits().request_seconds


def test_the_pages_of_the_table_exist():
    assert set(re.findall(r"^\| `GET (\S+)`", PAGE, re.MULTILINE)) <= ROUTES


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """Two servers; the second one can be ended."""
    folder = tmp_path_factory.mktemp("replicas")
    with (
        serving(["serve", MODEL, "--port", "0"], folder / "1") as one,
        serving(["serve", MODEL, "--port", "0"], folder / "2") as two,
    ):
        yield one, two


@pytest.fixture(scope="module")
def nginx(replicas, tmp_path_factory):
    """The URL of an nginx with the page's configuration in front of the two."""
    if (program := shutil.which("nginx")) is None:
        pytest.skip("nginx is not installed")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    site = block("nginx").replace("listen 80", f"listen 127.0.0.1:{port}")
    for address, replica in zip(re.findall(r"\d+\.\d+\.\d+\.\d+:8000", site), replicas, strict=True):
        site = site.replace(address, replica["url"].removeprefix("http://"))
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    settings = f"pid {folder}/pid;\ndaemon off;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{site}}}\n"
    (folder / "nginx.conf").write_text(settings)
    log = folder / "log"
    with started([program, "-c", str(folder / "nginx.conf"), "-e", "stderr"], log) as process:
        wait_until_it_answers(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}"


def test_a_server_of_this_machine_answers_to_its_own_names_only(replicas):
    import httpx

    url = replicas[0]["url"]
    statuses = {host: httpx.get(f"{url}/v1/models", headers={"Host": host}).status_code for host in ("evil.example", "localhost")}
    assert statuses == {"evil.example": 421, "localhost": 200}


def test_a_stream_comes_whole_through_nginx(nginx):
    import openai

    client = openai.OpenAI(base_url=f"{nginx}/v1", api_key="none", max_retries=0)
    chunks = client.completions.create(model=MODEL, prompt="The movie", max_tokens=400, seed=1, stream=True)
    text = "The movie" + "".join(chunk.choices[0].text for chunk in chunks)
    assert text == reviewgen.load(MODEL).generate_one("The movie", max_new_tokens=400, seed=1)


def test_streams_ask_nginx_not_to_buffer_them(replicas):
    import httpx

    body = {"model": MODEL, "prompt": "The movie", "max_tokens": 5, "stream": True}
    with httpx.stream("POST", f"{replicas[0]['url']}/v1/completions", json=body) as answer:
        assert answer.headers["X-Accel-Buffering"] == "no"


def test_nginx_goes_on_without_a_replica(nginx, replicas):
    body = {"model": MODEL, "prompt": "The movie", "max_tokens": 5, "seed": 1}
    before = [post(f"{nginx}/v1/completions", body)["choices"][0]["text"] for _ in range(4)]
    replicas[1]["process"].terminate()
    replicas[1]["process"].wait(60)
    after = [post(f"{nginx}/v1/completions", body)["choices"][0]["text"] for _ in range(8)]
    assert len({*before, *after}) == 1
