"""The server with the ``llm`` command, which calls it through its OpenAI-compatible models."""

import json
import re
from pathlib import Path

import pytest
import yaml

from reviewgen.serving.keys import ApiKeys
from tests.support.fakes import NGRAM, train_tiny
from tests.support.live_server import serve, slow_model

pytest.importorskip("llm", reason="the llm command is not installed: pip install llm")

KEY = "sk-of-the-tests-0123"
PAGE = (Path(__file__).parents[2] / "docs/how-to/serve.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return train_tiny("ngram-char", tmp_path_factory.mktemp("llm"), **NGRAM)


@pytest.fixture(scope="module")
def server(model):
    with serve({"mine": model, "slow": slow_model()}, keys=ApiKeys.of([KEY])) as running:
        yield running


@pytest.fixture
def ask(server, tmp_path, monkeypatch):
    """A function that runs the command with the server among its models, and returns what it prints."""
    from click.testing import CliRunner
    from llm.cli import cli

    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (entry,) = yaml.safe_load(shown.replace("http://127.0.0.1:8000", server.url))
    models = [entry | {"model_id": name, "model_name": name, "api_key_name": "mine"} for name in ("mine", "slow", "other")]
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    (tmp_path / "keys.json").write_text(json.dumps({"mine": KEY}))

    def run(*words, status=0):
        done = CliRunner().invoke(cli, list(words))
        assert done.exit_code == status, done.output
        return done.output

    return run


OPTIONS = ("-o", "seed", "7", "-o", "max_tokens", "20", "-o", "temperature", "0.7")


@pytest.mark.parametrize("streams", [True, False])
def test_it_writes_the_text_of_the_model(ask, model, streams):
    expected = model.generate_one("the ", seed=7, max_new_tokens=20, temperature=0.7)
    written = ask("-m", "mine", "the ", *OPTIONS, "--no-log", *([] if streams else ["--no-stream"]))
    assert "the " + written.removesuffix("\n") == expected


def test_it_logs_what_the_server_answered(ask):
    written = ask("-m", "mine", "the ", *OPTIONS, "--no-stream")
    (logged,) = json.loads(ask("logs", "--json", "-n", "1"))
    assert logged["response"] + "\n" == written
    answer = logged["response_json"]
    assert (json.loads(answer) if isinstance(answer, str) else answer)["model"] == "mine"


def test_an_error_of_the_server_is_shown_with_its_sentence(ask):
    output = ask("-m", "other", "the ", "--no-log", status=1)
    assert output.startswith("Error: ") and "other" in output and "mine" in output
    assert "max_tokens" in ask("-m", "mine", "the ", "-o", "max_tokens", "100000", "--no-log", status=1)


def test_a_key_that_is_not_the_server_s_is_refused(ask, tmp_path):
    (tmp_path / "keys.json").write_text(json.dumps({"mine": "sk-another-key"}))
    assert "API key" in ask("-m", "mine", "the ", "--no-log", status=1)
