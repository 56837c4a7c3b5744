"""Feeds the beginnings of rows to the stepper, in threads of their own: bos, conditions and prompt, and what else a row has.

A prompt is one call of the stepper, as in ``generate``: cut into pieces, the last bits of its logits might differ. The results of
short ones are kept, since many requests begin alike; long ones have a thread of their own, and the others do not wait for them.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from reviewgen.protocols import Stepper, StepState
from reviewgen.serving.jobs import Seated

_KEPT, _SHORT = 64, 512  # beginnings; tokens of one

_Fed = tuple[np.ndarray, StepState]  # the logits (V,) after a beginning, and the state (of one row)


class Beginnings:
    """Feeds the beginnings of rows.

    Args:
        stepper: The stepper.
        wake: Is called when one was fed.
    """

    def __init__(self, stepper: Stepper, wake: Callable[[], None]) -> None:
        self._stepper, self._wake = stepper, wake
        self._short, self._long = ThreadPoolExecutor(1, "reviewgen-prompt"), ThreadPoolExecutor(1, "reviewgen-long-prompt")
        self._waiting: dict[tuple[int, ...], list[Seated]] = {}  # rows of each beginning that is being fed
        self._kept: OrderedDict[tuple[int, ...], _Fed] = OrderedDict()
        self._done: deque[tuple[tuple[int, ...], _Fed | Exception | None]] = deque()

    def close(self) -> None:
        """End the threads, once they have fed what they are feeding."""
        self._short.shutdown(cancel_futures=True)
        self._long.shutdown(cancel_futures=True)

    def start(self, row: Seated) -> None:
        """Feed the beginning of a row that has no state: now if it is known, else in a thread."""
        key = (*row.row.prefix, *row.row.ids)
        if (fed := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            row.logits, row.state = fed
            return
        row.is_away = True
        if key in self._waiting:
            self._waiting[key].append(row)
            return
        self._waiting[key] = [row]
        (self._short if len(key) <= _SHORT else self._long).submit(self._feed, key)

    def arrive(self) -> list[tuple[Seated, Exception | None]]:
        """Give the rows whose beginnings were fed their state; return them, each with what was raised instead."""
        arrived: list[tuple[Seated, Exception | None]] = []
        while self._done:
            key, fed = self._done.popleft()
            for row in self._waiting.pop(key):
                row.is_away = False
                if fed is None:  # a row that came meanwhile starts again
                    continue
                if not isinstance(fed, Exception):
                    row.logits, row.state = fed
                    self._keep(key, fed, row)
                arrived.append((row, fed if isinstance(fed, Exception) else None))
        return arrived

    def _feed(self, key: tuple[int, ...]) -> None:
        """Feed a beginning, unless all that wait for it have gone; runs in a thread."""
        if all(row.job.is_stopped for row in tuple(self._waiting[key])):
            self._done.append((key, None))
            self._wake()
            return
        try:
            logits, state = self._stepper.forward(np.array([key], np.int64), self._stepper.initial_state(1))
            self._done.append((key, (logits[0], state)))
        except Exception as error:  # a model may raise anything; its job fails with it
            self._done.append((key, error))
        self._wake()

    def _keep(self, key: tuple[int, ...], fed: _Fed, row: Seated) -> None:
        """Keep the result of a short prompt, in place of the one that was not needed for longest."""
        if len(key) <= _SHORT and row.row.new_tokens == 0:
            self._kept[key] = fed
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
