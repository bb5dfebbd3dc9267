"""The oracle: which states the history so far allows.

It is told that a call began (`invoke`), what it answered (`respond`), that the process died (`crash`). It keeps every
pair of a state and of the calls that have taken effect in it without having answered. An answer narrows that set; an answer
that leaves nothing is a `Divergence`, which says what was allowed, by which clause, and what came.

A call takes effect at one instant between its beginning and its answer (SNAP-FAIL-2); calls are let take effect as late as
the answers permit, so that a history without overlap costs one step a call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import icontract

from snapspec.model.frozen import Map
from snapspec.model.ops import Operation
from snapspec.model.replies import Accepted, Lost, Mismatch, Outcome, Response, describe, judge
from snapspec.model.snapshots import outcomes
from snapspec.model.state import Span, State


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has begun, at the time `since`."""

    op: Operation
    since: int


@dataclass(frozen=True, slots=True)
class World:
    """A state that the history allows, and the calls that took effect in it and have not answered."""

    state: State
    landed: Map[int, Outcome] = field(default_factory=Map)


@dataclass(frozen=True, slots=True)
class Belief:
    """All that the history so far allows. `clauses` are those that the last answer was held against."""

    worlds: frozenset[World]
    calls: Map[int, Call] = field(default_factory=Map)
    clauses: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """One of the allowed states, the same one for the same history: what a generator chooses by."""
        return min((w.state for w in self.worlds), key=_order) if len(self.worlds) > 1 else next(iter(self.worlds)).state


def _order(state: State) -> tuple[int, str]:
    return len(state.snapshots), repr(sorted(state.snapshots.items()))


@dataclass(frozen=True, slots=True)
class Divergence:
    """An answer that no allowed state permits. `mismatches` hold what was allowed and how the answer departs from it."""

    op: Operation
    response: Response
    mismatches: tuple[Mismatch, ...]

    @property
    def clause(self) -> str:
        """The clause that is broken: that of the outcome which the answer came nearest to."""
        return self.mismatches[0].clause


class TooManyStates(Exception):
    """The history allows more states than the oracle will hold; the generator asked for too much overlap."""


LIMIT = 4096


def begin(state: State) -> Belief:
    """The belief of somebody who knows the state."""
    return Belief(frozenset({World(state)}))


def invoke(belief: Belief, call: int, op: Operation, now: int = 0) -> Belief:
    """The call numbered `call` begins at the time `now`."""
    return Belief(belief.worlds, belief.calls.set(call, Call(op, now)))


def respond(belief: Belief, call: int, response: Response, now: int = 0) -> Belief | Divergence:
    """The call answers at the time `now`. A lost answer tells nothing: the call stays open and may still take effect."""
    if isinstance(response, Lost):
        return belief
    worlds: set[World] = set()
    clauses: dict[str, None] = {}
    mismatches: list[Mismatch] = []
    for world in _with_landed(belief, call, now):
        outcome = world.landed[call]
        verdict = judge(outcome, response)
        if isinstance(verdict, Mismatch):
            mismatches.append(verdict)
            continue
        clauses.update(dict.fromkeys(verdict.clauses))
        worlds.add(World(_learn(world.state, outcome.state, verdict), world.landed.without(call)))
    if not worlds:
        return Divergence(belief.calls[call].op, response, _nearest(mismatches))
    return Belief(_limited(worlds), belief.calls.without(call), tuple(clauses))


def perform(belief: Belief, op: Operation, response: Response, began: int = 0, ended: int = 0) -> Belief | Divergence:
    """A call that overlaps with no other, from its beginning to its answer."""
    return respond(invoke(belief, -1, op, began), -1, response, ended)


@icontract.ensure(lambda result: len(result.calls) == 0 and all(len(w.landed) == 0 for w in result.worlds), "SNAP-FAIL-2")
def crash(belief: Belief, now: int = 0) -> Belief:
    """The process dies: each open call has taken effect or never will (SNAP-FAIL-2)."""
    worlds = {World(world.state) for world in _reachable(belief, now)}
    return Belief(_limited(worlds))


def allowed(belief: Belief, op: Operation, now: int = 0) -> tuple[tuple[str, str], ...]:
    """What `op` may answer now: pairs of a clause and its words, each once."""
    found = {(o.clause, describe(o.reply)) for w in belief.worlds for o in outcomes(w.state, op, Span(now, now))}
    return tuple(sorted(found))


def _with_landed(belief: Belief, call: int, now: int) -> Iterator[World]:
    """The worlds in which `call` has taken effect; other open calls take effect before it only where that is new."""
    if len(belief.calls) == 1:
        for world in belief.worlds:
            yield from [world] if call in world.landed else _land(belief, world, call, now)
        return
    seen: set[World] = set()
    todo = list(belief.worlds)
    while todo:
        world = todo.pop()
        if call in world.landed:
            yield world
            continue
        for other in belief.calls:
            if other in world.landed:
                continue
            for after in _land(belief, world, other, now):
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
        _limited(seen)


def _reachable(belief: Belief, now: int) -> set[World]:
    """Every world that open calls may have brought about."""
    seen = set(belief.worlds)
    todo = list(seen)
    while todo:
        world = todo.pop()
        for call in belief.calls:
            if call not in world.landed:
                fresh = {w for w in _land(belief, world, call, now) if w not in seen}
                seen |= fresh
                todo.extend(fresh)
        _limited(seen)
    return seen


def _land(belief: Belief, world: World, call: int, now: int) -> Iterator[World]:
    """The call takes effect now, in each allowed way."""
    begun = belief.calls[call]
    for outcome in outcomes(world.state, begun.op, Span(begun.since, max(begun.since, now))):
        yield World(outcome.state, world.landed.set(call, outcome))


def _limited(worlds: set[World]) -> frozenset[World]:
    if len(worlds) > LIMIT:
        raise TooManyStates(f"more than {LIMIT} states are possible: fewer calls may overlap")
    return frozenset(worlds)


def _learn(state: State, judged: State, verdict: Accepted) -> State:
    """The state with what the answer told; a snapshot that a later call has changed since keeps what it is."""
    for key, snapshot in verdict.learned:
        if state.get(key) == judged.get(key):
            state = state.put(key, snapshot)
    return state


def _nearest(mismatches: list[Mismatch]) -> tuple[Mismatch, ...]:
    """The mismatches, each once; an outcome that was of the right form comes before one that was not."""
    unique = dict.fromkeys(mismatches)
    return tuple(sorted(unique, key=lambda m: m.came.startswith("success")))
