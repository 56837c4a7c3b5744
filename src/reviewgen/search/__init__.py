"""Several trainings of one preset: ``sweep`` tries the values of a setting, ``tune`` searches for the best settings.

variants     trainings that differ in some settings, on corpora that are prepared once
sweep, tune  the implementations of ``reviewgen.sweep`` and ``reviewgen.tune``
tune_sampling  compares the texts of generation settings with human ones
"""

from reviewgen.search.sweep import SweepRow, plot_sweep, sweep
from reviewgen.search.tune import TuneTrial, best_trial, tune
from reviewgen.search.tune_sampling import SamplingTrial, shorten_as_generated, tune_sampling

__all__ = [
    "SamplingTrial",
    "SweepRow",
    "TuneTrial",
    "best_trial",
    "plot_sweep",
    "shorten_as_generated",
    "sweep",
    "tune",
    "tune_sampling",
]
