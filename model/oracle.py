"""The oracle: which states the history so far allows.

It is told that a call began (`invoke`), what it answered (`respond`), that the process died (`crash`). It keeps every
pair of a state and of the calls that have taken effect in it without having answered. An answer narrows that set; an answer
that leaves nothing is a `Divergence`, which says what was allowed, by which clause, and what came.

A call takes effect at one instant between its beginning and its answer (SNAP-FAIL-2); calls are let take effect as late as
the answers permit, so that a history without overlap costs one step a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import icontract

from snapspec.model import ops
from snapspec.model.frozen import Map
from snapspec.model.ops import Operation
from snapspec.model.replies import (
    Accepted,
    Changed,
    Done,
    Gives,
    Lists,
    Lost,
    Measures,
    Mismatch,
    Outcome,
    Refused,
    Response,
    Tells,
    describe,
    judge,
)
from snapspec.model.snapshots import outcomes
from snapspec.model.state import Snapshot, Span, State, ancestors
from snapspec.model.tree import EMPTY
from snapspec.model.values import Kind


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has begun, at the time `since`. When it is `lost`, no answer to it will come."""

    op: Operation
    since: int
    lost: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """A state that the history allows, and the open calls that took effect in it, each with what it is to answer."""

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
        """One of the allowed states, the same one for the same history, older snapshots first: what a generator chooses by."""
        states = [w.state for w in self.worlds]
        state = min(states, key=_order) if len(states) > 1 else states[0]
        return State(Map(sorted(state.snapshots.items(), key=lambda item: (item[1].created, item[0]))), state.profile)


def _order(state: State) -> tuple[int, str]:
    """Fewest snapshots first, then by a text that is the same for equal states, in every process."""
    return len(state.snapshots), repr([(key, _spelled(snapshot)) for key, snapshot in sorted(state.snapshots.items())])


def _spelled(snapshot: Snapshot) -> tuple[Snapshot, list[str], list[str]]:
    nodes = [f"{path!r}: {node!r}" for path, node in sorted(snapshot.tree.nodes.items())]
    return replace(snapshot, tree=EMPTY, touched=frozenset()), sorted(snapshot.touched), nodes


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


@icontract.require(lambda belief, call: call not in belief.calls, "a number is given to one open call only")
def invoke(belief: Belief, call: int, op: Operation, now: int = 0) -> Belief:
    """The call numbered `call` begins at the time `now`."""
    return Belief(belief.worlds, belief.calls.set(call, Call(op, now)))


def respond(belief: Belief, call: int, response: Response, now: int = 0) -> Belief | Divergence:
    """The call answers at the time `now`. A lost answer tells nothing: the call stays open and may still take effect."""
    if isinstance(response, Lost):
        return _given_up(belief, call)
    worlds: set[World] = set()
    clauses: dict[str, None] = {}
    mismatches: list[Mismatch] = []
    for world in _with_landed(belief, call, now):
        outcome = _as_now(world.landed[call], world.state)
        verdict = judge(outcome, response)
        if isinstance(verdict, Mismatch):
            mismatches.append(verdict)
            continue
        clauses.update(dict.fromkeys(verdict.clauses))
        worlds.add(_without(world, (call,), _learn(world.state, outcome.state, verdict)))
    if not worlds:
        return Divergence(belief.calls[call].op, response, _nearest(mismatches))
    return _settled(Belief(_limited(worlds), belief.calls.without(call), tuple(clauses)))


def perform(belief: Belief, op: Operation, response: Response, began: int = 0, ended: int = 0) -> Belief | Divergence:
    """A call that overlaps with none but lost ones, from its beginning to its answer."""
    call = min((0, *belief.calls)) - 1
    return respond(invoke(belief, call, op, began), call, response, ended)


@icontract.ensure(lambda result: len(result.calls) == 0 and all(len(w.landed) == 0 for w in result.worlds), "SNAP-FAIL-2")
def crash(belief: Belief, now: int = 0) -> Belief:
    """The process dies: each open call has taken effect or never will (SNAP-FAIL-2)."""
    worlds = {_without(world, tuple(world.landed), world.state) for world in _reachable(belief, now)}
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
    alone = len(belief.calls) == 1
    for outcome in outcomes(world.state, begun.op, Span(begun.since, max(begun.since, now))):
        if begun.lost:
            # Without an effect it is as if the call had not come to it yet.
            if outcome.state is not world.state:
                yield World(_marked(outcome, begun.op, call), world.landed.set(call, UNHEARD))
        elif alone:
            yield World(outcome.state, world.landed.set(call, outcome))
        else:
            state = _marked(outcome, begun.op, call)
            yield World(state, world.landed.set(call, _pending(outcome, state)))


#: What a lost call is to answer: nothing that will ever be held against it.
UNHEARD = Outcome("SNAP-FAIL-2", Done(), State())


def _marked(outcome: Outcome, op: Operation, call: int) -> State:
    """The state after `outcome`, with the life that it begins, if any, marked by the call."""
    match op:
        case ops.Prepare(key=key) | ops.View(key=key) | ops.Commit(name=key) if not isinstance(outcome.reply, Refused):
            return outcome.state.put(key, replace(outcome.state.snapshots[key], life=call))
        case ops.Nowhere(call=named):
            return _marked(outcome, named, call)
    return outcome.state


def _pending(outcome: Outcome, state: State) -> Outcome:
    """What the answer will be held against and no more, so that orders which make no difference to it give one world."""
    match outcome.reply:
        case Refused() | Done() | Changed():
            return replace(outcome, state=State(profile=state.profile))
        case Lists():
            return outcome
        case reply:
            key = reply.name if isinstance(reply, Tells) else reply.key
            chain = Map((name, state.snapshots[name]) for name in (key, *ancestors(state, key)))
            return replace(outcome, state=State(chain, state.profile))


def _as_now(outcome: Outcome, state: State) -> Outcome:
    """The outcome as it is to be judged when its answer comes.

    A mount list and the usage of a committed snapshot belong to a life, not to an instant: all that is known by now counts.
    """
    match outcome.reply:
        case Gives(key) | Measures(key):
            then, now = outcome.state.snapshots[key], state.get(key)
            same = now is not None and (now.kind, now.life) == (then.kind, then.life)
            if same and (isinstance(outcome.reply, Gives) or then.kind is Kind.COMMITTED):
                # The chain of parents is the same as then: a parent stays as long as its child.
                return replace(outcome, state=state)
    return outcome


def _without(world: World, calls: Iterable[int], state: State) -> World:
    """The world with `state`, in which no answer of `calls` is open; when none is open at all, no life needs its mark."""
    landed = world.landed.without(*calls)
    if landed or all(snapshot.life is None for snapshot in state.snapshots.values()):
        return World(state, landed)
    unmarked = Map((key, replace(snapshot, life=None)) for key, snapshot in state.snapshots.items())
    return World(State(unmarked, state.profile), landed)


def _given_up(belief: Belief, call: int) -> Belief:
    """No answer will come: what the call is to answer does not count any more."""
    worlds = (World(w.state, w.landed.set(call, UNHEARD)) if call in w.landed else w for w in belief.worlds)
    calls = belief.calls.set(call, replace(belief.calls[call], lost=True))
    return _settled(Belief(frozenset(worlds), calls))


def _settled(belief: Belief) -> Belief:
    """The belief without the lost calls that have taken effect in every world."""
    lost = [c for c, begun in belief.calls.items() if begun.lost and all(c in w.landed for w in belief.worlds)]
    if not lost:
        return belief
    worlds = frozenset(_without(w, lost, w.state) for w in belief.worlds)
    return Belief(worlds, belief.calls.without(*lost), belief.clauses)


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
    return tuple(sorted(set(mismatches), key=lambda m: (m.came.startswith("success"), m.clause, m.expected, m.came)))
