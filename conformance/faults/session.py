"""Histories in which something fails under a call of the driver: how they are made and judged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

from snapspec.conformance.aside import call_name
from snapspec.conformance.contents import own_directory
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.faults import REAL, Faulted, How
from snapspec.conformance.faults.leaks import Held, MountPoint, entries, held, leaked, mount_of
from snapspec.conformance.faults.points import COMMIT, Window
from snapspec.conformance.faults.real import befallen
from snapspec.conformance.faults.subject import FaultedReference, InProcess, into_memory, is_in_memory, out_of_memory
from snapspec.conformance.history import Step
from snapspec.conformance.session import DEADLINE, SPARE, Session
from snapspec.impl.errors import SnapshotError
from snapspec.model import ops
from snapspec.model.faults import Trouble, disturbed
from snapspec.model.ops import Operation
from snapspec.model.oracle import Divergence, perform
from snapspec.model.replies import Failed, Lost, Response, Returned, option
from snapspec.model.state import State

#: How these are told (see `BaseSession.disturbed`).
_WORDS = {How.BEFORE: "fail before", How.AFTER: "fail after"}

#: For each kind of call, the most points that one came to.
Points = dict[str, int]


class FaultSession(Session):
    """A session with a driver in this process, in a block of `points.watched`.

    `points` is how many points each kind of call has, as far as they are known.
    """

    subject: InProcess
    repeats = False

    def __init__(
        self, subject: InProcess, runner: asyncio.Runner, deadline: float = DEADLINE, signals: Sequence[int] = ()
    ) -> None:
        super().__init__(subject, runner, deadline, signals)
        self.points: Points = {}
        self.seen: list[str] = []
        """The points that the last call has come to, those aside that only looked around."""
        self._counting = False
        self._window = Window()
        self._held: Held | None = None
        self._place: MountPoint | None = None

    def do(self, op: Operation, space: int = 0, *, check: bool = False) -> Response:
        """Make the call, if it is `Faulted` with a fault under it, and judge what comes. Raises Diverged."""
        if isinstance(op, Faulted):
            return self._faulted(op)
        self._counting = self._counting or not check
        if isinstance(self.subject, FaultedReference) and not check:
            self.subject.whole = isinstance(op, ops.Reopen)
        return super().do(op, space, check=check)

    def _answer(self, space: int, op: Operation) -> Response:
        window, self._window = self._window, Window()
        self.subject.through = window.run
        try:
            return super()._answer(space, op)
        finally:
            self.subject.through = None
            if self._counting:
                self._counting = False
                self.seen, name = window.seen, type(op).__name__.lower()
                self.points[name] = max(self.points.get(name, 0), len(self.seen))

    async def end_subject(self) -> None:
        """See `BaseSession`."""
        await super().end_subject()
        out_of_memory(self.subject.directory)

    def clear(self) -> None:
        """After a divergence: an empty store, for what is wrong with this one is not known."""
        if not self.over:
            self.finish(self._renewed())

    async def _renewed(self) -> None:
        if not is_in_memory(self.subject.directory):
            await self.subject.clear()
            return
        with suppress(SnapshotError, CannotRun, OSError):
            await self.subject.stop()
        out_of_memory(self.subject.directory)
        into_memory(self.subject.directory)
        self._held = None
        await self.subject.start()

    # --- one fault

    def _faulted(self, op: Faulted) -> Response:
        """Make the call while something fails, and look at everything."""
        self.heed_signals()
        self._first()
        files, before = self._entries(), self.state()
        window = self._window = Window(op if op.how not in REAL else None, 0 if op.at else op.nth)
        began = time.time_ns()
        self._counting = False
        response = self._under(op)
        ended = time.time_ns()
        op = window.fault or op
        if not (window.fired or op.how in REAL):
            return self._unharmed(op.call, response, began, ended)
        self.calls += 1
        self.disturbed[f"{type(op.call).__name__.lower()}: {_WORDS.get(op.how, op.how.value)} {op.at} {op.nth}"] += 1
        self.steps.append(Step(op, response))
        trouble = _trouble(op)
        self._judge(op, trouble, response, began, ended)
        self._works(op, response, before)
        if self.unchanged(before):
            self._nothing_on_disk(files)
        self._opens(op)
        self._nothing_held()
        return response

    def _under(self, op: Faulted) -> Response:
        if isinstance(self.subject, FaultedReference):
            self.subject.whole = isinstance(op.call, ops.Reopen)
        if op.how in REAL and op.how not in self.real():
            raise CannotRun(f"{op.text}: the kit cannot do that to what {self.subject.name} stands on; replay it on ref:overlay")
        with befallen(op.how, self.place()) if op.how in REAL else nullcontext():
            return self._answer(0, op.call)

    def _unharmed(self, call: Operation, response: Response, began: int, ended: int) -> Response:
        """The call never came to the point that was to fail: it is one like any other."""
        self.calls += 1
        self.steps.append(Step(call, response))
        self._judge(call, None, response, began, ended)
        return response

    def _judge(self, op: Operation, trouble: Trouble | None, response: Response, began: int, ended: int) -> None:
        call = op.call if isinstance(op, Faulted) else op
        if isinstance(response, Lost) and (self.stuck or trouble is not Trouble.CANCELED):
            raise self._diverged("SNAP-LIVE-1", "an answer", f"none: {response.reason}")
        if trouble is None:
            belief = perform(self.beliefs[0], call, response, began, ended)
        else:
            belief = disturbed(self.beliefs[0], call, trouble, response, began, ended)
        if isinstance(belief, Divergence):
            raise self._wrong(belief)
        self.beliefs[0] = belief
        self.reached.update(belief.clauses if isinstance(response, Returned) else ())
        if trouble is None:
            return
        clause = "SNAP-FAULT-3" if trouble is Trouble.CANCELED else "SNAP-FAULT-2" if isinstance(response, Failed) else ""
        self.reached.update({"SNAP-FAULT-1", clause} - {""})
        if trouble is not Trouble.FAILED and not isinstance(response, Returned):
            for key in {getattr(call, "key", ""), getattr(call, "name", "")}:
                self.subject.forget(0, key)

    # --- what comes after it

    def _works(self, op: Faulted, response: Response, before: State) -> None:
        """SNAP-FAULT-4: everything is as it was or as the call made it."""
        with self._under_clause(op):
            if op.how is How.BROKEN or (isinstance(op.call, ops.Reopen) and not isinstance(response, Returned)):
                self._reopen(whole=True)
            self._look()
            if isinstance(op.call, ops.Prepare | ops.View) and self.unchanged(before):
                self._again(op.call)
            self.do(ops.Cleanup(), check=True)

    def _opens(self, op: Faulted) -> None:
        """SNAP-FAULT-4: and so it is when the store was closed and opened again."""
        with self._under_clause(op):
            self._reopen(whole=isinstance(op.call, ops.Reopen))
        self.reached["SNAP-FAULT-4"] += 1

    def _under_clause(self, op: Faulted) -> AbstractContextManager[None]:
        expected = "a store that works when the system does, as it was or as the call made it"
        return self.looking("SNAP-FAULT-4", expected, f"a failing {call_name(op.call)}")

    def _reopen(self, *, whole: bool) -> None:
        """Close and open, with all that the driver stands on or without."""
        if isinstance(self.subject, FaultedReference):
            self.subject.whole = whole
        self.do(ops.Reopen(), check=True)

    def _look(self) -> None:
        """Every record, mount list, usage and content; and a write goes through."""
        self._observe(0, [])
        self._read_all(0)
        self._view_all(0)
        self._make_one(0)

    def _again(self, call: ops.Prepare | ops.View) -> None:
        """What failed is done now, or refused for a reason of its own, and meets nothing of the first time."""
        if isinstance(self.do(call, check=True), Returned):
            self.do(ops.Read(call.key), check=True)
            self.do(ops.Remove(call.key), check=True)

    def _nothing_on_disk(self, files: Counter[str]) -> None:
        """SNAP-FAULT-5: after a cleanup there is no more in the driver's directory than the `files` that were."""
        now = self._entries()
        if now.total() > files.total():
            more = ", ".join(f"{count} in {place!r}" for place, count in (now - files).items())
            raise self._diverged("SNAP-FAULT-5", "after a cleanup no file that was not there before", f"more entries: {more}")

    def _entries(self) -> Counter[str]:
        lists = (snapshot.mounts or () for snapshot in self.state().snapshots.values())
        return entries(self.subject.directory, {option(mount, "workdir") for mounts in lists for mount in mounts})

    def _nothing_held(self) -> None:
        """SNAP-FAULT-5: a store that was just opened holds what it always does."""
        assert self._held is not None, "it was looked at before the first fault"
        more = leaked(self.subject.directory, self._held)
        if more:
            raise self._diverged("SNAP-FAULT-5", "nothing that was not held before", more)
        self.reached["SNAP-FAULT-5"] += 1

    def _first(self) -> None:
        """What is held by a store that was just opened, before anything has failed."""
        if self._held is None:
            self._reopen(whole=False)
            self._held = held(self.subject.directory)

    def unchanged(self, before: State) -> bool:
        """Whether the history allows what it allowed then, and nothing else: no call has happened since."""
        return all(_shape(world.state) == _shape(before) for world in self.beliefs[0].worlds)

    def place(self) -> MountPoint:
        """The mount that holds the layers. One outside the driver's directory is not the kit's, and nothing befalls it."""
        if self._place is None:
            mounts = self.runner.run(self.subject.driver(0).prepare(SPARE))
            self._place = mount_of(own_directory(tuple(mounts)) or "/")
            self.runner.run(self.subject.driver(0).remove(SPARE))
        return self._place

    def real(self) -> tuple[How, ...]:
        """What can befall the file system that holds the layers."""
        place = self.place()
        if not f"{place.point}/".startswith(f"{self.subject.directory}/"):
            return ()
        gives_up = place.type == "ext4" and isinstance(self.subject, FaultedReference)
        return REAL if gives_up else (How.FULL, How.READ_ONLY)


def _trouble(op: Faulted) -> Trouble:
    if op.how is How.CANCEL:
        return Trouble.CANCELED
    undecided = op.how is How.BROKEN or (op.how is How.AFTER and op.at == COMMIT)
    return Trouble.UNDECIDED if undecided else Trouble.FAILED


def _shape(state: State) -> list[tuple[object, ...]]:
    """The state without what was told of it, times and mount lists. A usage that was told once is never measured again."""
    return sorted((key, s.kind.value, s.parent, s.labels, hash(s.tree), repr(s.usage)) for key, s in state.snapshots.items())
