"""Managers behind gates: every schedule of the written scenarios, with and without disturbances, and what the kit must find."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from broken_refs import BROKEN, Broken
from ref_sessions import in_memory, over_copies

from snapspec.conformance import ref_watch
from snapspec.conformance.memory import Disk, MemorySnapshotter, MemoryStore
from snapspec.conformance.ref_scenarios import FIVE_CALLS, SCENARIOS, Scenario
from snapspec.conformance.ref_search import play_scenario
from snapspec.conformance.ref_session import RefDivergence, RefSession
from snapspec.conformance.refs_subject import RefsAdapter
from snapspec.conformance.schedule import Budget, Choice, Choose, disturb_each, explore, explore_strikes, replay
from snapspec.impl.manager import Manager, open_manager
from snapspec.model import ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_replies import GotHandle, GotPruned, GotRows, GotSize, GotWords, RefFailed, RefReturned
from snapspec.model.refs import RefError, Row
from snapspec.model.tree import MakeFile, Tree
from snapspec.model.values import Mount

FILE = (MakeFile("f", b"x" * 600),)

#: What a layer of the scenarios holds, and an empty one.
FULL, EMPTY = 512, 0

BUDGETS = {
    "plain": Budget(),
    "a fault": Budget(faults=1),
    "a cancellation": Budget(cancels=1),
    "a held answer": Budget(holds=1),
    "a crash": Budget(crash=True),
}
EVERYTHING = Budget(faults=1, cancels=1, holds=1, crash=True)

#: Of those with more schedules than this the disturbed ones are run at level faults: `make deep` does.
SMALL = 20


def once(scenario: Scenario, budget: Budget, open_with: Callable[..., Any] = open_manager) -> Callable[[Choose], RefSession]:
    """One run of the scenario, held against the oracle."""
    session = in_memory(open_with)

    def run(choose: Choose) -> RefSession:
        try:
            play_scenario(session, scenario, budget, choose)
        except BaseException:
            session.clear()
            raise
        return session

    return run


def chance(seed: object) -> Choose:
    """Choices as they come, the same for a seed."""
    draw = random.Random(str(seed))
    return lambda choices: draw.randrange(len(choices))


@pytest.fixture(autouse=True)
def _quietly() -> Iterator[None]:
    """What the manager logs of the faults that it meets is not for here."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def named(name: str) -> Scenario:
    (scenario,) = (s for s in SCENARIOS if s.name == name)
    return scenario


# --- every schedule


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_every_schedule(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    """The oracle allows what comes, nobody waits for ever, and nothing is left: in any order, and with any one disturbance."""
    counts = {"plain": explore(once(scenario, Budget()))}
    if counts["plain"] <= SMALL:
        counts |= {name: explore(once(scenario, budget)) for name, budget in BUDGETS.items() if name != "plain"}
    with capsys.disabled():
        print(f"\n  {scenario.name}: " + ", ".join(f"{count} {name}" for name, count in counts.items()), end="")
    assert counts["plain"] > 1
    assert all(count > counts["plain"] for name, count in counts.items() if name != "plain")


#: Where a prune of all that is idle meets a fault in the simplest schedule, two records being there.
FAULTS_OF_A_PRUNE = {
    "prune: fail before driver remove",
    "prune: fail after driver remove",
    "prune: fail before store write",
    "prune: fail after store write",
}


def test_a_scenario_is_disturbed_once_at_each_point() -> None:
    """Of the simplest schedule: each run but the last is disturbed, by one thing, and no two by the same at the same point."""
    alone = Scenario("prune", named("prune, prune").setup, (ref_ops.Prune(),))
    session, told, counts = in_memory(), [], []

    def run(choose: Choose) -> None:
        before = session.disturbed.total()
        play_scenario(session, alone, Budget(faults=1), choose)
        counts.append(session.disturbed.total() - before)
        told.append(tuple(session.told()))

    points = disturb_each(run)
    assert counts == [1] * points + [0]
    assert len(set(told)) == points + 1
    assert set(session.disturbed) == FAULTS_OF_A_PRUNE
    # Two snapshots, of each the mark, the removal and the forgetting, each failing before its effect and after it.
    assert points == session.disturbed.total() == 2 * 3 * 2


@pytest.mark.deep
@pytest.mark.parametrize("scenario", FIVE_CALLS, ids=lambda s: s.name)
def test_every_schedule_of_five_calls(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    count = explore(once(scenario, Budget()))
    with capsys.disabled():
        print(f"\n  {scenario.name}: {count}", end="")
    assert count > 500
    run, choose = once(scenario, EVERYTHING), chance(scenario.name)
    for _ in range(3000):
        run(choose)


def strike_all(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> int:
    """Run every schedule with a cancellation after every number of callbacks, and print how many there are."""
    count = explore_strikes(lambda choose, at: once(scenario, Budget(cancel_at=at))(choose).run)
    with capsys.disabled():
        print(f"\n  {scenario.name}: {count} with a cancellation in the middle", end="")
    return count


STRUCK = ("commit, get, get_mutable", "finalize, finalize, release", "get, get_mutable, prune")


@pytest.mark.parametrize("name", STRUCK)
def test_a_cancellation_after_any_callback(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert strike_all(named(name), capsys) > 100


@pytest.mark.deep
@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if s.name not in STRUCK], ids=lambda s: s.name)
def test_a_cancellation_after_any_callback_of_the_others(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    assert strike_all(scenario, capsys) > 1


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_schedules_with_everything_at_once_by_chance(scenario: Scenario) -> None:
    for seed in range(10):
        once(scenario, EVERYTHING)(chance(seed))


def test_a_run_replays_from_its_choices() -> None:
    for scenario in SCENARIOS[:6]:
        first = once(scenario, EVERYTHING)(chance(scenario.name))
        assert once(scenario, EVERYTHING)(replay(first.run.chosen)).told() == first.told()


def test_what_was_worked_out_is_forgotten_when_it_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ref_watch, "KEPT", 5)
    count = explore(once(named("commit, get, get_mutable"), Budget(cancels=1)))
    monkeypatch.undo()
    assert count == explore(once(named("commit, get, get_mutable"), Budget(cancels=1)))


# --- what must be found


def failure(run: Callable[[Choose], object], choose: Choose) -> RefDivergence | None:
    """What goes wrong with these choices."""
    try:
        run(choose)
    except RefDivergence as diverged:
        return diverged
    return None


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_every_schedule_of_a_broken_manager_finds_its_fault(broken: Broken) -> None:
    found: list[RefDivergence] = []

    def stops(choose: Choose) -> None:
        error = failure(once(named(broken.scenario), broken.budget, broken.open), choose)
        if error is not None:
            found.append(error)
            raise error

    with pytest.raises(RefDivergence):
        explore(stops)
    assert found[0].finding.clause in broken.clauses, found[0].finding


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_a_broken_manager_is_found_by_chance_too(broken: Broken) -> None:
    run, choose = once(named(broken.scenario), broken.budget, broken.open), chance(broken.name)
    found = [failure(run, choose) for _ in range(60)]
    clauses = {error.finding.clause for error in found if error is not None}
    assert clauses & set(broken.clauses)


# --- the adapter


def adapter() -> tuple[RefsAdapter, Disk]:
    driver, disk = MemorySnapshotter(), Disk()

    async def opened(new_id: Callable[[], str]) -> Manager:
        return await open_manager(driver, MemoryStore(disk), new_id=new_id)

    return RefsAdapter(opened, driver), disk


def answers(*ops: RefOperation) -> list[object]:
    """What the calls answer, one after the other, on an ordinary event loop: values, and classes of errors."""

    async def work() -> list[object]:
        subject, _ = adapter()
        await subject.start()
        responses = [await subject.perform(op) for op in ops]
        return [r.value if isinstance(r, RefReturned) else r.error for r in responses]

    return asyncio.run(work())


def test_every_operation_is_a_call_of_the_manager() -> None:
    given = answers(
        ref_ops.New("m", "hm"),
        ref_ops.Write("hm", (*FILE, *FILE)),
        ref_ops.Size("hm"),
        ref_ops.Commit("hm", "e", "he"),
        ref_ops.Finalize("he"),
        ref_ops.Get("e", "h2", "x"),
        ref_ops.New("c", "hc", "he"),
        ref_ops.Parent("hc", "hp"),
        ref_ops.Parent("hp", "none"),
        ref_ops.DiskUsage(),
        ref_ops.Release("hc"),
        ref_ops.Release("hc"),
        ref_ops.GetMutable("c", "hc2"),
        ref_ops.Release("hc2"),
        ref_ops.Prune(),
        ref_ops.Close(),
    )
    rows = (Row("e", "", False, True, FULL), Row("c", "e", True, True, EMPTY))
    assert given == [
        GotHandle("m"),
        GotWords(("ok", "EEXIST")),
        GotSize(FULL),
        GotHandle("e"),
        None,
        GotHandle("e"),
        GotHandle("c"),
        GotHandle("e"),
        None,
        GotRows(rows),
        None,
        None,
        GotHandle("c"),
        None,
        GotPruned(((frozenset({"c"}), None),)),
        None,
    ]


def test_content_goes_through_the_lists_that_the_manager_gives() -> None:
    _, _, before, *_, after, refused, listed = answers(
        ref_ops.New("m", "hm"),
        ref_ops.Write("hm", FILE),
        ref_ops.Read("hm"),
        ref_ops.Commit("hm", "e", "he"),
        ref_ops.Read("he"),
        ref_ops.Write("he", FILE),
        ref_ops.Mount("he", readonly=True),
    )
    assert isinstance(before, Tree)
    assert before == after
    assert refused == GotWords(("EROFS",))
    assert isinstance(listed, tuple)
    assert all(isinstance(mount, Mount) and "rw" not in mount.options for mount in listed)


def test_content_is_read_through_the_list_that_the_handle_gave_last() -> None:
    async def work() -> None:
        driver = MemorySnapshotter()

        async def opened(new_id: Callable[[], str]) -> Manager:
            return await open_manager(driver, MemoryStore(Disk()), new_id=new_id)

        subject = RefsAdapter(opened, driver)
        await subject.start()
        for op in (ref_ops.New("m", "hm"), ref_ops.Write("hm", FILE), ref_ops.Commit("hm", "e", "he")):
            await subject.perform(op)
        await subject.perform(ref_ops.Mount("he", readonly=True))
        assert driver.key_of(subject.lists["he"]) == "m"
        await subject.perform(ref_ops.Mount("he", readonly=False))
        assert driver.key_of(subject.lists["he"]) == "view 1"
        await driver.remove("view 1")
        assert isinstance(await subject.perform(ref_ops.Read("he")), RefFailed)
        subject.crashed()
        assert subject.lists == {}

    asyncio.run(work())


def test_wrong_calls_are_refused_with_the_class_that_comes_first() -> None:
    pair = (ref_ops.New("m", "hm"), ref_ops.Commit("hm", "e", "he"), ref_ops.New("k", "hk"))
    invalid, closed = RefError.INVALID, RefError.CLOSED
    given = answers(
        *pair,
        ref_ops.Size("hm"),
        ref_ops.Size("never given"),
        ref_ops.Release("never given"),
        ref_ops.Finalize("hk"),
        ref_ops.Commit("he", "x", "y"),
        ref_ops.New("z", "hz", "hk"),
        ref_ops.New("z", "hz", "never given"),
        ref_ops.Get("absent", "z", "x"),
        ref_ops.Get("k", "z", "x"),
        ref_ops.GetMutable("e", "z"),
        ref_ops.Close(),
        ref_ops.Commit("he", "x", "y"),
        ref_ops.Size("hm"),
        ref_ops.DiskUsage(),
    )
    assert given[len(pair) :] == [
        *(invalid, invalid, None, invalid, invalid, invalid, invalid),
        *(RefError.NOT_FOUND, RefError.LOCKED, invalid, None, closed, closed, closed),
    ]


def test_handles_of_an_earlier_manager_are_not_open() -> None:
    given = answers(
        ref_ops.New("m", "hm"),
        ref_ops.Commit("hm", "e", "he"),
        ref_ops.Restart(),
        ref_ops.Size("he"),
        ref_ops.New("c", "hc", "he"),
        ref_ops.Release("he"),
        ref_ops.Get("e", "again", "x"),
        ref_ops.Size("again"),
    )
    assert given[3:] == [RefError.INVALID, RefError.INVALID, None, GotHandle("e"), GotSize(EMPTY)]


def test_ids_come_from_the_calls_that_make_records_whatever_task_makes_them() -> None:
    seen: list[str] = []

    async def opened(new_id: Callable[[], str]) -> Manager:
        def recorded() -> str:
            seen.append(new_id())
            return seen[-1]

        return await open_manager(driver, MemoryStore(Disk()), new_id=recorded)

    async def work() -> None:
        subject = RefsAdapter(opened, driver)
        await subject.start()
        made = [ref_ops.New(f"record {n}", f"handle {n}") for n in range(5)]
        assert await asyncio.gather(*(asyncio.create_task(subject.perform(op)) for op in made)) == [
            RefReturned(GotHandle(op.record)) for op in made
        ]
        await subject.perform(ref_ops.Commit("handle 1", "fresh", "given"))
        await subject.perform(ref_ops.Mount("given", readonly=False))

    driver = MemorySnapshotter()
    asyncio.run(work())
    assert sorted(seen) == ["fresh", *(f"record {n}" for n in range(5)), "view 1"]


def test_the_choices_of_a_scenario_reach_every_port_call_of_its_calls() -> None:
    """The gates that fault and cancellation are offered at, over all schedules: none is passed by."""
    offered: Counter[str] = Counter()

    def counted(choose: Choose) -> Choose:
        def counting(choices: Sequence[Choice]) -> int:
            offered.update({f"{c.what.value} {c.gate.name}" for c in choices if c.gate is not None})
            return choose(choices)

        return counting

    scenario = named("finalize, mount for writing, release")
    alone = replace(scenario, calls=scenario.calls[1:2])
    explore(lambda choose: once(alone, Budget(faults=2))(counted(choose)))
    changes = ("commit", "view", "remove", "write")
    assert {f"fail before {name}" for name in (*changes, "mounts", "stat", "read")} - {"fail before mounts"} <= set(offered)
    assert {f"fail after {name}" for name in changes} <= set(offered)
    assert not {f"fail after {name}" for name in ("mounts", "stat", "usage", "read")} & set(offered)


# --- over what is real


@pytest.mark.root
def test_schedules_drive_the_manager_over_a_real_driver_and_a_real_store(workdir: Path) -> None:
    small = named("finalize, finalize, release")
    with over_copies(workdir) as session:
        assert explore(lambda choose: play_scenario(session, small, Budget(), choose)) == explore(once(small, Budget()))
        for name in ("size, size, finalize", "finalize, mount for writing, release", "new over, release, prune"):
            choose = chance(name)
            for _ in range(4):
                play_scenario(session, named(name), EVERYTHING, choose)
        assert session.histories > 30
