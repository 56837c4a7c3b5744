from .calibration import calibrate, fit_scale
from .checkpoints import Checkpoints
from .execution import IsolatedRng, Sizing, choose_device, choose_size, native_precision
from .loop import fit
from .optimizing import DivergenceGuard, RowAdamW, clip_gradients, cross_entropy
from .report import Budget, Report, RunVerdict, StopReason, find_verdict
from .softmax import SampledSoftmax, sampled_softmax

__all__ = [
    "Budget",
    "Checkpoints",
    "DivergenceGuard",
    "IsolatedRng",
    "Report",
    "RowAdamW",
    "RunVerdict",
    "SampledSoftmax",
    "Sizing",
    "StopReason",
    "calibrate",
    "choose_device",
    "choose_size",
    "clip_gradients",
    "cross_entropy",
    "find_verdict",
    "fit",
    "fit_scale",
    "native_precision",
    "sampled_softmax",
]
