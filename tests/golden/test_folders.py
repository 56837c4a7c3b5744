"""Models and a token store saved by the code of 28 November 2026 load, and generate and score the
same.

``folders.json`` is written by ``python -m tests.golden.test_folders``, and ``folders`` by
``make_folders``. The calls do not rest on defaults of the library; "saved defaults" are those in
the folder. Texts may differ as in ``test_presets``.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.config import GenerationConfig
from tests.golden.corpora import TOKENIZERS, framed, read, write
from tests.golden.make_folders import FOLDERS, MODELS, STORE
from tests.golden.stored import arithmetic, read_stored, write_stored

TEXTS = ["The plot was good.", "Her voice wasn't naïve 😀", "something else\nentirely"]
GENRES = {"stars": 5, "genre": "jazz"}


def call(prompt: str = "", **changes: Any) -> dict[str, Any]:
    """Return the arguments of a call."""
    plain = {
        "max_new_tokens": 30,
        "num_return_sequences": 2,
        "temperature": 0.7,
        "words": "any",
        "finish": "anywhere",
    }
    return {"prompt": prompt, "seed": 1, "generation_config": GenerationConfig(**plain | changes)}


CALLS: dict[str, dict[str, Any]] = {
    "saved defaults": {"seed": 1, "num_return_sequences": 2},
    "plain": call(),
    "filters": call("The ", top_k=20, top_p=0.9, min_p=0.01),
    "nucleus": call("It ", top_p=0.6),
    "penalties": call(
        "My café ", repetition_penalty=1.2, no_repeat_ngram_size=3, min_new_tokens=25
    ),
    "known words": call("a sc", words="known", finish="sentence", temperature=1.5),
    "greedy": call("this ", do_sample=False, num_return_sequences=1),
    "beams": call("My ", do_sample=False, num_beams=3, length_penalty=0.5),
}


def observe(name: str) -> dict[str, Any]:
    """Return everything that is compared of one folder, as JSON values."""
    model = reviewgen.load(FOLDERS / name)
    given: dict[str, Any] = {"conditions": GENRES} if model.conditions.names else {}
    unspecified = model.conditions.unspecified  # as what is not given was on 28 November 2026
    saved = unspecified | model.generation_config.conditions
    texts = {}
    for name_of_call, arguments in CALLS.items():
        conditions = unspecified if "generation_config" in arguments else saved
        texts[name_of_call] = model.generate(conditions=conditions, **arguments)
    texts["eight bits"] = reviewgen.load(FOLDERS / name, weight_bits=8).generate(
        conditions=unspecified, **call()
    )
    if given:
        texts["conditions"] = model.generate(**call(conditions=GENRES))
    windows = []
    if "no-index" not in name:
        texts["no copies"] = model.generate(
            novelty="filter", max_copy=8, conditions=unspecified, **call(temperature=0.3)
        )
        windows = [
            list(model.novelty(text).windows.values())
            for text in texts["greedy"] + texts["no copies"]
        ]
    evaluation = model.evaluate(TEXTS, clean=False)
    return {
        "preset": model.preset,
        "digest": model.digest,
        "conditions": model.conditions.to_json(),
        "defaults": {
            key: value
            for key, value in asdict(model.generation_config).items()
            if value not in (None, (), {})
        },
        "counts": [
            evaluation.characters,
            evaluation.tokens,
            evaluation.reviews,
            evaluation.zero_probability_tokens,
        ],
        "windows": windows,
        "texts": texts,
        "bits": [
            *(model.score(text, **given).bits for text in TEXTS),
            evaluation.bits_per_character,
        ],
        "next": [each.probability for each in model.next_tokens("The ", k=4).alternatives],
    }


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_generates_and_scores_as_stored(name: str):
    stored = read_stored("folders")
    expected = stored["models"][name]
    found = json.loads(json.dumps(observe(name)))
    for what in ("preset", "digest", "conditions", "counts", "windows"):
        assert found[what] == expected[what], what
    assert expected["defaults"].items() <= found["defaults"].items()
    others = [call for call, texts in expected["texts"].items() if found["texts"][call] != texts]
    assert len(others) <= (arithmetic() != stored["arithmetic"]), others
    for what in ("bits", "next"):
        assert found[what] == pytest.approx(expected[what], rel=1e-5), what


@pytest.mark.parametrize(
    "name", [name for name, (_, _, dtype) in MODELS.items() if dtype == "float32"]
)
def test_a_saved_model_that_is_saved_again_has_the_same_digest(name: str, tmp_path: Path):
    model = reviewgen.load(FOLDERS / name)
    model.save_pretrained(tmp_path / "again")
    # the digest includes the version that saved the model, and is read from the manifest
    config = tmp_path / "again" / "config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(reviewgen.__version__, "0.1.0"), encoding="utf-8")
    (tmp_path / "again" / "manifest.json").unlink()
    assert (
        reviewgen.load(tmp_path / "again").digest
        == model.digest
        == read_stored("folders")["models"][name]["digest"]
    )


def test_a_prepared_store_gives_the_ids_of_its_source(tmp_path: Path):
    run = reviewgen.TrainingRun("ngram-word", FOLDERS / "store", tokenizer=TOKENIZERS["word"])
    run.read()
    run.tokenize()
    fresh = read(write(STORE, tmp_path), "word", STORE.options)
    # to another split, as cleaning removes the white space since the store was saved
    moved = "spaces around, a tab\there"
    for split, store in run.corpus.stores.items():
        texts = [run.corpus.tokenizer.decode(ids[1:-1]).strip() for ids in framed(store)]
        assert [text for text in texts if text != moved] == [
            text for text, _, at in fresh.texts if at == split and text != moved
        ]
    assert run.facts()["data"]["cleaning"] == fresh.counts | {
        "characters": fresh.counts["characters"] + 7
    }


if __name__ == "__main__":
    write_stored(
        "folders", {"arithmetic": arithmetic(), "models": {name: observe(name) for name in MODELS}}
    )
