"""Drivers with a wrong error path are found by what fails under them, and shown by a short history that replays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import broken_faults
import pytest
from test_run import command
from verdicts import saved

from snapspec.conformance.contents import Contents
from snapspec.conformance.draw import Limits
from snapspec.conformance.faults import Faulted
from snapspec.conformance.faults.points import watched
from snapspec.conformance.faults.search import FaultSearch, every_fault
from snapspec.conformance.faults.session import FaultSession
from snapspec.conformance.faults.subject import into_memory
from snapspec.conformance.files import permits
from snapspec.conformance.history import Finding, load, save
from snapspec.conformance.report.text import finding_lines
from snapspec.conformance.session import replay
from snapspec.conformance.subjects.python import PythonSubject
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.tree import MakeFile

pytestmark = pytest.mark.root

BASE = (ops.Prepare("a"), ops.Write("a", (MakeFile("f", b"x"),)), ops.Commit("b", "a"))

#: Each with the clause that its finding names besides those of the calls, and a history whose last call shows it.
BROKEN: dict[str, tuple[str, tuple[Operation, ...]]] = {
    "staging_left": ("SNAP-FAULT-5", (ops.Prepare("a"),)),
    "staging_reused": ("SNAP-FAULT-4", (*BASE, ops.Prepare("c", "b"))),
    "transaction_left_open": ("SNAP-FAULT-4", (ops.Prepare("a"),)),
    "record_kept": ("SNAP-FAULT-4", (ops.Prepare("a"),)),
    "commit_renames_first": ("SNAP-FAULT-4", (ops.Prepare("a"), ops.Commit("b", "a"))),
    "descriptor_left": ("SNAP-FAULT-5", (ops.Prepare("a"), ops.Commit("b", "a"))),
}


@contextmanager
def opened(factory: broken_faults.Factory, directory: Path) -> Iterator[FaultSession]:
    """A session with the driver, on a file system in memory."""
    for place in ("mnt", "store"):
        (directory / place).mkdir(parents=True)
    into_memory(directory / "store")
    with watched(), asyncio.Runner() as runner:
        subject = PythonSubject("py:", Contents(directory / "mnt"), directory / "store", factory, factory.profile)
        session = FaultSession(subject, runner)
        with session.started():
            yield session


def search(session: FaultSession, directory: Path) -> FaultSearch:
    return FaultSearch(session, Limits(permits(str(directory))), time.monotonic() + 60, lambda: None, first=True)


def expect(found: Finding | None, clause: str, session: FaultSession, workdir: Path) -> None:
    """It is found by the clause, shortly, with one fault; from its file it shows the same again, and on the reference nothing."""
    assert found is not None
    print("\n".join(finding_lines(found)))
    assert clause in [mismatch.clause for mismatch in found.mismatches]
    assert len(found.calls) <= 6
    assert sum(isinstance(step.op, Faulted) for step in found.calls) == 1, "one fault is enough"
    save(workdir / "f.json", found, "py:")
    saved = load(workdir / "f.json")
    assert saved == found
    session.aside = frozenset()  # what was found is looked for again
    again = replay(session, saved.steps)
    assert again is not None
    assert again.clause == found.clause
    with opened(broken_faults.Factory(OverlaySnapshotter), workdir / "right") as right:
        assert replay(right, saved.steps) is None


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_error_path_is_found(name: str, workdir: Path) -> None:
    clause, calls = BROKEN[name]
    with opened(getattr(broken_faults, name), workdir / "driver") as session:
        seeking = search(session, workdir)
        assert seeking.show(every_fault(session, calls, len(calls) - 1, lambda: True))
        seeking.settle()
        expect(seeking.best, clause, session, workdir)


@pytest.mark.deep
@pytest.mark.parametrize("name", BROKEN)
def test_the_histories_of_a_run_find_it(name: str, workdir: Path) -> None:
    with opened(getattr(broken_faults, name), workdir / "driver") as session:
        seeking = search(session, workdir)
        seeking.run_scenarios()
        seeking.settle()
        expect(seeking.best, BROKEN[name][0], session, workdir)


def test_drawn_histories_find_it_too(workdir: Path) -> None:
    with opened(broken_faults.transaction_left_open, workdir / "driver") as session:
        seeking = search(session, workdir)
        seeking.run_batch(25, 1)
        assert seeking.best is not None
        assert any(isinstance(step.op, Faulted) for step in seeking.best.steps)


def test_the_command_finds_it_and_replays_it(workdir: Path) -> None:
    out = workdir / "report"
    run = command("check", "py:broken_faults:record_kept", "--level", "faults", "--seed", "1", "--first", "--out", str(out))
    assert run.returncode == 1, run.stdout + run.stderr
    assert "[SNAP-FAULT-4]" in run.stdout
    assert "prepare('a') [" in run.stdout
    again = command("replay", str(saved(out)), "py:broken_faults:record_kept")
    assert again.returncode == 1, again.stdout + again.stderr
    assert "[SNAP-FAULT-4]" in again.stdout
    assert command("replay", str(saved(out)), "ref:overlay?plain=yes").returncode == 0
