"""The settings of ``generate``: names in other libraries, misspelled names, settings that exclude each other, saved defaults."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig as ForeignConfig

from reviewgen.config import GenerationConfig
from reviewgen.errors import ConfigError
from reviewgen.model import ReviewModel
from tests.support.fakes import LETTERS, TableModel, review_model, table
from tests.support.forked import run_python
from tests.unit.test_guard import LOOP, indexed


def model(**saved: Any) -> ReviewModel:
    return review_model(TableModel(table(LETTERS.vocab_size, 1, eos=-5.0)), LETTERS, **saved)


def calls(found: ReviewModel) -> list[Any]:
    """Return all functions that take these settings; each must raise before any work."""
    return [found.generate, found.generate_one, found.generate_each, found.stream]


@pytest.mark.parametrize(
    ("name", "ours"),
    {
        "n": "num_return_sequences",
        "nsamples": "num_return_sequences",
        "num_samples": "num_return_sequences",
        "prefix": "prompt",
        "start_text": "prompt",
        "text": "prompt",
        "inputs": "prompt",
        "length": "max_new_tokens",
        "max_length": "max_new_tokens",
        "max_gen_length": "max_new_tokens",
        "max_tokens": "max_new_tokens",
        "min_length": "min_new_tokens",
        "truncate": "stop_strings",
        "stop": "stop_strings",
        "stop_sequences": "stop_strings",
    }.items(),
)
def test_names_of_other_libraries_get_the_name_here(name: str, ours: str) -> None:
    for call in calls(model()):
        with pytest.raises(ConfigError, match=rf"^{name!r} is called {ours} here\.$"):
            call("", **{name: 3})
    with pytest.raises(ConfigError, match=rf"^{name!r} is called {ours} here\.$"):
        model().generate(generation_config={name: 3})


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("temprature", "temperature"),
        ("max_new_token", "max_new_tokens"),
        ("num_beam", "num_beams"),
        ("stop_string", "stop_strings"),
        ("sed", "seed"),
        ("promt", "prompt"),
        ("must_incude", "must_include"),
        ("novelti", "novelty"),
        ("max_copys", "max_copy"),
        ("logit_processor", "logits_processor"),
        ("stopping_criterion", "stopping_criteria"),
        ("streamers", "streamer"),
        ("generation_configs", "generation_config"),
    ],
)
def test_a_misspelled_name_is_suggested(wrong: str, meant: str) -> None:
    for call in calls(model()):
        with pytest.raises(ConfigError, match=rf"^{wrong!r} is not a setting of generate\. Did you mean {meant!r}\?"):
            call("", **{wrong: 3})


def test_a_name_like_no_other_lists_all() -> None:
    with pytest.raises(ConfigError, match=r"'zzz' is not a setting of generate\. Known: .*num_beams.*seed.* and \d+ more"):
        model().generate(zzz=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_beams": 2, "novelty": "filter"}, "num_beams cannot be combined with novelty='filter'"),
        ({"num_beams": 2, "must_include": "a"}, "num_beams cannot be combined with must_include"),
        ({"num_beams": 2, "stopping_criteria": any}, "num_beams cannot be combined with stopping_criteria"),
        ({"num_beams": 2, "do_sample": True}, "num_beams does not sample"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3 is above num_beams=2"),
        ({"do_sample": False, "num_return_sequences": 2}, "Without do_sample every text of a prompt is the same"),
        ({"do_sample": False, "must_include": "a"}, "must_include .* cannot be combined with do_sample=False"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens=9 is above max_new_tokens=8"),
        ({"min_new_tokens": 31}, "min_new_tokens=31 is above max_new_tokens=30"),
        ({"max_copy": 3}, "max_copy needs novelty='filter'"),
        ({"max_copy": 3, "novelty": "report"}, "max_copy needs novelty='filter'"),
        ({"novelty": "yes"}, "novelty must be 'report' or 'filter'; got 'yes'"),
        ({"temperature": []}, "temperature must be a number or a list of at least one"),
        ({"temperature": [0.5, 0.0]}, "temperature"),
        ({"num_beams": 257}, "num_beams"),
        ({"num_beams": 0}, "num_beams"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"max_time": 0.0}, "max_time"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"length_penalty": 1e308}, "length_penalty"),  # too large a power of a length
        ({"length_penalty": -11}, "length_penalty"),
        ({"conditions": 5}, "conditions is a mapping"),
        ({"conditions": {"stars": 5}}, "not a condition of this model"),
    ],
    ids=str,
)
def test_settings_that_exclude_each_other_are_refused(given: dict[str, Any], message: str) -> None:
    found = indexed(model().model, LOOP)
    with pytest.raises(ConfigError, match=message):
        found.generate("a", **given)
    with pytest.raises(ConfigError, match=message):
        found.generate_each("a", **given)


@pytest.mark.parametrize("given", [{"num_beams": 2}, {"must_include": "a"}, {"novelty": "filter"}], ids=str)
def test_settings_that_need_the_whole_text_exclude_stream(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="need the whole text and cannot be combined with stream"):
        indexed(model().model, LOOP).stream("a", **given)
    with pytest.raises(ConfigError, match="stream returns one text; this call asks for 2"):
        model().stream("a", num_return_sequences=2)


def test_wrong_types_get_a_message() -> None:
    """In a subprocess, since pytest's runtime type checker would raise first in this one."""
    script = """
from reviewgen.errors import ConfigError
from tests.support.fakes import LETTERS, TableModel, review_model, table

model = review_model(TableModel(table(LETTERS.vocab_size)), LETTERS)

def refused(call, message, *prompt, **given):
    try:
        call(*prompt, **given)
    except ConfigError as error:
        assert message in str(error), error
    else:
        raise AssertionError((prompt, given))

for name, wrong in {"temperature": "hot", "length_penalty": "long", "finish": "word", "do_sample": "yes", "top_k": 1.5,
                    "num_beams": "2", "max_new_tokens": "9", "stop_strings": [3], "max_time": "1", "min_p": True}.items():
    refused(model.generate, name, "a", **{name: wrong})
    refused(model.generate, name, "a", generation_config={name: wrong})
refused(model.generate_one, "generate_one takes one prompt, a string; got list. generate takes a list.", ["a"])
for wrong in (3, [3], ["a", None], None):
    refused(model.generate, "prompt must be a string or a list of strings", wrong)
for wrong in (1.0, "0", None):
    refused(model.generate_each, "first must be a whole number of at least 0", "a", first=wrong)
assert model.generate(iter(["a", "b"]), seed=1) == model.generate(["a", "b"], seed=1)
"""
    run_python(["-c", script], check=True, cwd=Path(__file__).parents[2])


# Defaults and overrides.


def test_saved_defaults_hold_unless_overridden() -> None:
    saved = model(max_new_tokens=7, top_k=1, num_return_sequences=2)
    assert saved.generation_config.max_new_tokens == 7
    assert [len(text) for text in saved.generate("")] == [7, 7] and len(set(saved.generate(""))) == 1
    assert [len(text) for text in saved.generate("", max_new_tokens=3)] == [3, 3]
    assert [len(text) for text in saved.generate("", generation_config={"max_new_tokens": 4})] == [4, 4]
    assert [len(text) for text in saved.generate("", generation_config={"max_new_tokens": 4}, max_new_tokens=5)] == [5, 5]
    assert saved.generation_config.max_new_tokens == 7  # for those calls only


def test_an_object_replaces_all_settings_and_a_mapping_some() -> None:
    saved = model(max_new_tokens=7, top_k=1, num_return_sequences=2)
    whole = GenerationConfig(max_new_tokens=4, temperature=1.0)
    assert [len(text) for text in saved.generate("", generation_config=whole, seed=1)] == [4]
    assert len(set(saved.generate("", generation_config=whole, num_return_sequences=20, seed=1))) > 1
    assert saved.generate("", generation_config=whole, top_k=1) == [text[:4] for text in saved.generate("")[:1]]
    assert saved.generate("a", generation_config={}) == saved.generate("a")


def test_none_is_not_given() -> None:
    saved = model(max_new_tokens=7, top_k=1)
    nothing = {field.name: None for field in fields(GenerationConfig)}
    hooks = dict.fromkeys(["generation_config", "logits_processor", "stopping_criteria", "streamer", "novelty", "max_copy"])
    assert saved.generate("a", seed=1, **nothing, **hooks, must_include=None) == saved.generate("a", seed=1)
    assert saved.generate("a", seed=1, generation_config=nothing) == saved.generate("a", seed=1)


def test_an_invalid_config_is_refused() -> None:
    for wrong in (3, "beam", [("top_k", 1)]):
        with pytest.raises(ConfigError, match=r"generation_config must be a reviewgen\.GenerationConfig or a mapping"):
            model().generate("", generation_config=wrong)
    with pytest.raises(ConfigError, match=r"got transformers\.generation\..*GenerationConfig"):
        model().generate("", generation_config=ForeignConfig(top_k=3))


def test_one_string_and_any_iterable_are_accepted() -> None:
    found = model()
    given: dict[str, Any] = {"seed": 1, "max_new_tokens": 20}
    for stops in ("a", ["a"], ("a",), {"a"}, iter(["a"])):
        assert found.generate("", stop_strings=stops, **given) == found.generate("", stop_strings=["a"], **given)
    assert found.generate("", temperature=iter([0.5, 1.0]), **given) == found.generate("", temperature=(0.5, 1.0), **given)


def test_the_names_are_those_of_transformers() -> None:
    ours = {field.name for field in fields(GenerationConfig)} - {"finish", "words", "conditions", "logits_processors"}
    assert ours <= ForeignConfig().to_dict().keys() | {"max_time", "stop_strings"}
