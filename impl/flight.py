"""Shared calls: one run of the work for a key, whoever asks meanwhile; each who asks can leave alone (REF-SIZE-3, REF-SIZE-5).

A run can be joined from its start until its work ends, all its callers have left, something else cancels it, or its key is
forgotten, whichever comes first. From that very moment on it has nothing to do with later calls: they start a run of their own,
beside whatever the old one still does. What a run gives is not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from snapspec.impl.errors import Canceled

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True, eq=False)
class _Run(Generic[V]):
    """`landed` is done as soon as `task` is, but never fails and is never cancelled: to wait for it tells nothing but the end."""

    task: asyncio.Task[V]
    landed: asyncio.Future[None]
    callers: int = 0


class Flight(Generic[K, V]):
    """The runs of one event loop. Its length is the number of works that have not ended, those too that nobody waits for."""

    def __init__(self) -> None:
        self._joinable: dict[K, _Run[V]] = {}
        self._tasks: set[asyncio.Task[V]] = set()  # the loop itself does not keep a task alive

    def __len__(self) -> int:
        return sum(not task.done() for task in self._tasks)

    async def run(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """What `work` gives, or what it gives to those who asked for `key` before and are still waiting.

        Raises what the work raises, to all who wait for it. A caller that is cancelled leaves at once and disturbs nobody; the
        last one to leave cancels the work, and does not wait for its end. Raises Canceled when something else than that cancelled
        the work, or the work itself gave up: to its callers that is an error like any other, not a cancellation of theirs.
        """
        run = self._find(key) or self._start(key, work)
        run.callers += 1
        try:
            await asyncio.shield(run.landed)
        finally:
            run.callers -= 1
            if run.callers == 0:
                self._abandon(key, run)
        try:
            return run.task.result()
        except asyncio.CancelledError as error:
            raise Canceled("the shared call was cancelled, but not by those who wait for it: call again") from error
        finally:
            del run  # it holds the error, whose traceback holds this frame

    def forget(self, key: K) -> None:
        """Calls that start from now on do not join the run that is there, because the value may have changed since its start."""
        self._joinable.pop(key, None)

    def _find(self, key: K) -> _Run[V] | None:
        """The run to join. One that has ended or is being cancelled may still stand there until the loop comes to `_land`."""
        run = self._joinable.get(key)
        if run is None or run.task.done() or run.task.cancelling():
            return None
        return run

    def _start(self, key: K, work: Callable[[], Awaitable[V]]) -> _Run[V]:
        loop = asyncio.get_running_loop()
        run = _Run(loop.create_task(_call(work)), loop.create_future())
        run.task.add_done_callback(partial(self._land, key, run))
        self._tasks.add(run.task)
        self._joinable[key] = run
        return run

    def _abandon(self, key: K, run: _Run[V]) -> None:
        """The last caller has left: nobody joins the run any more, and if it has not ended it is to end now."""
        self._drop(key, run)
        run.task.cancel()

    def _land(self, key: K, run: _Run[V], task: asyncio.Task[V]) -> None:
        self._drop(key, run)
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as lost when all have left
        run.landed.set_result(None)

    def _drop(self, key: K, run: _Run[V]) -> None:
        if self._joinable.get(key) is run:  # a later run may have taken the place
            del self._joinable[key]


async def _call(work: Callable[[], Awaitable[V]]) -> V:
    """The work as a coroutine: what it raises before its first await is an outcome of the run too."""
    return await work()
