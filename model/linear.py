"""Which states a history of overlapping calls allows, for any model of one form.

A call takes effect at one instant between its beginning and its answer, or, where the model says so, at several: then its
outcome leaves a `rest`, which is still to take effect. The belief holds every pair of a state and of the calls that have taken
effect in it without having answered. An answer narrows that set; an answer that leaves nothing is a `Divergence`. Calls are let
take effect as late as the answers permit, so that a history without overlap costs one step a call. A call that was disturbed may
also break off.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import icontract

from snapspec.model.frozen import Hashed, Map
from snapspec.model.replies import Lost, Mismatch
from snapspec.model.state import Span


class Ended(Protocol):
    """An outcome: the clause that allows it, the state afterwards, and what of the call is still to take effect, if anything."""

    @property
    def clause(self) -> str: ...
    @property
    def state(self) -> Any: ...
    @property
    def rest(self) -> Any: ...


class Fits(Protocol):
    """A judgement that the response is what the outcome allows; `clauses` were looked at."""

    @property
    def clauses(self) -> tuple[str, ...]: ...


class System(Protocol):
    """A model: what a state and an operation allow, and how an answer is held against that."""

    def outcomes(self, state: Any, op: Any, at: Span) -> Sequence[Any]:
        """Every allowed outcome of `op`, between whose steps nothing comes, when it takes effect at some instant of `at`."""
        ...

    def steps(self, state: Any, op: Any, at: Span) -> Sequence[Any]:
        """What may happen next of `op`, or of a rest, where others may come in between: outcomes, of which some leave a rest."""
        ...

    def judge(self, outcome: Any, response: Any) -> Any:
        """A `Mismatch`, or a judgement that it fits."""
        ...

    def breaks_off(self, response: Any) -> str:
        """The disturbance that a call must have met to answer so: "cancel", "fault", or "" when it is an ordinary answer."""
        ...

    def disturbed(self, state: Any, op: Any) -> Sequence[Any]:
        """Every end of `op`, or of a rest, that breaks off in `state`, whether it has an effect or none."""
        ...

    def broken_off(self, outcome: Any, state: Any) -> Any:
        """The end of a call that breaks off after `outcome` took effect, with the state as it is now; None when it may not."""
        ...

    def describe(self, outcome: Any) -> str:
        """The outcome's reply in a few words."""
        ...

    def learn(self, state: Any, judged: Any, verdict: Any) -> Any:
        """`state` with what the answer told, as far as it still is what it was in `judged`."""
        ...

    def told(self, outcome: Any, verdict: Any) -> Any:
        """The outcome of another call that has not answered yet, with what this answer told."""
        ...

    def marked(self, outcome: Any, op: Any, call: int) -> Any:
        """The outcome's state, with what begins to live in it told apart by the call, where calls overlap."""
        ...

    def unmarked(self, state: Any) -> Any:
        """The state without such marks."""
        ...

    def pending(self, outcome: Any, state: Any) -> Any:
        """What the answer will be held against and no more, so that orders which make no difference to it give one world."""
        ...

    def as_now(self, outcome: Any, state: Any) -> Any:
        """The outcome as it is to be judged when its answer comes and the world's state is `state`."""
        ...

    def order(self, state: Any) -> Any:
        """A key that is the same for equal states in every process: the least one is what a generator chooses by."""
        ...

    def presented(self, state: Any) -> Any:
        """The state in the form that a generator may draw from."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has begun, at the time `since`. When it is `lost`, no answer to it will come.

    `disturbed` holds "cancel" when it was cancelled, and "fault" when something failed that it may depend on. `apart`: no other
    call has been open while it was.
    """

    op: Any
    since: int
    lost: bool = False
    disturbed: frozenset[str] = frozenset()
    apart: bool = True


@dataclass(frozen=True, slots=True)
class Rest:
    """What of a call is still to take effect."""

    op: Hashable


@dataclass(frozen=True, slots=True)
class World(Hashed):
    """A state that the history allows, and the open calls that took effect in it: what each is to answer, or its rest."""

    state: Any
    landed: Map[int, Any] = field(default_factory=Map)
    __hash__ = Hashed.__hash__


@dataclass(frozen=True, slots=True)
class Belief:
    """All that the history so far allows. `clauses` are those that the last answer was held against."""

    system: System
    worlds: frozenset[World]
    calls: Map[int, Call] = field(default_factory=Map)
    clauses: tuple[str, ...] = ()

    @property
    def state(self) -> Any:
        """One of the allowed states, the same one for the same history: what a generator chooses by."""
        states = [w.state for w in self.worlds]
        state = min(states, key=self.system.order) if len(states) > 1 else states[0]
        return self.system.presented(state)


@dataclass(frozen=True, slots=True)
class Divergence:
    """An answer that no allowed state permits. `mismatches` hold what was allowed and how the answer departs from it."""

    op: Any
    response: Any
    mismatches: tuple[Mismatch, ...]

    @property
    def clause(self) -> str:
        """The clause that is broken: that of the outcome which the answer came nearest to."""
        return self.mismatches[0].clause


class TooManyStates(Exception):
    """The history allows more states than the oracle will hold; the generator asked for too much overlap."""


LIMIT = 4096

#: What a lost call is to answer: nothing that will ever be held against it.
UNHEARD = "unheard"


def begin(system: System, state: Any) -> Belief:
    """The belief of somebody who knows the state."""
    return Belief(system, frozenset({World(state)}))


@icontract.require(lambda belief, call: call not in belief.calls, "a number is given to one open call only")
def invoke(belief: Belief, call: int, op: Any, now: int = 0) -> Belief:
    """The call numbered `call` begins at the time `now`."""
    if not belief.calls:
        return Belief(belief.system, belief.worlds, belief.calls.set(call, Call(op, now)))
    others = Map((number, replace(begun, apart=False) if begun.apart else begun) for number, begun in belief.calls.items())
    return Belief(belief.system, belief.worlds, others.set(call, Call(op, now, apart=False)))


def disturb(belief: Belief, call: int, what: str) -> Belief:
    """The open call is cancelled, "cancel", or what it depends on fails, "fault", for every open call: calls share work.

    It may now break off: answer nothing, or an error. `System.breaks_off` tells which answers need which disturbance.
    """
    calls = belief.calls
    for number in calls if what == "fault" else (call,):
        begun = calls[number]
        if what not in begun.disturbed:
            calls = calls.set(number, replace(begun, disturbed=begun.disturbed | {what}))
    return belief if calls is belief.calls else replace(belief, calls=calls, clauses=())


def respond(belief: Belief, call: int, response: Any, now: int = 0) -> Belief | Divergence:
    """The call answers at the time `now`. A lost answer tells nothing: the call stays open and may still take effect."""
    if isinstance(response, Lost):
        return _given_up(belief, call)
    system, begun = belief.system, belief.calls[call]
    worlds: set[World] = set()
    clauses: dict[str, None] = {}
    mismatches: list[Mismatch] = []
    breaks_off = system.breaks_off(response) in begun.disturbed
    for world, outcome in (_with_broken if breaks_off else _with_landed)(belief, call, now):
        verdict = system.judge(outcome, response)
        if isinstance(verdict, Mismatch):
            mismatches.append(verdict)
            continue
        clauses.update(dict.fromkeys(verdict.clauses))
        state = system.learn(world.state, outcome.state, verdict)
        worlds.add(_without(belief, _told(belief, world, verdict), (call,), state))
    if not worlds:
        return Divergence(begun.op, response, _nearest(mismatches))
    return _settled(Belief(system, _limited(worlds), belief.calls.without(call), tuple(clauses)))


def perform(belief: Belief, op: Any, response: Any, began: int = 0, ended: int = 0) -> Belief | Divergence:
    """A call that overlaps with none but lost ones, from its beginning to its answer."""
    call = min((0, *belief.calls)) - 1
    return respond(invoke(belief, call, op, began), call, response, ended)


@icontract.ensure(lambda result: len(result.calls) == 0 and all(len(w.landed) == 0 for w in result.worlds), "SNAP-FAIL-2")
def crash(belief: Belief, now: int = 0) -> Belief:
    """The process dies: each open call has taken effect, as far as it came, or never will (SNAP-FAIL-2)."""
    worlds = {_without(belief, world, tuple(world.landed), world.state) for world in _reachable(belief, now)}
    return replace(belief, worlds=_limited(worlds), calls=Map(), clauses=())


def allowed(belief: Belief, op: Any, now: int = 0) -> tuple[tuple[str, str], ...]:
    """What `op` may answer now: pairs of a clause and its words, each once."""
    system = belief.system
    found = {(o.clause, system.describe(o)) for w in belief.worlds for o in system.outcomes(w.state, op, Span(now, now))}
    return tuple(sorted(found))


def _landed(world: World, call: int) -> bool:
    """Whether the call has taken effect to its end."""
    return call in world.landed and not isinstance(world.landed[call], Rest)


def _with_landed(belief: Belief, call: int, now: int) -> Iterator[tuple[World, Any]]:
    """The worlds in which `call` has taken effect, with its outcome; others take effect before it only where that is new.

    It is not new where all that came since the last change of the state, `call` itself included, changed nothing.
    """
    seen: set[World] = set()
    todo = [(world, False) for world in belief.worlds]
    while todo:
        world, idle = todo.pop()
        if _landed(world, call):
            yield world, belief.system.as_now(world.landed[call], world.state)
            continue
        for after in _land(belief, world, call, now):
            if not (idle and after.state == world.state):
                todo.append((after, False))
        for other in belief.calls:
            if other != call:
                for after in _moved(belief, world, other, now):
                    if after not in seen:
                        seen.add(after)
                        todo.append((after, after.state == world.state))
        _limited(seen)


def _with_broken(belief: Belief, call: int, now: int) -> Iterator[tuple[World, Any]]:
    """The worlds in which `call` breaks off, with that end: as far as it had come, or by a step of its own."""
    seen = set(belief.worlds)
    todo = [(world, True) for world in belief.worlds]
    while todo:
        world, came = todo.pop()
        if came:
            yield from _broken(belief, world, call)
        if _landed(world, call):
            continue
        for other in belief.calls:
            fresh = [after for after in _moved(belief, world, other, now) if after not in seen]
            seen.update(fresh)
            todo.extend((after, other == call) for after in fresh)
        _limited(seen)


def _broken(belief: Belief, world: World, call: int) -> Iterator[tuple[World, Any]]:
    """Each end that breaks off the call in this world, or, where none may, the outcome that it is to answer with."""
    system = belief.system
    if not _landed(world, call):
        for end in system.disturbed(world.state, _left(world, call, belief.calls[call])):
            yield World(end.state, world.landed), end
        return
    outcome = world.landed[call]
    end = system.broken_off(outcome, world.state)
    yield (world, outcome) if end is None else (World(end.state, world.landed), end)


def _told(belief: Belief, world: World, verdict: Any) -> World:
    """The world in which calls that have not answered yet are to answer in accord with what was told."""
    if len(world.landed) < 2 or not verdict.learned:
        return world
    landed = world.landed
    for call, outcome in world.landed.items():
        told = outcome if isinstance(outcome, Rest) or outcome == UNHEARD else belief.system.told(outcome, verdict)
        if told is not outcome:
            landed = landed.set(call, told)
    return world if landed is world.landed else World(world.state, landed)


def _reachable(belief: Belief, now: int) -> set[World]:
    """Every world that open calls may have brought about."""
    seen = set(belief.worlds)
    todo = list(seen)
    while todo:
        world = todo.pop()
        for call in belief.calls:
            fresh = {w for w in _moved(belief, world, call, now) if w not in seen}
            seen |= fresh
            todo.extend(fresh)
        _limited(seen)
    return seen


def _moved(belief: Belief, world: World, call: int, now: int) -> Sequence[World]:
    """The call takes effect, or one more step of it does, or it breaks off and leaves what no ordinary end would."""
    if _landed(world, call):
        return ()
    usual, begun = _land(belief, world, call, now, stepwise=True), belief.calls[call]
    if not begun.disturbed:
        return usual
    states = {world.state, *(after.state for after in usual)}
    ends = belief.system.disturbed(world.state, _left(world, call, begun))
    return [*usual, *(_to_answer(belief, world, call, end, end.state) for end in ends if end.state not in states)]


def _land(belief: Belief, world: World, call: int, now: int, *, stepwise: bool = False) -> Sequence[World]:
    """The call takes effect, or one more step of it does, in each allowed way.

    Unless `stepwise`, a call that is apart and undisturbed takes effect at once, for no answer can tell its steps apart.
    """
    system, begun = belief.system, belief.calls[call]
    op = _left(world, call, begun)
    alone = len(belief.calls) == 1 and not begun.lost
    whole = begun.apart and not stepwise and not begun.disturbed and not begun.lost
    worlds = []
    for outcome in (system.outcomes if whole else system.steps)(world.state, op, Span(begun.since, max(begun.since, now))):
        state = outcome.state if alone else system.marked(outcome, op, call)
        if outcome.rest is not None:
            worlds.append(World(state, world.landed.set(call, Rest(outcome.rest))))
        elif alone:
            worlds.append(World(state, world.landed.set(call, outcome)))
        elif not begun.lost or outcome.state != world.state:  # of one that is lost, an effect is all that is left to see
            worlds.append(_to_answer(belief, world, call, outcome, state))
    return worlds


def _to_answer(belief: Belief, world: World, call: int, outcome: Any, state: Any) -> World:
    """The world with `state`, in which the call has come to its end."""
    pending = UNHEARD if belief.calls[call].lost else belief.system.pending(outcome, state)
    return World(state, world.landed.set(call, pending))


def _left(world: World, call: int, begun: Call) -> Any:
    """What of the call is still to take effect: all of it, or its rest."""
    rest = world.landed.get(call)
    return begun.op if rest is None else rest.op


def _without(belief: Belief, world: World, calls: Iterable[int], state: Any) -> World:
    """The world with `state`, in which no answer of `calls` is open; when none is open at all, nothing needs its mark."""
    landed = world.landed.without(*calls)
    return World(state if landed else belief.system.unmarked(state), landed)


def _given_up(belief: Belief, call: int) -> Belief:
    """No answer will come: what the call is to answer does not count any more."""
    worlds = (World(w.state, w.landed.set(call, UNHEARD)) if _landed(w, call) else w for w in belief.worlds)
    calls = belief.calls.set(call, replace(belief.calls[call], lost=True))
    return _settled(replace(belief, worlds=frozenset(worlds), calls=calls, clauses=()))


def _settled(belief: Belief) -> Belief:
    """The belief without the lost calls that have taken effect in every world."""
    lost = [c for c, begun in belief.calls.items() if begun.lost and all(_landed(w, c) for w in belief.worlds)]
    if not lost:
        return belief
    worlds = frozenset(_without(belief, w, lost, w.state) for w in belief.worlds)
    return replace(belief, worlds=worlds, calls=belief.calls.without(*lost))


def _limited(worlds: set[World]) -> frozenset[World]:
    if len(worlds) > LIMIT:
        raise TooManyStates(f"more than {LIMIT} states are possible: fewer calls may overlap")
    return frozenset(worlds)


def _nearest(mismatches: list[Mismatch]) -> tuple[Mismatch, ...]:
    """The mismatches, each once; an outcome that was of the right form comes before one that was not."""
    return tuple(sorted(set(mismatches), key=lambda m: (m.came.startswith("success"), m.clause, m.expected, m.came)))
