"""The search of drivers: written scenarios, drawn histories, and how one of their findings is made shorter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, takewhile
from typing import TypeVar

from snapspec.conformance.base_search import BaseSearch
from snapspec.conformance.draw import PLAIN
from snapspec.conformance.durable import InFlight, Restart, restart
from snapspec.conformance.durable.restart import replay_surely
from snapspec.conformance.faults import Faulted
from snapspec.conformance.history import Finding, Step, call_text
from snapspec.conformance.machines import SnapshotMachine
from snapspec.conformance.scenarios import QUICK, SLOW
from snapspec.conformance.session import Session
from snapspec.conformance.shorten import changed, fewer, shortest, with_less
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Failed

T = TypeVar("T")

#: Calls in the drawn histories of one batch after another.
LENGTHS = (6, 12, 30, 60)


class Search(BaseSearch[Session, Finding]):
    """The search for what departs from the spec of drivers."""

    def run_scenarios(self, number: int = 0, workers: int = 1, chance: int = 0) -> None:
        """See `BaseSearch`; nothing in these is left to chance."""
        restarts = self.session.subject.restarts
        self._run(restart.scenarios(restarts == "kill", self.limits)[number::workers] if restarts else QUICK[number::workers])

    def run_slow_scenarios(self, number: int = 0, workers: int = 1) -> None:
        """See `BaseSearch`."""
        self._run(() if self.session.subject.restarts else SLOW[number::workers])

    def _run(self, written: Sequence[Callable[[], Iterator[Operation]]]) -> None:
        """Each until it shows nothing new: what follows in it would not be met otherwise."""
        for make in written:
            while self.wanted() and self.show(self._history(make)):
                self.go_on()

    def _history(self, make: Callable[[], Iterator[Operation]]) -> Callable[[], None]:
        calls = filter(self._possible, make())
        return scenario(self.session, takewhile(lambda _: self.wanted(), calls))

    def _possible(self, op: Operation) -> bool:
        reopens = self.session.subject.reopens or type(op) is not ops.Reopen
        return reopens and type(op).__name__.lower() not in self.limits.without

    def length(self, batch: int) -> int:
        """See `BaseSearch`: short ones, in which much shows soon, and long ones in turn. Each end of a process takes its time."""
        return self.steps if self.session.subject.restarts else LENGTHS[batch % len(LENGTHS)]

    def machine(self) -> SnapshotMachine:
        """See `BaseSearch`."""
        return SnapshotMachine(self.session, self.limits, self.wanted, self.found)

    def shortest(self, best: Finding, wanted: Callable[[], bool]) -> Finding:
        """See `BaseSearch`."""
        return shorten(best, lambda steps: replay_surely(self.session, steps), wanted)

    def again(self, found: Finding) -> Finding | None:
        """See `BaseSearch`."""
        return replay_surely(self.session, tuple(step for step in found.steps if not step.check))


def scenario(session: Session, calls: Iterator[Operation]) -> Callable[[], None]:
    """What makes the calls as one history."""

    def history() -> None:
        session.begin()
        for op in calls:
            session.do(op)
        session.end()

    return history


#: Makes the calls of a history again: what the spec does not allow, or None.
Again = Callable[[tuple[Step, ...]], Finding | None]


def shorten(best: Finding, again: Again, wanted: Callable[[], bool]) -> Finding:
    """The finding after calls were left out and made simpler, as long as the same clause breaks when made `again`."""
    tried: set[tuple[tuple[Operation, int], ...]] = set()

    def once(steps: tuple[Step, ...]) -> Finding | None:
        calls = tuple((step.op, step.space) for step in steps)
        if calls in tried:
            return None
        tried.add(calls)
        return again(steps)

    return shortest(best, _tries, once, size, wanted)


def _tries(best: Finding) -> Iterator[tuple[Step, ...]]:
    calls = tuple(step for step in best.steps if not step.check)
    if not calls:  # a look has shown it, before any call
        return iter(())
    return filter(None, chain(_undisturbed(calls, best.steps[-1]), _related(calls, best.steps[-1].op), _shorter(calls)))


def _undisturbed(calls: tuple[Step, ...], last: Step) -> Iterator[tuple[Step, ...]]:
    """What only a look after a call has shown may be there without that call."""
    if last.check and len(calls) > 1:
        yield (*calls[:-1], replace(last, check=False))


#: What a call may need beside what made the snapshots that it names: tried in this order.
_EFFECTS: tuple[tuple[type[Operation], ...], ...] = (
    (ops.Write,),
    (ops.Write, ops.Update, ops.Reopen),
    (ops.Write, ops.Prepare, ops.View),
    (ops.Write, ops.Update, ops.Reopen, ops.Remove, ops.Cleanup, ops.Mounts, ops.Usage),
)


def _related(steps: tuple[Step, ...], last: Operation) -> Iterator[tuple[Step, ...]]:
    """The end of the history with those calls alone that made what it names, and what that stands on, and have changed it."""
    for effects in _EFFECTS:
        wanted, kept = {*_names(last), *_names(steps[-1].op)}, list(steps[-1:])
        for step in reversed(steps[:-1]):
            names, made = _names(step.op), _made(step)
            if made in wanted:
                wanted = (wanted - {made}) | ({*names} - {made})
                kept.append(step)
            elif isinstance(step.op, effects) and not isinstance(step.response, Failed) and (not names or wanted & {*names}):
                kept.append(step)
        yield tuple(reversed(kept))


def _made(step: Step) -> str | None:
    """The name of the snapshot that the call has made, if it has."""
    if isinstance(step.response, Failed):
        return None
    match step.op:
        case ops.Prepare(made) | ops.View(made) | ops.Commit(made):
            return made
    return None


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


def simpler(op: Operation) -> Iterator[Operation]:
    """The same call with one thing less (see `with_less`)."""
    if isinstance(op, ops.Nowhere):
        yield from (replace(op, call=call) for call in simpler(op.call) if isinstance(call, ops.Nameable))
    elif isinstance(op, Faulted):
        yield from (replace(op, call=call) for call in simpler(op.call))
    else:
        yield from with_less(op)
    if isinstance(op, Restart):
        yield from _simpler_during(op)


def _simpler_during(op: Restart) -> Iterator[Restart]:
    """The same with one of the calls under way made simpler."""
    for at, call in enumerate(op.during):
        for less in simpler(call):
            if isinstance(less, InFlight):
                yield replace(op, during=(*op.during[:at], less, *op.during[at + 1 :]))


def _names(op: Operation) -> list[str]:
    """The keys and names that the call names."""
    if isinstance(op, ops.Nowhere | Faulted):
        return _names(op.call)
    if isinstance(op, Restart):
        return [name for call in op.during for name in _names(call)]
    dropped = op.dropped if isinstance(op, ops.Collect) else ()
    return [*(getattr(op, field, "") for field in ("key", "name", "parent")), *dropped]


def _renamed(op: Operation, old: str, new: str) -> Operation:
    """The call with the one name for the other; what stands in a filter stays."""
    if isinstance(op, ops.Nowhere | Faulted):
        return replace(op, call=_renamed(op.call, old, new))  # type: ignore[arg-type]  # it stays the call that it is
    if isinstance(op, Restart):
        return replace(op, during=tuple(_renamed(call, old, new) for call in op.during))  # type: ignore[misc]  # as above
    if isinstance(op, ops.Collect):
        return replace(op, dropped=tuple(new if key == old else key for key in op.dropped))
    for field in ("key", "name", "parent"):
        if getattr(op, field, "") == old:
            op = changed(op, field, new)
    return op


def size(finding: Finding) -> tuple[int, int]:
    """What makes one history shorter than another: fewer calls, then less to read in them."""
    return len(finding.calls), sum(len(call_text(step.op)) for step in finding.calls)
