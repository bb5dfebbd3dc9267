"""The model of a store in the form that the checker takes: the oracle's own, an answer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from snapspec.conformance.linear import Call
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.oracle import SNAPSHOTS
from snapspec.model.replies import Failed, Lost, Mismatch, Response, Returned
from snapspec.model.snapshots import GC_ROOT
from snapspec.model.state import Span, State, children
from snapspec.model.values import Info

#: The calls that change something, when they succeed; the others only tell.
CHANGES = ops.Prepare | ops.View | ops.Commit | ops.Remove | ops.Update | ops.Write


@dataclass(frozen=True, slots=True)
class Asked:
    """An operation, and when it took place, by the clock that the driver has too."""

    op: Operation
    at: Span


class StoreModel:
    """The oracle's model of a store, from `initial` on.

    Behind containerd's metadata layer `collected` are keys that its garbage collector may have taken at any moment: nobody has
    been seen to keep them.
    """

    def __init__(self, initial: State, collected: frozenset[str] = frozenset()) -> None:
        self.initial = initial
        self.collected = collected

    def step(self, state: State, operation: Asked, outcome: Response | None) -> Iterator[State]:
        """Every state that the oracle allows afterwards."""
        after = list(self._allowed(state, operation, outcome))
        if not after and self.collected:
            collected = self._collections(state, operation.op, outcome)
            after = [allowed for less in collected for allowed in self._allowed(less, operation, outcome)]
        yield from after

    def looks(self, operation: Asked, outcome: Response | None) -> bool:
        """A call that was refused changes nothing (SNAP-FAIL-1); of the others some only tell."""
        return isinstance(outcome, Failed) or not isinstance(operation.op, CHANGES)

    def _allowed(self, state: State, asked: Asked, response: Response | None) -> Iterator[State]:
        for outcome in SNAPSHOTS.outcomes(state, asked.op, asked.at):
            if response is None or isinstance(response, Lost):
                yield outcome.state
                continue
            verdict = SNAPSHOTS.judge(outcome, response)
            if not isinstance(verdict, Mismatch):
                yield SNAPSHOTS.learn(outcome.state, outcome.state, verdict)

    def mismatches(self, state: State, asked: Asked, response: Response) -> tuple[Mismatch, ...]:
        """How the answer departs from all that is allowed in this state."""
        assert not isinstance(response, Lost)
        judged = [SNAPSHOTS.judge(outcome, response) for outcome in SNAPSHOTS.outcomes(state, asked.op, asked.at)]
        return tuple(verdict for verdict in judged if isinstance(verdict, Mismatch))

    def _collections(self, state: State, op: Operation, outcome: Response | None) -> Iterator[State]:
        """The states after a collection that this answer may tell of (DOOR-GC-1)."""
        named = [{key, *_below(state, key)} for key in names(op)]
        gone = [*named, *(keys - {key} for keys, key in zip(named, names(op), strict=True)), set().union(*named)]
        if isinstance(op, ops.Walk) and isinstance(outcome, Returned) and isinstance(outcome.value, tuple):
            gone = [set(state.snapshots) - told_names(outcome)]
        for keys in gone:
            if keys and all(self._may_go(state, key) for key in keys):
                yield state.drop(*keys)

    def _may_go(self, state: State, key: str) -> bool:
        labels = state.snapshots[key].labels if key in state.snapshots else ()
        return key in self.collected and all(name != GC_ROOT for name, _ in labels)


def _below(state: State, key: str) -> Iterator[str]:
    for child in children(state, key):
        yield child
        yield from _below(state, child)


def names(op: Operation) -> tuple[str, ...]:
    """The keys and names that the call names, each once."""
    if isinstance(op, ops.Nowhere):
        return names(op.call)
    named = (getattr(op, field, "") for field in ("key", "name", "parent"))
    return tuple(dict.fromkeys(name for name in named if name))


def told_names(response: Response) -> set[str]:
    value = response.value if isinstance(response, Returned) else None
    return {info.name for info in value if isinstance(info, Info)} if isinstance(value, tuple) else set()


@dataclass(frozen=True, slots=True)
class Part:
    """What belongs together: the model with the state at the beginning, and the calls."""

    model: StoreModel
    calls: tuple[Call, ...]
