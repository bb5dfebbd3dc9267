"""The loop of gated runs: all of asyncio that a manager may use, in an order that is always the same, and nothing lost."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from snapspec.conformance.loop import LIMIT, GatedLoop, NeverQuiet, gated_loop

T = TypeVar("T")


def run(loop: GatedLoop, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """The task of `work`, after everything has come to rest."""
    with loop.running():
        task = loop.create_task(work)
        loop.run_until_quiet()
    return task


def test_tasks_locks_events_and_futures_work_in_the_order_of_their_callbacks() -> None:
    loop, seen = gated_loop(), list[object]()

    async def turn(name: str, lock: asyncio.Lock) -> str:
        async with lock:
            seen.append(f"{name} in")
            await asyncio.sleep(0)
            seen.append(f"{name} out")
        return name

    async def work() -> tuple[str, ...]:
        lock = asyncio.Lock()
        return tuple(await asyncio.gather(turn("a", lock), turn("b", lock), turn("c", lock)))

    assert run(loop, work()).result() == ("a", "b", "c")
    assert seen == ["a in", "a out", "b in", "b out", "c in", "c out"]
    assert loop.steps > 0
    loop.end()
    assert loop.errors == []


def test_quiet_with_a_task_that_waits_is_where_only_the_schedule_can_help() -> None:
    loop = gated_loop()
    event = asyncio.Event()

    async def work() -> str:
        await event.wait()
        return "woken"

    task = run(loop, work())
    assert loop.unfinished() == [task]
    with loop.running():
        event.set()
        loop.run_until_quiet()
    assert task.result() == "woken"
    assert loop.unfinished() == []


def test_timers_go_off_one_at_a_time_earliest_first_and_cancelled_ones_never() -> None:
    loop, seen = gated_loop(), list[object]()

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((seconds, loop.time()))

    async def work() -> None:
        cancelled = loop.call_later(1, seen.append, (1, 1))
        await asyncio.gather(sleep(30), sleep(20), asyncio.sleep(0))
        cancelled.cancel()

    task = run(loop, work())
    assert loop.timers() == 3
    loop.call_later(2, seen.append, (2, 2)).cancel()
    assert loop.timers() == 3
    with loop.running():
        for _ in range(3):
            assert not task.done()
            loop.fire()
            loop.run_until_quiet()
    assert task.done()
    assert seen == [(1, 1), (20, 20), (30, 30)]
    assert loop.timers() == 0


def test_wait_for_gives_up_when_the_schedule_lets_its_timer_go_off() -> None:
    loop = gated_loop()

    async def work() -> str:
        never: asyncio.Future[None] = loop.create_future()
        try:
            await asyncio.wait_for(never, 3600)
        except TimeoutError:
            return f"gave up at {loop.time():g}, {'cancelled' if never.cancelled() else 'left'}"
        return "came"

    task = run(loop, work())
    with loop.running():
        loop.fire()
        loop.run_until_quiet()
    assert task.result() == "gave up at 3600, cancelled"


def test_shield_keeps_the_inner_task_from_the_cancellation_of_the_outer_one() -> None:
    loop = gated_loop()
    gate: asyncio.Future[str] = loop.create_future()

    async def inner() -> str:
        return await gate

    async def outer() -> str:
        return await asyncio.shield(loop.create_task(inner()))

    task = run(loop, outer())
    with loop.running():
        task.cancel()
        loop.run_until_quiet()
        assert task.cancelled()
        (left,) = loop.unfinished()
        gate.set_result("kept")
        loop.run_until_quiet()
    assert left.result() == "kept"
    loop.end()
    assert loop.errors == []


def test_a_cancelled_callback_does_not_run() -> None:
    loop, seen = gated_loop(), list[object]()
    loop.call_soon(seen.append, 1).cancel()
    loop.call_soon(seen.append, 2)
    loop.run_until_quiet()
    assert seen == [2]


def test_it_can_stop_after_any_number_of_callbacks() -> None:
    loop, seen = gated_loop(), list[object]()
    for number in range(5):
        loop.call_soon(seen.append, number)
    assert not loop.run_until_quiet(until=2)
    assert (seen, loop.steps) == ([0, 1], 2)
    assert loop.run_until_quiet(until=5)
    assert loop.run_until_quiet()
    assert (seen, loop.steps) == ([0, 1, 2, 3, 4], 5)


def test_callbacks_without_end_are_an_error() -> None:
    loop = gated_loop()

    async def spin() -> None:
        await asyncio.sleep(0)
        loop.create_task(spin())

    with loop.running():
        loop.create_task(spin())
        with pytest.raises(NeverQuiet, match=str(LIMIT)):
            loop.run_until_quiet()
        loop.cancel_all()
    assert loop.unfinished() == []


def errors_of_a_run_in_which_some_are_lost() -> list[str]:
    loop = gated_loop()

    async def fail(text: str) -> None:
        raise ValueError(text)

    async def work() -> None:
        seen = loop.create_task(fail("looked at"))
        loop.create_task(fail("of a task"))
        loop.create_future().set_exception(ValueError("of a future"))
        await asyncio.wait([seen])
        assert str(seen.exception()) == "looked at"

    run(loop, work()).result()
    loop.call_soon(lambda: [][1])  # an error in a callback
    loop.run_until_quiet()
    loop.end()
    return sorted(map(str, loop.errors))


def test_errors_that_nobody_looked_at_are_collected_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert errors_of_a_run_in_which_some_are_lost() == ["list index out of range", "of a future", "of a task"]
    gc.collect()
    assert capfd.readouterr() == ("", "")


def tasks_that_do_not_end() -> int:
    loop = gated_loop()

    async def stubborn() -> None:
        while True:
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                continue

    async def slow() -> None:
        try:
            await loop.create_future()
        finally:
            await loop.create_future()

    run(loop, stubborn())
    ends = run(loop, slow())
    with loop.running():
        loop.cancel_all()
    assert ends.cancelled()
    loop.end()
    return len(loop.unfinished())


def test_tasks_that_do_not_end_are_told_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert tasks_that_do_not_end() == 1
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_it_can_run_inside_a_callback_of_another_loop() -> None:
    async def outer() -> str:
        mine = asyncio.get_running_loop()

        async def work() -> bool:
            return asyncio.get_running_loop() is loop

        loop = gated_loop()
        assert run(loop, work()).result()
        assert asyncio.get_running_loop() is mine
        assert not loop.is_running()
        assert not loop.is_closed()
        return "done"

    assert asyncio.run(outer()) == "done"


def test_what_needs_the_world_outside_is_refused() -> None:
    with pytest.raises(NotImplementedError):
        gated_loop().call_soon_threadsafe(print)
