"""Hands events from an engine's thread to a coroutine, without waking it for each."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from starlette.types import Receive

EventT = TypeVar("EventT")


class ClientGone(Exception):
    """The client has closed the connection."""


class Inbox(Generic[EventT]):
    """The events of one request, in order."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: deque[EventT] = deque()
        self._arrived = asyncio.Event()
        self._is_awake = False
        self._problem: Exception | None = None

    def deliver(self, events: Sequence[EventT]) -> None:
        """Add events; called in the engine's thread."""
        self._events.extend(events)
        if not self._is_awake:
            self._is_awake = True
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._arrived.set)

    def stop(self, problem: Exception) -> None:
        """Let ``take`` raise from now on; called in the loop's thread."""
        self._problem = self._problem or problem
        self._arrived.set()

    async def take(self) -> list[EventT]:
        """Return all events that have come since the last call; waits for one.

        Raises:
            Exception: What ``stop`` was called with.
        """
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            self._is_awake = False  # before the events are taken: one that comes now wakes this coroutine again
            if self._problem is not None:
                raise self._problem
            events = [self._events.popleft() for _ in range(len(self._events))]
            if events:
                return events


async def watch_client(receive: Receive, inbox: Inbox[EventT]) -> None:
    """Stop an inbox once the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    inbox.stop(ClientGone())
