"""What each call does when it is not refused: the record, its labels and times, its content, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import icontract
import pytest
from hypothesis import given
from hypothesis import strategies as st
from states import DIRECT, METADATA, only, store, word

from snapspec.model import ops
from snapspec.model.explore import Universe, operations
from snapspec.model.guards import Rebase
from snapspec.model.ops import Operation
from snapspec.model.replies import Changed, Done, Gives, Lists, Measures, Refused, Reply, Shows, Tells
from snapspec.model.snapshots import GC_ROOT, LABEL_LIMIT, outcomes
from snapspec.model.state import Profile, RootMetadata, Snapshot, Span, State, well_formed
from snapspec.model.tree import (
    EMPTY,
    Change,
    Link,
    MakeDirectory,
    MakeFile,
    Rename,
    SetMode,
    SetOwner,
    SetXattr,
    Tree,
    Truncate,
    Unlink,
    outcomes_of,
)
from snapspec.model.values import Kind, Labels

AT = Span(10, 20)


def grown(*changes: Change, tree: Tree = EMPTY) -> Tree:
    """The tree after `changes`, each of which works."""

    def after(tree: Tree, change: Change) -> Tree:
        applied = outcomes_of(EMPTY, tree, change)[0]
        assert applied.result == "ok"
        return applied.tree

    return reduce(after, changes, tree)


FILE = grown(MakeFile("f", b"x"))
OWNED = grown(SetMode("", 0o700), SetOwner("", 7, 8), SetXattr("", "user.a", b"1"), MakeFile("f", b"x"))
COMMITTED = Snapshot(Kind.COMMITTED, tree=FILE)

# --- prepare and view


@pytest.mark.parametrize("call", [ops.Prepare, ops.View])
def test_a_new_snapshot_has_what_was_given_and_nothing_else(call: type[ops.Prepare]) -> None:
    """SNAP-PREPARE-6, SNAP-VIEW-5, SNAP-LABEL-2, SNAP-TIME-1, SNAP-TIME-2: its record is there at once."""
    state = store(base=replace(COMMITTED, labels=(("of", "parent"),)))
    outcome = only(state, call("k", "base", (("b", "2"), ("empty", ""), ("a", "1"))), AT)
    kind = Kind.ACTIVE if call is ops.Prepare else Kind.VIEW
    assert outcome.reply == Gives("k")
    assert outcome.state == state.put("k", Snapshot(kind, "base", (("a", "1"), ("b", "2")), AT, None, FILE))


@pytest.mark.parametrize("call", [ops.Prepare, ops.View])
def test_a_snapshot_without_a_parent_begins_empty(call: type[ops.Prepare]) -> None:
    """SNAP-CONTENT-6, SNAP-VIEW-5: mode 0755, owned by root."""
    made = only(store(), call("k"), AT).state.snapshots["k"]
    assert (made.parent, made.tree) == ("", EMPTY)
    assert (EMPTY.nodes[""].mode, EMPTY.nodes[""].uid, EMPTY.nodes[""].gid) == (0o755, 0, 0)


def test_an_active_root_takes_all_of_its_parents_or_the_owner_alone() -> None:
    """SNAP-CONTENT-5: as declared; a view shows its parent's root either way."""
    base = replace(COMMITTED, tree=OWNED)
    for root, mode, xattrs in ((RootMetadata.FULL, 0o700, (("user.a", b"1"),)), (RootMetadata.OWNER, 0o755, ())):
        state = store(replace(DIRECT, root=root), base=base)
        tree = only(state, ops.Prepare("k", "base")).state.snapshots["k"].tree
        assert (tree.nodes[""].mode, tree.nodes[""].xattrs) == (mode, xattrs)
        assert (tree.nodes[""].uid, tree.nodes[""].gid) == (7, 8)
        assert tree.nodes.without("") == OWNED.nodes.without("")
        assert only(state, ops.View("v", "base")).state.snapshots["v"].tree == OWNED


@pytest.mark.parametrize("gone", [ops.Remove("k"), ops.Commit("done", "k")])
@pytest.mark.parametrize("call", [ops.Prepare, ops.View])
def test_a_life_leaves_nothing_to_the_next(gone: ops.Remove | ops.Commit, call: type[ops.Prepare]) -> None:
    """SNAP-KEY-3, SNAP-REMOVE-3: the key is free at once, and what is made under it is like new."""
    lived = Snapshot(Kind.ACTIVE, "", (("a", "1"),), Span(1, 1), Span(2, 2), FILE, frozenset({"", "f"}), (), None)
    after = only(store(k=lived), gone).state
    made = only(after, call("k"), AT).state.snapshots["k"]
    assert made == only(store(other=lived), call("k"), AT).state.snapshots["k"]


# --- commit


def test_commit_turns_the_key_into_the_name() -> None:
    """SNAP-COMMIT-8 to SNAP-COMMIT-11: same parent and content; labels of this call; its own time; nothing learned before."""
    active = Snapshot(Kind.ACTIVE, "base", (("old", "1"),), Span(1, 1), Span(2, 2), OWNED, frozenset({"f"}), (), None)
    state = store(base=COMMITTED, k=active)
    outcome = only(state, ops.Commit("n", "k", (("new", "2"), ("empty", ""))), AT)
    committed = Snapshot(Kind.COMMITTED, "base", (("new", "2"),), AT, None, OWNED, frozenset({"f"}))
    assert outcome.reply == Done()
    assert outcome.state == store(base=COMMITTED, n=committed)


def test_a_merged_layer_stands_on_the_parent_given_at_commit() -> None:
    """SNAP-COMMIT-7: its own files over the parent's, and the parent's where it has none."""
    base = replace(
        COMMITTED, tree=grown(MakeFile("below", b"1"), MakeFile("both", b"2"), MakeDirectory("d"), MakeFile("d/x", b"3"))
    )
    own = grown(MakeFile("own", b"4"), MakeFile("both", b"5"), MakeDirectory("d"), MakeFile("d/y", b"6"))
    state = store(replace(DIRECT, rebase=Rebase.MERGED), base=base, k=Snapshot(Kind.ACTIVE, tree=own))
    merged = only(state, ops.Commit("n", "k", (), "base")).state.snapshots["n"]
    assert merged.parent == "base"
    assert merged.tree == grown(
        MakeFile("own", b"4"), MakeFile("d/y", b"6"), Unlink("both"), MakeFile("both", b"5"), tree=base.tree
    )


@pytest.mark.parametrize("rebase", Rebase)
@pytest.mark.parametrize("asked", ["", "base"])
def test_the_parent_that_a_key_has_may_be_named_at_commit(rebase: Rebase, asked: str) -> None:
    """SNAP-COMMIT-6: only one that differs is refused."""
    state = store(replace(DIRECT, rebase=rebase), base=COMMITTED, k=Snapshot(Kind.ACTIVE, "base", tree=FILE))
    assert only(state, ops.Commit("n", "k", (), asked)).state.snapshots["n"] == replace(COMMITTED, parent="base")


# --- remove


@pytest.mark.parametrize("key", ["active", "view", "leaf", "child", "window", "top"])
def test_remove_touches_no_other_snapshot(key: str) -> None:
    """SNAP-REMOVE-3, SNAP-REMOVE-4: of any kind, with a parent or without."""
    outcome = only(store(), ops.Remove(key))
    assert outcome.reply == Done()
    assert dict(outcome.state.snapshots) == {k: s for k, s in store().snapshots.items() if k != key}


def test_a_parent_can_go_when_its_children_are_gone() -> None:
    """SNAP-REMOVE-2, SNAP-REMOVE-3."""
    state = store()
    for key in ("child", "window", "top", "base"):
        state = only(state, ops.Remove(key)).state
    assert sorted(state.snapshots) == ["active", "leaf", "view"]


# --- looking


@pytest.mark.parametrize("key", ["active", "view", "leaf"])
def test_looking_changes_nothing(key: str) -> None:
    """SNAP-STAT-1, SNAP-MOUNTS-3, SNAP-USAGE-4, SNAP-CONTENT-1, SNAP-WALK-1."""
    state = store()
    replies: dict[Operation, Reply] = {
        ops.Stat(key): Tells(key),
        ops.Usage(key): Measures(key),
        ops.Walk(): Lists(tuple(state.snapshots)),
    }
    if key != "leaf":
        replies |= {ops.Mounts(key): Gives(key), ops.Read(key): Shows(key), ops.Read(key, held=True): Shows(key)}
    for op, reply in replies.items():
        outcome = only(state, op)
        assert outcome.reply == reply
        assert outcome.state is state


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (("",), ["active", "base", "child", "leaf", "top", "view", "window"]),
        (("kind==active",), ["active", "child"]),
        (("kind==active,parent==base",), ["child"]),
        (("kind==active", "parent==base"), ["active", "child", "top", "window"]),
        (("name==leaf", "name==leaf", "kind==committed"), ["base", "leaf", "top"]),
        (('parent==""', "name==absent"), ["active", "base", "leaf", "view"]),
        (("absent",), []),
        (("absent!=1", "name==leaf"), ["active", "base", "child", "leaf", "top", "view", "window"]),
    ],
)
def test_walk_gives_what_matches_one_of_the_filters_once(texts: tuple[str, ...], names: list[str]) -> None:
    """SNAP-WALK-2: a union of conjunctions."""
    outcome = only(store(), ops.Walk(texts))
    assert outcome.clause == "SNAP-WALK-2"
    assert isinstance(outcome.reply, Lists)
    assert sorted(outcome.reply.names) == names


def test_walk_filters_by_labels() -> None:
    """SNAP-WALK-2, SNAP-WALK-3."""
    state = store(a=replace(COMMITTED, labels=(("x", "1"),)), b=replace(COMMITTED, labels=(("x", "2"),)), c=COMMITTED)
    listed = {text: only(state, ops.Walk((text,))).reply for text in ("labels.x", "labels.x==1", "labels.x!=1")}
    assert listed == {"labels.x": Lists(("a", "b")), "labels.x==1": Lists(("a",)), "labels.x!=1": Lists(("b", "c"))}


# --- update


@pytest.mark.parametrize(
    ("mask", "given_labels", "labels"),
    [
        ((), (), ()),
        ((), (("b", "2"),), (("b", "2"),)),
        ((), (("b", ""),), ()),
        (("labels",), (("b", "2"),), (("b", "2"),)),
        (("labels.a",), (("a", "9"), ("b", "2")), (("a", "9"), ("x.y/z", "8"))),
        (("labels.a",), (), (("x.y/z", "8"),)),
        (("labels.a",), (("a", ""),), (("x.y/z", "8"),)),
        (("labels.x.y/z",), (("x.y/z", "7"),), (("a", "1"), ("x.y/z", "7"))),
        (("labels.x",), (("x", "7"),), (("a", "1"), ("x", "7"), ("x.y/z", "8"))),
        (("labels.b", "labels.a"), (("b", "2"),), (("b", "2"), ("x.y/z", "8"))),
        (("labels.a", "labels"), (("b", "2"),), (("b", "2"),)),
        (("labels", "labels.a"), (("b", "2"),), (("b", "2"),)),
        (("labels", "labels.a"), (("a", "3"), ("b", "2")), (("a", "3"), ("b", "2"))),
        (("labels.absent",), (), (("a", "1"), ("x.y/z", "8"))),
    ],
)
@pytest.mark.parametrize("kind", Kind)
def test_update_changes_labels_and_the_time_and_nothing_else(
    kind: Kind, mask: tuple[str, ...], given_labels: Labels, labels: Labels
) -> None:
    """SNAP-UPDATE-4 to SNAP-UPDATE-8, SNAP-TIME-4: on all three kinds; what comes along counts for nothing."""
    before = Snapshot(kind, "base", (("a", "1"), ("x.y/z", "8")), Span(1, 1), None, FILE, frozenset({"f"}), (), None)
    state = store(base=COMMITTED, k=before)
    stray = Kind.VIEW if kind is Kind.ACTIVE else Kind.ACTIVE
    outcome = only(state, ops.Update("k", given_labels, mask, "elsewhere", stray), AT)
    assert outcome.reply == Tells("k")
    assert outcome.state == state.put("k", replace(before, labels=labels, updated=AT))


def test_an_update_is_not_earlier_than_its_snapshot() -> None:
    """SNAP-TIME-3: where the calls overlap, the later part of the span is left; where the clock stepped back, one instant."""
    made = replace(COMMITTED, created=Span(15, 30))
    for at, updated in ((Span(10, 20), Span(15, 20)), (Span(40, 50), Span(40, 50)), (Span(1, 2), Span(15, 15))):
        outcome = only(store(k=made), ops.Update("k"), at)
        assert outcome.state.snapshots["k"].updated == updated
        assert well_formed(outcome.state)


# --- the store as a whole


def test_open_and_close_keep_everything() -> None:
    """SNAP-OPEN-1, SNAP-CLOSE-1."""
    state = store()
    for op, clause in ((ops.Reopen(), "SNAP-OPEN-1"), (ops.Reopen(close_twice=True), "SNAP-CLOSE-1")):
        outcome = only(state, op)
        assert (outcome.clause, outcome.reply) == (clause, Done())
        assert outcome.state is state


@pytest.mark.parametrize(
    ("dropped", "gone", "clause"),
    [
        ((), [], "DOOR-GC-2"),
        (("absent",), [], "DOOR-GC-2"),
        (("active",), ["active"], "DOOR-GC-1"),
        (("base",), [], "DOOR-GC-2"),
        (("base", "child", "window"), ["child", "window"], "DOOR-GC-1"),
        (("base", "child", "window", "top"), ["base", "child", "top", "window"], "DOOR-GC-1"),
        (("rooted",), [], "DOOR-GC-2"),
        (("leaf", "rooted"), [], "DOOR-GC-2"),
    ],
)
def test_a_collection_takes_what_nothing_protects(dropped: tuple[str, ...], gone: list[str], clause: str) -> None:
    """DOOR-GC-1, DOOR-GC-2: a label or a protected child keeps a snapshot, and its chain of parents."""
    state = store(METADATA).put("rooted", Snapshot(Kind.VIEW, "leaf", ((GC_ROOT, "now"),)))
    outcome = only(state, ops.Collect(dropped))
    assert (outcome.clause, outcome.reply) == (clause, Done())
    assert sorted(set(state.snapshots) - set(outcome.state.snapshots)) == gone


def test_nothing_is_collected_at_the_direct_door() -> None:
    """DOOR-GC-3."""
    state = store()
    outcome = only(state, ops.Collect(tuple(state.snapshots)))
    assert outcome.clause == "DOOR-GC-3"
    assert outcome.state is state


# --- content


def test_a_write_changes_the_content_and_remembers_what_it_touched() -> None:
    """SNAP-CONTENT-2: each change in order, one word for each; what fails changes nothing."""
    state = store(base=COMMITTED, k=Snapshot(Kind.ACTIVE, "base", tree=FILE))
    changes = (MakeDirectory("d"), MakeFile("d", b""), MakeFile("d/g", b"y"), Unlink("none"))
    outcome = only(state, ops.Write("k", changes))
    words = (frozenset({"ok"}), frozenset({"EEXIST"}), frozenset({"ok"}), frozenset({"ENOENT"}))
    assert outcome.clause == "SNAP-CONTENT-2"
    assert outcome.reply == Changed(words)
    written = outcome.state.snapshots["k"]
    assert written.tree == grown(MakeDirectory("d"), MakeFile("d/g", b"y"), tree=FILE)
    assert {"", "d", "d/g"} <= written.touched
    assert "f" not in written.touched
    assert outcome.state.snapshots["base"] == COMMITTED


def test_a_file_with_several_names_below_may_be_copied_up_under_one() -> None:
    """SNAP-CONTENT-3: two allowed outcomes with the same words; alone in its layer there is one."""
    twins = grown(MakeFile("f", b"x"), Link("g", "f"))
    state = store(base=replace(COMMITTED, tree=twins), k=Snapshot(Kind.ACTIVE, "base", tree=twins))
    plain, broken = outcomes(state, ops.Write("k", (Truncate("f", 0),)))
    assert [plain.clause, broken.clause] == ["SNAP-CONTENT-3"] * 2
    assert plain.reply == broken.reply == Changed((frozenset({"ok"}),))
    assert plain.state.snapshots["k"].tree.nodes["g"].data.size == 0
    assert broken.state.snapshots["k"].tree.nodes["g"].data.size == 1
    assert word(only(store(k=Snapshot(Kind.ACTIVE, tree=twins)), ops.Write("k", (Truncate("f", 0),)))) == "ok"


def test_a_directory_from_below_may_refuse_to_be_renamed() -> None:
    """SNAP-CONTENT-4: EXDEV, and nothing changed; later changes go on from either tree."""
    tree = grown(MakeDirectory("d"))
    state = store(base=replace(COMMITTED, tree=tree), k=Snapshot(Kind.ACTIVE, "base", tree=tree))
    moved, stayed = outcomes(state, ops.Write("k", (Rename("d", "e"), MakeDirectory("d"))))
    assert (moved.clause, moved.reply) == ("SNAP-CONTENT-2", Changed((frozenset({"ok"}), frozenset({"ok"}))))
    assert (stayed.clause, stayed.reply) == ("SNAP-CONTENT-4", Changed((frozenset({"EXDEV"}), frozenset({"EEXIST"}))))
    assert sorted(moved.state.snapshots["k"].tree.nodes) == ["", "d", "e"]
    assert stayed.state.snapshots["k"].tree == tree


def test_branches_that_end_alike_are_one_outcome() -> None:
    """SNAP-CONTENT-3: a freedom that leaves no trace is none."""
    twins = grown(MakeFile("f", b"x"), Link("g", "f"))
    state = store(base=replace(COMMITTED, tree=twins), k=Snapshot(Kind.ACTIVE, "base", tree=twins))
    assert len(outcomes(state, ops.Write("k", (Truncate("f", 0), Unlink("f"), Unlink("g"))))) == 1


def test_nothing_is_written_through_a_view() -> None:
    """SNAP-MOUNTS-5: EROFS, or the error that the change would have met anyway; no change sees another."""
    outcome = only(
        store(v=Snapshot(Kind.VIEW, tree=FILE)), ops.Write("v", (MakeFile("g", b""), Unlink("none"), MakeFile("f", b"")))
    )
    assert outcome.clause == "SNAP-MOUNTS-5"
    words = (frozenset({"EROFS"}), frozenset({"EROFS", "ENOENT"}), frozenset({"EROFS", "EEXIST"}))
    assert outcome.reply == Changed(words)


@pytest.mark.parametrize(("key", "answered"), [("leaf", "FailedPrecondition"), ("absent", "NotFound"), ("", "NotFound")])
def test_there_is_no_writing_without_a_mount_list(key: str, answered: str) -> None:
    """SNAP-MOUNTS-1, SNAP-MOUNTS-2."""
    assert word(only(store(), ops.Write(key, (MakeFile("f", b""),)))) == answered


# --- what a call shows besides

EMPTY_LABEL: Labels = (("l", ""),)
LONG: Labels = (("l", "x" * LABEL_LIMIT),)
KEPT = ("SNAP-COMMIT-9", "SNAP-COMMIT-10", "SNAP-COMMIT-11")
CHANGED = ("SNAP-UPDATE-6", "SNAP-UPDATE-7", "SNAP-UPDATE-8")
MERGING = replace(DIRECT, rebase=Rebase.MERGED)

SHOWN: list[tuple[Profile, Operation, tuple[str, ...]]] = [
    (DIRECT, ops.Prepare("k"), ()),
    (DIRECT, ops.Prepare("k", "", (("l", "1"),)), ()),
    (DIRECT, ops.Prepare("k", "", EMPTY_LABEL), ("SNAP-LABEL-2",)),
    (DIRECT, ops.View("k", "", EMPTY_LABEL), ("SNAP-LABEL-2",)),
    (DIRECT, ops.Prepare("active"), ("SNAP-KEY-1",)),
    (DIRECT, ops.Prepare(""), ("SNAP-KEY-2",)),
    (DIRECT, ops.Prepare("k", "absent"), ()),
    (DIRECT, ops.Prepare("k", "view"), ()),
    (DIRECT, ops.Prepare("active", "leaf"), ("SNAP-KEY-1",)),
    (DIRECT, ops.Prepare("active", "absent"), ("SNAP-PREPARE-5",)),
    (DIRECT, ops.View("", "active"), ("SNAP-PREPARE-5",)),
    (METADATA, ops.Prepare("active", "absent"), ("SNAP-KEY-1", "DOOR-ORDER-1")),
    (METADATA, ops.View("k", "absent", LONG), ("DOOR-ORDER-1",)),
    (METADATA, ops.Prepare("k", "", LONG), ()),
    (DIRECT, ops.Commit("n", "active"), KEPT),
    (DIRECT, ops.Commit("n", "active", EMPTY_LABEL), (*KEPT, "SNAP-LABEL-2")),
    (DIRECT, ops.Commit("n", "absent"), ()),
    (DIRECT, ops.Commit("n", "view"), ()),
    (DIRECT, ops.Commit("leaf", "active"), ("SNAP-KEY-1",)),
    (DIRECT, ops.Commit("", "active"), ("SNAP-KEY-2",)),
    (DIRECT, ops.Commit("leaf", "view"), ("SNAP-KEY-1", "SNAP-COMMIT-5")),
    (METADATA, ops.Commit("leaf", "absent"), ("SNAP-KEY-1", "DOOR-ORDER-2")),
    (METADATA, ops.Commit("n", "absent", LONG), ("DOOR-ORDER-2",)),
    (DIRECT, ops.Commit("n", "active", (), "leaf"), ("SNAP-COMMIT-7",)),
    (DIRECT, ops.Commit("n", "child", (), "leaf"), ()),
    (DIRECT, ops.Commit("n", "child", (), "base"), KEPT),
    (MERGING, ops.Commit("n", "active", (), "leaf"), (*KEPT, "SNAP-COMMIT-7")),
    (METADATA, ops.Commit("n", "child", (), "leaf"), (*KEPT, "DOOR-ORDER-3")),
    (METADATA, ops.Commit("n", "child", (), "base"), KEPT),
    (METADATA, ops.Commit("n", "child"), KEPT),
    (DIRECT, ops.Remove("active"), ("SNAP-REMOVE-4",)),
    (DIRECT, ops.Remove("base"), ("SNAP-PARENT-1",)),
    (DIRECT, ops.Remove("absent"), ()),
    (DIRECT, ops.Update("active", (("l", "1"),)), CHANGED),
    (DIRECT, ops.Update("active", EMPTY_LABEL), (*CHANGED, "SNAP-LABEL-2")),
    (DIRECT, ops.Update("absent"), ()),
    (DIRECT, ops.Update("active", (), ("name",)), ()),
    (DIRECT, ops.Update("absent", (), ("name",)), ("SNAP-UPDATE-3",)),
    (METADATA, ops.Update("active", LONG, ("labels.l", "name")), ("SNAP-UPDATE-3",)),
    (METADATA, ops.Update("absent", LONG, ("labels.other",)), ()),
    (DIRECT, ops.Walk(("name!=x",)), ()),
    (DIRECT, ops.Walk(("labels.l!=x",)), ("SNAP-WALK-3",)),
    (DIRECT, ops.Walk(("labels.l==x",)), ()),
    (DIRECT, ops.Walk(('name~="("',)), ("SNAP-WALK-4",)),
    (DIRECT, ops.Walk(('name~="a"', 'name=="("')), ()),
    (DIRECT, ops.Walk(("absent!=x", 'absent~="("')), ("SNAP-WALK-3", "SNAP-WALK-4")),
    (DIRECT, ops.Walk(("==",)), ()),
    (replace(DIRECT, wire=True), ops.Walk(("==",)), ("SNAP-WALK-8",)),
]


@pytest.mark.parametrize(("profile", "op", "shows"), SHOWN)
def test_a_call_shows_these_clauses_besides_its_own(profile: Profile, op: Operation, shows: tuple[str, ...]) -> None:
    """The order of errors counts as shown where a call meets two of them; a selector where there is something to match."""
    assert only(store(profile), op).shows == shows


def test_a_selector_shows_nothing_on_an_empty_store() -> None:
    for outcome in outcomes(State(), ops.Walk(("absent!=x", 'name~="("'))):
        assert outcome.shows == ()


# --- any history

UNIVERSE = Universe(
    keys=("a", "b", "c"),
    labels=((), (("l", "1"),)),
    masks=((), ("labels.l",), ("name",)),
    filters=("kind==active", "=="),
    changes=((MakeFile("f", b"x"),), (MakeFile("f", b"x"), Unlink("f"))),
    rebases=True,
    collections=True,
)
CALLS = tuple(operations(UNIVERSE))
profiles = st.builds(
    lambda profile, rebase, root: replace(profile, rebase=rebase, root=root),
    st.sampled_from([DIRECT, METADATA]),
    st.sampled_from(Rebase),
    st.sampled_from(RootMetadata),
)


@given(profiles, st.lists(st.tuples(st.sampled_from(CALLS), st.integers(0, 3)), max_size=25))
def test_in_any_history_every_call_has_an_outcome_and_a_refused_one_changes_nothing(
    profile: Profile, calls: list[tuple[Operation, int]]
) -> None:
    """SNAP-LIVE-1, SNAP-FAIL-1, SNAP-KIND-1, SNAP-PARENT-3: no call raises; a life keeps its kind, its parent and its birth."""
    state = State(profile=profile)
    for time, (op, choice) in enumerate(calls):
        allowed = outcomes(state, op, Span(time, time))
        outcome = allowed[choice % len(allowed)]
        if isinstance(outcome.reply, Refused):
            assert outcome.state is state
        for key, snapshot in outcome.state.snapshots.items():
            before = state.get(key)
            assert before is None or (before.kind, before.parent, before.created) == (
                snapshot.kind,
                snapshot.parent,
                snapshot.created,
            )
            assert before is not None or isinstance(op, ops.Prepare | ops.View | ops.Commit)
        state = outcome.state


def test_a_store_that_cannot_be_is_refused() -> None:
    """The oracle never comes to one; who makes one by hand is told."""
    with pytest.raises(icontract.ViolationError, match="well_formed"):
        outcomes(store(orphan=Snapshot(Kind.ACTIVE, "absent")), ops.Walk())
