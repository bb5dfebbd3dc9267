"""What holds of every small manager, for a symbolic checker to confirm: as in `lemmas`, numbers stand for what a slot holds.

A manager has two slots, a and b. Each holds nothing, one record, or the two of a pair; b may be built on a.
"""

from __future__ import annotations

import icontract

from snapspec.model import ref_ops
from snapspec.model.frozen import Map
from snapspec.model.ref_changes import claimed
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_outcomes import RefOutcomes, RefRefused
from snapspec.model.ref_state import Handle, Record, RefState, content, held, in_use, is_open, well_formed
from snapspec.model.refs import commit, finalize, get, get_mutable, mount, new, outcomes, prune, release, steps
from snapspec.model.state import Snapshot, State
from snapspec.model.values import Kind

#: What a number stands for in a slot: how the slot's snapshot is held, and whether by an open handle.
NOTHING, IDLE_M, OPEN_M, IDLE_PAIR, HELD_PAIR, IDLE_E, HELD_E = range(7)

SLOTS = ("a", "b")


def are_two(kind_a: int, kind_b: int, over: bool) -> bool:
    """Whether the numbers make a manager that can be: what b is built on is final."""
    in_range = 0 <= kind_a < 7 and 0 <= kind_b < 7
    return in_range and (not over or (kind_a >= IDLE_E and kind_b != NOTHING))


def two(kind_a: int, kind_b: int, over: bool) -> RefState:
    """The manager whose slots hold these kinds. Slot a has the records ma and ea and the handle ha, where its kind has them."""
    records, snapshots, handles = dict[str, Record](), dict[str, Snapshot](), dict[str, Handle]()
    for slot, kind, parent in (("a", kind_a, ""), ("b", kind_b, "ea" if over else "")):
        paired = kind in (IDLE_PAIR, HELD_PAIR)
        if kind == NOTHING:
            continue
        if kind < IDLE_E:
            records["m" + slot] = Record(True, parent, "e" + slot if paired else "")
            snapshots["m" + slot] = Snapshot(Kind.ACTIVE, parent)
        else:
            snapshots["e" + slot] = Snapshot(Kind.COMMITTED, parent)
        if kind >= IDLE_PAIR:
            records["e" + slot] = Record(False, parent, "m" + slot if paired else "")
        if kind in (OPEN_M, HELD_PAIR, HELD_E):
            handles["h" + slot] = Handle("m" + slot if kind == OPEN_M else "e" + slot, kind == OPEN_M)
    return RefState(Map(records), Map(handles), State(Map(snapshots)))


def _done(after: RefOutcomes) -> list[RefState]:
    return [outcome.state for outcome in after if not isinstance(outcome.reply, RefRefused)]


def whole(after: RefOutcomes) -> bool:
    """Whether every outcome leaves a manager that can be."""
    return all(well_formed(outcome.state) for outcome in after)


def _other_as_before(state: RefState, after: RefOutcomes, slot: str) -> bool:
    """Whether the records of this slot are what they were."""
    names = [name for name in state.records if name[1] == slot]
    return all(outcome.state.records.get(name) == state.records[name] for outcome in after for name in names)


@icontract.require(lambda kind_a, kind_b, over: are_two(kind_a, kind_b, over), enabled=True)
@icontract.ensure(lambda result: result, "REF-COMMIT-1", enabled=True)
def commit_makes_a_pair(kind_a: int, kind_b: int, over: bool) -> bool:
    """REF-COMMIT-1, REF-COMMIT-2, REF-PAIR-1: E and M have one parent and one content, and M's handle is consumed."""
    state = two(kind_a, kind_b, over)
    after = commit(state, ref_ops.Commit("hb", "new", "h"))
    return whole(after) and all(
        (s.records["new"].equal, s.records["mb"].equal) == ("mb", "new")
        and s.records["new"].parent == state.records["mb"].parent
        and content(s, "new") == content(state, "mb")
        and not is_open(s, "hb")
        for s in _done(after)
    )


@icontract.require(lambda kind_a, kind_b, over: are_two(kind_a, kind_b, over), enabled=True)
@icontract.ensure(lambda result: result, "REF-MUT-3", enabled=True)
def get_mutable_ends_a_pair(kind_a: int, kind_b: int, over: bool) -> bool:
    """REF-MUT-2, REF-MUT-3: it is given where neither half is held, and then there is no E."""
    state = two(kind_a, kind_b, over)
    after = get_mutable(state, ref_ops.GetMutable("mb", "h"))
    idle = "mb" in state.records and not held(state, "mb") and not held(state, "eb")
    return whole(after) and (len(_done(after)) == 1) == idle and all("eb" not in s.records for s in _done(after))


@icontract.require(lambda kind_a, kind_b, over: are_two(kind_a, kind_b, over), enabled=True)
@icontract.ensure(lambda result: result, "REF-GET-3", enabled=True)
def get_makes_no_second_e(kind_a: int, kind_b: int, over: bool) -> bool:
    """REF-GET-3, REF-HANDLE-6: by either id, the handle is on an immutable record, and each M has one E at most."""
    state = two(kind_a, kind_b, over)
    after = (*get(state, ref_ops.Get("mb", "h", "new")), *get(state, ref_ops.Get("eb", "h", "new")))
    made = _done(after)
    return whole(after) and all(not s.handles["h"].mutable and not {"eb", "new"} <= set(s.records) for s in made)


@icontract.require(lambda kind_a, kind_b, over: are_two(kind_a, kind_b, over), enabled=True)
@icontract.ensure(lambda result: result, "REF-FINAL-1", enabled=True)
def finalize_is_once(kind_a: int, kind_b: int, over: bool) -> bool:
    """REF-FINAL-1, REF-FINAL-2: M is gone, and a second one finds nothing to do; the other slot is as it was."""
    state = two(kind_a, kind_b, over)
    after = finalize(state, ref_ops.Finalize("hb"))
    final = ["mb" not in s.records and finalize(s, ref_ops.Finalize("hb"))[0].state is s for s in _done(after)]
    return whole(after) and _other_as_before(state, after, "a") and all(final)


@icontract.require(lambda kind_a, kind_b, over: are_two(kind_a, kind_b, over), enabled=True)
@icontract.ensure(lambda result: result, "REF-NEW-2", enabled=True)
def what_is_built_on_is_final(kind_a: int, kind_b: int, over: bool) -> bool:
    """REF-NEW-2, REF-PAIR-2: whatever the handle is on."""
    state = two(kind_a, kind_b, over)
    after = new(state, ref_ops.New("new", "h", "ha"))
    return whole(after) and all(s.records["new"].parent == "ea" and s.records["ea"].equal == "" for s in _done(after))


@icontract.require(lambda kind_a, kind_b, over: are_two(kind_a, kind_b, over), enabled=True)
@icontract.ensure(lambda result: result, "REF-PRUNE-1", enabled=True)
def prune_takes_what_is_not_in_use(kind_a: int, kind_b: int, over: bool) -> bool:
    """REF-PRUNE-1, REF-USAGE-2: a parent stays for the sake of a child in use, and goes with it otherwise."""
    state = two(kind_a, kind_b, over)
    after = prune(state, ref_ops.Prune())
    return whole(after) and all((name in o.state.records) == in_use(state, name) for o in after for name in state.records)


@icontract.require(lambda kind_a, kind_b, over: are_two(kind_a, kind_b, over) and kind_a >= 5, enabled=True)
@icontract.ensure(lambda result: result, "REF-NEW-4", enabled=True)
def prune_leaves_what_is_claimed(kind_a: int, kind_b: int, over: bool) -> bool:
    """REF-NEW-4: what a running new builds on stays, step by step and at once, though it is not in use."""
    state = claimed(two(kind_a, kind_b, over), "ea")
    after = (*prune(state, ref_ops.Prune()), *steps(state, ref_ops.Prune()))
    return whole(after) and all("ea" in outcome.state.records for outcome in after)


@icontract.require(lambda kind_a, kind_b, over: are_two(kind_a, kind_b, over), enabled=True)
@icontract.ensure(lambda result: result, "REF-HANDLE-3", enabled=True)
def a_second_release_does_nothing(kind_a: int, kind_b: int, over: bool) -> bool:
    """REF-HANDLE-2, REF-HANDLE-3: the first one closes the handle, and no record changes."""
    state = two(kind_a, kind_b, over)
    (first,) = release(state, ref_ops.Release("hb"))
    (second,) = release(first.state, ref_ops.Release("hb"))
    nothing = second.state is first.state and not is_open(second.state, "hb")
    return whole((first,)) and nothing and first.state.records is state.records


@icontract.require(lambda kind_a, kind_b, over: are_two(kind_a, kind_b, over), enabled=True)
@icontract.ensure(lambda result: result, "REF-MOUNT-3", enabled=True)
def a_mount_to_write_leaves_no_pair(kind_a: int, kind_b: int, over: bool, readonly: bool) -> bool:
    """REF-MOUNT-3, REF-MOUNT-4: one to read changes nothing."""
    state = two(kind_a, kind_b, over)
    after = mount(state, ref_ops.Mount("hb", readonly))
    return whole(after) and all(s is state if readonly else ("mb" in s.records) != ("eb" in s.records) for s in _done(after))


@icontract.require(lambda kind_a, kind_b, over, call: are_two(kind_a, kind_b, over) and 0 <= call < 6, enabled=True)
@icontract.ensure(lambda result: result, "REF-ERROR-4", enabled=True)
def a_refused_call_changes_nothing(kind_a: int, kind_b: int, over: bool, call: int) -> bool:
    """REF-ERROR-4: the state after a refusal is the very one before it."""
    state = two(kind_a, kind_b, over)
    return all(o.state is state for o in outcomes(state, _call(call)) if isinstance(o.reply, RefRefused))


def _call(call: int) -> RefOperation:
    ids = (ref_ops.Get("mb", "h", "new"), ref_ops.GetMutable("mb", "h"), ref_ops.GetMutable("eb", "h"))
    return (*ids, ref_ops.Commit("hb", "new", "h"), ref_ops.Finalize("hb"), ref_ops.New("new", "h", "hb"))[call]
