"""Every state that a small universe can reach, and what was met on the way.

Exploration answers two questions. *Always*: every contract of the model holds in every reachable state (they are evaluated as
each outcome is made). *Sometimes*: every clause, error class and kind is met somewhere, so that a model which forbids
everything does not pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count, product

from snapspec.model import ops, ref_ops, refs
from snapspec.model.frozen import Map
from snapspec.model.ops import Operation
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_outcomes import RefOutcome, RefRefused, TellsSize
from snapspec.model.ref_state import Declared, Handle, RefState, children, content
from snapspec.model.replies import Outcome, Refused
from snapspec.model.snapshots import outcomes
from snapspec.model.state import Snapshot, State
from snapspec.model.tree import Change, MakeFile
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


# --- refs

#: A name that no record and no handle has.
NOBODY = "nobody"

CHANGE = MakeFile("file", b"")

#: The size that every immutable record is told to have, where sizes are told.
TOLD = 4096


@dataclass(frozen=True, slots=True)
class RefUniverse:
    """How many records a manager may have, and how many open handles on each; what it declares; what is remembered."""

    records: int
    handles: int
    declared: Declared = field(default_factory=Declared)
    content: bool = False
    """Whether what was written is there from then on; otherwise every record is as good as empty."""
    sizes: bool = False
    """Whether the sizes that were told are known from then on."""


def ref_transitions(universe: RefUniverse) -> Iterator[tuple[RefState, RefOperation, RefOutcome]]:
    """Every call in every reachable state, none beside another, breadth first, each state once.

    Names are given anew after each call, so that states which differ by names alone are one; handles that are not open are
    forgotten, for a call on one is a call on a handle that nobody has.
    """
    start = RefState(declared=universe.declared)
    seen, todo = {start}, [start]
    for state in todo:  # grows while it is walked
        for call in ref_operations(state):
            for outcome in refs.outcomes(state, call):
                yield state, call, outcome
                for after in (outcome.state, _told(outcome)) if universe.sizes else (outcome.state,):
                    known = renamed(after if universe.content else _emptied(after))
                    if known not in seen and _within(universe, known):
                        seen.add(known)
                        todo.append(known)


def ref_explore(universe: RefUniverse) -> Explored:
    """Go through all that a manager with so many records and handles can do; the contracts are what always holds."""
    found = Explored()
    latest: RefState | None = None
    for state, _, outcome in ref_transitions(universe):
        found.steps += 1
        found.clauses[outcome.clause] += 1
        if isinstance(outcome.reply, RefRefused):
            found.errors[outcome.reply.error.value] += 1
        if state is not latest:
            latest = state
            found.states += 1
            found.kinds.update(s.kind for s in state.driver.snapshots.values())
    return found


def ref_operations(state: RefState) -> Iterator[RefOperation]:
    """Every call that can be made in the state, with new names for what it makes; of the handles on one record one will do."""
    record = next(name for name in map("r{}".format, count()) if name not in state.records)
    yield from (ref_ops.New(record, "new"), ref_ops.DiskUsage(), ref_ops.Prune(), ref_ops.Close(), ref_ops.Restart())
    for known in (*state.records, NOBODY):
        yield from (ref_ops.Get(known, "new", record), ref_ops.GetMutable(known, "new"))
    for handle in (*{known.record: name for name, known in state.handles.items()}.values(), NOBODY):
        yield from (ref_ops.New(record, "new", handle), ref_ops.Commit(handle, record, "new"), ref_ops.Parent(handle, "new"))
        yield from (ref_ops.Finalize(handle), ref_ops.Release(handle), ref_ops.Size(handle), ref_ops.Read(handle))
        yield from (ref_ops.Mount(handle, readonly=True), ref_ops.Mount(handle, readonly=False), ref_ops.Write(handle, (CHANGE,)))


def _within(universe: RefUniverse, state: RefState) -> bool:
    handles = Counter(handle.record for handle in state.handles.values())
    return len(state.records) <= universe.records and max(handles.values(), default=0) <= universe.handles


def _told(outcome: RefOutcome) -> RefState:
    """The state in which the size that was told is known (REF-SIZE-1)."""
    state, reply = outcome.state, outcome.reply
    if not isinstance(reply, TellsSize) or state.records[reply.record].mutable:
        return state
    return replace(state, records=state.records.set(reply.record, replace(state.records[reply.record], size=TOLD)))


def _emptied(state: RefState) -> RefState:
    """The state without content."""
    snapshots = Map((key, Snapshot(s.kind, s.parent)) for key, s in state.driver.snapshots.items())
    return replace(state, driver=State(snapshots, state.driver.profile))


def renamed(state: RefState) -> RefState:
    """The state without handles that are not open, and with names that are the same for all states that differ by names alone."""
    names = {name: f"r{number}" for number, name in enumerate(sorted(state.records, key=lambda name: _looks(state, name)))}
    names[""] = ""
    records = {names[n]: replace(r, parent=names[r.parent], equal=names[r.equal]) for n, r in state.records.items()}
    snapshots = {names[key]: replace(s, parent=names[s.parent]) for key, s in state.driver.snapshots.items()}
    given = sorted(names[handle.record] for handle in state.handles.values() if handle.open)
    handles = {f"h{number}": Handle(name, records[name].mutable) for number, name in enumerate(given)}
    driver = State(Map(sorted(snapshots.items())), state.driver.profile)
    return replace(state, records=Map(sorted(records.items())), handles=Map(handles), driver=driver)


def _looks(state: RefState, name: str) -> tuple[object, ...]:
    """What tells the record from others: itself, what is built on it, and what it is built on."""
    parent = state.records[name].parent
    return (*_tree(state, name), _looks(state, parent) if parent else ())


def _tree(state: RefState, name: str) -> tuple[object, ...]:
    """The record with all that is built on it, without names."""
    record = state.records[name]
    handles = [sum(h.open and h.record == half for h in state.handles.values()) for half in (name, record.equal)]
    own = (record.mutable, record.equal != "", *handles, record.size or 0, len(content(state, name).nodes))
    return own, tuple(sorted(_tree(state, child) for child in children(state, name)))
