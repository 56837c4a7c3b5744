"""A stepper that is correct except that its module imports torch."""

import torch

from tests.plugins.faults.steppers import TwinStepper


class LoadsTorch(TwinStepper):
    DTYPE = torch.float32
