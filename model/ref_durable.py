"""The two layers of a manager: what calls have changed, and what is left of it after a power cut.

A crash takes nothing but the calls that were under way. A power cut also takes of the content of each record that is not final
what was not on the disk yet, as the driver's layers say (`durable`): the first look settles it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import icontract

from snapspec.model import durable, linear, ops, ref_ops, ref_oracle
from snapspec.model.frozen import Map
from snapspec.model.linear import Belief, Divergence
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_state import RefState, is_open, snapshot_of
from snapspec.model.replies import Mismatch
from snapspec.model.state import State
from snapspec.model.tree import Tree


@dataclass(frozen=True, slots=True)
class RefLayers:
    """What a history allows: `belief`, and the trees that each snapshot which is not committed has shown, by the driver's key.

    `unsettled` holds those whose content a power cut has left open, with all that may be in it.
    """

    belief: Belief
    shown: Map[str, tuple[Tree, ...]] = field(default_factory=Map)
    unsettled: Map[str, tuple[Tree, ...]] = field(default_factory=Map)


def begin(state: RefState) -> RefLayers:
    """The layers of a manager that is known and all on the disk."""
    return RefLayers(ref_oracle.begin(state))


def invoke(layers: RefLayers, call: int, op: RefOperation) -> RefLayers:
    """The call numbered `call` begins. A write may show any part of itself from now on."""
    after = replace(layers, belief=linear.invoke(layers.belief, call, op))
    if isinstance(op, ref_ops.Write):
        for key, tree in (pair for world in layers.belief.worlds for pair in _on_the_way(world.state, op)):
            after = replace(after, shown=after.shown.set(key, tuple(dict.fromkeys((*after.shown.get(key, ()), tree)))))
    return after


def _on_the_way(state: RefState, op: ref_ops.Write) -> Iterator[tuple[str, Tree]]:
    """Every tree that the snapshot under the handle may show while the changes are made, with its key."""
    if is_open(state, op.handle):
        key = snapshot_of(state, state.handles[op.handle].record)
        yield from ((key, tree) for tree in durable.on_the_way(state.driver, ops.Write(key, op.changes)))


def respond(layers: RefLayers, call: int, answer: Any) -> RefLayers | Divergence:
    """The call answers. Ids are never used twice, so that nothing which was shown has to be forgotten."""
    belief = linear.respond(layers.belief, call, answer)
    return belief if isinstance(belief, Divergence) else replace(layers, belief=belief)


@icontract.ensure(lambda layers, result: _keeps_answered(layers, result), "REF-POWER-1")
@icontract.ensure(lambda result: not result.belief.calls, "REF-POWER-1")
@icontract.ensure(lambda layers, result: result.belief == linear.crash(layers.belief), "REF-POWER-2")
@icontract.ensure(lambda result: set(result.unsettled) == durable.active(_drivers(result)), "REF-POWER-3")
def power_cut(layers: RefLayers) -> RefLayers:
    """The power fails: as a crash, and the content of each record that is not final is open (REF-POWER-1 to 3).

    A finalize that was under way had taken the content to the disk before it happened: where it happened, that is whole.
    """
    after = replace(layers, belief=linear.crash(layers.belief))
    drivers = _drivers(after)
    open_ = Map((key, durable.may_show(layers.shown.get(key, ()), drivers, key)) for key in sorted(durable.active(drivers)))
    return replace(after, shown=open_, unsettled=open_)


def _drivers(layers: RefLayers) -> list[State]:
    return [world.state.driver for world in layers.belief.worlds]


def _keeps_answered(layers: RefLayers, after: RefLayers) -> bool:
    """Whether what is allowed is what was allowed before, calls that were under way aside."""
    return len(layers.belief.calls) > 0 or after.belief.worlds == layers.belief.worlds


@icontract.require(lambda layers, key: key in layers.unsettled)
def settle(layers: RefLayers, key: str, came: Tree) -> RefLayers | Mismatch:
    """The first look at the snapshot `key` after a power cut: what it shows from now on, if that may be (REF-POWER-3)."""
    wrong = durable.odd(came, layers.unsettled[key])
    if wrong:
        return Mismatch("REF-POWER-3", f"in the snapshot of {key!r} {wrong[0]}", wrong[1])
    worlds = frozenset(
        replace(world, state=replace(world.state, driver=durable.showing(world.state.driver, key, came)))
        for world in layers.belief.worlds
    )
    return replace(layers, belief=replace(layers.belief, worlds=worlds), unsettled=layers.unsettled.without(key))
