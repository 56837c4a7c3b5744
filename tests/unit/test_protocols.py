"""The contracts as ``help()`` shows them: a third party reads them there."""

import inspect
import pydoc
import subprocess
import sys

import pytest

import reviewgen.protocols as protocols

CLASSES = [name for name in protocols.__all__ if inspect.isclass(getattr(protocols, name)) and name not in ("State", "StepState")]


@pytest.fixture(scope="module")
def page() -> str:
    """Return ``help(reviewgen.protocols)`` in a process that has not used any of its names."""
    script = "import pydoc, reviewgen.protocols; print(pydoc.plain(pydoc.render_doc(reviewgen.protocols)))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def words(text: str) -> str:
    """Return a text without line breaks and the bars of pydoc's margin."""
    return " ".join(text.replace("|", " ").split())


@pytest.mark.parametrize("name", CLASSES)
def test_help_shows_every_contract_with_its_docstring(page, name):
    assert f"class {name}(" in page
    doc = inspect.getdoc(getattr(protocols, name))
    assert doc and words(doc) in words(page)


@pytest.mark.parametrize("method", ["initial_state", "forward", "sample", "encode", "decode", "load_state_dict", "stepper"])
def test_help_shows_the_methods(page, method):
    assert f"{method}(" in page


@pytest.mark.parametrize(
    ("owner", "alias"),
    [("LanguageModel", "State"), ("Stepper", "StepState"), ("StepperFactory", "TensorSpec")],
)
def test_the_rules_of_an_alias_stand_in_a_class(owner, alias):
    """``help()`` shows no docstring of an alias."""
    assert f"``{alias}`` is" in inspect.getdoc(getattr(protocols, owner))


def test_every_member_of_a_contract_has_a_docstring():
    for name in CLASSES:
        owner = getattr(protocols, name)
        members = [member for key, member in vars(owner).items() if key == "__call__" or not key.startswith("_")]
        for member in members:
            inner = member.__func__ if isinstance(member, classmethod) else member
            if callable(inner) or isinstance(inner, property):
                assert pydoc.getdoc(inner), (name, inner)
