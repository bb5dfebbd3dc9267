"""The oracle at a run of refs: what it lets pass of answers and of records at rest, and which clause it names."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import pytest

from snapspec.conformance.ref_watch import RefDiverged, RefWatch
from snapspec.conformance.schedule import CANCELLED, Unsound
from snapspec.model import ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_replies import GotHandle, GotSize, GotWords, RefFailed, RefReturned, RefValue
from snapspec.model.refs import Record, RefError, RefState
from snapspec.model.tree import MakeFile

FILE = (MakeFile("f", b"x" * 600),)

#: What a layer with it holds.
FULL = 512


@dataclass
class Still:
    """A manager that tells what records it has, and does nothing."""

    here: dict[str, tuple[Record, int]]
    gates: None = None
    orphans: set[str] = field(default_factory=set)

    def records(self) -> dict[str, tuple[Record, int]]:
        return self.here

    def unnoted(self) -> set[str]:
        return self.orphans


M = Record(mutable=True, equal="e")
E = Record(mutable=False, equal="m")


def watched() -> tuple[RefWatch, Still]:
    """After a set-up that leaves an E with a handle and 600 bytes."""
    world = Still({"m": (M, 0), "e": (E, 1)})
    watch = RefWatch(RefState(), world)
    calls: list[tuple[RefOperation, RefValue]] = [
        (ref_ops.New("m", "hm"), GotHandle("m")),
        (ref_ops.Write("hm", FILE), GotWords(("ok",))),
        (ref_ops.Commit("hm", "e", "he"), GotHandle("e")),
    ]
    for call, (op, value) in enumerate(calls):
        watch.invoke(call, op)
        watch.respond(call, RefReturned(value))
    watch.quiet()
    return watch, world


def test_an_answer_that_nothing_allows_is_told_with_what_was_allowed() -> None:
    watch, _ = watched()
    assert watch.clauses()["REF-POINT-3"] == 1
    assert watch.clauses() == {}
    watch.invoke(9, ref_ops.Get("e", "h2", "x"))
    with pytest.raises(RefDiverged, match=r"^REF-GET-1: Get\(.*a handle on 'e', and gave a handle on 'x'") as found:
        watch.respond(9, RefReturned(GotHandle("x")))
    assert found.value.divergence.op == ref_ops.Get("e", "h2", "x")
    assert [m.clause for m in found.value.mismatches] == ["REF-GET-1"]


WRONG = {
    "a record that is gone": ({"m": (M, 0)}, "REF-FINAL-3"),
    "a record too many": ({"m": (M, 0), "e": (E, 1), "x": (E, 0)}, "REF-FINAL-3"),
    "a handle too many": ({"m": (M, 1), "e": (E, 1)}, "REF-FINAL-3"),
    "no handle": ({"m": (M, 0), "e": (E, 0)}, "REF-FINAL-3"),
    "another parent": ({"m": (M, 0), "e": (replace(E, parent="m"), 1)}, "REF-FINAL-3"),
    "no link": ({"m": (M, 0), "e": (replace(E, equal=""), 1)}, "REF-PAIR-1"),
    "a size that cannot be": ({"m": (M, 0), "e": (replace(E, size=0), 1)}, "REF-SIZE-4"),
    "a size of M": ({"m": (replace(M, size=FULL), 0), "e": (E, 1)}, "REF-SIZE-4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_at_rest_the_records_are_those_of_the_model(name: str) -> None:
    watch, world = watched()
    world.here, clause = WRONG[name]
    watch.invoke(9, ref_ops.Finalize("he"))  # fails, and so has not taken place
    watch.quiet()  # not at rest
    watch.disturb(9, "cancel")
    watch.respond(9, CANCELLED)
    with pytest.raises(RefDiverged) as found:
        watch.quiet()
    assert found.value.clause == clause


def test_a_size_that_is_stored_counts_although_nobody_was_told() -> None:
    watch, world = watched()
    world.here["e"] = (replace(E, size=FULL), 1)
    watch.invoke(8, ref_ops.Size("he"))
    watch.disturb(8, "cancel")
    watch.respond(8, CANCELLED)
    watch.quiet()
    watch.invoke(9, ref_ops.Size("he"))
    with pytest.raises(RefDiverged, match="REF-SIZE-1"):
        watch.respond(9, RefReturned(GotSize(2 * FULL)))
    watch.invoke(10, ref_ops.Size("he"))
    watch.respond(10, RefReturned(GotSize(FULL)))
    world.here["e"] = (E, 1)
    with pytest.raises(RefDiverged, match="REF-SIZE-2"):
        watch.quiet()


def test_after_a_fault_the_records_are_looked_at_again_when_the_manager_has_started_again() -> None:
    watch, world = watched()
    watch.invoke(8, ref_ops.Finalize("he"))
    watch.disturb(8, "fail after")
    watch.respond(8, RefFailed(RefError.STORE))
    world.here = {}
    watch.quiet()
    watch.invoke(9, ref_ops.Restart())
    watch.respond(9, RefReturned())
    with pytest.raises(RefDiverged, match="REF-OPEN-1"):
        watch.quiet()


def test_after_a_crash_there_is_nothing_to_look_at_until_the_manager_has_started_again() -> None:
    watch, world = watched()
    watch.invoke(8, ref_ops.Finalize("he"))
    watch.crash()
    world.here = {}
    watch.quiet()
    watch.invoke(9, ref_ops.Restart())
    watch.respond(9, RefReturned())
    world.here = {"e": (Record(mutable=False), 0)}
    watch.quiet()
    assert {tuple(world.state.records) for world in watch.belief.worlds} == {("e",)}


def test_only_who_was_disturbed_may_answer_so() -> None:
    for answer, what in ((CANCELLED, "cancel"), (RefFailed(RefError.STORE), "fail before")):
        for disturbed in (True, False):
            watch, _ = watched()
            watch.invoke(8, ref_ops.Size("he"))
            if disturbed:
                watch.disturb(8, what)
            with nullcontext() if disturbed else pytest.raises(RefDiverged, match="REF-SIZE-5"):
                watch.respond(8, answer)


def test_a_failure_may_still_come_to_those_who_join_before_it_is_told_and_to_nobody_later() -> None:
    watch, _ = watched()
    watch.invoke(7, ref_ops.Size("he"))
    watch.disturb(7, "fail before")
    watch.invoke(8, ref_ops.Size("he"))
    watch.invoke(9, ref_ops.Finalize("he"))
    for call in (7, 8):
        watch.respond(call, RefFailed(RefError.DRIVER))
    with pytest.raises(RefDiverged, match="REF-FINAL-3"):
        watch.respond(9, RefFailed(RefError.DRIVER))
    watch.invoke(10, ref_ops.Size("he"))
    with pytest.raises(RefDiverged, match="REF-SIZE-5"):
        watch.respond(10, RefFailed(RefError.DRIVER))


def test_a_snapshot_that_nothing_names_is_found() -> None:
    watch = RefWatch(RefState(), Still({}, orphans={"m"}))
    with pytest.raises(Unsound, match="REF-NOTE-1"):
        watch.quiet()
