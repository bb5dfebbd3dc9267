"""A driver that does right: it does each call at one instant, as the model allows, and settles there what it tells."""

from __future__ import annotations

from dataclasses import dataclass, replace

from snapspec.model.ops import Operation
from snapspec.model.replies import (
    Changed,
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
    least_size,
)
from snapspec.model.snapshots import outcomes
from snapspec.model.state import Snapshot, Span, State, ancestors
from snapspec.model.values import Info, Kind, Mount, Usage


@dataclass
class Driver:
    """A store, a clock that the test moves, and how many snapshots were ever made."""

    state: State
    clock: int = 0
    made: int = 0

    def do(self, op: Operation, choice: int = 0) -> Response:
        """The call takes effect now, in one of the ways that are allowed; gives what it answers."""
        ways = outcomes(self.state, op, Span(self.clock, self.clock))
        outcome = ways[choice % len(ways)]
        before, self.state = self.state, outcome.state
        for key, snapshot in outcome.state.snapshots.items():
            if before.get(key) is None:
                self.state = self.state.put(key, self._furnished(key, snapshot))
        return self._answer(replace(outcome, state=self.state))

    def _furnished(self, key: str, snapshot: Snapshot) -> Snapshot:
        self.made += 1
        if snapshot.kind is Kind.COMMITTED:
            return replace(snapshot, usage=Usage(least_size(self.state, snapshot) + self.made % 512, 1))
        lowers = ":".join(ancestors(self.state, key))
        option = f"upperdir=/{self.made}" if snapshot.kind is Kind.ACTIVE else "ro"
        return replace(snapshot, mounts=(Mount("overlay", "overlay", (f"lowerdir={lowers}", option)),))

    def _answer(self, outcome: Outcome) -> Response:
        if isinstance(outcome.reply, Refused):
            return Failed(min(outcome.reply.errors, key=lambda error: error.value))
        return Returned(_value(outcome))


def _value(outcome: Outcome) -> Value:
    snapshots = outcome.state.snapshots
    match outcome.reply:
        case Gives(key):
            return snapshots[key].mounts
        case Tells(key):
            return _info(key, snapshots[key])
        case Lists(names):
            return tuple(_info(name, snapshots[name]) for name in reversed(names))
        case Measures(key):
            size = 0 if snapshots[key].kind is Kind.VIEW else least_size(outcome.state, snapshots[key])
            return Reading(snapshots[key].usage or Usage(size, 0))
        case Changed(results):
            return tuple(min(words) for words in results)
        case Shows(key):
            return snapshots[key].tree
    return None


def _info(key: str, snapshot: Snapshot) -> Info:
    updated = snapshot.updated or snapshot.created
    return Info(key, snapshot.parent, snapshot.kind, snapshot.labels, snapshot.created.latest, updated.latest)
