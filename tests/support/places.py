"""The devices that the tests of ``tests/device`` run on: the CPU, so that they are proven
everywhere, and the accelerator.
"""

import pytest
import torch

__all__ = ["EACH_PLACE", "HERE"]

HERE = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else None
"""The type of this machine's accelerator."""

_MISSING = pytest.mark.skip(reason="needs an accelerator, and PyTorch finds none here")
EACH_PLACE = ["cpu", HERE if HERE is not None else pytest.param("accelerator", marks=_MISSING)]
"""The CPU and the accelerator, as parameters of a test."""
