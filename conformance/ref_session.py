"""A session of refs: histories of bursts on the manager over one subject, each answer held against the oracle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from snapspec.conformance.aside import call_name, covered
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.free import FreeRun
from snapspec.conformance.gates import Gates
from snapspec.conformance.kind import Kind
from snapspec.conformance.loop import gated_loop
from snapspec.conformance.ref_history import Burst, RefFinding
from snapspec.conformance.ref_reached import by_answer, by_choice, by_records
from snapspec.conformance.ref_watch import RefDiverged, RefWatch
from snapspec.conformance.ref_words import told
from snapspec.conformance.refs_subject import RefResponse
from snapspec.conformance.report.ref_pictures import around, bars
from snapspec.conformance.schedule import DISTURBANCES, Budget, Choice, Choose, Move, Run, Unsound, replay
from snapspec.conformance.session import DEADLINE, BaseSession, Departure, late
from snapspec.conformance.subjects.refs import NEIGHBOUR, Ground, RefsSubject, RefWorld
from snapspec.conformance.subjects.remote import TransportLost
from snapspec.impl import ref_errors
from snapspec.impl.errors import SnapshotError
from snapspec.impl.mounts import MountError
from snapspec.model import ref_ops
from snapspec.model.linear import Divergence, TooManyStates
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_replies import GotPruned, RefFailed, RefReturned
from snapspec.model.refs import RefError, RefState
from snapspec.model.replies import Mismatch
from snapspec.model.state import State

T = TypeVar("T")

RefRun = Run[RefOperation, RefResponse]


class RefDivergence(Departure):
    """The manager, or the driver under it, departs from the spec."""

    finding: RefFinding

    def __init__(self, found: RefFinding) -> None:
        super().__init__(found.clause)
        self.finding = found


class RefSession(BaseSession[RefFinding]):
    """Runs histories on a subject that was started."""

    def __init__(
        self,
        subject: RefsSubject,
        runner: asyncio.Runner,
        deadline: float = DEADLINE,
        signals: Sequence[int] = (),
    ) -> None:
        super().__init__(runner, deadline, signals)
        self.subject = subject
        self.bursts: list[Burst] = []
        self.free: FreeRun[RefOperation, RefResponse] | None = None
        """The run, when nothing is held at gates in it."""
        self._trouble = ""

    # --- a history

    def begin(self) -> None:
        """A new history, over a driver and a store that hold nothing."""
        gates = Gates(gated_loop(), None if self.subject.in_memory else self.outside)
        self._begin(gates)
        self.run: RefRun = Run(gates, self.world.adapter.perform, self.watch, self._choose)
        self._plant()
        with self._judged(self.run.loop.running()):
            self.run.aside(self.world.adapter.start())

    def _begin(self, gates: Gates | None) -> None:
        begun = self.subject.begin()
        ground = _at_once(begun) if self.subject.in_memory else self.runner.run(begun)
        self.world = self.made_world(ground, gates)
        state = RefState(driver=State(profile=self.subject.profile), declared=self.subject.declared)
        self.watch = RefWatch(state, self.world)
        self.watch.aside = frozenset(kind.clause for kind in self.aside if not kind.call)  # those of looks
        self.free = None
        self._pruned: set[str] = set()
        self.bursts = []
        self._named = 0
        self.histories += 1

    def made_world(self, ground: Ground, gates: Gates | None) -> RefWorld:
        """The manager of one history over its ground."""
        return RefWorld(ground, gates, self.outside, self.subject.declared, self.subject.open_with)

    def _plant(self) -> None:
        with self._judged(nullcontext()):
            self.outside(self.world.ground.driver.prepare(NEIGHBOUR))

    @property
    def state(self) -> RefState:
        """A state that the history so far allows."""
        state: RefState = self.watch.belief.state
        return state

    def named(self) -> int:
        """A number that no other call of this history was given: it names what the call makes."""
        self._named += 1
        return self._named

    def play(self, ops: Sequence[RefOperation], budget: Budget, choose: Choose) -> None:
        """One burst; after the death of the process the restart is part of it. Raises RefDivergence."""
        chosen_before, seen = len(self.run.chosen), len(self.run.events)
        self._chooser = choose
        self.calls += len(ops)
        with self._judged(self.run.loop.running()):
            try:
                if len(ops) == 1 and budget == Budget():
                    self.run.sequence(ops)
                else:
                    self.run.burst(ops, budget)
            finally:
                self.bursts.append(Burst(tuple(ops), tuple(self.run.chosen[chosen_before:]), budget))
        if self.run.crashed:
            self.run.crashed = False
            self.outside(self.world.crashed())
            self._alone(ref_ops.Restart())
            self.reached["REF-OPEN-2"] += 1
        elif isinstance(ops[0], ref_ops.Restart):
            self._look_at_driver()
        self._handles_differ()
        self._reach(seen, together=len(ops) > 1)

    def _look_at_driver(self) -> None:
        """After a start records and snapshots are the same (REF-OPEN-5)."""
        if not self.world.adapter.serves:
            return
        with self._judged(nullcontext()):
            names = self.outside(self.world.names()) - {NEIGHBOUR}
            states = [world.state for world in self.watch.belief.worlds]
            if not any(names == set(state.driver.snapshots) for state in states):
                expected = sorted(states[0].driver.snapshots)
                self._unsound(
                    "REF-OPEN-5", f"after the start the driver holds {sorted(names)}, and the records are of {expected}"
                )
        self.reached["REF-OPEN-5"] += 1

    def _handles_differ(self) -> None:
        """Each call has given a handle of its own (REF-HANDLE-1)."""
        given = [id(ref) for ref in self.world.adapter.handles.values() if ref is not None]
        with self._judged(nullcontext()):
            if len(set(given)) < len(given):
                self._unsound("REF-HANDLE-1", "two calls have given the same handle")
        self.reached["REF-HANDLE-1"] += 1

    def _reach(self, seen: int, *, together: bool) -> None:
        """Count the clauses that were put to the test, those also that no single answer shows. `seen` events are old."""
        self.reached.update(self.watch.clauses())
        self.reached.update(by_records(self.world.records().values()))
        for event in self.run.events[seen:]:
            if isinstance(event, Choice):
                self.reached.update(by_choice(event))
                if event.what in DISTURBANCES:
                    self.disturbed[self._disturbance(event)] += 1
                continue
            op = self.run.operations[event.call]
            self.reached.update(by_answer(op, event.answer, together=together))
            match event.answer:
                case RefReturned(GotPruned(removed)):
                    self._pruned.update(name for names, _ in removed for name in names)
                case RefFailed(RefError.NOT_FOUND) if getattr(op, "record", "") in self._pruned:
                    self.reached["REF-PRUNE-2"] += 1

    def _disturbance(self, choice: Choice) -> str:
        """What was done to which call, and where: a crash is one of all calls."""
        if choice.gate is None:
            kind = "any call" if choice.what is Move.CRASH else self._kind(choice.call)
            return f"{kind}: {choice.what.value}"
        return f"{self._kind(choice.call)}: {choice.what.value} {choice.gate.port} {choice.gate.name}"

    def _kind(self, call: int) -> str:
        return type(self.run.operations[call]).__name__.lower()

    def end(self) -> None:
        """Release, prune and close, as part of the history; then nothing is left (REF-LEAK-1). Raises RefDivergence."""
        for op in self._last():
            if isinstance(op, ref_ops.Close):
                self._second()
            self._alone(op)
            if isinstance(op, ref_ops.Read):
                self.reached["REF-MOUNT-6"] += 1
        ids = [ref.id for ref in self.world.adapter.handles.values() if ref is not None]  # to read them is to test them
        self.reached["REF-HANDLE-5"] += len(ids)
        with self._judged(nullcontext()):
            self._nothing_left()
            with self.run.loop.running():
                self.run.end()

    def _last(self) -> list[RefOperation]:
        """What ends a history: all is released, measured and pruned."""
        adapter = self.world.adapter
        again = [] if adapter.serves else [ref_ops.Restart()]
        reads = map(ref_ops.Read, adapter.lists)  # what was given still shows what it showed (REF-MOUNT-6)
        released = map(ref_ops.Release, adapter.handles)
        return [*reads, *again, *released, ref_ops.DiskUsage(), ref_ops.Prune(), ref_ops.DiskUsage(), ref_ops.Close()]

    def play_freely(self, bursts: Sequence[Burst]) -> None:
        """The bursts as a whole history in which nothing waits at a gate: calls overlap as the driver lets them.

        Raises RefDivergence.
        """
        self._begin(None)
        self.free = FreeRun(self.world.adapter.perform, self.watch)
        self._plant()
        with self._judged(nullcontext()):
            self.outside(self.world.adapter.start())
            for burst in bursts:
                self.bursts.append(burst)
                self._together(burst.ops)
            for op in self._last():
                self._together((op,))
            self._nothing_left()

    def _together(self, ops: Sequence[RefOperation]) -> None:
        assert self.free is not None
        self.calls += len(ops)
        self.outside(self.free.burst(ops))
        self.reached.update(self.watch.clauses())

    def _unsound(self, clause: str, came: str) -> None:
        """A look has shown that the clause is broken; where that is set aside, what was looked at stays as it is."""
        if not covered(Kind(clause), self.aside):
            raise Unsound(clause, came)

    def _second(self) -> None:
        with self._judged(self.run.loop.running()):
            error = self.run.aside(self.world.second())
            if error != "Locked":
                self._unsound("REF-CLOSE-2", f"a second manager on the same store: {error or 'it is opened'}")
        self.reached["REF-CLOSE-2"] += 1

    def _nothing_left(self) -> None:
        """Neither records nor snapshots are left (REF-LEAK-1), but for what was never the manager's (REF-PRUNE-4)."""
        entries, names = self.outside(self.world.ground.entries()), self.outside(self.world.names())
        if NEIGHBOUR not in names:
            raise Unsound("REF-PRUNE-4", "a snapshot that was in the driver before is gone")
        if entries or names != {NEIGHBOUR}:
            left = f"entries {sorted(entries)}, snapshots {sorted(names - {NEIGHBOUR})}"
            raise Unsound("REF-LEAK-1", f"all is released and pruned, and there are still {left}")
        self.outside(self.world.ground.driver.remove(NEIGHBOUR))
        self.reached.update(("REF-LEAK-1", "REF-PRUNE-4"))

    def _alone(self, op: RefOperation) -> None:
        self.calls += 1
        with self._judged(self.run.loop.running()):
            self.run.sequence([op])
        self.reached.update(self.watch.clauses())
        if isinstance(op, ref_ops.Restart):
            self._look_at_driver()

    def clear(self) -> None:
        """See `BaseSession`."""
        if self.free is None:
            with self.run.loop.running():
                self.run.abandon()
        if not self.over:
            self.finish(self.world.ground.let_go())
            self.finish(self.subject.clear())

    async def start_subject(self) -> None:
        """See `BaseSession`."""
        await self.subject.start()

    async def end_subject(self) -> None:
        """See `BaseSession`."""
        await self.subject.stop()

    # --- judgement

    @contextmanager
    def _judged(self, running: AbstractContextManager[object]) -> Iterator[None]:
        """The context of some calls, within `running`. What goes wrong in it is raised as RefDivergence."""
        try:
            with running:
                yield
        except RefDiverged as diverged:
            self._end_if_hindered()
            raise self.ends(RefDivergence(self._found(diverged.mismatches, diverged.divergence))) from None
        except Unsound as unsound:
            self._end_if_hindered()
            clause, came = unsound.clause, str(unsound)
            raise self.ends(RefDivergence(self._found((Mismatch(clause, "what the clause says", came),)))) from None
        except SnapshotError:
            if not (self._trouble or self.hindrance or self.signals):
                raise
        self._end_if_hindered()
        if self._trouble:
            raise self.ends(RefDivergence(self._found((Mismatch("SNAP-LIVE-1", "an answer of the driver", self._trouble),))))

    def _end_if_hindered(self) -> None:
        if self.signals:
            raise SystemExit(1)
        if self.hindrance is not None:
            raise self.hindrance

    def _found(self, mismatches: tuple[Mismatch, ...], divergence: Divergence | None = None) -> RefFinding:
        if self._trouble:
            mismatches = (Mismatch("SNAP-LIVE-1", "an answer of the driver", self._trouble), *mismatches)
        run, op = self.free or self.run, divergence.op if divergence is not None else None
        records = {} if self.free is not None else self.world.records()  # behind gates nothing moves meanwhile
        return RefFinding(
            tuple(self.bursts),
            tuple(self.told()),
            mismatches,
            free=self.free is not None,
            call=call_name(op) if isinstance(op, RefOperation) else "",
            bars=bars(run.events, run.operations, divergence),
            pictures=around(self.watch.belief, divergence, records),
        )

    def told(self) -> list[str]:
        """The history in words."""
        run = self.free or self.run
        return list(told(run.events, run.operations))

    def _choose(self, choices: Any) -> int:
        return self._chooser(choices)

    # --- the driver

    def outside(self, work: Awaitable[T]) -> T:
        """What `work` gives, run to its end on the driver's own loop. No other may run meanwhile (`gates.beside`).

        A driver that does not answer within the deadline, and one that is gone, ends all histories.
        """
        return self.runner.run(self._in_time(work)) if not self.subject.in_memory else _at_once(work)

    async def _in_time(self, work: Awaitable[T]) -> T:
        if self.over or self.signals:
            self.over = True
            if isinstance(work, Coroutine):
                work.close()
            raise SnapshotError("no more calls are made")
        task = asyncio.ensure_future(work)
        done, _ = await asyncio.wait({task}, timeout=self.deadline)
        if not done:
            self.stuck = self.over = True
            self._trouble = late(self.deadline)
            raise SnapshotError(self._trouble)
        try:
            return task.result()
        except (SnapshotError, ref_errors.RefError, MountError, RefDiverged, Unsound, TooManyStates):
            raise
        except TransportLost as error:
            self.over, self._trouble = True, str(error)
            raise SnapshotError(str(error)) from error
        except CannotRun as error:
            self.over, self.hindrance = True, error
            raise SnapshotError(str(error)) from error
        except Exception as error:  # a driver in this process may raise anything; that is its answer
            raise SnapshotError(f"{type(error).__name__}: {error}") from error


def _at_once(work: Awaitable[T]) -> T:
    """What `work` gives, which waits for nothing, as all that is in memory."""
    try:
        work.__await__().send(None)
    except StopIteration as ended:
        value: T = ended.value
        return value
    raise RuntimeError("it waits for something: only what is in memory is made at once")


#: How often a history is played again in which nothing is held at gates: no two runs are alike.
AGAIN = 20


def play_again(session: RefSession, finding: RefFinding) -> RefFinding | None:
    """Play the bursts of a finding again, as one history; gives what the spec does not allow, or None when all is allowed."""
    if finding.free:
        return session.often(lambda: session.play_freely(finding.bursts), AGAIN)

    def history() -> None:
        session.begin()
        for burst in finding.bursts:
            session.play(burst.ops, burst.budget, replay(burst.choices))
        session.end()

    return session.shows(history)
