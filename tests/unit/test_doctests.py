"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import reviewgen

PLUGINS = ("reviewgen_char", "reviewgen_word", "reviewgen_ngram", "reviewgen_nnlm", "reviewgen_recurrent")


def modules() -> Iterator[str]:
    """Yield the names of all modules of the core and of the plugins."""
    for package in (reviewgen.__name__, *PLUGINS):
        yield package
        path = importlib.import_module(package).__path__
        yield from (info.name for info in pkgutil.walk_packages(path, f"{package}.") if not info.name.endswith("__main__"))


@pytest.mark.parametrize("name", sorted(modules()))
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
