"""The checks of an installed plugin, as tests: ``pytest --pyargs reviewgen.testing --plugin NAME``.

A test is one check or one law; ``-k causal`` selects by their names. ``reviewgen plugin check
NAME`` runs the same.
"""

from collections.abc import Callable
from typing import Any

from reviewgen.compiled.jit import compiling_notice
from reviewgen.testing.plugin import checks_of


def pytest_generate_tests(metafunc: Any) -> None:
    """Make a test for each check of the plugin that the option names."""
    name = metafunc.config.getoption("plugin")
    checks = dict(checks_of(name)) if name else {}
    metafunc.parametrize("check", checks.values(), ids=checks.keys())


def test_plugin(check: Callable[[], object]) -> None:
    """Run a check; it raises if a law is broken."""
    with compiling_notice.silenced():
        check()
