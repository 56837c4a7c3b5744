"""What every test stands on: annotations checked at run time, and a token cache of its own."""

import hypothesis
import pytest
from jaxtyping import install_import_hook

from tests.browser import launched, why_none

PACKAGES = ["reviewgen", "reviewgen_ngram", "reviewgen_nnlm", "reviewgen_recurrent"]
# An int may stand where a float is asked for (PEP 484). The hook must be there before the packages are imported.
install_import_hook(PACKAGES, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

hypothesis.settings.register_profile("shared machine", deadline=None)  # a busy machine is no fault of the code
hypothesis.settings.load_profile("shared machine")


@pytest.fixture(autouse=True)
def token_cache(tmp_path, monkeypatch):
    """Keep the token cache of each test to itself."""
    monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; skips where there is none."""
    if reason := why_none():
        pytest.skip(reason)
    with launched() as running:
        yield running
