"""The search of one process: scenarios, then drawn histories in batches, then the shortest form of what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, replace
from itertools import chain, takewhile
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.errors import HypothesisException
from hypothesis.stateful import run_state_machine_as_test

from snapspec.conformance.draw import PLAIN, Limits
from snapspec.conformance.history import Finding, Step, call_text
from snapspec.conformance.machines import SnapshotMachine
from snapspec.conformance.scenarios import SCENARIOS
from snapspec.conformance.session import Diverged, Session, replay
from snapspec.model import ops
from snapspec.model.ops import Operation

T = TypeVar("T")

#: Histories that Hypothesis draws under one seed; between batches the clock is looked at.
BATCH = 25

#: Calls in one drawn history.
STEPS = 30

#: How long, in seconds, a finding is made shorter at most.
SHORTENING = 60.0


@dataclass
class Search:
    """What is still to do, and what was found. `report` is called before each history."""

    session: Session
    limits: Limits
    until: float
    report: Callable[[], None]
    best: Finding | None = None

    def wanted(self) -> bool:
        """Whether another history may begin: Hypothesis asks before each."""
        self.report()
        return self.best is None and not self.session.over and time.monotonic() < self.until

    def found(self, finding: Finding) -> None:
        """Keep the first finding."""
        if self.best is None:
            self.best = finding

    def run_scenarios(self, number: int = 0, workers: int = 1, chance: int = 0) -> None:
        """Every written history that falls to this one of the workers, until one finds something; nothing is left to chance."""
        for make in SCENARIOS[number::workers]:
            if self.wanted():
                calls = (op for op in make() if type(op).__name__.lower() not in self.limits.without)
                found = scenario(self.session, takewhile(lambda _: self.wanted(), calls))
                if found is not None:
                    self.found(found)

    def run_batch(self, examples: int, number: int) -> None:
        """Draw `examples` histories under the seed `number`, until one finds something. Raises what goes wrong in the kit."""

        def machine() -> SnapshotMachine:
            return SnapshotMachine(self.session, self.limits, self.wanted, self.found)

        try:
            drawn: Any = seed(number)(machine)
            run_state_machine_as_test(drawn, settings=hypothesis_settings(examples, STEPS))
        except Diverged:
            return
        except Exception as error:
            if self.session.hindrance is not None:
                raise self.session.hindrance from None
            # Once no history is wanted, because something was found or time is up, the machine does nothing any more, and
            # Hypothesis takes that for a fault.
            ended = isinstance(error, HypothesisException) and not self.wanted()
            if self.best is None and not ended:
                raise

    def shorten(self) -> None:
        """Make the finding shorter, by replays on the same subject. One that leaves a call behind is not replayed here."""
        until = time.monotonic() + SHORTENING

        def wanted() -> bool:
            self.report()
            return not self.session.over and time.monotonic() < until

        if self.best is not None:
            self.best = shorten(self.best, lambda steps: replay(self.session, steps), wanted)


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


def hypothesis_settings(examples: int, steps: int) -> settings:
    """Generate only: histories are made shorter here, by call, as a reader sees them, and sooner."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        phases=(Phase.generate,),
        database=None,
        deadline=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
    )


#: Makes the calls of a history again: what the spec does not allow, or None.
Again = Callable[[tuple[Step, ...]], Finding | None]


def shorten(best: Finding, again: Again, wanted: Callable[[], bool]) -> Finding:
    """The finding after calls were left out and made simpler, as long as the same clause breaks when made `again`."""
    shorter: Finding | None = best
    while shorter is not None:
        best, shorter = shorter, _shorten_once(shorter, again, wanted)
    return best


def _shorten_once(best: Finding, again: Again, wanted: Callable[[], bool]) -> Finding | None:
    calls = tuple(step for step in best.steps if not step.check)
    for steps in chain(_undisturbed(calls, best.steps[-1]), _shorter(calls)):
        if not wanted():
            break
        found = again(steps) if steps else None
        if found is not None and found.clause == best.clause and size(found) < size(best):
            return found
    return None


def _undisturbed(calls: tuple[Step, ...], last: Step) -> Iterator[tuple[Step, ...]]:
    """What only a look after a call has shown may be there without that call."""
    if last.check and len(calls) > 1:
        yield (*calls[:-1], replace(last, check=False))


def _shorter(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """The end of the history alone, then all with fewer calls, with a layer less, with one call made simpler, with a plain name
    for an odd one."""
    yield from _ends(steps)
    yield from fewer(steps)
    for at, step in enumerate(steps):
        if isinstance(step.op, ops.Commit):
            yield _without_layer(steps, at, step.op)
    for at, step in enumerate(steps):
        for op in simpler(step.op):
            yield (*steps[:at], replace(step, op=op), *steps[at + 1 :])
    named = [name for step in steps for name in _names(step.op)]
    for name in dict.fromkeys(name for name in named if name and name not in PLAIN):
        for plain in [p for p in PLAIN if p not in named][:1]:
            yield tuple(replace(step, op=_renamed(step.op, name, plain)) for step in steps)


def _ends(items: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """The last item, the last two, the last four, and so on."""
    length = 1
    while length < len(items):
        yield items[-length:]
        length *= 2


def _without_layer(steps: tuple[Step, ...], at: int, commit: ops.Commit) -> tuple[Step, ...]:
    """The history without the snapshot that `commit`, the step numbered `at`, ends; what stood on it stands on its parent."""
    made = [n for n, step in enumerate(steps[:at]) if isinstance(step.op, ops.Prepare) and step.op.key == commit.key]
    start = made[-1] if made else at
    parent = getattr(steps[start].op, "parent", "")
    others = tuple(step for step in steps[start:at] if commit.key not in _names(step.op))
    later = tuple(replace(step, op=_renamed(step.op, commit.name, parent)) for step in steps[at + 1 :])
    return steps[:start] + others + later


def fewer(items: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """The items without half of them, without a quarter, and so on down to a single one. Of calls the last ones matter most."""
    length = len(items) // 2
    while length:
        for start in range(0, len(items), length):
            yield items[:start] + items[start + length :]
        length //= 2


def simpler(op: Operation) -> Iterator[Operation]:
    """The same call with one thing less (see `with_less`)."""
    if isinstance(op, ops.Nowhere):
        yield from (replace(op, call=call) for call in simpler(op.call) if isinstance(call, ops.Nameable))
    else:
        yield from with_less(op)


def with_less(op: T) -> Iterator[T]:
    """The same call with one thing less: an argument left out, or one item of an argument that has several."""
    call: Any = op
    for field in fields(call):
        value = getattr(call, field.name)
        if field.default is not MISSING and value != field.default:
            yield _with(op, field.name, field.default)
        if isinstance(value, tuple) and len(value) > 1:
            yield from (_with(op, field.name, less) for less in fewer(value))


def _with(op: T, field: str, value: object) -> T:
    changed: Callable[..., T] = replace
    return changed(op, **{field: value})


def _names(op: Operation) -> list[str]:
    """The keys and names that the call names."""
    if isinstance(op, ops.Nowhere):
        return _names(op.call)
    dropped = op.dropped if isinstance(op, ops.Collect) else ()
    return [*(getattr(op, field, "") for field in ("key", "name", "parent")), *dropped]


def _renamed(op: Operation, old: str, new: str) -> Operation:
    """The call with the one name for the other; what stands in a filter stays."""
    if isinstance(op, ops.Nowhere):
        return replace(op, call=_renamed(op.call, old, new))  # type: ignore[arg-type]  # it stays the call that it is
    if isinstance(op, ops.Collect):
        return replace(op, dropped=tuple(new if key == old else key for key in op.dropped))
    for field in ("key", "name", "parent"):
        if getattr(op, field, "") == old:
            op = _with(op, field, new)
    return op


def size(finding: Finding) -> tuple[int, int]:
    """What makes one history shorter than another: fewer calls, then less to read in them."""
    return len(finding.calls), sum(len(call_text(step.op)) for step in finding.calls)
