"""Findings that one check keeps are what the next one begins with; those of a driver that was mended are dropped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import test_database
from faulty import PERMITS, Fault, opened, removes_nothing_gladly, searched, stat_without_labels, views_take_room
from test_database import REFS, Server
from test_run import command

from snapspec.conformance.base_search import Entry
from snapspec.conformance.database import keep, kept, open_database
from snapspec.conformance.draw import Limits
from snapspec.conformance.history import Finding, encode_finding
from snapspec.conformance.plan import Plan
from snapspec.conformance.report.document import Report, load
from snapspec.conformance.search import Search
from snapspec.conformance.worker import _look_for_kept as look_for_kept

server = test_database.server

PLAN = Plan("check", "model:")


def found_by(fault: Fault) -> Finding:
    """A finding of an earlier run."""
    with opened(fault) as session:
        return searched(session, 1).findings[0].finding


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three findings that runs have kept, the one in the middle of refs."""
    some = (found_by(stat_without_labels), REFS, found_by(views_take_room))
    path = tmp_path_factory.mktemp("kept") / "kept.jsonl"
    path.write_text("".join(json.dumps(encode_finding(each)) + "\n" for each in some))
    return path


def seen(plan: Plan, *faults: Fault, first: bool = False) -> list[Entry[Finding]]:
    """What a search finds by what was kept alone."""
    with opened(*faults) as session:
        session.histories = 0
        search = Search(session, Limits(PERMITS), float("inf"), lambda: None, first=first)
        look_for_kept(plan, search)
        search.settle()
        return search.findings


def test_what_was_kept_is_made_first_and_found_at_once(file: Path) -> None:
    found = seen(replace(PLAN, kept=str(file)), stat_without_labels, views_take_room)
    assert [entry.finding.clause for entry in found] == ["SNAP-LABEL-1", "SNAP-USAGE-2"]
    assert found[0].after[0] == 1, "the first history of all"


def test_each_process_has_its_part_of_them(file: Path) -> None:
    parts = [
        [
            entry.finding.clause
            for entry in seen(replace(PLAN, kept=str(file), workers=3, number=number), stat_without_labels, views_take_room)
        ]
        for number in range(3)
    ]
    assert parts == [["SNAP-LABEL-1"], [], ["SNAP-USAGE-2"]]


def test_what_was_mended_is_not_found_and_the_first_is_enough_where_that_is_asked_for(file: Path) -> None:
    plan = replace(PLAN, kept=str(file))
    assert [entry.finding.clause for entry in seen(plan, views_take_room)] == ["SNAP-USAGE-2"]
    assert seen(plan) == seen(plan, removes_nothing_gladly) == []
    assert len(seen(plan, stat_without_labels, views_take_room, first=True)) == 1
    assert seen(PLAN, stat_without_labels) == []


# --- whole checks


def checked(subject: str, where: str, out: Path, *more: str) -> Report:
    words = ("check", subject, "--level", "labels", "--examples", "10", "--jobs", "1", "--out", str(out), "--database", where)
    run = command(*words, *more)
    assert run.returncode in (0, 1, 2), run.stderr
    assert "Traceback" not in run.stderr
    return load(out / "report.json")


def clauses_kept(where: str, name: str) -> list[str]:
    return sorted(found.clause for found in kept(open_database(where), name, "labels"))


@pytest.mark.deep
def test_a_finding_is_kept_shown_first_by_the_next_check_and_dropped_when_it_is_none(tmp_path: Path) -> None:
    (shared := tmp_path / "shared").mkdir()
    where = str(shared)
    first = checked("py:three:one", where, tmp_path / "1", "--seed", "1")
    assert [one.clause for one in first.findings] == ["SNAP-LABEL-1"]
    assert clauses_kept(where, "py:three:one") == ["SNAP-LABEL-1"]
    second = checked("py:three:one", where, tmp_path / "2", "--seed", "2")
    assert [(one.clause, one.histories) for one in second.findings] == [("SNAP-LABEL-1", 1)]
    assert clauses_kept(where, "py:three:one") == ["SNAP-LABEL-1"], "once"
    (other,) = kept(open_database(where), "py:three:one", "labels")
    keep(open_database(where), "py:three:right", "labels", other)
    mended = checked("py:three:right", where, tmp_path / "3", "--seed", "3")
    assert mended.findings == ()
    assert clauses_kept(where, "py:three:right") == []
    assert clauses_kept(where, "py:three:one") == ["SNAP-LABEL-1"], "another driver's"


@pytest.mark.deep
def test_two_machines_share_a_real_redis(server: Server, tmp_path: Path) -> None:
    first = checked("py:three:one", server.words, tmp_path / "1", "--seed", "1")
    assert [one.clause for one in first.findings] == ["SNAP-LABEL-1"]
    second = checked("py:three:one", server.words, tmp_path / "2", "--seed", "2")
    assert [(one.clause, one.histories) for one in second.findings] == [("SNAP-LABEL-1", 1)]
    server.end()
    run = command("check", "py:three:one", "--database", server.words, "--out", str(tmp_path / "3"))
    assert run.returncode == 2
    assert "does not answer" in run.stderr
