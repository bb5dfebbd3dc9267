"""Tests that are coroutines."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

Arguments = ParamSpec("Arguments")


def asynchronous(test: Callable[Arguments, Awaitable[None]]) -> Callable[Arguments, None]:
    """The test as pytest calls it: in a loop of its own. It fails too when it leaves a task, or an error that is only logged."""

    @functools.wraps(test)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        asyncio.run(_watched(test(*args, **kwargs)))

    return wrapper


async def _watched(test: Awaitable[None]) -> None:
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context))
    await test
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=1)  # some are just ending
    assert not left, f"tasks are left: {left}"
    assert not logged, f"errors that nobody saw: {logged}"
