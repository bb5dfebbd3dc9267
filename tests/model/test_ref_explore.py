"""All that a manager with a few records and handles can do: no contract is broken on the way, and nothing is out of reach."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from itertools import product
from multiprocessing import get_context
from typing import Any

import pytest
from spec import CLAUSE

from snapspec.model import ref_ops, ref_outcomes, refs
from snapspec.model.explore import NOBODY, TOLD, RefUniverse, ref_explore, ref_operations, ref_transitions, renamed
from snapspec.model.frozen import Map
from snapspec.model.ref_ops import RefOperation, RefStep
from snapspec.model.ref_outcomes import Pruned, RefError, RefOutcome, RefRefused
from snapspec.model.ref_state import Declared, Handle, Record, RefState, well_formed
from snapspec.model.refs import outcomes, steps
from snapspec.model.state import Snapshot, State
from snapspec.model.values import Kind

#: What is declared otherwise than by the reference.
FINALIZES, DROPS = Declared(commit_keeps_lists=False), Declared(release_drops_pair=True)

#: What can be under one snapshot: its records without their parent, its handles' record, and how many of these there may be.
FINAL, MUTABLE, PAIR = (Record(False),), (Record(True),), (Record(True, equal="e"), Record(False, equal="m"))

pytestmark = pytest.mark.xdist_group("refs")


@pytest.fixture(scope="module")
def apart() -> Iterator[Callable[..., Any]]:
    """Calls a function in a process of its own: where coverage is measured, this one is five times as slow."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda function, *given: pool.submit(function, *given).result()


def every_state(records: int, handles: int) -> set[RefState]:
    """Every state that there is with so many records, and so many open handles on each, put together piece by piece."""
    found = set[RefState]()
    for numbers in product(range(records + 1), repeat=3):
        kinds = [kind for kind, times in zip((FINAL, MUTABLE, PAIR), numbers, strict=True) for _ in range(times)]
        if sum(map(len, kinds)) <= records:
            # A parent is final, and finals come first.
            choices = [[-1, *range(min(place, numbers[0]))] for place in range(len(kinds))]
            most = [(1 if kind is MUTABLE else handles) + 1 for kind in kinds]
            for parents, given in product(product(*choices), product(*map(range, most))):
                found |= {one for one in _put_together(kinds, parents, given) if not (one.closed and any(given))}
    return found


def _put_together(kinds: list[tuple[Record, ...]], parents: tuple[int, ...], given: tuple[int, ...]) -> Iterator[RefState]:
    records, snapshots, handles = dict[str, Record](), dict[str, Snapshot](), dict[str, Handle]()
    for number, (kind, parent, times) in enumerate(zip(kinds, parents, given, strict=True)):
        above = f"e{parent}" if parent >= 0 else ""
        for record in kind:
            name = f"{'m' if record.mutable else 'e'}{number}"
            records[name] = replace(record, parent=above, equal=f"{record.equal}{number}" if record.equal else "")
        key = f"{'e' if kind is FINAL else 'm'}{number}"
        snapshots[key] = Snapshot(Kind.COMMITTED if kind is FINAL else Kind.ACTIVE, above)
        on = f"{'m' if kind is MUTABLE else 'e'}{number}"
        handles |= {f"{on}.{time}": Handle(on, kind is MUTABLE) for time in range(times)}
    for closed in (False, True):
        yield renamed(RefState(Map(records), Map(handles), State(Map(snapshots)), closed))


def reached(records: int, handles: int) -> set[RefState]:
    return {state for state, _, _ in ref_transitions(RefUniverse(records, handles))}


def few(states: set[RefState], records: int) -> set[RefState]:
    return {state for state in states if len(state.records) <= records}


@pytest.mark.parametrize(("handles", "there"), [(1, 34), (2, 48)])
def test_two_records_are_in_every_state_that_there_is(apart: Callable[..., Any], handles: int, there: int) -> None:
    """With room for a third: E over a final E is made of an M that is there meanwhile."""
    every = every_state(2, handles)
    assert all(map(well_formed, every))
    assert few(apart(reached, 3, handles), 2) == every
    assert len(every) == there


@pytest.mark.deep
@pytest.mark.parametrize(("handles", "there"), [(2, 288), (3, 501)])
def test_three_records_are_in_every_state_that_there_is(apart: Callable[..., Any], handles: int, there: int) -> None:
    every = every_state(3, handles)
    assert few(apart(reached, 4, handles), 3) == every
    assert len(every) == there


@pytest.mark.parametrize(
    ("declared", "states"),
    [
        (Declared(), 205),
        *(pytest.param(declared, 205, marks=pytest.mark.deep) for declared in (FINALIZES, DROPS)),
    ],
)
def test_two_records_with_three_handles_each(apart: Callable[..., Any], declared: Declared, states: int) -> None:
    """With content and sizes. What is declared changes what calls answer, not which states there are."""
    found = apart(ref_explore, RefUniverse(2, 3, declared, content=True, sizes=True))
    assert found.states == states
    print(f"2 records, 3 handles on each: {found.states} states, {found.steps} steps")


@pytest.mark.deep
@pytest.mark.parametrize(("handles", "states"), [(2, 4063), (3, 6685)])
def test_three_records(apart: Callable[..., Any], handles: int, states: int) -> None:
    found = apart(ref_explore, RefUniverse(3, handles, content=True, sizes=True))
    print(f"3 records, {handles} handles on each: {found.states} states, {found.steps} steps")
    assert found.states == states


def outcome_clauses() -> set[str]:
    """The clauses that the model names outside its contracts and texts: each is one that an outcome has."""
    found = set[str]()
    for module in (refs, ref_outcomes):
        tree = ast.parse(inspect.getsource(module))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                node.decorator_list = []
        found |= {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {text for text in found if CLAUSE.fullmatch(text)}


def test_every_outcome_is_reached() -> None:
    """Sometimes: each clause and each error; and what calls meet by way of the store and the driver never is."""
    found = [ref_explore(RefUniverse(2, 2, declared)) for declared in (Declared(), FINALIZES, DROPS)]
    met = set[str]().union(*(one.clauses for one in found))
    by_step = {outcome.clause for state in reached(2, 1) for op in ref_operations(state) for outcome in steps(state, op)}
    assert met | by_step == outcome_clauses()
    assert by_step - met == {"REF-PRUNE-1"}, "the clause of one removal"
    errors = set[str]().union(*(one.errors for one in found))
    assert errors == {error.value for error in RefError} - {"StoreError", "DriverError"}
    assert found[0].kinds == {Kind.ACTIVE, Kind.COMMITTED}


def test_what_was_told_is_known_from_then_on() -> None:
    """REF-SIZE-1, REF-SIZE-4: of an immutable record alone; it stays as long as the record."""
    known = {state: {r.size for r in state.records.values()} for state, _, _ in ref_transitions(RefUniverse(2, 1, sizes=True))}
    assert {size for sizes in known.values() for size in sizes} == {None, TOLD}
    assert all(not record.mutable for state in known for record in state.records.values() if record.size == TOLD)
    assert {state for state, sizes in known.items() if TOLD not in sizes} == reached(2, 1)


def test_states_that_differ_by_names_alone_are_one() -> None:
    def chain(*names: str) -> RefState:
        records = {name: Record(False, parent) for name, parent in zip(names, ("", *names), strict=False)}
        snapshots = {name: Snapshot(Kind.COMMITTED, record.parent) for name, record in records.items()}
        handles = {"h": Handle(names[-1], False), "old": Handle(names[0], False, open=False)}
        return RefState(Map(records), Map(handles), State(Map(snapshots)))

    assert renamed(chain("a", "b", "c")) == renamed(chain("c", "a", "b")) == renamed(renamed(chain("x", "y", "z")))
    assert renamed(chain("a", "b")) != renamed(chain("a", "b", "c"))
    assert len(renamed(chain("a", "b")).handles) == 1


# --- calls beside others


def alone(state: RefState, op: RefOperation | RefStep) -> Iterator[RefOutcome]:
    """The ends of a call that takes its steps beside no other."""
    for outcome in steps(state, op):
        yield from (outcome,) if outcome.rest is None else alone(outcome.state, outcome.rest)


def by_value(found: Iterator[RefOutcome] | tuple[RefOutcome, ...]) -> set[tuple[object, RefState]]:
    """Replies and states; the rows of prune in no order."""
    return {(frozenset(o.reply.removed) if isinstance(o.reply, Pruned) else o.reply, o.state) for o in found}


@pytest.mark.parametrize("declared", [Declared(), FINALIZES, DROPS])
def test_alone_a_call_comes_step_by_step_to_the_same(declared: Declared) -> None:
    """But on a closed manager, where a call beside the close may find its handle closed."""
    for state, op, _ in ref_transitions(RefUniverse(2, 2, declared)):
        stepped, whole = by_value(alone(state, op)), by_value(outcomes(state, op))
        assert all(outcome.rest is None for outcome in outcomes(state, op))
        if stepped != whole:
            assert state.closed
            assert stepped - whole == {(RefRefused(RefError.INVALID), state)}


def beside(op: RefOperation, record: str) -> RefOperation:
    """The call with other names for what it makes, so that it can run beside one that `ref_operations` gave."""
    other = {"new": "newer", record: f"{record}x"}
    values = {field.name: getattr(op, field.name) for field in fields(op)}
    changed = {name: other[value] for name, value in values.items() if isinstance(value, str) and value in other}
    return replace(op, **changed)


def interleaved(state: RefState, calls: tuple[RefOperation | RefStep, ...]) -> Iterator[RefOutcome]:
    """Every step of every order in which these calls take effect."""
    for place, call in enumerate(calls):
        for outcome in steps(state, call):
            yield outcome
            rest = () if outcome.rest is None else (outcome.rest,)
            yield from interleaved(outcome.state, (*calls[:place], *rest, *calls[place + 1 :]))


def two_at_once(records: int, handles: int, declared: Declared) -> int:
    """Each call that takes several steps beside each other call, in every state, in every order: how many steps were seen."""
    count = 0
    for state in {state for state, _, _ in ref_transitions(RefUniverse(records, handles, declared))}:
        calls = [op for op in ref_operations(state) if NOBODY not in repr(op)]
        record = f"r{len(state.records)}"
        for call in calls:
            if any(outcome.rest is not None for outcome in steps(state, call)):
                for other in calls:
                    for outcome in interleaved(state, (call, beside(other, record))):
                        assert well_formed(outcome.state), (state, call, other)
                        assert all(name in outcome.state.records for name in outcome.state.claimed)
                        count += 1
    return count


@pytest.mark.deep
def test_two_calls_at_once(apart: Callable[..., Any]) -> None:
    """REF-NEW-4, REF-POINT-2: also between the steps of one call everything holds that holds of a state."""
    assert sum(apart(two_at_once, 2, 1, declared) for declared in (Declared(), FINALIZES, DROPS)) > 8_000


@pytest.mark.deep
@pytest.mark.parametrize("declared", [Declared(), FINALIZES, DROPS])
def test_two_calls_at_once_on_three_records(apart: Callable[..., Any], declared: Declared) -> None:
    assert apart(two_at_once, 3, 1, declared) > 40_000


def test_no_later_handle_is_the_call_s_own() -> None:
    """The calls of an exploration name what is not there: a record of their own, a handle of their own, or nobody."""
    for state in reached(2, 1):
        for op in ref_operations(state):
            made = op.record if isinstance(op, ref_ops.New) else getattr(op, "fresh", "")
            assert made not in state.records
            assert "new" not in state.handles
