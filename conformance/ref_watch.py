"""The oracle at a run of refs: calls and answers are held against the model, and at rest the manager's records are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

from snapspec.conformance.gates import Gate, Gates
from snapspec.conformance.refs_subject import RefResponse
from snapspec.conformance.schedule import Cancelled, Unsound
from snapspec.model import linear, ref_ops, ref_oracle, ref_replies
from snapspec.model.linear import Belief, Divergence
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_replies import GotHandle, GotSize, RefAccepted, RefCancelled, RefFailed, RefReturned
from snapspec.model.refs import Record, RefOutcome, RefState, TellsSize
from snapspec.model.replies import Mismatch

#: The clause on records at rest when more calls than one have answered before, and none can be blamed.
UNTOLD = "REF-POINT-3"

#: Calls that may finalize an E: one that fails may leave the records behind what is durable (REF-FINAL-3).
FINALIZES = ref_ops.Finalize | ref_ops.New | ref_ops.Mount | ref_ops.Write | ref_ops.Read | ref_ops.Close | ref_ops.Restart

#: Calls that leave records and handles as they are.
LOOKS = ref_ops.Size | ref_ops.Read | ref_ops.Write | ref_ops.DiskUsage

#: The manager's records by id, each with the number of its open handles.
Records = Mapping[str, tuple[Record, int]]


class Watched(Protocol):
    """What a run is about: a manager, behind gates or not."""

    @property
    def gates(self) -> Gates | None:
        """The gates, where there are some."""
        ...

    def records(self) -> Records:
        """The manager's records; empty when there is no manager."""
        ...

    def unnoted(self) -> set[str]:
        """The snapshots of the driver that no entry of the store names, where that can be seen at any moment."""
        ...


class RefDiverged(Exception):
    """An answer, or the records at rest, that no state permits which the history allows."""

    def __init__(self, divergence: Divergence) -> None:
        mismatch = divergence.mismatches[0]
        super().__init__(f"{divergence.clause}: {divergence.op} was to give {mismatch.expected}, and gave {mismatch.came}")
        self.divergence = divergence

    @property
    def clause(self) -> str:
        """The clause that is broken."""
        return self.divergence.clause

    @property
    def mismatches(self) -> tuple[Mismatch, ...]:
        """What was allowed, and how what came departs from it."""
        return self.divergence.mismatches


# --- what the oracle has worked out before

#: So many beliefs are kept, each once; when there are more, all are forgotten.
KEPT = 1 << 14


@dataclass(slots=True, eq=False)
class _Known:
    """A belief, and those that came of it: in a search the same things happen again and again."""

    belief: Belief
    after: dict[Hashable, _Known] = field(default_factory=dict)


_all: dict[Belief, _Known] = {}


def _known(belief: Belief) -> _Known:
    known = _all.get(belief)
    if known is None:
        if len(_all) == KEPT:
            _all.clear()
            _begun.cache_clear()
        known = _all[belief] = _Known(belief)
    return known


@lru_cache(16)
def _begun(state: RefState) -> _Known:
    return _known(ref_oracle.begin(state))


# --- the watch


class RefWatch:
    """The observer of a run on `world`, which begins in `state`, or with what the history so far allows.

    Raises RefDiverged, and Unsound where the gates show a fault.

    `known.belief` is all that the history so far allows.
    """

    def __init__(self, state: RefState | Belief, world: Watched) -> None:
        self._world = world
        self.aside: frozenset[str] = frozenset()
        """The clauses whose breach was found already: a look that shows it again is passed over."""
        self._known = _known(state) if isinstance(state, Belief) else _begun(state)
        self._open: dict[int, RefOperation] = {}
        self._immutable: dict[str, str] = {}
        """The records of immutable handles."""
        self._failing: set[int] = set()
        """The open calls that a failure may still come to."""
        self._tested: list[tuple[str, ...]] = []
        self._answered: dict[str, None] = {"REF-POINT-3": None}
        """The clauses of the calls that have answered since the records were last looked at, those that only look aside."""
        self._last = UNTOLD
        """The clause of the last answer."""
        self._moved = True
        """A call has answered since then."""
        self._behind = False
        """Since the last start a port has failed under a finalize, and records may be behind it (REF-FINAL-3); or all is dead."""

    @property
    def belief(self) -> Belief:
        """All that the history so far allows."""
        return self._known.belief

    def settle(self, belief: Belief) -> None:
        """What the history allows, narrowed by a look that no call was."""
        self._known = _known(belief)

    def clauses(self) -> Counter[str]:
        """How often each clause was put to the test since this was last asked."""
        tested, self._tested = self._tested, []
        return Counter(clause for clauses in tested for clause in clauses)

    def invoke(self, call: int, op: RefOperation) -> None:
        """The call begins."""
        self._open[call] = op
        # A scan that has failed may still be joined until its error is told (REF-SIZE-5).
        joins = bool(self._failing) and isinstance(op, ref_ops.Size | ref_ops.DiskUsage)
        self._go((call, op, joins), lambda belief: _joined(linear.invoke(belief, call, op), call, joins))
        if joins:
            self._failing.add(call)

    def respond(self, call: int, answer: RefResponse | Cancelled) -> None:
        """The call answers. Raises RefDiverged."""
        op = self._open.pop(call)
        self._failing.discard(call)
        self._note(op, answer)
        came = RefCancelled() if isinstance(answer, Cancelled) else answer
        told = RefFailed(came.error) if isinstance(came, RefFailed) else came  # messages make no difference
        self._go((call, told), lambda belief: linear.respond(belief, call, came))
        clauses = self._known.belief.clauses
        self._tested.append(clauses)
        if clauses:
            refused = isinstance(came, RefFailed) and not ref_replies.breaks_off(came)
            self._last = "REF-ERROR-4" if refused else clauses[0]
            if isinstance(op, ref_ops.Restart):
                self._answered.clear()
            if not (refused or isinstance(op, LOOKS)):
                self._answered[self._last] = None
        self._moved = True
        if isinstance(op, ref_ops.Restart) and isinstance(came, RefReturned):
            self._behind = False

    def disturb(self, call: int, what: str) -> None:
        """The call is cancelled, or a call of a port fails, for whoever waits for it."""
        if what == "cancel":
            self._go((call, what), lambda belief: linear.disturb(belief, call, what))
            return
        self._behind = self._behind or any(isinstance(op, FINALIZES) for op in self._open.values())
        self._failing.update(self._open)
        if self._open:
            some = next(iter(self._open))
            self._go("fault", lambda belief: linear.disturb(belief, some, "fault"))

    def crash(self) -> None:
        """The process dies."""
        self._behind = True
        self._open.clear()
        self._failing.clear()
        self._go("crash", linear.crash)

    def quiet(self) -> None:
        """Nothing moves: scans are shared, and at rest the records are those that the model allows (REF-POINT-3)."""
        if self._world.gates is not None and len(self._world.gates.waiting) > 1:
            self._look_at_scans(self._world.gates.waiting)
        unnoted = self._world.unnoted()
        if unnoted and "REF-NOTE-1" not in self.aside:
            raise Unsound("REF-NOTE-1", f"nothing in the store names these snapshots: {sorted(unnoted)}")
        if self._moved and not self._open and not self._behind:
            records = self._world.records()
            clause = UNTOLD if len(self._answered) > 1 else next(iter(self._answered), self._last)
            self._go(("rest", *records.items()), lambda belief: _refined(belief, records, clause))
            self._tested.append(("REF-POINT-3", "REF-NOTE-1"))
            self._answered, self._moved = {}, False

    def _go(self, event: Hashable, onward: Callable[[Belief], Belief | Divergence]) -> None:
        known = self._known.after.get(event)
        if known is None:
            belief = onward(self._known.belief)
            if isinstance(belief, Divergence):
                raise RefDiverged(belief)
            known = self._known.after[event] = _known(belief)
        self._known = known

    def _look_at_scans(self, waiting: list[Gate]) -> None:
        """Of an immutable record's snapshot there is one scan at a time (REF-SIZE-3)."""
        scanned = Counter(self._sized(gate.call) for gate in waiting if gate.name == "usage" and not gate.cancelled)
        twice = [record for record, times in scanned.items() if record and times > 1]
        if twice and "REF-SIZE-3" not in self.aside:
            raise Unsound("REF-SIZE-3", f"{twice[0]} is measured twice at a time")

    def _sized(self, call: int) -> str:
        """The immutable record that the call asks the size of, "" when it does not. disk_usage measures mutable ones beside."""
        op = self._open.get(call)
        return self._immutable.get(op.handle, "") if isinstance(op, ref_ops.Size) else ""

    def _note(self, op: RefOperation, answer: RefResponse | Cancelled) -> None:
        match op, answer:
            case (
                (ref_ops.Commit(given=handle) | ref_ops.Parent(given=handle) | ref_ops.Get(handle=handle)),
                RefReturned(GotHandle(record)),
            ):
                self._immutable[handle] = record


def _joined(belief: Belief, call: int, joins: bool) -> Belief:
    """The belief in which the call, if it `joins`, shares the failures of others, but not they its own."""
    if not joins:
        return belief
    return replace(belief, calls=belief.calls.set(call, replace(belief.calls[call], disturbed=frozenset({"fault"}))))


def _refined(belief: Belief, records: Records, clause: str) -> Belief | Divergence:
    """The belief in those worlds whose records are these. A size that is stored is known from now on (REF-SIZE-1).

    `clause` is broken by what departs and has no clause of its own.
    """
    judged = {world: _departure(world.state, records, clause) for world in belief.worlds}
    learned = tuple((name, record.size) for name, (record, _) in records.items() if record.size is not None)
    worlds = frozenset(
        replace(world, state=belief.system.learn(world.state, world.state, RefAccepted((), learned)))
        for world, departure in judged.items()
        if departure is None
    )
    if worlds:
        return replace(belief, worlds=worlds)
    departures = {departure for departure in judged.values() if departure is not None}
    return Divergence("the manager at rest", records, tuple(sorted(departures, key=lambda m: (m.expected, m.came))))


def _departure(state: RefState, records: Records, clause: str) -> Mismatch | None:
    """How the records depart from the state, if they do: what is first of another kind, or has other handles, or a wrong size."""
    if state.closed:
        return None
    stored = [name for name, (record, _) in records.items() if record.mutable and record.size is not None]
    if stored:
        return Mismatch("REF-SIZE-4", f"no size stored of {stored[0]!r}", str(records[stored[0]][0].size))
    for name in sorted({*state.records, *records}):
        expected, came = state.records.get(name), records.get(name)
        if expected is None or came is None:
            if clause == "REF-OPEN-1" and expected is None:
                clause = "REF-OPEN-2"  # what was left to be done at the start was not
            elif clause == "REF-PRUNE-3":
                clause = "REF-PRUNE-1"  # not the report is wrong, but what was removed
            return Mismatch(clause, f"{_word(expected)} record {name!r}", f"{_word(came)} one")
        record, handles = came
        open_ones = sum(handle.open and handle.record == name for handle in state.handles.values())
        wrong = _size_departure(state, name, record.size)
        if wrong is not None:
            return wrong
        if expected.equal in records and expected.equal and not record.equal:
            clause = "REF-PAIR-1"
        if (replace(record, size=expected.size), handles) != (expected, open_ones):
            return Mismatch(clause, f"{name!r}: {expected}, {open_ones} handles", f"{record}, {handles} handles")
    return None


def _word(there: object) -> str:
    return "no" if there is None else "a"


def _size_departure(state: RefState, name: str, size: int | None) -> Mismatch | None:
    """A size that was told is stored (REF-SIZE-2); one that is stored is a true one, told or not (REF-SIZE-4)."""
    known = state.records[name]
    if size is None:
        return None if known.size is None else Mismatch("REF-SIZE-2", f"{name!r} of {known.size} bytes", "no size stored")
    verdict = ref_replies.judge(RefOutcome("REF-SIZE-1", TellsSize(name), state), RefReturned(GotSize(size)))
    return verdict if isinstance(verdict, Mismatch) else None
