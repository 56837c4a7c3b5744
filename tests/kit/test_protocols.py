"""The contracts as ``help()`` shows them: third parties read them there."""

import inspect
import pydoc
import subprocess
import sys

import pytest

import reviewgen.protocols as protocols

CLASSES = [name for name in protocols.__all__ if inspect.isclass(getattr(protocols, name)) and name not in ("State", "StepState")]


@pytest.mark.slow
def test_help_shows_every_contract_with_its_docstring_and_methods() -> None:
    script = "import pydoc, reviewgen.protocols; print(pydoc.plain(pydoc.render_doc(reviewgen.protocols)))"
    page = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    text = " ".join(page.replace("|", " ").split())  # without line breaks and the bars of the margin
    docs = {name: " ".join((inspect.getdoc(getattr(protocols, name)) or "?").replace("|", " ").split()) for name in CLASSES}
    assert [name for name, doc in docs.items() if f"class {name}(" not in text or doc not in text] == []
    methods = ["initial_state", "forward", "sample", "encode", "decode", "load_state_dict", "stepper"]
    assert [method for method in methods if f"{method}(" not in page] == []


def test_every_member_has_a_docstring_and_the_rules_of_an_alias_stand_in_a_class() -> None:
    owners = [getattr(protocols, name) for name in CLASSES]
    members = [value for owner in owners for key, value in vars(owner).items() if key == "__call__" or not key.startswith("_")]
    plain = [member.__func__ if isinstance(member, classmethod) else member for member in members]
    assert [each for each in plain if (callable(each) or isinstance(each, property)) and not pydoc.getdoc(each)] == []
    for owner, alias in ("LanguageModel", "State"), ("Stepper", "StepState"), ("StepperFactory", "TensorSpec"):
        assert f"``{alias}`` is" in str(inspect.getdoc(getattr(protocols, owner)))  # help() shows no docstring of an alias
