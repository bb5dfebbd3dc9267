"""Small broken drivers are found, each by the clause that it breaks and by a short history."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import broken
import pytest
from verdicts import saved

from snapspec.conformance.contents import Contents
from snapspec.conformance.draw import Limits
from snapspec.conformance.files import permits
from snapspec.conformance.history import Finding, line, load, save
from snapspec.conformance.search import Search
from snapspec.conformance.session import Session, replay
from snapspec.conformance.subjects.abstract import ModelSubject
from snapspec.conformance.subjects.python import PythonSubject
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.model.state import Profile

pytestmark = pytest.mark.root

#: Broken drivers that are found at once, each with the clause that its finding names.
SOON = {
    "key_before_parent": "SNAP-PREPARE-2",
    "key_stays_taken": "SNAP-FAIL-1",
    "shared_upper": "SNAP-MOUNTS-8",
    "returned_list_grows": "SNAP-HOLD-1",
    "commit_to_its_own_key": "SNAP-COMMIT-2",
}
#: The same, where the search or the shortening takes longer.
LATER = {
    "reopen_loses_views": "SNAP-OPEN-1",
    "copy_of_links": "SNAP-CONTENT-1",
}


@contextmanager
def opened(factory: broken.Factory, directory: Path) -> Iterator[Session]:
    """A session with the driver, on a pool below the directory."""
    for place in ("mnt", "store"):
        (directory / place).mkdir(parents=True)
    subject = PythonSubject("py:", Contents(directory / "mnt"), directory / "store", factory, factory.profile)
    with asyncio.Runner() as runner:
        session = Session(subject, runner)
        with session.started():
            yield session


@pytest.fixture(scope="module")
def right(clean_session: Path) -> Iterator[Session]:
    """A session with the reference as it is."""
    directory = Path(tempfile.mkdtemp(dir=clean_session))
    with opened(broken.Factory(OverlaySnapshotter), directory) as session:
        yield session


def found(search: Search) -> Finding | None:
    """What up to eight batches and the scenarios find, made as short as it gets."""
    for number in range(8):
        if number == 1:  # they take longer than a batch
            search.run_scenarios()
        if search.best is None:
            search.run_batch(25, number)
    search.settle()
    return search.best


def expect(name: str, clause: str, workdir: Path, right: Session) -> None:
    """It is found, shortly and by the clause; from its file the history shows the same again, and on the reference nothing."""
    with opened(getattr(broken, name), workdir / "driver") as session:
        finding = found(Search(session, Limits(permits(str(workdir))), time.monotonic() + 60, lambda: None, first=True))
        assert finding is not None, f"{name} was not found in {session.histories} histories"
        assert clause in [mismatch.clause for mismatch in finding.mismatches]
        assert len(finding.calls) <= 8, [line(step) for step in finding.calls]
        save(workdir / "f.json", finding, f"py:broken:{name}")
        saved = load(workdir / "f.json")
        assert saved == finding
        session.aside = frozenset()  # what was found is looked for again
        again = replay(session, saved.steps)
        assert again is not None
        assert (again.clause, len(again.calls)) == (finding.clause, len(finding.calls))
    assert replay(right, saved.steps) is None


@pytest.mark.parametrize(("name", "clause"), SOON.items())
def test_a_broken_driver_is_found(name: str, clause: str, workdir: Path, right: Session) -> None:
    expect(name, clause, workdir, right)


@pytest.mark.deep
@pytest.mark.parametrize(("name", "clause"), LATER.items())
def test_a_broken_driver_is_found_later(name: str, clause: str, workdir: Path, right: Session) -> None:
    expect(name, clause, workdir, right)


def test_every_broken_driver_is_among_these() -> None:
    made = {name for name, value in vars(broken).items() if isinstance(value, broken.Factory)}
    assert made == {*SOON, *LATER}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`snapspec` in a process of its own, which finds the broken drivers."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.run(
        [sys.executable, "-m", "snapspec.conformance", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("subject", ["mutant:s01", pytest.param("py:broken:plain_lock_left", marks=pytest.mark.deep)])
def test_a_lock_that_is_left_shows_in_the_next_write(subject: str, workdir: Path) -> None:
    """The whole way: found, cut short although each try hangs, saved; replayed on the same driver and on a right one.

    The other driver hangs in a thread, and also when it is cleared up after.
    """
    options = ("--jobs", "1", "--seed", "1", "--deadline", "1s", "--examples", "20", "--first", "--out", str(workdir))
    check = command("check", subject, *options)
    assert (check.returncode, check.stderr) == (1, "")
    out = saved(workdir)
    assert "DIVERGES from SNAP-LIVE-1, with 2 calls" in check.stdout
    assert "came     none: nothing came within 1 s" in check.stdout
    assert json.loads(out.read_text())["clause"] == "SNAP-LIVE-1"
    again = command("replay", str(out), subject, "--deadline", "1s")
    assert again.returncode == 1, again.stderr
    assert "DIVERGES from SNAP-LIVE-1" in again.stdout
    right = command("replay", str(out), "ref:overlay")
    assert (right.returncode, right.stderr) == (0, "")
    assert "is allowed now" in right.stdout


def test_the_same_seed_finds_the_same(workdir: Path) -> None:
    histories = []
    for number in range(2):
        with opened(broken.commit_to_its_own_key, workdir / str(number)) as session:
            finding = found(Search(session, Limits(permits(str(workdir))), time.monotonic() + 60, lambda: None, first=True))
        assert finding is not None
        histories.append([step.op for step in finding.steps])
    assert histories[0] == histories[1]


def test_one_seed_draws_the_same_histories_and_another_one_others(workdir: Path) -> None:
    made = []
    for number in (5, 5, 6):
        with asyncio.Runner() as runner:
            session = Session(ModelSubject("model:", Profile()), runner)
            with session.started():
                search = Search(session, Limits(permits(str(workdir))), time.monotonic() + 60, lambda: None)
                search.run_batch(5, number)
                made.append((session.calls, [step.op for step in session.steps]))
    assert made[0] == made[1]
    assert made[0] != made[2]


@pytest.mark.deep
def test_the_same_seed_makes_the_same_run(workdir: Path) -> None:
    runs = [command("check", "model:", "--seed", "5", "--examples", "4").stdout.splitlines()[-1] for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0].startswith("NOT DECIDED: model:: ")
    other = command("check", "model:", "--seed", "6", "--examples", "4").stdout.splitlines()[-1]
    assert other != runs[0]
