"""What calls of the manager are made of: the steps from one state to another, each with what the spec says of it."""

from __future__ import annotations

from dataclasses import replace

import icontract

from snapspec.model import ops
from snapspec.model.frozen import Map
from snapspec.model.ref_state import Handle, Record, RefState, content, halves, snapshot_of
from snapspec.model.snapshots import outcomes as driver_outcomes
from snapspec.model.tree import EMPTY

#: What prune reports of a snapshot that it removed: its records' ids, and its bytes where they were known.
Removal = tuple[frozenset[str], int | None]


def driven(state: RefState, op: ops.Operation) -> RefState:
    """The state after a call of the driver that succeeds."""
    (outcome,) = driver_outcomes(state.driver, op)
    return replace(state, driver=outcome.state)


# --- handles


def with_handle(state: RefState, name: str, record: str) -> RefState:
    """The state with a new handle on the record."""
    return replace(state, handles=state.handles.set(name, Handle(record, state.records[record].mutable)))


def without_handle(state: RefState, name: str) -> RefState:
    """The state in which the handle is not open any more."""
    return replace(state, handles=state.handles.set(name, replace(state.handles[name], open=False)))


@icontract.ensure(lambda result: not any(handle.open for handle in result.handles.values()), "REF-OPEN-1")
@icontract.ensure(
    lambda state, result: [h.record for h in result.handles.values()] == [h.record for h in state.handles.values()],
    "REF-HANDLE-5",
)
def without_handles(state: RefState) -> RefState:
    """The state in which no handle is open."""
    handles = Map((name, replace(handle, open=False)) for name, handle in state.handles.items())
    return replace(state, handles=handles)


# --- records


@icontract.ensure(lambda state, record: record not in state.records, "REF-ERROR-3")
@icontract.ensure(lambda result, record, parent: parent or content(result, record) == EMPTY, "REF-NEW-1")
@icontract.ensure(lambda result, record, parent: not parent or _begins_as(result, record, parent), "REF-NEW-2")
@icontract.ensure(lambda result, record, parent: result.records[record] == Record(mutable=True, parent=parent), "REF-NEW-4")
def made(state: RefState, record: str, parent: str) -> RefState:
    """The state with a new mutable record, over nothing or over one that is final."""
    state = driven(state, ops.Prepare(record, parent))
    return replace(state, records=state.records.set(record, Record(mutable=True, parent=parent)))


def _begins_as(state: RefState, record: str, parent: str) -> bool:
    """Whether the contents are the same below the roots; a driver may give the root modes of its own (SNAP-CONTENT-5)."""
    own, above = content(state, record).nodes, content(state, parent).nodes
    return own.without("") == above.without("")


@icontract.ensure(lambda state, fresh: fresh not in state.records, "REF-ERROR-3")
@icontract.ensure(lambda state, result: result.driver is state.driver, "REF-COMMIT-1")
@icontract.ensure(
    lambda state, result, mutable, fresh: result.records[fresh] == Record(False, state.records[mutable].parent, mutable),
    "REF-COMMIT-2",
)
@icontract.ensure(lambda state, result, mutable, fresh: content(result, fresh) == content(state, mutable), "REF-COMMIT-3")
def paired(state: RefState, mutable: str, fresh: str) -> RefState:
    """The state in which `fresh` is the E of `mutable` (REF-PAIR-1)."""
    known = state.records[mutable]
    records = state.records.set(mutable, replace(known, equal=fresh))
    return replace(state, records=records.set(fresh, Record(mutable=False, parent=known.parent, equal=mutable)))


@icontract.ensure(lambda state, result: result.driver is state.driver, "REF-MUT-3")
@icontract.ensure(
    lambda state, result, mutable: (
        state.records[mutable].equal not in result.records
        and result.records[mutable] == replace(state.records[mutable], equal="")
    ),
    "REF-MUT-3",
)
def parted(state: RefState, mutable: str) -> RefState:
    """The state in which `mutable` has no E any more."""
    record = state.records[mutable]
    return replace(state, records=state.records.without(record.equal).set(mutable, replace(record, equal="")))


@icontract.ensure(lambda state, result, record: content(state, record) == content(result, record), "REF-COMMIT-3")
@icontract.ensure(
    lambda state, result, record: result.records[record].equal == "" and state.records[record].equal not in result.records,
    "REF-FINAL-1",
)
@icontract.ensure(lambda state, result, record: state.records[record].equal or result is state, "REF-FINAL-2")
@icontract.ensure(lambda state, result, record: result.records[record].size == state.records[record].size, "REF-SIZE-1")
def finalized(state: RefState, record: str) -> RefState:
    """The state in which the immutable `record` is final: the driver has committed M's snapshot under its id, and M is gone."""
    mutable = state.records[record].equal
    if not mutable:
        return state
    state = driven(state, ops.Commit(record, mutable))
    records = state.records.without(mutable).set(record, replace(state.records[record], equal=""))
    return replace(state, records=records)


@icontract.ensure(lambda state, result, record: not set(halves(state, record)) & result[0].records.keys(), "REF-PAIR-3")
@icontract.ensure(lambda state, result, record: result[1][0] == set(halves(state, record)), "REF-PRUNE-3")
def removed(state: RefState, record: str) -> tuple[RefState, Removal]:
    """The state without the record and its other half, and the row that prune reports of them."""
    ids = halves(state, record)
    size = next((state.records[name].size for name in ids if not state.records[name].mutable), None)
    after = driven(state, ops.Remove(snapshot_of(state, record)))
    return replace(after, records=after.records.without(*ids)), (frozenset(ids), size)


# --- claims


def claimed(state: RefState, record: str) -> RefState:
    """The state in which one running new more builds on the record (REF-NEW-4)."""
    return replace(state, claimed=tuple(sorted((*state.claimed, record))))


def unclaimed(state: RefState, record: str) -> RefState:
    """The state in which one running new less builds on the record; none may have, since a later manager knows of none."""
    names = list(state.claimed)
    if record in names:
        names.remove(record)
    return replace(state, claimed=tuple(names))
