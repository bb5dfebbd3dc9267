"""The search of one process for what departs from the spec of refs: written scenarios, drawn histories, the shortest form."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from hypothesis import seed
from hypothesis.errors import HypothesisException
from hypothesis.stateful import run_state_machine_as_test

from snapspec.conformance.draw import Limits
from snapspec.conformance.gated_refs import FIVE_CALLS, SCENARIOS, Scenario
from snapspec.conformance.ref_history import Burst, RefFinding, size
from snapspec.conformance.ref_machine import RefMachine
from snapspec.conformance.ref_session import RefDivergence, RefSession, play_again
from snapspec.conformance.schedule import Budget, Choice, Choose, explore
from snapspec.conformance.search import SHORTENING, fewer, hypothesis_settings, with_less
from snapspec.model import ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.tree import MakeDirectory, MakeFile

UNDISTURBED = Budget()

#: How the calls of a scenario are disturbed, beside not at all.
DISTURBED = (Budget(cancels=1), Budget(faults=1), Budget(holds=1), Budget(crash=True), Budget(cancels=2, faults=1, holds=1))

#: Schedules of each scenario for each of these, where all is in memory; over other drivers, which are slower, one.
SAMPLE = 20

#: How often each scenario is run over such a driver with nothing held at gates.
FREELY = 2

#: Bursts in one drawn history.
STEPS = 20


@dataclass
class RefSearch:
    """What is still to do, and what was found. `report` is called before each history."""

    session: RefSession
    limits: Limits
    until: float
    report: Callable[[], None]
    best: RefFinding | None = None
    schedules: int = 0
    """How many schedules of scenarios were run."""

    def wanted(self) -> bool:
        """Whether another history may begin."""
        self.report()
        return self.best is None and not self.session.over and time.monotonic() < self.until

    def found(self, finding: RefFinding) -> None:
        """Keep the first finding."""
        if self.best is None:
            self.best = finding

    def run_scenarios(self, number: int = 0, workers: int = 1, chance: int = 0) -> None:
        """The scenarios that fall to this one of the workers, in every order where all is in memory; and disturbed, in a few.

        `chance` is the seed of these few.
        """
        try:
            for scenario in (*SCENARIOS, *FIVE_CALLS)[number::workers]:
                _run_scenario(self, scenario, random.Random(f"{chance} {scenario.name}"))
        except _Unwanted:
            return
        except RefDivergence as diverged:
            self.session.clear()
            self.found(diverged.finding)

    def run_batch(self, examples: int, number: int) -> None:
        """Draw `examples` histories under the seed `number`, until one finds something. Raises what goes wrong in the kit."""

        def machine() -> RefMachine:
            return RefMachine(self.session, self.limits, self.wanted, self.found)

        try:
            drawn: Any = seed(number)(machine)
            run_state_machine_as_test(drawn, settings=hypothesis_settings(examples, STEPS))
        except RefDivergence:
            return
        except Exception as error:
            if self.session.hindrance is not None:
                raise self.session.hindrance from None
            # Once no history is wanted the machine does nothing any more, and Hypothesis takes that for a fault.
            ended = isinstance(error, HypothesisException) and not self.wanted()
            if self.best is None and not ended:
                raise

    def shorten(self) -> None:
        """Make the finding shorter, by replays on the same subject."""
        until = time.monotonic() + SHORTENING

        def wanted() -> bool:
            self.report()
            return not self.session.over and time.monotonic() < until

        if self.best is not None:
            self.best = shorten(self.best, lambda again: play_again(self.session, again), wanted)


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
    try:
        play_scenario(session, Scenario("smoke", SMOKE, (ref_ops.Get("e", "again", "x"),)), Budget(), lambda _: 0)
    except RefDivergence as diverged:
        session.clear()
        return diverged.finding
    return None


class _Unwanted(Exception):
    """No more histories are wanted."""


def _run_scenario(search: RefSearch, scenario: Scenario, drawn: random.Random) -> None:
    def once(choose: Choose, budget: Budget = UNDISTURBED) -> None:
        if not search.wanted():
            raise _Unwanted
        play_scenario(search.session, scenario, budget, choose)
        search.schedules += 1

    def by_chance(choices: Sequence[Choice]) -> int:
        return drawn.randrange(len(choices))

    in_memory = search.session.subject.in_memory
    if in_memory:
        explore(once)
    elif search.wanted():
        for _ in range(FREELY):
            search.session.play_freely((*(Burst((op,)) for op in scenario.setup), Burst(scenario.calls)))
    for budget in DISTURBED:
        for _ in range(SAMPLE if in_memory else 1):
            once(by_chance, budget)


def play_scenario(session: RefSession, scenario: Scenario, budget: Budget, choose: Choose) -> None:
    """The scenario as one history. Raises RefDivergence."""
    session.begin()
    for op in scenario.setup:
        session.play((op,), Budget(), choose)
    session.play(scenario.calls, budget, choose)
    session.end()


# --- the shortest form

Bursts = tuple[Burst, ...]

#: Plays the bursts of a finding again: what the spec does not allow, or None.
Again = Callable[[RefFinding], RefFinding | None]


def shorten(best: RefFinding, again: Again, wanted: Callable[[], bool]) -> RefFinding:
    """The finding after bursts, calls and choices were left out, as long as the same clause breaks when played `again`."""
    shorter: RefFinding | None = best
    while shorter is not None:
        best, shorter = shorter, _shorten_once(shorter, again, wanted)
    return best


def _shorten_once(best: RefFinding, again: Again, wanted: Callable[[], bool]) -> RefFinding | None:
    for bursts in _shorter(best.bursts):
        if not wanted():
            break
        found = again(replace(best, bursts=bursts)) if bursts else None
        if found is not None and found.clause == best.clause and size(found) < size(best):
            return found
    return None


def _shorter(bursts: Bursts) -> Iterator[Bursts]:
    """With fewer bursts, then with one burst made simpler."""
    yield from fewer(bursts)
    for at, burst in enumerate(bursts):
        for simple in chain(_fewer_calls(burst), _fewer_choices(burst), _simpler_calls(burst)):
            yield (*bursts[:at], *simple, *bursts[at + 1 :])


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
