"""The law of models that say where they are not to be trained."""

from collections.abc import Callable
from typing import Any

import torch

from reviewgen.protocols import SupportsDevices
from reviewgen.testing.models import can

__all__ = ["devices"]


def devices(make: Callable[[], Any]) -> None:
    """SupportsDevices: a frozenset of torch's types of devices; the CPU, to which every model can go, is none of them."""
    model = make()
    if not can(model, SupportsDevices):
        return
    named = model.unsuited_devices
    assert isinstance(named, frozenset), f"unsuited_devices is a {type(named).__name__}, no frozenset of names, as in {{'mps'}}."
    assert "cpu" not in named, "unsuited_devices names the CPU."
    for name in named:
        try:
            kind = torch.device(name).type
        except (RuntimeError, TypeError) as error:
            raise AssertionError(f"unsuited_devices names {name!r}, which torch does not know: {error}") from error
        assert kind == name, f"unsuited_devices names {name!r}; a type of devices is {kind!r}."
