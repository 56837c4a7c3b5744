"""Waits for the Hub are bounded, and an answer of the Hub is told apart from a Hub that was not reached."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

import reviewgen
from reviewgen.errors import ConfigError, HubError
from reviewgen.hub_client import guard_client

URL = "https://huggingface.co/api/models/ana/reviews"


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that sets the status and headers with which the client of this process is answered."""

    def answer(status: int, headers: Any = None) -> None:
        response = httpx.MockTransport(lambda request: httpx.Response(status, headers=headers or {}))
        huggingface_hub.set_client_factory(lambda: httpx.Client(transport=response))
        guard_client()

    yield answer
    huggingface_hub.set_client_factory(httpx.Client)
    huggingface_hub.close_session()


def test_a_long_wait_is_refused_with_its_length_and_a_short_one_left_to_the_client(answering: Any) -> None:
    for status, headers in (429, {"Retry-After": "3600"}), (503, {"Retry-After": "250"}), (429, {"ratelimit": '"api";r=0;t=250'}):
        answering(status, headers)
        with pytest.raises(HubError, match=r"huggingface\.co answers no more requests for (3,600|250) seconds"):
            huggingface_hub.get_session().get(URL)
    for short in {}, {"Retry-After": "2"}, {"Retry-After": "Wed, 21 Oct"}:
        answering(429, short)
        assert huggingface_hub.get_session().get(URL).status_code == 429


@pytest.mark.parametrize("token", ["a b", " a", "", "a\n", "é", "a\x1b"])
def test_a_token_that_no_header_can_hold_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="token"):
        reviewgen.load("ana/reviews", token=token)


def test_what_failed_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def said(error: Exception, **options: Any) -> str:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
        with pytest.raises(HubError) as raised:
            reviewgen.load("ana/reviews", cache_dir=tmp_path, **options)
        assert len(str(raised.value)) < 500
        return str(raised.value)

    assert "has another form than the Hub's" in said(KeyError("url"), force_download=True)
    for error in (httpx.ConnectError("[Errno -2] Name or service not known"), ConnectionRefusedError(111, "Connection refused")):
        for options in ({}, {"force_download": True}):
            sentence = said(error, **options)
            assert "was not reached" in sentence and "presets with installed weights" in sentence
    for status in (403, 404, 500):
        response = httpx.Response(status, request=httpx.Request("GET", URL))
        sentence = said(HfHubHTTPError("no", response=response))
        assert "not reached" not in sentence and str(status) in sentence
