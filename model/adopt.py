"""What a driver may have done whose answer no clause allows, as far as the model can tell: so that a check can go on after it.

This judges nothing: the answer was wrong. An error claims that nothing has happened. Of what a driver tells of a snapshot the
words are taken to be wrong: where the store is, other calls show it too. Content is seen by the caller himself, and is as it was
seen. Where it cannot be told what the store now holds there is no state.
"""

from __future__ import annotations

from dataclasses import replace

import icontract

from snapspec.model import ops
from snapspec.model.linear import Belief
from snapspec.model.replies import Failed, Refused, Returned, Value
from snapspec.model.snapshots import outcomes
from snapspec.model.state import Snapshot, Span, State, lower_tree, well_formed
from snapspec.model.tree import Tree, outcomes_of, touched_by
from snapspec.model.values import Info, Kind

#: So many worlds are believed in at most: of more each goes on in one way.
MOST = 32

#: When the call took effect is not known here.
_SOME_TIME = Span(0, 1 << 63)


def adopt(belief: Belief, op: ops.Operation, response: Returned | Failed) -> Belief | None:
    """What is believed after an answer to `op`, made alone, that no state of `belief` permits; None where nothing can be."""
    taken = [(world, adopted(world.state, op, response)) for world in belief.worlds]
    worlds = frozenset(replace(world, state=state) for world, states in taken for state in states)
    if len(worlds) > MOST:
        worlds = frozenset(replace(world, state=states[0]) for world, states in taken if states)
    return replace(belief, worlds=worlds, clauses=()) if worlds else None


@icontract.ensure(lambda result: all(well_formed(state) for state in result), "SNAP-PARENT-1")
def adopted(state: State, op: ops.Operation, response: Returned | Failed) -> tuple[State, ...]:
    """The states of a store that was in `state` and has answered `op` in a way that no clause allows, the likeliest first; none
    where none is known.
    """
    if isinstance(response, Failed):
        return (state,)
    return tuple(after for after in dict.fromkeys(_adopted(state, op, response.value)) if well_formed(after))


def _adopted(state: State, op: ops.Operation, value: Value) -> tuple[State, ...]:
    match op:
        case ops.Nowhere(call=call):
            # Which namespace it has gone to is not known: what only asks has at least changed none.
            return (state,) if isinstance(call, ops.Mounts | ops.Stat | ops.Usage | ops.Walk) else ()
        case ops.Prepare() | ops.View():
            return _done(state, op) if isinstance(value, tuple) else ()
        case ops.Remove(key):
            return (state,) if key not in state.snapshots else ()
        case ops.Update(name):
            told = (_recorded(state, name, value),) if name in state.snapshots else ()
            return (*_done(state, op), *told, state)
        case ops.Commit() | ops.Reopen() | ops.Collect():
            return ()
        case ops.Write(key) | ops.Read(key) if key in state.snapshots:
            return _seen(state, op, state.snapshots[key], value)
    return (state,)


def _done(state: State, op: ops.Prepare | ops.View | ops.Update) -> tuple[State, ...]:
    """As if it had answered rightly; unless it was to be refused."""
    ways = outcomes(state, op, _SOME_TIME)
    return tuple(way.state for way in ways) if not any(isinstance(way.reply, Refused) for way in ways) else ()


def _seen(state: State, op: ops.Write | ops.Read, snapshot: Snapshot, value: Value) -> tuple[State, ...]:
    """The content is as it was read, and what was written is written. That of committed snapshots never changes."""
    match op, value:
        case ops.Read(key), Tree() if snapshot.kind is not Kind.COMMITTED:
            return (state.put(key, replace(snapshot, tree=value)),)
        case ops.Write(), tuple() if snapshot.kind is not Kind.COMMITTED:
            return _written(state, op, snapshot, value)
    return (state,)


def _recorded(state: State, key: str, value: Value) -> State:
    """Labels and times are as they were told; kind and parent decide what the store holds, and stay."""
    if not isinstance(value, Info):
        return state
    created, updated = Span(value.created, value.created), Span(value.updated, value.updated)
    snapshot = replace(state.snapshots[key], labels=value.labels, created=created, updated=updated)
    return state.put(key, snapshot)


def _written(state: State, op: ops.Write, snapshot: Snapshot, words: tuple[object, ...]) -> tuple[State, ...]:
    """The changes that were answered with "ok" were made; no state where one of these is none that the model can make."""
    lower, tree, touched = lower_tree(state, snapshot), snapshot.tree, snapshot.touched
    for change, word in zip(op.changes, words, strict=False):
        if word == "ok":
            made = [applied.tree for applied in outcomes_of(lower, tree, change) if applied.result == "ok"]
            if not made:
                return ()
            touched |= touched_by(tree, change)
            tree = made[0]
    return (state.put(op.key, replace(snapshot, tree=tree, touched=touched)),)
