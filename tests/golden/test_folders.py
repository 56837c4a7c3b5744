"""Models and a token store saved by the code of 28 November 2026 load, and generate and score the same.

``folders.json`` is written by ``python -m tests.golden.test_folders``, and ``folders`` by ``make_folders``. All settings of a
call are given, so that no default matters, except in the call that reads the saved defaults. Texts may differ as in
``test_presets``.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.config import GenerationConfig
from reviewgen.errors import BundleError, DataError
from tests.golden.corpora import CASES, TOKENIZERS, framed, read
from tests.golden.make_folders import FOLDERS, MODELS, STORE_CASE
from tests.golden.stored import arithmetic, read_stored, write_stored

TEXTS = ["The plot was good.", "Her voice wasn't naïve 😀", "something else\nentirely"]
GENRES = {"stars": 5, "genre": "jazz"}


PLAIN: dict[str, Any] = {  # whatever the defaults are
    "max_new_tokens": 30,
    "num_return_sequences": 2,
    "do_sample": True,
    "temperature": 0.7,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "words": "any",
    "finish": "anywhere",
}


def call(prompt: str = "", **changes: Any) -> dict[str, Any]:
    """Return the arguments of a call that differs from the plain one."""
    return {"prompt": prompt, "seed": 1, "generation_config": GenerationConfig(**PLAIN | changes)}


CALLS: dict[str, dict[str, Any]] = {
    "saved defaults": {"seed": 1, "num_return_sequences": 2},
    "plain": call(),
    "filters": call("The ", top_k=20, top_p=0.9, min_p=0.01),
    "penalties": call("My café ", repetition_penalty=1.2, no_repeat_ngram_size=3, min_new_tokens=25),
    "known words": call("a sc", words="known", finish="sentence", temperature=1.5),
    "greedy": call("this ", do_sample=False, num_return_sequences=1),
    "beams": call("My ", do_sample=False, num_beams=3, length_penalty=0.5),
}


def observe(name: str) -> dict[str, Any]:
    """Return everything that is compared of one folder, as JSON values."""
    model = reviewgen.load(FOLDERS / name)
    given: dict[str, Any] = {"conditions": GENRES} if model.conditions.names else {}
    texts = {call: model.generate(**arguments) for call, arguments in CALLS.items()}
    texts["eight bits"] = reviewgen.load(FOLDERS / name, weight_bits=8).generate(**call())
    if given:
        texts["conditions"] = model.generate(**call(conditions=GENRES))
    windows = []
    if "no-index" not in name:
        texts["no copies"] = model.generate(novelty="filter", max_copy=8, **call(temperature=0.3))
        windows = [list(model.novelty(text).windows.values()) for text in texts["greedy"] + texts["no copies"]]
    evaluation = model.evaluate(TEXTS, clean=False)
    return {
        "preset": model.preset,
        "digest": model.digest,
        "conditions": model.conditions.to_json(),
        "defaults": {key: value for key, value in asdict(model.generation_config).items() if value not in (None, (), {})},
        "counts": [evaluation.characters, evaluation.tokens, evaluation.reviews, evaluation.zero_probability_tokens],
        "windows": windows,
        "texts": texts,
        "bits": [*(model.score(text, **given).bits for text in TEXTS), evaluation.bits_per_character],
        "next": [each.probability for each in model.next_tokens("The ", k=4).alternatives],
    }


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_generates_and_scores_as_stored(name: str):
    stored = read_stored("folders")
    expected, found = stored["models"][name], json.loads(json.dumps(observe(name)))
    for what in ("preset", "digest", "conditions", "counts", "windows"):
        assert found[what] == expected[what], what
    assert expected["defaults"].items() <= found["defaults"].items()
    others = [call for call, texts in expected["texts"].items() if found["texts"][call] != texts]
    assert len(others) <= (arithmetic() != stored["arithmetic"]), others
    for what in ("bits", "next"):
        assert found[what] == pytest.approx(expected[what], rel=1e-5), what


@pytest.mark.parametrize("name", [name for name, (_, _, dtype) in MODELS.items() if dtype == "float32"])
def test_a_saved_model_that_is_saved_again_has_the_same_digest(name: str, tmp_path: Path):
    model = reviewgen.load(FOLDERS / name)
    model.save_pretrained(tmp_path / "again")
    assert reviewgen.load(tmp_path / "again").digest == model.digest == read_stored("folders")["models"][name]["digest"]


@pytest.mark.parametrize("name", MODELS)
def test_a_file_that_has_changed_since_it_was_saved_is_refused(name: str, tmp_path: Path):
    listed = json.loads((FOLDERS / name / "manifest.json").read_text(encoding="utf-8"))["files"]
    accepted = []
    for file in listed:
        folder = shutil.copytree(FOLDERS / name, tmp_path / file)
        content = bytearray((folder / file).read_bytes())
        content[-2] ^= 1
        (folder / file).write_bytes(content)
        try:
            reviewgen.load(folder)
            accepted.append(file)
        except BundleError:
            pass
    assert listed and not accepted


def training_on(store: Path) -> reviewgen.TrainingRun:
    return reviewgen.TrainingRun("ngram-word", store, tokenizer=TOKENIZERS["word"])


def test_a_prepared_store_gives_the_ids_of_its_source(tmp_path: Path):
    write, options = CASES[STORE_CASE]
    run = training_on(FOLDERS / "store")
    run.read()
    run.tokenize()
    fresh = read(write(tmp_path), "word", options)
    assert {split: framed(store) for split, store in run.stores.items()} == fresh.ids
    assert run.facts()["data"]["cleaning"] == fresh.counts


def test_a_damaged_store_is_refused(tmp_path: Path):
    folder = shutil.copytree(FOLDERS / "store", tmp_path / "store")
    tokenizer = next(iter((folder / "tokenizer").iterdir()))
    tokenizer.write_bytes(tokenizer.read_bytes().replace(b"a", b"b", 1))
    run = training_on(folder)
    with pytest.raises(DataError, match="changed"):
        run.read()
        run.tokenize()


if __name__ == "__main__":
    write_stored("folders", {"arithmetic": arithmetic(), "models": {name: observe(name) for name in MODELS}})
