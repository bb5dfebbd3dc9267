"""The search at level `concurrent`: plans of overlapping calls drawn to collide, and their shortest form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from snapspec.conformance.base_search import BaseSearch
from snapspec.conformance.draw import Limits, Pick, picker
from snapspec.conformance.history import Finding, call_text
from snapspec.conformance.overlap import PARENTS, AtOnce, Overlapping
from snapspec.conformance.overlap.session import FEWER_TRIES, OverlapSession, plan_again
from snapspec.conformance.session import Diverged, SetAside
from snapspec.conformance.shorten import fewer, shortest, with_less
from snapspec.model import ops

KEYS = ("a", "b")
NAMES = ("x", "y")
CALLERS = 4

#: One after another before the rest: nothing, a layer, or a layer and what stands on it.
FIRST: tuple[tuple[Overlapping, ...], ...] = (
    (),
    (ops.Prepare("a"),),
    (ops.Prepare("a"), ops.Commit("x", "a")),
    (ops.Prepare("a"), ops.Commit("x", "a"), ops.Prepare("a", "x")),
    (ops.Prepare("a"), ops.Commit("x", "a"), ops.Prepare("b", "x"), ops.Commit("y", "b")),
)

#: Pairs that are at odds with each other, and what may see one half of them.
SCENARIOS: tuple[AtOnce, ...] = (
    AtOnce(first=(), lanes=((ops.Prepare("a"),), (ops.Prepare("a"),), (ops.View("a"),), (ops.Stat("a"),))),
    AtOnce(
        first=FIRST[1], lanes=((ops.Commit("x", "a"),), (ops.Commit("y", "a"),), (ops.Remove("a"),), (ops.Walk(), ops.Walk()))
    ),
    AtOnce(first=FIRST[1], lanes=((ops.Commit("x", "a"),), (ops.Walk(), ops.Walk()), (ops.Walk(), ops.Walk()))),
    AtOnce(first=FIRST[2], lanes=((ops.Remove("x"),), (ops.Prepare("a", "x"),), (ops.View("b", "x"),), (ops.Usage("x"),))),
    AtOnce(first=(*FIRST[2], ops.Prepare("a")), lanes=((ops.Remove("x"), ops.Commit("x", "a")), (ops.Prepare("b", "x"),))),
    AtOnce(
        first=FIRST[3],
        lanes=(
            (ops.Update("a", (("l", "1"),)), ops.Remove("a")),
            (ops.Update("a", (("l", "2"),)), ops.Stat("a")),
            (ops.Mounts("a"),),
        ),
    ),
    AtOnce(
        first=(*FIRST[2], ops.Remove("x")),
        lanes=((ops.Cleanup(), ops.Cleanup()), (ops.Prepare("a"), ops.Prepare("b"), ops.Remove("b")), (ops.View("x"),)),
    ),
)


class OverlapMachine(RuleBasedStateMachine):
    """One plan: drawn call by call, and made at the end."""

    def __init__(
        self, session: OverlapSession, limits: Limits, wanted: Callable[[], bool], found: Callable[[Finding], None]
    ) -> None:
        super().__init__()
        self.limits = limits
        self.session = session
        self.running = wanted()
        self.found = found
        self.first: tuple[Overlapping, ...] = ()
        self.lanes: list[list[Overlapping]] = [[] for _ in range(CALLERS)]

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """What is there before."""
        self.first = picker(data)(FIRST)

    @rule(data=st.data())
    def call(self, data: st.DataObject) -> None:
        """One more call of one of the callers."""
        pick = picker(data)
        pick(self.lanes).append(drawn(pick, self.limits))

    def teardown(self) -> None:
        """Make the calls."""
        plan = AtOnce(first=self.first, lanes=tuple(tuple(lane) for lane in self.lanes if lane))
        if not self.running or not plan.lanes or self.session.over:
            return
        try:
            plan_again(self.session, plan)()
        except SetAside:
            self.session.clear()
        except Diverged as diverged:
            self.session.clear()
            self.found(diverged.finding)
            raise


def drawn(pick: Pick, limits: Limits) -> Overlapping:
    """A call on one of very few names."""
    key, name = pick(KEYS), pick(NAMES)
    either = pick((key, name))
    parent = pick(("", name))
    labels = (("l", pick(("1", "2"))),)
    calls: tuple[Overlapping, ...] = (
        *(ops.Prepare(key, parent, labels), ops.Prepare(key, parent), ops.Prepare(key)),
        *(ops.Commit(name, key), ops.Commit(name, key, labels)),
        *(ops.Remove(either), ops.Remove(either)),
        *(ops.Walk(), ops.Walk()),
        ops.View(key, parent),
        ops.Stat(either),
        ops.Update(either, labels),
        ops.Mounts(key),
        ops.Usage(either),
        ops.Cleanup(),
    )
    return pick([op for op in calls if _is_drawn(op, limits)])


def _is_drawn(op: Overlapping, limits: Limits) -> bool:
    if PARENTS in limits.without and isinstance(op, ops.Prepare | ops.View) and op.parent:
        return False
    return type(op).__name__.lower() not in limits.without


class OverlapSearch(BaseSearch[OverlapSession, Finding]):
    """The search for overlapping calls that have no order."""

    steps = 24

    def run_scenarios(self, number: int = 0, workers: int = 1, chance: int = 0) -> None:
        """See `BaseSearch`; each is made several times, for the moments decide."""
        for written in SCENARIOS[number::workers]:
            lanes = (tuple(op for op in lane if _is_drawn(op, self.limits)) for lane in written.lanes)
            plan = replace(written, lanes=tuple(lane for lane in lanes if lane))
            found = self.session.often(plan_again(self.session, plan), FEWER_TRIES) if self.wanted() else None
            if found is not None:
                self.found(found)
                self.go_on()

    def machine(self) -> RuleBasedStateMachine:
        """See `BaseSearch`."""
        return OverlapMachine(self.session, self.limits, self.wanted, self.found)

    def shortest(self, best: Finding, wanted: Callable[[], bool]) -> Finding:
        """See `BaseSearch`. A shorter plan counts when it shows the same within FEWER_TRIES."""
        return shortest(best, _tries, self._often, size, wanted)

    def again(self, found: Finding) -> Finding | None:
        """See `BaseSearch`."""
        return self._often(_plan(found))

    def _often(self, plan: AtOnce) -> Finding | None:
        return self.session.often(plan_again(self.session, plan), FEWER_TRIES)


def _plan(found: Finding) -> AtOnce:
    plan = found.steps[0].op
    assert isinstance(plan, AtOnce)
    return plan


def _tries(best: Finding) -> Iterator[AtOnce]:
    plan = _plan(best)
    lanes = plan.lanes
    yield from (replace(plan, lanes=kept) for kept in fewer(lanes))
    for at, lane in enumerate(lanes):
        shorter = [*fewer(lane), *((*lane[:n], less, *lane[n + 1 :]) for n, op in enumerate(lane) for less in with_less(op))]
        yield from (replace(plan, lanes=(*lanes[:at], less, *lanes[at + 1 :])) for less in shorter if less)
    yield from (replace(plan, first=kept) for kept in fewer(plan.first))


def size(finding: Finding) -> tuple[int, int]:
    """Fewer calls, then less to read in them."""
    plan = _plan(finding)
    calls = [*plan.first, *(op for lane in plan.lanes for op in lane)]
    return len(calls), sum(len(call_text(op)) for op in calls)
