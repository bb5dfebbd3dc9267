"""Which error wins: for each call and each door a table of its own, written out by hand and not taken from the guards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from states import DIRECT, METADATA, only, store, word

from snapspec.model import ops
from snapspec.model.guards import Rebase
from snapspec.model.ops import Operation
from snapspec.model.replies import Refused
from snapspec.model.snapshots import LABEL_LIMIT, outcomes
from snapspec.model.state import Profile
from snapspec.model.values import Labels

TOO_LONG: Labels = (("k", "x" * LABEL_LIMIT),)
AS_LONG_AS_MAY_BE: Labels = (("k", "x" * (LABEL_LIMIT - 1)),)

# Each row: what the call names, then the answer at the direct door and through the metadata layer.

MAKE = [
    # key, parent, direct, metadata
    ("new", "", "ok", "ok"),
    ("new", "leaf", "ok", "ok"),
    ("new", "base", "ok", "ok"),
    ("new", "absent", "NotFound", "NotFound"),
    ("new", "new", "NotFound", "NotFound"),
    ("new", "active", "InvalidArgument", "InvalidArgument"),
    ("new", "view", "InvalidArgument", "InvalidArgument"),
    ("active", "", "AlreadyExists", "AlreadyExists"),
    ("view", "", "AlreadyExists", "AlreadyExists"),
    ("leaf", "", "AlreadyExists", "AlreadyExists"),
    ("leaf", "leaf", "AlreadyExists", "AlreadyExists"),
    ("active", "leaf", "AlreadyExists", "AlreadyExists"),
    ("active", "absent", "NotFound", "AlreadyExists"),
    ("view", "absent", "NotFound", "AlreadyExists"),
    ("leaf", "absent", "NotFound", "AlreadyExists"),
    ("active", "active", "InvalidArgument", "AlreadyExists"),
    ("active", "view", "InvalidArgument", "AlreadyExists"),
    ("leaf", "active", "InvalidArgument", "AlreadyExists"),
    ("", "", "any", "any"),
    ("", "leaf", "any", "any"),
    ("", "absent", "NotFound", "NotFound"),
    ("", "active", "InvalidArgument", "InvalidArgument"),
    ("", "view", "InvalidArgument", "InvalidArgument"),
]

#: The clause of each answer of prepare and view.
MAKE_CLAUSES = {
    "ok": ("SNAP-PREPARE-6", "SNAP-VIEW-5"),
    "NotFound": ("SNAP-PREPARE-1", "SNAP-VIEW-1"),
    "InvalidArgument": ("SNAP-PREPARE-2", "SNAP-VIEW-2"),
    "AlreadyExists": ("SNAP-PREPARE-3", "SNAP-VIEW-3"),
    "any": ("SNAP-PREPARE-4", "SNAP-VIEW-4"),
}

COMMIT = [
    # name, key, direct, metadata
    ("new", "active", "ok", "ok"),
    ("new", "child", "ok", "ok"),
    ("new", "absent", "NotFound", "NotFound"),
    ("new", "new", "NotFound", "NotFound"),
    ("new", "", "NotFound", "NotFound"),
    ("new", "view", "FailedPrecondition", "FailedPrecondition"),
    ("new", "leaf", "FailedPrecondition", "FailedPrecondition"),
    ("new", "base", "FailedPrecondition", "FailedPrecondition"),
    ("leaf", "active", "AlreadyExists", "AlreadyExists"),
    ("view", "active", "AlreadyExists", "AlreadyExists"),
    ("child", "active", "AlreadyExists", "AlreadyExists"),
    ("active", "active", "AlreadyExists", "AlreadyExists"),
    ("leaf", "view", "AlreadyExists", "AlreadyExists"),
    ("view", "view", "AlreadyExists", "AlreadyExists"),
    ("leaf", "leaf", "AlreadyExists", "AlreadyExists"),
    ("leaf", "absent", "NotFound", "AlreadyExists"),
    ("active", "", "NotFound", "AlreadyExists"),
    ("", "active", "any", "any"),
    ("", "view", "any", "any"),
    ("", "leaf", "any", "any"),
    ("", "absent", "NotFound", "any"),
    ("", "", "NotFound", "any"),
]

COMMIT_CLAUSES = {
    "ok": "SNAP-COMMIT-8",
    "NotFound": "SNAP-COMMIT-1",
    "AlreadyExists": "SNAP-COMMIT-2",
    "any": "SNAP-COMMIT-3",
    "FailedPrecondition": "SNAP-COMMIT-4",
}

REBASE = [
    # key, parent asked for; then at each door: refused, ignored, merged
    ("active", "", ("ok", "ok", "ok"), ("ok", "ok", "ok")),
    ("active", "leaf", ("InvalidArgument", "ok", "ok"), ("InvalidArgument", "ok", "ok")),
    ("active", "absent", ("InvalidArgument", "ok", "NotFound"), ("NotFound", "ok", "NotFound")),
    ("active", "new", ("InvalidArgument", "ok", "NotFound"), ("NotFound", "ok", "NotFound")),
    ("active", "active", ("InvalidArgument", "ok", "NotFound"), ("InvalidArgument", "ok", "NotFound")),
    ("active", "view", ("InvalidArgument", "ok", "FailedPrecondition"), ("InvalidArgument", "ok", "FailedPrecondition")),
    ("active", "child", ("InvalidArgument", "ok", "FailedPrecondition"), ("InvalidArgument", "ok", "FailedPrecondition")),
    ("child", "", ("ok", "ok", "ok"), ("ok", "ok", "ok")),
    ("child", "base", ("ok", "ok", "ok"), ("ok", "ok", "ok")),
    ("child", "leaf", ("InvalidArgument", "ok", "InvalidArgument"), ("ok", "ok", "ok")),
    ("child", "absent", ("InvalidArgument", "ok", "InvalidArgument"), ("ok", "ok", "ok")),
    ("child", "view", ("InvalidArgument", "ok", "InvalidArgument"), ("ok", "ok", "ok")),
    ("child", "child", ("InvalidArgument", "ok", "InvalidArgument"), ("ok", "ok", "ok")),
    ("view", "leaf", ("FailedPrecondition",) * 3, ("FailedPrecondition",) * 3),
    ("view", "view", ("FailedPrecondition",) * 3, ("FailedPrecondition",) * 3),
    ("window", "absent", ("FailedPrecondition",) * 3, ("FailedPrecondition",) * 3),
    # The layer looks for the parent before it asks the driver what the key is, unless it has never heard of such parents.
    ("view", "absent", ("FailedPrecondition",) * 3, ("NotFound", "FailedPrecondition", "NotFound")),
    ("leaf", "absent", ("FailedPrecondition",) * 3, ("NotFound", "FailedPrecondition", "NotFound")),
    ("absent", "absent", ("NotFound",) * 3, ("NotFound",) * 3),
]

UPDATE = [
    # name, mask, labels, direct, metadata
    ("active", (), (), "ok", "ok"),
    ("view", ("labels",), (), "ok", "ok"),
    ("leaf", ("labels.a", "labels.b.c/d"), (), "ok", "ok"),
    ("absent", (), (), "NotFound", "NotFound"),
    ("absent", ("name",), TOO_LONG, "NotFound", "NotFound"),
    ("active", ("name",), (), "InvalidArgument", "InvalidArgument"),
    ("active", ("labels.a", "kind"), (), "InvalidArgument", "InvalidArgument"),
    ("active", ("",), (), "InvalidArgument", "InvalidArgument"),
    ("active", ("labels.",), (), "InvalidArgument", "InvalidArgument"),
    ("active", ("Labels",), (), "InvalidArgument", "InvalidArgument"),
    ("active", ("label.x",), (), "InvalidArgument", "InvalidArgument"),
    ("active", ("parent",), TOO_LONG, "InvalidArgument", "InvalidArgument"),
    ("active", (), TOO_LONG, "ok", "InvalidArgument"),
    ("active", ("labels.k",), TOO_LONG, "ok", "InvalidArgument"),
    ("active", ("labels.a",), TOO_LONG, "ok", "ok"),
    ("active", (), AS_LONG_AS_MAY_BE, "ok", "ok"),
    ("", (), (), "NotFound", "InvalidArgument"),
    ("", ("name",), TOO_LONG, "NotFound", "InvalidArgument"),
]

UPDATE_CLAUSES = {
    ("NotFound", "NotFound"): ("SNAP-UPDATE-1", "SNAP-UPDATE-1"),
    ("NotFound", "InvalidArgument"): ("SNAP-UPDATE-1", "DOOR-ORDER-4"),
    ("InvalidArgument", "InvalidArgument"): ("SNAP-UPDATE-2", "SNAP-UPDATE-2"),
}

LOOK = [
    # call, key, both doors, clause
    (ops.Mounts, "active", "ok", "SNAP-MOUNTS-3"),
    (ops.Mounts, "window", "ok", "SNAP-MOUNTS-3"),
    (ops.Mounts, "leaf", "FailedPrecondition", "SNAP-MOUNTS-2"),
    (ops.Mounts, "base", "FailedPrecondition", "SNAP-MOUNTS-2"),
    (ops.Mounts, "absent", "NotFound", "SNAP-MOUNTS-1"),
    (ops.Mounts, "", "NotFound", "SNAP-MOUNTS-1"),
    (ops.Remove, "active", "ok", "SNAP-REMOVE-3"),
    (ops.Remove, "window", "ok", "SNAP-REMOVE-3"),
    (ops.Remove, "leaf", "ok", "SNAP-REMOVE-3"),
    (ops.Remove, "base", "FailedPrecondition", "SNAP-REMOVE-2"),
    (ops.Remove, "absent", "NotFound", "SNAP-REMOVE-1"),
    (ops.Remove, "", "NotFound", "SNAP-REMOVE-1"),
    (ops.Stat, "active", "ok", "SNAP-STAT-1"),
    (ops.Stat, "view", "ok", "SNAP-STAT-1"),
    (ops.Stat, "base", "ok", "SNAP-STAT-1"),
    (ops.Stat, "absent", "NotFound", "SNAP-STAT-2"),
    (ops.Stat, "", "NotFound", "SNAP-STAT-2"),
    (ops.Usage, "active", "ok", "SNAP-USAGE-4"),
    (ops.Usage, "view", "ok", "SNAP-USAGE-4"),
    (ops.Usage, "base", "ok", "SNAP-USAGE-4"),
    (ops.Usage, "absent", "NotFound", "SNAP-USAGE-1"),
    (ops.Usage, "", "NotFound", "SNAP-USAGE-1"),
    (ops.Read, "active", "ok", "SNAP-CONTENT-1"),
    (ops.Read, "leaf", "FailedPrecondition", "SNAP-MOUNTS-2"),
    (ops.Read, "absent", "NotFound", "SNAP-MOUNTS-1"),
]


def answer(profile: Profile, op: Operation) -> tuple[str, str]:
    """The word and the clause of the one answer to `op` on a store with one of each kind; a refusal changes nothing."""
    state = store(profile)
    outcome = only(state, op)
    assert not isinstance(outcome.reply, Refused) or outcome.state is state
    return word(outcome), outcome.clause


@pytest.mark.parametrize(("key", "parent", "direct", "metadata"), MAKE)
def test_prepare_and_view_refuse_in_this_order(key: str, parent: str, direct: str, metadata: str) -> None:
    """SNAP-PREPARE-5, SNAP-VIEW-4, DOOR-ORDER-1: a taken key loses to a bad parent at the direct door and wins at the other."""
    calls: tuple[type[ops.Prepare | ops.View], ...] = (ops.Prepare, ops.View)
    for number, call in enumerate(calls):
        assert answer(DIRECT, call(key, parent)) == (direct, MAKE_CLAUSES[direct][number])
        assert answer(METADATA, call(key, parent)) == (metadata, MAKE_CLAUSES[metadata][number])


@pytest.mark.parametrize(("key", "parent", "direct", "metadata"), MAKE)
def test_a_long_label_comes_first_at_the_metadata_door_alone(key: str, parent: str, direct: str, metadata: str) -> None:
    """DOOR-LABEL-1: before anything else there, no limit at the direct door; one byte less is within the limit."""
    calls: tuple[type[ops.Prepare | ops.View], ...] = (ops.Prepare, ops.View)
    for call in calls:
        assert answer(DIRECT, call(key, parent, TOO_LONG))[0] == direct
        assert answer(METADATA, call(key, parent, TOO_LONG)) == ("InvalidArgument", "DOOR-LABEL-1")
        assert answer(METADATA, call(key, parent, AS_LONG_AS_MAY_BE))[0] == metadata


def test_the_label_limit_counts_bytes() -> None:
    """DOOR-LABEL-1: a letter of two bytes counts as two, in a key as in a value, and text of any kind is measured."""
    for label in (("é" * 2049, ""), ("", "é" * 2049), ("k", "\ud800" * 2000)):
        assert answer(METADATA, ops.Prepare("new", "", (label,))) == ("InvalidArgument", "DOOR-LABEL-1")
    assert answer(METADATA, ops.Prepare("new", "", (("é" * 1024, "é" * 1024),)))[0] == "ok"


@pytest.mark.parametrize(("name", "key", "direct", "metadata"), COMMIT)
def test_commit_refuses_in_this_order(name: str, key: str, direct: str, metadata: str) -> None:
    """SNAP-COMMIT-5, DOOR-ORDER-2: a missing key wins at the direct door, a taken or empty name at the other."""
    assert answer(DIRECT, ops.Commit(name, key)) == (direct, COMMIT_CLAUSES[direct])
    assert answer(METADATA, ops.Commit(name, key)) == (metadata, COMMIT_CLAUSES[metadata])


@pytest.mark.parametrize(("name", "key", "direct", "metadata"), COMMIT)
def test_commit_looks_at_a_long_label_first_at_the_metadata_door(name: str, key: str, direct: str, metadata: str) -> None:
    """DOOR-LABEL-1, DOOR-ORDER-2."""
    assert answer(DIRECT, ops.Commit(name, key, TOO_LONG))[0] == direct
    assert answer(METADATA, ops.Commit(name, key, TOO_LONG)) == ("InvalidArgument", "DOOR-LABEL-1")
    assert answer(METADATA, ops.Commit(name, key, AS_LONG_AS_MAY_BE))[0] == metadata


@pytest.mark.parametrize(("key", "parent", "direct", "metadata"), REBASE)
def test_a_parent_at_commit_is_refused_ignored_or_merged(
    key: str, parent: str, direct: tuple[str, ...], metadata: tuple[str, ...]
) -> None:
    """SNAP-COMMIT-6, SNAP-COMMIT-7, DOOR-ORDER-3: after the key and the name, by what the driver declares."""
    for number, rebase in enumerate((Rebase.REFUSED, Rebase.IGNORED, Rebase.MERGED)):
        op = ops.Commit("new", key, (), parent)
        assert answer(replace(DIRECT, rebase=rebase), op)[0] == direct[number]
        assert answer(replace(METADATA, rebase=rebase), op)[0] == metadata[number]


def test_a_taken_name_wins_over_every_parent_at_commit() -> None:
    """SNAP-COMMIT-5: before SNAP-COMMIT-6 and SNAP-COMMIT-7, at both doors."""
    for profile in (DIRECT, METADATA):
        for rebase in Rebase:
            op = ops.Commit("leaf", "active", (), "absent")
            assert answer(replace(profile, rebase=rebase), op) == ("AlreadyExists", "SNAP-COMMIT-2")


@pytest.mark.parametrize(("name", "mask", "labels", "direct", "metadata"), UPDATE)
def test_update_refuses_in_this_order(name: str, mask: tuple[str, ...], labels: Labels, direct: str, metadata: str) -> None:
    """SNAP-UPDATE-3, DOOR-ORDER-4, DOOR-LABEL-1: the name, then the paths, then the labels that the update would leave."""
    op = ops.Update(name, labels, mask)
    done = "SNAP-UPDATE-5" if mask else "SNAP-UPDATE-4"
    clauses = UPDATE_CLAUSES.get((direct, metadata), (done, done if metadata == "ok" else "DOOR-LABEL-1"))
    assert answer(DIRECT, op) == (direct, clauses[0])
    assert answer(METADATA, op) == (metadata, clauses[1])


@pytest.mark.parametrize(("call", "key", "answered", "clause"), LOOK)
def test_the_calls_with_a_key_alone(call: type[ops.Stat], key: str, answered: str, clause: str) -> None:
    """SNAP-MOUNTS-1, SNAP-MOUNTS-2, SNAP-REMOVE-1, SNAP-REMOVE-2, SNAP-STAT-2, SNAP-USAGE-1: alike at both doors."""
    for profile in (DIRECT, METADATA):
        assert answer(profile, call(key)) == (answered, clause)


NAMELESS: list[ops.Nowhere] = [
    ops.Nowhere(call)
    for call in (
        ops.Prepare("active", "absent", TOO_LONG),
        ops.View("", "active"),
        ops.Commit("leaf", "absent"),
        ops.Remove("absent"),
        ops.Mounts("leaf"),
        ops.Stat("absent"),
        ops.Update("", (), ("name",)),
        ops.Usage("absent"),
        ops.Walk(("==",)),
    )
]


@pytest.mark.parametrize("op", NAMELESS)
def test_a_call_without_a_namespace_is_refused_before_all_else(op: ops.Nowhere) -> None:
    """DOOR-NS-1, SNAP-WALK-8; at the direct door there is no namespace to name, and the call is judged as it stands."""
    expected = "FailedPrecondition or Unknown" if isinstance(op.call, ops.Walk) else "FailedPrecondition"
    assert answer(METADATA, op) == (expected, "DOOR-NS-1")
    assert outcomes(store(), op) == outcomes(store(), op.call)


def test_a_filter_that_is_none_is_refused_before_an_empty_store() -> None:
    """SNAP-WALK-5 before SNAP-WALK-7, at both doors; over gRPC the class may be lost (SNAP-WALK-8)."""
    empty = {profile: store(profile).drop(*store().snapshots) for profile in (DIRECT, METADATA)}
    assert [word(o) for o in outcomes(empty[DIRECT], ops.Walk(("==",)))] == ["InvalidArgument"]
    assert [word(o) for o in outcomes(empty[METADATA], ops.Walk(("==",)))] == ["InvalidArgument or Unknown"]


def test_walk_of_an_empty_store_may_be_refused_at_the_direct_door_alone() -> None:
    """SNAP-WALK-7, SNAP-WALK-8: with NotFound, over gRPC with Unknown as well; and only while nothing is there."""
    empty = store().drop(*store().snapshots)
    remote = replace(DIRECT, wire=True)
    assert [word(o) for o in outcomes(empty, ops.Walk())] == ["ok", "NotFound"]
    assert [word(o) for o in outcomes(replace(empty, profile=remote), ops.Walk())] == ["ok", "NotFound or Unknown"]
    assert [word(o) for o in outcomes(replace(empty, profile=METADATA), ops.Walk())] == ["ok"]
    assert [word(o) for o in outcomes(store(), ops.Walk())] == ["ok"]


def test_cleanup_is_offered_or_not() -> None:
    """SNAP-CLEANUP-1, SNAP-CLEANUP-2, DOOR-CLEANUP-1."""
    assert answer(DIRECT, ops.Cleanup()) == ("ok", "SNAP-CLEANUP-2")
    assert answer(replace(DIRECT, cleanup=False), ops.Cleanup()) == ("Unimplemented", "SNAP-CLEANUP-1")
    assert answer(METADATA, ops.Cleanup()) == ("Unimplemented", "DOOR-CLEANUP-1")
