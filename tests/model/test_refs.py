"""What each call of a manager does when it is not refused: records, handles, content, rows, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace

import icontract
import pytest
from hypothesis import given
from states import FILE, HANDLES, RECORDS, SNAPSHOTS, manager, only_ref
from strategies import ref_histories

from snapspec.model import ref_changes, ref_ops
from snapspec.model.frozen import Map
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_outcomes import (
    ChangedThrough,
    GivesHandle,
    GivesList,
    ListsRows,
    NoHandle,
    Pruned,
    RefDone,
    RefError,
    RefOutcome,
    RefRefused,
    Row,
    ShowsTree,
    TellsSize,
)
from snapspec.model.ref_state import (
    Declared,
    Handle,
    Record,
    RefState,
    content,
    family,
    held,
    idle_since,
    in_use,
    is_free,
    is_open,
    snapshot_of,
    well_formed,
)
from snapspec.model.refs import outcomes, removable, steps
from snapspec.model.state import Profile, RootMetadata, Snapshot, State
from snapspec.model.tree import EMPTY, MakeFile, SetMode, Truncate, outcomes_of
from snapspec.model.values import Kind

STATE = manager()
FINALIZES, DROPS = Declared(commit_keeps_lists=False), Declared(release_drops_pair=True)


def after(state: RefState, *calls: RefOperation) -> RefState:
    """The state after calls of which each has one outcome."""
    for call in calls:
        state = only_ref(state, call).state
    return state


def step(state: RefState, op: RefOperation | ref_ops.RefStep) -> RefOutcome:
    """The one thing that may happen next."""
    (outcome,) = steps(state, op)
    return outcome


def changed(state: RefState, before: RefState = STATE) -> set[str]:
    """The ids of the records that are not what they were."""
    return {name for name in {*state.records, *before.records} if state.records.get(name) != before.records.get(name)}


def test_the_manager_of_these_tests_can_be() -> None:
    assert well_formed(STATE)
    assert well_formed(manager(closed=True))


# --- new


def test_new_over_nothing() -> None:
    """REF-NEW-1, REF-HANDLE-1."""
    outcome = only_ref(STATE, ref_ops.New("n", "h"))
    assert outcome.reply == GivesHandle("h", "n")
    assert outcome.state.records["n"] == Record(mutable=True)
    assert outcome.state.handles == HANDLES.set("h", Handle("n", True))
    assert outcome.state.driver.snapshots == SNAPSHOTS.set("n", Snapshot(Kind.ACTIVE, tree=EMPTY))
    assert changed(outcome.state) == {"n"}


def test_new_over_a_pair_makes_its_e_final() -> None:
    """REF-NEW-2, REF-FINAL-1: M is gone, the child begins as E."""
    state = only_ref(STATE, ref_ops.New("n", "h", "h_held_e")).state
    assert state.records["n"] == Record(mutable=True, parent="held_e")
    assert state.records["held_e"] == Record(mutable=False)
    assert changed(state) == {"n", "held_e", "held_m"}
    assert state.driver.snapshots["held_e"].kind is Kind.COMMITTED
    assert content(state, "n") == content(state, "held_e") == FILE


def test_new_over_a_final_record_changes_no_other() -> None:
    """REF-NEW-2, REF-NEW-4."""
    state = only_ref(STATE, ref_ops.New("n", "h", "h_base")).state
    assert changed(state) == {"n"}
    idle = after(state, *(ref_ops.Release(handle) for handle in state.handles if handle != "h"), ref_ops.Prune())
    assert set(idle.records) == {"n", "base"}, "the parent's handle is released, and the child holds it"


def test_a_child_may_have_a_root_of_its_own() -> None:
    """REF-NEW-2, SNAP-CONTENT-5: a driver that takes the owner alone gives it another mode."""
    narrow = outcomes_of(EMPTY, FILE, SetMode("", 0o700))[0].tree
    driver = State(Map({"e": Snapshot(Kind.COMMITTED, tree=narrow)}), Profile(root=RootMetadata.OWNER))
    state = RefState(Map({"e": Record(mutable=False)}), Map({"h": Handle("e", False)}), driver)
    child = content(only_ref(state, ref_ops.New("n", "hn", "h")).state, "n")
    assert (child.nodes[""].mode, narrow.nodes[""].mode) == (0o755, 0o700)
    assert child.nodes.without("") == narrow.nodes.without("")


# --- commit, get, get_mutable


def test_commit_makes_a_pair() -> None:
    """REF-COMMIT-1, REF-COMMIT-2, REF-COMMIT-3, REF-PAIR-1: one snapshot, which the driver knows by M's id."""
    outcome = only_ref(STATE, ref_ops.Commit("h_child", "e", "h"))
    state = outcome.state
    assert outcome.reply == GivesHandle("h", "e")
    assert (state.records["child"], state.records["e"]) == (Record(True, "base", "e"), Record(False, "base", "child"))
    assert (is_open(state, "h_child"), is_open(state, "h"), held(state, "child")) == (False, True, False)
    assert state.driver is STATE.driver
    assert snapshot_of(state, "e") == snapshot_of(state, "child") == "child"
    assert content(state, "e") == FILE


def test_a_handle_that_was_consumed_does_nothing_any_more() -> None:
    """REF-HANDLE-3, REF-HANDLE-4, REF-HANDLE-5: M goes to another owner, and the old handle disturbs nobody."""
    state = after(STATE, ref_ops.Commit("h_open", "e", "h"), ref_ops.Release("h"), ref_ops.GetMutable("open", "again"))
    assert only_ref(state, ref_ops.Release("h_open")).state is state
    assert only_ref(state, ref_ops.Release("h")).state is state
    assert only_ref(state, ref_ops.Size("h_open")).reply == RefRefused(RefError.INVALID)
    assert only_ref(state, ref_ops.Parent("h", "p")).reply == RefRefused(RefError.INVALID), "its record is gone"
    assert state.handles["h"].record == "e"
    assert is_open(state, "again")


def test_get_of_an_immutable_record_gives_any_number_of_handles() -> None:
    """REF-GET-1, REF-HANDLE-1."""
    state = after(STATE, ref_ops.Get("held_e", "h1", "x"), ref_ops.Get("held_e", "h2", "y"))
    assert [name for name, handle in state.handles.items() if handle.record == "held_e"] == ["h_held_e", "h1", "h2"]
    assert changed(state) == set()


def test_get_of_an_idle_m_commits_it_or_gives_the_e_that_is_there() -> None:
    """REF-GET-3, REF-GET-4."""
    made = only_ref(STATE, ref_ops.Get("idle", "h", "e"))
    assert made.reply == GivesHandle("h", "e")
    assert changed(made.state) == {"idle", "e"}
    there = only_ref(STATE, ref_ops.Get("rest_m", "h", "e"))
    assert there.reply == GivesHandle("h", "rest_e")
    assert changed(there.state) == set()


def test_get_of_an_m_whose_e_is_held_has_two_answers() -> None:
    """REF-GET-3: the handle, or Locked."""
    gives, locked = outcomes(STATE, ref_ops.Get("held_m", "h", "e"))
    assert gives.reply == GivesHandle("h", "held_e")
    assert (locked.reply, locked.state) == (RefRefused(RefError.LOCKED), STATE)


def test_get_mutable_takes_the_pair_apart() -> None:
    """REF-MUT-3: E's id is NotFound from then on, by every path; its size goes with it."""
    outcome = only_ref(STATE, ref_ops.GetMutable("rest_m", "h"))
    assert outcome.reply == GivesHandle("h", "rest_m")
    assert changed(outcome.state) == {"rest_m", "rest_e"}
    assert outcome.state.records["rest_m"] == Record(True, "base")
    assert outcome.state.driver is STATE.driver
    for call in (ref_ops.Get("rest_e", "g", "x"), ref_ops.GetMutable("rest_e", "g")):
        assert only_ref(outcome.state, call).reply == RefRefused(RefError.NOT_FOUND)
    again = only_ref(after(outcome.state, ref_ops.Commit("h", "e2", "h2")), ref_ops.Size("h2")).state.records["e2"]
    assert again.size is None, "another E, another size"


def test_the_life_of_a_pair() -> None:
    """REF-PAIR-1: written, committed, taken up, written on, committed, final; each content at its time."""
    write = ref_ops.Write("h1", (MakeFile("g", b"1"),))
    state = after(STATE, ref_ops.New("m", "h1"), write, ref_ops.Commit("h1", "e1", "h2"))
    first = content(state, "e1")
    state = after(state, ref_ops.Release("h2"), ref_ops.GetMutable("m", "h3"))
    state = after(state, ref_ops.Write("h3", (Truncate("g", 0),)), ref_ops.Commit("h3", "e2", "h4"))
    assert content(state, "e2") != first
    state = after(state, ref_ops.Finalize("h4"))
    assert {name for name in state.records if name not in RECORDS} == {"e2"}
    assert only_ref(state, ref_ops.GetMutable("m", "h")).reply == RefRefused(RefError.NOT_FOUND)
    state = after(state, ref_ops.New("c", "h5", "h4"), ref_ops.Write("h5", (Truncate("g", 5),)))
    assert content(state, "e2") == content(after(state, ref_ops.Read("h4")), "e2") != content(state, "c")


# --- finalize, release, parent, size


def test_finalize_is_atomic_and_may_be_repeated() -> None:
    """REF-FINAL-1, REF-FINAL-2."""
    outcome = only_ref(STATE, ref_ops.Finalize("h_held_e"))
    assert (outcome.reply, outcome.clause) == (RefDone(), "REF-FINAL-1")
    assert changed(outcome.state) == {"held_m", "held_e"}
    again = only_ref(outcome.state, ref_ops.Finalize("h_held_e"))
    assert (again.reply, again.clause) == (RefDone(), "REF-FINAL-2")
    assert again.state is outcome.state


def test_finalize_keeps_a_size_that_was_told() -> None:
    """REF-SIZE-1: with E's record, whatever becomes of the pair but get_mutable."""
    state = after(STATE, ref_ops.Get("rest_e", "h", "x"), ref_ops.Finalize("h"), ref_ops.Restart())
    assert state.records["rest_e"] == Record(False, "base", size=7)


@pytest.mark.parametrize("handle", ["h_open", "h_child", "h_held_e", "h_base"])
def test_release_closes_one_handle_and_nothing_else(handle: str) -> None:
    """REF-HANDLE-2, REF-HANDLE-3."""
    outcome = only_ref(STATE, ref_ops.Release(handle))
    assert (outcome.reply, outcome.clause) == (RefDone(), "REF-HANDLE-2")
    assert outcome.state == replace(STATE, handles=HANDLES.set(handle, replace(HANDLES[handle], open=False)))
    again = only_ref(outcome.state, ref_ops.Release(handle))
    assert (again.reply, again.clause, again.state) == (RefDone(), "REF-HANDLE-3", outcome.state)


def test_a_pair_may_go_with_its_last_handle() -> None:
    """REF-PAIR-1: as declared; not with the last but one, nor a final E, nor an M."""
    state = after(manager(declared=DROPS), ref_ops.Get("held_e", "h", "x"), ref_ops.Release("h_held_e"))
    assert changed(state) == set()
    outcome = only_ref(state, ref_ops.Release("h"))
    assert (outcome.reply, outcome.clause) == (RefDone(), "REF-PAIR-1")
    assert changed(outcome.state) == {"held_m", "held_e"}
    assert outcome.state.driver.snapshots == SNAPSHOTS.without("held_m")
    rest = after(outcome.state, *map(ref_ops.Release, ("h_open", "h_base", "h_child")))
    assert changed(rest) == {"held_m", "held_e"}


def test_parent() -> None:
    """REF-PARENT-1: of either kind, also when nobody else has a handle on it."""
    state = after(STATE, ref_ops.Release("h_base"), ref_ops.Get("rest_e", "g", "x"))
    for handle in ("h_child", "g"):
        outcome = only_ref(state, ref_ops.Parent(handle, "h"))
        assert outcome.reply == GivesHandle("h", "base")
        assert outcome.state == replace(state, handles=state.handles.set("h", Handle("base", False)))
    for handle in ("h_open", "h_held_e"):
        assert only_ref(state, ref_ops.Parent(handle, "h")) == RefOutcome("REF-PARENT-1", NoHandle(), state)


@pytest.mark.parametrize(("handle", "clause"), [("h_open", "REF-SIZE-6"), ("h_held_e", "REF-SIZE-1"), ("h_base", "REF-SIZE-1")])
def test_size_is_of_the_record_that_the_handle_is_on(handle: str, clause: str) -> None:
    outcome = only_ref(STATE, ref_ops.Size(handle))
    assert outcome == RefOutcome(clause, TellsSize(HANDLES[handle].record), STATE)


# --- mounts and content

MOUNTS = [
    # handle, declared, readonly: writable, the clause, whether E is final then
    ("h_open", Declared(), True, False, "REF-MOUNT-1", False),
    ("h_open", Declared(), False, True, "REF-MOUNT-1", False),
    ("h_open", FINALIZES, True, False, "REF-MOUNT-1", False),
    ("h_held_e", Declared(), True, False, "REF-MOUNT-4", False),
    ("h_held_e", Declared(), False, False, "REF-MOUNT-3", True),
    ("h_held_e", FINALIZES, True, False, "REF-MOUNT-4", True),
    ("h_held_e", FINALIZES, False, False, "REF-MOUNT-3", True),
    ("h_base", Declared(), True, False, "REF-MOUNT-5", False),
    ("h_base", FINALIZES, False, False, "REF-MOUNT-5", False),
]


@pytest.mark.parametrize(("handle", "declared", "readonly", "writable", "clause", "final"), MOUNTS)
def test_mount(handle: str, declared: Declared, readonly: bool, writable: bool, clause: str, final: bool) -> None:
    """REF-MOUNT-1 to REF-MOUNT-5."""
    before = manager(declared=declared)
    outcome = only_ref(before, ref_ops.Mount(handle, readonly))
    assert (outcome.reply, outcome.clause) == (GivesList(HANDLES[handle].record, writable), clause)
    assert changed(outcome.state) == ({"held_m", "held_e"} if final else set())
    assert final or outcome.state is before


def test_writing_through_the_list_of_m_changes_its_content_and_no_other() -> None:
    """REF-MOUNT-1, REF-MOUNT-6."""
    outcome = only_ref(STATE, ref_ops.Write("h_child", (MakeFile("g", b"1"), MakeFile("f", b"2"))))
    assert outcome.reply == ChangedThrough("child", (frozenset({"ok"}), frozenset({"EEXIST"})))
    assert set(content(outcome.state, "child").nodes) == {"", "f", "g"}
    assert all(content(outcome.state, name) == content(STATE, name) for name in RECORDS if name != "child")


@pytest.mark.parametrize(("handle", "record"), [("h_held_e", "held_e"), ("h_base", "base")])
def test_writing_through_the_list_of_e_changes_nothing(handle: str, record: str) -> None:
    """REF-MOUNT-2, REF-COMMIT-3: what would do something meets EROFS, or the error that it would have met anyway."""
    outcome = only_ref(STATE, ref_ops.Write(handle, (MakeFile("g", b"1"), MakeFile("f", b"2"))))
    assert outcome.reply == ChangedThrough(record, (frozenset({"EROFS"}), frozenset({"EROFS", "EEXIST"})))
    assert content(outcome.state, record) == FILE
    assert outcome.state.records[record].equal == ""


def test_a_record_may_have_any_id() -> None:
    """REF-ERROR-3: no id has a meaning, those among them that the model itself gives snapshots of a while."""
    state = after(RefState(), *(call for name in ("view", "base") for call in _final(name)))
    for name in ("view", "base"):
        words = only_ref(state, ref_ops.Write(f"h_{name}", (MakeFile("g", b""),))).reply
        assert words == ChangedThrough(name, (frozenset({"EROFS"}),))


def _final(name: str) -> tuple[RefOperation, ...]:
    made = (ref_ops.New(f"m_{name}", f"hm_{name}"), ref_ops.Commit(f"hm_{name}", name, f"h_{name}"))
    return (*made, ref_ops.Finalize(f"h_{name}"))


def test_reading() -> None:
    """REF-COMMIT-3, REF-MOUNT-4: finalizes where commit does not keep lists."""
    for handle, record, clause in (("h_open", "open", "REF-MOUNT-1"), ("h_held_e", "held_e", "REF-COMMIT-3")):
        assert only_ref(STATE, ref_ops.Read(handle)) == RefOutcome(clause, ShowsTree(record), STATE)
    assert changed(only_ref(manager(declared=FINALIZES), ref_ops.Read("h_held_e")).state) == {"held_m", "held_e"}


# --- disk_usage, prune


def test_the_rows_of_disk_usage() -> None:
    """REF-USAGE-1, REF-USAGE-2, REF-USAGE-3, REF-PAIR-3."""
    outcome = only_ref(STATE, ref_ops.DiskUsage())
    assert outcome.state is STATE
    assert isinstance(outcome.reply, ListsRows)
    assert set(outcome.reply.rows) == {
        Row("open", "", mutable=True, in_use=True, size=0),
        Row("idle", "", mutable=True, in_use=False, size=None),
        Row("held_e", "", mutable=False, in_use=True, size=None),
        Row("rest_m", "base", mutable=True, in_use=False, size=None),
        Row("leaf", "", mutable=False, in_use=False, size=5),
        Row("base", "", mutable=False, in_use=True, size=None),
        Row("child", "base", mutable=True, in_use=True, size=0),
    }


def test_a_parent_is_in_use_for_its_child_and_no_longer() -> None:
    """REF-USAGE-2: through any number of generations."""
    state = after(STATE, ref_ops.Commit("h_child", "e", "h"), ref_ops.New("grandchild", "g", "h"))
    state = after(state, ref_ops.Release("h"), ref_ops.Release("h_base"))
    assert all(in_use(state, name) for name in ("grandchild", "e", "base"))
    assert family(state, "base") == {"base", "e", "grandchild", "rest_m", "rest_e"}
    state = after(state, ref_ops.Release("g"))
    assert not any(in_use(state, name) for name in ("grandchild", "e", "base"))


def test_prune_takes_what_is_idle_and_reports_each_snapshot_once() -> None:
    """REF-PRUNE-1, REF-PRUNE-3, REF-PAIR-3: the bytes of a pair once, where they are known."""
    outcome = only_ref(STATE, ref_ops.Prune())
    assert isinstance(outcome.reply, Pruned)
    rows = [(frozenset({"idle"}), None), (frozenset({"rest_m", "rest_e"}), 7), (frozenset({"leaf"}), 5)]
    assert set(outcome.reply.removed) == set(rows)
    assert len(outcome.reply.removed) == 3
    assert changed(outcome.state) == {"idle", "rest_m", "rest_e", "leaf"}
    assert outcome.state.driver.snapshots == SNAPSHOTS.without("idle", "rest_m", "leaf")


def test_prune_takes_children_first_and_then_their_parents() -> None:
    """REF-PRUNE-1, REF-LEAK-1: when all is released nothing is left."""
    state = after(STATE, *map(ref_ops.Release, HANDLES))
    outcome = only_ref(state, ref_ops.Prune())
    assert isinstance(outcome.reply, Pruned)
    order = [next(iter(sorted(ids))) for ids, _ in outcome.reply.removed]
    assert order.index("base") > max(order.index("child"), order.index("rest_e"))
    assert (len(outcome.state.records), len(outcome.state.driver.snapshots)) == (0, 0)


# --- close, restart


def test_close_keeps_the_records_and_no_handle() -> None:
    """REF-CLOSE-1: a second close does nothing more; a release after it neither."""
    state = only_ref(STATE, ref_ops.Close()).state
    assert state == manager(closed=True)
    assert only_ref(state, ref_ops.Close()).state == state
    assert only_ref(state, ref_ops.Release("h_open")).state is state


@pytest.mark.parametrize("orderly", [False, True])
def test_a_restart_brings_every_record_back(orderly: bool) -> None:
    """REF-OPEN-1: after close as after a crash; pairs are idle, handles are not open, nothing is claimed."""
    before = replace(STATE, claimed=("base",))
    state = after(before, *([ref_ops.Close()] if orderly else []), ref_ops.Restart())
    assert state == replace(STATE, handles=Map((name, replace(handle, open=False)) for name, handle in HANDLES.items()))
    assert only_ref(state, ref_ops.GetMutable("held_m", "h")).reply == GivesHandle("h", "held_m")
    assert only_ref(state, ref_ops.Size("h_open")).reply == RefRefused(RefError.INVALID)
    assert only_ref(state, ref_ops.New("n", "h", "h_base")).reply == RefRefused(RefError.INVALID)


# --- calls in steps


def test_new_claims_its_parent_until_the_child_holds_it() -> None:
    """REF-NEW-2, REF-NEW-4: released meanwhile, pruned meanwhile."""
    first = step(STATE, ref_ops.New("n", "h", "h_held_e"))
    assert first.rest == ref_ops.MakeOver("n", "h", "held_e")
    assert changed(first.state) == {"held_m", "held_e"}
    state = after(first.state, ref_ops.Release("h_held_e"), ref_ops.Prune())
    assert not in_use(state, "held_e")
    assert not is_free(state, "held_e")
    assert "held_e" in state.records
    second = step(state, first.rest)
    assert (second.reply, second.rest, second.state.claimed) == (GivesHandle("h", "n"), None, ())
    assert in_use(second.state, "held_e")


def test_two_that_build_on_one_parent_claim_it_twice() -> None:
    """REF-NEW-4."""
    one = step(STATE, ref_ops.New("n", "h", "h_base"))
    two = step(one.state, ref_ops.New("o", "g", "h_base"))
    assert two.state.claimed == ("base", "base")
    assert one.rest is not None
    left = step(two.state, one.rest).state
    assert left.claimed == ("base",)
    released = after(left, *map(ref_ops.Release, left.handles), ref_ops.Prune())
    assert set(released.records) == {"base"}, "its children may go"


def test_new_is_refused_in_its_second_part_when_the_manager_is_closed() -> None:
    """REF-POINT-2, REF-CLOSE-1: E is final then, and no more."""
    first = step(STATE, ref_ops.New("n", "h", "h_held_e"))
    assert first.rest is not None
    closed = after(first.state, ref_ops.Close())
    second = step(closed, first.rest)
    assert (second.clause, second.reply) == ("REF-CLOSE-1", RefRefused(RefError.CLOSED))
    assert second.state == replace(closed, claimed=())
    assert changed(second.state) == {"held_m", "held_e"}
    later = step(after(closed, ref_ops.Restart()), first.rest)
    assert later.reply == RefRefused(RefError.CLOSED), "the manager that it was called on is gone"
    assert (later.state.closed, later.state.claimed) == (False, ())


def test_a_mount_that_finalizes_needs_its_handle_twice() -> None:
    """REF-MOUNT-3, REF-POINT-2: released between its steps, it is refused, and E is final."""
    for op in (ref_ops.Mount("h_held_e", readonly=False), ref_ops.Write("h_held_e", ())):
        first = step(STATE, op)
        assert first.rest == ref_ops.ListFinal(op)
        assert changed(first.state) == {"held_m", "held_e"}
        assert step(first.state, first.rest).state is first.state
        released = after(first.state, ref_ops.Release("h_held_e"))
        assert step(released, first.rest).reply == RefRefused(RefError.INVALID)
    assert step(STATE, ref_ops.Mount("h_held_e", readonly=True)).rest is None
    assert step(STATE, ref_ops.Read("h_held_e")).rest is None
    assert step(manager(declared=FINALIZES), ref_ops.Read("h_held_e")).rest == ref_ops.ListFinal(ref_ops.Read("h_held_e"))


def test_a_call_beside_close_may_find_its_handle_closed() -> None:
    """REF-CLOSE-1: Closed or Invalid, where a call that begins later gets Closed."""
    closed = manager(closed=True)
    words = {o.reply for op in (ref_ops.Size("h_open"), ref_ops.Write("h_base", ())) for o in steps(closed, op)}
    assert words == {RefRefused(RefError.CLOSED), RefRefused(RefError.INVALID)}
    assert {o.reply for o in steps(closed, ref_ops.DiskUsage())} == {RefRefused(RefError.CLOSED)}
    assert {o.reply for o in steps(closed, ref_ops.Prune())} == {RefRefused(RefError.CLOSED)}


# --- prune, step by step


def ends(found: tuple[RefOutcome, ...]) -> list[RefOutcome]:
    return [outcome for outcome in found if outcome.rest is None]


def removal_of(name: str, found: tuple[RefOutcome, ...]) -> RefOutcome:
    """The step that removes this record."""
    return next(outcome for outcome in found if name not in outcome.state.records)


def test_prune_goes_on_until_nothing_is_left_that_was_idle_all_the_time() -> None:
    """REF-PRUNE-1: any order; not at an end before."""
    found = steps(STATE, ref_ops.Prune())
    assert {frozenset(changed(outcome.state)) for outcome in found} == {
        frozenset({"idle"}),
        frozenset({"rest_m", "rest_e"}),
        frozenset({"leaf"}),
    }
    first = removal_of("leaf", found)
    assert isinstance(first.rest, ref_ops.PruneOn)
    assert not ends(steps(first.state, first.rest))
    second = removal_of("idle", steps(first.state, first.rest))
    assert second.rest is not None
    last = removal_of("rest_e", steps(second.state, second.rest))
    assert last.rest is not None
    (end,) = steps(last.state, last.rest)
    assert isinstance(end.reply, Pruned)
    assert [sorted(ids) for ids, _ in end.reply.removed] == [["idle"], ["leaf"], ["rest_e", "rest_m"]]


def test_prune_may_leave_or_take_what_was_in_use_meanwhile() -> None:
    """REF-PRUNE-1: an idle record that got a handle, also one that is released by now."""
    only = manager(*(RECORDS.keys() - {"leaf"}), *HANDLES)
    started = ref_ops.PruneOn((), ("leaf",), frozenset())
    assert not ends(steps(only, started))
    taken = after(only, ref_ops.Get("leaf", "h", "x"))
    assert len(steps(taken, started)) == len(ends(steps(taken, started))) == 1
    given_back = after(taken, ref_ops.Release("h"))
    assert len(steps(given_back, started)) == 2
    assert len(ends(steps(given_back, started))) == 1


def test_a_record_is_in_use_for_a_child_that_is_gone_by_now() -> None:
    """REF-PRUNE-1, REF-USAGE-2: a handle on the child was one on its parent, also after another prune took the child."""
    names = frozenset(HANDLES)
    assert idle_since(STATE, "base", names)
    assert not idle_since(STATE, "base", names - {"h_child"})
    assert not idle_since(STATE, "base", names - {"h_base"})
    assert idle_since(STATE, "base", names - {"h_open", "h_held_e"})
    state = after(STATE, *map(ref_ops.Release, HANDLES), ref_ops.Get("rest_m", "late", "x"), ref_ops.Release("late"))
    assert idle_since(state, "leaf", names)
    assert not idle_since(state, "rest_e", names)
    child_gone = removal_of("rest_e", steps(state, ref_ops.Prune())).state
    assert not idle_since(child_gone, "base", names)


def test_what_may_go_is_idle_unclaimed_and_without_children() -> None:
    """REF-PRUNE-1, REF-NEW-4."""
    assert {name for name in RECORDS if removable(STATE, name)} == {"idle", "rest_m", "rest_e", "leaf"}
    idle = after(STATE, *map(ref_ops.Release, HANDLES))
    assert {name for name in RECORDS if not removable(idle, name)} == {"base"}
    assert not removable(ref_changes.claimed(idle, "leaf"), "leaf")
    assert removable(ref_changes.unclaimed(ref_changes.claimed(idle, "leaf"), "leaf"), "leaf")


# --- properties


def test_no_state_that_cannot_be_is_looked_at() -> None:
    broken = [
        replace(STATE, records=RECORDS.set("open", Record(True, size=3))),
        replace(STATE, claimed=("held_e",)),
        replace(STATE, claimed=("gone",)),
        replace(STATE, closed=True),
        replace(STATE, driver=STATE.driver.drop("leaf")),
        replace(STATE, driver=STATE.driver.put("leaf", Snapshot(Kind.ACTIVE))),
        replace(STATE, records=RECORDS.without("rest_e")),
    ]
    for state in broken:
        assert not well_formed(state)
        with pytest.raises(icontract.ViolationError):
            outcomes(state, ref_ops.Prune())


@given(ref_histories())
def test_a_refused_call_changes_nothing(history: list[tuple[RefState, RefOperation]]) -> None:
    """REF-ERROR-4; and nothing that is not refused gives up a handle, an id, or a content that is fixed."""
    for state, op in history:
        for outcome in outcomes(state, op):
            after_it = outcome.state
            if isinstance(outcome.reply, RefRefused):
                assert after_it is state
            assert all(after_it.handles[name].record == handle.record for name, handle in state.handles.items())
            for name in state.records.keys() & after_it.records.keys():
                was, now = state.records[name], after_it.records[name]
                assert (now.mutable, now.parent, now.size) == (was.mutable, was.parent, was.size)
                assert was.mutable or content(after_it, name) == content(state, name)


@given(ref_histories())
def test_what_is_released_and_pruned_leaves_nothing(history: list[tuple[RefState, RefOperation]]) -> None:
    """REF-LEAK-1: whatever the history, with a restart or without."""
    for state, _ in history[-1:]:
        opened = after(state, ref_ops.Restart()) if state.closed else state
        left = after(opened, *map(ref_ops.Release, opened.handles), ref_ops.Prune())
        assert (len(left.records), len(left.driver.snapshots)) == (0, 0)
        assert not any(handle.open for handle in left.handles.values())
