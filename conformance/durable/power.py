"""Power cuts: histories on a pool whose image records what it is told, and images of what a disk may hold when its power fails.

Each image is mounted for real, checked, opened by the driver and judged by the two layers of the model.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any

from snapspec.conformance.aside import covered, kind_of
from snapspec.conformance.durable import InFlight, PowerCut, Restart, Together, images
from snapspec.conformance.durable.images import GRAINS, HOWS, Cut
from snapspec.conformance.durable.place import Place
from snapspec.conformance.durable.recorded import Recorded, drawn, record, written
from snapspec.conformance.durable.recorder import Event, Told
from snapspec.conformance.durable.survivor import judge
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding, call_text
from snapspec.conformance.kind import Kind
from snapspec.conformance.search import simpler
from snapspec.conformance.session import Diverged
from snapspec.conformance.shorten import fewer, shortest
from snapspec.model import ops
from snapspec.model.ops import Operation

#: How many images are made of one history.
IMAGES = 25

#: Seconds that a finding is made shorter at most.
SHORTENING = 60.0

#: So many histories that end before their power is cut end a run.
SPOILED = 20

#: How often a cut is drawn anew that would leave nothing open.
_REDRAWN = 2


@dataclass
class Powered:
    """What a run has done and found. `hows` counts the images by what the disk kept, `during` by what was under way."""

    histories: int = 0
    calls: int = 0
    writes: int = 0
    flushes: int = 0
    images: int = 0
    divergences: int = 0
    hows: Counter[str] = field(default_factory=Counter)
    during: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    finding: Finding | None = None
    shrinking: bool = False
    kinds: frozenset[Kind] = frozenset()
    """The kinds of all findings, which are set aside."""

    def tell(self, events: Sequence[Event]) -> None:
        """Count what the disk was told."""
        flushes = sum(event.told is Told.FLUSH for event in events)
        self.flushes += flushes
        self.writes += len(events) - flushes

    def numbers(self) -> dict[str, Any]:
        """All that can be added up."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def text(self) -> str:
        """The numbers on one line."""
        return "; ".join(self.lines())

    def lines(self) -> Iterator[str]:
        """The numbers in words."""
        yield (
            f"{self.images} power-cut images of {self.histories} histories ({self.calls} calls, {self.writes} writes and "
            f"{self.flushes} flushes of the disk), {self.divergences} divergences"
        )
        copied = Counter({"all, as a plain copy of the image" if how == "all" else how: n for how, n in self.hows.items()})
        yield f"the disk kept: {_counted(copied, '; ')}"
        yield f"under way: {_counted(self.during, ', ')}"


_NUMBERS = tuple(f.name for f in fields(Powered) if f.name not in ("finding", "shrinking", "kinds"))


def _counted(counts: Counter[str], between: str) -> str:
    return between.join(f"{name} {count}" for name, count in sorted(counts.items()))


def total(numbers: Iterable[Mapping[str, Any]]) -> Powered:
    """The numbers of several runs together."""
    done = Powered()
    for each in numbers:
        for name, value in each.items():
            setattr(done, name, getattr(done, name) + (value if isinstance(value, int) else Counter(value)))
    return done


def run(
    here: Place,
    wanted: int,
    seed: int,
    *,
    per_history: int = IMAGES,
    until: float = float("inf"),
    report: Callable[[Powered], None] = lambda _: None,
    signals: Sequence[int] = (),
    done: Powered | None = None,
) -> Powered:
    """Draw histories and cuts under `seed` until `wanted` images were judged, something was found, or the clock is at `until`.

    What was found is made shorter. With `done`, what an earlier call has given, the run goes on, and what that found is set
    aside. The same seed draws the same as long as the driver answers the same. Raises SystemExit once `signals` holds something.
    """
    done, random, spoiled = done or Powered(), Random(seed), 0
    done.finding, done.shrinking = None, False
    while done.images < wanted and done.finding is None and spoiled < SPOILED and time.monotonic() < until:
        try:
            recorded = record(here, drawn(random, here.limits), signals)
        except Diverged as diverged:
            spoiled += 1
            done.finding = None if covered(kind_of(diverged.finding), done.kinds) else diverged.finding
            continue
        done.histories += 1
        done.calls += sum(len(step.op.calls) if isinstance(step.op, Together) else 1 for step in recorded.steps)
        done.tell(recorded.events)
        number = min(per_history, wanted - done.images)
        cuts = draw_cuts(random, recorded.events, recorded.spans(), number, here.whole)
        _judge_all(here, recorded, cuts, done, random, lambda: time.monotonic() < until, report, signals)
    if done.finding is not None:
        done.divergences, done.shrinking = done.divergences + 1, True
        report(done)
        found = done.finding
        done.finding = shorten(here, found, time.monotonic() + SHORTENING, signals)
        done.kinds |= {kind_of(found), kind_of(done.finding)}
    return done


def draw_cuts(random: Random, events: Sequence[Event], spans: Sequence[range], number: int, whole: tuple[int, ...]) -> list[Cut]:
    """Cuts in the order of their moments: at any event, within a call, and just before a flush, where most is open.

    `spans` are the moments of the calls, `whole` are the blocks that no cut tears.
    """
    choices = [range(len(events) + 1), [cut.moment for cut in images.each(events)], *spans]
    weights = [1.0, 1.0, *(3.0 / len(spans) for _ in spans)]

    def moment() -> int:
        return random.choice(random.choices(choices, weights)[0])

    def open_moment() -> int:
        """Most moments after a flush tell little: nothing is open at them."""
        drawn = [moment() for _ in range(1 + _REDRAWN)]
        return next((at for at in drawn if images.flushed(events, at) < at), drawn[0])

    return [images.draw(random, events, at, whole) for at in sorted(open_moment() for _ in range(number))]


def _judge_all(
    here: Place,
    recorded: Recorded,
    cuts: Sequence[Cut],
    done: Powered,
    random: Random,
    wanted: Callable[[], bool],
    report: Callable[[Powered], None],
    signals: Sequence[int],
) -> None:
    disk = here.disk(recorded.events)
    for cut in cuts:
        report(done)
        if not wanted():
            return
        kernel = random.random() < 0.5
        found = judge(here, recorded, disk, cut, kernel=kernel, reached=done.reached, signals=signals)
        done.finding = None if found is None or covered(kind_of(found), done.kinds) else found
        done.images += 1
        done.hows[cut.how if images.pieces(recorded.events, cut.moment, cut.grain) else "nothing open"] += 1
        during = recorded.known(cut.moment).during
        done.during[f"{len(during)} together" if len(during) > 1 else _name(during)] += 1
        if done.finding is not None:
            return


def _name(during: tuple[Operation, ...]) -> str:
    return type(during[0]).__name__.lower() if during else "none"


# --- again, and shorter


def calls_of(found: Finding) -> tuple[Operation, ...]:
    """The calls of the history that was cut, those under way included."""
    made: list[Operation] = []
    for step in found.steps:
        if isinstance(step.op, PowerCut):
            made += _as_one(step.op.during)
        elif not step.check:
            made.append(step.op)
    return tuple(made)


def _as_one(calls: tuple[Operation, ...]) -> tuple[Operation, ...]:
    """The step in which these calls begin together; no step for none."""
    together = tuple(call for call in calls if isinstance(call, InFlight))
    return (Together(calls=together),) if len(together) > 1 else calls


def try_each(
    here: Place,
    calls: Sequence[Operation],
    cut: PowerCut | None = None,
    signals: Sequence[int] = (),
    *,
    at_end: bool = False,
    plainest: bool = True,
) -> Finding | None:
    """What the plainest images of a given history show: none and all of what each flush was to make safe.

    `cut`: before these the image that it describes, as far as the file system does again what it did; without `plainest` that
    one alone. `at_end`: those alone that the last of the calls leaves, or what comes after it.
    """
    try:
        recorded = record(here, written(calls), signals)
    except Diverged as diverged:
        return diverged.finding
    again = [] if cut is None else [_again(here, recorded, cut)]
    first = recorded.base(_last_call(recorded), begun=True) if at_end else 0
    others = [each for each in images.each(recorded.events) if plainest and each.moment >= first]
    for cuts, ways in ((again, (True, False)), (others, (False,))):
        disk = here.disk(recorded.events)
        for each in cuts:
            for kernel in ways:
                found = judge(here, recorded, disk, each, kernel=kernel, signals=signals)
                if found is not None:
                    return found
    return None


def _last_call(recorded: Recorded) -> int:
    """The number of the step that is the last of the calls."""
    return next((number for number in range(len(recorded.steps) - 1, -1, -1) if not recorded.steps[number].check), 0)


def _again(here: Place, recorded: Recorded, cut: PowerCut) -> Cut:
    """The cut of this recording that is most like the one that was found."""
    base = recorded.base(_last_call(recorded) if cut.during else len(recorded.steps), begun=bool(cut.during))
    moment = min(base + cut.told, len(recorded.events))
    how = next(how for how in HOWS if how == cut.how)
    return images.like(recorded.events, moment, how, cut.grain, cut.bits, here.whole)


#: How often a saved history is made again: the file system writes some things when it pleases.
TRIES = 3


def replay(here: Place, saved: Finding, signals: Sequence[int] = ()) -> Finding | None:
    """Make the calls of a saved finding again, and the image that it tells of. CannotRun for one that is no such history."""
    cut = _power_cut(saved)
    calls = calls_of(saved)
    for number in range(TRIES):
        found = try_each(here, calls, cut, signals, at_end=True, plainest=number == TRIES - 1)
        if found is not None:
            return found
    return None


def _power_cut(saved: Finding) -> PowerCut | None:
    """The cut of a history that has one at most, and nothing that a pool cannot do; CannotRun for any other."""
    cuts = [step.op for step in saved.steps if isinstance(step.op, PowerCut)]
    given = [call for step in saved.steps for call in _parts(step.op)]
    wrong = next((call for call in given if isinstance(call, Restart | PowerCut | Together | ops.Collect | ops.Nowhere)), None)
    if len(cuts) > 1 or wrong is not None or any(step.space for step in saved.steps):
        what = "power cuts" if wrong is None else call_text(wrong)
        raise CannotRun(f"the history has {what} that cannot be made again here: give a file that check --power has saved")
    cut = cuts[0] if cuts else None
    if cut is not None and (cut.how not in HOWS or cut.grain not in GRAINS or min(cut.told, cut.open) < 0):
        raise CannotRun(f"{cut.how!r} with pieces of {cut.grain} is no power cut: give a file that check --power has saved")
    return cut


def _parts(op: Operation) -> tuple[Operation, ...]:
    """The calls that a step consists of."""
    if isinstance(op, PowerCut):
        return op.during
    return op.calls if isinstance(op, Together) else (op,)


def shorten(here: Place, found: Finding, until: float, signals: Sequence[int] = ()) -> Finding:
    """The finding with calls left out and made simpler, as long as the plainest images of what is left break the same clause."""

    def again(calls: tuple[Operation, ...]) -> Finding | None:
        return try_each(here, calls, _last_cut(found), signals, at_end=True)

    return shortest(found, lambda best: _less(calls_of(best)), again, _size, lambda: time.monotonic() < until)


def _last_cut(found: Finding) -> PowerCut | None:
    return next((step.op for step in found.steps if isinstance(step.op, PowerCut)), None)


def _size(found: Finding) -> tuple[int, ...]:
    """Fewer calls, then less to read in them."""
    calls = [call for op in calls_of(found) for call in _parts(op)]
    return len(calls), sum(len(call_text(op)) for op in calls_of(found))


def _less(calls: tuple[Operation, ...]) -> Iterator[tuple[Operation, ...]]:
    """The history with fewer calls, with fewer together, with one made simpler."""
    yield from (less for less in fewer(calls) if less)
    for at, op in enumerate(calls):
        yield from ((*calls[:at], *less, *calls[at + 1 :]) for less in _simpler(op))


def _simpler(op: Operation) -> Iterator[tuple[Operation, ...]]:
    if not isinstance(op, Together):
        yield from ((less,) for less in simpler(op))
        return
    yield op.calls  # one after another
    for fewer_calls in fewer(op.calls):
        yield _as_one(fewer_calls)
    for at, call in enumerate(op.calls):
        for less in simpler(call):
            if isinstance(less, InFlight):
                yield (replace(op, calls=(*op.calls[:at], less, *op.calls[at + 1 :])),)
