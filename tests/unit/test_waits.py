"""Waits for the network are bounded and said, and what the Hub answers is told from a Hub that was not reached."""

import httpx
import pytest

from reviewgen.errors import ConfigError, HubError
from reviewgen.hub.problems import check_token, plain_errors
from reviewgen.hub_client import _check_response
from reviewgen.names import HubSource

SOURCE = HubSource("ana/reviews", None)
REQUEST = httpx.Request("GET", "https://huggingface.co/api/models/ana/reviews")


@pytest.mark.parametrize("headers", [{"Retry-After": "3600"}, {"ratelimit": '"api";r=0;t=250'}])
@pytest.mark.parametrize("status", [429, 503])
def test_a_long_wait_is_refused_with_its_length(headers: dict[str, str], status: int) -> None:
    if status == 503 and "ratelimit" in headers:
        headers = {"Retry-After": "250"}
    response = httpx.Response(status, headers=headers, request=REQUEST)
    with pytest.raises(HubError, match=r"huggingface\.co answers no more requests for (3,600|250) seconds") as raised:
        _check_response(response)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "2"}, {"Retry-After": "Wed, 21 Oct"}])
def test_a_short_wait_is_left_to_the_client(headers: dict[str, str]) -> None:
    _check_response(httpx.Response(429, headers=headers, request=REQUEST))


@pytest.mark.parametrize("token", ["a b", " a", "", "a\n", "é", "a\x1b"])
def test_a_token_that_no_header_takes(token: str) -> None:
    with pytest.raises(ConfigError, match="token"):
        check_token(token)


def said(error: Exception) -> str:
    """Return the sentence for an exception of the client."""
    with pytest.raises(HubError) as raised, plain_errors(SOURCE, "could not be published"):
        raise error
    assert len(str(raised.value)) < 500
    return str(raised.value)


def test_an_answer_of_another_form_is_said_in_words() -> None:
    assert "has another form than the Hub's" in said(KeyError("url"))


def test_a_hub_that_was_not_reached_is_named_with_what_works_offline() -> None:
    sentence = said(httpx.ConnectError("[Errno -2] Name or service not known"))
    assert "https://huggingface.co was not reached" in sentence and "presets with installed weights" in sentence


def test_the_errors_of_the_installed_client_are_those_of_a_connection() -> None:
    """Its HTTP library is not the same in all releases."""
    from huggingface_hub import HfApi

    sentence = r"was not reached \(Connection refused\)\. Without a network, presets"
    with pytest.raises(HubError, match=sentence), plain_errors(SOURCE, "could not be published"):
        HfApi("http://127.0.0.1:9", token=False).whoami(token="hf_x")


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_answer_is_not_called_a_hub_that_was_not_reached(status: int) -> None:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    missing = LocalEntryNotFoundError("not cached")
    missing.__cause__ = HfHubHTTPError("no", response=httpx.Response(status, request=REQUEST))
    sentence = said(missing)
    assert "not reached" not in sentence and str(status) in sentence
