"""The guards of the manager over all their inputs, against orders that are written out here."""

from __future__ import annotations

from itertools import product

import icontract
import pytest

from snapspec.model.ref_guards import (
    Found,
    Given,
    Rule,
    Wanted,
    finalizes,
    get_guard,
    get_mutable_guard,
    handle_guard,
    may_go,
    new_guard,
    size_in_row,
    stands_for_snapshot,
)

BOTH = (False, True)

#: What an id stands for, and whether that is held: an id of nothing is not.
MET = [(found, held) for found, held in product(Found, BOTH) if found is not Found.ABSENT or not held]


def first(*rules: tuple[bool, Rule]) -> Rule:
    """The first rule that is broken."""
    return next((rule for broken, rule in rules if broken), Rule.NONE)


def test_a_call_on_a_handle_in_every_situation() -> None:
    """REF-ERROR-1, REF-HANDLE-4: Closed, not open, wrong kind."""
    wrong = {(Given.ON_MUTABLE, Wanted.IMMUTABLE), (Given.ON_IMMUTABLE, Wanted.MUTABLE)}
    for closed, given, wanted in product(BOTH, set(Given) - {Given.NOTHING}, Wanted):
        assert handle_guard(closed, given, wanted) is first(
            (closed, Rule.CLOSED),
            (given is Given.NOT_OPEN, Rule.NOT_OPEN),
            ((given, wanted) in wrong, Rule.WRONG_KIND),
        )


def test_new_in_every_situation() -> None:
    """REF-NEW-3."""
    for closed, given in product(BOTH, Given):
        assert new_guard(closed, given) is first(
            (closed, Rule.CLOSED),
            (given is Given.NOT_OPEN, Rule.NOT_OPEN),
            (given is Given.ON_MUTABLE, Rule.NO_PARENT),
        )


def test_get_in_every_situation() -> None:
    """REF-ERROR-2, REF-GET-1, REF-GET-2."""
    for closed, (found, held) in product(BOTH, MET):
        assert get_guard(closed, found, held) is first(
            (closed, Rule.CLOSED),
            (found is Found.ABSENT, Rule.ABSENT),
            (found is Found.MUTABLE and held, Rule.LOCKED),
        )


def test_get_mutable_in_every_situation() -> None:
    """REF-MUT-1, REF-MUT-2: Invalid comes before Locked."""
    for closed, (found, held) in product(BOTH, MET):
        assert get_mutable_guard(closed, found, held) is first(
            (closed, Rule.CLOSED),
            (found is Found.ABSENT, Rule.ABSENT),
            (found is Found.IMMUTABLE, Rule.WRONG_KIND),
            (held, Rule.LOCKED),
        )


def test_a_mount_finalizes_in_three_of_eight_situations() -> None:
    """REF-MOUNT-3, REF-MOUNT-4."""
    asked = {numbers: finalizes(*numbers) for numbers in product(BOTH, repeat=3)}
    assert {numbers for numbers, answer in asked.items() if answer} == {
        (True, False, False),
        (True, False, True),
        (True, True, False),
    }


def test_one_half_of_a_pair_stands_for_both() -> None:
    """REF-USAGE-1, REF-PAIR-3."""
    for e_held in BOTH:
        assert stands_for_snapshot(True, False, e_held) is e_held
        assert stands_for_snapshot(True, True, e_held) is not e_held
        assert all(stands_for_snapshot(False, mutable, e_held) for mutable in BOTH)


def test_the_size_in_a_row() -> None:
    """REF-USAGE-3, REF-SIZE-1."""
    assert [size_in_row(True, used, None) for used in BOTH] == [None, 0]
    assert {size_in_row(False, used, stored) for used in BOTH for stored in (None, 0, 7)} == {None, 0, 7}


def test_what_may_go() -> None:
    """REF-PRUNE-1, REF-NEW-4."""
    free = [numbers for numbers in product(BOTH, BOTH, (0, 1, 2)) if may_go(*numbers)]
    assert free == [(False, False, 0)]


def test_no_guard_takes_what_cannot_be() -> None:
    """A call on no handle at all, and a handle on what is not there."""
    with pytest.raises(icontract.ViolationError):
        handle_guard(False, Given.NOTHING, Wanted.EITHER)
    with pytest.raises(icontract.ViolationError):
        get_guard(False, Found.ABSENT, True)
    with pytest.raises(icontract.ViolationError):
        get_mutable_guard(False, Found.ABSENT, True)
    with pytest.raises(icontract.ViolationError):
        size_in_row(False, False, -1)
    with pytest.raises(icontract.ViolationError):
        may_go(False, False, -1)
