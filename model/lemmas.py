"""What holds of every small store, for a symbolic checker to confirm: functions over numbers that run the model itself.

A number stands for a kind or a name; the stores have two slots, or three. A lemma that gives True for all its arguments is a law;
what it takes for granted stands in its precondition. Which of them the checker confirms is recorded beside the tests.

The lemmas are checked under `python -O`. That turns the model's own contracts off, which the checker would otherwise evaluate on
each path ten times over; those of the lemmas are `enabled` all the same.
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

#: The names that a number can stand for; the first one is no name, the last one is of no slot.
NAMES = ("", "a", "b", "c", "n")

#: What a slot can hold; None is nothing.
KINDS = (None, Kind.ACTIVE, Kind.VIEW, Kind.COMMITTED)

DIRECT = Profile()
MERGED = Profile(rebase=Rebase.MERGED)
METADATA = Profile(Door.METADATA)


def stands(kind: int, parent: int, kind_a: int, kind_b: int, kind_c: int = 0) -> bool:
    """Whether a slot can hold that kind over that parent: the numbers are in range, and the parent is committed."""
    if not (0 <= kind < 4 and 0 <= parent < 4):
        return False
    if parent == 0:
        return True
    return kind > 0 and ((parent == 1 and kind_a == 3) or (parent == 2 and kind_b == 3) or (parent == 3 and kind_c == 3))


def are_two(kind_a: int, parent_a: int, kind_b: int, parent_b: int) -> bool:
    """Whether the numbers make a store that can be."""
    alone = parent_a != 1 and parent_b != 2 and (parent_a == 0 or parent_b == 0)
    return alone and stands(kind_a, parent_a, kind_a, kind_b) and stands(kind_b, parent_b, kind_a, kind_b)


def two(kind_a: int, parent_a: int, kind_b: int, parent_b: int, profile: Profile) -> State:
    """The store whose slots a and b hold these kinds over these parents."""
    return _slots((("a", kind_a, parent_a), ("b", kind_b, parent_b)), profile)


def are_three(kind_a: int, parent_a: int, kind_b: int, parent_b: int, kind_c: int, parent_c: int) -> bool:
    """Whether the numbers make a store that can be."""
    kinds = (kind_a, kind_b, kind_c)
    slots = stands(kind_a, parent_a, *kinds) and stands(kind_b, parent_b, *kinds) and stands(kind_c, parent_c, *kinds)
    return slots and well_formed(three(kind_a, parent_a, kind_b, parent_b, kind_c, parent_c, DIRECT))


def three(kind_a: int, parent_a: int, kind_b: int, parent_b: int, kind_c: int, parent_c: int, profile: Profile) -> State:
    """The store whose slots a, b and c hold these kinds over these parents."""
    return _slots((("a", kind_a, parent_a), ("b", kind_b, parent_b), ("c", kind_c, parent_c)), profile)


def _slots(slots: tuple[tuple[str, int, int], ...], profile: Profile) -> State:
    held = [(key, KINDS[kind], NAMES[parent]) for key, kind, parent in slots]
    return State(Map((key, Snapshot(kind, parent)) for key, kind, parent in held if kind is not None), profile)


def whole(before: State, after: tuple[Outcome, ...]) -> bool:
    """Whether every outcome leaves a store that can be, with each life as it was: kind, parent and birth."""
    return all(well_formed(outcome.state) and _same_lives(before, outcome.state) for outcome in after)


def _same_lives(before: State, after: State) -> bool:
    pairs = [(before.snapshots[key], snapshot) for key, snapshot in after.snapshots.items() if key in before.snapshots]
    return all((one.kind, one.parent, one.created) == (other.kind, other.parent, other.created) for one, other in pairs)


def _done(after: tuple[Outcome, ...]) -> list[State]:
    return [outcome.state for outcome in after if not isinstance(outcome.reply, Refused)]


# --- two slots


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b), enabled=True)
@icontract.require(lambda key, parent: 1 <= key < 4 and 0 <= parent < 4, enabled=True)
@icontract.ensure(lambda result: result, "SNAP-PARENT-1", enabled=True)
def prepare_keeps_the_store_whole(kind_a: int, parent_a: int, kind_b: int, parent_b: int, key: int, parent: int) -> bool:
    """SNAP-PARENT-1, SNAP-KIND-1: a new snapshot hangs on a committed parent, and no other one changes."""
    state = two(kind_a, parent_a, kind_b, parent_b, DIRECT)
    return whole(state, prepare(state, ops.Prepare(NAMES[key], NAMES[parent])))


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b), enabled=True)
@icontract.require(lambda key, parent: 1 <= key < 4 and 0 <= parent < 4, enabled=True)
@icontract.ensure(lambda result: result, "SNAP-PARENT-1", enabled=True)
def view_keeps_the_store_whole(kind_a: int, parent_a: int, kind_b: int, parent_b: int, key: int, parent: int) -> bool:
    """SNAP-PARENT-1, SNAP-KIND-1: a view as well."""
    state = two(kind_a, parent_a, kind_b, parent_b, DIRECT)
    return whole(state, view(state, ops.View(NAMES[key], NAMES[parent])))


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b), enabled=True)
@icontract.require(lambda key: 0 <= key < 4, enabled=True)
@icontract.ensure(lambda result: result, "SNAP-REMOVE-2", enabled=True)
def remove_orphans_no_child(kind_a: int, parent_a: int, kind_b: int, parent_b: int, key: int) -> bool:
    """SNAP-REMOVE-2, SNAP-REMOVE-4: what is left still has its parents, and no more than one snapshot is gone."""
    state = two(kind_a, parent_a, kind_b, parent_b, DIRECT)
    after = remove(state, ops.Remove(NAMES[key]))
    return whole(state, after) and all(len(outcome.state.snapshots) >= len(state.snapshots) - 1 for outcome in after)


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b), enabled=True)
@icontract.require(lambda name, key: 1 <= name < 4 and 0 <= key < 3, enabled=True)
@icontract.ensure(lambda result: result, "SNAP-PARENT-3", enabled=True)
def commit_keeps_parents(kind_a: int, parent_a: int, kind_b: int, parent_b: int, name: int, key: int) -> bool:
    """SNAP-COMMIT-8, SNAP-PARENT-3: the name gets the key's parent, and every other link stays."""
    state = two(kind_a, parent_a, kind_b, parent_b, DIRECT)
    after = commit(state, ops.Commit(NAMES[name], NAMES[key]))
    return whole(state, after) and all(
        s.snapshots[NAMES[name]].parent == state.snapshots[NAMES[key]].parent for s in _done(after)
    )


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b), enabled=True)
@icontract.require(lambda key, parent: 1 <= key < 3 and 0 <= parent < 4, enabled=True)
@icontract.ensure(lambda result: result, "SNAP-COMMIT-7", enabled=True)
def a_merged_commit_makes_no_cycle(kind_a: int, parent_a: int, kind_b: int, parent_b: int, key: int, parent: int) -> bool:
    """SNAP-COMMIT-7, SNAP-PARENT-1: whatever parent is asked for, the key's own name among them."""
    state = two(kind_a, parent_a, kind_b, parent_b, MERGED)
    return whole(state, commit(state, ops.Commit("n", NAMES[key], (), NAMES[parent])))


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b), enabled=True)
@icontract.require(lambda dropped: 0 <= dropped < 3, enabled=True)
@icontract.ensure(lambda result: result, "DOOR-GC-2", enabled=True)
def a_collection_keeps_chains(kind_a: int, parent_a: int, kind_b: int, parent_b: int, dropped: int) -> bool:
    """DOOR-GC-2: what stays still has its parents, and what was not given up stays."""
    state = two(kind_a, parent_a, kind_b, parent_b, METADATA)
    (outcome,) = collect(state, ops.Collect((NAMES[dropped],)))
    return whole(state, (outcome,)) and set(state.snapshots) - {NAMES[dropped]} <= set(outcome.state.snapshots)


@icontract.require(lambda kind_a, parent_a, kind_b, parent_b: are_two(kind_a, parent_a, kind_b, parent_b), enabled=True)
@icontract.require(lambda call, key, other: 0 <= call < 6 and 0 <= key < 4 and 0 <= other < 4, enabled=True)
@icontract.ensure(lambda result: result, "SNAP-FAIL-1", enabled=True)
def a_refused_call_changes_nothing(
    kind_a: int, parent_a: int, kind_b: int, parent_b: int, metadata: bool, call: int, key: int, other: int
) -> bool:
    """SNAP-FAIL-1: the state after a refusal is the very one before it, through either door."""
    state = two(kind_a, parent_a, kind_b, parent_b, METADATA if metadata else DIRECT)
    return all(o.state is state for o in outcomes(state, _call(call, key, other)) if isinstance(o.reply, Refused))


def _call(call: int, key: int, other: int) -> Operation:
    one, another = NAMES[key], NAMES[other]
    pairs = (ops.Prepare(one, another), ops.View(one, another), ops.Commit(one, another))
    return (*pairs, ops.Remove(one), ops.Update(one), ops.Mounts(one))[call]


# --- times, of any size


@icontract.require(lambda low, high, begun, ended: low <= high and begun <= ended, enabled=True)
@icontract.ensure(lambda result: result, "SNAP-TIME-3", enabled=True)
def an_update_is_no_earlier_than_its_snapshot(low: int, high: int, begun: int, ended: int) -> bool:
    """SNAP-TIME-3, SNAP-TIME-4: for every span of the creation and of the update; `created` stays."""
    made = Snapshot(Kind.ACTIVE, created=Span(low, high))
    (outcome,) = update(State(Map({"a": made})), ops.Update("a"), Span(begun, ended))
    after = outcome.state.snapshots["a"]
    return times_well_formed(outcome.state) and after.created == made.created and after.updated is not None


@icontract.require(lambda low, high, told: low <= told <= high, enabled=True)
@icontract.ensure(lambda result: result, "SNAP-TIME-1", enabled=True)
def a_time_within_its_span_is_learned(low: int, high: int, told: int) -> bool:
    """SNAP-TIME-1: it is accepted, and from then on the time is known."""
    state = State(Map({"a": Snapshot(Kind.VIEW, created=Span(low, high))}))
    verdict = judge(Outcome("SNAP-STAT-1", Tells("a"), state), Returned(Info("a", "", Kind.VIEW, (), told, told)))
    return isinstance(verdict, Accepted) and _known(state, verdict).created == Span(told, told)


def _known(state: State, verdict: Accepted) -> Snapshot:
    return dict(verdict.learned).get("a", state.snapshots["a"])


@icontract.require(lambda low, high, told: low <= high and (told < low or high < told), enabled=True)
@icontract.ensure(lambda result: result, "SNAP-TIME-1", enabled=True)
def a_time_outside_its_span_is_refused(low: int, high: int, told: int) -> bool:
    """SNAP-TIME-1, SNAP-TIME-4: true, but the checker does not see it: the mismatch writes the numbers out, digit by digit."""
    state = State(Map({"a": Snapshot(Kind.VIEW, created=Span(low, high))}))
    verdict = judge(Outcome("SNAP-STAT-1", Tells("a"), state), Returned(Info("a", "", Kind.VIEW, (), told, told)))
    return not isinstance(verdict, Accepted)


# --- a key of any text


@icontract.ensure(lambda result: result, "SNAP-KEY-1", enabled=True)
def a_key_is_taken_once(key: str) -> bool:
    """SNAP-KEY-1, SNAP-KEY-2: prepared where it is no empty one, and never twice."""
    first = prepare(State(), ops.Prepare(key))[0]
    return isinstance(first.reply, Refused) if key == "" else isinstance(prepare(first.state, ops.Prepare(key))[0].reply, Refused)


# --- three slots


@icontract.require(
    lambda kind_a, parent_a, kind_b, parent_b, kind_c, parent_c: are_three(kind_a, parent_a, kind_b, parent_b, kind_c, parent_c),
    enabled=True,
)
@icontract.require(lambda key: 0 <= key < 4, enabled=True)
@icontract.ensure(lambda result: result, "SNAP-REMOVE-2", enabled=True)
def remove_orphans_no_child_of_three(
    kind_a: int, parent_a: int, kind_b: int, parent_b: int, kind_c: int, parent_c: int, key: int
) -> bool:
    """SNAP-REMOVE-2: also in the middle of a chain."""
    state = three(kind_a, parent_a, kind_b, parent_b, kind_c, parent_c, DIRECT)
    return whole(state, remove(state, ops.Remove(NAMES[key])))


@icontract.require(
    lambda kind_a, parent_a, kind_b, parent_b, kind_c, parent_c: are_three(kind_a, parent_a, kind_b, parent_b, kind_c, parent_c),
    enabled=True,
)
@icontract.require(lambda key, parent: 1 <= key < 4 and 0 <= parent < 5, enabled=True)
@icontract.ensure(lambda result: result, "SNAP-COMMIT-7", enabled=True)
def a_merged_commit_makes_no_cycle_of_three(
    kind_a: int, parent_a: int, kind_b: int, parent_b: int, kind_c: int, parent_c: int, key: int, parent: int
) -> bool:
    """SNAP-COMMIT-7: also where the parent has parents; the chain of the name is no longer than the store."""
    state = three(kind_a, parent_a, kind_b, parent_b, kind_c, parent_c, MERGED)
    after = commit(state, ops.Commit("n", NAMES[key], (), NAMES[parent]))
    return whole(state, after) and all(len(ancestors(s, "n")) < len(state.snapshots) for s in _done(after))
