"""Torch tensors as arrays for compiled loops, without copying. The only file of this package that imports torch."""

import numpy as np
import torch
from torch import Tensor

PRECISIONS = (torch.float32, torch.bfloat16, torch.float64)
"""The dtypes that ``precision`` supports."""


def as_array(tensor: Tensor) -> np.ndarray:
    """Return an array that shares the memory of a CPU tensor; bfloat16, which numpy does not have, as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
