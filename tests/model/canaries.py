"""Contracts of which it is known whether they hold: what the checker says of them shows how far it can be trusted.

Each is expected as crosshair.json records it. A canary that changes means that the checker has: then its other verdicts are worth
nothing until somebody has looked. All contracts here are `enabled` whether Python runs with -O or not, since lemmas are checked
with it.
"""

from __future__ import annotations

import icontract

from snapspec.model import ops, ref_ops
from snapspec.model.frozen import Map
from snapspec.model.guards import Door, Named, Reason
from snapspec.model.ref_lemmas import HELD_E, HELD_PAIR, two
from snapspec.model.ref_outcomes import GivesHandle
from snapspec.model.ref_state import pairs_well_formed
from snapspec.model.refs import get, prune
from snapspec.model.replies import Refused
from snapspec.model.snapshots import commit, remove
from snapspec.model.state import Snapshot, State, well_formed
from snapspec.model.values import Kind

# --- false, and to be refuted


@icontract.require(lambda children: children >= 0, enabled=True)
@icontract.ensure(lambda result, children: (result is Reason.NONE) == (children == 0), enabled=True)
def false_bound(children: int) -> Reason:
    """One child too many: the bound is off by one."""
    return Reason.HAS_CHILDREN if children > 1 else Reason.NONE


@icontract.ensure(
    lambda result, door, taken: not (door is Door.METADATA and taken) or result is Reason.KEY_TAKEN,
    enabled=True,
)
def false_order(door: Door, taken: bool, parent: Named) -> Reason:
    """The order of errors of the one door at both."""
    if parent is Named.ABSENT:
        return Reason.PARENT_ABSENT
    return Reason.KEY_TAKEN if taken else Reason.NONE


@icontract.ensure(lambda result, value: result != value or value != 123456789, enabled=True)
def false_at_one_value(value: int) -> int:
    """Wrong for one number in all: no test that draws would meet it."""
    return value


@icontract.require(lambda kind: 0 <= kind < 4, enabled=True)
@icontract.ensure(lambda result: result, enabled=True)
def false_of_the_model(kind: int) -> bool:
    """That removing a parent leaves a whole store, if remove did not look for children: here it is made to drop the snapshot."""
    state = _parent_and_child(kind)
    return well_formed(state.drop("a"))


@icontract.require(lambda kind: 0 <= kind < 4, enabled=True)
@icontract.ensure(lambda result: result, enabled=True)
def false_of_commit(kind: int) -> bool:
    """That a commit is never refused."""
    state = _parent_and_child(kind)
    return not any(isinstance(outcome.reply, Refused) for outcome in commit(state, ops.Commit("n", "b")))


@icontract.require(lambda kind: 0 <= kind < 7, enabled=True)
@icontract.ensure(lambda result: result, enabled=True)
def false_of_the_manager(kind: int) -> bool:
    """That prune takes all that is over an E with a handle."""
    (outcome,) = prune(two(HELD_E, kind, kind > 0), ref_ops.Prune())
    return set(outcome.state.records) == {"ea"}


@icontract.ensure(lambda result: result >= 0, enabled=True)
def false_by_an_exception(kind: int) -> int:
    """An exception that the docstring does not declare counts as a failure."""
    return (0, 1, 2)[kind]


# --- true, and to be confirmed


@icontract.require(lambda low, high: low <= high, enabled=True)
@icontract.ensure(lambda result, low, high: low <= result <= high, enabled=True)
def true_of_numbers(low: int, high: int, value: int) -> int:
    """Of all numbers, however large."""
    return min(max(low, value), high)


@icontract.ensure(lambda result, named: (result is Reason.NONE) == (named is Named.COMMITTED), enabled=True)
def true_of_an_enum(named: Named) -> Reason:
    """Of every member."""
    match named:
        case Named.NOTHING | Named.ABSENT:
            return Reason.PARENT_ABSENT
        case Named.ACTIVE | Named.VIEW:
            return Reason.PARENT_NOT_COMMITTED
        case Named.COMMITTED:
            return Reason.NONE


@icontract.require(lambda kind: 0 <= kind < 4, enabled=True)
@icontract.ensure(lambda result: result, enabled=True)
def true_of_the_model(kind: int) -> bool:
    """That remove leaves a whole store."""
    state = _parent_and_child(kind)
    return all(well_formed(outcome.state) for outcome in remove(state, ops.Remove("a")))


@icontract.require(lambda kind: 0 <= kind < 7, enabled=True)
@icontract.ensure(lambda result: result, enabled=True)
def true_of_the_manager(kind: int) -> bool:
    """That get of a held pair's M gives a handle on its E, or none, whatever else there is."""
    after = get(two(kind, HELD_PAIR, False), ref_ops.Get("mb", "h", "new"))
    given = [outcome.reply.record for outcome in after if isinstance(outcome.reply, GivesHandle)]
    return given == ["eb"] and all(pairs_well_formed(outcome.state) for outcome in after)


# --- neither, or the wrong answer: why some things are not done in the model


@icontract.require(lambda value: value < 0 and value > 0, enabled=True)
@icontract.ensure(lambda result: result == 1, enabled=True)
def unknown_by_its_precondition(value: int) -> int:
    """No argument meets the precondition: nothing was checked, the exit status is 0, and only the full report tells."""
    return value


@icontract.require(lambda count: count >= 0, enabled=True)
@icontract.ensure(lambda result, count: result == count, enabled=True)
def unknown_by_a_loop(count: int) -> int:
    """True, but a loop without a bound has no last path: exit status 0 as well."""
    total = 0
    while total < count:
        total += 1
    return total


@icontract.ensure(lambda result: result != 0, enabled=True)
async def confirmed_though_false(value: int) -> int:
    """Plainly false, and confirmed: the checker takes the coroutine for the result. No contract stands on one therefore."""
    return 0 * value


def _parent_and_child(kind: int) -> State:
    """A committed snapshot, and one over it of the kind that the number stands for, or none."""
    kinds = (None, Kind.ACTIVE, Kind.VIEW, Kind.COMMITTED)
    found = kinds[kind]
    base = State(Map({"a": Snapshot(Kind.COMMITTED)}))
    return base if found is None else base.put("b", Snapshot(found, "a"))
