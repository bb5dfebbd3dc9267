"""The search of one process: scenarios, then drawn histories in batches, then the shortest form of what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from snapspec.conformance.draw import Limits
from snapspec.conformance.history import Finding, Step, call_text
from snapspec.conformance.machines import SnapshotMachine
from snapspec.conformance.scenarios import SCENARIOS
from snapspec.conformance.session import Diverged, Session, replay
from snapspec.model import ops
from snapspec.model.ops import Operation

#: Histories that Hypothesis draws under one seed; between batches the clock is looked at.
BATCH = 25

#: Calls in one drawn history.
STEPS = 30

#: How long, in seconds, a finding is made shorter at most, and without having become shorter.
SHRINKING = 60.0
PATIENCE = 15.0


@dataclass
class Search:
    """What is still to do, and the shortest finding so far. `report` is called after each history."""

    session: Session
    limits: Limits
    until: float
    report: Callable[[], None]
    best: Finding | None = None
    shrinking_until: float = 0.0
    last: float = 0.0

    def wanted(self) -> bool:
        """Whether another history may begin: Hypothesis asks before each, while it draws and while it shrinks."""
        self.report()
        now = time.monotonic()
        return not self.session.over and now < (self.until if self.best is None else self.shrinking_until)

    def found(self, finding: Finding) -> None:
        """Keep the finding when it is the first, or shorter than one of the same clause."""
        if self.best is None:
            self.last = time.monotonic() + SHRINKING
            self._keep(finding)
        elif finding.clause == self.best.clause and size(finding) < size(self.best):
            self._keep(finding)

    def _keep(self, finding: Finding) -> None:
        self.best = finding
        single = len(finding.calls) == 1
        self.shrinking_until = 0.0 if single else min(self.last, time.monotonic() + PATIENCE)


def scenario(session: Session, calls: Iterator[Operation]) -> Finding | None:
    """Make the calls as one history."""
    session.begin()
    try:
        for op in calls:
            session.do(op)
        session.end()
    except Diverged as diverged:
        session.clear()
        return diverged.finding
    return None


def run_scenarios(search: Search) -> None:
    """Every written history, until one finds something."""
    for make in SCENARIOS:
        if search.best is None and search.wanted():
            found = scenario(search.session, make())
            if found is not None:
                search.found(found)


def run_batch(search: Search, examples: int, number: int) -> None:
    """Draw `examples` histories under the seed `number`; a finding is shrunk. Raises what goes wrong in the kit itself."""

    def machine() -> SnapshotMachine:
        return SnapshotMachine(search.session, search.limits, search.wanted, search.found)

    try:
        run_state_machine_as_test(seed(number)(machine), settings=_settings(examples))  # type: ignore[arg-type]  # any callable does
    except Diverged:
        return
    except Exception:
        # What Hypothesis says of a history that fails only sometimes, or only until time was up, matters less than the history.
        if search.best is None:
            raise


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        phases=(Phase.generate, Phase.shrink),
        database=None,
        deadline=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
    )


def shorten(search: Search) -> None:
    """Leave out one call after the other, then what each call can do without, as long as the same clause breaks."""
    if search.best is not None and len(search.best.calls) > 1:
        search.last = time.monotonic() + SHRINKING
        search.shrinking_until = time.monotonic() + PATIENCE
    while search.best is not None and _shorten_once(search, search.best):
        pass


def _shorten_once(search: Search, best: Finding) -> bool:
    for steps in _shorter(tuple(s for s in best.steps if not s.check)):
        if not search.wanted():
            return False
        found = replay(search.session, steps)
        if found is not None:
            search.found(found)
        if search.best is not best:
            return True
    return False


def _shorter(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    for at in reversed(range(len(steps))):
        yield steps[:at] + steps[at + 1 :]
    for at, step in enumerate(steps):
        for op in simpler(step.op):
            yield (*steps[:at], replace(step, op=op), *steps[at + 1 :])


def simpler(op: Operation) -> Iterator[Operation]:
    """The same call with one thing less: without labels, without a parent at commit, with one change fewer, with a fresh list."""
    match op:
        case ops.Prepare(labels=labels) | ops.View(labels=labels) | ops.Update(labels=labels) if labels:
            yield replace(op, labels=())
        case ops.Commit(labels=labels, parent=parent) if labels or parent:
            yield from (replace(op, labels=()), replace(op, parent=""))
        case ops.Write(changes=changes) if len(changes) > 1:
            yield from (replace(op, changes=changes[:at] + changes[at + 1 :]) for at in range(len(changes)))
        case ops.Write(held=True) | ops.Read(held=True):
            yield replace(op, held=False)


def size(finding: Finding) -> tuple[int, int]:
    """What makes one history shorter than another: fewer calls, then less to read in them."""
    return len(finding.calls), sum(len(call_text(step.op)) for step in finding.calls)
