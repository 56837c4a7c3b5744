"""A plugin of pytest, in the entry point group ``pytest11``. It adds the option ``--plugin``, for
the checks in ``test_plugin``.
"""

from typing import Any


def pytest_addoption(parser: Any) -> None:
    """Add the option."""
    parser.getgroup("reviewgen").addoption(
        "--plugin", metavar="NAME", help="what `pytest --pyargs reviewgen.testing` checks"
    )


def pytest_configure(config: Any) -> None:
    """Refuse the name of a plugin that is not installed."""
    if config.getoption("plugin") is not None:
        from pytest import UsageError

        from reviewgen.errors import UnknownPlugin
        from reviewgen.testing.plugin import resolve_plugin

        try:
            resolve_plugin(config.getoption("plugin"))
        except UnknownPlugin as problem:
            raise UsageError(str(problem)) from None
