"""An event loop in which nothing is real: callbacks in order, and timers that go off when the schedule lets them.

Without sockets, threads and clocks there is one thing that can happen next, so that a run repeats exactly. When no callback is
left the loop is quiet: whatever still waits, waits for the schedule, or for ever.
"""

from __future__ import annotations

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Callbacks without a quiet moment: far more than calls of a few awaits need.
LIMIT = 100_000


class NeverQuiet(Exception):
    """The callbacks do not come to an end: something asks again and again, and nothing in between can go on."""


class _Callback(asyncio.Handle):
    """A handle made without what only debug mode needs: a run makes some thirty of them."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], loop: GatedLoop, context: Context) -> None:
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._loop = loop
        self._repr = None
        self._source_traceback = None
        self._context = context


class GatedLoop(asyncio.AbstractEventLoop):
    """A loop for one run, made by `gated_loop`. `steps` counts the callbacks that ran; `errors` holds what nobody was told of.

    Locks, events, futures, tasks and all that is built on them (shield, gather, wait_for) work. What needs the world outside
    (sockets, processes, threads, signals) raises NotImplementedError, as the base class does.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.errors: list[BaseException] = []
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[asyncio.TimerHandle] = []
        self._now = 0.0
        # Strong references: what is lost is found at the end, not when the collector of garbage happens to come.
        self._tasks: list[asyncio.Task[Any]] = []
        self._futures: list[asyncio.Future[Any]] = []

    # --- what the schedule does

    def run_until_quiet(self, until: int | None = None) -> bool:
        """Run callbacks until none is left, or until `steps` is `until`. Says whether it is quiet. Raises NeverQuiet."""
        ready, end = self._ready, self.steps + LIMIT if until is None else until
        while ready and self.steps < end:
            self.steps += 1
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
        if ready and until is None:
            raise NeverQuiet(f"{LIMIT} callbacks ran without a quiet moment; the next is {ready[0]!r}")
        return not ready

    def timers(self) -> int:
        """How many timers are waiting."""
        if self._timers:
            self._timers = [timer for timer in self._timers if not timer.cancelled()]
        return len(self._timers)

    def fire(self) -> None:
        """Let time pass up to the earliest timer, which there must be, and let that go off."""
        first = min(self._timers, key=lambda timer: timer.when())  # of equals the one set first
        self._timers.remove(first)
        self._now = max(self._now, first.when())
        self._ready.append(first)

    @contextmanager
    def running(self) -> Iterator[GatedLoop]:
        """The context in which this is the running loop; it may be entered inside another loop's callback."""
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            yield self
        finally:
            events._set_running_loop(before)

    def unfinished(self) -> list[asyncio.Task[Any]]:
        """The tasks that have not ended."""
        return [task for task in self._tasks if not task.done()]

    def cancel_all(self) -> None:
        """Cancel what is left, a few times, for a task may do something more before it ends. Raises NeverQuiet."""
        for _ in range(10):
            left = self.unfinished()
            if not left:
                return
            for task in left:
                task.cancel()
            self.run_until_quiet()

    def end(self) -> None:
        """Nothing runs any more: add the errors that nobody has looked at to `errors`, for asyncio would print them some time."""
        for future in (*self._tasks, *self._futures):
            if future.done() and not future.cancelled() and future._log_traceback:
                error = future.exception()  # which counts as looking at it
                self.errors += [error] if error is not None else []
        for task in self.unfinished():
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # as gather does; we tell of it in our own way

    # --- what asyncio asks of a loop

    def get_debug(self) -> bool:
        """Never: debug mode looks at the clock."""
        return False

    def is_running(self) -> bool:
        """Whether this is the running loop."""
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        """Never: there is nothing to close."""
        return False

    def time(self) -> float:
        """Seconds that timers have made pass."""
        return self._now

    def call_soon(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        """Put the callback at the end of the queue."""
        handle = _Callback(callback, args, self, copy_context() if context is None else context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer; the schedule decides when it goes off."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer; the schedule decides when it goes off."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers.append(timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is passed over when timers are next looked at."""

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        future: asyncio.Future[Any] = asyncio.Future(loop=self)
        self._futures.append(future)
        return future

    def create_task(self, coro: Coroutine[Any, Any, T] | Generator[Any, None, T], **named: Any) -> asyncio.Task[T]:
        """A task of this loop; `named` are the further arguments that this version of Python's tasks take."""
        task = asyncio.Task(coro, loop=self, **named)
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the error for the end of the run."""
        error = context.get("exception")
        self.errors.append(error if isinstance(error, BaseException) else RuntimeError(str(context.get("message"))))


def gated_loop() -> GatedLoop:
    """A new loop. (For the type checker the class is abstract: what it lacks is what needs the world outside.)"""
    return GatedLoop()  # type: ignore[abstract]  # at runtime the base class is not, and refuses what is missing
