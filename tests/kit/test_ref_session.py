"""Histories of refs as the kit draws them: the right manager passes, each broken one is found, and shortly."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from broken_refs import BROKEN, CANCELLED_WAITER, SIZE_RACE, Broken
from ref_sessions import in_memory, over_copies

from snapspec.conformance.draw import Limits
from snapspec.conformance.files import permits
from snapspec.conformance.history import load, save
from snapspec.conformance.ref_history import Burst, RefFinding, length
from snapspec.conformance.ref_scenarios import SCENARIOS
from snapspec.conformance.ref_search import DISTURBED, RefSearch, play_scenario, ref_smoke
from snapspec.conformance.ref_session import RefDivergence, RefSession, play_again
from snapspec.conformance.schedule import Budget, replay
from snapspec.impl.manager import Manager, open_manager
from snapspec.model import ref_ops
from snapspec.model.tree import MakeFile


@pytest.fixture(autouse=True)
def _quietly() -> Iterator[None]:
    """What the manager logs of the faults that it meets is not for here."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def search(session: RefSession, directory: Path) -> RefSearch:
    return RefSearch(session, Limits(permits(str(directory))), time.monotonic() + 60, lambda: None, first=True)


def by_chance(session: RefSession, seed: int) -> RefFinding:
    """What scenarios find that are drawn, with what disturbs them and with their schedules."""
    draw = random.Random(seed)
    for _ in range(3000):
        try:
            scenario, budget = draw.choice(SCENARIOS), draw.choice((Budget(), *DISTURBED))
            play_scenario(session, scenario, budget, lambda choices: draw.randrange(len(choices)))
        except RefDivergence as diverged:
            session.clear()
            return diverged.finding
    pytest.fail(f"nothing was found in {session.histories} histories")


def kept(finding: RefFinding, broken: Broken, directory: Path) -> RefFinding:
    """The finding as short as it gets; from its file it shows the same again, and on the right manager nothing."""
    session = in_memory(broken.open)
    looking = search(session, directory)
    looking.found(finding)
    looking.settle()
    save(directory / "f.json", looking.best, "refs:model:")
    saved = load(directory / "f.json")
    assert saved == looking.best
    assert isinstance(saved, RefFinding)
    session.aside = frozenset()  # what was found is looked for again
    again = play_again(session, saved)
    assert again is not None
    assert (again.clause, again.told) == (saved.clause, saved.told)
    assert play_again(in_memory(), saved) is None
    return saved


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("broken", [SIZE_RACE, CANCELLED_WAITER], ids=lambda broken: broken.name)
def test_the_faults_of_the_original_are_found_with_every_seed(broken: Broken, seed: int, tmp_path: Path) -> None:
    began, session = time.process_time(), in_memory(broken.open)
    finding = by_chance(session, seed)
    took = time.process_time() - began
    finding = kept(finding, broken, tmp_path)
    assert finding.clause.startswith(("REF-SIZE", "REF-USAGE"))
    assert length(finding.bursts) <= 12, finding.told
    print(f"{broken.name}, seed {seed}: {session.histories} histories, {took:.2f} s, shrunk to {length(finding.bursts)} steps")


@pytest.mark.deep
@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_every_broken_manager_is_found(broken: Broken, tmp_path: Path) -> None:
    looking = search(in_memory(broken.open), tmp_path)
    looking.run_scenarios(chance=1)
    assert looking.best is not None
    finding = kept(looking.best, broken, tmp_path)
    assert length(finding.bursts) <= 16, finding.told


def test_the_right_manager_passes(tmp_path: Path) -> None:
    session = in_memory()
    looking = search(session, tmp_path)
    looking.run_batch(25, 7)
    assert looking.best is None
    assert session.histories >= 25
    assert session.calls > 500
    assert {"REF-NEW-1", "REF-PRUNE-3", "REF-LEAK-1", "REF-CLOSE-2", "REF-PRUNE-4"} <= set(session.reached)


def test_the_same_seed_draws_the_same(tmp_path: Path) -> None:
    drawn = []
    for _ in range(2):
        session = in_memory()
        search(session, tmp_path).run_batch(10, 3)
        drawn.append((session.calls, session.reached))
    assert drawn[0] == drawn[1]


# --- over a real driver


PAIR = (ref_ops.New("m", "hm"), ref_ops.Write("hm", (MakeFile("f", b"x"),)), ref_ops.Commit("hm", "e", "he"))


def test_a_real_driver_under_gates_and_without_them(tmp_path: Path) -> None:
    with over_copies(tmp_path) as session:
        assert ref_smoke(session) is None
        (scenario,) = (s for s in SCENARIOS if s.name == "new over, release, prune")
        session.play_freely((*(Burst((op,)) for op in scenario.setup), Burst(scenario.calls)))
        looking = search(session, tmp_path)
        looking.run_batch(5, 1)
        assert looking.best is None
        assert {"REF-OPEN-5", "REF-PRUNE-4", "REF-LEAK-1"} <= set(session.reached)


def test_what_meets_inside_a_driver_is_found_and_played_again(tmp_path: Path) -> None:
    (broken,) = (b for b in BROKEN if b.name == "prune takes a claimed record")
    with over_copies(tmp_path, broken.open) as session:
        finding = None
        for _ in range(50):
            try:
                calls = (ref_ops.New("n", "hn", "he"), ref_ops.Release("he"), ref_ops.Prune())
                session.play_freely((*(Burst((op,)) for op in PAIR), Burst(calls)))
            except RefDivergence as diverged:
                finding = diverged.finding
                session.clear()
                break
        assert finding is not None
        assert finding.free
        again = play_again(session, finding)
        assert again is not None
        assert again.free


def test_a_neighbour_that_is_taken_is_missed(tmp_path: Path) -> None:
    with over_copies(tmp_path) as session:
        session.begin()
        session.outside(session.world.ground.driver.remove("neighbour"))
        with pytest.raises(RefDivergence, match="REF-PRUNE-4"):
            session.end()
        session.clear()


def test_what_is_left_in_the_driver_is_found(tmp_path: Path) -> None:
    with over_copies(tmp_path) as session:
        session.begin()
        session.outside(session.world.ground.driver.prepare("left"))
        with pytest.raises(RefDivergence, match="REF-LEAK-1"):
            session.end()
        session.clear()
        session.begin()
        session.outside(session.world.ground.driver.prepare("left"))
        with pytest.raises(RefDivergence, match="REF-OPEN-5"):
            session.play((ref_ops.Restart(),), Budget(), replay(()))
        session.clear()


def test_a_second_manager_that_opens_is_found(tmp_path: Path) -> None:
    async def careless(driver: object, store: object, **options: object) -> Manager:
        from snapspec.impl import manager

        manager._managed.clear()
        return await open_manager(driver, store, **options)  # type: ignore[arg-type]  # they are what it takes

    session = in_memory(careless)
    session.begin()
    with pytest.raises(RefDivergence, match="REF-CLOSE-2"):
        session.end()
    session.clear()


def test_two_calls_that_give_one_handle_are_found(tmp_path: Path) -> None:
    session = in_memory()
    session.begin()
    for op in PAIR:
        session.play((op,), Budget(), replay(()))
    session.world.adapter.handles["other"] = session.world.adapter.handles["he"]
    with pytest.raises(RefDivergence, match="REF-HANDLE-1"):
        session.play((ref_ops.DiskUsage(),), Budget(), replay(()))
    session.clear()
