"""Which refusal wins: the order of errors of each call, as functions over a few scalars.

Each guard is total and small enough for a symbolic checker to confirm its contract over all inputs.
"""

from __future__ import annotations

from enum import Enum

import icontract


class Door(Enum):
    """Where the driver is spoken to: directly (its own socket or object), or through containerd's metadata layer."""

    DIRECT = "direct"
    METADATA = "metadata"


class Rebase(Enum):
    """What a driver does with a parent that is given at commit for a snapshot that has none."""

    REFUSED = "refused"
    IGNORED = "ignored"
    MERGED = "merged"


class Named(Enum):
    """What a name that a call gives stands for. NOTHING: no name was given."""

    NOTHING = 0
    ABSENT = 1
    ACTIVE = 2
    VIEW = 3
    COMMITTED = 4


class Reason(Enum):
    """Why a call is refused; NONE when it is not."""

    NONE = 0
    LABEL_TOO_LONG = 1
    KEY_EMPTY = 2
    KEY_ABSENT = 3
    KEY_TAKEN = 4
    PARENT_ABSENT = 5
    PARENT_NOT_COMMITTED = 6
    NAME_TAKEN = 7
    NAME_EMPTY = 8
    NOT_ACTIVE = 9
    IS_COMMITTED = 10
    HAS_CHILDREN = 11
    PARENT_CONFLICT = 12
    REBASE_ABSENT = 13
    REBASE_NOT_COMMITTED = 14
    BAD_PATH = 15


@icontract.require(lambda door, too_long: door is Door.METADATA or not too_long, "DOOR-LABEL-1")
@icontract.ensure(
    lambda result, too_long, empty, taken, parent: (
        (result is Reason.NONE) == (not (too_long or empty or taken) and parent in (Named.NOTHING, Named.COMMITTED))
    ),
    "SNAP-PREPARE-6",
)
@icontract.ensure(
    lambda result, door, taken, too_long: not (door is Door.METADATA and taken and not too_long) or result is Reason.KEY_TAKEN,
    "DOOR-ORDER-1",
)
@icontract.ensure(
    lambda result, door, parent: not (door is Door.DIRECT and parent is Named.ABSENT) or result is Reason.PARENT_ABSENT,
    "SNAP-PREPARE-5",
)
def prepare_guard(door: Door, too_long: bool, empty: bool, taken: bool, parent: Named) -> Reason:
    """The refusal of prepare and view. `too_long` is a label over the limit and is False at the direct door."""
    if too_long:
        return Reason.LABEL_TOO_LONG
    if taken and door is Door.METADATA:
        return Reason.KEY_TAKEN
    if parent is Named.ABSENT:
        return Reason.PARENT_ABSENT
    if parent is Named.ACTIVE or parent is Named.VIEW:
        return Reason.PARENT_NOT_COMMITTED
    if taken:
        return Reason.KEY_TAKEN
    return Reason.KEY_EMPTY if empty else Reason.NONE


@icontract.require(lambda key: key is not Named.NOTHING)
@icontract.require(lambda door, too_long: door is Door.METADATA or not too_long, "DOOR-LABEL-1")
@icontract.ensure(
    lambda result, door, key: not (door is Door.DIRECT and key is Named.ABSENT) or result is Reason.KEY_ABSENT,
    "SNAP-COMMIT-5",
)
@icontract.ensure(
    lambda result, door, taken, too_long: not (door is Door.METADATA and taken and not too_long) or result is Reason.NAME_TAKEN,
    "DOOR-ORDER-2",
)
@icontract.ensure(
    lambda result, key, taken, empty: result is not Reason.NONE or (key is Named.ACTIVE and not taken and not empty),
    "SNAP-COMMIT-8",
)
def commit_guard(door: Door, too_long: bool, key: Named, taken: bool, empty: bool) -> Reason:
    """The refusal of commit as far as its key and name decide it; `taken` and `empty` speak of the name."""
    if too_long:
        return Reason.LABEL_TOO_LONG
    if door is Door.METADATA:
        if taken:
            return Reason.NAME_TAKEN
        if empty:
            return Reason.NAME_EMPTY
    if key is Named.ABSENT:
        return Reason.KEY_ABSENT
    if taken:
        return Reason.NAME_TAKEN
    if empty:
        return Reason.NAME_EMPTY
    return Reason.NONE if key is Named.ACTIVE else Reason.NOT_ACTIVE


@icontract.ensure(
    lambda result, own, asked, same: result is not Reason.NONE or asked is Named.NOTHING or same or not own, "SNAP-COMMIT-6"
)
@icontract.ensure(lambda result, asked, same: not (asked is Named.NOTHING or same) or result is Reason.NONE, "SNAP-COMMIT-6")
def rebase_guard(own: bool, asked: Named, same: bool) -> Reason:
    """The refusal of a parent asked for at commit, by a driver that can rebase.

    `own`: the key has a parent; `same`: it is the one asked for.
    """
    if asked is Named.NOTHING or same:
        return Reason.NONE
    if own:
        return Reason.PARENT_CONFLICT
    if asked is Named.ABSENT:
        return Reason.REBASE_ABSENT
    return Reason.NONE if asked is Named.COMMITTED else Reason.REBASE_NOT_COMMITTED


@icontract.require(lambda key: key is not Named.NOTHING)
@icontract.ensure(lambda result, key: (result is Reason.NONE) == (key in (Named.ACTIVE, Named.VIEW)), "SNAP-MOUNTS-2")
def mounts_guard(key: Named) -> Reason:
    """The refusal of mounts, and so of reading and writing through them."""
    if key is Named.ABSENT:
        return Reason.KEY_ABSENT
    return Reason.IS_COMMITTED if key is Named.COMMITTED else Reason.NONE


@icontract.require(lambda children: children >= 0)
@icontract.ensure(lambda result, exists, children: (result is Reason.NONE) == (exists and children == 0), "SNAP-REMOVE-3")
@icontract.ensure(lambda result, exists: exists or result is Reason.KEY_ABSENT, "SNAP-REMOVE-1")
def remove_guard(exists: bool, children: int) -> Reason:
    """The refusal of remove."""
    if not exists:
        return Reason.KEY_ABSENT
    return Reason.HAS_CHILDREN if children > 0 else Reason.NONE


@icontract.ensure(
    lambda result, exists, bad_path, too_long, empty: (result is Reason.NONE) == (exists and not (bad_path or too_long or empty)),
    "SNAP-UPDATE-4",
)
@icontract.ensure(lambda result, exists, empty: exists or empty or result is Reason.KEY_ABSENT, "SNAP-UPDATE-3")
def update_guard(empty: bool, exists: bool, bad_path: bool, too_long: bool) -> Reason:
    """The refusal of update. `empty`: a name that the metadata layer refuses before it looks."""
    if empty:
        return Reason.KEY_EMPTY
    if not exists:
        return Reason.KEY_ABSENT
    if bad_path:
        return Reason.BAD_PATH
    return Reason.LABEL_TOO_LONG if too_long else Reason.NONE


@icontract.require(lambda low, high: low <= high)
@icontract.ensure(lambda result, low, high, value: result == (low <= value and value <= high), "SNAP-TIME-1")
def within(low: int, high: int, value: int) -> bool:
    """Whether a time that was told lies within the call that set it."""
    return low <= value <= high


@icontract.require(lambda data, inodes, slack: data >= 0 and inodes >= 0 and slack >= 0)
@icontract.ensure(lambda result, data: result >= data, "SNAP-USAGE-6")
@icontract.ensure(lambda result, data, inodes: inodes > 0 or result == data, "SNAP-USAGE-6")
def usage_limit(data: int, inodes: int, slack: int) -> int:
    """The most that a layer can take: the blocks of the files it touched, and room for each inode's own metadata."""
    return data + inodes * slack
