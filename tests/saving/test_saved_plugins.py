"""Whose plugin loads a saved model: that of its distribution, or a registered one; and configs of earlier versions."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen import ReviewModel
from reviewgen.errors import BrokenPlugin, BundleError, UnknownPlugin
from reviewgen.registry import find_model, name_of_saved, register_model, register_tokenizer, unregister_all
from tests.support.distributions import MODEL, Install, install, untouched_registry
from tests.support.fakes import TEXTS, LetterTokenizer
from tests.support.models import SMALL, TRAINING
from tests.support.saved import edit_json, listing, refusal

__all__ = ["install", "untouched_registry"]  # the fixtures

QUICK: dict[str, Any] = {"steps": 1, "training": TRAINING | {"copy_tokens": 0, "threads": 1, "precision": "no"}}


def module_of(model: ReviewModel) -> str:
    return type(model.bundle.model).__module__


def message_of(folder: Path) -> str:
    with pytest.raises(UnknownPlugin) as caught:
        reviewgen.load(folder)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
    return str(caught.value)


def test_the_distribution_decides_whose_plugin_loads_a_model(install: Install, tmp_path: Path, monkeypatch: Any) -> None:
    sites = {}

    def add(which: str) -> None:
        sites[which] = install(f"reviewgen-{which}", {"models": {"twin": f"fake_{which}:Model"}}, {f"fake_{which}": MODEL})

    add("one")
    texts = reviewgen.train("twin-char", TEXTS, out=tmp_path / "m", **QUICK).generate("the ", seed=1, max_new_tokens=20)
    add("two")
    model = reviewgen.load(tmp_path / "m")
    assert module_of(model) == "fake_one" and model.generate("the ", seed=1, max_new_tokens=20) == texts
    for gone, is_told in (("one", True), ("two", False)):
        monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(sites[gone])])
        message = message_of(tmp_path / "m")
        assert "reviewgen-one 1.2.3, which is not installed" in message and message.endswith("pip install reviewgen-one")
        assert ("The one of reviewgen-two is another model" in message) == is_told


def test_a_model_of_a_reserved_name_stays_that_of_its_package(install: Install, tmp_path: Path, monkeypatch: Any) -> None:
    site = install("reviewgen-thief", {"models": {"gru": "fake_thief:Model"}}, {"fake_thief": MODEL})
    reviewgen.train("reviewgen-thief:gru-char", TEXTS, out=tmp_path / "m", **QUICK)
    saved = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (saved["model"]["name"], saved["model"]["distribution"]) == ("gru", "reviewgen-thief")
    model = reviewgen.load(tmp_path / "m")
    assert model.preset == "reviewgen-thief:gru-char" and module_of(model) == "fake_thief"
    del sys.modules["fake_thief"]
    (site / "fake_thief.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(BrokenPlugin, match="cannot be imported: ModuleNotFoundError"):  # the model is not called damaged
        _ = reviewgen.load(tmp_path / "m").model
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(site)])
    assert "The one of reviewgen is another model and is not used" in message_of(tmp_path / "m")


def test_a_registered_model_is_loaded_where_it_is_registered(install: Install, tmp_path: Path) -> None:
    def model_class() -> type:
        namespace: dict[str, Any] = {"__name__": "fake_notebook"}
        sys.modules["fake_notebook"] = type(sys)("fake_notebook")
        exec(MODEL, namespace)
        return namespace["Model"]

    register_model("mine", model_class())
    texts = reviewgen.train("mine-char", TEXTS, out=tmp_path / "m", **QUICK).generate("the ", seed=1, max_new_tokens=20)
    second = model_class()  # as running a notebook's cell again makes one
    register_model("mine", second)
    model = reviewgen.load(tmp_path / "m")
    assert type(model.bundle.model) is second and model.generate("the ", seed=1, max_new_tokens=20) == texts
    unregister_all()
    install("reviewgen-mine", {"models": {"mine": "fake_mine:Model"}}, {"fake_mine": MODEL})
    assert "reviewgen.register_model('mine', ...)" in message_of(tmp_path / "m"), "the installed one is another"
    register_model("mine", second)
    facts = {"name": "mine", "distribution": "reviewgen-mine", "version": "1"}
    assert find_model(name_of_saved("model", facts))[0].__module__ == "fake_mine"


def test_facts_of_a_plugin_that_is_gone_or_cannot_be_installed(install: Install) -> None:
    install("reviewgen-one", {"models": {"other": "fake_one:Model"}}, {"fake_one": MODEL})
    facts = {"name": "twin", "distribution": "reviewgen-one", "version": "0.9"}
    with pytest.raises(UnknownPlugin, match=r"reviewgen-one 1\.2\.3, which is installed, has none .* reviewgen-one==0\.9$"):
        name_of_saved("model", facts)
    for odd in ({"version": "1 && reboot"}, {"name": "Twin\n"}, {"distribution": "(another)"}):
        with pytest.raises(BundleError, match="not valid"):
            name_of_saved("model", facts | odd)


# Configs that an earlier version of a plugin has saved.

TABLE = MODEL.replace(
    "    vocab_size: int\n",
    """
    vocab_size: int
    width: int = 3  # until version 1 it was called ``units``

    @classmethod
    def migrate(cls, values, version):
        if version == "0.0":
            raise ValueError("models of 0.0 are gone")
        if "units" in values:
            values["width"] = values.pop("units")
        return {"0.1": ["odd"], "0.2": {**values, "depth": 2}}.get(version, values)
""",
)


def make_older(folder: Path, version: str, *parts: str) -> None:
    """Give the setting in config.json its earlier name, and set the version that saved it."""
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for facts in content["model"]["config"]["models"] if parts else [content["model"]]:
        facts["config"]["units"] = facts["config"].pop("width", 3)
        facts["version"] = version
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "manifest.json").unlink(missing_ok=True)  # earlier versions wrote none


def test_a_folder_with_an_older_config_and_a_blend_of_it_load(install: Install, tmp_path: Path) -> None:
    install("reviewgen-table", {"models": {"table": "fake_table:Model"}}, {"fake_table": TABLE})
    reviewgen.train("table-char", TEXTS, out=tmp_path / "old", **QUICK)
    make_older(tmp_path / "old", "0.5")
    model = reviewgen.load(tmp_path / "old")
    model.save_pretrained(tmp_path / "new")
    config = json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))["model"]["config"]
    assert config == {"vocab_size": model.tokenizer.vocab_size, "width": 3}
    assert reviewgen.load(tmp_path / "new").score("the movie") == model.score("the movie")
    reviewgen.blend([model, model]).save_pretrained(tmp_path / "blend")
    make_older(tmp_path / "blend", "0.5", "models")
    assert reviewgen.load(tmp_path / "blend").score("the movie").bits == pytest.approx(model.score("the movie").bits, rel=1e-5)
    for version, word in (("0.0", "models of 0.0 are gone"), ("0.1", "returned a list"), ("0.2", "0.2 has saved")):
        make_older(tmp_path / "old", version)
        assert word in refusal(tmp_path / "old")


class Changed(LetterTokenizer):
    """A tokenizer whose setting had another name when a model was saved."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Its settings."""

        characters: int = 100

        @classmethod
        def migrate(cls, values: dict[str, Any], version: str) -> Mapping[str, Any]:
            return {"characters": values.pop("letters", 7), **values}


def test_a_model_keeps_its_index_when_the_settings_of_its_tokenizer_change(tmp_path: Path) -> None:
    earlier = make_dataclass("Config", [("letters", int, 100)], frozen=True, kw_only=True)
    register_tokenizer("changing", type("First", (LetterTokenizer,), {"Config": earlier}))
    reviewgen.train("gru-changing", TEXTS, out=tmp_path / "old", **(SMALL | QUICK))
    register_tokenizer("changing", Changed)
    model = reviewgen.load(tmp_path / "old")
    model.save_pretrained(tmp_path / "new")
    again = reviewgen.load(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["tokenizer"]["config"] == {"characters": 100}
    for each in model, again, reviewgen.blend([model, again]):
        assert each.bundle.tokenizer_config == Changed.Config() and each.novelty(TEXTS[0]).longest_text
    again.save_pretrained(tmp_path / "third")
    assert listing(tmp_path / "third") == listing(tmp_path / "new")
    edit_json(tmp_path / "new" / "training.json", "data", "fingerprint", value="another")
    assert "belongs to another model" in refusal(tmp_path / "new")
