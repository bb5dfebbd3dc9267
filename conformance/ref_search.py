"""The search of one process for what departs from the spec of refs: written scenarios, drawn histories, the shortest form."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, product

from snapspec.conformance.base_search import BaseSearch
from snapspec.conformance.ref_history import Burst, RefFinding, size
from snapspec.conformance.ref_machine import RefMachine
from snapspec.conformance.ref_scenarios import FIVE_CALLS, SCENARIOS, STARTS, Scenario
from snapspec.conformance.ref_session import RefSession, play_again
from snapspec.conformance.ref_watch import UNTOLD
from snapspec.conformance.schedule import Budget, Choose, disturb_each, explore
from snapspec.conformance.shorten import changed, fewer, shortest, with_less
from snapspec.model import ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.tree import MakeDirectory, MakeFile

UNDISTURBED = Budget()

#: How the calls of a scenario are disturbed, beside not at all.
DISTURBED = (Budget(cancels=1), Budget(faults=1), Budget(holds=1), Budget(crash=True), Budget(cancels=2, faults=1, holds=1))

#: One disturbance, of each kind, as level faults has it at every point.
SINGLY = (Budget(faults=1), Budget(cancels=1), Budget(holds=1), Budget(crash=True))

#: Schedules of each scenario for each of these, where all is in memory; over other drivers, which are slower, one.
SAMPLE = 20

#: The same undisturbed for a first look at all scenarios, before one is run in every order.
FIRST = 6

#: How often each scenario is run over such a driver with nothing held at gates.
FREELY = 2


@dataclass
class RefSearch(BaseSearch[RefSession, RefFinding]):
    """The search for what departs from the spec of refs. `everywhere`: a scenario meets each disturbance at each point.

    `between` is called before each scenario, to draw some histories: what is soon found in the ones is late in the others.
    """

    everywhere: bool = False
    between: Callable[[], object] = lambda: None
    schedules: dict[str, int] = field(default_factory=dict)
    """How many schedules a scenario has, for those of which every one was run."""

    steps = 12

    def run_scenarios(self, number: int = 0, workers: int = 1, chance: int = 0) -> None:
        """See `BaseSearch`: every schedule where all is in memory, over other drivers a few; and disturbed ones by chance.

        `everywhere`: where all is in memory every schedule is disturbed once at every point, elsewhere and of five calls the
        simplest one.
        """
        scenarios = (*SCENARIOS, *FIVE_CALLS)[number::workers]
        try:
            self.between()
            if self.session.subject.in_memory:
                _look_first(self, scenarios, chance)
            for scenario in scenarios:
                self.between()
                _run_scenario(self, scenario, random.Random(f"{chance} {scenario.name}"))
        except _Unwanted:
            return

    def machine(self) -> RefMachine:
        """See `BaseSearch`."""
        return RefMachine(self.session, self.limits, self.wanted, self.found)

    def shortest(self, best: RefFinding, wanted: Callable[[], bool]) -> RefFinding:
        """See `BaseSearch`: bursts, calls and choices are left out."""
        return shortest(best, _tries, self.again, size, wanted, UNTOLD)

    def again(self, found: RefFinding) -> RefFinding | None:
        """See `BaseSearch`."""
        return play_again(self.session, found)


#: Each kind of call once or twice, in the order of a first build.
SMOKE: tuple[RefOperation, ...] = (
    ref_ops.New("m", "hm"),
    ref_ops.Write("hm", (MakeFile("f", b"hello"), MakeDirectory("d"))),
    ref_ops.Commit("hm", "e", "he"),
    ref_ops.Size("he"),
    ref_ops.Finalize("he"),
    ref_ops.Size("he"),
    ref_ops.Read("he"),
    ref_ops.New("n", "hn", "he"),
    ref_ops.DiskUsage(),
)


def ref_smoke(session: RefSession) -> RefFinding | None:
    """A first build as one history; gives what departs from the spec."""
    first = Scenario("smoke", SMOKE, (ref_ops.Get("e", "again", "x"),))
    return session.shows(lambda: play_scenario(session, first, Budget(), lambda _: 0))


class _Unwanted(Exception):
    """No more histories are wanted."""


def _look_first(search: RefSearch, scenarios: Sequence[Scenario], chance: int) -> None:
    """All scenarios in a few orders; then each of their calls by itself, disturbed once at every point, and tried again."""
    for scenario in scenarios:
        drawn = random.Random(f"{chance} first {scenario.name}")
        _run_by_chance(search, scenario, drawn, (UNDISTURBED,), FIRST)
        _run_by_chance(search, scenario, drawn, DISTURBED, 1)
    search.between()
    alone = dict.fromkeys(Scenario("alone", scenario.setup, (op,)) for scenario in scenarios for op in scenario.calls)
    for number, scenario in enumerate((*STARTS, *reversed(alone))):
        if number % 10 == 0:
            search.between()
        for budget, (again, restarts) in product(SINGLY, ((True, True), (False, True), (True, False))):
            if not (budget.crash and restarts):  # it has one as it is
                disturb_each(partial(_once, search, scenario, budget=budget, restarts=restarts, again=again))


def _once(
    search: RefSearch,
    scenario: Scenario,
    choose: Choose,
    budget: Budget = UNDISTURBED,
    restarts: bool | None = None,
    again: bool = False,
) -> None:
    """The scenario once, and the same calls `again` one by one; every other time with a restart, where it is not said."""
    if not search.wanted():
        raise _Unwanted
    often = search.session.histories % 2 == 1
    more = tuple(map(named_anew, scenario.calls)) if again else ()
    if restarts or (restarts is None and often):
        more += (ref_ops.Restart(),)
    if search.show(lambda: play_scenario(search.session, scenario, budget, choose, more)):
        search.go_on()


def _run_scenario(search: RefSearch, scenario: Scenario, drawn: random.Random) -> None:
    once = partial(_once, search, scenario)
    in_memory = search.session.subject.in_memory
    if in_memory:
        search.schedules[scenario.name] = explore(once)
    elif search.wanted():
        bursts = (*(Burst((op,)) for op in scenario.setup), Burst(scenario.calls))
        for _ in range(FREELY):
            if search.show(partial(search.session.play_freely, bursts)):
                search.go_on()
    for budget in SINGLY if search.everywhere else ():
        every = explore if in_memory and scenario in SCENARIOS else disturb_each
        every(partial(once, budget=budget))
    _run_by_chance(search, scenario, drawn, DISTURBED, SAMPLE if in_memory else 1)


def _run_by_chance(search: RefSearch, scenario: Scenario, drawn: random.Random, budgets: Sequence[Budget], count: int) -> None:
    """Some schedules under each of the budgets."""
    for budget in budgets:
        for _ in range(count):
            _once(search, scenario, lambda choices: drawn.randrange(len(choices)), budget)


def named_anew(op: RefOperation) -> RefOperation:
    """The call with other names for what it makes: the same call once more."""
    makes = {"New": ("record", "handle"), "Get": ("handle", "fresh"), "GetMutable": ("handle",), "Commit": ("fresh", "given")}
    for name in makes.get(type(op).__name__, ("given",) if isinstance(op, ref_ops.Parent) else ()):
        op = changed(op, name, f"{getattr(op, name)} again")
    return op


def play_scenario(
    session: RefSession, scenario: Scenario, budget: Budget, choose: Choose, more: Sequence[RefOperation] = ()
) -> None:
    """The scenario as one history, after which come `more` calls, one by one. Raises RefDivergence."""
    session.begin()
    for op in scenario.setup:
        session.play((op,), Budget(), choose)
    session.play(scenario.calls, budget, choose)
    for op in more:
        session.play((op,), Budget(), choose)
    session.end()


# --- the shortest form

Bursts = tuple[Burst, ...]


def _tries(best: RefFinding) -> Iterator[RefFinding]:
    return (replace(best, bursts=bursts) for bursts in shorter(best.bursts) if bursts)


def shorter(bursts: Bursts) -> Iterator[Bursts]:
    """With fewer bursts, then with one burst made simpler, then with fewer calls in it that meet in another order."""
    yield from fewer(bursts)
    for simpler in (_simpler, _fewer_in_other_order):
        for at, burst in enumerate(bursts):
            for simple in simpler(burst):
                yield (*bursts[:at], *simple, *bursts[at + 1 :])


def _simpler(burst: Burst) -> Iterator[Bursts]:
    return chain(_fewer_calls(burst), _fewer_choices(burst), _simpler_calls(burst))


#: Choices of which one is not the simplest: one disturbance, or one call that goes first.
_ONE_CHOICE = tuple((*(0,) * at, index) for at in range(8) for index in range(1, 6))


def _fewer_in_other_order(burst: Burst) -> Iterator[Bursts]:
    """What is left of the choices when a call is left out means something else: the same may take another choice."""
    if burst.choices:
        for *before, last in _fewer_calls(burst):
            yield from ((*before, replace(last, choices=choices)) for choices in _ONE_CHOICE)


def _fewer_calls(burst: Burst) -> Iterator[Bursts]:
    """The burst without one of its calls, or with its first call before the others."""
    if len(burst.ops) > 1:
        for at in range(len(burst.ops)):
            yield (replace(burst, ops=burst.ops[:at] + burst.ops[at + 1 :]),)
        for at, op in enumerate(burst.ops):
            yield Burst((op,)), replace(burst, ops=burst.ops[:at] + burst.ops[at + 1 :])


def _fewer_choices(burst: Burst) -> Iterator[Bursts]:
    """The burst undisturbed, with the simplest choices from some point on, or with one choice the simplest."""
    if burst.budget != Budget():
        yield (replace(burst, budget=Budget()),)
    for kept in range(len(burst.choices)):
        if any(burst.choices[kept:]):
            yield (replace(burst, choices=burst.choices[:kept]),)
    for at, choice in enumerate(burst.choices):
        for less in dict.fromkeys((0, choice - 1)) if choice else ():
            yield (replace(burst, choices=(*burst.choices[:at], less, *burst.choices[at + 1 :])),)


def _simpler_calls(burst: Burst) -> Iterator[Bursts]:
    for at, op in enumerate(burst.ops):
        for simple in with_less(op):
            yield (replace(burst, ops=(*burst.ops[:at], simple, *burst.ops[at + 1 :])),)
