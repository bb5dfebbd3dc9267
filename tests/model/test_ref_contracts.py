"""Every contract of the refs model can fail: results of other calls, put in the place of the right ones, are refused."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, wraps
from inspect import signature
from types import ModuleType
from typing import Any

import pytest

from snapspec.model import ref_changes, ref_guards, ref_outcomes, refs
from snapspec.model.explore import RefUniverse, ref_transitions
from snapspec.model.frozen import Map
from snapspec.model.refs import Declared, GivesHandle, GivesList, Handle, ListsRows, RefOutcome, RefState
from snapspec.model.state import State

MODULES = (refs, ref_guards, ref_changes)

#: Calls of one function whose arguments and results are put together.
MANY = 400


def contracted() -> Iterator[tuple[ModuleType, str, Callable[..., Any]]]:
    """The functions with postconditions, each with the module that it stands in."""
    for module in MODULES:
        for name, function in vars(module).items():
            if getattr(function, "__module__", "") == module.__name__ and getattr(function, "__postconditions__", ()):
                yield module, name, function


CONTRACTS = [
    pytest.param(name, contract, id=f"{name}-{contract.description}")
    for _, name, function in contracted()
    for contract in function.__postconditions__  # type: ignore[attr-defined]  # as icontract keeps them
]

Call = tuple[dict[str, Any], Any]


@cache
def calls() -> dict[str, list[Call]]:
    """Of each function the arguments and results of its calls in all that two records can do, a sample of them."""
    found: dict[str, list[Call]] = defaultdict(list)
    patch = pytest.MonkeyPatch()
    for _, name, function in contracted():
        recorded = _recording(function, found[name])
        for module in (*MODULES, ref_outcomes):
            if hasattr(module, name):
                patch.setattr(module, name, recorded)
        for kind, known in refs._STEPS.items():
            if known is function:
                patch.setitem(refs._STEPS, kind, recorded)
    with patch.context():
        for declared in (Declared(), Declared(commit_keeps_lists=False), Declared(release_drops_pair=True)):
            for state, op, _ in ref_transitions(RefUniverse(2, 2, declared, content=True, sizes=True)):
                refs.steps(state, op)
    patch.undo()
    draw = random.Random(1)
    return {name: draw.sample(known, min(MANY, len(known))) for name, known in found.items()}


def _recording(function: Callable[..., Any], known: list[Call]) -> Callable[..., Any]:
    @wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        known.append((dict(signature(function).bind(*args, **kwargs).arguments), result))
        return result

    return recorded


def holds(contract: Any, arguments: dict[str, Any], result: Any) -> bool:
    given = {**arguments, "result": result}
    try:
        return bool(contract.condition(**{name: given[name] for name in signature(contract.condition).parameters}))
    except (KeyError, AttributeError, StopIteration):  # the result speaks of what is not there
        return False


def states(result: Any) -> Iterator[RefState]:
    """The states that a result leaves."""
    if isinstance(result, RefState):
        yield result
    elif isinstance(result, tuple):
        yield from (outcome.state for outcome in result if isinstance(outcome, RefOutcome))


def damage(result: Any) -> Iterator[Any]:
    """The result with one thing in its states or its replies that cannot be."""
    if isinstance(result, RefState):
        yield from damaged_states(result)
    elif isinstance(result, tuple) and all(isinstance(outcome, RefOutcome) for outcome in result):
        for outcome in result:
            yield from ((replace(outcome, state=state),) for state in damaged_states(outcome.state))
            match outcome.reply:
                case GivesList(writable=writable):
                    yield (replace(outcome, reply=replace(outcome.reply, writable=not writable)),)
                case GivesHandle():
                    handles = outcome.state.handles.without(outcome.reply.handle)
                    yield (replace(outcome, state=replace(outcome.state, handles=handles)),)
                case ListsRows(rows) if rows:
                    yield (replace(outcome, reply=ListsRows(rows[1:])),)
                    yield (replace(outcome, reply=ListsRows(tuple(replace(r, in_use=r.parent != "") for r in rows))),)
                case _:
                    pass


def damaged_states(state: RefState) -> Iterator[RefState]:
    yield replace(state, claimed=())
    yield replace(state, closed=True)
    yield replace(state, handles=Map())
    yield replace(state, driver=State())
    for name, record in state.records.items():
        yield replace(state, records=state.records.without(name))
        for changed in (replace(record, equal="absent"), replace(record, parent="absent"), replace(record, size=1)):
            yield replace(state, records=state.records.set(name, changed))
        twice = state.handles.set("x", Handle(name, record.mutable)).set("y", Handle(name, record.mutable))
        yield replace(state, handles=twice)


@pytest.mark.parametrize(("name", "contract"), CONTRACTS)
def test_a_contract_holds_of_right_results_and_refuses_wrong_ones(name: str, contract: Any) -> None:
    known = calls()[name]
    assert known, "the exploration never calls it"
    assert all(holds(contract, arguments, result) for arguments, result in known)
    draw = random.Random(2)
    crossed = [(draw.choice(known)[0], draw.choice(known)[1]) for _ in range(2000)]
    empty = ((arguments, ()) for arguments, _ in known)
    opposite = ((arguments, not result) for arguments, result in known if isinstance(result, bool))
    damaged = ((arguments, other) for arguments, result in known for other in damage(result))
    # What a rule says of the arguments alone is broken by those of a call that has happened already.
    late = (({**arguments, "state": state}, result) for arguments, result in known for state in states(result))
    wrong = (pair for source in (crossed, empty, opposite, damaged, late) for pair in source)
    assert not all(holds(contract, arguments, result) for arguments, result in wrong)


def test_the_contracts_are_many() -> None:
    assert len(CONTRACTS) > 70
    assert {module for module, _, _ in contracted()} == set(MODULES)
