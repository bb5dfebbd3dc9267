"""Every state that a small universe can reach, and what was met on the way.

Exploration answers two questions. *Always*: every contract of the model holds in every reachable state (they are evaluated as
each outcome is made). *Sometimes*: every clause, error class and kind is met somewhere, so that a model which forbids
everything does not pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Outcome, Refused
from snapspec.model.snapshots import outcomes
from snapspec.model.state import State
from snapspec.model.tree import Change
from snapspec.model.values import ErrorClass, Kind, Labels


@dataclass(frozen=True, slots=True)
class Universe:
    """What calls may name: `keys`, the label maps, masks, filters and changes. The empty key is always among the names."""

    keys: tuple[str, ...]
    labels: tuple[Labels, ...] = ((),)
    masks: tuple[tuple[str, ...], ...] = ()
    filters: tuple[str, ...] = ()
    changes: tuple[tuple[Change, ...], ...] = ()
    rebases: bool = False
    """Whether commit is also asked for other parents than the empty one."""
    collections: bool = False
    """Whether the garbage collector runs, with each single key given up."""


@dataclass
class Explored:
    """What an exploration met: how many states and steps, and how often each clause and each error that a clause names."""

    states: int = 0
    steps: int = 0
    clauses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    kinds: set[Kind] = field(default_factory=set)


def operations(universe: Universe) -> Iterator[Operation]:
    """Every call that the universe can name."""
    names = ("", *universe.keys)
    for key, parent, labels in product(names, names, universe.labels):
        yield ops.Prepare(key, parent, labels)
        yield ops.View(key, parent, labels)
    for name, key, labels in product(names, names, universe.labels):
        for parent in names if universe.rebases else ("",):
            yield ops.Commit(name, key, labels, parent)
    for key in names:
        yield from (ops.Remove(key), ops.Mounts(key), ops.Stat(key), ops.Usage(key), ops.Read(key))
        yield from (ops.Update(key, labels, mask) for labels, mask in product(universe.labels, universe.masks))
        yield from (ops.Write(key, changes) for changes in universe.changes)
    yield from (ops.Walk((text,)) for text in universe.filters)
    yield from (ops.Walk(), ops.Cleanup(), ops.Reopen(), ops.Reopen(close_twice=True), ops.Nowhere(ops.Walk()))
    if universe.collections:
        yield from (ops.Collect(dropped) for dropped in ((), *((key,) for key in universe.keys)))


def transitions(universe: Universe, start: State) -> Iterator[tuple[State, Operation, Outcome]]:
    """Every step of every reachable state, breadth first, each state once."""
    calls = tuple(operations(universe))
    seen, todo = {start}, [start]
    for state in todo:  # grows while it is walked
        for call in calls:
            for outcome in outcomes(state, call):
                yield state, call, outcome
                if outcome.state not in seen:
                    seen.add(outcome.state)
                    todo.append(outcome.state)


def explore(universe: Universe, start: State) -> Explored:
    """Go through all that is reachable from `start`; the contracts of the model are the properties that always hold."""
    found = Explored()
    latest: State | None = None
    for state, _, outcome in transitions(universe, start):
        found.steps += 1
        found.clauses.update((outcome.clause, *outcome.shows))
        if isinstance(outcome.reply, Refused) and len(outcome.reply.errors) < len(ErrorClass):
            found.errors.update(e.value for e in outcome.reply.errors)
        if state is not latest:
            latest = state
            found.states += 1
            found.kinds.update(s.kind for s in state.snapshots.values())
    return found
