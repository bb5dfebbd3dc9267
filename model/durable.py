"""The two layers of a store: what calls have changed, and what is left of it after a crash and after a power cut.

The volatile layer is what the oracle believes. A crash of the driver's process takes nothing from it but the calls that were
under way, each of which has happened or not. A power cut also takes what was written into active snapshots and was not yet on the
disk: of their content no more is known than that nothing is there which was never written. The first look at it settles it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import icontract

from snapspec.model import ops, oracle
from snapspec.model.frozen import Map
from snapspec.model.layers import differences
from snapspec.model.nodes import Data, FileType
from snapspec.model.oracle import Belief, Divergence
from snapspec.model.replies import Mismatch, Response, Returned
from snapspec.model.state import Snapshot, State, lower_tree
from snapspec.model.tree import Tree, outcomes_of
from snapspec.model.values import Kind


@dataclass(frozen=True, slots=True)
class Layers:
    """What a history allows: `belief`, and the trees that each active key has shown so far, whole or on the way between two.

    `unsettled` holds the active keys whose content a power cut has left open, with all that may be in it.
    """

    belief: Belief
    shown: Map[str, tuple[Tree, ...]] = field(default_factory=Map)
    unsettled: Map[str, tuple[Tree, ...]] = field(default_factory=Map)


def begin(state: State) -> Layers:
    """The layers of a store that is known and all on the disk."""
    return Layers(oracle.begin(state))


def invoke(layers: Layers, call: int, op: ops.Operation, now: int = 0) -> Layers:
    """The call numbered `call` begins at the time `now`. A write may show any part of itself from now on."""
    after = replace(layers, belief=oracle.invoke(layers.belief, call, op, now))
    if not isinstance(op, ops.Write):
        return after
    trees = [tree for world in layers.belief.worlds for tree in on_the_way(world.state, op)]
    known = layers.shown.get(op.key, ())
    return replace(after, shown=layers.shown.set(op.key, tuple(dict.fromkeys((*known, *trees)))))


def respond(layers: Layers, call: int, response: Response, now: int = 0) -> Layers | Divergence:
    """The call answers at the time `now`. What a key has shown belongs to a life: it is forgotten when that ends or begins."""
    op = layers.belief.calls[call].op
    belief = oracle.respond(layers.belief, call, response, now)
    if isinstance(belief, Divergence):
        return belief
    after = replace(layers, belief=belief)
    if isinstance(op, ops.Prepare | ops.Commit | ops.Remove) and isinstance(response, Returned):
        return replace(after, shown=layers.shown.without(op.key), unsettled=layers.unsettled.without(op.key))
    return after


@icontract.ensure(lambda layers, result: _keeps_answered(layers, result), "SNAP-DURABLE-1")
@icontract.ensure(lambda result: not result.belief.calls, "SNAP-DURABLE-2")
@icontract.ensure(lambda layers, result: result.unsettled == layers.unsettled, "SNAP-DURABLE-3")
def crash(layers: Layers, now: int = 0) -> Layers:
    """The driver's process ends: each call that answered has happened, each other one has or has not (SNAP-DURABLE-1 to 3)."""
    return replace(layers, belief=oracle.crash(layers.belief, now))


@icontract.ensure(lambda layers, result: _keeps_answered(layers, result), "SNAP-POWER-1")
@icontract.ensure(lambda layers, now, result: result.belief == oracle.crash(layers.belief, now), "SNAP-POWER-2")
@icontract.ensure(lambda result: set(result.unsettled) == active(world.state for world in result.belief.worlds), "SNAP-POWER-4")
def power_cut(layers: Layers, now: int = 0) -> Layers:
    """The power fails: as a crash, and the content of each snapshot that is active is open (SNAP-POWER-1 to 4).

    A commit that was under way had taken the content to the disk before it happened: where it happened, that is whole.
    """
    after = crash(layers, now)
    states = [world.state for world in after.belief.worlds]
    open_ = Map((key, may_show(layers.shown.get(key, ()), states, key)) for key in sorted(active(states)))
    return replace(after, shown=open_, unsettled=open_)


def _keeps_answered(layers: Layers, after: Layers) -> bool:
    """Whether what is allowed is what was allowed before, calls that were under way aside."""
    return len(layers.belief.calls) > 0 or after.belief.worlds == layers.belief.worlds


def active(states: Iterable[State]) -> set[str]:
    """The keys that are active in one of the states."""
    return {key for state in states for key, s in state.snapshots.items() if s.kind is Kind.ACTIVE}


def _is_active(state: State, key: str) -> bool:
    snapshot = state.get(key)
    return snapshot is not None and snapshot.kind is Kind.ACTIVE


def may_show(shown: Iterable[Tree], states: Iterable[State], key: str) -> tuple[Tree, ...]:
    """All that the active `key` began with, has shown so far, and was on its way to show."""
    there = [state for state in states if _is_active(state, key)]
    ends = [tree for s in there for tree in (lower_tree(s, s.snapshots[key]), s.snapshots[key].tree)]
    return tuple(dict.fromkeys((*shown, *ends)))


def on_the_way(state: State, op: ops.Write) -> Iterator[Tree]:
    """Every tree that the active snapshot may show while the changes are made."""
    if not _is_active(state, op.key):
        return
    snapshot = state.snapshots[op.key]
    lower, trees = lower_tree(state, snapshot), [snapshot.tree]
    for change in op.changes:
        trees = list(dict.fromkeys(applied.tree for tree in trees for applied in outcomes_of(lower, tree, change)))
        yield from trees


@icontract.require(lambda layers, key: key in layers.unsettled)
def settle(layers: Layers, key: str, came: Tree) -> Layers | Mismatch:
    """The first look at the active `key` after a power cut: what it shows from now on, if that may be (SNAP-POWER-4)."""
    wrong = odd(came, layers.unsettled[key])
    if wrong:
        return Mismatch("SNAP-POWER-4", f"in {key!r} {wrong[0]}", wrong[1])
    worlds = frozenset(replace(world, state=showing(world.state, key, came)) for world in layers.belief.worlds)
    return replace(layers, belief=replace(layers.belief, worlds=worlds), unsettled=layers.unsettled.without(key))


def showing(state: State, key: str, tree: Tree) -> State:
    """The state in which the active `key` shows `tree`, if it is active there."""
    if not _is_active(state, key):
        return state
    snapshot: Snapshot = state.snapshots[key]
    touched = snapshot.touched | set(tree.nodes)
    return state.put(key, replace(snapshot, tree=tree, touched=touched))


def odd(came: Tree, shown: Iterable[Tree]) -> tuple[str, str] | None:
    """What a power cut cannot have made of a snapshot that has shown these trees: what is expected and what came, or None."""
    trees = tuple(shown)
    wrong = newer(came, trees)
    if wrong:
        return "nothing that was never written", wrong
    wrong = lost(came, trees)
    return ("all that no change has touched", wrong) if wrong else None


def lost(came: Tree, shown: Iterable[Tree]) -> str:
    """What a tree lacks, or has in another way, that is the same in all of `shown`: no change has touched that; or nothing."""
    first, *others = shown
    same = {path: node for path, node in first.nodes.items() if all(tree.nodes.get(path) == node for tree in others)}
    there = {path: node for path, node in came.nodes.items() if path in same}
    return "; ".join(differences(Tree(Map(same)), Tree(Map(there))))


def newer(came: Tree, shown: Iterable[Tree]) -> str:
    """What a tree holds that none of `shown` does: a name, a type at a name, a byte at its place in any file; or nothing."""
    trees = tuple(shown)
    kinds = {(path, node.type) for tree in trees for path, node in tree.nodes.items()}
    contents = {node.data for tree in trees for node in tree.nodes.values() if node.type is FileType.FILE}
    targets = {node.target for tree in trees for node in tree.nodes.values()}
    for path, node in came.nodes.items():
        if (path, node.type) not in kinds:
            return f"a {node.type.value} at {path!r}"
        if node.type is FileType.SYMLINK and node.target not in targets:
            return f"a symlink at {path!r} to {node.target!r}"
        if not _was_written(node.data, contents):
            return f"data in {path!r} that was in no file"
    return ""


def _was_written(data: Data, contents: Iterable[Data]) -> bool:
    """Whether each byte was at its offset in one of the files; zero, where a byte never reached the disk, is right everywhere."""
    written = [dict(content.blocks) for content in contents]
    return data.size <= max((content.size for content in contents), default=0) and all(
        all(
            byte == 0 or any(at < len(b.get(index, b"")) and b[index][at] == byte for b in written)
            for at, byte in enumerate(block)
        )
        for index, block in data.blocks
    )
