"""`model:`: the model as a subject of its own check, which it must always pass."""

from __future__ import annotations

import time

from snapspec.conformance.subjects.base import Subject
from snapspec.model.guards import Door
from snapspec.model.ops import Operation
from snapspec.model.replies import (
    Accepted,
    Changed,
    Done,
    Failed,
    Gives,
    Lists,
    Measures,
    Outcome,
    Reading,
    Refused,
    Response,
    Returned,
    Shows,
    Tells,
    Value,
    judge,
    least_size,
)
from snapspec.model.snapshots import outcomes
from snapspec.model.state import Profile, Snapshot, Span, State, ancestors
from snapspec.model.values import Info, Kind, Mount, Usage


class ModelSubject(Subject):
    """Answers each call with the first outcome that the model allows, and learns from its own answer as the oracle does."""

    reopens = True
    note = "the model itself"

    def __init__(self, name: str, profile: Profile) -> None:
        self.name = name
        self.profile = profile
        self.spaces = 2 if profile.door is Door.METADATA else 1
        self._states: list[State] = []
        self._made = 0

    async def start(self) -> None:
        """Nothing to make ready."""

    async def begin(self) -> None:
        """Empty stores."""
        self._states = [State(profile=self.profile) for _ in range(self.spaces)]

    async def perform(self, space: int, op: Operation) -> Response:
        """The first allowed outcome, as an answer."""
        now = time.time_ns()
        outcome = outcomes(self._states[space], op, Span(now, now))[0]
        response = self.answer(outcome)
        verdict = judge(outcome, response)
        state = outcome.state
        if isinstance(verdict, Accepted):
            for key, snapshot in verdict.learned:
                state = state.put(key, snapshot)
        self._states[space] = state
        return response

    async def clear(self) -> None:
        """The next history begins on empty stores anyway."""

    async def stop(self) -> None:
        """Nothing to end."""

    def answer(self, outcome: Outcome) -> Returned | Failed:
        """An answer that the outcome allows."""
        if isinstance(outcome.reply, Refused):
            return Failed(min(outcome.reply.errors, key=lambda e: e.value), outcome.clause)
        return Returned(self._value(outcome))

    def _value(self, outcome: Outcome) -> Value:
        state = outcome.state
        match outcome.reply:
            case Gives(key):
                return state.snapshots[key].mounts or self._mounts(state, key)
            case Tells(name):
                return _info(name, state.snapshots[name])
            case Lists(names):
                return tuple(_info(name, state.snapshots[name]) for name in names)
            case Measures(key):
                return _reading(state, state.snapshots[key])
            case Changed(results):
                return tuple(min(words) for words in results)
            case Shows(key):
                return state.snapshots[key].tree
            case Done() | Refused():
                return None

    def _mounts(self, state: State, key: str) -> tuple[Mount, ...]:
        """A list in the form of the overlay reference's, in directories that do not exist."""
        self._made += 1
        own = f"/model/{self._made}"
        lowers = ":".join(f"/model/of/{name}" for name in ancestors(state, key))
        writable = state.snapshots[key].kind is Kind.ACTIVE
        if not lowers:
            return (Mount("bind", own, ("rbind", "rw" if writable else "ro")),)
        upper = (f"upperdir={own}/fs", f"workdir={own}/work") if writable else ("ro",)
        return (Mount("overlay", "overlay", (*upper, f"lowerdir={lowers}")),)


def _info(name: str, snapshot: Snapshot) -> Info:
    created = snapshot.created.latest
    updated = created if snapshot.updated is None else snapshot.updated.latest
    return Info(name, snapshot.parent, snapshot.kind, snapshot.labels, created, updated)


def _reading(state: State, snapshot: Snapshot) -> Reading:
    if snapshot.kind is Kind.VIEW:
        return Reading(Usage(0, 0))
    return Reading(snapshot.usage or Usage(least_size(state, snapshot), 1))
