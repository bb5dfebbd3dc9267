"""The search of one process, of drivers and of managers alike: batches of drawn histories, and the shortest form of a finding."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.errors import Flaky, HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from snapspec.conformance.draw import Limits
from snapspec.conformance.session import BaseSession, Departure

S = TypeVar("S", bound=BaseSession[Any])
F = TypeVar("F")

#: Histories that Hypothesis draws under one seed; between batches the clock is looked at.
BATCH = 25

#: How long, in seconds, a finding is made shorter at most.
SHORTENING = 60.0


@dataclass
class BaseSearch(ABC, Generic[S, F]):
    """What is still to do, and what was found. `report` is called before each history.

    `found_after` is how many histories and seconds it took to find the first thing.
    """

    session: S
    limits: Limits
    until: float
    report: Callable[[], None]
    best: F | None = None
    began: float = field(default_factory=time.monotonic)
    found_after: tuple[int, float] = (0, 0.0)

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

    #: Steps of the machine in one drawn history.
    steps = 30

    def length(self, batch: int) -> int:
        """The steps in the histories of that batch."""
        return self.steps

    def wanted(self) -> bool:
        """Whether another history may begin: Hypothesis asks before each."""
        self.report()
        return self.best is None and not self.session.over and time.monotonic() < self.until

    def found(self, finding: F) -> None:
        """Keep the first finding."""
        if self.best is None:
            self.best = finding
            self.found_after = self.session.histories, time.monotonic() - self.began

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
            return
        except Exception as error:
            if self.session.hindrance is not None:
                raise self.session.hindrance from None
            # Once no history is wanted, because something was found or time is up, the machine does nothing any more, and
            # Hypothesis takes that for a fault.
            ended = isinstance(error, HypothesisException) and not self.wanted()
            # Where a process ends under a call the same draws may meet one state or another, which Hypothesis does not forgive:
            # the batch ends with that.
            met_another = isinstance(error, Flaky) and not self.session.repeats
            if self.best is None and not ended and not met_another:
                raise

    def shorten(self) -> None:
        """Make the finding shorter. One that leaves a call behind is not replayed here."""
        until = time.monotonic() + SHORTENING

        def wanted() -> bool:
            self.report()
            return not self.session.over and time.monotonic() < until

        if self.best is not None:
            self.best = self.shortest(self.best, wanted)


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
