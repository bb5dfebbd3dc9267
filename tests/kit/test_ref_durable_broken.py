"""Managers that lose or leave something when their process or the machine ends: each is found in three ways, shown shortly."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import broken_durable_refs
import pytest
from broken_durable_refs import LOSSY, Lossy
from killed_refs import killed
from ref_sessions import in_memory
from test_gated_refs import chance
from test_power import requires_recorder

from snapspec.conformance.draw import Limits
from snapspec.conformance.durable import ref_power
from snapspec.conformance.durable.place import place
from snapspec.conformance.durable.ref_kill import make_once
from snapspec.conformance.durable.ref_kills import RefKillSearch
from snapspec.conformance.files import permits
from snapspec.conformance.ref_history import RefFinding, length
from snapspec.conformance.ref_scenarios import Scenario
from snapspec.conformance.ref_search import RefSearch, play_scenario
from snapspec.conformance.ref_session import RefDivergence
from snapspec.conformance.report.text import finding_lines
from snapspec.conformance.schedule import Budget
from snapspec.model import ref_ops

pytestmark = pytest.mark.root

LOSSY_NAMES = [lossy.name for lossy in LOSSY]

#: The moments at which a call is cut short, in microseconds: near and far by turns.
MOMENTS = [number * 2_617 % 9_001 for number in range(200)]

#: The others take longer to be found.
QUICK_KILLS = ("memory ahead of disk", "metadata written before its snapshot")
QUICK_CUTS = ("metadata written before its snapshot",)


@pytest.fixture(autouse=True)
def _quietly() -> Iterator[None]:
    """What the manager logs of what it meets is not for here."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def shows(lossy: Lossy, found: RefFinding | None, capsys: pytest.CaptureFixture[str]) -> None:
    """It is found, by one of its clauses, and its history is no longer than the calls that it needs."""
    assert found is not None, f"{lossy.name} is not found"
    with capsys.disabled():
        print(f"\n{lossy.name}\n" + "\n".join(finding_lines(found)))
    assert {m.clause for m in found.mismatches} & set(lossy.clauses), found.mismatches
    assert length(found.bursts) <= len(lossy.calls) + 2


def deep_besides(quick: tuple[str, ...]) -> list[object]:
    """All of them, of which only the `quick` ones are tested each time."""
    return [pytest.param(one, id=one.name, marks=() if one.name in quick else pytest.mark.deep) for one in LOSSY]


def opens(lossy: Lossy) -> tuple[str, str]:
    """The module and the name that a process knows it by."""
    (name,) = [name for name, value in vars(broken_durable_refs).items() if value is lossy]
    return "broken_durable_refs", f"{name}.open"


# --- crashes at the gates


@pytest.mark.parametrize("lossy", LOSSY, ids=LOSSY_NAMES)
def test_a_crash_at_a_gate_finds_it(lossy: Lossy, capsys: pytest.CaptureFixture[str]) -> None:
    session = in_memory(lossy.open)
    search = RefSearch(session, Limits(frozenset()), time.monotonic() + 60, lambda: None, first=True)
    scenario = Scenario(lossy.name, lossy.calls[:-1], (*lossy.calls[-1:], ref_ops.New("n", "hn")))
    for seed in range(200):
        try:
            play_scenario(session, scenario, Budget(crash=True), chance(seed))
        except RefDivergence as diverged:
            session.clear()
            search.found(diverged.finding)
            break
    search.settle()
    shows(lossy, search.best, capsys)


# --- kills


def found_by_kills(lossy: Lossy, directory: Path) -> RefFinding | None:
    """What the first kill shows that comes at a moment at which it matters."""
    *before, last = lossy.bursts
    with killed(directory, "overlay", opens(lossy)) as session:
        for moment in MOMENTS:
            found = make_once(session, (*before, replace(last, kill=moment)))
            if found is not None:
                return found
    return None


@pytest.mark.parametrize("lossy", deep_besides(QUICK_KILLS))
def test_a_kill_finds_it(lossy: Lossy, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shows(lossy, found_by_kills(lossy, workdir), capsys)


@pytest.mark.deep
@pytest.mark.parametrize("lossy", LOSSY, ids=LOSSY_NAMES)
def test_a_drawn_run_with_kills_finds_it_and_makes_it_short(
    lossy: Lossy, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with killed(workdir, "copy", opens(lossy)) as session:
        search = RefKillSearch(session, Limits(permits(str(workdir))), time.monotonic() + 60, lambda: None, first=True)
        search.run_scenarios()
        for number in range(10):
            if search.wanted():
                search.run_batch(25, number)
        assert search.best is not None
        found = search.shortest(search.best, lambda: time.monotonic() < search.until)
    with capsys.disabled():
        print(f"\n{lossy.name}, {session.restarts} kills\n" + "\n".join(finding_lines(found)))


# --- power cuts


@requires_recorder
@pytest.mark.parametrize("lossy", deep_besides(QUICK_CUTS))
def test_a_power_cut_finds_it(lossy: Lossy, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with place(workdir) as here:
        shows(lossy, ref_power.try_last(here, lossy.bursts, lossy.open), capsys)


@requires_recorder
@pytest.mark.deep
@pytest.mark.parametrize("lossy", LOSSY, ids=LOSSY_NAMES)
def test_a_drawn_run_with_power_cuts_finds_it_and_makes_it_short(
    lossy: Lossy, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with place(workdir) as here:
        done = ref_power.run(here, 2_000, 1, lossy.open, until=time.monotonic() + 60)
    assert done.found is not None, done.text()
    with capsys.disabled():
        print(f"\n{lossy.name}: {done.text()}\n" + "\n".join(finding_lines(done.found)))
