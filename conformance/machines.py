"""The state machine that holds a subject against the model: any call, right or wrong, and the model decides what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from snapspec.conformance import draw
from snapspec.conformance.draw import Limits, Scope
from snapspec.conformance.durable import Restart, restart
from snapspec.conformance.faults import Faulted
from snapspec.conformance.history import Finding
from snapspec.conformance.overlap import PARENTS
from snapspec.conformance.session import Diverged, Session, SetAside
from snapspec.conformance.subjects.base import Subject
from snapspec.model import ops
from snapspec.model.guards import Door
from snapspec.model.ops import Operation

#: Most of a history happens in one namespace: spread over two it would meet less.
_SPACES = (0, 0, 0, 1)


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation of the machine: how often it is drawn, and for which subjects. Those that are `needed` are never left out."""

    name: str
    drawn: Callable[[Scope], Operation]
    weight: int = 1
    needed: bool = False
    possible: Callable[[Subject], bool] = lambda _: True


def _through_containerd(subject: Subject) -> bool:
    return subject.profile.door is Door.METADATA


#: The simplest first. Without active and committed snapshots there is little to do, so that what makes them comes often.
OPERATIONS = (
    Entry("prepare", draw.prepare, 5, needed=True),
    Entry("commit", draw.commit, 5, needed=True),
    Entry("write", draw.write, 4, needed=True),
    Entry("view", draw.view, 2),
    Entry("read", draw.read, 2),
    Entry("remove", draw.remove, 2),
    Entry("mounts", draw.mounts),
    Entry("stat", draw.stat, 2),
    Entry("update", draw.update, 2),
    Entry("usage", draw.usage, 2),
    Entry("walk", draw.walk, 2),
    Entry("cleanup", draw.cleanup),
    Entry("reopen", draw.reopen, possible=lambda subject: subject.reopens),
    Entry("stop", restart.stop, 4, needed=True, possible=lambda subject: subject.restarts == "stop"),
    Entry("kill", restart.kill, 4, needed=True, possible=lambda subject: subject.restarts == "kill"),
    Entry("collect", draw.collect, possible=_through_containerd),
    Entry("nowhere", draw.nowhere, possible=_through_containerd),
)


#: What a run may leave out: the operations that are not needed, calls under way when the driver ends, parents under calls that
#: overlap, and kinds of content.
OPTIONAL = (*(entry.name for entry in OPERATIONS if not entry.needed), restart.CUT, PARENTS, *draw.CONTENT)


class SnapshotMachine(RuleBasedStateMachine):
    """One history. It is made by a function that binds the session: Hypothesis gives it no arguments.

    `wanted` says whether another history is still wanted; when it says no, the rules do nothing, and shrinking ends. `found` is
    told of each divergence.
    """

    def __init__(self, session: Session, limits: Limits, wanted: Callable[[], bool], found: Callable[[Finding], None]) -> None:
        super().__init__()
        self.found = found
        self.session = session
        self.limits = limits
        self.freed: list[str] = []
        self.operations: list[Entry] = []
        self.running = wanted()
        if self.running:
            session.begin()

    @initialize(data=st.data())
    def choose(self, data: st.DataObject) -> None:
        """Leave some operations out of this history, for what is rare among all is frequent among few; and begin it."""
        subject = self.session.subject
        possible = [entry for entry in OPERATIONS if entry.possible(subject) and entry.name not in self.limits.without]
        optional = [entry.name for entry in possible if not entry.needed]
        pick = draw.picker(data)
        left_out = {pick(optional) for _ in range(pick((0, 1, 2, 3, 4)))}
        self.operations = [entry for entry in possible if entry.name not in left_out for _ in range(entry.weight)]
        if self.running and pick((False, True, True)):
            self._guarded(self._begin)

    def _begin(self) -> None:
        for op in draw.prelude(self.limits):
            self.session.do(op)

    @rule(data=st.data())
    def call(self, data: st.DataObject) -> None:
        """Draw a call for the state that the model believes in, two times of three one that is to succeed, and make it."""
        if not self.running:
            return
        pick = draw.picker(data)
        space = pick(_SPACES[: self.session.subject.spaces + 2])
        freed = tuple(dict.fromkeys(self.freed[-3:]))
        scope = Scope(pick, self.session.state(space), self.limits, freed, careful=pick((True, True, False)))
        op = self.drawn(scope)
        self._guarded(lambda: self.session.do(op, space))
        if isinstance(op, Faulted):
            op = op.call
        if isinstance(op, ops.Prepare | ops.View | ops.Commit | ops.Remove):
            # A key that was just refused, removed or committed is where the next call may meet leftovers.
            self.freed.append(op.key)
        elif isinstance(op, Restart):
            self.freed += [call.key for call in op.during if isinstance(call, ops.Prepare | ops.View | ops.Commit | ops.Remove)]

    def drawn(self, scope: Scope) -> Operation:
        """A call to be made."""
        return scope.pick(self.operations).drawn(scope)

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except SetAside:
            self.running = False
            self.session.clear()
        except Diverged as diverged:
            self.running = False
            self.session.clear()
            self.found(diverged.finding)
            raise

    def teardown(self) -> None:
        """At the end everything is removed, and that is judged too."""
        if self.running and not self.session.over:
            self._guarded(self.session.end)
