"""A finding is set aside and the search goes on: what kind it is of, what its kind covers, and that it hides nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import broken_faults
import broken_overlap
import pytest
from faulty import (
    Fault,
    Faulty,
    commits_what_is_there,
    mounts_elsewhere,
    opened,
    removes_nothing,
    removes_nothing_gladly,
    searched,
    stat_without_labels,
    views_take_room,
)
from hypothesis import given
from hypothesis import strategies as st
from ref_sessions import in_memory
from test_faults_broken import opened as under_faults
from test_overlap import opened as overlapping
from test_ref_session import PAIR
from test_session import Hanging, Watched
from test_session import opened as opened_on

from snapspec.conformance.aside import call_name, covered, kind_of, ways
from snapspec.conformance.base_search import Entry
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.faults import Faulted
from snapspec.conformance.faults.search import every_fault
from snapspec.conformance.history import Finding, Step, decode_finding, encode_finding, load, save
from snapspec.conformance.kind import Kind, decode_kinds, encode_kinds
from snapspec.conformance.overlap import AtOnce
from snapspec.conformance.overlap.session import plan_again
from snapspec.conformance.ref_history import Burst, RefFinding
from snapspec.conformance.ref_session import RefSession
from snapspec.conformance.report.build import after
from snapspec.conformance.run import distinct
from snapspec.conformance.schedule import Budget
from snapspec.conformance.schedule import replay as played
from snapspec.conformance.session import SetAside, replay
from snapspec.conformance.worker import _replay as replay_in_worker
from snapspec.impl.errors import Unavailable
from snapspec.model import ops, ref_ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Failed, Mismatch, Response, Returned
from snapspec.model.tree import EMPTY
from snapspec.model.values import ErrorClass, Info

# --- kinds


def finding(op: Operation, response: Response, clause: str = "SNAP-STAT-1", came: str = "", cause: str = "") -> Finding:
    return Finding((Step(ops.Prepare("a"), Returned(())), Step(op, response)), (Mismatch(clause, "x", came),), cause)


def ref_finding(clause: str, came: str, call: str) -> RefFinding:
    return RefFinding((Burst((ref_ops.Prune(),)),), (), (Mismatch(clause, "x", came),), call=call)


NO = Failed(ErrorClass.NOT_FOUND, "no")
OVERLAP = AtOnce(first=(), lanes=((ops.Stat("a"),), (ops.Walk(),)))


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (finding(ops.Stat("a"), Returned(())), Kind("SNAP-STAT-1", "stat")),
        (finding(ops.Stat("a"), NO, cause="a reopen"), Kind("SNAP-STAT-1", "stat", "a reopen", ("NotFound",))),
        (finding(ops.Nowhere(ops.Stat("a")), NO), Kind("SNAP-STAT-1", "stat", "", ("NotFound",))),
        (finding(Faulted(call=ops.Prepare("b")), NO), Kind("SNAP-STAT-1", "prepare under a fault", "", ("NotFound",))),
        (
            finding(ops.Read("a"), Returned(EMPTY), "SNAP-CONTENT-1", "/f: mode expected 0644, is 0600"),
            Kind("SNAP-CONTENT-1", "read", "", ("mode",)),
        ),
        (finding(ops.Read("a"), Returned(EMPTY), "SNAP-VIEW-1", "/f: mode expected 0644"), Kind("SNAP-VIEW-1", "read")),
        (finding(OVERLAP, Returned(()), came="Unavailable: busy"), Kind("SNAP-STAT-1", shape=("Unavailable",))),
        (finding(OVERLAP, Returned(()), came="a record of 'a'"), Kind("SNAP-STAT-1")),
        (ref_finding("REF-GET-1", "Locked: it is held", "get"), Kind("REF-GET-1", "get", shape=("Locked",))),
        (ref_finding("REF-GET-1", "Locked", "get"), Kind("REF-GET-1", "get", shape=("Locked",))),
        (ref_finding("REF-LEAK-1", "REF-LEAK-1: there are entries", ""), Kind("REF-LEAK-1")),
    ],
)
def test_the_kind_of_a_finding(found: Finding | RefFinding, kind: Kind) -> None:
    assert kind_of(found) == kind


def test_calls_have_names() -> None:
    assert call_name(ref_ops.DiskUsage()) == "diskusage"
    assert call_name(Faulted(call=ops.Commit("a", "b"))) == "commit under a fault"


STAT = Kind("SNAP-STAT-1", "stat")


@pytest.mark.parametrize(
    ("kind", "known", "is_covered"),
    [
        (STAT, [], False),
        (STAT, [STAT], True),
        (STAT, [replace(STAT, clause="SNAP-STAT-2"), replace(STAT, call="walk")], False),
        (replace(STAT, cause="a reopen"), [STAT], True),
        (STAT, [replace(STAT, cause="a reopen")], False),
        (replace(STAT, cause="a reopen"), [replace(STAT, cause="a refused stat")], False),
        (replace(STAT, shape=("A",)), [replace(STAT, shape=("A", "B"))], True),
        (replace(STAT, shape=("A", "B")), [replace(STAT, shape=("A",))], False),
        (replace(STAT, shape=("A", "B")), [replace(STAT, shape=("A",)), replace(STAT, shape=("B",))], True),
        (replace(STAT, shape=("A",)), [STAT], False),
        (STAT, [replace(STAT, shape=("NotFound",))], False),
        (STAT, [replace(STAT, shape=("NotFound",)), STAT], True),
    ],
)
def test_what_is_covered_by_what_is_known(kind: Kind, known: list[Kind], is_covered: bool) -> None:
    assert covered(kind, known) is is_covered


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("/f: mode expected 0644, is 0600", ("mode",)),
        ("/f: mode expected 0644, is 0600; owner expected 0:0, is 1:1", ("mode", "owner")),
        ("/f: owner expected 0:0; /g: mode expected 1", ("mode", "owner")),
        ("/f: missing (a file)", ("entries",)),
        ("/f: unexpected (a file); /g: mode expected 0644", ("entries",)),
        ("/f: mode expected 0644; content differs at 3", ("entries",)),
        ("/f: type expected file", ("entries",)),
        ("/f: size expected 3", ("entries",)),
        ("/f: xattrs expected {}", ("xattrs",)),
    ],
)
def test_in_which_ways_trees_differ(text: str, expected: tuple[str, ...]) -> None:
    assert ways(text) == expected


# --- kinds in files

kinds = st.builds(Kind, *[st.text(max_size=4)] * 3, st.lists(st.text(max_size=3), max_size=3).map(tuple))


@given(st.frozensets(kinds, max_size=4))
def test_kinds_come_back_from_json_as_they_were(some: frozenset[Kind]) -> None:
    assert decode_kinds(json.loads(json.dumps(encode_kinds(some)))) == some


@pytest.mark.parametrize(
    "document", [None, {}, "text", [1], [["a", "b", "c"]], [["a", "b", "c", "d"]], [["a", "b", "c", [1]]], [[]]]
)
def test_what_are_no_kinds_is_refused(document: object) -> None:
    with pytest.raises(CannotRun, match="snapspec check has saved"):
        decode_kinds(document)


def test_kinds_in_words() -> None:
    assert STAT.text == "SNAP-STAT-1 at stat"
    whole = Kind("SNAP-STAT-1", "stat", "a reopen", ("A", "B"))
    assert whole.text == f"SNAP-STAT-1 at {whole.at}" == "SNAP-STAT-1 at stat after a reopen: A, B"
    assert Kind("SNAP-FAIL-2").text == "SNAP-FAIL-2"


# --- a session goes on


@pytest.mark.parametrize("known", [True, False])
def test_a_wrong_answer_that_is_set_aside_is_taken_up_and_the_history_goes_on(known: bool) -> None:
    with opened(stat_without_labels) as session:
        if known:
            session.aside = frozenset({Kind("SNAP-LABEL-1", "stat")})

        def history() -> None:
            session.begin()
            session.do(ops.Prepare("a", labels=(("l", "1"),)))
            session.do(ops.Stat("a"))
            session.do(ops.Walk())
            session.end()

        found = session.shows(history)
        assert (found is None) is known
        assert session.steps[1].aside is known
        assert (ops.Walk() in [step.op for step in session.steps]) is known
        assert session.passed == ({Kind("SNAP-LABEL-1", "stat")} if known else set())
        assert not session.over
        session.begin()
        assert session.passed == set(), "of another history"


def test_one_that_cannot_be_taken_up_ends_the_history_and_says_nothing() -> None:
    with opened(commits_what_is_there) as session:
        calls = (ops.Prepare("a"), ops.Commit("b", "a"), ops.Prepare("c"), ops.Commit("b", "c"), ops.Stat("b"))

        def history() -> None:
            session.begin()
            for op in calls:
                session.do(op)

        found = session.shows(history)
        assert found is not None
        session.aside = frozenset({kind_of(found)})
        with pytest.raises(SetAside):
            history()
        assert [step.op for step in session.steps] == list(calls[:4])
        assert session.shows(history) is None
        assert not session.over


def test_where_nothing_can_be_removed_the_end_of_a_history_is_one() -> None:
    with opened(removes_nothing) as session:
        session.aside = frozenset({Kind("SNAP-REMOVE-3", "remove", "", ("Unknown",))})
        session.do(ops.Prepare("a"))
        with pytest.raises(SetAside):
            session.end()
        assert [step.op for step in session.steps[1:]] == [ops.Remove("a")]


def test_a_store_that_does_not_open_again_is_over_though_that_is_known() -> None:
    subject = Watched(lambda op: Failed(ErrorClass.UNKNOWN, "no") if isinstance(op, ops.Reopen) else None)
    with opened_on(subject) as session:
        session.aside = frozenset({Kind("SNAP-OPEN-1", "reopen", "", ("Unknown",))})
        with pytest.raises(SetAside):
            session.do(ops.Reopen())
        assert session.over


def test_a_call_that_hangs_is_over_though_that_is_known() -> None:
    with opened_on(Hanging(lambda op: op == ops.Stat("a"))) as session:
        session.aside = frozenset({Kind("SNAP-LIVE-1", "stat")})
        session.do(ops.Prepare("a"))
        with pytest.raises(SetAside):
            session.do(ops.Stat("a"))
        assert session.over


# --- nothing is hidden


def clauses(entries: list[Entry[Finding]]) -> list[str]:
    return sorted(entry.finding.clause for entry in entries)


THREE: dict[Fault, str] = {
    mounts_elsewhere: "SNAP-MOUNTS-3",
    stat_without_labels: "SNAP-LABEL-1",
    views_take_room: "SNAP-USAGE-2",
}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_three_faults_are_three_findings_each_with_the_shortest_history_of_its_own(number: int) -> None:
    with opened(*THREE) as session:
        search = searched(session, 3, number=number)
        assert clauses(search.findings) == sorted(THREE.values())
        for entry in search.findings:
            assert len(entry.finding.calls) <= 3
            assert entry.finding.passed == ()
            assert after(entry.finding) == ()
            session.aside = frozenset()
            again = replay(session, entry.finding.steps)
            assert again is not None
            assert kind_of(again) == kind_of(entry.finding)
        assert distinct(search.findings) == sorted(search.findings, key=lambda e: list(THREE.values()).index(e.finding.clause))


@pytest.mark.parametrize("fault", [stat_without_labels, *(pytest.param(each, marks=pytest.mark.deep) for each in THREE)])
def test_one_fault_is_one_finding(fault: Fault) -> None:
    """What is set aside makes no other: see `model.adopt`."""
    with opened(fault) as session:
        assert clauses(searched(session, 2, most=40).findings) == [THREE[fault]]


def only_after(subject: Faulty, before: object, op: Operation, response: Response) -> Response:
    """SNAP-USAGE-2, but only where something was removed gladly before that was not there."""
    gladly = any(isinstance(call, ops.Remove) and call.key == "absent" for call in subject.calls)
    return views_take_room(subject, before, op, response) if gladly else response  # type: ignore[arg-type]  # it is a state


def shown_after(directory: Path) -> Path:
    """A finding that shows only after another, in a file."""
    with opened(removes_nothing_gladly, only_after) as session:
        session.aside = frozenset({Kind("SNAP-REMOVE-1", "remove")})

        def history() -> None:
            session.subject.calls.clear()  # type: ignore[attr-defined]  # it is a Faulty
            session.begin()
            for op in (ops.Remove("absent"), ops.View("v"), ops.Usage("v"), ops.Stat("v")):
                session.do(op)

        found = session.shows(history)
        assert found is not None
        assert found.clause == "SNAP-USAGE-2"
        assert found.passed == (Kind("SNAP-REMOVE-1", "remove"),)
        assert [step.aside for step in found.steps] == [True, False, False]
        assert after(found) == ("remove('absent') -> done",)
        save(directory / "f.json", found, "model:")
        assert load(directory / "f.json") == found
        assert decode_finding(json.loads(json.dumps(encode_finding(found)))) == found
    return directory / "f.json"


def replayed(file: Path, *faults: Fault) -> list[str]:
    """The clauses that `snapspec replay` finds, as its worker makes it, on the driver with these faults."""
    with opened(*faults) as session, pytest.MonkeyPatch.context() as patch:
        patch.setattr("snapspec.conformance.worker._parent", told := StringIO())
        replay_in_worker(session, file)
    lines = [json.loads(text) for text in told.getvalue().splitlines()]
    return [each["finding"]["clause"] for each in lines if each["kind"] == "finding"]


def test_what_shows_only_after_another_says_so_and_replays(tmp_path: Path) -> None:
    file = shown_after(tmp_path)
    assert replayed(file, removes_nothing_gladly, only_after) == ["SNAP-USAGE-2"]
    assert replayed(file, only_after) == ["SNAP-USAGE-2"], "the other one was mended"
    assert replayed(file, removes_nothing_gladly) == [], "what the file passes over is no finding of it"
    assert replayed(file, removes_nothing_gladly, views_take_room, stat_without_labels) == ["SNAP-USAGE-2"]


def test_of_findings_of_one_kind_the_shortest_is_given_and_what_it_covers_is_not() -> None:
    short, long = finding(ops.Stat("a"), Returned(())), finding(ops.Stat("long"), Returned(()))
    caused, other = finding(ops.Stat("b"), Returned(()), cause="a reopen"), finding(ops.Walk(), NO, "SNAP-WALK-1")
    refused = finding(ops.Stat("a"), NO)
    entries = [Entry(one, (1, 0.0)) for one in (other, long, caused, short, refused)]
    assert [entry.finding for entry in distinct(entries)] == [short, refused, other]


# --- refs


def test_of_refs_too_a_kind_ends_its_history_and_others_are_found() -> None:
    session = in_memory()
    session.aside = frozenset({Kind("REF-HANDLE-1")})

    def same_handle() -> None:
        session.begin()
        for op in PAIR:
            session.play((op,), Budget(), played(()))
        session.world.adapter.handles["other"] = session.world.adapter.handles["he"]
        session.play((ref_ops.DiskUsage(),), Budget(), played(()))

    assert session.shows(same_handle) is None
    session.aside = frozenset()
    found = session.shows(same_handle)
    assert found is not None
    assert kind_of(found) == Kind("REF-HANDLE-1")


def test_a_look_that_is_set_aside_hides_no_answer_that_breaks_the_same_clause() -> None:
    session = in_memory()
    for aside, shows in ((Kind("REF-NOTE-1"), ""), (Kind("REF-NOTE-1", "new"), "REF-NOTE-1"), (Kind("REF-LEAK-1"), "REF-NOTE-1")):
        session.aside = frozenset({aside})
        found = session.shows(partial(_with_a_stranger, session))
        assert (found.clause if found is not None else "") == shows


def _with_a_stranger(session: RefSession) -> None:
    """A snapshot in the driver that no entry of the store names."""
    session.begin()
    session.outside(session.world.ground.driver.prepare("stranger"))
    session.play((ref_ops.New("m", "hm"),), Budget(), played(()))


# --- calls that overlap


class Unkind(broken_overlap.Right):
    """A stat, and an update, are refused for no reason."""

    def stat(self, key: str) -> Info:
        raise Unavailable("busy")

    def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        raise PermissionError("no")


def test_of_overlapping_calls_a_kind_ends_its_history_and_another_is_found(tmp_path: Path) -> None:
    first = (ops.Prepare("a"),)
    stats, updates = (AtOnce(first=first, lanes=((op,), (ops.Mounts("a"),))) for op in (ops.Stat("a"), ops.Update("a")))
    with overlapping(Unkind, tmp_path) as session:
        shown = session.shows(plan_again(session, stats))
        assert shown is not None
        session.aside = frozenset({kind_of(shown)})
        assert session.shows(plan_again(session, stats)) is None
        assert not session.over
        other = session.shows(plan_again(session, updates))
        assert other is not None
        assert kind_of(other) != kind_of(shown)


# --- faults


class TwoWrongPaths(broken_faults.RecordKept, broken_faults.DescriptorLeft):
    """One of prepare, one of commit."""


@pytest.mark.root
def test_under_faults_a_kind_ends_its_history_and_another_is_found(workdir: Path) -> None:
    prepare, commit = (ops.Prepare("a"),), (ops.Prepare("a"), ops.Commit("b", "a"))
    with under_faults(broken_faults.Factory(TwoWrongPaths), workdir) as session:
        shown = session.shows(every_fault(session, prepare, 0, lambda: True))
        assert shown is not None
        assert (kind_of(shown).cause, "SNAP-FAULT-4" in [m.clause for m in shown.mismatches]) == ("a failing prepare", True)
        session.aside = frozenset({kind_of(shown)})
        assert kind_of(session.shows(every_fault(session, commit, 1, lambda: True)) or shown).clause == "SNAP-FAULT-5"
