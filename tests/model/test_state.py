"""The abstract store: what makes one well formed, and who is whose parent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from states import store

from snapspec.model.guards import Named
from snapspec.model.state import Snapshot, Span, ancestors, children, given, keys_well_formed, lower_tree, named, well_formed
from snapspec.model.state import labels_well_formed as labels_well
from snapspec.model.state import parents_well_formed as parents_well
from snapspec.model.state import times_well_formed as times_well
from snapspec.model.tree import EMPTY, MakeFile, outcomes_of
from snapspec.model.values import Kind

TREE = outcomes_of(EMPTY, EMPTY, MakeFile("f", b"x"))[0].tree
COMMITTED = Snapshot(Kind.COMMITTED)


def test_the_store_with_one_of_each_is_well_formed() -> None:
    assert well_formed(store())


def test_no_key_is_empty() -> None:
    """SNAP-KEY-2."""
    bad = store().put("", COMMITTED)
    assert not keys_well_formed(bad)
    assert not well_formed(bad)


def test_no_label_is_empty() -> None:
    """SNAP-LABEL-2; the key of a label may be."""
    assert labels_well(store(a=replace(COMMITTED, labels=(("", "x"),))))
    bad = store(a=replace(COMMITTED, labels=(("k", "v"), ("l", ""))))
    assert not labels_well(bad)
    assert not well_formed(bad)


@pytest.mark.parametrize(
    ("created", "updated", "well"),
    [
        (Span(5, 9), None, True),
        (Span(5, 9), Span(5, 5), True),
        (Span(5, 9), Span(0, 6), True),
        (Span(5, 9), Span(0, 4), False),
        (Span(5, 5), Span(4, 4), False),
    ],
)
def test_nothing_was_certainly_updated_before_it_was_created(created: Span, updated: Span | None, well: bool) -> None:
    """SNAP-TIME-3."""
    state = store(a=replace(COMMITTED, created=created, updated=updated))
    assert times_well(state) is well
    assert well_formed(state) is well


@pytest.mark.parametrize("parent", ["absent", "active", "view", "a"])
def test_a_parent_is_there_and_committed_and_no_snapshot_is_its_own(parent: str) -> None:
    """SNAP-PARENT-1."""
    bad = store().put("a", replace(COMMITTED, parent=parent))
    assert not parents_well(bad)
    assert not well_formed(bad)


def test_a_chain_of_parents_ends() -> None:
    """SNAP-PARENT-1: a cycle is none; SNAP-PARENT-2: a long chain is one."""
    names = [f"n{i}" for i in range(200)]
    chain = {name: replace(COMMITTED, parent=above) for name, above in zip(names, ["", *names], strict=False)}
    assert parents_well(store(**chain))
    assert ancestors(store(**chain), "n199") == tuple(reversed(names[:199]))
    assert not parents_well(store(**{**chain, "n0": replace(COMMITTED, parent="n199")}))


def test_what_a_name_stands_for() -> None:
    """SNAP-KEY-2: the empty key never names a snapshot; where a name may be left out it was not given."""
    state = store()
    assert [named(state, key) for key in ("active", "view", "leaf", "absent", "")] == [
        Named.ACTIVE,
        Named.VIEW,
        Named.COMMITTED,
        Named.ABSENT,
        Named.ABSENT,
    ]
    assert given(state, "") is Named.NOTHING
    assert given(state, "leaf") is Named.COMMITTED
    assert given(state, "absent") is Named.ABSENT


def test_children_are_of_any_kind() -> None:
    """SNAP-REMOVE-2, SNAP-PARENT-2."""
    assert sorted(children(store(), "base")) == ["child", "top", "window"]
    assert children(store(), "leaf") == ()


def test_a_snapshot_begins_with_its_parents_content_or_with_nothing() -> None:
    state = store(base=replace(COMMITTED, tree=TREE), child=Snapshot(Kind.ACTIVE, "base"), alone=Snapshot(Kind.ACTIVE))
    assert lower_tree(state, state.snapshots["child"]) == TREE
    assert lower_tree(state, state.snapshots["alone"]) == EMPTY
