"""What holds of every small store, for a symbolic checker to confirm: functions over numbers that run the model itself.

A number stands for a kind or a name; the stores have two slots, or three. A lemma that gives True for all its arguments is a law;
what it takes for granted stands in its precondition. Which of them the checker confirms is recorded beside the tests.
"""

from __future__ import annotations

import icontract

from snapspec.model import ops
from snapspec.model.frozen import Map
from snapspec.model.guards import Door, Rebase
from snapspec.model.ops import Operation
from snapspec.model.replies import Accepted, Outcome, Refused, Returned, Tells, judge
from snapspec.model.snapshots import collect, commit, outcomes, prepare, remove, update, view
from snapspec.model.state import Profile, Snapshot, Span, State, ancestors, times_well_formed, well_formed
from snapspec.model.values import Info, Kind

#: The names that a number can stand for; the first one is no name.
NAMES = ("", "a", "b", "c", "n")

#: What a slot can hold; None is nothing.
KINDS = (None, Kind.ACTIVE, Kind.VIEW, Kind.COMMITTED)

DOORS = (Door.DIRECT, Door.METADATA)


def two(kind_a: int, parent_a: int, kind_b: int, parent_b: int, profile: Profile = Profile()) -> State:
    """The store whose slots a and b hold these kinds over these parents."""
    return three(kind_a, parent_a, kind_b, parent_b, 0, 0, profile)


def three(
    kind_a: int, parent_a: int, kind_b: int, parent_b: int, kind_c: int, parent_c: int, profile: Profile = Profile()
) -> State:
    """The same with a third slot, c."""
    slots = (("a", KINDS[kind_a], parent_a), ("b", KINDS[kind_b], parent_b), ("c", KINDS[kind_c], parent_c))
    return State(Map((key, Snapshot(kind, NAMES[parent])) for key, kind, parent in slots if kind is not None), profile)


def are_two(kind_a: int, parent_a: int, kind_b: int, parent_b: int) -> bool:
    """Whether the numbers make a store that can be."""
    bounded = 0 <= kind_a < 4 and 0 <= kind_b < 4 and 0 <= parent_a < 3 and 0 <= parent_b < 3
    return bounded and well_formed(two(kind_a, parent_a, kind_b, parent_b))


def are_three(kind_a: int, parent_a: int, kind_b: int, parent_b: int, kind_c: int, parent_c: int) -> bool:
    """Whether the numbers make a store that can be."""
    kinds = 0 <= kind_a < 4 and 0 <= kind_b < 4 and 0 <= kind_c < 4
    bounded = kinds and 0 <= parent_a < 4 and 0 <= parent_b < 4 and 0 <= parent_c < 4
    return bounded and well_formed(three(kind_a, parent_a, kind_b, parent_b, kind_c, parent_c))


def whole(before: State, after: tuple[Outcome, ...]) -> bool:
    """Whether every outcome leaves a store that can be, with each life as it was: kind, parent and birth."""
    return all(well_formed(outcome.state) and _same_lives(before, outcome.state) for outcome in after)


def _same_lives(before: State, after: State) -> bool:
    pairs = [(before.snapshots[key], snapshot) for key, snapshot in after.snapshots.items() if key in before.snapshots]
    return all((one.kind, one.parent, one.created) == (other.kind, other.parent, other.created) for one, other in pairs)


# --- two slots


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b))
@icontract.require(lambda key, parent: 0 <= key < 4 and 0 <= parent < 4)
@icontract.ensure(lambda result: result, "SNAP-PARENT-1")
def prepare_keeps_the_store_whole(kind_a: int, parent_a: int, kind_b: int, parent_b: int, key: int, parent: int) -> bool:
    """SNAP-PARENT-1, SNAP-KIND-1: a new snapshot hangs on a committed parent, and no other one changes."""
    state = two(kind_a, parent_a, kind_b, parent_b)
    return whole(state, prepare(state, ops.Prepare(NAMES[key], NAMES[parent])))


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b))
@icontract.require(lambda key, parent: 0 <= key < 4 and 0 <= parent < 4)
@icontract.ensure(lambda result: result, "SNAP-PARENT-1")
def view_keeps_the_store_whole(kind_a: int, parent_a: int, kind_b: int, parent_b: int, key: int, parent: int) -> bool:
    """SNAP-PARENT-1, SNAP-KIND-1: a view as well."""
    state = two(kind_a, parent_a, kind_b, parent_b)
    return whole(state, view(state, ops.View(NAMES[key], NAMES[parent])))


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b))
@icontract.require(lambda key: 0 <= key < 4)
@icontract.ensure(lambda result: result, "SNAP-REMOVE-2")
def remove_orphans_no_child(kind_a: int, parent_a: int, kind_b: int, parent_b: int, key: int) -> bool:
    """SNAP-REMOVE-2, SNAP-REMOVE-4: what is left still has its parents, and only one snapshot is gone."""
    state = two(kind_a, parent_a, kind_b, parent_b)
    after = remove(state, ops.Remove(NAMES[key]))
    return whole(state, after) and all(len(outcome.state.snapshots) >= len(state.snapshots) - 1 for outcome in after)


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b))
@icontract.require(lambda name, key: 0 <= name < 4 and 0 <= key < 3)
@icontract.ensure(lambda result: result, "SNAP-COMMIT-8")
def commit_keeps_parents(kind_a: int, parent_a: int, kind_b: int, parent_b: int, name: int, key: int) -> bool:
    """SNAP-COMMIT-8, SNAP-PARENT-3: the name gets the key's parent, and every other link stays."""
    state = two(kind_a, parent_a, kind_b, parent_b)
    after = commit(state, ops.Commit(NAMES[name], NAMES[key]))
    done = [outcome.state for outcome in after if not isinstance(outcome.reply, Refused)]
    return whole(state, after) and all(s.snapshots[NAMES[name]].parent == state.snapshots[NAMES[key]].parent for s in done)


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b))
@icontract.require(lambda door, key, parent: 0 <= door < 2 and 0 <= key < 3 and 0 <= parent < 4)
@icontract.ensure(lambda result: result, "SNAP-COMMIT-7")
def a_merged_commit_makes_no_cycle(
    kind_a: int, parent_a: int, kind_b: int, parent_b: int, key: int, parent: int, door: int
) -> bool:
    """SNAP-COMMIT-7, SNAP-PARENT-1: whatever parent is asked for, through either door."""
    state = two(kind_a, parent_a, kind_b, parent_b, Profile(DOORS[door], rebase=Rebase.MERGED))
    return whole(state, commit(state, ops.Commit("n", NAMES[key], (), NAMES[parent])))


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b))
@icontract.require(lambda call, door, key, other: 0 <= call < 6 and 0 <= door < 2 and 0 <= key < 4 and 0 <= other < 4)
@icontract.ensure(lambda result: result, "SNAP-FAIL-1")
def a_refused_call_changes_nothing(
    kind_a: int, parent_a: int, kind_b: int, parent_b: int, call: int, door: int, key: int, other: int
) -> bool:
    """SNAP-FAIL-1: the state after a refusal is the very one before it, through either door."""
    state = two(kind_a, parent_a, kind_b, parent_b, Profile(DOORS[door]))
    return all(o.state is state for o in outcomes(state, _call(call, key, other)) if isinstance(o.reply, Refused))


def _call(call: int, key: int, other: int) -> Operation:
    one, two = NAMES[key], NAMES[other]
    calls = (ops.Prepare(one, two), ops.View(one, two), ops.Commit(one, two), ops.Remove(one), ops.Update(one), ops.Mounts(one))
    return calls[call]


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b))
@icontract.require(lambda dropped: 0 <= dropped < 4)
@icontract.ensure(lambda result: result, "DOOR-GC-2")
def a_collection_keeps_chains(kind_a: int, parent_a: int, kind_b: int, parent_b: int, dropped: int) -> bool:
    """DOOR-GC-2: what stays still has its parents, and what was not given up stays."""
    state = two(kind_a, parent_a, kind_b, parent_b, Profile(Door.METADATA))
    (outcome,) = collect(state, ops.Collect((NAMES[dropped],)))
    return whole(state, (outcome,)) and set(state.snapshots) - {NAMES[dropped]} <= set(outcome.state.snapshots)


# --- times, of any size


@icontract.require(lambda low, high, begun, ended: low <= high and begun <= ended)
@icontract.ensure(lambda result: result, "SNAP-TIME-3")
def an_update_is_no_earlier_than_its_snapshot(low: int, high: int, begun: int, ended: int) -> bool:
    """SNAP-TIME-3, SNAP-TIME-4: for every span of the creation and of the update, `created` stays and times stay well formed."""
    made = Snapshot(Kind.ACTIVE, created=Span(low, high))
    (outcome,) = update(State(Map({"a": made})), ops.Update("a"), Span(begun, ended))
    after = outcome.state.snapshots["a"]
    return times_well_formed(outcome.state) and after.created == made.created and after.updated is not None


@icontract.require(lambda low, high: low <= high)
@icontract.ensure(lambda result: result, "SNAP-TIME-1")
def a_time_is_accepted_within_its_span_alone(low: int, high: int, told: int) -> bool:
    """SNAP-TIME-1, SNAP-TIME-4: and what was told is all that is accepted from then on."""
    state = State(Map({"a": Snapshot(Kind.VIEW, created=Span(low, high))}))
    verdict = judge(Outcome("SNAP-STAT-1", Tells("a"), state), Returned(_told(told)))
    if not isinstance(verdict, Accepted):
        return not low <= told <= high
    return low <= told <= high and all(snapshot.created == Span(told, told) for _, snapshot in verdict.learned)


@icontract.require(lambda first, second: first != second)
@icontract.ensure(lambda result: result, "SNAP-TIME-4")
def a_time_that_was_told_is_the_only_one(first: int, second: int) -> bool:
    """SNAP-TIME-4: no other time is accepted afterwards."""
    state = State(Map({"a": Snapshot(Kind.VIEW, created=Span(first, first))}))
    outcome = Outcome("SNAP-STAT-1", Tells("a"), state)
    return isinstance(judge(outcome, Returned(_told(first))), Accepted) and not isinstance(
        judge(outcome, Returned(_told(second))), Accepted
    )


def _told(created: int) -> Info:
    return Info("a", "", Kind.VIEW, (), created, created)


# --- a key of any text: beyond what the checker confirms


@icontract.ensure(lambda result: result, "SNAP-KEY-1")
def a_key_is_taken_once(key: str) -> bool:
    """SNAP-KEY-1, SNAP-KEY-2: prepared where it is no empty one, and never twice."""
    first = prepare(State(), ops.Prepare(key))[0]
    return isinstance(first.reply, Refused) if key == "" else isinstance(prepare(first.state, ops.Prepare(key))[0].reply, Refused)


# --- three slots


@icontract.require(
    lambda kind_a, parent_a, kind_b, parent_b, kind_c, parent_c: are_three(kind_a, parent_a, kind_b, parent_b, kind_c, parent_c)
)
@icontract.require(lambda key: 0 <= key < 4)
@icontract.ensure(lambda result: result, "SNAP-REMOVE-2")
def remove_orphans_no_child_of_three(
    kind_a: int, parent_a: int, kind_b: int, parent_b: int, kind_c: int, parent_c: int, key: int
) -> bool:
    """SNAP-REMOVE-2: also in the middle of a chain."""
    state = three(kind_a, parent_a, kind_b, parent_b, kind_c, parent_c)
    return whole(state, remove(state, ops.Remove(NAMES[key])))


@icontract.require(
    lambda kind_a, parent_a, kind_b, parent_b, kind_c, parent_c: are_three(kind_a, parent_a, kind_b, parent_b, kind_c, parent_c)
)
@icontract.require(lambda key, parent: 0 <= key < 4 and 0 <= parent < 5)
@icontract.ensure(lambda result: result, "SNAP-COMMIT-7")
def a_merged_commit_makes_no_cycle_of_three(
    kind_a: int, parent_a: int, kind_b: int, parent_b: int, kind_c: int, parent_c: int, key: int, parent: int
) -> bool:
    """SNAP-COMMIT-7: also where the parent has parents; the chain of the name is then the parent's and the parent."""
    state = three(kind_a, parent_a, kind_b, parent_b, kind_c, parent_c, Profile(rebase=Rebase.MERGED))
    after = commit(state, ops.Commit("n", NAMES[key], (), NAMES[parent]))
    done = [outcome.state for outcome in after if not isinstance(outcome.reply, Refused)]
    return whole(state, after) and all(len(ancestors(s, "n")) <= len(state.snapshots) for s in done)

WARM = outcomes(two(1, 0, 0, 0), ops.Prepare("n"))
