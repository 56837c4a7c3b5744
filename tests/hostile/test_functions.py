"""The fuzzer of calls knows every public function and method, also one that is added later."""

import inspect

import pytest

import reviewgen
from reviewgen import export
from tests.hostile.functions import TEXTS, list_functions

NOT_CALLED_BY_USERS = {"Comparison", "Explanation", "Comparison.add", "TrainingRun.start_on", "ReviewModel"}
"""What takes only values that the package has made itself, such as a measured row."""

RESULTS = {"OnnxExport"}


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> set[object]:
    """Return the functions that the fuzzer calls."""
    folder = tmp_path_factory.mktemp("functions")
    model = reviewgen.train("ngram-char", TEXTS, progress=False, steps=1, out=folder / "n")
    functions = list_functions({"ngram": model, "gru": model}, folder)
    return {getattr(function, "__func__", function) for function, _ in functions.values()}


def public_functions() -> dict[str, object]:
    """Return the public functions, the classes and the methods of the package that have arguments, by name."""
    found = {}
    for module in (reviewgen, export):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) and not issubclass(value, BaseException) and name not in RESULTS:
                found |= {name: value, **{f"{name}.{own}": each for own, each in methods_of(value).items()}}
            elif inspect.isfunction(value):
                found[name] = value
    return {name: value for name, value in found.items() if inspect.isclass(value) or has_arguments(value)}


def methods_of(cls: type) -> dict[str, object]:
    values = {name: getattr(value, "__func__", value) for name, value in vars(cls).items() if not name.startswith("_")}
    return {name: value for name, value in values.items() if inspect.isfunction(value)}


def has_arguments(function: object) -> bool:
    return bool(inspect.signature(function).parameters.keys() - {"self", "cls"})


def test_each_public_function_is_called(called):
    functions = public_functions()
    assert len(functions) > 35
    missing = {name for name, function in functions.items() if function not in called} - NOT_CALLED_BY_USERS
    assert not missing, f"add to tests/hostile/functions.py: {sorted(missing)}"
    assert functions.keys() >= NOT_CALLED_BY_USERS, "of these, some are gone"


def test_a_function_that_is_not_called_is_found(called, monkeypatch):
    monkeypatch.setattr(reviewgen.ReviewModel, "invent", lambda self, text: text, raising=False)
    assert {"ReviewModel.invent"} == {
        name for name, function in public_functions().items() if function not in called
    } - NOT_CALLED_BY_USERS
