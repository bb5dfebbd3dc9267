"""What a call of the manager may come to: its errors, its replies, an outcome of it with its clause, and its refusals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from snapspec.model import ref_ops
from snapspec.model.ref_guards import Rule, Wanted, handle_guard
from snapspec.model.ref_state import RefState, given


class RefError(Enum):
    """The error classes of the manager."""

    CLOSED = "Closed"
    INVALID = "Invalid"
    NOT_FOUND = "NotFound"
    LOCKED = "Locked"
    STORE = "StoreError"
    DRIVER = "DriverError"


@dataclass(frozen=True, slots=True)
class RefRefused:
    """An error of this class."""

    error: RefError


@dataclass(frozen=True, slots=True)
class RefDone:
    """An answer without a value."""


@dataclass(frozen=True, slots=True)
class GivesHandle:
    """The handle `handle`, on the record `record`."""

    handle: str
    record: str


@dataclass(frozen=True, slots=True)
class NoHandle:
    """Nothing: there is no parent."""


@dataclass(frozen=True, slots=True)
class TellsSize:
    """The size of `record`: as told before, if it was; otherwise measured of its own layer."""

    record: str


@dataclass(frozen=True, slots=True)
class GivesList:
    """A mount list of `record`; `writable` says whether it can be written through."""

    record: str
    writable: bool


@dataclass(frozen=True, slots=True)
class ChangedThrough:
    """For each change in order, the words that may come."""

    record: str
    results: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class ShowsTree:
    """The whole tree of `record`."""

    record: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of disk_usage. `size` is None where any true value will do."""

    record: str
    parent: str
    mutable: bool
    in_use: bool
    size: int | None


@dataclass(frozen=True, slots=True)
class ListsRows:
    """The rows of disk_usage, in any order."""

    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What prune removed: for each snapshot its records' ids, and its bytes where they were known."""

    removed: tuple[tuple[frozenset[str], int | None], ...]


RefReply = RefRefused | RefDone | GivesHandle | NoHandle | TellsSize | GivesList | ChangedThrough | ShowsTree | ListsRows | Pruned


@dataclass(frozen=True, slots=True)
class RefOutcome:
    """One allowed end of a call: the clause that allows it, the reply, and the state afterwards.

    With a `rest` it is one step of the call, and the reply is still to come.
    """

    clause: str
    reply: RefReply
    state: RefState
    rest: ref_ops.RefStep | None = None


RefOutcomes = tuple[RefOutcome, ...]


# --- refusals

Refusals = dict[Rule, tuple[str, RefError]]

_CLOSED = ("REF-CLOSE-1", RefError.CLOSED)
_ABSENT = ("REF-ERROR-2", RefError.NOT_FOUND)

HANDLE: Refusals = {
    Rule.CLOSED: _CLOSED,
    Rule.NOT_OPEN: ("REF-HANDLE-4", RefError.INVALID),
    Rule.WRONG_KIND: ("REF-ERROR-1", RefError.INVALID),
}
NEW: Refusals = {
    Rule.CLOSED: _CLOSED,
    Rule.NOT_OPEN: ("REF-NEW-3", RefError.INVALID),
    Rule.NO_PARENT: ("REF-NEW-3", RefError.INVALID),
}
GET: Refusals = {
    Rule.CLOSED: _CLOSED,
    Rule.ABSENT: _ABSENT,
    Rule.LOCKED: ("REF-GET-2", RefError.LOCKED),
}
GET_MUTABLE: Refusals = {
    Rule.CLOSED: _CLOSED,
    Rule.ABSENT: _ABSENT,
    Rule.WRONG_KIND: ("REF-MUT-1", RefError.INVALID),
    Rule.LOCKED: ("REF-MUT-2", RefError.LOCKED),
}


def refused(state: RefState, table: Refusals, rule: Rule) -> RefOutcomes:
    """The one outcome of a refusal: the error, and nothing changed (REF-ERROR-4)."""
    clause, error = table[rule]
    return (RefOutcome(clause, RefRefused(error), state),)


def refused_closed(state: RefState) -> RefOutcomes:
    """The refusal of any call on a closed manager."""
    return refused(state, HANDLE, Rule.CLOSED)


def unfit(state: RefState, handle: str, wanted: Wanted = Wanted.EITHER) -> RefOutcomes | None:
    """The refusal of a call on a handle, if it is refused."""
    rule = handle_guard(state.closed, given(state, handle), wanted)
    return None if rule is Rule.NONE else refused(state, HANDLE, rule)


def succeeded(outcomes: RefOutcomes) -> Iterator[RefOutcome]:
    """The outcomes that are no refusals."""
    return (o for o in outcomes if not isinstance(o.reply, RefRefused))
