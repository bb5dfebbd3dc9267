"""Histories of refs in which the process of the manager is killed in the midst of calls, and begins again: made and judged.

A call that was answered has happened; one that was under way has taken effect as far as it came, or never will.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import Protocol

from snapspec.conformance.durable.child import Gone
from snapspec.conformance.durable.ref_world import KilledGround, KilledRefs, KilledWorld
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.free import FreeRun
from snapspec.conformance.gates import Gates
from snapspec.conformance.ref_history import Burst, RefFinding
from snapspec.conformance.ref_reached import by_answer, by_records
from snapspec.conformance.ref_session import RefSession
from snapspec.conformance.refs_subject import RefResponse
from snapspec.conformance.schedule import Answered, Budget, Choice, Choose, Move, Unsound
from snapspec.conformance.session import DEADLINE
from snapspec.conformance.subjects.refs import Ground, RefWorld
from snapspec.model import ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.tree import MakeFile

#: How often a history is made again in which the moment of a kill decides, until it shows what it is to show.
TRIES = 10

#: How the ids of records begin that a look after a start has made.
_MARK = "of look "

#: What is written after each start.
_WRITTEN = b"after the start"


class Ending(Protocol):
    """The observer of a run, told also of the end of the process."""

    def invoke(self, call: int, op: RefOperation) -> None: ...
    def respond(self, call: int, answer: RefResponse) -> None: ...
    def crash(self) -> None: ...
    def quiet(self) -> None: ...


class KillRun(FreeRun[RefOperation, RefResponse]):
    """One run on a manager in a process; `look` learns what the observer looks at when all is quiet."""

    def __init__(
        self,
        perform: Callable[[RefOperation], Awaitable[RefResponse]],
        observer: Ending,
        look: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(perform, observer)  # type: ignore[arg-type]  # none of its calls is disturbed or cancelled
        self._ending = observer
        self._look = look

    async def burst(self, ops: Sequence[RefOperation]) -> None:
        """See `FreeRun`. Raises Unsound when the process ends by itself."""
        cut = _first_error(await asyncio.gather(*map(self._call, ops), return_exceptions=True))
        if cut:
            raise Unsound("SNAP-LIVE-1", "the process has ended by itself")
        await self._look()
        self._ending.quiet()

    async def cut_short(self, ops: Sequence[RefOperation], kill: Callable[[], Awaitable[None]]) -> int:
        """Begin the calls together, and kill the process; gives how many have not answered. Raises what the observer raises."""
        calls = [asyncio.create_task(self._call(op)) for op in ops]
        await asyncio.sleep(0)  # until each is on its way
        await kill()
        cut = _first_error(await asyncio.gather(*calls, return_exceptions=True))
        self.events.append(Choice(Move.CRASH))
        self._ending.crash()
        return cut


def _first_error(done: Sequence[BaseException | None]) -> int:
    """Raises the first of what was raised besides Gone; gives how many calls had no answer."""
    for error in done:
        if isinstance(error, BaseException) and not isinstance(error, Gone):
            raise error
    return sum(isinstance(error, Gone) for error in done)


class RefKillSession(RefSession):
    """A session with a manager whose process is killed. `restarts` counts how often, over all histories, `cut` the calls that
    were under way and had no answer, by their names."""

    subject: KilledRefs
    world: KilledWorld
    repeats = False

    def __init__(
        self, subject: KilledRefs, runner: asyncio.Runner, deadline: float = DEADLINE, signals: Sequence[int] = ()
    ) -> None:
        super().__init__(subject, runner, deadline, signals)
        self.cut: Counter[str] = Counter()

    # --- a history

    def begin(self) -> None:
        """See `RefSession`."""
        self._begin(None)
        self.kills = KillRun(self.world.adapter.perform, self.watch, self.world.look)
        self.free = self.kills
        self._plant()
        with self._judged(nullcontext()):
            self.outside(self.world.adapter.start())

    def made_world(self, ground: Ground, gates: Gates | None) -> RefWorld:
        """See `RefSession`."""
        assert isinstance(ground, KilledGround)
        return KilledWorld(self.subject, ground, self.outside)

    def play(self, ops: Sequence[RefOperation], budget: Budget, choose: Choose) -> None:
        """Calls that begin together, with nothing held at gates. Raises RefDivergence."""
        self.make(Burst(tuple(ops)))

    def make(self, burst: Burst) -> None:
        """The burst; where the process is killed, the start that follows is part of it, and a look. Raises RefDivergence."""
        self.bursts.append(burst)
        if burst.kill is None:
            self._make(burst.ops)
            if isinstance(burst.ops[0], ref_ops.Restart):
                self._look_at_driver()
            return
        self._kill(burst.ops, burst.kill)
        self.restarts += 1
        self._make((ref_ops.Restart(),))
        self._look()

    def _make(self, ops: Sequence[RefOperation]) -> None:
        self.heed()
        self.calls += len(ops)
        seen = len(self.kills.events)
        with self._judged(nullcontext()):
            self.outside(self.kills.burst(ops))
        self._count(seen, together=len(ops) > 1)

    def heed(self) -> None:
        """SystemExit when this process was told to end."""
        if self.signals:
            raise SystemExit(1)

    def _kill(self, ops: Sequence[RefOperation], after: int) -> None:
        """Make the calls and kill the process under them, `after` microseconds after they began."""
        self.heed()
        self.calls += len(ops)
        seen = len(self.kills.events)
        with self._judged(nullcontext()):
            self.outside(self.kills.cut_short(ops, lambda: self.subject.kill(after / 1e6)))
            self.world.adapter.crashed()
        answered = {event.call for event in self.kills.events[seen:] if isinstance(event, Answered)}
        begun = range(len(self.kills.operations) - len(ops) + 1, len(self.kills.operations) + 1)
        self.cut.update(type(self.kills.operations[n]).__name__.lower() for n in begun if n not in answered)
        self._count(seen, together=len(ops) > 1)
        self.reached.update(("REF-OPEN-2", "REF-OPEN-1"))

    def _count(self, seen: int, *, together: bool) -> None:
        """Count the clauses that were put to the test; `seen` events are old."""
        self.reached.update(self.watch.clauses())
        self.reached.update(by_records(self.world.records().values()))
        for event in self.kills.events[seen:]:
            if isinstance(event, Answered):
                self.reached.update(by_answer(self.kills.operations[event.call], event.answer, together=together))

    def end(self) -> None:
        """See `RefSession`."""
        for op in self._last():
            self._make((op,))
        with self._judged(nullcontext()):
            self._nothing_left()

    def clear(self) -> None:
        """After a divergence: an empty store of the run, for what is wrong with this one is not known."""
        if not self.over:
            try:
                self.finish(self.subject.clear())
            except CannotRun:
                self.stuck = self.over = True

    # --- after a start

    def _look(self) -> None:
        """Records and snapshots agree (REF-OPEN-5), each content is what it was, and a write goes through (SNAP-LIVE-1)."""
        self._look_at_driver()
        for name, record in self.state.records.items():
            if name.startswith(_MARK):
                continue  # of an earlier look
            if record.mutable and not record.equal:
                self._read(lambda handle, name=name: ref_ops.GetMutable(name, handle))  # type: ignore[misc]  # bound by default
            elif not record.mutable:
                self._read(lambda handle, name=name: ref_ops.Get(name, handle, f"e {handle}"))  # type: ignore[misc]  # as above
        made = self._handle()
        earlier = [n for n, record in self.state.records.items() if n.startswith(_MARK) and record.mutable and not record.equal]
        if earlier:
            self._make((ref_ops.GetMutable(earlier[0], made),))
        else:
            self._make((ref_ops.New(f"{_MARK}{made.split()[1]}", made),))
        self._make((ref_ops.Write(made, (MakeFile(made.replace(" ", "-"), _WRITTEN),)),))
        self._make((ref_ops.Release(made),))
        self.reached["SNAP-LIVE-1"] += 1

    def _handle(self) -> str:
        return f"look {self.named()}"

    def _read(self, getting: Callable[[str], RefOperation]) -> None:
        handle = self._handle()
        self._make((getting(handle),))
        self._make((ref_ops.Read(handle),))
        self._make((ref_ops.Release(handle),))


# --- again


def make_once(session: RefKillSession, bursts: Sequence[Burst]) -> RefFinding | None:
    """The bursts as one history; gives what the spec does not allow, or None when all is allowed."""
    return session.shows(_history(session, bursts))


def make_often(session: RefKillSession, bursts: Sequence[Burst]) -> RefFinding | None:
    """As `make_once`; a history in which the moment of a kill decides is made again and again, until it shows something."""
    return session.often(_history(session, bursts), TRIES if any(burst.kill is not None for burst in bursts) else 1)


def make_surely(session: RefKillSession, bursts: Sequence[Burst]) -> RefFinding | None:
    """As `make_once`; only what shows two times of three."""
    return session.surely(_history(session, bursts))


def _history(session: RefKillSession, bursts: Sequence[Burst]) -> Callable[[], None]:
    def history() -> None:
        session.begin()
        for burst in bursts:
            session.make(burst)
        session.end()

    return history
