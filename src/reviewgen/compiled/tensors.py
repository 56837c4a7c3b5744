"""The memory of torch's tensors as arrays for compiled loops; alone in this package it imports torch."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["PRECISIONS", "as_array"]

PRECISIONS = (torch.float32, torch.bfloat16, torch.float64)
"""What ``precision`` reads and writes."""


def as_array(tensor: Tensor) -> np.ndarray:
    """Return the memory of a tensor on the processor as an array; of bfloat16, which numpy lacks, as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
