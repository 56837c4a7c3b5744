"""The settings of ``generate``: names in other libraries, misspelled names, settings that exclude each other, saved defaults."""

from dataclasses import fields
from typing import Any

import pytest
from transformers import GenerationConfig as ForeignConfig

from reviewgen import ReviewModel
from reviewgen.config import GenerationConfig
from reviewgen.errors import ConfigError
from tests.support.fakes import LETTERS, TableModel, review_model, table
from tests.support.ngrams import LOOP, indexed


def model(**saved: Any) -> ReviewModel:
    return review_model(TableModel(table(LETTERS.vocab_size, 1, eos=-5.0)), LETTERS, **saved)


NAMES = {
    **dict.fromkeys(["n", "nsamples", "num_samples"], "num_return_sequences"),
    **dict.fromkeys(["prefix", "start_text", "text", "inputs"], "prompt"),
    **dict.fromkeys(["length", "max_length", "max_gen_length", "max_tokens"], "max_new_tokens"),
    **dict.fromkeys(["truncate", "stop", "stop_sequences"], "stop_strings"),
    "min_length": "min_new_tokens",
}
MISSPELLED = {"temprature": "temperature", "max_new_token": "max_new_tokens", "sed": "seed", "promt": "prompt"}
MISSPELLED |= {"must_incude": "must_include", "logit_processor": "logits_processor", "streamers": "streamer"}


def test_names_of_other_libraries_and_misspelled_names_get_the_name_here() -> None:
    made = model()
    for call in (made.generate, made.generate_one, made.generate_each, made.stream):  # each raises before any work
        for name, ours in NAMES.items():
            with pytest.raises(ConfigError, match=rf"^{name!r} is called {ours} here"):
                call("", **{name: 3})
        for wrong, meant in MISSPELLED.items():
            with pytest.raises(ConfigError, match=rf"{wrong!r} .* Did you mean {meant!r}"):
                call("", **{wrong: 3})
    with pytest.raises(ConfigError, match="'n' is called num_return_sequences"):
        made.generate(generation_config={"n": 3})
    with pytest.raises(ConfigError, match=r"'zzz' .* Known: .*seed"):
        made.generate(zzz=1)
    ours_too = {field.name for field in fields(GenerationConfig)} - {"finish", "words", "conditions", "logits_processors"}
    assert ours_too <= ForeignConfig().to_dict().keys() | {"max_time", "stop_strings"}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_beams": 2, "novelty": "filter"}, "num_beams cannot be combined with novelty"),
    ({"num_beams": 2, "must_include": "a"}, "num_beams cannot be combined with must_include"),
    ({"num_beams": 2, "stopping_criteria": any}, "num_beams cannot be combined with stopping_criteria"),
    ({"num_beams": 2, "do_sample": True}, "num_beams does not sample"),
    ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3 is above num_beams=2"),
    ({"do_sample": False, "num_return_sequences": 2}, "every text of a prompt is the same"),
    ({"do_sample": False, "must_include": "a"}, "must_include .* do_sample=False"),
    ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens=9 is above max_new_tokens=8"),
    ({"max_copy": 3, "novelty": "report"}, "max_copy needs novelty='filter'"),
    ({"max_copy": -1, "novelty": "filter"}, "max_copy"),
    ({"max_copy": True, "novelty": "filter"}, "max_copy"),
    ({"novelty": "yes"}, "novelty"),
    ({"conditions": 5}, "conditions is a mapping"),
    ({"conditions": {"stars": 5}}, "not a condition of this model"),
    *(({"temperature": wrong}, "temperature") for wrong in ([], [0.5, 0.0], 0.0)),
    *(({"top_p": wrong}, "top_p") for wrong in (0.0, 1.1)),
    *(({"min_p": wrong}, "min_p") for wrong in (-0.1, 2.0)),
    *(({"num_beams": wrong}, "num_beams") for wrong in (0, 257)),
    *(({"length_penalty": wrong}, "length_penalty") for wrong in (float("nan"), 1e308, -11)),
    *(({"stop_strings": wrong}, "stop_strings") for wrong in ("", [""])),
    *(({"seed": wrong}, "seed") for wrong in (-1, 1 << 64)),
    *(({name: -1}, name) for name in ("top_k", "max_new_tokens", "no_repeat_ngram_size", "repetition_penalty", "max_time")),
    ({"num_return_sequences": 0}, "num_return_sequences"),
    *(({name: "x"}, name) for name in ("temperature", "length_penalty", "finish", "do_sample", "num_beams", "max_time")),
    ({"top_k": 1.5}, "top_k"),
]


def test_settings_out_of_range_and_settings_that_exclude_each_other_are_refused() -> None:
    made = indexed(model().model, LOOP)
    for options, message in REFUSED:
        for call in (made.generate, made.generate_each):
            with pytest.raises(ConfigError, match=message):
                call("a", **options)
    for options in ({"num_beams": 2}, {"must_include": "a"}, {"novelty": "filter"}):
        with pytest.raises(ConfigError, match="whole text"):
            made.stream("a", **options)
    with pytest.raises(ConfigError, match="one text; this call asks for 2"):
        made.stream("a", num_return_sequences=2)
    with pytest.raises(ConfigError, match="generation_config must be"):
        made.generate("", generation_config="beam")  # type: ignore[call-overload]
    for prompt in (3, ["a", None]):
        with pytest.raises(ConfigError, match="prompt must be a string or a list"):
            made.generate(prompt)  # type: ignore[call-overload]


def test_saved_defaults_hold_unless_overridden() -> None:
    saved, options = model(max_new_tokens=7, top_k=1, num_return_sequences=2), {"generation_config": {"max_new_tokens": 4}}
    whole = GenerationConfig(max_new_tokens=4, temperature=1.0)
    assert [len(text) for text in saved.generate("")] == [7, 7] and len(set(saved.generate(""))) == 1
    assert [len(text) for text in saved.generate("", max_new_tokens=3)] == [3, 3]
    assert [len(text) for text in saved.generate("", **options)] == [4, 4]
    assert [len(text) for text in saved.generate("", **options, max_new_tokens=5)] == [5, 5]
    assert saved.generation_config.max_new_tokens == 7  # for those calls only
    assert [len(text) for text in saved.generate("", generation_config=whole, seed=1)] == [4]  # an object replaces all settings
    assert len(set(saved.generate("", generation_config=whole, num_return_sequences=20, seed=1))) > 1
    nothing = {field.name: None for field in fields(GenerationConfig)}
    hooks = dict.fromkeys(["generation_config", "logits_processor", "stopping_criteria", "streamer", "novelty", "max_copy"])
    assert saved.generate("a", seed=1, **nothing, **hooks, must_include=None) == saved.generate("a", seed=1)
    assert saved.generate("a", seed=1, generation_config=nothing) == saved.generate("a", seed=1)
    for stops in ("a", ("a",), {"a"}, iter(["a"])):
        assert saved.generate("", stop_strings=stops) == saved.generate("", stop_strings=["a"])
    assert saved.generate(iter(["a", "b"])) == saved.generate(["a", "b"])
