"""Histories of a right driver, with overlap, lost answers and crashes: the oracle finds no fault and never loses the truth."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from driver import Driver
from hypothesis import given
from hypothesis import strategies as st
from states import DIRECT, METADATA

from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.oracle import Belief, begin, crash, invoke, respond
from snapspec.model.replies import Lost, Response
from snapspec.model.state import Profile, Snapshot, Span, State
from snapspec.model.tree import Link, MakeFile, Truncate, Unlink

MOST_OPEN = 4

KEYS = ("a", "b", "c")
keys = st.sampled_from(KEYS)
parents = st.sampled_from(("", *KEYS))
labels = st.sampled_from(((), (("l", "1"),)))
changes = st.sampled_from(
    [(MakeFile("f", b"x" * 600),), (Link("g", "f"),), (Truncate("f", 0),), (Unlink("f"), MakeFile("f", b""))]
)
calls = st.one_of(
    st.builds(ops.Prepare, keys, parents, labels),
    st.builds(ops.Prepare, keys),
    st.builds(ops.View, keys, parents),
    st.builds(ops.Commit, keys, keys, labels),
    st.builds(ops.Remove, keys),
    st.builds(ops.Mounts, keys),
    st.builds(ops.Stat, keys),
    st.builds(ops.Usage, keys),
    st.builds(ops.Update, keys, labels, st.sampled_from(((), ("labels.l",), ("name",)))),
    st.builds(ops.Walk, st.sampled_from(((), ("kind==active",)))),
    st.builds(lambda key, change: ops.Write(key, change), keys, changes),
    st.builds(ops.Read, keys),
    st.builds(lambda key: ops.Nowhere(ops.Prepare(key)), keys),
    st.sampled_from((ops.Reopen(), ops.Collect(("a",)), ops.Cleanup())),
)


@dataclass
class Call:
    op: Operation
    answer: Response | None = None
    lost: bool = False


@dataclass
class History:
    """A driver with its open calls, and the oracle that hears of calls and answers only."""

    driver: Driver
    belief: Belief
    number: int = 0
    calls: dict[int, Call] = field(default_factory=dict)

    def told(self, belief: object) -> None:
        assert isinstance(belief, Belief), belief
        self.belief = belief

    def start(self, op: Operation) -> None:
        self.number += 1
        self.calls[self.number] = Call(op)
        self.belief = invoke(self.belief, self.number, op, self.driver.clock)

    def land(self, number: int, choice: int) -> None:
        """The call takes effect; nobody waits for the answer of a lost one."""
        call = self.calls[number]
        call.answer = self.driver.do(call.op, choice)
        if call.lost:
            del self.calls[number]

    def answer(self, number: int, *, lost: bool = False) -> None:
        call = self.calls[number]
        if lost:
            call.lost = True
            self.told(respond(self.belief, number, Lost(), self.driver.clock))
        else:
            assert call.answer is not None
            self.told(respond(self.belief, number, call.answer, self.driver.clock))
        if call.answer is not None:
            del self.calls[number]

    def check(self) -> None:
        """The driver's state is one of those that the open calls may have brought about."""
        driver = self.driver.state
        assert any(_fits(world.state, driver) for world in crash(self.belief, self.driver.clock).worlds)


def _fits(believed: State, true: State) -> bool:
    return believed.snapshots.keys() == true.snapshots.keys() and all(
        _fits_snapshot(snapshot, true.snapshots[key]) for key, snapshot in believed.snapshots.items()
    )


def _fits_snapshot(believed: Snapshot, true: Snapshot) -> bool:
    same = ("kind", "parent", "labels", "tree")
    facts = ("mounts", "usage")
    return (
        all(getattr(believed, name) == getattr(true, name) for name in same)
        and all(getattr(believed, name) in (None, getattr(true, name)) for name in facts)
        and believed.created.earliest <= true.created.latest <= believed.created.latest
        and (believed.updated is None) == (true.updated is None)
        and (believed.updated is None or true.updated is None or _within(believed.updated, true.updated))
    )


def _within(believed: Span, true: Span) -> bool:
    return believed.earliest <= true.latest <= believed.latest


def event(data: st.DataObject, history: History) -> None:
    """One thing that happens: a call begins, takes effect or answers, an answer is lost, or, seldom, the process dies."""
    driver = history.driver
    driver.clock += data.draw(st.integers(0, 2))
    waiting = [number for number, call in history.calls.items() if call.answer is None]
    ready = [number for number, call in history.calls.items() if call.answer is not None]
    open_calls = [number for number, call in history.calls.items() if not call.lost]
    kinds = ["start"] if len(open_calls) < MOST_OPEN else []
    kinds += ["land"] * 2 if waiting else []
    kinds += ["answer"] * 2 if ready else []
    kinds += ["lose"] if open_calls else []
    kind = data.draw(st.sampled_from([*kinds, "crash"] if data.draw(st.integers(0, 19)) == 19 else kinds or ["crash"]))
    match kind:
        case "start":
            history.start(data.draw(calls))
        case "land":
            history.land(data.draw(st.sampled_from(waiting)), data.draw(st.integers(0, 3)))
        case "answer":
            history.answer(data.draw(st.sampled_from(ready)))
        case "lose":
            history.answer(data.draw(st.sampled_from(open_calls)), lost=True)
        case "crash":
            history.check()
            history.calls.clear()
            history.belief = crash(history.belief, driver.clock)


@given(st.data(), st.sampled_from((DIRECT, replace(DIRECT, cleanup=False), METADATA)))
def test_a_right_driver_is_never_found_wrong(data: st.DataObject, profile: Profile) -> None:
    """SNAP-FAIL-2: for every order in which calls begin, take effect and answer, the truth stays among what is believed."""
    state = State(profile=profile)
    history = History(Driver(state), begin(state))
    for _ in range(data.draw(st.integers(1, 30))):
        event(data, history)
    history.check()
    for number, call in list(history.calls.items()):
        if call.answer is None:
            history.land(number, 0)
        if not call.lost:
            history.answer(number)
    history.check()
