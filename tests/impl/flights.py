"""A flight, its callers and its works in a loop that a schedule takes from callback to callback, with a model beside it.

A schedule is a run of `World.drive`: at each moment the next callback runs, or something happens from outside. What each call has
to join is told by a few lines of model, which know only of calls that start, calls that end and works that end.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from loops import Choose, Loop, schedules

from snapspec.impl.errors import Canceled
from snapspec.impl.flight import Flight

KEY = "key"


class Failure(Exception):
    """What a work fails with."""


@dataclass(eq=False)
class Run:
    """One run as the model has it. `number` is what its work gives."""

    number: int
    waiting: set[Caller] = field(default_factory=set)
    started: bool = False
    ended: bool = False
    abandoned: bool = False
    disturbed: bool = False
    gate: asyncio.Future[str] | None = None


@dataclass(eq=False)
class Caller:
    """One call. `run` is what it has to join; `outcome` is what it got."""

    task: asyncio.Task[None] | None = None
    run: Run | None = None
    cancelled: bool = False
    outcome: object = None

    @property
    def over(self) -> bool:
        return self.task is not None and self.task.done()


@dataclass
class Event:
    """Something that may happen as long as `can`. A schedule is not over before all that is `needed` has happened."""

    can: Callable[[], bool]
    do: Callable[[], object]
    needed: bool = True
    again: bool = False


class World:
    """A loop, a flight on it, callers and works. `end` is how works end, `after_cancel` how those that were cancelled do."""

    def __init__(self, choose: Choose, end: str, flight: Flight[str, int], after_cancel: str = "cancelled") -> None:
        self.loop = Loop()
        self.flight = flight
        self.callers: list[Caller] = []
        self.runs: list[Run] = []
        self.current: Run | None = None
        self._choose = choose
        self._end = end
        self._after_cancel = after_cancel
        self._lingering: asyncio.Future[None] | None = None

    # --- what can happen

    def caller(self) -> Event:
        """A new caller starts."""
        caller = Caller()
        self.callers.append(caller)
        return Event(lambda: caller.task is None, partial(self._begin, caller))

    def cancel(self, caller: int) -> Event:
        """The caller is cancelled while its call runs."""
        who = self.callers[caller]
        return Event(lambda: who.task is not None and not who.over, partial(self._cancel, who), needed=False)

    def finish(self) -> Event:
        """The oldest work that waits goes on to its end."""
        return Event(lambda: bool(self._waiting()), self._finish, again=True)

    def forget(self) -> Event:
        """The value may have changed."""
        return Event(lambda: bool(self.runs), self._forget, needed=False)

    def disturb(self) -> Event:
        """Something else cancels the task of the work, as the end of a loop does."""
        return Event(lambda: self.current is not None and KEY in self.flight._joinable, self._disturb, needed=False)

    def _begin(self, caller: Caller) -> None:
        caller.task = self.loop.create_task(self._call(caller))

    def _cancel(self, caller: Caller) -> None:
        assert caller.task is not None
        caller.cancelled = caller.task.cancel()

    def _waiting(self) -> list[asyncio.Future[str]]:
        return [run.gate for run in self.runs if run.gate is not None and not run.gate.done()]

    def _finish(self) -> None:
        self._waiting()[0].set_result(self._end)

    def _forget(self) -> None:
        self.flight.forget(KEY)
        self.current = None

    def _disturb(self) -> None:
        assert self.current is not None
        if self.flight._joinable[KEY].task.cancel():
            self.current.disturbed = True
            self.current = None

    # --- callers and works

    async def _call(self, caller: Caller) -> None:
        fresh = self.current is None
        run = self.current if self.current is not None else Run(len(self.runs))
        if fresh:
            self.runs.append(run)
            self.current = run
        caller.run = run
        run.waiting.add(caller)
        own = run if fresh else Run(-1)
        try:
            caller.outcome = await self.flight.run(KEY, lambda: self._work(own))
        except (Failure, Canceled) as error:
            caller.outcome = error
        finally:
            self._left(run, caller)

    def _left(self, run: Run, caller: Caller) -> None:
        run.waiting.discard(caller)
        if not run.waiting and not run.ended:
            run.abandoned = True
            if self.current is run:
                self.current = None

    async def _work(self, run: Run) -> int:
        assert run in self.runs, "a work was run although there was one to join"
        assert not run.started, "one run, one work"
        run.started = True
        run.gate = self.loop.create_future()
        end = self._end
        try:
            if end != "at once":
                end = await run.gate
        except asyncio.CancelledError:
            assert run.abandoned or run.disturbed, "cancelled although somebody waits"
            end = self._after_cancel
            if not run.disturbed:
                await self._linger()
        else:
            assert not run.abandoned, "not cancelled although all have left"
        run.ended = True
        if self.current is run:
            self.current = None
        if end == "error":
            raise Failure(run.number)
        if end == "cancelled":
            raise asyncio.CancelledError
        return run.number

    async def _linger(self) -> None:
        """A work that was cancelled takes until all calls are over."""
        if self._lingering is None:
            self._lingering = self.loop.create_future()
        await asyncio.shield(self._lingering)

    # --- the schedule

    def drive(self, events: list[Event]) -> None:
        """Take callbacks and events in the order of the schedule until all calls are over, and look at the end."""
        left = list(events)
        while True:
            able = [event for event in left if event.can()]
            busy = bool(len(self.loop))
            if not busy:
                self._check_quiet()
                if all(caller.over for caller in self.callers):
                    break
                assert any(event.needed for event in able), "calls wait, and nothing can go on"
            chosen = self._choose(busy + len(able))
            if busy and chosen == 0:
                self.loop.step()
                continue
            event = able[chosen - busy]
            event.do()
            if not event.again:
                left.remove(event)
        self._check_end()

    def end(self) -> None:
        """Leave no task that has not ended, where a check has failed."""
        tasks = [caller.task for caller in self.callers if caller.task is not None] + list(self.flight._tasks)
        for task in tasks:
            task.cancel()
        self.loop.run_until_quiet()

    def _check_quiet(self) -> None:
        running = [run for run in self.runs if run.started and not run.ended]
        assert len(self.flight) == len(running)
        assert list(self.flight._joinable) == [KEY] * (self.current is not None)

    def _check_end(self) -> None:
        if self._lingering is not None:
            self._lingering.set_result(None)
            self.loop.run_until_quiet()
        for caller in self.callers:
            self._check_outcome(caller)
        assert not [run for run in self.runs if run.started and not run.ended]
        assert len(self.flight) == 0
        assert not self.flight._joinable
        assert not self.flight._tasks

    def _check_outcome(self, caller: Caller) -> None:
        assert caller.task is not None
        assert caller.task.cancelled() == caller.cancelled, "each has its own cancellation, and nobody else's"
        if caller.cancelled:
            return
        run = caller.run
        assert run is not None
        assert caller.task.exception() is None, "an outcome that is none of the work's"
        if run.disturbed and not isinstance(caller.outcome, int):
            assert isinstance(caller.outcome, Canceled)
            return
        assert run.ended
        assert not run.abandoned
        expected = {"error": Failure, "cancelled": Canceled}.get(self._end)
        if expected is None:
            assert caller.outcome == run.number
        else:
            assert type(caller.outcome) is expected
            assert expected is Canceled or caller.outcome.args == (run.number,)


@dataclass(frozen=True)
class Scope:
    """What is explored: `callers`, of which `started` start at once and the rest at any time, and what may befall them."""

    callers: int
    started: int
    cancels: tuple[int, ...] = ()
    forget: bool = False
    disturb: bool = False

    def explore(self, end: str, after_cancel: str = "cancelled", flight: type[Flight[str, int]] = Flight) -> int:
        """Run every schedule, and give their number. An error that only the collector brings up counts too."""
        failures: list[list[dict[str, object]]] = []

        def run(choose: Choose) -> None:
            world = World(choose, end, flight(), after_cancel)
            failures.append(world.loop.failures)
            try:
                self._run(world)
            finally:
                world.end()

        count = schedules(run)
        gc.collect()
        assert not [failure for each in failures for failure in each]
        return count

    def _run(self, world: World) -> None:
        callers = [world.caller() for _ in range(self.callers)]
        for caller in callers[: self.started]:
            caller.do()
        events = [*callers[self.started :], world.finish(), *map(world.cancel, self.cancels)]
        if self.forget:
            events.append(world.forget())
        if self.disturb:
            events.append(world.disturb())
        world.drive(events)
