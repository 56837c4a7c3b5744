"""The settings of ``generate``: names in other libraries, misspelled names, saved defaults."""

from dataclasses import fields
from typing import Any

import pytest
from transformers import GenerationConfig as ForeignConfig

from reviewgen import ReviewModel
from reviewgen.config import GenerationConfig
from reviewgen.config.generation import FORMATS
from reviewgen.errors import ConfigError
from tests.support.fakes import LETTERS, TableModel, review_model, table


def model(**saved: Any) -> ReviewModel:
    return review_model(TableModel(table(LETTERS.vocab_size, 1, eos=-5.0)), LETTERS, **saved)


NAMES = {
    **dict.fromkeys(["n", "nsamples", "num_samples"], "num_return_sequences"),
    **dict.fromkeys(["prefix", "start_text", "text", "inputs"], "prompt"),
    **dict.fromkeys(["length", "max_length", "max_gen_length", "max_tokens"], "max_new_tokens"),
    **dict.fromkeys(["truncate", "stop", "stop_sequences"], "stop_strings"),
    "min_length": "min_new_tokens",
}
MISSPELLED = {
    "temprature": "temperature",
    "max_new_token": "max_new_tokens",
    "sed": "seed",
    "promt": "prompt",
}
MISSPELLED |= {
    "must_incude": "must_include",
    "logit_processor": "logits_processor",
    "streamers": "streamer",
}


def test_names_of_other_libraries_and_misspelled_names_get_the_name_here():
    made = model()
    # each raises before any work
    for call in (made.generate, made.generate_one, made.generate_each, made.stream):
        for name, ours in NAMES.items():
            with pytest.raises(ConfigError, match=rf"^{name!r} is called {ours} here"):
                call("", **{name: 3})
        for wrong, meant in MISSPELLED.items():
            with pytest.raises(ConfigError, match=rf"{wrong!r} .* Did you mean {meant!r}"):
                call("", **{wrong: 3})
    with pytest.raises(ConfigError, match="'n' is called num_return_sequences"):
        made.generate(generation_config={"n": 3})
    with pytest.raises(ConfigError, match=r"'zzz' .* Known: .*num_beams"):
        made.generate(zzz=1)
    alone = {
        "finish",
        "words",
        "conditions",
        "logits_processors",
        "likeness",
        "max_time",
        "stop_strings",
        "exact",
        *FORMATS,
    }
    assert {
        field.name for field in fields(GenerationConfig)
    } <= ForeignConfig().to_dict().keys() | alone


@pytest.fixture
def saved() -> ReviewModel:
    return model(max_new_tokens=7, top_k=1, num_return_sequences=2)


def test_saved_defaults_hold_unless_overridden(saved):
    options = {"generation_config": {"max_new_tokens": 4}}
    texts = saved.generate("")
    assert [len(text) for text in texts] == [7, 7] and len(set(texts)) == 1
    assert [len(text) for text in saved.generate("", max_new_tokens=3)] == [3, 3]
    assert [len(text) for text in saved.generate("", **options)] == [4, 4]
    assert [len(text) for text in saved.generate("", **options, max_new_tokens=5)] == [5, 5]
    assert saved.generation_config.max_new_tokens == 7  # for those calls only


def test_a_configuration_object_replaces_all_saved_settings(saved):
    whole = GenerationConfig(max_new_tokens=4, temperature=1.0)
    assert [len(text) for text in saved.generate("", generation_config=whole, seed=1)] == [4]
    texts = saved.generate("", generation_config=whole, num_return_sequences=20, seed=1)
    assert len(set(texts)) > 1


@pytest.mark.wrong_types
def test_none_stands_for_the_saved_setting(saved):
    nothing = {field.name: None for field in fields(GenerationConfig)}
    hooks = dict.fromkeys(
        [
            "generation_config",
            "logits_processor",
            "stopping_criteria",
            "streamer",
            "novelty",
            "max_copy",
        ]
    )
    assert saved.generate("a", seed=1, **nothing, **hooks, must_include=None) == saved.generate(
        "a", seed=1
    )
    assert saved.generate("a", seed=1, generation_config=nothing) == saved.generate("a", seed=1)


def test_a_profile_that_is_not_saved_is_refused(saved):
    with pytest.raises(ConfigError, match="saved without the profile likeness"):
        saved.generate("", profile="likeness")


@pytest.fixture
def both() -> ReviewModel:
    return model(max_new_tokens=9, top_k=1, likeness={"top_k": 0, "temperature": [0.9, 1.1]})


def test_the_profile_reading_is_the_saved_settings(both):
    assert (
        both.generate("", profile="reading", seed=1)
        == both.generate("", seed=1)
        != both.generate("", profile="likeness", seed=1)
    )


@pytest.mark.parametrize("more", [{}, {"top_k": 3}], ids=["alone", "with a keyword"])
def test_the_profile_likeness_replaces_settings_but_not_keywords(both, more):
    plain = both.generate("", seed=1, **{"top_k": 0, "temperature": [0.9, 1.1]} | more)
    assert both.generate("", profile="likeness", seed=1, **more) == plain


@pytest.mark.wrong_types
def test_wrong_profiles_are_refused(both):
    for wrong in ({"profile": "likenes"}, {"likeness": {"top_k": 2}}):
        with pytest.raises(
            ConfigError, match=r"Did you mean 'likeness'|chooses it with profile='likeness'"
        ):
            both.generate("", **wrong)


@pytest.mark.wrong_types
def test_wrong_settings_of_a_profile_are_refused():
    for wrong in ({"seed": 1}, {"top_p": 2}):
        with pytest.raises(ConfigError, match=r"settings temperature, top_k|top_p must be"):
            model(likeness=wrong)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    "stops", ["a", ("a",), {"a"}, iter(["a"])], ids=["text", "tuple", "set", "iterator"]
)
def test_stop_strings_may_be_any_iterable(saved, stops):
    assert saved.generate("", stop_strings=stops) == saved.generate("", stop_strings=["a"])


@pytest.mark.wrong_types
def test_prompts_may_be_an_iterator(saved):
    assert saved.generate(iter(["a", "b"])) == saved.generate(["a", "b"])
