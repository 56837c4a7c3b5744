"""An answer of the Hub is told apart from a Hub that was not reached, and a wrong token is refused."""

from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

import reviewgen
from reviewgen.errors import ConfigError, HubError

URL = "https://huggingface.co/api/models/ana/reviews"


@pytest.mark.parametrize("token", ["a b", "", "é", "a\x1b"])
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
        sentence = said(error)
        assert "was not reached" in sentence and "presets with installed weights" in sentence
    for status in (403, 404, 500):
        response = httpx.Response(status, request=httpx.Request("GET", URL))
        sentence = said(HfHubHTTPError("no", response=response))
        assert "not reached" not in sentence and str(status) in sentence
