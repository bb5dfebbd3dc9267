"""Waiting for what has begun to its end, so that a call that answers is a call whose effect is decided."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Event
from typing import Any, TypeVar

T = TypeVar("T")


async def settled(future: asyncio.Future[T], stop: Event | None = None) -> T:
    """Wait until `future` is done, also when the caller is cancelled meanwhile: only then is the effect decided.

    A cancellation sets `stop`, and is raised when the future is done, whatever came of it.
    """
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
            if stop is not None:
                stop.set()
    if cancelled is not None:
        future.exception()  # looked at, so that asyncio does not report it as lost
        raise cancelled
    return future.result()


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` to its end, also when the caller is cancelled meanwhile; its cancellation is raised afterwards."""
    return await settled(asyncio.create_task(work))


async def given(work: Coroutine[Any, Any, T]) -> T:
    """The same for what a caller must not lose: one that is cancelled meanwhile is given it all the same."""
    task = asyncio.create_task(work)
    try:
        return await settled(task)
    except asyncio.CancelledError:
        if task.cancelled() or task.exception() is not None:
            raise
        return task.result()
