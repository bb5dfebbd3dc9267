"""Gates and schedules: each verdict is what it says, every interleaving is found once, what waits for ever is found at all."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import pytest
import runs
from hypothesis import find, settings
from hypothesis import strategies as st

from snapspec.conformance.gates import CALL, GatedSnapshotter, GatedStore, Gates, Verdict, beside
from snapspec.conformance.loop import gated_loop
from snapspec.conformance.memory import Disk, MemorySnapshotter, MemoryStore
from snapspec.conformance.schedule import (
    CANCELLED,
    Budget,
    Cancelled,
    Choice,
    Choose,
    Forked,
    Move,
    Run,
    Unsound,
    explore,
    replay,
    spelled,
)
from snapspec.impl.errors import NotFound, SnapshotError
from snapspec.impl.metadata import Store
from snapspec.impl.ports import Snapshotter
from snapspec.impl.ref_errors import Closed, Locked, StoreError
from snapspec.model.tree import MakeFile
from snapspec.model.values import ErrorClass, Info, Kind, Usage

# --- one gate


class One:
    """A driver and a store behind gates, and one task that calls them."""

    def __init__(self) -> None:
        self.loop = gated_loop()
        self.gates = Gates(self.loop)
        self.driver = MemorySnapshotter()
        self.disk = Disk()
        self.gated = GatedSnapshotter(self.gates, self.driver)
        self.store = GatedStore(self.gates, MemoryStore(self.disk))

    def call(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """The task that makes the call, which is at its gate by now."""

        async def waiting() -> Any:
            return await work

        task = self.loop.create_task(waiting())
        self.rest()
        return task

    def decide(self, verdict: Verdict) -> None:
        (gate,) = self.gates.waiting
        self.gates.decide(gate, verdict)
        self.rest()

    def rest(self) -> None:
        with self.loop.running():
            self.loop.run_until_quiet()

    @property
    def keys(self) -> list[str]:
        return list(self.driver.state.snapshots)


def test_go_is_the_effect_and_the_answer() -> None:
    one = One()
    task = one.call(one.gated.prepare("a"))
    assert (one.keys, task.done(), [str(g) for g in one.gates.waiting]) == ([], False, ["driver prepare('a', '') for call 0"])
    one.decide(Verdict.GO)
    assert (one.keys, one.gates.waiting) == (["a"], [])
    assert [mount.type for mount in task.result()] == ["bind"]


def test_hold_is_the_effect_and_later_the_answer() -> None:
    one = One()
    task = one.call(one.gated.prepare("a"))
    one.decide(Verdict.HOLD)
    assert (one.keys, task.done()) == (["a"], False)
    assert [str(gate) for gate in one.gates.waiting] == ["the answer of driver prepare('a', '') for call 0"]
    one.decide(Verdict.GO)
    assert task.result()


def test_a_held_answer_is_that_of_the_moment_of_the_effect() -> None:
    one = One()
    usage = one.call(one.gated.usage("absent"))
    one.decide(Verdict.HOLD)
    one.loop.run_until_quiet()
    with one.gates.opened():
        one.rest()
    with pytest.raises(NotFound):
        usage.result()
    load = one.call(one.store.load())
    one.decide(Verdict.HOLD)
    one.disk.entries["a"] = {"later": "yes"}
    one.decide(Verdict.GO)
    assert load.result() == {}


@pytest.mark.parametrize(("verdict", "effect"), [(Verdict.FAIL_BEFORE, []), (Verdict.FAIL_AFTER, ["a"])])
def test_a_failure_comes_before_the_effect_or_after_it(verdict: Verdict, effect: list[str]) -> None:
    one = One()
    prepare = one.call(one.gated.prepare("a"))
    one.decide(verdict)
    with pytest.raises(SnapshotError, match=verdict.value) as failure:
        prepare.result()
    assert failure.value.error is ErrorClass.UNKNOWN
    assert one.keys == effect
    write = one.call(one.store.write({"a": {"x": "1"}}))
    one.decide(verdict)
    with pytest.raises(StoreError, match=verdict.value):
        write.result()
    assert list(one.disk.entries) == effect


@pytest.mark.parametrize(("verdict", "effect"), [(Verdict.GIVE_UP, []), (Verdict.GO, ["a"])])
def test_a_cancelled_call_stays_until_its_effect_is_decided(verdict: Verdict, effect: list[str]) -> None:
    one = One()
    task = one.call(one.gated.prepare("a"))
    for _ in range(2):  # a second cancellation changes nothing
        task.cancel()
        one.rest()
        assert not task.done()
    (gate,) = one.gates.waiting
    assert gate.cancelled
    one.decide(verdict)
    assert task.cancelled()
    assert one.keys == effect


def test_a_call_that_is_cancelled_while_its_answer_is_held_stays_for_the_answer() -> None:
    one = One()
    task = one.call(one.gated.prepare("a"))
    one.decide(Verdict.HOLD)
    task.cancel()
    one.rest()
    assert not task.done()
    one.decide(Verdict.GO)
    assert task.cancelled()


@pytest.mark.parametrize("verdict", [Verdict.GO, Verdict.FAIL_AFTER])
def test_a_cancellation_that_comes_just_after_the_verdict_does_not_undo_it(verdict: Verdict) -> None:
    one = One()
    task = one.call(one.gated.prepare("a"))
    (gate,) = one.gates.waiting
    one.gates.decide(gate, verdict)
    task.cancel()
    one.rest()
    assert task.cancelled()
    assert one.keys == ["a"]


def test_after_death_nothing_has_an_effect() -> None:
    one = One()
    held = one.call(one.gated.prepare("held"))
    one.decide(Verdict.HOLD)
    before = one.call(one.gated.prepare("before"))
    one.gates.die()
    one.rest()
    after = one.call(one.gated.prepare("after"))
    for task in (held, before, after):
        with pytest.raises(SnapshotError, match="die"):
            task.result()
    assert one.keys == ["held"]


def test_a_write_is_of_what_the_changes_were_when_it_was_asked_for() -> None:
    one = One()
    entry = {"x": "1"}
    one.call(one.store.write({"a": entry}))
    entry["x"] = "2"
    one.decide(Verdict.GO)
    assert one.disk.entries == {"a": {"x": "1"}}


def test_effects_can_be_made_outside_where_threads_and_time_are_real() -> None:
    """The verdicts and the order are the schedule's all the same, and the gated loop is the running one again afterwards."""
    seen: list[object] = []

    async def effect(text: str) -> str:
        seen.append(asyncio.get_running_loop())
        await asyncio.sleep(0.001)
        if text == "fails":
            raise NotFound(text)
        return await asyncio.to_thread(text.upper)

    async def work(text: str) -> tuple[str, bool]:
        answer = await one.gates.call("port", text, (), lambda: effect(text), SnapshotError)
        return answer, asyncio.get_running_loop() is one.loop

    with asyncio.Runner() as runner:
        one = One()
        one.gates = Gates(one.loop, runner.run)
        good, bad = one.call(work("good")), one.call(work("fails"))
        held, going = one.gates.waiting
        one.gates.decide(going, Verdict.GO)
        one.gates.decide(held, Verdict.HOLD)
        one.rest()
        assert seen == [runner.get_loop()] * 2
        assert not good.done()
        one.decide(Verdict.GO)
        assert good.result() == ("GOOD", True)
        with pytest.raises(NotFound):
            bad.result()
        with one.loop.running():
            assert beside(runner.run, effect("between")) == "BETWEEN"
            assert one.loop.is_running()


CALLS: dict[str, Callable[[GatedSnapshotter], Awaitable[Any]]] = {
    "prepare": lambda driver: driver.prepare("k", "base", {"a": "b"}),
    "view": lambda driver: driver.view("k", "base", {"a": "b"}),
    "commit": lambda driver: driver.commit("k", "active", {"a": "b"}, ""),
    "remove": lambda driver: driver.remove("view"),
    "mounts": lambda driver: driver.mounts("view"),
    "stat": lambda driver: driver.stat("base"),
    "update": lambda driver: driver.update(Info("base", "", Kind.COMMITTED, (("l", "v"),), 0, 0)),
    "usage": lambda driver: driver.usage("base"),
    "walk": lambda driver: collected(driver),
    "cleanup": lambda driver: driver.cleanup(),
    "close": lambda driver: driver.close(),
}


async def collected(driver: Snapshotter) -> list[Info]:
    return [info async for info in driver.walk()]


async def furnished() -> MemorySnapshotter:
    driver = MemorySnapshotter()
    await driver.prepare("first")
    await driver.commit("base", "first")
    await driver.prepare("active", "base")
    await driver.view("view", "base")
    return driver


def calls_of(port: type) -> set[str]:
    return {name for name in vars(port) if not name.startswith("_")}


def test_every_call_of_both_ports_has_a_gate() -> None:
    assert set(CALLS) == calls_of(Snapshotter)
    assert {"load", "read", "write", "close"} == calls_of(Store)
    one = One()
    for task in (one.call(one.store.read(["a"])), one.call(one.store.load()), one.call(one.store.close())):
        assert not task.done()
    assert [gate.name for gate in one.gates.waiting] == ["read", "load", "close"]
    one.call(one.store.write({"a": None}))
    assert str(one.gates.waiting[-1]) == "store write('without a') for call 0"


@pytest.mark.parametrize("name", CALLS)
def test_a_gated_call_is_the_drivers_call(name: str) -> None:
    """With the same arguments, the same effect and the same answer, at one gate."""
    one = One()
    one.driver = asyncio.run(furnished())
    one.gated = GatedSnapshotter(one.gates, one.driver)
    plain = asyncio.run(furnished())
    task = one.call(CALLS[name](one.gated))
    assert [gate.name for gate in one.gates.waiting] == [name]
    one.decide(Verdict.GO)

    async def bare() -> Any:
        return await CALLS[name](plain)  # type: ignore[arg-type]  # the same calls

    assert task.result() == asyncio.run(bare())
    assert one.driver.state == plain.state


# --- the fixtures in memory


def test_a_list_shows_its_snapshot_for_as_long_as_that_lives() -> None:
    async def work() -> None:
        driver = MemorySnapshotter()
        first = await driver.prepare("a")
        assert await driver.write(first, [MakeFile("f", b"x" * 600), MakeFile("f")]) == ("ok", "EEXIST")
        await driver.commit("base", "a")
        assert driver.key_of(first) == "base"
        over = await driver.prepare("b", "base")
        shown = await driver.view("v", "base")
        assert await driver.read(over) == await driver.read(shown) == await driver.read(first)
        assert await driver.write(shown, [MakeFile("g")]) == ("EROFS",)
        assert await driver.write(over, [MakeFile("g", b"y" * 1024)]) == ("ok",)
        assert await driver.read(over) != await driver.read(first)
        assert [await driver.usage(key) for key in ("base", "b", "v")] == [Usage(512, 1), Usage(1024, 1), Usage(0, 0)]
        await driver.remove("v")
        assert await driver.write(shown, [MakeFile("g")]) == ("ESTALE",)
        with pytest.raises(FileNotFoundError, match="mount before the last release"):
            await driver.read(shown)

    asyncio.run(work())


def test_the_store_in_memory_keeps_the_rules_of_its_port() -> None:
    async def work() -> None:
        disk = Disk()
        store = MemoryStore(disk)
        with pytest.raises(Locked):
            MemoryStore(disk)
        await store.write({"b": {"x": "1"}, "a": {"y": "2"}})
        assert list(await store.load()) == ["a", "b"]
        (await store.load())["a"]["y"] = "changed by the reader"
        await store.write({"b": None, "absent": None})
        assert await store.read(["a", "b"]) == {"a": {"y": "2"}}
        with pytest.raises(ValueError, match="None"):
            await store.write({"a": {}})
        await store.close()
        await store.close()
        with pytest.raises(Closed):
            await store.load()
        assert await MemoryStore(disk).load() == {"a": {"y": "2"}}

    asyncio.run(work())


# --- schedules of toys


@dataclass
class Recording:
    """What an observer is told."""

    events: list[tuple[object, ...]] = field(default_factory=list)

    def invoke(self, call: int, op: object) -> None:
        self.events.append(("invoke", call, op))

    def respond(self, call: int, answer: object) -> None:
        self.events.append(("respond", call, answer))

    def disturb(self, call: int, what: str) -> None:
        self.events.append(("disturb", call, what))

    def crash(self) -> None:
        self.events.append(("crash",))

    def quiet(self) -> None:
        self.events.append(("quiet",))


@dataclass(frozen=True)
class Writes:
    """A toy's call: so many writes of the store, one after the other."""

    name: str
    times: int


class Toy(Protocol):
    """Makes the calls of a toy."""

    async def __call__(self, op: Any, store: Store, /) -> object: ...


async def writes(op: Any, store: Store) -> object:
    for number in range(op.times):
        await store.write({op.name: {"n": str(number), "call": str(CALL.get())}})
    return op.name


def play(
    toy: Callable[[], Toy], ops: Sequence[Any], choose: Choose, budget: Budget | None = None
) -> tuple[Run[Any, Any], Recording]:
    """One run of a toy made anew, from which nothing is left."""
    gates = Gates(gated_loop())
    store, seen = GatedStore(gates, MemoryStore(Disk())), Recording()
    calls = toy()

    async def perform(op: Any) -> object:
        try:
            return await calls(op, store)
        except StoreError as error:
            return str(error)

    run: Run[Any, Any] = Run(gates, perform, seen, choose)
    with runs.whole(run):
        run.burst(ops, budget)
    return run, seen


def chance(seed: int) -> Choose:
    draw = random.Random(seed)
    return lambda choices: draw.randrange(len(choices))


def count(toy: Toy, ops: Sequence[Any], budget: Budget | None = None) -> int:
    return explore(lambda choose: play(lambda: toy, ops, choose, budget))


def interleavings(*lengths: int) -> int:
    """In how many orders sequences of these lengths can be merged."""
    return math.factorial(sum(lengths)) // math.prod(map(math.factorial, lengths))


@pytest.mark.parametrize("times", [(1,), (1, 1), (2, 2), (0, 3), (1, 1, 1), (1, 2, 1), (2, 2, 2)])
def test_every_interleaving_is_run_exactly_once(times: tuple[int, ...]) -> None:
    """A call is a sequence of its start and its gates."""
    ops = [Writes(f"call {number}", n) for number, n in enumerate(times)]
    assert count(writes, ops) == interleavings(*(n + 1 for n in times))


def test_calls_that_are_the_same_start_in_one_order_only() -> None:
    assert count(writes, [Writes("a", 0)] * 3) == 1
    assert count(writes, [Writes("a", 1)] * 2) == interleavings(2, 2) // 2


def test_each_disturbance_adds_the_schedules_it_should() -> None:
    ops = [Writes("a", 1), Writes("b", 1)]
    plain = interleavings(2, 2)
    # A held answer makes one of the calls longer by one.
    assert count(writes, ops, Budget(holds=1)) == plain + 2 * interleavings(3, 2)
    # The gate of either call fails, before its effect or after it.
    assert count(writes, ops, Budget(faults=1)) == plain + 2 * 2 * plain
    # Either call is cancelled between its start and its gate, which gives up or goes on; it is longer by that cancellation.
    assert count(writes, ops, Budget(cancels=1)) == plain + 2 * 2 * interleavings(3, 2)
    # There is nothing to be done after a read.
    assert count(reads, ops, Budget(faults=1)) == plain + 2 * plain


def test_the_process_may_die_at_every_moment_in_which_a_call_is_under_way() -> None:
    events = ("start a", "go a", "start b", "go b")
    orders = [
        o
        for o in itertools.permutations(events)
        if o[0] != "go b" and all(o.index(f"start {c}") < o.index(f"go {c}") for c in "ab")
    ]
    begun = {order[:length] for order in orders for length in range(1, 4)}
    under_way = [begin for begin in begun if len({e for e in begin if "start" in e}) > len({e for e in begin if "go" in e})]
    told = []

    def once(choose: Choose) -> None:
        run, seen = play(lambda: writes, [Writes("a", 1), Writes("b", 1)], choose, Budget(crash=True))
        told.append("\n".join(runs.told(run)))
        assert run.crashed == (("crash",) in seen.events)
        if run.crashed:
            assert seen.events[-1] == ("crash",)

    assert explore(once) == len(orders) + len(under_way)
    assert len(set(told)) == len(told)


async def reads(op: Any, store: Store) -> object:
    return await store.read([op.name])


def test_the_observer_is_told_in_order() -> None:
    run, seen = play(lambda: writes, [Writes("a", 1), Writes("b", 1)], replay([]))
    a, b = Writes("a", 1), Writes("b", 1)
    assert [event for event in seen.events if event != ("quiet",)] == [
        ("invoke", 1, a),
        ("respond", 1, "a"),
        ("invoke", 2, b),
        ("respond", 2, "b"),
    ]
    assert seen.events.count(("quiet",)) == 4
    assert runs.told(run) == [
        "start 1: Writes(name='a', times=1)",
        "go: store write('a') for call 1",
        "1 answers a",
        "start 2: Writes(name='b', times=1)",
        "go: store write('b') for call 2",
        "2 answers b",
    ]


def test_disturbances_are_told_before_they_are() -> None:
    ops, budget = [Writes("a", 2), Writes("b", 1)], Budget(faults=1, cancels=1, holds=1)
    found: set[tuple[object, ...]] = set()

    def once(choose: Choose) -> None:
        _, seen = play(lambda: writes, ops, choose, budget)
        disturbed = {event[1] for event in seen.events if event[0] == "disturb"}
        for _, call, answer in (event for event in seen.events if event[0] == "respond"):
            if answer not in ("a", "b"):
                assert call in disturbed
            found.add((call, answer))

    explore(once)
    failures = {f"{verdict.value}, as the schedule wants it" for verdict in (Verdict.FAIL_BEFORE, Verdict.FAIL_AFTER)}
    assert found == {(1, "a"), (2, "b")} | {(call, answer) for call in (1, 2) for answer in (CANCELLED, *failures)}


def test_the_same_choices_give_the_same_run() -> None:
    ops, budget = [Writes("a", 2), Writes("b", 2), Writes("c", 1)], Budget(faults=1, cancels=1, holds=1)
    told = set()
    for seed in range(100):
        run, seen = play(lambda: writes, ops, chance(seed), budget)
        again, seen_again = play(lambda: writes, ops, replay(run.chosen), budget)
        assert (seen.events, runs.told(run), run.chosen) == (seen_again.events, runs.told(again), again.chosen)
        told.add("\n".join(runs.told(run)))
    assert len(told) > 90


def test_a_record_that_does_not_fit_is_replayed_with_the_simplest_choices() -> None:
    run, _ = play(lambda: writes, [Writes("a", 1), Writes("b", 1)], replay([99]))
    assert set(run.chosen) == {0}


def test_what_is_not_chosen_must_not_decide() -> None:
    lengths = itertools.cycle([2, 1])

    def once(choose: Choose) -> None:
        play(lambda: writes, [Writes("a", next(lengths)), Writes("b", 1)], choose)

    with pytest.raises(Forked):
        explore(once)


# --- what goes wrong in toys


class TwoLocks:
    """Takes two locks in the order that the call names: the oldest way to wait for ever."""

    def __init__(self) -> None:
        self.locks = {"a": asyncio.Lock(), "b": asyncio.Lock()}

    async def __call__(self, op: Any, store: Store) -> object:
        async with self.locks[op[0]]:
            await store.load()
            async with self.locks[op[1]]:
                return op


def test_a_deadlock_is_found_and_replays() -> None:
    outcomes = []

    def once(choose: Choose) -> None:
        recorded: list[int] = []

        def recording(choices: Sequence[Choice]) -> int:
            recorded.append(choose(choices))
            return recorded[-1]

        try:
            play(TwoLocks, ["ab", "ba"], recording)
        except Unsound as error:
            outcomes.append((error.clause, recorded))
        else:
            outcomes.append(("", recorded))

    assert explore(once) == 6
    # Of the six orders in which both start and pass their gates, four have both start before either has passed.
    stuck = [recorded for clause, recorded in outcomes if clause == "REF-ERROR-5"]
    assert len(stuck) == 4
    assert len([recorded for clause, recorded in outcomes if clause == ""]) == 2
    with pytest.raises(Unsound, match=r"wait for ever: 1 \(ab\), 2 \(ba\)") as found:
        play(TwoLocks, ["ab", "ba"], replay(stuck[0]))
    (note,) = found.value.__notes__
    assert f"choices: {stuck[0]}" in note
    assert "go: store load()" in note
    assert explore(lambda choose: play(TwoLocks, ["ab", "ab"], choose)) == 2


class Handed:
    """A lock that is handed on at its release, and lost when the one that it is handed to is cancelled on the way."""

    def __init__(self) -> None:
        self.held = False
        self.waiting: list[asyncio.Future[None]] = []

    async def __call__(self, op: Any, store: Store) -> object:
        if self.held:
            turn = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn in self.waiting:
                    self.waiting.remove(turn)
                raise
        self.held = True
        try:
            await store.write({"turn": {"of": op}})
        finally:
            if self.waiting:
                self.waiting.pop(0).set_result(None)
            else:
                self.held = False
        return op


def test_a_lost_handoff_shows_only_where_a_call_is_cancelled_in_the_middle_of_things() -> None:
    def stuck(budget: Budget) -> tuple[int, int]:
        found, struck = [], []

        def once(choose: Choose) -> None:
            try:
                run, _ = play(Handed, ["a", "b", "c"], choose, budget)
                struck.append(run.struck)
            except Unsound as error:
                found.append(error.clause)

        explore(once)
        return found.count("REF-ERROR-5"), struck.count(True)

    assert stuck(Budget(cancels=1)) == (0, 0)
    by_callback = [stuck(Budget(cancel_at=at)) for at in range(12)]
    assert sum(lost for lost, _ in by_callback) > 0
    assert by_callback[-1] == (0, 0), "the last callback that a call can be cancelled at came earlier"
    assert all(struck + lost > 0 for lost, struck in by_callback[1:6])


def test_a_call_is_cancelled_in_the_middle_of_things_only_once_it_has_begun() -> None:
    begun: list[object] = []

    async def notes(op: Any, store: Store) -> object:
        begun.append(op)
        return await writes(op, store)

    def once(at: int, choose: Choose) -> None:
        begun.clear()
        run, seen = play(lambda: notes, [Writes("a", 1)], choose, Budget(cancel_at=at))
        answers = [event[-1] for event in seen.events if event[0] == "respond"]
        assert (len(begun), len(answers)) == (1, 1)
        told.append((run.struck, answers[0]))

    told: list[tuple[bool, object]] = []
    for at in range(4):
        explore(partial(once, at))
    assert told[0] == (True, "a"), "before its first step the call is left alone"
    assert (True, CANCELLED) in told
    assert told[-1] == (False, "a")


def test_an_error_that_is_no_answer_ends_the_run() -> None:
    async def broken(op: Any, store: Store) -> object:
        raise KeyError(op)

    with pytest.raises(Unsound, match="REF-ERROR-1: KeyError is no answer: 'a'") as found:
        count(broken, ["a"])
    assert isinstance(found.value.__cause__, KeyError)


def test_a_cancellation_that_nobody_asked_for_is_found() -> None:
    async def infected(op: Any, store: Store) -> object:
        raise asyncio.CancelledError

    with pytest.raises(Unsound, match="REF-SIZE-5"):
        count(infected, ["a"])


def test_a_task_that_is_left_over_is_found_and_so_is_an_error_that_nobody_saw() -> None:
    async def leaves(op: Any, store: Store) -> object:
        event = asyncio.Event()
        task = asyncio.create_task(event.wait())
        return str(task.done())

    async def loses(op: Any, store: Store) -> object:
        asyncio.get_running_loop().create_future().set_exception(ValueError("lost"))
        return "done"

    with pytest.raises(Unsound, match=r"REF-CLOSE-1: left over.*wait"):
        count(leaves, ["a"])
    with pytest.raises(Unsound, match="nobody has looked at: ValueError"):
        count(loses, ["a"])


@pytest.mark.parametrize("alone", [True, False])
def test_a_call_that_is_never_quiet_does_not_answer(alone: bool) -> None:
    async def spins(op: Any, store: Store) -> object:
        for _ in itertools.count():
            await asyncio.sleep(0)

    gates = Gates(gated_loop())
    run: Run[Any, Any] = Run(gates, lambda op: spins(op, GatedStore(gates, MemoryStore(Disk()))), Recording(), replay([]))
    with pytest.raises(Unsound, match=r"REF-ERROR-5: .* without a quiet moment"), runs.whole(run):
        run.sequence(["a"]) if alone else run.burst(["a"])


def test_what_waits_at_a_gate_after_the_last_answer_still_goes_on() -> None:
    done = []

    async def leaves(op: Any, store: Store) -> object:
        async def later() -> None:
            await store.write({"later": {"of": op}})
            done.append(CALL.get())

        asyncio.get_running_loop().create_task(later())
        return "at once"

    assert count(leaves, ["a", "b"]) == interleavings(2, 2)
    assert done == [1, 2] * 6 or sorted(done) == [1] * 6 + [2] * 6


def test_a_timer_is_a_choice() -> None:
    async def patient(op: Any, store: Store) -> object:
        async def quickly() -> str:
            await store.write({op: {"x": "1"}})
            return "in time"

        try:
            return await asyncio.wait_for(quickly(), 10)
        except TimeoutError:
            return "too late"

    answers: list[object] = []
    assert explore(lambda choose: answers.append(play(lambda: patient, ["a"], choose)[1].events[-2][-1])) == 3
    assert sorted(map(str, answers)) == ["in time", "too late", "too late"]


def test_after_a_crash_no_call_answers_and_a_new_life_begins() -> None:
    gates = Gates(gated_loop())
    disk, seen = Disk(), Recording()
    store = GatedStore(gates, MemoryStore(disk))

    async def perform(op: str) -> object:
        try:
            await store.write({op: {"x": "1"}})
        finally:
            await asyncio.shield(store.write({f"{op} after": {"x": "1"}}))
        return op

    run: Run[str, Any] = Run(gates, perform, seen, replay([]))
    with runs.whole(run):
        run.sequence(["first"])

        async def dies() -> None:
            CALL.set(99)
            await perform("second")

        run.loop.create_task(dies())
        run.loop.run_until_quiet()
        assert len(gates.waiting) == 1
        run.crash()
        assert gates.waiting == []
        run.sequence(["third"])
    assert list(disk.entries) == ["first", "first after", "third", "third after"]
    assert [event[-1] for event in seen.events if event[0] == "respond"] == ["first", "third"]


# --- the other drivers of schedules


class Counter:
    """Reads and writes a number, without a lock: an update is lost when another comes in between."""

    async def __call__(self, op: Any, store: Store) -> object:
        if op.startswith("look"):
            return (await store.load()).get("n", {"is": "0"})["is"]
        now = int((await store.load()).get("n", {"is": "0"})["is"])
        await store.write({"n": {"is": str(now + 1)}})
        return "added"


def lost(choose: Choose) -> bool:
    """Whether the two additions come to less than two."""
    gates = Gates(gated_loop())
    store, counter = GatedStore(gates, MemoryStore(Disk())), Counter()
    seen = Recording()
    run: Run[Any, Any] = Run(gates, lambda op: counter(op, store), seen, choose)
    with runs.whole(run):
        run.burst(["add", "add too", "look"])
        run.sequence(["look again"])
    return ("respond", 4, "1") in seen.events


def test_hypothesis_draws_schedules_and_shrinks_them() -> None:
    def drawn(indices: list[int]) -> bool:
        return lost(replay(indices))

    found = find(st.lists(st.integers(0, 3), max_size=12), drawn, settings=settings(max_examples=500, database=None))
    assert found == [0, 1], "start the first, start the second, and the rest as simple as can be"


def test_schedules_are_drawn_from_bytes_too() -> None:
    found = find(st.binary(max_size=12), lambda drawn: lost(spelled(drawn)), settings=settings(max_examples=500, database=None))
    assert found == bytes([0, 1])


def test_a_random_chooser_finds_it_too() -> None:
    choose = chance(1)
    assert any(lost(choose) for _ in range(100))


def test_choices_are_offered_the_simplest_first() -> None:
    offered: list[list[object]] = []

    def choose(choices: Sequence[Choice]) -> int:
        offered.append([choice.what for choice in choices])
        return 0

    play(lambda: writes, [Writes("a", 1), Writes("b", 1)], choose, Budget(faults=1, cancels=1, holds=1))
    one = [Verdict.HOLD, Verdict.FAIL_BEFORE, Verdict.FAIL_AFTER, Move.CANCEL]
    assert offered == [[Move.START, Move.START], [Verdict.GO, Move.START, *one], [Verdict.GO, *one]]
    assert Cancelled() == CANCELLED
