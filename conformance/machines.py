"""The state machine that holds a subject against the model: one rule for each operation, the model decides what is right."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from snapspec.conformance import draw
from snapspec.conformance.draw import Scope
from snapspec.conformance.files import Permits
from snapspec.conformance.history import Finding
from snapspec.conformance.session import Diverged, Session
from snapspec.model import ops
from snapspec.model.guards import Door
from snapspec.model.ops import Operation

Drawn = Callable[[Scope], st.SearchStrategy[Operation]]


class SnapshotMachine(RuleBasedStateMachine):
    """One history. It is made by a function that binds the session: Hypothesis gives it no arguments.

    `wanted` says whether another history is still wanted; when it says no, the rules do nothing, and shrinking ends. `found` is
    told of each divergence.
    """

    def __init__(self, session: Session, permits: Permits, wanted: Callable[[], bool], found: Callable[[Finding], None]) -> None:
        super().__init__()
        self.found = found
        self.session = session
        self.permits = permits
        self.freed: list[str] = []
        self.running = wanted()
        if self.running:
            session.begin()

    def step(self, data: st.DataObject, drawn: Drawn) -> None:
        """Draw the operation for the state that the model believes in, and make the call."""
        if not self.running:
            return
        space = data.draw(st.integers(0, self.session.subject.spaces - 1), label="namespace")
        scope = Scope(self.session.state(space), self.permits, tuple(dict.fromkeys(self.freed[-3:])))
        op = data.draw(drawn(scope), label="operation")
        self._guarded(lambda: self.session.do(op, space))
        if isinstance(op, ops.Prepare | ops.View | ops.Commit | ops.Remove):
            # A key that was just refused, removed or committed is where the next call may meet leftovers.
            self.freed.append(op.key)

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Diverged as diverged:
            self.running = False
            self.session.clear()
            self.found(diverged.finding)
            raise _distinct(diverged) from None

    @property
    def through_containerd(self) -> bool:
        """Whether there are namespaces and a garbage collector."""
        return self.session.subject.profile.door is Door.METADATA

    @rule(data=st.data())
    def prepare(self, data: st.DataObject) -> None:
        """Prepare."""
        self.step(data, draw.prepares)

    @rule(data=st.data())
    def prepare_more(self, data: st.DataObject) -> None:
        """Prepare again: without active snapshots there is little to do."""
        self.step(data, draw.prepares)

    @rule(data=st.data())
    def view(self, data: st.DataObject) -> None:
        """View."""
        self.step(data, draw.views)

    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """Change content."""
        self.step(data, draw.writes)

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """Commit."""
        self.step(data, draw.commits)

    @rule(data=st.data())
    def commit_more(self, data: st.DataObject) -> None:
        """Commit again: only committed snapshots make chains."""
        self.step(data, draw.commits)

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        """Read content."""
        self.step(data, draw.reads)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Remove."""
        self.step(data, draw.removes)

    @rule(data=st.data())
    def mounts(self, data: st.DataObject) -> None:
        """Mounts."""
        self.step(data, draw.mounts)

    @rule(data=st.data())
    def stat(self, data: st.DataObject) -> None:
        """Stat."""
        self.step(data, draw.stats)

    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        """Update."""
        self.step(data, draw.updates)

    @rule(data=st.data())
    def usage(self, data: st.DataObject) -> None:
        """Usage."""
        self.step(data, draw.usages)

    @rule(data=st.data())
    def walk(self, data: st.DataObject) -> None:
        """Walk."""
        self.step(data, draw.walks)

    @rule(data=st.data())
    def cleanup(self, data: st.DataObject) -> None:
        """Cleanup."""
        self.step(data, draw.cleanups)

    @precondition(lambda self: self.session.subject.reopens)
    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        """Close and open."""
        self.step(data, draw.reopens)

    @precondition(lambda self: self.through_containerd)
    @rule(data=st.data())
    def collect(self, data: st.DataObject) -> None:
        """Collect garbage."""
        self.step(data, draw.collects)

    @precondition(lambda self: self.through_containerd)
    @rule(data=st.data())
    def nowhere(self, data: st.DataObject) -> None:
        """Call without a namespace."""
        self.step(data, draw.nowheres)

    def teardown(self) -> None:
        """At the end everything is removed, and that is judged too."""
        if self.running and not self.session.over:
            self._guarded(self.session.end)


#: One exception class for each clause: Hypothesis keeps to the failure that it shrinks by the class of its exception.
_CLASSES: dict[str, type[Diverged]] = {}


def _distinct(diverged: Diverged) -> Diverged:
    clause = diverged.finding.clause
    cls = _CLASSES.setdefault(clause, type(f"Diverged {clause}", (Diverged,), {}))
    return cls(diverged.finding)
