"""The search of one process, of drivers and of managers alike: batches of drawn histories, and the shortest form of each finding.

A finding does not end the search: its kind is set aside (see `aside`), and what is left of the time goes to what else there is.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.errors import Flaky, HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from snapspec.conformance.aside import kind_of
from snapspec.conformance.draw import Limits
from snapspec.conformance.history import Finding
from snapspec.conformance.kind import Kind
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.session import BaseSession, Departure

S = TypeVar("S", bound=BaseSession[Any])
F = TypeVar("F", bound=Finding | RefFinding)

#: Histories that Hypothesis draws under one seed; between batches the clock is looked at.
BATCH = 25

#: How long, in seconds, a finding is made shorter at most; all of them together may take as long after the end of the time.
SHORTENING = 60.0

#: So many findings of one process are enough: who has that many mends some of them first.
MOST = 24


@dataclass(frozen=True, slots=True)
class Entry(Generic[F]):
    """A finding, and how many histories and seconds it took to find it."""

    finding: F
    after: tuple[int, float]


@dataclass
class BaseSearch(ABC, Generic[S, F]):
    """What is still to do, and what was found. `report` is called before each history, `settled` with each finding in its
    shortest form. With `first` the first finding ends the search.
    """

    session: S
    limits: Limits
    until: float
    report: Callable[[], None]
    settled: Callable[[Entry[F]], None] = lambda _: None
    first: bool = False
    began: float = field(default_factory=time.monotonic)
    raw: list[Entry[F]] = field(default_factory=list)
    """The findings that are still to be made shorter."""
    kinds: set[Kind] = field(default_factory=set)
    """The kinds of all findings."""
    findings: list[Entry[F]] = field(default_factory=list)
    """The findings, each in its shortest form."""
    shrinking: bool = False
    drawn: int = 0
    """How many histories were drawn, those that make a finding shorter aside."""
    batch: int | None = None
    """While a batch is drawn: how many histories there were before it."""

    @abstractmethod
    def run_scenarios(self, number: int = 0, workers: int = 1, chance: int = 0) -> None:
        """The written histories that fall to this one of the workers, until one finds something.

        `chance` is the seed of what is left to chance in them.
        """

    def run_slow_scenarios(self, number: int = 0, workers: int = 1) -> None:
        """Those that take so long that drawn histories come before them, if there are such."""

    @abstractmethod
    def machine(self) -> RuleBasedStateMachine:
        """One history to be drawn."""

    @abstractmethod
    def shortest(self, best: F, wanted: Callable[[], bool]) -> F:
        """The finding, made shorter by replays on the same subject as long as that is `wanted`."""

    @abstractmethod
    def again(self, found: F) -> F | None:
        """What shows when its history is made again."""

    #: Steps of the machine in one drawn history.
    steps = 30

    def length(self, batch: int) -> int:
        """The steps in the histories of that batch."""
        return self.steps

    def wanted(self) -> bool:
        """Whether another history may begin: Hypothesis asks before each, and makes one that has shown something again."""
        self.report()
        enough = len(self.kinds) >= (1 if self.first else MOST)
        return not self.raw and not enough and not self.session.over and time.monotonic() < self.until

    def found(self, finding: F) -> None:
        """Keep the finding, to be made shorter by `settle`, and set its kind aside."""
        kind = kind_of(finding)
        if kind not in self.kinds:
            self.kinds.add(kind)
            self.session.aside |= {kind}
            self.raw.append(Entry(finding, (self.session.histories, time.monotonic() - self.began)))

    def show(self, history: Callable[[], object]) -> bool:
        """Make a history; tells whether it has shown something, which is kept."""
        found = self.session.shows(history)
        if found is not None:
            self.found(found)
        return found is not None

    def run_batch(self, examples: int, number: int, batch: int = 0) -> None:
        """Draw `examples` histories under the seed `number`, until one finds something; `batch` counts the batches.

        Raises what goes wrong in the kit.
        """

        def machine() -> RuleBasedStateMachine:
            return self.machine()

        drawn: Any = seed(number)(machine)
        try:
            run_state_machine_as_test(drawn, settings=_settings(examples, self.length(batch)))
        except Departure:
            return  # what is set aside changed: the next batch draws on
        except Exception as error:
            if self.session.hindrance is not None:
                raise self.session.hindrance from None
            # Once no history is wanted, because something was found or time is up, the machine does nothing any more, and
            # Hypothesis takes that for a fault.
            ended = isinstance(error, HypothesisException) and not self.wanted()
            # Where a process ends under a call the same draws may meet one state or another, which Hypothesis does not forgive:
            # the batch ends with that.
            met_another = isinstance(error, Flaky) and not self.session.repeats
            if not ended and not met_another:
                raise

    @property
    def progress(self) -> int:
        """How many histories were drawn, the present batch included."""
        return self.drawn + (self.session.histories - self.batch if self.batch is not None else 0)

    def go_on(self) -> None:
        """After something was found: make it shorter, unless nothing else is looked for; then that can wait."""
        if not self.first:
            self.settle()

    def settle(self) -> None:
        """Make each new finding as short as it gets by itself. One that leaves a call behind is not replayed here."""
        while self.raw:
            entry = self.raw.pop(0)
            self.shrinking = True
            entry = replace(entry, finding=self._settled(entry.finding))
            self.shrinking = False
            self.findings.append(entry)
            self.settled(entry)

    @property
    def best(self) -> F | None:
        """The first finding."""
        for entry in (*self.findings, *self.raw):
            return entry.finding
        return None

    def _settled(self, found: F) -> F:
        """The shortest history that shows it, and shows nothing else before, if there is such."""
        began, kind, known = time.monotonic(), kind_of(found), self.session.aside
        until = max(min(began, self.until) + SHORTENING, began + 1)

        def wanted() -> bool:
            self.report()
            return not self.session.over and time.monotonic() < until

        try:
            self.session.aside = known - {kind}
            short = self.shortest(found, wanted)
            self.session.aside = frozenset()
            alone = self.again(short) if wanted() else None
        finally:
            self.session.aside = known | {kind}
        self.kinds.add(kind_of(short))
        self.session.aside |= {kind_of(short)}
        return alone if alone is not None and kind_of(alone) == kind_of(short) else short


def _settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        phases=(Phase.generate,),  # histories are made shorter here: by call, as a reader sees them, and sooner
        database=None,
        deadline=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
    )
