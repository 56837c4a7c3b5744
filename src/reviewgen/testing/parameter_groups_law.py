"""The law of ``SupportsParameterGroups``: groups of the model's own parameters, each at most once, with known settings."""

from collections.abc import Callable
from typing import Any

from reviewgen.errors import BrokenPlugin
from reviewgen.protocols import SupportsParameterGroups
from reviewgen.protocols.parameter_groups import read_parameter_groups
from reviewgen.testing.models import can

__all__ = ["parameter_groups"]


def parameter_groups(make: Callable[[], Any]) -> None:
    """SupportsParameterGroups: parameters of the model, none twice, with known settings, and the same groups at each call."""
    model = make()
    if not can(model, SupportsParameterGroups):
        return
    try:
        first, second = read_parameter_groups(model), read_parameter_groups(model)
    except BrokenPlugin as error:
        raise AssertionError(str(error)) from error
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    named = [[[names[id(each)] for each in group["params"]] for group in groups] for groups in (first, second)]
    assert named[0] == named[1], (
        f"parameter_groups() returns {named[1]} after {named[0]}; it must return the same groups at each call, so that a run can "
        "be resumed."
    )
