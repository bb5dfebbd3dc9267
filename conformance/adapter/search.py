"""The search of a manager behind an adapter: written histories, drawn ones, the shortest form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from snapspec.conformance import draw
from snapspec.conformance.adapter.refs import ExecRefSession, history
from snapspec.conformance.adapter.wire import words
from snapspec.conformance.draw import Limits, Pick
from snapspec.conformance.durable.ref_kills import untangled
from snapspec.conformance.ref_history import Burst, RefFinding, size
from snapspec.conformance.ref_machine import RefMachine, draw_ops
from snapspec.conformance.ref_scenarios import SCENARIOS, Scenario
from snapspec.conformance.ref_search import Bursts, RefSearch, shorter
from snapspec.conformance.schedule import Budget
from snapspec.conformance.shorten import shortest

#: How often a scenario is made in which nothing is cancelled, for no two runs are alike.
OFTEN = 3


@dataclass
class ExecRefSearch(RefSearch):
    """The search on such a manager."""

    session: ExecRefSession

    def __post_init__(self) -> None:
        self.session.without = self.limits.without

    def run_scenarios(self, number: int = 0, workers: int = 1, chance: int = 0) -> None:
        """See `BaseSearch`; without those in which something is left out."""
        left_out = self.limits.without
        whole = [s for s in SCENARIOS if left_out.isdisjoint(words(op) for op in (*s.setup, *s.calls))]
        for scenario in whole[number::workers]:
            for bursts in _written(scenario):
                if self.wanted() and self.show(history(self.session, bursts)):
                    self.go_on()

    def machine(self) -> RefMachine:
        """See `BaseSearch`."""
        return ExecRefMachine(self.session, self.limits, self.wanted, self.found)

    def shortest(self, best: RefFinding, wanted: Callable[[], bool]) -> RefFinding:
        """See `BaseSearch`."""
        return shortest(best, _tries, self.again, size, wanted)

    def again(self, found: RefFinding) -> RefFinding | None:
        """See `BaseSearch`."""
        return self.session.surely(history(self.session, found.bursts))


def _written(scenario: Scenario) -> Iterator[Bursts]:
    """The scenario as it is, as often as needed; then with one call cancelled, and with two."""
    setup = tuple(Burst((op,)) for op in scenario.setup)
    yield from [(*setup, Burst(scenario.calls))] * OFTEN
    for count in (1, 2):
        for cancelled in combinations(range(len(scenario.calls)), count):
            yield (*setup, Burst(scenario.calls, cancelled, Budget(cancels=count)))


def _tries(best: RefFinding) -> Iterator[RefFinding]:
    return (replace(best, bursts=bursts) for bursts in shorter(best.bursts) if bursts)


class ExecRefMachine(RefMachine):
    """One history of bursts that overlap as the adapter lets them, in some of which calls are cancelled."""

    session: ExecRefSession

    @rule(data=st.data())
    def burst(self, data: st.DataObject) -> None:
        """One burst."""
        if self.running:
            self._guarded(lambda: self.session.make(draw_burst(draw.picker(data), self.session, self.limits)))


def draw_burst(pick: Pick, session: ExecRefSession, limits: Limits) -> Burst:
    """Calls that overlap, such that each answer can be judged; now and then one or two of them are cancelled."""
    ops = tuple(untangled(session.state, draw_ops(pick, session, limits)))
    cancels = pick((0, 0, 0, 1, 2)) if len(ops) > 1 else 0
    return Burst(ops, tuple(pick(range(len(ops))) for _ in range(cancels)), Budget(cancels=cancels))
