"""Where a run computes: device and precision through ``accelerate``, threads, and random numbers of its own."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from reviewgen.errors import TrainingError

__all__ = ["OwnRandom", "ThreadProbe", "find_place", "make_accelerator", "native_precision"]

_SLOW_STEPS = 5


def find_place() -> Any:
    """Return which of a launcher's processes this one is; without an accelerator they are processes on the CPU."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def make_accelerator(precision: str) -> Any:
    """Return an accelerator; its precision is one for the whole process, so "no" only switches autocast off."""
    from accelerate import Accelerator
    from accelerate.utils import AutocastKwargs

    find_place()  # the accelerator is of the same mind
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ  # by `accelerate launch`, whose word counts
    mixed = precision if precision in ("bf16", "fp16") else None if launched else native_precision()
    try:
        return Accelerator(mixed_precision=mixed, kwargs_handlers=[AutocastKwargs(enabled=precision != "no")])
    except ValueError as error:
        raise TrainingError(f"training.precision={precision} is not to be had here: {error}") from None


def native_precision() -> str:
    """Return the mixed precision that the device has instructions for."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if torch.backends.mps.is_available():
        return "no"
    return "bf16" if any("bf16" in name and has for name, has in torch.cpu.get_capabilities().items()) else "no"


class OwnRandom:
    """Inside the block torch draws from a random stream of its own; outside, the global one is as it was.

    On an accelerator, whose dropout draws from the device's stream, that one is as well. ``states`` says how far they are.
    """

    def __init__(self, seed: int, device: str = "cpu") -> None:
        kinds = ["cpu"] if device == "cpu" else ["cpu", device]
        self._streams: list[Any] = [torch if kind == "cpu" else torch.get_device_module(kind) for kind in kinds]
        self.states = [torch.Generator(kind).manual_seed(seed).get_state() for kind in kinds]

    def __enter__(self) -> None:
        self._outside = [stream.get_rng_state() for stream in self._streams]
        self._set(self.states)

    def __exit__(self, *error: object) -> None:
        self.states = [stream.get_rng_state() for stream in self._streams]
        self._set(self._outside)

    def _set(self, states: list[torch.Tensor]) -> None:
        for stream, state in zip(self._streams, states, strict=True):
            stream.set_rng_state(state)


class ThreadProbe:
    """Times the first steps with one thread and with all, and keeps the faster number.

    Small matrices gain little from a second thread, and where other programs hold a core, a thread that waits for the
    other at every time step of a recurrent layer can make it fifty times slower.
    """

    def __init__(self, threads: int) -> None:
        self._given = torch.get_num_threads()
        self.chosen = min(threads, self._given) if threads else self._given
        self._plan = [1, 1, *[self._given, 1] * 3] if not threads and self._given > 1 else []
        self._times: dict[int, list[float]] = {1: [], self._given: []}
        self._slow = 0  # steps in a row
        self._set(self._plan[0] if self._plan else self.chosen)

    def record(self, seconds: float) -> None:
        """Take note of how long a step took, and set the threads for the next one."""
        if not self._plan:
            self._watch(seconds)
            return
        self._times[self._plan.pop(0)].append(seconds)
        one, many = min(self._times[1]), min(self._times[self._given], default=0.0)
        if many > 2 * one:
            self._plan = []
        if not self._plan:
            self.chosen = 1 if one < 1.05 * many else self._given
        self._set(self._plan[0] if self._plan else self.chosen)

    def _watch(self, seconds: float) -> None:
        """Fall back to one thread where steps have become much slower than they were with one."""
        if self.chosen > 1 and self._times[1]:
            self._slow = self._slow + 1 if seconds > 2 * min(self._times[1]) else 0
            if self._slow == _SLOW_STEPS:
                self.chosen = 1
                self._set(1)

    def state(self) -> dict[str, Any]:
        """Return what was chosen, and the seconds of a step with one thread; no choice while the first steps are timed."""
        return {"chosen": None if self._plan else self.chosen, "one": min(self._times[1], default=None)}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Choose what a run chose before it was cut short."""
        if state["chosen"] is not None:
            self.chosen, self._plan = min(state["chosen"], self._given), []
            self._times[1] = [] if state["one"] is None else [state["one"]]
            self._set(self.chosen)

    def restore(self) -> None:
        """Give torch back the number of threads it had."""
        self._set(self._given)

    @staticmethod
    def _set(threads: int) -> None:
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
