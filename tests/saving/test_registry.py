"""Finding plugins by entry point, with fake distributions written to a folder on the path."""

import sys
from collections.abc import Callable

import pytest

from reviewgen.config import Preset
from reviewgen.errors import (
    BrokenPlugin,
    PluginConflict,
    ReviewgenError,
    SourceError,
    UnknownPlugin,
)
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.plugins import (
    THIS_PROCESS,
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
    unregister_all,
)
from reviewgen.registry.saved import describe_weights
from tests.support.distributions import Install

pytestmark = pytest.mark.usefixtures("untouched_registry")

EMPTY = "class Model: pass\n"
PRESET = "from reviewgen.config import Preset\n"


def said_by(call: Callable[[], object], error: type[ReviewgenError]) -> str:
    """Return the message of an error, which is one line."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert len(message) < 500 and "\n" not in message
    return message


def listed(name: str, kind: str = "model") -> dict[str, Plugin]:
    """Return the plugins of a name by package."""
    return {plugin.package: plugin for plugin in list_plugins(kind) if plugin.name == name}


def problems(name: str, kind: str = "model") -> dict[str, str | None]:
    return {package: plugin.problem for package, plugin in listed(name, kind).items()}


# Finding and listing.


def test_plugins_of_this_repository_are_found_by_entry_point():
    assert {"ngram", "nnlm", "rnn", "gru", "lstm"} <= {
        plugin.name for plugin in list_plugins("model")
    }
    own = [plugin for plugin in list_plugins() if plugin.package == "reviewgen"]
    assert (
        len(own) > 30
        and {plugin.problem for plugin in own} == {None}
        and {plugin.api_version for plugin in own} == {"1.0"}
    )


def test_a_third_party_model_is_listed_without_an_import_and_found(install):
    site = install(
        "reviewgen-fake", {"models": {"fakemodel": "fake_good:Model"}}, {"fake_good": EMPTY}
    )
    twin = site.with_name("twin")
    twin.symlink_to(site)
    sys.path.append(str(twin))  # a package that is on the path twice counts once
    try:
        row = listed("fakemodel")["reviewgen-fake"]
        assert (row.version, row.problem) == ("1.2.3", None)
        assert find_preset("fakemodel-char") == Preset(model="fakemodel", tokenizer="char")
        assert "fake_good" not in sys.modules
        model, plugin = find_model("fakemodel")
        assert model.__name__ == "Model" and plugin == row
    finally:
        sys.path.remove(str(twin))


def test_an_unknown_name_suggests_the_closest():
    assert "Did you mean 'lstm'? Known: " in said_by(lambda: find_model("lstn"), UnknownPlugin)
    assert "Did you mean 'char'" in said_by(lambda: find_tokenizer("chr"), UnknownPlugin)
    assert "Did you mean 'lstm-word'" in said_by(lambda: find_preset("lstm-wrod"), UnknownPlugin)
    for name in ("lstm", "lstm_word", "LSTM-word"):
        assert "Did you mean 'lstm-word'" in said_by(
            lambda name=name: find_preset(name), SourceError
        )  # type: ignore[misc]


def test_an_unknown_name_among_many_says_how_many_more_there_are(install):
    install_many(install)
    said = said_by(lambda: find_model("many99"), UnknownPlugin)
    assert "Did you mean 'many" in said and " more." in said


def test_presets_of_a_third_party_are_found_and_broken_ones_name_it(install):
    install_many(install)
    assert find_preset("ngram-char-tiny").model_settings == {"order": 3}
    assert "reviewgen-many 1.2.3" in said_by(lambda: find_preset("ngram-char-bad"), BrokenPlugin)


def install_many(install: Install) -> None:
    code = (
        f"{EMPTY}{PRESET}P = Preset(model='ngram', tokenizer='char', model_settings={{'order':"
        " 3})\nBAD = {}\n"
    )
    points = {
        "models": {f"many{number}": "fake_many:Model" for number in range(60)},
        "presets": {"ngram-char-tiny": "fake_many:P", "ngram-char-bad": "fake_many:BAD"},
    }
    install("reviewgen-many", points, {"fake_many": code})


# What is broken.


@pytest.mark.parametrize(
    "code, cause",
    [
        (
            "import fake_missing_dependency\n",
            "ModuleNotFoundError: No module named 'fake_missing_dependency'",
        ),
        ("raise RuntimeError('no such device')\n", "RuntimeError: no such device"),
        ("Other = 1\n", "AttributeError"),
        ("raise SystemExit(3)\n", "it calls sys.exit(3)"),
    ],
)
def test_a_broken_import_fails_only_when_the_plugin_is_asked_for(install, code, cause):
    install(
        "reviewgen-broken", {"models": {"fakemodel": "fake_broken:Model"}}, {"fake_broken": code}
    )
    assert problems("fakemodel") == {"reviewgen-broken": None}
    with pytest.raises(BrokenPlugin, match=r"reviewgen-broken 1\.2\.3") as caught:
        find_model("fakemodel")
    assert cause in str(caught.value) and caught.value.__cause__ is not None
    assert cause in str(problems("fakemodel")["reviewgen-broken"])
    assert find_model("ngram")


# Names that several packages have.


def test_a_reserved_name_is_not_taken_by_a_third_party(install):
    model = "fake_thief:Model"
    points = {
        "models": {"gru": model},
        "tokenizers": {"char": model},
        "steppers": {"gru": model, "lstm": model},
    }
    points |= {
        "presets": {"gru-char": "fake_thief:P"},
        "weights": {"gru-char": "fake_thief.weights"},
    }
    install("reviewgen-thief", points, {"fake_thief": f"{PRESET}{EMPTY}P = None\n"})
    for find, name in ((find_model, "gru"), (find_tokenizer, "char")):
        loaded, plugin = find(name)
        assert (plugin.package, plugin.problem) == (
            "reviewgen",
            None,
        ) and loaded.__module__.startswith("reviewgen_")
    assert find_stepper("lstm").__module__ != "fake_thief"
    assert find_preset("gru-char").model == "gru"
    assert find_weights("gru-char").parent.name == "reviewgen_weights"
    assert "fake_thief" not in sys.modules


def test_two_packages_that_claim_one_name_are_named(install):
    code = f"{PRESET}{EMPTY}P = Preset(model='twin', tokenizer='char')\n"
    for which in ("one", "two"):
        model = f"fake_{which}:Model"
        points = {
            "models": {"twin": model},
            "tokenizers": {"bytes": model},
            "presets": {"twin-char": f"fake_{which}:P"},
        }
        install(f"reviewgen-{which}", points, {f"fake_{which}": code})
    for call in (
        lambda: find_model("twin"),
        *(lambda name=name: find_preset(name) for name in ("twin-char", "gru-bytes")),
    ):
        assert "reviewgen-one" in said_by(call, PluginConflict)
    assert "fake_one" not in sys.modules


# What belongs to a model: steppers and JavaScript of its own package.


def test_steppers_and_javascript_are_those_of_the_model_s_own_package(install):
    paths = (
        "from pathlib import Path\nSTEPPER, LOST = Path(__file__).with_name('one.js'),"
        " Path('/no/such.js')\n"
    )
    names = {"twin": "fake_one:STEPPER", "lost": "fake_one:LOST"}
    models = dict.fromkeys([*names, "bare"], "fake_one:Model")
    site = install(
        "reviewgen-one", {"models": models, "web_steppers": names}, {"fake_one": EMPTY + paths}
    )
    (site / "one.js").write_text("export default () => 1;")
    others = {"bare": "fake_two:Model", "gru": "fake_two:Model"}
    install("reviewgen-two", {"web_steppers": others, "steppers": others}, {"fake_two": EMPTY})
    assert (
        find_stepper("bare")
        is find_stepper("nothing")
        is find_web_stepper("bare")
        is find_web_stepper("nothing")
        is None
    )
    assert find_web_stepper("twin") == site / "one.js"
    assert (
        find_web_stepper("gru").parent.name == "reviewgen_recurrent"
        and "fake_two" not in sys.modules
    )
    assert find_web_tokenizer("word").parent.name == "reviewgen_word"
    assert "existing JavaScript file" in said_by(lambda: find_web_stepper("lost"), BrokenPlugin)


# Registered in the process.


def test_a_registered_plugin_is_found_until_it_is_forgotten(install):
    install("reviewgen-one", {"models": {"mine": "fake_one:Model"}}, {"fake_one": EMPTY})

    class Mine: ...

    register_model("mine", Mine)
    register_tokenizer("mine", Mine)
    assert find_model("mine")[0] is find_tokenizer("mine")[0] is Mine
    assert find_preset("mine-char") == Preset(model="mine", tokenizer="char")
    assert find_preset("gru-mine") == Preset(model="gru", tokenizer="mine")
    assert problems("mine")[THIS_PROCESS] is None and "registered in this process" in str(
        problems("mine")["reviewgen-one"]
    )
    unregister_all()
    assert find_model("mine")[0].__module__ == "fake_one"
    said_by(lambda: find_tokenizer("mine"), UnknownPlugin)


def test_names_that_cannot_be_registered():
    for name in ("", "My", "my-model", "my model", "my/model", "2x", "é"):
        for register in (register_model, register_tokenizer):
            with pytest.raises(SourceError, match="cannot name a"):
                register(name, object)
    for register, name in ((register_model, "gru"), (register_tokenizer, "char")):
        with pytest.raises(PluginConflict, match="already provided by reviewgen"):
            register(name, object)


# The version of the contract.


@pytest.mark.parametrize(
    "declared, word",
    [("1.99", ""), ("2.0", "upgrade reviewgen"), ("0.9", "upgrade reviewgen-fake")],
)
def test_another_major_version_is_refused_before_import(install, declared, word):
    points = {"models": {"fakemodel": "fake_good:Model"}, "api": {declared: "reviewgen.protocols"}}
    install("reviewgen-fake", points, {"fake_good": EMPTY})
    row = listed("fakemodel")["reviewgen-fake"]
    assert row.api_version == declared and (row.problem is None) == (word == "")
    if word:
        said = said_by(lambda: find_model("fakemodel"), BrokenPlugin)
        assert word in said and said.endswith(f"{row.problem}.") and "fake_good" not in sys.modules
    else:
        assert find_model("fakemodel")[0].__module__ == "fake_good"


# Weights.


def test_weights_are_found_without_an_import(install):
    """The package has others that are missing."""
    names = {"lstm-fake": "fakeweights.deep.lstm_fake", "gru-fake": "fakeweights.gru_fake"}
    weights = install("fake-weights", {"weights": names}) / "fakeweights" / "deep" / "lstm_fake"
    weights.mkdir(parents=True)
    (weights.parents[1] / "__init__.py").write_text("raise SystemExit('imported')")
    assert find_weights("lstm-fake") == weights
    assert find_weights("nnlm-fake") is describe_weights("nnlm-fake") is None
    assert "'gru-fake' of fake-weights 1.2.3 are missing" in said_by(
        lambda: find_weights("gru-fake"), BrokenPlugin
    )
    install("fake-again", {"weights": {"gru-fake": "fakeother.a"}})
    assert "fake-again and fake-weights" in said_by(
        lambda: find_weights("gru-fake"), PluginConflict
    )
    assert "fakeweights" not in sys.modules
