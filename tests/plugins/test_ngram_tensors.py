"""The tensors of an n-gram model: saved and loaded they give the same, damaged they are refused and
change nothing.
"""

import math
from typing import Any

import pytest
import torch

from reviewgen.errors import BundleError
from reviewgen.registry.plugins import find_model
from tests.support.plugin_models import BOS, LINES, count_ngram, log_probabilities, spell

Ngram: Any = find_model("ngram")[0]
TEXT = spell(LINES[0])[0]
FAR = 1 << 30


@pytest.mark.parametrize("quantized", [False, True])
def test_round_trip(quantized):
    # ids of 8, 16 and 32 bits
    for vocab_size, order in [(200, 1), (200, 4), (300, 2), (40_000, 4)]:
        model, _ = count_ngram(spell(*LINES), vocab_size, order, quantized=quantized)
        form = {name: (tensor.dtype, tensor.ndim) for name, tensor in model.state_dict().items()}
        # one for each context
        assert order == 1 or len(model.state_dict()["backoffs"]) == len(model.state_dict()["links"])
        again = Ngram(model.config)
        assert {
            name: (tensor.dtype, tensor.ndim) for name, tensor in again.state_dict().items()
        } == form
        again.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
        assert torch.equal(log_probabilities(again, TEXT[:5]), log_probabilities(model, TEXT[:5]))


def put(name: str, place: int, value: float) -> Any:
    return lambda tensors: tensors[name].__setitem__(place, value)


def shift(name: str, place: int, by: int) -> Any:
    return lambda tensors: tensors[name].__setitem__(place, int(tensors[name][place]) + by)


def turn(name: str) -> Any:
    return lambda tensors: tensors.update({name: tensors[name].flip(0)})


DAMAGES: dict[str, Any] = {
    "extra": lambda t: t.update(other=torch.zeros(1)),
    "dtype": lambda t: t.update(backoffs=t["backoffs"].double()),
    "axes": lambda t: t.update(backoffs=t["backoffs"][None]),
    "starts fall": put("starts", 2, 1),
    "starts shifted": shift("starts", 3, -1),
    "a base": put("bases", 1, 5),
    "the first base": put("bases", 0, 5),
    "a base far out": put("bases", 1, FAR),
    "children": shift("children", 3, 1),
    "children of the root": put("children", 0, 1),
    "many children": lambda t: t["children"].fill_(100),
    "token outside": put("tokens", -1, 126),
    "first token outside": lambda t: put("tokens", int(t["starts"][2]) - 1, 126)(t),
    "token is bos": lambda t: t["tokens"][int(t["starts"][2]) :].fill_(BOS),
    "tokens unsorted": turn("tokens"),
    "a link": put("links", -1, 1),
    "a link far out": put("links", -1, FAR),
    "a link below zero": put("links", -1, -5),
    "a link of a single token": put("links", 1, 1),
    "an end": put("ends", -1, 1),
    "an end far out": put("ends", -1, FAR),
    "an end below zero": put("ends", -1, -5),
    "a probability that is NaN": put("probabilities", -1, math.nan),
    "a probability below zero": put("probabilities", -1, -0.5),
    "a sum": lambda t: t["probabilities"][-1].div_(2),
    "a backoff below zero": put("backoffs", -1, -0.5),
    "a backoff that is infinite": put("backoffs", -1, math.inf),
    "root": put("root", 5, 0.9),
    "root of bos": turn("root"),
    "root below zero": put("root", 5, -0.1),
    "bos outside": put("bos_id", 0, 500),
    "another bos": put("bos_id", 0, 1),
    "two bos": lambda t: t.update(bos_id=torch.tensor([0, 0])),
    "discounts": lambda t: t.update(discounts=t["discounts"][:1]),
}
QUANTIZED_DAMAGES: dict[str, Any] = {
    "the book": lambda t: t["book"].mul_(0.5),
    "the book out of range": put("book", 7, 2.0),
    "ends": lambda t: t.update(ends=torch.zeros(5, dtype=torch.int32)),
    "codes": lambda t: t["probabilities"].fill_(0),
}


@pytest.mark.parametrize("quantized", [False, True])
def test_damaged_tensors_are_refused_and_change_nothing(quantized):
    model, _ = count_ngram(spell(*LINES), 125, 3, quantized=quantized)
    before = log_probabilities(model, TEXT)
    damages = dict(QUANTIZED_DAMAGES if quantized else DAMAGES)
    for name in model.state_dict().keys() - {"bos_id"}:
        damages[f"{name} missing"] = lambda t, name=name: t.pop(name)
        damages[f"{name} cut"] = lambda t, name=name: t.update({name: t[name][:-1]})
    accepted = []
    for damage, function in damages.items():
        tensors = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        function(tensors)
        try:
            model.load_state_dict(tensors)
            accepted.append(damage)
        except BundleError as error:
            assert "n-gram tensors" in str(error), damage
        assert torch.equal(log_probabilities(model, TEXT), before), damage
    assert accepted == []


def test_tensors_of_other_settings_or_of_an_untrained_model_are_refused():
    tensors = count_ngram(spell(*LINES), 128, 3)[0].state_dict()
    for settings in ({"order": 2}, {"order": 4}, {"vocab_size": 100}, {"quantized": True}):
        with pytest.raises(BundleError):
            Ngram(Ngram.Config(**({"vocab_size": 128, "order": 3} | settings))).load_state_dict(
                tensors
            )
    empty = Ngram(Ngram.Config(vocab_size=128, order=3))
    with pytest.raises(BundleError):
        empty.load_state_dict(empty.state_dict())
