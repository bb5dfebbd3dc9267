"""The guards over all their inputs, against orders of refusals that are written out here."""

from __future__ import annotations

from itertools import product

import icontract
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapspec.model.guards import (
    Door,
    Named,
    Reason,
    commit_guard,
    mounts_guard,
    prepare_guard,
    rebase_guard,
    remove_guard,
    update_guard,
    usage_limit,
    within,
)

BOTH = (False, True)
EXISTING = tuple(named for named in Named if named is not Named.NOTHING)


def first(*rules: tuple[bool, Reason]) -> Reason:
    """The reason of the first rule that applies."""
    return next((reason for applies, reason in rules if applies), Reason.NONE)


def test_prepare_and_view_in_every_situation() -> None:
    """SNAP-PREPARE-5, DOOR-ORDER-1."""
    for empty, taken, parent in product(BOTH, BOTH, Named):
        absent = (parent is Named.ABSENT, Reason.PARENT_ABSENT)
        unfit = (parent in (Named.ACTIVE, Named.VIEW), Reason.PARENT_NOT_COMMITTED)
        key = (taken, Reason.KEY_TAKEN)
        no_key = (empty, Reason.KEY_EMPTY)
        assert prepare_guard(Door.DIRECT, False, empty, taken, parent) is first(absent, unfit, key, no_key)
        assert prepare_guard(Door.METADATA, False, empty, taken, parent) is first(key, absent, unfit, no_key)
        assert prepare_guard(Door.METADATA, True, empty, taken, parent) is Reason.LABEL_TOO_LONG


def test_commit_in_every_situation() -> None:
    """SNAP-COMMIT-5, DOOR-ORDER-2."""
    for key, taken, empty in product(EXISTING, BOTH, BOTH):
        absent = (key is Named.ABSENT, Reason.KEY_ABSENT)
        name = (taken, Reason.NAME_TAKEN)
        no_name = (empty, Reason.NAME_EMPTY)
        unfit = (key is not Named.ACTIVE, Reason.NOT_ACTIVE)
        assert commit_guard(Door.DIRECT, False, key, taken, empty) is first(absent, name, no_name, unfit)
        assert commit_guard(Door.METADATA, False, key, taken, empty) is first(name, no_name, absent, unfit)
        assert commit_guard(Door.METADATA, True, key, taken, empty) is Reason.LABEL_TOO_LONG


def test_a_parent_at_commit_in_every_situation() -> None:
    """SNAP-COMMIT-6, SNAP-COMMIT-7."""
    for own, asked, same in product(BOTH, Named, BOTH):
        assert rebase_guard(own, asked, same) is first(
            (asked is Named.NOTHING or same, Reason.NONE),
            (own, Reason.PARENT_CONFLICT),
            (asked is Named.ABSENT, Reason.REBASE_ABSENT),
            (asked is not Named.COMMITTED, Reason.REBASE_NOT_COMMITTED),
        )


def test_mounts_in_every_situation() -> None:
    """SNAP-MOUNTS-1, SNAP-MOUNTS-2."""
    answers = {named: mounts_guard(named) for named in EXISTING}
    assert answers == {
        Named.ABSENT: Reason.KEY_ABSENT,
        Named.ACTIVE: Reason.NONE,
        Named.VIEW: Reason.NONE,
        Named.COMMITTED: Reason.IS_COMMITTED,
    }


def test_remove_in_every_situation() -> None:
    """SNAP-REMOVE-1, SNAP-REMOVE-2."""
    for children in (0, 1, 7):
        assert remove_guard(False, children) is Reason.KEY_ABSENT
        assert remove_guard(True, children) is (Reason.HAS_CHILDREN if children else Reason.NONE)


def test_update_in_every_situation() -> None:
    """SNAP-UPDATE-3, DOOR-ORDER-4."""
    for empty, exists, bad_path, too_long in product(BOTH, repeat=4):
        assert update_guard(empty, exists, bad_path, too_long) is first(
            (empty, Reason.KEY_EMPTY),
            (not exists, Reason.KEY_ABSENT),
            (bad_path, Reason.BAD_PATH),
            (too_long, Reason.LABEL_TOO_LONG),
        )


@given(st.integers(0, 9), st.integers(0, 9), st.integers(-1, 19))
def test_a_time_is_within_its_span_with_both_ends(low: int, length: int, value: int) -> None:
    """SNAP-TIME-1."""
    assert within(low, low + length, value) is (value in range(low, low + length + 1))


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 20), st.integers(0, 1 << 16))
def test_a_layer_takes_its_data_and_room_for_each_inode(data: int, inodes: int, slack: int) -> None:
    """SNAP-USAGE-6."""
    assert usage_limit(data, 0, slack) == data
    assert usage_limit(data, inodes + 1, slack) - usage_limit(data, inodes, slack) == slack


def test_no_guard_takes_what_cannot_be() -> None:
    """A label over a limit that the door does not have (DOOR-LABEL-1), a call without a key, a span that ends too early."""
    with pytest.raises(icontract.ViolationError):
        prepare_guard(Door.DIRECT, True, False, False, Named.NOTHING)
    with pytest.raises(icontract.ViolationError):
        commit_guard(Door.DIRECT, True, Named.ACTIVE, False, False)
    with pytest.raises(icontract.ViolationError):
        mounts_guard(Named.NOTHING)
    with pytest.raises(icontract.ViolationError):
        within(2, 1, 1)
