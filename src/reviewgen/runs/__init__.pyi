from .ablate import AblationRow
from .run import TrainingRun
from .sweep import SweepRow
from .tune import TuneTrial
from .tune_sampling import SamplingTrial, shorten_as_generated

__all__ = [
    "AblationRow",
    "SamplingTrial",
    "SweepRow",
    "TrainingRun",
    "TuneTrial",
    "shorten_as_generated",
]
