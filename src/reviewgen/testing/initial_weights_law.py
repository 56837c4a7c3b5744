"""The law of ``SupportsInitialWeights``: tensors of the model's own kind are taken, unknown ones are refused."""

from collections.abc import Callable
from typing import Any

import torch

from reviewgen.errors import ConfigError
from reviewgen.protocols import SupportsInitialWeights
from reviewgen.testing.models import can

__all__ = ["initial_weights"]


def initial_weights(make: Callable[[], Any]) -> None:
    """SupportsInitialWeights: own names are accepted, shapes fit, the model does not change, an unknown tensor is an error."""
    model = make()
    if not can(model, SupportsInitialWeights):
        return
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = {name: tensor + 1 for name, tensor in state.items()}
    given = model.initial_weights(dict(other))
    for name, tensor in given.items():
        assert name in state, f"initial_weights() returns {name!r}, which is not a name of state_dict()."
        assert tensor.shape == state[name].shape, (
            f"initial_weights() returns {name} of the shape {tuple(tensor.shape)}, and state_dict() of "
            f"{tuple(state[name].shape)}."
        )
        assert torch.equal(tensor, other[name]), f"initial_weights() changes {name}, which has the model's own name and shape."
    assert given.keys() == state.keys(), (
        f"initial_weights() leaves out {sorted(state.keys() - given.keys())} of the tensors of a model of the same kind."
    )
    unchanged = all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert unchanged, (
        "initial_weights() changes the model; it must only return tensors, which are checked and copied by the core."
    )
    try:
        model.initial_weights({"an unknown.tensor": torch.zeros(1)})
    except ConfigError as error:
        assert "an unknown.tensor" in str(error), f"The error of initial_weights() must name the tensor; got {str(error)!r}."
    else:
        raise AssertionError("initial_weights() accepts a tensor that it does not know; it must raise ConfigError.")
