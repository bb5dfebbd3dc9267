"""The search for what goes wrong when something fails: short histories with every single fault, and drawn ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from snapspec.conformance.draw import Scope
from snapspec.conformance.durable.restart import replay_surely
from snapspec.conformance.faults import Faultable, Faulted, How
from snapspec.conformance.faults.points import errors, points
from snapspec.conformance.faults.session import FaultSession
from snapspec.conformance.history import Finding, Step
from snapspec.conformance.machines import SnapshotMachine
from snapspec.conformance.search import Search, shorten
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.tree import Link, MakeDirectory, MakeFile, MakeSymlink, SetXattr, Unlink

#: A history that is given.
Calls = tuple[Operation, ...]

_BASE: Calls = (
    ops.Prepare("a"),
    ops.Write("a", (MakeDirectory("d"), MakeFile("d/f", b"hello"), MakeSymlink("l", "d/f"))),
    ops.Commit("b", "a", (("k", "1"),)),
)

#: In each of these histories every call is faulted at each of its points, in each way.
WRITTEN: tuple[Calls, ...] = (
    (*_BASE, ops.Prepare("c", "b", (("k", "2"),)), ops.Update("c", (("k", "3"),)), ops.Remove("c"), ops.Cleanup()),
    (*_BASE, ops.View("v", "b"), ops.Update("b", (("k", "3"),), ("labels.k",)), ops.Usage("b"), ops.Remove("v"), ops.Reopen()),
    (
        *_BASE,
        ops.Prepare("c", "b"),
        ops.Write("c", (Unlink("d/f"), MakeFile("g", b"x" * 5000), Link("h", "g"), SetXattr("g", "user.a", b"1"))),
        ops.Usage("c"),
        ops.Commit("e", "c", parent="b"),
        ops.Prepare("c", "e"),
        ops.Remove("c"),
        ops.Remove("e"),
    ),
    (
        *_BASE,
        ops.View("v"),
        ops.Prepare("b"),
        ops.Prepare("c", "absent"),
        ops.Remove("absent"),
        ops.Commit("v", "b"),
        ops.Stat("v"),
    ),
    (*_BASE, ops.Remove("b"), ops.Cleanup(), ops.Reopen(close_twice=True), ops.Walk()),
)


class FaultSearch(Search):
    """The search of drivers in this process, with something that fails under their calls."""

    session: FaultSession

    def run_scenarios(self, number: int = 0, workers: int = 1, chance: int = 0) -> None:
        """See `BaseSearch`: a call of a written history is one task; nothing in these is left to chance."""
        tasks = [(calls, at) for calls in WRITTEN for at, op in enumerate(calls) if isinstance(op, Faultable)]
        for calls, at in tasks[number::workers]:
            while self.wanted() and self.show(every_fault(self.session, calls, at, self.wanted)):
                self.go_on()

    def run_slow_scenarios(self, number: int = 0, workers: int = 1) -> None:
        """See `BaseSearch`: those have no faults."""

    def machine(self) -> SnapshotMachine:
        """See `BaseSearch`."""
        return FaultMachine(self.session, self.limits, self.wanted, self.found)

    def shortest(self, best: Finding, wanted: Callable[[], bool]) -> Finding:
        """See `BaseSearch`; other faults than the last are seldom to blame."""

        def again(steps: tuple[Step, ...]) -> Finding | None:
            return replay_surely(self.session, steps)

        last = max((at for at, step in enumerate(best.steps) if isinstance(step.op, Faulted)), default=0)
        sound = [s for at, s in enumerate(best.steps) if not s.check and (at >= last or not isinstance(s.op, Faulted))]
        alone = again(tuple(sound)) if wanted() else None
        return shorten(alone if alone is not None and alone.clause == best.clause else best, again, wanted)


def every_fault(session: FaultSession, calls: Calls, at: int, wanted: Callable[[], bool]) -> Callable[[], None]:
    """What makes the history up to the call numbered `at`, and that with every single fault, one after another.

    As long as a fault has left everything as it was, the next one comes in the same history.
    """

    def history() -> None:
        _begin(session, calls[: at + 1])
        seen = session.seen
        session.end()
        _begin(session, calls[:at])
        before = session.state()
        for fault in single_faults(calls[at], seen, session.real()):
            if not wanted():
                break
            if not session.unchanged(before):
                session.end()
                _begin(session, calls[:at])
            session.do(fault)
        session.end()

    return history


def _begin(session: FaultSession, calls: Sequence[Operation]) -> None:
    session.begin()
    for op in calls:
        session.do(op)


def single_faults(call: Operation, seen: list[str], real: tuple[How, ...]) -> Iterator[Faulted]:
    """Every fault that can come under the call, whose points are `seen`."""
    for name, nth in points(seen):
        for how in (How.BEFORE, How.AFTER):
            yield from (Faulted(call=call, how=how, at=name, nth=nth, error=error) for error in errors(name, how))
        if not isinstance(call, ops.Reopen):  # what the kit makes of a close and an open is not a call that can be cancelled
            yield Faulted(call=call, how=How.CANCEL, at=name, nth=nth)
    if not isinstance(call, ops.Reopen):
        yield from (Faulted(call=call, how=how) for how in real)


# --- drawn

#: How many points a call is taken to have of whose kind none was made yet.
_POINTS = 8


class FaultMachine(SnapshotMachine):
    """A history in which something fails under most calls of the driver."""

    session: FaultSession

    def drawn(self, scope: Scope) -> Operation:
        """A call, or one under which the point of that number fails."""
        op = super().drawn(scope)
        if not isinstance(op, Faultable) or scope.pick((True, True, False)) is False:
            return op
        known = self.session.points.get(type(op).__name__.lower(), _POINTS)
        ways = (How.BEFORE, How.AFTER, *(() if isinstance(op, ops.Reopen) else (How.CANCEL,)))
        how = scope.pick(ways)
        number = scope.pick(range(1, known + 1)) if known else 0
        return Faulted(call=op, how=how, nth=number, error=scope.pick(("ENOSPC", "EIO", "EBUSY"))) if number else op
