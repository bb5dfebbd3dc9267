"""Shared calls: every order in which callers come, are cancelled, and the work ends, between any two callbacks of the loop."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest
from flights import KEY, Failure, Scope
from loops import Choose, schedules
from stores import asynchronous

from snapspec.impl.errors import Canceled
from snapspec.impl.flight import Flight, _Run

T = TypeVar("T")

ENDS = ("value", "error", "cancelled")


@pytest.fixture(autouse=True)
def no_old_garbage() -> Iterator[None]:
    """What was there before is not looked at again by each collection: there are many."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


#: The scopes, how works end in them, and how many schedules there are at least: fewer would mean that less is tried.
SCOPES = {
    "two": (Scope(2, 1, (0, 1)), ENDS, 2_500),
    "three at once": (Scope(3, 3, (0, 1, 2)), ("value", "error"), 9_000),
    "a third": (Scope(3, 2, (0, 1)), ("cancelled",), 7_000),
    "forgotten": (Scope(2, 1, (0,), forget=True), ("value",), 3_500),
    "forgotten, three": (Scope(3, 2, forget=True), ("error",), 1_000),
    "disturbed": (Scope(2, 1, (0,), disturb=True), ("value",), 1_300),
    "no await": (Scope(2, 1, (0,)), ("at once",), 500),
}


#: Of three callers that start at once, the other ends are left to make deep.
DEEP = {("three at once", "error")}


@pytest.mark.parametrize(
    ("name", "end"),
    [
        pytest.param(name, end, marks=[pytest.mark.deep] if (name, end) in DEEP else [])
        for name, (_, ends, _) in SCOPES.items()
        for end in ends
    ],
)
def test_every_schedule(name: str, end: str) -> None:
    """Who joins which run, who gets what, which work is cancelled, and that nothing is left: in every order."""
    scope, _, at_least = SCOPES[name]
    count = scope.explore(end)
    print(f"{name}, {end}: {count} schedules")
    assert count >= at_least


@pytest.mark.parametrize("after_cancel", ENDS)
def test_a_cancelled_work_that_takes_its_time_is_joined_and_waited_for_by_nobody(after_cancel: str) -> None:
    """It ends after all calls are over, with a value, an error, or its cancellation, and nobody hears of it."""
    assert Scope(2, 1, (0, 1)).explore("value", after_cancel) >= 2_500


@pytest.mark.deep
@pytest.mark.parametrize("end", ENDS)
def test_three_callers_that_start_at_any_time(end: str) -> None:
    """As above, with one more."""
    assert Scope(3, 1, (0, 1)).explore(end, "value") >= 120_000


# --- broken ones


class JoinsTheEnded(Flight[str, int]):
    """Looks at the key, and not at the task: the loop has not come to `_land` yet."""

    def _find(self, key: str) -> _Run[int] | None:
        run = self._joinable.get(key)
        return None if run is None or run.task.cancelling() else run


class JoinsTheDisturbed(Flight[str, int]):
    """Takes a run that was cancelled from outside for a good one."""

    def _find(self, key: str) -> _Run[int] | None:
        run = self._joinable.get(key)
        return None if run is None or run.task.done() else run


class JoinsTheForgotten(Flight[str, int]):
    """A late joiner gets a value from before the change."""

    def forget(self, key: str) -> None:
        pass


class WaitsForTheAbandoned(Flight[str, int]):
    """The next call begins when the cancelled one has ended."""

    async def run(self, key: str, work: Callable[[], Awaitable[int]]) -> int:
        while self._tasks and self._find(key) is None:
            await asyncio.wait(self._tasks)
        return await super().run(key, work)


class NeverCancels(Flight[str, int]):
    """Lets go of the run when all have left, and lets it run."""

    def _abandon(self, key: str, run: _Run[int]) -> None:
        self._drop(key, run)


class CancelsWithTheFirst(Flight[str, int]):
    """The caller that has started the run takes it with it."""

    async def run(self, key: str, work: Callable[[], Awaitable[int]]) -> int:
        first = self._find(key) is None
        run = self._find(key) or self._start(key, work)
        try:
            return await super().run(key, work)
        except asyncio.CancelledError:
            if first:
                run.task.cancel()
            raise


class DropsTheNext(Flight[str, int]):
    """An old run takes the key of a new one away."""

    def _drop(self, key: str, run: _Run[int]) -> None:
        self._joinable.pop(key, None)


class AwaitsTheTask(Flight[str, int]):
    """One cancellation reaches all; a work that gives up cancels its callers."""

    async def run(self, key: str, work: Callable[[], Awaitable[int]]) -> int:
        return await (self._find(key) or self._start(key, work)).task


class SwallowsCancellations(Flight[str, int]):
    """A caller that is cancelled when the result is there already gets the result."""

    async def run(self, key: str, work: Callable[[], Awaitable[int]]) -> int:
        run = self._find(key) or self._start(key, work)
        try:
            return await super().run(key, work)
        except asyncio.CancelledError:
            if not run.task.done():
                raise
            return run.task.result()


class LooksAway(Flight[str, int]):
    """An error that nobody has waited for is reported as lost."""

    def _land(self, key: str, run: _Run[int], task: asyncio.Task[int]) -> None:
        self._drop(key, run)
        self._tasks.discard(task)
        run.landed.set_result(None)


class KeepsTheResult(Flight[str, int]):
    """What a run gave is given to later calls."""

    kept: int | None = None

    async def run(self, key: str, work: Callable[[], Awaitable[int]]) -> int:
        if self.kept is None:
            self.kept = await super().run(key, work)
        return self.kept


BROKEN: dict[type[Flight[str, int]], str] = {
    JoinsTheEnded: "two",
    JoinsTheDisturbed: "disturbed",
    JoinsTheForgotten: "forgotten",
    WaitsForTheAbandoned: "two",
    NeverCancels: "two",
    CancelsWithTheFirst: "two",
    DropsTheNext: "two",
    AwaitsTheTask: "two",
    SwallowsCancellations: "two",
    LooksAway: "two",
    KeepsTheResult: "two",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_found(broken: type[Flight[str, int]]) -> None:
    """The exploration is a test that can fail."""
    scope, ends, _ = SCOPES[BROKEN[broken]]
    with pytest.raises(AssertionError):
        explore_all(scope, ends, broken)


def explore_all(scope: Scope, ends: tuple[str, ...], flight: type[Flight[str, int]]) -> None:
    for end in ends:
        for after_cancel in ("cancelled", "error"):
            scope.explore(end, after_cancel, flight)


def test_the_enumeration_takes_each_choice_once() -> None:
    taken: list[tuple[int, ...]] = []

    def run(choose: Choose) -> None:
        first = choose(2)
        taken.append((first, choose(3), choose(2)) if first else (first, choose(2)))

    assert schedules(run) == 8
    assert taken == [(0, 0), (0, 1), *((1, second, third) for second in range(3) for third in range(2))]


def test_the_enumeration_refuses_a_run_that_does_not_repeat_itself() -> None:
    choices = iter((2, 3))

    def run(choose: Choose) -> None:
        choose(next(choices))

    with pytest.raises(AssertionError, match="repeat"):
        schedules(run)


# --- in a loop of asyncio's own


class Works:
    """Works that wait until they are let go; `begun` counts them."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.go.wait()
        return number


@asynchronous
async def test_a_thousand_callers_share_one_run() -> None:
    """And every second one of them is cancelled, the one that has started the run among them."""
    flight: Flight[str, int] = Flight()
    works = Works()
    callers = [asyncio.create_task(flight.run(KEY, works)) for _ in range(1000)]
    await asyncio.sleep(0)
    for caller in callers[::2]:
        caller.cancel()
    await asyncio.sleep(0)
    assert len(flight) == 1
    works.go.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[::2]] == [asyncio.CancelledError] * 500
    assert outcomes[1::2] == [1] * 500
    assert works.begun == 1
    assert len(flight) == 0


@asynchronous
async def test_keys_have_runs_of_their_own_and_no_result_is_kept() -> None:
    flight: Flight[object, int] = Flight()
    works = Works()
    one, two = (asyncio.create_task(flight.run(key, works)) for key in ("one", ("two", 2)))
    await asyncio.sleep(0)
    assert len(flight) == 2
    works.go.set()
    assert (await one, await two) == (1, 2)
    assert await flight.run("one", works) == 3


@asynchronous
async def test_all_who_wait_get_the_error_and_the_next_call_does_not() -> None:
    flight: Flight[str, int] = Flight()
    works = Works()

    async def fail() -> int:
        await works()
        raise Failure("no")

    callers = [asyncio.create_task(flight.run(KEY, fail)) for _ in range(3)]
    await asyncio.sleep(0)
    works.go.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["no"] * 3
    assert await flight.run(KEY, works) == 2


@asynchronous
async def test_a_work_that_fails_before_it_is_awaited_is_an_error_of_the_run() -> None:
    flight: Flight[str, int] = Flight()

    def refuse() -> Awaitable[int]:
        raise Failure("at once")

    for _ in range(2):
        with pytest.raises(Failure, match="at once"):
            await flight.run(KEY, refuse)
    assert not flight._joinable


@asynchronous
async def test_a_work_that_gives_up_is_an_error_with_its_cause_and_no_cancellation() -> None:
    flight: Flight[str, int] = Flight()

    async def give_up() -> int:
        raise asyncio.CancelledError("the channel was closed")

    with pytest.raises(Canceled, match="call again") as caught:
        await flight.run(KEY, give_up)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert caught.value.__cause__.args == ("the channel was closed",)


@asynchronous
async def test_a_deadline_of_the_last_caller_cancels_the_work_and_is_not_held_up_by_it() -> None:
    flight: Flight[str, int] = Flight()
    works = Works()
    stubborn = asyncio.Event()

    async def linger() -> int:
        try:
            return await works()
        except asyncio.CancelledError:
            await stubborn.wait()
            raise

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await flight.run(KEY, linger)
    assert len(flight) == 1
    works.go.set()
    assert await flight.run(KEY, works) == 2, "neither joined nor waited for"
    stubborn.set()
    await asyncio.sleep(0.01)
    assert len(flight) == 0


@asynchronous
async def test_a_work_that_nobody_waits_for_is_kept_until_it_has_ended() -> None:
    """The loop holds tasks weakly, and nothing else holds what this one waits for."""
    flight: Flight[str, int] = Flight()
    ended: list[bool] = []
    held: list[weakref.ref[asyncio.Event]] = []

    async def linger() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            last = asyncio.Event()
            held.append(weakref.ref(last))
            await last.wait()
            ended.append(True)
        return 0

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await flight.run(KEY, linger)
    await asyncio.sleep(0)
    gc.collect()
    last = held[0]()
    assert last is not None
    last.set()
    await asyncio.sleep(0.01)
    assert ended == [True]


class Value:
    """Something that can be looked after."""


@asynchronous
async def test_nothing_of_a_run_is_left_for_the_collector() -> None:
    """A value that was told, an error that was raised to two callers, a value that nobody has waited for."""
    flight: Flight[str, Value] = Flight()
    made: list[weakref.ref[object]] = []
    about_to_wake = asyncio.Event()

    def noted(thing: T) -> T:
        made.append(weakref.ref(thing))
        return thing

    async def give() -> Value:
        await asyncio.sleep(0)
        about_to_wake.set()
        return noted(Value())

    async def fail() -> Value:
        await asyncio.sleep(0)
        raise noted(Failure("no"))

    gc.disable()
    try:
        await flight.run(KEY, give)
        await asyncio.gather(flight.run(KEY, fail), flight.run(KEY, fail), return_exceptions=True)
        about_to_wake.clear()
        caller = asyncio.create_task(flight.run(KEY, give))
        await about_to_wake.wait()
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
        del caller
        await asyncio.sleep(0.01)
        assert [reference() for reference in made] == [None] * 3
    finally:
        gc.enable()
