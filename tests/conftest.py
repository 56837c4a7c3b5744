"""What all tests share: one token cache, models that are trained once, and type checks at run time
where they are asked for.

``REVIEWGEN_CHECK_TYPES=1`` (``make test-all``) checks every annotation and shape of the packages
while the tests run.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from jaxtyping import install_import_hook

from tests.support.browser import launched, why_none
from tests.support.launches import made_once

if TYPE_CHECKING:
    from reviewgen import ReviewModel

PACKAGES = [
    "reviewgen",
    "reviewgen_mixing",
    "reviewgen_ngram",
    "reviewgen_nnlm",
    "reviewgen_recurrent",
    "reviewgen_transformer",
]
# before the packages are imported; an int may stand for a float (PEP 484)
if os.environ.get("REVIEWGEN_CHECK_TYPES"):
    install_import_hook(
        PACKAGES, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
    )

# the workers share the cores, and tiny products are far slower on several threads; before torch is
# imported, which reads it
os.environ.setdefault("OMP_NUM_THREADS", "1")
# a shell's background job ignores it, and so would its children
signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("tests", deadline=None, max_examples=20, derandomize=True)
hypothesis.settings.load_profile("tests")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test of what this system does not have."""
    for name, has in {"linux": sys.platform == "linux", "posix": os.name == "posix"}.items():
        if not has and item.get_closest_marker(name):
            pytest.skip(f"needs {name}")


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Encode each corpus once for all tests and workers."""
    folder = made_once(tmp_path_factory, "cache", lambda _: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REVIEWGEN_CACHE", str(folder))
        yield


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty token cache for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("REVIEWGEN_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory, shared_cache: None
) -> Callable[[str], Path]:
    """The saved folder of a micro model by name (``tests.support.models``), made once for all
    workers; read it only.
    """
    from tests.support.models import make_model  # after the hook, as all that imports reviewgen

    return lambda name: (
        made_once(tmp_path_factory, f"model-{name}", lambda folder: make_model(name, folder))
        / "model"
    )


@pytest.fixture(scope="session")
def micro(model_folder: Callable[[str], Path]) -> "Callable[[str], ReviewModel]":
    """A trained micro model by name (``tests.support.models``), loaded once for each worker; do not
    change it.
    """
    import reviewgen

    loaded: dict[str, reviewgen.ReviewModel] = {}

    def load(name: str) -> reviewgen.ReviewModel:
        if name not in loaded:
            loaded[name] = reviewgen.load(model_folder(name))
        return loaded[name]

    return load


@pytest.fixture
def untouched_registry() -> Iterator[None]:
    """An empty registry for one test; its fake modules are removed afterwards."""
    from reviewgen.registry.plugins import unregister_all

    unregister_all()
    yield
    unregister_all()
    for name in [name for name in sys.modules if name.startswith("fake")]:
        del sys.modules[name]


@pytest.fixture
def install(
    untouched_registry: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Return a function that writes a package with entry points and modules, and puts it on the
    path.
    """
    from tests.support.distributions import write_distribution

    def write(package: str, *content: Any, **options: str) -> Path:
        site = write_distribution(tmp_path / package, package, *content, **options)
        monkeypatch.syspath_prepend(str(site))
        return site

    return write


@pytest.fixture
def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command in this process, and returns its status and what it
    said on standard output and standard error.
    """
    from tests.support.fakes import run_command

    return functools.partial(run_command, monkeypatch, capsys)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A headless Chromium; skips where there is none."""
    if reason := why_none():
        pytest.skip(reason)
    with launched() as running:
        yield running
