"""The contracts between the core and its plugins: LanguageModel, Stepper, Tokenizer and their small optional companions.

Nothing but contracts lives here; the laws that an implementation must keep are checked by ``reviewgen.testing``.

    model       what is trained: tensors in and out
    stepper     what writes: arrays in and out, without torch
    tokenizer   text to ids and back

Each name is imported when it is first asked for, so that what writes does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reviewgen.protocols.model import (
        CountTrained,
        LanguageModel,
        State,
        SupportsCountMerge,
        SupportsImplementations,
        SupportsScore,
        SupportsStep,
    )
    from reviewgen.protocols.stepper import (
        DEAD_END,
        NONE,
        NOT_A_NUMBER,
        NOTHING_LEFT,
        CountedContext,
        Guard,
        Stepper,
        StepperKind,
        StepState,
        SupportsExplain,
        SupportsSample,
        TensorForm,
    )
    from reviewgen.protocols.tokenizer import SupportsEncodeBatch, Tokenizer

__all__ = [
    "DEAD_END",
    "NONE",
    "NOTHING_LEFT",
    "NOT_A_NUMBER",
    "CountTrained",
    "CountedContext",
    "Guard",
    "LanguageModel",
    "State",
    "StepState",
    "Stepper",
    "StepperKind",
    "SupportsCountMerge",
    "SupportsEncodeBatch",
    "SupportsExplain",
    "SupportsImplementations",
    "SupportsSample",
    "SupportsScore",
    "SupportsStep",
    "TensorForm",
    "Tokenizer",
]

_HOMES = {
    "model": (
        "CountTrained",
        "LanguageModel",
        "State",
        "SupportsCountMerge",
        "SupportsImplementations",
        "SupportsScore",
        "SupportsStep",
    ),
    "stepper": (
        "DEAD_END",
        "NONE",
        "NOTHING_LEFT",
        "NOT_A_NUMBER",
        "CountedContext",
        "Guard",
        "StepState",
        "Stepper",
        "StepperKind",
        "SupportsExplain",
        "SupportsSample",
        "TensorForm",
    ),
    "tokenizer": ("SupportsEncodeBatch", "Tokenizer"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
