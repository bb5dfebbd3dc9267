"""Every contract of the manager's model bites: for each there is a wrong result that it refuses, as in test_contracts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from states import FILE, HANDLES, RECORDS, manager
from test_contracts import Wrong, holds, postconditions

from snapspec.model import ref_changes, ref_faults, ref_ops, ref_oracle, ref_outcomes, ref_replies, ref_state, refs
from snapspec.model.frozen import Map
from snapspec.model.ref_outcomes import (
    GivesHandle,
    GivesList,
    ListsRows,
    Pruned,
    RefDone,
    RefError,
    RefOutcome,
    RefOutcomes,
    RefRefused,
    RefReply,
    Row,
)
from snapspec.model.ref_state import Handle, Record, RefState
from snapspec.model.state import Snapshot
from snapspec.model.tree import EMPTY, MakeDirectory, outcomes_of
from snapspec.model.values import Kind

#: All but the guards, whose contracts the symbolic checker goes through.
MODULES = (refs, ref_changes, ref_outcomes, ref_state, ref_faults, ref_oracle, ref_replies)

STATE = manager()
OTHER = outcomes_of(EMPTY, EMPTY, MakeDirectory("d"))[0].tree


def ended(reply: RefReply, state: RefState = STATE) -> RefOutcomes:
    return (RefOutcome("REF-POINT-1", reply, state),)


def done(state: RefState) -> RefOutcomes:
    return ended(RefDone(), state)


def gives(handle: str, record: str, state: RefState = STATE) -> RefOutcomes:
    return ended(GivesHandle(handle, record), state)


def with_record(name: str, record: Record, state: RefState = STATE) -> RefState:
    return replace(state, records=state.records.set(name, record))


def with_handle(name: str, handle: Handle, state: RefState = STATE) -> RefState:
    return replace(state, handles=state.handles.set(name, handle))


def with_snapshot(key: str, snapshot: Snapshot, state: RefState = STATE) -> RefState:
    return replace(state, driver=state.driver.put(key, snapshot))


def without_record(*names: str) -> RefState:
    return replace(STATE, records=RECORDS.without(*names))


def rewritten(key: str) -> RefState:
    """The state in which another content is under this record."""
    return with_snapshot(key, replace(STATE.driver.snapshots[key], tree=OTHER))


def on(op: ref_ops.RefOperation) -> dict[str, Any]:
    return {"state": STATE, "op": op}


def rows(*changed: Row) -> RefOutcomes:
    """The rows as they should be, but for those that are given."""
    (outcome,) = refs.outcomes(STATE, ref_ops.DiskUsage())
    assert isinstance(outcome.reply, ListsRows)
    kept = {row.record: row for row in outcome.reply.rows} | {row.record: row for row in changed}
    return ended(ListsRows(tuple(kept.values())))


COMMIT = ref_ops.Commit("h_open", "new", "h")
MADE = with_record("new", Record(True), with_snapshot("new", Snapshot(Kind.ACTIVE)))
MADE_OVER = with_record("new", Record(True, "base"), with_snapshot("new", Snapshot(Kind.ACTIVE, "base", tree=FILE)))
E_OF_OPEN = with_record("new", Record(False, equal="open"), with_record("open", Record(True, equal="new")))
FINALIZED = refs.outcomes(STATE, ref_ops.Finalize("h_held_e"))[0].state
PRUNED = refs.outcomes(STATE, ref_ops.Prune())[0].state
NO_ONE = replace(STATE, handles=Map((name, replace(handle, open=False)) for name, handle in HANDLES.items()))

OPEN = {"state": STATE, "mutable": "open", "fresh": "new"}
PAIR, LEAF = {"state": STATE, "record": "held_e"}, {"state": STATE, "record": "leaf"}
MAKE, MAKE_OVER = ({"state": STATE, "record": "new", "parent": parent} for parent in ("", "base"))
CLAIM = {**on(ref_ops.New("new", "h", "h_base")), "over": "base"}

WRONG = [
    Wrong("new", "REF-NEW-3", on(ref_ops.New("new", "h", "h_open")), gives("h", "new", MADE)),
    Wrong("new", "REF-NEW-3", on(ref_ops.New("new", "h", "old")), gives("h", "new", MADE)),
    Wrong("commit", "REF-COMMIT-1", on(COMMIT), gives("h", "new", with_handle("h", Handle("new", False)))),
    Wrong("commit", "REF-COMMIT-1", on(COMMIT), gives("h", "new", rewritten("leaf"))),
    Wrong("get", "REF-GET-1", on(ref_ops.Get("base", "h", "new")), ended(RefRefused(RefError.LOCKED))),
    Wrong("get", "REF-GET-1", on(ref_ops.Get("held_e", "h", "new")), gives("h", "held_m")),
    Wrong("get", "REF-GET-3", on(ref_ops.Get("rest_m", "h", "new")), gives("h", "new", without_record("rest_e"))),
    Wrong("get", "REF-GET-4", on(ref_ops.Get("idle", "h", "new")), gives("h", "new", rewritten("idle"))),
    Wrong("get_mutable", "REF-MUT-2", on(ref_ops.GetMutable("held_m", "h")), gives("h", "held_m")),
    Wrong("finalize", "REF-FINAL-1", on(ref_ops.Finalize("h_held_e")), done(STATE)),
    Wrong("release", "REF-HANDLE-2", on(ref_ops.Release("h_open")), done(STATE)),
    Wrong("release", "REF-HANDLE-2", on(ref_ops.Release("h_open")), ended(RefRefused(RefError.DRIVER), NO_ONE)),
    Wrong("release", "REF-HANDLE-3", on(ref_ops.Release("old")), done(NO_ONE)),
    Wrong("release", "REF-PAIR-1", on(ref_ops.Release("h_held_e")), done(without_record("held_m", "held_e"))),
    Wrong("parent", "REF-PARENT-1", on(ref_ops.Parent("h_child", "h")), gives("h", "leaf")),
    Wrong("parent", "REF-PARENT-1", on(ref_ops.Parent("h_child", "h")), gives("h", "base", without_record("leaf"))),
    Wrong("size", "REF-SIZE-6", on(ref_ops.Size("h_open")), done(with_record("open", Record(True, size=3)))),
    Wrong("mount", "REF-MOUNT-1", on(ref_ops.Mount("h_open", True)), ended(GivesList("open", True))),
    Wrong("mount", "REF-MOUNT-2", on(ref_ops.Mount("h_base", False)), ended(GivesList("base", True))),
    Wrong("mount", "REF-MOUNT-3", on(ref_ops.Mount("h_held_e", False)), ended(GivesList("held_e", False))),
    Wrong("mount", "REF-MOUNT-4", on(ref_ops.Mount("h_held_e", True)), ended(GivesList("held_e", False), FINALIZED)),
    Wrong("write", "REF-COMMIT-3", on(ref_ops.Write("h_held_e", ())), done(rewritten("held_m"))),
    Wrong("write", "REF-COMMIT-3", on(ref_ops.Write("h_open", ())), done(rewritten("base"))),
    Wrong("read", "REF-COMMIT-3", on(ref_ops.Read("h_open")), done(rewritten("open"))),
    Wrong("disk_usage", "REF-USAGE-1", on(ref_ops.DiskUsage()), ended(ListsRows(()))),
    Wrong("disk_usage", "REF-USAGE-1", on(ref_ops.DiskUsage()), rows(Row("held_m", "", True, True, 0))),
    Wrong("disk_usage", "REF-USAGE-2", on(ref_ops.DiskUsage()), rows(Row("base", "", False, False, None))),
    Wrong("disk_usage", "REF-USAGE-3", on(ref_ops.DiskUsage()), ended(ListsRows(()), replace(STATE))),
    Wrong("prune", "REF-PRUNE-1", on(ref_ops.Prune()), done(STATE)),
    Wrong("prune", "REF-PRUNE-1", on(ref_ops.Prune()), done(replace(PRUNED, records=PRUNED.records.without("open")))),
    Wrong("prune", "REF-PRUNE-3", on(ref_ops.Prune()), ended(Pruned(()), PRUNED)),
    Wrong("close", "REF-CLOSE-1", on(ref_ops.Close()), done(without_record("idle"))),
    Wrong("restart", "REF-OPEN-1", on(ref_ops.Restart()), done(without_record("idle"))),
    Wrong("steps", "REF-ERROR-5", on(ref_ops.Prune()), ()),
    Wrong("_claimed", "REF-NEW-4", CLAIM, done(STATE)),
    Wrong("outcomes", "REF-ERROR-5", on(ref_ops.Prune()), ()),
    Wrong("outcomes", "REF-PAIR-1", on(COMMIT), done(without_record("held_m"))),
    Wrong("outcomes", "REF-PAIR-1", on(COMMIT), done(with_record("open", Record(True, equal="leaf")))),
    Wrong("outcomes", "REF-PAIR-2", on(COMMIT), done(without_record("base"))),
    Wrong("outcomes", "REF-PAIR-2", on(COMMIT), done(with_record("child", Record(True, "held_e")))),
    Wrong("outcomes", "REF-HANDLE-6", on(COMMIT), done(with_handle("h", Handle("open", True)))),
    Wrong("outcomes", "REF-HANDLE-6", on(COMMIT), done(with_handle("h", Handle("held_m", True)))),
    Wrong("outcomes", "REF-HANDLE-6", on(COMMIT), done(with_handle("h", Handle("absent", True)))),
    Wrong("outcomes", "REF-OPEN-5", on(COMMIT), done(without_record("leaf"))),
    Wrong("outcomes", "REF-OPEN-5", on(COMMIT), done(with_record("new", Record(True)))),
    Wrong("outcomes", "REF-SIZE-4", on(COMMIT), done(with_record("open", Record(True, size=3)))),
    Wrong("outcomes", "REF-CLOSE-1", on(ref_ops.Close()), done(replace(STATE, closed=True))),
    Wrong("outcomes", "REF-ERROR-4", on(COMMIT), ended(RefRefused(RefError.INVALID), replace(STATE))),
    Wrong("outcomes", "REF-HANDLE-5", on(COMMIT), done(replace(STATE, handles=HANDLES.without("old")))),
    Wrong("outcomes", "REF-HANDLE-1", on(COMMIT), gives("h_base", "base")),
    Wrong("outcomes", "REF-HANDLE-1", on(COMMIT), gives("h", "leaf", with_handle("h", Handle("base", False)))),
    Wrong("outcomes", "REF-HANDLE-1", on(COMMIT), gives("h", "leaf", with_handle("h", Handle("leaf", False, open=False)))),
    Wrong("without_handles", "REF-OPEN-1", {"state": STATE}, STATE),
    Wrong("without_handles", "REF-HANDLE-5", {"state": STATE}, replace(STATE, handles=Map())),
    Wrong("made", "REF-ERROR-3", {"state": STATE, "record": "leaf", "parent": ""}, STATE),
    Wrong("made", "REF-NEW-1", MAKE, with_snapshot("new", Snapshot(Kind.ACTIVE, tree=FILE), MADE)),
    Wrong("made", "REF-NEW-2", MAKE_OVER, with_snapshot("new", Snapshot(Kind.ACTIVE, "base"), MADE_OVER)),
    Wrong("made", "REF-NEW-4", MAKE_OVER, MADE),
    Wrong("paired", "REF-ERROR-3", {"state": STATE, "mutable": "open", "fresh": "leaf"}, STATE),
    Wrong("paired", "REF-COMMIT-1", OPEN, with_snapshot("idle", Snapshot(Kind.ACTIVE), E_OF_OPEN)),
    Wrong("paired", "REF-COMMIT-2", OPEN, with_record("new", Record(False, "base", "open"), E_OF_OPEN)),
    Wrong("paired", "REF-COMMIT-3", OPEN, with_snapshot("open", Snapshot(Kind.ACTIVE), E_OF_OPEN)),
    Wrong("parted", "REF-MUT-3", {"state": STATE, "mutable": "rest_m"}, STATE),
    Wrong("parted", "REF-MUT-3", {"state": STATE, "mutable": "open"}, rewritten("open")),
    Wrong("finalized", "REF-COMMIT-3", PAIR, with_snapshot("held_e", Snapshot(Kind.COMMITTED), FINALIZED)),
    Wrong("finalized", "REF-FINAL-1", PAIR, STATE),
    Wrong("finalized", "REF-FINAL-1", PAIR, with_record("held_m", Record(True), FINALIZED)),
    Wrong("finalized", "REF-FINAL-2", LEAF, replace(STATE)),
    Wrong("finalized", "REF-SIZE-1", LEAF, with_record("leaf", Record(False, size=6))),
    Wrong("removed", "REF-PAIR-3", PAIR, (without_record("held_e"), (frozenset({"held_e", "held_m"}), None))),
    Wrong("removed", "REF-PRUNE-3", PAIR, (without_record("held_e", "held_m"), (frozenset({"held_e"}), None))),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.function}-{wrong.clause}")
def test_a_wrong_result_is_refused_by_the_contract_of_its_clause(wrong: Wrong) -> None:
    conditions = [c for name, clause, c in postconditions(*MODULES) if (name, clause) == (wrong.function, wrong.clause)]
    assert conditions
    assert not all(holds(condition, wrong) for condition in conditions)


def test_every_contract_has_its_wrong_result() -> None:
    """Each single condition, also where a clause has two at one function."""
    for name, clause, condition in postconditions(*MODULES):
        wrongs = [wrong for wrong in WRONG if (wrong.function, wrong.clause) == (name, clause)]
        assert any(not holds(condition, wrong) for wrong in wrongs), (name, clause)
    there = {(name, clause) for name, clause, _ in postconditions(*MODULES)}
    assert {(wrong.function, wrong.clause) for wrong in WRONG} == there


#: The functions with the arguments of their wrong results: what comes of them is right.
RIGHT: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    *((refs.outcomes, wrong.arguments) for wrong in WRONG if "op" in wrong.arguments and wrong.function != "_claimed"),
    (ref_changes.without_handles, {"state": STATE}),
    (ref_changes.made, MAKE),
    (ref_changes.made, MAKE_OVER),
    (ref_changes.paired, OPEN),
    (ref_changes.parted, {"state": STATE, "mutable": "rest_m"}),
    (ref_changes.finalized, PAIR),
    (ref_changes.finalized, LEAF),
    (ref_changes.removed, PAIR),
    (refs._claimed, CLAIM),
]


@pytest.mark.parametrize(("function", "arguments"), RIGHT)
def test_the_contracts_hold_of_what_the_model_gives(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """So it is the result that was refused above, and not the call."""
    result = function(**arguments)
    for name, _, condition in postconditions(*MODULES):
        assert name != function.__name__ or holds(condition, Wrong(name, "", arguments, result))
