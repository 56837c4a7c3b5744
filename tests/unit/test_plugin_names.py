"""Names that several packages provide, the version of the contract, and what is known of packages without importing them."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reviewgen.config import Preset
from reviewgen.errors import BrokenPlugin, PluginConflict, ReviewgenError, UnknownPlugin
from reviewgen.registry import (
    describe_plugin,
    find_model,
    find_preset,
    find_stepper,
    find_tokenizer,
    find_web_stepper,
    find_web_tokenizer,
    find_weights,
    list_plugins,
    register_model,
    register_tokenizer,
)
from tests.support.distributions import Install, install, untouched_registry

__all__ = ["install", "untouched_registry"]  # the fixtures

EMPTY = "class Model: pass\n"


def said_by(call: Callable[[], object], error: type[ReviewgenError]) -> str:
    """Return the message of an error, which is one sentence or two on one line."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert len(message) < 500 and "\n" not in message
    return message


def rows(kind: str, name: str) -> dict[str, str | None]:
    """Return the problem of each package that has a name."""
    return {plugin.package: plugin.problem for plugin in list_plugins(kind) if plugin.name == name}


def test_a_reserved_name_is_not_taken_by_a_third_party(install: Install) -> None:
    points = {
        "models": {"gru": "fake_thief:Model"},
        "tokenizers": {"char": "fake_thief:Model"},
        "steppers": {"gru": "fake_thief:Model", "lstm": "fake_thief:Model"},
        "presets": {"gru-char": "fake_thief:PRESET"},
        "weights": {"gru-char": "fake_thief.weights"},
    }
    install("reviewgen-thief", points, {"fake_thief": "from reviewgen.config import Preset\n" + EMPTY + "PRESET = None\n"})
    for find in (find_model, find_tokenizer):
        name = "gru" if find is find_model else "char"
        loaded, plugin = find(name)
        assert (plugin.package, plugin.problem) == ("reviewgen", None) and loaded.__module__.startswith("reviewgen_")
    for name in ("gru", "lstm", "reviewgen:gru"):
        assert find_stepper(name).__module__ == "reviewgen_recurrent.stepping"
    assert find_preset("gru-char").model == "gru"
    assert find_weights("gru-char").parent.name == "reviewgen_weights"
    assert "fake_thief" not in sys.modules
    for kind, name in (
        ("model", "gru"),
        ("tokenizer", "char"),
        ("stepper", "gru"),
        ("preset", "gru-char"),
        ("weights", "gru-char"),
    ):
        problem = f"the name is reserved for the {kind} of reviewgen: write reviewgen-thief:{name}"
        assert rows(kind, name) == {"reviewgen": None, "reviewgen-thief": problem}
    assert find_model("reviewgen-thief:gru")[0].__module__ == "fake_thief"
    assert find_stepper("reviewgen-thief:gru").__module__ == "fake_thief"
    assert find_preset("reviewgen-thief:gru-word") == Preset(model="reviewgen-thief:gru", tokenizer="word")
    assert find_preset("gru-Reviewgen.Thief:char") == Preset(model="gru", tokenizer="Reviewgen.Thief:char")


def test_one_of_two_packages_is_named(install: Install) -> None:
    for which in ("one", "two"):
        points = {
            "models": {"twin": f"fake_{which}:Model"},
            "tokenizers": {"bytes": f"fake_{which}:Model"},
            "presets": {"twin-char": f"fake_{which}:PRESET"},
        }
        code = f"from reviewgen.config import Preset\n{EMPTY}PRESET = Preset(model='twin', tokenizer='char')\n"
        install(f"reviewgen-{which}", points, {f"fake_{which}": code})
    assert find_model("reviewgen-two:twin")[0].__module__ == "fake_two"
    assert find_tokenizer("reviewgen_One:bytes")[0].__module__ == "fake_one"
    assert describe_plugin("model", "reviewgen-two:twin").name == "twin"
    assert find_preset("reviewgen-two:twin-char") == Preset(model="reviewgen-two:twin", tokenizer="char")
    assert find_preset("reviewgen-one:twin-word") == Preset(model="reviewgen-one:twin", tokenizer="word")
    assert find_preset("reviewgen-one:twin-reviewgen-two:bytes").tokenizer == "reviewgen-two:bytes"
    assert said_by(lambda: find_preset("twin-char"), PluginConflict) == (
        "The packages reviewgen-one and reviewgen-two provide the preset 'twin-char'. "
        "Name one of them: reviewgen-one:twin-char or reviewgen-two:twin-char."
    )
    assert said_by(lambda: find_preset("gru-bytes"), PluginConflict).startswith(
        "The packages reviewgen-one and reviewgen-two provide the tokenizer 'bytes'."
    )
    assert find_preset("gru-char").model == "gru"


def test_a_distribution_that_does_not_have_the_name(install: Install) -> None:
    install("reviewgen-one", {"models": {"twin": "fake_one:Model"}}, {"fake_one": EMPTY})
    assert said_by(lambda: find_model("reviewgen-oen:twin"), UnknownPlugin) == (
        "No installed package reviewgen-oen provides the model 'twin'. Of third parties: Did you mean 'reviewgen-one:twin'? "
        "Known: reviewgen-one:twin."
    )
    assert said_by(lambda: find_preset("reviewgen-one:gru-char"), UnknownPlugin).startswith(
        "There is no preset 'reviewgen-one:gru-char'."
    )


def test_a_list_of_very_many_names_is_cut(install: Install) -> None:
    install("reviewgen-many", {"models": {f"many{number}": "fake_many:Model" for number in range(60)}}, {"fake_many": EMPTY})
    said = said_by(lambda: find_model("many99"), UnknownPlugin)
    assert said.startswith("No installed package provides the model 'many99'. Did you mean 'many") and " more." in said


def test_a_registered_model_goes_before_a_third_party_s(install: Install) -> None:
    install("reviewgen-one", {"models": {"twin": "fake_one:Model"}}, {"fake_one": EMPTY})

    class Mine: ...

    register_model("twin", Mine)
    assert find_model("twin")[0] is Mine
    assert find_model("reviewgen-one:twin")[0].__module__ == "fake_one"
    assert rows("model", "twin") == {
        "(this process)": None,
        "reviewgen-one": "the name is registered in this process: write reviewgen-one:twin",
    }


def test_a_stepper_is_that_of_the_model_s_own_package(install: Install) -> None:
    install("reviewgen-one", {"models": {"twin": "fake_one:Model"}}, {"fake_one": EMPTY})
    install("reviewgen-two", {"steppers": {"twin": "fake_two:Model"}}, {"fake_two": EMPTY})
    assert find_stepper("twin") is None
    assert find_stepper("nothing") is None
    assert "fake_two" not in sys.modules


def test_javascript_is_that_of_the_model_s_own_package(install: Install) -> None:
    code = (
        EMPTY
        + "from pathlib import Path\nSTEPPER, LOST, TEXT = Path(__file__).with_name('one.js'), Path('/no/such.js'), 'one.js'\n"
    )
    names = {"twin": "fake_one:STEPPER", "lost": "fake_one:LOST", "text": "fake_one:TEXT"}
    models = dict.fromkeys([*names, "bare"], "fake_one:Model")
    site = install("reviewgen-one", {"models": models, "web_steppers": names}, {"fake_one": code})
    (site / "one.js").write_text("export default () => 1;")
    install("reviewgen-two", {"web_steppers": {"bare": "fake_two:STEPPER", "gru": "fake_two:STEPPER"}}, {"fake_two": EMPTY})
    assert find_web_stepper("twin") == site / "one.js"
    assert find_web_stepper("bare") is find_web_stepper("nothing") is None
    assert find_web_stepper("gru").parent.name == "reviewgen_recurrent" and "fake_two" not in sys.modules
    assert find_web_tokenizer("word").parent.name == "reviewgen_word"
    for name in ("lost", "text"):
        with pytest.raises(BrokenPlugin, match="must be the Path of an existing JavaScript file"):
            find_web_stepper(name)


# --- the version of the contract


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ("1.0", None),
        ("1", None),
        ("1.99", None),
        (
            "2.0",
            "it is written for version 2.0 of the plugin contract, and this reviewgen has version 1.0; upgrade reviewgen",
        ),
        (
            "0.9",
            "it is written for version 0.9 of the plugin contract, and this reviewgen has version 1.0; upgrade reviewgen-fake",
        ),
        ("one", "the version of the plugin contract that it declares must be of the form major.minor; got 'one'"),
    ],
)
def test_another_major_version_is_refused_before_import(install: Install, declared: str, problem: str | None) -> None:
    points = {"models": {"fakemodel": "fake_good:Model"}, "api": {declared: "reviewgen.protocols"}}
    install("reviewgen-fake", points, {"fake_good": EMPTY})
    (listed,) = [plugin for plugin in list_plugins("model") if plugin.name == "fakemodel"]
    assert (listed.api_version, listed.problem) == (declared, problem)
    if problem is None:
        assert find_model("fakemodel")[0].__module__ == "fake_good"
        return
    assert said_by(lambda: find_model("fakemodel"), BrokenPlugin) == (
        f"The model 'fakemodel' of reviewgen-fake 1.2.3 cannot be used: {problem}."
    )
    assert "fake_good" not in sys.modules


def test_weights_of_another_major_version_are_not_called_missing(install: Install) -> None:
    points = {"weights": {"a-fake": "fakeweights.a"}, "api": {"2.0": "reviewgen.protocols"}}
    install("reviewgen-fake", points, {"fakeweights": ""})
    assert said_by(lambda: find_weights("a-fake"), BrokenPlugin) == (
        "The weights 'a-fake' of reviewgen-fake 1.2.3 cannot be used: it is written for version 2.0 of the plugin contract, and "
        "this reviewgen has version 1.0; upgrade reviewgen."
    )


@pytest.mark.parametrize("declared", ["2.0", 1])
def test_a_class_declares_another_version(install: Install, declared: object) -> None:
    install(
        "reviewgen-fake",
        {"models": {"fakemodel": "fake_late:Model"}},
        {"fake_late": f"{EMPTY}Model.api_version = {declared!r}\n"},
    )
    said = said_by(lambda: find_model("fakemodel"), BrokenPlugin)
    reasons = {
        "2.0": "it is written for version 2.0 of the plugin contract, and this reviewgen has version 1.0; upgrade reviewgen",
        1: "the version of the plugin contract that it declares must be of the form major.minor; got 1",
    }
    assert said == f"The model 'fakemodel' of reviewgen-fake 1.2.3 cannot be used: {reasons[declared]}."
    mine = type("Mine", (), {"api_version": declared})
    for register, kind in ((register_model, "model"), (register_tokenizer, "tokenizer")):
        said = said_by(lambda register=register: register("mine", mine), BrokenPlugin)
        assert said == f"The {kind} 'mine' of (this process) cannot be used: {reasons[declared]}."


def test_plugins_of_this_repository_declare_the_version() -> None:
    own = [plugin for plugin in list_plugins() if plugin.package == "reviewgen"]
    assert len(own) > 30 and {plugin.api_version for plugin in own} == {"1.0"}
    from reviewgen.protocols import API_VERSION

    assert API_VERSION == "1.0"


# --- what is known of every plugin without importing it


def test_every_plugin_is_described_without_importing_it(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = "raise SystemExit('imported')\n"
    points = {
        "models": {"My_Model": "fake_trap:Model", "fine": "fake_trap:Model", "absent": "fake_absent:Model", "odd": "fake_trap"},
        "presets": {"fine": "fake_trap:PRESET", "dist:fine-char": "fake_trap:PRESET"},
        "weights": {"fine-char": "fake_trap:folder"},
    }
    install("reviewgen-trap", points, {"fake_trap": trap})
    twice = install("reviewgen-twice", {"models": {"twice": "fake_trap:A"}})
    with next(twice.glob("*.dist-info/entry_points.txt")).open("a") as file:
        file.write("twice = fake_trap:B\n")
    found = {(p.kind, p.name): p for p in list_plugins() if p.package != "reviewgen"}
    preset_form = "its name must be of the form <model>-<tokenizer>[-<size>], in lower case"
    assert {key: plugin.problem for key, plugin in found.items()} == {
        ("model", "My_Model"): "its name must have the letters a to z and digits only, a letter first",
        ("model", "fine"): None,
        ("model", "absent"): "its module fake_absent is not installed",
        ("model", "odd"): "its entry point must be of the form module:attribute; got 'fake_trap'",
        ("model", "twice"): "its package has the name twice: fake_trap:A and fake_trap:B",
        ("preset", "fine"): preset_form,
        ("preset", "dist:fine-char"): preset_form,
        ("weights", "fine-char"): "its entry point must be of the form package.folder; got 'fake_trap:folder'",
    }
    assert "fake_trap" not in sys.modules
    assert said_by(lambda: find_model("My_Model"), BrokenPlugin) == (
        "The model 'My_Model' of reviewgen-trap 1.2.3 cannot be used: its name must have the letters a to z and digits only, "
        "a letter first."
    )


def test_a_package_whose_metadata_is_damaged_hides_no_other(install: Install) -> None:
    good = install("reviewgen-good", {"models": {"good": "fake_good:Model"}}, {"fake_good": EMPTY})
    damages = {
        "reviewgen-line": ("entry_points.txt", b"[reviewgen.models]\nno equals sign\n"),
        "reviewgen-bytes": ("entry_points.txt", b"[reviewgen.models]\n\xff\xfe = x:y\n"),
        "reviewgen-empty": ("METADATA", b""),
    }
    for package, (name, content) in damages.items():
        site = install(package, {"models": {f"of{package[10:]}": "fake_good:Model"}})
        next(site.glob(f"*.dist-info/{name}")).write_bytes(content)
    nameless = install("reviewgen-nameless", {"models": {"nameless": "fake_good:Model"}})
    next(nameless.glob("*.dist-info/METADATA")).unlink()
    listed = {plugin.name: plugin for plugin in list_plugins() if plugin.package != "reviewgen"}
    assert find_model("good")[0].__module__ == "fake_good" and good
    assert listed["good"].problem is None
    for package, error in (("reviewgen-line", "TypeError: "), ("reviewgen-bytes", "UnicodeDecodeError: ")):
        assert listed[package].kind == "package"
        assert str(listed[package].problem).startswith(f"its entry points cannot be read: {error}")
    assert listed["ofempty"].package == listed["nameless"].package == "(unknown package)"
    assert find_model("lstm")[1].package == "reviewgen"


def test_finding_weights_imports_no_code(install: Install) -> None:
    site = install("fake-weights", {"weights": {"lstm-fake": "fakeweights.deep.lstm_fake"}})
    folder = site / "fakeweights" / "deep" / "lstm_fake"
    folder.mkdir(parents=True)
    (site / "fakeweights" / "__init__.py").write_text("raise SystemExit('imported')")
    assert find_weights("lstm-fake") == find_weights("fake-weights:lstm-fake") == folder
    assert find_weights("fake-other:lstm-fake") is None
    assert "fakeweights" not in sys.modules
