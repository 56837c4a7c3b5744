"""The law of ``SupportsDevices``: models that declare on which devices they should not be trained."""

from collections.abc import Callable
from typing import Any

import torch

from reviewgen.protocols import SupportsDevices
from reviewgen.testing.models import can

__all__ = ["devices"]


def devices(make: Callable[[], Any]) -> None:
    """SupportsDevices: ``unsuited_devices`` is a frozenset of torch device types without "cpu", on which every model must run."""
    model = make()
    if not can(model, SupportsDevices):
        return
    named = model.unsuited_devices
    assert isinstance(named, frozenset), (
        f"unsuited_devices must be a frozenset of device types, as in frozenset({{'mps'}}); got a {type(named).__name__}."
    )
    assert "cpu" not in named, "unsuited_devices must not contain 'cpu': every model must run on the CPU."
    for name in named:
        try:
            device_type = torch.device(name).type
        except (RuntimeError, TypeError) as error:
            raise AssertionError(f"unsuited_devices contains {name!r}, which is not a device type of torch: {error}") from error
        assert device_type == name, f"unsuited_devices contains {name!r}; give the device type, {device_type!r}."
