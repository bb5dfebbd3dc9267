"""The exhibits that are drivers: each is found, by a clause that it breaks and by a short history that the reference allows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapspec.conformance.draw import Limits
from snapspec.conformance.files import permits
from snapspec.conformance.history import Finding, line
from snapspec.conformance.machine import Answer, Surroundings
from snapspec.conformance.mutants import Exhibit, museum
from snapspec.conformance.mutants.drivers import DRIVERS
from snapspec.conformance.search import Search
from snapspec.conformance.session import Session, replay
from snapspec.conformance.subjects.address import make, parse
from snapspec.conformance.workspace import Workspace

pytestmark = pytest.mark.root

#: Those that no process can go on with: they hold a call that does not end, or do not open again.
STUCK = ("s01", "s02", "s27a", "s27b")

#: Those whose history takes longer to find or to make short.
LATER = ("s06", "s13b", "s13c", "s14", "s22a", "s22c", "s38b")

CORE = [exhibit for exhibit in DRIVERS if exhibit.level == "core"]

#: The fixture `clean_session` has seen to a mount namespace.
HERE = Surroundings("root", "the tests' own", Answer(True, "root"))


@contextmanager
def opened(address: str) -> Iterator[Session]:
    """A session with the subject of that address."""
    with Workspace.create() as workspace, asyncio.Runner() as runner:
        session = Session(make(parse(address), HERE, workspace), runner)  # type: ignore[arg-type]  # it is a driver
        runner.run(session.subject.start())
        try:
            yield session
        finally:
            session.stop()


@pytest.fixture(scope="module")
def right() -> Iterator[Session]:
    """A session with the reference as it is."""
    with opened("ref:overlay") as session:
        yield session


def found(session: Session, directory: Path, number: int) -> Finding | None:
    """What the quick scenarios find and the first batches, made as short as it gets."""
    search = Search(session, Limits(permits(str(directory))), time.monotonic() + 60, lambda: None, first=True)
    search.run_scenarios()
    for batch in range(4):
        if search.best is None:
            search.run_batch(25, number, batch)
    search.settle()
    return search.best


@pytest.mark.parametrize("exhibit", [e for e in CORE if e.name not in STUCK + LATER], ids=lambda exhibit: exhibit.name)
def test_an_exhibit_is_found(exhibit: Exhibit, workdir: Path, right: Session) -> None:
    expect(exhibit, workdir, right)


@pytest.mark.deep
@pytest.mark.parametrize("exhibit", [e for e in CORE if e.name in LATER], ids=lambda exhibit: exhibit.name)
def test_an_exhibit_is_found_later(exhibit: Exhibit, workdir: Path, right: Session) -> None:
    expect(exhibit, workdir, right)


def expect(exhibit: Exhibit, workdir: Path, right: Session) -> None:
    """It is found by a clause of its own, shortly; the reference answers that history as it should."""
    with opened(exhibit.address) as session:
        finding = found(session, workdir, 1)
    assert finding is not None
    assert finding.clause in exhibit.clauses, [line(step) for step in finding.steps]
    assert len(finding.calls) <= 8, [line(step) for step in finding.calls]
    assert replay(right, finding.steps) is None


@pytest.mark.deep
@pytest.mark.parametrize("exhibit", DRIVERS, ids=lambda exhibit: exhibit.name)
def test_a_visit_finds_it_in_time(exhibit: Exhibit) -> None:
    """As a user sees it, in a process of its own, from another seed."""
    seen = museum.visit(exhibit, 2, 60.0)
    assert seen.right, museum.line(seen)
    assert seen.length <= 8, museum.line(seen)
