"""Reads and checks the parameter groups of a model; see ``SupportsParameterGroups``. Needs torch."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from reviewgen.errors import BrokenPlugin
from reviewgen.protocols.abilities import SupportsParameterGroups

SCALE = "learning_rate_scale"


def read_parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return the parameter groups of a model that has some, after they were checked; else none.

    Raises:
        BrokenPlugin: They are not as ``SupportsParameterGroups`` says.
    """
    if not isinstance(model, SupportsParameterGroups):
        return []
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups: list[dict[str, Any]] = []
    grouped: list[int] = []
    for number, given in enumerate(model.parameter_groups()):
        group = {**given, "params": list(given.get("params", ()))}
        if problem := _find_problem(group, names, grouped):
            raise BrokenPlugin(f"{type(model).__name__}.parameter_groups(): group {number} {problem}.")
        groups.append(group)
    return groups


def _find_problem(group: Mapping[str, Any], names: Mapping[int, str], grouped: list[int]) -> str | None:
    """Return what is wrong with a group, if anything.

    Args:
        group: The group.
        names: The name of each parameter of the model, by its id.
        grouped: The ids of the parameters of the groups before it; those of this one are added.
    """
    known = ("params", "optimizer", SCALE, "weight_decay")
    if unknown := [key for key in group if key not in known]:
        return f"has the key {unknown[0]!r}; a group has {', '.join(known)}"
    if group.get("optimizer", "adamw") not in ("adamw", "muon"):
        return f'has the optimizer {group["optimizer"]!r}; it must be "adamw" or "muon"'
    for key in (SCALE, "weight_decay"):
        value = group.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            return f"has {key}={value!r}; it must be a number of at least 0"
    for place, parameter in enumerate(group["params"]):
        name = names.get(id(parameter))
        if name is None:
            return f"has in place {place} of params something that is not a parameter of the model"
        if id(parameter) in grouped:
            return f"has {name}, which is in a group already"
        grouped.append(id(parameter))
        if group.get("optimizer") == "muon" and parameter.ndim != 2:
            return f"gives {name} to muon, which is for matrices; it has {parameter.ndim} dimensions"
    return None
