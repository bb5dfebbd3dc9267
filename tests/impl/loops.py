"""An event loop that a test takes step by step, and the enumeration of all that can be chosen on the way.

The queue is all there is: no timers, no files, no threads. When it is empty nothing happens any more unless the test does it.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, TypeVarTuple, Unpack, cast

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Gives one of 0 to n - 1. 0 is the simplest choice.
Choose = Callable[[int], int]


class Loop:
    """Callbacks in the order in which they were asked for. `failures` is what asyncio would have logged."""

    def __init__(self) -> None:
        # Of the many methods of a loop these few are all that tasks, futures and shields call.
        self._loop = cast(asyncio.AbstractEventLoop, self)
        self._queue: deque[asyncio.Handle] = deque()
        self.failures: list[dict[str, Any]] = []

    def __len__(self) -> int:
        """The number of callbacks that wait; 0 is quiet."""
        return len(self._queue)

    def step(self) -> None:
        """Run the next callback."""
        events._set_running_loop(self._loop)
        try:
            self._queue.popleft()._run()
        finally:
            events._set_running_loop(None)

    def run_until_quiet(self) -> None:
        """Run callbacks until there is none."""
        while self._queue:
            self.step()

    # What asyncio asks of a loop.

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._loop, context)
        self._queue.append(handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._loop)

    def create_task(
        self, coro: Coroutine[Any, Any, T] | Generator[Any, None, T], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[T]:
        return asyncio.Task(coro, loop=self._loop, name=name, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(context)

    def get_debug(self) -> bool:
        return False


def schedules(run: Callable[[Choose], None]) -> int:
    """Call `run` once for each sequence of choices that it can make, and give their number. It must make the same ones again."""
    path: list[list[int]] = []  # what was chosen, of how many
    count = 0
    while True:
        taken = 0

        def choose(of: int) -> int:
            nonlocal taken
            if taken == len(path):
                path.append([0, of])
            assert path[taken][1] == of, "the run does not repeat itself"
            taken += 1
            return path[taken - 1][0]

        run(choose)
        count += 1
        assert taken == len(path), "the run does not repeat itself"
        while path and path[-1][0] + 1 == path[-1][1]:
            path.pop()
        if not path:
            return count
        path[-1][0] += 1
