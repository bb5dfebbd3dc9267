"""Which refusal of a manager's call wins, and what of a record counts: functions over a few scalars, as in `guards`."""

from __future__ import annotations

from enum import Enum

import icontract


class Found(Enum):
    """What an id that a call names stands for."""

    ABSENT = 0
    MUTABLE = 1
    IMMUTABLE = 2


class Given(Enum):
    """What a handle that a call is made on, or over, stands for. NOTHING: none was given."""

    NOTHING = 0
    NOT_OPEN = 1
    ON_MUTABLE = 2
    ON_IMMUTABLE = 3


class Wanted(Enum):
    """The kind of record that a call on a handle is for."""

    EITHER = 0
    MUTABLE = 1
    IMMUTABLE = 2


class Rule(Enum):
    """The rule that a refused call breaks; NONE when it breaks none."""

    NONE = 0
    CLOSED = 1
    NOT_OPEN = 2
    NO_PARENT = 3
    ABSENT = 4
    WRONG_KIND = 5
    LOCKED = 6


@icontract.require(lambda given: given is not Given.NOTHING)
@icontract.ensure(lambda result, closed: (result is Rule.CLOSED) == closed, "REF-CLOSE-1")
@icontract.ensure(
    lambda result, closed, given: (result is Rule.NOT_OPEN) == (not closed and given is Given.NOT_OPEN), "REF-HANDLE-4"
)
@icontract.ensure(
    lambda result, closed, given, wanted: (
        (result is Rule.NONE)
        == (
            not closed
            and (
                (given is Given.ON_MUTABLE and wanted is not Wanted.IMMUTABLE)
                or (given is Given.ON_IMMUTABLE and wanted is not Wanted.MUTABLE)
            )
        )
    ),
    "REF-ERROR-1",
)
def handle_guard(closed: bool, given: Given, wanted: Wanted) -> Rule:
    """The refusal of a call on a handle, release aside."""
    if closed:
        return Rule.CLOSED
    if given is Given.NOT_OPEN:
        return Rule.NOT_OPEN
    if wanted is Wanted.MUTABLE and given is not Given.ON_MUTABLE:
        return Rule.WRONG_KIND
    if wanted is Wanted.IMMUTABLE and given is not Given.ON_IMMUTABLE:
        return Rule.WRONG_KIND
    return Rule.NONE


@icontract.ensure(lambda result, closed: (result is Rule.CLOSED) == closed, "REF-CLOSE-1")
@icontract.ensure(
    lambda result, closed, given: closed or (result is Rule.NONE) == (given is Given.NOTHING or given is Given.ON_IMMUTABLE),
    "REF-NEW-3",
)
def new_guard(closed: bool, given: Given) -> Rule:
    """The refusal of new."""
    if closed:
        return Rule.CLOSED
    if given is Given.NOT_OPEN:
        return Rule.NOT_OPEN
    return Rule.NO_PARENT if given is Given.ON_MUTABLE else Rule.NONE


@icontract.require(lambda found, held: found is not Found.ABSENT or not held)
@icontract.ensure(lambda result, closed: (result is Rule.CLOSED) == closed, "REF-CLOSE-1")
@icontract.ensure(lambda result, closed, found: closed or (result is Rule.ABSENT) == (found is Found.ABSENT), "REF-ERROR-2")
@icontract.ensure(lambda result, closed, found: closed or found is not Found.IMMUTABLE or result is Rule.NONE, "REF-GET-1")
@icontract.ensure(
    lambda result, closed, found, held: closed or found is not Found.MUTABLE or (result is Rule.LOCKED) == held, "REF-GET-2"
)
def get_guard(closed: bool, found: Found, held: bool) -> Rule:
    """The refusal of get. `held`: the record itself has an open handle."""
    if closed:
        return Rule.CLOSED
    if found is Found.ABSENT:
        return Rule.ABSENT
    return Rule.LOCKED if found is Found.MUTABLE and held else Rule.NONE


@icontract.require(lambda found, held: found is not Found.ABSENT or not held)
@icontract.ensure(lambda result, closed: (result is Rule.CLOSED) == closed, "REF-CLOSE-1")
@icontract.ensure(lambda result, closed, found: closed or (result is Rule.ABSENT) == (found is Found.ABSENT), "REF-ERROR-2")
@icontract.ensure(lambda result, closed, found: closed or (result is Rule.WRONG_KIND) == (found is Found.IMMUTABLE), "REF-MUT-1")
@icontract.ensure(
    lambda result, closed, found, held: closed or found is not Found.MUTABLE or (result is Rule.LOCKED) == held, "REF-MUT-2"
)
def get_mutable_guard(closed: bool, found: Found, held: bool) -> Rule:
    """The refusal of get_mutable. `held`: the record or its other half has an open handle."""
    if closed:
        return Rule.CLOSED
    if found is Found.ABSENT:
        return Rule.ABSENT
    if found is Found.IMMUTABLE:
        return Rule.WRONG_KIND
    return Rule.LOCKED if held else Rule.NONE


@icontract.ensure(lambda result, paired, readonly: readonly or result == paired, "REF-MOUNT-3")
@icontract.ensure(lambda result, readonly, keeps_lists: not (readonly and keeps_lists) or not result, "REF-MOUNT-4")
@icontract.ensure(lambda result, paired: paired or not result, "REF-FINAL-2")
def finalizes(paired: bool, readonly: bool, keeps_lists: bool) -> bool:
    """Whether a mount of E finalizes it. `paired`: E is not final; `keeps_lists`: a commit of the driver leaves lists good."""
    return paired and not (readonly and keeps_lists)


@icontract.ensure(lambda result, paired: paired or result, "REF-USAGE-1")
@icontract.ensure(lambda result, paired, mutable, e_held: not paired or result == (mutable != e_held), "REF-PAIR-3")
def stands_for_snapshot(paired: bool, mutable: bool, e_held: bool) -> bool:
    """Whether disk_usage shows the snapshot under this record's id. `e_held`: the pair's E has an open handle."""
    if not paired:
        return True
    return not e_held if mutable else e_held


@icontract.require(lambda stored: stored is None or stored >= 0)
@icontract.ensure(lambda result, mutable, used: not (mutable and used) or result == 0, "REF-USAGE-3")
@icontract.ensure(lambda result, mutable, stored: mutable or result == stored, "REF-SIZE-1")
def size_in_row(mutable: bool, used: bool, stored: int | None) -> int | None:
    """The size in a row of disk_usage; None where any true one will do. `stored` is the record's, which an M has not."""
    if not mutable:
        return stored
    return 0 if used else None


@icontract.require(lambda children: children >= 0)
@icontract.ensure(lambda result, used: not (used and result), "REF-PRUNE-1")
@icontract.ensure(lambda result, claimed: not (claimed and result), "REF-NEW-4")
@icontract.ensure(lambda result, children: children == 0 or not result, "REF-PRUNE-1")
@icontract.ensure(lambda result, used, claimed, children: result or used or claimed or children > 0, "REF-PRUNE-1")
def may_go(used: bool, claimed: bool, children: int) -> bool:
    """Whether prune may take a record now. `claimed`: a running new builds on it, or on what is built on it."""
    return not used and not claimed and children == 0
