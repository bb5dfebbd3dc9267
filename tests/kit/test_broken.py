"""Small broken drivers are found, each by the clause that it breaks and by a short history."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import broken
import pytest

from snapspec.conformance.contents import Contents
from snapspec.conformance.draw import Limits
from snapspec.conformance.files import permits
from snapspec.conformance.history import Finding, line
from snapspec.conformance.search import Search, run_batch, run_scenarios
from snapspec.conformance.session import Session
from snapspec.conformance.subjects.python import PythonSubject

pytestmark = pytest.mark.root

#: Broken drivers that are found at once, each with the clause that its finding names.
SOON = {
    "key_before_parent": "SNAP-PREPARE-2",
    "key_stays_taken": "SNAP-FAIL-1",
    "shared_upper": "SNAP-MOUNTS-8",
    "returned_list_grows": "SNAP-HOLD-1",
    "commit_takes_views": "SNAP-COMMIT-4",
    "commit_keeps_labels": "SNAP-LABEL-1",
    "lower_dropped": "SNAP-MOUNTS-6",
    "usage_of_the_chain": "SNAP-USAGE-5",
    "update_merges": "SNAP-LABEL-1",
    "mask_ignored": "SNAP-LABEL-1",
    "writable_views": "SNAP-MOUNTS-8",
}
#: The same, where the search or the shortening takes longer.
LATER = {
    "copy_of_links": "SNAP-CONTENT-1",
    "commit_keeps_created": "SNAP-TIME-1",
    "commit_to_its_own_key": "SNAP-COMMIT-2",
    "remove_over_views": "SNAP-REMOVE-2",
    "committed_has_mounts": "SNAP-MOUNTS-2",
    "later_list_differs": "SNAP-MOUNTS-3",
    "lowers_reversed": "SNAP-CONTENT-1",
    "usage_of_views": "SNAP-USAGE-2",
    "reopen_loses_views": "SNAP-OPEN-1",
}


@contextmanager
def searched(name: str, workdir: Path, deadline: float = 20.0) -> Iterator[Search]:
    """A search of the broken driver `name`, opened in the test's directory."""
    for place in ("mnt", "store"):
        (workdir / place).mkdir()
    factory = getattr(broken, name)
    subject = PythonSubject(f"py:broken:{name}", Contents(workdir / "mnt"), workdir / "store", factory, factory.profile)
    with asyncio.Runner() as runner:
        session = Session(subject, runner, deadline)
        runner.run(subject.start())
        try:
            yield Search(session, Limits(permits(str(workdir))), time.monotonic() + 60, lambda: None)
        finally:
            if not session.stuck:
                runner.run(subject.stop())


def found(search: Search) -> Finding | None:
    """What the scenarios and up to eight batches find, made as short as it gets."""
    run_scenarios(search)
    for number in range(8):
        if search.best is None:
            run_batch(search, 25, number)
    search.shorten()
    return search.best


def expect(name: str, clause: str, workdir: Path) -> None:
    with searched(name, workdir) as search:
        finding = found(search)
    assert finding is not None, f"{name} was not found in {search.session.histories} histories"
    assert clause in [mismatch.clause for mismatch in finding.mismatches]
    assert len(finding.calls) <= 8, [line(step) for step in finding.calls]


@pytest.mark.parametrize(("name", "clause"), SOON.items())
def test_a_broken_driver_is_found(name: str, clause: str, workdir: Path) -> None:
    expect(name, clause, workdir)


@pytest.mark.deep
@pytest.mark.parametrize(("name", "clause"), LATER.items())
def test_a_broken_driver_is_found_later(name: str, clause: str, workdir: Path) -> None:
    expect(name, clause, workdir)


def test_every_broken_driver_is_among_these() -> None:
    made = {name for name, value in vars(broken).items() if isinstance(value, broken.Factory)}
    assert made == {*SOON, *LATER, "lock_left"}


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


def test_a_lock_that_is_left_shows_in_the_next_write(workdir: Path) -> None:
    """The whole way: found, cut short although each try hangs, saved; replayed on the same driver and on a right one."""
    out = workdir / "finding.json"
    check = command("check", "py:broken:lock_left", "--seed", "1", "--deadline", "2s", "--examples", "20", "--out", str(out))
    assert (check.returncode, check.stderr) == (1, "")
    assert "DIVERGES from SNAP-LIVE-1, with 2 calls" in check.stdout
    assert "came     none: nothing came within 2 s" in check.stdout
    assert json.loads(out.read_text())["clause"] == "SNAP-LIVE-1"
    again = command("replay", str(out), "py:broken:lock_left", "--deadline", "2s")
    assert again.returncode == 1, again.stderr
    assert "DIVERGES from SNAP-LIVE-1" in again.stdout
    right = command("replay", str(out), "ref:overlay")
    assert (right.returncode, right.stderr) == (0, "")
    assert "is allowed now" in right.stdout


def test_the_same_seed_draws_the_same_histories(workdir: Path) -> None:
    runs = [command("check", "model:", "--seed", "5", "--examples", "20").stdout.splitlines()[-1] for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0].startswith("CONFORMS: model:: ")
    other = command("check", "model:", "--seed", "6", "--examples", "20").stdout.splitlines()[-1]
    assert other != runs[0]
