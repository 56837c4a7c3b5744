"""Whose plugin loads a saved model: that of its distribution, whatever else is installed; or one registered in the process."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import reviewgen
from reviewgen import ReviewModel, registry
from reviewgen.errors import BrokenPlugin, BundleError, UnknownPlugin
from reviewgen.registry import find_model, name_of_saved
from tests.support.distributions import MODEL, write_distribution
from tests.support.forked import run_python
from tests.support.loopback_hub import TOKEN, LoopbackHub

Install = Callable[[str, str], Path]
TEXTS = [f"The {noun} was {how}." for noun in ("food", "film", "book") for how in ("good", "bad", "long", "dull")]


@pytest.fixture(autouse=True)
def untouched_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test an empty registry, and remove its fake modules afterwards."""
    monkeypatch.setattr(registry.plugins, "_registered", {})
    yield
    for name in [name for name in sys.modules if name.startswith("fake_")]:
        del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a package with a model of some name."""

    def write(package: str, name: str) -> Path:
        module = package.replace("reviewgen-", "fake_")
        points = {"models": {name: f"{module}:Model"}}
        site = write_distribution(tmp_path / "sites" / package, package, points, {module: MODEL})
        monkeypatch.syspath_prepend(str(site))
        return site

    return write


def train(preset: str, out: Path) -> ReviewModel:
    return reviewgen.train(preset, TEXTS, steps=1, training={"batch_size": 2}, out=out, progress=False)


def module_of(model: ReviewModel) -> str:
    """Return the module of a model's class, as ``isinstance`` would find it."""
    return type(model.bundle.model).__module__


def message_of(folder: Path) -> str:
    with pytest.raises(UnknownPlugin) as caught:
        reviewgen.load(folder)
    message = str(caught.value)
    assert len(message) < 500 and "\n" not in message
    return message


def test_the_distribution_decides_whose_plugin_loads_it(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install("reviewgen-one", "twin")
    texts = train("twin-char", tmp_path / "m").generate("The ", seed=1, max_new_tokens=20)
    other = install("reviewgen-two", "twin")
    model = reviewgen.load(tmp_path / "m")
    assert module_of(model) == "fake_one" and model.generate("The ", seed=1, max_new_tokens=20) == texts
    further = reviewgen.train(model, TEXTS, steps=1, progress=False)
    assert module_of(further) == "fake_one" and further.preset == "twin-char"
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(site)])
    assert message_of(tmp_path / "m") == (
        "This model needs the model 'twin' of the package reviewgen-one 1.2.3, which is not installed. The one of reviewgen-two "
        "is another model and is not used. Install it: pip install reviewgen-one"
    )
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(other)])
    assert message_of(tmp_path / "m") == (
        "This model needs the model 'twin' of the package reviewgen-one 1.2.3, which is not installed. "
        "Install it: pip install reviewgen-one"
    )


def test_a_model_of_a_reserved_name_stays_that_of_its_package(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install("reviewgen-thief", "gru")
    train("reviewgen-thief:gru-char", tmp_path / "m")
    saved = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (saved["model"]["name"], saved["model"]["distribution"]) == ("gru", "reviewgen-thief")
    assert saved["preset"] == "reviewgen-thief:gru-char"
    assert module_of(reviewgen.load(tmp_path / "m")) == "fake_thief"
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(site)])
    assert message_of(tmp_path / "m") == (
        "This model needs the model 'gru' of the package reviewgen-thief 1.2.3, which is not installed. The one of reviewgen is "
        "another model and is not used. Install it: pip install reviewgen-thief"
    )


def test_a_package_without_the_name_any_more(install: Install) -> None:
    install("reviewgen-one", "other")
    with pytest.raises(UnknownPlugin) as caught:
        name_of_saved("model", {"name": "twin", "distribution": "reviewgen-one", "version": "0.9"})
    assert str(caught.value) == (
        "This model needs the model 'twin' of the package reviewgen-one 0.9, and reviewgen-one 1.2.3, which is installed, has "
        "none of that name. Install it: pip install reviewgen-one==0.9"
    )


@pytest.mark.parametrize(
    "facts",
    [{"distribution": "x; rm -rf /"}, {"version": "1 && reboot"}, {"name": "Twin\n"}, {"distribution": "(another process)"}],
)
def test_facts_that_cannot_be_installed(facts: dict[str, str]) -> None:
    with pytest.raises(BundleError, match="not valid"):
        name_of_saved("model", {"name": "twin", "distribution": "reviewgen-one", "version": "1"} | facts)


def model_class() -> type:
    """Return a new class, as running a notebook's cell again makes one."""
    namespace: dict[str, type] = {"__name__": "notebook"}
    sys.modules["notebook"] = type(sys)("notebook")
    exec(MODEL, namespace)
    return namespace["Model"]


REGISTERED = (
    "This model needs the model 'mine', which was registered in the process that saved it. Register it with "
    "reviewgen.register_model('mine', ...) before loading."
)


def test_a_registered_model_is_loaded_where_it_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model_class()
    reviewgen.register_model("mine", first)
    texts = train("mine-char", tmp_path / "m").generate("The ", seed=1, max_new_tokens=20)
    assert type(reviewgen.load(tmp_path / "m").bundle.model) is first
    second = model_class()
    reviewgen.register_model("mine", second)
    model = reviewgen.load(tmp_path / "m")
    assert type(model.bundle.model) is second and model.generate("The ", seed=1, max_new_tokens=20) == texts
    monkeypatch.setattr(registry.plugins, "_registered", {})
    assert message_of(tmp_path / "m") == REGISTERED


def test_an_installed_model_is_not_the_registered_one_that_was_saved(install: Install) -> None:
    facts = {"name": "mine", "distribution": "(this process)", "version": ""}
    install("reviewgen-mine", "mine")
    for package in (None, "reviewgen-mine"):
        with pytest.raises(UnknownPlugin) as caught:
            name_of_saved("model", facts)
        assert str(caught.value) == REGISTERED, package
    reviewgen.register_model("mine", model_class())
    assert find_model(name_of_saved("model", facts))[1].package == "(this process)"
    installed = facts | {"distribution": "reviewgen-mine", "version": "1"}
    assert find_model(name_of_saved("model", installed))[0].__module__ == "fake_mine"
    with pytest.raises(
        UnknownPlugin, match=r"^This model needs the tokenizer 'mine', .* reviewgen\.register_tokenizer\('mine', "
    ):
        name_of_saved("tokenizer", facts)


SCRIPT = """
import sys, types
sys.modules["notebook"] = types.ModuleType("notebook")
namespace = {"__name__": "notebook"}
exec(open("model.py").read(), namespace)
import reviewgen
if "register" in sys.argv[1:]:
    reviewgen.register_model("mine", namespace["Model"])
if "train" in sys.argv[1:]:
    texts = [line.strip() for line in open("texts.txt")]
    reviewgen.train("mine-char", texts, steps=1, training={"batch_size": 2}, out="m", progress=False)
    reviewgen.load("m").push_to_hub("ana/mine", license="mit", allow=["copies"])
print(repr(reviewgen.load(sys.argv[1]).generate_one("The ", seed=1, max_new_tokens=20)))
"""


def test_a_registered_model_is_pushed_and_pulled(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    with LoopbackHub({}) as hub:
        environment = hub.environment(tmp_path / "home", TOKEN)

        def run(*words: str) -> str:
            done = run_python(["-c", SCRIPT, *words], env=environment, cwd=tmp_path)
            return (done.stdout or done.stderr).splitlines()[-1]

        text = run("m", "register", "train")
        assert text.startswith("'The ")
        assert run("ana/mine", "register") == text
        assert run("ana/mine") == f"reviewgen.errors.UnknownPlugin: {REGISTERED}"


def test_a_plugin_that_breaks_is_not_taken_for_a_damaged_model(install: Install, tmp_path: Path) -> None:
    site = install("reviewgen-one", "twin")
    train("twin-char", tmp_path / "m")
    del sys.modules["fake_one"]
    (site / "fake_one.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(BrokenPlugin, match=r"^The model 'twin' of reviewgen-one 1\.2\.3 cannot be imported: ModuleNotFoundError"):
        _ = reviewgen.load(tmp_path / "m").bundle.model
