"""Records, handles and the equal pair: for a state and an operation, every outcome that the spec allows.

One function for each operation, state first, as in `snapshots`. Which refusal wins is decided in `ref_guards`; what a call is
made of stands in `ref_changes`. `steps` says how a call that overlaps with others takes effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import icontract

from snapspec.model import ops, ref_ops
from snapspec.model.frozen import Map
from snapspec.model.ref_changes import (
    Removal,
    claimed,
    finalized,
    made,
    paired,
    parted,
    removed,
    unclaimed,
    with_handle,
    without_handle,
    without_handles,
)
from snapspec.model.ref_guards import (
    Found,
    Given,
    Rule,
    Wanted,
    finalizes,
    get_guard,
    get_mutable_guard,
    may_go,
    new_guard,
    size_in_row,
    stands_for_snapshot,
)
from snapspec.model.ref_outcomes import (
    GET,
    GET_MUTABLE,
    NEW,
    ChangedThrough,
    GivesHandle,
    GivesList,
    ListsRows,
    NoHandle,
    Pruned,
    RefDone,
    RefError,
    RefOutcome,
    RefOutcomes,
    RefRefused,
    RefReply,
    Row,
    ShowsTree,
    TellsSize,
    refused,
    refused_closed,
    succeeded,
    unfit,
)
from snapspec.model.ref_state import (
    Declared,
    Handle,
    Record,
    RefState,
    children,
    content,
    found,
    given,
    halves,
    handles_well_formed,
    held,
    idle_since,
    in_use,
    is_free,
    is_open,
    none_open_when_closed,
    pairs_well_formed,
    parents_held,
    sizes_well_formed,
    snapshot_of,
    snapshots_match,
    well_formed,
)
from snapspec.model.replies import Changed
from snapspec.model.snapshots import outcomes as driver_outcomes
from snapspec.model.state import Snapshot, State
from snapspec.model.tree import Change
from snapspec.model.values import Kind

__all__ = [
    "ChangedThrough",
    "Declared",
    "GivesHandle",
    "GivesList",
    "Handle",
    "ListsRows",
    "NoHandle",
    "Pruned",
    "Record",
    "RefDone",
    "RefError",
    "RefOutcome",
    "RefRefused",
    "RefReply",
    "RefState",
    "Row",
    "ShowsTree",
    "TellsSize",
    "content",
    "held",
    "is_open",
    "outcomes",
    "snapshot_of",
    "steps",
    "well_formed",
]


# --- new


@icontract.ensure(
    lambda state, result, op: state.closed or op.parent is None or _is_parent(state, op.parent) or not any(succeeded(result)),
    "REF-NEW-3",
)
def new(state: RefState, op: ref_ops.New) -> RefOutcomes:
    """REF-NEW: a mutable record over nothing, or over an immutable one, which is made final."""
    rule = new_guard(state.closed, given(state, op.parent))
    if rule is not Rule.NONE:
        return refused(state, NEW, rule)
    if op.parent is None:
        return _made(state, op, "")
    over = state.handles[op.parent].record
    return _made(finalized(state, over), op, over)


def _made(state: RefState, op: ref_ops.New | ref_ops.MakeOver, over: str) -> RefOutcomes:
    after = with_handle(made(state, op.record, over), op.handle, op.record)
    return (RefOutcome("REF-NEW-2" if over else "REF-NEW-1", GivesHandle(op.handle, op.record), after),)


def _is_parent(state: RefState, handle: str) -> bool:
    return given(state, handle) is Given.ON_IMMUTABLE


# --- commit, get, get_mutable


@icontract.ensure(
    lambda result, op: all(not is_open(o.state, op.handle) and is_open(o.state, op.given) for o in succeeded(result)),
    "REF-COMMIT-1",
)
@icontract.ensure(lambda state, result: all(o.state.driver == state.driver for o in result), "REF-COMMIT-1")
def commit(state: RefState, op: ref_ops.Commit) -> RefOutcomes:
    """REF-COMMIT: E, lazily: the driver is not asked."""
    refusal = unfit(state, op.handle, Wanted.MUTABLE)
    if refusal is not None:
        return refusal
    record = state.handles[op.handle].record
    after = with_handle(paired(without_handle(state, op.handle), record, op.fresh), op.given, op.fresh)
    return (RefOutcome("REF-COMMIT-1", GivesHandle(op.given, op.fresh), after),)


@icontract.ensure(
    lambda state, result, op: all(
        o.reply == GivesHandle(op.handle, op.record)
        for o in result
        if not state.closed and found(state, op.record) is Found.IMMUTABLE
    ),
    "REF-GET-1",
)
@icontract.ensure(
    lambda state, result, op: all(o.state.records == state.records for o in succeeded(result) if state.records[op.record].equal),
    "REF-GET-3",
)
@icontract.ensure(lambda state, result: all(o.state.driver == state.driver for o in result), "REF-GET-4")
def get(state: RefState, op: ref_ops.Get) -> RefOutcomes:
    """REF-GET: a handle on an immutable record; for an idle mutable one on its E, which is made where there is none."""
    rule = get_guard(state.closed, found(state, op.record), held(state, op.record))
    if rule is not Rule.NONE:
        return refused(state, GET, rule)
    record = state.records[op.record]
    if not record.mutable:
        return (RefOutcome("REF-GET-1", GivesHandle(op.handle, op.record), with_handle(state, op.handle, op.record)),)
    if not record.equal:
        after = with_handle(paired(state, op.record, op.fresh), op.handle, op.fresh)
        return (RefOutcome("REF-GET-4", GivesHandle(op.handle, op.fresh), after),)
    gives = RefOutcome("REF-GET-3", GivesHandle(op.handle, record.equal), with_handle(state, op.handle, record.equal))
    if held(state, record.equal):
        return (gives, RefOutcome("REF-GET-3", RefRefused(RefError.LOCKED), state))
    return (gives,)


@icontract.ensure(
    lambda state, result, op: all(not any(held(state, half) for half in halves(state, op.record)) for _ in succeeded(result)),
    "REF-MUT-2",
)
def get_mutable(state: RefState, op: ref_ops.GetMutable) -> RefOutcomes:
    """REF-MUT: a handle on an idle mutable record; its E is gone."""
    kind = found(state, op.record)
    rule = get_mutable_guard(
        state.closed, kind, kind is not Found.ABSENT and any(held(state, h) for h in halves(state, op.record))
    )
    if rule is not Rule.NONE:
        return refused(state, GET_MUTABLE, rule)
    after = with_handle(parted(state, op.record), op.handle, op.record)
    return (RefOutcome("REF-MUT-3", GivesHandle(op.handle, op.record), after),)


# --- finalize, release, parent, size


@icontract.ensure(
    lambda state, result, op: all(o.state.records[state.handles[op.handle].record].equal == "" for o in succeeded(result)),
    "REF-FINAL-1",
)
def finalize(state: RefState, op: ref_ops.Finalize) -> RefOutcomes:
    """REF-FINAL: at once, whole, and any number of times."""
    refusal = unfit(state, op.handle, Wanted.IMMUTABLE)
    if refusal is not None:
        return refusal
    record = state.handles[op.handle].record
    clause = "REF-FINAL-1" if state.records[record].equal else "REF-FINAL-2"
    return (RefOutcome(clause, RefDone(), finalized(state, record)),)


@icontract.ensure(
    lambda result, op: all(o.reply == RefDone() and not is_open(o.state, op.handle) for o in result), "REF-HANDLE-2"
)
@icontract.ensure(lambda state, result, op: is_open(state, op.handle) or all(o.state is state for o in result), "REF-HANDLE-3")
@icontract.ensure(
    lambda state, result: state.declared.release_drops_pair or all(o.state.records is state.records for o in result), "REF-PAIR-1"
)
def release(state: RefState, op: ref_ops.Release) -> RefOutcomes:
    """REF-HANDLE: always succeeds; on a handle that is not open it does nothing."""
    if not is_open(state, op.handle):
        return (RefOutcome("REF-HANDLE-3", RefDone(), state),)
    record = state.handles[op.handle].record
    after = without_handle(state, op.handle)
    if state.declared.release_drops_pair and state.records[record].equal and not held(after, record):
        return (RefOutcome("REF-PAIR-1", RefDone(), removed(after, record)[0]),)
    return (RefOutcome("REF-HANDLE-2", RefDone(), after),)


@icontract.ensure(lambda state, result: all(o.state.records is state.records for o in result), "REF-PARENT-1")
@icontract.ensure(
    lambda state, result, op: all(
        o.reply.record == state.records[state.handles[op.handle].record].parent
        for o in result
        if isinstance(o.reply, GivesHandle)
    ),
    "REF-PARENT-1",
)
def parent(state: RefState, op: ref_ops.Parent) -> RefOutcomes:
    """REF-PARENT: a handle on the parent, or nothing."""
    refusal = unfit(state, op.handle)
    if refusal is not None:
        return refusal
    above = state.records[state.handles[op.handle].record].parent
    if not above:
        return (RefOutcome("REF-PARENT-1", NoHandle(), state),)
    return (RefOutcome("REF-PARENT-1", GivesHandle(op.given, above), with_handle(state, op.given, above)),)


@icontract.ensure(lambda state, result: all(o.state is state for o in result), "REF-SIZE-6")
def size(state: RefState, op: ref_ops.Size) -> RefOutcomes:
    """REF-SIZE: measured of its own layer; of an immutable record once and for ever."""
    refusal = unfit(state, op.handle)
    if refusal is not None:
        return refusal
    handle = state.handles[op.handle]
    return (RefOutcome("REF-SIZE-6" if handle.mutable else "REF-SIZE-1", TellsSize(handle.record), state),)


# --- mounts and content


def _finalizes(state: RefState, record: str, readonly: bool) -> bool:
    """Whether a mount of the record makes it final first (REF-MOUNT-3, REF-MOUNT-4)."""
    known = state.records[record]
    return not known.mutable and finalizes(known.equal != "", readonly, state.declared.commit_keeps_lists)


def _mounted(state: RefState, record: str, readonly: bool) -> RefState:
    """The state that a mount leaves."""
    return finalized(state, record) if _finalizes(state, record, readonly) else state


def _first(readonly: bool) -> str:
    """The clause by which a mount finalizes E first."""
    return "REF-MOUNT-4" if readonly else "REF-MOUNT-3"


@icontract.ensure(
    lambda state, result, op: all(not (o.reply.writable and op.readonly) for o in result if isinstance(o.reply, GivesList)),
    "REF-MOUNT-1",
)
@icontract.ensure(
    lambda state, result: all(
        o.state.records[o.reply.record].mutable or not o.reply.writable for o in result if isinstance(o.reply, GivesList)
    ),
    "REF-MOUNT-2",
)
@icontract.ensure(
    lambda state, result, op: all(
        o.state.records[o.reply.record].mutable or o.state.records[o.reply.record].equal == ""
        for o in result
        if isinstance(o.reply, GivesList) and not op.readonly
    ),
    "REF-MOUNT-3",
)
@icontract.ensure(
    lambda state, result, op: not (op.readonly and state.declared.commit_keeps_lists) or all(o.state is state for o in result),
    "REF-MOUNT-4",
)
def mount(state: RefState, op: ref_ops.Mount) -> RefOutcomes:
    """REF-MOUNT: a list; of E always a read-only one."""
    refusal = unfit(state, op.handle)
    if refusal is not None:
        return refusal
    handle = state.handles[op.handle]
    after = _mounted(state, handle.record, op.readonly)
    if handle.mutable:
        clause = "REF-MOUNT-1"
    elif after is not state:
        clause = _first(op.readonly)
    else:
        clause = "REF-MOUNT-4" if state.records[handle.record].equal else "REF-MOUNT-5"
    return (RefOutcome(clause, GivesList(handle.record, handle.mutable and not op.readonly), after),)


@icontract.ensure(
    lambda state, result, op: all(
        content(o.state, record) == content(state, record)
        for o in succeeded(result)
        for record in o.state.records
        if not (state.records[record].mutable and record == state.handles[op.handle].record)
    ),
    "REF-COMMIT-3",
)
def write(state: RefState, op: ref_ops.Write) -> RefOutcomes:
    """Changes through a list to write: made on M, refused on E, which is final afterwards (REF-MOUNT-2, REF-MOUNT-3)."""
    refusal = unfit(state, op.handle)
    if refusal is not None:
        return refusal
    handle = state.handles[op.handle]
    after = _mounted(state, handle.record, readonly=False)
    if not handle.mutable:
        words = _read_only(after, handle.record, op.changes)
        return (RefOutcome("REF-MOUNT-2", ChangedThrough(handle.record, words), after),)
    return tuple(
        RefOutcome("REF-MOUNT-1", ChangedThrough(handle.record, o.reply.results), replace(after, driver=o.state))
        for o in driver_outcomes(after.driver, ops.Write(handle.record, op.changes))
        if isinstance(o.reply, Changed)
    )


def _read_only(state: RefState, record: str, changes: tuple[Change, ...]) -> tuple[frozenset[str], ...]:
    """What each change may answer through E's list: it refuses what would change it, as a view's does (SNAP-MOUNTS-5)."""
    base = replace(state.driver.snapshots[record], parent="")
    store = State(Map({"base": base, "view": Snapshot(Kind.VIEW, "base", tree=base.tree)}), state.driver.profile)
    (looked,) = driver_outcomes(store, ops.Write("view", changes))
    assert isinstance(looked.reply, Changed)
    return looked.reply.results


@icontract.ensure(
    lambda state, result: all(content(o.state, r) == content(state, r) for o in result for r in o.state.records), "REF-COMMIT-3"
)
def read(state: RefState, op: ref_ops.Read) -> RefOutcomes:
    """The tree through a list to read: E's is fixed at the commit (REF-COMMIT-3, REF-MOUNT-6)."""
    refusal = unfit(state, op.handle)
    if refusal is not None:
        return refusal
    handle = state.handles[op.handle]
    after = _mounted(state, handle.record, readonly=True)
    return (RefOutcome("REF-MOUNT-1" if handle.mutable else "REF-COMMIT-3", ShowsTree(handle.record), after),)


# --- disk_usage, prune


def _rows_of(result: RefOutcomes) -> Iterator[tuple[RefState, tuple[Row, ...]]]:
    return ((o.state, o.reply.rows) for o in result if isinstance(o.reply, ListsRows))


@icontract.ensure(lambda state, result: all(o.state is state for o in result), "REF-USAGE-3")
@icontract.ensure(
    lambda result: all(
        sorted(snapshot_of(state, row.record) for row in rows) == sorted(state.driver.snapshots)
        for state, rows in _rows_of(result)
    ),
    "REF-USAGE-1",
)
@icontract.ensure(
    lambda result: all(
        {row.parent for row in rows if row.in_use} - {""} <= {row.record for row in rows if row.in_use}
        for _, rows in _rows_of(result)
    ),
    "REF-USAGE-2",
)
def disk_usage(state: RefState, op: ref_ops.DiskUsage) -> RefOutcomes:  # one form for every operation
    """REF-USAGE: one row for each snapshot."""
    if state.closed:
        return refused_closed(state)
    rows = tuple(_row(state, name) for name in state.records if _shown(state, name))
    return (RefOutcome("REF-USAGE-1", ListsRows(rows), state),)


def _shown(state: RefState, name: str) -> bool:
    """Whether this record stands for its snapshot: E does while it has a handle or is final, else M (REF-PAIR-3)."""
    record = state.records[name]
    return stands_for_snapshot(record.equal != "", record.mutable, held(state, record.equal if record.mutable else name))


def _row(state: RefState, name: str) -> Row:
    record = state.records[name]
    used = in_use(state, name)
    return Row(name, record.parent, record.mutable, used, size_in_row(record.mutable, used, record.size))


@icontract.ensure(
    lambda state, result: all(
        (name in o.state.records) == (in_use(state, name) or not is_free(state, name))
        for o in succeeded(result)
        for name in state.records
    ),
    "REF-PRUNE-1",
)
@icontract.ensure(
    lambda state, result: all(
        sorted(name for ids, _ in o.reply.removed for name in ids) == sorted(set(state.records) - set(o.state.records))
        for o in result
        if isinstance(o.reply, Pruned)
    ),
    "REF-PRUNE-3",
)
def prune(state: RefState, op: ref_ops.Prune) -> RefOutcomes:
    """REF-PRUNE: what is not in use goes, children first, both halves of a pair together."""
    if state.closed:
        return refused_closed(state)
    rows: list[Removal] = []
    while idle := next((r for r in state.records if removable(state, r)), ""):
        state, row = removed(state, idle)
        rows.append(row)
    return (RefOutcome("REF-PRUNE-3", Pruned(tuple(rows)), state),)


def removable(state: RefState, record: str) -> bool:
    """Whether prune may take the record now: idle, unclaimed, and without children."""
    return may_go(in_use(state, record), not is_free(state, record), len(children(state, record)))


# --- close, restart


@icontract.ensure(lambda state, result: all(o.state.records is state.records for o in result), "REF-CLOSE-1")
def close(state: RefState, op: ref_ops.Close) -> RefOutcomes:  # one form for every operation
    """REF-CLOSE: records stay, and no handle is open; a second close does nothing."""
    return (RefOutcome("REF-CLOSE-1", RefDone(), replace(without_handles(state), closed=True)),)


@icontract.ensure(lambda state, result: all(o.state.records is state.records for o in result), "REF-OPEN-1")
def restart(state: RefState, op: ref_ops.Restart) -> RefOutcomes:  # one form for every operation
    """REF-OPEN: every record is there again, no handle is open, pairs are idle, and no earlier call builds on anything."""
    return (RefOutcome("REF-OPEN-1", RefDone(), replace(without_handles(state), closed=False, claimed=())),)


# --- calls that overlap: some take effect in more than one step


@icontract.ensure(lambda result: len(result) > 0, "REF-ERROR-5")
def steps(state: RefState, op: ref_ops.RefOperation | ref_ops.RefStep) -> RefOutcomes:
    """What may happen next of `op`, among other running calls: an outcome, or one step of it."""
    match op:
        case ref_ops.New(parent=str(handle)) if new_guard(state.closed, given(state, handle)) is Rule.NONE:
            return _claimed(state, op, state.handles[handle].record)
        case ref_ops.MakeOver():
            return _made_over(state, op)
        case ref_ops.Mount() | ref_ops.Write() | ref_ops.Read():
            return _mounted_first(state, op)
        case ref_ops.ListFinal(call):
            return _beside_close(state, call)
        case ref_ops.Prune() if not state.closed:
            idle = tuple(r for r in state.records if not in_use(state, r) and is_free(state, r))
            return _pruned_on(state, ref_ops.PruneOn((), idle, frozenset(state.handles if idle else ())))
        case ref_ops.PruneOn():
            return _pruned_on(state, op)
        case _:
            return _beside_close(state, op)


@icontract.ensure(lambda result, over: all(over in o.state.claimed and not removable(o.state, over) for o in result), "REF-NEW-4")
def _claimed(state: RefState, op: ref_ops.New, over: str) -> RefOutcomes:
    """The first step of new: its parent is final, and cannot be pruned from then on (REF-NEW-2, REF-NEW-4)."""
    after = claimed(finalized(state, over), over)
    return (RefOutcome("REF-NEW-2", RefDone(), after, ref_ops.MakeOver(op.record, op.handle, over)),)


def _made_over(state: RefState, op: ref_ops.MakeOver) -> RefOutcomes:
    """The second step of new: the record, unless its manager was closed; the parent's handle need not be open any more."""
    after = unclaimed(state, op.over)
    return refused_closed(after) if state.closed or op.over not in state.claimed else _made(after, op, op.over)


def _mounted_first(state: RefState, op: ref_ops.Mount | ref_ops.Write | ref_ops.Read) -> RefOutcomes:
    """The first step of a mount that finalizes; else all of it."""
    readonly = isinstance(op, ref_ops.Read) or (isinstance(op, ref_ops.Mount) and op.readonly)
    if unfit(state, op.handle) is None and _finalizes(state, state.handles[op.handle].record, readonly):
        after = finalized(state, state.handles[op.handle].record)
        return (RefOutcome(_first(readonly), RefDone(), after, ref_ops.ListFinal(op)),)
    return _beside_close(state, op)


#: The calls on a handle that may be refused because it is not open.
_ON_HANDLE = (
    *(ref_ops.Commit, ref_ops.Finalize, ref_ops.Size, ref_ops.Parent),
    *(ref_ops.Mount, ref_ops.Write, ref_ops.Read),
)


def _beside_close(state: RefState, op: ref_ops.RefOperation) -> RefOutcomes:
    """The outcomes; a call that runs while its manager closes may be refused for its handle, which the close has closed too."""
    if state.closed and isinstance(op, _ON_HANDLE):
        return (*outcomes(state, op), RefOutcome("REF-CLOSE-1", RefRefused(RefError.INVALID), state))
    return outcomes(state, op)


def _pruned_on(state: RefState, op: ref_ops.PruneOn) -> RefOutcomes:
    """One more removal, or the end, once nothing is left that was idle all the time (REF-PRUNE-1)."""
    on: list[RefOutcome] = []
    for record in state.records:
        # Each pair once, by the half that the driver knows it by.
        if removable(state, record) and snapshot_of(state, record) == record:
            after, row = removed(state, record)
            on.append(
                RefOutcome("REF-PRUNE-1", RefDone(), after, ref_ops.PruneOn(_in_order((*op.removed, row)), op.idle, op.handles))
            )
    if not any(removable(state, r) and idle_since(state, r, op.handles) for r in op.idle if r in state.records):
        on.append(RefOutcome("REF-PRUNE-3", Pruned(op.removed), state))
    return tuple(on)


def _in_order(removed: tuple[Removal, ...]) -> tuple[Removal, ...]:
    """The rows by their ids: in which order they were removed makes no difference to what follows."""
    return tuple(sorted(removed, key=lambda row: sorted(row[0])))


# --- all of them

_STEPS: dict[type, Callable[..., RefOutcomes]] = {
    ref_ops.New: new,
    ref_ops.Get: get,
    ref_ops.GetMutable: get_mutable,
    ref_ops.Commit: commit,
    ref_ops.Finalize: finalize,
    ref_ops.Release: release,
    ref_ops.Size: size,
    ref_ops.Parent: parent,
    ref_ops.Mount: mount,
    ref_ops.Write: write,
    ref_ops.Read: read,
    ref_ops.DiskUsage: disk_usage,
    ref_ops.Prune: prune,
    ref_ops.Close: close,
    ref_ops.Restart: restart,
}


def _is_new(state: RefState, outcome: RefOutcome) -> bool:
    """Whether a handle that the outcome gives is a new one, open, on the record that it names."""
    reply = outcome.reply
    if not isinstance(reply, GivesHandle):
        return True
    handle = outcome.state.handles[reply.handle]
    return reply.handle not in state.handles and handle.open and handle.record == reply.record


@icontract.require(lambda state: well_formed(state))
@icontract.ensure(lambda result: len(result) > 0, "REF-ERROR-5")
@icontract.ensure(lambda result: all(pairs_well_formed(o.state) for o in result), "REF-PAIR-1")
@icontract.ensure(lambda result: all(parents_held(o.state) for o in result), "REF-PAIR-2")
@icontract.ensure(lambda result: all(handles_well_formed(o.state) for o in result), "REF-HANDLE-6")
@icontract.ensure(lambda result: all(snapshots_match(o.state) for o in result), "REF-OPEN-5")
@icontract.ensure(lambda result: all(sizes_well_formed(o.state) for o in result), "REF-SIZE-4")
@icontract.ensure(lambda result: all(none_open_when_closed(o.state) for o in result), "REF-CLOSE-1")
@icontract.ensure(lambda state, result: all(o.state is state for o in result if isinstance(o.reply, RefRefused)), "REF-ERROR-4")
@icontract.ensure(lambda state, result: all(set(state.handles) <= set(o.state.handles) for o in result), "REF-HANDLE-5")
@icontract.ensure(lambda state, result: all(_is_new(state, o) for o in result), "REF-HANDLE-1")
def outcomes(state: RefState, op: ref_ops.RefOperation) -> RefOutcomes:
    """All allowed outcomes of `op` in `state`, which overlaps with no other call. Never empty, never raises."""
    return _STEPS[type(op)](state, op)
