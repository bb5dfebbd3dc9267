"""Stores in miniature that the tests of the model share, and what comes of a call on them, in words."""

from __future__ import annotations

from snapspec.model.frozen import Map
from snapspec.model.guards import Door
from snapspec.model.ops import Operation
from snapspec.model.replies import Outcome, Refused
from snapspec.model.snapshots import outcomes
from snapspec.model.state import NOW, Profile, Snapshot, Span, State
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
