from .checkpoints import Checkpoints
from .execution import IsolatedRng, Sizing, choose_device, choose_size, native_precision
from .fitting import fit
from .optimizing import DivergenceGuard, cross_entropy
from .report import Budget, Report, RunVerdict, StopReason, find_verdict

__all__ = [
    "Budget",
    "Checkpoints",
    "DivergenceGuard",
    "IsolatedRng",
    "Report",
    "RunVerdict",
    "Sizing",
    "StopReason",
    "choose_device",
    "choose_size",
    "cross_entropy",
    "find_verdict",
    "fit",
    "native_precision",
]
