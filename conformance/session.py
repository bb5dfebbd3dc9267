"""One subject, one history after another, every answer put to the oracle."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any, Generic, TypeVar

from snapspec.conformance.aside import call_name, covered, kind_of
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding, Step
from snapspec.conformance.kind import Kind as FindingKind
from snapspec.conformance.subjects.base import Subject
from snapspec.model import ops
from snapspec.model.adopt import adopt
from snapspec.model.ops import Operation
from snapspec.model.oracle import Belief, Divergence, begin, perform
from snapspec.model.replies import Failed, Lost, Mismatch, Response, Returned
from snapspec.model.state import State, ancestors, children
from snapspec.model.values import Kind

#: How long a call may take before it counts as one that does not answer (SNAP-LIVE-1).
DEADLINE = 20.0

#: How it is told that a call did not answer in time.
LATE = "nothing came within"

#: How many times as long clearing up and closing may take.
ENDING = 3

#: The key of the write that follows each refused call; histories name no other key so.
SPARE = "spare"


#: The depth of a chain that every driver owes (SNAP-PARENT-2).
DEEP = 128


def late(deadline: float) -> str:
    """In words: a call has not answered in so many seconds."""
    return f"{LATE} {deadline:g} s"


F = TypeVar("F")


class Departure(Exception):
    """A history has left the spec; bears the finding."""

    finding: Any


class Diverged(Departure):
    """A history of a driver has."""

    finding: Finding

    def __init__(self, found: Finding) -> None:
        super().__init__(found.clause)
        self.finding = found


class SetAside(Exception):
    """A history has left the spec in a way that is set aside (see `aside`), and where it stands now is not known: it ends."""


class BaseSession(ABC, Generic[F]):
    """What sessions of drivers and of managers share. `runner` holds the event loop that the subject lives in.

    `reached` counts, over all histories, how often each clause was put to the test; `calls` and `histories` count those,
    `restarts` how often the driver's process was ended, `disturbed` what else was done to which calls.
    `repeats` tells whether the same calls meet the same answers.
    `aside` holds the kinds of finding that are set aside. Once `signals` holds something, no call begins: SystemExit is raised.
    """

    repeats = True

    def __init__(self, runner: asyncio.Runner, deadline: float, signals: Sequence[int]) -> None:
        self.runner = runner
        self.deadline = deadline
        self.signals = signals
        self.reached: Counter[str] = Counter()
        self.calls = 0
        self.histories = 0
        self.restarts = 0
        self.disturbed: Counter[str] = Counter()
        self.aside: frozenset[FindingKind] = frozenset()
        self.stuck = False
        """A call did not answer, or the store does not open: what it holds is unknown, the subject is not to be used again."""
        self.over = False
        """No more calls are to be made: one is stuck, or this process was told to end."""
        self.hindrance: CannotRun | None = None
        """Why the kit can make no more calls, where that is the kit's own affair."""

    @abstractmethod
    async def start_subject(self) -> None:
        """Make the subject ready."""

    @abstractmethod
    async def end_subject(self) -> None:
        """End the subject for good."""

    @abstractmethod
    def clear(self) -> None:
        """After a divergence: make room for the next history."""

    def shows(self, history: Callable[[], object]) -> F | None:
        """Make a history, from its beginning to its end; gives what departs from the spec, or None when all is allowed.

        What is set aside is no departure.
        """
        try:
            history()
        except SetAside:
            self.clear()
        except Departure as departure:
            self.clear()
            found: F = departure.finding
            return found
        return None

    def often(self, history: Callable[[], object], tries: int) -> F | None:
        """As `shows`, for a history in which chance decides: it is made up to `tries` times, until it shows something."""
        for _ in range(tries):
            found = None if self.over else self.shows(history)
            if found is not None:
                return found
        return None

    def surely(self, history: Callable[[], object]) -> F | None:
        """As `often`, but only what shows two times of three, by one clause: a shorter history by luck is of no use."""
        shown: list[Any] = []
        for number in range(3):
            found = None if self.over else self.shows(history)
            shown += [found] if found is not None else []
            if len(shown) == 2 or len(shown) < number:
                break
        return shown[-1] if len(shown) == 2 and shown[0].clause == shown[1].clause else None

    def ends(self, departure: Departure) -> Exception:
        """What ends a history that has left the spec: the departure itself, or, where its kind is set aside, that."""
        return SetAside() if covered(kind_of(departure.finding), self.aside) else departure

    @contextmanager
    def started(self) -> Iterator[None]:
        """The subject is ready for as long as the block lasts."""
        try:
            self.runner.run(self.start_subject())
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """End the subject, for good. One that is stuck is left as it is, and one that does not end is stuck."""
        if not self.stuck:
            self.finish(self.end_subject())

    def finish(self, ending: Coroutine[Any, Any, None]) -> None:
        """Run `ending`, which is several calls and has several times as long as one; what does not end is stuck."""
        self.runner.run(self._ended(ending))

    async def _ended(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(ending)
        done, _ = await asyncio.wait({task}, timeout=ENDING * self.deadline)
        if done:
            task.result()
        else:
            self.stuck = self.over = True


class Session(BaseSession[Finding]):
    """Runs histories on a subject that was started."""

    def __init__(self, subject: Subject, runner: asyncio.Runner, deadline: float = DEADLINE, signals: Sequence[int] = ()) -> None:
        super().__init__(runner, deadline, signals)
        self.subject = subject
        self.steps: list[Step] = []
        self.beliefs: list[Belief] = []
        self.named: set[tuple[int, str]] = set()
        self.passed: set[FindingKind] = set()
        """What was set aside in this history."""
        self.cause = ""
        """After what the kit is looking around, "" while the calls are those of the history."""

    def begin(self) -> None:
        """A new history, on an empty store in each namespace."""
        self.runner.run(self.subject.begin())
        self.steps = []
        self.named = set()
        self.cause = ""
        self.passed = set()
        self.beliefs = [begin(State(profile=self.subject.profile)) for _ in range(self.subject.spaces)]
        self.histories += 1

    def state(self, space: int = 0) -> State:
        """A state that the history so far allows."""
        state: State = self.beliefs[space].state
        return state

    def do(self, op: Operation, space: int = 0, *, check: bool = False) -> Response:
        """Make the call and judge its answer; after a refusal look at everything. Raises Diverged."""
        self.heed_signals()
        began = time.time_ns()
        response = self._answer(space, op)
        ended = time.time_ns()
        self.calls += 1
        self.steps.append(Step(op, response, space, check))
        if isinstance(op, ops.Reopen) and isinstance(response, Failed):
            self.stuck = self.over = True  # a closed store cannot be used, nor cleared up
        if isinstance(response, Lost):
            raise self._diverged("SNAP-LIVE-1", "an answer", f"none: {response.reason}")
        belief = perform(self.beliefs[space], op, response, began, ended)
        if isinstance(belief, Divergence):
            belief = self._taken_up(space, belief)
        self.beliefs[space] = belief
        self.reached.update(belief.clauses)
        self._reach(space, op, response)
        changed = self.subject.changed()
        if changed:
            raise self._diverged("SNAP-HOLD-1", "every result as it was given", changed)
        if isinstance(response, Failed) and not check:
            self._look_around(space, op)
        elif isinstance(response, Returned) and isinstance(op, ops.Reopen):
            for each in range(self.subject.spaces):
                keys = [key for key, s in self.state(each).snapshots.items() if s.kind is not Kind.COMMITTED]
                with self.looking("SNAP-OPEN-1", "the store as it was closed", "a reopen"):
                    self._observe(each, keys)
                self.reached["SNAP-OPEN-1"] += 1
        return response

    def heed_signals(self) -> None:
        """Raises SystemExit when this process was told to end: no call begins then."""
        if self.signals:
            self.over = True
            raise SystemExit(1)

    def end(self) -> None:
        """Remove all, children first, as part of the history; then nothing is left."""
        self.reached["SNAP-HOLD-1"] += 1
        for space in range(self.subject.spaces):
            snapshots = self.state(space).snapshots
            parents = {s.parent for s in snapshots.values()}
            while snapshots:
                before = len(snapshots)
                for key in [k for k in snapshots if k not in parents]:
                    self.do(ops.Remove(key), space, check=True)
                snapshots = self.state(space).snapshots
                if len(snapshots) == before:
                    raise SetAside  # nothing can be removed, which is known
                parents = {s.parent for s in snapshots.values()}
            self.do(ops.Walk(), space, check=True)

    def clear(self) -> None:
        """See `BaseSession`."""
        if not self.over:
            self.finish(self.subject.clear())

    async def start_subject(self) -> None:
        """See `BaseSession`."""
        await self.subject.start()

    async def end_subject(self) -> None:
        """See `BaseSession`."""
        await self.subject.stop()

    def _answer(self, space: int, op: Operation) -> Response:
        try:
            return self.runner.run(self._with_deadline(space, op))
        except BaseException as error:
            self.over = True  # whether the call took effect is not known
            self.hindrance = error if isinstance(error, CannotRun) else None
            raise

    async def _with_deadline(self, space: int, op: Operation) -> Response:
        """A call that does not answer is left behind, not cancelled: to wait for its end would be to hang with it."""
        task = asyncio.ensure_future(self.subject.perform(space, op))
        done, _ = await asyncio.wait({task}, timeout=self.deadline)
        if done:
            return task.result()
        self.stuck = self.over = True
        return Lost(late(self.deadline))

    def _taken_up(self, space: int, divergence: Divergence) -> Belief:
        """The belief after a wrong answer of a kind that is set aside: what the driver has really done. Raises what ends it."""
        end = self._wrong(divergence)
        if isinstance(end, Departure):
            raise end
        step = self.steps[-1]
        assert isinstance(step.response, Returned | Failed), "who has answered wrongly has answered"
        belief = adopt(self.beliefs[space], step.op, step.response)
        if belief is None or self.over:
            raise end
        self.steps[-1] = replace(step, aside=True)
        self.passed.add(kind_of(Finding(tuple(self.steps), divergence.mismatches, self.cause)))
        return belief

    def _wrong(self, divergence: Divergence) -> Exception:
        """What ends the history after that divergence at its last step."""
        return self._ended_by(divergence.mismatches)

    def _diverged(self, clause: str, expected: str, came: str) -> Exception:
        return self._ended_by((Mismatch(clause, expected, came),))

    def _ended_by(self, mismatches: tuple[Mismatch, ...]) -> Exception:
        found = Finding(tuple(self.steps), mismatches, self.cause, tuple(sorted(self.passed)))
        return self.ends(Diverged(found))

    def _look_around(self, space: int, op: Operation) -> None:
        """SNAP-FAIL-1: after a refused call everything is as it was; SNAP-LIVE-1: and a write goes through."""
        keys, refused = self._showing(space, getattr(op, "key", "")), f"refused {call_name(op)}"
        with self.looking("SNAP-FAIL-1", f"the store as before the {refused}", f"a {refused}"):
            self._observe(space, keys)
        self.reached["SNAP-FAIL-1"] += 1
        self._make_one(space)

    def _showing(self, space: int, key: str) -> list[str]:
        """What shows the content of `key`: itself when it is active, of what stands on it the first that can be mounted."""
        state = self.state(space)
        named = state.get(key)
        if named is None or named.kind is not Kind.COMMITTED:
            return [key] if named is not None and named.kind is Kind.ACTIVE else []
        mounted = (k for k, s in state.snapshots.items() if s.kind is not Kind.COMMITTED and key in ancestors(state, k))
        return list(islice(mounted, 1))

    @contextmanager
    def looking(self, clause: str, expected: str, cause: str) -> Iterator[None]:
        """The kit looks around after `cause`: what is wrong in the block breaks `clause`, where `expected` is owed, besides its
        own."""
        before, self.cause = self.cause, self.cause or cause
        try:
            yield
        except Diverged as diverged:
            broken = Mismatch(clause, expected, diverged.finding.mismatches[0].came)
            raise Diverged(replace(diverged.finding, mismatches=(*diverged.finding.mismatches, broken))) from None
        finally:
            self.cause = before

    def _observe(self, space: int, keys: list[str]) -> None:
        """Every record and mount list, the content of `keys`, and every settled usage, which follows from content."""
        self.do(ops.Walk(), space, check=True)
        for key, snapshot in self.state(space).snapshots.items():
            if snapshot.kind is not Kind.COMMITTED:
                self.do(ops.Mounts(key), space, check=True)
        for key in keys:
            self.do(ops.Read(key), space, check=True)
        for key, snapshot in self.state(space).snapshots.items():
            if snapshot.kind is Kind.COMMITTED and snapshot.usage is not None:
                self.do(ops.Usage(key), space, check=True)

    def _read_all(self, space: int) -> None:
        """The content of each active snapshot and view."""
        for key in [key for key, s in self.state(space).snapshots.items() if s.kind is not Kind.COMMITTED]:
            self.do(ops.Read(key), space, check=True)

    def _view_all(self, space: int) -> None:
        """The content of each committed snapshot that has no children."""
        snapshots = self.state(space).snapshots
        for key in [key for key, s in snapshots.items() if s.kind is Kind.COMMITTED and not children(self.state(space), key)]:
            self._view_one(space, key)

    def _view_one(self, space: int, key: str) -> None:
        self.do(ops.View(SPARE, key), space, check=True)
        self.do(ops.Read(SPARE), space, check=True)
        self.do(ops.Remove(SPARE), space, check=True)

    def _make_one(self, space: int) -> None:
        """SNAP-LIVE-1: a write goes through."""
        self.do(ops.Prepare(SPARE), space, check=True)
        self.do(ops.Remove(SPARE), space, check=True)
        self.reached["SNAP-LIVE-1"] += 1

    def _reach(self, space: int, op: Operation, response: Response) -> None:
        """Count the clauses that no single answer shows."""
        made = getattr(op, "name", "") or getattr(op, "key", "")
        if isinstance(response, Returned) and isinstance(op, ops.Prepare | ops.View | ops.Commit):
            if (space, made) in self.named and made != SPARE:
                self.reached["SNAP-KEY-3"] += 1
            self.named.add((space, made))
        if self.subject.spaces > 1 and all(b.state.snapshots for b in self.beliefs):
            self.reached["DOOR-NS-2"] += 1
        if isinstance(op, ops.Read) and isinstance(response, Returned) and len(ancestors(self.state(space), op.key)) >= DEEP:
            self.reached["SNAP-PARENT-2"] += 1


def replay(session: Session, steps: tuple[Step, ...]) -> Finding | None:
    """Make the calls of a history again; gives what the spec does not allow. Raises as `again`."""
    return session.shows(again(session, steps))


def again(session: Session, steps: tuple[Step, ...]) -> Callable[[], None]:
    """What makes the calls of a history again. Raises CannotRun for one in more namespaces than the subject has."""
    spaces = 1 + max(step.space for step in steps)
    if min(step.space for step in steps) < 0 or spaces > session.subject.spaces:
        raise CannotRun(
            f"the history uses {spaces} namespaces, the subject has {session.subject.spaces}: replay it on containerd:"
        )

    def history() -> None:
        session.begin()
        for step in steps:
            if not step.check:
                session.do(step.op, step.space)
        session.end()

    return history
