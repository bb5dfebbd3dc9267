"""Stores and managers in miniature that the tests of the model share, and what comes of a call on them, in words."""

from __future__ import annotations

from dataclasses import replace

from snapspec.model import refs
from snapspec.model.frozen import Map
from snapspec.model.guards import Door
from snapspec.model.ops import Operation
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_outcomes import RefOutcome, RefRefused
from snapspec.model.ref_state import Declared, Handle, Record, RefState
from snapspec.model.replies import Outcome, Refused
from snapspec.model.snapshots import outcomes
from snapspec.model.state import NOW, Profile, Snapshot, Span, State
from snapspec.model.tree import EMPTY, MakeFile, outcomes_of
from snapspec.model.values import ErrorClass, Kind

DIRECT = Profile(door=Door.DIRECT)
METADATA = Profile(door=Door.METADATA, wire=True)

#: One key of each kind, and `base` with a child of each kind that is no parent: what a call can meet.
ONE_OF_EACH = Map(
    {
        "active": Snapshot(Kind.ACTIVE),
        "view": Snapshot(Kind.VIEW),
        "leaf": Snapshot(Kind.COMMITTED),
        "base": Snapshot(Kind.COMMITTED),
        "child": Snapshot(Kind.ACTIVE, "base"),
        "window": Snapshot(Kind.VIEW, "base"),
        "top": Snapshot(Kind.COMMITTED, "base"),
    }
)


def store(profile: Profile = DIRECT, /, **snapshots: Snapshot) -> State:
    """A store of `snapshots`, or of one of each kind when none is given."""
    return State(Map(snapshots) if snapshots else ONE_OF_EACH, profile)


def only(state: State, op: Operation, at: Span = NOW) -> Outcome:
    """The one allowed outcome of `op`."""
    (outcome,) = outcomes(state, op, at)
    return outcome


def word(outcome: Outcome) -> str:
    """The outcome in a word: "ok", "any" error, or the names of the error classes."""
    if not isinstance(outcome.reply, Refused):
        return "ok"
    errors = outcome.reply.errors
    return "any" if errors == frozenset(ErrorClass) else " or ".join(sorted(e.value for e in errors))


# --- refs

#: What the records of the manager in miniature hold, but those without a parent that are written to by nobody.
FILE = outcomes_of(EMPTY, EMPTY, MakeFile("f", b"x"))[0].tree

#: Something of each kind: an M that is open and one that is not, a pair that is held and one that is not, a final E without
#: anything, and one with a handle and with children, one of which is open.
RECORDS = Map(
    {
        "open": Record(mutable=True),
        "idle": Record(mutable=True),
        "held_m": Record(mutable=True, equal="held_e"),
        "held_e": Record(mutable=False, equal="held_m"),
        "rest_m": Record(mutable=True, parent="base", equal="rest_e"),
        "rest_e": Record(mutable=False, parent="base", equal="rest_m", size=7),
        "leaf": Record(mutable=False, size=5),
        "base": Record(mutable=False),
        "child": Record(mutable=True, parent="base"),
    }
)

#: A handle on each record that has one, by the record's name with an h before it; and one that is not open any more.
HANDLES = Map(
    {
        **{f"h_{name}": Handle(name, RECORDS[name].mutable) for name in ("open", "held_e", "base", "child")},
        "old": Handle("base", False, open=False),
    }
)

SNAPSHOTS = Map(
    {
        **{name: Snapshot(Kind.ACTIVE, tree=FILE) for name in ("open", "idle", "held_m")},
        **{name: Snapshot(Kind.ACTIVE, "base", tree=FILE) for name in ("rest_m", "child")},
        **{name: Snapshot(Kind.COMMITTED, tree=FILE) for name in ("leaf", "base")},
    }
)


def manager(*gone: str, declared: Declared | None = None, closed: bool = False) -> RefState:
    """A manager with something of each kind, but what is `gone`."""
    handles = Map((name, replace(handle, open=handle.open and not closed)) for name, handle in HANDLES.items())
    state = RefState(RECORDS.without(*gone), handles.without(*gone), State(SNAPSHOTS.without(*gone)), closed)
    return state if declared is None else replace(state, declared=declared)


def only_ref(state: RefState, op: RefOperation) -> RefOutcome:
    """The one allowed outcome of `op`."""
    (outcome,) = refs.outcomes(state, op)
    return outcome


def ref_word(outcome: RefOutcome) -> str:
    """The outcome in a word: "ok" or the name of the error."""
    return outcome.reply.error.value if isinstance(outcome.reply, RefRefused) else "ok"
