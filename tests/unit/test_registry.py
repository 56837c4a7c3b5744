"""Finding plugins by entry point, with fake distributions written to a folder on the path."""

import subprocess
import sys
from pathlib import Path

import pytest

from reviewgen import registry
from reviewgen.bundle.manifest import write_manifest
from reviewgen.config import Preset
from reviewgen.errors import BrokenPlugin, PluginConflict, SourceError, UnknownPlugin
from reviewgen.registry import (
    describe_weights,
    find_model,
    find_preset,
    find_tokenizer,
    list_plugins,
    register_model,
    register_tokenizer,
)
from tests.support.distributions import Install, install, untouched_registry

__all__ = ["install", "untouched_registry"]  # the fixtures


def test_plugins_of_this_repository_are_found_by_entry_point() -> None:
    models = {plugin.name: plugin for plugin in list_plugins("model")}
    assert {"ngram", "nnlm", "rnn", "gru", "lstm"} <= models.keys()
    assert models["ngram"].package == "reviewgen"
    assert all(plugin.problem is None for kind in ("model", "tokenizer", "preset") for plugin in list_plugins(kind))


def test_a_third_party_model_is_listed_and_found(install: Install) -> None:
    install("reviewgen-fake", {"models": {"fakemodel": "fake_good:Model"}}, {"fake_good": "class Model: pass\n"})
    listed = next(plugin for plugin in list_plugins("model") if plugin.name == "fakemodel")
    assert (listed.package, listed.version, listed.problem) == ("reviewgen-fake", "1.2.3", None)
    assert "fake_good" not in sys.modules
    model, plugin = find_model("fakemodel")
    assert model.__name__ == "Model"
    assert plugin == listed


def test_two_packages_of_one_name_are_an_error_that_names_both(install: Install) -> None:
    install("reviewgen-one", {"models": {"fakemodel": "fake_one:Model"}}, {"fake_one": "class Model: pass\n"})
    install("reviewgen-two", {"models": {"fakemodel": "fake_two:Model"}}, {"fake_two": "class Model: pass\n"})
    said = (
        r"^The packages reviewgen-one and reviewgen-two provide the model 'fakemodel'\. Name one of them: "
        r"reviewgen-one:fakemodel or reviewgen-two:fakemodel\.$"
    )
    for find in (lambda: find_model("fakemodel"), lambda: find_preset("fakemodel-char")):
        with pytest.raises(PluginConflict, match=said):
            find()
    listed = [plugin for plugin in list_plugins("model") if plugin.name == "fakemodel"]
    assert [plugin.problem for plugin in listed] == [
        f"reviewgen-one and reviewgen-two have this name: write {package}:fakemodel"
        for package in ("reviewgen-one", "reviewgen-two")
    ]
    assert "fake_one" not in sys.modules


def test_two_packages_of_one_preset_are_an_error(install: Install) -> None:
    install("reviewgen-one", {"presets": {"fake-char": "fake_one:P"}})
    install("reviewgen-two", {"presets": {"fake-char": "fake_two:P"}})
    with pytest.raises(PluginConflict, match=r"reviewgen-one.*reviewgen-two"):
        find_preset("fake-char")


def test_a_package_seen_twice_counts_once(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install("reviewgen-fake", {"models": {"fakemodel": "fake_good:Model"}}, {"fake_good": "class Model: pass\n"})
    twin = tmp_path / "twin"
    twin.symlink_to(site)
    monkeypatch.syspath_prepend(str(twin))
    assert find_model("fakemodel")[1].package == "reviewgen-fake"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import fake_missing_dependency\n", "ModuleNotFoundError: No module named 'fake_missing_dependency'"),
        ("raise RuntimeError('no such device')\n", "RuntimeError: no such device"),
        ("def broken(:\n", "SyntaxError"),
        ("Other = 1\n", "AttributeError"),
        ("raise SystemExit(3)\n", "it calls sys.exit(3)"),
    ],
)
def test_a_broken_import_fails_only_when_asked_for(install: Install, code: str, cause: str) -> None:
    install("reviewgen-broken", {"models": {"fakemodel": "fake_broken:Model"}}, {"fake_broken": code})
    (listed,) = [plugin for plugin in list_plugins("model") if plugin.name == "fakemodel"]
    assert listed.problem is None
    with pytest.raises(BrokenPlugin) as caught:
        find_model("fakemodel")
    assert "reviewgen-broken 1.2.3" in str(caught.value)
    assert cause in str(caught.value)
    assert caught.value.__cause__ is not None
    (listed,) = [plugin for plugin in list_plugins("model") if plugin.name == "fakemodel"]
    assert cause in (listed.problem or "")
    assert find_model("ngram")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("fake_absent:Model", "its module fake_absent is not installed"),
        ("fake_absent.part:Model", "its module fake_absent is not installed"),
        *(
            (value, f"its entry point must be of the form module:attribute; got {value!r}")
            for value in ("not a module", "", ":Model", ".relative:Model", "module", "a:b:c", "../up:Model", "1:Model")
        ),
    ],
)
def test_an_entry_point_to_nothing_is_listed_as_broken(install: Install, value: str, problem: str) -> None:
    install("reviewgen-broken", {"models": {"fakemodel": value}})
    (listed,) = [plugin for plugin in list_plugins("model") if plugin.name == "fakemodel"]
    assert listed.problem == problem
    with pytest.raises(BrokenPlugin) as caught:
        find_model("fakemodel")
    assert str(caught.value) == f"The model 'fakemodel' of reviewgen-broken 1.2.3 cannot be used: {problem}."


def test_listing_imports_nothing(install: Install, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    code = f"import pathlib\npathlib.Path({str(touched)!r}).write_text('x')\nclass Model: pass\n"
    points = {"models": {"fakemodel": "fake_pkg.deep:Model"}, "presets": {"fakemodel-char": "fake_pkg.deep:P"}}
    site = install("reviewgen-fake", points)
    (site / "fake_pkg").mkdir()
    for name in ("__init__", "deep"):
        (site / "fake_pkg" / f"{name}.py").write_text(code)
    script = """
from reviewgen.registry import list_plugins
names = [plugin.name for kind in ("model", "preset", "tokenizer") for plugin in list_plugins(kind)]
assert "fakemodel" in names and "fakemodel-char" in names, names
print(sorted({"torch", "datasets", "accelerate", "numpy"} & set(sys.modules)))
import reviewgen
assert names == [p.name for kind in (reviewgen.list_models, reviewgen.list_presets, reviewgen.list_tokenizers) for p in kind()]
print([name for name in sys.modules if name.startswith(("reviewgen_", "fake_"))])
"""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not touched.exists()
    assert done.stdout.split() == ["[]", "[]"]


def test_an_unknown_name_suggests_the_closest_and_lists_all() -> None:
    with pytest.raises(UnknownPlugin, match=r"the model 'lstn'. Did you mean 'lstm'\? Known: .*ngram"):
        find_model("lstn")
    with pytest.raises(UnknownPlugin, match=r"the tokenizer 'chr'\. Did you mean 'char'"):
        find_tokenizer("chr")
    with pytest.raises(UnknownPlugin, match=r"no preset 'lstm-wrod'\. Did you mean 'lstm-word'"):
        find_preset("lstm-wrod")
    with pytest.raises(UnknownPlugin, match="no preset 'lstm-word-huge'"):
        find_preset("lstm-word-huge")
    with pytest.raises(SourceError):
        find_preset("LSTM")


def test_a_model_and_a_tokenizer_compose_without_a_preset(install: Install) -> None:
    install("reviewgen-fake", {"models": {"fakemodel": "fake_good:Model"}}, {"fake_good": "class Model: pass\n"})
    assert find_preset("fakemodel-char") == Preset(model="fakemodel", tokenizer="char")
    assert "fake_good" not in sys.modules


def test_a_third_party_preset_and_a_broken_one(install: Install) -> None:
    code = "from reviewgen.config import Preset\nP = Preset(model='ngram', tokenizer='char', model_settings={'order': 3})\n"
    points = {"presets": {"ngram-char-tiny": "fake_presets:P", "ngram-char-bad": "fake_presets:BAD"}}
    install("reviewgen-fake", points, {"fake_presets": f"{code}BAD = {{}}\n"})
    assert find_preset("ngram-char-tiny").model_settings == {"order": 3}
    with pytest.raises(BrokenPlugin, match=r"reviewgen-fake 1\.2\.3"):
        find_preset("ngram-char-bad")


def test_registering_in_the_process() -> None:
    class Mine: ...

    register_model("mine", Mine)
    register_tokenizer("mine", Mine)
    assert find_model("mine")[0] is Mine
    assert find_tokenizer("mine")[0] is Mine
    assert find_preset("mine-char") == Preset(model="mine", tokenizer="char")
    assert find_preset("gru-mine") == Preset(model="gru", tokenizer="mine")
    listed = next(plugin for plugin in list_plugins("model") if plugin.name == "mine")
    assert (listed.package, listed.problem) == ("(this process)", None)


@pytest.mark.parametrize("name", ["", "My", "my-model", "my model", "my/model", "2x", "é"])
def test_a_name_that_cannot_be_part_of_a_preset_is_an_error(name: str) -> None:
    for register in (register_model, register_tokenizer):
        with pytest.raises(SourceError, match="cannot name a"):
            register(name, object)


def test_an_installed_name_cannot_be_registered() -> None:
    with pytest.raises(PluginConflict, match="already provided by reviewgen"):
        register_model("gru", object)
    with pytest.raises(PluginConflict):
        register_tokenizer("char", object)


def test_weights_are_found_without_importing_their_folder(install: Install, tmp_path: Path) -> None:
    site = install("fake-weights", {"weights": {"lstm-fake": "fakeweights.lstm_fake", "gru-fake": "fakeweights.gru_fake"}})
    folder = site / "fakeweights" / "lstm_fake"
    folder.mkdir(parents=True)
    (site / "fakeweights" / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("raise SystemExit('never run')")
    (folder / "training.json").write_text('{"held_out": {"bits_per_character": 1.5}}')
    assert registry.find_weights("lstm-fake") == folder
    assert registry.find_weights("nnlm-fake") is None
    said = r"^The weights 'gru-fake' of fake-weights 1\.2\.3 are missing: their folder fakeweights\.gru_fake does not exist\. "
    with pytest.raises(BrokenPlugin, match=said):
        registry.find_weights("gru-fake")
    found = describe_weights("lstm-fake")
    assert found is not None and found.bits_per_character == 1.5 and found.megabytes == 0.0 and found.problem is None
    broken = describe_weights("gru-fake")
    assert broken is not None and broken.megabytes is None and "are missing" in str(broken.problem)
    assert describe_weights("nnlm-fake") is None
    for damaged in ("[]", "{", '{"held_out": 3}'):
        (folder / "training.json").write_text(damaged)
        assert "cannot be read" in str(describe_weights("lstm-fake").problem)


def test_changed_weights_are_not_described(install: Install) -> None:
    folder = install("fake-weights", {"weights": {"lstm-fake": "fakeweights.lstm_fake"}}) / "fakeweights" / "lstm_fake"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "training.json").write_text('{"held_out": {"bits_per_character": 1.5}}')
    (folder / "model.safetensors").write_bytes(b"weights")
    write_manifest(folder, ["training.json", "model.safetensors"])
    found = describe_weights("lstm-fake")
    assert found is not None and found.problem is None and found.bits_per_character == 1.5
    (folder / "model.safetensors").write_bytes(b"Weights")
    changed = describe_weights("lstm-fake")
    assert changed is not None and changed.bits_per_character is None
    assert str(changed.problem).startswith(f"model.safetensors of {folder} has changed since the model was saved")
    (folder / "model.safetensors").unlink()
    assert "is missing" in str(describe_weights("lstm-fake").problem)
    (folder / "manifest.json").write_text('{"files": {"training.json": 3}}')
    assert "manifest.json is damaged" in str(describe_weights("lstm-fake").problem)


def test_weights_of_a_missing_or_broken_package(install: Install) -> None:
    install(
        "fake-gone", {"weights": {"a-gone": "fakegone.a", "b-fails": "fakefails.b"}}, {"fakefails": "raise RuntimeError('no')"}
    )
    for name in ("a-gone", "b-fails"):
        with pytest.raises(BrokenPlugin, match=f"The weights '{name}' of fake-gone"):
            registry.find_weights(name)
    install("fake-again", {"weights": {"a-gone": "fakeother.a"}})
    with pytest.raises(PluginConflict, match=r"^The packages fake-again and fake-gone provide the weights 'a-gone'\."):
        registry.find_weights("a-gone")
