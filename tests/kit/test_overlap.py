"""Level `concurrent`: what goes wrong only when calls overlap is found, drawn, saved and found again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import broken_overlap
import containerd as daemons
import pytest
from test_containerd_check import check
from test_run import command
from verdicts import nothing_wrong, saved

from snapspec.conformance.cli import main
from snapspec.conformance.contents import Contents
from snapspec.conformance.draw import Limits
from snapspec.conformance.files import permits
from snapspec.conformance.history import Finding, load, save
from snapspec.conformance.overlap import AtOnce
from snapspec.conformance.overlap.search import OverlapSearch
from snapspec.conformance.overlap.session import OverlapSession, replay_plan
from snapspec.conformance.report.text import finding_lines
from snapspec.conformance.subjects.python import PythonSubject
from snapspec.model import ops

containerd = daemons.containerd


@contextmanager
def opened(factory: type[broken_overlap.Right], directory: Path) -> Iterator[OverlapSession]:
    """A session with the driver."""
    for place in ("mnt", "store"):
        (directory / place).mkdir()
    with asyncio.Runner() as runner:
        contents = Contents(directory / "mnt", mounts=False, root=False)
        session = OverlapSession(PythonSubject("py:", contents, directory / "store", factory, factory.profile), runner)
        with session.started():
            yield session


def searched(session: OverlapSession, directory: Path, examples: int) -> OverlapSearch:
    search = OverlapSearch(session, Limits(permits(str(directory))), float("inf"), lambda: None, first=True)
    search.run_scenarios()
    if search.best is None:
        search.run_batch(examples, 1)
    return search


#: Each with the clause that stands in the finding besides the one on order.
BROKEN = {
    broken_overlap.LooksBeforeItLocks: "SNAP-PREPARE-3",
    broken_overlap.WalksInSteps: "SNAP-WALK-1",
}


@pytest.mark.parametrize(
    "factory", [pytest.param(factory, marks=[pytest.mark.deep] * seldom) for seldom, factory in enumerate(BROKEN)]
)
def test_what_goes_wrong_under_overlap_alone_is_found_and_replays(factory: type[broken_overlap.Right], tmp_path: Path) -> None:
    with opened(factory, tmp_path) as session:
        search = searched(session, tmp_path, 50)
        search.settle()
        found = search.best
        assert isinstance(found, Finding)
        clauses = [mismatch.clause for mismatch in found.mismatches]
        assert clauses[0] == "SNAP-FAIL-2"
        assert BROKEN[factory] in clauses
        plan = found.steps[0].op
        assert isinstance(plan, AtOnce)
        assert sum(map(len, plan.lanes)) <= 8, "by luck, for the moments decide"
        save(tmp_path / "f.json", found, "py:")
        saved = load(tmp_path / "f.json")
        assert saved == found
        session.aside = frozenset()  # what was found is looked for again
        again = replay_plan(session, saved.steps)
        assert again is not None
    text = "\n".join(finding_lines(found))
    assert "  2  caller " in text, "what it overlaps with is shown too"
    assert "no place for:" in text


def test_that_another_call_is_under_way_is_no_reason_to_refuse(tmp_path: Path) -> None:
    with opened(broken_overlap.BusyUnderOverlap, tmp_path) as session:
        found = searched(session, tmp_path, 10).best
    assert found is not None
    assert any("Unavailable" in mismatch.came for mismatch in found.mismatches)


def test_a_right_driver_conforms(tmp_path: Path) -> None:
    with opened(broken_overlap.Right, tmp_path) as session:
        assert searched(session, tmp_path, 25).best is None
        assert session.histories > 50
        assert session.reached["SNAP-FAIL-2"] == session.histories


def test_a_driver_whose_calls_are_lost_is_found(tmp_path: Path) -> None:
    class Hangs(broken_overlap.Right):
        def remove(self, key: str) -> None:
            with self._lock:
                event.wait(2)
            super().remove(key)

    import threading

    event = threading.Event()
    with opened(Hangs, tmp_path) as session:
        session.deadline = 0.2
        plan = AtOnce(first=(ops.Prepare("a"),), lanes=((ops.Remove("a"),), (ops.Stat("a"),)))
        found = session.shows(lambda: (session.begin(), session.play(plan)))
        event.set()
    assert found is not None
    assert found.clause == "SNAP-LIVE-1"


@pytest.mark.deep
def test_the_command_finds_saves_and_replays(tmp_path: Path) -> None:
    options = ("--level", "concurrent", "--jobs", "1", "--first", "--out", str(tmp_path))
    result = command("check", "py:broken_overlap:walks_in_steps", *options)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "no place for:" in result.stdout
    out = saved(tmp_path)
    assert json.loads(out.read_text())["clause"] == "SNAP-FAIL-2"
    result = command("replay", str(out), "py:broken_overlap:walks_in_steps")
    assert result.returncode == 1, result.stdout + result.stderr
    result = command("replay", str(out), "py:broken_overlap:right")
    assert result.returncode == 0, result.stdout + result.stderr


def test_of_refs_there_is_no_such_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "refs:overlay", "--level", "concurrent"]) == 2
    assert "level refs" in capsys.readouterr().err


@pytest.mark.deep
@pytest.mark.root
def test_the_reference_conforms() -> None:
    for subject in ("ref:overlay", "ref:copy", "model:"):
        nothing_wrong(command("check", subject, "--level", "concurrent", "--examples", "60", "--jobs", "1"))


@pytest.mark.deep
@pytest.mark.root
@pytest.mark.parametrize(
    ("snapshotter", "without"), [("overlayfs", "walk,parents"), ("native", "walk,parents,view"), ("btrfs", "walk,parents")]
)
def test_containerd_under_overlapping_calls(containerd: daemons.Daemon, snapshotter: str, without: str) -> None:
    """conformance/drivers.md."""
    if snapshotter not in containerd.snapshotters:
        pytest.skip(f"containerd has no {snapshotter} here")
    result = check(containerd, snapshotter, "--level", "concurrent", "--examples", "25", "--jobs", "1", "--without", without)
    nothing_wrong(result)
    left_out = "parents,view" if snapshotter == "native" else "parents"
    result = check(containerd, snapshotter, "--level", "concurrent", "--first", "--jobs", "1", "--without", left_out)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "SNAP-WALK-1" in result.stdout
