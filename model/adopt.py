"""What a driver has done whose answer no clause allows, as far as the model can tell: so that a check can go on after it.

This judges nothing: the answer was wrong. An error claims that nothing has happened, a record or a usage that is told is taken
for what is kept, a tree that is shown for what is there. Where the model cannot tell what the store now holds there is no state.
"""

from __future__ import annotations

from dataclasses import replace

import icontract

from snapspec.model import ops
from snapspec.model.linear import Belief
from snapspec.model.replies import Failed, Reading, Refused, Returned, Value, normal_mounts
from snapspec.model.snapshots import outcomes
from snapspec.model.state import Snapshot, Span, State, lower_tree, well_formed
from snapspec.model.tree import Tree, outcomes_of, touched_by
from snapspec.model.values import Info, Kind, Mount


def adopt(belief: Belief, op: ops.Operation, response: Returned | Failed) -> Belief | None:
    """What is believed after an answer to `op`, made alone, that no state of `belief` permits; None where nothing can be."""
    states = ((world, adopted(world.state, op, response)) for world in belief.worlds)
    worlds = frozenset(replace(world, state=state) for world, state in states if state is not None)
    return replace(belief, worlds=worlds, clauses=()) if worlds else None


@icontract.ensure(lambda result: result is None or well_formed(result), "SNAP-PARENT-1")
def adopted(state: State, op: ops.Operation, response: Returned | Failed) -> State | None:
    """The state of a store that was in `state` and has answered `op` in a way that no clause allows; None where none is known."""
    if isinstance(response, Failed):
        return state
    after = _adopted(state, op, response.value)
    return after if after is not None and well_formed(after) else None


def _adopted(state: State, op: ops.Operation, value: Value) -> State | None:
    match op:
        case ops.Nowhere(call=call):
            # Which namespace it has gone to is not known: what only asks has at least changed none.
            return state if isinstance(call, ops.Mounts | ops.Stat | ops.Usage | ops.Walk) else None
        case ops.Prepare(key) | ops.View(key):
            return _begun(state, op, key, value)
        case ops.Remove(key):
            return state if key not in state.snapshots else None
        case ops.Update(name):
            return _recorded(state, name, value) if name in state.snapshots else state
        case ops.Commit() | ops.Reopen() | ops.Collect():
            return None
        case ops.Walk() | ops.Cleanup():
            return state
    snapshot = state.get(op.key)
    return state if snapshot is None else _told(state, op, snapshot, value)


def _told(state: State, op: ops.Operation, snapshot: Snapshot, value: Value) -> State | None:
    """After a call that asks for something of a snapshot that is there, or that goes through its mount list."""
    match op, value:
        case ops.Stat(key), Info():
            return _recorded(state, key, value)
        case ops.Mounts(key), tuple():
            return _listed(state, key, value)
        case ops.Usage(key), Reading(usage=usage) if snapshot.kind is Kind.COMMITTED:
            return state.put(key, replace(snapshot, usage=usage))
        case ops.Read(key), Tree() if snapshot.kind is not Kind.COMMITTED:
            return state.put(key, replace(snapshot, tree=value))
        case ops.Write(key), tuple() if snapshot.kind is not Kind.COMMITTED:
            return _written(state, op, snapshot, value)
    return state


def _begun(state: State, op: ops.Prepare | ops.View, key: str, value: Value) -> State | None:
    """The snapshot is there, with the list that was given; unless it was to be refused: then who knows what is there."""
    (first, *_) = outcomes(state, op)
    if isinstance(first.reply, Refused) or not isinstance(value, tuple):
        return None
    return _listed(first.state, key, value)


def _listed(state: State, key: str, value: Value) -> State:
    mounts = tuple(mount for mount in value if isinstance(mount, Mount)) if isinstance(value, tuple) else ()
    snapshot = state.snapshots[key]
    return state.put(key, replace(snapshot, mounts=normal_mounts(mounts))) if mounts else state


def _recorded(state: State, key: str, value: Value) -> State:
    """Labels and times are as they were told; kind and parent decide what the store holds, and stay."""
    if not isinstance(value, Info):
        return state
    created, updated = Span(value.created, value.created), Span(value.updated, value.updated)
    snapshot = replace(state.snapshots[key], labels=value.labels, created=created, updated=updated)
    return state.put(key, snapshot)


def _written(state: State, op: ops.Write, snapshot: Snapshot, words: tuple[object, ...]) -> State | None:
    """The changes that were answered with "ok" were made; None where one of these is none that the model can make."""
    lower, tree, touched = lower_tree(state, snapshot), snapshot.tree, snapshot.touched
    for change, word in zip(op.changes, words, strict=False):
        if word == "ok":
            made = [applied.tree for applied in outcomes_of(lower, tree, change) if applied.result == "ok"]
            if not made:
                return None
            touched |= touched_by(tree, change)
            tree = made[0]
    return state.put(op.key, replace(snapshot, tree=tree, touched=touched))
