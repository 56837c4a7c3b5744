from .run import TrainingRun
from .sweep import SweepRow
from .tune import TuneTrial
from .tune_sampling import SamplingTrial, shorten_as_generated

__all__ = [
    "SamplingTrial",
    "SweepRow",
    "TrainingRun",
    "TuneTrial",
    "shorten_as_generated",
]
