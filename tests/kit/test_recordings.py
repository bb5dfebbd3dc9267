"""The judgement on recordings: legal ones, illegal ones, what is shown of those, and files that are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import simulated

from snapspec.conformance.cli import main
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.linear import Verdict, check
from snapspec.conformance.recordings.judge import judge
from snapspec.conformance.recordings.lanes import drawn
from snapspec.conformance.recordings.parts import split
from snapspec.conformance.recordings.recording import FORMAT, Made, Recording, Store, Taker, create, load
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Failed, Lost, Response, Returned
from snapspec.model.state import Profile
from snapspec.model.values import ErrorClass, Info, Kind, Mount

DONE = Returned()
MISSING = Failed(ErrorClass.NOT_FOUND)
LATE = 1 << 62


def given(key: str) -> Returned:
    return Returned((Mount("bind", f"/{key}"),))


def listed(*names: str) -> Returned:
    return Returned(tuple(Info(name, "", Kind.ACTIVE, (), 5, 5) for name in names))


def made(op: Operation, response: Response, began: int, ended: int | None, caller: int = 0, leased: bool = False) -> Made:
    return Made(op, response, 0, caller, began, ended, 0, LATE, leased)


def told(*calls: Made, store: Store | None = None) -> Recording:
    return Recording((store or Store(profile=Profile()),), calls)


# --- legal and illegal


@pytest.mark.parametrize("seed", range(2))
def test_what_the_model_allows_is_legal(seed: int) -> None:
    whole = simulated.recording(300, 8, seed, keys=5, lost=20)
    assert judge(whole).verdict is Verdict.LEGAL


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(1, 8))])
def test_an_answer_of_another_moment_is_illegal_and_what_is_shown_is_illegal_alone(seed: int) -> None:
    opinion = judge(simulated.broken(simulated.recording(400, 8, 1), seed))
    assert opinion.verdict is Verdict.ILLEGAL
    shown = opinion.shown
    assert shown is not None
    assert len(shown.calls) <= 8
    assert shown.mismatches[-1].clause.startswith("SNAP-STAT-")


def test_a_walk_under_a_commit_that_sees_neither_name_is_drawn() -> None:
    opinion = judge(
        told(
            made(ops.Prepare("other"), given("other"), 1, 2),
            made(ops.Prepare("a"), given("a"), 3, 4),
            made(ops.Commit("x", "a"), DONE, 5, 8, 1),
            made(ops.Walk(), listed("other"), 6, 7, 2),
        )
    )
    assert opinion.verdict is Verdict.ILLEGAL
    assert opinion.shown is not None
    assert [m.clause for m in opinion.shown.mismatches] == ["SNAP-FAIL-2", "SNAP-WALK-1"]
    assert "\n".join(line.rstrip() for line in drawn(opinion.shown)) == (
        "before: 'a' active\n"
        "\n"
        "caller 1   ├1───────┤\n"
        "caller 2      ├2─┤\n"
        "\n"
        "  1  caller 1: commit('x', 'a') -> done\n"
        "  2  caller 2: walk() -> nothing\n"
        "\n"
        "longest legal order: 1\n"
        "no place for:        2  walk()"
    )


def test_a_walk_tells_in_which_order_unrelated_snapshots_came() -> None:
    """Each of the two walks is right about `a` alone and about `b` alone."""
    both = [made(ops.Prepare("a"), given("a"), 1, 7), made(ops.Prepare("b"), given("b"), 2, 8, 1)]
    walks = [made(ops.Walk(), listed("a"), 3, 5, 2), made(ops.Walk(), listed("b"), 4, 6, 3)]
    assert judge(told(*both, *walks)).verdict is Verdict.ILLEGAL
    for walk in walks:
        assert judge(told(*both, walk)).verdict is Verdict.LEGAL


def test_snapshots_that_no_call_joins_are_judged_by_themselves() -> None:
    calls = [made(ops.Prepare(f"k{n}"), given(f"k{n}"), 2 * n + 1, 2 * n + 2) for n in range(5)]
    assert len(split(Store(), Profile(), calls)) == 5
    child = made(ops.View("v", "k1"), Failed(ErrorClass.INVALID_ARGUMENT), 20, 21)
    assert len(split(Store(), Profile(), [*calls, child])) == 5, "the view belongs to its parent"


def test_a_walk_is_not_held_against_what_is_surely_gone() -> None:
    calls: list[Made] = []
    for n in range(50):
        moment = 10 * n
        calls.append(made(ops.Prepare(f"k{n}"), given("k"), moment + 1, moment + 2))
        calls.append(made(ops.Walk(), listed(f"k{n}"), moment + 3, moment + 4))
        calls.append(made(ops.Remove(f"k{n}"), DONE, moment + 5, moment + 6))
    parts = split(Store(), Profile(), calls)
    assert sum(len(part.calls) for part in parts) == 4 * 50, "each walk stands in its own part and in the one of no snapshots"
    assert check([(part.model, part.calls) for part in parts]).verdict is Verdict.LEGAL


def test_the_records_at_the_beginning_count() -> None:
    there = Store(profile=Profile(), records=(Info("old", "", Kind.COMMITTED, (), 5, 5),))
    look = made(ops.Stat("old"), Returned(Info("old", "", Kind.COMMITTED, (), 5, 5)), 1, 2)
    assert judge(told(look, store=there)).verdict is Verdict.LEGAL
    assert judge(told(look)).verdict is Verdict.ILLEGAL
    with pytest.raises(CannotRun, match="record again"):
        judge(told(look, store=Store("overlayfs", records=None, why="refused")))


@pytest.mark.parametrize(("leased", "verdict"), [(False, Verdict.LEGAL), (True, Verdict.ILLEGAL)])
def test_containerd_may_collect_what_no_lease_keeps(leased: bool, verdict: Verdict) -> None:
    calls = [made(ops.Prepare("a"), given("a"), 1, 2, leased=leased), made(ops.Stat("a"), MISSING, 3, 4)]
    assert judge(told(*calls, store=Store("overlayfs", "default"))).verdict is verdict


def test_a_parent_at_commit_may_be_what_any_driver_makes_of_it() -> None:
    layer = [
        made(ops.Prepare("a"), given("a"), 1, 2),
        made(ops.Commit("x", "a"), DONE, 3, 4),
        made(ops.Prepare("b"), given("b"), 5, 6),
    ]
    for response, child in ((DONE, "x"), (DONE, ""), (Failed(ErrorClass.INVALID_ARGUMENT), None)):
        calls = [*layer, made(ops.Commit("y", "b", (), "x"), response, 7, 8)]
        info = Info("y", child or "", Kind.COMMITTED, (), 5, 5)
        calls.append(made(ops.Stat("y"), MISSING if child is None else Returned(info), 9, 10))
        assert judge(told(*calls, store=Store("overlayfs"))).verdict is Verdict.LEGAL


def test_what_is_too_hard_is_unknown(tmp_path: Path) -> None:
    assert judge(simulated.recording(300, 8, 1), budget=20).verdict is Verdict.UNKNOWN


# --- files


def taken(path: Path) -> None:
    file = create(path)
    taker = Taker(file)
    store = taker.store(Store("overlayfs", None, (), None))
    first, second = taker.begin(ops.Prepare("a"), store), taker.begin(ops.Prepare("b"), store)
    taker.answer(second, given("b"))
    taker.answer(first, given("a"))
    taker.answer(taker.begin(ops.Stat("a"), store), Lost("gone"))
    taker.begin(ops.Walk(), store)
    os.close(file)


def test_a_file_holds_what_was_taken_down(tmp_path: Path) -> None:
    taken(tmp_path / "r")
    recording = load(tmp_path / "r")
    assert [(call.op, call.caller, call.began, call.ended) for call in recording.calls] == [
        (ops.Prepare("a"), 0, 3, 6),
        (ops.Prepare("b"), 1, 4, 5),
        (ops.Stat("a"), 0, 7, None),
        (ops.Walk(), 0, 9, None),
    ]
    assert recording.stores == (Store("overlayfs", None, (), None),)
    lines = [json.loads(line) for line in (tmp_path / "r").read_text().splitlines()]
    assert sorted(line["at"] for line in lines) == [line["at"] for line in lines]


def test_a_line_that_was_cut_off_counts_for_nothing(tmp_path: Path) -> None:
    taken(tmp_path / "r")
    whole = (tmp_path / "r").read_bytes()
    (tmp_path / "r").write_bytes(whole[:-5])
    assert len(load(tmp_path / "r").calls) == 3


HEAD = json.dumps({"format": FORMAT}) + "\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a file of format"),
        ("{}\n", "is not a file of format"),
        ("nonsense\n", "line 1, is not JSON"),
        (HEAD + "[]\n", "line 2"),
        (HEAD + '{"answer": 3, "clock": 1, "response": {"is": "replies.Returned"}}\n', "line 2"),
        (HEAD + '{"call": 0, "store": 0, "caller": 0, "clock": 1, "op": {"is": "ops.Walk"}}\n', "line 2"),
        (HEAD + '{"store": 0, "snapshotter": "x", "namespace": null, "why": "", "records": [1], "profile": null}\n', "line 2"),
        (HEAD + '{"store": 0, "snapshotter": "x", "namespace": null, "why": "", "records": {"is": "no.Thing"}}\n', "line 2"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r").write_text(text)
    assert main(["audit", str(tmp_path / "r")]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.deep
def test_a_hundred_thousand_calls_are_judged(tmp_path: Path) -> None:
    path = tmp_path / "r"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-O", simulated.__file__, "100000", "8", "1", "30", str(path)], check=True, env=environment)
    opinion = judge(load(path))
    assert (opinion.verdict, opinion.calls) == (Verdict.LEGAL, 100_000)
