"""Every contract of the abstract snapshotter bites: for each there is a wrong result that it refuses.

Exploration and the random histories rest on the contracts. One that holds of every result would make them pass on a wrong model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from inspect import signature
from types import ModuleType
from typing import Any

import pytest
from states import METADATA, store

from snapspec.model import filters, linear, ops, snapshots
from snapspec.model.filters import Selector
from snapspec.model.frozen import Map
from snapspec.model.oracle import SNAPSHOTS, Belief, Call, World
from snapspec.model.replies import Done, Outcome, Refused
from snapspec.model.snapshots import INVALID, Outcomes, outcomes
from snapspec.model.state import Snapshot, Span, State
from snapspec.model.tree import EMPTY, MakeFile, SetMode, SetOwner, outcomes_of
from snapspec.model.values import Info, Kind, Labels

AT = Span(10, 20)
FILE = outcomes_of(EMPTY, EMPTY, MakeFile("f", b"x"))[0].tree
FOREIGN = outcomes_of(EMPTY, EMPTY, SetOwner("", 7, 7))[0].tree
NARROW = outcomes_of(EMPTY, EMPTY, SetMode("", 0o700))[0].tree


def done(state: State) -> Outcomes:
    return (Outcome("SNAP-KEY-1", Done(), state),)


def with_(key: str = "k", *, parent: str = "", labels: Labels = (), **changed: Any) -> Outcomes:
    """A success that leaves `key` in the store of one of each kind, changed from what prepare would make."""
    return done(store().put(key, replace(Snapshot(Kind.ACTIVE, parent, labels, AT), **changed)))


@dataclass(frozen=True)
class Wrong:
    """A result that `function` must not give for these arguments, and the clause of the contract that says so."""

    function: str
    clause: str
    arguments: dict[str, Any]
    result: Any


PREPARE = {"state": store(), "op": ops.Prepare("k"), "at": AT}
TAKE = {"state": store(), "op": ops.Prepare("active"), "at": AT}
COMMIT = {"state": store(), "op": ops.Commit("n", "active", (("l", "1"),)), "at": AT}
UPDATE = {"state": store(), "op": ops.Update("active", (("l", "1"),)), "at": AT}
COMMITTED = Snapshot(Kind.COMMITTED, "", (("l", "1"),), AT)
GONE = store().drop("active")
UPDATED = store().snapshots["active"]

WRONG = [
    Wrong("prepare", "SNAP-KEY-1", TAKE, done(store())),
    Wrong("prepare", "SNAP-KEY-3", PREPARE, with_(mounts=())),
    Wrong("prepare", "SNAP-KEY-3", PREPARE, with_(touched=frozenset({"f"}))),
    Wrong("prepare", "SNAP-PREPARE-6", PREPARE, with_(kind=Kind.VIEW)),
    Wrong("view", "SNAP-KEY-1", TAKE, done(store())),
    Wrong("view", "SNAP-KEY-3", PREPARE, with_(kind=Kind.VIEW, touched=frozenset({"f"}))),
    Wrong("view", "SNAP-VIEW-5", PREPARE, with_(kind=Kind.ACTIVE)),
    Wrong("_begun", "SNAP-CONTENT-5", {"state": store(), "parent": "base"}, FOREIGN),
    Wrong("_begun", "SNAP-CONTENT-6", {"state": store(), "parent": ""}, NARROW),
    Wrong("commit", "SNAP-COMMIT-8", COMMIT, done(store().put("n", COMMITTED))),
    Wrong("commit", "SNAP-COMMIT-8", COMMIT, done(GONE.put("n", replace(COMMITTED, kind=Kind.ACTIVE)))),
    Wrong("commit", "SNAP-COMMIT-9", COMMIT, done(GONE.put("n", replace(COMMITTED, labels=())))),
    Wrong("commit", "SNAP-COMMIT-10", COMMIT, done(GONE.put("n", replace(COMMITTED, created=Span(0, 0))))),
    Wrong("commit", "SNAP-COMMIT-11", COMMIT, done(GONE.put("n", replace(COMMITTED, tree=FILE)))),
    Wrong(
        "commit",
        "DOOR-ORDER-3",
        {"state": store(METADATA), "op": ops.Commit("n", "child", (), "leaf"), "at": AT},
        (Outcome("SNAP-COMMIT-6", Refused(INVALID), store(METADATA)),),
    ),
    Wrong("remove", "SNAP-REMOVE-4", {"state": store(), "op": ops.Remove("child")}, done(store().drop("child", "leaf"))),
    Wrong("update", "SNAP-UPDATE-6", UPDATE, done(store())),
    Wrong("update", "SNAP-UPDATE-6", UPDATE, done(store().put("active", replace(UPDATED, updated=Span(1, 2))))),
    Wrong("update", "SNAP-UPDATE-7", UPDATE, (Outcome("SNAP-UPDATE-1", Refused(INVALID), store()),)),
    Wrong("update", "SNAP-UPDATE-8", UPDATE, done(store().put("active", replace(UPDATED, updated=AT, tree=FILE)))),
    Wrong("outcomes", "SNAP-LIVE-1", PREPARE, ()),
    Wrong("outcomes", "SNAP-KEY-2", PREPARE, with_("")),
    Wrong("outcomes", "SNAP-LABEL-2", PREPARE, with_(labels=(("l", ""),))),
    Wrong("outcomes", "SNAP-TIME-3", PREPARE, with_(updated=Span(0, 1))),
    Wrong("outcomes", "SNAP-PARENT-1", PREPARE, with_(parent="absent")),
    Wrong("outcomes", "SNAP-FAIL-1", PREPARE, (Outcome("SNAP-PREPARE-4", Refused(INVALID), GONE),)),
    Wrong("_holds", "SNAP-WALK-3", {"selector": Selector(("x",), "!=", "1"), "info": Info("k", "", Kind.VIEW, (), 0, 0)}, False),
    Wrong("_found", "SNAP-WALK-4", {"pattern": "(", "value": "("}, True),
    Wrong("crash", "SNAP-FAIL-2", {}, Belief(SNAPSHOTS, frozenset(), Map({1: Call(ops.Walk(), 0)}))),
    Wrong("crash", "SNAP-FAIL-2", {}, Belief(SNAPSHOTS, frozenset({World(store(), Map({1: done(store())[0]}))}))),
]


def postconditions(*modules: ModuleType) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """The functions with contracts, each with the description and the condition of each of its postconditions."""
    for module in modules or (snapshots, filters, linear):
        for name, function in vars(module).items():
            if getattr(function, "__module__", "") == module.__name__:
                for contract in getattr(function, "__postconditions__", ()):
                    yield name, contract.description or "", contract.condition


def holds(condition: Callable[..., Any], wrong: Wrong) -> bool:
    given = {**wrong.arguments, "result": wrong.result}
    return bool(condition(**{name: given[name] for name in signature(condition).parameters}))


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.function}-{wrong.clause}")
def test_a_wrong_result_is_refused_by_the_contract_of_its_clause(wrong: Wrong) -> None:
    conditions = [c for name, clause, c in postconditions() if (name, clause) == (wrong.function, wrong.clause)]
    assert conditions
    assert not all(holds(condition, wrong) for condition in conditions)


def test_every_contract_has_its_wrong_result() -> None:
    assert {(wrong.function, wrong.clause) for wrong in WRONG} == {(name, clause) for name, clause, _ in postconditions()}


@pytest.mark.parametrize(
    "wrong", [wrong for wrong in WRONG if wrong.function not in ("outcomes", "_begun", "_holds", "_found", "crash")]
)
def test_the_contracts_hold_of_what_the_model_gives(wrong: Wrong) -> None:
    """The same arguments, and the result that the function really has: so it is the result that was refused, not the call."""
    given = outcomes(wrong.arguments["state"], _as(wrong), AT)
    right = replace(wrong, result=given, arguments={**wrong.arguments, "op": _as(wrong), "at": AT})
    for name, _, condition in postconditions():
        assert name != wrong.function or holds(condition, right)


def _as(wrong: Wrong) -> ops.Operation:
    op: ops.Operation = wrong.arguments["op"]
    return ops.View(op.key) if wrong.function == "view" and isinstance(op, ops.Prepare) else op
