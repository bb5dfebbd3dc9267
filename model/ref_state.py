"""The state of a manager: records, handles, the snapshots under them, what is read off it and what holds of all of it.

The snapshots are a state of the snapshotter's model, so that content is part of what is decided. The driver knows a record's
snapshot by the id of the record that made it: E's by M's id, as long as the two are a pair.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from snapspec.model.frozen import Hashed, Map
from snapspec.model.ref_guards import Found, Given
from snapspec.model.state import State, parents_well_formed
from snapspec.model.tree import Tree
from snapspec.model.values import Kind


@dataclass(frozen=True, slots=True)
class Declared:
    """What a manager declares of itself, as far as the model depends on it."""

    commit_keeps_lists: bool = True
    """The lists that the driver gave of M stay good when it commits M (REF-MOUNT-4)."""
    release_drops_pair: bool = False
    """A pair goes with its last handle (REF-PAIR-1)."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record. `equal` is the other half of a pair, "" where there is none; `size` is None until it was told (REF-SIZE-1)."""

    mutable: bool
    parent: str = ""
    equal: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Handle:
    """What a caller has: the record that it was given on, which can be read for ever (REF-HANDLE-5), and whether it is open."""

    record: str
    mutable: bool
    open: bool = True


@dataclass(frozen=True, slots=True)
class RefState(Hashed):
    """A manager and what is under it: records by id, handles by name, the driver's snapshots by the id they are known by."""

    records: Map[str, Record] = field(default_factory=Map)
    handles: Map[str, Handle] = field(default_factory=Map)
    driver: State = field(default_factory=State)
    closed: bool = False
    claimed: tuple[str, ...] = ()
    """The parents that running calls of new are about to build on: not in use, and not to be pruned (REF-NEW-4)."""
    declared: Declared = Declared()
    __hash__ = Hashed.__hash__


# --- what is read off a state


def is_open(state: RefState, handle: str) -> bool:
    """Whether the handle is open."""
    known = state.handles.get(handle)
    return known is not None and known.open


def given(state: RefState, handle: str | None) -> Given:
    """What the handle stands for."""
    if handle is None:
        return Given.NOTHING
    if not is_open(state, handle):
        return Given.NOT_OPEN
    return Given.ON_MUTABLE if state.handles[handle].mutable else Given.ON_IMMUTABLE


def found(state: RefState, record: str) -> Found:
    """What the id stands for; one that is unknown or empty is absent (REF-ERROR-2)."""
    known = state.records.get(record)
    if known is None:
        return Found.ABSENT
    return Found.MUTABLE if known.mutable else Found.IMMUTABLE


def held(state: RefState, record: str) -> bool:
    """Whether the record has an open handle."""
    return any(h.open and h.record == record for h in state.handles.values())


def halves(state: RefState, record: str) -> tuple[str, ...]:
    """The record, and its other half where it has one."""
    equal = state.records[record].equal
    return (record, equal) if equal else (record,)


def children(state: RefState, record: str) -> tuple[str, ...]:
    """The records that hold this one as their parent."""
    return tuple(r for r, known in state.records.items() if known.parent == record)


def family(state: RefState, record: str) -> frozenset[str]:
    """The record, its other half, and all that is built on it."""
    below = (family(state, child) for child in children(state, record))
    return frozenset(halves(state, record)).union(*below)


def in_use(state: RefState, record: str) -> bool:
    """REF-USAGE-2: an open handle on it or on its other half, or a child in use."""
    own = any(held(state, half) for half in halves(state, record))
    return own or any(in_use(state, child) for child in children(state, record))


def is_free(state: RefState, record: str) -> bool:
    """Whether no running new builds on the record, or on what is built on it."""
    return not family(state, record).intersection(state.claimed)


def idle_since(state: RefState, record: str, handles: frozenset[str]) -> bool:
    """Whether the record cannot have been in use since there were `handles` alone: no later one was on it, or built on it.

    What a later handle was on that is gone by now may have been built on it.
    """
    later = {handle.record for name, handle in state.handles.items() if name not in handles}
    return later <= state.records.keys() - family(state, record)


def snapshot_of(state: RefState, record: str) -> str:
    """The id that the driver knows the record's snapshot by."""
    known = state.records[record]
    return known.equal if known.equal and not known.mutable else record


def content(state: RefState, record: str) -> Tree:
    """What the record's lists show."""
    return state.driver.snapshots[snapshot_of(state, record)].tree


# --- what holds of every state


def pairs_well_formed(state: RefState) -> bool:
    """A pair is one mutable and one immutable record with one parent, that name each other (REF-PAIR-1)."""
    for name, record in state.records.items():
        if not record.equal:
            continue
        other = state.records.get(record.equal)
        if other is None or other.equal != name or other.mutable is record.mutable or other.parent != record.parent:
            return False
    return True


def handles_well_formed(state: RefState) -> bool:
    """A mutable record has one open handle at most, and then no E; an open handle is on a record that is there (REF-HANDLE-6)."""
    open_on = [h.record for h in state.handles.values() if h.open]
    if any(record not in state.records for record in open_on):
        return False
    return all(
        open_on.count(name) <= 1 and (name not in open_on or not record.equal)
        for name, record in state.records.items()
        if record.mutable
    )


def parents_held(state: RefState) -> bool:
    """A parent is there, immutable, and final: a record with children is never half of a pair (REF-PAIR-2, REF-NEW-4)."""
    parents = [state.records.get(r.parent) for r in state.records.values() if r.parent]
    return all(p is not None and not p.mutable and not p.equal for p in parents)


def snapshots_match(state: RefState) -> bool:
    """One snapshot of the driver for each record or pair, over its parent's, committed when it is final; none besides."""
    expected = {
        snapshot_of(state, name): (record.parent, Kind.ACTIVE if record.mutable or record.equal else Kind.COMMITTED)
        for name, record in state.records.items()
    }
    return expected == {key: (snapshot.parent, snapshot.kind) for key, snapshot in state.driver.snapshots.items()}


def sizes_well_formed(state: RefState) -> bool:
    """No size is stored under a mutable record's id (REF-SIZE-4)."""
    return all(not record.mutable or record.size is None for record in state.records.values())


def claims_well_formed(state: RefState) -> bool:
    """What a running new is about to build on is there, and final (REF-NEW-4)."""
    return all(
        name in state.records and not state.records[name].mutable and not state.records[name].equal for name in state.claimed
    )


def none_open_when_closed(state: RefState) -> bool:
    """A closed manager has no open handle (REF-CLOSE-1)."""
    return not state.closed or not any(handle.open for handle in state.handles.values())


def well_formed(state: RefState) -> bool:
    """Everything that holds of a manager between any two steps."""
    return (
        pairs_well_formed(state)
        and handles_well_formed(state)
        and parents_held(state)
        and snapshots_match(state)
        and sizes_well_formed(state)
        and claims_well_formed(state)
        and none_open_when_closed(state)
        and parents_well_formed(state.driver)
    )
