"""The option ``--plugin`` of pytest, for the checks in ``test_plugin``: a plugin of pytest itself, in its group ``pytest11``."""

from typing import Any


def pytest_addoption(parser: Any) -> None:
    """Add the option."""
    parser.getgroup("reviewgen").addoption("--plugin", metavar="NAME", help="what `pytest --pyargs reviewgen.testing` checks")
