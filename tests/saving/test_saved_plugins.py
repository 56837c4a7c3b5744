"""Whose plugin loads a saved model: that of its distribution, or a registered one; and configs of
earlier versions.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.errors import UnknownPlugin
from reviewgen.registry.plugins import find_model, register_model, unregister_all
from reviewgen.registry.saved import plugin_of_saved
from tests.support.distributions import MODEL
from tests.support.fakes import TEXTS
from tests.support.models import TRAINING
from tests.support.saved import edit_json

QUICK: dict[str, Any] = {
    "steps": 1,
    "training": TRAINING | {"copy_tokens": 0, "threads": 1, "precision": "no"},
}


def message_of(folder: Path) -> str:
    with pytest.raises(UnknownPlugin) as caught:
        reviewgen.load(folder)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
    return str(caught.value)


def test_the_distribution_decides_whose_plugin_loads_a_model(install, tmp_path, monkeypatch):
    sites = {}

    def add(which: str) -> None:
        sites[which] = install(
            f"reviewgen-{which}",
            {"models": {"twin": f"fake_{which}:Model"}},
            {f"fake_{which}": MODEL},
        )

    add("one")
    texts = reviewgen.train("twin-char", TEXTS, out=tmp_path / "m", **QUICK).generate(
        "the ", seed=1, max_new_tokens=20
    )
    add("two")
    model = reviewgen.load(tmp_path / "m")
    assert (
        type(model.bundle.model).__module__ == "fake_one"
        and model.generate("the ", seed=1, max_new_tokens=20) == texts
    )
    for gone, is_told in (("one", True), ("two", False)):
        monkeypatch.setattr(
            sys, "path", [folder for folder in sys.path if folder != str(sites[gone])]
        )
        message = message_of(tmp_path / "m")
        assert "reviewgen-one 1.2.3, which is not installed" in message and message.endswith(
            "pip install reviewgen-one"
        )
        assert ("The one of reviewgen-two is another model" in message) == is_told


def test_a_registered_model_is_loaded_where_it_is_registered(install, tmp_path):
    def model_class() -> type:
        namespace: dict[str, Any] = {"__name__": "fake_notebook"}
        sys.modules["fake_notebook"] = type(sys)("fake_notebook")
        exec(MODEL, namespace)
        return namespace["Model"]

    register_model("mine", model_class())
    texts = reviewgen.train("mine-char", TEXTS, out=tmp_path / "m", **QUICK).generate(
        "the ", seed=1, max_new_tokens=20
    )
    second = model_class()  # as running a notebook's cell again makes one
    register_model("mine", second)
    model = reviewgen.load(tmp_path / "m")
    assert (
        type(model.bundle.model) is second
        and model.generate("the ", seed=1, max_new_tokens=20) == texts
    )
    unregister_all()
    install("reviewgen-mine", {"models": {"mine": "fake_mine:Model"}}, {"fake_mine": MODEL})
    assert "reviewgen.register_model('mine', ...)" in message_of(tmp_path / "m"), (
        "the installed one is another"
    )
    register_model("mine", second)
    facts = {"name": "mine", "distribution": "reviewgen-mine", "version": "1"}
    assert find_model(plugin_of_saved("model", facts))[0].__module__ == "fake_mine"


# Configs that an earlier version of a plugin has saved.

TABLE = MODEL.replace(
    "    vocab_size: int\n",
    """
    vocab_size: int
    width: int = 3  # until version 1 it was called ``units``

    @classmethod
    def migrate(cls, values, version):
        if "units" in values:
            values["width"] = values.pop("units")
        return values
""",
)


def test_a_folder_with_an_older_config_loads(install, tmp_path):
    install("reviewgen-table", {"models": {"table": "fake_table:Model"}}, {"fake_table": TABLE})
    reviewgen.train("table-char", TEXTS, out=tmp_path / "old", **QUICK)
    file = tmp_path / "old" / "config.json"
    vocab_size = json.loads(file.read_text(encoding="utf-8"))["model"]["config"]["vocab_size"]
    edit_json(file, "model", "version", value="0.5")
    edit_json(file, "model", "config", value={"vocab_size": vocab_size, "units": 3})
    (tmp_path / "old" / "manifest.json").unlink()  # earlier versions wrote none
    model = reviewgen.load(tmp_path / "old")
    model.save_pretrained(tmp_path / "new")
    config = json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))["model"][
        "config"
    ]
    assert config == {"vocab_size": model.tokenizer.vocab_size, "width": 3}
    assert reviewgen.load(tmp_path / "new").score("the movie") == model.score("the movie")


OLD = {"compiled": "unrolled", "reference": "spelled"}


@pytest.mark.parametrize("layer", OLD)
def test_a_saved_model_loads_is_saved_and_trained_further(layer, model_folder, micro, tmp_path):
    shutil.copytree(model_folder("gru-char"), tmp_path / "old")
    edit_json(tmp_path / "old" / "config.json", "model", "config", "layer", value=OLD[layer])
    (tmp_path / "old" / "manifest.json").unlink()  # earlier versions wrote none
    model = reviewgen.load(tmp_path / "old")
    text = micro("gru-char").generate(seed=1, max_new_tokens=20)
    assert model.generate(seed=1, max_new_tokens=20) == text and model.model.config.layer == layer
    model.save_pretrained(tmp_path / "again")
    assert (
        json.loads((tmp_path / "again" / "config.json").read_text())["model"]["config"]["layer"]
        == layer
    )
    further = reviewgen.train(model, TEXTS, steps=2, training={"batch_size": 4})
    assert further.model.config.layer == layer
